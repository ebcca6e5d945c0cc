"""The entries of a ZIP archive, the limits that a reader sets, and why an archive is refused."""

from dataclasses import dataclass
from enum import IntEnum, StrEnum

from modelhaul.domain.errors import ArchiveRefusedError

_SHOWN_NAME = 80  # characters of an entry's name in a message


class Refusal(StrEnum):
    """Why an archive is refused."""

    EMPTY = "empty"
    NOT_A_ZIP = "not-a-zip"
    TRUNCATED = "truncated"
    MALFORMED = "malformed"
    AMBIGUOUS_END = "ambiguous-end"
    AMBIGUOUS_FORMAT = "ambiguous-format"
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
    EXTRA_FIELD = "extra-field"
    ENCRYPTED = "encrypted"
    DAMAGED = "damaged"
    CRC_MISMATCH = "crc-mismatch"


class Method(IntEnum):
    """The compression methods that are read; APPNOTE 4.4.5."""

    STORED = 0
    DEFLATED = 8


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """Limits on uncompressed bytes. `max_entry_bytes` applies to deflated entries, `max_ratio` (uncompressed :
    compressed) to deflated entries and to archives of more than 100 MiB uncompressed.
    """

    max_entries: int
    max_entry_bytes: int
    max_total_bytes: int
    max_ratio: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the central directory. Its local header is at `header_offset`, and the next entry's, or the
    directory, at `end`.

    `name` has slashes as separators, also if `raw_name`, the bytes in the archive, has backslashes.
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


def refuse_entry(name: str, what: str, reason: Refusal) -> ArchiveRefusedError:
    """The error for one entry; `what` is the rest of a sentence that starts with the entry's name."""
    return ArchiveRefusedError(f"Entry {name[:_SHOWN_NAME]!r} {what}.", reason=reason, entry=name)
