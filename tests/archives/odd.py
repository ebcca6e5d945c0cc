"""Archives that are valid but unusual, and their files."""

import io
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.archives.building import (
    UTF8,
    Member,
    add_descriptor,
    alter,
    build,
    build_zip64,
    list_members,
    make_extra,
    make_model_files,
    make_unicode_extra,
    make_zip64_extra,
    turn_slashes,
)

MODEL = list_members()
FILES = {f"model/{path}": content for path, content in make_model_files().items()}
MADE = Path(__file__).parent / "made"
_MADE_FILES = FILES | {"model/sub/empty.txt": b""}
_ALL_MADE_FILES = _MADE_FILES | {"model/vocabulaire é/ü.txt": b"x"}


@dataclass(frozen=True)
class OddArchive:
    """`files`: its files, without the metadata that operating systems add."""

    make: Callable[[], bytes]
    files: dict[str, bytes]

    @property
    def data(self) -> bytes:
        return self.make()


def beside(*members: Member, files: dict[str, bytes] | None = None) -> OddArchive:
    return OddArchive(lambda: build([*MODEL, *members]), FILES | (files or {}))


def described(signature: bytes, layout: str, local_extra: bytes = b"") -> OddArchive:
    """Return the model with data descriptors (APPNOTE 4.3.9)."""
    members = [alter(add_descriptor(member, signature, layout), local_extra=local_extra) for member in MODEL]
    return OddArchive(lambda: build(members), FILES)


def made(name: str, files: dict[str, bytes]) -> OddArchive:
    return OddArchive((MADE / name).read_bytes, files)


def made_by_python(*, force_zip64: bool = False, streamed: bool = False) -> OddArchive:
    def make() -> bytes:
        body = io.BytesIO()
        target = _Pipe(body) if streamed else body
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in FILES.items():
                with archive.open(name, "w", force_zip64=force_zip64) as entry:
                    entry.write(content)
        return body.getvalue()

    return OddArchive(make, FILES)


class _Pipe(io.RawIOBase):
    """A stream that cannot seek."""

    def __init__(self, body: io.BytesIO) -> None:
        self._body = body

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        return self._body.write(data)  # type: ignore[arg-type]


def _list_many(count: int) -> list[Member]:
    return [*MODEL, *(Member(b"model/many/%d" % n, b"%d" % n, 0) for n in range(count - len(MODEL)))]


def make_many(count: int) -> OddArchive:
    files = FILES | {f"model/many/{n}": b"%d" % n for n in range(count - len(MODEL))}
    return OddArchive(lambda: (build if count <= 0xFFFF else build_zip64)(_list_many(count)), files)


def _widen(member: Member) -> Member:
    """Return the member with its sizes in the zip64 fields of the directory and the local header."""
    fields = member.list_fields()
    extra = make_zip64_extra(fields["size"], fields["compressed_size"])
    ones = {"size": 0xFFFFFFFF, "compressed_size": 0xFFFFFFFF}
    return alter(member, data=member.encode_data(), content=b"", crc32=fields["crc32"], extra=extra, **ones)


def _swap_directory() -> bytes:
    """Build an archive whose directory lists the entries in reverse order."""
    offsets = [sum(len(m.encode_local()) for m in MODEL[:n]) for n in range(len(MODEL))]
    body = b"".join(m.encode_local() for m in MODEL)
    central = b"".join(m.encode_central(offset) for m, offset in reversed(list(zip(MODEL, offsets, strict=True))))
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, len(MODEL), len(MODEL), len(central), len(body), 0)
    return body + central + end


