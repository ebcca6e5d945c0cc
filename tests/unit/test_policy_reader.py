"""The reader of the policy: what it keeps, and what it refuses."""

import hashlib
from datetime import UTC, datetime, timedelta

import pytest

from modelhaul.domain.audit import AuditEntry
from modelhaul.domain.errors import PolicyUnavailableError, StorageUnavailableError
from modelhaul.domain.models import Source
from modelhaul.policy.facts import ImportFacts
from modelhaul.policy.reader import PolicyReader
from modelhaul.ports.audit_log import DisabledAuditLog
from tests.fakes.database import build_database
from tests.fakes.policy_store import InMemoryPolicyStore
from tests.fakes.tables import InMemoryTables

FIRST = b'{"version": 1}'
SECOND = b'{"version": 1, "default": "deny"}'


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_policy_is_kept_for_a_minute() -> None:
    store, clock = InMemoryPolicyStore(FIRST), Clock()
    reader = PolicyReader(store, clock=clock)
    first = reader.read()
    assert (first.content, first.location) == (FIRST, store.location)
    assert first.digest == hashlib.sha256(FIRST).hexdigest()
    store.content = SECOND
    clock.now = 59.9
    assert (reader.read(), store.reads) == (first, 1)
    assert reader.read_current().content == SECOND
    clock.now = 60
    assert reader.read().policy.default == "deny"
    assert store.reads == 3


def test_a_result_has_the_digest_of_its_document() -> None:
    read = PolicyReader(InMemoryPolicyStore(SECOND)).read()
    facts = ImportFacts(now=datetime.now(UTC), source=Source.LOCAL)
    assert read.evaluate(facts).digest == hashlib.sha256(SECOND).hexdigest()


@pytest.mark.parametrize("content", [None, b"", b'{"version": 2}', b"\xff"])
def test_without_a_valid_document_there_is_no_policy(content: bytes | None) -> None:
    """The last valid document is not used any longer than another."""
    store, clock = InMemoryPolicyStore(FIRST), Clock()
    reader = PolicyReader(store, clock=clock)
    reader.read()
    store.content = content
    clock.now = 60
    for _ in range(2):
        with pytest.raises(PolicyUnavailableError, match=r"policy at s3://bucket/policy\.json cannot be") as caught:
            reader.read()
    assert caught.value.is_outage, "imports wait for the correction"
    store.content = SECOND
    assert reader.read().content == SECOND, "the correction is effective at once"


def test_each_version_that_is_used_is_recorded_once() -> None:
    """Also by several functions. A version that is restored is a change."""
    database = build_database(InMemoryTables())
    store, clock = InMemoryPolicyStore(FIRST, modified_at=datetime.now(UTC)), Clock()
    readers = [PolicyReader(store, audit=database.audit, clock=clock) for _ in range(2)]
    times = []
    for content in (FIRST, FIRST, SECOND, FIRST):
        if content != store.content:
            store.modified_at += timedelta(hours=1)
        store.content = content
        times.append(store.modified_at)
        for reader in readers:
            reader.read()
        clock.now += 60
    entries = database.audit_reader.list_entries(limit=10).entries
    assert [entry.action for entry in entries] == ["PolicyChanged"] * 3
    digests = [hashlib.sha256(text).hexdigest() for text in (FIRST, SECOND, FIRST)]
    assert [entry.detail["digest"] for entry in entries] == digests, "newest first"
    assert [entry.time for entry in entries] == sorted(set(times), reverse=True)
    assert {entry.detail["location"] for entry in entries} == {store.location}


def test_a_version_that_cannot_be_recorded_is_not_used() -> None:
    class BrokenAuditLog(DisabledAuditLog):
        is_down = True

        def record(self, entry: AuditEntry) -> None:
            if self.is_down:
                raise StorageUnavailableError("DynamoDB PutItem failed (InternalServerError).")

    audit = BrokenAuditLog()
    reader = PolicyReader(InMemoryPolicyStore(FIRST), audit=audit)
    for _ in range(2):
        with pytest.raises(StorageUnavailableError):
            reader.read()
    audit.is_down = False
    assert reader.read().content == FIRST
