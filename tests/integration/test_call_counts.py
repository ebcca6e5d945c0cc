"""What an import costs in calls, messages and units is what `docs/calls.md` says, and grows with what is imported."""

from pathlib import Path

import pytest

from tests.benchmarks.call_counts import SHAPES, count_shape, describe_counts, list_names


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
