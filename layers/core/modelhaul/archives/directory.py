"""The strict reading of a ZIP's directory (APPNOTE 6.3.10): bytes in, entries or a refusal out.

What two ZIP readers could read differently is refused, because then nobody knows which of them was right.
https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
"""

import re
import stat
import struct
import unicodedata
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum

from modelhaul.errors import ArchiveRefusedError
from modelhaul.model import MAX_FILE_SIZE

TAIL_SIZE = 1024 * 1024  # bytes of the archive's end that callers read first
LOCAL_HEADER_SIZE = 30
_END = b"PK\x05\x06"
_EOCD = struct.Struct("<4s4H2LH")  # 4.3.16
_LOCATOR = struct.Struct("<4sLQL")  # 4.3.15
_EOCD64 = struct.Struct("<4sQ2H2L4Q")  # 4.3.14
_CENTRAL = struct.Struct("<4s4B4H3L5H2L")  # 4.3.12
_LOCAL = struct.Struct("<4s5H3L2H")  # 4.3.7
_MAX_DIRECTORY = 64 * 1024 * 1024
_MAX_PATH = 900
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_DESCRIPTOR = 0x8
_UTF8 = 0x800
_KNOWN_FLAGS = 0x6 | _DESCRIPTOR | _UTF8
_ZIP64, _UNICODE_PATH = 0x1, 0x7075
_ALL_ONES = {"Q": 0xFFFFFFFF, "L": 0xFFFF}  # what stands for a value that the zip64 field has, by its size there
_UNIX_HOSTS = (3, 19)
_MAX_DEFLATE_RATIO = 1032
_RATIO_FROM = 1024 * 1024  # bytes inflated
_EMPTY_DEFLATED = 16  # bytes: more than any compressor makes of nothing
_RATIO_SLACK = 1032  # bytes: the last symbol of a deflate stream may begin in the byte before
_DESCRIPTOR_SIZES = (12, 16, 20, 24)  # 4.3.9: with a signature or without, of 32 or 64 bits
_UNMARKED = (
    "has a name in an unknown encoding, as it is not marked as UTF-8: zip it with another tool (7-Zip, Python, jar), "
    "or in ASCII"
)
_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)


class Refusal(StrEnum):
    """Why an archive is refused."""

    EMPTY = "empty"
    NOT_A_ZIP = "not-a-zip"
    TRUNCATED = "truncated"
    MALFORMED = "malformed"
    AMBIGUOUS_END = "ambiguous-end"
    MULTIPLE_DISKS = "multiple-disks"
    PREPENDED = "prepended"
    APPENDED = "appended"
    ZIP64 = "zip64"
    PATH_ESCAPE = "path-escape"
    UNFIT_NAME = "unfit-name"
    NAME_ENCODING = "name-encoding"
    COLLISION = "collision"
    SPECIAL_FILE = "special-file"
    OVERLAP = "overlap"
    HIDDEN_DATA = "hidden-data"
    BOMB = "bomb"
    TOO_MANY_ENTRIES = "too-many-entries"
    TOO_LARGE = "too-large"
    HEADER_MISMATCH = "header-mismatch"
    METHOD = "method"
    ENCRYPTED = "encrypted"
    DAMAGED = "damaged"
    CRC_MISMATCH = "crc-mismatch"


class Method(IntEnum):
    STORED = 0
    DEFLATED = 8


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """About inflated bytes. `max_entry_bytes` is for deflated entries, `max_ratio` (inflated : compressed) for entries
    and archives of more than 1 MiB.
    """

    max_entries: int
    max_entry_bytes: int
    max_total_bytes: int
    max_ratio: int


