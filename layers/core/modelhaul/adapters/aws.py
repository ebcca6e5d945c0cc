"""Session, clients and error codes of botocore for all adapters."""

import threading
from functools import cache
from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import Session, get_session

CALL_ERRORS = (ClientError, BotoCoreError)

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
