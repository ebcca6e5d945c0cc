"""Errors as RFC 9457 problems."""

import json
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestValidationError

from modelhaul.domain import errors
from modelhaul.domain.remedies import PROBLEM_REMEDIES

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
    errors.UnexpectedResponseError: HTTPStatus.BAD_GATEWAY,
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

_RETRY_AFTER = 30  # seconds, where the other side said nothing
_DELETED_AFTER = 60  # seconds: what most deletions take
_RESPONSE_AFTER = 2  # seconds: what most requests take

# Of the fields at fault in an answer, which Lambda limits to 6 MB as it does requests.
_MAX_FIELDS = 100
_MAX_FIELD_NAME = 100  # characters


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


def create_error_response(error: errors.ModelhaulError) -> Response[str]:
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
            return _RESPONSE_AFTER
        case errors.TransientError() if status is HTTPStatus.SERVICE_UNAVAILABLE:
            return math.ceil(error.retry_after or _RETRY_AFTER)
    return None


def create_invalid_response(error: RequestValidationError) -> Response[str]:
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


def create_no_route_response(_: NotFoundError) -> Response[str]:
    return create_problem("no-such-route", HTTPStatus.NOT_FOUND, "There is no such route.")


def locate_task(task_id: str) -> str:
    """The path of a task under the API's stage, as in `Location`."""
    return f"/v1/upload/tasks/{task_id}"
