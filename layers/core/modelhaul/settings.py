"""What functions read from their environment. Nothing here has a default that could hide a missing resource."""

import os
from typing import Self

from pydantic import BaseModel, ConfigDict, field_validator

from modelhaul.domain.gate import PicklePolicy
from modelhaul.domain.required_files import RequiredFiles


class Settings(BaseModel):
    # The input is the whole environment, in which Lambda keeps the function's credentials.
    model_config = ConfigDict(frozen=True, alias_generator=str.upper, hide_input_in_errors=True)

    @classmethod
    def read(cls) -> Self:
        """Raises pydantic.ValidationError that names the variables which are missing or wrong."""
        return cls.model_validate(dict(os.environ))


class CorsSettings(Settings):
    """The origin whose pages may read answers in a browser; none if it is empty."""

    cors_allow_origin: str = ""


class RegionSettings(Settings):
    aws_region: str


class TaskSettings(RegionSettings):
    tasks_table: str


class ModelSettings(RegionSettings):
    models_table: str


class ImportSettings(TaskSettings, ModelSettings):
    pass


class FileSettings(TaskSettings):
    files_table: str


class ContentSettings(RegionSettings):
    blobs_table: str


class IdempotencySettings(RegionSettings):
    idempotency_table: str


class StoreSettings(RegionSettings):
    models_bucket: str


class IncomingSettings(RegionSettings):
    incoming_bucket: str


class ArchiveSettings(RegionSettings):
    """Sizes in bytes, inflated; see the template's parameters."""

    archive_max_entries: int
    archive_max_entry_bytes: int
    archive_max_total_bytes: int
    archive_max_ratio: int
    required_files: RequiredFiles


class GateSettings(RegionSettings):
    pickle_policy: PicklePolicy


class QueueSettings(RegionSettings):
    """A function has the addresses of the queues that it may send to, and no others."""

    archive_queue_url: str | None = None
    plan_queue_url: str | None = None
    transfer_queue_url: str | None = None
    publish_queue_url: str | None = None


class SourceSettings(RegionSettings):
    """`allowed_hosts`: further hosts that redirects may lead to, separated by commas."""

    allowed_hosts: tuple[str, ...]
    local_mode: bool

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(h.strip() for h in value.split(",") if h.strip()) if isinstance(value, str) else value


class HuggingFaceSettings(SourceSettings):
    huggingface_endpoint: str
    huggingface_token_secret: str


class GitHubSettings(SourceSettings):
    """`github_raw_url` may be empty: files then come from the API."""

    github_api_url: str
    github_url: str
    github_raw_url: str
    github_token_secret: str
    rate_limits_table: str
