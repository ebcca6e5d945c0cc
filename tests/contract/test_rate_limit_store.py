import uuid
from collections.abc import Iterator

import pytest

from modelhaul.adapters.dynamodb.connection import open_connection
from modelhaul.adapters.dynamodb.rate_limits import DynamoDBRateLimitStore
from modelhaul.domain.errors import StorageUnavailableError
from modelhaul.ports.rate_limits import RateLimitStore
from tests.contract.backends import BACKENDS, REGION, open_aws
from tests.fakes.rate_limit_store import InMemoryRateLimitStore


@pytest.fixture(params=BACKENDS)
def store(request: pytest.FixtureRequest) -> Iterator[RateLimitStore]:
    if request.param == "fake":
        yield InMemoryRateLimitStore()
        return
    with open_aws(request.param):
        adapter = DynamoDBRateLimitStore(open_connection(REGION), rate_limits_table=f"limits-{uuid.uuid4().hex}")
        adapter._limits.create_table(wait=True, billing_mode="PAY_PER_REQUEST")
        yield adapter
        adapter._limits.delete_table()


def test_nothing_is_paused_at_first(store: RateLimitStore) -> None:
    assert store.find_pause("a limit") == 0.0


def test_the_longest_pause_holds_for_its_limit(store: RateLimitStore) -> None:
    for until in (1_800_000_100.5, 1_800_000_050.0, 1_800_000_100.5):
        store.record_pause("a limit", until)
        assert store.find_pause("a limit") == 1_800_000_100.5
    store.record_pause("a limit", 1_800_000_200.0)
    assert store.find_pause("a limit") == 1_800_000_200.0
    assert store.find_pause("another") == 0.0


def test_a_missing_table_is_storage_that_is_not_there() -> None:
    with open_aws("moto"):
        store = DynamoDBRateLimitStore(open_connection(REGION), rate_limits_table="nowhere")
        with pytest.raises(StorageUnavailableError):
            store.find_pause("a limit")
        with pytest.raises(StorageUnavailableError):
            store.record_pause("a limit", 1.0)
