"""Effects of pickle opcodes on the machine. Each raises DeadStreamError where every unpickler fails."""

from collections.abc import Callable

from modelhaul.inspection.pickles.machine import PickleMachine
from modelhaul.inspection.pickles.source import DeadStreamError
from modelhaul.inspection.pickles.values import DICT, KIND_MASK, LIST, OTHER, TUPLE, UNSET


def push(value: int) -> Callable[[PickleMachine, object], None]:
    return lambda machine, _: machine.stack.append(value)


def push_text(kind: int) -> Callable[[PickleMachine, bytes | None], None]:
    return lambda machine, text: machine.push_text(text, kind)


def push_int(machine: PickleMachine, value: int | None) -> None:
    machine.push_int(value)


def push_tuple(count: int) -> Callable[[PickleMachine, None], None]:
    def apply(machine: PickleMachine, _: None) -> None:
        machine.require(count)
        machine.push_tuple(len(machine.stack) - count)

    return apply


def push_marked_tuple(machine: PickleMachine, _: None) -> None:
    machine.push_tuple(machine.pop_mark())


def push_empty_dict(machine: PickleMachine, _: None) -> None:
    machine.push_items((), DICT)


def push_marked(kind: int) -> Callable[[PickleMachine, None], None]:
    """Build a list or a frozen set."""

    def apply(machine: PickleMachine, _: None) -> None:
        del machine.stack[machine.pop_mark() :]
        machine.stack.append(kind)

    return apply


def push_marked_dict(machine: PickleMachine, _: None) -> None:
    start = machine.pop_mark()
    if (len(machine.stack) - start) % 2:
        raise DeadStreamError
    del machine.stack[start:]
    machine.push_items(None, DICT)


def push_mark(machine: PickleMachine, _: None) -> None:
    machine.push_mark()


def append(machine: PickleMachine, _: None) -> None:
    machine.add_items(len(machine.stack) - 1, LIST)


def append_marked(kind: int) -> Callable[[PickleMachine, None], None]:
    return lambda machine, _: machine.add_items(machine.pop_mark(), kind)


def set_item(machine: PickleMachine, _: None) -> None:
    machine.set_items(len(machine.stack) - 2)


def set_marked_items(machine: PickleMachine, _: None) -> None:
    machine.set_items(machine.pop_mark())


def pop(machine: PickleMachine, _: None) -> None:
    if machine.marks and machine.fence == len(machine.stack):
        machine.pop_mark()
    else:
        machine.require(1)
        machine.stack.pop()


def pop_marked(machine: PickleMachine, _: None) -> None:
    del machine.stack[machine.pop_mark() :]


def duplicate(machine: PickleMachine, _: None) -> None:
    machine.require(1)
    machine.source.note("uses the opcode DUP")
    machine.stack.append(machine.stack[-1])


def get(machine: PickleMachine, index: int | None) -> None:
    machine.get(index)


def put(machine: PickleMachine, index: int | None) -> None:
    machine.put(index)


def memoize(machine: PickleMachine, _: None) -> None:
    if machine.memo and machine.memo[0] == UNSET:
        machine.put(None)
    else:
        machine.put(len(machine.memo))


def import_name(machine: PickleMachine, names: tuple[str, str]) -> None:
    machine.import_name(names)


def import_from_stack(machine: PickleMachine, _: None) -> None:
    machine.import_from_stack()


def call(machine: PickleMachine, _: None) -> None:
    machine.require(2)
    arguments = machine.stack.pop()
    machine.stack[-1] = machine.call(machine.stack[-1], arguments)


def call_with_keywords(machine: PickleMachine, _: None) -> None:
    machine.require(3)
    if machine.stack.pop() & KIND_MASK != DICT:
        machine.source.note("calls an object with keyword arguments that are not a dictionary")
    call(machine, None)


def call_marked(machine: PickleMachine, _: None) -> None:
    start = machine.pop_mark()
    if start == len(machine.stack):
        raise DeadStreamError
    callee = machine.stack[start]
    machine.push_tuple(start + 1)
    machine.stack.pop()
    machine.stack[-1] = machine.call(callee, TUPLE)


def import_and_call(machine: PickleMachine, names: tuple[str, str]) -> None:
    # Python's unpickler imports before it looks for the mark.
    machine.import_name(names)
    callee = machine.stack.pop()
    del machine.stack[machine.pop_mark() :]
    machine.stack.append(machine.call(callee, TUPLE))


def load_persistent(machine: PickleMachine, _: None) -> None:
    machine.load_persistent()


def push_buffer(machine: PickleMachine, _: None) -> None:
    machine.source.note("uses out-of-band buffers")
    machine.stack.append(OTHER)


def protect_buffer(machine: PickleMachine, _: None) -> None:
    machine.require(1)
    machine.source.note("uses out-of-band buffers")


def declare_protocol(machine: PickleMachine, protocol: int) -> None:
    if machine.source.opcode_position != machine.start:
        machine.source.note("has a PROTO opcode that is not the first opcode")
    machine.protocol = max(machine.protocol, protocol)


def check_stop(machine: PickleMachine, _: None) -> None:
    machine.require(1)


def do_nothing(_: PickleMachine, __: None) -> None:
    """The source handles frames."""
