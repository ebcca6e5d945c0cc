"""Compare what common ZIP programs extract with what the project's reader reads."""

import struct
import zlib
from collections.abc import Mapping

from modelhaul.archives.entries import ArchiveLimits, Entry
from modelhaul.archives.names import FAT_HOST, decode_as_cp437, decode_as_unzip
from modelhaul.archives.reader import ArchiveReader, open_memory
from modelhaul.domain.errors import ArchiveRefusedError
from tests.archives.readers import Reader, Reading

LIMITS = ArchiveLimits(max_entries=100_000, max_entry_bytes=10**9, max_total_bytes=10**10, max_ratio=1032)


def read_strictly(data: bytes) -> dict[Entry, bytes] | None:
    """Return the files as the project's reader accepts them, with those that imports skip. None if it refuses them."""
    reader = ArchiveReader(open_memory(data), len(data), LIMITS)
    try:
        reader.check_local_headers()
        contents = {entry: reader.read_entry(entry) for entry in reader.entries}
    except ArchiveRefusedError:
        return None
    return {entry: content for entry, content in contents.items() if not entry.is_directory}


def find_disagreements(data: bytes, files: Mapping[Entry, bytes], readers: Mapping[str, Reader]) -> list[str]:
    """Describe the differences to `files`, the result of `read_strictly`, for each reader that accepts the archive."""
    found = []
    for name, read in readers.items():
        reading = read(data)
        difference = None if reading is None else _compare(files, reading)
        if difference is not None:
            found.append(f"{name}: {difference}")
    return found


def _compare(files: Mapping[Entry, bytes], reading: Reading) -> str | None:
    if reading.specials:
        return f"extracts {sorted(reading.specials)} as links or devices"
    remaining = dict(reading.files)
    for entry, content in files.items():
        names = [name for name in _list_decoded_names(entry) if name in remaining]
        if not names:
            return f"does not extract {entry.name!r}, but {sorted(reading.files)}"
        if remaining.pop(names[0]) != content:
            return f"extracts different content for {entry.name!r}"
    # Python extracts a directory entry that ends with a backslash as an empty file.
    others = sorted(name for name, content in remaining.items() if content or not name.endswith(b"\\"))
    return f"also extracts {others}" if others else None


def _list_decoded_names(entry: Entry) -> list[bytes]:
    """Return the name itself, and as readers decode it that do not support UTF-8 or backslashes."""
    backslashed = decode_as_cp437(entry).replace("/", "\\") if b"\\" in entry.raw_name else entry.name
    names = [entry.name.encode(), entry.raw_name, backslashed.encode(), decode_as_cp437(entry).encode()]
    names.append(decode_as_unzip(entry, FAT_HOST).encode("latin-1", "replace"))
    return list(dict.fromkeys(names))


def read_like_torch(data: bytes) -> Reading | None:
    """Read like torch: an implementation of miniz's `mz_zip_reader_init` and `mz_zip_reader_extract_to_mem`.

    It uses the last end signature that is followed by 22 bytes, ignores the comment's size, and reads no local names.
    https://github.com/pytorch/pytorch/blob/main/third_party/miniz-3.0.2/miniz.c
    """
    end = data.rfind(b"PK\5\6", 0, max(0, len(data) - 22) + 4)
    if end < 0:
        return None
    disk, first, here, total, size, offset = struct.unpack_from("<4H2L", data, end + 4)
    if end >= 76 and data[end - 20 : end - 16] == b"PK\6\7":
        at = struct.unpack_from("<Q", data, end - 12)[0]
        if at > len(data) - 56:
            return None
        if data[at : at + 4] == b"PK\6\6":
            here, total, size, offset = struct.unpack_from("<4Q", data, at + 24)
    if here != total or (disk, first) not in {(0, 0), (1, 1)} or size < total * 46 or offset + size > len(data):
        return None
    return _read_entries_like_torch(data, total, offset, offset + size)


def _read_entries_like_torch(data: bytes, total: int, position: int, end: int) -> Reading | None:
    files = {}
    for _ in range(total):
        if end - position < 46 or data[position : position + 4] != b"PK\1\2":
            return None
        flags, method, _, _, crc32, packed, size, names, extras, comments = struct.unpack_from(
            "<4H3L3H", data, position + 8
        )
        at = struct.unpack_from("<L", data, position + 42)[0]
        name = data[position + 46 : position + 46 + names]
        extra = data[position + 46 + names : position + 46 + names + extras]
        position += 46 + names + extras + comments
        packed, size, at = _widen_like_torch(extra, packed, size, at)
        if flags & 0x2041 or method not in (0, 8) or data[at : at + 4] != b"PK\3\4":
            return None
        start = at + 30 + sum(struct.unpack_from("<2H", data, at + 26))
        try:
            body = data[start : start + packed]
            content = body if method == 0 else zlib.decompressobj(-15).decompress(body)
        except zlib.error:
            return None
        if len(content) != size or zlib.crc32(content) != crc32:
            return None
        if not name.endswith(b"/"):
            files[name] = content
    return Reading(files)


def _widen_like_torch(extra: bytes, packed: int, size: int, at: int) -> tuple[int, int, int]:
    if max(packed, size, at) != 0xFFFFFFFF:
        return packed, size, at
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        if kind == 1:
            values = list(struct.unpack_from(f"<{length // 8}Q", extra, 4))
            size = values.pop(0) if size == 0xFFFFFFFF and values else size
            packed = values.pop(0) if packed == 0xFFFFFFFF and values else packed
            at = values.pop(0) if at == 0xFFFFFFFF and values else at
            break
        extra = extra[4 + length :]
    return packed, size, at
