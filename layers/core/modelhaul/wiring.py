"""The only place that builds adapters. Each is built on first use and kept for the warm starts that follow.

Imports are inside the functions, so that a function loads only what it uses.
"""

from __future__ import annotations  # the types of results are not loaded

import os
import time
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from modelhaul.domain.models import Source

if TYPE_CHECKING:
    from pynamodb.connection import Connection

    from modelhaul.adapters.idempotency import DynamoDBResponseStore
    from modelhaul.adapters.s3 import S3ObjectStore
    from modelhaul.archives.rules import ArchiveRules
    from modelhaul.catalog.delete import ModelDeleter
    from modelhaul.catalog.read import Catalog
    from modelhaul.domain.tasks import Task
    from modelhaul.imports.accept import ArchiveAcceptor, ArrivalRecorder
    from modelhaul.imports.finish import TaskFinisher
    from modelhaul.imports.notify import EndPublisher
    from modelhaul.imports.outcomes import OutcomeWriter
    from modelhaul.imports.plan import Planner
    from modelhaul.imports.publish import Publisher
    from modelhaul.imports.retry import StepRunner
    from modelhaul.imports.submit import ImportSubmitter
    from modelhaul.imports.submit_archive import ArchiveSubmitter
    from modelhaul.imports.sweep import Sweeper
    from modelhaul.imports.transfer import Transferrer
    from modelhaul.ports.archive_store import ArchiveStore
    from modelhaul.ports.content import ContentIndex
    from modelhaul.ports.event_bus import EventBus
    from modelhaul.ports.files import FileRepository
    from modelhaul.ports.imports import ImportRepository
    from modelhaul.ports.message_queue import MessageQueue
    from modelhaul.ports.metrics import Metrics
    from modelhaul.ports.model_sources import ModelResolver, ModelSource
    from modelhaul.ports.models import ModelRepository
    from modelhaul.ports.multipart_uploads import MultipartUploads
    from modelhaul.ports.object_store import ObjectStore
    from modelhaul.ports.pickle_scanner import PickleScanner
    from modelhaul.ports.secret_store import SecretStore
    from modelhaul.ports.tasks import TaskRepository
    from modelhaul_sources.github import GitHubSource
    from modelhaul_sources.huggingface import HuggingFaceSource


def build_early(*builders: Callable[[], object]) -> None:
    """Builds while Lambda loads the function, with a whole CPU: a request has 0.3 of one at 512 MB.

    Elsewhere nothing is built before it is used, as in tests, which set the environment later.
    """
    if "AWS_LAMBDA_FUNCTION_NAME" in os.environ:
        for build in builders:
            build()


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

    return DynamoDBTaskRepository(open_database(), tasks_table=TaskSettings.read().tasks_table)


@cache
def create_models() -> ModelRepository:
    from modelhaul.adapters.dynamodb.models import DynamoDBModelRepository
    from modelhaul.settings import ModelSettings

    return DynamoDBModelRepository(open_database(), models_table=ModelSettings.read().models_table)


@cache
def create_imports() -> ImportRepository:
    from modelhaul.adapters.dynamodb.imports import DynamoDBImportRepository
    from modelhaul.settings import ImportSettings

    settings = ImportSettings.read()
    return DynamoDBImportRepository(
        open_database(), tasks_table=settings.tasks_table, models_table=settings.models_table
    )


@cache
def create_files() -> FileRepository:
    from modelhaul.adapters.dynamodb.files import DynamoDBFileRepository
    from modelhaul.settings import FileSettings

    settings = FileSettings.read()
    return DynamoDBFileRepository(open_database(), tasks_table=settings.tasks_table, files_table=settings.files_table)


@cache
def create_content() -> ContentIndex:
    from modelhaul.adapters.dynamodb.content import DynamoDBContentIndex
    from modelhaul.settings import ContentSettings

    return DynamoDBContentIndex(open_database(), blobs_table=ContentSettings.read().blobs_table)


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
    from modelhaul.domain.messages import AcceptArchive, Message, PlanImport, PublishModels, TransferFiles
    from modelhaul.settings import QueueSettings

    settings = QueueSettings.read()
    urls: dict[type[Message], str | None] = {
        AcceptArchive: settings.archive_queue_url,
        PlanImport: settings.plan_queue_url,
        TransferFiles: settings.transfer_queue_url,
        PublishModels: settings.publish_queue_url,
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


def open_resolver(source: Source) -> ModelResolver:
    if source is Source.LOCAL:
        raise ValueError(f"no names are resolved at {source}")
    return open_github() if source is Source.GITHUB else open_hub()


def open_source(task: Task) -> ModelSource:
    if task.archive is None:
        return open_github() if task.source is Source.GITHUB else open_hub()
    from modelhaul.archives.source import ArchiveSource

    return ArchiveSource(create_archives(), task.archive, read_archive_rules().limits)


@cache
def open_hub() -> HuggingFaceSource:
    from modelhaul.settings import HuggingFaceSettings
    from modelhaul_sources.hosts import HostPolicy
    from modelhaul_sources.huggingface import HuggingFaceSource

    settings = HuggingFaceSettings.read()
    policy = HostPolicy.for_hub(
        settings.huggingface_endpoint, allowed_hosts=settings.allowed_hosts, local_mode=settings.local_mode
    )
    secret_id = settings.huggingface_token_secret
    if not secret_id:
        return HuggingFaceSource(policy)
    secrets = create_secrets()
    return HuggingFaceSource(policy, token=lambda: secrets.read_secret(secret_id).strip())


@cache
def load_hub_client() -> None:
    """The greatest part of what resolving a model's name at the Hub needs."""
    open_hub().load_client()


@cache
def open_github() -> GitHubSource:
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
    )


