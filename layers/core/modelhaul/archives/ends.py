"""The end of a ZIP archive: where its central directory lies, if all readers find the same."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from modelhaul.archives.entries import Refusal
from modelhaul.domain.errors import ArchiveRefusedError

TAIL_SIZE = 1024 * 1024  # bytes of the archive's end that callers read first
MAX_OTHER_ENDS = 32  # places that callers have to look at, each by a small read
CENTRAL_SIGNATURE = b"PK\x01\x02"
_END_SIGNATURE = b"PK\x05\x06"
_LOCATOR_SIGNATURE = b"PK\x06\x07"
_END64_SIGNATURE = b"PK\x06\x06"
_END = struct.Struct("<4s4H2LH")  # APPNOTE 4.3.16
_LOCATOR = struct.Struct("<4sLQL")  # APPNOTE 4.3.15
_END64 = struct.Struct("<4sQ2H2L4Q")  # APPNOTE 4.3.14
_MAX_DIRECTORY = 64 * 1024 * 1024  # bytes
# Bytes of comment and padding: libarchive looks for the end in the last 16 KiB only, others in the last 64 KiB.
_MAX_AFTER_END = 16 * 1024 - _END.size - _LOCATOR.size - 1
_SEARCHED = 128 * 1024  # bytes of the archive's end in which some reader looks for an end record
_MAX_LONG, _MAX_SHORT = 0xFFFFFFFF, 0xFFFF  # stand for a value that the zip64 end record has


@dataclass(frozen=True, slots=True)
class DirectoryLocation:
    """Where the central directory lies, and how many entries its end record names."""

    offset: int
    size: int
    entries: int


@dataclass(frozen=True, slots=True)
class OtherEnd:
    """A record that looks like an end of another archive, whose directory would begin with `signature` at `offset`."""

    offset: int
    signature: bytes


def find_directory(tail: bytes, archive_size: int) -> DirectoryLocation:
    """Finds the central directory from the archive's last bytes, `TAIL_SIZE` or all. Raises ArchiveRefusedError."""
    if archive_size == 0:
        raise ArchiveRefusedError("The file is empty.", reason=Refusal.EMPTY)
    position = _find_end(tail, archive_size)
    _, disk, first_disk, here, total, size, offset, _ = _END.unpack_from(tail, position)
    end = archive_size - len(tail) + position
    location = _find_zip64(tail, position, end, (disk, first_disk, here, total, size, offset))
    if location is None:
        if disk or first_disk or here != total:
            raise refuse_multiple_disks()
        location = DirectoryLocation(offset, size, total)
        _check_end(location, end)
    if location.entries == 0:
        raise ArchiveRefusedError("The archive has no entries.", reason=Refusal.EMPTY)
    if location.size > _MAX_DIRECTORY:
        raise ArchiveRefusedError(
            f"The archive's central directory has {location.size:,} bytes; the limit is {_MAX_DIRECTORY:,}.",
            reason=Refusal.TOO_MANY_ENTRIES,
        )
    return location


def refuse_multiple_disks() -> ArchiveRefusedError:
    return ArchiveRefusedError(
        "Multi-volume ZIP archives are not supported. Create the archive as one file.", reason=Refusal.MULTIPLE_DISKS
    )


def _find_end(tail: bytes, archive_size: int) -> int:
    """The position of the end record, behind which only its comment and zeros may stand (bsdtar pads with them)."""
    position = tail.rfind(_END_SIGNATURE)
    if position < 0:
        if archive_size == len(tail) and tail.startswith(b"PK\x03\x04"):
            raise _refuse_truncated(tail)
        raise ArchiveRefusedError("The file is not a ZIP archive, or is truncated.", reason=Refusal.NOT_A_ZIP)
    if len(tail) - position < _END.size:
        raise _refuse_truncated(tail)
    after = tail[position + _END.size :]
    comment_size = _END.unpack_from(tail, position)[7]
    if comment_size > len(after):
        raise _refuse_truncated(tail)
    if after[comment_size:].strip(b"\0"):
        raise ArchiveRefusedError(
            f"{len(after) - comment_size:,} bytes follow the end of the archive. Create it again.",
            reason=Refusal.APPENDED,
        )
    if len(after) > _MAX_AFTER_END:
        raise ArchiveRefusedError(
            f"The archive's comment and the zeros after it have {len(after):,} bytes; the limit is {_MAX_AFTER_END:,}, "
            "as some readers look no further. Create it again without a comment or padding.",
            reason=Refusal.APPENDED,
        )
    if _END64_SIGNATURE in after or _LOCATOR_SIGNATURE in after:
        raise refuse_second_end()
    return position


def _refuse_truncated(tail: bytes) -> ArchiveRefusedError:
    if any(_ends_file(tail, position) for position in _find_others(tail)):
        return refuse_second_end()
    return ArchiveRefusedError("The archive is truncated. Create or upload it again.", reason=Refusal.TRUNCATED)


