"""Pagination cursors."""

import base64
import re
from collections.abc import Mapping
from typing import Any

from modelhaul.domain.errors import InvalidReferenceError

_CURSOR = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\.[0-9]{6}\+0000 [0-9a-f-]{36}")
_MAX_SHOWN = 40  # characters of a cursor in a message
MAX_INDEX_PAGES = 10  # pages of an index that are read for one page of a list


def write_cursor(key: Mapping[str, Any], id_name: str) -> str:
    """Return the cursor for the page that starts after `key`."""
    text = f"{key['created_at']['S']} {key[id_name]['S']}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(cursor: str, id_name: str) -> dict[str, dict[str, str]]:
    """Return the key after which the page starts, without the partition key of the index.

    Raises InvalidReferenceError for an invalid cursor.
    """
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
    except ValueError:
        text = ""
    if not _CURSOR.fullmatch(text):
        shown = cursor if len(cursor) <= _MAX_SHOWN else f"{cursor[:_MAX_SHOWN]}…"
        raise InvalidReferenceError(
            f"Invalid pagination cursor {shown!r}. Send the `cursor` of the previous page unchanged, or omit it to "
            "start at the first page.",
            part="cursor",
        )
    created_at, item_id = text.split(" ")
    return {"created_at": {"S": created_at}, id_name: {"S": item_id}}
