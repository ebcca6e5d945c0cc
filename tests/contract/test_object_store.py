import hashlib
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import requests

from modelhaul.adapters.archives import S3ArchiveStore
from modelhaul.adapters.s3 import S3ObjectStore
from modelhaul.adapters.s3_client import create_s3_client
from modelhaul.domain.errors import ArchiveReplacedError, ObjectGoneError, StorageUnavailableError, UploadGoneError
from modelhaul.domain.files import Part
from modelhaul.domain.objects import ObjectRange
from modelhaul.ports.archive_store import ArchiveStore
from tests.contract.backends import BACKENDS, open_client
from tests.fakes.archive_store import InMemoryArchiveStore
from tests.fakes.object_store import Bucket, InMemoryObjectStore

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MIB = 1024 * 1024
PART_SIZE = 5 * MIB


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def client(backend: str) -> "Iterator[S3Client | None]":
    with open_client(backend, create_s3_client) as client:
        yield client


@pytest.fixture
def archives(client: "S3Client | None") -> ArchiveStore:
    bucket = f"incoming-{uuid.uuid4().hex}"
    if client is None:
        return InMemoryArchiveStore(bucket)
    client.create_bucket(Bucket=bucket)
    return S3ArchiveStore(client, bucket)


@pytest.fixture
def store(client: "S3Client | None", archives: ArchiveStore) -> Bucket:
    if client is None:
        assert isinstance(archives, InMemoryArchiveStore)
        return InMemoryObjectStore(archives=archives)
    bucket = f"contract-{uuid.uuid4().hex}"
    client.create_bucket(Bucket=bucket)
    return S3ObjectStore(client, bucket, single_copy_limit=7 * MIB, copy_part_size=PART_SIZE)


