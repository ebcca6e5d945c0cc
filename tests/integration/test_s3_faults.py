"""S3 fails, or does what it was told and its reply is lost: what the adapter makes of it."""

import base64
import hashlib
import re
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, cast

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse

from modelhaul.adapters.s3 import S3ObjectStore
from modelhaul.adapters.s3_client import create_s3_client
from modelhaul.domain.errors import (
    ArchiveReplacedError,
    ModelhaulError,
    ObjectGoneError,
    StorageUnavailableError,
    UploadGoneError,
)
from modelhaul.domain.files import Part
from modelhaul.domain.objects import ObjectRange
from tests.contract.backends import REGION
from tests.integration.s3_faults import (
    LATE_ERROR,
    NO_SUCH_UPLOAD,
    SLOW_DOWN,
    Fault,
    Faults,
    act,
    answer,
    create_error_response,
    lose_reply,
    open_moto_without_delays,
    recoverable,
    recoverable_with_body,
    refuse_connection,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MIB = 1024 * 1024
PART_SIZE = 5 * MIB
BODY = hashlib.sha256(b"seed").digest() * (2 * MIB // 32)


@pytest.fixture(scope="module")
def client() -> "Iterator[S3Client]":
    with open_moto_without_delays(), closing(create_s3_client(REGION)) as client:
        yield client


@pytest.fixture
def faults(client: "S3Client") -> Iterator[Faults]:
    faults = Faults(client)
    yield faults
    faults.remove()


@pytest.fixture
def store(client: "S3Client", request: pytest.FixtureRequest) -> S3ObjectStore:
    bucket = f"faults-{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:40]}"
    client.create_bucket(Bucket=bucket)
    return S3ObjectStore(client, bucket, single_copy_limit=7 * MIB, copy_part_size=PART_SIZE)


@pytest.fixture
def source(client: "S3Client", request: pytest.FixtureRequest) -> ObjectRange:
    """A range of an object in another bucket; it is `BODY`."""
    bucket = f"incoming-{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:40]}"
    client.create_bucket(Bucket=bucket)
    etag = client.put_object(Bucket=bucket, Key="incoming/a b.zip", Body=b"before" + BODY + b"after")["ETag"]
    return ObjectRange(bucket, "incoming/a b.zip", etag.strip('"'), 6, 6 + len(BODY))


def put(store: S3ObjectStore, key: str, body: bytes) -> str:
    return store.put(key, body, sha256=hashlib.sha256(body).hexdigest())


def upload(store: S3ObjectStore, upload_id: str, number: int, body: bytes) -> Part:
    return store.upload_part("key", upload_id, number, memoryview(body), crc32=zlib.crc32(body))


@recoverable_with_body
def test_put_is_repeated(store: S3ObjectStore, faults: Faults, fault: Fault) -> None:
    waiting = faults.add("PutObject", fault, fault)
    etag = put(store, "key", BODY)
    assert not waiting
    assert etag == hashlib.md5(BODY).hexdigest()
    assert store.read("key", 0, len(BODY)) == BODY


@recoverable_with_body
def test_a_part_is_sent_again_from_its_start(store: S3ObjectStore, faults: Faults, fault: Fault) -> None:
    upload_id = store.create_upload("key")
    waiting = faults.add("UploadPart", fault, fault)
    part = upload(store, upload_id, 1, BODY)
    assert not waiting
    assert part == Part(1, hashlib.md5(BODY).hexdigest(), zlib.crc32(BODY))
    store.complete_upload("key", upload_id, [part], size=len(BODY))
    assert store.read("key", 0, len(BODY)) == BODY


@recoverable
def test_create_upload_is_repeated(store: S3ObjectStore, faults: Faults, fault: Fault) -> None:
    waiting = faults.add("CreateMultipartUpload", fault)
    upload_id = store.create_upload("key")
    assert not waiting
    # A lost reply leaves an upload that nobody knows; it can be found.
    known = [("key", upload_id)]
    assert set(known) <= set(store.list_uploads("key"))
    part = upload(store, upload_id, 1, b"bytes")
    store.complete_upload("key", upload_id, [part], size=5)
    for key, unknown in store.list_uploads("key"):
        store.abort_upload(key, unknown)
    assert list(store.list_uploads("key")) == []


@recoverable
def test_complete_upload_is_repeated(store: S3ObjectStore, faults: Faults, fault: Fault) -> None:
    upload_id = store.create_upload("key")
    part = upload(store, upload_id, 1, b"bytes")
    waiting = faults.add("CompleteMultipartUpload", fault, LATE_ERROR)
    etag = store.complete_upload("key", upload_id, [part], size=5)
    assert not waiting
    assert etag == f"{hashlib.md5(hashlib.md5(b'bytes').digest()).hexdigest()}-1"
    assert store.read("key", 0, 5) == b"bytes"


def test_an_upload_that_a_lost_call_completed_ends_with_its_etag(store: S3ObjectStore, faults: Faults) -> None:
    upload_id = store.create_upload("key")
    part = upload(store, upload_id, 1, b"bytes")
    # S3 forgets a completed upload after a while, and then says so.
    waiting = faults.add("CompleteMultipartUpload", lose_reply, NO_SUCH_UPLOAD)
    etag = store.complete_upload("key", upload_id, [part], size=5)
    assert not waiting
    assert etag == f"{hashlib.md5(hashlib.md5(b'bytes').digest()).hexdigest()}-1"


def test_an_object_of_another_size_does_not_stand_for_a_gone_upload(store: S3ObjectStore, faults: Faults) -> None:
    upload_id = store.create_upload("key")
    part = upload(store, upload_id, 1, b"bytes")
    faults.add("CompleteMultipartUpload", lose_reply, NO_SUCH_UPLOAD)
    with pytest.raises(UploadGoneError):
        store.complete_upload("key", upload_id, [part], size=6)


def test_an_upload_can_be_completed_after_the_retries_are_used_up(store: S3ObjectStore, faults: Faults) -> None:
    upload_id = store.create_upload("key")
    part = upload(store, upload_id, 1, b"bytes")
    waiting = faults.add("CompleteMultipartUpload", lose_reply, *[SLOW_DOWN] * 3, NO_SUCH_UPLOAD)
    with pytest.raises(StorageUnavailableError):
        store.complete_upload("key", upload_id, [part], size=5)
    etag = store.complete_upload("key", upload_id, [part], size=5)
    assert not waiting
    assert store.copy("key", "copy", size=5, etag=etag)


@recoverable
def test_abort_upload_is_repeated(store: S3ObjectStore, faults: Faults, fault: Fault) -> None:
    upload_id = store.create_upload("key")
    waiting = faults.add("AbortMultipartUpload", fault)
    store.abort_upload("key", upload_id)
    assert not waiting
    assert list(store.list_uploads("")) == []


@recoverable
def test_copy_is_repeated(store: S3ObjectStore, faults: Faults, fault: Fault) -> None:
    etag = put(store, "source", BODY)
    waiting = faults.add("CopyObject", fault, LATE_ERROR)
    assert store.copy("source", "target", size=len(BODY), etag=etag) == etag
    assert not waiting
    assert store.read("target", 0, len(BODY)) == BODY


@recoverable
def test_copy_in_parts_is_repeated(store: S3ObjectStore, faults: Faults, fault: Fault) -> None:
    body = BODY * 6
    etag = put(store, "source", body)
    waiting = [
        faults.add("UploadPartCopy", fault, LATE_ERROR),
        faults.add("CompleteMultipartUpload", fault, LATE_ERROR),
    ]
    store.copy("source", "target", size=len(body), etag=etag)
    assert waiting == [[], []]
    assert store.read("target", 0, len(body)) == body
    assert list(store.list_uploads("")) == []


def tell_checksum(crc32: int) -> Fault:
    """Copies, and answers as S3 does for an upload that was created with CRC32; moto and MiniStack leave it out."""
    checksum = base64.b64encode(crc32.to_bytes(4)).decode()

    def copy_and_tell(request: AWSPreparedRequest) -> AWSResponse:
        etag = re.search(b"<ETag>.*</ETag>", act(request).content)
        assert etag is not None
        told = f"{etag[0].decode()}<ChecksumCRC32>{checksum}</ChecksumCRC32>"
        return answer(request, 200, f"<CopyPartResult>{told}</CopyPartResult>")

    return copy_and_tell


@recoverable
def test_a_copied_part_is_copied_again_and_not_uploaded(
    store: S3ObjectStore, faults: Faults, source: ObjectRange, fault: Fault
) -> None:
    def check_conditions(request: AWSPreparedRequest) -> AWSResponse | None:
        assert request.headers["x-amz-copy-source-if-match"] == f'"{source.etag}"'.encode()
        assert request.headers["x-amz-copy-source-range"] == f"bytes=6-{len(BODY) + 5}".encode()
        return tell_checksum(zlib.crc32(BODY))(request)

    upload_id = store.create_upload("key")
    waiting = faults.add("UploadPartCopy", fault, LATE_ERROR, check_conditions)
    unused = [faults.add("UploadPart", SLOW_DOWN), faults.add("GetObject", SLOW_DOWN)]
    part = store.copy_part("key", upload_id, 1, source, crc32=zlib.crc32(BODY))
    assert not waiting
    assert unused == [[SLOW_DOWN], [SLOW_DOWN]]
    assert part == Part(1, hashlib.md5(BODY).hexdigest(), zlib.crc32(BODY))
    unused[1].clear()
    store.complete_upload("key", upload_id, [part], size=len(BODY))
    assert store.read("key", 0, len(BODY)) == BODY


@pytest.mark.parametrize("told", [None, zlib.crc32(BODY) ^ 1])
def test_bytes_that_s3_does_not_vouch_for_are_uploaded(
    store: S3ObjectStore, faults: Faults, source: ObjectRange, told: int | None
) -> None:
    def cut_short(request: AWSPreparedRequest) -> AWSResponse:
        return answer(request, 206, "01234", {"Content-Length": str(len(BODY))})

    seen: list[str] = []

    def look(request: AWSPreparedRequest) -> None:
        seen.append(request.headers["x-amz-checksum-crc32"])

    upload_id = store.create_upload("key")
    if told is not None:
        faults.add("UploadPartCopy", tell_checksum(told))
    waiting = faults.add("GetObject", cut_short)
    faults.add("UploadPart", look)
    part = store.copy_part("key", upload_id, 1, source, crc32=zlib.crc32(BODY))
    assert not waiting
    assert [base64.b64decode(checksum) for checksum in seen] == [zlib.crc32(BODY).to_bytes(4)]
    assert part == Part(1, hashlib.md5(BODY).hexdigest(), zlib.crc32(BODY))


def test_another_archive_is_not_uploaded_instead_of_the_copied_one(
    store: S3ObjectStore, faults: Faults, client: "S3Client", source: ObjectRange
) -> None:
    def copy_and_overwrite(request: AWSPreparedRequest) -> None:
        act(request)
        client.put_object(Bucket=source.bucket, Key=source.key, Body=bytes(2 * len(BODY)))

    upload_id = store.create_upload("key")
    faults.add("UploadPartCopy", copy_and_overwrite)
    unused = faults.add("UploadPart", SLOW_DOWN)
    with pytest.raises(ArchiveReplacedError):
        store.copy_part("key", upload_id, 1, source, crc32=zlib.crc32(BODY))
    assert unused


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (412, "PreconditionFailed", ArchiveReplacedError),
        (404, "NoSuchKey", ArchiveReplacedError),
        (404, "NoSuchUpload", UploadGoneError),
        (404, "NoSuchBucket", StorageUnavailableError),
        (400, "InvalidRequest", StorageUnavailableError),
    ],
)
def test_what_a_refused_copy_of_a_part_means(
    store: S3ObjectStore, faults: Faults, source: ObjectRange, status: int, code: str, error: type[ModelhaulError]
) -> None:
    faults.add("UploadPartCopy", create_error_response(status, code))
    with pytest.raises(error) as caught:
        store.copy_part("key", "id", 1, source, crc32=0)
    assert "arn:" not in caught.value.detail


