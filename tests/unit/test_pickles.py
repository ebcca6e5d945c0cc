"""Hostile and ordinary pickles of every form. Nothing here is ever unpickled either."""

import bz2
import collections
import gzip
import io
import lzma
import pickle
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from modelhaul.inspection import containers as pickle_files
from modelhaul.inspection.containers import HEAD, Content, inspect_pickle, is_pickle_name, recognize
from modelhaul.inspection.pickles import PickleReport, PickleVerdict
from tests.weights import wrap_weights


def assemble(module: str, name: str, *, form: str = "global") -> bytes:  # noqa: PLR0911 - one for each form
    """A pickle that calls `module.name('x')`."""
    call = b"\x8c\x01x\x85R."
    text = [b"\x8c" + bytes([len(t)]) + t.encode() for t in (module, name)]
    match form:
        case "global":
            return b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"X\x01\x00\x00\x00x\x85R."
        case "stack":
            return b"\x80\x04" + text[0] + text[1] + b"\x93" + call
        case "memoized":
            return b"\x80\x04" + text[0] + b"\x94" + text[1] + b"\x94\x93\x94" + call
        case "by-memo":
            return b"\x80\x04" + text[0] + b"\x940" + text[1] + b"\x940" + b"h\x00h\x01\x93" + call
        case "frame":
            body = text[0] + text[1] + b"\x93" + call
            return b"\x80\x04\x95" + struct.pack("<Q", len(body)) + body
        case "text":
            return b"c" + f"{module}\n{name}\n".encode() + b"(S'x'\ntR."
        case "inst":
            return b"(S'x'\ni" + f"{module}\n{name}\n".encode() + b"."
        case "obj":
            return b"(c" + f"{module}\n{name}\n".encode() + b"S'x'\no."
    raise ValueError(form)


FORMS = ["global", "stack", "memoized", "by-memo", "frame", "text", "inst", "obj"]
SYSTEM = assemble("os", "system")
PLAIN = pickle.dumps({"a": [1, 2.5, "x", None, True, b"bytes"], "b": collections.OrderedDict(c=(1, 2))})


def inspect(content: bytes) -> PickleReport | None:
    return inspect_pickle(lambda start, end: content[start:end], len(content))


