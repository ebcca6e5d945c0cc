"""Requests to the second scanner for the pickles of files."""

from collections.abc import Collection
from dataclasses import dataclass, field

from modelhaul.domain.findings import ContentReport, FileVerdict
from modelhaul.domain.gate import PickleOpinion, SecondOpinion
from modelhaul.ports.pickle_scanner import PickleScanner

_MAX_SIZE = 16 * 1024 * 1024  # bytes of pickles that the second scanner reads
_TIMEOUT = 60.0  # seconds


@dataclass(slots=True)
class SecondScans:
    """Pickles to scan, of up to 16 MiB: those of the first paths, in whichever order the files are inspected."""

    scanner: PickleScanner
    _pending: dict[str, bytes] = field(default_factory=dict)
    _opinions: dict[str, PickleOpinion] = field(default_factory=dict)
    _size: int = 0  # bytes, also of the scanned pickles
    _end: str | None = None  # the first path that exceeds the limit

    def add(self, path: str, report: ContentReport) -> PickleOpinion | None:
        """Add the pickles of an inspected file. Return the opinion on them that is valid until they are scanned.

        Return None for files that are not scanned: files without pickles, and files with findings.
        """
        self._size -= len(self._pending.pop(path, b""))
        self._opinions.pop(path, None)
        if not report.is_loadable or report.verdict is FileVerdict.UNSAFE or report.pickles == b"":
            return None
        if report.pickles is not None and (self._end is None or path < self._end):
            self._pending[path] = report.pickles
            self._size += len(report.pickles)
            while self._size > _MAX_SIZE:
                self._end = max(self._pending)
                self._size -= len(self._pending.pop(self._end))
        return PickleOpinion(SecondOpinion.UNVERIFIED)

    def run(self, paths: Collection[str], *, seconds: float) -> dict[str, PickleOpinion]:
        """Scan the pickles of these files that are not scanned yet. Return the opinions on the files by path.

        The scan takes about `seconds` at most. Pickles that could not be scanned have no opinion.
        """
        pickles = {path: self._pending.pop(path) for path in paths if path in self._pending}
        seconds = min(_TIMEOUT, seconds)
        opinions = self.scanner.scan(list(pickles.values()), seconds=seconds) if pickles and seconds > 0 else []
        self._opinions |= dict(zip(pickles, opinions, strict=False))
        return {path: self._opinions[path] for path in paths if path in self._opinions}
