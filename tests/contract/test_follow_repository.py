"""What every repository of follows does."""

import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from modelhaul.adapters.dynamodb.audit import DynamoDBAuditReader
from modelhaul.adapters.dynamodb.audit_items import AuditWriter
from modelhaul.adapters.dynamodb.connection import open_connection
from modelhaul.adapters.dynamodb.follows import DynamoDBFollowRepository
from modelhaul.domain.audit import AuditAction, AuditEntry
from modelhaul.domain.errors import StorageUnavailableError
from modelhaul.domain.follows import (
    DueFollow,
    Follow,
    FollowedImport,
    FollowError,
    FollowStatus,
    create_follow,
    pause,
    resume,
)
from modelhaul.domain.models import ResolvedModel, Source
from modelhaul.domain.selection import WHOLE, Selection, Weights
from modelhaul.ports.audit_log import AuditReader
from modelhaul.ports.follows import FollowRepository
from tests.contract.backends import BACKENDS, REGION, open_aws
from tests.contract.database_builders import START, at
from tests.fakes.audit_log import InMemoryAuditLog
from tests.fakes.clock import ManualClock
from tests.fakes.follow_repository import InMemoryFollowRepository
from tests.fakes.tables import InMemoryTables

HOUR = timedelta(hours=1)


@pytest.fixture(params=BACKENDS)
def audited(request: pytest.FixtureRequest) -> Iterator[tuple[FollowRepository, AuditReader]]:
    clock = ManualClock(START)
    if request.param == "fake":
        tables = InMemoryTables(clock=clock)
        yield InMemoryFollowRepository(tables), InMemoryAuditLog(tables)
        return
    with open_aws(request.param):
        connection, suffix = open_connection(REGION), uuid.uuid4().hex
        audit = f"audit-{suffix}"
        writer = AuditWriter(connection, audit_table=audit, retention_days=30, clock=clock)
        reader = DynamoDBAuditReader(connection, audit_table=audit, clock=clock)
        adapter = DynamoDBFollowRepository(connection, follows_table=f"follows-{suffix}", audit=writer)
        for item in (adapter._follows, writer._entries):
            item.create_table(wait=True, billing_mode="PAY_PER_REQUEST")
        yield adapter, reader
        for item in (adapter._follows, writer._entries):
            item.delete_table()


@pytest.fixture
def follows(audited: tuple[FollowRepository, AuditReader]) -> FollowRepository:
    return audited[0]


def make_follow(name: str = "acme/model", *, age: float = 0, selection: Selection = WHOLE) -> Follow:
    """A follow, created and due so many seconds ago."""
    resolved = ResolvedModel(Source.HUGGINGFACE, name, "main", "a" * 40, selection=selection)
    return create_follow(resolved, HOUR, at(START - age + 0.25))


FULL = replace(
    make_follow("acme/a", selection=Selection(("*.json",), ("onnx/",), Weights.SAFETENSORS)),
    source=Source.GITHUB,
    keep_newest=3,
    created_by="api-key:a",
    former_names=("acme/b", "old/a"),
    requested_name="a",
    checked_at=at(START + 0.5),
    last_import=FollowedImport("b" * 40, str(uuid.uuid4()), at(START), str(uuid.uuid4()), "a" * 40, True, 2),
    last_error=FollowError("model-not-found", "Größe: gone", False, at(START), "Check the name."),
    failures=2,
    waits_for_limit=True,
    retries_import=True,
    lease_id=str(uuid.uuid4()),
)


@pytest.mark.parametrize(
    "follow",
    [make_follow(), pause(make_follow()), FULL, replace(FULL, last_import=FollowedImport("b" * 40, "m", at(START)))],
)
def test_a_follow_is_found_as_it_was_added(follows: FollowRepository, follow: Follow) -> None:
    assert follows.find_follow(follow.id) is None
    assert follows.add_follow(follow)
    assert follows.find_follow(follow.id) == follow
    assert follows.list_follows() == [follow]


def test_a_second_follow_with_the_same_id_is_not_added(follows: FollowRepository) -> None:
    first = make_follow()
    assert follows.add_follow(first)
    assert follows.add_follow(first)  # a repeated request after a lost response
    assert not follows.add_follow(replace(first, every=2 * HOUR))
    assert follows.find_follow(first.id) == first


def test_follows_are_listed_newest_first(follows: FollowRepository) -> None:
    assert follows.list_follows() == []
    made = [make_follow(f"acme/{age}", age=age) for age in range(4)]
    for follow in (made[2], made[0], made[3], made[1]):
        assert follows.add_follow(follow)
    assert follows.list_follows() == made


