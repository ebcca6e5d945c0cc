"""Decode the names of entries, and refuse names that some systems or readers would extract to different files."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from modelhaul.archives.entries import Entry, Refusal, refuse_entry
from modelhaul.archives.extra_fields import ExtraFields, read_unicode_path
from modelhaul.domain.errors import ArchiveRefusedError

UTF8_FLAG = 0x800  # APPNOTE 4.4.4, bit 11
FAT_HOST = 0  # APPNOTE 4.4.2
_MAX_PATH = 900  # bytes in UTF-8
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_WINDOWS_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)
_VMS_VERSION = re.compile(r";[0-9]*$")
# Names on Windows cannot have these characters. Readers replace them with an underscore.
_REPLACED_ON_WINDOWS = str.maketrans(dict.fromkeys('<>"|?*', "_"))
# unzip 6.0 decodes names of the host FAT as IBM code page 850, even if they are marked as UTF-8, and shows Latin-1.
_UNZIP_ON_FAT = str.maketrans("ƒ░▒▓│┤╣║╗╝┐└┴┬├─┼╚╔╩╦╠═╬\u0131┘┌█▄▀‗■", "\x83¦¦¦¦¦¦¦++++--+-+++--¦-+i++¦_¯=¦", "ÿ")
_UTF8_REMEDY = "Create the archive with UTF-8 names: `7z a -tzip -mcu=on`, `jar`, or Python's zipfile"
_SLASH_REMEDY = (
    "Create the archive with slashes: `tar -a -c -f model.zip model` (Windows 10 or later), 7-Zip, or PowerShell 7"
)


def is_macos_metadata(name: str) -> bool:
    """Return whether an entry is metadata that macOS adds to archives."""
    base = name.rstrip("/").rpartition("/")[2]
    return name.startswith("__MACOSX/") or base.startswith("._") or base == ".DS_Store"


def read_name(raw_name: bytes, flags: int, fields: ExtraFields) -> str:
    """Decode the name of an entry. Raises ArchiveRefusedError.

    Names in UTF-8 are accepted without the UTF-8 flag: macOS never sets it, and `zip` 3.0 sets it only if the locale
    en_US.UTF-8 is installed. Readers may then show different names, but `check_names` ensures that they extract the
    same files.
    """
    shown_name = raw_name.decode("utf-8", "backslashreplace")
    if b"\0" in raw_name:
        raise refuse_entry(shown_name, "has a NUL character in its name", Refusal.UNFIT_NAME)
    is_marked = bool(flags & UTF8_FLAG) or raw_name.isascii()
    name = _decode(raw_name)
    if is_marked and name is None:
        raise refuse_entry(shown_name, f"has a name that is not valid UTF-8. {_UTF8_REMEDY}", Refusal.NAME_ENCODING)
    unicode_name = read_unicode_path(fields, raw_name, shown_name)
    if unicode_name is not None:
        # Info-ZIP escapes characters that its locale does not have, such as `#U00e9`.
        is_escaped = "#U" in shown_name and not flags & UTF8_FLAG
        if not (_is_same_path(unicode_name, raw_name) if is_escaped or not is_marked else unicode_name == name):
            raise refuse_entry(
                shown_name,
                f"has a different name in its Unicode Path extra field ({unicode_name[:80]!r})",
                Refusal.NAME_ENCODING,
            )
        return unicode_name
    if name is None:
        raise refuse_entry(
            shown_name, f"has a name in an unknown encoding, not marked as UTF-8. {_UTF8_REMEDY}", Refusal.NAME_ENCODING
        )
    return name


def read_local_name(raw_name: bytes, fields: ExtraFields) -> str:
    """Return the name, with slashes, for readers that use only the local header. Raises ArchiveRefusedError."""
    shown_name = raw_name.decode("utf-8", "backslashreplace")
    name = read_unicode_path(fields, raw_name, shown_name) or shown_name
    return name.replace("\\", "/") if b"\\" in raw_name else name


def _decode(raw_name: bytes) -> str | None:
    try:
        return raw_name.decode()
    except UnicodeDecodeError:
        return None


def _is_same_path(name: str, raw_name: bytes) -> bool:
    """Return whether a name and its bytes in another encoding differ only in segments with non-ASCII characters."""
    segments, raw_segments = name.split("/"), raw_name.split(b"/")
    return len(segments) == len(raw_segments) and all(
        segment.encode() == raw if segment.isascii() else raw.strip(b".") != b""
        for segment, raw in zip(segments, raw_segments, strict=True)
    )


def replace_backslashes(entries: Sequence[Entry], hosts: Sequence[int]) -> list[Entry]:
    """Replace backslashes in the names with slashes, if all separators of the archive are backslashes.

    .NET Framework before 4.6.1, and with it `Compress-Archive` of PowerShell 5.1, writes backslashes. Windows itself,
    .NET, unzip and bsdtar read them as separators in archives of the host FAT that have no slashes. 7-Zip and Python on
    other systems extract the same contents to files with backslashes in their names. Raises ArchiveRefusedError.
    """
    backslashed = next((entry for entry in entries if "\\" in entry.name), None)
    if backslashed is None:
        return list(entries)
    if any("/" in entry.name for entry in entries):
        raise refuse_entry(
            backslashed.name, f"has backslashes in its name, but other entries have slashes. {_SLASH_REMEDY}",
            Refusal.PATH_ESCAPE,
        )  # fmt: skip
    if any(host != FAT_HOST for host in hosts):
        raise refuse_entry(
            backslashed.name, f"has backslashes in its name, but was not created on Windows. {_SLASH_REMEDY}",
            Refusal.PATH_ESCAPE,
        )  # fmt: skip
    return [replace(entry, name=entry.name.replace("\\", "/")) for entry in entries]


def check_names(entries: Sequence[Entry], hosts: Sequence[int]) -> None:
    """Refuse paths that some system does not allow, and different paths that some system takes for the same path.

    `hosts`: the system on which each entry was created. Raises ArchiveRefusedError.
    """
    names = [entry.name for entry in entries]
    for name in names:
        _check_path(name)
    _check_collisions(names, names)
    # Readers that decode the names differently must extract the same number of files.
    for decoded_names in (
        [decode_as_cp437(entry) for entry in entries],
        [decode_as_unzip(entry, host) for entry, host in zip(entries, hosts, strict=True)],
    ):
        if decoded_names != names:
            _check_collisions(decoded_names, names)
            _check_swapped_names(decoded_names, names)


def decode_as_cp437(entry: Entry) -> str:
    """Return the name in IBM code page 437 unless it is marked as UTF-8, as in Python (APPNOTE appendix D)."""
    if entry.flags & UTF8_FLAG:
        return entry.name
    return entry.raw_name.decode("cp437").replace("\\", "/")


def decode_as_unzip(entry: Entry, host: int) -> str:
    """Return the name as unzip decodes it without a Unicode Path extra field."""
    is_raw_name = (_decode(entry.raw_name) or "").replace("\\", "/") == entry.name
    if host != FAT_HOST or not is_raw_name:
        return entry.name
    return entry.raw_name.decode("cp850").translate(_UNZIP_ON_FAT).replace("\\", "/")


def _check_collisions(names: Iterable[str], shown_names: Iterable[str]) -> None:
    """Refuse names that are the same on some system. Messages contain the `shown_names` of the entries."""
    files: dict[str, str] = {}
    directories: dict[str, str] = {}
    for name, shown in zip(names, shown_names, strict=True):
        key = _fold(name)
        same_kind = directories if name.endswith("/") else files
        if same_kind.setdefault(key, shown) is not shown:
            raise _refuse_collision(same_kind[key], shown)
    for key, shown in files.items():
        for parent in _list_parents(key):
            if parent in files:
                raise refuse_entry(
                    files[parent], f"is a file, but {shown[:80]!r} requires it to be a directory", Refusal.COLLISION
                )
        if key in directories:
            raise refuse_entry(shown, "is both a file and a directory", Refusal.COLLISION)


def _refuse_collision(first: str, second: str) -> ArchiveRefusedError:
    if first == second:
        return refuse_entry(second, "occurs twice in the archive. Rename or remove one", Refusal.COLLISION)
    return ArchiveRefusedError(
        f"Entries {first[:80]!r} and {second[:80]!r} have the same name on some systems (case, Unicode normalization, "
        "encoding or special characters). Rename one.",
        reason=Refusal.COLLISION,
        entry=second,
    )


def _check_swapped_names(decoded_names: Sequence[str], names: Sequence[str]) -> None:
    """Refuse an entry that a reader extracts under the name of a different entry."""
    indexes = {_fold(name): index for index, name in enumerate(names)}
    for index, (decoded, name) in enumerate(zip(decoded_names, names, strict=True)):
        if indexes.get(_fold(decoded), index) != index:
            predicate = f"is extracted by some readers as {decoded[:80]!r}, which is the name of a different entry"
            raise refuse_entry(name, f"{predicate}. {_UTF8_REMEDY}", Refusal.COLLISION)


def _fold(name: str) -> str:
    """Return the form in which names are compared: without case, normalization or characters that Windows replaces."""
    name = name.rstrip("/").translate(_REPLACED_ON_WINDOWS)
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _list_parents(key: str) -> Iterator[str]:
    position = key.find("/")
    while position >= 0:
        yield key[:position]
        position = key.find("/", position + 1)


def _check_path(name: str) -> None:
    if _CONTROL_CHARACTERS.search(name):
        raise refuse_entry(name, "has control characters in its name", Refusal.UNFIT_NAME)
    if len(name.encode()) > _MAX_PATH:
        raise refuse_entry(
            name, f"has a name of {len(name.encode()):,} bytes; the limit is {_MAX_PATH}", Refusal.UNFIT_NAME
        )
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        raise refuse_entry(name, "has an absolute path", Refusal.PATH_ESCAPE)
    segments = name.removesuffix("/").split("/")
    for segment in segments:
        if segment in ("", ".", ".."):
            raise refuse_entry(name, "has a '..', '.' or empty segment in its path", Refusal.PATH_ESCAPE)
        if segment.endswith((".", " ")) or _WINDOWS_DEVICES.fullmatch(segment) or ":" in segment:
            raise refuse_entry(name, f"has a name that Windows does not allow ({segment[:80]!r})", Refusal.UNFIT_NAME)
    if _VMS_VERSION.search(segments[-1]):
        raise refuse_entry(
            name, "has a name that ends with a VMS version (';' and a number), which unzip removes", Refusal.UNFIT_NAME
        )
