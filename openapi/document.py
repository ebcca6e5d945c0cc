"""Generate the OpenAPI document of all routes from the functions' handlers."""

import importlib.util
import json
import re
import tomllib
from pathlib import Path
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayRestResolver
from aws_lambda_powertools.event_handler.openapi.merge import OpenAPIMerge

from modelhaul.domain import errors
from modelhaul.entrypoints.documents import describe_headers, describe_problem
from openapi.examples import EXAMPLES, PROBLEMS, Example, show_problem
from openapi.responses import describe_bodies

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "functions" / "read_docs" / "openapi.json"
SECURITY = "apiKey"
DESCRIPTION = """\
Modelhaul imports AI models from the Hugging Face Hub, GitHub and ZIP archives into Amazon S3, and verifies every file.

An import runs in the background. A POST request returns immediately; its response links to the import's task in the
header `Location` or `Link`. The task shows the progress and the result. Every error response is a problem document
(RFC 9457) with a stable `type`.

Send the API key in the header `x-api-key`. With AuthMode=IAM, sign the request with Signature Version 4 instead, which
the page `/v1/docs` cannot do.
"""
# Displayed where the key is entered.
KEY_DESCRIPTION = (
    "Ask an operator for the API key, or read it with `aws apigateway get-api-key --include-value --api-key API_KEY_ID "
    "--query value --output text`. `API_KEY_ID` is the stack output `ApiKeyId`. The key of a local stack is `api_key` "
    "in `.local/stack.json`. A read key (`hf_…`) is not an API key."
)
TAGS = {
    "Uploads": "Start imports.",
    "Tasks": "Follow and cancel imports.",
    "Models": "List, get, download and delete imported models.",
    "Follows": "Import the commits of a branch or a tag as it moves.",
    "Keys": "Create, list and delete the keys of the Hub read API.",
    "Documentation": "Get the OpenAPI document.",
}
# Problems that every route can return, from API Gateway or from its function. The examples have statuses and titles.
COMMON = (
    "invalid-api-key",
    "throttled",
    "quota-exceeded",
    "internal-error",
    "storage-unavailable",
    "gateway-timeout",
)
# Responses with secrets are not stored, so these routes do not accept an Idempotency-Key.
SECRET_ROUTES = {"/keys"}
# Problems that every other POST can return for its Idempotency-Key.
IDEMPOTENCY_ERRORS = (
    errors.InvalidIdempotencyKeyError,
    errors.IdempotencyKeyReusedError,
    errors.RequestInProgressError,
)
IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "A unique value, such as a UUID. For 24 hours, a repeated request with the same key returns the "
    "stored response. Responses with 429, 5xx or Retry-After are not stored.",
    "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
}
_GREEDY = "/.+"
_PROBLEM = "application/problem+json"
_ADDED_BY_POWERTOOLS = ("HTTPValidationError", "ValidationError", "ResponseValidationError")


def load_apps() -> dict[str, APIGatewayRestResolver]:
    """Load the resolvers of the functions behind the API. Keys are the names of the functions."""
    apps: dict[str, APIGatewayRestResolver] = {}
    for path in sorted((ROOT / "functions").glob("*/handler.py")):
        name = path.parent.name
        spec = importlib.util.spec_from_file_location(f"functions.{name}.handler", path)
        if spec is None or spec.loader is None:
            raise ImportError(f"Cannot load {path}.")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        if isinstance(app := getattr(module, "app", None), APIGatewayRestResolver):
            apps[name] = app
    return apps


def build_document() -> dict[str, Any]:
    """Return the document: the merged schemas of all functions, with problems, examples and components added."""
    merge = OpenAPIMerge(
        title="Modelhaul API",
        version=tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"],
        description=DESCRIPTION,
        on_conflict="error",
    )
    for app in load_apps().values():
        merge.add_schema(app.get_openapi_schema().model_dump(by_alias=True, exclude_none=True, mode="json"))
    document = merge.get_openapi_schema()
    # Relative to the URL of the document, because the API's URL differs between stacks.
    document["servers"] = [{"url": "./", "description": "This API"}]
    document["security"] = [{SECURITY: []}]
    document["tags"] = [{"name": name, "description": text} for name, text in TAGS.items()]
    components = document["components"]
    components["securitySchemes"] = {
        SECURITY: {"type": "apiKey", "in": "header", "name": "x-api-key", "description": KEY_DESCRIPTION}
    }
    for name in _ADDED_BY_POWERTOOLS:
        components["schemas"].pop(name, None)
    components["schemas"] |= describe_bodies()
    components["examples"] = {kind: {"value": problem} for kind, problem in PROBLEMS.items()}
    components["schemas"]["Document"] = {"type": "object", "required": ["openapi", "info", "paths"]}
    paths, document["paths"] = document["paths"], {}
    for path, operations in paths.items():
        documented_path = f"{path.removesuffix(_GREEDY)}/{{path}}" if path.endswith(_GREEDY) else path
        document["paths"][documented_path] = operations
        for method, operation in operations.items():
            # The name of the handler function is unique without the suffix.
            suffix = re.sub(r"\W", "_", path) + f"_{method}"
            operation["operationId"] = operation["operationId"].removesuffix(suffix)
            _complete_operation(operation, method, documented_path)
    ordered: dict[str, Any] = json.loads(json.dumps(document, sort_keys=True))
    return ordered


