"""Models: their identity, status and records."""

import json
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from enum import StrEnum
from functools import lru_cache

from modelhaul.domain.gate import GateReport
from modelhaul.domain.selection import WHOLE, Selection

_MODEL_NAMESPACE = uuid.UUID("6f1c9f3e-6d0c-5d61-9a3c-0f6a4b1f7c55")

_MAX_ERROR_DETAIL = 1000  # characters in a model's record, of which one transaction writes 90


class Source(StrEnum):
    HUGGINGFACE = "HUGGINGFACE"
    GITHUB = "GITHUB"
    LOCAL = "LOCAL"


class ModelStatus(StrEnum):
    IMPORTING = "IMPORTING"
    READY = "READY"
    WITHDRAWING = "WITHDRAWING"  # failed while it was being published: what became visible is removed first
    FAILED = "FAILED"
    DELETING = "DELETING"  # nobody is shown it any more; its objects go, and then its record


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """One immutable version of a model at its source, or the part of it that `selection` takes.

    `name` is the source's canonical name, `commit` what `revision` stood for when it was asked. A model from an
    archive has no upstream commit: there it is the task's id. `root` says where among its task's files the model's
    own lie: `""`, or a directory with the trailing slash.
    """

    source: Source
    name: str
    revision: str
    commit: str
    root: str = ""
    selection: Selection = WHOLE

    @property
    def model_id(self) -> str:
        """UUIDv5 of `source:name@commit`: aliases of one version meet, a moved branch is another model,
        and so is each selection of a part.

        For a model from an archive, of `local:name` in lower case.
        """
        if self.source is Source.LOCAL:
            return str(uuid.uuid5(_MODEL_NAMESPACE, f"local:{self.name.lower()}"))
        return _identify(self.source, self.name, self.commit, self.selection)

    @property
    def prefix(self) -> str:
        """Where the files lie in the models bucket, with the trailing slash. A part lies beside the whole."""
        part = "" if self.selection.is_whole else f"-partial-{self.model_id}"
        return f"models/{self.source.lower()}/{self.name}/{self.commit}{part}/"

    def build_key(self, path: str) -> str:
        """The key in the models bucket of this model's file, by its path in the task."""
        return self.prefix + path.removeprefix(self.root)

    def locate(self, path: str) -> str | None:
        """The key of the task's file `path` in the models bucket; None if it is not this model's."""
        return self.build_key(path) if path.startswith(self.root) else None

    def describe(self) -> str:
        """As people are told, so that versions and parts of a model can be told apart."""
        if self.source is Source.LOCAL:
            return self.name
        part = "" if self.selection.is_whole else f" ({self.selection.describe()})"
        return f"{self.name} at commit {self.commit[:12]}{part}"


@lru_cache(maxsize=128)  # each file of a part is located by it
def _identify(source: Source, name: str, commit: str, selection: Selection) -> str:
    part = "" if selection.is_whole else f"+{json.dumps(asdict(selection))}"
    return str(uuid.uuid5(_MODEL_NAMESPACE, f"{source.lower()}:{name}@{commit}{part}"))


@dataclass(frozen=True, slots=True)
class ModelError:
    """Why the import of one model failed, in the terms of `ModelhaulError`."""

    type: str
    detail: str
    retryable: bool

    def shorten(self) -> "ModelError":
        """The form for a model's record: at most 1,000 characters of detail."""
        if len(self.detail) <= _MAX_ERROR_DETAIL:
            return self
        return replace(self, detail=f"{self.detail[: _MAX_ERROR_DETAIL - 1]}…")


@dataclass(frozen=True, slots=True)
class Model:
    """A model's record: the claim of one task while it is IMPORTING, the catalog's entry once it is READY.

    `error` says why its last import failed; it is None unless the model is FAILED, WITHDRAWING or DELETING.
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


@dataclass(frozen=True, slots=True)
class ModelPage:
    """Models, newest first; `cursor` asks for those that follow, None at the end."""

    models: tuple[Model, ...]
    cursor: str | None


class ModelRoots:
    """Tells which of a task's models a file belongs to, by its path in the task."""

    def __init__(self, models: Iterable[Model]) -> None:
        self._by_root = {model.resolved.root: model for model in models}

    def find_owner(self, path: str) -> Model:
        directory = path.partition("/")[0]
        return self._by_root.get(f"{directory}/") or self._by_root[""]


def describe_missing_model(model_id: str) -> str:
    return f"There is no model {model_id[:64]!r}."
