"""Policy for grouping files and for indexing content."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from modelhaul.domain.digests import Algorithm, Digest
from modelhaul.domain.files import SourceFile

_MIB = 1024 * 1024
_COPY_RATE = 1e9  # bytes per second of a copy within S3 in many parallel parts; a low estimate


@dataclass(frozen=True, slots=True)
class TransferPolicy:
    """Sizes are bytes.

    A file of up to `small_file` is transferred whole, in memory. A group has at most `group_files` small files, with at
    most `group_bytes` in total, and its list of files takes about `group_listing` at most, so that its record fits into
    a DynamoDB item (400 KB). Verified content of at least `min_indexed` is indexed by each of its digests. Smaller
    content is indexed with its whole group until it is published, because each index entry costs a write. Up to
    `file_functions` of the `functions` of an import transfer a large file together, at most one for each
    `function_bytes`. A message has at most `copy_groups` groups to copy, with at most `copy_files` files and
    `copy_bytes`.
    """

    small_file: int = 8 * _MIB
    group_files: int = 128
    group_bytes: int = 64 * _MIB
    group_listing: int = 100_000
    min_indexed: int = _MIB // 4
    functions: int = 16
    file_functions: int = 8  # more would wait for each other: each hashes about 0.45 GB/s, one after the other
    function_bytes: int = 1024 * _MIB
    copy_groups: int = 40
    copy_files: int = 512
    copy_bytes: int = 32 * 1024 * _MIB


def list_digests(file: SourceFile, sha256: str, policy: TransferPolicy) -> Iterable[str]:
    """Return the digests by which the content is indexed: its published digest, and its SHA-256."""
    if file.size >= policy.min_indexed:
        return dict.fromkeys((str(Digest(Algorithm.SHA256, sha256)), str(file.digest)))
    return (str(file.digest),) if file.digest.algorithm.identifies else ()


def estimate_copy_time(size: int) -> float:
    """Return the seconds that a copy of `size` bytes within S3 may take."""
    return size / _COPY_RATE


def fingerprint_group(files: Iterable[SourceFile], policy: TransferPolicy) -> tuple[str, frozenset[str]]:
    """Return a fingerprint of the small contents of a group, regardless of their names, and their digests."""
    digests = [
        str(file.digest) for file in files if file.size < policy.min_indexed and file.digest.algorithm.identifies
    ]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest(), frozenset(digests)


def count_functions(size: int, total: int, policy: TransferPolicy) -> int:
    """Return the number of functions for a file of `size` bytes in an import of `total` bytes.

    A file has a share of the functions that is its share of the bytes: an import of many files of equal size has one
    function for each of them.
    """
    share = policy.functions * size // max(total, 1)
    return max(1, min(policy.file_functions, size // policy.function_bytes, share))
