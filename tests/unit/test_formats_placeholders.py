import pytest

from modelhaul.inspection.placeholders import HEAD, find_placeholder

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 5\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (POINTER, "cloned without `git lfs pull`"),
        (b"version https://hawser.github.com/spec/v1\n", "cloned without `git lfs pull`"),
        (b"# xet version 0\nfilesize = 5\n", "cloned without git-xet"),
        (b"<!DOCTYPE html>\n<html>", "HTML page"),
        (b"\xef\xbb\xbf\n  <!doctype HTML>", "HTML page"),
        (b"<!-- Sign in -->\n<html lang='en'>", "HTML page"),
        (b'<?xml version="1.0"?>\n<html xmlns="http://www.w3.org/1999/xhtml">', "HTML page"),
        (b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>', "XML error document"),
        (b'{"error": "Repository not found"}', "JSON error document"),
        (b'{"message":"Not Found","documentation_url":"https://docs.github.com/rest"}', "JSON error document"),
        (b"{}", "JSON error document"),
        (b"Entry not found", "Error message instead of the file: 'Entry not found'"),
        (b"Invalid username or password.", "Error message"),
        (b"404: Not Found", "Error message"),
    ],
)
def test_placeholders_are_described(content: bytes, words: str) -> None:
    found = find_placeholder(content[:HEAD], len(content))
    assert found is not None
    assert words in found
    assert found.isprintable()


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02}q\x00.",
        b"PK\x03\x04",
        b"GGUF\x03\x00\x00\x00",
        b"\x10\x00\x00\x00\x00\x00\x00\x00{}              ",
        b"(dp0\n.",
        bytes(1000),
        bytes(HEAD) + b"\x01",
        b'{"weights": ' + b" " * HEAD + b"1}",
    ],
)
def test_weights_are_no_placeholders(content: bytes) -> None:
    assert find_placeholder(content[:HEAD], len(content)) is None


def test_hostile_prefixes_are_matched_quickly() -> None:
    for content in (b"<!--" * 500, b"<?xml" * 400, b" " * HEAD, b"{" * HEAD, b"error " * 340, b"<?xml ?>" * 250):
        find_placeholder(content[:HEAD], len(content))
