"""Uploads that an ended import has left, and that the next import of the same content continues.

An upload is aborted only after its record is deleted, and taken over only while it is recorded.
"""

import logging
from dataclasses import dataclass

from modelhaul.domain.files import FileRecord
from modelhaul.domain.segments import KeptUpload, UploadKey
from modelhaul.domain.tasks import TaskStatus
from modelhaul.ports.content import ContentIndex
from modelhaul.ports.multipart_uploads import MultipartUploads
from modelhaul.ports.segments import SegmentRepository
from modelhaul.transfer.engine import can_be_continued
from modelhaul.transfer.reuse import STAGED_BLOB_SECONDS
from modelhaul.transfer.segments import SegmentClaims
from modelhaul.transfer.session import TransferSession

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KeptUploads:
    """Indexes the uploads of the session, and takes over those of ended imports."""

    session: TransferSession
    content: ContentIndex
    segments: SegmentRepository
    uploads: MultipartUploads

    def index(self, record: FileRecord, key: UploadKey) -> None:
        """Index a new upload of the file, if other imports can continue it."""
        if can_be_continued(record.file, self.session.settings):
            expires_at = self.session.clock() + STAGED_BLOB_SECONDS
            self.content.put_kept_upload(str(record.file.digest), KeptUpload(key, expires_at))

    def take_over(self, record: FileRecord, claims: SegmentClaims) -> None:
        """Let `claims` continue the upload of an ended import of the same content, if there is one.

        Of several imports, one takes the upload over. Raises LeaseLostError, TaskEndedError.
        """
        digest = str(record.file.digest)
        found = self.content.find_kept_upload(digest) if can_be_continued(record.file, self.session.settings) else None
        if found is None or not self._has_failed(found.key.task_id):
            return
        upload = self.segments.find_upload(found.key)
        if upload is None or not upload.can_be_taken_over or upload.size != record.file.size:
            return
        object_key = upload.object_key or ""
        # The upload of a file that was completed, or that the bucket's lifecycle rule has aborted, is still recorded.
        if (object_key, upload.upload_id) not in self.uploads.list_uploads(object_key):
            return
        if not claims.adopt(found.key, upload):
            return
        self.content.put_kept_upload(digest, KeptUpload(claims.key, found.expires_at))
        self.session.record_offset(upload.offset)
        logger.info(
            "upload of an ended import continued",
            extra={
                "task_id": record.task_id,
                "path": record.file.path,
                "offset": upload.offset,
                "ended_task_id": found.key.task_id,
            },
        )

    def _has_failed(self, task_id: str) -> bool:
        task = self.session.tasks.find_task(task_id)
        return task is not None and task.status is TaskStatus.FAILED
