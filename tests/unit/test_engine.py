"""The transfer engine over a scripted source: whatever it does, only verified bytes become an object."""

import gc
import hashlib
import mmap
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelhaul.domain import digests
from modelhaul.domain.digests import Algorithm, Digest, FileHasher
from modelhaul.domain.errors import (
    DigestMismatchError,
    FileTooLargeError,
    LeaseLostError,
    RateLimitedError,
    SourceChangedError,
    SourceUnavailableError,
    StorageUnavailableError,
    UnexpectedResponseError,
    UploadGoneError,
)
from modelhaul.domain.files import MAX_FILE_SIZE, Part, SourceFile
from modelhaul.domain.segments import FileUpload, UploadKey
from modelhaul.ports.byte_streams import ByteStream
from modelhaul.transfer.engine import FileTransfer, Left, Moved, Paused
from modelhaul.transfer.segments import SegmentClaims
from modelhaul.transfer.settings import MAX_PARTS, MIB, StreamSettings, choose_part_size
from modelhaul.transfer.window import PartWindow
from tests.fakes.object_store import InMemoryObjectStore
from tests.fakes.segments import InMemorySegmentRepository
from tests.fakes.tables import InMemoryTables

KEY = "staging/task/model.safetensors"
UPLOAD = UploadKey("task#1", 0, 0)
PART = 1000
QUICK = StreamSettings(
    part_size=lambda _: PART, chunk=64, reconnect_delay=0.001, progress=0, poll=0.001, join=0, rate_window=1e9
)


def make_content(size: int) -> bytes:
    return hashlib.shake_256(b"content").digest(size)


def describe(content: bytes, algorithm: Algorithm = Algorithm.SHA256) -> SourceFile:
    if algorithm is Algorithm.CRC32:
        return SourceFile("model.bin", len(content), Digest(algorithm, f"{zlib.crc32(content):08x}"))
    if algorithm is Algorithm.SHA256:
        value = hashlib.sha256(content).hexdigest()
    else:
        value = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    return SourceFile("model.safetensors", len(content), Digest(algorithm, value))


class ScriptedStream(ByteStream):
    def __init__(self, source: "ScriptedSource", start: int, end: int) -> None:
        self._source = source
        self.ranged = source.ranged
        self.offset = start if source.ranged else 0
        self.etag = source.etag(start)
        self._position = self.offset
        self._end = end if source.ranged else len(source.content)

    def readinto(self, buffer: memoryview) -> int:
        self._source.before_read(self._position)
        end = min(self._position + len(buffer), self._end, self._source.cut_after(self._position))
        if end <= self._position:
            if self._position < self._end:
                raise SourceUnavailableError("connection reset")
            return 0
        piece = self._source.content[self._position : end]
        buffer[: len(piece)] = piece
        self._source.read_ranges.append((self._position, end))
        self._position = end
        return len(piece)

    def close(self) -> None:
        return


@dataclass
class ScriptedSource:
    content: bytes
    ranged: bool = True
    etag: Callable[[int], str | None] = lambda _: "e1"
    before_read: Callable[[int], None] = lambda _: None
    cut_after: Callable[[int], int] = lambda _: 1 << 62
    opened: list[tuple[int, int]] = field(default_factory=list)
    read_ranges: list[tuple[int, int]] = field(default_factory=list)

    def open_range(self, start: int, end: int) -> ScriptedStream:
        self.opened.append((start, end))
        return ScriptedStream(self, start, end)


