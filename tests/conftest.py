"""Servers that take long to start, settings of hypothesis, and how tests are distributed to workers."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from local.stack import LocalStack
from tests.upstream.git_repository import RepositoryMaker
from tests.upstream.git_tools import LfsServer, find_missing_tools

# How long an example takes says more about the machine than about the code.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")


# The slowest tests first, so that no worker has a long one left at the end.
_SLOWEST = ("tests/stack/", "bench/", "tests/integration/")
_COUNTING = ("test_call_counts.py", "test_costs.py")
# Modules of tests/stack that start stacks of their own, and do not use the shared one.
_OWN_STACKS = (
    "test_documented_commands.py",
    "test_import_policy.py",
    "test_parameters.py",
    "test_policy.py",
    "test_quota.py",
    "test_released_data.py",
    "test_two_stacks.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.name in _OWN_STACKS and "stack" in getattr(item, "fixturenames", ()):
            raise pytest.UsageError(f"{item.nodeid} uses the shared stack: remove its module from _OWN_STACKS.")
    items.sort(key=lambda item: _find_position(item.nodeid))


def _find_position(test: str) -> int:
    return next((n for n, folder in enumerate(_SLOWEST) if test.startswith(folder)), len(_SLOWEST))


class _Scheduler(LoadScopeScheduling):  # type: ignore[misc]
    """Assigns modules to workers, because the tests of a module share fixtures. One worker gets all tests on the shared
    stack. The tests of the benchmarks, which take up to a minute, are assigned one by one,
    except those that share counts.
    """

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        if module.startswith("tests/stack/") and not module.endswith(_OWN_STACKS):
            return "tests/stack"
        if module.startswith("bench/"):
            shares_counts = module.endswith(_COUNTING) or "[calls]" in nodeid or "[costs" in nodeid
            return "counts" if shares_counts else nodeid
        return module


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Scheduler:
    config.option.loadscopereorder = False
    return _Scheduler(config, log)


def _name_stack() -> str:
    """Return the name of the stack of this run, which is the same on its workers."""
    return f"test-{os.getppid() if 'PYTEST_XDIST_WORKER' in os.environ else os.getpid()}"


@pytest.fixture(scope="session")
def stack_name() -> str:
    return _name_stack()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the stack of an interrupted run. xdist kills a worker that does not end within 10 s."""
    if not hasattr(config, "workerinput"):
        LocalStack(_name_stack()).stop()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What passing tests measured (`record_property`): xdist keeps what they print to itself."""
    measured = [report for report in terminalreporter.getreports("passed") if report.user_properties]
    if measured:
        terminalreporter.section("measured")
    for report in measured:
        for name, value in report.user_properties:
            terminalreporter.line(f"{report.nodeid}: {name}: {value}")


@pytest.fixture(scope="session")
def lfs_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LfsServer]:
    if missing := find_missing_tools():
        pytest.skip(f"not installed: {', '.join(missing)} (`make setup` says why)")
    with LfsServer(tmp_path_factory.mktemp("lfs")) as server:
        yield server


@pytest.fixture(scope="session")
def repository_maker(lfs_server: LfsServer, tmp_path_factory: pytest.TempPathFactory) -> RepositoryMaker:
    return RepositoryMaker(tmp_path_factory.mktemp("repositories"), lfs_server)
