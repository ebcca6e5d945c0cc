"""Hostile and ordinary pickles, canonical and not. Nothing here is ever unpickled."""

import collections
import io
import pickle
import pickletools
import random
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhaul.domain.findings import ContentReport, FileVerdict, FindingKind
from modelhaul.inspection.pickles import streams
from modelhaul.inspection.pickles.source import Budget
from modelhaul.inspection.pickles.streams import inspect_pickles
from tests.pickles import FORMS, PLAIN, SYSTEM, CountedReads, assemble, build_legacy, build_state_dict

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"
CALL = assemble("os", "system", form="text")


def inspect(content: bytes, *, is_torchscript: bool = False) -> ContentReport | None:
    return inspect_pickles(lambda start, end: content[start:end], 0, len(content), is_torchscript=is_torchscript)


def list_details(report: ContentReport | None, kind: FindingKind) -> list[str]:
    return [finding.detail for finding in report.findings if finding.kind is kind] if report else []


def check_unsafe(content: bytes, kind: FindingKind, words: str) -> None:
    report = inspect(content)
    assert report is not None
    assert report.verdict is FileVerdict.UNSAFE
    details = list_details(report, kind)
    assert 0 < len(details) <= 20
    assert all(detail.isprintable() and len(detail) <= 200 for detail in details)
    assert any(words in detail for detail in details), details


def check_clean(content: bytes, form: str = "pickle") -> None:
    assert inspect(content) == ContentReport(form, is_loadable=True, pickles=content)


DANGEROUS = [
    ("os", "system"),
    ("posix", "system"),
    ("nt", "system"),
    ("subprocess", "Popen"),
    ("builtins", "eval"),
    ("builtins", "exec"),
    ("builtins", "getattr"),
    ("builtins", "__import__"),
    ("__builtin__", "apply"),
    ("runpy", "run_path"),
    ("importlib", "import_module"),
    ("operator", "attrgetter"),
    ("functools", "partial"),
    ("pickle", "loads"),
    ("torch.storage", "_load_from_bytes"),
    ("torch", "load"),
    ("torch.hub", "load"),
    ("numpy.testing._private.utils", "runstring"),
    ("collections", "OrderedDict.fromkeys"),
    ("torch._utils", "_rebuild_tensor_v2.__globals__"),
    ("socket", "socket"),
    ("webbrowser", "open"),
]


@pytest.mark.parametrize(("module", "name"), DANGEROUS)
@pytest.mark.parametrize("form", FORMS)
def test_unlisted_imports_are_unsafe(module: str, name: str, form: str) -> None:
    check_unsafe(assemble(module, name, form=form), FindingKind.PICKLE_IMPORT, f"Pickle imports {module}.{name}")


IMPORTING = {
    "the call is cut off": SYSTEM[:-1],
    "an unknown opcode behind the call": SYSTEM[:-1] + b"\xff",
    "the second of two": PLAIN + SYSTEM,
    "the third of three": PLAIN * 2 + SYSTEM,
    "the object of a legacy checkpoint": build_legacy(SYSTEM),
    "in the magic number's place": SYSTEM + build_legacy(PLAIN),
    "the keys of a legacy checkpoint": build_legacy(PLAIN, keys=SYSTEM),
    "a hexadecimal number before it": b"I0x1\n0" + CALL,
    "an octal number before it": b"I017\n0" + CALL,
    "a number that ends at NUL": b"I1\0x\n0" + CALL,
    "a long number that ends at NUL": b"L1\0x\n0" + CALL,
    "a fraction that ends at NUL": b"F1\0x\n0" + CALL,
    "an index that ends at NUL": b"Np0\0x\n0g0\0x\n0" + CALL,
    "no number before NUL": b"I\0x\n0" + CALL,
    "a long hexadecimal number": b"L-0x1L\n0" + CALL,
    "a number with an underscore": b"I1_0\n0" + CALL,
    "a number with spaces": b"I 1\n0" + CALL,
    "a text in UTF-8 before it": "S'\u00fc'\n0".encode() + CALL,
    "a text with an escape before it": b"S'\\x81'\n0" + CALL,
    "an unknown escape before it": b"S'\\d'\n0" + CALL,
    "a frame that is longer than the file": b"\x80\x04\x95\xff" + bytes(7) + SYSTEM[2:],
    "long data before it": b"\x80\x04B" + struct.pack("<I", 80_000_000) + bytes(80_000_000) + b"0" + SYSTEM[2:],
    "long data behind it that is cut off": SYSTEM[:-1] + b"B" + struct.pack("<I", 80_000_000) + bytes(70_000_000),
    "an instance without a mark": b"ios\nsystem\n.",
    "a line that is cut off": b"cos",
    "a module whose import is enough": b"cantigravity\n\n.",
}


