"""Files that Python's tarfile opens are recognized as tar archives, which torch's first format is."""

import io
import tarfile
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhaul.inspection.containers import is_tar


def build_tar(kind: int, name: str = "storages") -> bytes:
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w", format=kind) as archive:
        member = tarfile.TarInfo(name)
        member.size = 3
        archive.addfile(member, io.BytesIO(b"abc"))
    return body.getvalue()


def build_v7(name: bytes) -> bytes:
    """Return an archive of Unix V7, which has no magic number."""
    header = bytearray(512)
    header[: len(name)] = name
    header[100:108], header[108:116], header[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    header[124:136], header[136:148] = b"00000000003\0", b"00000000000\0"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + b"abc".ljust(512, b"\0") + bytes(1024)


def opens(content: bytes) -> bool:
    """Return whether tarfile opens the content like torch: in any format, without decompression."""
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:", format=tarfile.PAX_FORMAT):
            return True
    except (tarfile.TarError, ValueError, EOFError, OverflowError):
        return False


PICKLES = b"".join(b"\x80\x02" + value + b"." for value in (b"K\x01", b"N", b"}", b"]", b"K\x02"))
SAMPLES = {
    "ustar": build_tar(tarfile.USTAR_FORMAT),
    "gnu": build_tar(tarfile.GNU_FORMAT),
    "pax": build_tar(tarfile.PAX_FORMAT, "ä" * 200),
    "v7": build_v7(b"storages"),
    "v7 with pickles for a name": build_v7(PICKLES),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_archives_of_each_format_are_recognized(name: str) -> None:
    assert opens(SAMPLES[name])
    assert is_tar(SAMPLES[name])


CHECKSUMS = [b"%06o\0 ", b"%06o \0", b"%07o\0", b" %05o\0 ", b"%o\0\0\0", b"%08o"]


@pytest.mark.parametrize(("form", "change"), list(product(CHECKSUMS, (0, 1))))
def test_checksum_is_recognized_in_every_form(form: bytes, change: int) -> None:
    header = bytearray(SAMPLES["v7"])
    header[148:156] = b" " * 8
    header[148:156] = (form % (sum(header[:512]) + change)).ljust(8, b"\0")[:8]
    assert is_tar(bytes(header)) is opens(bytes(header))


@given(st.sampled_from(sorted(SAMPLES)), st.lists(st.tuples(st.integers(0, 511), st.integers(0, 255)), max_size=4))
def test_archives_that_tarfile_opens_are_recognized(name: str, changes: list[tuple[int, int]]) -> None:
    content = bytearray(SAMPLES[name])
    for position, value in changes:
        content[position] = value
    if opens(bytes(content)) and any(content[:512]):
        assert is_tar(bytes(content))


@given(st.lists(st.tuples(st.integers(0, 511), st.integers(0, 255)), max_size=6), st.booleans())
def test_archives_with_a_corrected_checksum_are_recognized(changes: list[tuple[int, int]], is_base_256: bool) -> None:
    content = bytearray(SAMPLES["v7"])
    for position, value in changes:
        content[position] = value
    content[148:156] = b" " * 8
    total = sum(content[:512])
    content[148:156] = b"\x80" + total.to_bytes(7) if is_base_256 else b"%06o\0 " % total
    if opens(bytes(content)) and any(content[:512]):
        assert is_tar(bytes(content))


def test_zeros_are_an_archive_but_weights_that_begin_with_zeros_are_not() -> None:
    assert opens(bytes(10_240))
    assert not is_tar(bytes(10_240))


def test_other_content_is_not_recognized() -> None:
    assert not is_tar(b"")
    assert not is_tar(SAMPLES["ustar"][:511])
    assert not is_tar(bytes(range(256)) * 2)