@dataclass(frozen=True, slots=True)
class DirectoryLocation:
    """Where the central directory lies, and how many entries it says it has."""

    offset: int
    size: int
    entries: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the central directory. Its local header is at `header_offset`, and the next entry's, or the
    directory, at `end`.
    """

    name: str
    raw_name: bytes
    method: Method
    flags: int
    crc32: int
    compressed_size: int
    size: int
    header_offset: int
    end: int

    @property
    def is_directory(self) -> bool:
        return self.name.endswith("/")


class ShortHeaderError(Exception):
    """More bytes of a local header are `needed` than were given."""

    def __init__(self, needed: int) -> None:
        super().__init__(needed)
        self.needed = needed


def is_junk(name: str) -> bool:
    """Whether an entry is what macOS adds by itself."""
    base = name.rstrip("/").rpartition("/")[2]
    return name.startswith("__MACOSX/") or base.startswith("._") or base == ".DS_Store"


def find_directory(tail: bytes, archive_size: int) -> DirectoryLocation:
    """Finds the central directory from the archive's last bytes, `TAIL_SIZE` or all. Raises ArchiveRefusedError."""
    if archive_size == 0:
        raise ArchiveRefusedError("The file is empty.", reason=Refusal.EMPTY)
    candidates = list(_find_ends(tail))
    if not candidates:
        raise _describe_missing_end(tail, archive_size)
    if len(candidates) > 1:
        raise ArchiveRefusedError(
            "The archive has more than one end, so that it can be read in two ways.", reason=Refusal.AMBIGUOUS_END
        )
    position = candidates[0]
    _, disk, first_disk, here, total, size, offset, _ = _EOCD.unpack_from(tail, position)
    end = archive_size - len(tail) + position
    location = _find_zip64(tail, position, end, (disk, first_disk, here, total, size, offset))
    if location is None:
        if disk or first_disk or here != total:
            raise ArchiveRefusedError("The archive is a part of several.", reason=Refusal.MULTIPLE_DISKS)
        location = DirectoryLocation(offset, size, total)
        _check_end(location, end)
    if location.entries == 0:
        raise ArchiveRefusedError("There is nothing in the archive.", reason=Refusal.EMPTY)
    if location.size > _MAX_DIRECTORY:
        raise ArchiveRefusedError("The archive's directory is larger than 64 MiB.", reason=Refusal.TOO_MANY_ENTRIES)
    return location


def _describe_missing_end(tail: bytes, archive_size: int) -> ArchiveRefusedError:
    position = tail.rfind(_END)
    if 0 <= position <= len(tail) - _EOCD.size:
        end = position + _EOCD.size + _EOCD.unpack_from(tail, position)[7]
        if end < len(tail):
            return ArchiveRefusedError(
                f"{len(tail) - end:,} bytes stand behind the archive's end.", reason=Refusal.APPENDED
            )
    if position >= 0 or (archive_size == len(tail) and tail.startswith(b"PK\x03\x04")):
        return ArchiveRefusedError("The archive was cut off before its end.", reason=Refusal.TRUNCATED)
    return ArchiveRefusedError("The file is not a ZIP archive, or was cut off.", reason=Refusal.NOT_A_ZIP)


def _find_ends(tail: bytes) -> Iterator[int]:
    """Positions of end records whose comment ends with the file."""
    position = tail.rfind(_END)
    while position >= 0 and len(tail) - position <= _EOCD.size + 0xFFFF:
        if len(tail) - position >= _EOCD.size:
            comment = _EOCD.unpack_from(tail, position)[7]
            if position + _EOCD.size + comment == len(tail):
                yield position
        position = tail.rfind(_END, 0, position)


def _find_zip64(tail: bytes, position: int, end: int, short: tuple[int, ...]) -> DirectoryLocation | None:
    """None if the archive has no zip64 end records."""
    start = position - _LOCATOR.size
    if start < 0 or tail[start : start + 4] != b"PK\x06\x07":
        if _ALL_ONES["Q"] in short[4:]:
            raise _refuse_zip64("its zip64 end record is missing")
        return None
    _, disk, record_offset, disks = _LOCATOR.unpack_from(tail, start)
    record = start - _EOCD64.size
    base = end - position
    if record < 0 or base + record != record_offset:
        raise _refuse_zip64("its zip64 end record is not where it should be")
    signature, size, _, _, disk64, first64, here64, total64, size64, offset64 = _EOCD64.unpack_from(tail, record)
    if signature != b"PK\x06\x06" or size != _EOCD64.size - 12:
        raise _refuse_zip64("its zip64 end record is malformed")
    if disk or disks > 1 or disk64 or first64 or here64 != total64:
        raise ArchiveRefusedError("The archive is a part of several.", reason=Refusal.MULTIPLE_DISKS)
    for value, full, limit in zip(
        short, (disk64, first64, here64, total64, size64, offset64), (0xFFFF,) * 4 + (0xFFFFFFFF,) * 2, strict=True
    ):
        if value not in (full, limit):
            raise _refuse_zip64("its two end records disagree")
    location = DirectoryLocation(offset64, size64, total64)
    _check_end(location, base + record)
    return location


def _refuse_zip64(what: str) -> ArchiveRefusedError:
    return ArchiveRefusedError(f"The archive is malformed: {what}.", reason=Refusal.ZIP64)


