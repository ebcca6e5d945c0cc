"""Short ways to bring a database into a state, and to read it."""

import uuid
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count

from modelhaul.domain.archives import Archive
from modelhaul.domain.digests import Algorithm, Digest
from modelhaul.domain.files import Checkpoint, FileRecord, FileResult, Part, SourceFile
from modelhaul.domain.models import Model, ModelStatus, ResolvedModel, Source
from modelhaul.domain.objects import Blob
from modelhaul.domain.selection import WHOLE, Selection
from modelhaul.domain.tasks import Progress, Stage, Task, TaskError
from tests.fakes.database import Database

START = 1_750_593_600.0
GATED = TaskError("access-required", "Somebody must grant access first.", retryable=False)
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
    task = claim(database)
    database.files.put_files(task.id, files)
    totals = Progress(files_total=len(files), bytes_total=sum(f.size for f in files))
    assert database.tasks.start_stage(task.id, Stage.TRANSFERRING, check_at=START + 300, totals=totals)
    return read_task(database, task.id)


def make_result(file: SourceFile, *, reused: bool = False) -> FileResult:
    return FileResult(file, sha256="ab" * 32, etag=f"{'cd' * 16}-3", reused=reused)


def make_checkpoint(offset: int, parts: int = 1) -> Checkpoint:
    return Checkpoint(
        upload_id="2~upload",
        part_size=8 * 1024 * 1024,
        offset=offset,
        parts=tuple(Part(n, f"{n:032x}", (n * 2_654_435_761) % 2**32) for n in range(1, parts + 1)),
        hash_state=bytes(range(208)),
        source_etag='"etag"',
    )


def read_task(database: Database, task_id: str) -> Task:
    task = database.tasks.find_task(task_id)
    assert task is not None
    return task


def read_model(database: Database, model_id: str) -> Model:
    model = database.models.find_model(model_id)
    assert model is not None
    return model


def read_file(database: Database, task_id: str, path: str = "model.safetensors") -> FileRecord:
    [record] = database.files.find_files(task_id, [path])
    return record


def find_blob(database: Database, digest: str) -> Blob | None:
    return database.content.find_blobs([digest]).get(digest)


def lease(database: Database, task_id: str, path: str = "model.safetensors", owner: str = "a") -> FileRecord:
    record = database.files.lease_file(task_id, path, owner=owner, now=START, until=START + 90)
    assert record is not None
    return record


def save(
    database: Database,
    task_id: str,
    checkpoint: Checkpoint | None,
    *,
    owner: str = "a",
    check_at: float = START + 300,
) -> None:
    database.files.save_checkpoint(
        task_id, "model.safetensors", checkpoint, owner=owner, until=START + 120, check_at=check_at
    )
