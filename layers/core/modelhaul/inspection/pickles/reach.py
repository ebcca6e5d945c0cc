"""How far an unpickler reads in content that may not be a pickle, such as raw weights or text."""

import re
from enum import IntEnum

from modelhaul.domain.json_streams import ReadRange
from modelhaul.inspection.pickles.interpreter import run_pickle
from modelhaul.inspection.pickles.joblib_arrays import UnsupportedArrayError
from modelhaul.inspection.pickles.machine import AllowedImports, PickleMachine
from modelhaul.inspection.pickles.source import Budget, DeadStreamError, LimitError, NotCanonicalError, Source

_MAX_PICKLES = 1_000  # one after another
_MODULE = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")


class Reach(IntEnum):
    NOTHING = 0  # every unpickler stops before it imports a module that can exist
    IMPORT = 1
    CALL = 2  # also if the rest cannot be interpreted


class _ReachMachine(PickleMachine):
    """Records imports of modules that can exist, and calls of imports."""

    reach = Reach.NOTHING

    def import_name(self, names: tuple[str, str]) -> None:
        super().import_name(names)
        if _MODULE.fullmatch(names[0]):
            self.reach = max(self.reach, Reach.IMPORT)

    def import_from_stack(self) -> None:
        super().import_from_stack()
        # The name may be one that the machine does not know.
        self.reach = max(self.reach, Reach.IMPORT)

    def call(self, callee: int, arguments: int) -> int:
        self._record_call()
        return super().call(callee, arguments)

    def build(self) -> int | None:
        array_state = super().build()
        self._record_call()
        return array_state

    def set_items(self, start: int) -> None:
        super().set_items(start)
        self._record_call()

    def add_items(self, start: int, kind: int) -> None:
        super().add_items(start, kind)
        self._record_call()

    def _record_call(self) -> None:
        """Record a call if anything was imported.

        Setting state or items also calls methods of imported objects. Earlier state may have replaced these methods.
        """
        if self.reach:
            self.reach = Reach.CALL


def find_reach(read: ReadRange, start: int, end: int, budget: Budget | None = None) -> Reach:
    """Return how far an unpickler reads in bytes `start` to `end` (excluded), which may begin with several pickles.

    `budget` limits the opcodes and bytes that are read, for all pickles of a file.
    """
    source = Source(read, start, end, budget)
    allowed = AllowedImports({})
    reach = Reach.NOTHING
    for number in range(_MAX_PICKLES):
        machine = _ReachMachine(source, allowed, is_first=not number)
        try:
            run_pickle(machine)
        except DeadStreamError:
            return max(reach, machine.reach)
        except (LimitError, NotCanonicalError, UnsupportedArrayError):
            return Reach.CALL
        reach = max(reach, machine.reach)
        if reach is Reach.CALL or source.position == end:
            return reach
    return Reach.CALL
