"""Whatever is given as a model, an owner or a revision, nobody but the source itself is ever looked for."""

import socket
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelhaul.domain.errors import InvalidReferenceError, InvalidRepositoryError, SourceUnavailableError
from modelhaul.ports.model_sources import ModelResolver
from modelhaul_sources.github import GitHubSource
from modelhaul_sources.hosts import HostPolicy
from modelhaul_sources.huggingface import HuggingFaceSource
from tests.fakes.rate_limit_store import InMemoryRateLimitStore

type Opened = tuple[str, Callable[[], ModelResolver], str]
"""A source's host, what opens it, and a name that could be there."""

ADDRESSES = {
    "loopback": "http://127.0.0.1/x",
    "loopback by name": "http://localhost:8000/x",
    "loopback of IPv6": "http://[::1]/x",
    "loopback as a number": "http://2130706433/x",
    "link-local": "http://169.254.169.254/latest/meta-data",
    "link-local of IPv6": "http://[fd00:ec2::254]/latest",
    "private": "https://10.0.0.1/x",
    "a name that resolves to a private address": "https://internal.corp.example/x",
    "credentials": "https://user:password@huggingface.co/x",
    "the source's name before an at sign": "https://github.com@10.0.0.1/x",
    "file": "file:///etc/passwd",
    "gopher": "gopher://127.0.0.1:6379/_SET",
    "ftp": "ftp://10.0.0.1/x",
    "no scheme": "//169.254.169.254/x",
    "backslashes": "\\\\169.254.169.254\\x",
    "a path upwards": "../../../169.254.169.254",
    "a path upwards, encoded": "%2e%2e/%2e%2e/admin",
    "a query": "a/b?x=@169.254.169.254",
    "a fragment": "a/b#@169.254.169.254",
    "another line": "a/b HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\nGET /",
    "a zero byte": "a/b\x00.example",
    "a look-alike": "a\uff0fb",
}

HOSTILE = "ab1.-_/:@?#%[]\\ \r\n\x00\u00e9\uff10\uff0f"


@pytest.fixture
def looked_for(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that a connection was wanted to; there is none to be had."""
    names: list[str] = []

    def resolve(host: str | bytes, *_: object, **__: object) -> object:
        names.append(host if isinstance(host, str) else host.decode())
        raise socket.gaierror(socket.EAI_NONAME, "no network here")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return names


def open_hub() -> ModelResolver:
    return HuggingFaceSource(HostPolicy.for_hub("https://huggingface.co"))


def open_github() -> ModelResolver:
    urls = ("https://api.github.com", "https://github.com", "https://raw.githubusercontent.com")
    return GitHubSource(HostPolicy.for_github(*urls), InMemoryRateLimitStore(), site_url=urls[1], raw_url=urls[2])


SOURCES = {"huggingface.co": (open_hub, "owner/model"), "api.github.com": (open_github, "owner/repository")}


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest) -> Opened:
    open_source, name = SOURCES[request.param]
    return request.param, open_source, name


@pytest.mark.parametrize("address", ADDRESSES.values(), ids=ADDRESSES)
def test_an_address_in_a_names_place_is_refused_before_anybody_is_asked(
    source: Opened, looked_for: list[str], address: str
) -> None:
    _, open_source, _ = source
    for name in (address, f"owner/{address}", f"{address}/model"):
        with pytest.raises((InvalidReferenceError, InvalidRepositoryError)):
            open_source().resolve(name, "main")
    assert looked_for == []


@pytest.mark.parametrize("address", ADDRESSES.values(), ids=ADDRESSES)
def test_an_address_in_a_revisions_place_leads_nowhere(source: Opened, looked_for: list[str], address: str) -> None:
    host, open_source, name = source
    with pytest.raises((InvalidReferenceError, InvalidRepositoryError, SourceUnavailableError)):
        open_source().resolve(name, address)
    assert set(looked_for) <= {host}


def test_the_source_itself_is_looked_for(source: Opened, looked_for: list[str]) -> None:
    host, open_source, name = source
    with pytest.raises(SourceUnavailableError):
        open_source().resolve(name, "main")
    assert set(looked_for) == {host}


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.text(alphabet=HOSTILE, max_size=20),
    revision=st.text(alphabet=HOSTILE, max_size=20),
)
def test_whatever_is_asked_for_only_the_source_is_looked_for(
    source: Opened, looked_for: list[str], name: str, revision: str
) -> None:
    host, open_source, _ = source
    with pytest.raises((InvalidReferenceError, InvalidRepositoryError, SourceUnavailableError)):
        open_source().resolve(name, revision)
    assert set(looked_for) <= {host}
