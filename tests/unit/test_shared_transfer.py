"""One large file through several functions: whatever happens to them, only verified bytes become an object, once."""

import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from modelhaul.domain.digests import Algorithm
from modelhaul.domain.errors import LeaseLostError, ModelhaulError, SourceUnavailableError, UploadGoneError
from modelhaul.domain.files import Part
from modelhaul.domain.objects import ObjectRange
from modelhaul.domain.segments import FileUpload
from modelhaul.transfer import segments as segments_module
from modelhaul.transfer.engine import FileTransfer, Left, Moved, Paused
from modelhaul.transfer.segments import SegmentClaims, SegmentLostError
from tests.fakes.archive_store import InMemoryArchiveStore
from tests.fakes.object_store import InMemoryObjectStore
from tests.fakes.segments import InMemorySegmentRepository
from tests.unit.test_engine import KEY, PART, QUICK, UPLOAD, Bench, ScriptedStream, make_bench

SHARED = replace(QUICK, poll=0.001, join=20, heartbeat=0.05, patience=5)
WAIT = 20  # seconds until a thread that should have ended is a failure


class Killed(BaseException):
    """The function's process is gone: whatever it does next has no effect."""


@dataclass
class Function:
    """A function in its own thread. After `kill`, nothing that it does has an effect."""

    bench: Bench
    leads: bool
    lease: Any = None
    clock: Callable[[], float] = time.time
    engine: Any = SHARED
    outcome: Moved | Paused | Left | BaseException | None = None
    remaining: float = 900.0
    is_killed: threading.Event = field(default_factory=threading.Event)
    before: Callable[[str], object] = lambda _: None
    change_bytes: Callable[[memoryview], None] = lambda _: None
    transfer: FileTransfer = field(init=False)
    _thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> "Function":
        self._thread.start()
        return self

    def kill(self) -> None:
        self.is_killed.set()
        self.join()

    def join(self) -> Moved | Paused | Left | BaseException | None:
        self._thread.join(WAIT)
        assert not self._thread.is_alive(), "the function hangs"
        return self.outcome

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        bench = self.bench
        claims = SegmentClaims(
            repository=self._guard(InMemorySegmentRepository(bench.tables)),
            key=UPLOAD,
            owner=str(uuid.uuid4()),
            clock=self.clock,
        )
        self.transfer = FileTransfer(
            file=bench.file,
            key=KEY,
            open_range=self._open_range,
            uploads=self._guard(bench.store),
            claims=claims,
            lease=self._guard(self.lease or bench) if self.leads else None,
            remaining=lambda: self.remaining,
            settings=self.engine,
        )
        try:
            outcome = self.transfer.run()
            if isinstance(self.lease, HeldLease) and isinstance(outcome, Moved):
                self._check("finish")
                self.lease.finish()
            self.outcome = outcome
        except BaseException as error:  # noqa: BLE001 - looked at by the test
            self.outcome = error
        if isinstance(self.lease, HeldLease) and not self.is_killed.is_set():
            self.lease.release()

    def _open_range(self, start: int, end: int) -> ScriptedStream:
        self._check("open_range")
        stream = self.bench.source.open_range(start, end)
        readinto = stream.readinto

        def read(buffer: memoryview) -> int:
            self._check("readinto")
            count = readinto(buffer)
            self.change_bytes(buffer)
            return count

        stream.readinto = read  # type: ignore[method-assign]
        return stream

    def _guard(self, port: object) -> Any:
        return _Guarded(port, self._check)

    def _check(self, name: str) -> None:
        if self.is_killed.is_set():
            raise Killed
        self.before(name)


class _Guarded:
    def __init__(self, port: object, check: Callable[[str], None]) -> None:
        self._port, self._check_call = port, check

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._port, name)

        def call(*arguments: Any, **options: Any) -> Any:
            self._check_call(name)
            return method(*arguments, **options)

        return call


def start_functions(bench: Bench, count: int, **options: Any) -> list[Function]:
    """Start functions, of which the first leads the transfer."""
    return [Function(bench, leads=number == 0, **options).start() for number in range(count)]


def find_upload(bench: Bench) -> FileUpload:
    upload = bench.find_upload()
    assert upload is not None
    return upload


