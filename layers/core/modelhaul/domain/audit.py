"""Entries of the audit: who did what to which model, task or key, and when."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from modelhaul.domain.models import Source

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


EVERYTHING = AuditFilter()


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Entries, newest first. `cursor` requests the next page; None on the last page."""

    entries: tuple[AuditEntry, ...]
    cursor: str | None


def describe_policy_change(
    *, location: str, digest: str, version: str, changed_at: datetime, changed_by: str | None = None
) -> AuditEntry:
    """Return the entry for a policy document that is read. Every reader of the same version gets the same ID.

    `changed_at`: when the document was written at its location. A version that was replaced and restored is a change.
    """
    return AuditEntry(
        action=AuditAction.POLICY_CHANGED,
        time=changed_at,
        actor=changed_by,
        detail={"location": location, "digest": digest, "version": version},
        id=str(uuid.uuid5(_CHANGE_NAMESPACE, f"{location}\n{version}\n{digest}")),
    )


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"
