"""Streaming JSON reader. Its memory use does not grow with the size of the file.

The objects that `json` builds from a tokenizer take ten times the file's size. For `[[],[],…` they take thirty times.
"""

import json
import re
from collections.abc import Callable, Collection, Iterator
from typing import Any

type ReadRange = Callable[[int, int], bytes]
"""Bytes `start` to `end` (excluded) of a file."""

_WINDOW = 4 * 1024 * 1024  # bytes of one read
# A string ends at a quote that no backslash precedes. If each window has such a quote, no string is longer than two
# windows.
_QUOTE = re.compile(rb'[^\\]"')
# ijson 3.6 terminates the process on integers of more than 4,300 digits. At least one window contains 2,000 or more of
# the digits of such an integer.
_TOO_MANY_DIGITS = b"0" * 2_000
_AS_DIGITS = bytes(ord("0") if chr(byte).isdecimal() and byte < 128 else ord(" ") for byte in range(256))  # noqa: PLR2004 - ASCII
_MAX_WHOLE_SIZE = 4 * 1024 * 1024  # bytes that are parsed at once, into objects of at most thirty times as many
_MAX_VALUES = 200_000  # in one member's value
_MAX_SHARDS = 100_000
_MAX_NAME_LENGTH = 80  # characters of a name in a message


class JsonError(Exception):
    """The text says in one line why the JSON cannot be read, as a predicate: `is not a JSON object`."""


def check_object(read: ReadRange, size: int) -> None:
    """Check that a file of `size` bytes is one JSON object. Raises JsonError."""
    find_names(read, size, ())


def find_names(read: ReadRange, size: int, wanted: Collection[str]) -> set[str]:
    """Return the names in `wanted` that the file's JSON object has at its top level. Raises JsonError.

    A file of up to 4 MiB may contain `NaN` and `Infinity`, which Python writes into configurations.
    """
    if size <= _MAX_WHOLE_SIZE:
        return set(wanted) & _parse_object(read(0, size)).keys()
    return {name for depth, event, name in _walk(read, 0, size) if depth == 1 and event == "map_key" and name in wanted}


def read_members(read: ReadRange, start: int, end: int) -> Iterator[tuple[str, Any]]:
    """Yield name and value of each member of the object in bytes `start` to `end` (excluded), one member at a time.

    Raises JsonError, also for a value with more than 200,000 nested values, and for a duplicate key.
    """
    events = _read_events(read, start, end)
    if next(events, None) != ("start_map", None):
        raise JsonError("is not a JSON object")
    for event, name in events:
        if event == "map_key":
            try:
                yield name, _build(next(events), events, [_MAX_VALUES])
            except RecursionError:
                raise JsonError("cannot be parsed as JSON") from None


def read_texts(read: ReadRange, size: int) -> Iterator[str]:
    """Yield every string value in the file's JSON, including the values of duplicate keys. Raises JsonError.

    A file of up to 4 MiB may contain everything that `json` accepts, such as `NaN`.
    """
    if size > _MAX_WHOLE_SIZE:
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
    """Return the files that an index lists in `weight_map`. Raises JsonError, also for more than 100,000 files."""
    shards: set[str] = set()
    is_inside = found = False
    for depth, event, value in _walk(read, 0, size):
        if depth == 1 and event == "map_key":
            is_inside = value == "weight_map"
        elif is_inside and depth == 1 and event == "start_map":
            found = True
        elif is_inside and event not in ("map_key", "end_map"):
            if depth != 2 or event != "string":  # noqa: PLR2004 - the depth of the map's values
                raise JsonError("has no weight_map of file names")
            shards.add(value)
            if len(shards) > _MAX_SHARDS:
                raise JsonError(f"lists more than {_MAX_SHARDS:,} shards")
    if not found:
        raise JsonError("has no weight_map of file names")
    return shards


def parse_json(content: bytes, **options: Any) -> Any:
    """Parse UTF-8 JSON with `json`. Raises JsonError."""
    try:
        return json.loads(content.decode(), **options)
    except (ValueError, RecursionError):
        raise JsonError("cannot be parsed as JSON") from None


def _parse_object(content: bytes) -> dict[str, Any]:
    parsed = parse_json(content)
    if not isinstance(parsed, dict):
        raise JsonError("is not a JSON object")
    return parsed


def _build(first: tuple[str, Any], events: Iterator[tuple[str, Any]], left: list[int]) -> Any:
    """Return the value that starts with the event `first`. It may have at most `left[0]` values, including itself."""
    left[0] -= 1
    if left[0] < 0:
        raise JsonError(f"has a value with more than {_MAX_VALUES:,} nested values")
    event, value = first
    if event == "start_map":
        built: dict[str, Any] = {}
        while (member := next(events))[0] == "map_key":
            if member[1] in built:
                raise JsonError(f"has the key {member[1][:_MAX_NAME_LENGTH]!r} twice in an object")
            built[member[1]] = _build(next(events), events, left)
        return built
    if event == "start_array":
        items = []
        while (item := next(events))[0] != "end_array":
            items.append(_build(item, events, left))
        return items
    return value


def _walk(read: ReadRange, start: int, end: int) -> Iterator[tuple[int, str, Any]]:
    """Yield depth (1 in the outermost object), event and value."""
    depth = 0
    for event, value in _read_events(read, start, end):
        if not depth and event != "start_map":
            raise JsonError("is not a JSON object")
        if event.startswith("end_"):
            depth -= 1
        # No caller needs the start and end events of the outermost object.
        if depth:
            yield depth, event, value
        if event.startswith("start_"):
            depth += 1


def _read_events(read: ReadRange, start: int, end: int) -> Iterator[tuple[str, Any]]:
    """Yield ijson's events: https://github.com/ICRAR/ijson#events. Raises JsonError."""
    # The import takes 20 ms, which would delay the cold start of functions that do not need it.
    import ijson  # noqa: PLC0415
    from ijson.backends import yajl2_c  # noqa: PLC0415 - no fallback to a slower backend

    try:
        yield from yajl2_c.basic_parse(_Feed(read, start, end))
    except (ijson.JSONError, ValueError):
        raise JsonError("cannot be parsed as JSON") from None


class _Feed:
    """File object for the parser, which reads small pieces. The file itself is read in windows."""

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
            raise JsonError("has a string, or a sequence without strings, that may exceed 4 MiB")
        if _TOO_MANY_DIGITS in window.translate(_AS_DIGITS):
            raise JsonError("has 2,000 or more digits in a row")
        return window
