"""Readers of API Gateway requests."""

import base64
import hashlib
import json
import re
from typing import Any
from urllib.parse import unquote

from aws_lambda_powertools.event_handler.openapi.exceptions import RequestValidationError
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEvent
from pydantic import BaseModel, ValidationError

_BOUNDARY = re.compile(r'boundary="?([^";,\s]+)', re.IGNORECASE)


def digest_request(request: APIGatewayProxyEvent) -> str:
    """Return the SHA-256 of query and body, without a form's boundary, which most clients change for each retry."""
    body = read_body(request)
    boundary = _BOUNDARY.search(read_form_type(request) or "")
    if boundary is not None:
        body = body.replace(boundary[1].encode(), b"")
    query = json.dumps(request.multi_value_query_string_parameters, sort_keys=True)
    hasher = hashlib.sha256(query.encode())
    hasher.update(body)
    return hasher.hexdigest()


def label_as_json(event: dict[str, Any]) -> dict[str, Any]:
    """Return the event with the Content-Type `application/json` and a body of plain text."""
    headers = {name: value for name, value in (event.get("headers") or {}).items() if name.lower() != "content-type"}
    many = {n: v for n, v in (event.get("multiValueHeaders") or {}).items() if n.lower() != "content-type"}
    # API Gateway encodes bodies that are labelled as a form in base64. Bytes that are not UTF-8 are not JSON either.
    body = read_body(APIGatewayProxyEvent(event)).decode("utf-8", "replace") if event.get("isBase64Encoded") else None
    return {
        **event,
        **({} if body is None else {"body": body, "isBase64Encoded": False}),
        "headers": {**headers, "content-type": "application/json"},
        "multiValueHeaders": {**many, "content-type": ["application/json"]},
    }


def read_form_type(event: APIGatewayProxyEvent) -> str | None:
    """Return the Content-Type of a `multipart/form-data` body, None for any other body."""
    content_type = event.headers.get("content-type", "")
    return content_type if content_type.lower().startswith("multipart/form-data") else None


def read_body(event: APIGatewayProxyEvent) -> bytes:
    """Return the decoded body."""
    body = event.body or ""
    return base64.b64decode(body) if event.is_base64_encoded else body.encode()


def read_json[M: BaseModel](model: type[M], event: APIGatewayProxyEvent) -> M:
    """Parse the body as `model`, for routes that also accept other bodies. Raises RequestValidationError."""
    try:
        return model.model_validate_json(read_body(event))
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        raise RequestValidationError([{**e, "loc": ("body", *e["loc"])} for e in found]) from None


def read_greedy_path(event: APIGatewayProxyEvent, name: str) -> str:
    """Return the value of the path parameter `{name+}`, percent-decoded once.

    REST APIs pass path parameters percent-encoded, as the client sent them. HTTP APIs decode them and send events of
    format 1.0, which have a `version`. MiniStack sends such events for REST APIs.
    """
    value = event.path_parameters.get(name, "")
    return value if event.get("version") else unquote(value)
