"""The edge for functions behind the API: requests in, RFC 9457 problems out."""

import base64
import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.event_handler.middlewares import NextMiddleware
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestValidationError
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEvent
from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import BaseModel, ValidationError

from modelhaul import errors, wiring
from modelhaul.logs import create_logger
from modelhaul.model import UploadTicket
from modelhaul.presentation import format_time
from modelhaul.remedies import PROBLEM_REMEDIES
from modelhaul.settings import CorsSettings
from modelhaul.task import Task

_STATUS: dict[type[errors.ModelhaulError], HTTPStatus] = {
    errors.InvalidReferenceError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.InvalidRepositoryError: HTTPStatus.BAD_REQUEST,
    errors.ModelNotFoundError: HTTPStatus.NOT_FOUND,
    errors.RevisionNotFoundError: HTTPStatus.NOT_FOUND,
    errors.ModelFileNotFoundError: HTTPStatus.NOT_FOUND,
    errors.TaskNotFoundError: HTTPStatus.NOT_FOUND,
    errors.AccessRequiredError: HTTPStatus.FORBIDDEN,
    errors.ModelDisabledError: HTTPStatus.FORBIDDEN,
    errors.InvalidFormError: HTTPStatus.BAD_REQUEST,
    errors.ArchiveRefusedError: HTTPStatus.BAD_REQUEST,
    errors.NoModelInArchiveError: HTTPStatus.NOT_FOUND,
    errors.ArchiveTooLargeError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.ModelExistsError: HTTPStatus.CONFLICT,
    errors.ImportInProgressError: HTTPStatus.CONFLICT,
    errors.DeletionInProgressError: HTTPStatus.CONFLICT,
    errors.InvalidIdempotencyKeyError: HTTPStatus.BAD_REQUEST,
    errors.IdempotencyKeyReusedError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.RequestInProgressError: HTTPStatus.CONFLICT,
    errors.TaskEndedError: HTTPStatus.CONFLICT,
    errors.CredentialsRefusedError: HTTPStatus.BAD_GATEWAY,
    errors.UntrustedHostError: HTTPStatus.BAD_GATEWAY,
    errors.UnexpectedAnswerError: HTTPStatus.BAD_GATEWAY,
    errors.InternalError: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.TransientError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.ModelhaulError: HTTPStatus.INTERNAL_SERVER_ERROR,
}
_TITLES = {
    "invalid-reference": "Not a model's name or revision",
    "invalid-repository": "Not a repository on GitHub",
    "model-not-found": "No such model",
    "revision-not-found": "No such revision",
    "file-not-found": "No such file in the model",
    "task-not-found": "No such task",
    "access-required": "Access must be granted first",
    "model-disabled": "The model is disabled at its source",
    "invalid-form": "Not a form with a file",
    "archive-refused": "The archive is refused",
    "no-model-in-archive": "No valid model in the archive",
    "archive-too-large": "The archive is too large",
    "model-exists": "The model is here already",
    "import-in-progress": "The model is being imported",
    "deletion-in-progress": "The model is being deleted",
    "task-ended": "The task has ended",
    "invalid-idempotency-key": "Not an Idempotency-Key",
    "idempotency-key-reused": "The Idempotency-Key came with another request",
    "request-in-progress": "The first request with this Idempotency-Key has no answer yet",
    "credentials-refused": "The configured token was refused",
    "untrusted-host": "The source leads to a host that is not trusted",
    "unexpected-answer": "The source answers something else",
    "rate-limited": "Rate-limited by the source",
    "source-unavailable": "The source does not answer",
    "storage-unavailable": "Storage does not answer",
}
_FIELDS = {
    "name": "model_tag",
    "owner": "owner",
    "repo_name": "repo_name",
    "revision": "revision",
    "model_name": "model_name",
    "file_name": "file_name",
    "cursor": "cursor",
}
_IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,255}")
_BOUNDARY = re.compile(r'boundary="?([^";,\s]+)', re.IGNORECASE)
_RETRY_AFTER = 30  # seconds, where the other side said nothing
_DELETED_AFTER = 60  # seconds: what most deletions take
_ANSWERED_AFTER = 2  # seconds: what most requests take
_EXPOSED = "Link, Location, Retry-After"  # to pages of another origin, beyond what browsers always show
# Of the signature of a presigned request, which API Gateway has checked:
# https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html
_SIGNATURE_PREFIX = "x-amz-"
# Of the fields at fault in an answer, which Lambda limits to 6 MB as it does requests.
_MAX_FIELDS = 100
_MAX_FIELD_NAME = 100  # characters