@dataclass
class Bench:
    """One file between a scripted source and a fake S3. Implements `Lease`, and keeps the recorded offsets."""

    content: bytes
    source: ScriptedSource
    file: SourceFile
    store: InMemoryObjectStore = field(default_factory=lambda: InMemoryObjectStore(min_part_size=1))
    tables: InMemoryTables = field(default_factory=InMemoryTables)
    offsets: list[int] = field(default_factory=list)
    remaining: Callable[[], float] = lambda: 900.0
    on_record: Callable[[int], None] = lambda _: None
    on_renew: Callable[[], None] = lambda: None

    def confirm(self) -> None:
        self.on_renew()

    def renew(self, *, busy: float = 0.0) -> None:
        self.on_renew()

    def record_offset(self, offset: int) -> None:
        self.on_record(offset)
        self.offsets.append(offset)

    def run(self, engine: StreamSettings = QUICK) -> Moved | Paused | Left:
        return self.open(engine).run()

    def open(self, engine: StreamSettings = QUICK, **changes: Any) -> FileTransfer:
        fields: dict[str, Any] = {
            "file": self.file,
            "key": KEY,
            "open_range": self.source.open_range,
            "uploads": self.store,
            "claims": self.open_claims(),
            "lease": self,
            "remaining": self.remaining,
            "settings": engine,
        }
        return FileTransfer(**(fields | changes))

    def open_claims(self, clock: Callable[[], float] | None = None) -> SegmentClaims:
        return SegmentClaims(
            repository=InMemorySegmentRepository(self.tables),
            key=UPLOAD,
            owner=str(uuid.uuid4()),
            clock=clock or self.tables.clock,
        )

    def find_upload(self) -> FileUpload | None:
        return InMemorySegmentRepository(self.tables).find_upload(UPLOAD)

    def expire_claims(self) -> None:
        """Let the leases of killed functions end."""
        upload = self.find_upload()
        if upload is not None:
            self.tables.uploads[UPLOAD] = replace(upload, claims=())

    def stored(self) -> bytes:
        return self.store.read(KEY, 0, len(self.content))

    def uploads(self) -> list[tuple[str, str]]:
        return list(self.store.list_uploads(""))


def cut_once(*places: int) -> Callable[[int], int]:
    """The connection breaks the first time that it comes to each of these offsets."""
    left = set(places)
    looking = threading.Lock()

    def cut_after(position: int) -> int:
        with looking:
            nearest = min((place for place in left if place >= position), default=1 << 62)
            if nearest == position:
                left.discard(nearest)
        return nearest

    return cut_after


def make_bench(size: int = 10 * PART + 123, algorithm: Algorithm = Algorithm.SHA256) -> Bench:
    content = make_content(size)
    return Bench(content, ScriptedSource(content), describe(content, algorithm))


@pytest.mark.parametrize("algorithm", list(Algorithm))
@pytest.mark.parametrize("size", [1, PART - 1, PART, PART + 1, 7 * PART])
def test_a_file_of_any_size_arrives_whole(size: int, algorithm: Algorithm) -> None:
    bench = make_bench(size, algorithm)
    outcome = bench.run()
    assert isinstance(outcome, Moved)
    assert outcome.sha256 == hashlib.sha256(bench.content).hexdigest()
    assert bench.stored() == bench.content
    assert bench.uploads() == []
    assert bench.source.opened == [(0, size)], "one connection, one request"


