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
    errors.KeyNotFoundError: HTTPStatus.NOT_FOUND,
    errors.SignatureNotFoundError: HTTPStatus.NOT_FOUND,
    errors.InvalidPolicyError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.EmptyModelError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.RequiredFilesError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.ListingTooLongError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.FileMissingError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.FileTooLargeError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.SourceQuotaError: HTTPStatus.BAD_GATEWAY,
    errors.FollowNotFoundError: HTTPStatus.NOT_FOUND,
    errors.FollowExistsError: HTTPStatus.CONFLICT,
    errors.FollowLimitError: HTTPStatus.CONFLICT,
    errors.AccessRequiredError: HTTPStatus.FORBIDDEN,
    errors.ModelDisabledError: HTTPStatus.FORBIDDEN,
    errors.PolicyDeniedError: HTTPStatus.FORBIDDEN,
    errors.InvalidFormError: HTTPStatus.BAD_REQUEST,
    errors.ArchiveRefusedError: HTTPStatus.BAD_REQUEST,
    errors.NoModelInArchiveError: HTTPStatus.NOT_FOUND,
    errors.ArchiveTooLargeError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    # Not 507: clients repeat requests after a status of 5xx, and the alarms count these.
    errors.StorageQuotaError: HTTPStatus.FORBIDDEN,
    errors.ModelExistsError: HTTPStatus.CONFLICT,
    errors.ImportInProgressError: HTTPStatus.CONFLICT,
    errors.DeletionInProgressError: HTTPStatus.CONFLICT,
    errors.ModelPinnedError: HTTPStatus.CONFLICT,
    errors.InvalidIdempotencyKeyError: HTTPStatus.BAD_REQUEST,
    errors.IdempotencyKeyReusedError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.RequestInProgressError: HTTPStatus.CONFLICT,
    errors.TaskEndedError: HTTPStatus.CONFLICT,
    errors.UploadNotOpenError: HTTPStatus.CONFLICT,
    errors.CredentialsRefusedError: HTTPStatus.BAD_GATEWAY,
    errors.UntrustedHostError: HTTPStatus.BAD_GATEWAY,
    errors.SourceRefusedError: HTTPStatus.BAD_GATEWAY,
    errors.SigningRefusedError: HTTPStatus.BAD_GATEWAY,
    errors.UnexpectedResponseError: HTTPStatus.BAD_GATEWAY,
    errors.InternalError: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.TransientError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.ModelhaulError: HTTPStatus.INTERNAL_SERVER_ERROR,
}

_TITLES = {
    "invalid-reference": "Invalid name, revision or cursor",
    "invalid-repository": "Invalid GitHub repository",
    "model-not-found": "Model not found",
    "revision-not-found": "Revision not found",
    "file-not-found": "File not found in the model",
    "task-not-found": "Task not found",
    "key-not-found": "Key not found",
    "signature-not-found": "Model not signed",
    "invalid-policy": "Invalid policy document",
    "policy-denied": "Denied by the import policy",
    "policy-unavailable": "Policy cannot be read",
    "empty-model": "No files to import",
    "required-files-missing": "Required files are missing",
    "listing-too-long": "Too many files",
    "file-missing": "File is missing at its source",
    "file-too-large": "File too large",
    "source-quota-exceeded": "Git LFS budget at the source is exceeded",
    "follow-not-found": "Follow not found",
    "follow-exists": "Revision is already followed",
    "follow-limit-exceeded": "Too many follows",
    "access-required": "Access to the model is required",
    "model-disabled": "Model disabled at its source",
    "invalid-form": "Invalid form",
    "archive-refused": "Archive rejected",
    "no-model-in-archive": "No valid model in the archive",
    "archive-too-large": "Archive too large",
    "storage-quota-exceeded": "Storage quota exceeded",
    "model-exists": "Model already exists",
    "import-in-progress": "Model is already being imported",
    "deletion-in-progress": "Model is being deleted",
    "model-pinned": "Model is pinned",
    "task-ended": "Task already ended",
    "upload-not-open": "Task does not wait for an upload",
    "invalid-idempotency-key": "Invalid Idempotency-Key",
    "idempotency-key-reused": "Idempotency-Key used with a different request",
    "request-in-progress": "Request with this Idempotency-Key is in progress",
    "credentials-refused": "Configured token cannot be used",
    "untrusted-host": "Host not allowed",
    "source-refused": "Request rejected by the source",
    "signing-refused": "Signing key cannot be used",
    "unexpected-answer": "Unexpected response from the source",
    "rate-limited": "Rate limit of the source exceeded",
    "source-unavailable": "Source unavailable",
    "storage-unavailable": "Storage unavailable",
    "internal-error": "Internal error",
    "invalid-json": "Invalid JSON body",
    "invalid-fields": "Invalid fields or query parameters",
    "no-such-route": "Route not found",
}

_FIELDS = {
    "name": "model_tag",
    "followed_name": "name",
    "owner": "owner",
    "repo_name": "repo_name",
    "revision": "revision",
    "model_name": "model_name",
    "file_name": "file_name",
    "cursor": "cursor",
    "parts": "parts",
}

_DEFAULT_RETRY_AFTER = 30  # seconds, if the source did not request a delay
_DELETION_RETRY_AFTER = 60  # seconds; most deletions take less
_REQUEST_RETRY_AFTER = 2  # seconds; most requests take less

