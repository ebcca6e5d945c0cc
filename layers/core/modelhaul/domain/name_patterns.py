"""Patterns of names of models, such as `google-bert/*`."""

import re
import string
from collections.abc import Iterable

MAX_PATTERN = 200  # characters

_PATTERN = re.compile(rf"[A-Za-z0-9._/*-]{{1,{MAX_PATTERN}}}")
# `str.lower` also makes ASCII letters of other characters, such as U+212A.
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def is_name_pattern(text: str) -> bool:
    """Return whether the text is a valid pattern: 1 to 200 letters, digits, `.`, `_`, `-`, `/` and `*`."""
    return _PATTERN.fullmatch(text) is not None


def matches_name(pattern: str, name: str) -> bool:
    """Return whether the pattern describes the whole name.

    `*` stands for any characters, also none, and also slashes, as in policies of IAM. The case of the letters A to Z
    makes no difference. An invalid pattern matches nothing. The time is linear in the length of the name.
    """
    if not is_name_pattern(pattern):
        return False
    first, *others = pattern.translate(_LOWER).split("*")
    name = name.translate(_LOWER)
    if not others:
        return name == first
    *middle, last = others
    end = len(name) - len(last)
    if len(first) > end or not name.startswith(first) or not name.endswith(last):
        return False
    # The first place of each part leaves the most characters for the next parts.
    position = len(first)
    for part in middle:
        found = name.find(part, position, end)
        if found < 0:
            return False
        position = found + len(part)
    return True


def matches_any(patterns: Iterable[str], name: str) -> bool:
    """Return whether one of the patterns describes the name."""
    return any(matches_name(pattern, name) for pattern in patterns)
