"""Imports with faults of AWS requests end correctly, as documented in `docs/faults.md`."""

from collections.abc import Iterator

import pytest

from bench.call_faults import Bench, ImportKind, list_faults, open_bench, read_table
from tests.contract.faulty_aws import CallFault

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with open_bench() as bench:
        yield bench


def select_operations(kind: ImportKind, fault: CallFault) -> Iterator[tuple[str, int]]:
    """Yield the operations to test with a fault, and their number of requests: all operations of a Hub import, and the
    operations that only another kind has. Each fault gets a share of the rest. The page has all combinations.
    """
    common = read_table(ImportKind.HUB).keys()
    faults = list(CallFault)
    for number, (operation, (count, _)) in enumerate(read_table(kind).items()):
        is_selected = faults[number % len(faults)] is fault
        if fault in list_faults(operation) and (kind is ImportKind.HUB or operation not in common or is_selected):
            yield operation, count


@pytest.mark.parametrize("fault", CallFault, ids=lambda fault: fault.name.lower())
@pytest.mark.parametrize("kind", ImportKind, ids=lambda kind: kind.name.lower())
def test_import_ends_correctly_with_each_fault(bench: Bench, kind: ImportKind, fault: CallFault) -> None:
    """The first fault hits the first request of an operation, the last fault the last request."""
    table, faults = read_table(kind), list(CallFault)
    for operation, count in select_operations(kind, fault):
        at = faults.index(fault) * (count - 1) // (len(faults) - 1)
        outcome = bench.run_with_fault(kind, operation, at, fault)
        # The outcome of an outage varies between runs; `run_with_fault` asserts that it is valid.
        assert fault is CallFault.OUTAGE or outcome in table[operation][1][fault], f"{operation} number {at}"


@pytest.mark.parametrize("kind", ImportKind, ids=lambda kind: kind.name.lower())
def test_page_has_each_request_with_each_fault(bench: Bench, kind: ImportKind) -> None:
    table = read_table(kind)
    assert {operation: count for operation, (count, _) in table.items()} == bench.count_calls(kind)
    for operation, (count, outcomes) in table.items():
        expected = {fault: count if fault in list_faults(operation) else 0 for fault in CallFault}
        assert {fault: counts.total() for fault, counts in outcomes.items()} == expected, operation
