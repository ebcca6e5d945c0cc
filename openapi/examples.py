"""Examples of requests and answers; the answers are shown by the same code as real ones."""

import hashlib
import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

from modelhaul.errors import ImportInProgressError, ModelExistsError, RequiredFilesError
from modelhaul.http import accept_upload, answer_error
from modelhaul.model import (
    Archive,
    GateReport,
    GateVerdict,
    Model,
    ModelStatus,
    ResolvedModel,
    SecondOpinion,
    Source,
    UploadTicket,
)
from modelhaul.presentation import present_gate, present_model, present_task, present_whole_task
from modelhaul.task import Progress, Stage, Task, TaskError, TaskStatus

BUCKET = "modelhaul-modelsbucket-1a2b3c4d5e6f"
CREATED = datetime(2025, 6, 22, 12, 0, 0, tzinfo=UTC)
ENDED = CREATED + timedelta(seconds=41)
TASK_ID = "5f0c3b53-7f5b-4a0e-9d2a-0d8b1e6f4c11"
ARCHIVE_TASK_ID = "b9d5f1f0-4a53-4a9c-8f2e-6a0f7f4f9a20"
FAILED_TASK_ID = "0b9a4e0e-6a0f-4f53-9c0e-0d3b6f1f2a77"
COMMIT = "86b5e0934494bd15c9632b12f734a8a67f723594"
WEIGHTS = 440_449_768
OTHERS = 700_000

_BERT = ResolvedModel(Source.HUGGINGFACE, "google-bert/bert-base-uncased", "main", COMMIT)
_FLAGS = ("chat template: tokenizer_config.json",)
_CLEAN = GateReport(GateVerdict.CLEAN, flags=_FLAGS, second_opinion=SecondOpinion.CLEAN)
HUB_MODEL = Model(
    _BERT.model_id, _BERT, ModelStatus.READY, TASK_ID, CREATED, ENDED, files=5, size=WEIGHTS + OTHERS, gate=_CLEAN
)
_ZIPPED = ResolvedModel(Source.LOCAL, "my-model", ARCHIVE_TASK_ID, ARCHIVE_TASK_ID)
ARCHIVE_MODEL = Model(
    _ZIPPED.model_id, _ZIPPED, ModelStatus.READY, ARCHIVE_TASK_ID, CREATED, ENDED, files=3, size=91_000_000, gate=_CLEAN
)
RUNNING = Task(
    TASK_ID,
    Source.HUGGINGFACE,
    "bert-base-uncased@main",
    (HUB_MODEL.model_id,),
    CREATED,
    CREATED + timedelta(seconds=5),
    stage=Stage.TRANSFERRING,
    progress=Progress(4, 5, bytes_done=268_435_456 + OTHERS, bytes_total=WEIGHTS + OTHERS),
    transfer_began_at=CREATED + timedelta(seconds=1),
    bytes_counted_at=CREATED + timedelta(seconds=5),
)
_REFUSED = RequiredFilesError("OWNER/REPOSITORY at 607a30d783df is no model, it lacks: tokenizer.json.")
FAILED = Task(
    FAILED_TASK_ID,
    Source.GITHUB,
    "OWNER/REPOSITORY@main",
    ("2f1d7c52-2a49-5d1e-8f0a-0d7f7cf3b6ae",),
    CREATED,
    CREATED + timedelta(seconds=2),
    TaskStatus.FAILED,
    Stage.FAILED,
    error=TaskError(_REFUSED.type, _REFUSED.detail, _REFUSED.retryable),
)
CURSOR = "MjAyNS0wNi0yMlQxMjowMDowMC4wMDAwMDArMDAwMCA1ZjBjM2I1My03ZjViLTRhMGUtOWQyYS0wZDhiMWU2ZjRjMTE"


@dataclass(frozen=True)
class Example:
    """`body` is a request's, `answers` the answers' by their status."""

    answers: dict[str, Any] = field(default_factory=dict)
    body: Any = None


def _show_manifest() -> dict[str, Any]:
    content = b'{"architectures": ["BertForMaskedLM"]}'
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    file = {"path": "config.json", "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return {
        "version": 1,
        "model_id": HUB_MODEL.model_id,
        "source": _BERT.source,
        "name": _BERT.name,
        "revision": _BERT.revision,
        "commit": _BERT.commit,
        "prefix": _BERT.prefix,
        "task_id": TASK_ID,
        "gate": present_gate(_CLEAN),
        "files": [{**file, "source_digest": f"git-sha1:{blob}"}],
        "not_followed": [],
    }


def _show_upload() -> Any:
    awaited = replace(
        RUNNING, id=ARCHIVE_TASK_ID, source=Source.LOCAL, archive=Archive(f"uploads/{ARCHIVE_TASK_ID}", "models.zip")
    )
    ticket = UploadTicket(CREATED + timedelta(hours=12), put_url="https://BUCKET.s3.amazonaws.com/uploads/…?X-Amz-…")
    return json.loads(accept_upload(awaited, ticket).body or "")


def _show_problem(error: ModelExistsError | ImportInProgressError) -> Any:
    return json.loads(answer_error(error).body or "")


_EXISTS = _show_problem(
    ModelExistsError(f"{_BERT.describe()} is here already.", models={HUB_MODEL.model_id: _BERT.name})
)
_OK = str(HTTPStatus.OK.value)
_CONFLICT = str(HTTPStatus.CONFLICT.value)
EXAMPLES: dict[str, Example] = {
    "POST /upload/huggingface": Example(
        {_CONFLICT: _EXISTS}, {"model_tag": "bert-base-uncased", "revision": "main", "weights": "safetensors"}
    ),
    "POST /upload/github": Example(
        {
            _CONFLICT: _show_problem(
                ImportInProgressError(
                    f"OWNER/REPOSITORY at commit 607a30d783df is being imported by task {TASK_ID}: follow that one.",
                    model_id=FAILED.model_ids[0],
                    task_id=TASK_ID,
                )
            )
        },
        {"owner": "OWNER", "repo_name": "REPOSITORY", "revision": "main"},
    ),
    "POST /upload/local": Example(
        {str(HTTPStatus.CREATED.value): _show_upload()},
        {"file_name": "models.zip", "size": 7_000_000_000, "model_name": "my-model"},
    ),
    "GET /upload/tasks": Example({_OK: {"tasks": [present_task(FAILED), present_task(RUNNING)], "cursor": CURSOR}}),
    "GET /upload/tasks/{task_id}": Example(
        {_OK: present_whole_task(RUNNING, [replace(HUB_MODEL, status=ModelStatus.IMPORTING, gate=None)], bucket=BUCKET)}
    ),
    "GET /upload/local/{model_id}": Example({_OK: present_model(ARCHIVE_MODEL, bucket=BUCKET)}),
    "GET /models": Example(
        {
            _OK: {
                "models": [present_model(model, bucket=BUCKET) for model in (ARCHIVE_MODEL, HUB_MODEL)],
                "cursor": None,
            }
        }
    ),
    "GET /models/{model_id}": Example(
        {
            _OK: {
                **present_model(HUB_MODEL, bucket=BUCKET),
                "manifest_url": f"https://{BUCKET}.s3.amazonaws.com/manifests/{HUB_MODEL.model_id}.json?X-Amz-…",
                "manifest": _show_manifest(),
            }
        }
    ),
}
