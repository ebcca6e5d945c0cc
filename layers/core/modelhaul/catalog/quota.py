"""The quota of stored bytes, which submissions and plans of imports are checked against.

A plan reserves its bytes before anything is transferred, in one item that is replaced under a condition. So any number
of imports that are planned at the same time stay below the quota together. The item has an upper bound of what is
stored, so most checks do not read the models: they are read again only when the bound does not suffice, or is old.
"""

import logging
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from modelhaul.domain.claims import check_claimable
from modelhaul.domain.errors import StorageQuotaError, StorageUnavailableError
from modelhaul.domain.models import Model, ModelStatus
from modelhaul.domain.quotas import QuotaState, QuotaUse
from modelhaul.domain.tasks import Task, TaskStatus
from modelhaul.ports.clock import Clock
from modelhaul.ports.models import ModelRepository
from modelhaul.ports.quotas import QuotaRepository
from modelhaul.ports.tasks import TaskRepository

logger = logging.getLogger(__name__)

# Seconds after which the models are measured again, so that imports that were planned while there was no quota count.
_MAX_AGE = 3600.0
# Seconds for which the end of a task may be missing in the list of READY models, which is eventually consistent.
_LIST_DELAY = 300.0
_MAX_UNCHECKED = 500  # reservations after which those of ended tasks are removed
_MAX_RESERVED = 5000  # reservations of tasks in progress; an item has at most 400 KB
_MAX_ATTEMPTS = 8
_MAX_PAUSE = 0.05  # seconds before the second attempt, because up to five functions plan imports at once


@dataclass(frozen=True, slots=True)
class StorageQuota:
    """A quota of `limit` bytes of READY models."""

    limit: int
    states: QuotaRepository
    tasks: TaskRepository
    models: ModelRepository
    clock: Clock

    def check_submission(self, size: int = 0, models: Sequence[Model] = ()) -> None:
        """Check that a submission of at least `size` bytes, or else of one byte, fits beside the stored models.

        Imports in progress do not count: the plan of the import checks them. Raises StorageQuotaError, and
        StorageUnavailableError. If one of `models` cannot be imported anyway, raises the error of `check_claimable`.
        """
        size = max(size, 1)
        state = self.states.read_state()
        if self._is_current(state) and state.bound + size <= self.limit:
            return
        _, use = self._measure(state, self.models.list_ready())
        if use.stored + size <= self.limit:
            return
        if models:
            check_claimable(models[0].task_id, self.models.find_models([model.model_id for model in models]))
        raise create_quota_error(use, size)

    def reserve(self, task: Task, size: int) -> None:
        """Reserve the planned bytes of a task until it ends. No-op if they are reserved.

        Raises StorageQuotaError if they do not fit beside the stored models and the other imports in progress, and
        StorageUnavailableError.
        """
        for attempt in range(_MAX_ATTEMPTS):
            if attempt:
                time.sleep(random.uniform(0, _MAX_PAUSE * attempt))  # noqa: S311 - jitter
            state = self.states.read_state()
            if state.reserved.get(task.id, -1) >= size:
                return
            if not self._has_room(state, size):
                state, use = self._measure(state, self.models.list_ready())
                if use.stored + use.reserved + size > self.limit:
                    raise create_quota_error(use, size)
                if len(state.reserved) >= _MAX_RESERVED:
                    raise StorageUnavailableError(f"{len(state.reserved):,} imports in progress have reserved storage.")
            if self.states.save_state(state.reserve(task.id, size)):
                logger.info("storage reserved", extra={"task_id": task.id, "bytes": size})
                return
        raise StorageUnavailableError("The state of the storage quota was modified concurrently.")

    def measure(self, ready: Iterable[Model]) -> QuotaUse:
        """Return how much of the quota is used. `ready` are all READY models. Raises StorageUnavailableError."""
        return self._measure(self.states.read_state(), ready)[1]

    def _is_current(self, state: QuotaState) -> bool:
        return state.limit == self.limit and 0 <= self.clock() - state.measured_at < _MAX_AGE

    def _has_room(self, state: QuotaState, size: int) -> bool:
        """Return whether the bytes certainly fit."""
        return self._is_current(state) and len(state.reserved) < _MAX_UNCHECKED and state.bound + size <= self.limit

    def _measure(self, state: QuotaState, ready: Iterable[Model]) -> tuple[QuotaState, QuotaUse]:
        """Return the state with the current bytes of the models and without the reservations that are over, and the
        use of the quota.
        """
        now = self.clock()
        kept: dict[str, int] = {}
        listed_by_task: set[str] = set()
        ended = reserved = 0
        for task_id, size in state.reserved.items():
            task = self.tasks.find_task(task_id)
            if task is None or task.status is TaskStatus.FAILED:
                continue
            if task.status is TaskStatus.PENDING:
                kept[task_id] = size
                reserved += size
            elif now - task.updated_at.timestamp() < _LIST_DELAY:
                kept[task_id] = self._sum_published(task)
                ended += kept[task_id]
            else:
                continue
            listed_by_task.update(task.model_ids)
        measured = sum(m.size for m in ready if m.model_id not in listed_by_task)
        current = replace(state, limit=self.limit, measured=measured, measured_at=now, reserved=MappingProxyType(kept))
        return current, QuotaUse(self.limit, measured + ended, reserved)

    def _sum_published(self, task: Task) -> int:
        """Return the bytes of the READY models that the task imported. Strongly consistent."""
        found = self.models.find_models(task.model_ids)
        return sum(m.size for m in found if m.task_id == task.id and m.status is ModelStatus.READY)


def create_quota_error(use: QuotaUse, size: int) -> StorageQuotaError:
    quota = f"the storage quota of {use.limit:,} bytes (parameter StorageQuotaGB)"
    if size == 1:
        return StorageQuotaError(f"Models have {use.stored:,} bytes, which use up {quota}.")
    reserved = f", and imports in progress have reserved {use.reserved:,} bytes" if use.reserved else ""
    return StorageQuotaError(
        f"The import of {size:,} bytes would exceed {quota}. Models have {use.stored:,} bytes{reserved}."
    )
