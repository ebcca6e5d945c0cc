"""Validate the names of git revisions."""

import re

from modelhaul.domain.errors import InvalidReferenceError

_FORBIDDEN = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|^[-/]|[/.]$|^@$|(?:^|/)\.|\.lock(?:/|$)")
_MAX_BYTES = 255


def check_revision(revision: str) -> None:
    """Check a revision against the rules of `git check-ref-format --allow-onelevel` and the limit of 255 bytes.

    https://git-scm.com/docs/git-check-ref-format. Raises InvalidReferenceError.
    """
    size = len(revision.encode(errors="replace"))
    if not 0 < size <= _MAX_BYTES or _FORBIDDEN.search(revision) or not revision.isprintable():
        raise InvalidReferenceError(
            f"Invalid revision {revision[:100]!r}. Use a branch, a tag or a commit of 40 hex digits.",
            part="revision",
        )
