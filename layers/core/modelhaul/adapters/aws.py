"""What the adapters over boto3 clients share."""

from botocore.exceptions import BotoCoreError, ClientError

CALL_ERRORS = (ClientError, BotoCoreError)


def read_error_code(error: Exception) -> str:
    """The service's code (`SlowDown`, for a HEAD the status: `404`), or what broke (`ReadTimeoutError`).

    Never the message: it may hold ARNs and addresses.
    """
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", "Unknown"))
    return type(error).__name__