@pytest.mark.parametrize("operation", ["UploadPartCopy", "CompleteMultipartUpload"])
def test_a_failed_copy_in_parts_leaves_no_upload(store: S3ObjectStore, faults: Faults, operation: str) -> None:
    etag = put(store, "source", BODY * 6)
    waiting = faults.add(operation, *[SLOW_DOWN] * 12)
    with pytest.raises(StorageUnavailableError, match=rf"^S3 {operation} failed \(SlowDown\)\.$"):
        store.copy("source", "target", size=len(BODY) * 6, etag=etag)
    waiting.clear()
    assert store.find_object("target") is None
    assert list(store.list_uploads("")) == []


def test_the_first_error_of_a_copy_outlives_a_failed_abort(store: S3ObjectStore, faults: Faults) -> None:
    put(store, "source", b"")
    faults.add("UploadPartCopy", *[create_error_response(412, "PreconditionFailed")] * 3)
    waiting = faults.add("AbortMultipartUpload", *[SLOW_DOWN] * 4)
    with pytest.raises(ObjectGoneError):
        store.copy("source", "target", size=12 * MIB, etag="0" * 32)
    assert not waiting


def test_a_copy_is_aborted_only_when_none_of_its_parts_is_being_copied(store: S3ObjectStore, faults: Faults) -> None:
    etag = put(store, "source", BODY * 6)
    copying = threading.Event()
    copied: list[str] = []

    def fail(request: AWSPreparedRequest) -> AWSResponse | None:
        assert copying.wait(10)
        return create_error_response(412, "PreconditionFailed")(request)

    def copy(request: AWSPreparedRequest) -> AWSResponse | None:
        copying.set()
        response = act(request)
        copied.append("part")
        return response

    def abort(_: AWSPreparedRequest) -> None:
        copied.append("abort")

    faults.add("UploadPartCopy", fail, copy, copy)
    faults.add("AbortMultipartUpload", abort)
    with pytest.raises(ObjectGoneError):
        store.copy("source", "target", size=len(BODY) * 6, etag=etag)
    assert copied[-1] == "abort"
    assert list(store.list_uploads("")) == []


