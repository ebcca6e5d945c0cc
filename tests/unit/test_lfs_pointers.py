import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhaul_sources.git_attributes import match_lfs_paths
from modelhaul_sources.lfs import POINTER_SIZES, Pointer, parse_pointer

OID = hashlib.sha256(b"content").hexdigest()
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{OID}\nsize 7\n".encode()


def test_a_pointer_is_read() -> None:
    assert parse_pointer(POINTER) == Pointer(OID, 7)
    assert len(POINTER) in POINTER_SIZES


@pytest.mark.parametrize(
    "data",
    [
        POINTER.replace(b"git-lfs.github.com/spec/v1", b"hawser.github.com/spec/v1"),
        POINTER.replace(b"https://git-lfs.github.com/spec/v1", b"http://git-media.io/v/2"),
        POINTER.replace(b"\noid", b"\next-0-foo sha256:" + b"0" * 64 + b"\noid"),
        POINTER.replace(b"\n", b"\r\n"),
        POINTER.replace(b"size 7\n", b"size 70"),
    ],
)
def test_older_and_unusual_forms_are_pointers(data: bytes) -> None:
    found = parse_pointer(data)
    assert found is not None
    assert found.oid == OID


@pytest.mark.parametrize(
    "data",
    [
        b"",
        POINTER[:-10],
        b"x" + POINTER,
        POINTER + b"and more",
        POINTER.replace(b"sha256", b"sha512"),
        POINTER.replace(b"size 7", b"size -7"),
        POINTER.replace(b"size 7", b"size 7.5"),
        POINTER.replace(OID[:4].encode(), b"zzzz"),
        POINTER + b"\n" * 1000,
    ],
)
def test_what_is_no_pointer_is_none(data: bytes) -> None:
    assert parse_pointer(data) is None


@given(st.binary(max_size=1100))
def test_arbitrary_bytes_are_no_pointer(data: bytes) -> None:
    assert parse_pointer(data) is None


@given(st.text("0123456789abcdef", min_size=64, max_size=64), st.integers(0, 10**15))
def test_every_pointer_that_git_lfs_writes_is_read(oid: str, size: int) -> None:
    data = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n".encode()
    assert parse_pointer(data) == Pointer(oid, size)


ATTRIBUTES = {
    ".gitattributes": b"# comment\n*.bin filter=lfs diff=lfs merge=lfs -text\n[attr]weights filter=lfs\n*.pt weights\n"
    b"*.md text\n/only/here/*.json filter=lfs\n\n",
    "deep/er/.gitattributes": b"*.json filter=lfs -text\nsub/*.txt filter=lfs\n",
}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a.bin", True),
        ("x/y/a.bin", True),
        ("x/a.pt", True),
        ("README.md", False),
        ("only/here/a.json", True),
        ("other/only/here/a.json", False),
        ("a.json", False),
        ("deep/er/a.json", True),
        ("deep/er/still/a.json", True),
        ("deep/er/sub/a.txt", True),
        ("sub/a.txt", False),
    ],
)
def test_attributes_say_which_paths_may_be_in_lfs(path: str, expected: bool) -> None:
    assert match_lfs_paths(ATTRIBUTES)(path) is expected


def test_without_attributes_nothing_is_in_lfs() -> None:
    assert not match_lfs_paths({})("a.bin")
    assert not match_lfs_paths({".gitattributes": b"\xff\xfe\x00 filter=lfs\n!x filter=lfs\n"})("a.bin")
