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
EXISTS, IN_PROGRESS = "model-exists", "import-in-progress"
# The first request with this Idempotency-Key, whose answer was lost, has no answer yet.
_UNDER_WAY = "request-in-progress"
# A stack with AuthMode=IAM, of a request that is not signed.
_NOT_SIGNED = "not-signed"
_SIGN = """\
This program sends an API key and does not sign requests. A stack with AuthMode=IAM is called by curl --aws-sigv4 or an
AWS SDK (docs/access.md); deployed with AuthMode=API_KEY it can be used from here."""
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


def create_error(response: requests.Response) -> CommandError:
    """The error for an answer that is no success."""
    problem = read_problem(response)
    kind = read_kind(problem)
    status = response.status_code
    title = str(problem.get("title") or response.reason or f"Answer {status}")
    detail, remedy = str(problem.get("detail") or ""), str(problem.get("remedy") or "")
    retry_after = read_retry_after(response)
    if kind == _NOT_SIGNED:
        return AccessError(title, detail, remedy=_SIGN, problem=problem)
    if status in _TRANSIENT or kind == _UNDER_WAY or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        transient = kind not in _LASTING and (status in _TRANSIENT or kind == _UNDER_WAY)
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
    if _misses_signature(response):
        detail = "It takes signed requests only (AuthMode=IAM), or does not have this route."
        return {"type": _PREFIX + _NOT_SIGNED, "title": "The API refuses the request", "status": 403, "detail": detail}
    if response.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        # API Gateway's own words are "Forbidden", for a route that it does not have as well.
        detail = "The key must be that of this stack, and the stack must have this route."
        return {"title": "The API refuses the request", "status": response.status_code, "detail": detail}
    return {"title": response.reason or "", "status": response.status_code}


def _misses_signature(response: requests.Response) -> bool:
    """Whether these are API Gateway's own words, which a deployment that answers with problems does not use."""
    named = response.headers.get("x-amzn-ErrorType", "")
    return response.status_code == HTTPStatus.FORBIDDEN and named.startswith("MissingAuthenticationToken")


def read_kind(problem: dict[str, Any]) -> str:
    """The stable slug of a problem, "" if it is none of Modelhaul's."""
    kind = str(problem.get("type") or "")
    return kind.removeprefix(_PREFIX) if kind.startswith(_PREFIX) else ""


def read_retry_after(response: requests.Response) -> float | None:
    """Seconds. The form with a date is not used by those we speak to."""
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isdecimal() else None