# Limits of the invalid fields in a response, because Lambda limits responses and requests to 6 MB.
_MAX_FIELDS = 100
_MAX_NAME_LENGTH = 100  # characters


def create_problem(
    kind: str,
    status: HTTPStatus,
    detail: str,
    *,
    remedy: str | None = None,
    headers: dict[str, str] | None = None,
    **extra: Any,
) -> Response[str]:
    """Create RFC 9457 problem details, with this remedy or the one for `kind`. `kind` is stable, so programs can
    compare `type`.
    """
    remedy = remedy or PROBLEM_REMEDIES.get(kind)
    body = {
        "type": f"urn:modelhaul:problem:{kind}",
        "title": _TITLES.get(kind, status.phrase),
        "status": status.value,
        "detail": detail,
        **({"remedy": remedy} if remedy else {}),
        **extra,
    }
    return Response(
        status_code=status.value,
        content_type="application/problem+json",
        body=json.dumps(body, ensure_ascii=False),
        headers=dict(headers or {}),
    )


def find_status(kind: type[errors.ModelhaulError]) -> HTTPStatus:
    """Return the status of the error, or of its nearest base class that has one."""
    return next(_STATUS[base] for base in kind.__mro__ if base in _STATUS)


def find_title(kind: type[errors.ModelhaulError]) -> str:
    """Return the title of the error's problem type."""
    return _TITLES.get(kind.type, find_status(kind).phrase)


def create_error_response(error: errors.ModelhaulError) -> Response[str]:
    """Create the problem for an error, with its fields and the headers Link and Retry-After."""
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
        extra["directories"] = [{"name": d or "/", "lacks": list(lacks)} for d, lacks in error.missing.items()][:100]
    if isinstance(error, errors.ImportInProgressError):
        extra["model_id"] = error.model_id
        extra["task_id"] = error.task_id
        extra["task"] = locate_task(error.task_id)
        headers["Link"] = f'<{extra["task"]}>; rel="status"'
    extra |= _identify_conflict(error)
    extra |= _describe_denial(error)
    if (seconds := _find_retry_after(error, status)) is not None:
        extra["retry_after"] = seconds
        headers["Retry-After"] = str(seconds)
    return create_problem(error.type, status, error.detail, remedy=error.remedy, headers=headers, **extra)


def _identify_conflict(error: errors.ModelhaulError) -> dict[str, str]:
    match error:
        case errors.FollowExistsError():
            return {"follow_id": error.follow_id}
        case errors.DeletionInProgressError():
            return {"model_id": error.model_id}
    return {}


def _describe_denial(error: errors.ModelhaulError) -> dict[str, Any]:
    """Return the fields of `policy-denied`, an empty object for other errors. The default of a policy has no rule."""
    if not isinstance(error, errors.PolicyDeniedError):
        return {}
    rule = {} if error.rule_id is None else {"rule_id": error.rule_id}
    return {**rule, "reason": error.reason, "matched": list(error.matched)}


def _find_retry_after(error: errors.ModelhaulError, status: HTTPStatus) -> int | None:
    """Return the seconds to wait before a retry, None if a retry does not help or the delay is unknown."""
    match error:
        case errors.DeletionInProgressError():
            return _DELETION_RETRY_AFTER
        case errors.RequestInProgressError():
            return _REQUEST_RETRY_AFTER
        case errors.TransientError() if status is HTTPStatus.SERVICE_UNAVAILABLE:
            return math.ceil(error.retry_after or _DEFAULT_RETRY_AFTER)
    return None


def create_invalid_response(error: RequestValidationError) -> Response[str]:
    """Create the problem for an invalid body, `invalid-json`, or for invalid fields, `invalid-fields`."""
    found = [dict(e) for e in error.errors()]
    # The location of a field is ("body", name, …), that of the whole body is ("body",).
    if any(e["type"] == "json_invalid" or len(e["loc"]) == 1 for e in found):
        return create_problem("invalid-json", HTTPStatus.BAD_REQUEST, "The body is not a JSON object.")
    fields = [
        {"field": ".".join(str(p) for p in e["loc"][1:])[:_MAX_NAME_LENGTH], "message": _describe_invalid_field(e)}
        for e in found[:_MAX_FIELDS]
    ]
    detail = "; ".join(f"{f['field']}: {f['message']}" for f in fields)
    return create_problem("invalid-fields", HTTPStatus.UNPROCESSABLE_ENTITY, detail, fields=fields)


def _describe_invalid_field(error: Mapping[str, Any]) -> str:
    repeated = error.get("input") if error["loc"][0] == "query" else None
    # No query parameter accepts several values.
    if isinstance(repeated, list):
        return f"must not be repeated, but was sent {len(repeated)} times"
    return str(error["msg"]).removeprefix("Value error, ")  # pydantic's prefix of our own messages


def create_no_route_response(_: NotFoundError) -> Response[str]:
    """Create the problem for an unknown route."""
    return create_problem("no-such-route", HTTPStatus.NOT_FOUND, "Route not found.")


def locate_task(task_id: str) -> str:
    """Return the path of a task, for the header `Location`."""
    return f"/v1/upload/tasks/{task_id}"