def _complete_operation(operation: dict[str, Any], method: str, path: str) -> None:
    _complete_parameters(operation, method, path)
    responses = operation["responses"]
    # Powertools adds its own validation response, and a schema to responses without a body.
    if "application/json" in responses.get("422", {}).get("content", {}):
        del responses["422"]
    for response in responses.values():
        if response.get("content", {}).get("application/json", {}).get("schema", {}).get("title") == "Return":
            del response["content"]
    for kind in COMMON:
        if kind != "invalid-api-key" or operation.get("security") != []:
            _add_problem(responses, kind)
    for error in IDEMPOTENCY_ERRORS if _accepts_idempotency_key(method, path) else ():
        _add_problem(responses, error.type)
    _add_examples(operation, EXAMPLES.get(f"{method.upper()} {path}", Example()))
    operation["responses"] = dict(sorted(responses.items()))


def _complete_parameters(operation: dict[str, Any], method: str, path: str) -> None:
    parameters = operation.setdefault("parameters", [])
    for parameter in parameters:
        parameter["schema"] = _without_null(parameter["schema"])
    if path.endswith("/{path}"):
        parameters.append({"name": "path", "in": "path", "required": True, "schema": {"type": "string"}})
    if _accepts_idempotency_key(method, path):
        parameters.append(IDEMPOTENCY_KEY)


def _accepts_idempotency_key(method: str, path: str) -> bool:
    return method == "post" and path not in SECRET_ROUTES


def _add_examples(operation: dict[str, Any], example: Example) -> None:
    for parameter in operation["parameters"]:
        if parameter["in"] == "path":
            parameter["example"] = example.path[parameter["name"]]
    if example.body is not None:
        operation["requestBody"]["content"]["application/json"]["example"] = example.body
    own = {error.type: show_problem(error) for error in example.problems}
    for status, response in operation["responses"].items():
        for name, header in response.get("headers", {}).items():
            header["example"] = example.headers[name]
        for kind, content in response.get("content", {}).items():
            if kind == _PROBLEM:
                _add_problem_examples(response, content, own)
            else:
                content["example"] = example.responses[status]


def _add_problem_examples(response: dict[str, Any], content: dict[str, Any], own: dict[str, Any]) -> None:
    """Add the examples of a response, and the header Retry-After if one of the problems has it."""
    shown = content["examples"]
    shown |= {kind: {"value": own[kind]} for kind in shown.keys() & own.keys()}
    delays = [delay for kind in shown if (delay := (PROBLEMS | own)[kind].get("retry_after"))]
    if delays:
        response["headers"] = describe_headers(["Retry-After"])
        response["headers"]["Retry-After"]["example"] = str(min(delays))


def _add_problem(responses: dict[str, Any], kind: str) -> None:
    problem = PROBLEMS[kind]
    added: dict[str, Any] = dict(describe_problem({kind: problem["title"]}))
    known = responses.setdefault(str(problem["status"]), added)
    if known is not added:
        known["description"] += f" {added['description']}"
        known["content"][_PROBLEM]["examples"] |= added["content"][_PROBLEM]["examples"]


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a parameter without null. A URL parameter can be omitted, but not null."""
    kinds = [kind for kind in schema.get("anyOf", []) if kind != {"type": "null"}]
    if len(kinds) != 1:
        return schema
    return {**{key: value for key, value in schema.items() if key != "anyOf"}, **kinds[0]}


def render_document() -> str:
    """Return the document as formatted JSON."""
    return json.dumps(build_document(), indent=1, ensure_ascii=False) + "\n"
