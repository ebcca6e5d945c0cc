"""Modelhaul over the in-memory adapters, with a clock that only moves when told, to drive step by step."""

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from modelhaul.archives.entries import ArchiveLimits
from modelhaul.archives.rules import ArchiveRules
from modelhaul.archives.source import ArchiveSource
from modelhaul.catalog.bom import SourceUrls
from modelhaul.catalog.delete import ModelDeleter
from modelhaul.catalog.pins import ModelPinner
from modelhaul.catalog.quota import StorageQuota
from modelhaul.catalog.read import Catalog
from modelhaul.catalog.reads import ReadRecorder
from modelhaul.catalog.usage import UsageReader
from modelhaul.domain.gate import PicklePolicy
from modelhaul.domain.messages import (
    AcceptArchive,
    CopyFiles,
    JoinTransfer,
    Message,
    PlanImport,
    PublishModels,
    TransferFiles,
)
from modelhaul.domain.models import Model, ModelStatus, Source
from modelhaul.domain.required_files import RequiredFiles
from modelhaul.domain.selection import WHOLE, Selection
from modelhaul.domain.tasks import Task, TaskStatus
from modelhaul.imports.accept import ArchiveAcceptor, ArrivalRecorder
from modelhaul.imports.copy import CopyStep, FileCopier
from modelhaul.imports.finish import TaskFinisher
from modelhaul.imports.import_policy import ImportPolicy
from modelhaul.imports.join import TransferJoiner
from modelhaul.imports.outcomes import OutcomeWriter
from modelhaul.imports.plan import Planner
from modelhaul.imports.publish import Publisher
from modelhaul.imports.retry import StepRunner
from modelhaul.imports.submit import ImportSubmitter
from modelhaul.imports.submit_archive import ArchiveSubmitter
from modelhaul.imports.sweep import Sweeper
from modelhaul.imports.transfer import Transferrer
from modelhaul.inspection.file_checks import FileChecker
from modelhaul.inspection.gate import Gate
from modelhaul.policy.reader import PolicyReader
from modelhaul.ports.message_queue import MessageQueue
from modelhaul.ports.model_sources import ModelSource
from modelhaul.ports.pickle_scanner import PickleScanner
from modelhaul.ports.policy_store import PolicyStore
from modelhaul.ports.signing_key import SigningKey
from modelhaul.signing.signer import ModelSigner, PublishedModelSigner
from modelhaul.transfer.engine import FileTransfer
from modelhaul.transfer.large_files import CreateTransfer
from modelhaul.transfer.policy import TransferPolicy
from modelhaul.transfer.settings import StreamSettings
from tests.fakes.archive_store import InMemoryArchiveStore
from tests.fakes.clock import ManualClock
from tests.fakes.database import Database, build_database
from tests.fakes.message_queue import InMemoryMessageQueue
from tests.fakes.model_source import HubSource, InMemoryModelSource
from tests.fakes.object_store import Bucket, InMemoryObjectStore
from tests.fakes.pickle_scanner import InMemoryPickleScanner
from tests.fakes.tables import InMemoryTables

PART_SIZE = 1024 * 1024
QUICK = StreamSettings(
    part_size=lambda _: PART_SIZE, reconnect_delay=0, progress=0, poll=0.001, join=0, rate_window=1e9
)
SOURCE_URLS = SourceUrls("https://huggingface.co", "https://github.com")
MAX_OUTAGE = 6 * 3600.0
RULES = ArchiveRules(
    ArchiveLimits(max_entries=100_000, max_entry_bytes=10**9, max_total_bytes=10**10, max_ratio=200),
    RequiredFiles.EQUIVALENTS,
)


@dataclass
class RecordingMetrics:
    values: Counter[str] = field(default_factory=Counter)

    def count(self, name: str, value: float = 1) -> None:
        self.values[name] += int(value)


