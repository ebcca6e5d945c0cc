"""JSON representation of tasks and models in API responses, outcomes and events."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from modelhaul.domain.findings import FileInspection
from modelhaul.domain.gate import GateReport
from modelhaul.domain.keys import signature_key
from modelhaul.domain.model_cards import ModelCard
from modelhaul.domain.models import Model, ModelError, ModelPin, ModelStatus, ResolvedModel
from modelhaul.domain.policy_results import PolicyResult
from modelhaul.domain.remedies import TASK_REMEDIES
from modelhaul.domain.signatures import ModelSignature
from modelhaul.domain.tasks import Stage, Task, TaskError, TaskStatus, Waiting

_MIN_MEASURED_SECONDS = 1.0  # shorter times give no meaningful rate
_MAX_COUNT_AGE = timedelta(seconds=10)  # of the last count of bytes from which the remaining time is estimated
_MAX_ATTEMPT = timedelta(seconds=150)  # an attempt without a response takes less
_DELETED = {"status": "DELETED"}


def format_time(moment: datetime) -> str:
    """Return the time in UTC as `2025-06-22T12:00:00Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def present_task(task: Task, *, now: datetime | None = None) -> dict[str, Any]:
    """Return a task without its models, as it is at `now` (default: the current time)."""
    now = now or datetime.now(UTC)
    progress, waiting = task.progress, find_waiting(task, now)
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
            **estimate_transfer(task, now=now),
        },
    }
    if waiting is not None:
        shown["waiting"] = {
            "reason": waiting.reason,
            "detail": waiting.detail,
            "since": format_time(waiting.since),
            "attempt": waiting.attempt,
            "next_attempt": format_time(waiting.next_attempt),
        }
    if task.submitted_by is not None:
        shown["submitted_by"] = task.submitted_by
    if task.cancelled_by is not None:
        shown["cancelled_by"] = task.cancelled_by
    if task.commit is not None:
        shown["commit"] = task.commit
    if not task.selection.is_whole:
        shown["selection"] = asdict(task.selection)
    if task.error is not None:
        shown["error_msg"] = task.error.detail
        shown["error"] = _present_error(task.error)
    return shown


def _present_error(error: TaskError | ModelError) -> dict[str, Any]:
    remedy = error.remedy or TASK_REMEDIES.get(error.type)
    return {"type": error.type, "retryable": error.retryable, **({"remedy": remedy} if remedy else {})}


def present_model_error(model: Model) -> dict[str, Any]:
    """Return the member `error` of a FAILED model, an empty object for other models."""
    if model.status is not ModelStatus.FAILED or model.error is None:
        return {}
    return {"error": {"detail": model.error.detail, **_present_error(model.error)}}


def find_waiting(task: Task, now: datetime) -> Waiting | None:
    """Return the wait of a task for its next attempt, None if it does not wait.

    The wait is over if the task is at another stage, if bytes were counted after it, or if the attempt takes longer
    than an attempt that gets no response.
    """
    waiting, counted = task.waiting, task.bytes_counted_at
    if waiting is None or task.waiting_stage is not task.stage or now > waiting.next_attempt + _MAX_ATTEMPT:
        return None
    return waiting if counted is None or counted <= waiting.recorded_at else None


def estimate_transfer(task: Task, *, now: datetime | None = None) -> dict[str, int]:
    """Return the average rate of the transfer until the last count of bytes, and the estimated remaining time at `now`
    (default: the current time).

    Bytes that were copied within S3 are not part of the rate. Empty if the rate is unknown. There is no remaining time
    while the task waits, and if no bytes were counted lately.
    """
    now = now or datetime.now(UTC)
    began, counted, progress = task.transfer_began_at, task.bytes_counted_at, task.progress
    moved = progress.bytes_done - progress.bytes_reused
    if began is None or counted is None or moved <= 0:
        return {}
    seconds = (counted - began).total_seconds()
    if seconds < _MIN_MEASURED_SECONDS:
        return {}
    estimate = {"bytes_per_second": round(moved / seconds)}
    is_moving = now - counted <= _MAX_COUNT_AGE and find_waiting(task, now) is None
    if task.stage is Stage.TRANSFERRING and is_moving:
        estimate["seconds_left"] = math.ceil(max(0, progress.bytes_total - progress.bytes_done) * seconds / moved)
    return estimate


def present_whole_task(
    task: Task, models: Sequence[Model], *, bucket: str, now: datetime | None = None
) -> dict[str, Any]:
    """Return a task with the result of each of its models, and of each skipped directory of its archive.

    `models` are the records of the models that the task has claimed. A model of a DONE task without a record was
    deleted. The error of a FAILED model is included until another task claims the model.
    """
    found = {model.model_id: model for model in models}
    entries = [
        _present_result(task, found[model_id], bucket) if model_id in found else {"model_id": model_id, **_DELETED}
        for model_id in task.model_ids
        if model_id in found or task.status is TaskStatus.DONE
    ]
    entries += [{"name": s.directory or "/", "status": "SKIPPED", "lacks": list(s.lacks)} for s in task.skipped]
    return {**present_task(task, now=now), "models": entries}


def present_model(model: Model, *, bucket: str, with_gate: bool = True) -> dict[str, Any]:
    """Return a model's record, without the result of the inspection if `with_gate` is False."""
    shown: dict[str, Any] = {
        "model_id": model.model_id,
        "name": model.resolved.name,
        "hub_id": model.resolved.hub_id,
        "source": model.resolved.source.value,
        "commit": model.resolved.commit,
        "revision": model.resolved.revision,
        "status": model.status.value,
        "task_id": model.task_id,
        "created_at": format_time(model.created_at),
        "updated_at": format_time(model.updated_at),
    }
    if model.submitted_by is not None:
        shown["submitted_by"] = model.submitted_by
    if not model.resolved.selection.is_whole:
        shown["selection"] = asdict(model.resolved.selection)
    if model.status is ModelStatus.READY:
        shown |= {"files": model.files, "size": model.size, "location": _locate(model, bucket)}
        if model.gate is not None and with_gate:
            shown["gate"] = present_gate(model.gate)
        if model.policy is not None:
            shown["policy"] = present_decision(model.policy)
    shown |= _present_source(model.resolved)
    if model.resolved.card is not None:
        shown["card"] = present_card(model.resolved.card)
    if model.signature is not None:
        shown["signature"] = {
            **present_signature(model.signature),
            "location": f"s3://{bucket}/{signature_key(model)}",
        }
    if model.pin is not None:
        shown["pin"] = present_pin(model.pin)
    if model.last_read_on is not None:
        shown["last_read_on"] = model.last_read_on.isoformat()
    return shown | present_model_error(model)


def _present_source(resolved: ResolvedModel) -> dict[str, Any]:
    """Return what is known from the source, besides the card."""
    shown: dict[str, Any] = {} if resolved.gated is None else {"gated": resolved.gated}
    if resolved.committed_at is not None:
        shown["committed_at"] = format_time(resolved.committed_at)
    return shown


def present_card(card: ModelCard) -> dict[str, Any]:
    """Return the metadata of the model card, without what it does not say."""
    return {name: value for name, value in asdict(card).items() if value and name != "omits_licenses"}


def present_decision(result: PolicyResult) -> dict[str, Any]:
    """Return what the import policy decided about a model. The default of a policy has no rule."""
    return {
        "decision": result.decision.value,
        **({"rule_id": result.rule_id} if result.rule_id is not None else {}),
        "reason": result.reason or "",
        "matched": list(result.matched),
        "warnings": [
            {"rule_id": warning.rule_id, "reason": warning.reason, "matched": list(warning.matched)}
            for warning in result.warnings
        ],
        "digest": result.digest,
    }


def present_signature(signature: ModelSignature) -> dict[str, Any]:
    """Return the key of a model's signature, and when the model was signed."""
    return {
        "key_arn": signature.key_arn,
        "public_key": signature.public_key,
        "signed_at": format_time(signature.signed_at),
    }


def present_pin(pin: ModelPin) -> dict[str, Any]:
    """Return the pin of a model."""
    shown = {"pinned_at": format_time(pin.pinned_at), "pinned_by": pin.pinned_by, "reason": pin.reason}
    return {name: value for name, value in shown.items() if value is not None}


def present_gate(report: GateReport) -> dict[str, Any]:
    """Return the result of the inspection for a model's record."""
    files = [{"path": file.path, **present_inspection(file)} for file in report.files]
    return {**summarize_gate(report), "files": files}


def summarize_gate(report: GateReport) -> dict[str, Any]:
    """Return the result of the inspection for a manifest. Its files are in the manifest's own list of files."""
    return {
        "verdict": report.verdict.value,
        "second_opinion": report.second_opinion,
        "reasons": list(report.reasons),
        "flags": list(report.flags),
        "scanned": [{"path": path, "sha256": sha256} for path, sha256 in report.scanned],
        "left_out": list(report.left_out),
    }


def present_inspection(file: FileInspection) -> dict[str, Any]:
    """Return the result of the inspection of one file."""
    shown: dict[str, Any] = {"format": file.format, "verdict": file.verdict.value}
    if file.reason is not None:
        shown["reason"] = file.reason
    if file.findings:
        shown["findings"] = [{"kind": f.kind, "severity": f.severity, "detail": f.detail} for f in file.findings]
    return shown


def _present_result(task: Task, model: Model, bucket: str) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "model_id": model.model_id,
        "name": model.resolved.name,
        "hub_id": model.resolved.hub_id,
        "commit": model.resolved.commit,
        "status": model.status.value,
    }
    if model.task_id != task.id:
        # Another task has claimed the model, after it failed in this task, or after the imported model was deleted.
        failed = task.status is not TaskStatus.DONE or model.model_id in task.failed_ids
        return entry | ({"status": ModelStatus.FAILED.value} if failed else _DELETED)
    if model.status is ModelStatus.READY:
        entry["location"] = _locate(model, bucket)
        if model.policy is not None:
            entry["policy"] = present_decision(model.policy)
    return entry | present_model_error(model)


def _locate(model: Model, bucket: str) -> str:
    return f"s3://{bucket}/{model.resolved.prefix}"
