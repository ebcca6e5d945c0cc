"""The quota of the stack: how many bytes the models may have, and what imports in progress will add."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class QuotaState:
    """What was measured and reserved under a quota of `limit` bytes.

    READY models had `measured` bytes at `measured_at` (epoch seconds), without the models of the tasks in `reserved`.
    `reserved` has the planned bytes of tasks by their ID: of those in progress, and of those that ended since the last
    measurement. So `bound` is never less than the bytes of all models, because deletions only make them fewer.

    `version` changes with each write. It is None if nothing was written yet.
    """

    limit: int = 0
    measured: int = 0
    measured_at: float = 0.0
    reserved: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    version: str | None = None

    @property
    def bound(self) -> int:
        """Return the most bytes that the READY models and the imports in progress can have together."""
        return self.measured + sum(self.reserved.values())

    def reserve(self, task_id: str, size: int) -> "QuotaState":
        return replace(self, reserved=MappingProxyType({**self.reserved, task_id: size}))


@dataclass(frozen=True, slots=True)
class QuotaUse:
    """How much of a quota of `limit` bytes is used: `stored` by READY models, `reserved` by imports in progress."""

    limit: int
    stored: int
    reserved: int

    @property
    def left(self) -> int:
        return max(0, self.limit - self.stored - self.reserved)
