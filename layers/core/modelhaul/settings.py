"""Settings that functions read from environment variables. No default value may hide a missing resource."""

import os
from decimal import Decimal
from typing import Self

from pydantic import BaseModel, ConfigDict, field_validator

from modelhaul.domain.gate import PicklePolicy
from modelhaul.domain.hub_models import MissPolicy
from modelhaul.domain.required_files import RequiredFiles


class Settings(BaseModel):
    """Base class of settings. Each field is read from the environment variable of the same name in upper case."""

    # The input is the whole environment, which contains the function's credentials.
    model_config = ConfigDict(frozen=True, alias_generator=str.upper, hide_input_in_errors=True)

    @classmethod
    def read(cls) -> Self:
        """Read the settings. Raises pydantic.ValidationError with the names of missing or invalid variables."""
        return cls.model_validate(dict(os.environ))


class CorsSettings(Settings):
    """Allowed origin of cross-origin requests from browsers. Empty: no origin is allowed."""

    cors_allow_origin: str = ""


class PageSettings(Settings):
    """`download_origins`: origins of presigned URLs, separated by spaces, with `*` in place of the bucket's name.

    `aws_endpoint_url`: the origin of all URLs in the local stack.
    """

    download_origins: str
    aws_endpoint_url: str = ""


class LocalSettings(Settings):
    """`local_mode`: whether the function runs in the local stack."""

    local_mode: bool = False


class RegionSettings(Settings):
    aws_region: str


class TaskSettings(RegionSettings):
    tasks_table: str


class ModelSettings(RegionSettings):
    models_table: str


class ImportSettings(TaskSettings, ModelSettings):
    pass


class FileSettings(RegionSettings):
    files_table: str


class ContentSettings(RegionSettings):
    content_table: str
    blobs_table: str


class KeySettings(RegionSettings):
    keys_table: str


class FollowSettings(RegionSettings):
    follows_table: str


class FollowCheckSettings(RegionSettings):
    """`check_follows_function`: name of the function that checks due follows."""

    check_follows_function: str


class AuditSettings(RegionSettings):
    """`audit_retention_days`: days for which entries are kept. 0: none is recorded."""

    audit_table: str
    audit_retention_days: int


class RecordingSettings(Settings):
    """`audit_table`: None in a function that may not record entries."""

    audit_table: str | None = None


class IdempotencySettings(RegionSettings):
    idempotency_table: str


class HubUrlSettings(Settings):
    """`hub_url`: URL of the Hub read API."""

    hub_url: str


class StoreSettings(RegionSettings):
    models_bucket: str


class ConsoleSettings(StoreSettings):
    """`cancel_from_console_function`: name of the function that cancels imports for the dashboard."""

    cancel_from_console_function: str


class StackSettings(Settings):
    """`stack_name`: name of the CloudFormation stack."""

    stack_name: str


class EventSettings(StackSettings, StoreSettings):
    pass


class SourceUrlSettings(Settings):
    """Web URLs of the sources."""

    huggingface_endpoint: str
    github_url: str


class SigningSettings(Settings):
    """`signing_key_arn`: ARN of the KMS key that signs models. Empty: models are not signed."""

    signing_key_arn: str


class PolicySettings(RegionSettings):
    """`policy_location`: address of the policy document. Empty: the stack has no policy."""

    policy_location: str


class OutageSettings(Settings):
    """`source_outage_hours`: hours that a step waits for a source or an AWS service that does not respond."""

    source_outage_hours: float


class QuotaSettings(Settings):
    """`storage_quota_gb`: most gigabytes (10^9 bytes) of stored models. 0: no quota."""

    storage_quota_gb: Decimal

    @property
    def limit(self) -> int:
        """The quota in bytes."""
        return int(self.storage_quota_gb * 10**9)


class IncomingSettings(RegionSettings):
    incoming_bucket: str


class ArchiveSettings(RegionSettings):
    """Limits of archives. Sizes are in bytes after decompression. The template's parameters describe them."""

    archive_max_entries: int
    archive_max_entry_bytes: int
    archive_max_total_bytes: int
    archive_max_ratio: int
    required_files: RequiredFiles


class GateSettings(RegionSettings):
    pickle_policy: PicklePolicy


class QueueSettings(RegionSettings):
    """Queue URLs. A function has only the URLs of the queues to which it may send messages."""

    archive_queue_url: str | None = None
    plan_queue_url: str | None = None
    transfer_queue_url: str | None = None
    publish_queue_url: str | None = None


class SourceSettings(RegionSettings):
    """`allowed_hosts`: additional hosts to which redirects may lead, separated by commas."""

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
    """`github_raw_url` may be empty. Files are then downloaded from the API."""

    github_api_url: str
    github_url: str
    github_raw_url: str
    github_token_secret: str
    rate_limits_table: str


class HubSettings(RegionSettings):
    hub_on_miss: MissPolicy
    huggingface_endpoint: str


class MissingSettings(RegionSettings):
    """`import_missing_function`: name or ARN of the function that imports a missing model."""

    import_missing_function: str
