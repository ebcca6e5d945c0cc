"""Imports with an outage of AWS end correctly. `test_pages.py` compares the other faults with `docs/faults.md`."""

from collections.abc import Iterator

import pytest

from bench.call_faults import Bench, ImportKind, open_bench, read_table
from tests.contract.faulty_aws import CallFault

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with open_bench() as bench:
        yield bench


def select_operations(kind: ImportKind) -> Iterator[tuple[str, int]]:
    """Yield operations with their number of requests: all operations of a Hub import, those that only another kind has,
    and a sixth of the rest. The page has all.
    """
    common = read_table(ImportKind.HUB).keys()
    for number, (operation, (count, _)) in enumerate(read_table(kind).items()):
        if kind is ImportKind.HUB or operation not in common or number % len(CallFault) == 0:
            yield operation, count


@pytest.mark.parametrize("kind", ImportKind, ids=lambda kind: kind.name.lower())
def test_import_ends_correctly_after_an_outage(bench: Bench, kind: ImportKind) -> None:
    """The outcome varies between runs; `run_with_fault` asserts that it is valid."""
    for operation, count in select_operations(kind):
        bench.run_with_fault(kind, operation, count - 1, CallFault.OUTAGE)


@pytest.mark.parametrize("kind", ImportKind, ids=lambda kind: kind.name.lower())
def test_page_has_an_outage_of_each_request(kind: ImportKind) -> None:
    for operation, (count, outcomes) in read_table(kind).items():
        assert outcomes[CallFault.OUTAGE].total() == count, operation
