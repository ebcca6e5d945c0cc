"""A stack with imports at all stages, for the widget of the dashboard."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from modelhaul.domain.findings import FileInspection, FileVerdict, Finding, FindingKind, Severity
from modelhaul.domain.gate import GateReport, GateVerdict, SecondOpinion
from modelhaul.domain.models import Model, ModelError, ModelStatus, ResolvedModel, Source
from modelhaul.domain.tasks import Progress, Stage, Task, TaskError, Waiting
from tests.fakes.tables import InMemoryTables

GB = 1_000_000_000
NAMES = ("meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3-30B-A3B", "google/gemma-3-12b-it", "acme/private-encoder")
CLEAN = GateReport(GateVerdict.CLEAN, second_opinion=None)
UNSAFE = GateReport(
    GateVerdict.UNSAFE,
    reasons=("pytorch_model.bin: Pickle imports os.system",),
    flags=("pickle-import: pytorch_model.bin",),
    second_opinion=SecondOpinion.MALICIOUS,
    files=(
        FileInspection(
            "pytorch_model.bin",
            "ab" * 32,
            "torch-zip",
            FileVerdict.UNSAFE,
            None,
            (Finding(FindingKind.PICKLE_IMPORT, Severity.HIGH, "Pickle imports os.system"),),
        ),
        FileInspection("config.json", "cd" * 32, "json", FileVerdict.CLEAN),
    ),
)
UNSCANNED = GateReport(GateVerdict.UNSCANNED, flags=("code: modeling_custom.py", "not-scanned: notes.bin: unknown"))


def make_task(number: int, name: str, now: datetime, source: Source = Source.HUGGINGFACE, **changes: object) -> Task:
    """A task that was accepted `number` minutes ago."""
    task = Task(
        id=f"{number:08x}-0000-4000-8000-000000000000",
        source=source,
        model_tag=f"{name}@main",
        model_ids=(f"{number:08x}-0000-5000-8000-000000000000",),
        created_at=now - timedelta(minutes=number),
        updated_at=now - timedelta(seconds=number),
        commit=f"{number:040x}",
        check_at=now.timestamp() + 300,
    )
    return replace(task, **changes)  # type: ignore[arg-type]


def make_transfer(number: int, name: str, now: datetime, *, done: int = 37, total: int = 61 * GB) -> Task:
    """A task that has transferred `done` percent of `total` bytes."""
    return make_task(
        number,
        name,
        now,
        stage=Stage.TRANSFERRING,
        progress=Progress(3, 17, total * done // 100, total, 2 * GB),
        transfer_began_at=now - timedelta(seconds=60 * number),
        bytes_counted_at=now - timedelta(seconds=2),
    )


def make_waiting(number: int, name: str, now: datetime, detail: str, reason: str = "source-unavailable") -> Task:
    waiting = Waiting(
        reason, detail, now - timedelta(minutes=4), 3, now + timedelta(seconds=40), now - timedelta(seconds=10)
    )
    stage = Stage.TRANSFERRING
    transferred = make_transfer(number, name, now, done=12)
    counted_at = now - timedelta(minutes=5)
    return replace(transferred, waiting=waiting, waiting_stage=stage, bytes_counted_at=counted_at)


def make_failed(number: int, name: str, now: datetime, error: TaskError, source: Source = Source.HUGGINGFACE) -> Task:
    return make_task(number, name, now, source, stage=Stage.FAILED, error=error)


def make_model(
    number: int, name: str, now: datetime, gate: GateReport = CLEAN, source: Source = Source.HUGGINGFACE
) -> Model:
    """A READY model, imported `number` minutes ago."""
    resolved = ResolvedModel(source, name, "main", f"{number:040x}")
    created = now - timedelta(minutes=number)
    return Model(
        resolved.model_id,
        resolved,
        ModelStatus.READY,
        f"{number:08x}-0000-4000-8000-000000000000",
        created,
        created,
        files=12,
        size=16 * GB + number * 100_000_000,
        gate=gate,
    )


def fill_tables(tables: InMemoryTables) -> None:
    """Add imports at all stages, failures, and models from all sources."""
    now = datetime.fromtimestamp(tables.clock(), UTC)
    unavailable = "huggingface.co did not respond: 503 Service Unavailable."
    tasks = [
        make_transfer(3, NAMES[0], now),
        make_waiting(5, NAMES[1], now, unavailable),
        make_transfer(8, NAMES[2], now, done=92, total=24 * GB),
        make_task(1, "team/release.zip", now, Source.LOCAL, stage=Stage.INSPECTING),
        make_failed(
            30,
            NAMES[3],
            now,
            TaskError("access-required", "Access to acme/private-encoder is required.", retryable=False),
        ),
        make_failed(
            45,
            "acme/old-checkpoint",
            now,
            TaskError("unsafe-model", "pytorch_model.bin: Pickle imports os.system.", retryable=False),
            Source.GITHUB,
        ),
        make_task(
            60,
            "nightly.zip",
            now,
            Source.LOCAL,
            stage=Stage.DONE,
            model_ids=("00000001-0000-5000-8000-000000000000", "00000002-0000-5000-8000-000000000000"),
            failed_ids=("00000002-0000-5000-8000-000000000000",),
            progress=Progress(20, 20, 5 * GB, 5 * GB, 3 * GB),
        ),
    ]
    for task in tasks:
        tables.record(task)
    models = [
        make_model(12, "mistralai/Mistral-7B-Instruct-v0.3", now),
        make_model(90, "acme/reranker", now, UNSCANNED, Source.GITHUB),
        make_model(150, "team/classifier", now, UNSAFE, Source.LOCAL),
        make_model(2000, "BAAI/bge-m3", now),
    ]
    failed = make_model(60, "nightly/broken", now, source=Source.LOCAL)
    error = ModelError("unsafe-model", "weights.pkl: Pickle imports os.system.", retryable=False)
    models.append(
        replace(failed, model_id="00000002-0000-5000-8000-000000000000", status=ModelStatus.FAILED, error=error)
    )
    for model in models:
        tables.models[model.model_id] = model
