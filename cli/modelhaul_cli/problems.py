"""Translation of error responses (RFC 9457 problem details) to errors."""

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
from modelhaul_cli.remedies import CHECK_KEY, find_problem_remedy
from modelhaul_cli.signing import is_signed

_PREFIX = "urn:modelhaul:problem:"
EXISTS, IN_PROGRESS = "model-exists", "import-in-progress"
# The first request with this Idempotency-Key is still being processed; its response was lost.
_REQUEST_IN_PROGRESS = "request-in-progress"
_NO_SUCH_ROUTE = "no-such-route"
_INVALID_FIELDS = "invalid-fields"
# The arguments and options that are sent in the fields of a request.
_OPTIONS = {
    "model_tag": "MODEL",
    "owner": "OWNER",
    "repo_name": "REPO",
    "revision": "--revision",
    "allow_patterns": "--allow",
    "ignore_patterns": "--ignore",
    "weights": "--weights",
    "model_name": "--name",
    "file_name": "FILE.zip",
    "expires_at": "--expires",
    "every": "--every",
    "keep_newest": "--keep-newest",
    "scopes": "--scope",
    "names": "--names",
    "name": "--name",
    "source": "--source",
    "status": "--status",
    "limit": "--limit",
    "action": "--action",
    "actor": "--actor",
    "since": "--since",
    "until": "--until",
}
# Type of the problem that a stack with AuthMode=IAM returns for an unsigned request.
_NOT_SIGNED = "not-signed"
_IAM_REMEDY = """\
The stack may have AuthMode=IAM, but modelhaul sent an API key. To sign requests with AWS credentials instead, unset
MODELHAUL_API_KEY, or set MODELHAUL_AUTH=iam (docs/access.md)."""
_KEY_REMEDY = """\
modelhaul has signed the request with AWS credentials, because no API key is configured. If the stack has
AuthMode=API_KEY, set MODELHAUL_API_KEY. If it has AuthMode=IAM, check that a policy of the caller allows
execute-api:Invoke on this route (docs/access.md)."""
# Problems of a signed request to an API that wants a key. "" is the problem of an API Gateway without problem details.
_KEY_PROBLEMS = {"invalid-api-key", "unauthorized", ""}
# A rejected archive or model is a failed import, whether the POST or the task reports it.
_REJECTED = {"archive-refused", "no-model-in-archive", "policy-denied", "storage-quota-exceeded"}
# Retries cannot succeed until the configuration changes.
_PERMANENT = {"credentials-refused", "source-refused", "untrusted-host"}
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
    """Return the error for an error response."""
    problem = read_problem(response)
    if problem is None:
        return create_unexpected_response_error(response, "without the problem details of a Modelhaul API")
    problem_type = read_problem_type(problem)
    status = response.status_code
    if problem_type == _NOT_SIGNED and is_signed(response.request):
        # With AuthMode=IAM, API Gateway responds like this to a signed request if the API has no such route.
        problem_type, status = _NO_SUCH_ROUTE, HTTPStatus.NOT_FOUND
        problem = {"type": _PREFIX + problem_type, "title": "Route not found", "status": int(status)}
    title = str(problem.get("title") or response.reason or f"HTTP {status}")
    detail = str(problem.get("detail") or "")
    if problem_type == _INVALID_FIELDS:
        # The detail names the fields of the request.
        fields = problem.get("fields", [])
        method = str(response.request.method)
        detail = "\n".join(f"{_name_option(str(f.get('field')), method)}: {f.get('message')}" for f in fields) or detail
    if problem_type == _NO_SUCH_ROUTE:
        detail = f"The Modelhaul API has no route {describe_request(response)}."
    remedy = find_problem_remedy(problem_type, str(problem.get("remedy") or ""))
    retry_after = read_retry_after(response)
    if is_signed(response.request) and problem_type in _KEY_PROBLEMS and status in _BY_STATUS:
        return AccessError(title, "", remedy=_KEY_REMEDY, problem=problem)
    if problem_type == _NOT_SIGNED:
        return AccessError(title, detail, remedy=_IAM_REMEDY, problem=problem)
    if status in _TRANSIENT or problem_type == _REQUEST_IN_PROGRESS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        transient = problem_type not in _PERMANENT and (status in _TRANSIENT or problem_type == _REQUEST_IN_PROGRESS)
        return UnavailableError(
            title, detail, remedy=remedy, problem=problem, transient=transient, retry_after=retry_after
        )
    if status in _BY_STATUS and problem_type not in _REJECTED:
        return _BY_STATUS[status](title, detail, remedy=remedy, problem=problem)
    failure = CommandError if problem_type in _REJECTED else UsageError
    return failure(title, detail, remedy=remedy, problem=problem)