def read_header(request: AWSPreparedRequest, name: str) -> str | None:
    value: object = request.headers.get(name)
    return value.decode() if isinstance(value, bytes) else cast("str | None", value)


@pytest.mark.parametrize(
    ("told", "verified"),
    [
        ({"x-amz-checksum-crc32": "y/Q5Jg==", "x-amz-checksum-type": "FULL_OBJECT"}, "y/Q5Jg=="),
        ({"x-amz-checksum-crc32": "R/nORQ==-2", "x-amz-checksum-type": "COMPOSITE"}, None),
        ({"x-amz-checksum-crc64nvme": "r/7LBH/0eeA=", "x-amz-checksum-type": "FULL_OBJECT"}, None),
        ({}, None),
    ],
)
def test_s3_verifies_a_copy_against_the_checksum_of_the_whole_source(
    store: S3ObjectStore, faults: Faults, told: dict[str, str], verified: str | None
) -> None:
    etag = put(store, "source", BODY * 6)
    sent: dict[str, tuple[str | None, str | None]] = {}

    def keep(name: str, checksum: str) -> Fault:
        def look(request: AWSPreparedRequest) -> None:
            sent[name] = read_header(request, checksum), read_header(request, "x-amz-checksum-type")

        return look

    def tell(request: AWSPreparedRequest) -> AWSResponse:
        assert request.headers["x-amz-checksum-mode"] == b"ENABLED"
        return answer(request, 200, "", {"Content-Length": str(6 * len(BODY)), "ETag": etag, **told})

    faults.add("HeadObject", tell)
    faults.add("CreateMultipartUpload", keep("create", "x-amz-checksum-algorithm"))
    faults.add("CompleteMultipartUpload", keep("complete", "x-amz-checksum-crc32"))
    store.copy("source", "target", size=len(BODY) * 6, etag=etag)
    kind = "FULL_OBJECT" if verified else None
    assert sent == {"create": ("CRC32" if verified else None, kind), "complete": (verified, kind)}


