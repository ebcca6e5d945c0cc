"""Functions that join the transfer of a large file: their messages, and what they do when the leading function dies."""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from modelhaul.domain.digests import Algorithm, Digest
from modelhaul.domain.errors import (
    AccessRequiredError,
    ModelhaulError,
    RateLimitedError,
    SourceUnavailableError,
    StorageUnavailableError,
)
from modelhaul.domain.files import Part, SourceFile
from modelhaul.domain.messages import JoinTransfer, Message, TransferFiles
from modelhaul.domain.tasks import Task, TaskStatus
from modelhaul.imports.dispatch import send_joins
from modelhaul.transfer.policy import TransferPolicy, count_functions
from modelhaul.transfer.session import LEASE_SECONDS
from modelhaul.transfer.settings import StreamSettings
from tests.fakes.deployment import QUICK, Deployment
from tests.fakes.message_queue import InMemoryMessageQueue
from tests.fakes.model_source import InMemoryModelSource

GIB = 1024**3
SIZE = 2 * 1024 * 1024
FILES = {"config.json": b"{}", "corpus.dat": bytes(range(256)) * (SIZE // 256)}
POLICY = TransferPolicy(small_file=64 * 1024, function_bytes=512 * 1024)
SETTINGS = replace(QUICK, part_size=lambda _: 32 * 1024, chunk=4096, join=5)


def read_slowly(_path: str, _offset: int) -> None:
    """A source that is slow enough for all functions."""
    time.sleep(0.0005)


def deploy(
    on_read: Callable[[str, int], None] = read_slowly, settings: StreamSettings = SETTINGS
) -> tuple[Deployment, InMemoryModelSource, Task]:
    """A planned import of one large file."""
    source = InMemoryModelSource({"m/model": {"main": FILES}}, on_read=on_read)
    deployment = Deployment(source, policy=POLICY)
    deployment.connect(deployment.database, deployment.store, deployment.queue, settings)
    task = deployment.submit("m/model")
    for message in deployment.queue.receive(deployment.clock()):
        deployment.deliver(message)
    return deployment, source, task


def receive_transfers(deployment: Deployment) -> tuple[TransferFiles, list[JoinTransfer], list[Message]]:
    """Return the message of the function that leads the transfer of the large file, those of others, and all others."""
    messages = deployment.queue.receive(deployment.clock())
    joins = [message for message in messages if isinstance(message, JoinTransfer)]
    (leads,) = (m for m in messages if isinstance(m, TransferFiles) and m.group == joins[0].group)
    return leads, joins, [message for message in messages if message not in (leads, *joins)]


@pytest.mark.parametrize(
    ("size", "total", "functions"),
    [
        (40 * GIB, 40 * GIB, 8),
        (40 * GIB, 160 * GIB, 4),
        (4 * GIB, 4 * GIB, 4),
        (GIB - 1, GIB - 1, 1),
        (4 * GIB, 163 * 4 * GIB, 1),
        (0, 0, 1),
    ],
)
def test_a_file_has_the_functions_of_its_share(size: int, total: int, functions: int) -> None:
    assert count_functions(size, total, TransferPolicy()) == functions


def test_a_large_file_has_a_message_for_each_further_function() -> None:
    queue = InMemoryMessageQueue()
    large = SourceFile("large", 4 * GIB, Digest(Algorithm.SHA256, "0" * 64))
    small = replace(large, path="small", size=1)
    sent = send_joins(queue, "task", {0: [large], 1: [small]}, TransferPolicy())
    assert queue.receive(time.time() + 1) == [JoinTransfer(task_id="task", group=0)] * 3
    assert sent == 3


def finish(deployment: Deployment, source: InMemoryModelSource, task: Task, messages: Iterable[Message]) -> None:
    for message in messages:
        deployment.deliver(message)
    deployment.run()
    assert deployment.find_task(task.id).status is TaskStatus.DONE
    assert source.bytes_read["corpus.dat"] <= SIZE + SETTINGS.part_size(SIZE)


def lease(deployment: Deployment, task: Task, group: int) -> None:
    """Lease the group for a function that does nothing."""
    now = deployment.clock()
    plan_id = deployment.find_task(task.id).plan_id or ""
    assert deployment.database.leases.lease_group(plan_id, group, owner="leading", now=now, until=now + LEASE_SECONDS)


def receive_at(deployment: Deployment, seconds: float) -> list[Message]:
    deployment.clock.now += seconds
    return deployment.receive()


def test_functions_import_a_large_file_together() -> None:
    deployment, source, task = deploy()
    leads, joins, others = receive_transfers(deployment)
    assert len(joins) == 3
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(deployment.deliver, [leads, *joins]))
    assert source.bytes_read["corpus.dat"] == SIZE
    finish(deployment, source, task, others)


def test_messages_of_a_finished_file_do_nothing() -> None:
    deployment, source, task = deploy()
    leads, joins, others = receive_transfers(deployment)
    deployment.deliver(leads)
    messages: list[Message] = [leads, *joins]
    for message in messages:
        deployment.deliver(message)
    assert deployment.receive() == []
    finish(deployment, source, task, others)


def test_a_hashed_file_is_completed_after_its_leading_function_died() -> None:
    deployment, source, task = deploy()
    leads, joins, others = receive_transfers(deployment)
    complete = deployment.store.complete_upload

    def die(*args: object, **options: object) -> str:
        raise KeyboardInterrupt

    deployment.store.complete_upload = die  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        deployment.deliver(leads)
    deployment.store.complete_upload = complete  # type: ignore[method-assign]
    deployment.deliver(joins[0])
    assert receive_at(deployment, LEASE_SECONDS) == [TransferFiles(task_id=task.id, group=leads.group)]
    finish(deployment, source, task, [leads, *others])


def test_a_function_returns_later_and_later_until_the_transfer_starts() -> None:
    deployment, source, task = deploy(settings=replace(SETTINGS, join=0))
    leads, (join, *_), others = receive_transfers(deployment)
    delays: list[float] = []
    messages: list[Message] = [join]
    while messages:
        lease(deployment, task, leads.group)
        for message in messages:
            deployment.deliver(message)
        due = deployment.queue.next_due
        delays += [due - deployment.clock.now] if due is not None else []
        messages = receive_at(deployment, max(LEASE_SECONDS, delays[-1]))
    assert delays == [10, 20, 40, 80, 160, 320, 640, 900]
    finish(deployment, source, task, [leads, *others])


@pytest.mark.parametrize(
    ("error", "delay"),
    [
        (SourceUnavailableError("refused"), 10),
        (RateLimitedError("too many requests", retry_after=100), 100),
        (StorageUnavailableError("unavailable"), 10),
        (AccessRequiredError("gated"), None),
    ],
)
def test_the_leading_function_continues_if_another_one_fails(error: ModelhaulError, delay: float | None) -> None:
    failing: list[ModelhaulError] = []

    def read(path: str, offset: int) -> None:
        read_slowly(path, offset)
        if failing and path == "corpus.dat":
            raise failing[0]

    deployment, source, task = deploy(read)
    leads, (join, *_), others = receive_transfers(deployment)
    deployment.remaining = lambda: 900.0 if source.bytes_read["corpus.dat"] < SIZE // 2 else 0.0
    deployment.deliver(leads)
    deployment.remaining = lambda: 900.0
    assert deployment.receive() == [leads]
    lease(deployment, task, leads.group)
    failing.append(error)
    deployment.deliver(join)
    due = deployment.queue.next_due
    assert (due - deployment.clock.now if due is not None else None) == delay
    assert deployment.find_task(task.id).status is TaskStatus.PENDING
    failing.clear()
    deployment.clock.now += LEASE_SECONDS
    finish(deployment, source, task, [leads, *others])


def test_a_function_waits_for_one_that_leads_the_transfer() -> None:
    deployment, source, task = deploy()
    leads, (join, *_), others = receive_transfers(deployment)
    deployment.remaining = lambda: 900.0 if source.bytes_read["corpus.dat"] < SIZE // 2 else 0.0
    deployment.deliver(leads)
    deployment.remaining = lambda: 900.0
    (following,) = deployment.receive()
    received = source.bytes_read["corpus.dat"]
    deployment.deliver(join)
    assert source.bytes_read["corpus.dat"] == received
    assert receive_at(deployment, 10) == [join.model_copy(update={"returns": 1})]
    finish(deployment, source, task, [following, *others])


def test_a_function_that_joins_cannot_end_the_import(monkeypatch: pytest.MonkeyPatch) -> None:
    deployment, source, task = deploy()
    leads, (join, *_), others = receive_transfers(deployment)
    lease(deployment, task, leads.group)

    def fail(*_: object) -> None:
        raise StorageUnavailableError("unavailable")

    with monkeypatch.context() as patch:
        patch.setattr(deployment.queue, "send", fail)
        for attempt in (4, 5):  # the last attempt, and one that crashed
            deployment.deliver(join.model_copy(update={"attempt": attempt}))
    assert deployment.find_task(task.id).status is TaskStatus.PENDING
    deployment.clock.now += LEASE_SECONDS
    finish(deployment, source, task, [leads, *others])


def test_a_function_that_joined_stops_when_the_import_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """It records what it has stored, so that the next import continues there."""
    deployment, source, task = deploy()
    leads, joins, _ = receive_transfers(deployment)
    upload_part = deployment.store.upload_part
    joined = False

    def join(*arguments: Any, **options: Any) -> Part:
        """Let a function join, and cancel the import when it stores its first part."""
        nonlocal joined
        if not joined:
            joined = True
            deployment.deliver(joins[0])
        elif deployment.find_task(task.id).status is TaskStatus.PENDING:
            deployment.finisher.cancel(task.id)
            deployment.clock.now += SETTINGS.heartbeat
        return upload_part(*arguments, **options)

    monkeypatch.setattr(deployment.store, "upload_part", join)
    deployment.deliver(leads)
    assert deployment.find_task(task.id).status is TaskStatus.FAILED
    assert source.bytes_read["corpus.dat"] < SIZE / 2
    (upload,) = deployment.tables.uploads.values()
    assert upload.claims == ()
    source.bytes_read.clear()
    deployment.submit("m/model")
    deployment.run()
    assert source.bytes_read["corpus.dat"] == SIZE - upload.offset
    deployment.check_promises({source.prefix("m/model"): FILES})


def test_a_function_that_joined_does_not_abort_an_upload_that_was_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stores a part while the import is cancelled, and the next one continues and pauses."""
    deployment, source, task = deploy()
    leads, joins, _ = receive_transfers(deployment)
    upload_part = deployment.store.upload_part
    stage = "alone"
    parts = 0

    def hold(*arguments: Any, **options: Any) -> Part:
        nonlocal stage, parts
        if stage == "alone" and any(upload.hashed for upload in deployment.tables.uploads.values()):
            stage = "joined"
            deployment.deliver(joins[0])
        elif stage == "joined":
            stage = "cancelled"
            deployment.finisher.cancel(task.id)
            deployment.submit("m/model")
            for message in deployment.receive():
                deployment.deliver(message)
            following, _, others = receive_transfers(deployment)
            deployment.remaining = lambda: 0.0 if parts > 2 else 300.0
            deployment.deliver(following)
            deployment.remaining = lambda: 300.0
            for message in others:
                deployment.deliver(message)
        elif stage == "cancelled":
            parts += 1
        return upload_part(*arguments, **options)

    monkeypatch.setattr(deployment.store, "upload_part", hold)
    deployment.deliver(leads)
    assert stage == "cancelled"
    (recorded,) = (upload for upload in deployment.tables.uploads.values() if not upload.is_taken_over)
    assert 0 < recorded.hashed < recorded.count
    source.bytes_read.clear()
    deployment.run()
    assert deployment.find_task(deployment.submitted[-1]).status is TaskStatus.DONE
    assert source.bytes_read["corpus.dat"] == SIZE - recorded.offset
    deployment.check_promises({source.prefix("m/model"): FILES})


def test_a_function_that_joins_after_its_model_was_deleted_does_nothing() -> None:
    deployment, source, task = deploy()
    leads, (join, *_), _ = receive_transfers(deployment)
    lease(deployment, task, leads.group)
    deployment.tables.models.clear()
    deployment.deliver(join)
    assert receive_at(deployment, 900) == []
    assert source.bytes_read["corpus.dat"] == 0
