"""What every audit does."""

import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from modelhaul.domain.audit import (
    EVERYTHING,
    AuditAction,
    AuditEntry,
    AuditFilter,
    describe_cancellation,
    describe_deletion,
    describe_key_creation,
    describe_policy_change,
    describe_signature,
    describe_submission,
)
from modelhaul.domain.errors import InvalidReferenceError, ModelExistsError
from modelhaul.domain.models import Publication, Source
from modelhaul.domain.read_keys import create_key
from modelhaul.domain.tasks import Stage
from tests.contract import database_builders as builders
from tests.contract.backends import BACKENDS, open_aws
from tests.contract.database_builders import START, at
from tests.contract.dynamodb import AUDIT_DAYS, clear_tables, open_database, set_clock
from tests.fakes.clock import ManualClock
from tests.fakes.database import Database, build_database
from tests.fakes.tables import InMemoryTables

ALICE = "arn:aws:sts::123456789012:assumed-role/Deployer/alice"
BOB = "arn:aws:sts::123456789012:assumed-role/Deployer/bob"
ROLE = "arn:aws:sts::123456789012:assumed-role/Deployer"
CANCELLED = builders.GATED


@pytest.fixture(scope="module", params=BACKENDS)
def opened(request: pytest.FixtureRequest) -> Iterator[Database | None]:
    if request.param == "fake":
        yield None
        return
    with open_aws(request.param), open_database() as database:
        yield database


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def database(opened: Database | None, clock: ManualClock) -> Iterator[Database]:
    if opened is None:
        yield build_database(InMemoryTables(clock=clock))
        return
    set_clock(opened, clock)
    yield opened
    clear_tables(opened)


def make_entry(age: float = 0, **changes: Any) -> AuditEntry:
    """An entry of so many seconds ago."""
    entry = AuditEntry(action=AuditAction.MODEL_DELETED, time=at(START - age), actor="api-key:a")
    return replace(entry, **changes)


def read_all(database: Database, wanted: AuditFilter = EVERYTHING, *, limit: int = 100) -> list[AuditEntry]:
    found: list[AuditEntry] = []
    cursor = None
    while True:
        page = database.audit_reader.list_entries(wanted, limit=limit, cursor=cursor)
        assert len(page.entries) <= limit
        found += page.entries
        cursor = page.cursor
        if cursor is None:
            return found


class TestRecord:
    def test_an_entry_is_found_as_it_was_recorded(self, database: Database) -> None:
        for entry in (
            make_entry(actor=None),
            make_entry(
                actor=ALICE,
                model_id="m",
                task_id="t",
                key_id="k",
                follow_id="f",
                name="acme/modèl",
                source=Source.GITHUB,
                commit="c" * 40,
                reason="Not used.",
                detail={"archive": "a ü.zip", "requested": "x@main"},
            ),
        ):
            assert database.audit_reader.read_entry(entry.id) is None
            database.audit.record(entry)
            assert database.audit_reader.read_entry(entry.id) == entry
            assert entry in read_all(database)

    def test_an_entry_is_never_replaced(self, database: Database) -> None:
        entry = make_entry()
        database.audit.record(entry)
        database.audit.record(replace(entry, actor="api-key:b"))
        assert read_all(database) == [entry]

    @pytest.mark.parametrize("entry_id", ["", "a" * 3000, "\ud800", "7d9f5f2e-0c1b-4a57-9d1e-3f4b5a6c7d8e"])
    def test_unknown_ids_are_not_found(self, database: Database, entry_id: str) -> None:
        assert database.audit_reader.read_entry(entry_id) is None

    def test_entries_are_kept_as_long_as_the_retention_says(self, database: Database, clock: ManualClock) -> None:
        old, new = make_entry(60), make_entry()
        for entry in (old, new):
            database.audit.record(entry)
        clock.now = START + timedelta(days=AUDIT_DAYS).total_seconds() - 30
        assert read_all(database) == [new]
        assert database.audit_reader.read_entry(old.id) is None
        assert database.audit_reader.read_entry(new.id) == new
        clock.now += 60
        assert read_all(database) == []

    def test_an_entry_that_has_expired_is_not_recorded(self, database: Database) -> None:
        database.audit.record(make_entry(timedelta(days=AUDIT_DAYS).total_seconds()))
        assert read_all(database) == []

    def test_a_change_of_the_policy_is_recorded_once(self, database: Database) -> None:
        for version, digest in (("1", "d1"), ("1", "d1"), ("2", "d2"), ("3", "d1"), ("2", "d2")):
            entry = describe_policy_change(
                location="s3://bucket/policy.json", digest=digest, version=version, changed_at=at(START)
            )
            database.audit.record(entry)
        assert sorted(entry.detail["version"] for entry in read_all(database)) == ["1", "2", "3"]


