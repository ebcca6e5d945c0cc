"""The database over which the suites of the repositories run."""

from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from tests.contract.backends import BACKENDS, open_aws
from tests.contract.database_builders import (
    START,
)
from tests.contract.dynamodb import clear_tables, control_moto, open_database, set_clock
from tests.fakes.clock import ManualClock
from tests.fakes.database import Database, build_database
from tests.fakes.tables import InMemoryTables


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture(scope="module", params=BACKENDS)
def opened(request: pytest.FixtureRequest) -> Iterator[Database | None]:
    if request.param == "fake":
        yield None
        return
    with open_aws(request.param):
        isolated = control_moto() if request.param == "moto" else nullcontext()
        with isolated, open_database() as database:
            yield database


@pytest.fixture
def database(opened: Database | None, clock: ManualClock) -> Iterator[Database]:
    if opened is None:
        yield build_database(InMemoryTables(clock=clock))
        return
    set_clock(opened, clock)
    yield opened
    clear_tables(opened)
