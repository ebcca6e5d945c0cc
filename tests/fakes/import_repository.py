from collections.abc import Mapping, Sequence
from types import MappingProxyType

from modelhaul.domain.archives import SkippedDirectory
from modelhaul.domain.audit import AuditEntry
from modelhaul.domain.claims import check_claimable
from modelhaul.domain.models import Model, ModelError, ModelStatus, Publication
from modelhaul.domain.tasks import Stage, Task, TaskError, TaskStatus
from modelhaul.ports.imports import ImportRepository
from tests.fakes.tables import InMemoryTables

_INSPECTING = (TaskStatus.PENDING, Stage.INSPECTING)


class InMemoryImportRepository(ImportRepository):
    def __init__(self, tables: InMemoryTables) -> None:
        self._tables = tables

    def claim_import(self, task: Task, models: Sequence[Model], *, entry: AuditEntry | None = None) -> None:
        with self._tables.lock:
            if task.id in self._tables.tasks:
                return
            self._claim(task.id, models)
            self._tables.record(task)
            self._tables.record_entry(entry)

    def claim_models(
        self, task_id: str, models: Sequence[Model], skipped: Sequence[SkippedDirectory], *, check_at: float
    ) -> Task | None:
        with self._tables.lock:
            task = self._tables.tasks.get(task_id)
            if task is None or (task.status, task.stage) != _INSPECTING:
                return task
            self._claim(task_id, models)
            return self._tables.write_task(
                task,
                stage=Stage.PLANNING,
                model_ids=tuple(model.model_id for model in models),
                skipped=tuple(skipped),
                check_at=check_at,
                sweeps=0,
            )

    def finish_import(
        self,
        task_id: str,
        *,
        published: Mapping[str, Publication],
        check_at: float,
        failed: Mapping[str, ModelError] = MappingProxyType({}),
    ) -> bool:
        with self._tables.lock:
            task = self._tables.tasks.get(task_id)
            if task is None or task.status is not TaskStatus.PENDING:
                return False
            self._tables.write_task(task, stage=Stage.DONE, failed_ids=tuple(failed), check_at=check_at)
            for model_id, publication in published.items():
                self._tables.write_model(
                    model_id,
                    status=ModelStatus.READY,
                    files=publication.files,
                    size=publication.size,
                    gate=publication.gate,
                    signature=publication.signature,
                    policy=publication.policy and publication.policy.shorten(),
                    bytes_reused=publication.bytes_reused,
                )
            for model_id, error in failed.items():
                self._tables.write_model(model_id, status=ModelStatus.FAILED, error=error.shorten())
            return True

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
        with self._tables.lock:
            task = self._tables.tasks.get(task_id)
            if task is None or task.status is not TaskStatus.PENDING:
                return False
            self._tables.write_task(task, stage=stage, error=error, check_at=check_at, cancelled_by=cancelled_by)
            status = ModelStatus.WITHDRAWING if task.stage is Stage.PUBLISHING else ModelStatus.FAILED
            shared = ModelError(error.type, error.detail, error.retryable, error.remedy)
            for model_id in task.model_ids:
                self._tables.write_model(model_id, status=status, error=failed.get(model_id, shared).shorten())
            self._tables.record_entry(entry)
            return True

    def release_models(self, task_id: str) -> None:
        with self._tables.lock:
            task = self._tables.tasks.get(task_id)
            for model in self._tables.find_models(task.model_ids if task is not None else ()):
                if model.task_id == task_id and model.status is ModelStatus.WITHDRAWING:
                    self._tables.write_model(model.model_id, status=ModelStatus.FAILED)

    def _claim(self, task_id: str, models: Sequence[Model]) -> None:
        check_claimable(task_id, self._tables.find_models([model.model_id for model in models]))
        self._tables.models |= {model.model_id: model for model in models}
