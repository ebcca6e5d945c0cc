"""ImportRepository on Amazon DynamoDB: transactions on a task and its models."""

import time
import uuid
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from pynamodb.connection import Connection
from pynamodb.expressions.update import Action
from pynamodb.transactions import TransactWrite

from modelhaul.adapters.dynamodb.audit_items import AuditWriter, Recording, find_recording
from modelhaul.adapters.dynamodb.connection import (
    CancelledError,
    bind_item,
    find_item,
    open_transaction,
    retry_write,
    to_moment,
    translate_errors,
    update_item,
)
from modelhaul.adapters.dynamodb.model_items import (
    READY,
    ModelItem,
    from_model,
    from_signature,
    pack_gate,
    read_models,
)
from modelhaul.adapters.dynamodb.policy_items import pack_result
from modelhaul.adapters.dynamodb.task_items import (
    TASK_TTL,
    TaskItem,
    from_error,
    from_task,
    pack_skipped,
    progress_actions,
    read_task,
    to_task,
)
from modelhaul.domain.archives import SkippedDirectory
from modelhaul.domain.audit import AuditEntry
from modelhaul.domain.claims import check_claimable
from modelhaul.domain.models import Model, ModelError, ModelStatus, Publication
from modelhaul.domain.tasks import Stage, Task, TaskError, TaskStatus
from modelhaul.ports.clock import Clock
from modelhaul.ports.imports import ImportRepository