class TestList:
    @pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
    def test_entries_are_listed_newest_first(self, database: Database, limit: int) -> None:
        entries = [make_entry(age) for age in (0, 1, 2, 3, 4, 5, 6)]
        for index in (3, 0, 6, 1, 5, 2, 4):
            database.audit.record(entries[index])
        assert read_all(database, limit=limit) == entries

    def test_entries_of_the_same_moment_are_all_listed(self, database: Database) -> None:
        entries = [make_entry(id=str(uuid.UUID(int=number))) for number in range(5)]
        for entry in entries:
            database.audit.record(entry)
        found = read_all(database, limit=2)
        assert len(found) == len(entries)
        assert {entry.id for entry in found} == {entry.id for entry in entries}

    def test_filters(self, database: Database) -> None:
        entries = [
            make_entry(0, actor=ALICE, model_id="m1", task_id="t1"),
            make_entry(10, actor=BOB, model_id="m1", action=AuditAction.IMPORT_SUBMITTED, task_id="t2"),
            make_entry(20, actor="api-key:a", model_id="m2", action=AuditAction.IMPORT_SUBMITTED),
            make_entry(30, actor=None, action=AuditAction.POLICY_CHANGED),
            make_entry(40, actor=f"{ROLE}2/alice", model_id="m1"),
        ]
        for entry in entries:
            database.audit.record(entry)
        cases: list[tuple[AuditFilter, list[int]]] = [
            (AuditFilter(), [0, 1, 2, 3, 4]),
            (AuditFilter(action=AuditAction.IMPORT_SUBMITTED), [1, 2]),
            (AuditFilter(action=AuditAction.READ_KEY_CREATED), []),
            (AuditFilter(actor=ALICE), [0]),
            (AuditFilter(actor=ROLE), [0, 1]),
            (AuditFilter(actor="api-key:a"), [2]),
            (AuditFilter(actor="api-key:"), []),
            (AuditFilter(model_id="m1"), [0, 1, 4]),
            (AuditFilter(task_id="t2"), [1]),
            (AuditFilter(model_id="m1", actor=ROLE), [0, 1]),
            (AuditFilter(model_id="m1", actor=BOB), [1]),
            (AuditFilter(model_id="m1", action=AuditAction.MODEL_DELETED), [0, 4]),
            (AuditFilter(actor=ROLE, action=AuditAction.MODEL_DELETED), [0]),
            (AuditFilter(task_id="t1", model_id="m2"), []),
            (AuditFilter(task_id="t1", model_id="m1", actor=ALICE, action=AuditAction.MODEL_DELETED), [0]),
            (AuditFilter(since=at(START - 20)), [0, 1, 2]),
            (AuditFilter(until=at(START - 20)), [3, 4]),
            (AuditFilter(since=at(START - 30), until=at(START - 10)), [2, 3]),
            (AuditFilter(since=at(START - 20), until=at(START)), [1, 2]),
            (AuditFilter(model_id="m1", since=at(START - 10), until=at(START - 5)), [1]),
            (AuditFilter(since=at(START - 10), until=at(START - 20)), []),
            (AuditFilter(model_id="m1", since=at(START - 10), until=at(START - 10)), []),
            (AuditFilter(model_id="\ud800"), []),
            (AuditFilter(model_id="x" * 3000), []),
        ]
        for wanted, expected in cases:
            for limit in (1, 2, 100):
                assert read_all(database, wanted, limit=limit) == [entries[i] for i in expected], wanted

    @pytest.mark.parametrize("cursor", ["x", "a" * 50, "MjAyNQ", "é"])
    def test_an_invalid_cursor_is_refused(self, database: Database, cursor: str) -> None:
        with pytest.raises(InvalidReferenceError) as raised:
            database.audit_reader.list_entries(limit=1, cursor=cursor)
        assert raised.value.part == "cursor"

    @pytest.mark.parametrize("period", [{"since": at(START)}, {"until": at(START - 10)}])
    def test_a_cursor_of_another_period_is_refused(self, database: Database, period: dict[str, Any]) -> None:
        """DynamoDB rejects a query that starts outside of its key condition."""
        for age in (0, 10, 20):
            database.audit.record(make_entry(age))
        cursor = database.audit_reader.list_entries(limit=2).cursor
        with pytest.raises(InvalidReferenceError) as raised:
            database.audit_reader.list_entries(AuditFilter(**period), limit=2, cursor=cursor)
        assert raised.value.part == "cursor"


