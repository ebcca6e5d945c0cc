"""Entries of the audit: who did what to which model, task or key, and when."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from modelhaul.domain.keys import DROPPED
from modelhaul.domain.models import Model, ModelPin, Source
from modelhaul.domain.read_keys import ReadKey
from modelhaul.domain.tasks import Task

MAX_TEXT = 1000  # characters of a reason, and of a value of `detail`

_CHANGE_NAMESPACE = uuid.UUID("5e8a4f0e-7c53-5d0b-9a44-3a0f6f1f6f27")


class AuditAction(StrEnum):
    """The names are also the detail types of the events. A name never changes its meaning."""

    IMPORT_SUBMITTED = "ImportSubmitted"
    IMPORT_CANCELLED = "ImportCancelled"
    UPLOAD_URLS_RENEWED = "UploadUrlsRenewed"
    MODEL_DELETED = "ModelDeleted"
    MODEL_SIGNED = "ModelSigned"
    MODEL_PINNED = "ModelPinned"
    MODEL_UNPINNED = "ModelUnpinned"
    READ_KEY_CREATED = "ReadKeyCreated"
    READ_KEY_DELETED = "ReadKeyDeleted"
    POLICY_CHANGED = "PolicyChanged"
    POLICY_DENIED = "PolicyDenied"
    POLICY_WARNED = "PolicyWarned"
    FOLLOW_CREATED = "FollowCreated"
    FOLLOW_CHANGED = "FollowChanged"
    FOLLOW_DELETED = "FollowDeleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One action. An entry never changes.

    `actor` names the caller, see `modelhaul.domain.callers`; None if AWS did not pass one. Of the targets, those that
    the action has are set. `name` is the name of the model at its source, or of a read key. `reason` is what the actor
    or a rule gave as the reason. `detail` has further facts, without secrets. Long texts are shortened.
    """

    action: AuditAction
    time: datetime
    actor: str | None
    model_id: str | None = None
    task_id: str | None = None
    key_id: str | None = None
    follow_id: str | None = None
    name: str | None = None
    source: Source | None = None
    commit: str | None = None
    reason: str | None = None
    detail: Mapping[str, str] = MappingProxyType({})
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", _shorten(self.reason) if self.reason else None)
        object.__setattr__(self, "detail", {name: _shorten(text) for name, text in self.detail.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """What a list of entries has in common. `actor` is a caller, or a role, which stands for all its sessions.

    `since` is inclusive, `until` exclusive.
    """

    action: AuditAction | None = None
    actor: str | None = None
    model_id: str | None = None
    task_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def is_empty(self) -> bool:
        """Return whether the period contains no time."""
        return self.since is not None and self.until is not None and self.since >= self.until


EVERYTHING = AuditFilter()


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Entries, newest first. `cursor` requests the next page; None on the last page."""

    entries: tuple[AuditEntry, ...]
    cursor: str | None


def describe_submission(task: Task, models: Sequence[Model] = ()) -> AuditEntry:
    """Return the entry for an accepted import. `models` is empty for an archive that is not inspected yet."""
    only = models[0] if len(models) == 1 else None
    return AuditEntry(
        action=AuditAction.IMPORT_SUBMITTED,
        time=task.created_at,
        actor=task.submitted_by,
        model_id=only.model_id if only else None,
        task_id=task.id,
        name=only.resolved.name if only else None,
        source=task.source,
        commit=task.commit,
        detail=_describe_request(task),
    )


def describe_cancellation(task: Task, actor: str | None, now: datetime) -> AuditEntry:
    """Return the entry for the cancellation of a task."""
    return AuditEntry(
        action=AuditAction.IMPORT_CANCELLED,
        time=now,
        actor=actor,
        model_id=task.model_ids[0] if len(task.model_ids) == 1 else None,
        task_id=task.id,
        source=task.source,
        commit=task.commit,
        detail=_describe_request(task),
    )


def describe_renewal(task: Task, actor: str | None, now: datetime) -> AuditEntry:
    """Return the entry for presigned URLs that are signed again."""
    return AuditEntry(
        action=AuditAction.UPLOAD_URLS_RENEWED,
        time=now,
        actor=actor,
        task_id=task.id,
        source=task.source,
        detail=_describe_request(task),
    )


def describe_deletion(model: Model, actor: str | None, now: datetime, *, reason: str | None = None) -> AuditEntry:
    """Return the entry for a model whose deletion starts."""
    return AuditEntry(**_describe_model(model), action=AuditAction.MODEL_DELETED, time=now, actor=actor, reason=reason)


def describe_pin(model: Model, pin: ModelPin) -> AuditEntry:
    """Return the entry for a model that is pinned."""
    return AuditEntry(
        **_describe_model(model),
        action=AuditAction.MODEL_PINNED,
        time=pin.pinned_at,
        actor=pin.pinned_by,
        reason=pin.reason,
    )


def describe_unpinning(model: Model, actor: str | None, now: datetime) -> AuditEntry:
    """Return the entry for a model whose pin is removed."""
    return AuditEntry(**_describe_model(model), action=AuditAction.MODEL_UNPINNED, time=now, actor=actor)


def describe_signature(model: Model, actor: str | None, now: datetime, *, key_arn: str) -> AuditEntry:
    """Return the entry for a published model that is signed."""
    detail = {"signing_key_arn": key_arn}
    return AuditEntry(**_describe_model(model), action=AuditAction.MODEL_SIGNED, time=now, actor=actor, detail=detail)


def describe_key_creation(key: ReadKey) -> AuditEntry:
    """Return the entry for a new read key, without the key."""
    detail = {"scopes": " ".join(key.scopes), "names": " ".join(key.names)}
    if key.expires_at is not None:
        detail["expires_at"] = key.expires_at.isoformat()
    return AuditEntry(
        action=AuditAction.READ_KEY_CREATED,
        time=key.created_at,
        actor=key.created_by,
        key_id=key.key_id,
        name=key.name,
        detail=detail,
    )


def describe_key_deletion(key: ReadKey, actor: str | None, now: datetime) -> AuditEntry:
    """Return the entry for a read key that is deleted."""
    return AuditEntry(action=AuditAction.READ_KEY_DELETED, time=now, actor=actor, key_id=key.key_id, name=key.name)


def describe_policy_change(*, location: str, digest: str, version: str, changed_at: datetime) -> AuditEntry:
    """Return the entry for a policy document that is read. Every reader of the same version gets the same ID.

    `changed_at`: when the document was written at its location. A version that was replaced and restored is a change.
    S3 and Systems Manager do not tell readers who wrote it; AWS CloudTrail does.
    """
    return AuditEntry(
        action=AuditAction.POLICY_CHANGED,
        time=changed_at,
        actor=None,
        detail={"location": location, "digest": digest, "version": version},
        # In a bucket without versions, only the time distinguishes a document that is restored.
        id=str(uuid.uuid5(_CHANGE_NAMESPACE, f"{location}\n{version}\n{digest}\n{changed_at.timestamp()}")),
    )


def _describe_model(model: Model) -> dict[str, Any]:
    resolved = model.resolved
    return {
        "model_id": model.model_id,
        "task_id": model.task_id,
        "name": resolved.name,
        "source": resolved.source,
        "commit": None if resolved.source is Source.LOCAL else resolved.commit,
    }


def _describe_request(task: Task) -> dict[str, str]:
    if task.archive is None:
        selection = {} if task.selection.is_whole else {"selection": task.selection.describe()}
        return {"requested": task.model_tag, **selection}
    archive = task.archive
    named = {"model_name": archive.model_name} if archive.model_name else {}
    return {"archive": archive.key if archive.key.startswith(DROPPED) else archive.file_name, **named}


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"
