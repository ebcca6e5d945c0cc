"""Refuse a ZIP archive that is also valid in another format, which bsdtar would extract instead."""

import re

from modelhaul.archives.entries import Refusal
from modelhaul.domain.errors import ArchiveRefusedError

_TAR_BLOCK = 512  # bytes
_CHECKSUM = slice(148, 156)
_CHECKSUM_FORM = re.compile(rb"[ \0]*([0-7]+)[ \0]*")
_ISO = slice(32_769, 32_774)  # identifier of the first volume descriptor, in sector 16 of 2,048 bytes
FORMATS_SIZE = _ISO.stop
"""Bytes at the start of the archive that identify the formats."""


def check_other_formats(head: bytes) -> None:
    """Refuse a tar archive and an ISO 9660 image. `head`: the archive's first `FORMATS_SIZE` bytes, or all of it.

    Raises ArchiveRefusedError.
    """
    if _is_tar(head[:_TAR_BLOCK]):
        raise _refuse_format("tar archive")
    if head[_ISO] == b"CD001":
        raise _refuse_format("ISO 9660 image")


def _refuse_format(name: str) -> ArchiveRefusedError:
    return ArchiveRefusedError(
        f"The file is both a valid ZIP archive and a valid {name}, so readers may extract different files. Create the "
        "archive again with a ZIP tool.",
        reason=Refusal.AMBIGUOUS_FORMAT,
    )


def _is_tar(block: bytes) -> bool:
    """Return whether the block has a valid tar checksum, computed over unsigned or signed bytes.

    libarchive and tarfile recognize a tar archive without a magic number in this way.

    https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html#tag_20_94_13_06
    """
    if len(block) < _TAR_BLOCK or (found := _CHECKSUM_FORM.match(block[_CHECKSUM])) is None:
        return False
    others = block[: _CHECKSUM.start] + b" " * 8 + block[_CHECKSUM.stop :]
    unsigned = sum(others)
    signed = unsigned - 256 * sum(byte > 127 for byte in others)  # noqa: PLR2004 - of a signed byte
    return int(found[1], 8) in (unsigned, signed)
