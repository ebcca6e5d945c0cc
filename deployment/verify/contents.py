"""Digests of the files of a model, computed from what a reader receives."""

import hashlib
import zlib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Content:
    """`git_sha1` is the ID of the Git blob with this content."""

    size: int
    sha256: str
    git_sha1: str
    crc32: int

    @property
    def pointer_sha1(self) -> str:
        """The ID of the Git blob with the Git LFS pointer of this content.

        See https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md.
        """
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self.size}\n".encode()
        return digest_content([pointer], len(pointer)).git_sha1

    def matches(self, digest: str) -> bool:
        """Return whether a `source_digest` of a manifest, such as `git-sha1:…`, is the digest of this content."""
        kind, _, value = digest.partition(":")
        known = {"sha256": self.sha256, "git-sha1": self.git_sha1, "crc32": f"{self.crc32:08x}"}
        return known.get(kind) == value


def digest_content(chunks: Iterable[bytes], size: int) -> Content:
    """`size` is the expected size, which is a part of the ID of a Git blob."""
    sha256, git_sha1 = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    crc32 = received = 0
    for chunk in chunks:
        sha256.update(chunk)
        git_sha1.update(chunk)
        crc32 = zlib.crc32(chunk, crc32)
        received += len(chunk)
    return Content(received, sha256.hexdigest(), git_sha1.hexdigest(), crc32)
