"""The table of pickle opcodes, and the loop that runs a pickle with it.

https://github.com/python/cpython/blob/3.13/Lib/pickletools.py describes the opcodes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from modelhaul.inspection.pickles import arguments, effects
from modelhaul.inspection.pickles.joblib_arrays import count_bytes, skip_array
from modelhaul.inspection.pickles.machine import PickleMachine
from modelhaul.inspection.pickles.source import DeadStreamError, Source
from modelhaul.inspection.pickles.values import FALSE, GLOBAL, LIST, NAME, NONE, OTHER, PERSISTENT, SET, TEXT, TRUE


def run_pickle(machine: PickleMachine) -> int:
    """Run a pickle to its STOP opcode and return its value.

    Raises DeadStreamError, NotCanonicalError, LimitError and UnsupportedArrayError. Other deviations from canonical
    pickles are in the notes of the source.
    """
    source = machine.source
    while True:
        byte = source.read_opcode()
        step = _TABLE[byte]
        if step is None:
            raise DeadStreamError
        if step.protocol > machine.protocol:
            source.note(f"uses opcode {step.name}, which protocol {machine.protocol} does not have")
            machine.protocol = step.protocol
        step.apply(machine, step.read(source))
        source.end_frame()
        if byte == _STOP:
            return _stop(machine)


def _stop(machine: PickleMachine) -> int:
    machine.source.check_no_frame()
    machine.end_span()
    if len(machine.stack) != 1 or machine.marks:
        machine.source.note("leaves more than one value on the stack")
    return machine.stack[-1]


def _build(machine: PickleMachine, _: None) -> None:
    array_state = machine.build()
    if array_state is not None:
        _read_array(machine, array_state)


def _read_array(machine: PickleMachine, state: int) -> None:
    """Read a joblib array. Raises DeadStreamError, LimitError, UnsupportedArrayError and NotCanonicalError."""
    machine.source.end_frame()
    machine.source.check_no_frame()
    machine.end_span()
    machine.has_joblib_arrays = True
    size = count_bytes(machine.describe_dictionary(state))
    if size is None:
        machine.has_joblib_objects = True
        _run_nested(machine)
    else:
        skip_array(machine.source, size)
    machine.begin_span()


def _run_nested(machine: PickleMachine) -> None:
    nested = PickleMachine(machine.source, machine.allowed, is_plain=True)
    try:
        run_pickle(nested)
    finally:
        nested.end_span()
        machine.imports |= nested.imports
        machine.spans += nested.spans


@dataclass(frozen=True, slots=True)
class _Step[A]:
    """An opcode: how to read its argument, and its effect. `protocol` is the lowest protocol that has the opcode."""

    name: str
    protocol: int
    read: Callable[[Source], A]
    apply: Callable[[PickleMachine, A], None]


_NOTHING = arguments.read_nothing
_STOP = ord(".")
_STEPS: dict[bytes, _Step[Any]] = {  # Any: each has its own type of argument
    b"(": _Step("MARK", 0, _NOTHING, effects.push_mark),
    b".": _Step("STOP", 0, _NOTHING, effects.check_stop),
    b"0": _Step("POP", 0, _NOTHING, effects.pop),
    b"1": _Step("POP_MARK", 1, _NOTHING, effects.pop_marked),
    b"2": _Step("DUP", 0, _NOTHING, effects.duplicate),
    b"F": _Step("FLOAT", 0, arguments.read_float_line, effects.push(OTHER)),
    b"I": _Step("INT", 0, arguments.read_int_line, effects.push_int),
    b"J": _Step("BININT", 1, arguments.read_int(4, 0x10000), effects.push_int),
    b"K": _Step("BININT1", 1, arguments.read_int(1, 0), effects.push_int),
    b"L": _Step("LONG", 0, arguments.read_long_line, effects.push_int),
    b"M": _Step("BININT2", 1, arguments.read_int(2, 0x100), effects.push_int),
    b"N": _Step("NONE", 0, _NOTHING, effects.push(NONE)),
    b"P": _Step("PERSID", 0, arguments.read_persistent_line, effects.push(PERSISTENT)),
    b"Q": _Step("BINPERSID", 1, _NOTHING, effects.load_persistent),
    b"R": _Step("REDUCE", 0, _NOTHING, effects.call),
    b"S": _Step("STRING", 0, arguments.read_quoted_line, effects.push_text(TEXT)),
    b"T": _Step("BINSTRING", 1, arguments.read_text(4, is_unicode=False, minimum=0x100), effects.push_text(TEXT)),
    b"U": _Step("SHORT_BINSTRING", 1, arguments.read_text(1, is_unicode=False), effects.push_text(TEXT)),
    b"V": _Step("UNICODE", 0, arguments.read_unicode_line, effects.push(OTHER)),
    b"X": _Step("BINUNICODE", 1, arguments.read_text(4, is_unicode=True), effects.push_text(NAME)),
    b"a": _Step("APPEND", 0, _NOTHING, effects.append),
    b"b": _Step("BUILD", 0, _NOTHING, _build),
    b"c": _Step("GLOBAL", 0, arguments.read_import("utf-8"), effects.import_name),
    b"d": _Step("DICT", 0, _NOTHING, effects.push_marked_dict),
    b"}": _Step("EMPTY_DICT", 1, _NOTHING, effects.push_empty_dict),
    b"e": _Step("APPENDS", 1, _NOTHING, effects.append_marked(LIST)),
    b"g": _Step("GET", 0, arguments.read_index_line, effects.get),
    b"h": _Step("BINGET", 1, arguments.read_index(1, 0), effects.get),
    b"i": _Step("INST", 0, arguments.read_import("ascii"), effects.import_and_call),
    b"j": _Step("LONG_BINGET", 1, arguments.read_index(4, 0x100), effects.get),
    b"l": _Step("LIST", 0, _NOTHING, effects.push_marked(LIST)),
    b"]": _Step("EMPTY_LIST", 1, _NOTHING, effects.push(LIST)),
    b"o": _Step("OBJ", 1, _NOTHING, effects.call_marked),
    b"p": _Step("PUT", 0, arguments.read_index_line, effects.put),
    b"q": _Step("BINPUT", 1, arguments.read_index(1, 0), effects.put),
    b"r": _Step("LONG_BINPUT", 1, arguments.read_index(4, 0x100), effects.put),
    b"s": _Step("SETITEM", 0, _NOTHING, effects.set_item),
    b"t": _Step("TUPLE", 0, _NOTHING, effects.push_marked_tuple),
    b")": _Step("EMPTY_TUPLE", 1, _NOTHING, effects.push_tuple(0)),
    b"u": _Step("SETITEMS", 1, _NOTHING, effects.set_marked_items),
    b"G": _Step("BINFLOAT", 1, arguments.read_fixed(8), effects.push(OTHER)),
    b"\x80": _Step("PROTO", 0, arguments.read_protocol, effects.declare_protocol),
    b"\x81": _Step("NEWOBJ", 2, _NOTHING, effects.call),
    b"\x82": _Step("EXT1", 2, arguments.read_extension(1), effects.push(GLOBAL)),
    b"\x83": _Step("EXT2", 2, arguments.read_extension(2), effects.push(GLOBAL)),
    b"\x84": _Step("EXT4", 2, arguments.read_extension(4), effects.push(GLOBAL)),
    b"\x85": _Step("TUPLE1", 2, _NOTHING, effects.push_tuple(1)),
    b"\x86": _Step("TUPLE2", 2, _NOTHING, effects.push_tuple(2)),
    b"\x87": _Step("TUPLE3", 2, _NOTHING, effects.push_tuple(3)),
    b"\x88": _Step("NEWTRUE", 2, _NOTHING, effects.push(TRUE)),
    b"\x89": _Step("NEWFALSE", 2, _NOTHING, effects.push(FALSE)),
    b"\x8a": _Step("LONG1", 2, arguments.read_long, effects.push_int),
    b"\x8b": _Step("LONG4", 2, arguments.skip_long, effects.push(OTHER)),
    b"B": _Step("BINBYTES", 3, arguments.skip_bytes(4, 0x100), effects.push(OTHER)),
    b"C": _Step("SHORT_BINBYTES", 3, arguments.skip_bytes(1), effects.push(OTHER)),
    b"\x8c": _Step("SHORT_BINUNICODE", 4, arguments.read_text(1, is_unicode=True), effects.push_text(NAME)),
    b"\x8d": _Step("BINUNICODE8", 4, arguments.read_text(8, is_unicode=True, minimum=2**32), effects.push_text(NAME)),
    b"\x8e": _Step("BINBYTES8", 4, arguments.skip_bytes(8, 2**32), effects.push(OTHER)),
    b"\x8f": _Step("EMPTY_SET", 4, _NOTHING, effects.push(SET)),
    b"\x90": _Step("ADDITEMS", 4, _NOTHING, effects.append_marked(SET)),
    b"\x91": _Step("FROZENSET", 4, _NOTHING, effects.push_marked(OTHER)),
    b"\x92": _Step("NEWOBJ_EX", 4, _NOTHING, effects.call_with_keywords),
    b"\x93": _Step("STACK_GLOBAL", 4, _NOTHING, effects.import_from_stack),
    b"\x94": _Step("MEMOIZE", 4, _NOTHING, effects.memoize),
    b"\x95": _Step("FRAME", 4, arguments.read_frame, effects.do_nothing),
    b"\x96": _Step("BYTEARRAY8", 5, arguments.skip_bytes(8), effects.push(OTHER)),
    b"\x97": _Step("NEXT_BUFFER", 5, _NOTHING, effects.push_buffer),
    b"\x98": _Step("READONLY_BUFFER", 5, _NOTHING, effects.protect_buffer),
}
_TABLE = [_STEPS.get(bytes([byte])) for byte in range(256)]
