"""Archives that must be refused: each has one fault beside a valid model, and the expected reason of the refusal."""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from modelhaul.archives.entries import Refusal
from tests.archives.building import (
    DESCRIPTOR,
    UTF8,
    Member,
    add_descriptor,
    alter,
    build,
    build_zip64,
    deflate,
    list_members,
    make_extra,
    make_iso_entry,
    make_model_files,
    make_tar_polyglot,
    make_unicode_extra,
    make_zip64_end,
    make_zip64_extra,
    turn_slashes,
)
from tests.archives.odd import MADE

MIB = 1024 * 1024
MODEL = list_members()
VALID = build(MODEL)
WEIGHTS = make_model_files()["model.safetensors"]


@dataclass(frozen=True)
class HostileArchive:
    """`reason`: expected reason of the refusal. `entry`: name of the refused entry, if the refusal concerns one."""

    make: Callable[[], bytes]
    reason: str
    entry: str | None = None

    @property
    def data(self) -> bytes:
        return self.make()


def named(name: str | bytes, reason: Refusal, *, shown: str | None = None, **fields: object) -> HostileArchive:
    """Return the model with an entry of that name."""
    raw = name if isinstance(name, bytes) else name.encode()
    flags = UTF8 if not raw.isascii() else 0
    member = alter(Member(raw, b"content", flags=flags), **fields)
    entry = shown if shown is not None else raw.decode()
    return HostileArchive(lambda: build([*MODEL, member]), reason, entry)


def pair(one: str, other: str, *, shown: str | None = None) -> HostileArchive:
    members = [Member(name.encode(), b"" if name.endswith("/") else b"x", flags=UTF8) for name in (one, other)]
    return HostileArchive(lambda: build([*MODEL, *members]), Refusal.COLLISION, shown or other)


def changed(reason: Refusal, *, of: Member = MODEL[-1], **fields: object) -> HostileArchive:
    """Return the model with changes to its last entry."""
    member = alter(of, **fields)
    return HostileArchive(lambda: build([*MODEL[:-1], member]), reason, member.name.decode())


def beside(reason: Refusal, *members: Member, entry: str) -> HostileArchive:
    return HostileArchive(lambda: build([*MODEL, *members]), reason, entry)


def described(**wrong: int) -> HostileArchive:
    """Return the model with wrong values in a data descriptor."""
    members = [*MODEL[:-1], add_descriptor(MODEL[-1], wrong=wrong)]
    return HostileArchive(lambda: build(members), Refusal.HEADER_MISMATCH, members[-1].name.decode())


def whole(reason: Refusal, make: Callable[[], bytes], entry: str | None = None) -> HostileArchive:
    return HostileArchive(make, reason, entry)


def _overlap_directory() -> bytes:
    """Build an entry whose sizes extend into the directory."""
    last = MODEL[-1]
    return build([*MODEL[:-1], alter(last, method=0, size=len(WEIGHTS) + 10, compressed_size=len(WEIGHTS) + 10)])


def _share_data() -> bytes:
    """Build two central entries for one local header, as in a bomb of overlapping files."""
    return build([*MODEL, Member(b"model/again.bin", WEIGHTS, data=b"", offset=0, compressed_size=5)])


def _quote_entry() -> bytes:
    """Build an entry whose data has the local header of another entry of the directory (Fifield's bomb)."""
    inner = Member(b"model/inner.bin", b"inner", 0).encode_local()
    outer = Member(b"model/outer.bin", inner, 0)
    at = len(build([])) and sum(len(m.encode_local()) for m in MODEL) + 30 + len(outer.name)
    return build([*MODEL, outer, Member(b"model/inner.bin", b"inner", 0, data=b"", compressed_size=5, offset=at)])


def _misplace(member: Member) -> bytes:
    return build([*MODEL[:-1], alter(member, offset=1)])


def _store_many_ends() -> bytes:
    ends = b"".join(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, 1, n, 0) for n in range(40))
    return build([Member(b"model/first", bytes(2_000_000), 0), *MODEL, Member(b"model/last", ends, 0)])


_BOMB = deflate(bytes(101 * MIB))
_ZEROS = deflate(bytes(MIB))
_CAFE = make_unicode_extra(b"model/caf\x82", "model/café")
_ASI = struct.pack("<HLHH", 0o120777, 0, 0, 0)
_ASI_LINK = make_extra(0x756E, struct.pack("<L", zlib.crc32(_ASI)) + _ASI)
LAST = "model/model.safetensors"
LIAR = b"model/liar.bin"

