"""The storage quota: at submission, at planning, and among imports at the same time."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier
from types import MappingProxyType

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from modelhaul.catalog import quota
from modelhaul.catalog.quota import StorageQuota
from modelhaul.domain.errors import (
    ImportInProgressError,
    ModelExistsError,
    StorageQuotaError,
    StorageUnavailableError,
)
from modelhaul.domain.models import Model, Publication
from modelhaul.domain.quotas import QuotaState
from modelhaul.domain.tasks import Stage, Task, TaskError, TaskStatus
from tests.archives.zipping import zip_files
from tests.contract.database_builders import START, claim, make_model
from tests.fakes.clock import ManualClock
from tests.fakes.database import Database, build_database
from tests.fakes.deployment import QUICK, Deployment
from tests.fakes.model_source import InMemoryModelSource
from tests.fakes.tables import InMemoryTables
from tests.weights import wrap_weights

MODEL = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": wrap_weights(bytes(1000))}
ERROR = TaskError("import-cancelled", "Cancelled.", retryable=True)


def make_deployment(limit: int, **sizes: int) -> Deployment:
    """With models `org/NAME`, each of one file with so many bytes."""
    source = InMemoryModelSource(
        {f"org/{name}": {"main": {"notes.txt": name.encode() * size}} for name, size in sizes.items()}
    )
    return Deployment(source, quota=limit)


def import_model(deployment: Deployment, name: str) -> Task:
    task = deployment.submit(name)
    deployment.run()
    return deployment.find_task(task.id)


def delete_model(deployment: Deployment, task: Task) -> None:
    for model_id in task.model_ids:
        assert deployment.deleter.delete_model(model_id, deployment.remaining)


def test_an_import_may_fill_the_quota_to_the_last_byte() -> None:
    deployment = make_deployment(100, a=60, b=40, c=1)
    assert import_model(deployment, "org/a").status is TaskStatus.DONE
    assert import_model(deployment, "org/b").status is TaskStatus.DONE
    with pytest.raises(StorageQuotaError) as caught:
        deployment.submit("org/c")
    assert "100 bytes" in caught.value.detail
    assert "StorageQuotaGB" in caught.value.detail


def test_an_import_of_a_byte_too_much_fails_before_anything_is_stored() -> None:
    deployment = make_deployment(100, a=60, b=41)
    import_model(deployment, "org/a")
    keys = set(deployment.store.keys)
    task = import_model(deployment, "org/b")
    assert task.error is not None
    assert task.error.type == "storage-quota-exceeded"
    assert "import of 41 bytes" in task.error.detail
    assert "60 bytes" in task.error.detail
    assert task.plan_id is None
    assert set(deployment.store.keys) == keys


def test_what_is_deleted_makes_room_at_once() -> None:
    deployment = make_deployment(100, a=100, b=100)
    first = import_model(deployment, "org/a")
    with pytest.raises(StorageQuotaError):
        deployment.submit("org/b")
    delete_model(deployment, first)
    assert import_model(deployment, "org/b").status is TaskStatus.DONE


def test_a_failed_or_cancelled_import_makes_room_at_once() -> None:
    deployment = make_deployment(100, a=100, b=100)
    task = deployment.submit("org/a")
    deployment.deliver(deployment.receive()[0])
    assert deployment.find_task(task.id).stage is Stage.TRANSFERRING
    second = deployment.submit("org/b")
    deployment.deliver(deployment.receive()[-1])
    failed = deployment.find_task(second.id)
    assert failed.error is not None
    assert failed.error.type == "storage-quota-exceeded"
    assert "reserved 100 bytes" in failed.error.detail
    deployment.finisher.cancel(task.id)
    assert import_model(deployment, "org/b").status is TaskStatus.DONE


def test_a_lower_quota_refuses_new_imports_and_keeps_models() -> None:
    deployment = make_deployment(100, a=60, b=1)
    task = import_model(deployment, "org/a")
    deployment.quota = 50
    deployment.connect(deployment.database, deployment.store, deployment.queue, QUICK)
    with pytest.raises(StorageQuotaError):
        deployment.submit("org/b")
    assert deployment.database.models.find_models(task.model_ids)[0].size == 60


def test_an_import_that_was_accepted_before_the_quota_was_lowered_fails() -> None:
    deployment = make_deployment(100, a=60, b=1)
    import_model(deployment, "org/a")
    task = deployment.submit("org/b")
    deployment.quota = 60
    deployment.connect(deployment.database, deployment.store, deployment.queue, QUICK)
    deployment.run()
    assert deployment.find_task(task.id).status is TaskStatus.FAILED


def test_a_copy_of_stored_content_takes_storage() -> None:
    deployment = make_deployment(100, a=60)
    assert isinstance(deployment.source, InMemoryModelSource)
    deployment.source.models["org/copy"] = deployment.source.models["org/a"]
    import_model(deployment, "org/a")
    task = import_model(deployment, "org/copy")
    assert task.error is not None
    assert task.error.type == "storage-quota-exceeded"


def test_a_model_that_exists_is_reported_as_such_at_the_quota() -> None:
    deployment = make_deployment(100, a=100)
    import_model(deployment, "org/a")
    with pytest.raises(ModelExistsError):
        deployment.submit("org/a")


def test_a_model_that_is_being_imported_is_reported_as_such_at_the_quota() -> None:
    deployment = make_deployment(100, a=100, b=10)
    task = deployment.submit("org/b")
    import_model(deployment, "org/a")
    assert deployment.find_task(task.id).status is not TaskStatus.PENDING
    deployment = make_deployment(100, a=100, b=10)
    import_model(deployment, "org/a")
    deployment.quota = 0
    deployment.connect(deployment.database, deployment.store, deployment.queue, QUICK)
    task = deployment.submit("org/b")
    deployment.quota = 100
    deployment.connect(deployment.database, deployment.store, deployment.queue, QUICK)
    with pytest.raises(ImportInProgressError) as caught:
        deployment.submit("org/b")
    assert caught.value.task_id == task.id


def test_archives_are_refused_before_their_upload() -> None:
    deployment = make_deployment(1000, a=900)
    import_model(deployment, "org/a")
    tasks = dict(deployment.tables.tasks)
    with pytest.raises(StorageQuotaError):
        deployment.archive_submitter.open_upload("a.zip", 101, None)
    assert deployment.tables.tasks == tasks
    deployment.archive_submitter.open_upload("a.zip", 100, None)


def test_posted_and_dropped_archives_are_checked() -> None:
    archive = zip_files({f"model/{path}": content for path, content in MODEL.items()})
    size = sum(map(len, MODEL.values()))
    deployment = make_deployment(size + 9, a=10)
    import_model(deployment, "org/a")
    for task_id in (deployment.post(archive).id, deployment.drop(archive)):
        deployment.run()
        error = deployment.find_task(task_id).error
        assert error is not None
        assert error.type == "storage-quota-exceeded"
    deployment.quota = 10
    deployment.connect(deployment.database, deployment.store, deployment.queue, QUICK)
    keys = set(deployment.archives.keys)
    with pytest.raises(StorageQuotaError):
        deployment.post(archive)
    assert set(deployment.archives.keys) == keys, "nothing is stored"


def test_without_a_quota_nothing_is_read_or_reserved(monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = make_deployment(0, a=10)
    for name in ("read_state", "save_state"):
        monkeypatch.setattr(deployment.database.quotas, name, None)
    assert import_model(deployment, "org/a").status is TaskStatus.DONE
    assert deployment.tables.quota == QuotaState()


@pytest.mark.parametrize("call", ["read_state", "list_ready"])
def test_an_outage_at_submission_is_no_pass(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    deployment = make_deployment(100, a=10)

    def fail() -> None:
        raise StorageUnavailableError("DynamoDB request failed (ThrottlingException).")

    owner = deployment.database.quotas if call == "read_state" else deployment.database.models
    monkeypatch.setattr(owner, call, fail)
    with pytest.raises(StorageUnavailableError):
        deployment.submit("org/a")
    assert not deployment.tables.tasks


def test_an_outage_at_planning_is_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = make_deployment(100, a=10)
    task = deployment.submit("org/a")
    calls = 0
    read = deployment.database.quotas.read_state

    def fail_twice() -> QuotaState:
        nonlocal calls
        calls += 1
        if calls <= 2:
            raise StorageUnavailableError("DynamoDB request failed (ThrottlingException).")
        return read()

    monkeypatch.setattr(deployment.database.quotas, "read_state", fail_twice)
    deployment.run()
    assert deployment.find_task(task.id).status is TaskStatus.DONE
    assert calls > 2


class TestReservations:
    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock(START)

    @pytest.fixture
    def database(self, clock: ManualClock) -> Database:
        return build_database(InMemoryTables(clock=clock))

    def connect(self, database: Database, clock: ManualClock, limit: int) -> StorageQuota:
        return StorageQuota(limit, database.quotas, database.tasks, database.models, clock)

    def test_are_made_once(self, database: Database, clock: ManualClock) -> None:
        checked, task = self.connect(database, clock, 100), claim(database)
        for _ in range(3):
            checked.reserve(task, 60)
        assert dict(database.quotas.read_state().reserved) == {task.id: 60}

    def test_of_simultaneous_imports_stay_within_the_quota(self, database: Database, clock: ManualClock) -> None:
        checked = self.connect(database, clock, 1000)
        tasks = [claim(database) for _ in range(24)]
        start = Barrier(8)

        def reserve(task: Task) -> bool:
            if task in tasks[:8]:
                start.wait()
            while True:
                try:
                    checked.reserve(task, 90)
                except StorageUnavailableError:
                    continue
                except StorageQuotaError:
                    return False
                return True

        with ThreadPoolExecutor(8) as pool:
            accepted = list(pool.map(reserve, tasks))
        assert sum(accepted) == 11, "as many as fit"

    def test_read_the_models_only_near_the_quota(
        self, database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        checked, listed = self.connect(database, clock, 100), 0
        list_ready = database.models.list_ready

        def count() -> Iterator[Model]:
            nonlocal listed
            listed += 1
            return list_ready()

        monkeypatch.setattr(database.models, "list_ready", count)
        checked.reserve(claim(database), 50)
        assert listed == 1, "first there is no bound"
        checked.reserve(claim(database), 30)
        checked.check_submission(20)
        assert listed == 1
        checked.check_submission(21)
        assert listed == 2
        clock.now += 3600
        checked.reserve(claim(database), 1)
        assert listed == 3, "and when the bound is old"

    def test_of_ended_imports_are_removed(
        self, database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(quota, "_MAX_UNCHECKED", 3)
        checked = self.connect(database, clock, 10**6)
        for _ in range(20):
            task = claim(database)
            checked.reserve(task, 1)
            database.imports.fail_import(task.id, ERROR, check_at=START)
        assert len(database.quotas.read_state().reserved) <= 3

    def test_are_limited_in_number(
        self, database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(quota, "_MAX_UNCHECKED", 3)
        monkeypatch.setattr(quota, "_MAX_RESERVED", 5)
        checked = self.connect(database, clock, 10**6)
        for _ in range(5):
            checked.reserve(claim(database), 1)
        with pytest.raises(StorageUnavailableError):
            checked.reserve(claim(database), 1)

    def test_a_ready_model_that_the_list_lacks_is_counted(
        self, database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As of an index that is behind the table."""
        checked, model = self.connect(database, clock, 100), make_model()
        task = claim(database, model)
        checked.reserve(task, 80)
        database.imports.finish_import(task.id, published={model.model_id: Publication(1, 70)}, check_at=START)
        monkeypatch.setattr(database.models, "list_ready", lambda: iter(()))
        with pytest.raises(StorageQuotaError):
            checked.reserve(claim(database), 31)
        with pytest.raises(StorageQuotaError):
            checked.check_submission(31)
        checked.reserve(claim(database), 30)

    def test_imports_from_before_the_quota_count_after_an_hour(self, database: Database, clock: ManualClock) -> None:
        checked, model = self.connect(database, clock, 100), make_model()
        old = claim(database, model)
        checked.reserve(claim(database), 10)
        database.imports.finish_import(old.id, published={model.model_id: Publication(1, 90)}, check_at=START)
        clock.now += 3601
        with pytest.raises(StorageQuotaError):
            checked.reserve(claim(database), 1)

    def test_wait_before_another_attempt(
        self, database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pauses: list[float] = []
        monkeypatch.setattr("time.sleep", pauses.append)
        monkeypatch.setattr(database.quotas, "save_state", lambda _: False)
        with pytest.raises(StorageUnavailableError, match="modified concurrently"):
            self.connect(database, clock, 100).reserve(claim(database), 1)
        assert len(pauses) == 7
        assert 0 < sum(pauses) < 2

    def test_a_lost_response_reserves_once(
        self, database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        checked, task = self.connect(database, clock, 100), claim(database)
        save = database.quotas.save_state
        monkeypatch.setattr(database.quotas, "save_state", lambda state: bool(save(state)) and False)
        checked.reserve(task, 100)
        assert dict(database.quotas.read_state().reserved) == {task.id: 100}


class Imports(RuleBasedStateMachine):
    """Imports of any sizes that are planned, end and are deleted in any order, and a list of models that is behind."""

    LIMIT = 100

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock(START)
        self.database = build_database(InMemoryTables(clock=self.clock))
        self.quota = StorageQuota(
            self.LIMIT, self.database.quotas, self.database.tasks, self.database.models, self.clock
        )
        self.planned: list[tuple[Task, int]] = []
        self.ready: list[Model] = []
        self.stale: list[Model] = []
        self.list_ready = self.database.models.list_ready
        self.database.models.list_ready = lambda: iter(self.stale)  # type: ignore[method-assign]

    @property
    def used(self) -> int:
        return sum(model.size for model in self.ready) + sum(size for _, size in self.planned)

    @rule(size=st.integers(0, 60))
    def plan(self, size: int) -> None:
        task = claim(self.database)
        stale = {model.model_id for model in self.stale} - {model.model_id for model in self.ready}
        try:
            self.quota.reserve(task, size)
        except StorageQuotaError:
            self.database.imports.fail_import(task.id, ERROR, check_at=START)
            assert self.used + size > self.LIMIT or stale, "what fits is accepted"
        else:
            assert self.used + size <= self.LIMIT
            self.planned.append((task, size))

    @precondition(lambda self: self.planned)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        task, size = self.planned.pop(data.draw(st.integers(0, len(self.planned) - 1)))
        actual = data.draw(st.integers(0, size))
        self.database.imports.finish_import(
            task.id, published={task.model_ids[0]: Publication(1, actual)}, check_at=START
        )
        self.ready += self.database.models.find_models(task.model_ids)

    @precondition(lambda self: self.planned)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        task, _ = self.planned.pop(data.draw(st.integers(0, len(self.planned) - 1)))
        self.database.imports.fail_import(task.id, ERROR, check_at=START)

    @precondition(lambda self: self.ready)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        model = self.ready.pop(data.draw(st.integers(0, len(self.ready) - 1)))
        assert self.database.models.lease_deletion(
            model.model_id, owner="a", now=self.clock.now, until=self.clock.now + 1
        )
        self.database.models.remove_model(model.model_id, owner="a")

    @rule(seconds=st.sampled_from([1, 299, 4000]))
    def wait(self, seconds: int) -> None:
        """The list is never five minutes behind."""
        if seconds >= 299:
            self.refresh()
        self.clock.now += seconds

    @rule()
    def refresh(self) -> None:
        self.stale = list(self.list_ready())

    @invariant()
    def the_quota_is_kept(self) -> None:
        assert self.used <= self.LIMIT
        if self.database.quotas.read_state().version is not None:
            assert self.database.quotas.read_state().bound >= self.used


Imports.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestImports = Imports.TestCase


def test_a_state_of_another_quota_is_measured_again() -> None:
    clock = ManualClock(START)
    database = build_database(InMemoryTables(clock=clock))
    model = make_model()
    database.imports.finish_import(
        claim(database, model).id, published={model.model_id: Publication(1, 90)}, check_at=START
    )
    stale = QuotaState(200, measured=0, measured_at=START, reserved=MappingProxyType({}))
    database.quotas.save_state(stale)
    checked = StorageQuota(100, database.quotas, database.tasks, database.models, clock)
    with pytest.raises(StorageQuotaError):
        checked.reserve(claim(database), 11)
    assert replace(database.quotas.read_state(), version=None) == stale
