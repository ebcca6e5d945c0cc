"""What several suites share: servers that take long to start, and how hypothesis runs."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.upstream.git_repository import RepositoryMaker
from tests.upstream.git_tools import LfsServer, find_missing_tools

# How long an example takes says more about the machine than about the code.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")


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
