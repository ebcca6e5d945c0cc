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
        `parts` are consecutive, and none of them was recorded before.
        """

    def delete_upload(self, key: UploadKey, upload_id: str) -> None:
        """Delete the record. No-op if the file has another upload, or none."""

    def list_parts(self, key: UploadKey, upload_id: str) -> list[Part]:
        """Return all recorded parts by number. Strongly consistent."""
