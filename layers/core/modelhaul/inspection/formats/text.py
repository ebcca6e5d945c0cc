"""Plain text and JSON, read to the end of the file."""

import codecs
import re

from modelhaul.domain.findings import ContentReport
from modelhaul.domain.json_streams import JsonError, ReadRange, read_texts
from modelhaul.inspection.windows import ContentError, read_windows

MAX_TEXT = 256 * 1024 * 1024  # bytes
MAX_JSON = 128 * 1024 * 1024  # bytes; tokenizers have up to a few tens of millions
_ENCODINGS = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
# All control characters except tab, line feed, vertical tab, form feed and carriage return.
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f]")


def inspect_text(read: ReadRange, size: int) -> ContentReport:
    """Inspect text in UTF-8, or in UTF-16 with a byte order mark, without control characters. Source code is text."""
    try:
        _check_text(read, size)
    except ContentError as error:
        return ContentReport("text", str(error))
    return ContentReport("text")


def inspect_json(read: ReadRange, size: int) -> ContentReport:
    """Inspect one JSON value of any kind. JSON Lines are text."""
    if size > MAX_JSON:
        return ContentReport("json", f"JSON file has {size:,} bytes; the limit is {MAX_JSON:,}")
    try:
        for _ in read_texts(read, size):
            pass
    except JsonError as error:
        return ContentReport("json", f"File {error}")
    return ContentReport("json")


def _check_text(read: ReadRange, size: int) -> None:
    if size > MAX_TEXT:
        raise ContentError(f"Text file has {size:,} bytes; the limit is {MAX_TEXT:,}")
    encoding = _ENCODINGS.get(read(0, min(size, 2)), "utf-8")
    decoder = codecs.getincrementaldecoder(encoding)()
    position = 0
    try:
        for window in read_windows(read, 0, size):
            if control := _CONTROL.search(decoder.decode(window)):
                raise ContentError(
                    f"File is not text: control character {ord(control[0]):#04x} after byte {position:,}"
                )
            position += len(window)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise ContentError(f"File is not valid {encoding.upper()} after byte {position:,}") from None
