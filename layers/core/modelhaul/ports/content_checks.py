"""Checks of the content of files."""

from collections.abc import Mapping
from typing import Protocol

from modelhaul.domain.gate import FileCheck
from modelhaul.domain.json_streams import ReadRange


class ContentChecker(Protocol):
    """Checks the content of verified files, each by itself. One checker serves one message. Thread-safe."""

    def check(self, path: str, size: int, read: ReadRange) -> FileCheck:
        """Check a file. `path` is relative to its model. Its pickles are kept for `add_opinions`. Raises what `read`
        raises.
        """

    def add_opinions(self, checks: Mapping[str, FileCheck], *, seconds: float) -> dict[str, FileCheck]:
        """Return the checks, by the path that `check` received, with the second scanner's opinions on their pickles.

        The scan takes about `seconds` at most. Pickles that could not be scanned are UNVERIFIED.
        """
