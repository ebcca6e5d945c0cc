"""The widget of the dashboard over a deployment in memory, with imports at all stages."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from local.console import ConsoleServer
from modelhaul import wiring
from modelhaul.console.overview import ConsoleReader
from modelhaul.domain.findings import FileInspection, FileVerdict, Finding, FindingKind, Severity
from modelhaul.domain.gate import GateReport, GateVerdict, SecondOpinion
from modelhaul.domain.models import Model, ModelError, ModelStatus, ResolvedModel, Source
from modelhaul.domain.tasks import Progress, Stage, Task, TaskError, Waiting
from tests.fakes.deployment import Deployment
from tests.fakes.tables import InMemoryTables
from tests.lambda_functions import Context, load_handler

RENDER_ARN = "arn:aws:lambda:eu-west-1:123456789012:function:the-render-widget"
CANCEL_ARN = "arn:aws:lambda:eu-west-1:123456789012:function:the-cancel-from-console"
HANDLERS = {RENDER_ARN: "render_widget", CANCEL_ARN: "cancel_from_console"}

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
        model_tag=name if source is Source.LOCAL else f"{name}@main",
        model_ids=(f"{number:08x}-0000-5000-8000-000000000000",),
        created_at=now - timedelta(minutes=number),
        updated_at=now - timedelta(minutes=number, seconds=-30),
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
        size=16 * GB + number * 1_000_000,
        gate=gate,
    )


def make_claim(task: Task, now: datetime) -> Model:
    """The model that a task imports."""
    claimed = make_model(0, task.model_tag.partition("@")[0], now)
    return replace(claimed, model_id=task.model_ids[0], task_id=task.id, status=ModelStatus.IMPORTING)


def connect_console(deployment: Deployment, patch: pytest.MonkeyPatch) -> None:
    """Give the functions of the dashboard's widget the adapters of the deployment."""
    tasks, models = deployment.database_in_use.tasks, deployment.database_in_use.models
    reader = ConsoleReader(tasks, models, deployment.usage, deployment.clock)
    patch.setattr(wiring, "create_console_reader", lambda: reader)
    patch.setattr(wiring, "create_finisher", lambda: deployment.finisher)
    patch.setenv("AWS_REGION", "eu-west-1")
    patch.setenv("MODELS_BUCKET", "models-bucket")
    patch.setenv("CANCEL_FROM_CONSOLE_FUNCTION", "the-cancel-from-console")


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
    models += [make_claim(task, now) for task in tasks if task.stage is Stage.TRANSFERRING]
    for model in models:
        tables.models[model.model_id] = model


def run_handler(arn: str, event: dict[str, Any]) -> object:
    """Run a function of the widget as Lambda does."""
    result: object = load_handler(HANDLERS[arn])(event, Context(invoked_function_arn=arn))
    return result


@contextmanager
def serve_console(invoke: Callable[[str, dict[str, Any]], object] = run_handler) -> Iterator[ConsoleServer]:
    """Serve the page of the local stack that stands in for the console."""
    with ConsoleServer(0, RENDER_ARN, invoke) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
