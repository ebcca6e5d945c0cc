"""Builds the adapters of AWS services from the settings of a function."""

from __future__ import annotations  # the types of results are not loaded

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pynamodb.connection import Connection

    from modelhaul.adapters.dynamodb.audit_items import AuditWriter
    from modelhaul.adapters.dynamodb.files import DynamoDBFileRepository
    from modelhaul.adapters.idempotency import DynamoDBResponseStore
    from modelhaul.adapters.s3 import S3ObjectStore
    from modelhaul.policy.reader import PolicyReader
    from modelhaul.ports.archive_store import ArchiveStore
    from modelhaul.ports.audit_log import AuditLog, AuditReader
    from modelhaul.ports.content import ContentIndex
    from modelhaul.ports.event_bus import EventBus
    from modelhaul.ports.files import FileRepository, GroupLeases
    from modelhaul.ports.follows import FollowChecks, FollowRepository
    from modelhaul.ports.hub_models import HubModelRepository
    from modelhaul.ports.imports import ImportRepository
    from modelhaul.ports.message_queue import MessageQueue
    from modelhaul.ports.metrics import Metrics
    from modelhaul.ports.models import ModelRepository
    from modelhaul.ports.multipart_uploads import MultipartUploads
    from modelhaul.ports.object_store import ObjectStore
    from modelhaul.ports.quotas import QuotaRepository
    from modelhaul.ports.read_keys import ReadKeyRepository
    from modelhaul.ports.secret_store import SecretStore
    from modelhaul.ports.segments import SegmentRepository
    from modelhaul.ports.signing_key import SigningKey
    from modelhaul.ports.tasks import TaskRepository


@cache
def open_database() -> Connection:
    """The client that all tables of a function share."""
    from modelhaul.adapters.dynamodb.connection import open_connection
    from modelhaul.settings import RegionSettings

    return open_connection(RegionSettings.read().aws_region)


@cache
def create_tasks() -> TaskRepository:
    from modelhaul.adapters.dynamodb.tasks import DynamoDBTaskRepository
    from modelhaul.settings import TaskSettings

    return DynamoDBTaskRepository(open_database(), tasks_table=TaskSettings.read().tasks_table, audit=find_audit())


@cache
def create_models() -> ModelRepository:
    from modelhaul.adapters.dynamodb.models import DynamoDBModelRepository
    from modelhaul.settings import ModelSettings

    return DynamoDBModelRepository(open_database(), models_table=ModelSettings.read().models_table, audit=find_audit())


@cache
def create_quotas() -> QuotaRepository:
    from modelhaul.adapters.dynamodb.quotas import DynamoDBQuotaRepository
    from modelhaul.settings import ModelSettings

    return DynamoDBQuotaRepository(open_database(), models_table=ModelSettings.read().models_table)


@cache
def create_hub_models() -> HubModelRepository:
    from modelhaul.adapters.dynamodb.hub_models import DynamoDBHubModelRepository
    from modelhaul.settings import ModelSettings

    return DynamoDBHubModelRepository(open_database(), models_table=ModelSettings.read().models_table)


@cache
def create_read_keys() -> ReadKeyRepository:
    from modelhaul.adapters.dynamodb.read_keys import DynamoDBReadKeyRepository
    from modelhaul.settings import KeySettings

    return DynamoDBReadKeyRepository(open_database(), keys_table=KeySettings.read().keys_table, audit=find_audit())


@cache
def create_follows() -> FollowRepository:
    from modelhaul.adapters.dynamodb.follows import DynamoDBFollowRepository
    from modelhaul.settings import FollowSettings

    table = FollowSettings.read().follows_table
    return DynamoDBFollowRepository(open_database(), follows_table=table, audit=find_audit())


@cache
def create_follow_checks() -> FollowChecks:
    from modelhaul.adapters.follow_checks import LambdaFollowChecks, create_lambda_client
    from modelhaul.settings import FollowCheckSettings

    settings = FollowCheckSettings.read()
    return LambdaFollowChecks(create_lambda_client(settings.aws_region), settings.check_follows_function)


@cache
def create_audit_log() -> AuditLog:
    from modelhaul.adapters.dynamodb.audit import DynamoDBAuditLog
    from modelhaul.ports.audit_log import DisabledAuditLog
    from modelhaul.settings import AuditSettings

    return DynamoDBAuditLog(open_audit()) if AuditSettings.read().audit_retention_days else DisabledAuditLog()


@cache
def create_audit_reader() -> AuditReader:
    from modelhaul.adapters.dynamodb.audit import DynamoDBAuditReader
    from modelhaul.settings import AuditSettings

    return DynamoDBAuditReader(open_database(), audit_table=AuditSettings.read().audit_table)


def find_audit() -> AuditWriter | None:
    """What writes entries in the transactions of other tables, None in a function that may not record entries."""
    from modelhaul.settings import RecordingSettings

    return open_audit() if RecordingSettings.read().audit_table else None


@cache
def open_audit() -> AuditWriter:
    from modelhaul.adapters.dynamodb.audit_items import AuditWriter
    from modelhaul.settings import AuditSettings

    settings = AuditSettings.read()
    return AuditWriter(open_database(), audit_table=settings.audit_table, retention_days=settings.audit_retention_days)


