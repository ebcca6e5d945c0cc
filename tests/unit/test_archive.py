"""The strict ZIP reader: what it refuses and why, and what it takes."""

import io
import math
import struct
import zipfile
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelhaul.archives.entries import ArchiveLimits, Refusal
from modelhaul.archives.reader import ArchiveReader, MemoryStream, open_memory
from modelhaul.domain.errors import ArchiveRefusedError
from modelhaul.ports.byte_streams import ByteStream
from tests.archives.building import (
    Member,
    add_descriptor,
    alter,
    build,
    deflate,
    list_members,
    make_zip64_end,
    make_zip64_extra,
)
from tests.archives.hostile import HOSTILE, VALID
from tests.archives.odd import ODD

LIMITS = ArchiveLimits(max_entries=100_000, max_entry_bytes=10**9, max_total_bytes=10**10, max_ratio=200)


def read_whole(data: bytes, limits: ArchiveLimits = LIMITS) -> dict[str, bytes]:
    """As a POST does it: structure, every local header, every entry's content."""
    reader = ArchiveReader(open_memory(data), len(data), limits)
    reader.check_local_headers()
    for entry in reader.entries:
        reader.verify_entry(entry)
    return {entry.name: reader.read_entry(entry) for entry in reader.files}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused_with_its_reason_and_entry(name: str) -> None:
    hostile = HOSTILE[name]
    with pytest.raises(ArchiveRefusedError) as refused:
        read_whole(hostile.data)
    assert (refused.value.reason, refused.value.entry) == (hostile.reason, hostile.entry)
    assert refused.value.detail.endswith((".", "damaged"))
    if hostile.entry is not None:
        assert repr(hostile.entry[:80]) in refused.value.detail
    assert refused.value.detail.isprintable(), "what an attacker wrote does not reach a terminal as it is"


def test_every_reason_has_an_archive() -> None:
    assert {hostile.reason for hostile in HOSTILE.values()} == set(Refusal)


@pytest.mark.slow
@pytest.mark.parametrize("name", ODD)
def test_an_odd_but_legal_archive_is_read_byte_for_byte(name: str) -> None:
    odd = ODD[name]
    assert read_whole(odd.data) == odd.files


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("symlink", "Entry 'model/link' is a symbolic link. Create the archive from the linked files: use `zip -r` "),
        ("bzip2", "has the unsupported compression method 12 (bzip2). Create the archive with Deflate: `zip -Z "),
        ("deflate64", "compression method 9 (Deflate64)"),
        ("encrypted", "Entry 'model/x' is encrypted. Create the archive without a password."),
        ("unmarked-shift-jis", "unknown encoding, not marked as UTF-8. Create the archive with UTF-8 names: `7z a "),
        ("backslashes-and-slashes", "other entries have slashes. Create the archive with slashes: `tar -a -c -f "),
        ("other-size", "local header that disagrees with the central directory (size 1, 1112)."),
        ("other-name", "(name b'model/model.safetensorz', b'model/model.safetensors')."),
        ("descriptor-crc", "data descriptor that disagrees with the central directory (CRC-32 1, "),
        ("bomb", "; above 104,857,600 bytes the limit is 200:1 (ArchiveMaxRatio). Store the content without "),
        ("several-disks", "Multi-volume ZIP archives are not supported. Create the archive as one file."),
        ("appended", "The archive is followed by 8 bytes of unknown data."),
        ("prepended", "10 bytes of unknown data before its first entry or after its central directory."),
    ],
)  # fmt: skip
def test_a_message_has_the_values_at_fault_and_a_remedy(name: str, message: str) -> None:
    with pytest.raises(ArchiveRefusedError) as refused:
        read_whole(HOSTILE[name].data)
    assert message in refused.value.detail


@pytest.mark.parametrize("name", ["descriptor-crc", "descriptor-size", "descriptor-of-a-large-entry"])
def test_no_content_is_given_whole_with_a_wrong_descriptor(name: str) -> None:
    hostile = HOSTILE[name]
    reader = ArchiveReader(open_memory(hostile.data), len(hostile.data), LIMITS)
    (entry,) = (entry for entry in reader.entries if entry.name == hostile.entry)
    with pytest.raises(ArchiveRefusedError, match="data descriptor"):
        reader.find_data(entry)
    with pytest.raises(ArchiveRefusedError, match="data descriptor"):
        list(reader.read_heads([entry], 10, max_requests=1))
    with pytest.raises(ArchiveRefusedError, match="data descriptor"):
        reader.read_entry(entry)
    with reader.open_entry(entry) as stream, pytest.raises(ArchiveRefusedError, match="data descriptor"):
        stream.readinto(memoryview(bytearray(entry.size)))


