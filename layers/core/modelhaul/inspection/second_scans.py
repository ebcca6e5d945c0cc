"""Requests to the second scanner for the pickles of a model."""

from dataclasses import dataclass, field

from modelhaul.domain.gate import PickleOpinion, SecondOpinion
from modelhaul.inspection.notes import InspectionNotes
from modelhaul.ports.pickle_scanner import PickleScanner

_MAX_SIZE = 16 * 1024 * 1024  # bytes of a model's pickles that the second scanner reads
_TIMEOUT = 60.0  # seconds
_PUBLISHING_SECONDS = 90.0  # of the function's time, reserved for publishing; the scanner must not use them


@dataclass(slots=True)
class SecondScans:
    """Pickles to scan. The opinions are stored in the notes."""

    scanner: PickleScanner
    notes: InspectionNotes
    _pending: dict[str, bytes] = field(default_factory=dict)
    _size: int = 0

    def begin_model(self) -> None:
        self._size = 0

    def add(self, path: str, pickles: bytes | None) -> None:
        """Add the pickles of a file.

        Record UNVERIFIED instead if `pickles` is None, or if the model's pickles exceed 16 MiB.
        """
        self._size += len(pickles or b"")
        if pickles is None or self._size > _MAX_SIZE:
            self.notes.opinions[path] = PickleOpinion(SecondOpinion.UNVERIFIED)
        elif pickles:
            self._pending[path] = pickles

    def run(self, remaining: float) -> None:
        """Scan the pending pickles. `remaining`: the seconds that the function has left."""
        pending, self._pending = self._pending, {}
        seconds = min(_TIMEOUT, remaining - _PUBLISHING_SECONDS)
        opinions = self.scanner.scan(list(pending.values()), seconds=seconds) if pending and seconds > 0 else []
        self.notes.opinions |= dict.fromkeys(pending, PickleOpinion(SecondOpinion.UNVERIFIED))
        self.notes.opinions |= dict(zip(pending, opinions, strict=False))
