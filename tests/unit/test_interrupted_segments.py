"""Functions that transfer one large file together, and die, run out of time, are late or are cancelled at any call.

The functions run inside each other's calls, so that each test tries every call of one of them.
"""

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from modelhaul.domain.files import SourceFile
from modelhaul.domain.messages import JoinTransfer, Message, TransferFiles
from modelhaul.domain.models import ResolvedModel
from modelhaul.domain.segments import UploadKey
from modelhaul.domain.tasks import TaskStatus
from modelhaul.transfer.policy import TransferPolicy
from tests.fakes.model_source import InMemoryModelSource, InMemoryStream
from tests.troubles import (
    LARGE,
    PART,
    STREAM,
    WEIGHTS,
    Effect,
    Guarded,
    KilledError,
    Kind,
    Trouble,
    Troublemaker,
    WatchedDeployment,
)

NAME = "org/model"
PATH = "model.safetensors"
FILES = {"config.json": b'{"a": 1}', PATH: WEIGHTS}
POLICY = TransferPolicy(small_file=LARGE, min_indexed=LARGE // 2, function_bytes=2 * PART)
SHARED = replace(STREAM, join=0.02)
WAIT = 20  # seconds until a thread that should have ended is a failure
HELD = [Trouble(Kind.DUPLICATE, at, Effect.ALL, name) for name, at in (("upload_part", 1), ("replace_upload", 2))]
"""Calls of the leading function in which others run."""
EVERYWHERE = [*HELD, *(replace(HELD[0], operation=name) for name in ("replace_upload", "complete_upload"))]


class SharedImport:
    """An import whose large file has messages for three functions. All other files are done."""

    def __init__(self) -> None:
        self.source = InMemoryModelSource({NAME: {"main": dict(FILES)}})
        self.deployment = WatchedDeployment(self.source, policy=POLICY)
        self.deployment.connect(self.deployment.database, self.deployment.store, self.deployment.queue, SHARED)
        self.task = self.deployment.submit(NAME)
        (plan,) = self.deployment.receive()
        self.deployment.deliver(plan)
        messages = [m for m in self.deployment.receive() if isinstance(m, TransferFiles | JoinTransfer)]
        self.shared = [message for message in messages if message.group == 0]
        assert len(self.shared) == 3
        for message in messages:
            if message.group != 0:
                self.deployment.deliver(message)

    def run(
        self,
        message: Message,
        *troubles: Trouble,
        meanwhile: Callable[[Troublemaker], None] = lambda _: None,
        source: InMemoryModelSource | None = None,
    ) -> list[Kind]:
        """Deliver the message to a function of its own. Return the troubles that it had."""
        trouble = Troublemaker(lambda _: meanwhile(trouble))

        def guard(port: str, target: Any) -> Any:
            return Guarded(port, target, trouble)

        shared = self.deployment
        function = copy.copy(shared)
        function.source = guard("source", source or self.source)
        function.remaining = lambda: 0.0 if trouble.late else 300.0
        database = shared.database.map(lambda repository: guard("database", repository))
        function.connect(database, guard("store", shared.store), guard("queue", shared.queue), SHARED)
        with trouble.plan(list(troubles)):
            with suppress(KilledError):
                function.deliver(message)
            return list(trouble.hits)

    @property
    def status(self) -> TaskStatus:
        return self.deployment.find_task(self.task.id).status

    def check(self) -> None:
        """Let all tasks end, and check what they have left."""
        deployment = self.deployment
        deployment.sweep_until_quiet()
        deployment.check_promises({self.source.prefix(NAME): FILES})
        for task in map(deployment.find_task, deployment.submitted):
            progress = task.progress
            assert (progress.files_done == progress.files_total) is (task.status is TaskStatus.DONE)
        assert deployment.unexpected == []


def go_through(run: Callable[[int], bool], *, least: int) -> None:
    """Try every call. `run` returns whether there was a call with this number."""
    calls = next(at for at in count(1) if not run(at))
    assert calls > least, "the function has many calls"


@pytest.mark.slow
@pytest.mark.parametrize("others", [1, 2])
@pytest.mark.parametrize(
    ("kind", "effect"),
    [(Kind.KILL, Effect.NONE), (Kind.KILL, Effect.ALL), (Kind.LATE, Effect.ALL)],
    ids=["killed-before", "killed-after", "late"],
)
def test_a_file_is_stored_whichever_call_is_the_last_of_its_leading_function(
    others: int, kind: Kind, effect: Effect
) -> None:
    """The others join in the call before, and have stored some later segments."""

    def run(at: int) -> bool:
        import_ = SharedImport()
        leading, *joining = import_.shared[: others + 1]

        def join(_: Troublemaker) -> None:
            for message in joining:
                import_.run(message)

        troubles = Trouble(Kind.DUPLICATE, at, Effect.ALL), Trouble(kind, at, effect)
        hits = import_.run(leading, *troubles, meanwhile=join)
        if kind is Kind.KILL:
            import_.run(leading)
        import_.check()
        assert import_.status is TaskStatus.DONE, at
        return Kind.DUPLICATE in hits

    go_through(run, least=40)


@pytest.mark.slow
@pytest.mark.parametrize("effect", [Effect.NONE, Effect.ALL])
@pytest.mark.parametrize("held", EVERYWHERE, ids=lambda trouble: f"{trouble.operation}-{trouble.at}")
def test_a_file_is_stored_whichever_call_kills_a_joined_function(held: Trouble, effect: Effect) -> None:
    """The leading function does not need the sweep."""

    def run(at: int) -> bool:
        import_ = SharedImport()
        leading, joining, _ = import_.shared
        killed: list[Kind] = []

        def join(_: Troublemaker) -> None:
            killed.extend(import_.run(joining, Trouble(Kind.KILL, at, effect)))

        assert import_.run(leading, held, meanwhile=join) == [Kind.DUPLICATE]
        import_.deployment.run()
        assert import_.status is TaskStatus.DONE, at
        import_.check()
        return bool(killed)

    go_through(run, least=3 if held.operation == "complete_upload" else 10)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0, 70, 400], ids=["at-once", "claims-expired", "leases-expired"])
