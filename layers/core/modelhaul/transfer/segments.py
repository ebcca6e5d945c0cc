"""The segments of one file that this function has claimed."""

import random
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

from modelhaul.domain.errors import LeaseLostError, StorageUnavailableError
from modelhaul.domain.files import Part
from modelhaul.domain.segments import FileUpload, UploadKey
from modelhaul.ports.clock import Clock
from modelhaul.ports.segments import SegmentRepository

SEGMENT_SECONDS = 60.0  # several heartbeats
_MAX_ATTEMPTS = 20
_MAX_PAUSE = 0.2


class SegmentLostError(Exception):
    """The claim of a segment expired, and another function has claimed it."""


@dataclass(slots=True, kw_only=True)
class SegmentClaims:
    """Claims and finishes segments of a file for `owner`.

    `upload` is the upload as this function knows it, after `find` or `start`. It is not recorded until `record`: until
    then, no other function can join. Every method raises StorageUnavailableError. Methods that change the upload raise
    LeaseLostError if the file has another upload now, because its leading function has discarded this one, or if the
    import has ended, and another import has the upload. `on_record` is called after a new upload was recorded.
    """

    repository: SegmentRepository
    key: UploadKey
    owner: str
    clock: Clock
    on_record: Callable[["SegmentClaims"], None] = lambda _: None
    is_recorded: bool = False
    changed_at: float = field(default_factory=time.monotonic)
    upload: FileUpload = field(init=False)

    @property
    def is_shared(self) -> bool:
        """Return whether another function has a segment."""
        return self.upload.is_shared(self.owner, self.clock())

    def find(self) -> FileUpload | None:
        """Return the recorded upload, None if there is none. Raises LeaseLostError."""
        found = _check_owner(self.repository.find_upload(self.key))
        self.is_recorded = found is not None
        if found is not None:
            self.upload = found
        return found

    def start(self, upload: FileUpload) -> None:
        """Start with an upload that is not recorded."""
        self.upload, self.is_recorded = upload, False

    def record(self, *, source_etag: str | None, ranged: bool) -> None:
        """Record the upload, so that other functions can join if the source is `ranged`.

        If it is recorded, record only what is not known of the source of an upload that was taken over.
        """
        if self.is_recorded:
            if self.upload.source_etag is None and (source_etag, ranged) != (None, self.upload.ranged):
                self._change(
                    lambda u: replace(u, source_etag=source_etag, ranged=ranged) if u.source_etag is None else None
                )
            return
        upload = replace(self.upload, source_etag=source_etag, ranged=ranged)
        if not self.repository.create_upload(self.key, upload):
            found = _check_owner(self.repository.find_upload(self.key))
            if found is None or found.upload_id != upload.upload_id:
                raise LeaseLostError("Another function has started the upload of the file.")
        self.upload, self.is_recorded = upload, True
        self.on_record(self)

    def adopt(self, source: UploadKey, upload: FileUpload) -> bool:
        """Take over the upload that an ended import has recorded at `source`. Return False if this is impossible.

        Late functions of the ended import may change the upload until they notice the end.
        """
        for attempt in range(1, _MAX_ATTEMPTS + 1):
            if self.repository.take_over_upload(source, upload, self.key):
                _, self.upload = upload.hand_over(source)
                self.is_recorded = True
                return True
            if self.find() is not None:  # the response was lost
                return True
            found = self.repository.find_upload(source)
            if found is None or found.upload_id != upload.upload_id or not found.can_be_taken_over:
                return False
            upload = found
            _pause(attempt)
        return False

    def refresh(self) -> None:
        """Read the upload again."""
        if not self.is_recorded:
            return
        found = _check_owner(self.repository.find_upload(self.key))
        if found is None or found.upload_id != self.upload.upload_id:
            raise LeaseLostError("Another function has discarded the upload of the file.")
        self.upload = found

    def is_discarded(self) -> bool:
        """Return whether the upload is no longer recorded."""
        found = self.repository.find_upload(self.key)
        return found is None or found.upload_id != self.upload.upload_id

    def claim(self, limit: int, held: Collection[range]) -> range | None:
        """Claim the first free segment of at most `limit` parts. Return None if there is none.

        `held` are the segments that the function works on. After a lost response, it has a claim of another one.
        """
        claimed: range | None = None

        def change(upload: FileUpload) -> FileUpload | None:
            nonlocal claimed
            claimed = next((s for s in upload.list_segments(self.owner) if s not in held), None)
            if claimed is not None:
                return None
            claimed = upload.find_free(limit, self.owner, self.clock())
            return upload.claim(claimed, self.owner, until=self._until) if claimed is not None else None

        self._change(change)
        return claimed

    def take_over(self, limit: int) -> bool:
        """Claim the first segment that is not hashed, in place of all segments of the function, if nobody has it.

        All other functions wait for this segment. Return whether it was free.
        """
        taken = False

        def change(upload: FileUpload) -> FileUpload | None:
            nonlocal taken
            released = upload.release(self.owner)
            free = released.find_free(limit, self.owner, self.clock())
            taken = free is not None and free.start == upload.hashed + 1
            return released.claim(free, self.owner, until=self._until) if taken and free else None

        self._change(change)
        return taken

    def advance(self, parts: Sequence[Part], hash_state: bytes | None) -> None:
        """Record that these parts, which follow those recorded before, are stored and hashed.

        Raises SegmentLostError if another function has hashed them, or has one of their segments.
        """
        hashed = parts[-1].number

        def change(upload: FileUpload) -> FileUpload | None:
            if (upload.hashed, upload.hash_state) == (hashed, hash_state):  # the response was lost
                return None
            owned = {number for segment in upload.list_segments(self.owner) for number in segment}
            if upload.hashed != parts[0].number - 1 or not owned.issuperset(part.number for part in parts):
                raise SegmentLostError
            return upload.advance(hashed, hash_state, self.owner, until=self._until)

        self._change(change, parts)

    def renew(self) -> None:
        """Extend the claims."""
        self._change(lambda upload: upload.renew(self.owner, until=self._until))

    def release(self) -> None:
        """End the claims, so that other functions can claim the segments immediately."""
        self._change(lambda upload: upload.release(self.owner) if upload.list_segments(self.owner) else None)

    def list_parts(self) -> list[Part]:
        return self.repository.list_parts(self.upload.parts_key or self.key, self.upload.upload_id)

    def delete(self) -> None:
        """Delete the record of the upload."""
        if not self.repository.delete_upload(self.key, self.upload.upload_id):
            _check_owner(self.repository.find_upload(self.key))

    @property
    def _until(self) -> float:
        return self.clock() + SEGMENT_SECONDS

    def _change(self, change: Callable[[FileUpload], FileUpload | None], parts: Sequence[Part] = ()) -> None:
        """Apply the change to the upload, again if another function has changed it. None is no change."""
        for attempt in range(1, _MAX_ATTEMPTS + 1):
            known = self.upload
            changed = change(known)
            if changed is None:
                return
            changed = replace(changed, version=known.version + 1)
            # Before the upload is recorded, this function alone knows the parts.
            if not self.is_recorded or self.repository.replace_upload(self.key, known, changed, parts):
                self.upload, self.changed_at = changed, time.monotonic()
                return
            self.refresh()
            if attempt > 1:
                _pause(attempt)
        raise StorageUnavailableError("DynamoDB write failed (too many functions change the upload).")


def _pause(attempt: int) -> None:
    time.sleep(random.uniform(0, min(_MAX_PAUSE, 0.005 * 2**attempt)))  # noqa: S311 - jitter


def _check_owner(upload: FileUpload | None) -> FileUpload | None:
    """Return the upload. Raise LeaseLostError if another import has taken it over."""
    if upload is not None and upload.is_taken_over:
        raise LeaseLostError("The import has ended, and another one has taken over the upload of the file.")
    return upload
