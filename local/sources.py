"""The Hub and GitHub that a local stack imports from."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import requests

from local.errors import LocalStackError

SAMPLE_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
LOOPBACK_REPOSITORY = "samples/all-MiniLM-L6-v2"
# `make run` does not import these. The commands that it prints do.
OTHER_MODEL = "sentence-transformers/paraphrase-MiniLM-L3-v2"
LOOPBACK_OTHER_MODEL = "tests/sharded-model"
LOOPBACK_OTHER_REPOSITORY = "tests/small-model"
PROBE_TIMEOUT = 3  # seconds

Upstream = Literal["auto", "internet", "loopback"]

_PUBLIC = "public server"
_CONFIGURED = "configured server"
_LOOPBACK = "local test server"


@dataclass(frozen=True)
class SourceUrls:
    """`github_raw` may be empty although `github_api` is set: files are then read from the REST API."""

    hub: str = ""
    github_api: str = ""
    github: str = ""
    github_raw: str = ""


INTERNET = SourceUrls(
    "https://huggingface.co", "https://api.github.com", "https://github.com", "https://raw.githubusercontent.com"
)


@dataclass(frozen=True)
class Sources:
    urls: SourceUrls
    hub_description: str
    github_description: str
    other_model: str = OTHER_MODEL
    sample_repository: str = ""
    other_repository: str = ""

    def describe(self) -> Iterator[str]:
        yield f"Hugging Face Hub: {self.urls.hub} ({self.hub_description})"
        yield f"GitHub: {self.urls.github_api} ({self.github_description})"


def choose_sources(
    upstream: Upstream, configured: SourceUrls, start_loopback: Callable[[], Mapping[str, str]]
) -> Sources:
    """Return the configured sources, or those that `upstream` selects. `auto` selects the public Hub and GitHub if the
    public Hub is reachable, or else the loopback servers.

    Raises LocalStackError for an invalid URL.
    """
    check_urls(configured)
    if configured.hub and configured.github_api:
        return Sources(configured, _CONFIGURED, _CONFIGURED)
    loopback: Mapping[str, str] = {}
    reason = ""
    if upstream == "loopback" or (upstream == "auto" and not is_available(f"{INTERNET.hub}/api/models/{SAMPLE_MODEL}")):
        loopback = start_loopback()
        reason = ",\n  because huggingface.co is unreachable and UPSTREAM=auto" if upstream == "auto" else ""
    hub, hub_description, other_model = INTERNET.hub, _PUBLIC, OTHER_MODEL
    if configured.hub:
        hub, hub_description = configured.hub.rstrip("/"), _CONFIGURED
    elif loopback:
        hub, hub_description, other_model = loopback["hub"], f"{_LOOPBACK}{reason}", LOOPBACK_OTHER_MODEL
    if configured.github_api:
        urls = SourceUrls(
            hub, *(url.rstrip("/") for url in (configured.github_api, configured.github, configured.github_raw))
        )
        return Sources(urls, hub_description, _CONFIGURED, other_model)
    if "github_api" in loopback:
        urls = SourceUrls(hub, loopback["github_api"], loopback["github"], loopback["github_raw"])
        description = f"{_LOOPBACK}{reason}"
        return Sources(urls, hub_description, description, other_model, LOOPBACK_REPOSITORY, LOOPBACK_OTHER_REPOSITORY)
    lacks = loopback.get("github_lacks")
    reason = f",\n  because the local test server requires tools that are not installed: {lacks}" if lacks else ""
    urls = SourceUrls(hub, INTERNET.github_api, INTERNET.github, INTERNET.github_raw)
    return Sources(urls, hub_description, f"{_PUBLIC}{reason}", other_model)


def check_urls(configured: SourceUrls) -> None:
    """Raise LocalStackError for an invalid or missing URL."""
    variables = {
        "HF_ENDPOINT": configured.hub,
        "GITHUB_API_URL": configured.github_api,
        "GITHUB_URL": configured.github,
        "GITHUB_RAW_URL": configured.github_raw,
    }
    for name, url in variables.items():
        if url and not re.match(r"https?://[^/]", url):
            raise LocalStackError(f"{name} must be an HTTP or HTTPS URL, not {url!r}.")
    if bool(configured.github_api) != bool(configured.github) or (configured.github_raw and not configured.github):
        raise LocalStackError(
            "GITHUB_API_URL and GITHUB_URL must be set together. GITHUB_RAW_URL is optional and requires both."
        )


def is_available(url: str) -> bool:
    try:
        return requests.get(url, timeout=PROBE_TIMEOUT).ok
    except requests.RequestException:
        return False
