"""Generate random archives from a seed: unusual archives, and valid archives with changed fields."""

import random
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.archives.building import (
    UTF8,
    Member,
    add_descriptor,
    alter,
    build,
    build_zip64,
    deflate,
    make_extra,
    make_unicode_extra,
    make_zip64_extra,
    turn_slashes,
)

_NAMES = (
    b"m/a", b"m/b.bin", b"m/sub/c", b"m/d/", b"top", b"m/data.pkl", "m/é".encode(), "m/模型.txt".encode(), b"m\\x",
    b"m/x;1", b"m/A", b"m/first", "m/├⌐".encode(), "m/ð".encode(), "m/ñ".encode(), b"m/first/x", b"m/#U00e9", b"m/a?b",
    b"m/caf\x82", b"m/a ", b"__MACOSX/._a", b"m/-n", b"m/%41", b"m/x.lnk", b"m/~1",
)  # fmt: skip
_KINDS = (
    0x0001, 0x0007, 0x0008, 0x0009, 0x000A, 0x000C, 0x000D, 0x000E, 0x000F, 0x0014, 0x0015, 0x0016, 0x0017, 0x0018,
    0x0019, 0x0020, 0x0021, 0x0022, 0x0023, 0x0065, 0x0066, 0x07C8, 0x1986, 0x2605, 0x2705, 0x2805, 0x334D, 0x4154,
    0x4341, 0x4453, 0x4690, 0x4704, 0x470F, 0x4B46, 0x4C41, 0x4D49, 0x4D63, 0x4F4C, 0x5356, 0x5455, 0x554E, 0x5855,
    0x6375, 0x6542, 0x6854, 0x6C78, 0x7075, 0x7441, 0x756E, 0x7855, 0x7875, 0x9901, 0x9902, 0xA11E, 0xA220, 0xCAFE,
    0xD935, 0xFB4A, 0xFD4A,
)  # fmt: skip
_MODES = (0, 0o010644, 0o020644, 0o040755, 0o060644, 0o100644, 0o100755, 0o104755, 0o120777, 0o140755, 0o160000, 0o777)
_SIGNATURES = (b"PK\1\2", b"PK\3\4", b"PK\5\5", b"PK\5\6", b"PK\6\6", b"PK\6\7", b"PK\6\x08", b"PK\7\x08", b"PK00")


def generate_archive(chance: random.Random, valid: Sequence[bytes]) -> bytes:
    """Generate one archive. `valid`: archives whose fields may be changed."""
    if chance.random() < 0.5:
        return _build_odd(chance)
    return _change_fields(chance, chance.choice(valid))


def _build_odd(chance: random.Random) -> bytes:
    members = [Member(b"m/first", b"first")]
    for name in chance.sample(_NAMES, chance.randint(1, 3)):
        content = b"" if name.endswith(b"/") else chance.choice([b"", b"x", b"content" * 9, chance.randbytes(40)])
        member = Member(name, content, chance.choice([0, 8]))
        for oddity in chance.choices(_ODDITIES, k=chance.choice([0, 1, 1, 2])):
            member = oddity(chance, member)
        members.append(member)
    if chance.random() < 0.1:
        members = turn_slashes(members, host=chance.choice([0, 0, 0, 3, 11]))
    if chance.random() < 0.1:
        chance.shuffle(members)
    data = build_zip64(members) if chance.random() < 0.1 else build(members, comment=_make_comment(chance))
    return _surround(chance, data) if chance.random() < 0.15 else data


def _make_comment(chance: random.Random) -> bytes:
    if chance.random() < 0.8:
        return b""
    size = chance.choice([0, 1, 18, 40, 300, 16_000, 20_000])
    return chance.choice(_SIGNATURES) + chance.choice([bytes(size), chance.randbytes(size)])


def _surround(chance: random.Random, data: bytes) -> bytes:
    filling = chance.choice([bytes(1), bytes(300), bytes(9_000), b"x", b"PK00", b"\r\n", data])
    return chance.choice([data + filling, filling + data, data[:-1], data[: -chance.randint(1, 60)]])


