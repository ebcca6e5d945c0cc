"""Writes that change a task and its models together."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from modelhaul.domain.archives import SkippedDirectory
from modelhaul.domain.audit import AuditEntry
from modelhaul.domain.models import Model, ModelError, Publication
from modelhaul.domain.tasks import Stage, Task, TaskError


class ImportRepository(Protocol):
    """Tasks and their models. Every write is one atomic transaction, and idempotent after a lost response.

    Every method raises StorageUnavailableError.
    """

    def claim_import(self, task: Task, models: Sequence[Model], *, entry: AuditEntry | None = None) -> None:
        """Create the task and claim its models, at most 90, in one transaction, which also records the audit's `entry`.

        `task.model_ids` are the IDs of `models`. FAILED models can be claimed. Raises ModelExistsError with all READY
        models. If no model is READY, raises for the first model that cannot be claimed: ImportInProgressError if
        another task imports it or it is WITHDRAWING, or DeletionInProgressError. Exactly one of several simultaneous
        claims succeeds. A repeated claim of the same task succeeds.
        """

    def claim_models(
        self, task_id: str, models: Sequence[Model], skipped: Sequence[SkippedDirectory], *, check_at: float
    ) -> Task | None:
        """Claim the models for a PENDING task, and move it from INSPECTING to PLANNING, in one transaction.

        No-op if the task is at any other stage. Returns the current task, None if it does not exist. Raises the errors
        of `claim_import`. A repeated claim of the same task succeeds.
        """

    def finish_import(
        self,
        task_id: str,
        *,
        published: Mapping[str, Publication],
        check_at: float,
        failed: Mapping[str, ModelError] = MappingProxyType({}),
    ) -> bool:
        """End the task DONE, its models in `published` READY and those in `failed` FAILED, in one transaction.

        Both have the IDs of models, and together all models of the task. A FAILED model stores its shortened error, and
        another import can claim it. Returns True only for the call that ended the task.
        """

    def fail_import(
        self,
        task_id: str,
        error: TaskError,
        *,
        stage: Stage = Stage.FAILED,
        check_at: float,
        failed: Mapping[str, ModelError] = MappingProxyType({}),
        cancelled_by: str | None = None,
        entry: AuditEntry | None = None,
    ) -> bool:
        """End the task FAILED with `error`, and its models FAILED, in one transaction.

        The models become WITHDRAWING instead of FAILED if the task was PUBLISHING. A model stores its error in
        `failed`, or else the task's error, shortened. `cancelled_by` is recorded on the task. The transaction also
        records the audit's `entry`. Returns True only for the call that ended the task.
        """

    def release_models(self, task_id: str) -> None:
        """Move the task's models from WITHDRAWING to FAILED, after their published files were removed."""
