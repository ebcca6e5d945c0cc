"""Each fault at each call of AWS: the import ends right all the same. `docs/faults.md` is the table of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.benchmarks.call_faults import Bench, CallFault, list_calls, open_bench


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with open_bench() as bench:
        yield bench


@pytest.fixture(scope="module")
def calls(bench: Bench) -> dict[str, int]:
    return list_calls(bench)


@pytest.mark.parametrize("fault", CallFault)
@pytest.mark.timeout(300)
def test_an_import_ends_right_whichever_request_is_harmed(
    bench: Bench, calls: dict[str, int], fault: CallFault
) -> None:
    struck = 0
    for operation, count in calls.items():
        # One of each kind, another for each fault; the table has all.
        bench.aws.aim(operation, list(CallFault).index(fault) % count, fault)
        bench.run()
        struck += bool(bench.aws.struck)
    assert struck == len(calls)


def test_the_table_has_all_requests(calls: dict[str, int]) -> None:
    table = (Path(__file__).parents[2] / "docs" / "faults.md").read_text()
    assert [
        line.split(" | ")[0] for line in table.splitlines() if line.startswith(("| dynamodb", "| s3", "| sqs"))
    ] == [f"| {operation}" for operation in calls]