class TestTransactions:
    """The entry of an action is recorded if and only if the action happens."""

    def test_of_a_claim(self, database: Database) -> None:
        model = builders.make_model()
        task = builders.make_task(model, submitted_by=ALICE)
        model = replace(model, task_id=task.id)
        entry = describe_submission(task, [model])
        database.imports.claim_import(task, [model], entry=entry)
        database.imports.claim_import(task, [model], entry=entry)
        assert read_all(database, AuditFilter(model_id=model.model_id, actor=ALICE)) == [entry]

    def test_of_a_claim_that_is_refused(self, database: Database) -> None:
        first = builders.claim(database)
        model = builders.read_model(database, first.model_ids[0])
        database.imports.finish_import(first.id, published={model.model_id: Publication(1, 1)}, check_at=START)
        task = builders.make_task(model)
        with pytest.raises(ModelExistsError):
            database.imports.claim_import(
                task, [replace(model, task_id=task.id)], entry=describe_submission(task, [model])
            )
        assert read_all(database) == []

    def test_of_a_dropped_archive(self, database: Database) -> None:
        task = builders.drop(database)
        fresh = replace(task, id=str(uuid.uuid4()), submitted_by="aws-account:123456789012")
        entry = describe_submission(fresh)
        assert not database.tasks.record_task(task, entry=describe_submission(task))
        assert database.tasks.record_task(fresh, entry=entry)
        assert not database.tasks.record_task(fresh, entry=describe_submission(fresh))
        assert database.tasks.find_task(fresh.id) == fresh
        assert read_all(database) == [entry]

    def test_of_a_cancellation(self, database: Database) -> None:
        task = builders.claim(database)
        entries = [describe_cancellation(task, actor, at(START)) for actor in (ALICE, BOB)]
        for entry, happens in zip(entries, (True, False), strict=True):
            assert (
                database.imports.fail_import(
                    task.id, CANCELLED, stage=Stage.CANCELLED, check_at=START, cancelled_by=entry.actor, entry=entry
                )
                is happens
            )
        assert read_all(database, AuditFilter(task_id=task.id)) == entries[:1]

    def test_of_a_deletion(self, database: Database) -> None:
        task = builders.claim(database)
        model = builders.read_model(database, task.model_ids[0])

        def lease(owner: str, actor: str) -> bool:
            entry = describe_deletion(model, actor, at(START), reason="Not used.")
            leased = database.models.lease_deletion(
                model.model_id, owner=owner, now=START, until=START + 60, deleted_by=actor, entry=entry
            )
            assert leased in (None, database.models.find_model(model.model_id))
            return leased is not None

        assert not lease("a", ALICE)
        database.imports.finish_import(task.id, published={model.model_id: Publication(1, 1)}, check_at=START)
        assert lease("b", ALICE)
        assert not lease("c", BOB)
        [found] = read_all(database, AuditFilter(model_id=model.model_id))
        assert (found.actor, found.reason, found.commit) == (ALICE, "Not used.", model.resolved.commit)

    def test_of_a_signature(self, database: Database) -> None:
        task = builders.claim(database)
        model = builders.read_model(database, task.model_ids[0])
        entry = describe_signature(model, ALICE, at(START), key_arn=builders.SIGNATURE.key_arn)

        def sign(task_id: str) -> bool:
            return database.models.record_signature(model.model_id, builders.SIGNATURE, task_id=task_id, entry=entry)

        assert not sign(task.id)
        database.imports.finish_import(task.id, published={model.model_id: Publication(1, 1)}, check_at=START)
        assert not sign("other")
        assert read_all(database) == []
        assert sign(task.id)
        assert builders.read_model(database, model.model_id).signature == builders.SIGNATURE
        assert read_all(database) == [entry]


def test_long_texts_are_shortened() -> None:
    entry = make_entry(reason="r" * 2000, detail={"archive": "a" * 1001})
    assert (len(entry.reason or ""), len(entry.detail["archive"])) == (1000, 1000)
    assert replace(entry) == entry


def test_the_entry_of_a_key_does_not_have_the_key() -> None:
    key, record = create_key("ci", [], None, at(START), created_by=ALICE)
    assert key not in repr(describe_key_creation(record))
    assert record.digest not in repr(describe_key_creation(record))