def create_app() -> APIGatewayRestResolver:
    """A resolver whose every error is a problem; routes validate by pydantic, and refuse unknown query parameters."""
    app = APIGatewayRestResolver(enable_validation=True, json_body_deserializer=_parse_json)
    app.use([_check_query_names])
    app.exception_handler(errors.ModelhaulError)(answer_error)
    app.exception_handler(RequestValidationError)(_answer_invalid)
    app.not_found(_answer_no_route)
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


def answer_request(
    app: APIGatewayRestResolver, event: dict[str, Any], context: LambdaContext, *, takes_forms: bool = False
) -> dict[str, Any]:
    """Resolves an API Gateway REST event. What nobody foresaw is logged and answered as 500.

    Bodies are JSON, whatever they are labelled (`curl -d` without a header calls them a form), but for a form with
    parts where the app `takes_forms`.
    """
    logger = create_logger()
    logger.set_correlation_id(context.aws_request_id)
    try:
        answer = _answer_once(app, event, context, takes_forms=takes_forms)
    except Exception:
        logger.exception("unexpected error")
        problem = create_problem(
            "internal-error",
            HTTPStatus.INTERNAL_SERVER_ERROR,
            f"Something went wrong that should not have. In the log it is the request {context.aws_request_id}.",
        )
        return _write_answer(problem)
    logger.info("answered", path=event.get("path"), method=event.get("httpMethod"), status=answer["statusCode"])
    return answer


def _answer_once(
    app: APIGatewayRestResolver, event: dict[str, Any], context: LambdaContext, *, takes_forms: bool
) -> dict[str, Any]:
    """A POST with an Idempotency-Key is answered as it was before, if it was.

    https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
    """

    request = APIGatewayProxyEvent(event)

    def resolve() -> dict[str, Any]:
        is_form = takes_forms and read_form_type(request) is not None
        return app.resolve(event if is_form else _label_as_json(event), context)

    key = request.headers.get("idempotency-key")
    if key is None or request.http_method != "POST":
        return resolve()
    try:
        if not _IDEMPOTENCY_KEY.fullmatch(key):
            raise errors.InvalidIdempotencyKeyError("An Idempotency-Key has 1 to 255 visible characters of ASCII.")
        # What keeps answers is loaded (a quarter of a second) by those who ask for it.
        return wiring.create_answer_store().answer_once(
            resolve,
            scope=[request.resource, _find_caller(event)],
            key=key,
            digest=_digest_request(request),
            context=context,
        )
    except errors.ModelhaulError as error:
        return _write_answer(answer_error(error))


def _find_caller(event: dict[str, Any]) -> str:
    """Who asks: the id of the API key, or of who signed."""
    identity = event.get("requestContext", {}).get("identity") or {}
    return identity.get("apiKeyId") or identity.get("caller") or ""


def _digest_request(request: APIGatewayProxyEvent) -> str:
    """SHA-256 of the query and the body; without a form's boundary, which most clients choose anew for each try."""
    body = read_body(request)
    boundary = _BOUNDARY.search(read_form_type(request) or "")
    if boundary is not None:
        body = body.replace(boundary[1].encode(), b"")
    query = json.dumps(request.multi_value_query_string_parameters, sort_keys=True)
    hasher = hashlib.sha256(query.encode())
    hasher.update(body)
    return hasher.hexdigest()


def _write_answer(response: Response[str]) -> dict[str, Any]:
    """As Lambda gives it to API Gateway, for what is answered without a route."""
    headers = {name: value if isinstance(value, list) else [value] for name, value in response.headers.items()}
    return {
        "statusCode": response.status_code,
        "multiValueHeaders": {**headers, "Content-Type": [response.content_type]},
        "body": response.body,
        "isBase64Encoded": False,
    }


