"""Names of callers: who submitted, cancelled or deleted something. They identify a caller, and are no secrets."""

import re

_ACCOUNT = re.compile(r"[0-9]{12}")


def name_api_key(key_id: str) -> str:
    """Return the name of a caller with an API key. API Gateway does not pass the name that the key has there."""
    return f"api-key:{key_id}"


def name_read_key(key_id: str) -> str:
    """Return the name of a client of the Hub read API."""
    return f"read-key:{key_id}"


def name_requester(requester: str) -> str:
    """Return the name of the requester of an S3 event, which is the ID of an AWS account or a service principal.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html
    """
    return f"aws-account:{requester}" if _ACCOUNT.fullmatch(requester) else f"aws-service:{requester}"