def _check_end(location: DirectoryLocation, end: int) -> None:
    directory_end = location.offset + location.size
    if directory_end < end:
        raise ArchiveRefusedError(
            f"{end - directory_end:,} bytes stand before the archive or between its directory and its end.",
            reason=Refusal.PREPENDED,
        )
    if directory_end > end:
        raise ArchiveRefusedError("The archive's directory begins after its end.", reason=Refusal.TRUNCATED)


def read_directory(data: bytes, location: DirectoryLocation, limits: ArchiveLimits) -> tuple[Entry, ...]:
    """The entries, in order of their place in the archive. Raises ArchiveRefusedError."""
    if location.entries > limits.max_entries:
        raise ArchiveRefusedError(
            f"The archive has {location.entries:,} entries; the limit is {limits.max_entries:,}.",
            reason=Refusal.TOO_MANY_ENTRIES,
        )
    entries = []
    position = 0
    for _ in range(location.entries):
        entry, position = _read_central(data, position)
        entries.append(entry)
    if position != len(data) or len(data) != location.size:
        raise ArchiveRefusedError("The archive's directory is not as long as its end says.", reason=Refusal.MALFORMED)
    _check_names(entries)
    entries = _find_spans(entries, location.offset)
    _check_limits(entries, limits)
    return tuple(entries)


def _refuse(name: str, what: str, reason: Refusal) -> ArchiveRefusedError:
    return ArchiveRefusedError(f"The entry {name[:80]!r} {what}.", reason=reason, entry=name)


def _read_central(data: bytes, position: int) -> tuple[Entry, int]:
    if len(data) - position < _CENTRAL.size or data[position : position + 4] != b"PK\x01\x02":
        raise ArchiveRefusedError("The archive's directory is cut off or malformed.", reason=Refusal.MALFORMED)
    record = _CENTRAL.unpack_from(data, position)
    host, flags, method = record[2], record[5], record[6]
    crc32, compressed, size, name_size, extra_size, comment_size, disk, _, attributes, offset = record[9:]
    start = position + _CENTRAL.size
    raw_name = data[start : start + name_size]
    extra = data[start + name_size : start + name_size + extra_size]
    following = start + name_size + extra_size + comment_size
    if following > len(data):
        raise ArchiveRefusedError("The archive's directory is cut off.", reason=Refusal.MALFORMED)
    fields = _read_extra(extra, raw_name)
    name = _read_name(raw_name, flags, fields)
    compressed, size, offset, disk = _read_sizes(name, fields, (compressed, size, offset, disk))
    if disk:
        raise ArchiveRefusedError("The archive is a part of several.", reason=Refusal.MULTIPLE_DISKS)
    _check_kind(name, flags, method, host, attributes)
    if name.endswith("/") and size:
        raise _refuse(name, "is a directory with content", Refusal.MALFORMED)
    if method == Method.STORED and compressed != size:
        raise _refuse(name, "is stored, and has two sizes", Refusal.MALFORMED)
    if not size and compressed > _EMPTY_DEFLATED:
        raise _refuse(name, f"is empty, and has {compressed:,} compressed bytes", Refusal.HIDDEN_DATA)
    return Entry(name, raw_name, Method(method), flags, crc32, compressed, size, offset, 0), following


def _read_extra(extra: bytes, raw_name: bytes) -> dict[int, bytes]:
    fields: dict[int, bytes] = {}
    position = 0
    shown = raw_name.decode("ascii", "backslashreplace")
    while position + 4 <= len(extra):
        kind, size = struct.unpack_from("<HH", extra, position)
        if position + 4 + size > len(extra):
            raise _refuse(shown, "has a malformed extra field", Refusal.MALFORMED)
        if kind in (_ZIP64, _UNICODE_PATH) and kind in fields:
            reason = Refusal.ZIP64 if kind == _ZIP64 else Refusal.NAME_ENCODING
            raise _refuse(shown, "has an extra field twice", reason)
        fields[kind] = extra[position + 4 : position + 4 + size]
        position += 4 + size
    if extra[position:].strip(b"\0"):
        raise _refuse(shown, "has a malformed extra field", Refusal.MALFORMED)
    return fields


def _read_name(raw_name: bytes, flags: int, fields: dict[int, bytes]) -> str:
    shown = raw_name.decode("utf-8", "backslashreplace")
    if b"\0" in raw_name:
        raise _refuse(shown, "has a NUL in its name", Refusal.UNFIT_NAME)
    name: str | None = None
    if flags & _UTF8 or raw_name.isascii():
        try:
            name = raw_name.decode()
        except UnicodeDecodeError:
            raise _refuse(shown, "has a name that is not UTF-8", Refusal.NAME_ENCODING) from None
    field = fields.get(_UNICODE_PATH)
    if field is not None:
        other = _read_unicode_path(field, raw_name, shown)
        if name is not None and other != name and "#U" not in name:
            raise _refuse(shown, "has two names", Refusal.NAME_ENCODING)
        name = other
    if name is None:
        raise _refuse(shown, _UNMARKED, Refusal.NAME_ENCODING)
    return name


