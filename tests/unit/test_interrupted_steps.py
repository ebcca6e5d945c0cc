"""Functions that die, are cancelled or are overtaken at any call of any step of an import.

`tests.unit.test_promises` tries random histories. These tests go through one import call by call.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from modelhaul.domain.files import FileGroup, SourceFile
from modelhaul.domain.gate import PicklePolicy
from modelhaul.domain.keys import manifest_key
from modelhaul.domain.messages import CopyFiles, Message, PublishModels, TransferFiles
from modelhaul.domain.models import ModelStatus
from modelhaul.domain.tasks import Stage, Task, TaskStatus
from modelhaul.transfer.policy import TransferPolicy
from tests.fakes.deployment import Deployment
from tests.fakes.model_source import InMemoryModelSource
from tests.troubles import (
    LARGE,
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
FILES = {
    "config.json": b'{"a": 1}',
    "copy/config.json": b'{"a": 1}',
    "empty.txt": b"",
    "medium.txt": b"medium " * 400,
    "model.safetensors": WEIGHTS,
    "vocab.txt": b"a\nb\n",
}
POLICY = TransferPolicy(small_file=LARGE, group_files=2, min_indexed=LARGE // 2, copy_groups=1)


class Interrupted:
    """An import of FILES whose `at`-th call to a port is interrupted."""

    def __init__(
        self, meanwhile: Callable[["Interrupted"], None] = lambda _: None, *, policy: TransferPolicy = POLICY
    ) -> None:
        self.source = InMemoryModelSource({NAME: {"main": dict(FILES)}})
        self.trouble = Troublemaker(lambda _: meanwhile(self))
        self.deployment = deployment = WatchedDeployment(self.source, policy=policy)
        self.waiting: list[Message] = []

        def guard(port: str, target: Any) -> Any:
            return Guarded(port, target, self.trouble)

        deployment.connect(
            deployment.database.map(lambda repository: guard("database", repository)),
            guard("store", deployment.store),
            guard("queue", deployment.queue),
            STREAM,
        )
        create_checker = deployment.transferrer.create_checker
        deployment.transferrer = replace(
            deployment.transferrer, create_checker=lambda: guard("checker", create_checker())
        )
        self.task = deployment.submit(NAME)

    def run(self, kind: Kind, at: int, effect: Effect = Effect.ALL, *, deliveries: int = 1) -> bool:
        """Deliver messages until the trouble strikes and its function has ended. Return False if it does not strike."""
        deployment = self.deployment
        with self.trouble.plan([Trouble(kind, at, effect)]):
            while not self.trouble.hits and (self.waiting or deployment.queue.next_due is not None):
                self.waiting += deployment.receive()
                try:
                    deployment.deliver(self.waiting[0], deliveries=deliveries)
                except KilledError:
                    break
                self.waiting.pop(0)
            return bool(self.trouble.hits)

    def deliver_waiting(self) -> None:
        while self.waiting:
            self.deployment.deliver(self.waiting.pop(0))
        self.deployment.run()

    def take_over(self) -> None:
        """Let other functions finish the import while the interrupted one waits."""
        self.deployment.clock.now += 400
        self.deployment.sweeper.sweep_stale(lambda: 300.0)
        current, self.waiting = self.waiting, self.waiting[1:]
        self.deliver_waiting()
        self.waiting = current[:1]

    @property
    def status(self) -> TaskStatus:
        return self.deployment.find_task(self.task.id).status

    def check(self) -> None:
        deployment = self.deployment
        deployment.check_promises({self.source.prefix(NAME): FILES})
        models = deployment.database.models.find_models(self.task.model_ids)
        manifests = [manifest_key(model.model_id) for model in models if model.status is ModelStatus.READY]
        assert [key for key in list_visible(deployment) if key.startswith("manifests/")] == manifests
        assert deployment.unexpected == []

    def import_again(self) -> Task:
        task = self.deployment.submit(NAME)
        self.deployment.run()
        return self.deployment.find_task(task.id)


def list_visible(deployment: Deployment) -> list[str]:
    return [key for key in deployment.store.keys if not key.startswith("staging/")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("redelivered", "effect"), [(True, Effect.ALL), (False, Effect.NONE)], ids=["redelivered-after", "lost-before"]
)
def test_an_import_ends_whichever_call_kills_its_function(redelivered: bool, effect: Effect) -> None:
    at, strikes = 0, True
    while strikes:
        at += 1
        interrupted = Interrupted()
        strikes = interrupted.run(Kind.KILL, at, effect)
        if interrupted.waiting and redelivered:
            interrupted.deployment.deliver(interrupted.waiting.pop(0), deliveries=2)
        elif interrupted.waiting:
            del interrupted.waiting[0]
        interrupted.deliver_waiting()
        interrupted.deployment.sweep_until_quiet()
        assert interrupted.status is TaskStatus.DONE, at
        interrupted.check()
        assert interrupted.source.bytes_read["model.safetensors"] <= 2 * len(WEIGHTS), at
    assert at > 50, "the import has many calls"


@pytest.mark.slow
@pytest.mark.parametrize("one_copier", [False, True], ids=["several-copiers", "one-copier"])
def test_an_import_that_is_cancelled_at_any_call_leaves_nothing_visible_and_is_continued(one_copier: bool) -> None:
    """With one copier, every message is a redelivery: its function also continues what another one has started."""
    policy = replace(POLICY, copy_groups=len(FILES)) if one_copier else POLICY
    at, strikes = 0, True
    while strikes:
        at += 1
        interrupted = Interrupted(
            lambda import_: import_.deployment.finisher.cancel(import_.task.id),
            policy=policy,
        )
        strikes = interrupted.run(Kind.CANCEL, at, deliveries=2 if one_copier else 1)
        interrupted.deliver_waiting()
        deployment = interrupted.deployment
        deployment.sweep_until_quiet()
        interrupted.check()
        if interrupted.status is TaskStatus.DONE:
            continue
        assert list_visible(deployment) == [], at
        plan_id = deployment.find_task(interrupted.task.id).plan_id or ""
        records = [r for group in deployment.database.files.list_groups(plan_id) for r in group.records]
        interrupted.source.bytes_read.clear()
        assert interrupted.import_again().status is TaskStatus.DONE
        for record in records:
            assert record.sha256 is None or not interrupted.source.bytes_read[record.file.path], at
        interrupted.check()
    assert at > 50


@pytest.mark.slow
@pytest.mark.parametrize("again", [False, True], ids=["deleted", "imported-again"])
def test_a_function_that_is_overtaken_brings_nothing_back(again: bool) -> None:
    """Others finish the import while it waits, and its model is deleted, and perhaps imported again."""
    deleted: list[bool] = []

    def overtake(import_: Interrupted) -> None:
        import_.take_over()
        if import_.status is not TaskStatus.DONE:
            return
        model_id = import_.task.model_ids[0]
        import_.deployment.deleted.add(model_id)
        deleted.append(import_.deployment.deleter.delete_model(model_id, lambda: 300.0))
        if again:
            import_.import_again()

    at, strikes = 0, True
    while strikes:
        at += 1
        interrupted = Interrupted(overtake)
        strikes = interrupted.run(Kind.TAKE_OVER, at)
        interrupted.deliver_waiting()
        deployment = interrupted.deployment
        deployment.sweep_until_quiet()
        models = deployment.database.models.find_models(interrupted.task.model_ids)
        assert len(models) == (again or not deployment.deleted), at
        assert all(model.status is ModelStatus.READY for model in models), at
        interrupted.check()
    assert all(deleted)
    assert len(deleted) > 50


@pytest.fixture
def source() -> InMemoryModelSource:
    return InMemoryModelSource({NAME: {"main": dict(FILES)}})


@pytest.fixture
def deployment(source: InMemoryModelSource) -> Deployment:
    deployment = Deployment(source, policy=POLICY)
    deployment.connect(deployment.database, deployment.store, deployment.queue, STREAM)
    return deployment


def bring_to(deployment: Deployment, task: Task, stage: Stage) -> list[Message]:
    """Deliver messages until the task is at the stage. Return the messages that are then due."""
    while deployment.find_task(task.id).stage is not stage:
        for message in deployment.receive():
            deployment.deliver(message)
    return deployment.receive()


def list_groups(deployment: Deployment, task: Task) -> list[FileGroup]:
    return list(deployment.database.files.list_groups(deployment.find_task(task.id).plan_id or ""))


def kill_at(monkeypatch: pytest.MonkeyPatch, port: object, operation: str, *, after: bool = False) -> None:
    """Kill the function once, at the next call of the operation: before the call, or after it."""
    original = getattr(port, operation)

    def kill(*arguments: Any, **options: Any) -> None:
        monkeypatch.setattr(port, operation, original)
        if after:
            original(*arguments, **options)
        raise KilledError

    monkeypatch.setattr(port, operation, kill)


def count_copies(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list of published keys that copies are made to from now on."""
    copied: list[str] = []
    copy = deployment.store.copy

    def count(source_key: str, key: str, *, size: int, etag: str) -> str:
        copied.append(key)
        return copy(source_key, key, size=size, etag=etag)

    monkeypatch.setattr(deployment.store, "copy", count)
    return copied


