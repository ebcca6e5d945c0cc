"""Names of entries: their encoding, and whether every system and reader would extract the same files."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from modelhaul.archives.entries import Entry, Refusal, refuse_entry
from modelhaul.archives.extra_fields import ExtraFields, read_unicode_path

UTF8_FLAG = 0x800  # APPNOTE 4.4.4, bit 11
FAT_HOST = 0  # APPNOTE 4.4.2
_MAX_PATH = 900  # bytes in UTF-8
_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)
_VERSION = re.compile(r";[0-9]*$")
# Windows cannot have these in a name, and readers replace them by an underscore.
_REPLACED_ON_WINDOWS = str.maketrans(dict.fromkeys('<>"|?*', "_"))
# unzip 6.0 takes names of the host FAT for IBM code page 850, also those marked as UTF-8, and shows them in Latin-1.
_UNZIP_ON_FAT = str.maketrans("ƒ░▒▓│┤╣║╗╝┐└┴┬├─┼╚╔╩╦╠═╬\u0131┘┌█▄▀‗■", "\x83¦¦¦¦¦¦¦++++--+-+++--¦-+i++¦_¯=¦", "ÿ")
_UTF8_REMEDY = "Create the archive with UTF-8 names: `7z a -tzip -mcu=on`, `jar`, or Python's zipfile"
_SLASH_REMEDY = (
    "Create the archive with slashes: `tar -a -c -f model.zip model` (Windows 10 or later), 7-Zip, or PowerShell 7"
)


def is_junk(name: str) -> bool:
    """Whether an entry is metadata that macOS adds by itself."""
    base = name.rstrip("/").rpartition("/")[2]
    return name.startswith("__MACOSX/") or base.startswith("._") or base == ".DS_Store"


def read_name(raw_name: bytes, flags: int, fields: ExtraFields) -> str:
    """Decodes the name of an entry. Raises ArchiveRefusedError.

    UTF-8 need not be marked as such: macOS does not mark it, and `zip` 3.0 does only where the locale en_US.UTF-8 is
    installed. Readers may then show other names, but of the same files, as `check_names` makes sure.
    """
    shown = raw_name.decode("utf-8", "backslashreplace")
    if b"\0" in raw_name:
        raise refuse_entry(shown, "has a NUL character in its name", Refusal.UNFIT_NAME)
    is_marked = bool(flags & UTF8_FLAG) or raw_name.isascii()
    name = _decode(raw_name)
    if is_marked and name is None:
        raise refuse_entry(shown, f"has a name that is not valid UTF-8. {_UTF8_REMEDY}", Refusal.NAME_ENCODING)
    other = read_unicode_path(fields, raw_name, shown)
    if other is not None:
        # Info-ZIP writes `#U00e9` for what its locale has not.
        is_escaped = "#U" in shown and not flags & UTF8_FLAG
        if not (_is_same_place(other, raw_name) if is_escaped or not is_marked else other == name):
            raise refuse_entry(
                shown, f"has a second name, {other[:80]!r}, in a Unicode Path extra field", Refusal.NAME_ENCODING
            )
        return other
    if name is None:
        raise refuse_entry(
            shown, f"has a name in an unknown encoding, not marked as UTF-8. {_UTF8_REMEDY}", Refusal.NAME_ENCODING
        )
    return name


def read_local_name(raw_name: bytes, fields: ExtraFields) -> str:
    """The name that readers take which look only at the local header, with slashes. Raises ArchiveRefusedError."""
    shown = raw_name.decode("utf-8", "backslashreplace")
    name = read_unicode_path(fields, raw_name, shown) or shown
    return name.replace("\\", "/") if b"\\" in raw_name else name


def _decode(raw_name: bytes) -> str | None:
    try:
        return raw_name.decode()
    except UnicodeDecodeError:
        return None


def _is_same_place(name: str, raw_name: bytes) -> bool:
    """Whether a name and its form in another encoding differ in nothing but segments that are not ASCII."""
    segments, raw_segments = name.split("/"), raw_name.split(b"/")
    return len(segments) == len(raw_segments) and all(
        segment.encode() == raw if segment.isascii() else raw.strip(b".") != b""
        for segment, raw in zip(segments, raw_segments, strict=True)
    )


def replace_backslashes(entries: Sequence[Entry], hosts: Sequence[int]) -> list[Entry]:
    """The entries with slashes in their names, if all separators of the archive are backslashes.

    .NET Framework before 4.6.1, and with it `Compress-Archive` of PowerShell 5.1, writes backslashes; Windows itself,
    .NET, unzip and bsdtar read them as separators, in archives of the host FAT without any slash. 7-Zip and Python
    on other systems extract the same contents to files with backslashes in their names. Raises ArchiveRefusedError.
    """
    at_fault = next((entry for entry in entries if "\\" in entry.name), None)
    if at_fault is None:
        return list(entries)
    if any("/" in entry.name for entry in entries):
        raise refuse_entry(
            at_fault.name, f"has backslashes in its name, and other entries slashes. {_SLASH_REMEDY}",
            Refusal.PATH_ESCAPE,
        )  # fmt: skip
    if any(host != FAT_HOST for host in hosts):
        raise refuse_entry(
            at_fault.name, f"has backslashes in its name, and was not made on Windows. {_SLASH_REMEDY}",
            Refusal.PATH_ESCAPE,
        )  # fmt: skip
    return [replace(entry, name=entry.name.replace("\\", "/")) for entry in entries]


def check_names(entries: Sequence[Entry], hosts: Sequence[int]) -> None:
    """Raises ArchiveRefusedError for a path that some system cannot have, and for two that are one on some system.

    `hosts`: the system that each entry was made on.
    """
    names = [entry.name for entry in entries]
    for name in names:
        _check_path(name)
    _check_collisions(names, names)
    # Also readers that take the names for something else must extract as many files.
    for others in (
        [show_in_code_page(entry) for entry in entries],
        [show_in_unzip(entry, host) for entry, host in zip(entries, hosts, strict=True)],
    ):
        if others != names:
            _check_collisions(others, names)
            _check_exchanged(others, names)


def show_in_code_page(entry: Entry) -> str:
    """The name as of before there was UTF-8: in IBM code page 437, APPNOTE appendix D. Python and others do so."""
    if entry.flags & UTF8_FLAG:
        return entry.name
    return entry.raw_name.decode("cp437").replace("\\", "/")


def show_in_unzip(entry: Entry, host: int) -> str:
    """The name as unzip shows it that has no Unicode Path extra field."""
    is_own = (_decode(entry.raw_name) or "").replace("\\", "/") == entry.name
    if host != FAT_HOST or not is_own:
        return entry.name
    return entry.raw_name.decode("cp850").translate(_UNZIP_ON_FAT).replace("\\", "/")


def _check_collisions(names: Iterable[str], true_names: Iterable[str]) -> None:
    """`names` are compared as systems do, of the entries that messages call by their `true_names`."""
    files: dict[str, str] = {}
    directories: dict[str, str] = {}
    for name, shown in zip(names, true_names, strict=True):
        key = _fold(name)
        named = directories if name.endswith("/") else files
        if named.setdefault(key, shown) is not shown:
            raise refuse_entry(shown, f"and {named[key][:80]!r} are the same file on some systems", Refusal.COLLISION)
    for key, shown in files.items():
        for parent in _list_parents(key):
            if parent in files:
                raise refuse_entry(files[parent], f"is a file, and the directory of {shown[:80]!r}", Refusal.COLLISION)
        if key in directories:
            raise refuse_entry(shown, "is a file and a directory", Refusal.COLLISION)


def _check_exchanged(others: Sequence[str], names: Sequence[str]) -> None:
    """Refuses an entry that a reader shows under the name of a different entry."""
    places = {_fold(name): place for place, name in enumerate(names)}
    for place, (other, name) in enumerate(zip(others, names, strict=True)):
        if places.get(_fold(other), place) != place:
            what = f"is {other[:80]!r} to readers that do not know its encoding, which is another entry"
            raise refuse_entry(name, what, Refusal.COLLISION)


def _fold(name: str) -> str:
    name = name.rstrip("/").translate(_REPLACED_ON_WINDOWS)
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _list_parents(key: str) -> Iterator[str]:
    position = key.find("/")
    while position >= 0:
        yield key[:position]
        position = key.find("/", position + 1)


def _check_path(name: str) -> None:
    if _UNFIT.search(name):
        raise refuse_entry(name, "has control characters in its name", Refusal.UNFIT_NAME)
    if len(name.encode()) > _MAX_PATH:
        raise refuse_entry(name, f"has a name longer than {_MAX_PATH} bytes", Refusal.UNFIT_NAME)
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        raise refuse_entry(name, "has an absolute path", Refusal.PATH_ESCAPE)
    segments = name.removesuffix("/").split("/")
    for segment in segments:
        if segment in ("", ".", ".."):
            raise refuse_entry(name, "has a '..', '.' or empty segment in its path", Refusal.PATH_ESCAPE)
        if segment.endswith((".", " ")) or _RESERVED.fullmatch(segment) or ":" in segment:
            raise refuse_entry(name, f"has a name that Windows does not allow ({segment[:80]!r})", Refusal.UNFIT_NAME)
    if _VERSION.search(segments[-1]):
        raise refuse_entry(
            name, "has a name ending in ';' and a number, which unzip removes as a VMS version", Refusal.UNFIT_NAME
        )