@pytest.mark.parametrize("layout", ["<L2Q", "<3L"])
def test_a_descriptor_of_a_very_large_entry_has_64_bits(layout: str) -> None:
    """As Go and Java write it: without a zip64 field in the local header."""
    size = 5 * 1024**3
    extra = make_zip64_extra(size, size)
    values: dict[str, int | bytes] = {"crc32": 7, "size": 0, "compressed_size": 0}
    member = Member(b"model/large", method=0, flags=8, extra=extra, local_extra=b"", crc32=7, local=values)
    start = member.encode_local()
    descriptor = b"PK\7\x08" + struct.pack(layout, 7, *(size & (2 ** (64 if layout == "<L2Q" else 32) - 1),) * 2)
    offset = len(start) + size + len(descriptor)
    central = alter(member, size=0xFFFFFFFF, compressed_size=0xFFFFFFFF).encode_central(0)
    end = make_zip64_end(offset + len(central), 1, len(central), offset)
    end += struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(central), 0xFFFFFFFF, 0)
    last = descriptor + central + end

    def open_range(begin: int, stop: int) -> ByteStream:
        known = [(0, start), (len(start) + size, last)]
        content = bytearray(stop - begin)
        for at, data in known:
            for place in range(max(begin, at), min(stop, at + len(data))):
                content[place - begin] = data[place - at]
        return MemoryStream(bytes(content), 0, len(content))

    reader = ArchiveReader(open_range, len(start) + size + len(last), LIMITS)
    (entry,) = reader.entries
    assert entry.size == size
    if layout == "<L2Q":
        reader.check_local_headers()
        assert reader.find_data(entry) == len(start)
    else:
        with pytest.raises(ArchiveRefusedError, match="bytes instead of a data descriptor"):
            reader.check_local_headers()


@pytest.mark.parametrize("size", [10, 300_000])
def test_descriptors_take_no_request_of_their_own(size: int) -> None:
    members = [add_descriptor(Member(b"model/%d" % n, bytes(size), 0)) for n in range(20)]
    data = build(members)
    asked: Counter[str] = Counter()

    def open_range(start: int, end: int) -> ByteStream:
        asked["requests"] += 1
        return MemoryStream(data, start, end)

    reader = ArchiveReader(open_range, len(data), LIMITS)
    assert len(reader.entries) == 20
    asked.clear()
    reader.check_local_headers()
    runs = 1 if size == 10 else 20
    assert asked["requests"] == runs + 2, "the first bytes, the headers with the descriptors before them, the last one"


def test_entries_that_are_archives_take_few_requests() -> None:
    """Their end records lie in reach of a reader's search; where they say must be no directory."""
    inner = Member(b"model/rng_state.pth", build(list_members("archive", method=0)), 0)
    data = build([Member(b"model/large", bytes(2_000_000), 0), *(alter(inner, name=b"model/%d" % n) for n in range(9))])
    asked: list[int] = []

    def open_range(start: int, end: int) -> ByteStream:
        asked.append(end - start)
        return MemoryStream(data, start, end)

    assert len(ArchiveReader(open_range, len(data), LIMITS).entries) == 10
    assert sorted(asked)[:-1] == [4], "of equal archives, which say the same place"


@pytest.mark.parametrize("cut", range(0, len(VALID), 7))
def test_a_cut_archive_is_never_taken(cut: int) -> None:
    with pytest.raises(ArchiveRefusedError):
        read_whole(VALID[:cut])


NAMES = st.lists(
    st.text("abcé模", min_size=1, max_size=8).map(lambda name: f"model/{name}"), unique_by=str.casefold, max_size=6
)


@given(NAMES, st.data())
def test_whatever_pythons_zipfile_writes_is_read_to_the_same(names: list[str], data: st.DataObject) -> None:
    files = {name: data.draw(st.binary(max_size=3000)) for name in names} | {"model/last": b"x"}
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content, data.draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])))
    assert read_whole(body.getvalue()) == files