HOSTILE: dict[str, HostileArchive] = {
    # Paths
    "parent": named("../escape", Refusal.PATH_ESCAPE),
    "parent-inside": named("model/../../escape", Refusal.PATH_ESCAPE),
    "dot": named("model/./file", Refusal.PATH_ESCAPE),
    "empty-segment": named("model//file", Refusal.PATH_ESCAPE),
    "absolute": named("/etc/passwd", Refusal.PATH_ESCAPE),
    "drive": named("C:/windows/file", Refusal.PATH_ESCAPE),
    "drive-relative": named("c:file", Refusal.PATH_ESCAPE),
    "backslash": named("model\\..\\file", Refusal.PATH_ESCAPE),
    "control": named("model/a\nb", Refusal.UNFIT_NAME),
    "escape-sequence": named("model/\x1b[2J", Refusal.UNFIT_NAME),
    "delete-character": named("model/a\x7f", Refusal.UNFIT_NAME),
    "nul": named(b"model/file.txt\0.exe", Refusal.UNFIT_NAME),
    "empty-name": named("", Refusal.PATH_ESCAPE),
    "windows-device": named("model/con", Refusal.UNFIT_NAME),
    "windows-device-suffix": named("model/NUL.txt", Refusal.UNFIT_NAME),
    "windows-port": named("model/com1.bin", Refusal.UNFIT_NAME),
    "trailing-dot": named("model/file.", Refusal.UNFIT_NAME),
    "trailing-space": named("model/dir /file", Refusal.UNFIT_NAME),
    "alternate-stream": named("model/file:stream", Refusal.UNFIT_NAME),
    "vms-version": named("model/file;1", Refusal.UNFIT_NAME),
    "vms-version-without-number": named("model/file;", Refusal.UNFIT_NAME),
    "long-name": named("model/" + "x" * 900, Refusal.UNFIT_NAME),
    "junk-escape": named("__MACOSX/../../._x", Refusal.PATH_ESCAPE),
    # Collisions
    "twice": pair("model/twice", "model/twice"),
    "case": pair("model/Case", "model/case"),
    "normalization": pair("model/é", "model/e\u0301"),
    "case-and-normalization": pair("model/É", "model/e\u0301"),
    "replaced-on-windows": pair("model/a?b", "model/a*b"),
    "sharp-s": pair("model/straße", "model/STRASSE"),
    "file-and-directory": pair("model/x", "model/x/y", shown="model/x"),
    "file-and-directory-entry": pair("model/x/", "model/x", shown="model/x"),
    "file-above-model": pair("model", "other/x", shown="model"),
    # Links and devices
    "symlink": named("model/link", Refusal.SPECIAL_FILE, attributes=0o120777 << 16),
    "symlinks-of-a-cache": whole(
        Refusal.SPECIAL_FILE, (MADE / "symlinks.zip").read_bytes, "model/snapshots/tokenizer.json"
    ),
    "symlink-macos": named("model/link", Refusal.SPECIAL_FILE, attributes=0o120777 << 16, host=19),
    "block-device": named("model/disk", Refusal.SPECIAL_FILE, attributes=0o060644 << 16),
    "character-device": named("model/tty", Refusal.SPECIAL_FILE, attributes=0o020644 << 16),
    "symlink-of-fat": named("model/link", Refusal.SPECIAL_FILE, attributes=0o120777 << 16, host=0),
    "symlink-of-ntfs": named("model/link", Refusal.SPECIAL_FILE, attributes=0o120777 << 16, host=11),
    "reparse-point": named("model/link", Refusal.SPECIAL_FILE, attributes=0x420, host=0),
    "volume-label": named("model/label", Refusal.SPECIAL_FILE, attributes=0x8, host=0),
    "device-of-windows": named("model/device", Refusal.SPECIAL_FILE, attributes=0x40, host=0),
    "directory-mode": named("model/file", Refusal.SPECIAL_FILE, attributes=0o40755 << 16),
    "directory-mode-of-fat": named("model/file", Refusal.SPECIAL_FILE, attributes=0o40755 << 16, host=0),
    "directory-attribute": named("model/file", Refusal.SPECIAL_FILE, attributes=0x10, host=0),
    "directory-attribute-of-unix": named("model/file", Refusal.SPECIAL_FILE, attributes=0o100644 << 16 | 0x10),
    "amiga": named("model/file", Refusal.SPECIAL_FILE, host=1),
    "unknown-host": named("model/file", Refusal.SPECIAL_FILE, host=99),
    "socket": named("model/socket", Refusal.SPECIAL_FILE, attributes=0o140644 << 16),
    # Names
    "same-in-unzip": beside(
        Refusal.COLLISION,
        Member("model/ð".encode(), b"x", flags=UTF8, host=0),
        Member("model/ñ".encode(), b"y", flags=UTF8, host=0),
        entry="model/ñ",
    ),
    "unmarked-gbk": named("model/模型".encode("gbk"), Refusal.NAME_ENCODING, flags=0, shown="model/ģ\\xd0\\xcd"),
    "unmarked-shift-jis": named(b"model/\x83\x82", Refusal.NAME_ENCODING, flags=0, shown="model/\\x83\\x82"),
    "unmarked-as-marked": beside(
        Refusal.COLLISION,
        Member("model/é".encode(), b"x"),
        Member("model/├⌐".encode(), b"y", flags=UTF8),
        entry="model/├⌐",
    ),
    "unmarked-exchanged": beside(
        Refusal.COLLISION, Member("model/é".encode(), b"x"), Member("model/├⌐".encode(), b"y"), entry="model/é"
    ),
    "unmarked-parent": beside(Refusal.PATH_ESCAPE, Member("é/../x".encode(), b"x"), entry="é/../x"),
    "marked-latin1": named(b"model/\xe9", Refusal.NAME_ENCODING, shown="model/\\xe9"),
    "overlong-utf8": named(b"model/\xc0\xae\xc0\xae/x", Refusal.NAME_ENCODING, shown="model/\\xc0\\xae\\xc0\\xae/x"),
    "surrogate": named(b"model/\xed\xa0\x80", Refusal.NAME_ENCODING, shown="model/\\xed\\xa0\\x80"),
    "two-names": named("model/a", Refusal.NAME_ENCODING, extra=make_unicode_extra(b"model/a", "model/b")),
    "unicode-name-of-another": named("model/a", Refusal.NAME_ENCODING, extra=make_unicode_extra(b"model/b", "model/a")),
    "unicode-name-twice": named("model/a", Refusal.NAME_ENCODING, extra=2 * make_unicode_extra(b"model/a", "model/a")),
    "unicode-name-empty": named("model/a", Refusal.NAME_ENCODING, extra=make_unicode_extra(b"model/a", "")),
    "unicode-name-in-the-local-header": changed(
        Refusal.NAME_ENCODING, local_extra=make_unicode_extra(b"model/model.safetensors", "model/other")
    ),
    "unicode-name-in-the-directory": named(
        b"model/caf\x82", Refusal.NAME_ENCODING, extra=_CAFE, local_extra=b"", flags=0, shown="model/café"
    ),
    "unicode-name-of-a-marked-name": named(
        "model/é", Refusal.NAME_ENCODING, extra=make_unicode_extra("model/é".encode(), "model/è")
    ),
    "unicode-name-in-another-directory": named(
        b"other/\x82",
        Refusal.NAME_ENCODING,
        extra=make_unicode_extra(b"other/\x82", "model/é"),
        flags=0,
        shown="other/\\x82",
    ),
    "unicode-name-of-an-escaped-name": beside(
        Refusal.COLLISION,
        Member(b"model/#U00e9", b"x", extra=make_unicode_extra(b"model/#U00e9", "model/é")),
        Member(b"model/#U00E9", b"y"),
        entry="model/#U00E9",
    ),
    "unicode-name-of-a-marked-escaped-name": named(
        "model/#U00e9", Refusal.NAME_ENCODING, extra=make_unicode_extra(b"model/#U00e9", "model/é"), flags=UTF8
    ),
    "unicode-name-hides-parent": named(
        b"..", Refusal.NAME_ENCODING, extra=make_unicode_extra(b"..", "é"), flags=0, shown=".."
    ),
    # Backslashes
    "backslashes-and-slashes": named("model\\file", Refusal.PATH_ESCAPE, host=0),
    "backslashes-of-unix": whole(Refusal.PATH_ESCAPE, lambda: build(turn_slashes(MODEL, host=3)), "model\\config.json"),
    "backslashes-with-parent": whole(
        Refusal.PATH_ESCAPE,
        lambda: build(turn_slashes([*MODEL, Member(b"model/../../x", b"x")])),
        "model/../../x",
    ),
    # Overlaps
    "shared-data": whole(Refusal.OVERLAP, _share_data, "model/config.json"),
    "quoted-entry": whole(Refusal.OVERLAP, _quote_entry, "model/outer.bin"),
    "into-directory": whole(Refusal.OVERLAP, _overlap_directory, "model/model.safetensors"),
    "offset-in-the-middle": whole(Refusal.OVERLAP, lambda: _misplace(MODEL[-1]), "model/config.json"),
    "hidden-between": changed(Refusal.HIDDEN_DATA, after=b"hidden"),
    "hidden-entry": changed(Refusal.HIDDEN_DATA, after=Member(b"model/hidden", b"x").encode_local()),
    "hidden-in-empty-content": named("model/x", Refusal.HIDDEN_DATA, data=deflate(b"") + bytes(100), content=b""),
    "hidden-after-deflate": changed(Refusal.HIDDEN_DATA, data=deflate(WEIGHTS) + b"hidden"),
    # Bombs
    "bomb": named(LIAR.decode(), Refusal.BOMB, data=_BOMB, size=101 * MIB, crc32=zlib.crc32(bytes(101 * MIB))),
    "bomb-that-lies": named(LIAR.decode(), Refusal.BOMB, data=_BOMB, size=1000),
    "impossible-ratio": named(LIAR.decode(), Refusal.BOMB, data=b"\3\0", size=MIB),
    "bomb-of-many": whole(
        Refusal.BOMB,
        lambda: build([*MODEL, *(Member(b"model/%d" % n, bytes(MIB), data=_ZEROS) for n in range(101))]),
    ),
    "larger-than-any": named(
        LIAR.decode(),
        Refusal.TOO_LARGE,
        data=bytes(5_000),
        size=0xFFFFFFFF,
        compressed_size=5_000,
        extra=make_zip64_extra(10**12),
    ),
    "too-many": whole(Refusal.TOO_MANY_ENTRIES, lambda: build_zip64(MODEL, count=100_001)),
    # The directory and the local headers
    "other-name": changed(Refusal.HEADER_MISMATCH, local={"name": b"model/model.safetensorz"}),
    "other-method": changed(Refusal.HEADER_MISMATCH, local={"method": 0}),
    "other-flags": changed(Refusal.HEADER_MISMATCH, local={"flags": UTF8}),
    "other-crc": changed(Refusal.HEADER_MISMATCH, local={"crc32": 1}),
    "other-size": changed(Refusal.HEADER_MISMATCH, local={"size": 1}),
    "other-compressed-size": changed(Refusal.HEADER_MISMATCH, local={"compressed_size": 1}),
    "descriptor-with-another-crc": changed(
        Refusal.HEADER_MISMATCH, flags=DESCRIPTOR, local={"crc32": 1}, descriptor=bytes(12)
    ),
    "no-local-header": whole(Refusal.HEADER_MISMATCH, lambda: b"XX" + VALID[2:], "model/config.json"),
    "stored-in-two-sizes": changed(Refusal.MALFORMED, method=0, data=WEIGHTS, size=len(WEIGHTS) - 1),
    "directory-with-content": named("model/dir/", Refusal.MALFORMED),
    "broken-extra": named("model/x", Refusal.MALFORMED, extra=b"\1\0\xff\xff1"),
    # Methods, flags and encryption
    "deflate64": named("model/x", Refusal.METHOD, method=9, data=b"x"),
    "bzip2": named("model/x", Refusal.METHOD, method=12, data=b"x"),
    "bzip2-by-zip": whole(Refusal.METHOD, (MADE / "bzip2.zip").read_bytes, "model/vocab.txt"),
    "zstandard": named("model/x", Refusal.METHOD, method=93, data=b"x"),
    "encrypted": named("model/x", Refusal.ENCRYPTED, flags=0x1),
    "strongly-encrypted": named("model/x", Refusal.ENCRYPTED, flags=0x41),
    "masked-headers": named("model/x", Refusal.ENCRYPTED, flags=0x2000),
    "patch-data": named("model/x", Refusal.METHOD, flags=0x20),
    "newer-version": named("model/x", Refusal.METHOD, version=46),
    "newer-version-in-the-local-header": changed(Refusal.METHOD, local={"version": 63}),
    # Extra fields
    "asi-unix-link": named("model/link", Refusal.EXTRA_FIELD, extra=_ASI_LINK, attributes=0),
    "libarchive-mode": changed(
        Refusal.EXTRA_FIELD, local_extra=make_extra(0x6C78, struct.pack("<BHL", 5, 0x0314, 0o40755 << 16))
    ),
    "mac-name": named("model/x", Refusal.EXTRA_FIELD, extra=make_extra(0x2605, b"ZPIT\1x")),
    "aes": named("model/x", Refusal.ENCRYPTED, extra=make_extra(0x9901, bytes(7))),
    "strong-encryption": named("model/x", Refusal.ENCRYPTED, extra=make_extra(0x17, bytes(8))),
    # Data descriptors
    "descriptor-crc": described(crc32=1),
    "descriptor-size": described(size=1),
    "descriptor-compressed-size": described(compressed_size=1),
    "descriptor-without-signature": whole(
        Refusal.HEADER_MISMATCH,
        lambda: build([add_descriptor(MODEL[0], b"", wrong={"size": 1}), *MODEL[1:]]),
        "model/config.json",
    ),
    "descriptor-signature": whole(
        Refusal.HEADER_MISMATCH, lambda: build([*MODEL[:-1], add_descriptor(MODEL[-1], b"PK\7\x09")]), LAST
    ),
    "descriptor-missing": changed(Refusal.HIDDEN_DATA, flags=DESCRIPTOR),
    "descriptor-of-32-bits-beside-zip64": whole(
        Refusal.HIDDEN_DATA,
        lambda: build([*MODEL[:-1], alter(add_descriptor(MODEL[-1]), local_extra=make_zip64_extra(0, 0))]),
        LAST,
    ),
    "descriptor-of-a-large-entry": whole(
        Refusal.HEADER_MISMATCH,
        lambda: build([add_descriptor(Member(b"model/large", bytes(300_000), 0), wrong={"crc32": 1}), *MODEL]),
        "model/large",
    ),
    "descriptor-of-the-last-large-entry": whole(
        Refusal.HEADER_MISMATCH,
        lambda: build([*MODEL, add_descriptor(Member(b"model/large", bytes(300_000), 0), wrong={"crc32": 1})]),
        "model/large",
    ),
    # Other formats
    "tar-too": whole(Refusal.AMBIGUOUS_FORMAT, make_tar_polyglot),
    "iso-too": whole(Refusal.AMBIGUOUS_FORMAT, lambda: build([*MODEL, make_iso_entry(MODEL)])),
    # Zip64
    "zip64-extra-missing": named("model/x", Refusal.ZIP64, size=0xFFFFFFFF),
    "zip64-extra-short": named("model/x", Refusal.ZIP64, size=0xFFFFFFFF, extra=b"\1\0\4\0abcd"),
    "zip64-extra-twice": named("model/x", Refusal.ZIP64, extra=2 * make_zip64_extra(7)),
    "zip64-end-missing": whole(Refusal.ZIP64, lambda: build(MODEL, offset=0xFFFFFFFF)),
    "zip64-end-misplaced": whole(Refusal.ZIP64, lambda: build_zip64(MODEL, shift=-1)),
    "zip64-end-cut": whole(Refusal.ZIP64, lambda: build(MODEL, zip64=make_zip64_end(0, 3, 1, 1)[56:])),
    "two-ends-disagree": whole(
        Refusal.ZIP64,
        lambda: build(MODEL, zip64=make_zip64_end(VALID.rindex(b"PK\5\6"), 2, *struct.unpack("<2L", VALID[-10:-2]))),
    ),
    "zip64-extra-disagrees": named("model/x", Refusal.ZIP64, extra=make_zip64_extra(8)),
    "zip64-extra-longer": named(
        "model/x", Refusal.ZIP64, size=0xFFFFFFFF, extra=make_extra(1, struct.pack("<QB", 7, 0))
    ),
    "several-disks": whole(Refusal.MULTIPLE_DISKS, lambda: build(MODEL, disk=1)),
    # Prepended, concatenated, cut
    "prepended": whole(Refusal.PREPENDED, lambda: _prepend(b"#!/bin/sh\n")),
    "gap-at-the-start": whole(Refusal.PREPENDED, lambda: _prepend_inside(b"hidden"), "model/config.json"),
    "between-directory-and-end": whole(Refusal.PREPENDED, lambda: build(MODEL, between=b"signed")),
    "concatenated": whole(Refusal.AMBIGUOUS_END, lambda: VALID + build(list_members("other"))),
    "appended": whole(Refusal.APPENDED, lambda: VALID + b"appended"),
    "two-ends": whole(
        Refusal.AMBIGUOUS_END, lambda: build(MODEL, comment=struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0, 0, 0, 0, 0))
    ),
    "second-end-in-the-comment": whole(Refusal.AMBIGUOUS_END, lambda: _hide_directory(fits=True)),
    "second-end-that-does-not-fit": whole(Refusal.AMBIGUOUS_END, lambda: _hide_directory(fits=False)),
    "end-signature-in-the-comment": whole(Refusal.AMBIGUOUS_END, lambda: build(MODEL, comment=b"PK\5\6")),
    "zip64-end-in-the-comment": whole(
        Refusal.AMBIGUOUS_END, lambda: build(MODEL, comment=make_zip64_end(0, 3, 1, 1) + bytes(22))
    ),
    "end-that-points-into-the-archive": whole(Refusal.AMBIGUOUS_END, lambda: _store_end(300)),
    "end-that-points-far-back": whole(Refusal.AMBIGUOUS_END, lambda: _store_end(2_000_000)),
    "end-of-nothing": whole(Refusal.AMBIGUOUS_END, lambda: build([*MODEL, Member(b"model/x", build([]), 0)])),
    "too-many-ends": whole(Refusal.AMBIGUOUS_END, _store_many_ends),
    "comment-too-long": whole(Refusal.APPENDED, lambda: build(MODEL, comment=b"c" * 16_342)),
    "padding-too-long": whole(Refusal.APPENDED, lambda: VALID + bytes(16_342)),
    "padding-with-content": whole(Refusal.APPENDED, lambda: VALID + bytes(100) + b"x" + bytes(100)),
    "directory-longer-than-declared": whole(Refusal.MALFORMED, lambda: build(MODEL, entries=2)),
    "directory-shorter-than-declared": whole(Refusal.MALFORMED, lambda: build(MODEL, entries=4)),
    "directory-after-the-end": whole(Refusal.TRUNCATED, lambda: build(MODEL, offset=len(VALID))),
    "cut-in-the-data": whole(Refusal.TRUNCATED, lambda: VALID[:200]),
    "cut-in-the-directory": whole(Refusal.TRUNCATED, lambda: VALID[:-60]),
    "cut-in-the-end": whole(Refusal.TRUNCATED, lambda: VALID[:-1]),
    # Content
    "wrong-crc-deflated": changed(Refusal.CRC_MISMATCH, crc32=1),
    "wrong-crc-stored": changed(Refusal.CRC_MISMATCH, method=0, crc32=1),
    "inflates-to-more": changed(Refusal.BOMB, size=len(WEIGHTS) - 1),
    "inflates-to-less": changed(Refusal.DAMAGED, size=len(WEIGHTS) + 1),
    "deflate-cut": changed(Refusal.DAMAGED, data=deflate(WEIGHTS)[:-3]),
    "deflate-garbage": changed(Refusal.DAMAGED, data=b"\xff" * 200),
    "deflate-empty": changed(Refusal.BOMB, data=b""),
    # Nothing
    "nothing": whole(Refusal.EMPTY, lambda: b""),
    "no-entries": whole(Refusal.EMPTY, lambda: build([])),
    "text": whole(Refusal.NOT_A_ZIP, lambda: b"this is not a ZIP archive"),
    "tar": whole(Refusal.NOT_A_ZIP, lambda: b"model/config.json".ljust(257, b"\0") + b"ustar\x0000" + bytes(1000)),
}


