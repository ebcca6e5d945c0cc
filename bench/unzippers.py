"""Methods to extract an archive from one bucket to another, or to list its files, each in a separate process.

python -m bench.unzippers unzip|list NAME BYTES, where BYTES is the size of the archive. The environment has the S3
endpoint.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from importlib import import_module
from types import SimpleNamespace
from typing import IO, TYPE_CHECKING, Any
from zipfile import ZipFile

import boto3
from botocore.config import Config

from bench.archive_store import BUCKET, ETAG, KEY
from bench.extraction import extract
from bench.usage import measure

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_TARGET = "models"
_CHUNK = 1024 * 1024


def open_s3() -> "S3Client":
    """Create a client as documented by the libraries, except for path-style addressing."""
    return boto3.client("s3", config=Config(s3={"addressing_style": "path"}))


def prepare_import(size: int) -> Callable[[], None]:
    """Prepare the steps of the pipeline that read the archive: acceptance, planning and transfer, with verification.
    Queue and records are in memory. Publication is omitted, because it does not read the archive.
    """
    from modelhaul.adapters.archives import S3ArchiveStore  # noqa: PLC0415 - not loaded by the other methods
    from modelhaul.adapters.s3 import S3ObjectStore  # noqa: PLC0415
    from modelhaul.adapters.s3_client import create_s3_client  # noqa: PLC0415
    from modelhaul.domain.messages import AcceptArchive, PublishModels  # noqa: PLC0415
    from modelhaul.transfer.settings import StreamSettings  # noqa: PLC0415
    from tests.fakes.deployment import Deployment  # noqa: PLC0415

    deployment = Deployment()
    client = create_s3_client(os.environ["AWS_DEFAULT_REGION"])
    deployment.archives = S3ArchiveStore(client, BUCKET)  # type: ignore[assignment]
    store = S3ObjectStore(client, _TARGET)
    deployment.connect(deployment.database, store, deployment.queue, StreamSettings())

    def run() -> None:
        task_id = deployment.arrivals.record_arrival(KEY, size=size, etag=ETAG, event_id="1")
        assert task_id is not None
        deployment.queue.send([AcceptArchive(task_id=task_id)])
        while messages := deployment.receive():
            for message in messages:
                if isinstance(message, PublishModels):
                    return
                deployment.deliver(message)
        raise AssertionError(f"the import did not end: {deployment.find_task(task_id)}")

    return run


def prepare_smart_open(size: int) -> Callable[[], None]:
    return _prepare_zipfile(_create_smart_open_opener(), lambda content: content)


def prepare_smart_open_without_seeking(size: int) -> Callable[[], None]:
    """Hides `seek`: boto3 seeks to determine the size of a file, which decompresses the entry a second time."""
    return _prepare_zipfile(_create_smart_open_opener(), _hide_seek)


def prepare_remotezip(size: int) -> Callable[[], None]:
    """Hides `seek`, because remotezip cannot seek backwards in an entry."""
    s3, remotezip = open_s3(), import_module("remotezip")

    def open_archive() -> Any:
        return remotezip.RemoteZip(s3.generate_presigned_url("get_object", {"Bucket": BUCKET, "Key": KEY}))

    return _prepare_zipfile(open_archive, _hide_seek)


def prepare_stream_unzip(size: int) -> Callable[[], None]:
    s3, stream_unzip = open_s3(), import_module("stream_unzip")

    def run() -> None:
        body = s3.get_object(Bucket=BUCKET, Key=KEY)["Body"]
        for name, _, chunks in stream_unzip.stream_unzip(body.iter_chunks(_CHUNK), chunk_size=_CHUNK):
            s3.upload_fileobj(_ChunkReader(chunks), _TARGET, name.decode())  # type: ignore[arg-type]

    return run


def _create_smart_open_opener() -> Callable[[], ZipFile]:
    s3, smart_open = open_s3(), import_module("smart_open")
    return lambda: ZipFile(smart_open.open(f"s3://{BUCKET}/{KEY}", "rb", transport_params={"client": s3}))


def _hide_seek(content: IO[bytes]) -> Any:
    return SimpleNamespace(read=content.read)


def _prepare_zipfile(open_archive: Callable[[], ZipFile], wrap: Callable[[IO[bytes]], Any]) -> Callable[[], None]:
    s3 = open_s3()

    def run() -> None:
        with open_archive() as archive:
            for entry in archive.infolist():
                with archive.open(entry) as content:
                    s3.upload_fileobj(wrap(content), _TARGET, entry.filename)

    return run


class _ChunkReader:
    """A file object for boto3 that reads from chunks."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._buffer = bytearray()

    def read(self, size: int = -1) -> bytes:
        while size < 0 or len(self._buffer) < size:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            self._buffer += chunk
        count = len(self._buffer) if size < 0 else size
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data


def prepare_disk(size: int) -> Callable[[], None]:
    return lambda: extract(BUCKET, KEY, _TARGET)


UNZIPPERS: dict[str, Callable[[int], Callable[[], None]]] = {
    "Modelhaul": prepare_import,
    "smart_open + zipfile": prepare_smart_open,
    "the same, without seeking": prepare_smart_open_without_seeking,
    "remotezip": prepare_remotezip,
    "stream-unzip": prepare_stream_unzip,
    "download, extract, upload": prepare_disk,
}


def prepare_listing(size: int) -> Callable[[], None]:
    from modelhaul.adapters.archives import S3ArchiveStore  # noqa: PLC0415 - not loaded by the other methods
    from modelhaul.adapters.s3_client import create_s3_client  # noqa: PLC0415
    from modelhaul.archives.reader import ArchiveReader  # noqa: PLC0415
    from tests.fakes.deployment import RULES  # noqa: PLC0415

    store = S3ArchiveStore(create_s3_client(os.environ["AWS_DEFAULT_REGION"]), BUCKET)
    reader = ArchiveReader(lambda start, end: store.open_range(KEY, start, end, etag=ETAG), size, RULES.limits)
    return lambda: _check_listed(reader.entries)


def prepare_smart_open_listing(size: int) -> Callable[[], None]:
    open_archive = _create_smart_open_opener()
    return lambda: _check_listed(open_archive().infolist())


def prepare_remotezip_listing(size: int) -> Callable[[], None]:
    s3, remotezip = open_s3(), import_module("remotezip")
    url = s3.generate_presigned_url("get_object", {"Bucket": BUCKET, "Key": KEY})
    return lambda: _check_listed(remotezip.RemoteZip(url).infolist())


def _check_listed(entries: Sequence[object]) -> None:
    assert entries


LISTERS: dict[str, Callable[[int], Callable[[], None]]] = {
    "Modelhaul": prepare_listing,
    "smart_open + zipfile": prepare_smart_open_listing,
    "remotezip": prepare_remotezip_listing,
}


if __name__ == "__main__":
    ways = {"unzip": UNZIPPERS, "list": LISTERS}[sys.argv[1]]
    print(json.dumps(asdict(measure(ways[sys.argv[2]](int(sys.argv[3]))))))