def _change_attributes(chance: random.Random, member: Member) -> Member:
    attributes = chance.choice(_MODES) << 16 | chance.choice([0, 1 << chance.randrange(16), chance.randrange(1 << 16)])
    return alter(member, attributes=attributes, host=chance.choice([0, 0, 3, 3, 10, 11, 14, 19, chance.randrange(256)]))


def _change_host(chance: random.Random, member: Member) -> Member:
    return alter(
        member, host=chance.choice([0, 3, 10, 11, 14, 19]), attributes=chance.choice([0, 0x20, 0o100644 << 16])
    )


def _change_version(chance: random.Random, member: Member) -> Member:
    version = chance.choice([0, 10, 20, 45, 46, 51, 63, 99])
    return alter(member, version=version, local={**member.local, "version": chance.choice([version, 20])})


def _mark_utf8(chance: random.Random, member: Member) -> Member:
    return alter(member, flags=member.flags | UTF8)


def _change_flags(chance: random.Random, member: Member) -> Member:
    return alter(member, flags=member.flags | 1 << chance.randrange(16))


def _add_extra(chance: random.Random, member: Member) -> Member:
    kind = chance.choice([chance.choice(_KINDS), chance.randrange(1 << 16)])
    size = chance.choice([0, 1, 4, 5, 8, 12, 16, 24, 28, 40])
    mode = struct.pack("<LHLHH", 0, chance.choice(_MODES), 0, 0, 0)
    body = chance.choice([bytes(size), chance.randbytes(size), mode, b"\1" + bytes(4) + b"m/other"])
    field = make_extra(kind, body)
    changes = chance.choice([{"extra": field}, {"extra": field, "local_extra": b""}, {"local_extra": field}])
    return alter(member, **changes)


def _add_mode(chance: random.Random, member: Member) -> Member:
    """Add a mode in an extra field that some readers use instead of the attributes."""
    body = struct.pack("<HLHH", chance.choice(_MODES), 0, 0, 0)
    asi = make_extra(0x756E, struct.pack("<L", zlib.crc32(body)) + body)
    libarchive = make_extra(0x6C78, struct.pack("<BHL", 5, 0x0314, chance.choice(_MODES) << 16))
    field = chance.choice([asi, libarchive])
    return alter(
        member, extra=field, local_extra=chance.choice([field, b""]), attributes=chance.choice([0, 0o100644 << 16])
    )


def _add_unicode_path(chance: random.Random, member: Member) -> Member:
    other = chance.choice(["m/é", "m/other", "top", "", member.name.decode("utf-8", "replace")])
    field = make_unicode_extra(chance.choice([member.name, b"m/a"]), other)
    return alter(member, extra=chance.choice([field, b""]), local_extra=chance.choice([field, b""]))


def _add_zip64(chance: random.Random, member: Member) -> Member:
    fields = member.list_fields()
    values = (fields["size"], fields["compressed_size"], 0)[: chance.randint(1, 3)]
    field = make_zip64_extra(*(value + chance.choice([0, 0, 0, 1]) for value in values))
    if chance.random() < 0.3:
        return alter(member, extra=field, local_extra=chance.choice([field, b""]))
    ones = {"size": 0xFFFFFFFF, **({"compressed_size": 0xFFFFFFFF} if len(values) > 1 else {})}
    kept = {"data": member.encode_data(), "crc32": fields["crc32"]}
    return alter(member, extra=field, **kept, **ones, local={**member.local, **fields} if chance.random() < 0.3 else {})


def _add_descriptor(chance: random.Random, member: Member) -> Member:
    signature = chance.choice([b"PK\7\x08", b"PK\7\x08", b"", b"PK\7\x09"])
    layout = chance.choice(["<3L", "<3L", "<LQQ"])
    wrong = chance.choice([{}, {}, {"crc32": 1}, {"size": 1}, {"compressed_size": 1}])
    described = add_descriptor(member, signature, layout, wrong)
    if chance.random() < 0.3:
        described = alter(described, local_extra=make_zip64_extra(0, 0))
    return alter(described, local={}) if chance.random() < 0.2 else described