def _read_unicode_path(field: bytes, raw_name: bytes, shown: str) -> str:
    """APPNOTE 4.6.9: version 1, the CRC-32 of the plain name, the name in UTF-8."""
    if len(field) < 5 or field[0] != 1 or int.from_bytes(field[1:5], "little") != zlib.crc32(raw_name):  # noqa: PLR2004
        raise _refuse(shown, "has a Unicode name that belongs to another one", Refusal.NAME_ENCODING)
    try:
        return field[5:].decode()
    except UnicodeDecodeError:
        raise _refuse(shown, "has a Unicode name that is not UTF-8", Refusal.NAME_ENCODING) from None


def _read_sizes(name: str, fields: dict[int, bytes], short: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """(compressed, size, offset, disk) with those taken from the zip64 field that are all ones; APPNOTE 4.5.3."""
    compressed, size, offset, disk = short
    field = fields.get(_ZIP64)
    # In this order, which is not the header's.
    values = (size, compressed, offset, disk)
    is_elsewhere = [value == _ALL_ONES[code] for value, code in zip(values, "QQQL", strict=True)]
    layout = struct.Struct("<" + "".join(code for code, is_so in zip("QQQL", is_elsewhere, strict=True) if is_so))
    if not layout.size:
        return short
    if field is None or len(field) < layout.size:
        raise _refuse(name, "has no zip64 field, and needs one", Refusal.ZIP64)
    there = iter(layout.unpack_from(field))
    size, compressed, offset, disk = (
        next(there) if is_so else value for value, is_so in zip(values, is_elsewhere, strict=True)
    )
    return compressed, size, offset, disk


def _check_kind(name: str, flags: int, method: int, host: int, attributes: int) -> None:
    if flags & _ENCRYPTED:
        raise _refuse(name, "is encrypted", Refusal.ENCRYPTED)
    if flags & ~_KNOWN_FLAGS:
        raise _refuse(name, f"has flags that are not known ({flags:#06x})", Refusal.METHOD)
    if method not in (Method.STORED, Method.DEFLATED):
        raise _refuse(name, f"is compressed by method {method}; stored and deflated ones are read", Refusal.METHOD)
    if host in _UNIX_HOSTS:
        mode = attributes >> 16
        # A FIFO is what an archive made from a pipe calls its entry.
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFIFO):
            raise _refuse(name, "is a link or a device, not a file", Refusal.SPECIAL_FILE)


def _check_names(entries: Sequence[Entry]) -> None:
    files: dict[str, str] = {}
    directories: dict[str, str] = {}
    for entry in entries:
        _check_path(entry.name)
        key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", entry.name).casefold())
        named = directories if entry.is_directory else files
        key = key.rstrip("/")
        if named.setdefault(key, entry.name) is not entry.name:
            raise _refuse(entry.name, f"and {named[key][:80]!r} are the same file on some systems", Refusal.COLLISION)
    for key, name in files.items():
        for parent in _list_parents(key):
            if parent in files:
                raise _refuse(files[parent], f"is a file and the directory of {name[:80]!r}", Refusal.COLLISION)
        if key in directories:
            raise _refuse(name, "is a file and a directory", Refusal.COLLISION)


def _list_parents(key: str) -> Iterator[str]:
    position = key.find("/")
    while position >= 0:
        yield key[:position]
        position = key.find("/", position + 1)


def _check_path(name: str) -> None:
    if _UNFIT.search(name):
        raise _refuse(name, "has control characters in its name", Refusal.UNFIT_NAME)
    if len(name.encode()) > _MAX_PATH:
        raise _refuse(name, f"has a name of more than {_MAX_PATH} bytes", Refusal.UNFIT_NAME)
    if "\\" in name or name.startswith("/") or re.match(r"[A-Za-z]:", name):
        raise _refuse(name, "has an absolute path, or one with backslashes", Refusal.PATH_ESCAPE)
    for segment in name.removesuffix("/").split("/"):
        if segment in ("", ".", ".."):
            raise _refuse(name, "has a path with '..', '.' or nothing between slashes", Refusal.PATH_ESCAPE)
        if segment.endswith((".", " ")) or _RESERVED.fullmatch(segment) or ":" in segment:
            raise _refuse(name, "has a name that not every system can have", Refusal.UNFIT_NAME)


