"""Tasks and models as people and programs outside see them: in answers of the API and in outcomes."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from modelhaul.model import GateReport, Model, ModelStatus
from modelhaul.remedies import TASK_REMEDIES
from modelhaul.task import Stage, Task, TaskStatus

_MEASURABLE = 1.0  # seconds below which a rate says nothing
_DELETED = {"status": "DELETED"}


def format_time(moment: datetime) -> str:
    """`2025-06-22T12:00:00Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def present_task(task: Task) -> dict[str, Any]:
    """A task without its models."""
    progress = task.progress
    shown: dict[str, Any] = {
        "id": task.id,
        "model_tag": task.model_tag,
        "task_status": task.status.value,
        "source": task.source.value,
        "created_at": format_time(task.created_at),
        "updated_at": format_time(task.updated_at),
        "stage": task.stage.value,
        "progress": {
            "files_done": progress.files_done,
            "files_total": progress.files_total,
            "bytes_done": progress.bytes_done,
            "bytes_total": progress.bytes_total,
            "bytes_reused": progress.bytes_reused,
            **_estimate(task),
        },
    }
    if not task.selection.is_whole:
        shown["selection"] = asdict(task.selection)
    if task.error is not None:
        shown["error_msg"] = task.error.detail
        shown["error"] = {"type": task.error.type, "retryable": task.error.retryable}
        if task.error.type in TASK_REMEDIES:
            shown["error"]["remedy"] = TASK_REMEDIES[task.error.type]
    return shown


def _estimate(task: Task) -> dict[str, int]:
    """How fast bytes come from the source, averaged up to when they were last counted, and how long the rest takes at
    that; nothing where that cannot be known. What is copied inside S3 says nothing about it.
    """
    began, counted, progress = task.transfer_began_at, task.bytes_counted_at, task.progress
    moved = progress.bytes_done - progress.bytes_reused
    if began is None or counted is None or moved <= 0:
        return {}
    seconds = (counted - began).total_seconds()
    if seconds < _MEASURABLE:
        return {}
    estimate = {"bytes_per_second": round(moved / seconds)}
    if task.status is TaskStatus.PENDING and task.stage is Stage.TRANSFERRING:
        estimate["seconds_left"] = math.ceil(max(0, progress.bytes_total - progress.bytes_done) * seconds / moved)
    return estimate


def present_whole_task(task: Task, models: Sequence[Model], *, bucket: str) -> dict[str, Any]:
    """A task with what became of each of its models, and of each directory of its archive that is none.

    `models` are the records of those that the task claimed; one that it brought in and that is not there any more was
    deleted.
    """
    found = {model.model_id: model for model in models}
    entries = [
        _present_result(task, found[model_id], bucket) if model_id in found else {"model_id": model_id, **_DELETED}
        for model_id in task.model_ids
        if model_id in found or task.status is TaskStatus.DONE
    ]
    entries += [{"name": s.directory or "/", "status": "SKIPPED", "lacks": list(s.lacks)} for s in task.skipped]
    return {**present_task(task), "models": entries}


def present_model(model: Model, *, bucket: str) -> dict[str, Any]:
    """A model's record."""
    shown: dict[str, Any] = {
        "model_id": model.model_id,
        "name": model.resolved.name,
        "source": model.resolved.source.value,
        "commit": model.resolved.commit,
        "revision": model.resolved.revision,
        "status": model.status.value,
        "task_id": model.task_id,
        "created_at": format_time(model.created_at),
        "updated_at": format_time(model.updated_at),
    }
    if not model.resolved.selection.is_whole:
        shown["selection"] = asdict(model.resolved.selection)
    if model.status is ModelStatus.READY:
        shown |= {"files": model.files, "size": model.size, "location": _locate(model, bucket)}
        if model.gate is not None:
            shown["gate"] = present_gate(model.gate)
    return shown


def present_gate(report: GateReport) -> dict[str, Any]:
    """As in a model's record and in its manifest."""
    return {
        "verdict": report.verdict.value,
        "second_opinion": report.second_opinion,
        "reasons": list(report.reasons),
        "flags": list(report.flags),
        "scanned": [{"path": path, "sha256": sha256} for path, sha256 in report.scanned],
    }


def _present_result(task: Task, model: Model, bucket: str) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "model_id": model.model_id,
        "name": model.resolved.name,
        "commit": model.resolved.commit,
        "status": model.status.value,
    }
    if model.task_id != task.id:
        # Another task has the model: after this one's failure, or after what this one brought was deleted.
        entry |= _DELETED if task.status is TaskStatus.DONE else {"status": ModelStatus.FAILED.value}
    elif model.status is ModelStatus.READY:
        entry["location"] = _locate(model, bucket)
    return entry


def _locate(model: Model, bucket: str) -> str:
    return f"s3://{bucket}/{model.resolved.prefix}"
