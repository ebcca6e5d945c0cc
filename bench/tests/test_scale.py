"""The pipeline in virtual time, with models that are too large for real transfers."""

from bench.simulated_import import Pace, SimulatedImport, simulate_import
from modelhaul.transfer.policy import TransferPolicy


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
    simulated = simulate_import(16, large=1, large_size=500_000_000_000)
    assert simulated.messages["transfer_files"] == 9
    assert simulated.verified - simulated.planned > 500e9 / 75e6
    assert simulated.swept == 0


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
    first, second = (simulate_import(7, small=500, large=5, large_size=10**9) for _ in range(2))
    assert first == second
