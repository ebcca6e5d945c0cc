"""Whether a ZIP archive is an archive of another format too, which bsdtar would extract instead."""

import re

from modelhaul.archives.entries import Refusal
from modelhaul.domain.errors import ArchiveRefusedError

_TAR_BLOCK = 512  # bytes
_CHECKSUM = slice(148, 156)
_CHECKSUM_FORM = re.compile(rb"[ \0]*([0-7]+)[ \0]*")
_ISO = slice(32_769, 32_774)  # of the first volume descriptor, in sector 16 of 2,048 bytes
FORMATS_SIZE = _ISO.stop
"""Bytes of the archive's start by which the formats are known."""


def check_other_formats(head: bytes) -> None:
    """`head`: the archive's first `FORMATS_SIZE` bytes, or all. Raises ArchiveRefusedError."""
    if _is_tar(head[:_TAR_BLOCK]):
        raise ArchiveRefusedError("The archive is also a tar archive.", reason=Refusal.AMBIGUOUS_FORMAT)
    if head[_ISO] == b"CD001":
        raise ArchiveRefusedError("The archive is also an ISO 9660 image.", reason=Refusal.AMBIGUOUS_FORMAT)


def _is_tar(block: bytes) -> bool:
    """By the checksum, of unsigned or signed bytes, as libarchive and tarfile know a tar without a magic number.

    https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html#tag_20_94_13_06
    """
    if len(block) < _TAR_BLOCK or (found := _CHECKSUM_FORM.match(block[_CHECKSUM])) is None:
        return False
    others = block[: _CHECKSUM.start] + b" " * 8 + block[_CHECKSUM.stop :]
    unsigned = sum(others)
    signed = unsigned - 256 * sum(byte > 127 for byte in others)  # noqa: PLR2004 - of a signed byte
    return int(found[1], 8) in (unsigned, signed)
