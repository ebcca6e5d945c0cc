"""Names, commits and digests under which Hub clients know models."""

from __future__ import annotations  # modelhaul.domain.models imports this module

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelhaul.domain.models import ResolvedModel, Source

# As huggingface_hub's validate_repo_id: `name` or `owner/name`.
_HUB_PART = r"\w(?:[\w.-]{0,94}\w)?"
HUB_ID = re.compile(rf"(?!.*(?:--|\.\.|\.git\Z))(?:{_HUB_PART}/)?{_HUB_PART}", re.ASCII)

SHORT_COMMIT = re.compile(r"[0-9a-fA-F]{7,40}")  # a commit, or digits that identify it

_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
_PLAIN_ID = re.compile(rf"(?!.*(?:--|\.\.|\.git\Z|\.[0-9A-Fa-f]{{12}}\Z)){_PART}/{_PART}")
_ILLEGAL = re.compile(r"[^A-Za-z0-9._]+")
_DOTS = re.compile(r"\.{2,}")
_MAX_CLEANED = 83  # characters
_SEPARATOR = "__"


def is_hub_id(text: str) -> bool:
    """Return whether Hub clients accept the text as a model's name."""
    return HUB_ID.fullmatch(text) is not None


def build_hub_id(source: Source, name: str) -> str:
    """Return the name under which Hub clients find the model that has this name at its source.

    A model of the Hub keeps its name. `owner/repository` of GitHub becomes `github.owner/repository`, and `a/b/c` of an
    archive `archive.local/a__b__c`: namespaces of the Hub contain no dot. If the result is not a valid name of the Hub,
    or if another name has the same result, its illegal characters are replaced, and `.` and the first 12 digits of the
    SHA-256 of the name in lower case are added. Different names have different results. Names that differ only in case
    have results that differ at most in case, because neither GitHub nor the Hub distinguishes them.
    """
    match source.value:
        case "HUGGINGFACE":
            return name
        case "GITHUB":
            prefix, (owner, _, repository) = "github.", name.partition("/")
            is_unique = True
        case _:
            prefix, owner, repository = "archive.", "local", name.replace("/", _SEPARATOR)
            is_unique = repository.replace(_SEPARATOR, "/") == name
    hub_id = f"{prefix}{owner}/{repository}"
    if is_unique and _PLAIN_ID.fullmatch(hub_id):
        return hub_id
    digest = hashlib.sha256(name.lower().encode()).hexdigest()[:12]
    return f"{prefix}{_clean(owner)}/{_clean(repository)}.{digest}"


def _clean(part: str) -> str:
    """Return a valid part of a name: at most 83 characters, so that a prefix or 12 digits can be added."""
    legal = _DOTS.sub(".", _ILLEGAL.sub("-", part)).strip("-._")
    return legal[:_MAX_CLEANED].rstrip("-._") or "model"


def derive_commit(model: ResolvedModel) -> str:
    """Return 40 hexadecimal digits: the commit, or for a model from an archive a SHA-1 that identifies the import."""
    if model.source.value != "LOCAL":
        return model.commit
    return hashlib.sha1(f"modelhaul:{model.commit}".encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class Pointer:
    """The Git LFS pointer of a file. `oid`: its Git blob ID."""

    content: bytes
    oid: str


def describe_pointer(sha256: str, size: int) -> Pointer:
    """Return the pointer of a file: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md."""
    content = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
    oid = hashlib.sha1(b"blob %d\0%b" % (len(content), content), usedforsecurity=False).hexdigest()
    return Pointer(content, oid)
