"""The real source, for a loopback GitHub."""

import time
from collections.abc import Callable

from modelhaul.ports.clock import Clock
from modelhaul.ports.rate_limits import RateLimitStore
from modelhaul_sources.github import GitHubSource
from modelhaul_sources.hosts import HostPolicy
from modelhaul_sources.http_client import DEFAULT_TIMEOUTS, Timeouts
from tests.fakes.rate_limit_store import InMemoryRateLimitStore
from tests.upstream.github import LoopbackGitHub


def open_github(
    github: LoopbackGitHub,
    *,
    limits: RateLimitStore | None = None,
    token: Callable[[], str | None] | None = None,
    raw: bool = True,
    timeouts: Timeouts = DEFAULT_TIMEOUTS,
    clock: Clock = time.time,
) -> GitHubSource:
    urls = (github.site_url, github.raw_url)
    return GitHubSource(
        HostPolicy.for_github(github.api_url, *urls, local_mode=True),
        limits or InMemoryRateLimitStore(),
        site_url=github.site_url,
        raw_url=github.raw_url if raw else "",
        token=token,
        timeouts=timeouts,
        clock=clock,
    )