@pytest.mark.slow
@settings(max_examples=400)
@given(st.sampled_from(["plain", "stored", "descriptors", "zip64-end", "zip64-sizes", "jar"]), st.data())
def test_a_changed_byte_is_refused_or_changes_no_content(name: str, data: st.DataObject) -> None:
    odd = ODD[name]
    changed = bytearray(odd.data)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = read_whole(bytes(changed))
    except ArchiveRefusedError:
        return
    assert sorted(found.values()) == sorted(odd.files.values()), "names may have changed, CRC-32 covers what they hold"


@given(st.binary(max_size=400), st.sampled_from([b"", b"PK\x03\x04", VALID]))
def test_any_bytes_are_refused_by_nothing_but_a_refusal(garbage: bytes, start: bytes) -> None:
    with pytest.raises(ArchiveRefusedError):
        read_whole(start + garbage + b"!")


def test_the_limits_are_the_callers() -> None:
    zeros = Member(b"model/zeros", bytes(110_000_000))
    data = build([*list_members(), alter(zeros, data=deflate(zeros.content))])

    def refuse(limits: ArchiveLimits) -> tuple[str, str]:
        with pytest.raises(ArchiveRefusedError) as refused:
            read_whole(data, limits)
        return refused.value.reason, refused.value.detail

    reason, detail = refuse(ArchiveLimits(3, 10**9, 10**9, 1032))
    assert (reason, "4 entries; the limit is 3 (ArchiveMaxEntries)" in detail) == (Refusal.TOO_MANY_ENTRIES, True)
    reason, detail = refuse(ArchiveLimits(4, 109_999_999, 10**9, 1032))
    assert (reason, "109,999,999 (ArchiveMaxEntryBytes)" in detail) == (Refusal.TOO_LARGE, True)
    reason, detail = refuse(ArchiveLimits(4, 10**9, 110_000_000, 1032))
    assert (reason, "110,000,000 (ArchiveMaxTotalBytes)" in detail) == (Refusal.TOO_LARGE, True)
    reason, detail = refuse(ArchiveLimits(4, 10**9, 10**9, 900))
    assert (reason, "the limit is 900:1 (ArchiveMaxRatio). Store the content without compression" in detail) == (
        Refusal.BOMB,
        True,
    )
    assert ArchiveReader(open_memory(data), len(data), ArchiveLimits(4, 110_000_000, 110_010_000, 1032)).entries


@pytest.mark.slow
def test_requests_do_not_grow_with_small_entries() -> None:
    """The directory by one or two, local headers of neighbours together, each file by one."""
    data = ODD["entries-65536"].data
    asked: Counter[str] = Counter()

    def open_range(start: int, end: int) -> ByteStream:
        asked["requests"] += 1
        asked["bytes"] += end - start
        return MemoryStream(data, start, end)

    reader = ArchiveReader(open_range, len(data), LIMITS)
    assert len(reader.entries) == 65_536
    assert asked["requests"] == 2, "the directory is larger than the tail"
    reader.check_local_headers()
    assert asked["requests"] <= 3 + math.ceil(len(data) / (4 * 1024 * 1024))
    asked.clear()
    some = list(reader.files)[100:110]
    for entry in some:
        assert reader.read_entry(entry)
    assert asked["requests"] == len(some)


def test_ten_thousand_entries_are_listed_by_one_request() -> None:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        for number in range(10_000):
            archive.writestr(f"model/data/{number % 100:02d}/part-{number:06d}.json", b"{}" * 200)
    data = body.getvalue()
    asked: list[int] = []

    def open_range(start: int, end: int) -> ByteStream:
        asked.append(end - start)
        return MemoryStream(data, start, end)

    assert len(ArchiveReader(open_range, len(data), LIMITS).entries) == 10_000
    assert len(asked) == 1
    assert asked[0] < len(data) / 2


def test_large_entries_are_not_read_for_their_headers() -> None:
    data = build([Member(b"model/%d" % n, bytes(3_000_000), 0) for n in range(4)])
    asked: Counter[str] = Counter()

    def open_range(start: int, end: int) -> ByteStream:
        asked["bytes"] += end - start
        return MemoryStream(data, start, end)

    ArchiveReader(open_range, len(data), LIMITS).check_local_headers()
    assert asked["bytes"] < 2 * 1024 * 1024


def test_a_header_longer_than_foreseen_is_read_again() -> None:
    extra = b"\xfe\xca\xf8\xff" + bytes(0xFFF8)
    data = build([Member(b"model/x", b"content", local_extra=extra), *list_members()])
    assert read_whole(data)["model/x"] == b"content"