def test_due_follows_are_listed_longest_due_first(follows: FollowRepository) -> None:
    made = [make_follow(f"acme/{age}", age=age) for age in range(4)]
    paused, later = pause(make_follow("acme/paused")), make_follow("acme/later", age=-60)
    for follow in (*made, paused, later):
        follows.add_follow(follow)
    due = [DueFollow(follow.id, follow.source) for follow in reversed(made)]
    assert follows.list_due(at(START + 0.25), 10) == due
    assert follows.list_due(at(START + 0.25), 2) == due[:2]
    assert follows.list_due(at(START - 3), 10) == []


def test_a_paused_follow_is_not_due_until_it_is_resumed(follows: FollowRepository) -> None:
    follow = make_follow()
    follows.add_follow(follow)
    changed = follows.change_follow(follow.id, pause)
    assert changed == replace(follow, status=FollowStatus.PAUSED, next_check=None, version=2)
    assert follows.find_follow(follow.id) == changed
    assert follows.list_due(at(START + 1e6), 10) == []
    follows.change_follow(follow.id, lambda found: resume(found, at(START)))
    assert follows.list_due(at(START), 10) == [DueFollow(follow.id, follow.source)]


def test_a_change_can_leave_the_follow_as_it_is(follows: FollowRepository) -> None:
    follow = make_follow()
    follows.add_follow(follow)
    assert follows.change_follow(follow.id, lambda _: None) is None
    assert follows.find_follow(follow.id) == follow


def test_simultaneous_changes_are_all_kept(follows: FollowRepository) -> None:
    follow = make_follow()
    follows.add_follow(follow)
    barrier = threading.Barrier(3)

    def count_up() -> None:
        barrier.wait()
        follows.change_follow(follow.id, lambda found: replace(found, failures=found.failures + 1))

    threads = [threading.Thread(target=count_up) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert follows.find_follow(follow.id) == replace(follow, failures=3, version=4)


def test_a_change_and_its_entry_are_recorded_together(audited: tuple[FollowRepository, AuditReader]) -> None:
    follows, reader = audited
    follow = make_follow()
    create, change, delete = AuditAction.FOLLOW_CREATED, AuditAction.FOLLOW_CHANGED, AuditAction.FOLLOW_DELETED
    created, refused, changed, skipped, deleted, missing = [
        AuditEntry(action=action, time=at(START + number), actor="api-key:a", follow_id=follow.id)
        for number, action in enumerate([create, create, change, change, delete, delete])
    ]
    assert follows.add_follow(follow, entry=created)
    assert not follows.add_follow(replace(follow, every=2 * HOUR), entry=refused)
    found = follows.change_follow(follow.id, pause, entry=changed)
    assert found is not None
    assert (found.status, found.version) == (FollowStatus.PAUSED, 2)
    assert follows.find_follow(follow.id) == found
    assert follows.change_follow(follow.id, lambda _: None, entry=skipped) is None
    assert follows.remove_follow(follow.id, entry=deleted)
    assert not follows.remove_follow(follow.id, entry=missing)
    assert follows.change_follow(follow.id, pause, entry=missing) is None
    assert list(reader.list_entries(limit=10).entries) == [deleted, changed, created]


def test_a_removed_follow_is_gone(follows: FollowRepository) -> None:
    follow, other = make_follow("acme/a"), make_follow("acme/b")
    follows.add_follow(follow)
    follows.add_follow(other)
    assert follows.remove_follow(follow.id)
    assert not follows.remove_follow(follow.id)
    assert follows.change_follow(follow.id, pause) is None
    assert follows.list_follows() == [other]


@pytest.mark.parametrize("follow_id", ["unknown", "", "\ud800", "x" * 3000])
def test_an_unknown_follow_is_none(follows: FollowRepository, follow_id: str) -> None:
    assert follows.find_follow(follow_id) is None
    assert follows.change_follow(follow_id, pause) is None
    assert not follows.remove_follow(follow_id)
    assert follows.list_follows() == []


def test_a_missing_table_is_storage_that_is_not_there() -> None:
    with open_aws("moto"):
        follows = DynamoDBFollowRepository(open_connection(REGION), follows_table="nowhere")
        follow = make_follow()
        for call in (
            lambda: follows.add_follow(follow),
            lambda: follows.find_follow(follow.id),
            follows.list_follows,
            lambda: follows.list_due(at(START), 1),
            lambda: follows.change_follow(follow.id, pause),
            lambda: follows.remove_follow(follow.id),
        ):
            with pytest.raises(StorageUnavailableError):
                call()
