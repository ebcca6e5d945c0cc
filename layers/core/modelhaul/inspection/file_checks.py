"""Checks of single files, in the function that has verified them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from threading import Lock

from modelhaul.domain.gate import FileCheck, PicklePolicy
from modelhaul.domain.json_streams import ReadRange
from modelhaul.inspection.loaders import is_unpickled
from modelhaul.inspection.name_checks import check_name
from modelhaul.inspection.opened import HEAD, OpenedFile
from modelhaul.inspection.recognize import inspect_file
from modelhaul.inspection.second_scans import SecondScans
from modelhaul.ports.pickle_scanner import PickleScanner


@dataclass(slots=True)
class FileChecker:
    """Implements `ContentChecker`.

    It inspects one file, or runs the second scanner, at a time: both may use most of the function's memory.
    """

    policy: PicklePolicy
    scanner: PickleScanner
    _scans: SecondScans = field(init=False)
    _lock: Lock = field(init=False, default_factory=Lock)

    def __post_init__(self) -> None:
        self._scans = SecondScans(self.scanner)

    def check(self, path: str, size: int, read: ReadRange) -> FileCheck:
        file = OpenedFile(path, size, read(0, min(size, HEAD)), read, is_unpickled(path))
        with self._lock:
            check = check_name(file)
            if self.policy is PicklePolicy.OFF:
                return check
            report = inspect_file(file)
            return replace(check, report=replace(report, pickles=None), opinion=self._scans.add(path, report))

    def add_opinions(self, checks: Mapping[str, FileCheck], *, seconds: float) -> dict[str, FileCheck]:
        with self._lock:
            opinions = self._scans.run(checks, seconds=seconds)
        return {path: replace(check, opinion=opinions.get(path, check.opinion)) for path, check in checks.items()}
