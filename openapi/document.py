"""Makes the OpenAPI document of all routes out of the functions' handlers."""

import importlib.util
import json
import re
import tomllib
from http import HTTPStatus
from pathlib import Path
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayRestResolver
from aws_lambda_powertools.event_handler.openapi.merge import OpenAPIMerge

from modelhaul.domain import errors
from modelhaul.entrypoints.documents import describe_headers, describe_problem
from modelhaul.entrypoints.problems import find_status, find_title
from openapi.examples import EXAMPLES, PROBLEMS, Example, show_problem
from openapi.responses import describe_bodies

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "functions" / "read_docs" / "openapi.json"
SECURITY = "apiKey"
DESCRIPTION = """\
Brings AI models from the Hugging Face Hub, from GitHub and from ZIP archives into S3, verified.

A POST is answered at once with the `Location` of a task; the task says how far the import is. Every error is a
problem of RFC 9457 whose `type` is stable. Send the API key in the header `x-api-key`.
"""
TAGS = {
    "Uploads": "Start an import.",
    "Tasks": "Follow and cancel imports.",
    "Models": "What is here.",
    "Documentation": "This document.",
}
# What any route may be answered with before, or whatever, its function does.
COMMON: dict[int, dict[str, str]] = {
    HTTPStatus.FORBIDDEN: {"invalid-api-key": "Send a valid API key in the header x-api-key"},
    HTTPStatus.TOO_MANY_REQUESTS: {
        "throttled": "Too many requests",
        "quota-exceeded": "The daily quota is used up",
    },
    HTTPStatus.INTERNAL_SERVER_ERROR: {"internal-error": "Something went wrong that should not have"},
    HTTPStatus.SERVICE_UNAVAILABLE: {"storage-unavailable": "Storage does not answer; try again"},
    HTTPStatus.GATEWAY_TIMEOUT: {"gateway-timeout": "No answer within 29 seconds; try again"},
}
# What any POST may be answered with for its Idempotency-Key.
REPEATED = (errors.InvalidIdempotencyKeyError, errors.IdempotencyKeyReusedError, errors.RequestInProgressError)
IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same key with the same request is answered as before, for a day.",
    "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
}
_GREEDY = "/.+"
_PROBLEM = "application/problem+json"
_ADDED_BY_POWERTOOLS = ("HTTPValidationError", "ValidationError", "ResponseValidationError")


def load_apps() -> dict[str, APIGatewayRestResolver]:
    """The resolvers of the functions behind the API, by the functions' names."""
    apps: dict[str, APIGatewayRestResolver] = {}
    for path in sorted((ROOT / "functions").glob("*/handler.py")):
        name = path.parent.name
        spec = importlib.util.spec_from_file_location(f"functions.{name}.handler", path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} cannot be loaded")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        if isinstance(app := getattr(module, "app", None), APIGatewayRestResolver):
            apps[name] = app
    return apps


def build_document() -> dict[str, Any]:
    merge = OpenAPIMerge(
        title="Modelhaul",
        version=tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"],
        description=DESCRIPTION,
        on_conflict="error",
    )
    for app in load_apps().values():
        merge.add_schema(app.get_openapi_schema().model_dump(by_alias=True, exclude_none=True, mode="json"))
    document = merge.get_openapi_schema()
    # Relative to this document's own address, as the API's differs from stack to stack.
    document["servers"] = [{"url": "./", "description": "This API"}]
    document["security"] = [{SECURITY: []}]
    document["tags"] = [{"name": name, "description": words} for name, words in TAGS.items()]
    components = document["components"]
    components["securitySchemes"] = {SECURITY: {"type": "apiKey", "in": "header", "name": "x-api-key"}}
    for name in _ADDED_BY_POWERTOOLS:
        components["schemas"].pop(name, None)
    components["schemas"] |= describe_bodies()
    components["examples"] = {kind: {"value": problem} for kind, problem in PROBLEMS.items()}
    components["schemas"]["Document"] = {"type": "object", "required": ["openapi", "info", "paths"]}
    paths, document["paths"] = document["paths"], {}
    for path, operations in paths.items():
        named = f"{path.removesuffix(_GREEDY)}/{{path}}" if path.endswith(_GREEDY) else path
        document["paths"][named] = operations
        for method, operation in operations.items():
            # The function's name alone is unique here.
            suffix = re.sub(r"\W", "_", path) + f"_{method}"
            operation["operationId"] = operation["operationId"].removesuffix(suffix)
            _complete(operation, method, named)
    ordered: dict[str, Any] = json.loads(json.dumps(document, sort_keys=True))
    return ordered