@pytest.mark.parametrize("name", IMPORTING)
def test_imports_are_found_in_any_context(name: str) -> None:
    check_unsafe(IMPORTING[name], FindingKind.PICKLE_IMPORT, "imports ")


NOT_CANONICAL: dict[str, tuple[bytes, str]] = {
    "name from a number": (b"\x80\x04K\x01\x8c\x06system\x93.", "not a plain string"),
    "name joined by DUP": (b"\x80\x04\x8c\x02os2\x93.", "uses the opcode DUP"),
    "name by a call": (b"\x80\x04\x8c\x02osc_codecs\nencode\n\x8c\x01x\x85R\x93.", "not a plain string"),
    "name of Python 2's": (b"\x80\x04U\x02osU\x06system\x93.", "not a plain string"),
    "a long name": (
        b"\x80\x04X" + struct.pack("<I", 5_000_000) + b"o" * 5_000_000 + b"\x8c\x06system\x93.", "not a plain string"),
    "memo overwritten": (b"\x80\x04\x8c\x02os\x940\x8c\x01xq\x000K\x01q\x000h\x00h\x00\x93.", "out of order"),
    "memo with a gap": (b"\x80\x02Nq\x05.", "out of order"),
    "memo from another pickle": (pickle.dumps([]) + b"\x80\x04h\x00.", "not stored"),
    "extension": (b"\x80\x02\x82\x01.", "extension code"),
    "extension 2": (b"\x80\x02\x83\x01\x00.", "extension code"),
    "extension 4": (b"\x80\x02\x84\x01\x00\x00\x00.", "extension code"),
    "text persistent ID": (b"Pevil\n.", "opcode PERSID"),
    "buffer": (b"\x80\x05\x97.", "out-of-band"),
    "read-only buffer": (b"\x80\x05N\x98.", "out-of-band"),
    "call of a number": (b"\x80\x04K\x01)R.", "was not imported"),
    "call of a result": (b"\x80\x04cbuiltins\nlist\n)R)R.", "was not imported"),
    "call with a list": (b"\x80\x04cbuiltins\nlist\n]R.", "not a tuple"),
    "keywords that are a list": (b"\x80\x04cbuiltins\nlist\n)]\x92.", "not a dictionary"),
    "state of a class": (b"\x80\x04ctorch\nTensor\nN}\x8c\x01aK\x01s\x86b.", "not created by a call"),
    "state of data": (b"\x80\x04]}b.", "not created by a call"),
    "state of a class by a scalar": (
        b"\x80\x04cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\n\x8c\x02O8\x89\x88\x87Rctorch\nTensor\n\x86R}b.",
        "not created by a call"),
    "items of a class": (b"\x80\x04ctorch\nTensor\nK\x01K\x02s.", "not a dictionary"),
    "append to a class": (b"\x80\x04ctorch\nTensor\nK\x01a.", "not a list or set"),
    "more than one value": (b"\x80\x04NN.", "more than one"),
    "a mark left": (b"\x80\x04(N.", "more than one"),
    "protocol behind the beginning": (b"\x80\x04N0\x80\x04N.", "not the first opcode"),
    "protocol 0 named": (b"\x80\x00N.", "protocol 0"),
    "opcode of a higher protocol": (b"\x80\x02\x8c\x01x.", "SHORT_BINUNICODE, which protocol 2 does not have"),
    "opcode of a higher protocol than none": (b"\x88.", "NEWTRUE"),
    "hexadecimal number": (b"I0x1\n.", "integer"),
    "padded number": (b"I1 \n.", "integer"),
    "long number without its end": (b"L1\n.", "integer"),
    "number with a sign": (b"I+1\n.", "integer"),
    "integer of too many bytes": (b"J\x01\x00\x00\x00.", "more bytes"),
    "integer of two bytes for one": (b"M\x01\x00.", "more bytes"),
    "long integer of too many bytes": (b"\x80\x02\x8a\x03\x01\x00\x00.", "more bytes"),
    "data of too many bytes of length": (b"\x80\x03B\x01\x00\x00\x00x.", "longer opcode"),
    "text of too many bytes of length": (b"\x80\x04\x8d\x01" + bytes(7) + b"x.", "longer opcode"),
    "index of too many bytes": (b"\x80\x02Nr\x00\x00\x00\x00.", "more bytes"),
    "float in words": (b"Finfinity\n.", "number"),
    "text with a NUL": (b"Va\0b\n.", "escapes"),
    "text with half an escape": (b"V\\u12\n.", "escapes"),
    "quoted text in UTF-8": ("S'\u00fc'\n.".encode(), "quoted"),
    "quoted text with an octal escape": (b"S'\\101'\n.", "quoted"),
    "a frame that ends within an opcode": (
        b"\x80\x04\x95\x04" + bytes(7) + b"NVab" + b"cos\n0cos\nsystem\n(S'x'\ntR.", "within an opcode"),
    "a frame that ends within a text that cannot be read": (
        b"\x80\x04\x95\x05" + bytes(7) + b"NV\\u12\n" + CALL, "within an opcode"),
    "a frame that ends within a number that is none": (
        b"\x80\x04\x95\x03" + bytes(7) + b"NIab\n1\n" + CALL, "within an opcode"),
    "a frame that ends within data that is too long": (
        b"\x80\x04\x95\x03" + bytes(7) + b"NC\xff" + CALL, "within an opcode"),
    "a frame that goes on": (b"\x80\x04\x95\x09" + bytes(7) + b"N." + b"N" * 7 + SYSTEM, "extends past"),
    "a frame in a frame": (b"\x80\x04\x95\x12" + bytes(7) + b"\x95\x02" + bytes(7) + b"N." + b"N." * 4, "nested frame"),
    "an empty frame": (b"\x80\x04\x95" + bytes(8) + b"N.", "empty frame"),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_CANONICAL)