def refuse_second_end() -> ArchiveRefusedError:
    return ArchiveRefusedError(
        "The archive has a second end-of-central-directory record, so readers may find different files.",
        reason=Refusal.AMBIGUOUS_END,
    )


def list_other_ends(tail: bytes, archive_size: int) -> list[OtherEnd]:
    """The other records within reach of a reader's search, such as the end of an archive that is stored in this one.

    Each is harmless unless a directory is where it says, counted from the start of this archive: some readers, such as
    libzip, take the first record that fits. Raises ArchiveRefusedError if there are more than `MAX_OTHER_ENDS`, if one
    needs no directory, or if its directory is in `tail`.
    """
    found: dict[OtherEnd, None] = {}
    base = archive_size - len(tail)
    for position in _find_others(tail):
        other = _read_other_end(tail, position, base)
        if other is None:
            continue
        if other.offset >= base:
            at = other.offset - base
            if tail[at : at + len(other.signature)] == other.signature:
                raise refuse_second_end()
        elif len(found) == MAX_OTHER_ENDS and other not in found:
            raise ArchiveRefusedError(
                f"The last {_SEARCHED:,} bytes of the archive have more than {MAX_OTHER_ENDS} end-of-central-directory "
                "records. Compress its entries instead of storing them.",
                reason=Refusal.AMBIGUOUS_END,
            )
        else:
            found[other] = None
    return list(found)


def _find_others(tail: bytes) -> Iterator[int]:
    """Positions of end signatures before the last one, which readers take first."""
    last = tail.rfind(_END_SIGNATURE)
    position = tail.find(_END_SIGNATURE, max(0, len(tail) - _SEARCHED), max(0, last))
    while position >= 0:
        yield position
        position = tail.find(_END_SIGNATURE, position + 1, last)


def _ends_file(tail: bytes, position: int) -> bool:
    """Whether the end record's comment ends with the file."""
    if len(tail) - position < _END.size:
        return False
    comment_size: int = _END.unpack_from(tail, position)[7]
    return position + _END.size + comment_size == len(tail)


def _read_other_end(tail: bytes, position: int, base: int) -> OtherEnd | None:
    """None if no reader could take the record for the end of this archive."""
    if _ends_file(tail, position):
        raise refuse_second_end()
    if len(tail) - position < _END.size:
        return None
    _, _, _, _, entries, size, offset, comment_size = _END.unpack_from(tail, position)
    if position + _END.size + comment_size > len(tail):
        return None
    locator = position - _LOCATOR.size
    if locator >= 0 and tail.startswith(_LOCATOR_SIGNATURE, locator):
        offset64 = _LOCATOR.unpack_from(tail, locator)[2]
        return OtherEnd(offset64, _END64_SIGNATURE) if offset64 < base + locator else None
    if entries == 0 or size == 0:
        raise refuse_second_end()
    return OtherEnd(offset, CENTRAL_SIGNATURE) if offset + size <= base + position else None


def _find_zip64(tail: bytes, position: int, end: int, short: tuple[int, ...]) -> DirectoryLocation | None:
    """None if the archive has no zip64 end records."""
    start = position - _LOCATOR.size
    if start < 0 or not tail.startswith(_LOCATOR_SIGNATURE, start):
        if _MAX_LONG in short[4:]:
            raise _refuse_zip64("the zip64 end record is missing")
        return None
    _, disk, record_offset, disks = _LOCATOR.unpack_from(tail, start)
    record = start - _END64.size
    base = end - position
    if record < 0 or base + record != record_offset:
        raise _refuse_zip64(f"there is no zip64 end record at byte {record_offset:,}")
    signature, size, _, _, disk64, first64, here64, total64, size64, offset64 = _END64.unpack_from(tail, record)
    if signature != _END64_SIGNATURE or size != _END64.size - 12:
        raise _refuse_zip64("the zip64 end record is malformed")
    if disk or disks > 1 or disk64 or first64 or here64 != total64:
        raise refuse_multiple_disks()
    for value, full, most in zip(
        short, (disk64, first64, here64, total64, size64, offset64), (_MAX_SHORT,) * 4 + (_MAX_LONG,) * 2, strict=True
    ):
        if value not in (full, most):
            raise _refuse_zip64(f"the two end records disagree ({value:,}, {full:,})")
    location = DirectoryLocation(offset64, size64, total64)
    _check_end(location, base + record)
    return location


def _refuse_zip64(what: str) -> ArchiveRefusedError:
    return ArchiveRefusedError(f"The archive is malformed: {what}.", reason=Refusal.ZIP64)


def _check_end(location: DirectoryLocation, end: int) -> None:
    directory_end = location.offset + location.size
    if directory_end < end:
        raise ArchiveRefusedError(
            f"The archive has {end - directory_end:,} bytes before its first entry, or between its central directory "
            "and its end. Create it again.",
            reason=Refusal.PREPENDED,
        )
    if directory_end > end:
        raise ArchiveRefusedError(
            f"The archive is truncated: its central directory should end at byte {directory_end:,}, and its end "
            f"record is at byte {end:,}.",
            reason=Refusal.TRUNCATED,
        )
