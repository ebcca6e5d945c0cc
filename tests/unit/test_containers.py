"""ZIP archives of torch, numpy and others, and compressed files. Nothing here is ever unpickled."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import random
import struct
import tarfile
import zipfile
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhaul.domain.findings import ContentReport, FileVerdict
from modelhaul.domain.json_streams import ReadRange
from modelhaul.inspection import compressed, zip_archives
from modelhaul.inspection.loaders import is_unpickled
from modelhaul.inspection.opened import HEAD, OpenedFile
from modelhaul.inspection.recognize import inspect_file
from modelhaul.inspection.zip_archives import identify_zip
from tests.archives.zipping import zip_files
from tests.pickles import (
    FORMS,
    PLAIN,
    SYSTEM,
    CountedReads,
    assemble,
    build_array,
    build_legacy,
    build_state_dict,
    build_torch_zip,
)
from tests.weights import wrap_weights


def inspect(content: bytes, path: str = "model.bin", *, read: ReadRange | None = None) -> ContentReport:
    """Inspect a file like the gate: read its head first, then further ranges as necessary."""
    fetch = read or (lambda start, end: content[start:end])
    head = fetch(0, min(len(content), HEAD))
    return inspect_file(OpenedFile(path, len(content), head, fetch, is_unpickled(path)))


def check_unsafe(content: bytes, *words: str, path: str = "model.bin") -> None:
    report = inspect(content, path)
    assert report.verdict is FileVerdict.UNSAFE, report
    details = [finding.detail for finding in report.findings]
    assert 0 < len(details) <= 20
    for word in words:
        assert any(word in detail for detail in details), details


def check_unscanned(content: bytes, word: str, path: str = "model.pt") -> None:
    """Check that the content is unscanned, and that a pickle loader would read it."""
    report = inspect(content, path)
    assert report.verdict is FileVerdict.UNSCANNED, report
    assert report.is_unread or is_unpickled(path)
    assert word in (report.reason or ""), report


def check_clean(content: bytes, path: str = "model.bin") -> ContentReport:
    report = inspect(content, path)
    assert report.verdict is FileVerdict.CLEAN, report
    return report


LARGE = pickle.dumps({number: str(number) * 40 for number in range(200)})


def build_tar(name: str = "a") -> bytes:
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    return body.getvalue()


@pytest.mark.parametrize("form", FORMS)
def test_imports_in_a_torch_archive_are_found(form: str) -> None:
    check_unsafe(build_torch_zip(assemble("os", "system", form=form)), "data.pkl: Pickle imports os.system")


ARRAY = build_array("'<f4'", bytes(8))


def damage_zlib() -> bytes:
    compressor = zlib.compressobj(9)
    content = compressor.compress(SYSTEM + bytes(3 << 20)) + compressor.flush(zlib.Z_FULL_FLUSH)
    return content + b"\xff" * 5000


def deflate_slowly(content: bytes) -> bytes:
    """Return a ZIP archive whose member begins with empty blocks, so that its first bytes inflate to nothing."""
    deflated = b"\0\0\0\xff\xff" * 500 + zlib.compress(content)[2:-4]
    name, crc = b"a", zlib.crc32(content)
    sizes = struct.pack("<3L2H", crc, len(deflated), len(content), len(name), 0)
    local = b"PK\x03\x04" + struct.pack("<5H", 20, 0, 8, 0, 33) + sizes + name + deflated
    central = b"PK\x01\x02" + struct.pack("<6H", 20, 20, 0, 8, 0, 33) + sizes + bytes(14) + name
    return local + central + b"PK\x05\x06" + struct.pack("<4H2LH", 0, 0, 1, 1, len(central), len(local), 0)


OBJECTS = build_array("'|O'", SYSTEM)
HOSTILE: dict[str, tuple[bytes, str]] = {
    "an archive behind it": (PLAIN + zip_files({"data.pkl": PLAIN}), "ZIP archive is preceded by other data"),
    "behind an archive": (zip_files({"data.pkl": PLAIN}) + SYSTEM, "Invalid ZIP archive"),
    "an array in an archive": (zip_files({"a.npy": OBJECTS}), "a.npy: Pickle imports os.system"),
    "no array in an archive": (zip_files({"a.npy": SYSTEM}), "Pickle imports os.system"),
    "a nested archive": (
        zip_files({"x.pkl": build_torch_zip(SYSTEM)}), "x.pkl: model/data.pkl: Pickle imports os.system"),
    "another pickle in an archive": (build_torch_zip(PLAIN, **{"extra.pkl": SYSTEM}), "Pickle imports os.system"),
    "deflated in an archive": (zip_files({"a/data.pkl": SYSTEM}, zipfile.ZIP_DEFLATED), "Pickle imports os.system"),
    "gzip": (gzip.compress(SYSTEM), "Pickle imports os.system"),
    "bzip2": (bz2.compress(SYSTEM), "Pickle imports os.system"),
    "xz": (lzma.compress(SYSTEM), "Pickle imports os.system"),
    "lzma": (lzma.compress(SYSTEM, lzma.FORMAT_ALONE), "Pickle imports os.system"),
    "zlib": (zlib.compress(SYSTEM), "Pickle imports os.system"),
    "LZMA with a small dictionary": (
        lzma.compress(SYSTEM, lzma.FORMAT_ALONE, filters=[{"id": lzma.FILTER_LZMA1, "dict_size": 4096}]),
        "Pickle imports os.system",
    ),
    "LZMA with a large dictionary": (lzma.compress(SYSTEM, lzma.FORMAT_ALONE, preset=9), "Pickle imports os.system"),
    "damage behind a pickle in zlib": (damage_zlib(), "Pickle imports os.system"),
    "an array among torch's storages": (
        zip_files({"data.pkl": PLAIN, "data/0": OBJECTS}), "data/0: Pickle imports os.system"),
    "behind blocks that hold nothing": (deflate_slowly(SYSTEM), "Pickle imports os.system"),
    "Stable-Baselines3": (zip_files({"data": b'{"a": {":serialized:": "gASV"}}'}), "Stable-Baselines3"),
    "a second gzip stream": (gzip.compress(b"") + gzip.compress(SYSTEM), "Pickle imports os.system"),
    "a gzip stream after zeros": (gzip.compress(b"") + bytes(99) + gzip.compress(SYSTEM), "Pickle imports os.system"),
    "a second bzip2 stream": (bz2.compress(b"") + bz2.compress(SYSTEM), "Pickle imports os.system"),
    "a second xz stream": (lzma.compress(b"") + bytes(8) + lzma.compress(SYSTEM), "Pickle imports os.system"),
    "a pickle in two gzip streams": (gzip.compress(SYSTEM[:9]) + gzip.compress(SYSTEM[9:]), "Pickle imports os.system"),
    "behind many sources": (
        build_torch_zip(SYSTEM, **{f"c{number:02}.py": b"print()" for number in range(30)}), "imports os.system"),
    "damaged gzip": (gzip.compress(SYSTEM + random.Random(1).randbytes(70_000))[:-9], "Pickle imports os.system"),
    "a member without a suffix": (zip_files({"a": OBJECTS}), "Pickle imports os.system"),
    "a member named as text": (zip_files({"a.txt": SYSTEM, "b.txt": b"text"}), "Pickle imports os.system"),
    "a member that is text": (zip_files({"a": assemble("os", "system", form="text")}), "Pickle imports os.system"),
    "a member of an operating system": (zip_files({"__MACOSX/._a": SYSTEM}), "Pickle imports os.system"),
    "a deflated member": (zip_files({"a": SYSTEM}, zipfile.ZIP_DEFLATED), "Pickle imports os.system"),
    "a member behind many opcodes": (zip_files({"a": b"N0" * 5000 + SYSTEM}), "Pickle imports os.system"),
    "a compressed member": (zip_files({"a": gzip.compress(SYSTEM)}), "Pickle imports os.system"),
    "a nested archive without a suffix": (zip_files({"a": build_torch_zip(SYSTEM)}), "Pickle imports os.system"),
    "what is no storage": (build_torch_zip(PLAIN, **{"other/0": SYSTEM}), "Pickle imports os.system"),
    "a pickle among storages": (build_torch_zip(PLAIN, **{"data/x": SYSTEM}), "Pickle imports os.system"),
    "an array in gzip": (gzip.compress(OBJECTS), "Pickle imports os.system"),
    "a torch archive in gzip": (gzip.compress(build_torch_zip(SYSTEM)), "Pickle imports os.system"),
    "TorchScript": (build_torch_zip(PLAIN, **{"constants.pkl": PLAIN, "code/a.py": b""}), "torch.jit.load runs"),
    "torch.package": (build_torch_zip(PLAIN, **{".data/extern_modules": b"os"}), "torch.package runs"),
    "a native library in a .pt2": (
        zip_files({"m/archive_format": b"pt2", "m/data/aotinductor/model/a.so": b"\x7fELF" + bytes(60)}),
        "Native code, which torch loads",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hidden_code_is_found(name: str) -> None:
    content, words = HOSTILE[name]
    check_unsafe(content, words)


UNREAD: dict[str, tuple[bytes, str, str]] = {
    "tar": (build_tar(), "model.pt", "Unsupported: tar archive"),
    "tar with a suffix": (build_tar(), "model.pt.gz", "Unsupported: tar archive"),
    "joblib's old form": (b"ZF0x41                " + zlib.compress(SYSTEM), "a.joblib", "Unsupported compression"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(100), "a.pkl.zst", "Unsupported compression: zstd"),
    "lz4": (b"\x04\x22\x4d\x18" + bytes(100), "a.joblib", "Unsupported compression: lz4"),
    "nothing known": (b"\xff" * 1000, "a.pt", "not a pickle"),
    "text": (b"text", "a.ckpt", "not a pickle"),
    "an empty archive": (zip_files({}), "a.npz", "ZIP archive is empty"),
    "other data after gzip": (gzip.compress(PLAIN) + b"x", "a.pkl", "followed by other data"),
    "other data after zlib": (zlib.compress(PLAIN) * 2, "a.pkl", "followed by other data"),
    "many gzip streams": (gzip.compress(b"") * 200 + gzip.compress(PLAIN), "a.pkl", "more than 100 compressed streams"),
    "lz4 under a common name": (b"\x04\x22\x4d\x18" + bytes(100), "model.bin", "Unsupported compression: lz4"),
    "zstd under another suffix": (b"\x28\xb5\x2f\xfd" + bytes(100), "a.pt.tmp", "Unsupported compression: zstd"),
    "a dictionary of LZMA that is too large": (
        lzma.compress(PLAIN, lzma.FORMAT_XZ, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 2**28}]),
        "model.sav",
        "LZMA dictionary exceeds",
    ),
    "a dictionary of old LZMA that is too large": (
        lzma.compress(PLAIN, lzma.FORMAT_ALONE, filters=[{"id": lzma.FILTER_LZMA1, "dict_size": 2**28}]),
        "weights",
        "LZMA dictionary exceeds",
    ),
    "damaged xz": (b"\xfd7zXZ\x00" + bytes(100), "a.pkl", "damaged"),
    "archives in archives": (
        zip_files({"a": zip_files({"a": zip_files({"a": zip_files({"a": SYSTEM})})})}), "a.bin", "more than 3 levels"),
    "a tar in an archive": (zip_files({"a.pkl": build_tar()}), "a.bin", "Unsupported: tar archive"),
    "an unknown member of a torch archive": (
        build_torch_zip(PLAIN, **{"other/0": b"\xff" * 100}), "a.bin", "Unknown format"),
    "random bytes in bzip2": (bz2.compress(random.Random(1).randbytes(10_000)), "a.pkl", "not a pickle"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNREAD)
def test_unparsed_loadable_files_are_not_clean(name: str) -> None:
    content, path, words = UNREAD[name]
    check_unscanned(content, words, path)


def test_duplicate_member_names_are_refused() -> None:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        archive.writestr("a/data.pkl", SYSTEM)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a/data.pkl", PLAIN)
    check_unsafe(body.getvalue(), "Invalid ZIP archive")


def test_second_directory_in_the_comment_is_refused() -> None:
    """7-Zip reads the clean archive; Python, unzip and torch read the other one."""
    hidden = zip_files({"model/data.pkl": SYSTEM, "model/version": b"3"})
    content = bytearray(build_torch_zip(PLAIN))
    end = content.rfind(b"PK\x05\x06")
    content[end + 20 : end + 22] = struct.pack("<H", len(hidden))
    check_unsafe(bytes(content) + hidden, "Invalid ZIP archive")


CLEAN: dict[str, tuple[bytes, str, str]] = {
    "torch": (build_torch_zip(build_state_dict()), "a.bin", "torch-zip"),
    "legacy torch": (
        build_legacy(build_state_dict(), pickle.dumps(["0"], 2), struct.pack("<q", 4) + bytes(16)),
        "a.bin",
        "torch-legacy",
    ),
    "objects": (build_array("'|O'", PLAIN), "a.npy", "npy"),
    "arrays": (zip_files({"a.npy": build_array("'|O'", PLAIN), "b.npy": ARRAY}), "a.npz", "npz"),
    "an array": (ARRAY, "a.npy", "npy"),
    "gzip": (gzip.compress(PLAIN), "a.pkl.gz", "pickle in gzip"),
    "bzip2": (bz2.compress(PLAIN), "a.pkl", "pickle in bzip2"),
    "xz": (lzma.compress(PLAIN), "a.joblib", "pickle in xz"),
    "lzma": (lzma.compress(PLAIN, lzma.FORMAT_ALONE), "a.joblib", "pickle in lzma"),
    "zlib": (zlib.compress(PLAIN, 9), "a.joblib", "pickle in zlib"),
    "an array in zlib": (zlib.compress(ARRAY), "a.npy", "npy in zlib"),
    "text in an archive": (zip_files({"a.txt": b"text", "b.json": b"{}"}), "a.zip", "zip"),
    "text in gzip": (gzip.compress(b"text\n" * 100_000), "a.txt.gz", "text in gzip"),
    "torch.export's tensors": (
        zip_files({"m/archive_format": b"pt2", "m/data/weights/weight_0": b"\xff" * 100, "m/models/model.json": b"{}"}),
        "m.pt2",
        "torch-export",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CLEAN)
def test_ordinary_files_are_clean(name: str) -> None:
    content, path, kind = CLEAN[name]
    assert check_clean(content, path).format == kind


OTHERS = [
    b"{}",
    b"#!/bin/sh\n",
    b"version https://git-lfs.github.com/spec/v1\n",
    b"GGUF\x03\x00\x00\x00" + bytes(100),
    wrap_weights(bytes(1000)),
    b"\xff" * 1000,
    b"\x80\xf3" + bytes(1000),
    b"\x82H\x18\xec" + bytes(1000),
    b"\x93\xff" + bytes(1000),
    b"cat\ndog\nbird\nbar\n",
    b"copyright\nholders\nRights\n",
    b"cryptography.dist-info/A,sha256\nctyping.py,2\nRECORD\n",
    b"Git v2.31.7 Release Notes\n" * 100,
    b"See https://example.org\n",
    b"V" + b"x" * 100,
    b"\x7fELF\x02\x01\x01" + bytes(3000),
    b"\x80\x02\xff" + bytes(3000),
    b"\n\x0e\n\x05<unk>\x15" + bytes(3000),
    b"x\x9cno zlib",
    b"BZh text",
]


@pytest.mark.parametrize("content", OTHERS, ids=lambda content: repr(content[:20]))
def test_content_without_calls_is_not_a_pickle(content: bytes) -> None:
    report = inspect(content, "weights")
    assert report.verdict is not FileVerdict.UNSAFE
    assert not report.is_unread


# The state replaces a method, which the next item calls.
REPLACED_METHOD = b"cargparse\nNamespace\n(N(S'append'\ncos\nsystem\ndtbS'true'\na."
PICKLES = [
    REPLACED_METHOD,
    REPLACED_METHOD + b"\xff\xff",
    *(assemble("os", "system", form=form) for form in FORMS),
    SYSTEM[:-1] + b"\xff",
    b"N.N." + SYSTEM,
    b"N.N." + SYSTEM[:-1] + b"\xff",
    b"V" + b"x" * 5000 + b"\n0" + assemble("os", "system", form="text"),
    b"\x80\x04B" + struct.pack("<I", 6_000_000) + bytes(6_000_000) + b"0" + SYSTEM[2:],
    gzip.compress(OBJECTS),
]


NAMES = [
    "weights", "model.bin", "a.sav", "a.pdparams", "a.xyz", "w.model", "m.pth.tar", "m.tar", "vocab.txt", "a.h5",
    "a.onnx", "a.pdmodel", "a.msgpack", "a.arrow", "vocab.json", "a.pkl.br", ".metadata",
]  # fmt: skip


@pytest.mark.parametrize("path", NAMES)
@pytest.mark.parametrize("content", PICKLES, ids=range(len(PICKLES)))
def test_pickles_are_found_under_any_name(content: bytes, path: str) -> None:
    check_unsafe(content, "Pickle imports os.system", path=path)


@given(st.integers(0, 2**32), st.sampled_from([4096, 100_000]))
def test_raw_weights_are_unscanned(seed: int, size: int) -> None:
    report = inspect(random.Random(seed).randbytes(size))
    assert report.verdict is FileVerdict.UNSCANNED
    assert not report.is_unread


@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"\x80\x04", b"PK\x03\x04", b"\x93NUMPY\x01\x00", b"\x1f\x8b", b"x\x9c"]),
    st.sampled_from(["weights", "model.bin", "a.pt", "a.txt", "a.json", "a.npz"]),
)
def test_any_file_has_a_report(content: bytes, prefix: bytes, path: str) -> None:
    inspect(prefix + content, path)


def test_torch_archives_are_read_only_in_part() -> None:
    content = build_torch_zip(build_state_dict(), **{f"data/{number}": bytes(1_000_000) for number in range(1, 20)})
    read = CountedReads(content)
    assert inspect(content, read=read).verdict is FileVerdict.CLEAN
    assert sum(read.sizes) < 2_000_000
    assert len(read.sizes) < 8 + 20, "the pickle, and the first bytes of each storage"


def test_storages_need_no_requests() -> None:
    content = build_torch_zip(build_state_dict(), **{f"data/{number}": bytes(200) for number in range(1, 5000)})
    read = CountedReads(content)
    assert inspect(content, read=read).verdict is FileVerdict.CLEAN
    assert len(read.sizes) < 12


@pytest.mark.parametrize("member", [ARRAY, PLAIN])
def test_adjacent_members_are_read_together(member: bytes) -> None:
    content = zip_files({f"{number}": member for number in range(1000)})
    read = CountedReads(content)
    assert inspect(content, "a.npz", read=read).verdict is FileVerdict.CLEAN
    assert len(read.sizes) < 8


def test_number_of_head_requests_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_archives, "_MAX_HEAD_REQUESTS", 9)
    members: dict[str, Any] = {f"{number}.txt": b"x" * 100_000 for number in range(10)}
    check_unscanned(zip_files(members), "too-many-entries")
    members.pop("0.txt")
    check_clean(zip_files(members))


def test_number_of_opened_members_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_archives, "_MAX_OPENED", 5)
    check_clean(zip_files({f"{number}": LARGE for number in range(5)}))
    check_unscanned(zip_files({f"{number}": LARGE for number in range(6)}), "entries to inspect")


def test_numpy_archives_have_no_storages() -> None:
    content = zip_files({"data.pkl": PLAIN, "data/0": OBJECTS})
    for path in ("a.npz", "a.npy", "model.pt", "a.zip", "a.joblib"):
        check_unsafe(content, "data/0: Pickle imports os.system", path=path)
    check_unsafe(zip_files({"a.npz": content}), "Pickle imports os.system")


def test_large_stored_members_are_read_by_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_archives, "MAX_IN_MEMORY", 100)
    check_clean(zip_files({"first": b"x", "a": build_torch_zip(build_state_dict())}))
    check_unsafe(zip_files({"first": b"x", "a": build_torch_zip(SYSTEM)}), "Pickle imports os.system")
    check_unscanned(zip_files({"a": LARGE}, zipfile.ZIP_DEFLATED), "Deflated entry is larger than")


def test_total_inflated_size_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_archives, "_MAX_INFLATED", 5 * len(LARGE))
    check_clean(zip_files({f"{number}": LARGE for number in range(5)}, zipfile.ZIP_DEFLATED))
    check_unscanned(zip_files({f"{number}": LARGE for number in range(6)}, zipfile.ZIP_DEFLATED), "decompressed bytes")


def test_decompressed_size_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed, "MAX_IN_MEMORY", 10_000)
    for compress in (gzip.compress, bz2.compress, lzma.compress, zlib.compress):
        check_unscanned(compress(pickle.dumps(bytes(20_000))), "decompressed bytes")
    check_unsafe(gzip.compress(SYSTEM + bytes(20_000)), "Pickle imports os.system")


def test_unparsed_members_are_named() -> None:
    tar = build_tar()
    report = inspect(zip_files({"a.tar": tar, "b": zip_files({"c": tar}), "d": b"text", "e.pkl": PLAIN}), "a.zip")
    assert report.verdict is FileVerdict.UNSCANNED
    assert not report.is_unread, "no loader of pickles reads a tar under these names"
    assert report.reason == "a.tar: Unsupported: tar archive; b: c: Unsupported: tar archive"
    assert report.pickles == PLAIN


@pytest.mark.parametrize(
    ("suffix", "words"), [(".mar", "TorchServe"), (".whl", "pip"), (".jar", "Java"), (".egg", "P")]
)
def test_code_archives_name_the_program_that_runs_them(suffix: str, words: str) -> None:
    report = inspect(zip_files({"handler.py": b"print()", "model.pt": build_torch_zip(PLAIN)}), f"a{suffix}")
    assert report.verdict is FileVerdict.UNSCANNED
    assert not report.is_unread
    assert [(f.kind, f.severity) for f in report.findings] == [("code-archive", "medium"), ("code", "medium")]
    assert words in report.findings[0].detail


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        ({"a/data.pkl", "a/version", "a/data/0"}, "torch-zip"),
        ({"a/data.pkl", "a/constants.pkl", "a/code/x.py"}, "torchscript"),
        ({"a/.data/extern_modules", "a/x.py"}, "torch-package"),
        ({"m/archive_format", "m/models/model.json"}, "torch-export"),
        ({"config.json", "metadata.json", "model.weights.h5"}, "keras"),
        ({"a.npy", "b.npy"}, "npz"),
        ({"a.npy", "b.txt"}, "zip"),
        (set(), "zip"),
    ],
)
def test_archives_are_identified_by_their_members(names: set[str], kind: str) -> None:
    assert identify_zip(names) == kind


LAMBDA = {
    "class_name": "Lambda",
    "config": {"function": {"class_name": "__lambda__", "config": {"code": "4wEAAAA="}}},
}


@pytest.mark.parametrize(
    ("layer", "findings"),
    [
        ({"module": "keras.layers", "class_name": "Dense", "config": {"units": 1}}, []),
        ({"module": "keras.layers", **LAMBDA}, [("keras-lambda", "medium")]),
        ({"module": "subprocess", "class_name": "Popen", "config": {}}, [("keras-module", "high")]),
    ],
)
def test_keras_layers(layer: dict[str, Any], findings: list[tuple[str, str]]) -> None:
    model = {"module": "keras", "class_name": "Sequential", "config": {"layers": [layer]}, "registered_name": None}
    weights = b"\x89HDF\r\n\x1a\n" + bytes(100)
    files = {"config.json": json.dumps(model).encode(), "metadata.json": b"{}", "model.weights.h5": weights}
    report = inspect(zip_files(files), "model.keras")
    assert report.format == "keras"
    assert report.reason == "model.weights.h5: Unsupported: HDF5"
    assert not report.is_unread
    found = [(f.kind, f.severity) for f in report.findings if f.kind != "keras"]
    assert found == findings
    del files["metadata.json"]
    found = [(f.kind, f.severity) for f in inspect(zip_files(files), "model.keras").findings if f.kind != "keras"]
    assert found == findings


def test_keras_archive_after_other_bytes_is_ambiguous() -> None:
    check_unsafe(b"# x\n" + zip_files({"config.json": b"{}"}), "ZIP archive is preceded by other data", path="a.keras")


@pytest.mark.parametrize(
    "text",
    [
        b'{"class_name": "Lambda"}',
        b'{"class_name": "L\\u0061mbda"}',
        b'{"module": "os", "class_name": "function", "config": "system"}',
    ],
)
@pytest.mark.parametrize("before", [b"", bytes(512)])
def test_hdf5_layers(text: bytes, before: bytes) -> None:
    check_unsafe(before + b"\x89HDF\r\n\x1a\n" + bytes(100) + text, "can run code", path="model.h5")


def test_raw_weights_that_begin_with_zeros_are_not_unread() -> None:
    report = inspect(bytes(1024) + b"\xff" * 1000, "openvino/openvino_model.bin")
    assert (report.format, report.is_unread) == ("unknown", False)


@pytest.mark.slow
def test_many_text_members_do_not_exhaust_the_pickle_budget() -> None:
    text = b"words and more words\n" * 3500
    report = check_clean(zip_files({f"{number}.txt": text for number in range(1_000)}, zipfile.ZIP_DEFLATED), "a.zip")
    assert not report.is_loadable
