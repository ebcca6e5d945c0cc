"""Bodies that break, stall or change while an archive is read, and calls that fail or lose their replies."""

import hashlib
import itertools
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.awsrequest import AWSPreparedRequest
from botocore.config import Config
from hypothesis import given, settings
from hypothesis import strategies as st

from modelhaul.adapters.archives import S3ArchiveStore, S3ByteStream
from modelhaul.adapters.s3_client import create_s3_client
from modelhaul.domain.errors import (
    ArchiveReplacedError,
    SourceUnavailableError,
    StalledTransferError,
    StorageUnavailableError,
    UnexpectedResponseError,
)
from tests.contract.backends import REGION
from tests.http_servers import run_server
from tests.integration.s3_faults import (
    SLOW_DOWN,
    Fault,
    Faults,
    answer,
    create_error_response,
    open_moto_without_delays,
    recoverable,
    refuse_connection,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

GIB = 1024**3
BODY = hashlib.sha256(b"seed").digest() * (300_000 // 32)
ETAG = hashlib.md5(BODY).hexdigest()
STEP = 64 * 1024


class How(Enum):
    CLOSE = auto()
    RESET = auto()
    STALL = auto()


@dataclass(frozen=True, slots=True)
class Break:
    """An answer that stops after so many bytes of its body."""

    after: int
    how: How = How.CLOSE


@dataclass
class Object:
    body: bytes = BODY
    etag: str = ETAG


@dataclass
class Script:
    """What the server does: the object that is there, and what becomes of each answer in turn; `breaks` that are
    used up leave the answers whole. `header` replaces the Content-Range, and `hold` keeps an answer back.
    """

    stored: Object | None = field(default_factory=Object)
    breaks: list[Break] = field(default_factory=list)
    header: str | None = None
    hold: threading.Event | None = None
    starts: list[int] = field(default_factory=list)
    connections: set[tuple[str, int]] = field(default_factory=set)
    stalled: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)


class RangeServer(ThreadingHTTPServer):
    daemon_threads = True
    script: Script

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), RangeHandler)
        self.script = Script()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that ends is part of the test."""


class RangeHandler(BaseHTTPRequestHandler):
    server: RangeServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        script = self.server.script
        script.connections.add(self.client_address)
        start, end = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        script.starts.append(start)
        if script.hold is not None and len(script.starts) > 1:
            script.stalled.set()
            script.hold.wait(60)
        stored = script.stored
        if stored is None:
            return self._refuse(404, "NoSuchKey")
        if self.headers["If-Match"] != f'"{stored.etag}"':
            return self._refuse(412, "PreconditionFailed")
        body = stored.body[start : end + 1]
        self.send_response(206)
        self.send_header("ETag", f'"{stored.etag}"')
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Range", script.header or f"bytes {start}-{end}/{len(stored.body)}")
        self.end_headers()
        stop = script.breaks.pop(0) if script.breaks else None
        self.wfile.write(body if stop is None else body[: stop.after])
        if stop is None:
            return None
        self.close_connection = True
        if stop.how is How.STALL:
            script.stalled.set()
            script.released.wait(60)
        elif stop.how is How.RESET:
            # Closing with a linger time of 0 sends a reset.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        return None

    def _refuse(self, status: int, code: str) -> None:
        body = f"<Error><Code>{code}</Code></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[RangeServer]:
    with run_server(RangeServer()) as server:
        yield server


@pytest.fixture(scope="module")
def patient_store(server: RangeServer) -> Iterator[S3ArchiveStore]:
    with pytest.MonkeyPatch.context() as patch, reach(server, patch), closing(create_s3_client(REGION)) as client:
        yield S3ArchiveStore(client, "bucket")


@pytest.fixture(scope="module")
def hasty_store(server: RangeServer) -> Iterator[S3ArchiveStore]:
    """Waits a moment only for the next byte."""
    config = Config(read_timeout=1, s3={"addressing_style": "path"})
    with (
        pytest.MonkeyPatch.context() as patch,
        reach(server, patch),
        closing(boto3.client("s3", region_name=REGION, config=config)) as client,
    ):
        yield S3ArchiveStore(client, "bucket")


@contextmanager
def reach(server: RangeServer, patch: pytest.MonkeyPatch) -> Iterator[None]:
    patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
    patch.setenv("AWS_ACCESS_KEY_ID", "test")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    patch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda self, context: 0.0)
    yield


@contextmanager
def play(server: RangeServer, *breaks: Break, **script: Any) -> Iterator[Script]:
    server.script = Script(breaks=list(breaks), **script)
    try:
        yield server.script
    finally:
        server.script.released.set()
        if server.script.hold is not None:
            server.script.hold.set()


def read_on(stream: S3ByteStream, size: int = len(BODY)) -> bytes:
    received = bytearray()
    buffer = memoryview(bytearray(STEP))
    while len(received) < size and (count := stream.readinto(buffer[: size - len(received)])):
        received += buffer[:count]
    return bytes(received)


@pytest.mark.parametrize("how", [How.CLOSE, How.RESET])
@pytest.mark.parametrize(
    "after",
    [0, 1, STEP - 1, STEP, STEP + 1, len(BODY) - 201, len(BODY) - 200 - STEP],
    ids=["at once", "first byte", "in a read", "after a read", "in the next", "before the last byte", "later"],
)
def test_a_body_that_breaks_off_is_asked_for_from_there(
    server: RangeServer, patient_store: S3ArchiveStore, after: int, how: How
) -> None:
    with (
        play(server, Break(after, how)) as script,
        patient_store.open_range("key", 100, len(BODY) - 100, etag=ETAG) as stream,
    ):
        assert (stream.offset, stream.etag) == (100, ETAG)
        assert read_on(stream) == BODY[100:-100]
        assert stream.readinto(memoryview(bytearray(1))) == 0
    assert len(script.starts) == 2
    # A reset may take with it what had arrived.
    assert script.starts[1] == 100 + after or (how is How.RESET and 100 <= script.starts[1] < 100 + after)


@settings(max_examples=40)
@given(breaks=st.lists(st.integers(1, len(BODY) // 9), max_size=8), step=st.integers(1, 2 * len(BODY)))
def test_wherever_it_breaks_the_bytes_are_the_archives(
    server: RangeServer, patient_store: S3ArchiveStore, breaks: list[int], step: int
) -> None:
    received = bytearray()
    buffer = memoryview(bytearray(max(step, 500)))
    with (
        play(server, *map(Break, breaks)) as script,
        patient_store.open_range("key", 0, len(BODY), etag=ETAG) as stream,
    ):
        while count := stream.readinto(buffer):
            received += buffer[:count]
    assert bytes(received) == BODY
    assert script.starts == list(itertools.accumulate(breaks, initial=0))


def test_three_breaks_without_progress_are_mended_and_four_are_not(
    server: RangeServer, patient_store: S3ArchiveStore
) -> None:
    with play(server, *[Break(0)] * 3) as script, patient_store.open_range("key", 0, len(BODY), etag=ETAG) as stream:
        assert read_on(stream) == BODY
    assert script.starts == [0] * 4
    with (
        play(server, *[Break(0)] * 4) as script,
        patient_store.open_range("key", 0, len(BODY), etag=ETAG) as stream,
        pytest.raises(SourceUnavailableError, match=f"{len(BODY):,} bytes early"),
    ):
        read_on(stream)
    assert script.starts == [0] * 4


def test_progress_starts_the_count_again(server: RangeServer, patient_store: S3ArchiveStore) -> None:
    with (
        play(server, *[Break(1), Break(0), Break(0)] * 5) as script,
        patient_store.open_range("key", 0, len(BODY), etag=ETAG) as stream,
    ):
        assert read_on(stream) == BODY
    assert script.starts == [0, *[n for n in range(1, 6) for _ in range(3)]]


@pytest.mark.parametrize("after", [0, 1, STEP, STEP + 1])
def test_a_stalled_read_is_asked_for_again(server: RangeServer, hasty_store: S3ArchiveStore, after: int) -> None:
    with (
        play(server, Break(after, How.STALL)) as script,
        hasty_store.open_range("key", 0, len(BODY), etag=ETAG) as stream,
    ):
        assert read_on(stream) == BODY
    # What a read had when it timed out is asked for again.
    assert script.starts == [0, after // STEP * STEP]


def test_reads_that_stall_again_and_again_are_given_up(server: RangeServer, hasty_store: S3ArchiveStore) -> None:
    with (
        play(server, *[Break(0, How.STALL)] * 4) as script,
        hasty_store.open_range("key", 0, len(BODY), etag=ETAG) as stream,
        pytest.raises(StalledTransferError),
    ):
        read_on(stream)
    assert script.starts == [0] * 4


@pytest.mark.parametrize("stored", [None, Object(BODY[::-1], "0" * 32)], ids=["deleted", "overwritten"])
def test_an_archive_that_changes_between_two_reads_is_not_mixed(
    server: RangeServer, patient_store: S3ArchiveStore, stored: Object | None
) -> None:
    with play(server, Break(STEP + 5)) as script, patient_store.open_range("key", 0, len(BODY), etag=ETAG) as stream:
        assert read_on(stream, STEP) == BODY[:STEP]
        script.stored = stored
        assert read_on(stream, 5) == BODY[STEP : STEP + 5]
        with pytest.raises(ArchiveReplacedError, match="overwritten or deleted"):
            read_on(stream)


def test_close_ends_a_read_under_way(server: RangeServer, patient_store: S3ArchiveStore) -> None:
    with play(server, Break(STEP + 5, How.STALL)) as script:
        stream = patient_store.open_range("key", 0, len(BODY), etag=ETAG)
        failure = run_read(stream)
        assert script.stalled.wait(10)
        stream.close()
        assert isinstance(failure(), SourceUnavailableError)
    assert script.starts == [0], "it was not asked for again"


def test_close_ends_a_read_that_is_asking_again(server: RangeServer, patient_store: S3ArchiveStore) -> None:
    with play(server, Break(STEP), hold=threading.Event()) as script:
        stream = patient_store.open_range("key", 0, len(BODY), etag=ETAG)
        failure = run_read(stream)
        assert script.stalled.wait(10)
        stream.close()
        assert script.hold is not None
        script.hold.set()
        assert isinstance(failure(), SourceUnavailableError)
    assert script.starts == [0, STEP]


def run_read(stream: S3ByteStream) -> Callable[[], BaseException | None]:
    """Reads in another thread; what it returns waits for the end and gives the error."""
    failures: list[BaseException] = []

    def read() -> None:
        try:
            read_on(stream)
        except SourceUnavailableError as error:
            failures.append(error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()

    def wait() -> BaseException | None:
        thread.join(10)
        assert not thread.is_alive(), "the read goes on"
        return failures[0] if failures else None

    return wait


def test_a_range_that_was_read_leaves_its_connection_for_the_next(
    server: RangeServer, patient_store: S3ArchiveStore
) -> None:
    with play(server) as script:
        for _ in range(5):
            with patient_store.open_range("key", 10, 20, etag=ETAG) as stream:
                assert read_on(stream) == BODY[10:20]
        assert len(script.connections) == 1
        with patient_store.open_range("key", 0, len(BODY), etag=ETAG) as stream:
            read_on(stream, 10)
        # The rest of that answer must not be taken for the next one.
        with patient_store.open_range("key", 30, 40, etag=ETAG) as stream:
            assert read_on(stream) == BODY[30:40]
        assert len(script.connections) == 2


@pytest.mark.parametrize("header", ["bytes 0-99/1000", f"bytes 100-198/{len(BODY)}", "none"])
def test_another_range_than_asked_for_is_refused(
    server: RangeServer, patient_store: S3ArchiveStore, header: str
) -> None:
    with play(server, header=header), pytest.raises(UnexpectedResponseError):
        patient_store.open_range("key", 100, 200, etag=ETAG)


@pytest.fixture(scope="module")
def aws() -> Iterator[None]:
    with open_moto_without_delays():
        yield


@pytest.fixture
def client(aws: None) -> "Iterator[S3Client]":
    """One for each test: a client retries only so often in its life."""
    with closing(create_s3_client(REGION)) as client:
        yield client


@pytest.fixture
def faults(client: "S3Client") -> Iterator[Faults]:
    faults = Faults(client)
    yield faults
    faults.remove()


@pytest.fixture
def store(client: "S3Client", request: pytest.FixtureRequest) -> S3ArchiveStore:
    bucket = f"faults-{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:40]}"
    client.create_bucket(Bucket=bucket)
    return S3ArchiveStore(client, bucket)


@recoverable
def test_calls_are_repeated(store: S3ArchiveStore, faults: Faults, fault: Fault) -> None:
    waiting = [
        faults.add(operation, fault)
        for operation in ("PutObject", "GetObject", "DeleteObject", "ListMultipartUploads", "AbortMultipartUpload")
    ]
    etag = store.put_archive("key", BODY)
    assert etag == ETAG
    with store.open_range("key", 0, len(BODY), etag=etag) as stream:
        assert read_on(stream) == BODY
    store.delete_archive("key")
    assert store.find_archive("key") is None
    ticket = store.open_upload("key", 6 * GIB, seconds=60)
    store.abort_uploads("key")
    assert waiting == [[]] * 5
    assert ticket.upload_id


@recoverable
def test_opening_an_upload_is_repeated(store: S3ArchiveStore, client: "S3Client", faults: Faults, fault: Fault) -> None:
    waiting = faults.add("CreateMultipartUpload", fault)
    assert store.open_upload("key", 6 * GIB, seconds=60).upload_id
    assert not waiting
    # With it goes the one that nobody knows, if a reply was lost.
    store.abort_uploads("key")
    assert "Uploads" not in client.list_multipart_uploads(Bucket=store.bucket)


def test_an_upload_that_ends_meanwhile_need_not_be_aborted(store: S3ArchiveStore, faults: Faults) -> None:
    for _ in range(2):
        store.open_upload("key", 6 * GIB, seconds=60)
    waiting = faults.add("AbortMultipartUpload", create_error_response(404, "NoSuchUpload"))
    store.abort_uploads("key")
    assert not waiting


OUTCOME = {"id": "1", "task_status": "DONE"}
CREATED = datetime(2026, 11, 23, 12, tzinfo=UTC)


def write_outcome(store: S3ArchiveStore, outcome: dict[str, Any] = OUTCOME, *, after: float = 0) -> None:
    """`after`: seconds."""
    store.write_outcome("incoming/a.zip", outcome, created_at=CREATED + timedelta(seconds=after))


def read_outcome(store: S3ArchiveStore, client: "S3Client") -> Any:
    with closing(client.get_object(Bucket=store.bucket, Key="outcomes/incoming/a.zip.json")["Body"]) as body:
        return json.load(body)


@recoverable
@pytest.mark.parametrize("earlier", [True, False])
def test_an_outcome_is_written_despite(
    store: S3ArchiveStore, client: "S3Client", faults: Faults, fault: Fault, earlier: bool
) -> None:
    if earlier:
        write_outcome(store, after=-3600)
    # A conditional write whose reply was lost is refused by itself when it is repeated.
    waiting = [faults.add("PutObject", fault), faults.add("GetObject", *[fault] * earlier)]
    write_outcome(store)
    assert waiting == [[], []]
    assert read_outcome(store, client) == OUTCOME


@pytest.fixture
def other(aws: None, store: S3ArchiveStore) -> "Iterator[Other]":
    with closing(create_s3_client(REGION)) as client:
        yield Other(client, store.bucket)


@dataclass(frozen=True, slots=True)
class Other:
    """Somebody else with the same outcome, who is there between our reading and our writing."""

    client: "S3Client"
    bucket: str

    def write(self, after: float, note: int = 0) -> Fault:
        store = S3ArchiveStore(self.client, self.bucket)

        def write_first(request: AWSPreparedRequest) -> None:
            write_outcome(store, {"task_status": "another's", "note": note}, after=after)

        return write_first

    def delete(self, request: AWSPreparedRequest) -> None:
        self.client.delete_object(Bucket=self.bucket, Key="outcomes/incoming/a.zip.json")


@pytest.mark.parametrize("earlier", [True, False])
@pytest.mark.parametrize(("another", "stays"), [(1e-6, "another's"), (1, "another's"), (-1e-6, "DONE")])
def test_of_two_that_write_at_once_the_later_task_stays(
    store: S3ArchiveStore, client: "S3Client", faults: Faults, other: Other, earlier: bool, another: float, stays: str
) -> None:
    if earlier:
        write_outcome(store, after=-3600)
    waiting = faults.add("PutObject", other.write(another))
    write_outcome(store)
    assert not waiting
    assert read_outcome(store, client)["task_status"] == stays


@pytest.mark.parametrize("conflict", ["deleted", "409"])
def test_an_outcome_is_read_again_after_a_conflict(
    store: S3ArchiveStore, client: "S3Client", faults: Faults, other: Other, conflict: str
) -> None:
    write_outcome(store, after=-3600)
    refusal = other.delete if conflict == "deleted" else create_error_response(409, "ConditionalRequestConflict")
    waiting = faults.add("PutObject", refusal)
    write_outcome(store)
    assert not waiting
    assert read_outcome(store, client) == OUTCOME


def test_others_that_always_write_first_are_an_outage(store: S3ArchiveStore, faults: Faults, other: Other) -> None:
    waiting = faults.add("PutObject", *[other.write(-3600, note) for note in range(10)])
    with pytest.raises(StorageUnavailableError, match="5 conflicting writes"):
        write_outcome(store)
    waiting.clear()


@pytest.mark.parametrize("metadata", [{}, {"created-at": "2126"}])
@pytest.mark.parametrize("body", [b"", b"not JSON", b"[]", b"7", b"\xff"])
def test_what_is_no_outcome_is_replaced(
    store: S3ArchiveStore, client: "S3Client", body: bytes, metadata: dict[str, str]
) -> None:
    client.put_object(Bucket=store.bucket, Key="outcomes/incoming/a.zip.json", Body=body, Metadata=metadata)
    write_outcome(store)
    assert read_outcome(store, client) == OUTCOME


def test_an_outcome_of_an_older_version_is_replaced(store: S3ArchiveStore, client: "S3Client") -> None:
    body = b'{"created_at": "2126-11-23T12:00:00.000000Z", "task_status": "DONE"}'
    client.put_object(Bucket=store.bucket, Key="outcomes/incoming/a.zip.json", Body=body)
    write_outcome(store)
    assert read_outcome(store, client) == OUTCOME


def test_an_outcome_that_cannot_be_read_is_an_outage(store: S3ArchiveStore, faults: Faults) -> None:
    faults.add("GetObject", lambda request: answer(request, 200, "{", {"Content-Length": "10"}))
    with pytest.raises(StorageUnavailableError, match=r"^S3 GetObject failed \(IncompleteReadError\)\.$"):
        write_outcome(store)


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (SLOW_DOWN, "SlowDown"),
        (create_error_response(403, "AccessDenied"), "AccessDenied"),
        (create_error_response(404, "NoSuchBucket"), "NoSuchBucket"),
        (refuse_connection, "EndpointConnectionError"),
    ],
    ids=["SlowDown", "AccessDenied", "NoSuchBucket", "refused"],
)
def test_an_outage_is_unavailable_storage(store: S3ArchiveStore, faults: Faults, fault: Fault, code: str) -> None:
    store.open_upload("key", 6 * GIB, seconds=60)
    calls: list[tuple[str, Callable[[], object]]] = [
        ("PutObject", lambda: store.put_archive("key", b"x")),
        ("PutObject", lambda: write_outcome(store)),
        ("GetObject", lambda: write_outcome(store)),
        ("GetObject", lambda: store.open_range("key", 0, 1, etag=ETAG)),
        ("DeleteObject", lambda: store.delete_archive("key")),
        ("CreateMultipartUpload", lambda: store.open_upload("key", 6 * GIB, seconds=60)),
        ("ListMultipartUploads", lambda: store.abort_uploads("key")),
        ("AbortMultipartUpload", lambda: store.abort_uploads("key")),
    ]
    for operation, call in calls:
        waiting = faults.add(operation, *[fault] * 4)
        with pytest.raises(StorageUnavailableError, match=rf"^S3 {operation} failed \({code}\)\.$"):
            call()
        waiting.clear()
    # A HEAD has no body, so its code is the status.
    faults.add("HeadObject", lambda request: answer(request, 403, ""))
    with pytest.raises(StorageUnavailableError, match=r"^S3 HeadObject failed \(403\)\.$"):
        store.find_archive("key")


def test_a_stream_goes_on_after_an_outage(store: S3ArchiveStore, faults: Faults) -> None:
    body = BODY.hex()
    etag = store.put_archive("key", body.encode())

    def cut_short(request: AWSPreparedRequest) -> Any:
        headers = {"Content-Length": str(len(body)), "Content-Range": f"bytes 0-{len(body) - 1}/{len(body)}"}
        return answer(request, 206, body[:STEP], headers)

    waiting = faults.add("GetObject", cut_short, *[SLOW_DOWN] * 4)
    with store.open_range("key", 0, len(body), etag=etag) as stream:
        assert read_on(stream, STEP) == body[:STEP].encode()
        with pytest.raises(StorageUnavailableError, match="SlowDown"):
            read_on(stream)
        assert not waiting
        assert read_on(stream, len(body)) == body[STEP:].encode()
