"""Find the central directory of a ZIP archive, and refuse an archive in which readers may find different ones."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from modelhaul.archives.entries import Refusal
from modelhaul.domain.errors import ArchiveRefusedError

TAIL_SIZE = 1024 * 1024  # bytes at the end of the archive that callers read first
MAX_END_CANDIDATES = 32  # callers check each candidate by a small read
CENTRAL_SIGNATURE = b"PK\x01\x02"
_END_SIGNATURE = b"PK\x05\x06"
_LOCATOR_SIGNATURE = b"PK\x06\x07"
_END64_SIGNATURE = b"PK\x06\x06"
_END = struct.Struct("<4s4H2LH")  # APPNOTE 4.3.16
_LOCATOR = struct.Struct("<4sLQL")  # APPNOTE 4.3.15
_END64 = struct.Struct("<4sQ2H2L4Q")  # APPNOTE 4.3.14
_MAX_DIRECTORY = 64 * 1024 * 1024  # bytes
# Bytes of comment and padding: libarchive searches only the last 16 KiB for the end record, others the last 64 KiB.
_MAX_AFTER_END = 16 * 1024 - _END.size - _LOCATOR.size - 1
_SEARCH_SIZE = 128 * 1024  # bytes at the end of the archive in which some readers search for an end record
_MAX_LONG, _MAX_SHORT = 0xFFFFFFFF, 0xFFFF  # markers: the value is in the zip64 end record
_END_FIELDS = ("disk", "first disk", "entries on the disk", "entries", "directory size", "directory offset")


@dataclass(frozen=True, slots=True)
class DirectoryLocation:
    """The position of the central directory, and the number of entries in its end record."""

    offset: int
    size: int
    entries: int


@dataclass(frozen=True, slots=True)
class EndCandidate:
    """A record at byte `position` that some reader may take for the end record.

    Its directory would begin with `signature` at `offset`.
    """

    offset: int
    signature: bytes
    position: int = field(compare=False)


def find_directory(tail: bytes, archive_size: int) -> DirectoryLocation:
    """Find the central directory. `tail`: the last `TAIL_SIZE` bytes of the archive, or all of it.

    Raises ArchiveRefusedError.
    """
    if archive_size == 0:
        raise ArchiveRefusedError("The file is empty.", reason=Refusal.EMPTY)
    position = _find_end(tail, archive_size)
    _, disk, first_disk, disk_total, total, size, offset, _ = _END.unpack_from(tail, position)
    end = archive_size - len(tail) + position
    location = _find_zip64(tail, position, end, (disk, first_disk, disk_total, total, size, offset))
    if location is None:
        if disk or first_disk or disk_total != total:
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
    """Return the position of the end record. Only its comment and zeros may follow it (bsdtar pads with zeros)."""
    base = archive_size - len(tail)
    position = tail.rfind(_END_SIGNATURE)
    if position < 0:
        if archive_size == len(tail) and tail.startswith(b"PK\x03\x04"):
            raise _refuse_truncated(tail, base)
        raise ArchiveRefusedError("The file is not a ZIP archive, or it is truncated.", reason=Refusal.NOT_A_ZIP)
    if len(tail) - position < _END.size:
        raise _refuse_truncated(tail, base)
    after = tail[position + _END.size :]
    comment_size = _END.unpack_from(tail, position)[7]
    if comment_size > len(after):
        raise _refuse_truncated(tail, base)
    if after[comment_size:].strip(b"\0"):
        raise ArchiveRefusedError(
            f"The archive is followed by {len(after) - comment_size:,} bytes of unknown data. Create it again.",
            reason=Refusal.APPENDED,
        )
    if len(after) > _MAX_AFTER_END:
        raise ArchiveRefusedError(
            f"The archive's comment and padding have {len(after):,} bytes; some readers support only "
            f"{_MAX_AFTER_END:,}. Create it again without a comment or padding.",
            reason=Refusal.APPENDED,
        )
    for signature in (_END64_SIGNATURE, _LOCATOR_SIGNATURE):
        if signature in after:
            raise refuse_second_end(base + position + _END.size + after.index(signature))
    return position


def _refuse_truncated(tail: bytes, base: int) -> ArchiveRefusedError:
    """Return the error for an archive that may be truncated. `base`: the offset of `tail` in the archive."""
    for position in _find_end_signatures(tail):
        if _ends_file(tail, position):
            return refuse_second_end(base + position)
    return ArchiveRefusedError("The archive is truncated. Create it or upload it again.", reason=Refusal.TRUNCATED)


def refuse_second_end(position: int) -> ArchiveRefusedError:
    return ArchiveRefusedError(
        f"The archive has a second end-of-central-directory record at byte {position:,}, so readers may extract "
        "different files. If the archive contains another ZIP file, compress that file instead of storing it.",
        reason=Refusal.AMBIGUOUS_END,
    )


def list_end_candidates(tail: bytes, archive_size: int) -> list[EndCandidate]:
    """Return the other end records that a reader may find, such as that of an archive stored in this one.

    A candidate is harmless unless a directory lies at its offset, counted from the start of this archive: some readers,
    such as libzip, use the first record that fits. Raises ArchiveRefusedError if there are more than
    `MAX_END_CANDIDATES`, if a candidate needs no directory, or if its directory is in `tail`.
    """
    found: dict[EndCandidate, None] = {}
    base = archive_size - len(tail)
    for position in _find_end_signatures(tail):
        candidate = _read_end_candidate(tail, position, base)
        if candidate is None:
            continue
        if candidate.offset >= base:
            start = candidate.offset - base
            if tail[start : start + len(candidate.signature)] == candidate.signature:
                raise refuse_second_end(candidate.position)
        elif len(found) == MAX_END_CANDIDATES and candidate not in found:
            raise ArchiveRefusedError(
                f"The last {_SEARCH_SIZE:,} bytes of the archive have more than {MAX_END_CANDIDATES} "
                "end-of-central-directory records. Compress the entries instead of storing them.",
                reason=Refusal.AMBIGUOUS_END,
            )
        else:
            found[candidate] = None
    return list(found)


def _find_end_signatures(tail: bytes) -> Iterator[int]:
    """Yield the positions of all end signatures but the last one, which readers find first."""
    last = tail.rfind(_END_SIGNATURE)
    position = tail.find(_END_SIGNATURE, max(0, len(tail) - _SEARCH_SIZE), max(0, last))
    while position >= 0:
        yield position
        position = tail.find(_END_SIGNATURE, position + 1, last)


def _ends_file(tail: bytes, position: int) -> bool:
    """Return whether the end record's comment ends at the end of the file."""
    if len(tail) - position < _END.size:
        return False
    comment_size: int = _END.unpack_from(tail, position)[7]
    return position + _END.size + comment_size == len(tail)


