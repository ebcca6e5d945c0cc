"""Opinions on pickles as a test wants them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from modelhaul.domain.gate import PickleOpinion, SecondOpinion


@dataclass
class InMemoryPickleScanner:
    """`opinions` by content, and on all others `otherwise`. `asked` has the pickles and seconds of each call."""

    otherwise: SecondOpinion = SecondOpinion.CLEAN
    opinions: dict[bytes, PickleOpinion] = field(default_factory=dict)
    asked: list[tuple[list[bytes], float]] = field(default_factory=list)

    def scan(self, pickles: Sequence[bytes], *, seconds: float) -> list[PickleOpinion]:
        self.asked.append((list(pickles), seconds))
        return [self.opinions.get(pickle, PickleOpinion(self.otherwise)) for pickle in pickles]