def _complete(operation: dict[str, Any], method: str, path: str) -> None:
    _complete_parameters(operation, method, path)
    responses = operation["responses"]
    # Powertools adds an answer of its own form to what it validates, and a text to what has no body.
    if "application/json" in responses.get("422", {}).get("content", {}):
        del responses["422"]
    for answer in responses.values():
        if answer.get("content", {}).get("application/json", {}).get("schema", {}).get("title") == "Return":
            del answer["content"]
    for status, words in COMMON.items():
        if status != HTTPStatus.FORBIDDEN or operation.get("security") != []:
            _add_problem(responses, status, words)
    for kind in REPEATED if method == "post" else ():
        _add_problem(responses, find_status(kind), {kind.type: find_title(kind)})
    _add_examples(operation, EXAMPLES.get(f"{method.upper()} {path}", Example()))
    operation["responses"] = dict(sorted(responses.items()))


def _complete_parameters(operation: dict[str, Any], method: str, path: str) -> None:
    parameters = operation.setdefault("parameters", [])
    for parameter in parameters:
        parameter["schema"] = _without_null(parameter["schema"])
    if path.endswith("/{path}"):
        parameters.append({"name": "path", "in": "path", "required": True, "schema": {"type": "string"}})
    if method == "post":
        parameters.append(IDEMPOTENCY_KEY)


def _add_examples(operation: dict[str, Any], example: Example) -> None:
    for parameter in operation["parameters"]:
        if parameter["in"] == "path":
            parameter["example"] = example.path[parameter["name"]]
    if example.body is not None:
        operation["requestBody"]["content"]["application/json"]["example"] = example.body
    own = {error.type: show_problem(error) for error in example.problems}
    for status, answer in operation["responses"].items():
        for name, header in answer.get("headers", {}).items():
            header["example"] = example.headers[name]
        for kind, content in answer.get("content", {}).items():
            if kind == _PROBLEM:
                _add_problem_examples(answer, content, own)
            else:
                content["example"] = example.answers[status]


def _add_problem_examples(answer: dict[str, Any], content: dict[str, Any], own: dict[str, Any]) -> None:
    """With the header Retry-After, where one of the problems says when to come again."""
    shown = content["examples"]
    shown |= {kind: {"value": own[kind]} for kind in shown.keys() & own.keys()}
    pauses = [pause for kind in shown if (pause := (PROBLEMS | own)[kind].get("retry_after"))]
    if pauses:
        answer["headers"] = describe_headers(["Retry-After"])
        answer["headers"]["Retry-After"]["example"] = str(min(pauses))


def _add_problem(responses: dict[str, Any], status: int, words: dict[str, str]) -> None:
    added: dict[str, Any] = dict(describe_problem(words))
    known = responses.setdefault(str(int(status)), added)
    if known is not added:
        known["description"] += f" {added['description']}"
        known["content"][_PROBLEM]["examples"] |= added["content"][_PROBLEM]["examples"]


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter in an address may be left out, but not be null."""
    kinds = [kind for kind in schema.get("anyOf", []) if kind != {"type": "null"}]
    if len(kinds) != 1:
        return schema
    return {**{key: value for key, value in schema.items() if key != "anyOf"}, **kinds[0]}


def render_document() -> str:
    return json.dumps(build_document(), indent=1, ensure_ascii=False) + "\n"
