"""Compare the local headers and data descriptors of entries with the central directory."""

import struct
from dataclasses import dataclass

from modelhaul.archives.entries import Entry, Refusal, refuse_entry
from modelhaul.archives.extra_fields import ZIP64, read_extra_fields, read_sizes
from modelhaul.archives.names import read_local_name
from modelhaul.domain.errors import ArchiveRefusedError

LOCAL_HEADER_SIZE = 30  # bytes without name and extra fields
MAX_DESCRIPTOR_SIZE = 24  # bytes
_LOCAL = struct.Struct("<4s5H3L2H")  # APPNOTE 4.3.7
DESCRIPTOR_FLAG = 0x8  # APPNOTE 4.4.4, bit 3
_DESCRIPTOR_SIGNATURE = b"PK\x07\x08"
_NARROW, _WIDE = struct.Struct("<3L"), struct.Struct("<L2Q")  # APPNOTE 4.3.9
_NARROW_SIZES, _WIDE_SIZES = (12, 16), (20, 24)  # bytes without and with the signature
_MAX_VERSION = 45  # APPNOTE 4.4.3: zip64. unzip skips entries that need a later version.
_MAX_LONG = 0xFFFFFFFF


class ShortHeaderError(Exception):
    """The local header has `needed` bytes, but fewer were read."""

    def __init__(self, needed: int) -> None:
        super().__init__(needed)
        self.needed = needed


@dataclass(frozen=True, slots=True)
class LocalHeader:
    """`size`: bytes before the entry's data. `descriptor_size`: bytes after it; 0 without a data descriptor."""

    size: int
    descriptor_size: int


def check_version(name: str, version: int) -> None:
    """Refuse an unsupported version of the ZIP format. `version`: the version needed to extract, in tenths."""
    if version > _MAX_VERSION:
        raise refuse_entry(
            name,
            f"requires version {version / 10} of the ZIP format; the latest supported version is {_MAX_VERSION / 10}",
            Refusal.METHOD,
        )


def check_local_header(data: bytes, entry: Entry) -> LocalHeader:
    """Compare the local header at the start of `data` with the entry of the central directory.

    Raises ArchiveRefusedError, or ShortHeaderError if `data` is too short.
    """
    if len(data) < LOCAL_HEADER_SIZE:
        raise ShortHeaderError(LOCAL_HEADER_SIZE)
    signature, version, flags, method, _, _, crc32, compressed, size, name_size, extra_size = _LOCAL.unpack_from(data)
    if signature != b"PK\x03\x04":
        raise refuse_entry(entry.name, f"has no local header at byte {entry.header_offset:,}", Refusal.HEADER_MISMATCH)
    length = LOCAL_HEADER_SIZE + name_size + extra_size
    rest = entry.end - entry.header_offset - length - entry.compressed_size
    if rest < 0:
        raise refuse_entry(
            entry.name, f"overlaps the next entry or the central directory at byte {entry.end:,}", Refusal.OVERLAP
        )
    if len(data) < length:
        raise ShortHeaderError(length)
    raw_name = data[LOCAL_HEADER_SIZE : LOCAL_HEADER_SIZE + name_size]
    check_version(entry.name, version & 0xFF)
    for field, local, central in (
        ("name", raw_name, entry.raw_name),
        ("flags", flags, entry.flags),
        ("method", method, entry.method),
    ):
        if local != central:
            raise _refuse_mismatch(entry, field, local, central)
    fields = read_extra_fields(data[LOCAL_HEADER_SIZE + name_size : length], raw_name)
    name = read_local_name(raw_name, fields)
    if name != entry.name:
        raise refuse_entry(
            entry.name, f"has a different name in its local header ({name[:80]!r})", Refusal.NAME_ENCODING
        )
    compressed, size, _, _ = read_sizes(entry.name, fields, (compressed, size, entry.header_offset, 0))
    _check_values(entry, flags, (crc32, compressed, size))
    must_be_wide = ZIP64 in fields or max(entry.size, entry.compressed_size) >= _MAX_LONG
    return LocalHeader(length, _find_descriptor_size(entry, rest, must_be_wide=must_be_wide))


def _check_values(entry: Entry, flags: int, local: tuple[int, int, int]) -> None:
    """Compare the CRC-32 and the sizes. An entry with a data descriptor may have zeros in its local header."""
    has_descriptor = bool(flags & DESCRIPTOR_FLAG)
    central = (entry.crc32, entry.compressed_size, entry.size)
    for field, value, expected in zip(("CRC-32", "compressed size", "size"), local, central, strict=True):
        if value != expected and not (has_descriptor and value == 0):
            raise _refuse_mismatch(entry, field, value, expected)


def _refuse_mismatch(entry: Entry, field: str, local: object, central: object) -> ArchiveRefusedError:
    return refuse_entry(
        entry.name, f"has a local header that disagrees with the central directory ({field} {local!r}, {central!r})",
        Refusal.HEADER_MISMATCH,
    )  # fmt: skip


def _find_descriptor_size(entry: Entry, rest: int, *, must_be_wide: bool) -> int:
    """Return the size of the entry's data descriptor, or 0 if it has no descriptor.

    `rest`: bytes between the entry's data and the next entry. They must be the data descriptor. Some writers use 64-bit
    sizes in it without a zip64 extra field in the local header.
    """
    if not entry.flags & DESCRIPTOR_FLAG:
        if rest:
            raise refuse_entry(
                entry.name, f"is followed by {rest:,} bytes that do not belong to an entry", Refusal.HIDDEN_DATA
            )
        return 0
    if rest not in _WIDE_SIZES and (must_be_wide or rest not in _NARROW_SIZES):
        raise refuse_entry(
            entry.name,
            f"is followed by {rest:,} bytes instead of a data descriptor",
            Refusal.HIDDEN_DATA,
        )
    return rest


def check_descriptor(data: bytes, entry: Entry, header: LocalHeader) -> None:
    """Compare the data descriptor in `data` (APPNOTE 4.3.9) with the entry. Raises ArchiveRefusedError."""
    layout = _WIDE if header.descriptor_size in _WIDE_SIZES else _NARROW
    if len(data) > layout.size and not data.startswith(_DESCRIPTOR_SIGNATURE):
        predicate = "has a data descriptor without a signature. Create the archive with another ZIP tool"
        raise refuse_entry(entry.name, predicate, Refusal.HEADER_MISMATCH)
    found = layout.unpack(data[-layout.size :])
    central = (entry.crc32, entry.compressed_size, entry.size)
    for field, value, expected in zip(("CRC-32", "compressed size", "size"), found, central, strict=True):
        if value != expected:
            raise refuse_entry(
                entry.name,
                f"has a data descriptor that disagrees with the central directory ({field} {value}, {expected})",
                Refusal.HEADER_MISMATCH,
            )
