"""Entry point of functions behind the API. Every error response is an RFC 9457 problem."""

import json
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response
from aws_lambda_powertools.event_handler.middlewares import NextMiddleware
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestValidationError
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEvent
from aws_lambda_powertools.utilities.typing import LambdaContext

from modelhaul import wiring
from modelhaul.domain import errors
from modelhaul.domain.read_keys import KEY_PATTERN
from modelhaul.entrypoints.callers import read_caller
from modelhaul.entrypoints.logs import create_logger
from modelhaul.entrypoints.problems import (
    create_error_response,
    create_invalid_response,
    create_no_route_response,
    create_problem,
)
from modelhaul.entrypoints.requests import digest_request, label_as_json, read_form_type
from modelhaul.settings import CorsSettings

_IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,255}")
_MAX_SHOWN = 40  # characters of an invalid key in a message
UNSTORED = "This route does not accept an Idempotency-Key, because its responses contain secrets and are not stored."

_EXPOSED_HEADERS = "Link, Location, Retry-After"  # headers that browsers hide from other origins by default

# Query parameters of a presigned request's signature, which API Gateway has already verified:
# https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html
_SIGNATURE_PREFIX = "x-amz-"


def create_app() -> APIGatewayRestResolver:
    """Create a resolver that validates with pydantic, rejects unknown query parameters and maps errors to problems."""
    app = APIGatewayRestResolver(enable_validation=True, json_body_deserializer=_parse_json)
    app.use([_check_query_names])
    app.exception_handler(errors.ModelhaulError)(create_error_response)
    app.exception_handler(RequestValidationError)(create_invalid_response)
    app.not_found(create_no_route_response)
    return app


def _parse_json(text: str) -> Any:
    """Parse JSON. Raises JSONDecodeError, also for deep nesting and for integers of more than 4,300 digits."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        raise json.JSONDecodeError(type(error).__name__, "", 0) from None


def _check_query_names(app: APIGatewayRestResolver, next_middleware: NextMiddleware) -> Response[str]:
    """Raise RequestValidationError for query parameters that the route does not declare."""
    known = [field.alias for field in app.context["_route"].dependant.query_params]
    given = app.current_event.multi_value_query_string_parameters
    unknown = [name for name in given if name not in known and not name.lower().startswith(_SIGNATURE_PREFIX)]
    if unknown:
        supported = f"supported parameters: {', '.join(known)}" if known else "this route has no query parameters"
        message = f"unknown query parameter; {supported}"
        raise RequestValidationError([{"type": "unknown", "loc": ("query", name), "msg": message} for name in unknown])
    return next_middleware(app)


def handle_request(
    app: APIGatewayRestResolver,
    event: dict[str, Any],
    context: LambdaContext,
    *,
    accepts_forms: bool = False,
    stores_responses: bool = True,
) -> dict[str, Any]:
    """Handle an API Gateway REST event. An unexpected exception is logged, and the response is a 500.

    Bodies are parsed as JSON regardless of their Content-Type, because `curl -d` without a header sends JSON as a form.
    The exception is a `multipart/form-data` body for an app that `accepts_forms`. `stores_responses` is False for an
    app with secrets in its responses, which then rejects a POST with an Idempotency-Key.
    """
    logger = create_logger()
    logger.set_correlation_id(context.aws_request_id)
    logger.append_keys(caller=read_caller(event))
    try:
        response = _respond_once(app, event, context, accepts_forms=accepts_forms, stores_responses=stores_responses)
    except Exception:
        logger.exception("unexpected error")
        problem = create_problem(
            "internal-error",
            HTTPStatus.INTERNAL_SERVER_ERROR,
            f"Internal error. Request ID: {context.aws_request_id}.",
        )
        return _serialize_response(problem)
    # A client may have sent a key instead of its ID.
    path = KEY_PATTERN.sub("hf_…", event.get("path") or "")
    logger.info("sent response", path=path, method=event.get("httpMethod"), status=response["statusCode"])
    return response


def _respond_once(
    app: APIGatewayRestResolver,
    event: dict[str, Any],
    context: LambdaContext,
    *,
    accepts_forms: bool,
    stores_responses: bool,
) -> dict[str, Any]:
    """Handle a request. A repeated POST with the same Idempotency-Key returns the response of the first one.

    https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
    """

    request = APIGatewayProxyEvent(event)

    def resolve() -> dict[str, Any]:
        is_form = accepts_forms and read_form_type(request) is not None
        return app.resolve(event if is_form else label_as_json(event), context)

    key = request.headers.get("idempotency-key")
    if key is None or request.http_method != "POST":
        return resolve()
    try:
        if not stores_responses:
            raise errors.InvalidIdempotencyKeyError(UNSTORED)
        if not _IDEMPOTENCY_KEY.fullmatch(key):
            shown = key if len(key) <= _MAX_SHOWN else f"{key[:_MAX_SHOWN]}…"
            raise errors.InvalidIdempotencyKeyError(
                f"Invalid Idempotency-Key {shown!r} ({len(key)} characters). It must have 1 to 255 printable ASCII "
                "characters without spaces."
            )
        # Created here and not at the cold start, because loading the response store takes 250 ms.
        return wiring.create_response_store().respond_once(
            resolve,
            scope=[request.resource, *request.path_parameters.values(), _find_caller(event)],
            key=key,
            digest=digest_request(request),
            context=context,
        )
    except errors.ModelhaulError as error:
        return _serialize_response(create_error_response(error))


def _find_caller(event: dict[str, Any]) -> str:
    """Return the ID of the API key, or of the IAM principal that signed the request."""
    identity = event.get("requestContext", {}).get("identity") or {}
    return identity.get("apiKeyId") or identity.get("caller") or ""


def _serialize_response(response: Response[str]) -> dict[str, Any]:
    """Convert a response that no route has created to the format of API Gateway's Lambda proxy integration."""
    headers = {name: value if isinstance(value, list) else [value] for name, value in response.headers.items()}
    return {
        "statusCode": response.status_code,
        "multiValueHeaders": {**headers, "Content-Type": [response.content_type]},
        "body": response.body,
        "isBase64Encoded": False,
    }


def _add_cors_headers(response: dict[str, Any]) -> dict[str, Any]:
    """Add the CORS headers with which pages of the allowed origin can read the response.

    `template.yaml` defines the preflight responses and the headers of API Gateway's own responses.
    """
    origin = CorsSettings.read().cors_allow_origin
    if not origin:
        return response
    allowed = {"Access-Control-Allow-Origin": [origin], "Access-Control-Expose-Headers": [_EXPOSED_HEADERS]}
    return {**response, "multiValueHeaders": {**response["multiValueHeaders"], **allowed}}


type Handler = Callable[[dict[str, Any], LambdaContext], dict[str, Any]]


def create_handler(
    app: APIGatewayRestResolver, *, accepts_forms: bool = False, stores_responses: bool = True
) -> Handler:
    """Create a Lambda handler that calls `handle_request` and adds CORS headers."""

    def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
        return _add_cors_headers(
            handle_request(app, event, context, accepts_forms=accepts_forms, stores_responses=stores_responses)
        )

    return handler
