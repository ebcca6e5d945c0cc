"""Applies the limits to all models, or only lists what they would delete."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from itertools import batched

from modelhaul.catalog.delete import ModelDeleter
from modelhaul.domain.callers import name_retention_rule
from modelhaul.domain.models import Model
from modelhaul.policy.reader import PolicyReader
from modelhaul.ports.clock import Clock
from modelhaul.ports.follows import FollowRepository
from modelhaul.ports.hub_models import HubModelRepository
from modelhaul.ports.models import ModelRepository
from modelhaul.retention.choice import Deletion, choose_deletions, find_candidates
from modelhaul.retention.limits import RetentionLimits

logger = logging.getLogger(__name__)

_BATCH_SIZE = 90  # models that are read with one request
_STOP_BEFORE = 15.0  # seconds that are reserved at the end of the function for a deletion
_RESPOND_BEFORE = 5.0  # seconds that are reserved for the last name and the response of a dry run


@dataclass(frozen=True, slots=True)
class RetentionPlan:
    """What the limits delete, in its order. `is_complete` is False if the time was too short."""

    deletions: tuple[Deletion, ...]
    is_complete: bool

    @property
    def size(self) -> int:
        """Return the bytes of the models' files."""
        return sum(deletion.model.size for deletion in self.deletions)


@dataclass(frozen=True, slots=True)
class RetentionResult:
    """`models` and `size` (bytes) of what was deleted. `is_complete`: whether all names were examined."""

    models: int
    size: int
    is_complete: bool


@dataclass(frozen=True, slots=True)
class RetentionPlanner:
    """Finds what the rules of the policy and the follows delete. `policy` is None if the stack has no policy."""

    models: ModelRepository
    hub_models: HubModelRepository
    follows: FollowRepository
    policy: PolicyReader | None
    clock: Clock

    def plan(self, remaining: Callable[[], float]) -> RetentionPlan:
        """List what a run would delete now, within the `remaining()` seconds. Raises the errors of `read_limits`."""
        limits = self.read_limits()
        if limits.is_empty:
            return RetentionPlan((), is_complete=True)
        deletions: list[Deletion] = []
        names = self.find_names(limits)
        is_complete = True
        while is_complete and (name := next(names, None)) is not None:
            deletions += self.choose_deletions(name, limits)
            is_complete = remaining() >= _RESPOND_BEFORE
        return RetentionPlan(tuple(deletions), is_complete)

    def read_limits(self) -> RetentionLimits:
        """Raises PolicyUnavailableError if the policy cannot be read: then nothing is deleted, and
        StorageUnavailableError.
        """
        rules = self.policy.read().policy.retention if self.policy is not None else ()
        return RetentionLimits(rules, self.follows.list_follows())

    def find_names(self, limits: RetentionLimits) -> Iterator[str]:
        """Yield the `hub_id` of each name with models that may be deleted, those of the oldest import first."""
        by_name: dict[str, list[Model]] = {}
        for model in self.models.list_ready():
            by_name.setdefault(model.resolved.hub_id.lower(), []).append(model)
        for _, models in reversed(by_name.items()):
            if find_candidates(models, limits, self._today()):
                yield models[0].resolved.hub_id

    def choose_deletions(self, name: str, limits: RetentionLimits) -> list[Deletion]:
        """Return the models to delete of a name, according to strongly consistent records."""
        entry = self.hub_models.find_entry(name)
        ids = [model.model_id for model in entry.models]
        found = [model for batch in batched(ids, _BATCH_SIZE, strict=False) for model in self.models.find_models(batch)]
        return choose_deletions(replace(entry, models=tuple(found)), limits, self._today())

    def _today(self) -> date:
        return datetime.fromtimestamp(self.clock(), UTC).date()


@dataclass(frozen=True, slots=True)
class RetentionRunner:
    """Deletes what the plan finds. Repeated and simultaneous runs are harmless."""

    planner: RetentionPlanner
    deleter: ModelDeleter

    def apply_retention(self, remaining: Callable[[], float]) -> RetentionResult:
        """Start the deletions, within the `remaining()` seconds. The next run continues.

        Each model is checked again in the write that makes it invisible. Raises the errors of
        `RetentionPlanner.read_limits`.
        """
        limits = self.planner.read_limits()
        models = size = 0
        is_complete = True
        names = self.planner.find_names(limits) if not limits.is_empty else iter(())
        while is_complete and (name := next(names, None)) is not None:
            # Also before a name without deletions: there may be thousands.
            if not (is_complete := remaining() >= _STOP_BEFORE):
                break
            for deletion in self.planner.choose_deletions(name, limits):
                is_complete = remaining() >= _STOP_BEFORE
                if not is_complete or not self._delete(deletion, remaining):
                    break
                models += 1
                size += deletion.model.size
        logger.info("retention applied", extra={"models": models, "bytes": size, "is_complete": is_complete})
        return RetentionResult(models, size, is_complete)

    def _delete(self, deletion: Deletion, remaining: Callable[[], float]) -> bool:
        return self.deleter.retire_model(
            deletion.model,
            deletion.unread_since,
            lambda: remaining() - _STOP_BEFORE,
            deleted_by=name_retention_rule(deletion.limits.rule),
            reason=deletion.reason,
        )
