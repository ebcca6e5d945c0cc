"""Builds the sources of models, and reads the rules for archives."""

from __future__ import annotations  # the types of results are not loaded

from functools import cache
from typing import TYPE_CHECKING

from modelhaul.domain.models import Source
from modelhaul.wiring.adapters import create_archives, create_secrets, open_database

if TYPE_CHECKING:
    from modelhaul.archives.rules import ArchiveRules
    from modelhaul.domain.tasks import Task
    from modelhaul.ports.model_sources import ModelResolver, ModelSource
    from modelhaul_sources.github import GitHubSource
    from modelhaul_sources.hosts import HostPolicy
    from modelhaul_sources.http_client import Timeouts
    from modelhaul_sources.huggingface import HuggingFaceSource


def open_resolver(source: Source) -> ModelResolver:
    if source is Source.LOCAL:
        raise ValueError(f"no names are resolved at {source}")
    return open_github_resolver() if source is Source.GITHUB else open_hub()


def open_source(task: Task) -> ModelSource:
    if task.archive is None:
        return open_github() if task.source is Source.GITHUB else open_hub()
    from modelhaul.archives.source import ArchiveSource

    return ArchiveSource(create_archives(), task.archive, read_archive_rules().limits)


@cache
def open_hub() -> HuggingFaceSource:
    from modelhaul.settings import HuggingFaceSettings
    from modelhaul_sources.huggingface import HuggingFaceSource

    policy = _read_hub_policy()
    secret_id = HuggingFaceSettings.read().huggingface_token_secret
    if not secret_id:
        return HuggingFaceSource(policy)
    secrets = create_secrets()
    return HuggingFaceSource(policy, token=lambda: secrets.read_secret(secret_id).strip())


@cache
def open_public_hub() -> HuggingFaceSource:
    """The Hub as clients without a token see it."""
    from modelhaul_sources.huggingface import HuggingFaceSource

    return HuggingFaceSource(_read_hub_policy())


def _read_hub_policy() -> HostPolicy:
    from modelhaul.settings import HuggingFaceSettings
    from modelhaul_sources.hosts import HostPolicy

    settings = HuggingFaceSettings.read()
    return HostPolicy.for_hub(
        settings.huggingface_endpoint, allowed_hosts=settings.allowed_hosts, local_mode=settings.local_mode
    )


@cache
def load_hub_client() -> None:
    """The greatest part of what resolving a model's name at the Hub needs."""
    open_hub().load_client()


@cache
def open_github() -> GitHubSource:
    from modelhaul_sources.http_client import DEFAULT_TIMEOUTS

    return _create_github(DEFAULT_TIMEOUTS)


@cache
def open_github_resolver() -> GitHubSource:
    """GitHub for an API request, which must end in time if GitHub does not respond."""
    from modelhaul_sources.github import RESOLVE_TIMEOUTS

    return _create_github(RESOLVE_TIMEOUTS)


def _create_github(timeouts: Timeouts) -> GitHubSource:
    from modelhaul.adapters.dynamodb.rate_limits import DynamoDBRateLimitStore
    from modelhaul.settings import GitHubSettings
    from modelhaul_sources.github import GitHubSource
    from modelhaul_sources.hosts import HostPolicy

    settings = GitHubSettings.read()
    urls = [url for url in (settings.github_url, settings.github_raw_url) if url]
    policy = HostPolicy.for_github(
        settings.github_api_url, *urls, allowed_hosts=settings.allowed_hosts, local_mode=settings.local_mode
    )
    limits = DynamoDBRateLimitStore(open_database(), rate_limits_table=settings.rate_limits_table)
    secret_id = settings.github_token_secret
    return GitHubSource(
        policy,
        limits,
        site_url=settings.github_url,
        raw_url=settings.github_raw_url,
        token=(lambda: create_secrets().read_secret(secret_id).strip()) if secret_id else None,
        timeouts=timeouts,
    )


@cache
def read_archive_rules() -> ArchiveRules:
    from modelhaul.archives.entries import ArchiveLimits
    from modelhaul.archives.rules import ArchiveRules
    from modelhaul.settings import ArchiveSettings

    settings = ArchiveSettings.read()
    limits = ArchiveLimits(
        max_entries=settings.archive_max_entries,
        max_entry_bytes=settings.archive_max_entry_bytes,
        max_total_bytes=settings.archive_max_total_bytes,
        max_ratio=settings.archive_max_ratio,
    )
    return ArchiveRules(limits, settings.required_files)