def _find_spans(entries: Sequence[Entry], directory: int) -> list[Entry]:
    ordered = sorted(entries, key=lambda e: e.header_offset)
    if ordered[0].header_offset != 0:
        raise _refuse(ordered[0].name, "does not begin the archive: something stands before it", Refusal.PREPENDED)
    ends = [*(e.header_offset for e in ordered[1:]), directory]
    spans = []
    for entry, end in zip(ordered, ends, strict=True):
        least = LOCAL_HEADER_SIZE + len(entry.raw_name) + entry.compressed_size
        if entry.header_offset + least > end:
            raise _refuse(entry.name, "overlaps another one, or the directory", Refusal.OVERLAP)
        spans.append(replace(entry, end=end))
    return spans


def _check_limits(entries: Sequence[Entry], limits: ArchiveLimits) -> None:
    for entry in entries:
        limit = limits.max_entry_bytes if entry.method is Method.DEFLATED else MAX_FILE_SIZE
        if entry.size > limit:
            what = f"has {entry.size:,} bytes; the limit is {limit:,} when {entry.method.name.lower()}"
            raise _refuse(entry.name, what, Refusal.TOO_LARGE)
        _check_ratio(entry.name, entry.size, entry.compressed_size, limits)
    total = sum(entry.size for entry in entries)
    if total > limits.max_total_bytes:
        raise ArchiveRefusedError(
            f"The archive inflates to {total:,} bytes; the limit is {limits.max_total_bytes:,}.",
            reason=Refusal.TOO_LARGE,
        )
    if total > _RATIO_FROM and total > limits.max_ratio * sum(entry.compressed_size for entry in entries):
        raise ArchiveRefusedError(
            f"The archive inflates to more than {limits.max_ratio} times its size.", reason=Refusal.BOMB
        )


def _check_ratio(name: str, size: int, compressed_size: int, limits: ArchiveLimits) -> None:
    if size > compressed_size * _MAX_DEFLATE_RATIO + _RATIO_SLACK or (
        size > _RATIO_FROM and size > compressed_size * limits.max_ratio
    ):
        raise _refuse(name, f"says that it inflates from {compressed_size:,} to {size:,} bytes", Refusal.BOMB)


def check_local_header(data: bytes, entry: Entry) -> int:
    """Holds the local header, with which `data` begins, against the directory's entry; returns the data's offset.

    Raises ShortHeaderError if `data` is too short, ArchiveRefusedError.
    """
    if len(data) < LOCAL_HEADER_SIZE:
        raise ShortHeaderError(LOCAL_HEADER_SIZE)
    signature, _, flags, method, _, _, crc32, compressed, size, name_size, extra_size = _LOCAL.unpack_from(data)
    if signature != b"PK\x03\x04":
        raise _refuse(entry.name, "is not where the directory says", Refusal.HEADER_MISMATCH)
    length = LOCAL_HEADER_SIZE + name_size + extra_size
    span = entry.end - entry.header_offset
    if length + entry.compressed_size > span:
        raise _refuse(entry.name, "overlaps another one, or the directory", Refusal.OVERLAP)
    if len(data) < length:
        raise ShortHeaderError(length)
    raw_name = data[LOCAL_HEADER_SIZE : LOCAL_HEADER_SIZE + name_size]
    if (raw_name, flags, method) != (entry.raw_name, entry.flags, entry.method):
        raise _refuse(entry.name, "is another one in its own header than in the directory", Refusal.HEADER_MISMATCH)
    fields = _read_extra(data[LOCAL_HEADER_SIZE + name_size : length], raw_name)
    if _UNICODE_PATH in fields and _read_name(raw_name, flags, fields) != entry.name:
        raise _refuse(entry.name, "has two names", Refusal.NAME_ENCODING)
    compressed, size, _, _ = _read_sizes(entry.name, fields, (compressed, size, 0, 0))
    claimed, known = (crc32, compressed, size), (entry.crc32, entry.compressed_size, entry.size)
    later = flags & _DESCRIPTOR and all(one in (0, other) for one, other in zip(claimed, known, strict=True))
    if claimed != known and not later:
        raise _refuse(entry.name, "has other sizes in its own header than in the directory", Refusal.HEADER_MISMATCH)
    rest = span - length - entry.compressed_size
    if rest and not (flags & _DESCRIPTOR and rest in _DESCRIPTOR_SIZES):
        raise _refuse(entry.name, f"is followed by {rest:,} bytes that belong to no entry", Refusal.HIDDEN_DATA)
    return int(length)
