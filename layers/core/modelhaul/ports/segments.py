"""Progress of the uploads of large files, which functions share."""

from collections.abc import Sequence
from typing import Protocol

from modelhaul.domain.files import Part
from modelhaul.domain.segments import FileUpload, UploadKey


class SegmentRepository(Protocol):
    """Progress of the uploads of large files. Every method raises StorageUnavailableError."""

    def find_upload(self, key: UploadKey) -> FileUpload | None:
        """Return the upload of the file. Strongly consistent."""

    def create_upload(self, key: UploadKey, upload: FileUpload) -> bool:
        """Record the upload. Return False if the file has an upload.

        After a lost response, this may be the upload itself.
        """

    def replace_upload(
        self, key: UploadKey, known: FileUpload, changed: FileUpload, parts: Sequence[Part] = ()
    ) -> bool:
        """Replace the upload by `changed`, whose version is one more than that of `known`, and record `parts`.

        Return False if the recorded upload has another `upload_id` or `version` than `known`. Then nothing is written.
        After a lost response, this may be the change itself.
        `parts` are consecutive, and none of them was recorded before. They are recorded at `parts_key` of the upload.
        """

    def take_over_upload(self, source: UploadKey, known: FileUpload, key: UploadKey) -> bool:
        """Record the upload of `source` for the file of `key`, and mark it at `source` (see `FileUpload.hand_over`).

        Return False if the recorded upload of `source` has another `upload_id` or `version` than `known`, or if the
        file of `key` has an upload. Then nothing is written. After a lost response, this may be the change itself.
        """

    def delete_upload(self, key: UploadKey, upload_id: str) -> bool:
        """Delete the record. Return False if the file has no such upload, or another import has taken it over."""

    def list_uploads(self, plan_id: str) -> dict[UploadKey, FileUpload]:
        """Return the uploads of all files of the plan. Strongly consistent."""

    def list_parts(self, key: UploadKey, upload_id: str) -> list[Part]:
        """Return all parts that are recorded at `key`, by number. Strongly consistent."""
