"""What every repository of read keys does."""

import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta

import pytest

from modelhaul.adapters.dynamodb.connection import open_connection
from modelhaul.adapters.dynamodb.read_keys import DynamoDBReadKeyRepository
from modelhaul.domain.errors import StorageUnavailableError
from modelhaul.domain.read_keys import ReadKey, Scope, create_key
from modelhaul.ports.read_keys import ReadKeyRepository
from tests.contract.backends import BACKENDS, REGION, open_aws
from tests.contract.database_builders import START, at
from tests.fakes.clock import ManualClock
from tests.fakes.read_key_repository import InMemoryReadKeyRepository

DAY = date(2026, 11, 27)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture(params=BACKENDS)
def keys(request: pytest.FixtureRequest, clock: ManualClock) -> Iterator[ReadKeyRepository]:
    if request.param == "fake":
        yield InMemoryReadKeyRepository(clock)
        return
    with open_aws(request.param):
        table = f"keys-{uuid.uuid4().hex}"
        adapter = DynamoDBReadKeyRepository(open_connection(REGION), keys_table=table, clock=clock)
        adapter._keys.create_table(wait=True, billing_mode="PAY_PER_REQUEST")
        yield adapter
        adapter._keys.delete_table()


def make_key(name: str = "ci", *, age: float = 0, lifetime: float | None = None) -> ReadKey:
    """A key, created so many seconds ago."""
    expires_at = None if lifetime is None else at(START + lifetime)
    return create_key(name, [Scope.IMPORT], expires_at, at(START - age + 0.25))[1]


def test_a_key_is_found_as_it_was_added(keys: ReadKeyRepository) -> None:
    for key in (
        make_key("Jörg's laptop", lifetime=0.5),
        replace(make_key(), scopes=(Scope.READ,), last_used_on=DAY, created_by="api-key:a"),
        replace(make_key(), names=("gpt2", "org/*")),
    ):
        assert keys.find_key(key.key_id) is None
        keys.add_key(key)
        assert keys.find_key(key.key_id) == key


def test_a_key_without_names_can_read_all_models(keys: ReadKeyRepository) -> None:
    """Records of earlier versions have no names."""
    key = make_key()
    keys.add_key(key)
    if isinstance(keys, DynamoDBReadKeyRepository):
        assert "names" not in keys._keys.get(key.key_id).attribute_values
    found = keys.find_key(key.key_id)
    assert found is not None
    assert found.names == ("*",)


def test_keys_are_listed_newest_first(keys: ReadKeyRepository) -> None:
    assert keys.list_keys() == []
    made = [make_key(age=age) for age in (0, 1, 2, 3)]
    for key in (made[2], made[0], made[3], made[1]):
        keys.add_key(key)
    assert keys.list_keys() == made


def test_an_expired_key_is_listed_for_30_days(keys: ReadKeyRepository, clock: ManualClock) -> None:
    expiring, lasting = make_key(lifetime=60), make_key(age=1)
    keys.add_key(expiring)
    keys.add_key(lasting)
    clock.now = START + timedelta(days=30).total_seconds() + 59
    assert keys.list_keys() == [expiring, lasting]
    clock.now += 1
    assert keys.list_keys() == [lasting]


def test_a_removed_key_is_gone(keys: ReadKeyRepository) -> None:
    key, other = make_key(), make_key()
    keys.add_key(key)
    keys.add_key(other)
    assert keys.remove_key(key.key_id)
    assert not keys.remove_key(key.key_id)
    assert keys.find_key(key.key_id) is None
    keys.record_use(key.key_id, DAY)
    assert keys.list_keys() == [other]


def test_the_last_day_of_use_is_kept(keys: ReadKeyRepository) -> None:
    key = make_key()
    keys.add_key(key)
    for day, expected in ((DAY, DAY), (date(2025, 12, 31), DAY), (DAY, DAY), (date(2027, 1, 1), date(2027, 1, 1))):
        keys.record_use(key.key_id, day)
        assert keys.find_key(key.key_id) == replace(key, last_used_on=expected)


@pytest.mark.parametrize("key_id", ["unknown", "", "\ud800", "x" * 3000])
def test_an_unknown_key_is_none(keys: ReadKeyRepository, key_id: str) -> None:
    keys.record_use(key_id, DAY)
    assert keys.find_key(key_id) is None
    assert not keys.remove_key(key_id)
    assert keys.list_keys() == []


def test_a_missing_table_is_storage_that_is_not_there() -> None:
    with open_aws("moto"):
        keys = DynamoDBReadKeyRepository(open_connection(REGION), keys_table="nowhere")
        key = make_key()
        for call in (
            lambda: keys.add_key(key),
            lambda: keys.find_key(key.key_id),
            keys.list_keys,
            lambda: keys.remove_key(key.key_id),
            lambda: keys.record_use(key.key_id, DAY),
        ):
            with pytest.raises(StorageUnavailableError):
                call()
