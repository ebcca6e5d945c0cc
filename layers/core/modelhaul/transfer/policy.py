"""Policy for grouping files into messages and for indexing content."""

from collections.abc import Iterable
from dataclasses import dataclass

from modelhaul.domain.digests import Algorithm, Digest
from modelhaul.domain.files import SourceFile

_MIB = 1024 * 1024
_COPY_RATE = 1e9  # bytes per second of a copy within S3 in many parallel parts; a low estimate


@dataclass(frozen=True, slots=True)
class TransferPolicy:
    """Sizes are bytes.

    A file of up to `small_file` is transferred whole, in memory. A message has at most `group_files` small files, with
    at most `group_bytes` in total. Their records and the task's counter fit into one DynamoDB transaction (100
    actions). Content of at least `min_indexed` is also indexed by its SHA-256. Smaller content is indexed only by its
    published digest, because each index entry costs as much to write as the file's record.
    """

    small_file: int = 8 * _MIB
    group_files: int = 90
    group_bytes: int = 64 * _MIB
    min_indexed: int = _MIB // 4


def list_digests(file: SourceFile, sha256: str, policy: TransferPolicy) -> Iterable[str]:
    """Return the digests by which the content is indexed: its published digest, and its SHA-256."""
    if file.size >= policy.min_indexed:
        return dict.fromkeys((str(Digest(Algorithm.SHA256, sha256)), str(file.digest)))
    return (str(file.digest),) if file.digest.algorithm.identifies else ()


def estimate_copy_time(size: int) -> float:
    """Return the seconds that a copy of `size` bytes within S3 may take."""
    return size / _COPY_RATE
