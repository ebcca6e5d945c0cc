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

    def upload_received(self, part: PartBuffer) -> None:
        """Check and hash the received bytes, after bytes of the part arrived, and start to store it if it is full.

        Stored parts are recorded in the window. An error fails the window.
        """
        part.check_received()
        if part.is_full:
            self._pool.submit(self._upload, part)
        self.window.hash_received()

    def close(self) -> None:
        """Wait until the started parts are stored or have failed."""
        self._pool.shutdown(wait=True)

    def _upload(self, buffer: PartBuffer) -> None:
        try:
            self.window.record_stored(buffer, self._store(buffer))
        except BaseException as error:  # noqa: BLE001 - handed to the waiting thread, which raises it
            self.window.fail(error)

    def _store(self, part: PartBuffer) -> Part:
        if self.origin is None:
            body = part.buffer[: part.size]
            return self.uploads.upload_part(self.key, self.upload_id, part.number, body, crc32=part.crc32)
        start = self.origin.start + part.start
        source = replace(self.origin, start=start, end=start + part.size)
        return self.uploads.copy_part(self.key, self.upload_id, part.number, source, crc32=part.crc32)
