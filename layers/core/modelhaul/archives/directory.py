"""The strict reading of a ZIP's central directory (APPNOTE 6.3.10): bytes in, entries or a refusal out.

What two ZIP readers could read differently is refused, because then nobody knows which of them was right.
https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
"""

import stat
import struct
from collections.abc import Sequence
from dataclasses import replace

from modelhaul.archives.ends import CENTRAL_SIGNATURE, DirectoryLocation, refuse_multiple_disks
from modelhaul.archives.entries import ArchiveLimits, Entry, Method, Refusal, refuse_entry
from modelhaul.archives.extra_fields import read_extra_fields, read_sizes
from modelhaul.archives.local_headers import DESCRIPTOR_FLAG, LOCAL_HEADER_SIZE, check_version
from modelhaul.archives.names import FAT_HOST, UTF8_FLAG, check_names, read_name, replace_backslashes
from modelhaul.domain.errors import ArchiveRefusedError
from modelhaul.domain.files import MAX_FILE_SIZE

_CENTRAL = struct.Struct("<4s4B4H3L5H2L")  # APPNOTE 4.3.12
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_KNOWN_FLAGS = 0x6 | DESCRIPTOR_FLAG | UTF8_FLAG
# APPNOTE 4.4.2: FAT, UNIX, NTFS, NTFS by Info-ZIP, VFAT, macOS. Of others readers take attributes in different ways.
_KNOWN_HOSTS = (FAT_HOST, 3, 10, 11, 14, 19)
_VOLUME_LABEL, _DIRECTORY, _DEVICE, _REPARSE_POINT = 0x8, 0x10, 0x40, 0x400  # attributes of Windows
_METHODS = {
    1: "Shrink", 6: "Implode", 9: "Deflate64", 12: "bzip2", 14: "LZMA", 20: "Zstandard", 93: "Zstandard", 95: "XZ",
    98: "PPMd",
}  # fmt: skip
_AES = 99
_MAX_DEFLATE_RATIO = 1032
_RATIO_FROM = 100 * 1024 * 1024  # bytes uncompressed: below, a ratio costs nothing
_EMPTY_DEFLATED = 16  # bytes: more than any compressor makes of nothing
_RATIO_SLACK = 1032  # bytes: the last symbol of a deflate stream may begin in the byte before
_LINK_REMEDY = (
    "Create the archive from the files themselves: `zip -r` without `-y`, or copy the folder with `cp -rL` first"
)


def read_directory(data: bytes, location: DirectoryLocation, limits: ArchiveLimits) -> tuple[Entry, ...]:
    """The entries, in order of their place in the archive. Raises ArchiveRefusedError."""
    if location.entries > limits.max_entries:
        raise ArchiveRefusedError(
            f"The archive has {location.entries:,} entries; the limit is {limits.max_entries:,} (ArchiveMaxEntries).",
            reason=Refusal.TOO_MANY_ENTRIES,
        )
    entries: list[Entry] = []
    hosts: list[int] = []
    position = 0
    for _ in range(location.entries):
        entry, host, position = _read_central(data, position)
        entries.append(entry)
        hosts.append(host)
    if position != len(data) or len(data) != location.size:
        raise ArchiveRefusedError(
            f"The archive is malformed: its {location.entries:,} entries take {position:,} bytes of the central "
            f"directory, which has {location.size:,}.",
            reason=Refusal.MALFORMED,
        )
    entries = replace_backslashes(entries, hosts)
    check_names(entries, hosts)
    entries = _find_spans(entries, location.offset)
    _check_limits(entries, limits)
    return tuple(entries)


def _read_central(data: bytes, position: int) -> tuple[Entry, int, int]:
    """The entry at `position`, the system it was made on, and the position behind it."""
    if len(data) - position < _CENTRAL.size or not data.startswith(CENTRAL_SIGNATURE, position):
        raise ArchiveRefusedError(
            f"The archive is malformed: there is no entry at byte {position:,} of its central directory.",
            reason=Refusal.MALFORMED,
        )
    record = _CENTRAL.unpack_from(data, position)
    host, version, flags, method = record[2], record[3], record[5], record[6]
    crc32, compressed, size, name_size, extra_size, comment_size, disk, _, attributes, offset = record[9:]
    start = position + _CENTRAL.size
    raw_name = data[start : start + name_size]
    extra = data[start + name_size : start + name_size + extra_size]
    following = start + name_size + extra_size + comment_size
    if following > len(data):
        raise ArchiveRefusedError(
            "The archive is malformed: its central directory is truncated.", reason=Refusal.MALFORMED
        )
    fields = read_extra_fields(extra, raw_name)
    name = read_name(raw_name, flags, fields)
    compressed, size, offset, disk = read_sizes(name, fields, (compressed, size, offset, disk))
    if disk:
        raise refuse_multiple_disks()
    _check_method(name, flags, method)
    check_version(name, version)
    entry = Entry(name, raw_name, Method(method), flags, crc32, compressed, size, offset, 0)
    _check_kind(entry, host, attributes)
    _check_sizes(entry)
    return entry, host, following


def _check_method(name: str, flags: int, method: int) -> None:
    if flags & _ENCRYPTED or method == _AES:
        raise refuse_entry(name, "is encrypted. Create the archive without a password", Refusal.ENCRYPTED)
    if flags & ~_KNOWN_FLAGS:
        raise refuse_entry(name, f"has flags that are not supported ({flags:#06x})", Refusal.METHOD)
    if method not in (Method.STORED, Method.DEFLATED):
        known = f" ({_METHODS[method]})" if method in _METHODS else ""
        raise refuse_entry(
            name,
            f"has compression method {method}{known}, which is not supported. Create the archive with Deflate: "
            "`zip -Z deflate`, or `7z a -tzip -mm=Deflate`",
            Refusal.METHOD,
        )


