"""Which Hub and which GitHub a local stack imports from."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import requests

from local.errors import LocalStackError

SAMPLE_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
LOOPBACK_REPOSITORY = "samples/all-MiniLM-L6-v2"
RESPONSE_SECONDS = 3

Upstream = Literal["auto", "internet", "loopback"]


@dataclass(frozen=True)
class Addresses:
    """`github_raw` may be empty where GitHub's is not: its files then come from the API."""

    hub: str = ""
    github_api: str = ""
    github: str = ""
    github_raw: str = ""


INTERNET = Addresses(
    "https://huggingface.co", "https://api.github.com", "https://github.com", "https://raw.githubusercontent.com"
)


@dataclass(frozen=True)
class Sources:
    addresses: Addresses
    hub_description: str
    github_description: str
    sample_repository: str

    def describe(self) -> Iterator[str]:
        yield f"Hub: {self.hub_description} ({self.addresses.hub})"
        yield f"GitHub: {self.github_description} ({self.addresses.github_api})"


def choose_sources(upstream: Upstream, asked: Addresses, start_loopback: Callable[[], Mapping[str, str]]) -> Sources:
    """What was asked for, else as `upstream` says: `auto` takes the internet's if the real Hub answers.

    Raises LocalStackError for what is no address.
    """
    check_addresses(asked)
    if asked.hub and asked.github_api:
        return Sources(asked, "the one asked for", "the one asked for", "")
    loopback: Mapping[str, str] = {}
    reason = ""
    if upstream == "loopback" or (upstream == "auto" and not answers(f"{INTERNET.hub}/api/models/{SAMPLE_MODEL}")):
        loopback = start_loopback()
        reason = " (the real one does not answer)" if upstream == "auto" else ""
    hub, hub_description = INTERNET.hub, "the real one"
    if asked.hub:
        hub, hub_description = asked.hub.rstrip("/"), "the one asked for"
    elif loopback:
        hub, hub_description = loopback["hub"], f"the loopback one of the tests{reason}"
    if asked.github_api:
        chosen = Addresses(hub, asked.github_api.rstrip("/"), asked.github.rstrip("/"), asked.github_raw.rstrip("/"))
        return Sources(chosen, hub_description, "the one asked for", "")
    if "github_api" in loopback:
        chosen = Addresses(hub, loopback["github_api"], loopback["github"], loopback["github_raw"])
        return Sources(chosen, hub_description, f"the loopback one of the tests{reason}", LOOPBACK_REPOSITORY)
    lacks = f", since the loopback one needs {loopback['github_lacks']}" if "github_lacks" in loopback else ""
    chosen = Addresses(hub, INTERNET.github_api, INTERNET.github, INTERNET.github_raw)
    return Sources(chosen, hub_description, f"the real one{lacks}", "")


def check_addresses(asked: Addresses) -> None:
    named = {
        "HF_ENDPOINT": asked.hub,
        "GITHUB_API_URL": asked.github_api,
        "GITHUB_URL": asked.github,
        "GITHUB_RAW_URL": asked.github_raw,
    }
    for name, address in named.items():
        if address and not re.match(r"https?://[^/]", address):
            raise LocalStackError(f"{name} must be an http or https address, not {address!r}")
    if bool(asked.github_api) != bool(asked.github) or (asked.github_raw and not asked.github):
        raise LocalStackError("GITHUB_API_URL and GITHUB_URL go together; GITHUB_RAW_URL may be added to them")


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=RESPONSE_SECONDS).ok
    except requests.RequestException:
        return False
