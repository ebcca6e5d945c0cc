"""Which Hub and GitHub a local stack takes."""

from collections.abc import Mapping

import pytest

from local import sources
from local.errors import LocalStackError
from local.sources import INTERNET, LOOPBACK_REPOSITORY, Addresses, Upstream, choose_sources

LOOPBACK = {"hub": "http://hub", "github_api": "http://api", "github": "http://site", "github_raw": "http://raw"}
OWN = Addresses("https://hub.example/", "https://git.example/api/v3", "https://git.example")


def fail() -> Mapping[str, str]:
    raise AssertionError("nothing is started that is not used")


@pytest.mark.parametrize("is_there", [True, False])
def test_auto_takes_the_internets_if_it_answers(monkeypatch: pytest.MonkeyPatch, is_there: bool) -> None:
    monkeypatch.setattr(sources, "answers", lambda _: is_there)
    chosen = choose_sources("auto", Addresses(), lambda: LOOPBACK)
    assert chosen.addresses == (
        INTERNET if is_there else Addresses("http://hub", "http://api", "http://site", "http://raw")
    )
    assert chosen.sample_repository == ("" if is_there else LOOPBACK_REPOSITORY)


def test_the_internet_is_not_asked_for_when_it_is_meant() -> None:
    assert choose_sources("internet", Addresses(), fail).addresses == INTERNET


@pytest.mark.parametrize("upstream", ["auto", "internet", "loopback"])
def test_what_is_asked_for_is_taken(upstream: Upstream) -> None:
    chosen = choose_sources(upstream, OWN, fail)
    assert chosen.addresses.github_raw == "", "an own GitHub has no raw host unless it is named"
    assert "the one asked for" in " ".join(chosen.describe())


def test_one_of_them_can_be_asked_for() -> None:
    own_github = Addresses(github_api="https://git.example/api/v3/", github="https://git.example/")
    chosen = choose_sources("loopback", own_github, lambda: LOOPBACK)
    assert chosen.addresses == Addresses("http://hub", "https://git.example/api/v3", "https://git.example")
    chosen = choose_sources("loopback", Addresses(hub="http://other"), lambda: LOOPBACK)
    assert (chosen.addresses.hub, chosen.addresses.github) == ("http://other", "http://site")


def test_without_git_lfs_github_is_the_real_one() -> None:
    chosen = choose_sources("loopback", Addresses(), lambda: {"hub": "http://hub", "github_lacks": "git-lfs"})
    assert (chosen.addresses.hub, chosen.addresses.github_api) == ("http://hub", INTERNET.github_api)
    assert "git-lfs" in " ".join(chosen.describe())


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (Addresses(hub="hub.example"), "HF_ENDPOINT must be an http or https address"),
        (Addresses(github_api="ftp://x", github="https://x"), "GITHUB_API_URL must be"),
        (Addresses(github_api="https://x"), "go together"),
        (Addresses(github="https://x"), "go together"),
        (Addresses(github_raw="https://x"), "go together"),
    ],
)
def test_what_is_no_address_is_refused(asked: Addresses, words: str) -> None:
    with pytest.raises(LocalStackError, match=words):
        choose_sources("loopback", asked, fail)