@pytest.mark.parametrize("held", HELD, ids=lambda trouble: trouble.operation)
def test_a_late_function_changes_nothing_that_others_have_finished(held: Trouble, seconds: int) -> None:
    """A third function takes the segments of both others over while they wait in a call, if their claims expire."""

    def run(at: int) -> bool:
        import_ = SharedImport()
        leading, joining, third = import_.shared
        late: list[Kind] = []

        def take_over(_: Troublemaker) -> None:
            import_.deployment.clock.now += seconds
            import_.run(third)

        def join(_: Troublemaker) -> None:
            late.extend(import_.run(joining, Trouble(Kind.TAKE_OVER, at, Effect.ALL), meanwhile=take_over))

        import_.run(leading, held, meanwhile=join)
        import_.check()
        assert import_.status is TaskStatus.DONE, at
        return bool(late)

    go_through(run, least=10)


@pytest.mark.slow
@pytest.mark.parametrize("again", [False, True], ids=["cancelled", "imported-again"])
@pytest.mark.parametrize(
    "held",
    [*EVERYWHERE, replace(HELD[0], operation="create_upload")],
    ids=lambda trouble: f"{trouble.operation}-{trouble.at}",
)
def test_functions_of_a_cancelled_import_leave_nothing(held: Trouble, again: bool) -> None:
    """The import is cancelled and cleaned up while a joined function waits in a call. Another one joins afterwards."""

    def run(at: int) -> bool:
        import_ = SharedImport()
        deployment = import_.deployment
        leading, joining, third = import_.shared
        cancelled: list[Kind] = []

        def cancel(_: Troublemaker) -> None:
            deployment.finisher.cancel(import_.task.id)
            if again:
                deployment.submit(NAME)
            deployment.sweep_until_quiet()
            import_.run(third)

        def join(_: Troublemaker) -> None:
            cancelled.extend(import_.run(joining, Trouble(Kind.CANCEL, at, Effect.ALL), meanwhile=cancel))

        import_.run(leading, held, meanwhile=join)
        import_.check()
        assert import_.status is (TaskStatus.FAILED if cancelled else TaskStatus.DONE), at
        assert deployment.find_task(deployment.submitted[-1]).status is (
            TaskStatus.FAILED if cancelled and not again else TaskStatus.DONE
        ), at
        return bool(cancelled)

    go_through(run, least=3 if held.operation in ("complete_upload", "create_upload") else 10)