def _read_end_candidate(tail: bytes, position: int, base: int) -> EndCandidate | None:
    """Return the candidate at `position` of `tail`, which starts at byte `base`.

    Return None if no reader can take the record for the end record of this archive. Raises ArchiveRefusedError.
    """
    if _ends_file(tail, position):
        raise refuse_second_end(base + position)
    if len(tail) - position < _END.size:
        return None
    _, _, _, _, entries, size, offset, comment_size = _END.unpack_from(tail, position)
    if position + _END.size + comment_size > len(tail):
        return None
    locator = position - _LOCATOR.size
    if locator >= 0 and tail.startswith(_LOCATOR_SIGNATURE, locator):
        offset64 = _LOCATOR.unpack_from(tail, locator)[2]
        return EndCandidate(offset64, _END64_SIGNATURE, base + position) if offset64 < base + locator else None
    if entries == 0 or size == 0:
        raise refuse_second_end(base + position)
    if offset + size > base + position:
        return None
    return EndCandidate(offset, CENTRAL_SIGNATURE, base + position)


def _find_zip64(tail: bytes, position: int, end: int, narrow: tuple[int, ...]) -> DirectoryLocation | None:
    """Return None if the archive has no zip64 end records. `narrow`: the values in the end record."""
    start = position - _LOCATOR.size
    if start < 0 or not tail.startswith(_LOCATOR_SIGNATURE, start):
        if _MAX_LONG in narrow[4:]:
            raise _refuse_zip64("its zip64 end record is missing")
        return None
    _, disk, record_offset, disks = _LOCATOR.unpack_from(tail, start)
    record = start - _END64.size
    base = end - position
    if record < 0 or base + record != record_offset:
        raise _refuse_zip64(f"it has no zip64 end record at byte {record_offset:,}")
    signature, size, _, _, disk64, first64, disk_total64, total64, size64, offset64 = _END64.unpack_from(tail, record)
    if signature != _END64_SIGNATURE or size != _END64.size - 12:
        raise _refuse_zip64("its zip64 end record is invalid")
    if disk or disks > 1 or disk64 or first64 or disk_total64 != total64:
        raise refuse_multiple_disks()
    wide = (disk64, first64, disk_total64, total64, size64, offset64)
    markers = (_MAX_SHORT,) * 4 + (_MAX_LONG,) * 2
    for name, value, value64, marker in zip(_END_FIELDS, narrow, wide, markers, strict=True):
        if value not in (value64, marker):
            raise _refuse_zip64(f"its end record disagrees with its zip64 end record ({name} {value:,}, {value64:,})")
    location = DirectoryLocation(offset64, size64, total64)
    _check_end(location, base + record)
    return location


def _refuse_zip64(problem: str) -> ArchiveRefusedError:
    return ArchiveRefusedError(f"The archive is malformed: {problem}.", reason=Refusal.ZIP64)


def _check_end(location: DirectoryLocation, end: int) -> None:
    directory_end = location.offset + location.size
    if directory_end < end:
        raise ArchiveRefusedError(
            f"The archive has {end - directory_end:,} bytes of unknown data before its first entry or after its "
            "central directory. Create it again.",
            reason=Refusal.PREPENDED,
        )
    if directory_end > end:
        raise ArchiveRefusedError(
            f"The archive is truncated: its central directory should end at byte {directory_end:,}, but its end record "
            f"is at byte {end:,}.",
            reason=Refusal.TRUNCATED,
        )
