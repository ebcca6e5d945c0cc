"""Names of models that come without one from a hub: from archives."""

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
    """The name as it is, if it can be one: up to three segments between slashes, each of 1 to 96 letters, digits,
    `.`, `_` and `-`, beginning and ending with a letter or digit, and without `..`.

    Raises InvalidReferenceError.
    """
    segments = name.split("/")
    if len(segments) > _MAX_SEGMENTS or not all(_SEGMENT.fullmatch(s) and ".." not in s for s in segments):
        raise InvalidReferenceError(
            f"{name[:100]!r} cannot be a model's name: up to three parts between slashes, of letters, digits, "
            "'.', '_' and '-', each beginning and ending with a letter or digit",
            part="model_name",
        )
    return name


def clean_name(text: str) -> str:
    """A legal name made of a directory's or file's: accents are dropped, anything else illegal becomes `-`.

    Raises InvalidReferenceError if nothing legal is left, or it is too long.
    """
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    name = re.sub(r"\.{2,}", ".", _ILLEGAL.sub("-", plain)).strip("-._")
    if not name or len(name) > _MAX_SEGMENT:
        raise InvalidReferenceError(
            f"no model's name can be made of {text[:100]!r}: rename it, in letters and digits, or give a model_name",
            part="model_name",
        )
    return name


def name_models(directories: Sequence[str], *, model_name: str | None, file_name: str) -> dict[str, str]:
    """The name of the model in each of an archive's directories (`""` is its root).

    One model gets `model_name`, else its directory's name, at the root the archive's. Several get their
    directories' names, below `model_name` if there is one. Raises ArchiveRefusedError if two would get the same,
    InvalidReferenceError.
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
                f"The directories {other!r} and {directory!r} would both be the model {name!r}: rename one.",
                reason="ambiguous-names",
                entry=directory,
            )
        names[directory] = check_model_name(f"{model_name}/{name}" if model_name else name)
    return names


def _strip_suffix(file_name: str) -> str:
    name = PurePosixPath(file_name.replace("\\", "/")).name
    return name[:-4] if name.lower().endswith(".zip") else name
