"""The edge for functions behind the API: requests in, RFC 9457 problems out."""

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

_EXPOSED = "Link, Location, Retry-After"  # to pages of another origin, beyond what browsers always show

# Of the signature of a presigned request, which API Gateway has checked:
# https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html
_SIGNATURE_PREFIX = "x-amz-"


def create_app() -> APIGatewayRestResolver:
    """A resolver whose every error is a problem; routes validate by pydantic, and refuse unknown query parameters."""
    app = APIGatewayRestResolver(enable_validation=True, json_body_deserializer=_parse_json)
    app.use([_check_query_names])
    app.exception_handler(errors.ModelhaulError)(create_error_response)
    app.exception_handler(RequestValidationError)(create_invalid_response)
    app.not_found(create_no_route_response)
    return app


def _parse_json(text: str) -> Any:
    """Raises JSONDecodeError, also for what Python cannot read: deep nesting, and integers above 4,300 digits."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        raise json.JSONDecodeError(type(error).__name__, "", 0) from None


def _check_query_names(app: APIGatewayRestResolver, next_middleware: NextMiddleware) -> Response[str]:
    """Raises RequestValidationError for query parameters that the route does not declare."""
    known = [field.alias for field in app.context["_route"].dependant.query_params]
    given = app.current_event.multi_value_query_string_parameters
    unknown = [name for name in given if name not in known and not name.lower().startswith(_SIGNATURE_PREFIX)]
    if unknown:
        described = f"known parameters: {', '.join(known)}" if known else "this route takes none"
        message = f"unknown query parameter; {described}"
        raise RequestValidationError([{"type": "unknown", "loc": ("query", name), "msg": message} for name in unknown])
    return next_middleware(app)


def handle_request(
    app: APIGatewayRestResolver, event: dict[str, Any], context: LambdaContext, *, takes_forms: bool = False
) -> dict[str, Any]:
    """Resolves an API Gateway REST event. What nobody foresaw is logged and answered as 500.

    Bodies are JSON, whatever they are labelled (`curl -d` without a header calls them a form), but for a form with
    parts where the app `takes_forms`.
    """
    logger = create_logger()
    logger.set_correlation_id(context.aws_request_id)
    try:
        answer = _respond_once(app, event, context, takes_forms=takes_forms)
    except Exception:
        logger.exception("unexpected error")
        problem = create_problem(
            "internal-error",
            HTTPStatus.INTERNAL_SERVER_ERROR,
            f"Something went wrong that should not have. In the log it is the request {context.aws_request_id}.",
        )
        return _write_response(problem)
    logger.info("answered", path=event.get("path"), method=event.get("httpMethod"), status=answer["statusCode"])
    return answer


def _respond_once(
    app: APIGatewayRestResolver, event: dict[str, Any], context: LambdaContext, *, takes_forms: bool
) -> dict[str, Any]:
    """A POST with an Idempotency-Key is answered as it was before, if it was.

    https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
    """

    request = APIGatewayProxyEvent(event)

    def resolve() -> dict[str, Any]:
        is_form = takes_forms and read_form_type(request) is not None
        return app.resolve(event if is_form else label_as_json(event), context)

    key = request.headers.get("idempotency-key")
    if key is None or request.http_method != "POST":
        return resolve()
    try:
        if not _IDEMPOTENCY_KEY.fullmatch(key):
            raise errors.InvalidIdempotencyKeyError("An Idempotency-Key has 1 to 255 visible characters of ASCII.")
        # What keeps answers is loaded (a quarter of a second) by those who ask for it.
        return wiring.create_response_store().respond_once(
            resolve,
            scope=[request.resource, _find_caller(event)],
            key=key,
            digest=digest_request(request),
            context=context,
        )
    except errors.ModelhaulError as error:
        return _write_response(create_error_response(error))


def _find_caller(event: dict[str, Any]) -> str:
    """Who asks: the id of the API key, or of who signed."""
    identity = event.get("requestContext", {}).get("identity") or {}
    return identity.get("apiKeyId") or identity.get("caller") or ""


def _write_response(response: Response[str]) -> dict[str, Any]:
    """As Lambda gives it to API Gateway, for what is answered without a route."""
    headers = {name: value if isinstance(value, list) else [value] for name, value in response.headers.items()}
    return {
        "statusCode": response.status_code,
        "multiValueHeaders": {**headers, "Content-Type": [response.content_type]},
        "body": response.body,
        "isBase64Encoded": False,
    }


def _allow_origin(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer with what lets pages of the allowed origin read it. The preflight, and the answers that API Gateway
    gives itself, are the template's.
    """
    origin = CorsSettings.read().cors_allow_origin
    if not origin:
        return answer
    allowed = {"Access-Control-Allow-Origin": [origin], "Access-Control-Expose-Headers": [_EXPOSED]}
    return {**answer, "multiValueHeaders": {**answer["multiValueHeaders"], **allowed}}


type Handler = Callable[[dict[str, Any], LambdaContext], dict[str, Any]]


def create_handler(app: APIGatewayRestResolver, *, takes_forms: bool = False) -> Handler:
    """A Lambda handler for the app, as `handle_request`."""

    def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
        return _allow_origin(handle_request(app, event, context, takes_forms=takes_forms))

    return handler