def test_parts_of_several_copies_are_copied_at_the_same_time(store: S3ObjectStore, faults: Faults) -> None:
    etag = put(store, "source", BODY * 6)
    together = threading.Barrier(6)

    def meet(_: AWSPreparedRequest) -> None:
        together.wait(10)

    faults.add("UploadPartCopy", *[meet] * 6)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda key: store.copy("source", key, size=len(BODY) * 6, etag=etag), ["first", "second"]))
    assert store.find_object("first") == store.find_object("second") is not None


@pytest.mark.parametrize("size", [5, 8 * MIB])
def test_a_source_that_is_not_the_one_named_is_gone(
    store: S3ObjectStore, faults: Faults, client: "S3Client", size: int
) -> None:
    def check_condition(request: AWSPreparedRequest) -> AWSResponse | None:
        assert request.headers["x-amz-copy-source-if-match"] == b'"' + b"0" * 32 + b'"'
        return create_error_response(412, "PreconditionFailed")(request)

    put(store, "source", bytes(size))
    waiting = faults.add("CopyObject" if size == 5 else "UploadPartCopy", *[check_condition] * 2)
    with pytest.raises(ObjectGoneError):
        store.copy("source", "target", size=size, etag="0" * 32)
    waiting.clear()
    assert list(store.list_uploads("")) == []


def test_a_body_that_breaks_off_is_read_again(store: S3ObjectStore, faults: Faults) -> None:
    put(store, "key", b"0123456789")

    def cut_short(request: AWSPreparedRequest) -> AWSResponse:
        return answer(request, 206, "01234", {"Content-Length": "10"})

    waiting = faults.add("GetObject", cut_short, SLOW_DOWN, cut_short)
    assert store.read("key", 0, 10) == b"0123456789"
    assert not waiting
    faults.add("GetObject", cut_short, cut_short, cut_short)
    with pytest.raises(StorageUnavailableError, match="IncompleteReadError"):
        store.read("key", 0, 10)