@cache
def create_imports() -> ImportRepository:
    from modelhaul.adapters.dynamodb.imports import DynamoDBImportRepository
    from modelhaul.settings import ImportSettings

    settings = ImportSettings.read()
    return DynamoDBImportRepository(
        open_database(),
        tasks_table=settings.tasks_table,
        models_table=settings.models_table,
        audit=find_audit(),
    )


def create_files() -> FileRepository:
    return _open_files()


def create_leases() -> GroupLeases:
    return _open_files()


@cache
def _open_files() -> DynamoDBFileRepository:
    from modelhaul.adapters.dynamodb.files import DynamoDBFileRepository
    from modelhaul.settings import FileSettings

    return DynamoDBFileRepository(open_database(), files_table=FileSettings.read().files_table)


@cache
def create_segments() -> SegmentRepository:
    from modelhaul.adapters.dynamodb.segments import DynamoDBSegmentRepository
    from modelhaul.settings import FileSettings

    return DynamoDBSegmentRepository(open_database(), files_table=FileSettings.read().files_table)


@cache
def create_content() -> ContentIndex:
    from modelhaul.adapters.dynamodb.content import DynamoDBContentIndex
    from modelhaul.settings import ContentSettings

    settings = ContentSettings.read()
    return DynamoDBContentIndex(open_database(), content_table=settings.content_table, blobs_table=settings.blobs_table)


def create_store() -> ObjectStore:
    return _open_models_bucket()


def create_uploads() -> MultipartUploads:
    return _open_models_bucket()


@cache
def _open_models_bucket() -> S3ObjectStore:
    from modelhaul.adapters.s3 import S3ObjectStore
    from modelhaul.adapters.s3_client import create_s3_client
    from modelhaul.settings import StoreSettings

    settings = StoreSettings.read()
    return S3ObjectStore(create_s3_client(settings.aws_region), settings.models_bucket)


@cache
def create_archives() -> ArchiveStore:
    from modelhaul.adapters.archives import S3ArchiveStore
    from modelhaul.adapters.s3_client import create_s3_client
    from modelhaul.settings import IncomingSettings

    settings = IncomingSettings.read()
    return S3ArchiveStore(create_s3_client(settings.aws_region), settings.incoming_bucket)


@cache
def create_queue() -> MessageQueue:
    from modelhaul.adapters.sqs import SQSMessageQueue, create_sqs_client
    from modelhaul.domain.messages import (
        AcceptArchive,
        CopyFiles,
        JoinTransfer,
        Message,
        PlanImport,
        PublishModels,
        TransferFiles,
    )
    from modelhaul.settings import QueueSettings

    settings = QueueSettings.read()
    urls: dict[type[Message], str | None] = {
        AcceptArchive: settings.archive_queue_url,
        PlanImport: settings.plan_queue_url,
        TransferFiles: settings.transfer_queue_url,
        JoinTransfer: settings.transfer_queue_url,
        PublishModels: settings.publish_queue_url,
        CopyFiles: settings.publish_queue_url,
    }
    client = create_sqs_client(settings.aws_region)
    return SQSMessageQueue(client, {kind: url for kind, url in urls.items() if url})


@cache
def create_event_bus() -> EventBus:
    from modelhaul.adapters.eventbridge import EventBridgeEventBus, create_events_client
    from modelhaul.settings import RegionSettings

    return EventBridgeEventBus(create_events_client(RegionSettings.read().aws_region))


@cache
def create_metrics() -> Metrics:
    from modelhaul.adapters.metrics import PowertoolsMetrics

    return PowertoolsMetrics()


@cache
def create_secrets() -> SecretStore:
    from modelhaul.adapters.secrets import SecretsManagerSecretStore, create_secrets_client
    from modelhaul.settings import RegionSettings

    return SecretsManagerSecretStore(create_secrets_client(RegionSettings.read().aws_region))


@cache
def create_signing_key(arn: str) -> SigningKey:
    """The key with this ARN, which may be in another region or account."""
    from modelhaul.adapters.kms import KmsSigningKey, create_kms_client

    return KmsSigningKey(create_kms_client(arn.split(":")[3]), arn)


@cache
def create_policy_reader() -> PolicyReader | None:
    """The reader of the policy, None if the stack has no policy."""
    from modelhaul.ports.audit_log import DisabledAuditLog
    from modelhaul.settings import PolicySettings, RecordingSettings

    settings = PolicySettings.read()
    location = settings.policy_location
    if not location:
        return None
    from modelhaul.adapters.policy_stores import open_policy_store
    from modelhaul.policy.reader import PolicyReader

    audit = create_audit_log() if RecordingSettings.read().audit_table else DisabledAuditLog()
    return PolicyReader(open_policy_store(location, settings.aws_region), audit=audit)


@cache
def create_response_store() -> DynamoDBResponseStore:
    from modelhaul.adapters.idempotency import DynamoDBResponseStore
    from modelhaul.settings import IdempotencySettings

    settings = IdempotencySettings.read()
    return DynamoDBResponseStore(settings.idempotency_table, region=settings.aws_region)
