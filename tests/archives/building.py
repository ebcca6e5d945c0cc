"""Build ZIP archives byte by byte, so that any single field can be wrong."""

import io
import json
import struct
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

UTF8 = 0x800
DESCRIPTOR = 0x8
LOCAL_SIZE = 30  # bytes of a local header before the name


def make_model_files(seed: int = 1) -> dict[str, bytes]:
    """Return the files of a tiny valid model with one float32 tensor in safetensors."""
    values = struct.pack("<256f", *((seed * 7919 + n) % 997 / 997 for n in range(256)))
    header = json.dumps({"weight": {"dtype": "F32", "shape": [16, 16], "data_offsets": [0, len(values)]}}).encode()
    header += b" " * (-len(header) % 8)
    return {
        "config.json": json.dumps({"model_type": "bert", "seed": seed}).encode(),
        "tokenizer.json": json.dumps({"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0}}}).encode(),
        "model.safetensors": struct.pack("<Q", len(header)) + header + values,
    }


def deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return compressor.compress(data) + compressor.flush()


@dataclass(frozen=True)
class Member:
    """One entry. A field that is None has its correct value. `local` has values of the local header only."""

    name: bytes
    content: bytes = b""
    method: int = 8
    flags: int = 0
    crc32: int | None = None
    size: int | None = None
    compressed_size: int | None = None
    data: bytes | None = None
    extra: bytes = b""
    local_extra: bytes | None = None
    attributes: int = 0o100644 << 16
    host: int = 3
    version: int = 20
    comment: bytes = b""
    descriptor: bytes = b""
    offset: int | None = None
    after: bytes = b""
    local: dict[str, int | bytes] = field(default_factory=dict)

    def encode_data(self) -> bytes:
        if self.data is not None:
            return self.data
        return deflate(self.content) if self.method == 8 else self.content

    def list_fields(self) -> dict[str, int]:
        return {
            "crc32": zlib.crc32(self.content) if self.crc32 is None else self.crc32,
            "compressed_size": len(self.encode_data()) if self.compressed_size is None else self.compressed_size,
            "size": len(self.content) if self.size is None else self.size,
        }

    def encode_local(self) -> bytes:
        fields = {
            "name": self.name, "flags": self.flags, "method": self.method, "version": self.version,
            **self.list_fields(), **self.local,
        }  # fmt: skip
        extra = self.extra if self.local_extra is None else self.local_extra
        name = fields["name"]
        assert isinstance(name, bytes)
        header = struct.pack(
            "<4s5H3L2H", b"PK\x03\x04", fields["version"], fields["flags"], fields["method"], 0, 0x21, fields["crc32"],
            fields["compressed_size"], fields["size"], len(name), len(extra),
        )  # fmt: skip
        return header + name + extra + self.encode_data() + self.descriptor + self.after

    def encode_central(self, offset: int) -> bytes:
        fields = self.list_fields()
        header = struct.pack(
            "<4s4B4H3L5H2L", b"PK\x01\x02", 20, self.host, self.version, 0, self.flags, self.method, 0, 0x21,
            fields["crc32"], fields["compressed_size"], fields["size"], len(self.name), len(self.extra),
            len(self.comment), 0, 0, self.attributes, offset if self.offset is None else self.offset,
        )  # fmt: skip
        return header + self.name + self.extra + self.comment


def list_members(directory: str = "model", *, method: int = 8, seed: int = 1) -> list[Member]:
    """Return the entries of a valid model in a directory."""
    return [Member(f"{directory}/{path}".encode(), content, method) for path, content in make_model_files(seed).items()]


def build(
    members: list[Member],
    *,
    prefix: bytes = b"",
    between: bytes = b"",
    comment: bytes = b"",
    entries: int | None = None,
    size: int | None = None,
    offset: int | None = None,
    disk: int = 0,
    zip64: bytes | None = None,
) -> bytes:
    """Build an archive. `between`: bytes between the directory and the end record. `zip64`: the zip64 end records."""
    body = bytearray(prefix)
    central = bytearray()
    for member in members:
        central += member.encode_central(len(body) - len(prefix))
        body += member.encode_local()
    start = len(body)
    count = min(len(members), 0xFFFF) if entries is None else entries
    end = struct.pack(
        "<4s4H2LH", b"PK\x05\x06", disk, disk, count, count, len(central) if size is None else size,
        start if offset is None else offset, len(comment),
    )  # fmt: skip
    return bytes(body + central) + between + (zip64 or b"") + end + comment


def make_zip64_end(position: int, count: int, size: int, offset: int, *, disks: int = 1) -> bytes:
    """Return the zip64 end record for `position` and its locator."""
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, offset)
    return record + struct.pack("<4sLQL", b"PK\x06\x07", 0, position, disks)


def build_zip64(members: list[Member], *, shift: int = 0, count: int | None = None) -> bytes:
    """Build an archive with zip64 end records, and with all ones in its end record.

    `shift` is added to the position of the records. `count` is a wrong number of entries.
    """
    plain = build(members)
    end = plain.rindex(b"PK\x05\x06")
    size, offset = struct.unpack_from("<2L", plain, end + 12)
    number = len(members) if count is None else count
    return build(
        members,
        entries=0xFFFF,
        size=0xFFFFFFFF,
        offset=0xFFFFFFFF,
        zip64=make_zip64_end(end + shift, number, size, offset),
    )


def make_zip64_extra(*values: int) -> bytes:
    return struct.pack(f"<HH{len(values)}Q", 1, 8 * len(values), *values)


def make_unicode_extra(raw_name: bytes, name: str) -> bytes:
    body = b"\1" + struct.pack("<L", zlib.crc32(raw_name)) + name.encode()
    return struct.pack("<HH", 0x7075, len(body)) + body


def make_extra(kind: int, body: bytes) -> bytes:
    """Return an extra field (APPNOTE 4.5.1)."""
    return struct.pack("<HH", kind, len(body)) + body


def add_descriptor(
    member: Member,
    signature: bytes = b"PK\x07\x08",
    layout: str = "<3L",
    wrong: Mapping[str, int] = MappingProxyType({}),
) -> Member:
    """Return the member with zeros in its local header and a data descriptor. `wrong`: wrong values in it."""
    values = {**member.list_fields(), **wrong}
    zeros = {"crc32": 0, "compressed_size": 0, "size": 0}
    return alter(
        member,
        flags=member.flags | DESCRIPTOR,
        descriptor=signature + struct.pack(layout, values["crc32"], values["compressed_size"], values["size"]),
        local=zeros,
    )


def turn_slashes(members: list[Member], *, host: int = 0) -> list[Member]:
    """Return the members with backslashes in their names and without attributes, as .NET Framework writes them."""
    return [alter(m, name=m.name.replace(b"/", b"\\"), attributes=0, host=host) for m in members]


def make_tar_polyglot(name: bytes = b"model/weights.bin") -> bytes:
    """Return a ZIP archive that is also a tar archive of the file `hidden.pkl`, by the content of its first entry."""
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        hidden = tarfile.TarInfo("hidden.pkl")
        hidden.size = 6
        tar.addfile(hidden, io.BytesIO(b"hidden"))
    content = bytearray(body.getvalue()[LOCAL_SIZE + len(name) :])
    at = 148 - LOCAL_SIZE - len(name)  # of the checksum, which counts as spaces
    content[at : at + 8] = b" " * 8
    block = add_descriptor(Member(name, bytes(content), 0)).encode_local()[:512]
    content[at : at + 8] = b"%06o\0 " % sum(block)
    return build([add_descriptor(Member(name, bytes(content), 0)), *list_members()])


def make_iso_entry(before: list[Member], name: bytes = b"model/weights.bin") -> Member:
    """Return an entry after the others whose content has the identifier of an ISO 9660 image at its fixed offset."""
    start = sum(len(member.encode_local()) for member in before) + LOCAL_SIZE + len(name)
    return Member(name, bytes(32_768 - start) + b"\1CD001\1" + bytes(2041), 0)


def alter(member: Member, **changes: object) -> Member:
    return replace(member, **changes)  # type: ignore[arg-type]
