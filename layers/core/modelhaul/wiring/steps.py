"""Builds the steps of an import, and what reads and deletes models."""

from __future__ import annotations  # the types of results are not loaded

import os
import time
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from modelhaul.wiring.adapters import (
    create_archives,
    create_audit_log,
    create_audit_reader,
    create_content,
    create_event_bus,
    create_files,
    create_hub_models,
    create_imports,
    create_leases,
    create_metrics,
    create_models,
    create_queue,
    create_quotas,
    create_segments,
    create_signing_key,
    create_store,
    create_tasks,
    create_uploads,
)
from modelhaul.wiring.policies import create_import_policy
from modelhaul.wiring.sources import open_resolver, open_source, read_archive_rules

if TYPE_CHECKING:
    from modelhaul.catalog.audit import EntryPublisher
    from modelhaul.catalog.delete import ModelDeleter
    from modelhaul.catalog.quota import StorageQuota
    from modelhaul.catalog.read import Catalog
    from modelhaul.catalog.usage import UsageReader
    from modelhaul.console.overview import ConsoleReader
    from modelhaul.imports.accept import ArchiveAcceptor, ArrivalRecorder
    from modelhaul.imports.copy import CopyStep, FileCopier
    from modelhaul.imports.finish import TaskFinisher
    from modelhaul.imports.join import TransferJoiner
    from modelhaul.imports.notify import EndPublisher
    from modelhaul.imports.outcomes import OutcomeWriter
    from modelhaul.imports.plan import Planner
    from modelhaul.imports.publish import Publisher
    from modelhaul.imports.retry import StepRunner
    from modelhaul.imports.submit import ImportSubmitter
    from modelhaul.imports.submit_archive import ArchiveSubmitter
    from modelhaul.imports.sweep import Sweeper
    from modelhaul.imports.transfer import Transferrer
    from modelhaul.ports.content_checks import ContentChecker
    from modelhaul.ports.pickle_scanner import PickleScanner
    from modelhaul.signing.signer import ModelSigner, PublishedModelSigner


def build_early(*builders: Callable[[], object]) -> None:
    """Builds while Lambda loads the function, with a whole CPU: a request has 0.3 of one at 512 MB.

    Elsewhere nothing is built before it is used, as in tests, which set the environment later.
    """
    if "AWS_LAMBDA_FUNCTION_NAME" in os.environ:
        for build in builders:
            build()


@cache
def create_submitter() -> ImportSubmitter:
    from modelhaul.imports.submit import ImportSubmitter

    return ImportSubmitter(
        create_imports(),
        create_hub_models(),
        create_queue(),
        open_resolver,
        create_metrics(),
        time.time,
        create_models(),
        create_import_policy(),
        quota=create_quota(),
    )


@cache
def create_archive_submitter() -> ArchiveSubmitter:
    from modelhaul.imports.submit_archive import ArchiveSubmitter

    rules = read_archive_rules()
    return ArchiveSubmitter(
        create_tasks(),
        create_imports(),
        create_archives(),
        create_queue(),
        create_metrics(),
        time.time,
        rules,
        create_audit_log(),
        create_models(),
        create_import_policy(),
        quota=create_quota(),
    )


@cache
def create_arrival_recorder() -> ArrivalRecorder:
    from modelhaul.imports.accept import ArrivalRecorder

    return ArrivalRecorder(create_tasks(), create_archives(), create_metrics(), time.time, create_outcomes())


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
        policy=create_import_policy(),
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
        create_segments(),
        create_store(),
        create_uploads(),
        create_archives(),
        create_metrics(),
        time.time,
        outcomes=create_outcomes(),
    )


@cache
def create_catalog() -> Catalog:
    from modelhaul.catalog.bom import SourceUrls
    from modelhaul.catalog.read import Catalog
    from modelhaul.catalog.reads import ReadRecorder
    from modelhaul.settings import SourceUrlSettings, StoreSettings

    store, urls = StoreSettings.read(), SourceUrlSettings.read()
    return Catalog(
        create_models(),
        create_store(),
        store.models_bucket,
        SourceUrls(huggingface=urls.huggingface_endpoint, github=urls.github_url),
        ReadRecorder(create_hub_models(), time.time),
    )


@cache
def create_signer() -> ModelSigner | None:
    """What signs models, None if the stack does not sign them."""
    from modelhaul.settings import SigningSettings
    from modelhaul.signing.signer import ModelSigner

    arn = SigningSettings.read().signing_key_arn
    return ModelSigner(create_signing_key(arn), create_store(), time.time) if arn else None


