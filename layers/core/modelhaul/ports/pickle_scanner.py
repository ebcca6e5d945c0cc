"""A second scanner of pickles."""

from collections.abc import Sequence
from typing import Protocol

from modelhaul.domain.gate import PickleOpinion


class PickleScanner(Protocol):
    """A second scanner of pickles, in addition to Modelhaul's own inspection."""

    def scan(self, pickles: Sequence[bytes], *, seconds: float) -> list[PickleOpinion]:
        """Return a verdict on each item, in order, within about `seconds` in total. An item may have several
        concatenated pickles.

        Raises no errors. An item that cannot be scanned in time is UNVERIFIED.
        """
