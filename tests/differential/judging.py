"""Our reading of a stream beside that of real unpicklers."""

from collections.abc import Collection

from modelhaul.domain.findings import FileVerdict
from modelhaul.inspection.pickles.streams import inspect_pickles


def judge(stream: bytes) -> str:
    """The verdict, or `none` for what is not a pickle."""
    report = inspect_pickles(lambda start, end: stream[start:end], 0, len(stream))
    return "none" if report is None else report.verdict.value


def disagree(verdict: str, asked: Collection[str] | None) -> bool:
    """Whether an unpickler asked for an import that is not allowed, in a stream that we call clean or not a pickle."""
    return bool(asked) and verdict in {FileVerdict.CLEAN, "none"}
