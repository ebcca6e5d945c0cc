"""Loads a function's handler as Lambda does, and calls it with API Gateway's events."""

import importlib.util
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


@dataclass
class Context:
    """What handlers use of LambdaContext."""

    function_name: str = "function"
    memory_limit_in_mb: int = 512
    invoked_function_arn: str = "arn:aws:lambda:eu-west-1:123456789012:function:function"
    aws_request_id: str = "request-1"
    seconds: float = 300.0

    def get_remaining_time_in_millis(self) -> int:
        return int(self.seconds * 1000)


@cache
def load_handler(function: str) -> Any:
    path = ROOT / "functions" / function / "handler.py"
    spec = importlib.util.spec_from_file_location(f"functions.{function}.handler", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.handler


def read_event(name: str) -> dict[str, Any]:
    event: dict[str, Any] = json.loads((ROOT / "events" / f"{name}.json").read_text())
    return event


@dataclass(frozen=True)
class Response:
    status: int
    headers: dict[str, str]
    text: str

    @property
    def body(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.text)
        return parsed


def call_api(function: str, event: dict[str, Any], *, body: object = None, raw: str | None = None) -> Response:
    """`body` is sent as JSON, `raw` as it is."""
    if body is not None or raw is not None:
        event = {**event, "body": raw if raw is not None else json.dumps(body)}
    returned = load_handler(function)(event, Context())
    headers = {name.lower(): values[0] for name, values in returned["multiValueHeaders"].items()}
    response = Response(returned["statusCode"], headers, returned["body"])
    check_documented(event, response)
    return response


def check_documented(event: dict[str, Any], response: Response) -> None:
    """Assert that the API's document lists the response's status, and its problem type, for the event's route."""
    route = read_document()["paths"].get(event["resource"], {}).get(event["httpMethod"].lower())
    if route is None:  # an event of a route that does not exist
        return
    assert str(response.status) in route["responses"], f"{event['resource']}: {response.status} is not documented"
    if response.headers.get("content-type") == "application/problem+json":
        kind = response.body["type"].rpartition(":")[2]
        assert f"`{kind}`" in route["responses"][str(response.status)]["description"], (
            f"{event['resource']}: {response.status} {kind} is not documented"
        )


@cache
def read_document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((ROOT / "functions" / "read_docs" / "openapi.json").read_text())
    return document
