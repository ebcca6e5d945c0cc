"""What every repository of the quota's state does."""

from dataclasses import replace
from types import MappingProxyType

from modelhaul.domain.quotas import QuotaState
from tests.contract.database_builders import START, claim
from tests.fakes.database import Database

STATE = QuotaState(
    limit=2 * 10**15, measured=10**15 + 1, measured_at=START + 0.25, reserved=MappingProxyType({"a": 5, "b": 10**14})
)


def test_a_state_is_read_as_it_was_saved(database: Database) -> None:
    assert database.quotas.read_state() == QuotaState()
    assert database.quotas.save_state(STATE)
    saved = database.quotas.read_state()
    assert saved.version is not None
    assert replace(saved, version=None) == STATE
    assert saved.bound == 10**15 + 1 + 5 + 10**14


def test_only_the_current_version_is_replaced(database: Database) -> None:
    assert database.quotas.save_state(STATE)
    assert not database.quotas.save_state(STATE), "there is a state"
    first = database.quotas.read_state()
    assert database.quotas.save_state(first.reserve("c", 7))
    assert not database.quotas.save_state(first.reserve("d", 8))
    assert not database.quotas.save_state(replace(first, version="another"))
    assert dict(database.quotas.read_state().reserved) == {"a": 5, "b": 10**14, "c": 7}


def test_a_state_holds_five_thousand_reservations(database: Database) -> None:
    reserved = {f"{number:08x}-0000-4000-8000-000000000000": 10**15 + number for number in range(5000)}
    assert database.quotas.save_state(replace(STATE, reserved=MappingProxyType(reserved)))
    assert dict(database.quotas.read_state().reserved) == reserved


def test_the_state_is_no_model(database: Database) -> None:
    claim(database)
    database.quotas.save_state(STATE)
    assert database.models.find_model("quota#state") is None
    assert list(database.models.list_ready()) == []
    assert database.models.list_models(limit=10).models == ()
