"""The report of the benchmarks, in which each part replaces its own section."""

from bench.__main__ import PARTS, format_report, read_sections


def test_report_is_parsed_as_it_was_formatted() -> None:
    sections = {name: f"## {name}\n\n| a |\n|---|\n| <!-- 1 --> |" for name in PARTS}
    assert read_sections(format_report(sections)) == sections


def test_part_replaces_only_its_section() -> None:
    first, second, third, *_ = PARTS
    sections = read_sections(format_report({third: "## Old", first: "## First"}))
    report = format_report(sections | {third: "## New", second: "## Second"})
    assert report.index("## First") < report.index("## Second") < report.index("## New")
    assert "## Old" not in report


def test_sections_of_removed_parts_are_omitted() -> None:
    assert "## Gone" not in format_report({"gone": "## Gone"})
    assert read_sections("# Benchmarks\n\nwritten by hand\n") == {}