def test_non_canonical_pickles_are_unsafe(name: str) -> None:
    content, words = NOT_CANONICAL[name]
    check_unsafe(content, FindingKind.PICKLE_NOT_CANONICAL, words)


UNPARSED: dict[str, tuple[bytes, str]] = {
    "other bytes behind it": (PLAIN + b"garbage", f"Bytes {len(PLAIN)} to {len(PLAIN) + 7} are not a pickle"),
    "cut off": (PLAIN[:-1], "damaged or truncated"),
    "too many": (pickle.dumps(None) * 1001, "more than 1,000 pickles"),
    "too large": (
        b"\x80\x04" + (b"X\x00\x40\x00\x00" + b"x" * 0x4000 + b"0") * 4200 + b"N.", "too large"),
    "a line that is too long": (PLAIN + b"V" + b"x" * 5_000_000 + b"\n0" + CALL, "too large"),
    "a legacy checkpoint with too few bytes": (build_legacy(build_state_dict(), storages=bytes(23)), "23 bytes"),
    "a legacy checkpoint with too many bytes": (build_legacy(build_state_dict(), storages=bytes(25)), "25 bytes"),
    "a legacy checkpoint without its bytes": (build_legacy(build_state_dict()), "0 bytes follow"),
    "other persistent IDs": (b"\x80\x02K\x01Q.", "Persistent IDs"),
    "an array of old joblib": (
        b"\x80\x04cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81}b" + bytes(100), "joblib before"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNPARSED)
def test_unparsed_pickles_have_a_reason(name: str) -> None:
    content, words = UNPARSED[name]
    report = inspect(content)
    assert report is not None
    assert (report.verdict, report.is_loadable) == (FileVerdict.UNSCANNED, True)
    assert words in (report.reason or "")


DEAD = {
    "nothing": b"",
    "text": b"This is text.\nAnd more.\n",
    "text that begins like a number": b"In the beginning\n",
    "text that begins like a text": b"Some text\n",
    "JSON": b'{"model_type": "bert"}',
    "zeros": bytes(1000),
    "0xff": b"\xff" * 1000,
    "an unknown protocol": b"\x80\xf3" + CALL,
    "an import of what is not on the stack": b"\x93\xff" + CALL,
    "a mark below the names": b"\x80\x04\x8c\x02os(\x8c\x06system0\x93.",
    "a name that was never put into the memo": b"\x80\x04h\x05\x8c\x06system\x93.",
    "an import of what is not text": b"c\xff\xfe\nsystem\n.",
    "an import without a module": b"c\nsystem\n.",
    "an extension that cannot be": b"\x80\x02\x82\x00" + CALL,
    "a long number of negative length": b"\x80\x02\x8b\xff\xff\xff\xff" + CALL,
    "a dictionary of half an item": b"(Nd" + CALL,
    "nothing to stop with": b"." + CALL,
    "a text that is not quoted": b"Sx\n" + CALL,
    "data that is longer than the file": b"\x80\x03B\xff\xff\xff\xff" + CALL,
}


@pytest.mark.parametrize("name", DEAD)
def test_content_that_no_unpickler_reads_is_not_a_pickle(name: str) -> None:
    assert inspect(DEAD[name]) is None


def test_unreadable_bytes_after_a_pickle_have_no_findings() -> None:
    report = inspect(PLAIN + b"I1 \n" + b"\xff")
    assert report is not None
    assert (report.verdict, report.findings) == (FileVerdict.UNSCANNED, ())


def test_number_of_import_findings_is_limited() -> None:
    body = b"".join(b"cmodule%d\nname\n0" % number for number in range(200))
    details = list_details(inspect(b"\x80\x02" + body + b"N."), FindingKind.PICKLE_IMPORT)
    assert details == [f"Pickle imports module{number}.name" for number in range(20)]


def test_names_are_escaped_and_truncated() -> None:
    check_unsafe(assemble("os\x1b[31m", "x" * 250, form="stack"), FindingKind.PICKLE_IMPORT, "imports os?[31m.xxx")


def test_imports_of_torchscript_programs_are_ignored() -> None:
    for names in (("__torch__.torch.nn.Linear", "Linear"), ("__torch__", "M"), ("torch.jit._pickle", "build_intlist")):
        content = assemble(*names)
        assert inspect(content, is_torchscript=True) == ContentReport("pickle", is_loadable=True, pickles=content)
        check_unsafe(content, FindingKind.PICKLE_IMPORT, f"Pickle imports {'.'.join(names)}")


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("sklearn.linear_model._base", "skops"),
        ("ultralytics.nn.tasks", "whole module instead of a state_dict"),
        ("__main__", "whole module instead of a state_dict"),
        ("transformers.training_args", "training"),
    ],
)
def test_common_imports_are_explained(module: str, words: str) -> None:
    check_unsafe(assemble(module, "Name"), FindingKind.PICKLE_IMPORT, words)


