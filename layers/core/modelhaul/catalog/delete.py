"""Deletion of models. A model becomes invisible first; then its objects and its record are deleted.

The sweep continues an interrupted deletion. Only one function at a time deletes a model. Its lease outlasts the
function, so that no function still deletes objects when the model is imported again.

A retired model stays in the bucket, invisible and without entries in the index of content, until no request and no
function can read from it. Then the sweep deletes it.
"""

import json
import logging
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import batched
from typing import Any

from modelhaul.catalog.read import LINK_SECONDS
from modelhaul.domain.audit import describe_deletion
from modelhaul.domain.digests import Algorithm, Digest
from modelhaul.domain.errors import (
    ImportInProgressError,
    InternalError,
    ModelhaulError,
    ModelNotFoundError,
    ModelPinnedError,
    ObjectGoneError,
    StorageUnavailableError,
)
from modelhaul.domain.keys import MAX_MANIFEST_SIZE, manifest_key, signature_key
from modelhaul.domain.models import DeletionCondition, Model, ModelStatus, describe_missing_model
from modelhaul.ports.clock import Clock
from modelhaul.ports.content import ContentIndex
from modelhaul.ports.models import ModelRepository
from modelhaul.ports.object_store import ObjectStore

logger = logging.getLogger(__name__)