@pytest.mark.slow
@pytest.mark.parametrize("cancelled", [False, True], ids=["stored", "cancelled"])
def test_each_call_of_the_leading_function_can_be_shared(cancelled: bool) -> None:
    """Both others join in it, one inside a call of the other."""

    def run(at: int) -> bool:
        import_ = SharedImport()
        leading, joining, third = import_.shared

        def join_again(_: Troublemaker) -> None:
            import_.run(third)
            if cancelled:
                import_.deployment.finisher.cancel(import_.task.id)

        def join(_: Troublemaker) -> None:
            import_.run(joining, Trouble(Kind.DUPLICATE, 12, Effect.ALL), meanwhile=join_again)

        hits = import_.run(leading, Trouble(Kind.DUPLICATE, at, Effect.ALL), meanwhile=join)
        if not cancelled:
            import_.deployment.run()
            assert import_.status is TaskStatus.DONE, at
        import_.check()
        return bool(hits)

    go_through(run, least=40)


class CorruptStream(InMemoryStream):
    """A response with a wrong byte in each read, and the right ETag."""

    def readinto(self, buffer: memoryview) -> int:
        received = super().readinto(buffer)
        buffer[0] ^= 1
        return received


class CorruptSource(InMemoryModelSource):
    def open_range(self, model: ResolvedModel, file: SourceFile, start: int, end: int) -> InMemoryStream:
        return CorruptStream(self, file.path, self.models[NAME]["main"][file.path], start, end)


@pytest.fixture
def stopped() -> Iterator[tuple[threading.Event, threading.Event]]:
    """Events: a function waits; it can continue."""
    is_waiting, can_continue = threading.Event(), threading.Event()
    yield is_waiting, can_continue
    can_continue.set()


@pytest.mark.parametrize("held", ["list_parts", "complete_upload"])
@pytest.mark.parametrize("stops_at", ["upload_part", "replace_upload"])
def test_wrong_bytes_of_a_late_function_are_not_published(
    stopped: tuple[threading.Event, threading.Event], stops_at: str, held: str
) -> None:
    """It stores its parts after another function has stored and hashed them, before the upload is completed."""
    import_ = SharedImport()
    deployment = import_.deployment
    is_waiting, can_continue = stopped
    leading, joining, _ = import_.shared
    corrupt = CorruptSource({NAME: {"main": dict(FILES)}})

    def wait(_: Troublemaker) -> None:
        is_waiting.set()
        assert can_continue.wait(WAIT)

    def transfer_late() -> None:
        trouble = Trouble(Kind.DUPLICATE, 1 if stops_at == "upload_part" else 2, Effect.ALL, stops_at)
        import_.run(joining, trouble, meanwhile=wait, source=corrupt)

    late = threading.Thread(target=transfer_late, daemon=True)

    def end_early(trouble: Troublemaker) -> None:
        late.start()
        assert is_waiting.wait(WAIT)
        trouble.late = True

    def go_on(_: Troublemaker) -> None:
        can_continue.set()
        late.join(WAIT)
        assert not late.is_alive()

    import_.run(leading, replace(HELD[0], at=2), meanwhile=end_early)
    plan_id = deployment.find_task(import_.task.id).plan_id or ""
    upload = deployment.database.segments.find_upload(UploadKey(plan_id, 0, 0))
    assert upload is not None
    assert 0 < upload.hashed < upload.count
    deployment.clock.now += 70
    (following,) = deployment.receive()
    assert import_.run(following, Trouble(Kind.DUPLICATE, 1, Effect.ALL, held), meanwhile=go_on)
    import_.check()
    assert import_.status is TaskStatus.DONE