def make_bytes(size: int, seed: int = 0) -> bytes:
    block = hashlib.sha256(bytes([seed])).digest()
    return (block * (size // len(block) + 1))[:size]


def put(store: Bucket, key: str, body: bytes) -> str:
    return store.put(key, body, sha256=hashlib.sha256(body).hexdigest())


def upload(store: Bucket, key: str, upload_id: str, number: int, body: bytes) -> Part:
    return store.upload_part(key, upload_id, number, memoryview(body), crc32=zlib.crc32(body))


def read_all(store: Bucket, key: str) -> bytes:
    found = store.find_object(key)
    assert found is not None
    return store.read(key, 0, found[0])


@pytest.mark.parametrize("body", [b"", b"{}", make_bytes(3 * MIB + 1)], ids=len)
def test_put_stores_the_bytes(store: Bucket, body: bytes) -> None:
    etag = put(store, "models/a b/ä+%.json", body)
    assert etag == hashlib.md5(body).hexdigest()
    assert read_all(store, "models/a b/ä+%.json") == body


def test_put_takes_a_part_of_a_buffer(store: Bucket) -> None:
    buffer = bytearray(make_bytes(2 * MIB))
    view = memoryview(buffer)[100 : MIB + 200]
    store.put("key", view, sha256=hashlib.sha256(view).hexdigest())
    buffer[:] = bytes(len(buffer))
    assert read_all(store, "key") == make_bytes(2 * MIB)[100 : MIB + 200]


def test_put_replaces(store: Bucket) -> None:
    put(store, "key", b"first")
    put(store, "key", b"second")
    assert read_all(store, "key") == b"second"


def test_put_refuses_other_bytes(store: Bucket, backend: str) -> None:
    if backend == "moto":
        pytest.skip("moto does not check the checksum")
    with pytest.raises(StorageUnavailableError):
        store.put("key", b"bytes", sha256=hashlib.sha256(b"other bytes").hexdigest())
    assert store.find_object("key") is None


def test_an_upload_becomes_an_object_when_it_is_completed(store: Bucket) -> None:
    bodies = [make_bytes(PART_SIZE, 1), make_bytes(PART_SIZE + 3 * MIB + 7, 2), b"z"]
    upload_id = store.create_upload("staging/t/model.bin")
    parts = [upload(store, "staging/t/model.bin", upload_id, n, body) for n, body in enumerate(bodies, 1)]
    assert parts == [Part(n, hashlib.md5(body).hexdigest(), zlib.crc32(body)) for n, body in enumerate(bodies, 1)]
    assert store.find_object("staging/t/model.bin") is None

    size = sum(map(len, bodies))
    etag = store.complete_upload("staging/t/model.bin", upload_id, parts, size=size)
    digests = b"".join(hashlib.md5(body).digest() for body in bodies)
    assert etag == f"{hashlib.md5(digests).hexdigest()}-3"
    assert store.find_object("staging/t/model.bin") == (size, etag)
    assert read_all(store, "staging/t/model.bin") == b"".join(bodies)
    assert list(store.list_uploads("")) == []


def test_parts_may_arrive_in_any_order_and_twice(store: Bucket) -> None:
    upload_id = store.create_upload("key")
    last = upload(store, "key", upload_id, 2, b"last")
    upload(store, "key", upload_id, 1, make_bytes(PART_SIZE, 1))
    first = upload(store, "key", upload_id, 1, make_bytes(PART_SIZE, 2))
    store.complete_upload("key", upload_id, [first, last], size=PART_SIZE + 4)
    assert read_all(store, "key") == make_bytes(PART_SIZE, 2) + b"last"


def test_a_part_is_taken_from_the_middle_of_a_buffer(store: Bucket) -> None:
    buffer = bytearray(make_bytes(3 * MIB))
    view = memoryview(buffer)[17 : 2 * MIB + 3]
    expected = bytes(view)
    upload_id = store.create_upload("key")
    part = store.upload_part("key", upload_id, 1, view, crc32=zlib.crc32(view))
    buffer[:] = bytes(len(buffer))
    store.complete_upload("key", upload_id, [part], size=len(expected))
    assert read_all(store, "key") == expected


def test_a_part_with_other_bytes_is_refused(store: Bucket, backend: str) -> None:
    if backend == "moto":
        pytest.skip("moto does not check the checksum")
    upload_id = store.create_upload("key")
    with pytest.raises(StorageUnavailableError):
        store.upload_part("key", upload_id, 1, memoryview(b"bytes"), crc32=zlib.crc32(b"other bytes"))


@pytest.mark.parametrize("number", [0, -1, 10_001])
def test_part_numbers_have_bounds(store: Bucket, number: int) -> None:
    upload_id = store.create_upload("key")
    with pytest.raises(ValueError, match="part number"):
        upload(store, "key", upload_id, number, b"x")


def test_an_empty_part_is_refused(store: Bucket) -> None:
    upload_id = store.create_upload("key")
    with pytest.raises(ValueError, match="1 byte"):
        upload(store, "key", upload_id, 1, b"")


@pytest.mark.parametrize("numbers", [[], [2], [1, 3], [2, 1], [1, 1]])
def test_parts_are_counted_from_one_without_a_gap(store: Bucket, numbers: list[int]) -> None:
    upload_id = store.create_upload("key")
    parts = [upload(store, "key", upload_id, number, b"x") for number in numbers]
    with pytest.raises(ValueError, match="parts"):
        store.complete_upload("key", upload_id, parts, size=PART_SIZE * 3)
    assert list(store.list_uploads("")) == [("key", upload_id)]


def test_more_than_10_000_parts_are_refused(store: Bucket) -> None:
    parts = [Part(number, "0" * 32, 0) for number in range(1, 10_002)]
    with pytest.raises(ValueError, match="10,000"):
        store.complete_upload("key", "any", parts, size=10_001 * PART_SIZE)


def test_parts_that_are_too_small_are_refused(store: Bucket) -> None:
    upload_id = store.create_upload("key")
    parts = [upload(store, "key", upload_id, n, b"x" * (PART_SIZE - 1)) for n in (1, 2, 3)]
    with pytest.raises(ValueError, match="part"):
        store.complete_upload("key", upload_id, parts[:2], size=PART_SIZE)


def test_one_small_part_among_large_ones_is_refused(store: Bucket, backend: str) -> None:
    if backend == "endpoint":
        pytest.skip("MiniStack does not check the size of parts")
    upload_id = store.create_upload("key")
    bodies = [make_bytes(PART_SIZE * 2), b"small", make_bytes(PART_SIZE)]
    parts = [upload(store, "key", upload_id, n, body) for n, body in enumerate(bodies, 1)]
    with pytest.raises(ValueError, match="part"):
        store.complete_upload("key", upload_id, parts, size=sum(map(len, bodies)))
    assert store.find_object("key") is None


def test_a_part_that_is_not_the_one_given_is_refused(store: Bucket) -> None:
    upload_id = store.create_upload("key")
    first = upload(store, "key", upload_id, 1, b"first")
    upload(store, "key", upload_id, 1, b"other")
    with pytest.raises(UploadGoneError):
        store.complete_upload("key", upload_id, [first], size=5)
    with pytest.raises(UploadGoneError):
        store.complete_upload("key", upload_id, [Part(1, "0" * 32, 0)], size=5)
    assert store.find_object("key") is None


def test_a_missing_part_is_refused_also_over_an_object_of_that_size(store: Bucket) -> None:
    put(store, "key", b"12345")
    upload_id = store.create_upload("key")
    with pytest.raises(UploadGoneError):
        store.complete_upload("key", upload_id, [Part(1, "0" * 32, 0)], size=5)
    assert read_all(store, "key") == b"12345"


def test_completing_twice_gives_the_same_etag(store: Bucket) -> None:
    upload_id = store.create_upload("key")
    part = upload(store, "key", upload_id, 1, b"bytes")
    first = store.complete_upload("key", upload_id, [part], size=5)
    assert store.complete_upload("key", upload_id, [part], size=5) == first
    assert read_all(store, "key") == b"bytes"


def test_a_gone_upload_is_not_taken_for_an_object_of_another_size(store: Bucket) -> None:
    put(store, "key", b"older object")
    upload_id = store.create_upload("key")
    part = upload(store, "key", upload_id, 1, b"bytes")
    store.abort_upload("key", upload_id)
    with pytest.raises(UploadGoneError):
        store.complete_upload("key", upload_id, [part], size=5)
    with pytest.raises(UploadGoneError):
        upload(store, "key", upload_id, 1, b"bytes")
    assert read_all(store, "key") == b"older object"


def test_an_aborted_upload_is_gone_and_can_be_aborted_again(store: Bucket) -> None:
    upload_id = store.create_upload("key")
    part = upload(store, "key", upload_id, 1, b"bytes")
    store.abort_upload("key", upload_id)
    store.abort_upload("key", upload_id)
    assert list(store.list_uploads("")) == []
    with pytest.raises(UploadGoneError):
        store.complete_upload("key", upload_id, [part], size=5)


def test_uploads_are_listed_by_prefix(store: Bucket) -> None:
    first = ("staging/t1/a", store.create_upload("staging/t1/a"))
    second = ("staging/t1/a", store.create_upload("staging/t1/a"))
    store.create_upload("staging/t10/a")
    assert sorted(store.list_uploads("staging/t1/")) == sorted([first, second])
    assert list(store.list_uploads("staging/t2/")) == []
    assert len(list(store.list_uploads("staging/"))) == 3


@pytest.mark.parametrize("size", [0, 5, 7 * MIB, 7 * MIB + 1, 12 * MIB + 5])
def test_copy_keeps_the_bytes(store: Bucket, size: int) -> None:
    body = make_bytes(size)
    source_etag = put(store, "staging/t/a b+ä%2F.bin", body)
    etag = store.copy("staging/t/a b+ä%2F.bin", "models/x/a b+ä%2F.bin", size=size, etag=source_etag)
    assert read_all(store, "models/x/a b+ä%2F.bin") == body
    assert list(store.list_uploads("")) == []
    # The new ETag is the one that the next copy must name.
    store.copy("models/x/a b+ä%2F.bin", "again", size=size, etag=etag)
    assert read_all(store, "again") == body


def test_an_uploaded_object_can_be_copied(store: Bucket) -> None:
    upload_id = store.create_upload("source")
    part = upload(store, "source", upload_id, 1, b"bytes")
    etag = store.complete_upload("source", upload_id, [part], size=5)
    store.copy("source", "target", size=5, etag=etag)
    assert read_all(store, "target") == b"bytes"


@pytest.mark.parametrize("size", [5, 7 * MIB + 1])
def test_copy_of_a_missing_object_is_refused(store: Bucket, size: int) -> None:
    with pytest.raises(ObjectGoneError):
        store.copy("source", "target", size=size, etag="0" * 32)
    assert store.find_object("target") is None
    assert list(store.list_uploads("")) == []


@pytest.mark.parametrize("size", [5, 7 * MIB + 1])
def test_copy_of_a_changed_object_is_refused(store: Bucket, backend: str, size: int) -> None:
    if backend == "moto":
        pytest.skip("moto does not look at x-amz-copy-source-if-match")
    etag = put(store, "source", make_bytes(size, 1))
    put(store, "source", make_bytes(size, 2))
    with pytest.raises(ObjectGoneError):
        store.copy("source", "target", size=size, etag=etag)
    assert store.find_object("target") is None
    assert list(store.list_uploads("")) == []


ARCHIVE_KEY = "incoming/a b+ä%2F.zip"
ARCHIVE = make_bytes(PART_SIZE + 1001, 1) + make_bytes(2 * MIB, 2)


def test_copied_parts_become_an_object(store: Bucket, archives: ArchiveStore) -> None:
    source_etag = archives.put_archive(ARCHIVE_KEY, ARCHIVE)

    def copy(number: int, start: int, end: int) -> Part:
        source = ObjectRange(archives.bucket, ARCHIVE_KEY, source_etag, start, end)
        return store.copy_part("key", upload_id, number, source, crc32=zlib.crc32(ARCHIVE[start:end]))

    spans = [(7, PART_SIZE + 7), (100, PART_SIZE + 100), (len(ARCHIVE) - 1, len(ARCHIVE))]
    upload_id = store.create_upload("key")
    copied = [copy(n, *span) for n, span in zip((1, 3, 4), spans, strict=True)]
    uploaded = upload(store, "key", upload_id, 2, make_bytes(PART_SIZE, 3))
    assert copied == [
        Part(n, hashlib.md5(ARCHIVE[start:end]).hexdigest(), zlib.crc32(ARCHIVE[start:end]))
        for n, (start, end) in zip((1, 3, 4), spans, strict=True)
    ]
    bodies = [ARCHIVE[slice(*spans[0])], make_bytes(PART_SIZE, 3), *(ARCHIVE[slice(*span)] for span in spans[1:])]
    store.complete_upload("key", upload_id, [copied[0], uploaded, *copied[1:]], size=sum(map(len, bodies)))
    assert read_all(store, "key") == b"".join(bodies)
    assert archives.find_archive(ARCHIVE_KEY) == (len(ARCHIVE), source_etag)


@pytest.mark.parametrize("change", ["overwritten", "deleted"])
def test_a_part_is_copied_only_from_the_very_object(store: Bucket, archives: ArchiveStore, change: str) -> None:
    etag = archives.put_archive(ARCHIVE_KEY, ARCHIVE)
    source = ObjectRange(archives.bucket, ARCHIVE_KEY, etag, 0, PART_SIZE)
    upload_id = store.create_upload("key")
    store.copy_part("key", upload_id, 1, source, crc32=zlib.crc32(ARCHIVE[:PART_SIZE]))
    if change == "deleted":
        archives.delete_archive(ARCHIVE_KEY)
    else:
        archives.put_archive(ARCHIVE_KEY, ARCHIVE[:-1] + b"!")
    with pytest.raises(ArchiveReplacedError):
        store.copy_part("key", upload_id, 2, source, crc32=zlib.crc32(ARCHIVE[:PART_SIZE]))


def test_a_part_is_not_copied_into_a_gone_upload(store: Bucket, archives: ArchiveStore) -> None:
    etag = archives.put_archive(ARCHIVE_KEY, ARCHIVE)
    upload_id = store.create_upload("key")
    store.abort_upload("key", upload_id)
    source = ObjectRange(archives.bucket, ARCHIVE_KEY, etag, 0, PART_SIZE)
    with pytest.raises(UploadGoneError):
        store.copy_part("key", upload_id, 1, source, crc32=zlib.crc32(ARCHIVE[:PART_SIZE]))


def test_a_copied_part_with_other_bytes_is_refused(store: Bucket, archives: ArchiveStore, backend: str) -> None:
    if backend == "moto":
        pytest.skip("moto does not check the checksum")
    etag = archives.put_archive(ARCHIVE_KEY, ARCHIVE)
    source = ObjectRange(archives.bucket, ARCHIVE_KEY, etag, 0, PART_SIZE)
    upload_id = store.create_upload("key")

    def copy_and_complete() -> None:
        part = store.copy_part("key", upload_id, 1, source, crc32=zlib.crc32(ARCHIVE[1 : PART_SIZE + 1]))
        store.complete_upload("key", upload_id, [part], size=PART_SIZE)

    with pytest.raises((StorageUnavailableError, UploadGoneError)):
        copy_and_complete()
    assert store.find_object("key") is None


def test_a_copied_part_is_completed_with_its_own_checksum(store: Bucket, archives: ArchiveStore, backend: str) -> None:
    if backend == "moto":
        pytest.skip("moto does not check the checksum")
    etag = archives.put_archive(ARCHIVE_KEY, ARCHIVE)
    source = ObjectRange(archives.bucket, ARCHIVE_KEY, etag, 0, PART_SIZE)
    upload_id = store.create_upload("key")
    part = store.copy_part("key", upload_id, 1, source, crc32=zlib.crc32(ARCHIVE[:PART_SIZE]))
    with pytest.raises(UploadGoneError):
        store.complete_upload("key", upload_id, [replace(part, crc32=part.crc32 ^ 1)], size=PART_SIZE)
    store.complete_upload("key", upload_id, [part], size=PART_SIZE)
    assert read_all(store, "key") == ARCHIVE[:PART_SIZE]


@pytest.mark.parametrize(("number", "end"), [(0, 9), (10_001, 9), (1, 0)])
def test_copied_parts_have_bounds(store: Bucket, archives: ArchiveStore, number: int, end: int) -> None:
    etag = archives.put_archive(ARCHIVE_KEY, ARCHIVE)
    upload_id = store.create_upload("key")
    with pytest.raises(ValueError, match="part"):
        store.copy_part("key", upload_id, number, ObjectRange(archives.bucket, ARCHIVE_KEY, etag, 0, end), crc32=0)


def test_read_gives_a_range(store: Bucket) -> None:
    put(store, "key", b"0123456789")
    assert store.read("key", 0, 1) == b"0"
    assert store.read("key", 3, 7) == b"3456"
    assert store.read("key", 8, 100) == b"89"
    assert store.read("key", 10, 12) == b""
    assert store.read("key", 4, 4) == b""


def test_read_of_a_replaced_object_is_refused(store: Bucket) -> None:
    etag = put(store, "key", b"old")
    assert store.read("key", 0, 3, etag=etag) == b"old"
    put(store, "key", b"new")
    with pytest.raises(ObjectGoneError):
        store.read("key", 0, 3, etag=etag)


@pytest.mark.parametrize("end", [0, 1])
def test_read_of_a_missing_object_is_refused(store: Bucket, end: int) -> None:
    with pytest.raises(ObjectGoneError):
        store.read("missing", 0, end)


def test_an_object_is_found_with_size_and_etag(store: Bucket) -> None:
    etag = put(store, "key", b"bytes")
    assert store.find_object("key") == (5, etag)
    assert store.find_object("missing") is None


def test_delete_takes_any_number_of_keys_and_missing_ones(store: Bucket) -> None:
    put(store, "first", b"1")
    put(store, "a & <b>", b"2")
    put(store, "kept", b"3")
    store.delete(iter(["first", *(f"missing/{n}" for n in range(1500)), "a & <b>"]))
    assert store.find_object("first") is None
    assert store.find_object("a & <b>") is None
    assert read_all(store, "kept") == b"3"
    store.delete([])


def test_a_signed_address_gives_the_object_to_anybody(store: Bucket, backend: str) -> None:
    key = "models/a/ü é/100%+&?#=.json"
    put(store, key, b"0123456789")
    url = store.sign_read(key, seconds=60)
    assert url.isascii()
    if backend == "fake":
        assert unquote(urlsplit(url).path) == "/" + key.partition("/")[2]
        return
    answer = requests.get(url, headers={"Range": "bytes=2-4"}, timeout=30)
    assert (answer.status_code, answer.content) == (206, b"234")
    assert {"X-Amz-Signature", "X-Amz-Expires"} <= parse_qs(urlsplit(url).query).keys()
    assert requests.get(store.sign_read("models/missing", seconds=60), timeout=30).status_code == 404
    named = requests.get(store.sign_read(key, seconds=60, file_name='ü "é"; 100%.json'), timeout=30)
    assert named.content == b"0123456789"
    disposition = "attachment; filename*=UTF-8''%C3%BC%20%22%C3%A9%22%3B%20100%25.json"
    assert named.headers["Content-Disposition"] == disposition
