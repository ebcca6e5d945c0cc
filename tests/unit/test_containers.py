"""ZIP, tar and compressed files of pickles. Nothing here is ever unpickled."""

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
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhaul.inspection import containers as pickle_files
from modelhaul.inspection.containers import HEAD, Content, inspect_pickle, is_pickle_name, recognize
from modelhaul.inspection.pickles import PickleReport, PickleVerdict
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
    zip_files,
)
from tests.weights import wrap_weights


def inspect(content: bytes) -> PickleReport | None:
    return inspect_pickle(lambda start, end: content[start:end], len(content))


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


@pytest.mark.parametrize("form", FORMS)
def test_in_a_torch_archive_it_is_blocked(form: str) -> None:
    check_blocked(build_torch_zip(assemble("os", "system", form=form)), "imports os.system")


HOSTILE: dict[str, tuple[bytes, str]] = {
    "an archive behind it": (PLAIN + zip_files({"data.pkl": PLAIN}), "ZIP archive lies behind"),
    "behind an archive": (zip_files({"data.pkl": PLAIN}) + SYSTEM, ""),
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
