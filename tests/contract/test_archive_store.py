import hashlib
import json
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit
from xml.etree.ElementTree import fromstring

import pytest
import requests

from modelhaul.adapters.archives import S3ArchiveStore
from modelhaul.adapters.s3_client import create_s3_client
from modelhaul.domain.archives import Archive, UploadTicket
from modelhaul.domain.errors import ArchiveReplacedError, SourceUnavailableError, TransientError
from modelhaul.ports.archive_store import ArchiveStore
from modelhaul.ports.byte_streams import ByteStream
from tests.contract.backends import BACKENDS, open_client
from tests.fakes.archive_store import InMemoryArchiveStore
from tests.fakes.clock import ManualClock

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MIB = 1024 * 1024
GIB = 1024 * MIB
CREATED = datetime(2026, 11, 23, 12, tzinfo=UTC)
BODY = hashlib.sha256(b"seed").digest() * (3 * MIB // 32) + b"the end"
KEYS = [
    "incoming/model.zip",
    "incoming/a folder/my model (1).zip",
    "incoming/a+b & c=d;e,f.zip",
    "incoming/模型/ä́ß.ZIP",
    "incoming/100%/%41%2F%.zip",
    "incoming/what?x=1#y'\"<z>*~!$@:|^`{}[].zip",
    "incoming/a//b.zip",
]
keys = pytest.mark.parametrize("key", KEYS)


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def client(backend: str) -> "Iterator[S3Client | None]":
    with open_client(backend, create_s3_client) as client:
        yield client


@pytest.fixture
def bucket(client: "S3Client | None") -> str:
    bucket = f"incoming-{uuid.uuid4().hex}"
    if client is not None:
        client.create_bucket(Bucket=bucket)
    return bucket


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(client: "S3Client | None", bucket: str, clock: ManualClock) -> ArchiveStore:
    if client is None:
        return InMemoryArchiveStore(bucket, clock=clock)
    return S3ArchiveStore(client, bucket, clock=clock)


@pytest.fixture
def remote(client: "S3Client | None", bucket: str) -> S3ArchiveStore:
    """One to which addresses lead, and which asks for parts above 5 MiB."""
    if client is None:
        pytest.skip("nothing listens at the fake's addresses")
    return S3ArchiveStore(client, bucket, parts_above=5 * MIB, min_part_size=5 * MIB)


def read_on(stream: ByteStream, size: int = 1 << 30, step: int = 64 * 1024) -> bytes:
    received = bytearray()
    buffer = memoryview(bytearray(step))
    while len(received) < size and (count := stream.readinto(buffer[: size - len(received)])):
        received += buffer[:count]
    return bytes(received)


def read_outcome(store: ArchiveStore, client: "S3Client | None", key: str) -> Any:
    if isinstance(store, InMemoryArchiveStore):
        return store.outcomes[f"outcomes/{key}.json"]
    assert client is not None
    answer = client.get_object(Bucket=store.bucket, Key=f"outcomes/{key}.json")
    assert answer["ContentType"] == "application/json"
    with closing(answer["Body"]) as body:
        return json.load(body)


def list_uploads(store: ArchiveStore, client: "S3Client | None") -> list[tuple[str, str]]:
    if isinstance(store, InMemoryArchiveStore):
        return store.uploads
    assert client is not None
    answer = client.list_multipart_uploads(Bucket=store.bucket)
    return sorted((upload["Key"], upload["UploadId"]) for upload in answer.get("Uploads", []))


@keys
def test_an_archive_is_found_and_read(store: ArchiveStore, key: str) -> None:
    assert store.find_archive(key) is None
    etag = store.put_archive(key, BODY)
    assert etag == hashlib.md5(BODY).hexdigest()
    assert store.find_archive(key) == (len(BODY), etag)
    with store.open_range(key, 0, len(BODY), etag=etag) as stream:
        assert read_on(stream) == BODY


@pytest.mark.parametrize(
    ("start", "end"), [(0, 1), (0, 100_000), (5, 6), (12_345, 2 * MIB + 1), (len(BODY) - 22, len(BODY))]
)
def test_a_range_is_exactly_what_was_asked_for(store: ArchiveStore, start: int, end: int) -> None:
    etag = store.put_archive("key", BODY)
    with store.open_range("key", start, end, etag=etag) as stream:
        assert (stream.offset, stream.etag, stream.ranged) == (start, etag, True)
        assert read_on(stream, step=70_001) == BODY[start:end]
        assert stream.readinto(memoryview(bytearray(10))) == 0


def test_a_large_buffer_takes_all_there_is(store: ArchiveStore) -> None:
    etag = store.put_archive("key", BODY)
    with store.open_range("key", 0, len(BODY), etag=etag) as stream:
        assert read_on(stream, step=2 * len(BODY)) == BODY


def test_many_ranges_are_open_at_once(store: ArchiveStore) -> None:
    etag = store.put_archive("key", BODY)
    streams = [store.open_range("key", start, len(BODY), etag=etag) for start in range(40)]
    for start, stream in enumerate(streams):
        assert read_on(stream, 1000) == BODY[start : start + 1000]
        stream.close()


@pytest.mark.parametrize("end", [len(BODY) + 1, len(BODY) + 10 * MIB])
@pytest.mark.parametrize("start", [0, len(BODY)])
def test_a_range_beyond_the_end_is_an_error(store: ArchiveStore, start: int, end: int) -> None:
    etag = store.put_archive("key", BODY)
    with pytest.raises(TransientError):
        store.open_range("key", start, end, etag=etag)


@pytest.mark.parametrize("etag", ["0" * 32, "", f"{'0' * 32}-7"])
def test_another_archive_is_not_read(store: ArchiveStore, etag: str) -> None:
    store.put_archive("key", BODY)
    with pytest.raises(ArchiveReplacedError):
        store.open_range("key", 0, 1, etag=etag)


def test_an_overwritten_archive_is_not_read(store: ArchiveStore) -> None:
    etag = store.put_archive("key", BODY)
    later = store.put_archive("key", BODY[::-1])
    with pytest.raises(ArchiveReplacedError):
        store.open_range("key", 0, 10, etag=etag)
    with store.open_range("key", 0, 10, etag=later) as stream:
        assert read_on(stream) == BODY[::-1][:10]


def test_a_deleted_archive_is_not_read(store: ArchiveStore) -> None:
    etag = store.put_archive("key", BODY)
    store.delete_archive("key")
    store.delete_archive("key")
    assert store.find_archive("key") is None
    with pytest.raises(ArchiveReplacedError):
        store.open_range("key", 0, 10, etag=etag)


def test_a_closed_stream_gives_nothing_more(store: ArchiveStore) -> None:
    etag = store.put_archive("key", BODY)
    stream = store.open_range("key", 0, len(BODY), etag=etag)
    assert read_on(stream, 10) == BODY[:10]
    stream.close()
    stream.close()
    with pytest.raises(SourceUnavailableError):
        stream.readinto(memoryview(bytearray(10)))


def test_delete_takes_that_archive_only(store: ArchiveStore) -> None:
    for key in ("a.zip", "a.zip/b.zip"):
        store.put_archive(key, b"x")
    store.delete_archive("a.zip")
    assert store.find_archive("a.zip") is None
    assert store.find_archive("a.zip/b.zip") is not None


@pytest.mark.parametrize(
    ("size", "single_put"), [(0, False), (1, False), (64_000_000, False), (64_000_001, True), (5 * GIB, True)]
)
def test_small_and_requested_uploads_are_one_put(
    store: ArchiveStore, client: "S3Client | None", clock: ManualClock, size: int, single_put: bool
) -> None:
    ticket = store.open_upload("uploads/1.zip", size, seconds=3600, single_put=single_put)
    assert ticket.put_url
    assert (ticket.parts, ticket.complete_url, ticket.abort_url, ticket.upload_id) == ((), None, None, None)
    assert ticket.expires_at == datetime.fromtimestamp(clock.now, UTC) + timedelta(hours=1)
    assert list_uploads(store, client) == []
    assert store.find_archive("uploads/1.zip") is None


@pytest.mark.parametrize(
    ("size", "count", "part_size"),
    [
        (64_000_001, 4, 16 * MIB),
        (5 * GIB, 320, 16 * MIB),
        (1000 * 16 * MIB, 1000, 16 * MIB),
        (1000 * 16 * MIB + 1, 942, 17 * MIB),
        (1000 * 5 * GIB, 1000, 5 * GIB),
    ],
    ids=str,
)
def test_more_than_64_mb_are_parts(
    store: ArchiveStore, client: "S3Client | None", clock: ManualClock, size: int, count: int, part_size: int
) -> None:
    ticket = store.open_upload("uploads/1.zip", size, seconds=3600)
    assert ticket.put_url is None
    assert ticket.expires_at == datetime.fromtimestamp(clock.now, UTC) + timedelta(hours=1)
    assert [part.number for part in ticket.parts] == list(range(1, count + 1))
    assert [part.start for part in ticket.parts] == list(range(0, size, part_size))
    assert [part.end for part in ticket.parts] == [*(part.start for part in ticket.parts[1:]), size]
    assert len({part.url for part in ticket.parts}) == count
    assert ticket.complete_url
    assert ticket.abort_url
    assert list_uploads(store, client) == [("uploads/1.zip", ticket.upload_id)]


def test_more_than_5_gib_are_no_single_put(store: ArchiveStore) -> None:
    with pytest.raises(ValueError, match="one PUT"):
        store.open_upload("uploads/1.zip", 5 * GIB + 1, seconds=3600, single_put=True)


def test_more_than_1_000_parts_are_refused(store: ArchiveStore, client: "S3Client | None") -> None:
    with pytest.raises(ValueError, match="1,000 parts"):
        store.open_upload("uploads/1.zip", 1000 * 5 * GIB + 1, seconds=3600)
    assert list_uploads(store, client) == []


@keys
def test_a_put_of_the_announced_size_is_taken(remote: S3ArchiveStore, key: str) -> None:
    ticket = remote.open_upload(key, 1000, seconds=60)
    assert ticket.put_url
    answer = requests.put(ticket.put_url, data=BODY[:1000], timeout=10)
    assert answer.status_code == 200, answer.text
    assert remote.find_archive(key) == (1000, hashlib.md5(BODY[:1000]).hexdigest())
    # A second time is an overwriting, which S3 allows.
    assert requests.put(ticket.put_url, data=BODY[1000:2000], timeout=10).status_code == 200


@pytest.mark.parametrize("sent", [0, 999, 1001])
def test_a_put_of_another_size_is_refused(remote: S3ArchiveStore, backend: str, sent: int) -> None:
    if backend == "moto":
        pytest.skip("moto does not check signatures")
    ticket = remote.open_upload("uploads/1.zip", 1000, seconds=60)
    assert ticket.put_url
    answer = requests.put(ticket.put_url, data=BODY[:sent], timeout=10)
    assert answer.status_code == 403
    assert fromstring(answer.content).findtext("Code") == "SignatureDoesNotMatch"
    assert remote.find_archive("uploads/1.zip") is None


def test_an_address_is_good_for_its_key_only(remote: S3ArchiveStore, backend: str) -> None:
    if backend == "moto":
        pytest.skip("moto does not check signatures")
    ticket = remote.open_upload("uploads/1.zip", 4, seconds=60)
    assert ticket.put_url
    answer = requests.put(ticket.put_url.replace("/1.zip", "/2.zip"), data=b"1234", timeout=10)
    assert answer.status_code == 403
    assert remote.find_archive("uploads/2.zip") is None


@keys
def test_parts_are_taken_and_completed(remote: S3ArchiveStore, client: "S3Client | None", key: str) -> None:
    body = BODY * 2
    ticket = remote.open_upload(key, len(body), seconds=60)
    assert [(part.start, part.end) for part in ticket.parts] == [(0, 5 * MIB), (5 * MIB, len(body))]
    etags: list[tuple[int, str]] = []
    for part in reversed(ticket.parts):
        answer = requests.put(part.url, data=body[part.start : part.end], timeout=10)
        assert answer.status_code == 200, answer.text
        etags.insert(0, (part.number, answer.headers["ETag"]))
    assert ticket.complete_url
    document = "".join(f"<Part><PartNumber>{n}</PartNumber><ETag>{etag}</ETag></Part>" for n, etag in etags)
    document = f"<CompleteMultipartUpload>{document}</CompleteMultipartUpload>"
    answer = requests.post(ticket.complete_url, data=document, timeout=10)
    assert answer.status_code == 200, answer.text
    found = remote.find_archive(key)
    assert found is not None
    assert found[0] == len(body)
    assert found[1].endswith("-2")
    with remote.open_range(key, 0, len(body), etag=found[1]) as stream:
        assert read_on(stream) == body
    assert list_uploads(remote, client) == []


def to_archive(key: str, size: int, ticket: UploadTicket) -> Archive:
    """As the task of the upload has it."""
    return Archive(key, "a.zip", None, size, upload_id=ticket.upload_id, part_size=ticket.part_size)


@pytest.mark.parametrize("size", [1000, 64_000_001, 1000 * 16 * MIB + 1], ids=str)
def test_an_upload_is_signed_again_as_it_was(store: ArchiveStore, clock: ManualClock, size: int) -> None:
    opened = store.open_upload("uploads/1.zip", size, seconds=3600)
    clock.now += 7200
    renewed = store.renew_upload(to_archive("uploads/1.zip", size, opened), seconds=60)
    assert renewed.expires_at == datetime.fromtimestamp(clock.now, UTC) + timedelta(minutes=1)
    assert [(p.number, p.start, p.end) for p in renewed.parts] == [(p.number, p.start, p.end) for p in opened.parts]
    assert (renewed.upload_id, renewed.part_size) == (opened.upload_id, opened.part_size)
    assert (renewed.put_url is None) == (opened.put_url is None)
    assert (renewed.complete_url is None) == (opened.complete_url is None)


def test_only_the_parts_that_are_missing_are_signed_again(store: ArchiveStore) -> None:
    opened = store.open_upload("uploads/1.zip", 100 * MIB, seconds=3600)
    archive = to_archive("uploads/1.zip", 100 * MIB, opened)
    assert [p.number for p in store.renew_upload(archive, seconds=60, parts=[7, 2, 2]).parts] == [2, 7]
    assert store.renew_upload(archive, seconds=60, parts=[]).parts == ()
    for number in (0, 8):
        with pytest.raises(ValueError, match="no"):
            store.renew_upload(archive, seconds=60, parts=[1, number])
    with pytest.raises(ValueError, match="no"):
        store.renew_upload(Archive("uploads/2.zip", "a.zip", None, 5), seconds=60, parts=[2])


@keys
def test_an_upload_whose_urls_expired_goes_on_with_new_ones(remote: S3ArchiveStore, backend: str, key: str) -> None:
    if backend == "moto":
        pytest.skip("moto does not check signatures")
    body = BODY * 2
    opened = remote.open_upload(key, len(body), seconds=1)
    first, second = opened.parts
    etags = {}
    answer = requests.put(first.url, data=body[first.start : first.end], timeout=10)
    deadline = time.monotonic() + 60
    while requests.put(second.url, data=body[second.start : second.end], timeout=10).status_code != 403:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    # The first part may have been too late as well.
    missing = [p.number for p in opened.parts if p.number != 1 or answer.status_code != 200]
    if answer.status_code == 200:
        etags[1] = answer.headers["ETag"]
    renewed = remote.renew_upload(to_archive(key, len(body), opened), seconds=60, parts=missing)
    for part in renewed.parts:
        sent = requests.put(part.url, data=body[part.start : part.end], timeout=10)
        assert sent.status_code == 200, sent.text
        etags[part.number] = sent.headers["ETag"]
    document = "".join(f"<Part><PartNumber>{n}</PartNumber><ETag>{e}</ETag></Part>" for n, e in sorted(etags.items()))
    assert opened.complete_url
    assert renewed.complete_url
    document = f"<CompleteMultipartUpload>{document}</CompleteMultipartUpload>"
    assert requests.post(opened.complete_url, data=document, timeout=10).status_code == 403
    assert requests.post(renewed.complete_url, data=document, timeout=10).status_code == 200
    found = remote.find_archive(key)
    assert found is not None
    assert found[0] == len(body)


@pytest.mark.parametrize("sent", [5 * MIB - 1, 5 * MIB + 1])
def test_a_part_of_another_size_is_refused(remote: S3ArchiveStore, backend: str, sent: int) -> None:
    if backend == "moto":
        pytest.skip("moto does not check signatures")
    ticket = remote.open_upload("uploads/1.zip", 9 * MIB, seconds=60)
    assert requests.put(ticket.parts[0].url, data=bytes(sent), timeout=10).status_code == 403


def test_the_uploader_can_abort(remote: S3ArchiveStore, client: "S3Client | None") -> None:
    ticket = remote.open_upload("uploads/1.zip", 9 * MIB, seconds=60)
    assert ticket.abort_url
    assert requests.delete(ticket.abort_url, timeout=10).status_code == 204
    assert list_uploads(remote, client) == []


@pytest.mark.parametrize(
    ("region", "endpoint"),
    [
        ("us-east-1", "s3.amazonaws.com"),
        ("eu-central-1", "s3.eu-central-1.amazonaws.com"),
        ("cn-north-1", "s3.cn-north-1.amazonaws.com.cn"),
    ],
)
def test_every_region_signs_the_length_at_its_own_endpoint(
    monkeypatch: pytest.MonkeyPatch, region: str, endpoint: str
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with closing(create_s3_client(region)) as client:
        ticket = S3ArchiveStore(client, "a-bucket").open_upload("uploads/1.zip", 1000, seconds=43_200.9)
    assert ticket.put_url
    address = urlsplit(ticket.put_url)
    query = parse_qs(address.query)
    assert address.netloc == f"a-bucket.{endpoint}"
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
    assert query["X-Amz-SignedHeaders"] == ["content-length;host"]
    assert query["X-Amz-Expires"] == ["43200"]
    assert not [name for name in query if "checksum" in name.lower()]


def test_abort_uploads_ends_those_of_exactly_this_key(store: ArchiveStore, client: "S3Client | None") -> None:
    kept = []
    for key in ("uploads/1.zip", "uploads/1.zip", "uploads/1.zip.zip", "uploads/1.zi", "x/uploads/1.zip"):
        ticket = store.open_upload(key, 5 * GIB + 1, seconds=60)
        if key != "uploads/1.zip":
            kept.append((key, ticket.upload_id))
    store.abort_uploads("uploads/1.zip")
    assert list_uploads(store, client) == sorted(kept)
    store.abort_uploads("uploads/1.zip")
    store.abort_uploads("nothing")


@keys
def test_an_outcome_lies_beside_its_archive(store: ArchiveStore, client: "S3Client | None", key: str) -> None:
    outcome = {"id": "1", "created_at": "2026-11-23T12:00:00Z", "models": [{"name": "模型", "lacks": []}], "n": None}
    store.write_outcome(key, outcome, created_at=CREATED)
    assert read_outcome(store, client, key) == outcome


def test_the_outcome_of_the_later_task_stays(store: ArchiveStore, client: "S3Client | None") -> None:
    def write(after: float, status: str) -> None:
        created_at = CREATED + timedelta(seconds=after)
        store.write_outcome("incoming/a.zip", {"task_status": status}, created_at=created_at)

    def read() -> Any:
        return read_outcome(store, client, "incoming/a.zip")["task_status"]

    write(0, "PENDING")
    write(0, "DONE")
    assert read() == "DONE"
    write(-1e-6, "FAILED")
    assert read() == "DONE"
    write(1e-6, "PENDING")
    assert read() == "PENDING"
    write(0, "DONE")
    assert read() == "PENDING"
    write(1, "DONE")
    assert read() == "DONE"


def test_a_late_beginning_does_not_replace_the_end_of_the_same_task(
    store: ArchiveStore, client: "S3Client | None"
) -> None:
    ended = {"created_at": "2026-11-23T12:00:00Z", "task_status": "DONE"}
    for outcome in ({**ended, "task_status": "PENDING"}, ended, {**ended, "task_status": "PENDING"}):
        store.write_outcome("incoming/a.zip", outcome, created_at=CREATED)
    assert read_outcome(store, client, "incoming/a.zip") == ended


def test_simultaneous_outcomes_leave_the_latest(store: ArchiveStore, client: "S3Client | None", backend: str) -> None:
    if backend == "moto":
        pytest.skip("moto's conditional writes are not atomic")
    writers = 4
    for turn in range(5):
        key = f"incoming/{turn}.zip"
        together = threading.Barrier(writers)

        def write(second: int, key: str = key, together: threading.Barrier = together) -> None:
            together.wait()
            store.write_outcome(key, {"second": second}, created_at=CREATED + timedelta(seconds=second))

        with ThreadPoolExecutor(writers) as pool:
            for done in [pool.submit(write, second) for second in range(writers)]:
                done.result()
        assert read_outcome(store, client, key) == {"second": 3}


@pytest.mark.parametrize("letter", ["a", "ä"])
def test_a_key_that_is_too_long_has_no_outcome(
    store: ArchiveStore, client: "S3Client | None", caplog: pytest.LogCaptureFixture, letter: str
) -> None:
    longest = "incoming/" + letter * ((1010 - 9) // len(letter.encode()))
    longest += "x" * (1010 - len(longest.encode()))
    outcome = {"created_at": "2026-11-23T12:00:00Z"}
    store.write_outcome(longest, outcome, created_at=CREATED)
    assert read_outcome(store, client, longest) == outcome
    assert not caplog.records
    store.write_outcome(longest + "x", outcome, created_at=CREATED)
    if client is None:
        assert isinstance(store, InMemoryArchiveStore)
        assert len(store.outcomes) == 1
    else:
        assert client.list_objects_v2(Bucket=store.bucket)["KeyCount"] == 1
        assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_the_fake_tells_what_it_holds() -> None:
    store = InMemoryArchiveStore()
    for key in ("b", "a"):
        store.put_archive(key, b"x")
    assert store.keys == ["a", "b"]
