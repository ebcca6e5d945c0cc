"""Requests, messages and units of an import grow linearly. `test_pages.py` compares them with `docs/calls.md`."""

import random
from collections.abc import Callable
from datetime import date
from string import ascii_letters

import pytest

from bench.call_counts import SHAPES, count_shape, list_names
from tests.contract import database_builders as builders
from tests.contract.backends import open_aws
from tests.contract.counted_aws import count_calls
from tests.contract.dynamodb import open_database


def test_units_follow_the_rules_of_dynamodb() -> None:
    with open_aws("moto"), open_database() as database, count_calls() as usage:
        units: list[tuple[float, float]] = []

        def measure(call: Callable[[], object]) -> None:
            read, written = usage.read_units, usage.write_units
            call()
            units.append((usage.read_units - read, usage.write_units - written))

        task = builders.drop(database)
        model = builders.make_model()
        measure(lambda: builders.claim(database, model))
        measure(lambda: database.tasks.find_task(task.id))
        measure(lambda: database.tasks.postpone_check(task.id, check_at=builders.START + 400))
        files = [[builders.make_file("".join(random.Random(n).choices(ascii_letters, k=1400)), 1)] for n in range(3)]
        measure(lambda: database.files.put_groups("plan", files))
        measure(lambda: list(database.files.list_groups("plan")))
        measure(lambda: database.content.find_blobs(["sha256:aa"]))
        measure(lambda: database.hub_models.find_entry(model.resolved.hub_id))
        measure(lambda: database.hub_models.record_read(model.model_id, date(2026, 11, 27)))
    assert units == [
        (0, 7),  # a task and a model in a transaction, the task in two indexes, and the model in one
        (1, 0),
        (0, 3),  # including a delete and a put in the index
        (0, 6),  # items of more than 1 kB
        (1, 0),  # 3.6 kB
        (3, 0),  # also in two entries of earlier versions
        (0.5, 0),  # from an index
        (0, 1),  # not in the index of a model that is not READY
    ]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("shape", SHAPES)
def test_counts_grow_linearly(shape: str) -> None:
    """Doubling the size at most doubles the increase, apart from rounding to whole requests and units."""
    counts = count_shape(shape)
    for name in list_names(counts):
        first, second, third = (found.get(name, 0) for found in counts.values())
        assert third - second <= 2 * (second - first) + 2, name
