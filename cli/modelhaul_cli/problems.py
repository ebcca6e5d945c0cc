"""Answers that refuse: RFC 9457 problem details into errors."""

from http import HTTPStatus
from typing import Any

import requests

from modelhaul_cli.errors import (
    AccessError,
    CommandError,
    ConflictError,
    NotFoundError,
    UnavailableError,
    UsageError,
)

_PREFIX = "urn:modelhaul:problem:"
EXISTS, IN_PROGRESS, ENDED = "model-exists", "import-in-progress", "task-ended"
# An archive that is refused is a failed import, whether its POST or its task says so.
_FAILURES = {"archive-refused", "no-model-in-archive"}
# Trying again cannot help before somebody changes the configuration.
_LASTING = {"credentials-refused", "untrusted-host"}
_BY_STATUS: dict[int, type[CommandError]] = {
    HTTPStatus.UNAUTHORIZED: AccessError,
    HTTPStatus.FORBIDDEN: AccessError,
    HTTPStatus.NOT_FOUND: NotFoundError,
    HTTPStatus.CONFLICT: ConflictError,
}
_TRANSIENT = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}


def create_error(response: requests.Response, *, repeatable_post: bool = False) -> CommandError:
    """The error for an answer that is no success. `repeatable_post`: it has an Idempotency-Key."""
    problem = read_problem(response)
    kind = read_kind(problem)
    status = response.status_code
    title = str(problem.get("title") or response.reason or f"Answer {status}")
    detail, remedy = str(problem.get("detail") or ""), str(problem.get("remedy") or "")
    retry_after = read_retry_after(response)
    # The first request of this Idempotency-Key, whose answer was lost, is still under way.
    under_way = repeatable_post and status == HTTPStatus.CONFLICT and kind not in (EXISTS, IN_PROGRESS)
    if status in _TRANSIENT or under_way or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        transient = kind not in _LASTING and (status in _TRANSIENT or under_way)
        return UnavailableError(
            title, detail, remedy=remedy, problem=problem, transient=transient, retry_after=retry_after
        )
    if status in _BY_STATUS and kind not in _FAILURES:
        return _BY_STATUS[status](title, detail, remedy=remedy, problem=problem)
    failure = CommandError if kind in _FAILURES else UsageError
    return failure(title, detail, remedy=remedy, problem=problem)


def read_problem(response: requests.Response) -> dict[str, Any]:
    """The problem details of an answer; those of its status, where the body has none."""
    try:
        body = response.json()
    except ValueError:
        body = None
    if isinstance(body, dict) and ("title" in body or "detail" in body):
        return body
    if response.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        # API Gateway's own words are "Forbidden".
        return {
            "title": "The API refuses the key",
            "status": response.status_code,
            "detail": "It wants the key of this stack in this stage.",
        }
    return {"title": response.reason or "", "status": response.status_code}


def read_kind(problem: dict[str, Any]) -> str:
    """The stable slug of a problem, "" if it is none of Modelhaul's."""
    kind = str(problem.get("type") or "")
    return kind.removeprefix(_PREFIX) if kind.startswith(_PREFIX) else ""


def read_retry_after(response: requests.Response) -> float | None:
    """Seconds. The form with a date is not used by those we speak to."""
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isdecimal() else None
