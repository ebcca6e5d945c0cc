"""A second scanner of pickles."""

from collections.abc import Sequence
from typing import Protocol

from modelhaul.domain.gate import PickleOpinion


class PickleScanner(Protocol):
    """Another judge of pickles than the gate's own reader."""

    def scan(self, pickles: Sequence[bytes], *, seconds: float) -> list[PickleOpinion]:
        """An opinion on each, in order, within about `seconds` for all. Each may be several, one behind the other.

        Raises nothing: what it cannot judge, or not in time, is UNVERIFIED.
        """
