"""Index of stored content by digest."""

from collections.abc import Iterable
from typing import Protocol

from modelhaul.domain.objects import Blob


class ContentIndex(Protocol):
    """Index of stored content by digest. Every method raises StorageUnavailableError."""

    def find_blobs(self, digests: Iterable[str]) -> dict[str, Blob]:
        """Return the stored blobs with these digests (`sha256:…` or `git-sha1:…`), by digest. Strongly consistent."""

    def put_blobs(self, blobs: Iterable[tuple[str, Blob]], *, expires_at: float | None) -> None:
        """Record (digest, blob) pairs, and replace earlier pairs of the same digests.

        With `expires_at` (epoch seconds) the pairs expire at that time, and a permanent pair of the same digest takes
        precedence.
        """

    def find_group(self, fingerprint: str) -> dict[str, Blob]:
        """Return the blobs of a group of small files, by digest. Empty if the group is unknown. Strongly consistent."""

    def put_group(self, fingerprint: str, blobs: Iterable[tuple[str, Blob]], *, expires_at: float) -> None:
        """Record the (digest, blob) pairs of a group of small files, until `expires_at` (epoch seconds)."""

    def forget_blob(self, digest: str, key: str) -> None:
        """Remove the digest's entries that refer to `key`."""

    def forget_blobs(self, references: Iterable[tuple[str, str]]) -> None:
        """Remove the entries of any number of (digest, key) pairs of published files. Most pairs may have no entry."""
