"""The pipeline in virtual time, with models that are too large for real transfers."""

import pytest

from bench.pace import Pace
from bench.prices import MEMORY, PUBLISHER_MEMORY
from bench.simulated_import import SimulatedImport, simulate_import
from modelhaul.transfer.policy import TransferPolicy
from tests.template.rules import list_resources
from tests.template.transformed import read_template, transform_template

FILE = 40_000_000_000


def move_file(functions: int, *, size: int = FILE, pace: Pace | None = None) -> SimulatedImport:
    return simulate_import(functions, large=1, large_size=size, pace=pace)


def move_shards(functions: int) -> SimulatedImport:
    return simulate_import(functions, large=64, large_size=4_300_000_000)


def test_functions_transfer_shards_in_parallel() -> None:
    alone, eight = move_shards(1), move_shards(8)
    single_time, parallel_time = alone.verified - alone.planned, eight.verified - eight.planned
    assert single_time / parallel_time > 0.9 * 8
    assert eight.function_seconds < 1.05 * alone.function_seconds, "the total function time is the same"
    assert alone.swept == eight.swept == 0, "the sweep did not restart anything"


def test_large_file_is_transferred_by_several_functions() -> None:
    """500 GB at 75 MB/s take two hours; a function runs for at most fifteen minutes."""
    simulated = move_file(1, size=500_000_000_000)
    assert simulated.messages["transfer_files"] + simulated.messages["join_transfer"] > 8
    assert simulated.verified - simulated.planned > 500e9 / 75e6
    assert simulated.swept == 0


@pytest.mark.parametrize("functions", [2, 4, 8, 16])
def test_functions_transfer_a_file_together(functions: int) -> None:
    alone, several = move_file(1), move_file(functions)
    single_time, parallel_time = alone.verified - alone.planned, several.verified - several.planned
    sharing = min(functions, TransferPolicy().file_functions)
    assert single_time / sharing < parallel_time < single_time / (0.6 * sharing)
    assert parallel_time > FILE / Pace().hash_rate, "all functions together hash no faster than one"
    assert several.messages["join_transfer"] == alone.messages["join_transfer"]
    assert several.messages["transfer_files"] <= sharing, "a function that joins may send another message at the end"
    assert several.swept == 0


def test_file_is_not_transferred_faster_than_one_function_hashes() -> None:
    rate = 100e6
    simulated = move_file(8, pace=Pace(hash_rate=rate, busy_hash_rate=rate / 2))
    assert FILE / rate < simulated.verified - simulated.planned < 1.25 * FILE / rate


def test_functions_pay_for_their_waiting_time() -> None:
    alone, eight = move_file(1), move_file(8)
    assert eight.function_seconds > 7 * (eight.verified - eight.planned) > 1.2 * alone.function_seconds


def test_functions_that_arrive_late_end_immediately() -> None:
    """One function transfers the file. The messages for seven others arrive when it is stored."""
    alone = move_file(1)
    assert (alone.messages["transfer_files"], alone.messages["join_transfer"]) == (1, 7)
    assert alone.function_seconds < 1.05 * FILE / Pace().rate


def test_records_are_limited_by_the_partition() -> None:
    groups = 8
    fast, slow = (
        simulate_import(8, small=groups * TransferPolicy().group_files, pace=Pace(partition_rate=rate))
        for rate in (1000, 10)
    )
    assert fast.messages["transfer_files"] == groups
    assert slow.planned - fast.planned > groups * 2 / 10, "each group takes more than a unit to plan"
    assert slow.verified > fast.verified + groups * 10 / 10, "and more than five units in a transaction to finish"


def test_small_files_are_limited_by_the_writes_of_s3() -> None:
    files = 1_000
    simulated = simulate_import(64, small=files, pace=Pace(write_rate=50))
    assert simulated.done > 2 * files / 50


def test_functions_copy_in_parallel() -> None:
    alone, eight = move_shards(1), move_shards(8)
    assert alone.messages["copy_files"] == eight.messages["copy_files"] == 10, "7 shards each"
    assert eight.messages["publish_models"] == 2, "the first one checks the model, the second one finishes it"
    assert eight.done - eight.verified < 0.5 * (alone.done - alone.verified)
    assert eight.messages.total() == eight.functions, "each message was delivered exactly once"


def test_simulations_are_deterministic() -> None:
    first, second = (simulate_import(7, small=500, large=3, large_size=10**10) for _ in range(2))
    assert first == second


def test_cold_starts_are_billed() -> None:
    """Each of three queues has one function."""
    fast, slow = (simulate_import(1, small=1, pace=Pace(cold_start=seconds)) for seconds in (1, 3))
    assert slow.function_seconds == pytest.approx(fast.function_seconds)
    assert slow.megabyte_seconds - fast.megabyte_seconds == pytest.approx(2 * (2 * MEMORY + PUBLISHER_MEMORY))


def test_prices_are_those_of_the_memory_in_the_template() -> None:
    memories = dict(list_resources(transform_template(read_template()), "AWS::Lambda::Function"))
    assert memories["TransferFilesFunction"]["MemorySize"] == MEMORY
    assert memories["PublishModelsFunction"]["MemorySize"] == PUBLISHER_MEMORY
