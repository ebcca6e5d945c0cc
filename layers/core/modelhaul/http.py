"""The edge for functions behind the API: requests in, RFC 9457 problems out."""

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestValidationError
from aws_lambda_powertools.utilities.typing import LambdaContext

from modelhaul import errors
from modelhaul.logs import create_logger
from modelhaul.model import Model, ModelStatus
from modelhaul.task import Task, TaskStatus

_STATUS: dict[type[errors.ModelhaulError], HTTPStatus] = {
    errors.InvalidReferenceError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.ModelNotFoundError: HTTPStatus.NOT_FOUND,
    errors.RevisionNotFoundError: HTTPStatus.NOT_FOUND,
    errors.TaskNotFoundError: HTTPStatus.NOT_FOUND,
    errors.AccessRequiredError: HTTPStatus.FORBIDDEN,
    errors.ModelDisabledError: HTTPStatus.FORBIDDEN,
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
    "model-not-found": "No such model",
    "revision-not-found": "No such revision",
    "task-not-found": "No such task",
    "access-required": "Access must be granted first",
    "model-disabled": "The model is disabled at its source",
    "model-exists": "The model is here already",
    "import-in-progress": "The model is being imported",
    "task-ended": "The task has ended",
    "credentials-refused": "The configured token was refused",
    "rate-limited": "Rate-limited by the source",
    "source-unavailable": "The source does not answer",
    "storage-unavailable": "Storage does not answer",
}
_FIELDS = {"name": "model_tag", "revision": "revision"}
_RETRY_AFTER = 30  # seconds, where the other side said nothing


def create_app() -> APIGatewayRestResolver:
    """A resolver whose every error is a problem; routes validate by pydantic."""
    app = APIGatewayRestResolver(enable_validation=True)
    app.exception_handler(errors.ModelhaulError)(_answer_error)
    app.exception_handler(RequestValidationError)(_answer_invalid)
    app.not_found(_answer_no_route)
    return app


def answer_request(app: APIGatewayRestResolver, event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Resolves an API Gateway REST event. What nobody foresaw is logged and answered as 500."""
    logger = create_logger()
    logger.set_correlation_id(context.aws_request_id)
    try:
        answer = app.resolve(_read_body_as_json(event), context)
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


def _read_body_as_json(event: dict[str, Any]) -> dict[str, Any]:
    """Bodies are JSON, whatever they are labelled: `curl -d` without a header calls them a form."""
    headers = {name: value for name, value in (event.get("headers") or {}).items() if name.lower() != "content-type"}
    many = {n: v for n, v in (event.get("multiValueHeaders") or {}).items() if n.lower() != "content-type"}
    return {
        **event,
        "headers": {**headers, "content-type": "application/json"},
        "multiValueHeaders": {**many, "content-type": ["application/json"]},
    }


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


def _answer_error(error: errors.ModelhaulError) -> Response[str]:
    status = next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)
    extra: dict[str, Any] = {}
    headers: dict[str, str] = {}
    if isinstance(error, errors.InvalidReferenceError) and error.part is not None:
        extra["fields"] = [{"field": _FIELDS[error.part], "message": error.detail}]
    if isinstance(error, errors.ModelExistsError | errors.ImportInProgressError):
        extra["model_id"] = error.model_id
    if isinstance(error, errors.ImportInProgressError):
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


def answer_json(body: dict[str, Any]) -> Response[str]:
    return Response(
        status_code=HTTPStatus.OK.value,
        content_type="application/json",
        body=json.dumps(body, ensure_ascii=False),
    )


def format_time(moment: datetime) -> str:
    """`2025-06-22T12:00:00Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def present_task(task: Task, model: Model | None, *, bucket: str) -> dict[str, Any]:
    """A task as clients see it. `model` is the record of the model that the task claimed."""
    progress = task.progress
    shown: dict[str, Any] = {
        "id": task.id,
        "model_tag": task.model_tag,
        "task_status": task.status.value,
        "source": task.source.value,
        "created_at": format_time(task.created_at),
        "updated_at": format_time(task.updated_at),
        "stage": task.stage.value,
        "progress": {
            "files_done": progress.files_done,
            "files_total": progress.files_total,
            "bytes_done": progress.bytes_done,
            "bytes_total": progress.bytes_total,
            "bytes_reused": progress.bytes_reused,
        },
        "models": [],
    }
    if model is not None:
        # After a failure another task may have taken the model over; its success is not this task's.
        ours = model.task_id == task.id
        entry: dict[str, Any] = {
            "model_id": model.model_id,
            "name": model.resolved.name,
            "commit": model.resolved.commit,
            "status": (model.status if ours else ModelStatus.FAILED).value,
        }
        if task.status is TaskStatus.DONE:
            entry["location"] = f"s3://{bucket}/{model.resolved.prefix}"
        shown["models"].append(entry)
    if task.error is not None:
        shown["error_msg"] = task.error.detail
        shown["error"] = {"type": task.error.type, "retryable": task.error.retryable}
    return shown


type Handler = Callable[[dict[str, Any], LambdaContext], dict[str, Any]]


def create_handler(app: APIGatewayRestResolver) -> Handler:
    """A Lambda handler for the app."""

    def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
        return answer_request(app, event, context)

    return handler
