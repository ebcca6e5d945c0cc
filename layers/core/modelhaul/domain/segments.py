"""Segments of a large file, which several functions transfer together.

A segment is a run of parts of the file's multipart upload. A function claims the next free segment, downloads and
uploads its parts, and keeps the bytes in memory. It hashes them when all parts before them are hashed: SHA-256 is
sequential, but its state can be passed on.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class UploadKey:
    """The large file in a group of a plan: `position` is its index in the group."""

    plan_id: str
    group: int
    position: int

    @property
    def task_id(self) -> str:
        return self.plan_id.partition("#")[0]


@dataclass(frozen=True, slots=True)
class KeptUpload:
    """Entry of the content index: content is being uploaded, or was when its import ended, in the upload of `key`.

    The upload can be continued until `expires_at` (epoch seconds).
    """

    key: UploadKey
    expires_at: float


@dataclass(frozen=True, slots=True)
class Claim:
    """The parts `first` to `end` (1-based, excluded), which `owner` transfers until `until` (epoch seconds)."""

    first: int
    end: int
    owner: str
    until: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FileUpload:
    """Progress of the multipart upload of one file of `size` bytes.

    The first `hashed` parts are stored and hashed, and `hash_state` is the FileHasher's state after them, None before
    the first. `claims` are the segments that functions are working on, in order. `source_etag` is the source's ETag of
    the content. `ranged`: the source can be read from any offset, so that functions can share the file. `version`
    counts the changes.

    If the import ends without the file, another import of the content can continue the upload. `object_key` is then the
    key of the object that the upload creates, in the staging of the first import. It is None for uploads that cannot be
    continued. `parts_key`: where the parts are recorded, if it is not the upload's own key, because the import has
    taken the upload over. `is_taken_over`: another import has taken the upload over, and no function may change it.
    """

    upload_id: str
    size: int
    part_size: int
    source_etag: str | None = None
    ranged: bool = True
    hashed: int = 0
    hash_state: bytes | None = None
    claims: tuple[Claim, ...] = ()
    version: int = 0
    object_key: str | None = None
    parts_key: UploadKey | None = None
    is_taken_over: bool = False

    @property
    def count(self) -> int:
        """Return the number of parts."""
        return math.ceil(self.size / self.part_size)

    @property
    def is_hashed(self) -> bool:
        return self.hashed == self.count

    @property
    def offset(self) -> int:
        """Return the number of bytes that are stored and hashed."""
        return min(self.hashed * self.part_size, self.size)

    @property
    def is_kept(self) -> bool:
        """Return whether the upload must not be aborted when its import ends."""
        return self.object_key is not None

    @property
    def can_be_taken_over(self) -> bool:
        """Return whether another import can continue the upload when its import has ended."""
        return self.is_kept and self.hashed > 0 and not self.is_taken_over

    def list_segments(self, owner: str) -> list[range]:
        """Return the owner's segments, as ranges of part numbers."""
        return [range(claim.first, claim.end) for claim in self.claims if claim.owner == owner]

    def is_shared(self, owner: str, now: float) -> bool:
        """Return whether another function has a claim that has not expired."""
        return any(claim.owner != owner and claim.until > now for claim in self.claims)

    def find_free(self, limit: int, owner: str, now: float) -> range | None:
        """Return the first segment of at most `limit` parts that `owner` may claim, None if there is none.

        The owner's own claims stay, even if they have expired.
        """
        start = self.hashed + 1
        for claim in self.claims:
            if claim.owner == owner or claim.until > now:
                if start < claim.first:
                    return range(start, min(start + limit, claim.first))
                start = max(start, claim.end)
        return range(start, min(start + limit, self.count + 1)) if start <= self.count else None

    def claim(self, segment: range, owner: str, *, until: float) -> "FileUpload":
        """Give the free segment to `owner`, and extend the owner's other claims."""
        kept = [c for c in self._extend(owner, until) if c.end <= segment.start or c.first >= segment.stop]
        claims = sorted([*kept, Claim(segment.start, segment.stop, owner, until)], key=lambda claim: claim.first)
        return replace(self, claims=tuple(claims))

    def renew(self, owner: str, *, until: float) -> "FileUpload":
        """Extend the owner's claims."""
        return replace(self, claims=tuple(self._extend(owner, until)))

    def release(self, owner: str) -> "FileUpload":
        """End the owner's claims."""
        return replace(self, claims=tuple(claim for claim in self.claims if claim.owner != owner))

    def advance(self, hashed: int, hash_state: bytes | None, owner: str, *, until: float) -> "FileUpload":
        """Record that the parts up to `hashed`, which the owner has claimed, are stored and hashed."""
        claims = (replace(claim, first=max(claim.first, hashed + 1)) for claim in self._extend(owner, until))
        return replace(self, hashed=hashed, hash_state=hash_state, claims=tuple(c for c in claims if c.first < c.end))

    def hand_over(self, key: UploadKey) -> "tuple[FileUpload, FileUpload]":
        """Return the record at `key`, which says that the upload was taken over, and the first one of its new owner.

        The new owner's source may have another ETag.
        """
        last = replace(self, claims=(), version=self.version + 1, is_taken_over=True)
        parts_key = self.parts_key or key
        return last, replace(self, claims=(), version=0, source_etag=None, ranged=True, parts_key=parts_key)

    def _extend(self, owner: str, until: float) -> Iterator[Claim]:
        return (replace(claim, until=until) if claim.owner == owner else claim for claim in self.claims)