def _label_as_json(event: dict[str, Any]) -> dict[str, Any]:
    headers = {name: value for name, value in (event.get("headers") or {}).items() if name.lower() != "content-type"}
    many = {n: v for n, v in (event.get("multiValueHeaders") or {}).items() if n.lower() != "content-type"}
    # API Gateway gives what is labelled a form in base64. Bytes that are no text are no JSON either.
    body = read_body(APIGatewayProxyEvent(event)).decode("utf-8", "replace") if event.get("isBase64Encoded") else None
    return {
        **event,
        **({} if body is None else {"body": body, "isBase64Encoded": False}),
        "headers": {**headers, "content-type": "application/json"},
        "multiValueHeaders": {**many, "content-type": ["application/json"]},
    }


def read_form_type(event: APIGatewayProxyEvent) -> str | None:
    """The Content-Type of a `multipart/form-data` body; None for any other."""
    content_type = event.headers.get("content-type", "")
    return content_type if content_type.lower().startswith("multipart/form-data") else None


def read_body(event: APIGatewayProxyEvent) -> bytes:
    body = event.body or ""
    return base64.b64decode(body) if event.is_base64_encoded else body.encode()


def read_json[M: BaseModel](model: type[M], event: APIGatewayProxyEvent) -> M:
    """The body as `model`, for routes that take other bodies as well. Raises RequestValidationError."""
    try:
        return model.model_validate_json(read_body(event))
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        raise RequestValidationError([{**e, "loc": ("body", *e["loc"])} for e in found]) from None


def create_problem(
    kind: str, status: HTTPStatus, detail: str, *, headers: dict[str, str] | None = None, **extra: Any
) -> Response[str]:
    """RFC 9457 problem details, with what to do now as `remedy`. `kind` is stable: programs may compare `type`."""
    body = {
        "type": f"urn:modelhaul:problem:{kind}",
        "title": _TITLES.get(kind, status.phrase),
        "status": status.value,
        "detail": detail,
        **({"remedy": PROBLEM_REMEDIES[kind]} if kind in PROBLEM_REMEDIES else {}),
        **extra,
    }
    return Response(
        status_code=status.value,
        content_type="application/problem+json",
        body=json.dumps(body, ensure_ascii=False),
        headers=dict(headers or {}),
    )


def find_status(kind: type[errors.ModelhaulError]) -> HTTPStatus:
    return next(_STATUS[base] for base in kind.__mro__ if base in _STATUS)


def find_title(kind: type[errors.ModelhaulError]) -> str:
    return _TITLES.get(kind.type, find_status(kind).phrase)


def answer_error(error: errors.ModelhaulError) -> Response[str]:
    status = find_status(type(error))
    extra: dict[str, Any] = {}
    headers: dict[str, str] = {}
    if isinstance(error, errors.InvalidReferenceError) and error.part is not None:
        extra["fields"] = [{"field": _FIELDS[error.part], "message": error.detail}]
    if isinstance(error, errors.InvalidFormError) and error.field is not None:
        status = HTTPStatus.UNPROCESSABLE_ENTITY
        extra["fields"] = [{"field": error.field, "message": error.detail}]
    if isinstance(error, errors.ModelExistsError):
        extra["models"] = [{"model_id": model_id, "name": name} for model_id, name in error.models.items()]
        extra["model_id"] = next(iter(error.models))
    if isinstance(error, errors.ArchiveRefusedError):
        extra["reason"] = error.reason
        if error.entry is not None:
            extra["entry"] = error.entry[:1000]
    if isinstance(error, errors.NoModelInArchiveError):
        extra["directories"] = [{"name": d or "/", "lacks": list(lacks)} for d, lacks in error.lacking.items()][:100]
    if isinstance(error, errors.ImportInProgressError):
        extra["model_id"] = error.model_id
        extra["task_id"] = error.task_id
        extra["task"] = locate_task(error.task_id)
        headers["Link"] = f'<{extra["task"]}>; rel="status"'
    if isinstance(error, errors.DeletionInProgressError):
        extra["model_id"] = error.model_id
    if (seconds := _find_pause(error, status)) is not None:
        extra["retry_after"] = seconds
        headers["Retry-After"] = str(seconds)
    return create_problem(error.type, status, error.detail, headers=headers, **extra)


def _find_pause(error: errors.ModelhaulError, status: HTTPStatus) -> int | None:
    """Seconds after which it is worth asking again, if that is known."""
    match error:
        case errors.DeletionInProgressError():
            return _DELETED_AFTER
        case errors.RequestInProgressError():
            return _ANSWERED_AFTER
        case errors.TransientError() if status is HTTPStatus.SERVICE_UNAVAILABLE:
            return math.ceil(error.retry_after or _RETRY_AFTER)
    return None