def _quote_descriptor(chance: random.Random, member: Member) -> Member:
    """Make content that has the signature of a data descriptor, at which some readers may stop."""
    start = b"start"
    quoted = struct.pack("<4s3L", b"PK\7\x08", zlib.crc32(start), len(start), len(start))
    return add_descriptor(
        alter(member, content=start + quoted + Member(b"m/hidden", b"hidden", 0).encode_local(), method=0)
    )


def _quote_archive(chance: random.Random, member: Member) -> Member:
    inner = build([Member(b"m/inner", b"inner", 0)], comment=chance.choice([b"", bytes(9)]))
    return alter(member, content=inner, method=0)


def _change_local(chance: random.Random, member: Member) -> Member:
    field = chance.choice(["crc32", "size", "compressed_size", "flags", "method"])
    return alter(member, local={**member.local, field: chance.choice([0, 1, 8, 0xFFFF])})


def _change_data(chance: random.Random, member: Member) -> Member:
    data = bytearray(member.encode_data())
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return alter(member, data=bytes(data) + chance.choice([b"", b"", b"\0", b"\3\0"]))


def _empty_deflate(chance: random.Random, member: Member) -> Member:
    return alter(member, content=b"", method=8, data=chance.choice([b"\3\0", b"\1\0\0\xff\xff", deflate(b"x"), b""]))


def _add_comment(chance: random.Random, member: Member) -> Member:
    return alter(member, comment=chance.choice(_SIGNATURES) + bytes(chance.choice([0, 18, 60])))


def _add_rest(chance: random.Random, member: Member) -> Member:
    return alter(member, after=chance.choice([bytes(1), bytes(12), b"PK\7\x08" + bytes(12)]))


def _change_offset(chance: random.Random, member: Member) -> Member:
    return alter(member, offset=chance.choice([0, 1, 37, 0xFFFFFFFF]))


_ODDITIES: tuple[Callable[[random.Random, Member], Member], ...] = (
    _change_attributes, _change_attributes, _change_attributes, _change_host, _change_version, _mark_utf8, _mark_utf8,
    _change_flags, _add_extra, _add_extra, _add_extra, _add_mode, _add_unicode_path, _add_zip64, _add_descriptor,
    _quote_descriptor, _quote_archive, _change_local, _change_data, _empty_deflate, _add_comment, _add_rest,
    _change_offset,
)  # fmt: skip


@dataclass(frozen=True)
class _Record:
    """A header. `fields`: the positions and sizes in bytes of its fields, name, extra fields and comment."""

    start: int
    end: int
    fields: dict[str, tuple[int, int]]


_CENTRAL = {
    "made by": (4, 1), "host": (5, 1), "version": (6, 2), "flags": (8, 2), "method": (10, 2), "time": (12, 2),
    "date": (14, 2), "crc32": (16, 4), "compressed": (20, 4), "size": (24, 4), "name size": (28, 2),
    "extra size": (30, 2), "comment size": (32, 2), "disk": (34, 2), "internal": (36, 2), "attributes": (38, 2),
    "mode": (40, 2), "offset": (42, 4),
}  # fmt: skip
_LOCAL = {
    "signature": (0, 4), "version": (4, 2), "flags": (6, 2), "method": (8, 2), "time": (10, 2), "date": (12, 2),
    "crc32": (14, 4), "compressed": (18, 4), "size": (22, 4), "name size": (26, 2), "extra size": (28, 2),
}  # fmt: skip
_END = {
    "disk": (4, 2), "first disk": (6, 2), "here": (8, 2), "total": (10, 2), "directory size": (12, 4),
    "directory offset": (16, 4), "comment size": (20, 2),
}  # fmt: skip