@pytest.mark.parametrize("size", [1, 1024 * MIB, 1024 * MIB + 1, 335 * 10**9, 336 * 10**9, MAX_FILE_SIZE])
def test_parts_suffice_and_are_legal(size: int) -> None:
    part = choose_part_size(size)
    assert part >= 5 * MIB
    assert -(-size // part) <= MAX_PARTS
    assert part * 3 <= 150 * MIB, "three buffers fit into a small function"


@settings(max_examples=60)
@given(
    size=st.integers(1, 6 * PART),
    cuts=st.lists(st.integers(0, 6 * PART), max_size=3, unique=True),
    connections=st.integers(1, 3),
)
def test_broken_connections_lose_and_repeat_nothing(size: int, cuts: list[int], connections: int) -> None:
    bench = make_bench(size)
    bench.source.cut_after = cut_once(*cuts)
    engine = StreamSettings(
        part_size=lambda _: PART,
        chunk=64,
        reconnect_delay=0,
        connections=connections,
        rate_window=0,
        slow_rate=1e18,
    )
    assert isinstance(bench.run(engine), Moved)
    assert bench.stored() == bench.content
    assert sum(end - start for start, end in bench.source.read_ranges) == size, "every byte was read once"


def test_gives_up_reconnecting_and_keeps_what_arrived() -> None:
    bench = make_bench()
    bench.source.cut_after = lambda position: max(position, 4 * PART + 50)
    with pytest.raises(SourceUnavailableError):
        bench.run()
    upload = bench.find_upload()
    assert upload is not None
    assert upload.offset == 4 * PART
    assert upload.claims == (), "other functions can claim the rest immediately"
    assert bench.store.keys == []
    before = len(bench.source.read_ranges)
    bench.source.cut_after = lambda _: 1 << 62
    assert isinstance(bench.run(), Moved)
    assert min(start for start, _ in bench.source.read_ranges[before:]) == 4 * PART, "nothing is read twice"
    assert bench.stored() == bench.content


@pytest.mark.slow
@settings(max_examples=12)
@given(stops=st.lists(st.integers(1, 9), max_size=3), algorithm=st.sampled_from(list(Algorithm)))
def test_a_move_continues_over_any_number_of_functions(stops: list[int], algorithm: Algorithm) -> None:
    bench = make_bench(algorithm=algorithm)
    for stop in stops:
        threshold = stop * PART
        bench.source.before_read = lambda position, threshold=threshold: (  # type: ignore[misc]
            None if position < threshold else time.sleep(0.002)
        )
        bench.remaining = lambda threshold=threshold: (  # type: ignore[misc]
            0.0 if bench.source.read_ranges and bench.source.read_ranges[-1][1] >= threshold else 900.0
        )
        if isinstance(bench.run(), Moved):
            break
    bench.remaining = lambda: 900.0
    assert isinstance(bench.run(), Moved)
    assert bench.stored() == bench.content


def test_the_bytes_of_an_incomplete_part_are_counted() -> None:
    bench = make_bench()
    arrived = PART // 2 // QUICK.chunk * QUICK.chunk
    counted = threading.Event()

    def wait_until_counted(position: int) -> None:
        if position == arrived:
            assert counted.wait(20)

    def count(offset: int) -> None:
        if offset >= arrived:
            counted.set()

    bench.source.before_read, bench.on_record = wait_until_counted, count
    assert isinstance(bench.run(replace(QUICK, connections=1)), Moved)
    # Earlier records have fewer bytes. No byte after `arrived` was read before this record.
    assert next(offset for offset in bench.offsets if offset >= arrived) == arrived


def test_no_more_bytes_are_counted_than_the_file_has() -> None:
    file = describe(make_content(2 * PART + 1))
    window = PartWindow(size=file.size, part_size=PART, buffers=3)
    window.add(range(1, 4))
    for number in range(1, 4):
        part = window.take(lambda: True)
        assert part is not None
        part.filled = part.size
        if number > 1:
            window.record_stored(part, Part(number, "ab" * 16, 0))
    window.resume_hash(1, FileHasher(file.digest, file.size))
    assert window.count_received(1) == file.size


def test_a_killed_function_costs_only_what_was_not_recorded() -> None:
    bench = make_bench()

    class Killed(BaseException):
        """Nothing in the engine may catch this and go on."""

    def kill(_: int) -> None:
        if (upload := bench.find_upload()) is not None and upload.offset >= 4 * PART:
            raise Killed

    bench.on_record = kill
    with pytest.raises(Killed):
        bench.run()
    kept = bench.find_upload()
    assert kept is not None
    assert kept.offset >= 4 * PART
    read_before = len(bench.source.read_ranges)
    bench.on_record = lambda _: None
    bench.expire_claims()
    assert isinstance(bench.run(), Moved)
    assert bench.stored() == bench.content
    resumed_at = min((start for start, _ in bench.source.read_ranges[read_before:]), default=kept.offset)
    assert resumed_at == kept.offset


def test_a_function_killed_after_the_last_record_reads_nothing_again() -> None:
    bench = make_bench()
    complete = bench.store.complete_upload

    def complete_and_die(key: str, upload_id: str, parts: Sequence[Part], *, size: int) -> str:
        complete(key, upload_id, parts, size=size)
        raise KeyboardInterrupt

    bench.store.complete_upload = complete_and_die  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        bench.run()
    bench.store.complete_upload = complete  # type: ignore[method-assign]
    bench.source.read_ranges.clear()
    assert isinstance(bench.run(), Moved)
    assert bench.source.read_ranges == []
    assert bench.stored() == bench.content


def test_wrong_bytes_of_the_right_length_are_never_stored() -> None:
    bench = make_bench()
    spoiled = bytearray(bench.content)
    spoiled[5 * PART] ^= 1
    bench.source.content = bytes(spoiled)
    with pytest.raises(DigestMismatchError, match="Checksum mismatch for"):
        bench.run()
    assert bench.store.keys == []
    assert bench.uploads() == []
    assert bench.find_upload() is None, "the next try starts at the first byte"


def test_a_changed_etag_discards_what_was_read() -> None:
    bench = make_bench()
    bench.source.etag = lambda start: "e1" if start == 0 else "e2"
    bench.source.cut_after = cut_once(3 * PART)
    with pytest.raises(SourceChangedError):
        bench.run()
    assert bench.store.keys == []
    assert bench.uploads() == []
    assert bench.find_upload() is None


def test_a_source_without_ranges_is_read_from_its_start_again() -> None:
    bench = make_bench()
    bench.source.ranged = False
    bench.source.cut_after = cut_once(3 * PART + 17)
    assert isinstance(bench.run(), Moved)
    assert bench.stored() == bench.content


def test_a_source_without_ranges_gets_one_connection_even_when_slow() -> None:
    bench = make_bench()
    bench.source.ranged = False
    engine = StreamSettings(part_size=lambda _: PART, chunk=64, rate_window=0, slow_rate=1e18)
    assert isinstance(bench.run(engine), Moved)
    assert [start for start, _ in bench.source.opened] == [0]


def test_a_slow_source_is_read_by_several_connections() -> None:
    bench = make_bench(40 * PART)
    together = threading.Barrier(3, timeout=20)
    met = threading.Event()

    def wait_for_others(position: int) -> None:
        if position >= PART and not met.is_set():
            together.wait()
            met.set()

    bench.source.before_read = wait_for_others
    engine = StreamSettings(part_size=lambda _: PART, chunk=64, rate_window=0, slow_rate=1e18)
    assert isinstance(bench.run(engine), Moved), "three reads met in time, so three were open at once"
    assert bench.stored() == bench.content


def test_memory_holds_a_few_parts_only() -> None:
    bench = make_bench(60 * PART)
    waiting = threading.Semaphore(0)
    upload = bench.store.upload_part

    def hold(*args: object, **kwargs: object) -> Part:
        assert waiting.acquire(timeout=20)
        return upload(*args, **kwargs)  # type: ignore[arg-type]

    bench.store.upload_part = hold  # type: ignore[method-assign]
    furthest: list[int] = []
    thread = threading.Thread(target=lambda: furthest.append(isinstance(bench.run(), Moved)))
    thread.start()
    for released in range(60):
        deadline = time.monotonic() + 20
        while len(bench.source.read_ranges) * 64 < min(released + 4, 60) * (PART - 100) and time.monotonic() < deadline:
            time.sleep(0.001)
        read = max((end for _, end in bench.source.read_ranges), default=0)
        assert read <= (released + 4) * PART + PART, "four buffers, and none read beyond them"
        waiting.release()
    thread.join(20)
    assert furthest == [True]


def test_a_rate_limit_stops_at_once_and_keeps_what_arrived() -> None:
    bench = make_bench()

    def limit(position: int) -> None:
        if position >= 3 * PART:
            raise RateLimitedError("slow down", retry_after=17)

    bench.source.before_read = limit
    with pytest.raises(RateLimitedError) as caught:
        bench.run()
    assert caught.value.retry_after == 17
    upload = bench.find_upload()
    assert upload is not None
    assert upload.offset == 3 * PART


def test_a_lost_lease_ends_the_move_without_touching_the_upload() -> None:
    bench = make_bench()

    def lose(_: int) -> None:
        if bench.find_upload() is not None:
            raise LeaseLostError("another function has it")

    bench.on_record = lose
    with pytest.raises(LeaseLostError):
        bench.run()
    assert bench.store.keys == []
    assert len(bench.uploads()) == 1, "it belongs to the other function"


def test_a_function_without_the_lease_that_sees_another_etag_leaves_the_upload() -> None:
    bench = make_bench()
    bench.source.cut_after = cut_once(3 * PART)
    bench.source.etag = lambda start: "e1" if start == 0 else "e2"

    def refuse(offset: int) -> None:
        if offset == 0:
            raise LeaseLostError("another function has it")

    bench.on_record = refuse
    with pytest.raises(LeaseLostError):
        bench.run()
    assert len(bench.uploads()) == 1, "the other function goes on with it"


def test_a_function_that_lost_its_lease_replaces_no_object() -> None:
    bench = make_bench()

    def lose() -> None:
        raise LeaseLostError("another function has it")

    bench.on_renew = lose
    with pytest.raises(LeaseLostError):
        bench.run()
    assert bench.store.keys == []
    assert len(bench.uploads()) == 1


def test_the_lease_is_renewed_while_no_part_is_stored() -> None:
    bench = make_bench()
    renewed = threading.Event()
    bench.on_renew = renewed.set
    bench.source.before_read = lambda position: None if position or renewed.wait(20) else pytest.fail("not renewed")
    assert isinstance(bench.run(replace(QUICK, heartbeat=0)), Moved)
    assert bench.stored() == bench.content


def test_a_checkpoint_that_cannot_be_continued_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = make_bench()
    bench.source.cut_after = lambda position: max(position, 4 * PART)
    with pytest.raises(SourceUnavailableError):
        bench.run()
    monkeypatch.setattr(digests, "_load_libcrypto", lambda: None)
    with pytest.raises(ValueError, match="libcrypto"):
        bench.run()


def test_an_upload_that_is_gone_starts_anew() -> None:
    bench = make_bench()
    bench.source.cut_after = lambda position: max(position, 4 * PART)
    with pytest.raises(SourceUnavailableError):
        bench.run()
    upload = bench.find_upload()
    assert upload is not None
    bench.store.abort_upload(KEY, upload.upload_id)
    bench.source.cut_after = lambda _: 1 << 62
    with pytest.raises(UploadGoneError):
        bench.run()
    assert bench.find_upload() is None
    assert isinstance(bench.run(), Moved)
    assert bench.stored() == bench.content


def test_storage_trouble_is_told_and_what_was_stored_is_kept() -> None:
    bench = make_bench()
    upload = bench.store.upload_part

    def refuse(key: str, upload_id: str, number: int, body: memoryview, *, crc32: int) -> Part:
        if number == 6:
            raise StorageUnavailableError("S3 UploadPart failed (SlowDown).")
        return upload(key, upload_id, number, body, crc32=crc32)

    bench.store.upload_part = refuse  # type: ignore[method-assign]
    with pytest.raises(StorageUnavailableError):
        bench.run()
    upload_record = bench.find_upload()
    assert upload_record is not None
    assert upload_record.offset >= 4 * PART
    bench.store.upload_part = upload  # type: ignore[method-assign]
    assert isinstance(bench.run(), Moved)
    assert bench.stored() == bench.content


def test_a_failed_move_gives_its_memory_back_at_once() -> None:
    """A warm function that fails again and again while its source is down must not grow."""
    gc.collect()
    gc.disable()
    try:
        before = len(find_maps())
        for _ in range(5):
            bench = make_bench()
            bench.source.cut_after = lambda position: max(position, 2 * PART)
            with pytest.raises(SourceUnavailableError):
                bench.run()
            del bench
        assert len(find_maps()) == before
    finally:
        gc.enable()


def find_maps() -> list[object]:
    return [o for o in gc.get_objects() if isinstance(o, memoryview) and isinstance(o.obj, mmap.mmap)]


def test_without_libcrypto_a_file_moves_but_cannot_be_continued(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "_load_libcrypto", lambda: None)
    bench = make_bench()
    assert isinstance(bench.run(), Moved)
    assert bench.find_upload() is None
    bench = make_bench()
    bench.remaining = lambda: 0.0 if bench.source.read_ranges else 900.0
    bench.source.before_read = lambda position: time.sleep(0.001) if position > 5 * PART else None
    with pytest.raises(FileTooLargeError, match="libcrypto"):
        bench.run()


def test_a_source_that_sends_from_beyond_is_refused() -> None:
    bench = make_bench()
    bench.source.open_range = lambda start, end: ScriptedStream(bench.source, start + 1, end)  # type: ignore[method-assign]
    with pytest.raises(UnexpectedResponseError):
        bench.run()
    assert bench.store.keys == []
