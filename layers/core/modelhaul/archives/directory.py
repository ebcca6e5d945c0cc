"""Parse the central directory of a ZIP archive (APPNOTE 6.3.10) strictly.

An archive from which two ZIP readers could extract different files is refused, because either reader may be wrong.
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
# APPNOTE 4.4.2: FAT, UNIX, NTFS, NTFS by Info-ZIP, VFAT, macOS. Readers differ in the attributes of other systems.
_KNOWN_HOSTS = (FAT_HOST, 3, 10, 11, 14, 19)
_VOLUME_LABEL, _DIRECTORY, _DEVICE, _REPARSE_POINT = 0x8, 0x10, 0x40, 0x400  # attributes of Windows
_METHODS = {
    1: "Shrink", 6: "Implode", 9: "Deflate64", 12: "bzip2", 14: "LZMA", 20: "Zstandard", 93: "Zstandard", 95: "XZ",
    98: "PPMd",
}  # fmt: skip
_AES = 99
_MAX_DEFLATE_RATIO = 1032
_MIN_RATIO_SIZE = 100 * 1024 * 1024  # uncompressed bytes: the ratio of smaller content is not limited
_MAX_EMPTY_DEFLATED = 16  # bytes: more than any compressor writes for empty content
_RATIO_SLACK = 1032  # bytes: the last symbol of a deflate stream may begin in the previous byte
_REMOVE_REMEDY = "Remove it from the archive"
_LINK_REMEDY = (
    "Create the archive from the linked files: use `zip -r` without `-y`, or copy the directory with `cp -rL` first"
)


def read_directory(data: bytes, location: DirectoryLocation, limits: ArchiveLimits) -> tuple[Entry, ...]:
    """Return the entries in the order of their offsets. Raises ArchiveRefusedError."""
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
            f"directory, but the directory has {location.size:,} bytes.",
            reason=Refusal.MALFORMED,
        )
    entries = replace_backslashes(entries, hosts)
    check_names(entries, hosts)
    entries = _find_spans(entries, location.offset)
    _check_limits(entries, limits)
    return tuple(entries)


def _read_central(data: bytes, position: int) -> tuple[Entry, int, int]:
    """Return the entry at `position`, the system on which it was created, and the position of the next entry."""
    if len(data) - position < _CENTRAL.size or not data.startswith(CENTRAL_SIGNATURE, position):
        raise ArchiveRefusedError(
            f"The archive is malformed: its central directory has no entry at byte {position:,}.",
            reason=Refusal.MALFORMED,
        )
    record = _CENTRAL.unpack_from(data, position)
    host, version, flags, method = record[2], record[3], record[5], record[6]
    crc32, compressed, size, name_size, extra_size, comment_size, disk, _, attributes, offset = record[9:]
    start = position + _CENTRAL.size
    raw_name = data[start : start + name_size]
    extra = data[start + name_size : start + name_size + extra_size]
    end = start + name_size + extra_size + comment_size
    if end > len(data):
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
    return entry, host, end


def _check_method(name: str, flags: int, method: int) -> None:
    if flags & _ENCRYPTED or method == _AES:
        raise refuse_entry(name, "is encrypted. Create the archive without a password", Refusal.ENCRYPTED)
    if flags & ~_KNOWN_FLAGS:
        raise refuse_entry(name, f"has unsupported flags ({flags:#06x})", Refusal.METHOD)
    if method not in (Method.STORED, Method.DEFLATED):
        known = f" ({_METHODS[method]})" if method in _METHODS else ""
        raise refuse_entry(
            name,
            f"has the unsupported compression method {method}{known}. Create the archive with Deflate: "
            "`zip -Z deflate`, or `7z a -tzip -mm=Deflate`",
            Refusal.METHOD,
        )


def _check_kind(entry: Entry, host: int, attributes: int) -> None:
    """Refuse an entry whose name denotes a file or directory, but which some reader extracts as something else.

    Some readers apply UNIX modes and Windows attributes regardless of the host.
    """
    name, mode = entry.name, attributes >> 16
    if host not in _KNOWN_HOSTS:
        raise refuse_entry(
            name,
            f"was created on a system whose file attributes are not supported (host {host}). {_REMOVE_REMEDY}",
            Refusal.SPECIAL_FILE,
        )
    kind = stat.S_IFMT(mode)
    if kind == stat.S_IFLNK:
        raise refuse_entry(name, f"is a symbolic link. {_LINK_REMEDY}", Refusal.SPECIAL_FILE)
    # An archive that was created from a pipe marks its entry as a FIFO.
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFIFO) or attributes & _DEVICE:
        predicate = f"is a device or a socket, not a file (mode {mode:#o}). {_REMOVE_REMEDY}"
        raise refuse_entry(name, predicate, Refusal.SPECIAL_FILE)
    if attributes & _REPARSE_POINT:
        raise refuse_entry(name, f"is a Windows link (reparse point). {_LINK_REMEDY}", Refusal.SPECIAL_FILE)
    if attributes & _VOLUME_LABEL:
        predicate = f"is a volume label (attributes {attributes:#x}). {_REMOVE_REMEDY}"
        raise refuse_entry(name, predicate, Refusal.SPECIAL_FILE)
    if (kind == stat.S_IFDIR or attributes & _DIRECTORY) and not name.endswith(("/", "\\")):
        raise refuse_entry(
            name, f"has the attributes of a directory ({attributes:#x}), but its name does not end with a slash",
            Refusal.SPECIAL_FILE,
        )  # fmt: skip


def _check_sizes(entry: Entry) -> None:
    if entry.name.endswith(("/", "\\")) and entry.size:
        raise refuse_entry(entry.name, f"is a directory with {entry.size:,} bytes of content", Refusal.MALFORMED)
    if entry.method is Method.STORED and entry.compressed_size != entry.size:
        raise refuse_entry(
            entry.name,
            f"is stored without compression, but its compressed size ({entry.compressed_size:,} bytes) differs from "
            f"its uncompressed size ({entry.size:,} bytes)",
            Refusal.MALFORMED,
        )
    if not entry.size and entry.compressed_size > _MAX_EMPTY_DEFLATED:
        raise refuse_entry(
            entry.name, f"is empty, but has {entry.compressed_size:,} compressed bytes", Refusal.HIDDEN_DATA
        )


def _find_spans(entries: Sequence[Entry], directory_offset: int) -> list[Entry]:
    """Return the entries in the order of their offsets, with their `end`."""
    ordered = sorted(entries, key=lambda e: e.header_offset)
    if ordered[0].header_offset != 0:
        raise refuse_entry(
            ordered[0].name,
            f"is the first entry, but starts at byte {ordered[0].header_offset:,}: unknown data precedes the entry",
            Refusal.PREPENDED,
        )
    ends = [*(e.header_offset for e in ordered[1:]), directory_offset]
    spans = []
    for entry, end in zip(ordered, ends, strict=True):
        min_size = LOCAL_HEADER_SIZE + len(entry.raw_name) + entry.compressed_size
        if entry.header_offset + min_size > end:
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
            predicate = f"has {entry.size:,} bytes; the limit for {entry.method.name.lower()} entries is {limit:,}"
            remedy = " (ArchiveMaxEntryBytes). Store it without compression: `zip -0`" if is_deflated else ""
            raise refuse_entry(entry.name, predicate + remedy, Refusal.TOO_LARGE)
        _check_ratio(entry, limits)
    total = sum(entry.size for entry in entries)
    if total > limits.max_total_bytes:
        raise ArchiveRefusedError(
            f"The archive has {total:,} uncompressed bytes; the limit is {limits.max_total_bytes:,} "
            "(ArchiveMaxTotalBytes).",
            reason=Refusal.TOO_LARGE,
        )
    compressed = sum(entry.compressed_size for entry in entries)
    if total > _MIN_RATIO_SIZE and total > limits.max_ratio * compressed:
        raise ArchiveRefusedError(f"The archive {_describe_ratio(total, compressed, limits)}.", reason=Refusal.BOMB)


def _check_ratio(entry: Entry, limits: ArchiveLimits) -> None:
    size, compressed = entry.size, entry.compressed_size
    max_size = compressed * _MAX_DEFLATE_RATIO + _RATIO_SLACK
    if size > max_size:
        predicate = (
            f"declares {size:,} bytes, but its {compressed:,} compressed bytes can decompress to at most {max_size:,} "
            "bytes"
        )
        raise refuse_entry(entry.name, predicate, Refusal.BOMB)
    if size > _MIN_RATIO_SIZE and size > compressed * limits.max_ratio:
        raise refuse_entry(entry.name, _describe_ratio(size, compressed, limits), Refusal.BOMB)


def _describe_ratio(size: int, compressed: int, limits: ArchiveLimits) -> str:
    return (
        f"has a compression ratio of {size / max(1, compressed):,.0f}:1 ({size:,} bytes uncompressed, {compressed:,} "
        f"compressed); above {_MIN_RATIO_SIZE:,} bytes the limit is {limits.max_ratio}:1 (ArchiveMaxRatio). Store the "
        "content without compression: `zip -0`"
    )
