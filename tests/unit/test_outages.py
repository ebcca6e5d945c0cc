"""Half an hour in which a source or an AWS service does not respond, from any call of an import on."""

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from modelhaul.catalog.presentation import present_task
from modelhaul.domain.errors import ModelhaulError, SourceUnavailableError, StorageUnavailableError
from modelhaul.domain.files import FileRecord
from modelhaul.domain.models import Source
from modelhaul.domain.segments import UploadKey
from modelhaul.domain.tasks import Stage, Task, TaskStatus
from modelhaul.transfer.policy import TransferPolicy
from tests.fakes.deployment import Deployment
from tests.fakes.model_source import InMemoryModelSource
from tests.troubles import LARGE, PART, STREAM, WEIGHTS, Effect, Guarded, Troublemaker, WatchedDeployment

NAME = "org/model"
FILES = {
    "config.json": b'{"a": 1}',
    "copy/config.json": b'{"a": 1}',
    "medium.txt": b"medium " * 400,
    "model.safetensors": WEIGHTS,
    "tokenizer.json": b"{}",
}
OUTAGE = 1800.0  # seconds
# A large file has a message for each of two functions.
POLICY = TransferPolicy(small_file=LARGE, group_files=2, min_indexed=LARGE // 2, function_bytes=3 * PART, copy_groups=1)

ONE_COPIER = replace(POLICY, copy_groups=len(FILES))  # publish_models copies the files itself


class Outage(Troublemaker):
    """From call number `at` of a port on, all calls of the port fail for half an hour."""

    def __init__(self, port: str, at: int, clock: Callable[[], float], error: ModelhaulError) -> None:
        super().__init__(lambda _: None)
        self.started_at: float | None = None
        self._port = port
        self._at = at
        self._clock = clock
        self._error = error
        self._calls = 0
        self._counting = threading.Lock()

    def call(self, port: str, operation: str, effect: Callable[[Effect], Any]) -> Any:
        if port == self._port:
            with self._counting:
                self._calls += 1
                if self._calls == self._at:
                    self.started_at = self._clock()
            if self.started_at is not None and self._clock() < self.started_at + OUTAGE:
                raise self._error
        return effect(Effect.ALL)


class InterruptedImport:
    """An import of FILES with an outage. `read_again` has the reads of bytes that are recorded as stored."""

    def __init__(self, port: str, at: int, *, kind: Source, policy: TransferPolicy) -> None:
        self.source = InMemoryModelSource({NAME: {"main": dict(FILES)}}, kind=kind, on_read=self._check_read)
        self.deployment = deployment = WatchedDeployment(self.source, policy=policy)
        self.task = deployment.submit(NAME, source=kind)
        error: type[ModelhaulError] = SourceUnavailableError if port == "source" else StorageUnavailableError
        self.outage = Outage(port, at, deployment.clock, error("There is no response."))
        self.read_again: list[tuple[str, int]] = []
        self.waits: list[Task] = []

        def guard(name: str, target: Any) -> Any:
            return Guarded(name, target, self.outage)

        deployment.source = guard("source", self.source)
        deployment.connect(
            deployment.database.map(lambda repository: guard("database", repository)),
            guard("store", deployment.store),
            guard("queue", deployment.queue),
            STREAM,
        )

    def run(self) -> bool:
        """Deliver all messages. Return whether the outage began."""
        deployment = self.deployment
        while (due := deployment.queue.next_due) is not None:
            deployment.clock.now = max(deployment.clock.now, due)
            for message in deployment.receive():
                deployment.deliver(message)
                self.waits += [task for task in [deployment.find_task(self.task.id)] if task.waiting is not None]
        self._sweep_until_quiet()
        return self.outage.started_at is not None

    def _sweep_until_quiet(self) -> None:
        """Run the sweep every five minutes. During an outage of its database, it fails."""
        while True:
            try:
                self.deployment.sweep_until_quiet()
            except StorageUnavailableError:
                self.deployment.clock.now += 300
            else:
                return

    def _check_read(self, path: str, offset: int) -> None:
        task = self.deployment.find_task(self.task.id)
        for group in self.deployment.database.files.list_groups(task.plan_id or ""):
            for position, record in enumerate(group.records):
                if record.file.path == path and self._is_stored(record, group.number, position, offset):
                    self.read_again.append((path, offset))

    def _is_stored(self, record: FileRecord, group: int, position: int, offset: int) -> bool:
        plan_id = self.deployment.find_task(self.task.id).plan_id or ""
        upload = self.deployment.tables.uploads.get(UploadKey(plan_id, group, position))
        return record.sha256 is not None or (upload is not None and offset < upload.offset)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("port", "kind", "policy", "waiting_stages"),
    [
        ("source", Source.HUGGINGFACE, POLICY, {Stage.PLANNING, Stage.TRANSFERRING}),
        ("source", Source.GITHUB, POLICY, {Stage.PLANNING, Stage.TRANSFERRING}),
        ("store", Source.HUGGINGFACE, POLICY, {Stage.TRANSFERRING, Stage.PUBLISHING}),
        ("store", Source.HUGGINGFACE, ONE_COPIER, {Stage.TRANSFERRING, Stage.PUBLISHING}),
        ("database", Source.HUGGINGFACE, POLICY, set()),  # the wait cannot be recorded
    ],
    ids=["hub", "github", "s3", "s3-one-copier", "dynamodb"],
)
def test_an_import_continues_after_an_outage_at_any_call(
    port: str, kind: Source, policy: TransferPolicy, waiting_stages: set[Stage]
) -> None:
    at, has_begun = 0, True
    stages: set[Stage | None] = set()
    while has_begun:
        at += 1
        interrupted = InterruptedImport(port, at, kind=kind, policy=policy)
        has_begun = interrupted.run()
        deployment = interrupted.deployment
        task = deployment.find_task(interrupted.task.id)
        assert task.status is TaskStatus.DONE, (at, task.error)
        assert interrupted.read_again == [], at
        assert deployment.metrics.values["Retries"] == 0, at
        assert deployment.metrics.values["SweepRecoveries"] == 0 or port == "database", at
        assert deployment.unexpected == []
        deployment.check_promises({interrupted.source.prefix(NAME): FILES})
        stages |= {waiting.waiting_stage for waiting in interrupted.waits}
    assert at > 10
    assert stages == waiting_stages