def wait_until(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def let_others_claim(bench: Bench, leading: Function, owners: int) -> None:
    """Let the leading function wait, after its first bytes, until this number of functions have segments."""

    have_claimed = threading.Event()

    def wait(name: str) -> None:
        if name == "readinto" and bench.find_upload() is not None and not have_claimed.is_set():
            wait_until(lambda: owners <= len({claim.owner for claim in find_upload(bench).claims}))
            have_claimed.set()

    leading.before = wait


def slow_down(bench: Bench) -> None:
    """A source at which all functions get a turn."""
    bench.source.before_read = lambda _: time.sleep(0.0005)


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_several_functions_transfer_a_file_once(algorithm: Algorithm) -> None:
    bench = make_bench(40 * PART + 7, algorithm)
    slow_down(bench)
    leading, *others = (Function(bench, leads=number == 0) for number in range(5))
    let_others_claim(bench, leading, 3)
    for function in (leading, *others):
        function.start()
    assert isinstance(leading.join(), Moved)
    assert all(isinstance(other.join(), Left) for other in others)
    assert bench.stored() == bench.content
    assert bench.uploads() == []
    assert sum(end - start for start, end in bench.source.read_ranges) == len(bench.content)
    assert len(bench.source.opened) > 3, "the functions have read different segments"


def test_a_function_that_joins_no_transfer_leaves() -> None:
    bench = make_bench()
    assert bench.open(replace(SHARED, join=0), lease=None).run() == Left(may_return=True)
    assert bench.uploads() == []


def test_a_source_without_ranges_is_read_by_the_leading_function_alone() -> None:
    bench = make_bench(40 * PART)
    bench.source.ranged = False
    slow_down(bench)
    leading, *others = start_functions(bench, 3)
    assert [other.join() for other in others] == [Left()] * 2
    assert isinstance(leading.join(), Moved)
    assert bench.source.opened == [(0, len(bench.content))]


def test_a_source_that_ignores_a_range_of_another_function_is_read_by_the_leading_one() -> None:
    bench = make_bench(40 * PART)
    slow_down(bench)
    leading = Function(bench, leads=True).start()
    wait_until(lambda: bench.find_upload() is not None)
    bench.source.ranged = False
    assert Function(bench, leads=False).start().join() == Left()
    assert isinstance(leading.join(), Moved)
    assert bench.stored() == bench.content


def test_without_libcrypto_no_other_function_joins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelhaul.domain.digests._load_libcrypto", lambda: None)
    bench = make_bench(40 * PART)
    slow_down(bench)
    leading, other = start_functions(bench, 2, engine=replace(SHARED, join=0.1))
    assert other.join() == Left(may_return=True)
    assert isinstance(leading.join(), Moved)
    assert bench.stored() == bench.content


def test_stored_entries_are_copied_by_several_functions() -> None:
    bench = make_bench(40 * PART)
    archives = InMemoryArchiveStore()
    etag = archives.put_archive("incoming/a.zip", b"head" + bench.content)
    bench.store = InMemoryObjectStore(min_part_size=1, archives=archives)
    slow_down(bench)
    origin = ObjectRange(archives.bucket, "incoming/a.zip", etag, 4, 4 + len(bench.content))
    outcomes: list[object] = []
    threads = [
        threading.Thread(
            target=lambda changes=changes: outcomes.append(bench.open(SHARED, origin=origin, **changes).run())
        )
        for changes in ({}, {"lease": None}, {"lease": None})
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Left", "Left", "Moved"]
    assert bench.stored() == bench.content


@pytest.mark.parametrize("dies_at", ["advance", "upload_part", "readinto"])
def test_the_segment_of_a_killed_function_is_taken_over(dies_at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The function that holds the hash state dies. All others wait until its lease expires."""
    monkeypatch.setattr(segments_module, "SEGMENT_SECONDS", 0.3)
    bench = make_bench(60 * PART)
    slow_down(bench)
    leading, holder, *others = (Function(bench, leads=number == 0) for number in range(4))
    lock, calls = threading.Lock(), {"count": 0}
    name = "replace_upload" if dies_at == "advance" else dies_at

    def die(called: str) -> None:
        with lock:
            calls["count"] += called == name
            if calls["count"] > 3:
                holder.is_killed.set()
                raise Killed

    def wait(called: str) -> None:
        if called == "readinto" and (upload := bench.find_upload()) is not None and upload.hashed >= 8:
            holder.is_killed.wait(WAIT)

    holder.before = die
    for function in (leading, *others):
        function.before = wait
    for function in (leading, holder, *others):
        function.start()
    assert isinstance(holder.join(), Killed)
    assert isinstance(leading.join(), Moved)
    assert all(isinstance(other.join(), Left) for other in others)
    assert bench.stored() == bench.content


def test_a_transfer_goes_on_without_its_leading_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments_module, "SEGMENT_SECONDS", 0.3)
    bench = make_bench(60 * PART)
    slow_down(bench)
    leading, *others = start_functions(bench, 3)
    wait_until(lambda: len(bench.source.opened) > 4)
    leading.kill()
    assert all(isinstance(other.join(), Left) for other in others)
    bench.source.read_ranges.clear()
    assert isinstance(bench.run(SHARED), Moved), "the next leading function"
    assert bench.stored() == bench.content


def test_a_late_function_finishes_no_segment_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function is delayed until its lease has expired and others have finished its segment."""
    monkeypatch.setattr(segments_module, "SEGMENT_SECONDS", 0.2)
    bench = make_bench(60 * PART)
    slow_down(bench)
    leading, late = (Function(bench, leads=leads) for leads in (True, False))
    resumed, stopped = threading.Event(), threading.Event()

    def delay(name: str) -> None:
        if name == "upload_part":
            stopped.set()
        if stopped.is_set():
            resumed.wait(WAIT)

    def wait(name: str) -> None:
        if name == "readinto" and bench.find_upload() is not None:
            stopped.wait(WAIT)

    leading.before, late.before = wait, delay
    leading.start()
    late.start()
    assert stopped.wait(WAIT)
    assert isinstance(leading.join(), Moved)
    resumed.set()
    late.join()
    assert isinstance(late.outcome, Left | ModelhaulError)
    assert bench.stored() == bench.content


def test_functions_wait_for_a_slow_holder() -> None:
    bench = make_bench(40 * PART)
    slow_down(bench)
    leading = Function(bench, leads=True)
    leading.before = lambda name: time.sleep(0.01) if name == "readinto" else None
    leading.start()
    others = [Function(bench, leads=False).start() for _ in range(2)]
    assert isinstance(leading.join(), Moved)
    assert all(isinstance(other.join(), Left) for other in others)
    assert bench.stored() == bench.content


def test_a_function_that_waits_too_long_releases_its_segment() -> None:
    bench = make_bench(40 * PART)
    slow_down(bench)
    leading, waiting = Function(bench, leads=True), Function(bench, leads=False, engine=replace(SHARED, patience=0.2))
    is_held = threading.Event()
    leading.before = lambda name: time.sleep(0.02) if name == "readinto" and not is_held.is_set() else None
    leading.start()
    assert waiting.start().join() == Left()
    owners = {claim.owner for claim in find_upload(bench).claims}
    assert len(owners) == 1
    is_held.set()
    assert isinstance(leading.join(), Moved)
    assert bench.stored() == bench.content


def test_a_function_is_not_waiting_while_it_downloads() -> None:
    bench = make_bench(40 * PART)
    leading, waiting = Function(bench, leads=True), Function(bench, leads=False, engine=replace(SHARED, patience=0.3))
    has_left = threading.Event()
    received: list[int] = []

    def read_slowly(buffer: memoryview) -> None:
        received.append(len(buffer))
        time.sleep(0.02)

    def hold_first_segment(name: str) -> None:
        if name == "readinto" and bench.find_upload() is not None:
            has_left.wait(WAIT)

    leading.before, waiting.change_bytes = hold_first_segment, read_slowly
    leading.start()
    assert waiting.start().join() == Left()
    assert len(received) * 0.02 > 2 * 0.3, "it has downloaded for longer than it waits"
    has_left.set()
    assert isinstance(leading.join(), Moved)


def test_a_leading_function_that_waited_for_others_has_advanced() -> None:
    bench = make_bench(40 * PART)
    slow_down(bench)
    upload = FileUpload(upload_id=bench.store.create_upload(KEY), size=40 * PART, part_size=PART, source_etag="e1")
    InMemorySegmentRepository(bench.tables).create_upload(UPLOAD, upload)
    has_ended = threading.Event()
    leading, other = Function(bench, leads=True), Function(bench, leads=False)
    leading.before = lambda name: has_ended.wait(WAIT) if name == "readinto" else None
    let_others_claim(bench, other, 2)
    other.start()
    wait_until(lambda: bool(find_upload(bench).claims))
    leading.start()
    wait_until(lambda: find_upload(bench).hashed >= 4)
    leading.remaining = 0.0
    has_ended.set()
    assert leading.join() == Paused()
    assert leading.transfer.advanced
    other.join()


def test_a_function_out_of_time_keeps_what_it_hashed_and_releases_the_rest() -> None:
    bench = make_bench(60 * PART)
    slow_down(bench)
    functions = start_functions(bench, 3)
    wait_until(lambda: (upload := bench.find_upload()) is not None and upload.hashed >= 8)
    for function in functions:
        function.remaining = 0.0
    assert [function.join() for function in functions] == [Paused()] * 3
    upload = find_upload(bench)
    assert upload.claims == ()
    bench.source.read_ranges.clear()
    assert isinstance(bench.run(), Moved)
    assert min(start for start, _ in bench.source.read_ranges) == upload.offset
    assert bench.stored() == bench.content


def test_wrong_bytes_are_discarded_and_the_others_stop() -> None:
    bench = make_bench(40 * PART)
    content = bench.content
    bench.source.content = content[: 17 * PART] + b"?" + content[17 * PART + 1 :]
    slow_down(bench)
    leading, *others = start_functions(bench, 3)
    assert isinstance(leading.join(), ModelhaulError)
    assert all(isinstance(other.join(), Left | ModelhaulError) for other in others)
    assert bench.store.keys == []
    assert bench.uploads() == []
    bench.source.content = content
    assert isinstance(bench.run(), Moved)
    assert bench.stored() == bench.content


@pytest.mark.parametrize("late_parts", [2, 4])
def test_parts_of_a_late_function_are_not_recorded(late_parts: int) -> None:
    """The claim of one function expires while it stores a segment, and another function stores and hashes it."""
    now = [0.0]
    bench = make_bench(8 * PART)
    upload_id = bench.store.create_upload(KEY)
    upload = FileUpload(upload_id=upload_id, size=8 * PART, part_size=PART)
    InMemorySegmentRepository(bench.tables).create_upload(UPLOAD, upload)
    late, other = (bench.open_claims(lambda: now[0]) for _ in range(2))
    late.find()
    other.find()
    assert [late.claim(4, []), late.claim(4, [range(1, 5)])] == [range(1, 5), range(5, 9)]
    now[0] = segments_module.SEGMENT_SECONDS + 1
    assert other.claim(4, []) == range(1, 5)
    recorded = [Part(number, f"{number:032x}", number) for number in range(1, 5)]
    other.advance(recorded, b"state")
    with pytest.raises(SegmentLostError):
        late.advance([Part(number, "f" * 32, 0) for number in range(1, late_parts + 1)], b"another state")
    assert other.list_parts() == recorded
    assert find_upload(bench).hash_state == b"state"


def test_a_function_does_not_claim_its_own_expired_segment_again() -> None:
    now = [0.0]
    bench = make_bench(8 * PART)
    claims = bench.open_claims(lambda: now[0])
    claims.start(FileUpload(upload_id="upload", size=8 * PART, part_size=PART))
    held = claims.claim(4, [])
    assert held == range(1, 5)
    now[0] = segments_module.SEGMENT_SECONDS + 1
    assert claims.claim(4, [held]) == range(5, 9)


def test_wrong_bytes_of_a_late_function_are_not_published(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function with wrong bytes is delayed until other functions have stored and hashed the file, and stores its
    parts last.
    """
    monkeypatch.setattr(segments_module, "SEGMENT_SECONDS", 0.3)
    bench = make_bench(40 * PART)
    slow_down(bench)
    upload = FileUpload(upload_id=bench.store.create_upload(KEY), size=40 * PART, part_size=PART, source_etag="e1")
    InMemorySegmentRepository(bench.tables).create_upload(UPLOAD, upload)
    late = Function(bench, leads=False)
    is_blocked, may_store, may_record = threading.Event(), threading.Event(), threading.Event()
    stored: list[str] = []

    def delay(name: str) -> None:
        if name == "upload_part":
            may_store.wait(WAIT)
            stored.append(name)
        if name == "replace_upload" and find_upload(bench).claims:
            is_blocked.set()
            may_record.wait(WAIT)

    late.before = delay
    late.change_bytes = lambda buffer: buffer.__setitem__(0, buffer[0] ^ 1)
    late.start()
    assert is_blocked.wait(WAIT)
    leading = Function(bench, leads=True)
    at_end, may_complete = threading.Event(), threading.Event()

    def pause(name: str) -> None:
        if name == "list_parts":
            at_end.set()
            may_complete.wait(WAIT)

    leading.before = pause
    leading.start()
    other = Function(bench, leads=False).start()
    assert at_end.wait(WAIT)
    may_store.set()
    wait_until(lambda: len(stored) >= 4)
    may_record.set()
    late.join()
    may_complete.set()
    other.join()
    assert isinstance(leading.join(), UploadGoneError)
    assert bench.store.keys == []
    assert isinstance(bench.run(), Moved)
    assert bench.stored() == bench.content


def test_late_functions_of_a_discarded_upload_change_nothing() -> None:
    bench = make_bench(40 * PART)
    slow_down(bench)
    resumed, stopped = threading.Event(), threading.Event()
    leading, late = Function(bench, leads=True), Function(bench, leads=False)
    let_others_claim(bench, leading, 2)
    leading.start()

    def delay(name: str) -> None:
        if name == "upload_part":
            stopped.set()
            resumed.wait(WAIT)

    late.before = delay
    late.start()
    assert stopped.wait(WAIT)
    old = find_upload(bench)
    leading.kill()
    bench.tables.uploads.clear()
    bench.store.abort_upload(KEY, old.upload_id)
    following = Function(bench, leads=True).start()
    wait_until(lambda: bench.find_upload() is not None)
    resumed.set()
    late.join()
    assert isinstance(late.outcome, Left | ModelhaulError)
    assert isinstance(following.join(), Moved)
    assert bench.stored() == bench.content


def test_an_error_of_a_function_releases_its_segment() -> None:
    bench = make_bench(40 * PART)
    slow_down(bench)
    leading, failing = Function(bench, leads=True).start(), Function(bench, leads=False)

    def fail(name: str) -> None:
        if name == "readinto":
            raise SourceUnavailableError("connection reset")

    failing.before = fail
    assert isinstance(failing.start().join(), SourceUnavailableError)
    assert len({claim.owner for claim in find_upload(bench).claims}) == 1
    assert isinstance(leading.join(), Moved)


@dataclass
class GroupLease:
    """The lease of the group, which one function has at a time."""

    now: Callable[[], float]
    lock: threading.Lock = field(default_factory=threading.Lock)
    owner: str | None = None
    until: float = 0.0
    is_done: bool = False

    def take(self) -> "HeldLease | None":
        with self.lock:
            if self.is_done or (self.owner is not None and self.until > self.now()):
                return None
            self.owner, self.until = str(uuid.uuid4()), self.now() + 90
            return HeldLease(self, self.owner)


@dataclass
class HeldLease:
    group: GroupLease
    owner: str

    def confirm(self) -> None:
        with self.group.lock:
            if self.group.is_done or self.group.owner != self.owner:
                raise LeaseLostError("Another function has leased the group.")
            self.group.until = self.group.now() + 90

    def renew(self, *, busy: float = 0.0) -> None:
        self.confirm()

    def record_offset(self, offset: int) -> None:
        self.confirm()

    def finish(self) -> None:
        self.confirm()
        self.group.is_done = True

    def release(self) -> None:
        with self.group.lock:
            if self.group.owner == self.owner:
                self.group.owner = None


class SharedTransfers(RuleBasedStateMachine):
    """Up to five functions, which are started, paused, delayed and killed at any time, at a source that fails."""

    @initialize(parts=st.integers(1, 40), rest=st.integers(1, PART), connections=st.integers(1, 3))
    def prepare(self, parts: int, rest: int, connections: int) -> None:
        self.now = 1_000.0
        self.bench = make_bench((parts - 1) * PART + rest)
        self.bench.source.before_read = self.read
        self.failing = False
        self.group = GroupLease(lambda: self.now)
        self.functions: list[Function] = []
        self.completing = threading.Lock()
        store = self.bench.store
        complete = store.complete_upload

        def complete_upload(key: str, upload_id: str, parts: Sequence[Part], *, size: int) -> str:
            with self.completing:
                assert not self.group.is_done, "the object would replace a recorded one"
                return complete(key, upload_id, parts, size=size)

        store.complete_upload = complete_upload  # type: ignore[method-assign]
        # A slow source opens more connections to itself.
        rate_window = 1e9 if connections == 1 else 0.0
        self.engine = replace(
            SHARED, connections=connections, rate_window=rate_window, slow_rate=1e18, reconnects=0, join=0.05
        )

    def read(self, position: int) -> None:
        time.sleep(0.0002)
        if self.failing:
            raise SourceUnavailableError("connection reset")

    def wait_for(self, function: Function) -> None:
        deadline = time.monotonic() + WAIT
        while function.is_running and time.monotonic() < deadline:
            self.now += 1  # leases of killed functions expire
            time.sleep(0.005)
        function.join()

    def start(self) -> Function:
        lease = self.group.take()
        function = Function(
            self.bench, leads=lease is not None, lease=lease, clock=lambda: self.now, engine=self.engine
        )
        self.functions.append(function.start())
        return function

    @rule()
    def start_function(self) -> None:
        if sum(function.is_running for function in self.functions) < 5:
            self.start()

    @rule(
        number=st.integers(0, 4),
        after=st.integers(0, 40),
        name=st.sampled_from(
            ["replace_upload", "upload_part", "readinto", "complete_upload", "delete_upload", "confirm"]
        ),
    )
    def kill_function(self, number: int, after: int, name: str) -> None:
        """Kill a function at one of its next calls."""
        running = [function for function in self.functions if function.is_running]
        if running:
            function, left = running[number % len(running)], [after]

            def die(called: str) -> None:
                left[0] -= called == name
                if left[0] < 0:
                    function.is_killed.set()
                    raise Killed

            function.before = die

    @rule(number=st.integers(0, 4))
    def pause_function(self, number: int) -> None:
        running = [function for function in self.functions if function.is_running]
        if running:
            running[number % len(running)].remaining = 0.0

    @rule(seconds=st.sampled_from([1.0, 70.0, 100.0]))
    def pass_time(self, seconds: float) -> None:
        """Leases of functions that are running expire as well, as those of functions that were delayed."""
        self.now += seconds

    @rule(seconds=st.sampled_from([0.005, 0.03]))
    def let_run(self, seconds: float) -> None:
        time.sleep(seconds)

    @rule(failing=st.booleans())
    def change_source(self, failing: bool) -> None:
        self.failing = failing

    @rule()
    def spoil_source(self) -> None:
        content = self.bench.content
        place = len(content) // 2
        self.bench.source.content = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        time.sleep(0.01)
        self.bench.source.content = content

    @invariant()
    def only_the_whole_file_is_visible(self) -> None:
        if self.bench.store.keys:
            assert self.bench.stored() == self.bench.content

    def teardown(self) -> None:
        if not hasattr(self, "bench"):
            return
        self.failing = False
        for _ in range(30):
            if self.group.is_done:
                break
            self.now += 100
            self.wait_for(self.start())
        for function in self.functions:
            self.wait_for(function)
        assert self.group.is_done, [function.outcome for function in self.functions]
        assert self.bench.stored() == self.bench.content
        expected = (Moved, Paused, Left, Killed, ModelhaulError)
        assert all(isinstance(function.outcome, expected) for function in self.functions), [
            function.outcome for function in self.functions
        ]


TestSharedTransfers = pytest.mark.slow(SharedTransfers.TestCase)
TestSharedTransfers.settings = settings(
    max_examples=20, stateful_step_count=20, deadline=None, phases=(Phase.generate,)
)
