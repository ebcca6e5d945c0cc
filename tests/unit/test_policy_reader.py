"""The reader of the policy: what it keeps, and what it refuses."""

import hashlib
from datetime import UTC, datetime

import pytest

from modelhaul.domain.errors import PolicyUnavailableError
from modelhaul.domain.models import Source
from modelhaul.policy.facts import ImportFacts
from modelhaul.policy.reader import PolicyReader
from tests.fakes.policy_store import InMemoryPolicyStore

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
