"""Store the parts of one file in an S3 multipart upload."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from modelhaul.domain.files import Part
from modelhaul.domain.objects import ObjectRange
from modelhaul.ports.multipart_uploads import MultipartUploads
from modelhaul.transfer.window import PartBuffer, PartWindow


@dataclass(slots=True, kw_only=True)
class PartUploader:
    """Stores the parts of the window in the upload `upload_id` of `key`, with `threads` parts at a time.

    `origin`: the S3 object range that contains the file's bytes unchanged, if any. S3 then copies the parts from it.
    """

    uploads: MultipartUploads
    key: str
    upload_id: str
    window: PartWindow
    threads: int
    origin: ObjectRange | None = None
    _pool: ThreadPoolExecutor = field(init=False)

    def __post_init__(self) -> None:
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="upload")

    def upload_received(self, received: PartBuffer) -> None:
        """Hash the received bytes, after bytes of `received` arrived, and start to store the parts that are complete.

        Stored parts are recorded in the window. An error fails the window.
        """
        for part in self.window.hash_received(received):
            self._pool.submit(self._upload, part)

    def close(self) -> None:
        """Wait until the started parts are stored or have failed."""
        self._pool.shutdown(wait=True)

    def _upload(self, buffer: PartBuffer) -> None:
        try:
            part = self._store(buffer)
        except BaseException as error:  # noqa: BLE001 - handed to the waiting thread, which raises it
            self.window.fail(error)
            return
        self.window.record_stored(buffer, part)

    def _store(self, part: PartBuffer) -> Part:
        if self.origin is None:
            body = part.buffer[: part.size]
            return self.uploads.upload_part(self.key, self.upload_id, part.number, body, crc32=part.crc32)
        start = self.origin.start + part.start
        source = replace(self.origin, start=start, end=start + part.size)
        return self.uploads.copy_part(self.key, self.upload_id, part.number, source, crc32=part.crc32)
