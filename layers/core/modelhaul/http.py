"""The edge for functions behind the API: requests in, RFC 9457 problems out."""

import base64
import json
import math
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestValidationError
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEvent
from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import BaseModel, ValidationError

from modelhaul import errors
from modelhaul.logs import create_logger
from modelhaul.model import UploadTicket
from modelhaul.presentation import format_time
from modelhaul.task import Task

_STATUS: dict[type[errors.ModelhaulError], HTTPStatus] = {
    errors.InvalidReferenceError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.InvalidRepositoryError: HTTPStatus.BAD_REQUEST,
    errors.ModelNotFoundError: HTTPStatus.NOT_FOUND,
    errors.RevisionNotFoundError: HTTPStatus.NOT_FOUND,
    errors.TaskNotFoundError: HTTPStatus.NOT_FOUND,
    errors.AccessRequiredError: HTTPStatus.FORBIDDEN,
    errors.ModelDisabledError: HTTPStatus.FORBIDDEN,
    errors.InvalidFormError: HTTPStatus.BAD_REQUEST,
    errors.ArchiveRefusedError: HTTPStatus.BAD_REQUEST,
    errors.NoModelInArchiveError: HTTPStatus.NOT_FOUND,
    errors.ArchiveTooLargeError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.ModelExistsError: HTTPStatus.CONFLICT,
    errors.ImportInProgressError: HTTPStatus.CONFLICT,
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
    "task-not-found": "No such task",
    "access-required": "Access must be granted first",
    "model-disabled": "The model is disabled at its source",
    "invalid-form": "Not a form with a file",
    "archive-refused": "The archive is refused",
    "no-model-in-archive": "No valid model in the archive",
    "archive-too-large": "The archive is too large",
    "model-exists": "The model is here already",
    "import-in-progress": "The model is being imported",
    "task-ended": "The task has ended",
    "credentials-refused": "The configured token was refused",
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
_RETRY_AFTER = 30  # seconds, where the other side said nothing


def create_app() -> APIGatewayRestResolver:
    """A resolver whose every error is a problem; routes validate by pydantic."""
    app = APIGatewayRestResolver(enable_validation=True)
    app.exception_handler(errors.ModelhaulError)(_answer_error)
    app.exception_handler(RequestValidationError)(_answer_invalid)
    app.not_found(_answer_no_route)
    return app


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
        is_form = takes_forms and read_form_type(APIGatewayProxyEvent(event)) is not None
        answer = app.resolve(event if is_form else _label_as_json(event), context)
    except Exception:
        logger.exception("unexpected error")
        problem = create_problem(
            "internal-error",
            HTTPStatus.INTERNAL_SERVER_ERROR,
            "Something went wrong that should not have. Try again; if it stays, look in the log for the request "
            f"{context.aws_request_id}.",
        )
        return {
            "statusCode": problem.status_code,
            "multiValueHeaders": {"Content-Type": [problem.content_type]},
            "body": problem.body,
            "isBase64Encoded": False,
        }
    logger.info("answered", path=event.get("path"), method=event.get("httpMethod"), status=answer["statusCode"])
    return answer


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
    """RFC 9457 problem details. `kind` is stable: programs may compare `type`."""
    body = {
        "type": f"urn:modelhaul:problem:{kind}",
        "title": _TITLES.get(kind, status.phrase),
        "status": status.value,
        "detail": detail,
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


def _answer_error(error: errors.ModelhaulError) -> Response[str]:
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
    if isinstance(error, errors.TransientError) and status is HTTPStatus.SERVICE_UNAVAILABLE:
        extra["retry_after"] = math.ceil(error.retry_after or _RETRY_AFTER)
        headers["Retry-After"] = str(extra["retry_after"])
    return create_problem(error.type, status, error.detail, headers=headers, **extra)


def _answer_invalid(error: RequestValidationError) -> Response[str]:
    found = [dict(e) for e in error.errors()]
    # Fields are at ("body", name, …); what is at ("body",) is the whole of it.
    if any(e["type"] == "json_invalid" or len(e["loc"]) == 1 for e in found):
        return create_problem("invalid-json", HTTPStatus.BAD_REQUEST, "The body is not a JSON object.")
    fields = [{"field": ".".join(str(p) for p in e["loc"][1:]), "message": str(e["msg"])} for e in found]
    detail = "; ".join(f"{f['field']}: {f['message']}" for f in fields)
    return create_problem("invalid-fields", HTTPStatus.UNPROCESSABLE_ENTITY, detail, fields=fields)


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


def answer_json(body: dict[str, Any]) -> Response[str]:
    return Response(
        status_code=HTTPStatus.OK.value,
        content_type="application/json",
        body=json.dumps(body, ensure_ascii=False),
    )


type Handler = Callable[[dict[str, Any], LambdaContext], dict[str, Any]]


def create_handler(app: APIGatewayRestResolver, *, takes_forms: bool = False) -> Handler:
    """A Lambda handler for the app, as `answer_request`."""

    def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
        return answer_request(app, event, context, takes_forms=takes_forms)

    return handler
