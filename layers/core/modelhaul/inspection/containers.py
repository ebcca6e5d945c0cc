"""Limits and recognition of files that contain other files: archives, and compressed files."""

import tarfile
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Final

from modelhaul.domain.findings import ContentReport, Finding, FindingKind, Severity
from modelhaul.inspection.opened import OpenedFile

type InspectMember = Callable[[OpenedFile], ContentReport]

MAX_IN_MEMORY: Final = 32 * 1024 * 1024  # bytes of an entry, or of decompressed data
MAX_DEPTH: Final = 3  # nested archives and compressions
TOO_DEEP: Final = f"Archives are nested more than {MAX_DEPTH} levels deep"
_CODE_ARCHIVES = {
    ".egg": "Python imports",
    ".jar": "Java loads",
    ".mar": "TorchServe runs",
    ".nemo": "NeMo loads",
    ".whl": "pip installs",
}
"""Programs that run the code in an archive, by the suffix of the archive."""


class ContainerLimitError(Exception):
    """The container exceeds a limit of the inspection. The message is the reason of the report."""


def is_tar(head: bytes) -> bool:
    """Return whether Python's tarfile, with which torch reads its first format, recognizes an archive.

    tarfile verifies the checksum of the first header: the V7 format has no magic number. Zeros are an archive without
    entries, in which torch finds nothing.
    """
    try:
        tarfile.TarInfo.frombuf(head[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return False
    return True


def find_code_archive(path: str) -> Finding | None:
    """Return a finding for an archive of code, by the file's suffix."""
    suffix = PurePosixPath(path).suffix.lower()
    if suffix not in _CODE_ARCHIVES:
        return None
    return Finding(
        FindingKind.CODE_ARCHIVE, Severity.MEDIUM, f"Archive that contains code, which {_CODE_ARCHIVES[suffix]}"
    )
