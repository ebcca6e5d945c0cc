"""References to models: names, revisions and URLs."""

import pytest

from modelhaul_cli.errors import UsageError
from modelhaul_cli.references import read_github, read_huggingface


@pytest.mark.parametrize(
    ("text", "revision", "expected"),
    [
        ("gpt2", None, ("gpt2", "main")),
        ("a/b", "v1", ("a/b", "v1")),
        ("a/b@v1", None, ("a/b", "v1")),
        ("a/b@v1", "v1", ("a/b", "v1")),
        ("a/b@refs/pr/1", None, ("a/b", "refs/pr/1")),
        ("https://huggingface.co/a/b", None, ("a/b", "main")),
        ("https://huggingface.co/gpt2/", None, ("gpt2", "main")),
        ("hf.co/a/b", "v1", ("a/b", "v1")),
        ("https://huggingface.co/a/b/tree/refs%2Fpr%2F1", None, ("a/b", "refs/pr/1")),
    ],
)
def test_hub_references(text: str, revision: str | None, expected: tuple[str, str]) -> None:
    found = read_huggingface(text, revision)
    assert (found.name, found.revision) == expected


@pytest.mark.parametrize(
    ("text", "revision", "expected"),
    [
        ("a/b", None, ("a/b", "main")),
        ("a/b@feature/x", None, ("a/b", "feature/x")),
        ("a/b.git", None, ("a/b.git", "main")),
        ("https://github.com/a/b", None, ("a/b", "main")),
        ("https://github.com/a/b.git", "v1", ("a/b", "v1")),
        ("https://github.com/a/b?tab=readme#x", None, ("a/b", "main")),
        ("https://github.com/a/b/tree/feature/x", None, ("a/b", "feature/x")),
        ("https://github.com/a/b/commit/0123abc", None, ("a/b", "0123abc")),
        ("https://github.com/a/b@v2", None, ("a/b", "v2")),
        ("github.com/a/b", None, ("a/b", "main")),
        ("git@github.com:a/b.git", None, ("a/b", "main")),
        ("ssh://git@github.com/a/b.git", None, ("a/b", "main")),
    ],
)
def test_github_references(text: str, revision: str | None, expected: tuple[str, str]) -> None:
    found = read_github(text, revision)
    assert (found.name, found.revision) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a/",
        "/b",
        "a/b/c",
        "a/b@",
        "@main",
        "https://gitlab.com/a/b",
        "https://github.com/",
        "https://github.com/a",
        "https://github.com/a/b/blob/main/config.json",
        "https://github.com/a/b/tree",
        "https://github.com.evil.example/a/b",
        "https://[/a/b",
        "ftp://github.com/a/b",
    ],
)
def test_invalid_github_references(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        read_github(text, None)
    assert "OWNER/REPO[@REVISION]" in raised.value.detail
    assert "model" not in raised.value.title + raised.value.detail


@pytest.mark.parametrize("text", ["", "@v1", "a@", "https://example.com/a/b", "https://huggingface.co/datasets/a/b"])
def test_invalid_hub_references(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        read_huggingface(text, None)
    assert "[OWNER/]NAME[@REVISION]" in raised.value.detail


def test_conflicting_revisions_are_rejected() -> None:
    with pytest.raises(UsageError, match="Conflicting revisions"):
        read_huggingface("a/b@v1", "v2")
