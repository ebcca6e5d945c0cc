"""The memory and disk that the transfer engine needs, measured on a process of its own as Linux accounts for it."""

import sys

import pytest

from modelhaul.streaming import MIB, choose_part_size
from tests.benchmarks.transfer_memory import measure_transfer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

MB = 1_000_000
BOUND = 256 * MB
SIZE = 256 * MB
SLOW = 40 * MB  # a second: slower than the source, so that every buffer fills
# Linux counts to a process also the pages of inodes whose access times change as it reads files.
ACCESS_TIMES = SIZE // 1_000


@pytest.mark.parametrize("as_for", [2_000 * MB, 500_000 * MB])
def test_a_large_file_stays_in_bounded_memory_and_off_the_disk(as_for: int) -> None:
    transfer = measure_transfer(SIZE, part_size=choose_part_size(as_for), store_rate=SLOW)
    assert transfer.usage.peak_rss < BOUND
    assert transfer.usage.written < ACCESS_TIMES
    assert transfer.files_left == []


def test_larger_parts_would_break_the_bound() -> None:
    """That the measurement sees what the engine holds."""
    transfer = measure_transfer(SIZE, part_size=128 * MIB, store_rate=SLOW)
    assert transfer.usage.peak_rss > BOUND
