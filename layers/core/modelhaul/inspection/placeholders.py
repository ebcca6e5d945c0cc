"""Placeholders for files that were not downloaded: pointers, error pages, empty files."""

import json
import re

HEAD = 2048  # bytes that are enough to recognize a placeholder
_LFS = "Git LFS pointer instead of the file: the repository was cloned without `git lfs pull`"
_KINDS = (
    (re.compile(rb"version https://(?:git-lfs|hawser)\.github\.com/spec/v"), _LFS),
    (re.compile(rb"# xet version"), "Xet pointer instead of the file: the repository was cloned without git-xet"),
    (
        re.compile(
            rb"(?:<\?xml[^>]*>|<!--.*?-->|\s)*+<(?:!doctype\s+html|html|head|body|title)\b", re.DOTALL | re.IGNORECASE
        ),
        "HTML page instead of the file: a web page or a login form was downloaded",
    ),
    (
        re.compile(rb"(?:<\?xml[^>]*>|\s)*+<(?:Error|ErrorResponse|errors?|Message|Code)\b"),
        "XML error document instead of the file: the download failed",
    ),
)
_ERROR_KEYS = re.compile(rb'\s*\{\s*"(?:error|errors|message|detail|status|statusCode|code|documentation_url)"\s*:')
_ERROR_TEXTS = re.compile(
    rb"(?:entry not found|not found|404|403|401|access (?:denied|to model)|forbidden|unauthorized|invalid "
    rb"(?:username|credentials)|repository not found|internal server error|bad gateway|service unavailable|gateway "
    rb"time|too many requests|rate limit|error|request (?:timeout|blocked))[ -~\s]*",
    re.IGNORECASE,
)
_MAX_ERROR = 1024  # bytes of a plain-text error


def find_placeholder(head: bytes, size: int) -> str | None:
    """Return a description of the placeholder, with its probable cause; None if the file is not a placeholder.

    `head` are the first 2,048 bytes of the file or more, or all.
    """
    if size == 0:
        return "File is empty: the download or the copy was interrupted"
    content = head.removeprefix(b"\xef\xbb\xbf")
    for pattern, meaning in _KINDS:
        if pattern.match(content):
            return meaning
    if _is_json_error(content, size):
        return "JSON error document instead of the file: the download failed"
    if size <= _MAX_ERROR and _ERROR_TEXTS.fullmatch(content.strip()):
        return f"Error message instead of the file: {content.strip()[:80].decode('ascii', 'replace')!a}"
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