def _answer_invalid(error: RequestValidationError) -> Response[str]:
    found = [dict(e) for e in error.errors()]
    # Fields are at ("body", name, …); what is at ("body",) is the whole of it.
    if any(e["type"] == "json_invalid" or len(e["loc"]) == 1 for e in found):
        return create_problem("invalid-json", HTTPStatus.BAD_REQUEST, "The body is not a JSON object.")
    fields = [
        {"field": ".".join(str(p) for p in e["loc"][1:])[:_MAX_FIELD_NAME], "message": _describe_fault(e)}
        for e in found[:_MAX_FIELDS]
    ]
    detail = "; ".join(f"{f['field']}: {f['message']}" for f in fields)
    return create_problem("invalid-fields", HTTPStatus.UNPROCESSABLE_ENTITY, detail, fields=fields)


def _describe_fault(error: Mapping[str, Any]) -> str:
    repeated = error.get("input") if error["loc"][0] == "query" else None
    # No parameter takes several values.
    return f"given {len(repeated)} times, takes one value" if isinstance(repeated, list) else str(error["msg"])


def _answer_no_route(_: NotFoundError) -> Response[str]:
    return create_problem("no-such-route", HTTPStatus.NOT_FOUND, "There is no such route.")


def locate_task(task_id: str) -> str:
    """The path of a task under the API's stage, as in `Location`."""
    return f"/v1/upload/tasks/{task_id}"


def accept_task(task: Task) -> Response[str]:
    """201 with the task's Location and an empty body."""
    return Response(
        status_code=HTTPStatus.CREATED.value,
        content_type="application/json",
        body="",
        headers={"Location": locate_task(task.id)},
    )


def accept_models(task: Task) -> Response[str]:
    """201 with the Location of the task's first model, a link to the task, and an empty body."""
    return Response(
        status_code=HTTPStatus.CREATED.value,
        content_type="application/json",
        body="",
        headers={
            "Location": f"/v1/upload/local/{task.model_ids[0]}",
            "Link": f'<{locate_task(task.id)}>; rel="status"',
        },
    )


def accept_upload(task: Task, ticket: UploadTicket) -> Response[str]:
    """201 with the task's Location, and in the body where to send the bytes and until when."""
    if ticket.put_url is not None:
        upload: dict[str, Any] = {"method": "PUT", "url": ticket.put_url}
    else:
        upload = {
            "parts": [
                {"number": part.number, "method": "PUT", "url": part.url, "start": part.start, "end": part.end}
                for part in ticket.parts
            ],
            "complete": {
                "method": "POST",
                "url": ticket.complete_url,
                "body": "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>the ETag that part 1 was "
                "answered with</ETag></Part>…</CompleteMultipartUpload>",
            },
            "abort": {"method": "DELETE", "url": ticket.abort_url},
        }
    body = {"task_id": task.id, "expires_at": format_time(ticket.expires_at), "upload": upload}
    return Response(
        status_code=HTTPStatus.CREATED.value,
        content_type="application/json",
        body=json.dumps(body, ensure_ascii=False),
        headers={"Location": locate_task(task.id)},
    )


def read_greedy_path(event: APIGatewayProxyEvent, name: str) -> str:
    """The value of `{name+}`, percent-decoded once.

    REST APIs pass path parameters as the client sent them, percent-encoded. Events of format 1.0, which have a
    `version`, are an HTTP API's, with decoded path parameters; MiniStack sends these for REST APIs.
    """
    value = event.path_parameters.get(name, "")
    return value if event.get("version") else unquote(value)


def redirect(url: str) -> Response[str]:
    """302, for this one request only: the address does not hold for long."""
    return Response(
        status_code=HTTPStatus.FOUND.value,
        content_type="application/json",
        body="",
        headers={"Location": url, "Cache-Control": "no-store"},
    )


def answer_json(body: dict[str, Any]) -> Response[str]:
    return Response(
        status_code=HTTPStatus.OK.value,
        content_type="application/json",
        body=json.dumps(body, ensure_ascii=False),
    )


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
    """A Lambda handler for the app, as `answer_request`."""

    def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
        return _allow_origin(answer_request(app, event, context, takes_forms=takes_forms))

    return handler
