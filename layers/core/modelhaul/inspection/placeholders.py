"""Placeholders for files that were not downloaded: pointers, error pages, empty files."""

import json
import re

HEAD = 2048  # bytes that are enough to recognize a placeholder
_LFS = "is a Git LFS pointer, not the file: the repository was cloned without `git lfs pull`"
_KINDS = (
    (re.compile(rb"version https://(?:git-lfs|hawser)\.github\.com/spec/v"), _LFS),
    (re.compile(rb"# xet version"), "is a Xet pointer, not the file: the repository was cloned without git-xet"),
    (
        re.compile(
            rb"(?:<\?xml[^>]*>|<!--.*?-->|\s)*+<(?:!doctype\s+html|html|head|body|title)\b", re.DOTALL | re.IGNORECASE
        ),
        "is an HTML page, not the file: a page or a login was downloaded instead",
    ),
    (
        re.compile(rb"(?:<\?xml[^>]*>|\s)*+<(?:Error|ErrorResponse|errors?|Message|Code)\b"),
        "is an XML error document, not the file: the download failed",
    ),
)
_ERROR_KEYS = re.compile(rb'\s*\{\s*"(?:error|errors|message|detail|status|statusCode|code|documentation_url)"\s*:')
_ERROR_TEXTS = re.compile(
    rb"(?:entry not found|not found|404|403|401|access (?:denied|to model)|forbidden|unauthorized|invalid "
    rb"(?:username|credentials)|repository not found|internal server error|bad gateway|service unavailable|gateway "
    rb"time|too many requests|rate limit|error|request (?:timeout|blocked))[ -~\s]*",
    re.IGNORECASE,
)
_MAX_ERROR = 1024  # bytes of an error in plain text


def find_placeholder(head: bytes, size: int) -> str | None:
    """Describes the placeholder, with its probable cause; None if the file is not a placeholder.

    `head` are the first bytes of the file, 2,048 or more, or all.
    """
    if size == 0:
        return "is empty: the download or the copy was interrupted"
    content = head.removeprefix(b"\xef\xbb\xbf")
    for pattern, meaning in _KINDS:
        if pattern.match(content):
            return meaning
    if _is_json_error(content, size):
        return "is a JSON error document, not the file: the download failed"
    if size <= _MAX_ERROR and _ERROR_TEXTS.fullmatch(content.strip()):
        return f"is an error message, not the file: {content.strip()[:80].decode('ascii', 'replace')!a}"
    return None


def _is_json_error(content: bytes, size: int) -> bool:
    if _ERROR_KEYS.match(content):
        return True
    if size > HEAD or not content.lstrip().startswith(b"{"):
        return False
    try:
        json.loads(content.decode())
    except (ValueError, RecursionError):
        return False
    return True
