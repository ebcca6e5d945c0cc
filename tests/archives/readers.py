"""Common ZIP programs as functions that return what they extract from an archive."""

import io
import os
import shutil
import stat
import struct
import subprocess
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

_SECONDS = 60
_ENVIRONMENT = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "TZ": "UTC"}


@dataclass(frozen=True)
class Reading:
    """What a program extracts: `files` by path (bytes with slashes); `specials` are links, devices and pipes."""

    files: dict[bytes, bytes] = field(default_factory=dict)
    specials: frozenset[bytes] = frozenset()


type Reader = Callable[[bytes], Reading | None]
"""Returns None if the program refuses the archive or a part of it."""


def find_program(*names: str) -> str | None:
    """Return the first of the programs that is installed. On Debian, `make test` installs them when run as root."""
    return next((found for name in names if (found := shutil.which(name))), None)


def read_with_python(data: bytes) -> Reading | None:
    """Read with Python's zipfile. Unlike `extract`, it does not change the names."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            files = {entry.filename.encode("utf-8", "surrogateescape"): archive.read(entry) for entry in entries}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, ValueError, zlib.error):
        return None
    except (struct.error, UnicodeDecodeError):
        return None
    return Reading({name: content for name, content in files.items() if not name.endswith(b"/")})


def extract_with(program: str, *arguments: str, refusals: int) -> Reader:
    """Return a reader that runs a program in an empty folder. Exit codes of at least `refusals` are refusals."""

    def read(data: bytes) -> Reading | None:
        with tempfile.TemporaryDirectory(prefix="zip-reader-") as folder:
            archive, target = Path(folder) / "archive.zip", Path(folder) / "target"
            archive.write_bytes(data)
            target.mkdir()
            command = [program, *(argument.format(archive=archive) for argument in arguments)]
            process = subprocess.run(
                command, cwd=target, env=_ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS,
                check=False,
            )  # fmt: skip
            is_refused = process.returncode >= refusals or process.returncode < 0
            return None if is_refused else _read_folder(os.fsencode(target))

    return read


def _read_folder(root: bytes) -> Reading:
    files: dict[bytes, bytes] = {}
    specials: set[bytes] = set()
    for folder, folders, names in os.walk(root):
        for name in [*names, *(name for name in folders if Path(os.fsdecode(folder + b"/" + name)).is_symlink())]:
            path = folder + b"/" + name
            relative = os.path.relpath(path, root)
            if stat.S_ISREG(os.lstat(path).st_mode):
                with open(path, "rb") as file:  # noqa: PTH123 - the path may not be valid UTF-8
                    files[relative] = file.read()
            else:
                specials.add(relative)
    return Reading(files, frozenset(specials))


def list_programs() -> dict[str, Reader]:
    """Return the installed readers: unzip 6.0, 7-Zip and libarchive's bsdtar."""
    readers: dict[str, Reader] = {}
    if unzip := find_program("unzip"):
        readers["unzip"] = extract_with(unzip, "-q", "-o", "{archive}", refusals=2)
    if seven_zip := find_program("7zz", "7z"):
        readers["7-zip"] = extract_with(seven_zip, "x", "-y", "-bd", "{archive}", refusals=2)
    if bsdtar := find_program("bsdtar"):
        readers["bsdtar"] = extract_with(bsdtar, "-x", "-f", "{archive}", refusals=1)
    return readers
