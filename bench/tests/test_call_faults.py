"""Each fault at the calls of AWS: the import ends right all the same, and as `docs/faults.md` says."""

from collections.abc import Iterator

import pytest

from bench.call_faults import Bench, ImportKind, list_faults, open_bench, read_table
from tests.contract.faulty_aws import CallFault

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with open_bench() as bench:
        yield bench


def choose_operations(kind: ImportKind, fault: CallFault) -> Iterator[tuple[str, int]]:
    """What to harm, and how many of it an import has: all that the Hub's import has, and what only another one has; of
    the rest a part with each fault. The page has all.
    """
    common = read_table(ImportKind.HUB).keys()
    faults = list(CallFault)
    for number, (operation, (count, _)) in enumerate(read_table(kind).items()):
        is_turn = faults[number % len(faults)] is fault
        if fault in list_faults(operation) and (kind is ImportKind.HUB or operation not in common or is_turn):
            yield operation, count


@pytest.mark.parametrize("fault", CallFault, ids=lambda fault: fault.name.lower())
@pytest.mark.parametrize("kind", ImportKind, ids=lambda kind: kind.name.lower())
def test_an_import_ends_right_whichever_request_is_harmed(bench: Bench, kind: ImportKind, fault: CallFault) -> None:
    """From the first request of a kind with the first fault to the last with the last one."""
    table, faults = read_table(kind), list(CallFault)
    for operation, count in choose_operations(kind, fault):
        at = faults.index(fault) * (count - 1) // (len(faults) - 1)
        outcome = bench.harm(kind, operation, at, fault)
        # What an outage leaves time for differs from run to run; that it ends right is what `harm` asserts.
        assert fault is CallFault.OUTAGE or outcome in table[operation][1][fault], f"{operation} number {at}"


@pytest.mark.parametrize("kind", ImportKind, ids=lambda kind: kind.name.lower())
def test_the_page_has_each_request_of_an_import_with_each_fault(bench: Bench, kind: ImportKind) -> None:
    table = read_table(kind)
    assert {operation: count for operation, (count, _) in table.items()} == bench.count_calls(kind)
    for operation, (count, outcomes) in table.items():
        tried = {fault: count if fault in list_faults(operation) else 0 for fault in CallFault}
        assert {fault: found.total() for fault, found in outcomes.items()} == tried, operation
