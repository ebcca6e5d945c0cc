"""Compressed files. The decompressed content is inspected as a file."""

import bz2
import lzma
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from modelhaul.domain.findings import ContentReport
from modelhaul.inspection.containers import MAX_DEPTH, MAX_IN_MEMORY, TOO_DEEP, ContainerLimitError, InspectMember
from modelhaul.inspection.loaders import is_text_name, may_be_unpickled
from modelhaul.inspection.opened import OpenedFile, open_bytes

_MAX_COMPRESSED = 34 * 1024 * 1024  # bytes of a compressed file
_PIECE = 1024  # bytes that are decompressed at once
_MAX_STREAMS = 100  # compressed streams one after another
_MAX_DICTIONARY = 68 * 1024 * 1024  # bytes that an LZMA decompressor may use
_LZMA_MEMORY_ERROR = "Memory usage limit"  # start of the lzma module's message

_DECOMPRESSORS: dict[str, tuple[tuple[bytes, ...], Callable[[], Any]]] = {
    "gzip": ((b"\x1f\x8b",), lambda: zlib.decompressobj(31)),
    "bzip2": ((b"BZh",), bz2.BZ2Decompressor),
    "xz": ((b"\xfd7zXZ\x00",), lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MAX_DICTIONARY)),
    "lzma": ((b"]\x00",), lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_MAX_DICTIONARY)),
    "zlib": ((b"x\x01", b"x\x5e", b"x\x9c", b"x\xda"), zlib.decompressobj),
}
"""With the magic numbers of each format."""
# The magic numbers of zlib and of legacy LZMA are too short to distinguish their files from other content.
_UNCERTAIN = {"zlib", "lzma"}
_PADDED = {"gzip", "xz"}  # zeros may follow a stream
_UNSUPPORTED = {b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22M\x18": "lz4", b"ZF0x": "joblib's old compression"}


def inspect_compressed(file: OpenedFile, inspect_member: InspectMember) -> ContentReport | None:
    """Inspect the content of a compressed file. Return None if the file is not compressed."""
    unsupported = next((name for magic, name in _UNSUPPORTED.items() if file.head.startswith(magic)), None)
    if unsupported is not None:
        is_loadable = file.is_unpickled or may_be_unpickled(file.path)
        return ContentReport(unsupported, f"Unsupported compression: {unsupported}", is_loadable=is_loadable)
    for name, (magics, _) in _DECOMPRESSORS.items():
        if file.head.startswith(magics):
            return _inspect_decompressed(file, name, magics, inspect_member)
    return None


def _inspect_decompressed(
    file: OpenedFile, name: str, magics: tuple[bytes, ...], inspect_member: InspectMember
) -> ContentReport | None:
    if file.depth >= MAX_DEPTH:
        return ContentReport(name, TOO_DEEP, is_loadable=True)
    try:
        content, problem = _decompress_streams(file.read(0, min(file.size, _MAX_COMPRESSED)), name, magics)
    except ContainerLimitError as error:
        return ContentReport(name, str(error), is_loadable=True)
    if file.size > _MAX_COMPRESSED:
        problem = f"has {file.size:,} compressed bytes; the limit is {_MAX_COMPRESSED:,}"
    path = _strip_suffix(file.path)
    inner = inspect_member(open_bytes(path, content, file))
    if problem is None:
        return replace(inner, format=f"{inner.format} in {name}")
    if name in _UNCERTAIN and not inner.is_loadable and len(content) <= MAX_IN_MEMORY:
        # Raw data that begins like a compressed stream.
        return None
    # Pickle loaders decompress piece by piece, and run the content before the damage.
    reason = f"Data in {name} format {problem}"
    is_unread = bool(content) and not is_text_name(path)
    return replace(inner, format=f"{inner.format} in {name}", reason=reason, unread=is_unread or file.is_unpickled)


def _decompress_streams(data: bytes, name: str, magics: tuple[bytes, ...]) -> tuple[bytes, str | None]:
    """Return the content, at most 32 MiB and a byte, and the reason for which readers may find other content.

    The reason is a predicate, or None if the content is all that readers find.

    Readers of gzip, bzip2 and xz continue with the next stream in the file, those of gzip and xz also after zeros.
    Raises ContainerLimitError.
    """
    content = bytearray()
    for _ in range(_MAX_STREAMS):
        rest = _decompress(_DECOMPRESSORS[name][1](), data, content)
        if rest is None:
            if len(content) > MAX_IN_MEMORY:
                return bytes(content), f"has more than {MAX_IN_MEMORY:,} decompressed bytes"
            return bytes(content), "is damaged or truncated"
        data = rest.lstrip(b"\0") if name in _PADDED else rest
        if not data:
            return bytes(content), None
        if name in _UNCERTAIN or not data.startswith(magics):
            return bytes(content), "is followed by other data"
    return bytes(content), f"has more than {_MAX_STREAMS} compressed streams"


def _decompress(decompressor: Any, data: bytes, content: bytearray) -> bytes | None:
    """Append one stream to `content`, and return the bytes after it; None for a damaged stream, or above 32 MiB.

    The pieces are smaller than those of any reader, so that `content` includes all that a reader finds before the
    damage. Raises ContainerLimitError for a dictionary that is too large.
    """
    for position in range(0, len(data), _PIECE):
        piece: bytes | None = data[position : position + _PIECE]
        while piece is not None and not decompressor.eof:
            try:
                content += decompressor.decompress(piece, MAX_IN_MEMORY + 1 - len(content))
            except lzma.LZMAError as error:
                if _LZMA_MEMORY_ERROR in str(error):
                    # Readers without this limit continue.
                    raise ContainerLimitError(f"LZMA dictionary exceeds {_MAX_DICTIONARY:,} bytes") from None
                return None
            except (zlib.error, OSError, EOFError):
                return None
            if len(content) > MAX_IN_MEMORY:
                return None
            piece = _find_next_input(decompressor)
        if decompressor.eof:
            return bytes(decompressor.unused_data) + data[position + _PIECE :]
    return None


def _find_next_input(decompressor: Any) -> bytes | None:
    """Return the input that the decompressor has not consumed; None if it needs new input."""
    if isinstance(decompressor, (bz2.BZ2Decompressor, lzma.LZMADecompressor)):
        return None if decompressor.needs_input else b""
    rest: bytes = decompressor.unconsumed_tail
    return rest or None


def _strip_suffix(path: str) -> str:
    return path.removesuffix(PurePosixPath(path).suffix)
