"""What an import costs in calls, messages and units is what `docs/calls.md` says, and grows with what is imported."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.call_counts import SHAPES, count_shape, describe_counts, list_names
from tests.contract import database_builders as builders
from tests.contract.backends import open_aws
from tests.contract.counted_aws import count_calls
from tests.contract.dynamodb import open_database


def test_units_are_counted_by_dynamodb_s_rules() -> None:
    with open_aws("moto"), open_database() as database, count_calls() as usage:
        counted: list[tuple[float, float]] = []

        def measure(call: Callable[[], object]) -> None:
            read, written = usage.read_units, usage.write_units
            call()
            counted.append((usage.read_units - read, usage.write_units - written))

        task = builders.drop(database)
        measure(lambda: builders.claim(database))
        measure(lambda: database.tasks.find_task(task.id))
        measure(lambda: database.tasks.postpone_check(task.id, check_at=builders.START + 400))
        measure(lambda: database.files.put_files(task.id, [builders.make_file(f"{n}" * 1000, 1) for n in range(3)]))
        measure(lambda: list(database.files.list_files(task.id)))
        measure(lambda: database.content.find_blobs(["sha256:aa"]))
    assert counted == [
        (0, 6),  # a task and a model by a transaction, the task in two indexes
        (1, 0),
        (0, 3),  # and in its index the task is deleted and put
        (0, 12),  # items of more than a kilobyte, by a transaction
        (1, 0),  # 3 kB
        (2, 0),  # staged or published
    ]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_grows_faster_than_linearly(shape: str) -> None:
    """Twice as much adds at most twice as much, but for what is rounded up to whole calls and units."""
    counts = count_shape(shape)
    for name in list_names(counts):
        first, second, third = (found.get(name, 0) for found in counts.values())
        assert third - second <= 2 * (second - first) + 2, name


@pytest.mark.timeout(600)
def test_the_page_says_what_an_import_does() -> None:
    """After a change that is meant: `make counts`, and look at what it changed."""
    page = Path(__file__).parents[2] / "docs" / "calls.md"
    assert page.read_text() == describe_counts()
