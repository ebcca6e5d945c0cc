"""Comparison of the inspection's verdict on a stream with real unpicklers."""

from collections.abc import Collection

from modelhaul.domain.findings import FileVerdict
from modelhaul.inspection.pickles.streams import inspect_pickles


def judge(stream: bytes) -> str:
    """Return the verdict, or `none` if the stream is not a pickle."""
    report = inspect_pickles(lambda start, end: stream[start:end], 0, len(stream))
    return "none" if report is None else report.verdict.value


def disagree(verdict: str, asked: Collection[str] | None) -> bool:
    """Return whether an unpickler requested an import that is not allowed, although the verdict is clean or `none`."""
    return bool(asked) and verdict in {FileVerdict.CLEAN, "none"}
