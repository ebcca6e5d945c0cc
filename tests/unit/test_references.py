import shutil
import subprocess

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelhaul.domain.errors import InvalidReferenceError
from modelhaul_sources.references import check_revision


@pytest.mark.parametrize("revision", ["main", "v1.0", "feature/x", "refs/pr/1", "a" * 40, "é", "a@b", "@a"])
def test_revisions_that_git_allows(revision: str) -> None:
    check_revision(revision)


@pytest.mark.parametrize(
    "revision",
    [
        "",
        " ",
        "a b",
        "a..b",
        "a~1",
        "a^",
        "a:b",
        "a?",
        "a*",
        "a[",
        "a\\b",
        "@",
        "a@{1}",
        "/a",
        "a/",
        "a//b",
        "a.",
        ".a",
        "a/.b",
        "a.lock",
        "a.lock/b",
        "-a",
        "a\n",
        "a\x00",
        "a\x7f",
        "\ud800",
        "a" * 256,
    ],
)
def test_revisions_that_git_does_not_allow(revision: str) -> None:
    with pytest.raises(InvalidReferenceError, match="Invalid revision"):
        check_revision(revision)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@settings(max_examples=150)
@example("a.lock")
@given(st.text(alphabet="ab./@{-~^:?*[\\ \x7fl", min_size=1, max_size=8))
def test_git_itself_judges_the_same(revision: str) -> None:
    git = subprocess.run(["git", "check-ref-format", f"refs/heads/{revision}"], check=False)
    try:
        check_revision(revision)
    except InvalidReferenceError:
        # What `git branch` refuses beyond that.
        assert git.returncode != 0 or revision == "@" or revision.startswith("-")
    else:
        assert git.returncode == 0