def _check_kind(entry: Entry, host: int, attributes: int) -> None:
    """Refuses what any reader extracts as something else than the file, or the directory, that the name says.

    Some readers look at a mode or at an attribute of Windows whatever the host is.
    """
    name, mode = entry.name, attributes >> 16
    if host not in _KNOWN_HOSTS:
        raise refuse_entry(
            name, f"was made on a system whose file attributes are not supported ({host})", Refusal.SPECIAL_FILE
        )
    kind = stat.S_IFMT(mode)
    if kind == stat.S_IFLNK:
        raise refuse_entry(name, f"is a symbolic link. {_LINK_REMEDY}", Refusal.SPECIAL_FILE)
    # A FIFO is what an archive made from a pipe calls its entry.
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFIFO) or attributes & _DEVICE:
        raise refuse_entry(name, f"is a device or a socket, not a file (mode {mode:#o})", Refusal.SPECIAL_FILE)
    if attributes & _REPARSE_POINT:
        raise refuse_entry(name, f"is a link of Windows (reparse point). {_LINK_REMEDY}", Refusal.SPECIAL_FILE)
    if attributes & _VOLUME_LABEL:
        raise refuse_entry(name, f"has the attribute of a volume label ({attributes:#x})", Refusal.SPECIAL_FILE)
    if (kind == stat.S_IFDIR or attributes & _DIRECTORY) and not name.endswith(("/", "\\")):
        raise refuse_entry(
            name, f"has the attributes of a directory ({attributes:#x}), and a name without a slash at its end",
            Refusal.SPECIAL_FILE,
        )  # fmt: skip


def _check_sizes(entry: Entry) -> None:
    if entry.name.endswith(("/", "\\")) and entry.size:
        raise refuse_entry(entry.name, f"is a directory with {entry.size:,} bytes of content", Refusal.MALFORMED)
    if entry.method is Method.STORED and entry.compressed_size != entry.size:
        raise refuse_entry(
            entry.name, f"is stored, and has two sizes ({entry.compressed_size:,}, {entry.size:,})", Refusal.MALFORMED
        )
    if not entry.size and entry.compressed_size > _EMPTY_DEFLATED:
        raise refuse_entry(
            entry.name, f"is empty, and has {entry.compressed_size:,} compressed bytes", Refusal.HIDDEN_DATA
        )


def _find_spans(entries: Sequence[Entry], directory: int) -> list[Entry]:
    ordered = sorted(entries, key=lambda e: e.header_offset)
    if ordered[0].header_offset != 0:
        raise refuse_entry(
            ordered[0].name,
            f"begins at byte {ordered[0].header_offset:,}: the archive has other bytes before it",
            Refusal.PREPENDED,
        )
    ends = [*(e.header_offset for e in ordered[1:]), directory]
    spans = []
    for entry, end in zip(ordered, ends, strict=True):
        least = LOCAL_HEADER_SIZE + len(entry.raw_name) + entry.compressed_size
        if entry.header_offset + least > end:
            raise refuse_entry(
                entry.name,
                f"overlaps the next entry or the central directory at byte {end:,}",
                Refusal.OVERLAP,
            )
        spans.append(replace(entry, end=end))
    return spans


def _check_limits(entries: Sequence[Entry], limits: ArchiveLimits) -> None:
    for entry in entries:
        is_deflated = entry.method is Method.DEFLATED
        limit = limits.max_entry_bytes if is_deflated else MAX_FILE_SIZE
        if entry.size > limit:
            what = f"has {entry.size:,} bytes; the limit for {entry.method.name.lower()} entries is {limit:,}"
            how = " (ArchiveMaxEntryBytes). Store it instead: `zip -0`" if is_deflated else ""
            raise refuse_entry(entry.name, what + how, Refusal.TOO_LARGE)
        _check_ratio(entry, limits)
    total = sum(entry.size for entry in entries)
    if total > limits.max_total_bytes:
        raise ArchiveRefusedError(
            f"The archive has {total:,} bytes uncompressed; the limit is {limits.max_total_bytes:,} "
            "(ArchiveMaxTotalBytes).",
            reason=Refusal.TOO_LARGE,
        )
    compressed = sum(entry.compressed_size for entry in entries)
    if total > _RATIO_FROM and total > limits.max_ratio * compressed:
        raise ArchiveRefusedError(f"The archive {_describe_ratio(total, compressed, limits)}.", reason=Refusal.BOMB)


def _check_ratio(entry: Entry, limits: ArchiveLimits) -> None:
    size, compressed = entry.size, entry.compressed_size
    if size > compressed * _MAX_DEFLATE_RATIO + _RATIO_SLACK:
        what = (
            f"cannot have {size:,} bytes: {compressed:,} compressed bytes inflate to at most {_MAX_DEFLATE_RATIO} times"
        )
        raise refuse_entry(entry.name, what, Refusal.BOMB)
    if size > _RATIO_FROM and size > compressed * limits.max_ratio:
        raise refuse_entry(entry.name, _describe_ratio(size, compressed, limits), Refusal.BOMB)


def _describe_ratio(size: int, compressed: int, limits: ArchiveLimits) -> str:
    return (
        f"has a compression ratio of {size / max(1, compressed):,.0f}:1 ({size:,} bytes from {compressed:,}); above "
        f"{_RATIO_FROM:,} bytes the limit is {limits.max_ratio}:1 (ArchiveMaxRatio). Store the file instead: `zip -0`"
    )
