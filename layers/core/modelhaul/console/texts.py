"""Values as text. Sizes, durations and waits read as in the command line."""

from collections.abc import Mapping
from datetime import datetime, tzinfo
from typing import Any

_UNITS = ("kB", "MB", "GB", "TB", "PB", "EB")
_STEP = 1000
_REPLACEMENT = "\ufffd"
_AWAITED = {
    "rate-limited": "for the rate limit of the source",
    "source-unavailable": "for the source",
    "stalled-transfer": "for the source",
    "policy-unavailable": "for the import policy, which cannot be read",
    "storage-unavailable": "to retry a request to AWS",
}


def clean(value: object, limit: int) -> str:
    """Return untrusted text in at most `limit` characters.

    Characters that are not printable are replaced, because they could reverse the direction of the text, and because an
    unpaired surrogate cannot be encoded.
    """
    text = "".join(c if c.isprintable() else _REPLACEMENT for c in " ".join(str(value).split()))
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def format_size(size: int) -> str:
    """Return a size in decimal units, such as `1.2 GB`."""
    if size < _STEP:
        return "1 byte" if size == 1 else f"{size:,} bytes"
    unit = _STEP
    for name in _UNITS[:-1]:
        if size < unit * _STEP:
            return f"{size / unit:,.1f} {name}"
        unit *= _STEP
    return f"{size / unit:,.1f} {_UNITS[-1]}"


def format_duration(seconds: float) -> str:
    """Return a duration such as `45 s`, `3:05 min` or `2:03:05 h`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{rest:02} h"
    return f"{minutes}:{rest:02} min" if minutes else f"{rest} s"


def format_time(moment: datetime, zone: tzinfo, now: datetime) -> str:
    """Return `12:03`, or `2025-06-22 12:03` if it is another day in this time zone."""
    local = moment.astimezone(zone)
    is_today = local.date() == now.astimezone(zone).date()
    return f"{local:%H:%M}" if is_today else f"{local:%Y-%m-%d %H:%M}"


def describe_pace(progress: Mapping[str, Any]) -> str:
    """Return a text such as `75.0 MB/s, 45 s left`, without the parts that are unknown."""
    rate, left = progress.get("bytes_per_second"), progress.get("seconds_left")
    parts = [f"{format_size(int(rate))}/s"] if rate else []
    parts += [f"{format_duration(left)} left"] if left else []
    return ", ".join(parts)


def describe_waiting(waiting: Mapping[str, Any], zone: tzinfo, now: datetime) -> str:
    """Return a text such as `waiting for the source since 12:03 (ERROR)`."""
    awaited = _AWAITED.get(waiting["reason"], "to retry a failed step")
    since = format_time(datetime.fromisoformat(waiting["since"]), zone, now)
    return f"waiting {awaited} since {since} ({str(waiting['detail']).rstrip('.')})"


def describe_next_attempt(moment: str, now: datetime) -> str:
    """Return a text such as `next attempt in 40 s`. `moment`: ISO 8601."""
    seconds = (datetime.fromisoformat(moment) - now).total_seconds()
    return f"next attempt in {format_duration(seconds)}" if seconds > 0 else "next attempt now"
