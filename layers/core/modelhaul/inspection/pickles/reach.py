"""How far an unpickler would get in bytes that need not be a pickle: raw weights, or text."""

import re
from enum import IntEnum

from modelhaul.domain.json_streams import ReadRange
from modelhaul.inspection.pickles.joblib_arrays import UnparsedError
from modelhaul.inspection.pickles.machine import AllowedImports, PickleMachine
from modelhaul.inspection.pickles.opcodes import Budget, DeadStreamError, LimitError, NotCanonicalError, Source

_MAX_PICKLES = 1_000  # one after another
_MODULE = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")


class Reach(IntEnum):
    NOTHING = 0  # every unpickler stops before it imports a module that can exist
    IMPORT = 1
    CALL = 2  # or what follows cannot be told


class _Tracker(PickleMachine):
    """Notes imports of modules that can exist, and calls of what was imported."""

    reach = Reach.NOTHING

    def import_name(self, names: tuple[str, str]) -> None:
        super().import_name(names)
        if _MODULE.fullmatch(names[0]):
            self.reach = max(self.reach, Reach.IMPORT)

    def call(self, callee: int, arguments: int) -> int:
        if self.reach:
            self.reach = Reach.CALL
        return super().call(callee, arguments)

    def set_state(self) -> None:
        super().set_state()
        self._call_in_items()

    def set_items(self, at: int) -> None:
        super().set_items(at)
        self._call_in_items()

    def add_items(self, at: int, kind: int) -> None:
        super().add_items(at, kind)
        self._call_in_items()

    def _call_in_items(self) -> None:
        """State and items call methods of what was imported, which state may have replaced."""
        if self.reach:
            self.reach = Reach.CALL

    def import_from_stack(self) -> None:
        super().import_from_stack()
        # The name may have been hidden.
        self.reach = max(self.reach, Reach.IMPORT)


def find_reach(read: ReadRange, start: int, end: int, budget: Budget | None = None) -> Reach:
    """How far an unpickler gets in bytes `start` to `end` (excluded), which may begin with several pickles.

    `budget` is what may be read, shared with the other pickles of a file.
    """
    source = Source(read, start, end, budget)
    allowed = AllowedImports({})
    reach = Reach.NOTHING
    for number in range(_MAX_PICKLES):
        machine = _Tracker(source, allowed, is_first=not number)
        try:
            machine.run()
        except DeadStreamError:
            return max(reach, machine.reach)
        except (LimitError, NotCanonicalError, UnparsedError):
            return Reach.CALL
        reach = max(reach, machine.reach)
        if reach is Reach.CALL or source.position == end:
            return reach
    return Reach.CALL