class DynamoDBImportRepository(ImportRepository):
    """Imports in the tables of tasks and models."""

    def __init__(
        self,
        connection: Connection,
        *,
        tasks_table: str,
        models_table: str,
        clock: Clock = time.time,
        audit: AuditWriter | None = None,
    ) -> None:
        self._connection = connection
        self._tasks = bind_item(TaskItem, tasks_table, connection)
        self._models = bind_item(ModelItem, models_table, connection)
        self._clock = clock
        self._audit = audit

    @translate_errors()
    def claim_import(self, task: Task, models: Sequence[Model], *, entry: AuditEntry | None = None) -> None:
        task_item = from_task(self._tasks, task)
        recording = find_recording(self._audit, entry)

        def claim() -> None:
            try:
                with open_transaction(self._connection) as transaction:
                    transaction.save(task_item, condition=TaskItem.id.does_not_exist())
                    self._save_claims(transaction, models)
                    if recording is not None:
                        recording.save(transaction)
            except CancelledError:
                # If the task exists, its claims exist too, and the response to an earlier call was lost.
                if read_task(self._tasks, task.id) is None:
                    self._check_claimable(task.id, models)
                    raise

        retry_write(claim)

    @translate_errors()
    def claim_models(
        self, task_id: str, models: Sequence[Model], skipped: Sequence[SkippedDirectory], *, check_at: float
    ) -> Task | None:
        def claim() -> Task | None:
            task = read_task(self._tasks, task_id)
            if task is None or task.stage is not Stage.INSPECTING:
                return task
            try:
                with open_transaction(self._connection) as transaction:
                    transaction.update(
                        self._tasks(task_id),
                        actions=[
                            *progress_actions(self._clock(), check_at),
                            TaskItem.stage.set(Stage.PLANNING),
                            TaskItem.model_ids.set([model.model_id for model in models]),
                            *([TaskItem.skipped.set(pack_skipped(skipped))] if skipped else []),
                        ],
                        condition=(TaskItem.status == TaskStatus.PENDING) & (TaskItem.stage == Stage.INSPECTING),
                    )
                    self._save_claims(transaction, models)
            except CancelledError:
                # If the response to an earlier call was lost, the retry finds the task at a later stage.
                self._check_claimable(task_id, models)
                raise
            return read_task(self._tasks, task_id)

        return retry_write(claim)

    def _save_claims(self, transaction: TransactWrite, models: Sequence[Model]) -> None:
        is_free = ModelItem.model_id.does_not_exist() | (ModelItem.status == ModelStatus.FAILED)
        for model in models:
            transaction.save(from_model(self._models, model), condition=is_free)

    def _check_claimable(self, task_id: str, models: Sequence[Model]) -> None:
        check_claimable(task_id, read_models(self._models, [model.model_id for model in models]))

    @translate_errors()
    def finish_import(
        self,
        task_id: str,
        *,
        published: Mapping[str, Publication],
        check_at: float,
        failed: Mapping[str, ModelError] = MappingProxyType({}),
    ) -> bool:
        token = str(uuid.uuid4())

        def finish() -> bool:
            item = find_item(self._tasks, task_id)
            if item is None or item.status != TaskStatus.PENDING:
                return _is_own(item, token)
            self._end(
                to_task(item),
                token,
                [
                    TaskItem.status.set(TaskStatus.DONE),
                    TaskItem.stage.set(Stage.DONE),
                    *([TaskItem.failed_ids.set(list(failed))] if failed else []),
                ],
                {model_id: _publish_model(publication) for model_id, publication in published.items()}
                | {model_id: _fail_model(ModelStatus.FAILED, error.shorten()) for model_id, error in failed.items()},
                check_at,
            )
            return True

        return retry_write(finish)

    @translate_errors()
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
        recording = find_recording(self._audit, entry)
        shared = ModelError(error.type, error.detail, error.retryable, error.remedy)
        token = str(uuid.uuid4())

        def fail() -> bool:
            item = find_item(self._tasks, task_id)
            if item is None or item.status != TaskStatus.PENDING:
                return _is_own(item, token)
            task = to_task(item)
            status = _find_failed_status(task)
            self._end(
                task,
                token,
                [
                    TaskItem.status.set(TaskStatus.FAILED),
                    TaskItem.stage.set(stage),
                    TaskItem.error.set(from_error(error)),
                    *([TaskItem.cancelled_by.set(cancelled_by)] if cancelled_by else []),
                ],
                {model_id: _fail_model(status, failed.get(model_id, shared).shorten()) for model_id in task.model_ids},
                check_at,
                recording,
            )
            return True

        return retry_write(fail)

    def _end(
        self,
        task: Task,
        token: str,
        task_actions: Sequence[Action],
        model_actions: Mapping[str, Sequence[Action]],
        check_at: float,
        recording: Recording | None = None,
    ) -> None:
        now = to_moment(self._clock())
        with open_transaction(self._connection) as transaction:
            transaction.update(
                self._tasks(task.id),
                actions=[
                    *task_actions,
                    TaskItem.moved_by.set(token),
                    TaskItem.updated_at.set(now),
                    TaskItem.check_at.set(check_at),
                    TaskItem.expires_at.set(to_moment(self._clock() + TASK_TTL)),
                ],
                condition=(TaskItem.status == TaskStatus.PENDING) & (TaskItem.stage == task.stage),
            )
            for model_id, actions in model_actions.items():
                transaction.update(
                    self._models(model_id),
                    actions=[*actions, ModelItem.updated_at.set(now)],
                    condition=ModelItem.task_id == task.id,
                )
            if recording is not None:
                recording.save(transaction)

    @translate_errors()
    def release_models(self, task_id: str) -> None:
        task = read_task(self._tasks, task_id)
        is_withdrawing = (ModelItem.task_id == task_id) & (ModelItem.status == ModelStatus.WITHDRAWING)
        actions = [ModelItem.status.set(ModelStatus.FAILED), ModelItem.updated_at.set(to_moment(self._clock()))]
        for model_id in task.model_ids if task is not None else ():
            update_item(self._models(model_id), actions, is_withdrawing)


def _publish_model(publication: Publication) -> list[Action]:
    gate, signature, policy = publication.gate, publication.signature, publication.policy
    return [
        ModelItem.status.set(ModelStatus.READY),
        ModelItem.shelf.set(READY),
        ModelItem.files.set(publication.files),
        ModelItem.size.set(publication.size),
        *([ModelItem.bytes_reused.set(publication.bytes_reused)] if publication.bytes_reused else []),
        *([ModelItem.gate.set(pack_gate(gate))] if gate else []),
        *([ModelItem.signature.set(from_signature(signature))] if signature else []),
        *([ModelItem.policy.set(pack_result(policy))] if policy else []),
    ]


def _fail_model(status: ModelStatus, error: ModelError) -> list[Action]:
    return [ModelItem.status.set(status), ModelItem.error.set(from_error(error))]


def _is_own(item: TaskItem | None, token: str) -> bool:
    """Return whether the call with this token ended the task, so that only its response was lost."""
    return item is not None and bool(item.moved_by == token)


def _find_failed_status(task: Task) -> ModelStatus:
    return ModelStatus.WITHDRAWING if task.stage is Stage.PUBLISHING else ModelStatus.FAILED
