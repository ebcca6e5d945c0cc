"""JSON read piece by piece: what it takes of memory does not grow with the file.

What `json` builds of a tokenizer takes ten times its size, and of `[[],[],…` thirty times.
"""

import json
import re
from collections.abc import Callable, Collection, Iterator
from typing import Any

type ReadRange = Callable[[int, int], bytes]
"""Bytes `start` to `end` (excluded) of a file."""

_WINDOW = 4 * 1024 * 1024  # bytes of one read
# No text goes on behind a quote that no backslash precedes: with one in each window, none has more than two windows.
_QUOTE = re.compile(rb'[^\\]"')
# ijson 3.6 ends the process on integers of more than 4,300 digits; of these, one window has 2,000 or more.
_TOO_MANY_DIGITS = b"0" * 2_000
_AS_DIGITS = bytes(ord("0") if chr(byte).isdecimal() and byte < 128 else ord(" ") for byte in range(256))  # noqa: PLR2004 - ASCII
_WHOLE = 4 * 1024 * 1024  # bytes that are parsed at once, to at most thirty times as many
_MAX_PARTS = 200_000  # of one member's value
_MAX_SHARDS = 100_000
_SHOWN = 80  # characters of a name in what is said


class JsonError(Exception):
    """Its text says in a line what keeps the JSON from being read."""


def check_object(read: ReadRange, size: int) -> None:
    """Raises JsonError unless a file of `size` bytes is one JSON object."""
    find_names(read, size, ())


def find_names(read: ReadRange, size: int, wanted: Collection[str]) -> set[str]:
    """Those of `wanted` that are names in the file's one JSON object. Raises JsonError.

    Up to 4 MiB it may have `NaN` and `Infinity`, which Python writes into configurations.
    """
    if size <= _WHOLE:
        return set(wanted) & _parse_object(read(0, size)).keys()
    return {name for depth, event, name in _walk(read, 0, size) if depth == 1 and event == "map_key" and name in wanted}


def read_members(read: ReadRange, start: int, end: int) -> Iterator[tuple[str, Any]]:
    """Name and value of each member of the object in bytes `start` to `end` (excluded), one built after the other.

    Raises JsonError, also for a value of more than 200,000 parts and for one that has a name twice.
    """
    events = _read_events(read, start, end)
    if next(events, None) != ("start_map", None):
        raise JsonError("is not a JSON object")
    for event, name in events:
        if event == "map_key":
            try:
                yield name, _build(next(events), events, [_MAX_PARTS])
            except RecursionError:
                raise JsonError("is not JSON that can be read") from None


def read_texts(read: ReadRange, size: int) -> Iterator[str]:
    """Every text that is a value in the file's JSON, also of members that are repeated. Raises JsonError.

    Up to 4 MiB it takes what Python's own reader takes, such as `NaN`.
    """
    if size > _WHOLE:
        yield from (value for event, value in _read_events(read, 0, size) if event == "string")
        return
    values = [parse_json(read(0, size), object_pairs_hook=lambda members: [value for _, value in members])]
    while values:
        value = values.pop()
        if isinstance(value, list):
            values += value
        elif isinstance(value, str):
            yield value


def list_shards(read: ReadRange, size: int) -> set[str]:
    """The files that an index's `weight_map` names. Raises JsonError, also for more than 100,000."""
    shards: set[str] = set()
    is_inside = found = False
    for depth, event, value in _walk(read, 0, size):
        if depth == 1 and event == "map_key":
            is_inside = value == "weight_map"
        elif is_inside and depth == 1 and event == "start_map":
            found = True
        elif is_inside and event not in ("map_key", "end_map"):
            if depth != 2 or event != "string":  # noqa: PLR2004 - in the map, which is in the object
                raise JsonError("has no weight_map of names")
            shards.add(value)
            if len(shards) > _MAX_SHARDS:
                raise JsonError(f"names more than {_MAX_SHARDS:,} shards")
    if not found:
        raise JsonError("has no weight_map of names")
    return shards


def parse_json(content: bytes, **options: Any) -> Any:
    """What Python's own reader makes of UTF-8 JSON. Raises JsonError."""
    try:
        return json.loads(content.decode(), **options)
    except (ValueError, RecursionError):
        raise JsonError("is not JSON that can be read") from None


def _parse_object(content: bytes) -> dict[str, Any]:
    parsed = parse_json(content)
    if not isinstance(parsed, dict):
        raise JsonError("is not a JSON object")
    return parsed


def _build(first: tuple[str, Any], events: Iterator[tuple[str, Any]], left: list[int]) -> Any:
    """The value that begins with the event `first`, of at most `left[0]` parts."""
    left[0] -= 1
    if left[0] < 0:
        raise JsonError(f"has a value of more than {_MAX_PARTS:,} parts")
    event, value = first
    if event == "start_map":
        built: dict[str, Any] = {}
        while (member := next(events))[0] == "map_key":
            if member[1] in built:
                raise JsonError(f"names {member[1][:_SHOWN]!r} twice")
            built[member[1]] = _build(next(events), events, left)
        return built
    if event == "start_array":
        items = []
        while (item := next(events))[0] != "end_array":
            items.append(_build(item, events, left))
        return items
    return value


def _walk(read: ReadRange, start: int, end: int) -> Iterator[tuple[int, str, Any]]:
    """Depth (1 in the outermost object), event and value."""
    depth = 0
    for event, value in _read_events(read, start, end):
        if not depth and event != "start_map":
            raise JsonError("is not a JSON object")
        if event.startswith("end_"):
            depth -= 1
        # The outermost object's own events have no depth that anybody asks for.
        if depth:
            yield depth, event, value
        if event.startswith("start_"):
            depth += 1


def _read_events(read: ReadRange, start: int, end: int) -> Iterator[tuple[str, Any]]:
    """https://github.com/ICRAR/ijson#events"""
    # Takes 20 ms to import, which most functions' starts can do without.
    import ijson  # noqa: PLC0415
    from ijson.backends import yajl2_c  # noqa: PLC0415 - no slower one in its place

    try:
        yield from yajl2_c.basic_parse(_Feed(read, start, end))
    except (ijson.JSONError, ValueError):
        raise JsonError("is not JSON that can be read") from None


class _Feed:
    """A file's bytes as the parser takes them, in small pieces out of windows."""

    def __init__(self, read: ReadRange, start: int, end: int) -> None:
        self._read = read
        self._next = start
        self._end = end
        self._window = memoryview(b"")

    def read(self, size: int) -> bytes:
        if size and not self._window and self._next < self._end:
            self._window = memoryview(self._fetch())
        piece, self._window = self._window[:size], self._window[size:]
        return bytes(piece)

    def _fetch(self) -> bytes:
        window = self._read(self._next, min(self._next + _WINDOW, self._end))
        self._next += len(window)
        if len(window) == _WINDOW and not _QUOTE.search(window):
            raise JsonError("holds more than 4 MiB in one text, or in numbers alone")
        if _TOO_MANY_DIGITS in window.translate(_AS_DIGITS):
            raise JsonError("has more than 2,000 digits in a row")
        return window
