"""Hashes against hashlib's and git's own, over stored states and without libcrypto."""

import ctypes
import hashlib
import subprocess
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhaul.domain import digests
from modelhaul.domain.digests import Algorithm, Digest, FileHasher
from modelhaul.domain.errors import ArchiveRefusedError, DigestMismatchError


def publish(content: bytes, algorithm: Algorithm) -> Digest:
    if algorithm is Algorithm.CRC32:
        return Digest(algorithm, f"{zlib.crc32(content):08x}")
    plain = content if algorithm is Algorithm.SHA256 else b"blob %d\0" % len(content) + content
    name = "sha256" if algorithm is Algorithm.SHA256 else "sha1"
    return Digest(algorithm, hashlib.new(name, plain).hexdigest())


@given(pieces=st.lists(st.binary(max_size=300), max_size=12), algorithm=st.sampled_from(Algorithm))
def test_a_stored_state_goes_on_as_if_nothing_had_happened(pieces: list[bytes], algorithm: Algorithm) -> None:
    content = b"".join(pieces)
    expected = publish(content, algorithm)
    hasher = FileHasher(expected, len(content))
    for number, piece in enumerate(pieces):
        hasher.update((bytes, bytearray, lambda b: memoryview(bytearray(b)))[number % 3](piece))
        state = hasher.export_state()
        assert state is not None
        assert len(state) <= 208
        hasher = FileHasher(expected, len(content), state)
    assert hasher.verify("f") == hashlib.sha256(content).hexdigest()
    assert hasher.verify("f") == hashlib.sha256(content).hexdigest(), "verifying does not spend the hasher"


def test_git_agrees_on_the_blob_id(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"weights \0 of a model\n" * 50)
    shown = subprocess.run(["git", "hash-object", file], capture_output=True, check=True, text=True)
    hasher = FileHasher(Digest(Algorithm.GIT_SHA1, shown.stdout.strip()), file.stat().st_size)
    hasher.update(file.read_bytes())
    assert hasher.verify("file") == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("algorithm", [Algorithm.SHA256, Algorithm.GIT_SHA1])
def test_other_bytes_are_told_with_both_digests(algorithm: Algorithm) -> None:
    expected = publish(b"right", algorithm)
    hasher = FileHasher(expected, 5)
    hasher.update(b"wrong")
    with pytest.raises(DigestMismatchError, match=f"f.bin: .*{publish(b'wrong', algorithm).value}.*{expected.value}"):
        hasher.verify("f.bin")


def test_other_bytes_in_an_archive_are_its_damage_for_good() -> None:
    hasher = FileHasher(publish(b"right", Algorithm.CRC32), 5)
    hasher.update(b"wrong")
    with pytest.raises(ArchiveRefusedError, match=publish(b"wrong", Algorithm.CRC32).value) as refused:
        hasher.verify("a/f.bin")
    assert (refused.value.reason, refused.value.entry) == ("crc-mismatch", "a/f.bin")


@pytest.mark.parametrize("algorithm", Algorithm)
def test_without_libcrypto_hashes_are_right_but_cannot_be_stored(
    monkeypatch: pytest.MonkeyPatch, algorithm: Algorithm
) -> None:
    def refuse(_: str) -> None:
        raise OSError("libcrypto.so.3: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    monkeypatch.setattr(digests, "_load_libcrypto", digests._load_libcrypto.__wrapped__)
    hasher = FileHasher(publish(b"content", algorithm), 7)
    hasher.update(memoryview(b"content"))
    assert hasher.export_state() is None
    assert hasher.verify("f") == hashlib.sha256(b"content").hexdigest()
    with pytest.raises(ValueError, match="libcrypto"):
        FileHasher(publish(b"content", algorithm), 7, b"\0" * 208)


def test_a_libcrypto_that_hashes_otherwise_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests._LibcryptoHash, "hexdigest", lambda _: "0" * 64)
    assert digests._load_libcrypto.__wrapped__() is None


def test_a_state_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="112"):
        FileHasher(publish(b"", Algorithm.SHA256), 0, b"short")


@given(st.sampled_from(Algorithm), st.binary())
def test_a_digest_is_read_back_from_its_text(algorithm: Algorithm, content: bytes) -> None:
    published = publish(content, algorithm)
    assert Digest.parse(str(published)) == published


@pytest.mark.parametrize(
    "text",
    ["", "sha256", "sha256:", "sha256:" + "g" * 64, "sha256:" + "A" * 64, "git-sha1:" + "a" * 64, "md5:" + "a" * 32],
)
def test_what_is_no_digest_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="invalid digest"):
        Digest.parse(text)
