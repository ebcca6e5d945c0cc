"""Names of callers: who submitted, cancelled or deleted something. They identify a caller, and are no secrets."""

import re

_READ_KEY = "read-key:"
_FOLLOW = "follow:"
_ACCOUNT = re.compile(r"[0-9]{12}")
_SESSION = re.compile(r"(arn:[^:]*:sts::[0-9]{12}:assumed-role/[^/]+)/.+")
_RETENTION = "retention:"


def name_api_key(key_id: str) -> str:
    """Return the name of a caller with an API key. API Gateway does not pass the name that the key has there."""
    return f"api-key:{key_id}"


def name_read_key(key_id: str) -> str:
    """Return the name of a client of the Hub read API."""
    return f"{_READ_KEY}{key_id}"


def repeats_requests(caller: str | None) -> bool:
    """Return whether the caller is a client of the Hub read API or a follow, which repeat their requests."""
    return caller is not None and caller.startswith((_READ_KEY, _FOLLOW))


def name_follow(follow_id: str) -> str:
    """Return the name of a follow, which submits imports."""
    return f"{_FOLLOW}{follow_id}"


def name_requester(requester: str) -> str:
    """Return the name of the requester of an S3 event, which is the ID of an AWS account or a service principal.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html
    """
    return f"aws-account:{requester}" if _ACCOUNT.fullmatch(requester) else f"aws-service:{requester}"


def name_retention_rule(rule: str) -> str:
    """Return the name of a retention rule as the actor of a deletion."""
    return f"{_RETENTION}{rule}"


def is_retention_rule(caller: str | None) -> bool:
    """Return whether the name is that of a retention rule."""
    return caller is not None and caller.startswith(_RETENTION)


def is_same_caller(first: str | None, second: str | None) -> bool:
    """Return whether two names are those of one caller. Sessions of a role are, because their names may be random.

    A caller that AWS does not name may be any.
    """
    return first is None or second is None or remove_session(first) == remove_session(second)


def remove_session(caller: str) -> str:
    """Return the caller's name without the name of its session, if it is a session of a role."""
    session = _SESSION.fullmatch(caller)
    return session[1] if session else caller
