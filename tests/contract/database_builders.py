"""Short ways to bring a database into a state, and to read it."""

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count

from modelhaul.domain.archives import Archive
from modelhaul.domain.digests import Algorithm, Digest
from modelhaul.domain.files import FileCounts, FileGroup, FileRecord, SourceFile
from modelhaul.domain.findings import ContentReport
from modelhaul.domain.gate import FileCheck
from modelhaul.domain.models import Model, ModelStatus, ResolvedModel, Source
from modelhaul.domain.objects import Blob
from modelhaul.domain.policy_results import PolicyDecision, PolicyResult, PolicyWarning
from modelhaul.domain.selection import WHOLE, Selection
from modelhaul.domain.signatures import ModelSignature
from modelhaul.domain.tasks import Progress, Stage, Task, TaskError
from tests.fakes.database import Database

START = 1_750_593_600.0
CHECK = FileCheck(report=ContentReport("json"))
GATED = TaskError("access-required", "Somebody must grant access first.", retryable=False, remedy="Ask the owner.")
SIGNATURE = ModelSignature(
    "arn:aws:kms:us-east-1:123456789012:key/1a2b3c4d", "-----BEGIN PUBLIC KEY-----\n", datetime(2026, 1, 1, tzinfo=UTC)
)
POLICY = PolicyResult(
    PolicyDecision.ALLOW,
    "reviewed",
    "The owner is réviewed.",
    ("name google-bert/bert-base-uncased",),
    (PolicyWarning("big", "Large.", ("size 2",)), PolicyWarning("young", "New.")),
    digest="ab" * 32,
)
_numbers = count()


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def make_model(selection: Selection = WHOLE, *, commit: str = "") -> Model:
    commit = commit or f"{next(_numbers):040x}"
    name = "google-bert/bert-base-uncased"
    resolved = ResolvedModel(Source.HUGGINGFACE, name, "main", commit, selection=selection)
    return Model(resolved.model_id, resolved, ModelStatus.IMPORTING, "", at(START), at(START))


def make_task(model: Model, **changes: object) -> Task:
    task = Task(
        id=str(uuid.uuid4()),
        source=model.resolved.source,
        model_tag="bert-base-uncased@main",
        model_ids=(model.model_id,),
        created_at=at(START),
        updated_at=at(START),
        check_at=START + 300,
        selection=model.resolved.selection,
        commit=model.resolved.commit,
    )
    return replace(task, **changes)  # type: ignore[arg-type]


def claim(database: Database, model: Model | None = None, **changes: object) -> Task:
    model = model or make_model()
    task = make_task(model, **changes)
    database.imports.claim_import(task, [replace(model, task_id=task.id)])
    return task


def make_local_model(name: str, task_id: str = "") -> Model:
    """As an archive's: it has no commit, and lies in a directory of its task's files."""
    resolved = ResolvedModel(Source.LOCAL, name, task_id, task_id, f"{name}/")
    return Model(resolved.model_id, resolved, ModelStatus.IMPORTING, task_id, at(START), at(START))


def drop(database: Database, **changes: object) -> Task:
    """A task for an archive that is there, before its models are known."""
    task = Task(
        id=str(uuid.uuid4()),
        source=Source.LOCAL,
        model_tag="incoming/a b+é.zip",
        model_ids=(),
        created_at=at(START),
        updated_at=at(START),
        stage=Stage.INSPECTING,
        check_at=START + 300,
        archive=Archive("incoming/a b+é.zip", "a b+é.zip", None, 500_000_000_001, "etag"),
    )
    task = replace(task, **changes)  # type: ignore[arg-type]
    database.tasks.record_task(task)
    return task


def make_file(path: str = "model.safetensors", size: int = 1000) -> SourceFile:
    return SourceFile(path, size, Digest(Algorithm.SHA256, f"{next(_numbers):064x}"))


def plan(database: Database, *files: SourceFile) -> Task:
    """A task whose files are one group."""
    return plan_groups(database, files)


def plan_groups(database: Database, *groups: Sequence[SourceFile]) -> Task:
    task = claim(database)
    plan_id = f"{task.id}#{next(_numbers):08x}"
    database.files.put_groups(plan_id, groups)
    files = [file for group in groups for file in group]
    totals = Progress(files_total=len(files), bytes_total=sum(f.size for f in files))
    assert database.tasks.start_stage(task.id, Stage.TRANSFERRING, check_at=START + 300, totals=totals, plan_id=plan_id)
    return read_task(database, task.id)


def find_plan(task: Task) -> str:
    assert task.plan_id is not None
    return task.plan_id


def make_record(task: Task, file: SourceFile, *, reused: bool = False, check: FileCheck | None = CHECK) -> FileRecord:
    return FileRecord(task.id, file, sha256="ab" * 32, etag=f"{'cd' * 16}-3", reused=reused, check=check)


def read_task(database: Database, task_id: str) -> Task:
    task = database.tasks.find_task(task_id)
    assert task is not None
    return task


def read_model(database: Database, model_id: str) -> Model:
    model = database.models.find_model(model_id)
    assert model is not None
    return model


def read_group(database: Database, task: Task, number: int = 0) -> FileGroup:
    [group] = database.files.find_groups(find_plan(task), [number])
    return group


def find_blob(database: Database, digest: str) -> Blob | None:
    return database.content.find_blobs([digest]).get(digest)


def lease(database: Database, task: Task, number: int = 0, owner: str = "a") -> FileGroup:
    group = database.leases.lease_group(find_plan(task), number, owner=owner, now=START, until=START + 90)
    assert group is not None
    return group


def save(database: Database, task: Task, offset: int, *, owner: str = "a", continued: int = 0) -> FileCounts:
    return database.leases.record_offset(
        find_plan(task), 0, offset, owner=owner, until=START + 120, continued=continued
    )


def record(database: Database, task: Task, *records: FileRecord, number: int = 0, owner: str = "a") -> FileCounts:
    return database.leases.record_files(find_plan(task), number, records, owner=owner, until=START + 150)
