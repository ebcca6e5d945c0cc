"""The report of the benchmarks, of which each part replaces its own section."""

from bench.__main__ import PARTS, read_sections, write_sections


def test_a_report_is_read_as_it_was_written() -> None:
    sections = {name: f"## {name}\n\n| a |\n|---|\n| <!-- 1 --> |" for name in PARTS}
    assert read_sections(write_sections(sections)) == sections


def test_a_part_keeps_its_place_and_the_others_stay() -> None:
    first, second, third, *_ = PARTS
    sections = read_sections(write_sections({third: "## Old", first: "## First"}))
    report = write_sections(sections | {third: "## New", second: "## Second"})
    assert report.index("## First") < report.index("## Second") < report.index("## New")
    assert "## Old" not in report


def test_what_no_part_makes_any_more_is_left_out() -> None:
    assert "## Gone" not in write_sections({"gone": "## Gone"})
    assert read_sections("# Benchmarks\n\nwritten by hand\n") == {}
