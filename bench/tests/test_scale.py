"""The pipeline in virtual time, on models that are too large to move."""

from bench.simulated_import import Pace, SimulatedImport, simulate_import
from modelhaul.transfer.policy import TransferPolicy


def move_shards(functions: int) -> SimulatedImport:
    return simulate_import(functions, large=64, large_size=4_300_000_000)


def test_functions_move_shards_side_by_side() -> None:
    alone, eight = move_shards(1), move_shards(8)
    moving, together = alone.verified - alone.planned, eight.verified - eight.planned
    assert moving / together > 0.9 * 8
    assert eight.function_seconds < 1.05 * alone.function_seconds, "and cost the same"
    assert alone.swept == eight.swept == 0, "nothing was taken for lost"


def test_a_file_of_hours_goes_through_many_functions() -> None:
    """500 GB at 75 MB/s are two hours, and a function has fifteen minutes."""
    simulated = simulate_import(16, large=1, large_size=500_000_000_000)
    assert simulated.messages["transfer_files"] == 9
    assert simulated.verified - simulated.planned > 500e9 / 75e6
    assert simulated.swept == 0


def test_a_task_s_files_are_recorded_as_fast_as_one_partition_takes_them() -> None:
    files = 9_000
    simulated = simulate_import(64, small=files, pace=Pace(source_answer=0.01))
    assert simulated.messages["transfer_files"] == files / TransferPolicy().group_files
    assert simulated.verified >= 4 * files / 1000
    assert simulated.messages.total() == simulated.functions, "each message was delivered once, none sent again"


def test_simulations_are_the_same_every_time() -> None:
    first, second = (simulate_import(7, small=500, large=5, large_size=10**9) for _ in range(2))
    assert first == second
