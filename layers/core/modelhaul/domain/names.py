"""Names of models from archives."""

import re
import unicodedata
from collections.abc import Sequence
from pathlib import PurePosixPath

from modelhaul.domain.errors import ArchiveRefusedError, InvalidReferenceError

_MAX_SEGMENT = 96
_SEGMENT = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?")
_MAX_SEGMENTS = 3
_ILLEGAL = re.compile(r"[^A-Za-z0-9._-]+")


def check_model_name(name: str) -> str:
    """Return the name unchanged if it is valid. Raises InvalidReferenceError.

    A valid name has up to three segments, separated by slashes. Each segment has 1 to 96 letters, digits, `.`, `_` and
    `-`, starts and ends with a letter or digit, and does not contain `..`.
    """
    segments = name.split("/")
    if len(segments) > _MAX_SEGMENTS or not all(_SEGMENT.fullmatch(s) and ".." not in s for s in segments):
        raise InvalidReferenceError(
            f"Invalid model name {name[:100]!r}. A name must have up to three parts, separated by slashes. Each part "
            f"has 1 to {_MAX_SEGMENT} letters, digits, '.', '_' and '-', starts and ends with a letter or digit, and "
            "does not contain '..'.",
            part="model_name",
        )
    return name


def clean_name(text: str) -> str:
    """Make a valid name from a directory or file name: remove accents, and replace other illegal characters by `-`.

    Raises InvalidReferenceError if no legal character is left, or if the name is too long.
    """
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    name = re.sub(r"\.{2,}", ".", _ILLEGAL.sub("-", plain)).strip("-._")
    if not name or len(name) > _MAX_SEGMENT:
        raise InvalidReferenceError(
            f"Cannot derive a model name of 1 to {_MAX_SEGMENT} letters and digits from {text[:100]!r}. Rename the "
            "file or directory, or choose a name for the model.",
            part="model_name",
            remedy="Rename the file or directory, or choose a name for the model. Then submit the archive again.",
        )
    return name


def name_models(directories: Sequence[str], *, model_name: str | None, file_name: str) -> dict[str, str]:
    """Return the name of the model in each of an archive's directories (`""` is the root).

    A single model gets `model_name`, or else the name of its directory, or at the root the name of the archive.
    Several models get the names of their directories, with `model_name/` as a prefix if it is given. Raises
    ArchiveRefusedError if two models would get the same name, InvalidReferenceError for an invalid name.
    """
    if len(directories) == 1:
        (only,) = directories
        return {only: model_name or clean_name(only or _strip_suffix(file_name))}
    names: dict[str, str] = {}
    taken: dict[str, str] = {}
    for directory in directories:
        name = clean_name(directory)
        other = taken.setdefault(name.lower(), directory)
        if other != directory:
            raise ArchiveRefusedError(
                f"Directories {other!r} and {directory!r} would be imported under the same model name {name!r}. Rename "
                "one of them.",
                reason="ambiguous-names",
                entry=directory,
            )
        names[directory] = check_model_name(f"{model_name}/{name}" if model_name else name)
    return names


def _strip_suffix(file_name: str) -> str:
    name = PurePosixPath(file_name.replace("\\", "/")).name
    return name[:-4] if name.lower().endswith(".zip") else name