def _name_option(field: str, method: str) -> str:
    """Return the option for a field such as `allow_patterns.0`, or the field itself if no option sets it."""
    if (field, method) == ("name", "POST"):  # of a new key; in other requests, it is a filter
        return "NAME"
    return _OPTIONS.get(field.partition(".")[0], field)


def create_unexpected_response_error(response: requests.Response, problem: str) -> UnavailableError:
    """Return the error for a response that the API does not send. `problem` completes the sentence."""
    status = f"{response.status_code} {response.reason or ''}".rstrip()
    return UnavailableError(
        "Unexpected response",
        f"{describe_request(response)} returned {status} {problem}.",
        remedy="Check the API URL. It must be the URL of a Modelhaul API including its stage, as in "
        "https://….amazonaws.com/v1.",
        transient=False,
    )


def describe_request(response: requests.Response) -> str:
    return f"{response.request.method} {response.url.partition('?')[0]}"


def read_problem(response: requests.Response) -> dict[str, Any] | None:
    """Return the problem details of a response, or details derived from its status if the body has none. Returns None
    if neither the API nor API Gateway sends this response.
    """
    try:
        body = response.json()
    except ValueError:
        body = None
    # Other servers also send JSON with a detail.
    if isinstance(body, dict) and read_problem_type(body):
        return body
    if _is_missing_signature(response):
        detail = (
            f"{describe_request(response)} returned {response.status_code}. Either the API requires signed requests "
            "(AuthMode=IAM), or it has no such route."
        )
        return {"type": _PREFIX + _NOT_SIGNED, "title": "The API rejected the request", "status": 403, "detail": detail}
    if response.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        # API Gateway returns only "Forbidden", also for an unknown route.
        detail = f"{describe_request(response)} returned {response.status_code}. {CHECK_KEY}"
        return {"title": "The API rejected the request", "status": response.status_code, "detail": detail}
    if response.status_code in _TRANSIENT or response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        detail = f"{describe_request(response)} returned {response.status_code}."
        return {"title": response.reason or "", "status": response.status_code, "detail": detail}
    if response.status_code == HTTPStatus.CONTENT_TOO_LARGE:
        return {"title": response.reason or "", "status": response.status_code}
    return None


def _is_missing_signature(response: requests.Response) -> bool:
    """Return whether API Gateway itself rejected an unsigned request. Newer stacks return a problem instead."""
    error_type = response.headers.get("x-amzn-ErrorType", "")
    return response.status_code == HTTPStatus.FORBIDDEN and error_type.startswith("MissingAuthenticationToken")


def read_problem_type(problem: dict[str, Any]) -> str:
    """Return the stable slug of a problem, or "" if the problem is not one of Modelhaul's."""
    problem_type = str(problem.get("type") or "")
    return problem_type.removeprefix(_PREFIX) if problem_type.startswith(_PREFIX) else ""


def read_retry_after(response: requests.Response) -> float | None:
    """Return `Retry-After` in seconds. The HTTP date form is ignored: neither the API nor S3 uses it."""
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isdecimal() else None