def _find_records(data: bytes) -> tuple[list[tuple[_Record, _Record]], _Record]:
    """Return (central record, local header) of each entry of a valid archive without zip64, and its end record."""
    end = data.rindex(b"PK\5\6")
    count, _, position = struct.unpack_from("<H2L", data, end + 10)
    pairs = []
    for _ in range(count):
        name, extra, comment = struct.unpack_from("<3H", data, position + 28)
        offset = struct.unpack_from("<L", data, position + 42)[0]
        pairs.append((_place(position, 46, _CENTRAL, name, extra, comment), _find_local(data, offset)))
        position += 46 + name + extra + comment
    return pairs, _place(end, 22, _END, 0, 0, 0)


def _find_local(data: bytes, offset: int) -> _Record:
    name, extra = struct.unpack_from("<2H", data, offset + 26)
    return _place(offset, 30, _LOCAL, name, extra, 0)


def _place(start: int, size: int, fields: dict[str, tuple[int, int]], name: int, extra: int, comment: int) -> _Record:
    placed = {key: (start + at, length) for key, (at, length) in fields.items()}
    placed |= {"name": (start + size, name), "extra": (start + size + name, extra)}
    placed["comment"] = (start + size + name + extra, comment)
    end = start + size + name + extra + comment
    return _Record(start, end, {key: place for key, place in placed.items() if place[1]})


def _change_fields(chance: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    pairs, end = _find_records(data)
    for _ in range(chance.choice([1, 1, 1, 2])):
        central, local = chance.choice(pairs)
        how = chance.random()
        if how < 0.5:
            _change_both(chance, changed, central, local)
        elif how < 0.9:
            record = chance.choice([central, local, end])
            _change_field(chance, changed, record.fields[chance.choice(list(record.fields))])
        else:
            changed[chance.randrange(len(changed))] = chance.randrange(256)
    if chance.random() < 0.1:
        return _move_record(chance, bytes(changed), pairs, end)
    return _surround(chance, bytes(changed)) if chance.random() < 0.1 else bytes(changed)


def _change_both(chance: random.Random, data: bytearray, central: _Record, local: _Record) -> None:
    """Change a field in both headers of an entry in the same way."""
    shared = [key for key in central.fields if local.fields.get(key, (0, 0))[1] == central.fields[key][1]]
    key = chance.choice(shared)
    at, size = central.fields[key]
    _change_field(chance, data, (at, size))
    other = local.fields[key][0]
    data[other : other + size] = data[at : at + size]


def _change_field(chance: random.Random, data: bytearray, place: tuple[int, int]) -> None:
    at, size = place
    value = int.from_bytes(data[at : at + size], "little")
    most = (1 << 8 * size) - 1
    choices = [0, 1, most, value ^ (1 << chance.randrange(8 * size)), value ^ (1 << chance.randrange(8 * size))]
    choices += [value + 1 & most, value - 1 & most, chance.randrange(most + 1)]
    data[at : at + size] = chance.choice(choices).to_bytes(size, "little")


def _move_record(chance: random.Random, data: bytes, pairs: list[tuple[_Record, _Record]], end: _Record) -> bytes:
    """Copy a record before or after a different record. Sometimes the end record is adapted to the copy."""
    records = [record for pair in pairs for record in pair] + [end]
    record, other = chance.choice(records), chance.choice(records)
    copied = data[record.start : record.end]
    at = chance.choice([other.start, other.end])
    moved = bytearray(data[:at] + copied + data[at:])
    if chance.random() < 0.5 and at <= end.start:
        place = end.start + len(copied)
        size, offset = struct.unpack_from("<2L", moved, place + 12)
        grown = (size + len(copied), offset) if at > offset else (size, offset + len(copied))
        struct.pack_into("<2L", moved, place + 12, *(value & 0xFFFFFFFF for value in grown))
        if chance.random() < 0.5 and moved[at : at + 4] == b"PK\1\2":
            here = struct.unpack_from("<H", moved, place + 8)[0] + 1 & 0xFFFF
            struct.pack_into("<2H", moved, place + 8, here, here)
    return bytes(moved)
