"""What changes a task and its models together."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from modelhaul.domain.archives import SkippedDirectory
from modelhaul.domain.gate import GateReport
from modelhaul.domain.models import Model, ModelError
from modelhaul.domain.tasks import Stage, Task, TaskError


class ImportRepository(Protocol):
    """Every write is atomic, over all the records that it names, and safe to repeat after a lost reply.

    Every method raises StorageUnavailableError.
    """

    def claim_import(self, task: Task, models: Sequence[Model]) -> None:
        """Writes the task (whose `model_ids` are the models') and claims the models for it, all or nothing.
        A FAILED model can be taken over. At most 90 models.

        Raises ModelExistsError with all that are READY; if none is, for the first that is not free
        ImportInProgressError, if another task is bringing it in or it is WITHDRAWING, or DeletionInProgressError.
        Of simultaneous claims exactly one succeeds. Repeating one's own claim succeeds.
        """

    def claim_models(
        self, task_id: str, models: Sequence[Model], skipped: Sequence[SkippedDirectory], *, check_at: float
    ) -> Task | None:
        """Moves a PENDING task from INSPECTING to PLANNING with these models, claimed as by `claim_import`, and these
        skipped directories; all or nothing. A task at any other stage is left alone. Returns the task as it then is.

        Raises as `claim_import`. Repeating one's own claim succeeds.
        """

    def finish_import(
        self,
        task_id: str,
        *,
        totals: Mapping[str, tuple[int, int]],
        check_at: float,
        gates: Mapping[str, GateReport] = MappingProxyType({}),
        failed: Mapping[str, ModelError] = MappingProxyType({}),
    ) -> bool:
        """Ends the task DONE: the models in `totals` become READY, those in `failed` FAILED with their shortened error,
        so that another import can claim them; all or nothing. Together these are the task's models.

        `totals`: (files, bytes) of each READY model, by its id; `gates`: what the gate found in it. Of any
        number of calls at most one returns True: the one that ended the task.
        """

    def fail_import(
        self,
        task_id: str,
        error: TaskError,
        *,
        stage: Stage = Stage.FAILED,
        check_at: float,
        failed: Mapping[str, ModelError] = MappingProxyType({}),
    ) -> bool:
        """Ends the task FAILED with `error`, and its models, if it has any, FAILED, or WITHDRAWING if the task was
        PUBLISHING; all or nothing. A model has its own error of `failed`, else the task's, shortened.

        Of any number of calls at most one returns True: the one that ended the task.
        """

    def release_models(self, task_id: str) -> None:
        """What the task had published is removed: its models go from WITHDRAWING to FAILED, and can be claimed."""