ODD: dict[str, OddArchive] = {
    "plain": OddArchive(lambda: build(MODEL), FILES),
    "stored": OddArchive(lambda: build(list_members(method=0)), FILES),
    "zip64-end": OddArchive(lambda: build_zip64(MODEL), FILES),
    "zip64-sizes": OddArchive(lambda: build([_widen(member) for member in MODEL]), FILES),
    "zip64-by-python": made_by_python(force_zip64=True),
    "streamed-by-python": made_by_python(streamed=True),
    "descriptors": described(b"PK\x07\x08", "<3L"),
    "descriptors-without-signature": described(b"", "<3L"),
    "descriptors-64": described(b"PK\x07\x08", "<LQQ", make_zip64_extra(0, 0)),
    "descriptors-64-as-by-yazl": described(b"PK\x07\x08", "<LQQ"),
    "descriptors-64-without-signature": described(b"", "<LQQ", make_zip64_extra(0, 0)),
    "entries-65535": make_many(65_535),
    "entries-65536": make_many(65_536),
    "empty-file": beside(
        Member(b"model/empty", b"", 0),
        Member(b"model/empty-deflated", b""),
        files={"model/empty": b"", "model/empty-deflated": b""},
    ),
    "directory-entries": OddArchive(
        lambda: build(
            [
                Member(b"model/", method=0, attributes=0o40755 << 16),
                *MODEL,
                Member(b"model/empty/", method=0),
                Member(b"model/deflated/"),
            ]
        ),
        FILES,
    ),
    "unicode-names": beside(Member("model/模型-é.txt".encode(), b"x", flags=UTF8), files={"model/模型-é.txt": b"x"}),
    "unicode-path-field": beside(
        Member(b"model/caf\x82", b"x", extra=make_unicode_extra(b"model/caf\x82", "model/café")),
        files={"model/café": b"x"},
    ),
    "escaped-name": beside(
        Member(b"model/caf#U00e9", b"x", extra=make_unicode_extra(b"model/caf#U00e9", "model/café")),
        files={"model/café": b"x"},
    ),
    "comments": OddArchive(
        lambda: build(
            [alter(member, comment=b"PK\x01\x02 of an entry") for member in MODEL], comment=b"of all " * 2300
        ),
        FILES,
    ),
    "extra-fields": OddArchive(
        lambda: build(
            [
                alter(m, extra=struct.pack("<HHL", 0xCAFE, 4, 7), local_extra=struct.pack("<HH", 0x5455, 5) + b"\3time")
                for m in MODEL
            ]
        ),
        FILES,
    ),
    "padded-extra-field": OddArchive(lambda: build([alter(m, local_extra=bytes(3)) for m in MODEL]), FILES),
    "from-a-pipe": OddArchive(lambda: build([alter(m, attributes=0o010600 << 16) for m in MODEL]), FILES),
    "backslashes": OddArchive(
        lambda: build(
            turn_slashes([*MODEL, Member(b"model/empty/", method=0), Member("model/é.txt".encode(), flags=UTF8)])
        ),
        FILES | {"model/é.txt": b""},
    ),
    "unmarked-utf8": beside(
        Member("model/模型-é.txt".encode(), b"x"),
        Member("model/è.txt".encode(), b"y"),
        files={"model/模型-é.txt": b"x", "model/è.txt": b"y"},
    ),
    "padded-end": OddArchive(lambda: build(MODEL) + bytes(16_341), FILES),
    "padded-comment": OddArchive(lambda: build(MODEL, comment=b"comment") + bytes(10_000), FILES),
    "zeros": beside(Member(b"model/zeros", bytes(4_000_000)), files={"model/zeros": bytes(4_000_000)}),
    "stored-checkpoint": beside(
        Member(b"model/training_args.bin", build(list_members("archive", method=0)), 0),
        files={"model/training_args.bin": build(list_members("archive", method=0))},
    ),
    "zip64-sizes-and-offset": beside(
        Member(b"model/x", b"x", 0, extra=make_extra(1, struct.pack("<QQ", 1, 1))), files={"model/x": b"x"}
    ),
    "directory-without-mode": OddArchive(
        lambda: build([*MODEL, Member(b"model/empty/", method=0, attributes=0, host=0)]), FILES
    ),
    "characters-of-no-windows": beside(Member(b'model/a?b*c"|<>', b"x"), files={'model/a?b*c"|<>': b"x"}),
    "from-windows": OddArchive(lambda: build([alter(m, attributes=0x20, host=0) for m in MODEL]), FILES),
    "compression-levels": OddArchive(lambda: build([alter(m, flags=0x6) for m in MODEL]), FILES),
    "other-order": OddArchive(_swap_directory, FILES),
    "signatures-inside": beside(
        Member(b"model/zip", b"PK\x05\x06PK\x01\x02PK\x03\x04" * 9, 0),
        files={"model/zip": b"PK\x05\x06PK\x01\x02PK\x03\x04" * 9},
    ),
    "zip-in-zip": beside(Member(b"model/inner.zip", build(MODEL), 0), files={"model/inner.zip": build(MODEL)}),
    "macos": beside(
        Member(b"__MACOSX/model/._config.json", b"resource fork"),
        Member(b"model/.DS_Store", b"litter"),
        Member(b".DS_Store", b"litter"),
        Member(b"model/._model.safetensors", b"resource fork"),
    ),
    "7-zip": made("7zip.zip", _ALL_MADE_FILES),
    "jar": made("jar.zip", _ALL_MADE_FILES),
    "zip": made("zip.zip", _MADE_FILES),
    "7-zip-26": made("7zip-26.zip", _ALL_MADE_FILES),
    "zip-without-locale": made("zip-no-locale.zip", _ALL_MADE_FILES),
    "zip-with-locale": made("zip-utf8.zip", _ALL_MADE_FILES),
    "bsdtar-to-a-pipe": made("bsdtar-pipe.zip", _ALL_MADE_FILES),
    "go": made("go.zip", _ALL_MADE_FILES),
    "powershell": made("powershell.zip", _ALL_MADE_FILES),
    "finder": made("finder.zip", _MADE_FILES | {"model/vocabulaire e\u0301/u\u0308.txt": b"x"}),
    "zip-to-a-pipe": made("streamed.zip", _MADE_FILES),
}

# Small archives without zip64 end records, in which tests change fields.
SMALL = [
    ODD[name].data
    for name in (
        "plain", "stored", "descriptors", "unicode-names", "unmarked-utf8", "directory-entries", "backslashes", "7-zip",
        "jar", "zip", "zip-to-a-pipe", "zip-without-locale", "go", "powershell", "finder",
        "streamed-by-python", "from-windows", "extra-fields",
    )
]  # fmt: skip
