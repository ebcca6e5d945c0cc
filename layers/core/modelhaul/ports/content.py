"""Index of stored content by digest."""

from collections.abc import Iterable
from typing import Protocol

from modelhaul.domain.objects import Blob
from modelhaul.domain.segments import KeptUpload


class ContentIndex(Protocol):
    """Index of stored content by digest. A digest has an entry for each object that has its content.

    Every method raises StorageUnavailableError.
    """

    def find_blobs(self, digests: Iterable[str]) -> dict[str, Blob]:
        """Return a stored blob for each of these digests (`sha256:…`, `git-sha1:…` or `crc32:…`) that has one.

        Blobs that do not expire take precedence, then those that expire last. Strongly consistent.
        """

    def put_blobs(self, blobs: Iterable[tuple[str, Blob]], *, expires_at: float | None) -> None:
        """Record (digest, blob) pairs, and replace earlier pairs of the same digest and key.

        With `expires_at` (epoch seconds) the pairs expire at that time.
        """

    def find_group(self, fingerprint: str) -> dict[str, Blob]:
        """Return the blobs of a group of small files, by digest. Empty if the group is unknown. Strongly consistent."""

    def put_group(self, fingerprint: str, blobs: Iterable[tuple[str, Blob]], *, expires_at: float) -> None:
        """Record the (digest, blob) pairs of a group of small files, until `expires_at` (epoch seconds)."""

    def find_kept_upload(self, digest: str) -> KeptUpload | None:
        """Return the upload of the content with this digest. Strongly consistent."""

    def put_kept_upload(self, digest: str, upload: KeptUpload) -> None:
        """Record the upload of the content until it expires, in place of an earlier one."""

    def forget_blob(self, digest: str, blob: Blob) -> None:
        """Remove the entry of a blob whose object is gone. No-op if the blob was recorded again since it was found."""

    def forget_blobs(self, references: Iterable[tuple[str, str]]) -> None:
        """Remove the entries of any number of (digest, key) pairs of published files. Pairs may have no entry."""
