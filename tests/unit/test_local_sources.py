"""Selection of the Hub and GitHub for a local stack."""

from collections.abc import Mapping

import pytest

from local import sources
from local.errors import LocalStackError
from local.sources import INTERNET, LOOPBACK_REPOSITORY, SourceUrls, Upstream, choose_sources

LOOPBACK = {"hub": "http://hub", "github_api": "http://api", "github": "http://site", "github_raw": "http://raw"}
CONFIGURED = SourceUrls("https://hub.example/", "https://git.example/api/v3", "https://git.example")


def fail() -> Mapping[str, str]:
    raise AssertionError("the loopback servers must not be started")


@pytest.mark.parametrize("is_available", [True, False])
def test_auto_selects_the_internet_if_it_is_available(monkeypatch: pytest.MonkeyPatch, is_available: bool) -> None:
    monkeypatch.setattr(sources, "is_available", lambda _: is_available)
    selected = choose_sources("auto", SourceUrls(), lambda: LOOPBACK)
    assert selected.urls == (
        INTERNET if is_available else SourceUrls("http://hub", "http://api", "http://site", "http://raw")
    )
    assert selected.sample_repository == ("" if is_available else LOOPBACK_REPOSITORY)
    assert selected.other_repository == ("" if is_available else "tests/small-model")
    assert (selected.other_model == "tests/sharded-model") == (not is_available)
    fallback = "local test server,\n  because huggingface.co is unreachable and UPSTREAM=auto"
    reason = "public server" if is_available else fallback
    assert [line.partition(" (")[2] for line in selected.describe()] == [f"{reason})"] * 2


def test_internet_is_selected_without_a_probe() -> None:
    assert choose_sources("internet", SourceUrls(), fail).urls == INTERNET


@pytest.mark.parametrize("upstream", ["auto", "internet", "loopback"])
def test_configured_urls_take_precedence(upstream: Upstream) -> None:
    selected = choose_sources(upstream, CONFIGURED, fail)
    assert selected.urls.github_raw == "", "a configured GitHub has a raw host only if one is configured"
    assert "configured server" in " ".join(selected.describe())


def test_one_source_can_be_configured() -> None:
    own_github = SourceUrls(github_api="https://git.example/api/v3/", github="https://git.example/")
    selected = choose_sources("loopback", own_github, lambda: LOOPBACK)
    assert selected.urls == SourceUrls("http://hub", "https://git.example/api/v3", "https://git.example")
    selected = choose_sources("loopback", SourceUrls(hub="http://other"), lambda: LOOPBACK)
    assert (selected.urls.hub, selected.urls.github) == ("http://other", "http://site")


def test_public_github_is_used_without_git_lfs() -> None:
    selected = choose_sources("loopback", SourceUrls(), lambda: {"hub": "http://hub", "github_lacks": "git-lfs"})
    assert (selected.urls.hub, selected.urls.github_api) == ("http://hub", INTERNET.github_api)
    assert list(selected.describe())[1].endswith("requires tools that are not installed: git-lfs)")


@pytest.mark.parametrize(
    ("configured", "message"),
    [
        (SourceUrls(hub="hub.example"), "HF_ENDPOINT must be an HTTP or HTTPS URL"),
        (SourceUrls(github_api="ftp://x", github="https://x"), "GITHUB_API_URL must be"),
        (SourceUrls(github_api="https://x"), "GITHUB_API_URL and GITHUB_URL must be set together"),
        (SourceUrls(github="https://x"), "GITHUB_API_URL and GITHUB_URL must be set together"),
        (SourceUrls(github_raw="https://x"), "GITHUB_API_URL and GITHUB_URL must be set together"),
    ],
)
def test_invalid_urls_are_rejected(configured: SourceUrls, message: str) -> None:
    with pytest.raises(LocalStackError, match=message):
        choose_sources("loopback", configured, fail)
