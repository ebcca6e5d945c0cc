"""Session, clients and error codes of botocore for all adapters."""

import threading
from functools import cache
from http import HTTPStatus
from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, IncompleteReadError
from botocore.exceptions import ConnectionError as BotocoreConnectionError
from botocore.session import Session, get_session

CALL_ERRORS = (ClientError, BotoCoreError)

_CONNECTION_ERRORS = (BotocoreConnectionError, HTTPClientError, IncompleteReadError)
_TEMPORARY_STATUSES = {
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}
# Codes of errors with another status, and of errors without a status: those of pynamodb, and of entries of a response.
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html
_TEMPORARY_CODES = {
    "InternalError",
    "InternalFailure",
    "InternalServerError",
    "OperationAborted",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingError",
    "ThrottlingException",
}

_session_lock = threading.Lock()


@cache
def open_session() -> Session:
    """Return the session of all clients, including pynamodb's, so that region and endpoint data is loaded only once.

    boto3 returns the same clients, but would make a cold start longer.
    """
    return get_session()


def create_client(service: str, region: str, config: Config) -> Any:
    """Create a client for the service. Its type is `mypy_boto3_<service>`'s."""
    with _session_lock:  # a session is not thread-safe
        return open_session().create_client(service, region_name=region, config=config)


def read_error_code(error: Exception) -> str:
    """Return the service's error code (`SlowDown`; for HEAD the status, `404`) or the exception's name.

    It does not return the message, which may contain ARNs and URLs.
    """
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", "Unknown"))
    return type(error).__name__


def is_temporary(error: BaseException | None) -> bool:
    """Return whether a call may succeed later: the service was not reached, failed (5xx) or throttled the call.

    Other errors, such as AccessDenied and NoSuchBucket, last until somebody corrects their cause. So does 507 of a
    local stack, whose disk is full.
    """
    if not isinstance(error, ClientError):
        return isinstance(error, _CONNECTION_ERRORS)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status in _TEMPORARY_STATUSES or is_temporary_code(read_error_code(error))


def is_temporary_code(code: str) -> bool:
    """Return whether an error code means that a call may succeed later. A response without a code has its status."""
    return code in _TEMPORARY_CODES or (code.isdecimal() and int(code) in _TEMPORARY_STATUSES)
