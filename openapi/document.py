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

from modelhaul.documenting import describe_problem
from openapi.answers import describe_bodies
from openapi.examples import EXAMPLES

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
COMMON = {
    HTTPStatus.FORBIDDEN: "`invalid-api-key`: Send a valid API key in the header x-api-key.",
    HTTPStatus.TOO_MANY_REQUESTS: "`throttled`: Too many requests; `quota-exceeded`: The daily quota is used up.",
    HTTPStatus.INTERNAL_SERVER_ERROR: "`internal-error`: Something went wrong that should not have.",
    HTTPStatus.SERVICE_UNAVAILABLE: "`storage-unavailable`: Storage does not answer; try again.",
    HTTPStatus.GATEWAY_TIMEOUT: "`gateway-timeout`: No answer within 29 seconds; try again.",
}
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
    components["schemas"]["Document"] = {"type": "object", "required": ["openapi", "info", "paths"]}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _complete(operation, method, path)
    ordered: dict[str, Any] = json.loads(json.dumps(document, sort_keys=True))
    return ordered


def _complete(operation: dict[str, Any], method: str, path: str) -> None:
    # The function's name alone is unique here.
    operation["operationId"] = operation["operationId"].removesuffix(re.sub(r"\W", "_", path) + f"_{method}")
    for parameter in operation.get("parameters", []):
        parameter["schema"] = _without_null(parameter["schema"])
    responses = operation["responses"]
    # Powertools adds an answer of its own form to what it validates, and a text to what has no body.
    if "application/json" in responses.get("422", {}).get("content", {}):
        del responses["422"]
    for answer in responses.values():
        if answer.get("content", {}).get("application/json", {}).get("schema", {}).get("title") == "Return":
            del answer["content"]
    for status, words in COMMON.items():
        if status == HTTPStatus.FORBIDDEN and operation.get("security") == []:
            continue
        known = responses.setdefault(str(int(status)), describe_problem(""))
        known["description"] = f"{known['description']} {words}".strip()
    for status, example in EXAMPLES.get(f"{method.upper()} {path}", {}).items():
        (content,) = responses[status]["content"].values()
        content["example"] = example
    operation["responses"] = dict(sorted(responses.items()))


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter in an address may be left out, but not be null."""
    kinds = [kind for kind in schema.get("anyOf", []) if kind != {"type": "null"}]
    if len(kinds) != 1:
        return schema
    return {**{key: value for key, value in schema.items() if key != "anyOf"}, **kinds[0]}


def render_document() -> str:
    return json.dumps(build_document(), indent=1, ensure_ascii=False) + "\n"
