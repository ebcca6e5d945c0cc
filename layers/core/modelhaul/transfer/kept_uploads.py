"""Uploads that an ended import has left, and that the next import of the same content continues.

An upload that can be continued is aborted only after its record is deleted, and taken over only while it is recorded.
"""

import logging
from dataclasses import dataclass

from modelhaul.domain.errors import StorageUnavailableError
from modelhaul.domain.files import FileRecord
from modelhaul.domain.segments import FileUpload, KeptUpload, UploadKey
from modelhaul.domain.tasks import TaskStatus
from modelhaul.ports.content import ContentIndex
from modelhaul.ports.multipart_uploads import MultipartUploads
from modelhaul.ports.object_store import ObjectStore
from modelhaul.ports.segments import SegmentRepository
from modelhaul.transfer.engine import can_be_continued
from modelhaul.transfer.reuse import STAGED_BLOB_SECONDS
from modelhaul.transfer.segments import SegmentClaims
from modelhaul.transfer.session import TransferSession

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptUploads:
    """Indexes the uploads of the session, and takes over those of ended imports.

    `may_take_over`: no content of the source has had a wrong digest. Otherwise, wrong bytes of ended imports could be
    taken for those of the source.
    """

    session: TransferSession
    content: ContentIndex
    segments: SegmentRepository
    uploads: MultipartUploads
    store: ObjectStore
    may_take_over: bool

    def index(self, record: FileRecord, claims: SegmentClaims) -> None:
        """Index the recorded upload of the file, if other imports can continue it and none with as many parts is
        indexed.

        An error is only logged, because this import does not need the entry.
        """
        digest, upload = str(record.file.digest), claims.upload
        if not upload.is_kept:
            return
        try:
            found = self.content.find_kept_upload(digest)
            if found is not None and found.key == claims.key:
                return
            indexed = self._find_upload(found.key) if found is not None else None
            if indexed is not None and indexed.hashed >= upload.hashed:
                return
            # S3 dates the upload by its start, which is later than that of its first import.
            parts_key, task = upload.parts_key, self.session.task
            first = task if parts_key is None else self.session.tasks.find_task(parts_key.task_id)
            if first is not None:
                expires_at = first.created_at.timestamp() + STAGED_BLOB_SECONDS
                self.content.put_kept_upload(digest, KeptUpload(claims.key, expires_at))
        except StorageUnavailableError as error:
            logger.warning("upload not indexed", extra={"task_id": record.task_id, "detail": error.detail})

    def take_over(self, record: FileRecord, claims: SegmentClaims) -> None:
        """Let `claims` continue the upload of an ended import of the same content, if there is one.

        Of several imports, one takes the upload over. Raises LeaseLostError, TaskEndedError.
        """
        if not self.may_take_over or not can_be_continued(record.file, self.session.settings):
            return
        found = self.content.find_kept_upload(str(record.file.digest))
        if found is None or not self._has_failed(found.key.task_id):
            return
        upload = self._find_upload(found.key)
        if upload is None or upload.size != record.file.size or not claims.adopt(found.key, upload):
            return
        self.index(record, claims)
        offset = claims.upload.offset
        self.session.record_offset(offset, continued=offset)
        logger.info(
            "upload of an ended import continued",
            extra={
                "task_id": record.task_id,
                "path": record.file.path,
                "offset": offset,
                "ended_task_id": found.key.task_id,
            },
        )

    def _has_failed(self, task_id: str) -> bool:
        task = self.session.tasks.find_task(task_id)
        return task is not None and task.status is TaskStatus.FAILED and not task.is_content_rejected

    def _find_upload(self, key: UploadKey) -> FileUpload | None:
        """Return the recorded upload, if it can be continued, or has created its object.

        The upload of a file that was completed, or that the bucket's lifecycle rule has aborted, is still recorded.
        """
        upload = self.segments.find_upload(key)
        if upload is None or not upload.can_be_taken_over:
            return None
        object_key = upload.object_key or ""
        if (object_key, upload.upload_id) in self.uploads.list_uploads(object_key):
            return upload
        found = self.store.find_object(object_key) if upload.is_hashed else None
        return upload if found is not None and found[0] == upload.size else None