def test_a_task_tells_what_it_waits_for() -> None:
    """The wait is shown as long as the task is at the same stage and no bytes are counted."""
    source = InMemoryModelSource({NAME: {"main": dict(FILES)}})
    deployment = Deployment(source, policy=POLICY)
    deployment.connect(deployment.database, deployment.store, deployment.queue, STREAM)
    task = deployment.submit(NAME)
    is_down = True

    def refuse(_path: str, _offset: int) -> None:
        if is_down:
            raise SourceUnavailableError("huggingface.co refused the connection.")

    def show() -> dict[str, Any]:
        now = datetime.fromtimestamp(deployment.clock.now, UTC)
        return present_task(deployment.find_task(task.id), now=now)

    def deliver_due() -> None:
        deployment.clock.now = max(deployment.clock.now, deployment.queue.next_due or 0)
        for message in deployment.receive():
            deployment.deliver(message)

    source.on_read = refuse
    assert "waiting" not in show()
    while "waiting" not in show():
        deliver_due()
    first = show()["waiting"]
    assert first["reason"] == "source-unavailable"
    assert first["detail"] == "huggingface.co refused the connection."
    assert first["since"] < first["next_attempt"]
    for _ in range(10):
        deliver_due()
    later = show()["waiting"]
    assert later["since"] == first["since"]
    assert later["attempt"] > first["attempt"]
    is_down = False
    deployment.run()
    assert "waiting" not in show()
    assert deployment.find_task(task.id).status is TaskStatus.DONE
