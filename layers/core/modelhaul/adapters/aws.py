"""What the adapters over botocore's clients share."""

import threading
from functools import cache
from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import Session, get_session

CALL_ERRORS = (ClientError, BotoCoreError)

_creating = threading.Lock()


@cache
def open_session() -> Session:
    """One for all clients, also pynamodb's: what botocore reads of regions and endpoints it reads once. boto3, whose
    clients are botocore's, would only add to a cold start.
    """
    return get_session()


def create_client(service: str, region: str, config: Config) -> Any:
    """A client of boto3's type for the service (`mypy_boto3_…`)."""
    with _creating:  # a session is not thread-safe
        return open_session().create_client(service, region_name=region, config=config)


def read_error_code(error: Exception) -> str:
    """The service's code (`SlowDown`, for a HEAD the status: `404`), or what broke (`ReadTimeoutError`).

    Never the message: it may hold ARNs and addresses.
    """
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", "Unknown"))
    return type(error).__name__
