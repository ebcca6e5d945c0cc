"""Describe the wait of a task for its next attempt."""

from datetime import UTC, datetime
from typing import Any

from modelhaul_cli.output import format_duration

_AWAITED = {
    "rate-limited": "for the rate limit of the source",
    "source-unavailable": "for the source",
    "stalled-transfer": "for the source",
    "policy-unavailable": "for the import policy, which cannot be read",
    "storage-unavailable": "to retry a request to AWS",  # an outage, or for example AccessDenied
}


def describe_waiting(waiting: dict[str, Any]) -> str:
    """Return a text such as `waiting for the source since 12:03 (ERROR)`, with the local time.

    The text has the date if it is not today.
    """
    awaited = _AWAITED.get(waiting["reason"], "to retry a failed step")
    since = datetime.fromisoformat(waiting["since"]).astimezone()
    moment = f"{since:%H:%M}" if since.date() == datetime.now().astimezone().date() else f"{since:%Y-%m-%d %H:%M}"
    return f"waiting {awaited} since {moment} ({str(waiting['detail']).rstrip('.')})"


def describe_next_attempt(moment: str) -> str:
    """Return a text such as `next attempt in 40 s`. `moment`: ISO 8601."""
    seconds = (datetime.fromisoformat(moment) - datetime.now(UTC)).total_seconds()
    return f"next attempt in {format_duration(seconds)}" if seconds > 0 else "next attempt now"