@pytest.mark.parametrize(
    "kind", ["FloatStorage", "HalfStorage", "BFloat16Storage", "LongStorage", "Float8_e4m3fnStorage"]
)
def test_state_dicts_are_clean(kind: str) -> None:
    content = build_state_dict(kind)
    check_clean(content)
    size = {"F": 4, "H": 2, "B": 2, "L": 8}[kind[0]] if "8" not in kind else 1
    report = inspect(build_legacy(content, storages=bytes(8 + 4 * size)))
    assert report is not None
    assert (report.format, report.verdict) == ("torch-legacy", FileVerdict.CLEAN)
    assert report.pickles == build_legacy(content)


VALUES: dict[str, Any] = {
    "everything": {"a": [1, 2.5, "ü", None, True, b"bytes", bytearray(b"x")], "b": collections.OrderedDict(c=(1, 2))},
    "list": [],
    "set": {1, 2},
    "frozen set": frozenset("ab"),
    "counter": collections.Counter("abc"),
    "deque": collections.deque([1, 2], 3),
    "default dictionary": collections.defaultdict(list, a=[1]),
    "complex": complex(1, 2),
    "range": range(3),
    "slice": slice(1, 2),
    "class": dict,
    "long text": "x" * 100_000,
    "long bytes": bytes(100_000),
    "texts": ["", "\n", "\\", "\0", "\x1a\r", "'\"", "\x7f\x80\xff\u0100\uffff\U0010ffff", "\ud800", "x" * 256],
    "integers": [s * 2**n + d for n in (0, 1, 7, 8, 15, 16, 31, 32, 63, 64, 2100) for s in (1, -1) for d in (-1, 0, 1)],
    "floats": [0.0, -0.0, 1e300, 1e-300, 0.1, 1.0, 1e16, float("inf"), float("-inf"), float("nan")],
    "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), ((), ((),))],
    "many": {str(number): [number] * 3 for number in range(3000)},
}
RECURSIVE: list[Any] = []
RECURSIVE.append((RECURSIVE, {1: RECURSIVE}))
VALUES["recursive"] = RECURSIVE


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", VALUES)
def test_plain_containers_are_clean(name: str, protocol: int) -> None:
    content = pickle.dumps(VALUES[name], protocol)
    check_clean(content)
    check_clean(pickletools.optimize(content))
    body = io.BytesIO()
    pickle._Pickler(body, protocol).dump(VALUES[name])
    check_clean(body.getvalue())