@dataclass
class Deployment:
    """`remaining` is what each step sees as its function's seconds left; `deleted` has models that may be gone."""

    source: HubSource = field(default_factory=InMemoryModelSource)
    clock: ManualClock = field(default_factory=ManualClock)
    metrics: RecordingMetrics = field(default_factory=RecordingMetrics)
    remaining: Callable[[], float] = lambda: 300.0
    submitted: list[str] = field(default_factory=list)
    deleted: set[str] = field(default_factory=set)
    rules: ArchiveRules = RULES
    pickle_policy: PicklePolicy = PicklePolicy.BLOCK
    pickle_scanner: PickleScanner = field(default_factory=InMemoryPickleScanner)
    policy: TransferPolicy = field(default_factory=TransferPolicy)
    create_transfer: CreateTransfer = FileTransfer
    signing_key: SigningKey | None = None
    policy_store: PolicyStore | None = None
    quota: int = 0

    def __post_init__(self) -> None:
        self.tables = InMemoryTables(clock=self.clock)
        self.database = build_database(self.tables)
        self.archives = InMemoryArchiveStore(clock=self.clock)
        self.store = InMemoryObjectStore(min_part_size=1, archives=self.archives)
        self.queue = InMemoryMessageQueue(self.clock)
        self.connect(self.database, self.store, self.queue, QUICK)

    def connect(self, database: Database, store: Bucket, queue: MessageQueue, stream_settings: StreamSettings) -> None:
        """Builds the steps over these adapters."""
        self.database_in_use = database

        def open_source(task: Task) -> ModelSource:
            return self.source if task.archive is None else self.open_archive(task)

        tasks, models, imports, files = database.tasks, database.models, database.imports, database.files
        content, archives, metrics, clock = database.content, self.archives, self.metrics, self.clock
        policy = None
        if self.policy_store is not None:
            policy = ImportPolicy(PolicyReader(self.policy_store, clock=clock), database.audit, clock)
        quota = StorageQuota(self.quota, database.quotas, tasks, models, clock) if self.quota else None
        self.usage = UsageReader(models, clock, quota)
        self.submitter = ImportSubmitter(
            imports, database.hub_models, queue, lambda _: self.source, metrics, clock, models, policy, quota
        )
        self.archive_submitter = ArchiveSubmitter(
            tasks, imports, archives, queue, metrics, clock, self.rules, database.audit, models, policy, quota
        )
        outcomes = OutcomeWriter(models, archives, "models-bucket")
        self.arrivals = ArrivalRecorder(tasks, archives, metrics, clock, outcomes)
        self.acceptor = ArchiveAcceptor(
            tasks, imports, archives, queue, clock, self.rules, outcomes=outcomes, policy=policy
        )
        self.finisher = TaskFinisher(
            tasks,
            models,
            imports,
            files,
            database.segments,
            store,
            store,
            archives,
            metrics,
            clock,
            outcomes=outcomes,
        )
        self.planner = Planner(
            tasks, models, files, queue, open_source, clock, self.rules.required_files, self.policy, policy, quota
        )
        self.transferrer = Transferrer(
            tasks,
            models,
            files,
            database.leases,
            database.segments,
            content,
            store,
            store,
            queue,
            open_source,
            lambda: FileChecker(self.pickle_policy, self.pickle_scanner),
            metrics,
            clock,
            stream_settings,
            self.policy,
            create_transfer=self.create_transfer,
        )
        self.joiner = TransferJoiner(
            tasks,
            models,
            files,
            database.segments,
            store,
            queue,
            open_source,
            clock,
            stream_settings,
            self.policy,
            create_transfer=self.create_transfer,
        )
        copier = FileCopier(store, content, self.policy)
        self.copy_step = CopyStep(tasks, models, files, queue, copier, self.finisher, clock)
        signer = ModelSigner(self.signing_key, store, clock) if self.signing_key is not None else None
        self.published_signer = PublishedModelSigner(models, store, signer) if signer is not None else None
        self.publisher = Publisher(
            tasks,
            models,
            imports,
            files,
            store,
            store,
            archives,
            queue,
            metrics,
            clock,
            finisher=self.finisher,
            outcomes=outcomes,
            gate=Gate(store, self.pickle_policy, self.pickle_scanner, clock),
            copier=copier,
            signer=signer,
            policy=self.policy,
            import_policy=policy,
        )
        self.deleter = ModelDeleter(models, content, store, clock)
        self.pinner = ModelPinner(models, clock)
        self.reads = ReadRecorder(database.hub_models, clock)
        self.catalog = Catalog(models, store, "models-bucket", SOURCE_URLS, self.reads)
        self.sweeper = Sweeper(tasks, files, queue, self.finisher, self.deleter, metrics, clock)
        self.runner = StepRunner(tasks, files, queue, self.finisher, metrics, clock, MAX_OUTAGE)

    def submit(
        self,
        name: str,
        revision: str = "main",
        *,
        source: Source = Source.HUGGINGFACE,
        selection: Selection = WHOLE,
    ) -> Task:
        task = self.submitter.submit(source, name, revision, selection)
        self.submitted.append(task.id)
        return task

    def open_archive(self, task: Task) -> ArchiveSource:
        assert task.archive is not None
        return ArchiveSource(self.archives, task.archive, self.rules.limits)

    def post(self, archive: bytes, model_name: str | None = None, *, file_name: str = "archive.zip") -> Task:
        task = self.archive_submitter.submit_archive(archive, file_name, model_name)
        self.submitted.append(task.id)
        return task

    def drop(self, archive: bytes, key: str = "incoming/archive.zip", *, event_id: str = "1") -> str:
        """Stores the archive and handles the event of its arrival; returns the task's id."""
        etag = self.archives.put_archive(key, archive)
        task_id = self.arrivals.record_arrival(key, size=len(archive), etag=etag, event_id=event_id)
        assert task_id is not None
        self.queue.send([AcceptArchive(task_id=task_id)])
        self.submitted.append(task_id)
        return task_id

    def deliver(self, message: Message, *, deliveries: int = 1) -> None:
        """What a worker function does with a message."""
        self.runner.run(message, self._step, deliveries=deliveries)

    def _step(self, message: Message) -> None:
        match message:
            case AcceptArchive():
                self.acceptor.accept_archive(message)
            case PlanImport():
                self.planner.plan_import(message)
            case TransferFiles():
                self.transferrer.transfer_files(message, self.remaining)
            case JoinTransfer():
                self.joiner.join_transfer(message, self.remaining)
            case CopyFiles():
                self.copy_step.copy_files(message, self.remaining)
            case PublishModels():
                self.publisher.publish_models(message, self.remaining)

    def receive(self) -> list[Message]:
        return self.queue.receive(self.clock.now)

    def run(self, *, most: int = 10_000) -> int:
        """Delivers messages, moving the clock on to each one's time, until none waits. Returns how many."""
        delivered = 0
        while (due := self.queue.next_due) is not None:
            self.clock.now = max(self.clock.now, due)
            for message in self.receive():
                self.deliver(message)
                delivered += 1
                assert delivered <= most, "messages never end"
        return delivered

    def sweep_until_quiet(self, *, most: int = 1000) -> None:
        """Lets time pass, five minutes a sweep, until nothing is watched any more."""
        for _ in range(most):
            self.run()
            self.clock.now += 300
            due = self.sweeper.sweep_stale(self.remaining)
            if (
                not due
                and not self.database.tasks.list_due(float("inf"), 1)
                and not self.database.models.list_deleting(float("inf"), 1)
            ):
                return
        raise AssertionError("tasks are watched for ever")

    def find_task(self, task_id: str) -> Task:
        task = self.database.tasks.find_task(task_id)
        assert task is not None
        return task

    def import_model(self, name: str, revision: str = "main") -> Task:
        """Submit the model, and run until the import has ended."""
        task = self.submit(name, revision)
        self.run()
        return self.find_task(task.id)

    def find_model(self, task: Task) -> Model:
        """Return the only model of the task."""
        (model,) = self.database.models.find_models(task.model_ids)
        return model

    def read(self, key: str) -> bytes:
        found = self.store.find_object(key)
        assert found is not None, f"no object {key}"
        return self.store.read(key, 0, found[0])

    def check_promises(self, expected: dict[str, dict[str, bytes]]) -> None:
        """What must hold once all is quiet. `expected`: prefix of a model to its files."""
        published: dict[str, bytes] = {}
        for task in map(self.find_task, self.submitted):
            assert task.status is not TaskStatus.PENDING, "every accepted task ends"
            if task.status is TaskStatus.FAILED:
                assert task.error is not None
                assert task.error.detail
            else:
                models = self.database.models.find_models(task.model_ids)
                assert {model.model_id for model in models} >= set(task.model_ids) - self.deleted
                assert task.model_ids
                for model in models:
                    if model.task_id == task.id and model.status is ModelStatus.READY:
                        for path, content in expected[model.resolved.prefix].items():
                            published[model.resolved.prefix + path] = content
        visible = {key for key in self.store.keys if key.startswith("models/")}
        assert visible == set(published), "whole models are visible, and nothing else"
        for key, content in published.items():
            assert hashlib.sha256(self.read(key)).digest() == hashlib.sha256(content).digest()
        plan_ids = [task.plan_id for task in map(self.find_task, self.submitted) if task.plan_id is not None]
        uploads = [upload for plan_id in plan_ids for upload in self.database.segments.list_uploads(plan_id).values()]
        kept = {upload.upload_id for upload in uploads if upload.is_kept}
        left = {upload_id for _, upload_id in self.store.list_uploads("")}
        assert left <= kept, "no multipart upload is left that cannot be continued"