def test_keys_that_could_not_be_deleted_are_told(store: S3ObjectStore, faults: Faults) -> None:
    error = "<Error><Key>a</Key><Code>InternalError</Code><Message>no</Message></Error>"
    put(store, "a", b"1")
    faults.add("DeleteObjects", lambda request: answer(request, 200, f"<DeleteResult>{error}</DeleteResult>"))
    with pytest.raises(StorageUnavailableError, match=r"failed for 1 of 2 objects \(InternalError\)\.$"):
        store.delete(["a", "b"])
    assert store.find_object("a") is not None
    store.delete(["a", "b"])
    assert store.find_object("a") is None


def call_each(store: S3ObjectStore) -> dict[str, Callable[[], object]]:
    part = Part(1, "0" * 32, 0)
    source = ObjectRange("another-bucket", "key", "0" * 32, 0, 1)
    return {
        "PutObject": lambda: put(store, "key", b"x"),
        "CreateMultipartUpload": lambda: store.create_upload("key"),
        "UploadPart": lambda: upload(store, "id", 1, b"x"),
        "UploadPartCopy": lambda: store.copy_part("key", "id", 1, source, crc32=0),
        "CompleteMultipartUpload": lambda: store.complete_upload("key", "id", [part], size=1),
        "AbortMultipartUpload": lambda: store.abort_upload("key", "id"),
        "ListMultipartUploads": lambda: list(store.list_uploads("")),
        "CopyObject": lambda: store.copy("source", "key", size=1, etag="0" * 32),
        "GetObject": lambda: store.read("key", 0, 1),
        "HeadObject": lambda: store.find_object("key"),
        "DeleteObjects": lambda: store.delete(["key"]),
    }


@pytest.mark.parametrize(
    ("fault", "code", "is_outage"),
    [
        (SLOW_DOWN, "SlowDown", True),
        (create_error_response(500, "InternalError"), "InternalError", True),
        (create_error_response(403, "AccessDenied"), "AccessDenied", False),
        (create_error_response(404, "NoSuchBucket"), "NoSuchBucket", False),
        (create_error_response(507, "InsufficientStorage"), "InsufficientStorage", False),
        (refuse_connection, "EndpointConnectionError", True),
    ],
    ids=["SlowDown", "InternalError", "AccessDenied", "NoSuchBucket", "InsufficientStorage", "refused"],
)
def test_an_error_is_unavailable_storage(
    store: S3ObjectStore, faults: Faults, fault: Fault, code: str, is_outage: bool
) -> None:
    """Only an error that may be temporary is an outage."""
    for operation, call in call_each(store).items():
        # A HEAD has no body, so its code is the status.
        if operation == "HeadObject":
            continue
        waiting = faults.add(operation, *[fault] * 4)
        with pytest.raises(StorageUnavailableError, match=rf"^S3 {operation} failed \({code}\)\.$") as caught:
            call()
        assert caught.value.is_outage is is_outage
        waiting.clear()


@pytest.mark.parametrize(("status", "is_outage"), [(403, False), (503, True)])
def test_a_head_that_is_refused_is_unavailable_storage(
    store: S3ObjectStore, faults: Faults, status: int, is_outage: bool
) -> None:
    faults.add("HeadObject", *[lambda request: answer(request, status, "")] * 4)
    with pytest.raises(StorageUnavailableError, match=rf"^S3 HeadObject failed \({status}\)\.$") as caught:
        store.find_object("key")
    assert caught.value.is_outage is is_outage


def test_payloads_are_not_hashed_and_carry_their_checksum(store: S3ObjectStore, faults: Faults) -> None:
    seen: list[dict[str, str]] = []

    def look(request: AWSPreparedRequest) -> None:
        seen.append({key.lower(): str(value) for key, value in request.headers.items()})

    upload_id = store.create_upload("key")
    faults.add("UploadPart", look)
    faults.add("PutObject", look)
    upload(store, upload_id, 1, b"123456789")
    put(store, "key", b"")
    part, small = ({key: value.removeprefix("b'").rstrip("'") for key, value in one.items()} for one in seen)
    assert part["x-amz-content-sha256"] == small["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
    assert part["x-amz-checksum-crc32"] == "y/Q5Jg=="  # the check value 0xCBF43926 of CRC-32
    assert small["x-amz-checksum-sha256"] == "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
