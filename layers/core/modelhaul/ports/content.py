"""Content that is stored, by its digests."""

from collections.abc import Iterable
from typing import Protocol

from modelhaul.domain.objects import Blob


class ContentIndex(Protocol):
    """Every method raises StorageUnavailableError."""

    def find_blobs(self, digests: Iterable[str]) -> dict[str, Blob]:
        """The stored contents with these digests (`sha256:…` or `git-sha1:…`), by digest; strongly consistent."""

    def put_blobs(self, blobs: Iterable[tuple[str, Blob]], *, expires_at: float | None) -> None:
        """Records (digest, blob) pairs in the place of earlier ones. With `expires_at` they expire then, and a pair
        for the same digest that does not expire takes precedence.
        """

    def forget_blob(self, digest: str, key: str) -> None:
        """Forgets the digest if it is recorded at `key`."""

    def forget_blobs(self, references: Iterable[tuple[str, str]]) -> None:
        """Forgets any number of (digest, key) pairs, as `forget_blob` does, of which most are not recorded."""