@cache
def create_published_signer() -> PublishedModelSigner:
    from modelhaul.signing.signer import PublishedModelSigner

    signer = create_signer()
    if signer is None:
        raise ValueError("SIGNING_KEY_ARN is empty.")
    return PublishedModelSigner(create_models(), create_store(), signer)


@cache
def create_quota() -> StorageQuota | None:
    """What limits the stored bytes, None if the stack has no quota."""
    from modelhaul.settings import QuotaSettings

    limit = QuotaSettings.read().limit
    if not limit:
        return None
    from modelhaul.catalog.quota import StorageQuota

    return StorageQuota(limit, create_quotas(), create_tasks(), create_models(), time.time)


@cache
def create_usage_reader() -> UsageReader:
    from modelhaul.catalog.usage import UsageReader

    return UsageReader(create_models(), time.time, create_quota())


@cache
def create_console_reader() -> ConsoleReader:
    from modelhaul.console.overview import ConsoleReader

    return ConsoleReader(create_tasks(), create_models(), create_usage_reader(), time.time)


def load_templates() -> None:
    """Load the templates of the widget."""
    from modelhaul.console.pages import load_templates

    load_templates()


@cache
def create_deleter() -> ModelDeleter:
    from modelhaul.catalog.delete import ModelDeleter

    return ModelDeleter(create_models(), create_content(), create_store(), time.time)


@cache
def create_runner() -> StepRunner:
    from modelhaul.imports.retry import StepRunner
    from modelhaul.settings import OutageSettings

    return StepRunner(
        create_tasks(),
        create_files(),
        create_queue(),
        create_finisher(),
        create_metrics(),
        time.time,
        max_outage=OutageSettings.read().source_outage_hours * 3600,
    )


@cache
def create_planner() -> Planner:
    from modelhaul.imports.plan import Planner

    rules = read_archive_rules()
    return Planner(
        create_tasks(),
        create_models(),
        create_files(),
        create_queue(),
        open_source,
        time.time,
        rules.required_files,
        import_policy=create_import_policy(),
        quota=create_quota(),
    )


@cache
def create_transferrer() -> Transferrer:
    from modelhaul.imports.transfer import Transferrer

    return Transferrer(
        create_tasks(),
        create_models(),
        create_files(),
        create_leases(),
        create_segments(),
        create_content(),
        create_store(),
        create_uploads(),
        create_queue(),
        open_source,
        create_checker,
        create_metrics(),
        time.time,
    )


@cache
def create_joiner() -> TransferJoiner:
    from modelhaul.imports.join import TransferJoiner

    return TransferJoiner(
        create_tasks(),
        create_models(),
        create_files(),
        create_segments(),
        create_uploads(),
        create_queue(),
        open_source,
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
        create_store(),
        create_uploads(),
        create_archives(),
        create_queue(),
        create_metrics(),
        time.time,
        finisher=create_finisher(),
        outcomes=create_outcomes(),
        gate=Gate(create_store(), GateSettings.read().pickle_policy, create_pickle_scanner(), time.time),
        copier=create_copier(),
        import_policy=create_import_policy(),
        signer=create_signer(),
    )


@cache
def create_copier() -> FileCopier:
    from modelhaul.imports.copy import FileCopier

    return FileCopier(create_store(), create_content())


@cache
def create_copy_step() -> CopyStep:
    from modelhaul.imports.copy import CopyStep

    return CopyStep(
        create_tasks(),
        create_models(),
        create_files(),
        create_queue(),
        create_copier(),
        create_finisher(),
        time.time,
    )


def create_checker() -> ContentChecker:
    from modelhaul.inspection.file_checks import FileChecker
    from modelhaul.settings import GateSettings

    return FileChecker(GateSettings.read().pickle_policy, create_pickle_scanner())


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
def create_entry_publisher() -> EntryPublisher:
    from modelhaul.catalog.audit import EntryPublisher
    from modelhaul.settings import StackSettings

    return EntryPublisher(create_audit_reader(), create_event_bus(), StackSettings.read().stack_name)


@cache
def create_end_publisher() -> EndPublisher:
    from modelhaul.imports.notify import EndPublisher
    from modelhaul.settings import EventSettings

    settings = EventSettings.read()
    return EndPublisher(
        create_tasks(), create_models(), create_event_bus(), settings.models_bucket, settings.stack_name
    )
