"""Parse the extra fields of entries: zip64 sizes, Unicode names, and fields that change what a reader extracts."""

import struct
import zlib
from collections.abc import Mapping

from modelhaul.archives.entries import Refusal, refuse_entry

type ExtraFields = Mapping[int, bytes]
"""The data of each extra field by its header ID."""

ZIP64 = 0x1
_UNICODE_PATH = 0x7075
_ENCRYPTION = {0x17, 0x9901}  # APPNOTE 4.5.12; AES of WinZip
_REDEFINING = {
    0x0008: "extended language encoding",
    0x000D: "PKWARE UNIX, which may hold the target of a link",
    0x000F: "patch descriptor",
    0x07C8: "Macintosh",
    0x2605: "ZipIt Macintosh long file name",
    0x2705: "ZipIt Macintosh short file name",
    0x334D: "Info-ZIP Macintosh",
    0x4F4C: "Xceed original location",
    0x554E: "Xceed Unicode name",
    0x6C78: "libarchive, which may turn a file into a link or a directory",
    0x756E: "ASi UNIX, which may turn a file into a link",
}
"""Fields that make a reader extract a different name, a link or a directory; APPNOTE 4.6.1 and libarchive's source."""

_UNICODE_PATH_HEADER = 5  # bytes: a version and a CRC-32
_ZIP64_CODES = "QQQL"
_ZIP64_NAMES = ("size", "compressed size", "offset", "disk")
_ZIP64_SIZES = (8, 16, 24, 28)  # bytes of the first one, two, three or all four values
_MAX_LONG, _MAX_SHORT = 0xFFFFFFFF, 0xFFFF  # markers: the value is in the zip64 field


def read_extra_fields(extra: bytes, raw_name: bytes) -> ExtraFields:
    """Return the extra fields. Refuse malformed fields, and fields that change what a reader extracts.

    Raises ArchiveRefusedError.
    """
    fields: dict[int, bytes] = {}
    position = 0
    shown_name = raw_name.decode("ascii", "backslashreplace")
    while position + 4 <= len(extra):
        kind, size = struct.unpack_from("<HH", extra, position)
        if position + 4 + size > len(extra):
            raise refuse_entry(shown_name, f"has a malformed extra field ({kind:#06x})", Refusal.MALFORMED)
        _check_kind(kind, shown_name)
        if kind in (ZIP64, _UNICODE_PATH) and kind in fields:
            reason = Refusal.ZIP64 if kind == ZIP64 else Refusal.NAME_ENCODING
            raise refuse_entry(shown_name, f"has two extra fields with the same ID ({kind:#06x})", reason)
        fields[kind] = extra[position + 4 : position + 4 + size]
        position += 4 + size
    if extra[position:].strip(b"\0"):
        raise refuse_entry(shown_name, "has a malformed extra field", Refusal.MALFORMED)
    return fields


def _check_kind(kind: int, shown_name: str) -> None:
    if kind in _ENCRYPTION:
        raise refuse_entry(shown_name, "is encrypted. Create the archive without a password", Refusal.ENCRYPTED)
    if kind in _REDEFINING:
        raise refuse_entry(
            shown_name, f"has an unsupported extra field ({kind:#06x}: {_REDEFINING[kind]})", Refusal.EXTRA_FIELD
        )


def read_unicode_path(fields: ExtraFields, raw_name: bytes, shown_name: str) -> str | None:
    """Return the name in the Unicode Path field (APPNOTE 4.6.9), or None without one. Raises ArchiveRefusedError."""
    field = fields.get(_UNICODE_PATH)
    if field is None:
        return None
    version, crc32 = field[:1], field[1:_UNICODE_PATH_HEADER]
    if version != b"\1" or crc32 != zlib.crc32(raw_name).to_bytes(4, "little"):
        raise refuse_entry(shown_name, "has a Unicode Path extra field for a different name", Refusal.NAME_ENCODING)
    try:
        return field[_UNICODE_PATH_HEADER:].decode()
    except UnicodeDecodeError:
        raise refuse_entry(
            shown_name, "has a Unicode Path extra field that is not valid UTF-8", Refusal.NAME_ENCODING
        ) from None


def read_sizes(name: str, fields: ExtraFields, narrow: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """Return (compressed size, size, offset, disk). Values that are all ones in the header come from the zip64 field.

    APPNOTE 4.5.3. If the field has more values than needed, they must equal those of the header. Raises
    ArchiveRefusedError.
    """
    compressed, size, offset, disk = narrow
    field = fields.get(ZIP64, b"")
    # The order of the zip64 field differs from the order of the header.
    values = (size, compressed, offset, disk)
    maxima = (_MAX_LONG, _MAX_LONG, _MAX_LONG, _MAX_SHORT)
    are_wide = [value == maximum for value, maximum in zip(values, maxima, strict=True)]
    layout = struct.Struct("<" + "".join(code for code, is_wide in zip(_ZIP64_CODES, are_wide, strict=True) if is_wide))
    if len(field) < layout.size:
        raise refuse_entry(name, "has no zip64 extra field, but its header requires one", Refusal.ZIP64)
    wide = iter(layout.unpack_from(field))
    size, compressed, offset, disk = (
        next(wide) if is_wide else value for value, is_wide in zip(values, are_wide, strict=True)
    )
    if len(field) > layout.size:
        _check_all_values(name, field, (size, compressed, offset, disk))
    return compressed, size, offset, disk


def _check_all_values(name: str, field: bytes, values: tuple[int, int, int, int]) -> None:
    """Refuse a zip64 field that does not consist of all values of the header, or of the first of them."""
    if len(field) not in _ZIP64_SIZES:
        raise refuse_entry(name, f"has a zip64 extra field of unexpected size ({len(field):,} bytes)", Refusal.ZIP64)
    count = _ZIP64_SIZES.index(len(field)) + 1
    wide = struct.unpack("<" + _ZIP64_CODES[:count], field)
    for field_name, value64, value in zip(_ZIP64_NAMES[:count], wide, values[:count], strict=True):
        if value64 != value:
            raise refuse_entry(
                name,
                f"has a zip64 extra field that disagrees with its header ({field_name} {value64:,}, {value:,})",
                Refusal.ZIP64,
            )