@cache
def create_secrets() -> SecretStore:
    from modelhaul.adapters.secrets import SecretsManagerSecretStore, create_secrets_client
    from modelhaul.settings import RegionSettings

    return SecretsManagerSecretStore(create_secrets_client(RegionSettings.read().aws_region))


@cache
def create_response_store() -> DynamoDBResponseStore:
    from modelhaul.adapters.idempotency import DynamoDBResponseStore
    from modelhaul.settings import IdempotencySettings

    settings = IdempotencySettings.read()
    return DynamoDBResponseStore(settings.idempotency_table, region=settings.aws_region)


@cache
def create_submitter() -> ImportSubmitter:
    from modelhaul.imports.submit import ImportSubmitter

    return ImportSubmitter(create_imports(), create_queue(), open_resolver, create_metrics(), time.time)


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


@cache
def create_archive_submitter() -> ArchiveSubmitter:
    from modelhaul.imports.submit_archive import ArchiveSubmitter

    rules = read_archive_rules()
    return ArchiveSubmitter(
        create_tasks(), create_imports(), create_archives(), create_queue(), create_metrics(), time.time, rules
    )


@cache
def create_arrival_recorder() -> ArrivalRecorder:
    from modelhaul.imports.accept import ArrivalRecorder

    return ArrivalRecorder(create_tasks(), create_archives(), time.time)


@cache
def create_acceptor() -> ArchiveAcceptor:
    from modelhaul.imports.accept import ArchiveAcceptor

    rules = read_archive_rules()
    return ArchiveAcceptor(
        create_tasks(),
        create_imports(),
        create_archives(),
        create_queue(),
        time.time,
        rules,
        outcomes=create_outcomes(),
    )


@cache
def create_outcomes() -> OutcomeWriter:
    from modelhaul.imports.outcomes import OutcomeWriter
    from modelhaul.settings import StoreSettings

    return OutcomeWriter(create_models(), create_archives(), StoreSettings.read().models_bucket)


@cache
def create_finisher() -> TaskFinisher:
    from modelhaul.imports.finish import TaskFinisher

    return TaskFinisher(
        create_tasks(),
        create_models(),
        create_imports(),
        create_files(),
        create_store(),
        create_uploads(),
        create_archives(),
        create_metrics(),
        time.time,
        outcomes=create_outcomes(),
    )


@cache
def create_catalog() -> Catalog:
    from modelhaul.catalog.read import Catalog

    return Catalog(create_models(), create_store())


@cache
def create_deleter() -> ModelDeleter:
    from modelhaul.catalog.delete import ModelDeleter

    return ModelDeleter(create_models(), create_content(), create_store(), create_metrics(), time.time)


@cache
def create_runner() -> StepRunner:
    from modelhaul.imports.retry import StepRunner

    return StepRunner(create_tasks(), create_files(), create_queue(), create_finisher(), create_metrics(), time.time)


@cache
def create_planner() -> Planner:
    from modelhaul.imports.plan import Planner

    rules = read_archive_rules()
    return Planner(
        create_tasks(), create_models(), create_files(), create_queue(), open_source, time.time, rules.required_files
    )


@cache
def create_transferrer() -> Transferrer:
    from modelhaul.imports.transfer import Transferrer

    return Transferrer(
        create_tasks(),
        create_models(),
        create_files(),
        create_content(),
        create_store(),
        create_uploads(),
        create_queue(),
        open_source,
        create_metrics(),
        time.time,
    )


@cache
def create_publisher() -> Publisher:
    from modelhaul.imports.publish import Publisher
    from modelhaul.inspection.gate import Gate
    from modelhaul.settings import GateSettings

    return Publisher(
        create_tasks(),
        create_models(),
        create_imports(),
        create_files(),
        create_content(),
        create_store(),
        create_uploads(),
        create_archives(),
        create_queue(),
        create_metrics(),
        time.time,
        finisher=create_finisher(),
        outcomes=create_outcomes(),
        gate=Gate(create_store(), GateSettings.read().pickle_policy, create_pickle_scanner(), time.time),
    )


@cache
def create_pickle_scanner() -> PickleScanner:
    from modelhaul_scanner.process import ModelauditPickleScanner

    return ModelauditPickleScanner()


@cache
def create_sweeper() -> Sweeper:
    from modelhaul.imports.sweep import Sweeper

    return Sweeper(
        create_tasks(), create_files(), create_queue(), create_finisher(), create_deleter(), create_metrics(), time.time
    )


@cache
def create_end_publisher() -> EndPublisher:
    from modelhaul.imports.notify import EndPublisher
    from modelhaul.settings import StoreSettings

    return EndPublisher(create_tasks(), create_models(), create_event_bus(), StoreSettings.read().models_bucket)
