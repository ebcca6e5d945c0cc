"""Content that is stored already."""

from collections.abc import Iterable

from modelhaul.domain.digests import Algorithm, Digest
from modelhaul.domain.files import SourceFile
from modelhaul.transfer.policy import TransferPolicy

_COPY_RATE = 1e9  # bytes per second of a copy inside S3, by many parallel parts; cautious


def digests_of(file: SourceFile, sha256: str, policy: TransferPolicy) -> Iterable[str]:
    """The digests by which the content is indexed: the one that its source publishes, and its SHA-256."""
    if file.size >= policy.min_indexed:
        return dict.fromkeys((str(Digest(Algorithm.SHA256, sha256)), str(file.digest)))
    return (str(file.digest),) if file.digest.algorithm.identifies else ()


def estimate_copy_time(size: int) -> float:
    """Seconds that S3 may take to copy `size` bytes inside itself."""
    return size / _COPY_RATE
