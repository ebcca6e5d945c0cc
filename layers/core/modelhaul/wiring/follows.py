"""Builds what creates, changes and checks follows."""

from __future__ import annotations  # the types of results are not loaded

import time
from functools import cache
from typing import TYPE_CHECKING

from modelhaul.domain.models import Source
from modelhaul.wiring.adapters import (
    create_follow_checks,
    create_follows,
    create_models,
    open_database,
)
from modelhaul.wiring.sources import open_github_resolver, open_hub, open_resolver
from modelhaul.wiring.steps import create_submitter

if TYPE_CHECKING:
    from modelhaul.imports.check_follows import FollowChecker
    from modelhaul.imports.follow import CheckStarter, Follower
    from modelhaul.ports.model_sources import FollowedSource

# Checks in a run, which the sweep starts every five minutes. Without a token, GitHub allows 60 requests an hour.
_MAX_CHECKS = 50
_MAX_ANONYMOUS_CHECKS = 2


@cache
def create_check_starter() -> CheckStarter:
    from modelhaul.imports.follow import CheckStarter

    return CheckStarter(create_follows(), create_follow_checks(), time.time)


@cache
def create_follower() -> Follower:
    from modelhaul.imports.follow import Follower

    return Follower(create_follows(), open_resolver, create_check_starter(), time.time)


@cache
def create_follow_checker() -> FollowChecker:
    from modelhaul.adapters.dynamodb.rate_limits import DynamoDBRateLimitStore
    from modelhaul.imports.check_follows import FollowChecker
    from modelhaul.settings import GitHubSettings

    settings = GitHubSettings.read()
    return FollowChecker(
        create_follows(),
        create_models(),
        create_submitter(),
        _open_source,
        DynamoDBRateLimitStore(open_database(), rate_limits_table=settings.rate_limits_table),
        time.time,
        {
            Source.HUGGINGFACE: _MAX_CHECKS,
            Source.GITHUB: _MAX_CHECKS if settings.github_token_secret else _MAX_ANONYMOUS_CHECKS,
        },
    )


def _open_source(source: Source) -> FollowedSource:
    return open_github_resolver() if source is Source.GITHUB else open_hub()
