"""What git allows as the name of a revision."""

import re

from modelhaul.domain.errors import InvalidReferenceError

_FORBIDDEN = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|^[-/]|[/.]$|^@$|(?:^|/)\.|\.lock(?:/|$)")
_MAX_BYTES = 255


def check_revision(revision: str) -> None:
    """Raises InvalidReferenceError for what `git check-ref-format --allow-onelevel` refuses
    (https://git-scm.com/docs/git-check-ref-format), and above 255 bytes.
    """
    size = len(revision.encode(errors="replace"))
    if not 0 < size <= _MAX_BYTES or _FORBIDDEN.search(revision) or not revision.isprintable():
        raise InvalidReferenceError(
            f"{revision[:100]!r} cannot be a revision: give a branch, a tag or a commit of 40 hex digits",
            part="revision",
        )