def check_done(deployment: Deployment, source: InMemoryModelSource, task: Task) -> None:
    assert deployment.find_task(task.id).status is TaskStatus.DONE
    deployment.check_promises({source.prefix(NAME): FILES})


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_copier_killed_when_it_records_its_groups(
    deployment: Deployment, source: InMemoryModelSource, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    task = deployment.submit(NAME)
    first, *others = bring_to(deployment, task, Stage.PUBLISHING)
    for message in others:
        deployment.deliver(message)
    kill_at(monkeypatch, deployment.database.files, "record_copied", after=after)
    with pytest.raises(KilledError):
        deployment.deliver(first)
    copied = count_copies(deployment, monkeypatch)
    deployment.deliver(first, deliveries=2)
    assert bool(copied) is not after, "recorded groups are not copied again"
    assert deployment.receive() == [PublishModels(task_id=task.id, copied=True)]
    deployment.sweep_until_quiet()
    check_done(deployment, source, task)


def test_a_message_about_copied_files_that_is_lost_is_replaced_by_the_sweep(
    deployment: Deployment, source: InMemoryModelSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = deployment.submit(NAME)
    bring_to_copied(deployment, task)
    copied = count_copies(deployment, monkeypatch)
    deployment.sweep_until_quiet()
    check_done(deployment, source, task)
    assert copied == []
    assert deployment.metrics.values["SweepRecoveries"] == 1


def bring_to_copied(deployment: Deployment, task: Task) -> list[CopyFiles]:
    """Deliver messages until all files are copied, and lose the next one. Return the messages about copies."""
    messages = bring_to(deployment, task, Stage.PUBLISHING)
    copies = [message for message in messages if isinstance(message, CopyFiles)]
    assert len(copies) == len(messages) == len(list_groups(deployment, task)) > 2
    for message in copies:
        deployment.deliver(message)
    assert deployment.receive() == [PublishModels(task_id=task.id, copied=True)]
    return copies


def test_copies_that_were_lost_are_made_by_functions_of_the_sweep(
    deployment: Deployment, source: InMemoryModelSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = deployment.submit(NAME)
    first, *_ = bring_to(deployment, task, Stage.PUBLISHING)
    deployment.deliver(first)
    copied = count_copies(deployment, monkeypatch)
    deployment.sweep_until_quiet()
    check_done(deployment, source, task)
    assert 0 < len(copied) < len(FILES), "copied files are not copied again"
    assert len(copied) == len(set(copied))


def test_every_message_about_copies_twice_copies_each_file_once(
    deployment: Deployment, source: InMemoryModelSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = deployment.submit(NAME)
    messages = bring_to(deployment, task, Stage.PUBLISHING)
    copied = count_copies(deployment, monkeypatch)
    for message in [*messages, *messages]:
        deployment.deliver(message)
    deployment.run()
    assert sorted(copied) == [source.prefix(NAME) + path for path in sorted(FILES)]
    check_done(deployment, source, task)


@pytest.mark.parametrize("then", ["cancelled", "imported-again", "done", "deleted"])
def test_late_messages_about_copies_change_nothing(
    deployment: Deployment, source: InMemoryModelSource, then: str
) -> None:
    task = deployment.submit(NAME)
    first, *others = bring_to(deployment, task, Stage.PUBLISHING)
    deployment.deliver(first)
    if then in ("cancelled", "imported-again"):
        deployment.finisher.cancel(task.id)
    else:
        for message in others:
            deployment.deliver(message)
        deployment.run()
    if then == "deleted":
        deployment.deleted.add(task.model_ids[0])
        assert deployment.deleter.delete_model(task.model_ids[0], lambda: 300.0)
    for message in (first, *others):
        deployment.deliver(message)
    if then == "imported-again":
        deployment.sweep_until_quiet()
        copies = bring_to(deployment, deployment.submit(NAME), Stage.PUBLISHING)
        for message in (first, *others, *copies, first):
            deployment.deliver(message)
    deployment.sweep_until_quiet()
    deployment.check_promises({source.prefix(NAME): FILES})
    assert bool(list_visible(deployment)) is (then in ("imported-again", "done"))


def test_of_two_plans_at_the_same_time_one_counts(
    deployment: Deployment, source: InMemoryModelSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = deployment.submit(NAME)
    (message,) = deployment.receive()
    put_groups, plans = deployment.database.files.put_groups, []

    def plan_meanwhile(plan_id: str, groups: list[tuple[SourceFile, ...]]) -> None:
        plans.append(plan_id)
        put_groups(plan_id, groups)
        if len(plans) == 1:
            # The other plan has the same files in another order, and thus other groups.
            monkeypatch.setattr(source, "list_files", lambda model: reversed(list(list_files(model))))
            deployment.deliver(message)

    list_files = source.list_files
    monkeypatch.setattr(deployment.database.files, "put_groups", plan_meanwhile)
    deployment.deliver(message)
    lost, counts = plans
    assert deployment.find_task(task.id).plan_id == counts
    messages = deployment.receive()
    numbers = {message.group for message in messages if isinstance(message, TransferFiles)}
    assert numbers == {group.number for group in list_groups(deployment, task)}
    for transfer in messages:
        deployment.deliver(transfer)
    assert source.bytes_read["model.safetensors"] == len(WEIGHTS), "the messages of both functions are about one plan"
    deployment.sweep_until_quiet()
    check_done(deployment, source, task)
    unused = list(deployment.database.files.list_groups(lost))
    assert {r.file.path for group in unused for r in group.records} == set(FILES)
    assert not any(group.is_done or group.lease_until for group in unused)


@pytest.mark.parametrize("path", ["model.safetensors", "vocab.txt", "medium.txt"])
def test_a_function_killed_between_storing_and_checking(
    deployment: Deployment, source: InMemoryModelSource, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    killed: list[str] = []
    create_checker = deployment.transferrer.create_checker

    def create_mortal_checker() -> Any:
        checker = create_checker()
        check = checker.check

        def die_once(checked: str, *arguments: Any) -> Any:
            if checked == path and not killed:
                killed.append(path)
                raise KilledError
            return check(checked, *arguments)

        return type("Checker", (), {"check": staticmethod(die_once), "add_opinions": checker.add_opinions})()

    deployment.transferrer = replace(deployment.transferrer, create_checker=create_mortal_checker)
    task = deployment.submit(NAME)
    messages = bring_to(deployment, task, Stage.TRANSFERRING)
    for message in messages:
        try:
            deployment.deliver(message)
        except KilledError:
            assert deployment.store.find_object(f"staging/{task.id}/{path}") is not None
    assert killed
    deployment.sweep_until_quiet()
    check_done(deployment, source, task)
    records = [record for group in list_groups(deployment, task) for record in group.records]
    assert all(record.check is not None and record.check.report is not None for record in records)
    if path == "model.safetensors":
        assert source.bytes_read[path] == len(WEIGHTS), "the content is in staging"


def test_a_large_file_is_checked_by_the_next_function_if_time_is_short(
    deployment: Deployment, source: InMemoryModelSource
) -> None:
    task = deployment.submit(NAME)
    messages = bring_to(deployment, task, Stage.TRANSFERRING)
    deployment.remaining = lambda: 100.0
    for message in messages:
        deployment.deliver(message)
    unchecked = [r for group in list_groups(deployment, task) for r in group.records if not r.is_done]
    assert [record.file.path for record in unchecked] == ["model.safetensors", "copy/config.json"]
    assert all(record.sha256 is not None for record in unchecked)
    deployment.deliver(PublishModels(task_id=task.id))
    assert deployment.find_task(task.id).stage is Stage.TRANSFERRING
    deployment.run()
    check_done(deployment, source, task)
    assert source.bytes_read["model.safetensors"] == len(WEIGHTS)


@pytest.mark.parametrize("stored", ["without-report", "without-check"])
def test_files_without_a_result_are_inspected_before_they_are_published(
    deployment: Deployment, source: InMemoryModelSource, stored: str
) -> None:
    source.models[NAME]["main"]["weights.bin"] = b"cos\nsystem\n(S'id'\ntR."
    deployment.pickle_policy = PicklePolicy.OFF  # of the functions that transfer
    task = deployment.submit(NAME)
    messages = bring_to(deployment, task, Stage.VERIFIED)
    if stored == "without-check":
        for item in deployment.tables.groups.values():
            records = tuple(replace(record, check=None) for record in item.group.records)
            item.group = replace(item.group, records=records)
    for message in messages:
        deployment.deliver(message)
    error = deployment.find_task(task.id).error
    assert error is not None
    assert error.type == "unsafe-model"
    assert list_visible(deployment) == []


def test_small_content_of_a_failed_import_is_reused_under_other_names(
    deployment: Deployment, source: InMemoryModelSource
) -> None:
    failed = deployment.submit(NAME)
    bring_to(deployment, failed, Stage.VERIFIED)
    deployment.finisher.cancel(failed.id)
    source.models["org/renamed"] = {"main": {f"renamed/{path}": content for path, content in FILES.items()}}
    source.bytes_read.clear()
    task = deployment.submit("org/renamed")
    deployment.run()
    ended = deployment.find_task(task.id)
    assert (ended.status, source.bytes_read.total()) == (TaskStatus.DONE, 0)
    assert ended.progress.bytes_reused == ended.progress.bytes_total
    deployment.sweep_until_quiet()
    deployment.check_promises({source.prefix("org/renamed"): source.models["org/renamed"]["main"]})


@pytest.mark.parametrize("operation", ["record_progress", "start_stage"])
@pytest.mark.parametrize("redelivered", [True, False], ids=["redelivered", "lost"])
def test_a_function_killed_after_the_last_group_is_done(
    deployment: Deployment,
    source: InMemoryModelSource,
    monkeypatch: pytest.MonkeyPatch,
    operation: str,
    redelivered: bool,
) -> None:
    task = deployment.submit(NAME)
    *others, last = bring_to(deployment, task, Stage.TRANSFERRING)
    for message in others:
        deployment.deliver(message)
    kill_at(monkeypatch, deployment.database.tasks, operation)
    with pytest.raises(KilledError):
        deployment.deliver(last)
    assert all(group.is_done for group in list_groups(deployment, task))
    assert deployment.find_task(task.id).stage is Stage.TRANSFERRING
    if redelivered:
        deployment.deliver(last, deliveries=2)
        assert deployment.receive() == [PublishModels(task_id=task.id)]
    deployment.sweep_until_quiet()
    check_done(deployment, source, task)