class CountedReads:
    """Reads of `content`, with the bytes of each in `sizes`."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.sizes: list[int] = []

    def __call__(self, start: int, end: int) -> bytes:
        self.sizes.append(end - start)
        return self._content[start:end]


def check_blocked(content: bytes, *words: str) -> None:
    report = inspect(content)
    assert report is not None
    assert report.verdict is PickleVerdict.BLOCKED
    assert 0 < len(report.reasons) <= 20
    assert all(reason.isprintable() and len(reason) <= 200 for reason in report.reasons)
    for word in words:
        assert any(word in reason for reason in report.reasons), report.reasons


def check_clean(content: bytes) -> None:
    assert inspect(content) == PickleReport(PickleVerdict.CLEAN)


def zip_files(files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return body.getvalue()


def build_state_dict(kind: str = "FloatStorage") -> bytes:
    """As torch.save writes a state dict of two tied tensors: protocol 2, storages by persistent id."""

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    storage = (
        b"(" + text("storage") + b"ctorch\n" + kind.encode() + b"\nq\x03" + text("0") + text("cpu") + b"K\x04tq\x04Q"
    )
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\nq\x02(" + storage + b"K\x00K\x02K\x02\x86q\x05K\x02K\x01\x86q\x06"
    tensor += b"\x89ccollections\nOrderedDict\nq\x07)Rq\x08tq\x09Rq\x0a"
    body = b"ccollections\nOrderedDict\nq\x00)Rq\x01(" + text("weight") + tensor + text("tied") + b"h\x0au"
    return b"\x80\x02" + body + b"."


def build_torch_zip(pickled: bytes, **more: bytes) -> bytes:
    files = {"data.pkl": pickled, "byteorder": b"little", "data/0": bytes(64), "version": b"3\n"}
    files |= {".data/serialization_id": b"0" * 40, **more}
    return zip_files({f"model/{name}": content for name, content in files.items()})


def build_legacy(pickled: bytes, keys: bytes = pickle.dumps(["0"], 2)) -> bytes:
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
    system = pickle.dumps({"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2}}, 2)
    return magic + pickle.dumps(1001, 2) + system + pickled + keys + bytes(range(256))


def build_array(descr: str, data: bytes) -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': (2,), }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


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
def test_an_import_that_no_tensor_needs_is_blocked(module: str, name: str, form: str) -> None:
    check_blocked(assemble(module, name, form=form), f"imports {module}.{name}")


@pytest.mark.parametrize("form", FORMS)
def test_in_a_torch_archive_it_is_blocked(form: str) -> None:
    check_blocked(build_torch_zip(assemble("os", "system", form=form)), "imports os.system")


HOSTILE: dict[str, tuple[bytes, str]] = {
    "hidden name": (b"\x80\x04\x8c\x02os(\x8c\x06system0\x93.", "hidden"),
    "name from a number": (b"\x80\x04K\x01\x8c\x06system\x93.", "hidden"),
    "name from an unknown memo": (b"\x80\x04h\x05\x8c\x06system\x93.", "hidden"),
    "name joined by DUP": (b"\x80\x04\x8c\x02os2\x93.", "hidden"),
    "name by a call": (b"\x80\x04\x8c\x02osc_codecs\nencode\n\x8c\x01x\x85R\x93.", "hidden"),
    "memo overwritten": (b"\x80\x04\x8c\x02os\x940\x8c\x01xr\x00\x00\x00\x000K\x01q\x000h\x00h\x00\x93.", "hidden"),
    "extension": (b"\x80\x02\x82\x01.", "EXT1"),
    "extension 2": (b"\x80\x02\x83\x01\x00.", "EXT2"),
    "extension 4": (b"\x80\x02\x84\x01\x00\x00\x00.", "EXT4"),
    "text persistent id": (b"Pevil\n.", "PERSID"),
    "truncated after its call": (SYSTEM[:-1], "imports os.system"),
    "unknown opcode after its call": (SYSTEM[:-1] + b"\xff", "imports os.system"),
    "garbage behind": (PLAIN + b"garbage", "not a pickle to its end"),
    "a second one behind": (PLAIN + SYSTEM, "imports os.system"),
    "a third one behind": (PLAIN * 2 + SYSTEM, "imports os.system"),
    "truncated": (PLAIN[:-1], "not a pickle to its end"),
    "in a legacy checkpoint": (build_legacy(SYSTEM), "imports os.system"),
    "in the magic number's place": (SYSTEM + build_legacy(PLAIN), "imports os.system"),
    "in a legacy checkpoint's keys": (build_legacy(PLAIN, keys=SYSTEM), "imports os.system"),
    "an archive behind it": (PLAIN + zip_files({"data.pkl": PLAIN}), "ZIP archive lies behind"),
    "behind an archive": (zip_files({"data.pkl": PLAIN}) + SYSTEM, ""),
    "an array of objects": (build_array("'|O'", SYSTEM), "imports os.system"),
    "a field of objects": (build_array("[('a', '<f4'), ('b', '|O')]", SYSTEM), "imports os.system"),
    "an array with a strange header": (b"\x93NUMPY\x01\x00\x10\x00{'descr': __x__}" + SYSTEM, "header"),
    "a cut-off array": (b"\x93NUMPY\x01\x00\xff\xff{}", "header"),
    "an array in an archive": (zip_files({"a.npy": build_array("'|O'", SYSTEM)}), "imports os.system"),
    "no array in an archive": (zip_files({"a.npy": SYSTEM}), "imports os.system"),
    "a nested archive": (zip_files({"x.pkl": build_torch_zip(SYSTEM)}), "imports os.system"),
    "another pickle in an archive": (build_torch_zip(PLAIN, **{"extra.pkl": SYSTEM}), "imports os.system"),
    "deflated in an archive": (zip_files({"a/data.pkl": SYSTEM}, zipfile.ZIP_DEFLATED), "imports os.system"),
    "gzip": (gzip.compress(SYSTEM), "compressed"),
    "bzip2": (bz2.compress(SYSTEM), "compressed"),
    "xz": (lzma.compress(SYSTEM), "compressed"),
    "lzma": (lzma.compress(SYSTEM, lzma.FORMAT_ALONE), "compressed"),
    "zlib": (zlib.compress(SYSTEM), "compressed"),
    "joblib's array": (b"\x80\x03cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81." + bytes(100), "joblib.numpy_pickle"),
    "far too many in a row": (pickle.dumps(None) * 1001, "too many"),
    "one that is too large": (
        b"\x80\x04" + (b"B" + struct.pack("<I", 1_000_000) + bytes(1_000_000) + b"0") * 80 + b"N.", "too large"),
    "a line that is too long": (b"V" + b"x" * 5_000_000 + b"\n0" + assemble("os", "system", form="text"), "too large"),
    "a hexadecimal number before it": (b"I0x1\n0" + assemble("os", "system", form="text"), "imports os.system"),
    "an octal number before it": (b"I017\n0" + assemble("os", "system", form="text"), "imports os.system"),
    "a number that ends early": (b"I1\0x\n0" + assemble("os", "system", form="text"), "imports os.system"),
    "a long hexadecimal number": (b"L-0x1L\n0" + assemble("os", "system", form="text"), "imports os.system"),
    "a text in UTF-8 before it": ("S'ü'\n0".encode() + assemble("os", "system", form="text"), "imports os.system"),
    "a frame that ends within an opcode": (
        b"\x80\x04\x95\x04" + bytes(7) + b"NVab" + b"cos\n0cos\nsystem\n(S'x'\ntR.", "frame"),
    "a frame that ends within a text that cannot be read": (
        b"\x95\x05" + bytes(7) + b"V\\u12\n" + assemble("os", "system", form="text"), "frame"),
    "a frame that goes on behind a pickle": (b"\x80\x04\x95\x09" + bytes(7) + b"N." + b"N" * 7 + SYSTEM, "frame"),
    "a frame in a frame": (b"\x80\x04\x95\x12" + bytes(7) + b"\x95\x02" + bytes(7) + b"N." + b"N." * 4, "frame"),
    "a text with an escape before it": (b"S'\\x81'\n0" + assemble("os", "system", form="text"), "imports os.system"),
    "a long argument before it": (
        b"\x80\x04B" + struct.pack("<I", 80_000_000) + bytes(80_000_000) + b"0" + SYSTEM[2:], "imports os.system"),
    "a long argument that is cut off": (
        SYSTEM[:-1] + b"B" + struct.pack("<I", 80_000_000) + bytes(70_000_000), "imports os.system"),
    "a long name": (
        b"\x80\x04X" + struct.pack("<I", 5_000_000) + b"o" * 5_000_000 + b"\x8c\x06system\x93.", "imports .system"),
    "joblib's old form": (b"ZF0x41                " + zlib.compress(SYSTEM), "compressed"),
    "a member without a suffix": (zip_files({"a": build_array("'|O'", SYSTEM)}), "imports os.system"),
    "a member named as text": (zip_files({"a.txt": SYSTEM, "b.txt": b"text"}), "imports os.system"),
    "a member that is text": (zip_files({"a": assemble("os", "system", form="text")}), "imports os.system"),
    "a member of an operating system": (zip_files({"__MACOSX/._a": SYSTEM}), "imports os.system"),
    "a deflated member": (zip_files({"a": SYSTEM}, zipfile.ZIP_DEFLATED), "imports os.system"),
    "a member behind many opcodes": (zip_files({"a": b"N0" * 5000 + SYSTEM}), "imports os.system"),
    "a compressed member": (zip_files({"a": gzip.compress(SYSTEM)}), "compressed"),
    "a nested archive without a suffix": (zip_files({"a": build_torch_zip(SYSTEM)}), "imports os.system"),
    "what is no storage": (build_torch_zip(PLAIN, **{"other/0": SYSTEM}), "imports os.system"),
    "a pickle among storages": (build_torch_zip(PLAIN, **{"data/x": SYSTEM}), "imports os.system"),
    "archives in archives": (
        zip_files({"a": zip_files({"a": zip_files({"a": zip_files({"a": SYSTEM})})})}), "archives in archives"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_hides_is_blocked(name: str) -> None:
    content, words = HOSTILE[name]
    check_blocked(content, words)


def test_two_pickles_of_one_name_in_an_archive_are_blocked() -> None:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        archive.writestr("a/data.pkl", SYSTEM)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a/data.pkl", PLAIN)
    check_blocked(body.getvalue(), "not to be trusted")


def test_a_wrong_checksum_in_an_archive_is_blocked() -> None:
    content = build_torch_zip(build_state_dict())
    check_blocked(content.replace(b"_rebuild_tensor_v2", b"_rebuild_tensor_v3"), "not to be trusted")


def test_a_tar_archive_is_blocked() -> None:
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("pickle"), io.BytesIO())
    check_blocked(body.getvalue(), "tar archive")


def test_all_that_is_not_allowed_is_named_up_to_a_number() -> None:
    body = b"".join(b"cmodule%d\nname\n0" % number for number in range(100))
    report = inspect(b"\x80\x02" + body + b"N.")
    assert report is not None
    assert report.reasons == tuple(f"imports module{number}.name" for number in range(20))


def test_names_are_shown_as_text() -> None:
    check_blocked(assemble("os\x1b[31m", "x" * 250, form="stack"), "imports os?[31m.xxx")


@pytest.mark.parametrize(
    "kind", ["FloatStorage", "HalfStorage", "BFloat16Storage", "LongStorage", "Float8_e4m3fnStorage"]
)
@pytest.mark.parametrize("build", [build_torch_zip, build_legacy, lambda pickled: pickled])
def test_state_dicts_are_clean(kind: str, build: Callable[[bytes], bytes]) -> None:
    check_clean(build(build_state_dict(kind)))


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, 2.5, "ü", None, True, b"bytes", bytearray(b"x")], "b": collections.OrderedDict(c=(1, 2))},
        [],
        {1, 2},
        frozenset("ab"),
        collections.Counter("abc"),
        complex(1, 2),
        range(3),
        "x" * 100_000,
    ],
)
def test_plain_containers_are_clean(value: Any, protocol: int) -> None:
    check_clean(pickle.dumps(value, protocol))


def test_arrays_of_plain_objects_are_clean() -> None:
    check_clean(build_array("'|O'", PLAIN))
    check_clean(zip_files({"a.npy": build_array("'|O'", PLAIN), "b.npy": build_array("'<f4'", bytes(8))}))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b'{"model_type": "bert"}',
        b"version https://git-lfs.github.com/spec/v1\n",
        b"#!/bin/sh\necho\n",
        b"GGUF\x03\x00\x00\x00" + bytes(100),
        wrap_weights(bytes(1000)),
        bytes(1000),
        b"\xff" * 1000,
        b"\x80\xf3" + bytes(1000),
        b"\x82H\x18\xec" + bytes(1000),
        b"\x93\xff" + bytes(1000),
        build_array("'<f4'", bytes(8)),
        build_array("[('a', '<f4'), ('b', '<i8', (3,))]", bytes(56)),
        zip_files({"a.npy": build_array("'<f4'", bytes(8))}),
        zip_files({"readme.txt": b"text"}),
    ],
)
def test_what_is_no_pickle_is_none(content: bytes) -> None:
    assert inspect(content) is None


def test_only_what_is_needed_is_read_of_a_torch_archive() -> None:
    content = build_torch_zip(build_state_dict(), **{f"data/{number}": bytes(1_000_000) for number in range(1, 20)})
    read = CountedReads(content)
    report = inspect_pickle(read, len(content))
    assert report is not None
    assert report.verdict is PickleVerdict.CLEAN
    assert sum(read.sizes) < 2_000_000
    assert len(read.sizes) < 7


def test_a_large_argument_is_not_read() -> None:
    content = pickle.dumps({"weights": bytes(80_000_000)})
    read = CountedReads(content)
    report = inspect_pickle(read, len(content))
    assert report is not None
    assert (report.verdict, report.content) == (PickleVerdict.CLEAN, None)
    assert sum(read.sizes) < 1_000_000


def test_thousands_of_storages_cost_no_requests() -> None:
    content = build_torch_zip(build_state_dict(), **{f"data/{number}": bytes(200) for number in range(1, 5000)})
    read = CountedReads(content)
    assert inspect_pickle(read, len(content)) == PickleReport(PickleVerdict.CLEAN)
    assert len(read.sizes) < 7


def test_members_that_lie_near_each_other_are_read_together() -> None:
    array = build_array("'<f4'", bytes(8))
    content = zip_files({f"{number}": array for number in range(1000)})
    read = CountedReads(content)
    assert inspect_pickle(read, len(content), is_numpy=True) is None
    assert len(read.sizes) < 7


def test_too_many_members_far_from_each_other_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_files, "_MOST_RUNS", 9)
    check_blocked(zip_files({f"{number}": bytes(100_000) for number in range(10)}), "too many to look at")
    assert inspect(zip_files({f"{number}": bytes(100_000) for number in range(9)})) is None


def test_small_pickles_that_lie_near_each_other_are_read_together() -> None:
    content = zip_files({f"{number}": PLAIN for number in range(1000)})
    read = CountedReads(content)
    assert inspect_pickle(read, len(content)) == PickleReport(PickleVerdict.CLEAN)
    assert len(read.sizes) < 7


def test_larger_ones_are_opened_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_files, "_MOST_OPENED", 5)
    large = pickle.dumps(bytes(HEAD))
    check_clean(zip_files({f"{number}": large for number in range(5)}))
    check_blocked(zip_files({f"{number}": large for number in range(6)}), "archive is too large to be looked through")


def test_numpys_archives_have_no_storages() -> None:
    content = zip_files({"data.pkl": PLAIN, "data/0": build_array("'|O'", SYSTEM)})
    assert inspect(content) == PickleReport(PickleVerdict.CLEAN)
    report = inspect_pickle(lambda start, end: content[start:end], len(content), is_numpy=True)
    assert report is not None
    assert report.reasons == ("imports os.system",)
    check_blocked(zip_files({"a.npz": content}), "imports os.system")


def test_large_members_are_read_where_they_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_files, "_MOST_IN_MEMORY", 100)
    check_clean(zip_files({"first": b"x", "a": build_torch_zip(build_state_dict())}))
    check_blocked(zip_files({"first": b"x", "a": build_torch_zip(SYSTEM)}), "imports os.system")
    check_blocked(zip_files({"a": PLAIN * 10}, zipfile.ZIP_DEFLATED), "a: is too large to be looked through")


def test_all_members_together_are_inflated_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_files, "_MOST_INFLATED", 5 * len(PLAIN))
    check_clean(zip_files({f"{number}": PLAIN for number in range(5)}))
    check_blocked(zip_files({f"{number}": PLAIN for number in range(6)}), "archive is too large to be looked through")


def test_members_that_cannot_be_looked_into_are_named() -> None:
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"), io.BytesIO())
    tar = body.getvalue()
    report = inspect(zip_files({"a.tar": tar, "b": zip_files({"c": tar}), "d": b"text", "e.pkl": PLAIN}))
    assert report == PickleReport(PickleVerdict.CLEAN, unread=("a.tar", "c"))
    check_blocked(zip_files({"a.pkl": tar}), "tar archive")


WORDS = b"cat\ndog\nbird\nbar\n"
OTHERS = [
    b"",
    b"{}",
    b"#!/bin/sh\n",
    b"<html>",
    WORDS,
    b"copyright\nholders\nRights\n",
    b"cryptography.dist-info/A,sha256\nctyping.py,2\nRECORD\n",
    b"Git v2.31.7 Release Notes\n" * 100,
    b"This is text of some length. " * 100,
    b"See https://example.org\n",
    b"V" + b"x" * 100,
    b"\x7fELF\x02\x01\x01" + bytes(3000),
    b"\x80\x02\xff" + bytes(3000),
    b"\n\x0e\n\x05<unk>\x15" + bytes(3000),
    b"x\x9cno zlib",
    b"BZh text",
    build_array("'<f4'", bytes(8)),
    gzip.compress(WORDS * 1000),
    gzip.compress(b"See https://example.org\n"),
    zlib.compress(WORDS),
    bz2.compress(WORDS),
    lzma.compress(WORDS),
    gzip.compress(build_array("'<f4'", bytes(8))),
]
PICKLES = [
    *(assemble("os", "system", form=form) for form in FORMS),
    PLAIN,
    build_torch_zip(PLAIN),
    build_array("'|O'", PLAIN),
    build_legacy(PLAIN),
    SYSTEM[:-1] + b"\xff",
    b"\x80\x02cantigravity\nfly\n\xff",
    b"N.N." + SYSTEM,
    b"V" + b"x" * 5000 + b"\n0" + assemble("os", "system", form="text"),
    b"\x80\x04B" + struct.pack("<I", 6_000_000) + bytes(6_000_000) + b"0" + SYSTEM[2:],
    *(compress(SYSTEM) for compress in (gzip.compress, bz2.compress, lzma.compress, zlib.compress)),
    lzma.compress(SYSTEM, lzma.FORMAT_ALONE),
    gzip.compress(build_array("'|O'", PLAIN)),
]
UNREADABLE = [
    bytes(257) + b"ustar" + bytes(3000),
    gzip.compress(bytes(257) + b"ustar" + bytes(3000)),
    gzip.compress(build_torch_zip(PLAIN)),
    gzip.compress(gzip.compress(SYSTEM)),
    bz2.compress(random.Random(1).randbytes(10_000)),
    b"\x28\xb5\x2f\xfd" + bytes(100),
    b"\x04\x22\x4d\x18" + bytes(100),
    b"\xfd7zXZ\x00" + bytes(100),
]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(content, expected, id=f"{expected.name}-{number}")
        for expected, contents in ((Content.OTHER, OTHERS), (Content.PICKLE, PICKLES), (Content.UNREADABLE, UNREADABLE))
        for number, content in enumerate(contents)
    ],
)
def test_files_are_known_by_what_they_begin_with(content: bytes, expected: Content) -> None:
    assert recognize(content[:HEAD], len(content)) is expected


@given(
    st.recursive(
        st.none() | st.integers() | st.text() | st.binary(max_size=3000),
        lambda x: st.lists(x) | st.dictionaries(st.text(), x),
    ),
    st.integers(0, 5),
)
def test_whatever_a_pickle_begins_with_it_is_known(value: Any, protocol: int) -> None:
    content = pickle.dumps([value, collections.OrderedDict()], protocol)
    assert recognize(content[:HEAD], len(content)) is Content.PICKLE


@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"\x80\x04", b"PK\x03\x04", b"\x93NUMPY\x01\x00", b"\x1f\x8b", b"x\x9c"]),
)
def test_whatever_a_file_begins_with_is_judged(content: bytes, prefix: bytes) -> None:
    recognize(prefix + content, len(prefix + content))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("pytorch_model.bin", True),
        ("a.pdparams", True),
        ("a.pkl.gz", True),
        ("a.joblib.LZ4", True),
        ("pytorch_model.bin.index.json", False),
        ("a.json.gz", False),
        ("sub/MODEL.PT", True),
        ("a.pth", True),
        ("a.joblib", True),
        ("a.npz", True),
        ("model.safetensors", False),
        ("config.json", False),
        ("bin", False),
    ],
)
def test_files_are_looked_into_by_their_names(path: str, expected: bool) -> None:
    assert is_pickle_name(path) is expected


@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"\x80\x04", b"PK\x03\x04", b"\x93NUMPY\x01\x00", PLAIN[:-1], SYSTEM]),
)
def test_whatever_comes_is_judged(content: bytes, prefix: bytes) -> None:
    report = inspect(prefix + content)
    if prefix == SYSTEM:
        assert report is not None
        assert report.verdict is PickleVerdict.BLOCKED


@given(
    st.recursive(
        st.none() | st.integers() | st.text() | st.binary(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_whatever_plain_data_is_clean(value: Any) -> None:
    content = pickle.dumps(value)
    assume(b"PK\x05\x06" not in content)
    check_clean(content)


@pytest.mark.parametrize("first", range(256))
def test_raw_weights_are_hardly_ever_taken_for_a_pickle(first: int) -> None:
    generator = random.Random(first)
    found = [inspect(bytes([first]) + generator.randbytes(500)) for _ in range(20)]
    assert sum(report is not None for report in found) <= 1
