"""Models: their identity, status and records."""

import json
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import date, datetime
from enum import StrEnum
from functools import lru_cache

from modelhaul.domain.gate import GateReport
from modelhaul.domain.hub_names import build_hub_id
from modelhaul.domain.model_cards import ModelCard
from modelhaul.domain.policy_results import PolicyResult
from modelhaul.domain.selection import WHOLE, Selection
from modelhaul.domain.signatures import ModelSignature

_MODEL_NAMESPACE = uuid.UUID("6f1c9f3e-6d0c-5d61-9a3c-0f6a4b1f7c55")

_MAX_ERROR_DETAIL = 1000  # characters in a model's record; one transaction writes up to 90 records


class Source(StrEnum):
    HUGGINGFACE = "HUGGINGFACE"
    GITHUB = "GITHUB"
    LOCAL = "LOCAL"


class ModelStatus(StrEnum):
    IMPORTING = "IMPORTING"
    READY = "READY"
    WITHDRAWING = "WITHDRAWING"  # publication failed: the published files are removed before the status becomes FAILED
    FAILED = "FAILED"
    DELETING = "DELETING"  # no longer visible; its objects are deleted first, then its record


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """An immutable version of a model at its source, or the subset of its files that `selection` includes.

    `name` is the source's canonical name, `commit` the commit of `revision` when the model was resolved. A model from
    an archive has no upstream commit; its `commit` is the task's ID. `root` is the model's directory among its task's
    files: `""`, or a directory with a trailing slash.

    These do not identify the version: `card` is None if the source has no metadata of the model. `gated`: whether the
    source gives the model only to accounts that have accepted its terms. `committed_at` is the time that the commit
    states. Both are None if they were not requested from the source.
    """

    source: Source
    name: str
    revision: str
    commit: str
    root: str = ""
    selection: Selection = WHOLE
    card: ModelCard | None = field(default=None, compare=False)
    gated: bool | None = field(default=None, compare=False)
    committed_at: datetime | None = field(default=None, compare=False)

    @property
    def model_id(self) -> str:
        """Return the UUIDv5 of `source:name@commit`, for a model from an archive of `local:name` in lower case.

        Aliases of one version have the same ID. A moved branch and each partial selection have a different ID.
        """
        if self.source is Source.LOCAL:
            return str(uuid.uuid5(_MODEL_NAMESPACE, f"local:{self.name.lower()}"))
        return _identify(self.source, self.name, self.commit, self.selection)

    @property
    def hub_id(self) -> str:
        """Return the name under which Hub clients find the model. All versions and parts of a model have the same."""
        return build_hub_id(self.source, self.name)

    @property
    def prefix(self) -> str:
        """Return the model's key prefix in the models bucket, with a trailing slash. Each selection has its own."""
        part = "" if self.selection.is_whole else f"-partial-{self.model_id}"
        return f"models/{self.source.lower()}/{self.name}/{self.commit}{part}/"

    def build_key(self, path: str) -> str:
        """Return the key in the models bucket of the model's file that has this path in the task."""
        return self.prefix + path.removeprefix(self.root)

    def locate(self, path: str) -> str | None:
        """Return the key in the models bucket of the task's file `path`, None if it belongs to another model."""
        return self.build_key(path) if path.startswith(self.root) else None

    def describe(self) -> str:
        """Return a description for messages, which distinguishes versions and selections of a model."""
        if self.source is Source.LOCAL:
            return self.name
        part = "" if self.selection.is_whole else f" ({self.selection.describe()})"
        return f"{self.name} at commit {self.commit[:12]}{part}"


@lru_cache(maxsize=128)  # called for each file of a partial model
def _identify(source: Source, name: str, commit: str, selection: Selection) -> str:
    part = "" if selection.is_whole else f"+{json.dumps(asdict(selection))}"
    return str(uuid.uuid5(_MODEL_NAMESPACE, f"{source.lower()}:{name}@{commit}{part}"))


@dataclass(frozen=True, slots=True)
class ModelError:
    """Why the import of a model failed, with the fields of `ModelhaulError`."""

    type: str
    detail: str
    retryable: bool
    remedy: str | None = None

    def shorten(self) -> "ModelError":
        """Return a copy for a model's record, with a detail of at most 1,000 characters."""
        if len(self.detail) <= _MAX_ERROR_DETAIL:
            return self
        return replace(self, detail=f"{self.detail[: _MAX_ERROR_DETAIL - 1]}…")


@dataclass(frozen=True, slots=True)
class ModelPin:
    """Protects a READY model from deletion. `pinned_by` names the caller; None if AWS did not pass one."""

    pinned_at: datetime
    pinned_by: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class DeletionCondition:
    """What must hold when a deletion starts: the READY model is that of `task_id`, and was not read since
    `unread_since` (UTC).
    """

    task_id: str
    unread_since: date


@dataclass(frozen=True, slots=True)
class Model:
    """A model's record: the claim of a task while the model is IMPORTING, a catalog entry when it is READY.

    `error` says why the last import failed. It is None unless the model is FAILED, WITHDRAWING or DELETING.
    `last_read_on` is the last day (UTC) on which a client of the APIs read a file of the model, None if none has.
    `may_redirect`: a request of a Hub client started this import, and no import of this version had failed before.
    `submitted_by` names who submitted the import, `deleted_by` who deleted the model, see `modelhaul.domain.callers`.
    `signature` is None if the model is not signed. `policy` is the decision of the import policy, None if the stack had
    none. `pin` is None unless the model is pinned. `bytes_reused` are the bytes of a READY model that were stored
    before its import; 0 if an earlier version of the stack imported it.
    """

    model_id: str
    resolved: ResolvedModel
    status: ModelStatus
    task_id: str
    created_at: datetime
    updated_at: datetime
    files: int = 0
    size: int = 0
    gate: GateReport | None = None
    error: ModelError | None = None
    last_read_on: date | None = None
    may_redirect: bool = False
    submitted_by: str | None = None
    deleted_by: str | None = None
    signature: ModelSignature | None = None
    policy: PolicyResult | None = None
    pin: ModelPin | None = None
    bytes_reused: int = 0


@dataclass(frozen=True, slots=True)
class Publication:
    """What the record of a model gets when it becomes READY, with the fields of `Model`. `size` is in bytes."""

    files: int
    size: int
    gate: GateReport | None = None
    signature: ModelSignature | None = None
    policy: PolicyResult | None = None
    bytes_reused: int = 0


@dataclass(frozen=True, slots=True)
class ModelPage:
    """A page of models, newest first. `cursor` requests the next page; it is None on the last page."""

    models: tuple[Model, ...]
    cursor: str | None


class ModelRoots:
    """Finds the model that a file belongs to, by the file's path in the task."""

    def __init__(self, models: Iterable[Model]) -> None:
        self._by_root = {model.resolved.root: model for model in models}

    def find_owner(self, path: str) -> Model:
        directory = path.partition("/")[0]
        return self._by_root.get(f"{directory}/") or self._by_root[""]


def describe_missing_model(model_id: str) -> str:
    return f"Model {model_id[:64]!r} not found."
