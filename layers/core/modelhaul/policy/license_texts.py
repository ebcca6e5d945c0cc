"""Recognition of licenses by the whole text of their files.

A text is recognized only if it is the text of a license without additions: line breaks, case, punctuation, titles,
copyright notices and the names of copyright holders may differ, as the SPDX guidelines allow. Similar texts are not
recognized, because a single added sentence can restrict the use.
https://spdx.github.io/spdx-spec/v3.0.1/annexes/license-matching-guidelines-and-templates/
"""

import hashlib
import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from modelhaul.domain.files import FileKind, SourceFile
from modelhaul.policy.license_digests import LICENSE_DIGESTS

MAX_LICENSE_SIZE = 128 * 1024  # bytes; the longest known text has 35 KB

_FILE_NAME = re.compile(r"(?:un)?licen[sc]es?(?:[-_.][\w.-]*)?|copying(?:[-_.][\w.-]*)?", re.IGNORECASE)
_NO_TEXTS = (".gz", ".json", ".pdf", ".png", ".py", ".yaml", ".yml", ".zip")
_COMMENT = re.compile(r"^[\s#*>;/]+", re.MULTILINE)
_BULLET = re.compile(r"^\s*(?:[-*•]|\(?(?:[0-9]{1,2}|[a-z]|[ivx]{1,4})[.)])\s+", re.MULTILINE)
_COPYRIGHT = re.compile(
    # A notice must not hide a condition: "Copyright (c) 2025 Somebody. For research only."
    r"^(?!.*\b(?:only|not?|commercial|non\w*|research|used?|may|must|shall|permi\w+|licen[sc]\w+|restrict\w+"
    r"|prohibit\w+)\b)"
    r"[^\S\n]*(?:(?:portions )?copyright(?: ?\(c\)| ?©|:)?,? ?(?:\d|\(c\)|©|\[|\{|<|the \w+ authors\b)"
    r"|(?:\(c\)|©) ?[\d\[{<]).*$|^[^\S\n]*all rights reserved\.?[^\S\n]*$",
    re.MULTILINE,
)
_WORD = re.compile(r"[^\W_]+")
_HOLDERS = (
    (
        re.compile(r"\bneither the names? of (?:\w+ ){1,12}?nor the names? of (?:its|any) contributors\b"),
        "neither the name of the copyright holder nor the names of its contributors",
    ),
    (
        re.compile(r"\b(by|shall) the (?:copyright (?:holders?|owners?)|authors?|regents) (and|or) contributors\b"),
        r"\1 the copyright holder \2 contributors",
    ),
)
_TITLES = frozenset(
    {
        "apache license", "boost software license version 1 0 august 17th 2003", "bsd 2 clause license",
        "bsd 3 clause clear license", "bsd 3 clause license", "bsd license", "bsd zero clause license", "copying",
        "copyright", "copyright and license", "isc license", "isc license isc", "licence", "license", "mit licence",
        "mit license", "mit license mit", "new bsd license", "postgresql license", "simplified bsd license",
        "the bsd 2 clause license", "the bsd 3 clause license", "the bsd license", "the clear bsd license",
        "the isc license", "the mit licence", "the mit license", "the mit license mit", "the new bsd license",
        "the unlicense", "the zlib license", "unlicense", "zlib license",
    }
)  # fmt: skip
_APACHE_END = "end of terms and conditions"


def is_license_file(path: str) -> bool:
    """Return whether a file of a model, by its path below the model's root, has the text of the model's license."""
    return _FILE_NAME.fullmatch(path) is not None and PurePosixPath(path).suffix.lower() not in _NO_TEXTS


def keep_license_files(chosen: Iterable[SourceFile], listed: Iterable[SourceFile]) -> list[SourceFile]:
    """Return the chosen files of a listing, and the license files that the selection excludes.

    Otherwise a selection could hide a license from the policy. Paths are relative to the model's root.
    """
    kept = list(chosen)
    paths = {file.path for file in kept}
    return kept + [f for f in listed if f.kind is FileKind.FILE and f.path not in paths and is_license_file(f.path)]


def find_license(text: str) -> str | None:
    """Return the license with exactly this text, as an identifier of the Hub. None if it is not known."""
    return LICENSE_DIGESTS.get(_digest(_normalize(text)))


def _digest(normalized: str) -> str:
    return hashlib.sha256(normalized.encode("utf-8", "replace")).hexdigest()


def _normalize(text: str) -> str:
    """Return the words of the text that distinguish licenses, separated by spaces."""
    text = text.removeprefix("\ufeff").lower().replace("http://", "https://")
    text = _COPYRIGHT.sub("", _COMMENT.sub("", text))
    lines = [" ".join(_WORD.findall(line)) for line in _BULLET.sub("", text).splitlines()]
    words = " ".join(filter(None, _remove_title(filter(None, lines))))
    for pattern, replacement in _HOLDERS:
        words = pattern.sub(replacement, words)
    return words


def build_digests(texts: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the contents of LICENSE_DIGESTS for the official texts of licenses, given as (SPDX identifier, text)."""
    return {_digest(form): identifier.lower() for identifier, text in texts for form in _list_forms(text)}


def _list_forms(text: str) -> list[str]:
    """Return the normalized forms in which the license with this official text is distributed."""
    whole = _normalize(text)
    end = whole.find(_APACHE_END)
    if end < 0:
        return [whole]
    # Many copies lack the appendix, which is no part of the terms, or the line before it.
    return [whole, whole[: end + len(_APACHE_END)], whole[:end].rstrip()]


def _remove_title(lines: Iterable[str]) -> Iterable[str]:
    is_start = True
    for line in lines:
        is_start = is_start and line in _TITLES
        if not is_start:
            yield line