def _hide_directory(*, fits: bool) -> bytes:
    """Hide a second directory and its end record in the comment. `fits`: its comment ends at the end of the file."""
    other = Member(b"model/config.json", MODEL[0].content)
    start = len(VALID)
    directory = other.encode_central(0)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(directory), start, 0 if fits else 9)
    return build(MODEL, comment=directory + end)


def _store_end(filling: int) -> bytes:
    """Store an end record in the last entry, and the directory to which it points in the first entry."""
    hidden = Member(b"hidden", b"", 0).encode_central(0)
    first = Member(b"model/first", hidden + bytes(filling), 0)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(hidden), 30 + len(first.name), 0)
    return build([first, *MODEL, Member(b"model/last", end, 0)])


def _prepend(prefix: bytes) -> bytes:
    """Build a self-extracting archive, whose offsets count from the end of the program."""
    start = sum(len(member.encode_local()) for member in MODEL)
    return build(MODEL, prefix=prefix, offset=start)


def _prepend_inside(hidden: bytes) -> bytes:
    """Add bytes before the first entry, and adapt the offsets of the directory."""
    offset = len(hidden)
    members = []
    for member in MODEL:
        members.append(alter(member, offset=offset))
        offset += len(member.encode_local())
    return build(members, prefix=hidden)