@pytest.mark.slow
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda x: st.lists(x) | st.dictionaries(st.text(), x) | st.tuples(x, x),
    ),
    st.integers(0, 5),
)
def test_any_plain_data_is_clean(value: Any, protocol: int) -> None:
    check_clean(pickle.dumps(value, protocol))


PYTHON_2 = {
    "pickle, protocol 0": b"(dp0\nS'a'\np1\n(lp2\nI1\naF2.5\naL3L\naI01\naVb\np3\naNas.",
    "cPickle, protocol 0": b"(dp1\nS'a'\np2\n(lp3\nI1\naF2.5\naL3L\naI01\naVb\np4\naNas.",
    "cPickle, protocol 1": b"}q\x01U\x01aq\x02]q\x03(K\x01G" + bytes(8) + b"L3L\nI01\nX\x01\x00\x00\x00bq\x04Nes.",
    "cPickle, protocol 2": b"\x80\x02}q\x01U\x01aq\x02]q\x03(K\x01G"
    + bytes(8)
    + b"\x8a\x01\x03\x88X\x01\x00\x00\x00bq\x04Nes.",
    "escapes": b"S'\\x80\\n\\\\\\''\np0\n.",
    "a short number": b"F1\n.",
    "an array": (
        b"cnumpy.core.multiarray\n_reconstruct\np1\n(cnumpy\nndarray\np2\n(I0\ntp3\nS'b'\np4\ntp5\nRp6\n(I1\n(I2\ntp7\n"
        b"cnumpy\ndtype\np8\n(S'f4'\np9\nI0\nI1\ntp10\nRp11\n(I3\nS'<'\np12\nNNNI-1\nI-1\nI0\ntp13\nbI00\nS'\\x00\\x01'\n"
        b"p14\ntp15\nb."
    ),
}


@pytest.mark.parametrize("name", PYTHON_2)
def test_python_2_pickles_are_clean(name: str) -> None:
    check_clean(PYTHON_2[name])


def test_integers_of_torch_cpp_are_clean() -> None:
    check_clean(b"\x80\x02\x8a\x08" + struct.pack("<q", 2**40) + b".")


def test_long_data_is_not_read() -> None:
    content = pickle.dumps({"weights": bytes(80_000_000)})
    read = CountedReads(content)
    report = inspect_pickles(read, 0, len(content))
    assert report == ContentReport("pickle", is_loadable=True)
    assert sum(read.sizes) < 1_000_000


def test_only_bytes_of_the_range_are_read() -> None:
    content = SYSTEM + PLAIN + SYSTEM
    report = inspect_pickles(lambda s, e: content[s:e], len(SYSTEM), len(SYSTEM) + len(PLAIN))
    assert report == ContentReport("pickle", is_loadable=True, pickles=PLAIN)


def test_size_of_kept_pickles_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_KEPT", 2 * len(PLAIN))
    check_clean(PLAIN * 2)
    assert inspect(PLAIN * 3) == ContentReport("pickle", is_loadable=True)


@given(st.binary(max_size=300), st.sampled_from([b"", b"\x80\x04", PLAIN[:-1], SYSTEM]))
def test_any_content_has_a_report(content: bytes, prefix: bytes) -> None:
    report = inspect(prefix + content)
    if prefix == SYSTEM:
        assert report is not None
        assert report.verdict is FileVerdict.UNSAFE


@pytest.mark.parametrize("first", range(256))
def test_raw_weights_are_rarely_mistaken_for_a_pickle(first: int) -> None:
    generator = random.Random(first)
    found = [inspect(bytes([first]) + generator.randbytes(500)) for _ in range(20)]
    assert sum(report is not None for report in found) <= 1


def test_opcode_budget_applies_to_the_whole_file() -> None:
    content, budget = b"N0" * 60 + b"N.", Budget(opcodes=200)

    def inspect_again() -> ContentReport | None:
        return inspect_pickles(lambda start, end: content[start:end], 0, len(content), budget=budget)

    first, second = inspect_again(), inspect_again()
    assert first is not None
    assert first.reason is None
    assert second is not None
    assert "too large" in (second.reason or "")
