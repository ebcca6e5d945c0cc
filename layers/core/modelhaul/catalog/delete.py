"""Models are deleted: nobody is shown them from the first moment on, and then all that they have goes.

What dies in between is taken up by the sweep. Only one function at a time deletes a model, and its lease outlasts it,
so that none can still be at work when the model is imported again.
"""

import json
import logging
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import batched
from typing import Any

from modelhaul.domain.digests import Algorithm, Digest
from modelhaul.domain.errors import (
    ImportInProgressError,
    InternalError,
    ModelhaulError,
    ModelNotFoundError,
    ObjectGoneError,
    StorageUnavailableError,
)
from modelhaul.domain.keys import manifest_key
from modelhaul.domain.models import Model, ModelStatus, describe_missing_model
from modelhaul.ports.clock import Clock
from modelhaul.ports.content import ContentIndex
from modelhaul.ports.metrics import Metrics
from modelhaul.ports.models import ModelRepository
from modelhaul.ports.object_store import ObjectStore

logger = logging.getLogger(__name__)

_BATCH = 250  # files, between two looks at the clock: at most a second or two
_STOP_BEFORE = 8.0  # seconds kept at the end
_MARGIN = 60.0  # seconds after a function's end when nothing that it sent can still be on its way
_MAX_DUE = 100
_LEASE_TRIES = 3
_MAX_MANIFEST = 1 << 40  # bytes; more than there can be


@dataclass(frozen=True, slots=True)
class ModelDeleter:
    models: ModelRepository
    content: ContentIndex
    store: ObjectStore
    metrics: Metrics
    clock: Clock

    def delete_model(self, model_id: str, remaining: Callable[[], float]) -> bool:
        """Deletes as much as `remaining()` seconds allow. True if all is gone, False if the sweep goes on with it or
        another function is at it.

        Raises ModelNotFoundError, ImportInProgressError while a task has the model, and StorageUnavailableError.
        """
        model = self.models.find_model(model_id)
        if model is None:
            raise ModelNotFoundError(describe_missing_model(model_id))
        owner = str(uuid.uuid4())
        for _ in range(_LEASE_TRIES):
            now = self.clock()
            leased = self.models.lease_deletion(model_id, owner=owner, now=now, until=now + remaining() + _MARGIN)
            if leased is not None:
                return self._delete(leased, owner, remaining)
            held = self.models.find_model(model_id)
            if held is None:
                return True
            if held.status in (ModelStatus.IMPORTING, ModelStatus.WITHDRAWING):
                raise ImportInProgressError(_describe_import(held), model_id=model_id, task_id=held.task_id)
            if held.status is ModelStatus.DELETING:
                return False
            # Its import ended between the two reads, so that it can be leased now.
        raise StorageUnavailableError(f"Model {model_id} changed during each of {_LEASE_TRIES} attempts to delete it.")

    def resume(self, remaining: Callable[[], float]) -> None:
        """Continues deletions that no function is working on. One model's error does not keep the others from being
        deleted. Raises ExceptionGroup with the unexpected errors, after all of them.
        """
        defects: list[Exception] = []
        for listed in self.models.list_deleting(self.clock(), _MAX_DUE):
            if remaining() < _STOP_BEFORE:
                break
            try:
                # The list comes from an index, which may lag behind.
                model = self.models.find_model(listed.model_id)
                if model is not None and model.status is ModelStatus.DELETING:
                    self.delete_model(model.model_id, remaining)
            except ModelhaulError as error:
                logger.warning(
                    "could not delete the model; the next sweep will",
                    extra={"model_id": listed.model_id, "reason": error.type, "detail": error.detail},
                )
            except Exception as error:
                logger.exception("unexpected error; other models are deleted", extra={"model_id": listed.model_id})
                defects.append(error)
        if defects:
            raise ExceptionGroup("unexpected errors of deletions", defects)

    def _delete(self, model: Model, owner: str, remaining: Callable[[], float]) -> bool:
        context = {"model_id": model.model_id, "model": model.resolved.name, "task_id": model.task_id}
        files = self._list_files(model)
        for batch in batched(files, _BATCH, strict=False):
            if remaining() < _STOP_BEFORE:
                logger.info("out of time; the sweep goes on deleting", extra=context)
                return False
            # First what points at the objects. A transfer that copies from one at this moment fetches the file.
            self.content.forget_blobs((digest, key) for key, digests in batch for digest in digests)
            self.store.delete(key for key, _ in batch)
        # Last, since it says what else there is to delete.
        self.store.delete([manifest_key(model.model_id)])
        self.models.remove_model(model.model_id, owner=owner)
        self.metrics.count("ModelsDeleted", source=model.resolved.source)
        logger.info("model deleted; it can be imported again", extra={**context, "files": len(files)})
        return True

    def _list_files(self, model: Model) -> list[tuple[str, set[str]]]:
        """Key and digests of each object, by the manifest; none if there is none, as for a model that was never READY.

        The objects themselves are not listed: another model's may lie below this one's prefix (`name` and `name/part`).
        """
        try:
            manifest = json.loads(self.store.read(manifest_key(model.model_id), 0, _MAX_MANIFEST))
            return list(_read_files(model, manifest))
        except ObjectGoneError:
            return []
        except (ValueError, LookupError, TypeError) as error:
            raise InternalError(f"The manifest of model {model.model_id} is not as it was written.") from error


def _read_files(model: Model, manifest: Any) -> Iterator[tuple[str, set[str]]]:
    for entry in manifest["files"]:
        own = str(Digest(Algorithm.SHA256, entry["sha256"]))
        yield model.resolved.prefix + entry["path"], {own, entry["source_digest"]}


def _describe_import(model: Model) -> str:
    if model.status is ModelStatus.WITHDRAWING:
        return (
            f"The import of {model.resolved.name} failed while it was being published, and is being withdrawn: "
            "nothing of it will stay."
        )
    return f"{model.resolved.name} is being imported by task {model.task_id}: cancel that one."
