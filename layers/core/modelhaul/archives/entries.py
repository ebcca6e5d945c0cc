"""The entries of a ZIP archive, the limits of the reader, and the reasons for which an archive is refused."""

from dataclasses import dataclass
from enum import IntEnum, StrEnum

from modelhaul.domain.errors import ArchiveRefusedError

_SHOWN_NAME = 80  # characters of an entry's name in a message


class Refusal(StrEnum):
    """The reason for which an archive is refused."""

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
    """The supported compression methods; APPNOTE 4.4.5."""

    STORED = 0
    DEFLATED = 8


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """Limits on the number of entries and on uncompressed bytes.

    `max_entry_bytes` applies to deflated entries. `max_ratio` (uncompressed : compressed) applies to deflated entries
    and archives of more than 100 MiB uncompressed.
    """

    max_entries: int
    max_entry_bytes: int
    max_total_bytes: int
    max_ratio: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the central directory.

    The entry starts at `header_offset`, with its local header, and ends at `end`, where the next entry or the central
    directory starts. `raw_name` is the name as stored in the archive. `name` always has slashes as separators, even if
    `raw_name` has backslashes.
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


def refuse_entry(name: str, predicate: str, reason: Refusal) -> ArchiveRefusedError:
    """Return the error for one entry. `predicate` completes the sentence that starts with the entry's name."""
    return ArchiveRefusedError(f"Entry {name[:_SHOWN_NAME]!r} {predicate}.", reason=reason, entry=name)