_BATCH_SIZE = 250  # files that are deleted between two checks of the remaining time, within 2 seconds
_STOP_BEFORE = 8.0  # seconds that are reserved at the end of the function
_LEASE_MARGIN = 60.0  # seconds after the end of a function until all its requests have certainly ended
# Seconds for which the files of a retired model stay. A presigned URL that was signed before expires within
# LINK_SECONDS, and a function that has found content of the model copies it within its timeout of 15 minutes.
_RETIRED_SECONDS = LINK_SECONDS + 900.0
_MAX_DUE = 100
_MAX_LEASE_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class ModelDeleter:
    """Deletes models, and continues interrupted deletions."""

    models: ModelRepository
    content: ContentIndex
    store: ObjectStore
    clock: Clock

    def delete_model(self, model_id: str, remaining: Callable[[], float], *, deleted_by: str | None = None) -> bool:
        """Delete as much of the model as `remaining()` seconds allow. `deleted_by` names the caller.

        Return True if the deletion is complete, False if the sweep or another function continues it. Raises
        ModelNotFoundError, ImportInProgressError if a task has claimed the model, ModelPinnedError, and
        StorageUnavailableError.
        """
        model = self.models.find_model(model_id)
        if model is None:
            raise ModelNotFoundError(describe_missing_model(model_id))
        owner = str(uuid.uuid4())
        # A deletion that continues was recorded when it started.
        is_started = model.status is ModelStatus.DELETING
        moment = datetime.fromtimestamp(self.clock(), UTC)
        entry = None if is_started else describe_deletion(model, deleted_by, moment)
        for _ in range(_MAX_LEASE_ATTEMPTS):
            now = self.clock()
            until = now + remaining() + _LEASE_MARGIN
            leased = self.models.lease_deletion(
                model_id, owner=owner, now=now, until=until, deleted_by=deleted_by, entry=entry
            )
            if leased is not None:
                return self._delete(leased, owner, remaining)
            current = self.models.find_model(model_id)
            if current is None:
                return True
            if current.status in (ModelStatus.IMPORTING, ModelStatus.WITHDRAWING):
                raise _create_import_error(current)
            if current.status is ModelStatus.DELETING:
                return False
            if current.pin is not None:
                raise ModelPinnedError(f"{current.resolved.describe()} is pinned.")
            # The import ended between the two requests, so the model can be leased now.
        raise StorageUnavailableError(f"Model {model_id} was modified concurrently. The deletion was not started.")

    def retire_model(
        self,
        model: Model,
        unread_since: date,
        remaining: Callable[[], float],
        *,
        deleted_by: str,
        reason: str,
    ) -> bool:
        """Start the deletion of a READY model, unless it is pinned, was read since `unread_since`, or has changed.

        Return whether the deletion has started. The model is invisible at once, and imports no longer find its content.
        Its files stay until no request and no function that found them before can still read them. Then the sweep
        deletes them. Raises StorageUnavailableError.
        """
        owner, now = str(uuid.uuid4()), self.clock()
        leased = self.models.lease_deletion(
            model.model_id,
            owner=owner,
            now=now,
            until=now + _RETIRED_SECONDS,
            deleted_by=deleted_by,
            entry=describe_deletion(model, deleted_by, datetime.fromtimestamp(now, UTC), reason=reason),
            condition=DeletionCondition(model.task_id, unread_since),
        )
        if leased is None:
            return False
        logger.info("model retired", extra={**_describe(leased), "reason": reason, "bytes": model.size})
        # What this function does not reach, a transfer may find until the sweep deletes it. It then downloads the file.
        for batch in batched(self._list_files(leased), _BATCH_SIZE, strict=False):
            if remaining() < _STOP_BEFORE:
                break
            self._forget_files(batch)
        return True

    def resume(self, remaining: Callable[[], float]) -> None:
        """Continue deletions that no function is working on. The error of one model does not stop the other deletions.

        Raises ExceptionGroup with the unexpected errors at the end.
        """
        defects: list[Exception] = []
        for listed in self.models.list_deleting(self.clock(), _MAX_DUE):
            if remaining() < _STOP_BEFORE:
                break
            try:
                # The list comes from an index, which is eventually consistent.
                model = self.models.find_model(listed.model_id)
                if model is not None and model.status is ModelStatus.DELETING:
                    self.delete_model(model.model_id, remaining)
            except ModelhaulError as error:
                logger.warning(
                    "deletion failed; the next sweep retries",
                    extra={"model_id": listed.model_id, "reason": error.type, "detail": error.detail},
                )
            except Exception as error:
                logger.exception("unexpected error during deletion", extra={"model_id": listed.model_id})
                defects.append(error)
        if defects:
            raise ExceptionGroup("unexpected errors during deletions", defects)

    def _delete(self, model: Model, owner: str, remaining: Callable[[], float]) -> bool:
        context = _describe(model)
        files = self._list_files(model)
        for batch in batched(files, _BATCH_SIZE, strict=False):
            if remaining() < _STOP_BEFORE:
                logger.info("deletion interrupted; the next sweep continues", extra=context)
                return False
            # Index entries are removed before their objects. A transfer that copies from a deleted object downloads the
            # file instead.
            self._forget_files(batch)
            self.store.delete(key for key, _ in batch)
        # The manifest lists the files to delete, so it is deleted last.
        self.store.delete([signature_key(model), manifest_key(model.model_id)])
        self.models.remove_model(model.model_id, owner=owner)
        logger.info("model deleted", extra={**context, "files": len(files)})
        return True

    def _forget_files(self, files: Iterable[tuple[str, set[str]]]) -> None:
        self.content.forget_blobs((digest, key) for key, digests in files for digest in digests)

    def _list_files(self, model: Model) -> list[tuple[str, set[str]]]:
        """Return key and digests of each object in the manifest. A model that was never READY has no manifest.

        The bucket is not listed, because another model's objects may have the same prefix (`name` and `name/part`).
        """
        try:
            manifest = json.loads(self.store.read(manifest_key(model.model_id), 0, MAX_MANIFEST_SIZE))
            return list(_read_files(model, manifest))
        except ObjectGoneError:
            return []
        except (ValueError, LookupError, TypeError) as error:
            raise InternalError(
                f"The manifest of model {model.model_id} is invalid. Ask an operator to check "
                f"{manifest_key(model.model_id)} in the models bucket."
            ) from error


def _describe(model: Model) -> dict[str, Any]:
    return {
        "model_id": model.model_id,
        "model": model.resolved.name,
        "task_id": model.task_id,
        "deleted_by": model.deleted_by,
    }


def _read_files(model: Model, manifest: Any) -> Iterator[tuple[str, set[str]]]:
    for entry in manifest["files"]:
        own = str(Digest(Algorithm.SHA256, entry["sha256"]))
        yield model.resolved.prefix + entry["path"], {own, entry["source_digest"]}


def _create_import_error(model: Model) -> ImportInProgressError:
    name = model.resolved.name
    if model.status is ModelStatus.WITHDRAWING:
        return ImportInProgressError(
            f"The import of {name} failed during publication, and its files are being removed.",
            model_id=model.model_id,
            task_id=model.task_id,
            remedy="No action is required: the files are removed automatically.",
        )
    return ImportInProgressError(
        f"{name} is being imported by task {model.task_id}.", model_id=model.model_id, task_id=model.task_id
    )
