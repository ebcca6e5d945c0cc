"""TaskRepository on Amazon DynamoDB."""

import time
import uuid
from collections.abc import Collection
from dataclasses import replace
from itertools import islice
from typing import Any

from pynamodb.connection import Connection
from pynamodb.exceptions import PutError
from pynamodb.expressions.condition import Condition

from modelhaul.adapters.dynamodb.audit_items import AuditWriter, find_recording, write_recorded
from modelhaul.adapters.dynamodb.connection import (
    CONDITION_FAILED,
    bind_item,
    find_code,
    find_item,
    to_moment,
    translate_errors,
    update_item,
)
from modelhaul.adapters.dynamodb.pages import MAX_INDEX_PAGES, read_cursor, write_cursor
from modelhaul.adapters.dynamodb.task_items import (
    KIND,
    WATCHED,
    TaskItem,
    TasksByCheck,
    from_archive,
    from_task,
    from_waiting,
    progress_actions,
    read_task,
    to_task,
)
from modelhaul.domain.audit import AuditEntry
from modelhaul.domain.files import FileCounts
from modelhaul.domain.models import Source
from modelhaul.domain.tasks import Progress, Stage, Task, TaskPage, TaskStatus, Waiting
from modelhaul.ports.clock import Clock
from modelhaul.ports.tasks import TaskRepository

_WATCHED_PAGE_SIZE = 1000  # tasks that one query reads, after the first one
_STAGE_ORDER = (Stage.PLANNING, Stage.TRANSFERRING, Stage.VERIFIED, Stage.PUBLISHING)


class DynamoDBTaskRepository(TaskRepository):
    """Tasks in the table of tasks."""

    def __init__(
        self,
        connection: Connection,
        *,
        tasks_table: str,
        clock: Clock = time.time,
        audit: AuditWriter | None = None,
    ) -> None:
        self._connection = connection
        self._audit = audit
        self._tasks = bind_item(TaskItem, tasks_table, connection)
        self._clock = clock

    @translate_errors()
    def find_task(self, task_id: str) -> Task | None:
        return read_task(self._tasks, task_id)

    @translate_errors()
    def record_task(self, task: Task, *, entry: AuditEntry | None = None) -> bool:
        item, is_new = from_task(self._tasks, task), TaskItem.id.does_not_exist()
        recording = find_recording(self._audit, entry)
        if recording is not None:
            return write_recorded(self._connection, lambda write: write.save(item, condition=is_new), recording)
        try:
            item.save(condition=is_new)
        except PutError as error:
            if find_code(error) != f"{CONDITION_FAILED}Exception":
                raise
            return False
        return True

    @translate_errors()
    def list_tasks(
        self, *, source: Source | None = None, status: TaskStatus | None = None, limit: int, cursor: str | None = None
    ) -> TaskPage:
        start = None if cursor is None else {"kind": {"S": KIND}, **read_cursor(cursor, "id")}
        tasks: list[Task] = []
        for _ in range(MAX_INDEX_PAGES):
            keys = self._tasks.by_creation.query(
                KIND, scan_index_forward=False, limit=limit - len(tasks), last_evaluated_key=start
            )
            ids = [item.id for item in keys]
            found = {item.id: to_task(item) for item in self._tasks.batch_get(ids, consistent_read=True)}
            tasks += [
                found[i]
                for i in ids
                if i in found and source in (None, found[i].source) and status in (None, found[i].status)
            ]
            start = keys.last_evaluated_key
            if start is None or len(tasks) == limit:
                break
        return TaskPage(tuple(tasks), None if start is None else write_cursor(start, "id"))

    @translate_errors()
    def list_pending(self, limit: int) -> list[Task]:
        now = self._clock()
        found = self._find_pending(TasksByCheck.check_at > now, limit)
        if len(found) < limit:
            # Among these are tasks that failed: a sweep removes 100 of them, and there may be thousands.
            found += self._find_pending(TasksByCheck.check_at <= now, limit - len(found))
        return sorted(found, key=lambda task: (task.created_at, task.id), reverse=True)

    def _find_pending(self, checks: Condition, limit: int) -> list[Task]:
        # Tasks stay watched for a while after their end. The first page suffices if there are few of these.
        pages = self._tasks.by_check.query(
            WATCHED, checks, filter_condition=TaskItem.status == TaskStatus.PENDING, page_size=2 * limit
        ).page_iter
        found: list[dict[str, Any]] = []
        for page in islice(pages, MAX_INDEX_PAGES):
            found += page["Items"]
            if len(found) >= limit:
                break
            pages.page_size = _WATCHED_PAGE_SIZE
        return [to_task(self._tasks.from_raw_data(item)) for item in found[:limit]]

    @translate_errors()
    def record_arrival(self, task_id: str, *, size: int, etag: str, check_at: float) -> Task | None:
        task = self.find_task(task_id)
        if task is None or task.archive is None:
            return task
        item = self._tasks(task_id)
        arrived = from_archive(replace(task.archive, size=size, etag=etag))
        actions = [
            *progress_actions(self._clock(), check_at),
            TaskItem.stage.set(Stage.INSPECTING),
            TaskItem.archive.set(arrived),
        ]
        is_awaited = (TaskItem.status == TaskStatus.PENDING) & (TaskItem.stage == Stage.UPLOADING)
        return to_task(item) if update_item(item, actions, is_awaited) else self.find_task(task_id)

    @translate_errors()
    def start_stage(
        self,
        task_id: str,
        stage: Stage,
        *,
        check_at: float,
        totals: Progress | None = None,
        plan_id: str | None = None,
    ) -> bool:
        item = self._tasks(task_id)
        token = str(uuid.uuid4())
        actions = [*progress_actions(self._clock(), check_at), TaskItem.stage.set(stage), TaskItem.moved_by.set(token)]
        if totals is not None:
            actions.append(TaskItem.files_total.set(totals.files_total))
            actions.append(TaskItem.bytes_total.set(totals.bytes_total))
        if plan_id is not None:
            actions.append(TaskItem.plan_id.set(plan_id))
        if stage is Stage.TRANSFERRING:
            actions.append(TaskItem.transfer_began_at.set(to_moment(self._clock())))
        if stage is Stage.VERIFIED:
            actions.append(TaskItem.files_done.set(TaskItem.files_total))
            actions.append(TaskItem.bytes_done.set(TaskItem.bytes_total))
        earlier = _STAGE_ORDER[: _STAGE_ORDER.index(stage)]
        is_before = (TaskItem.status == TaskStatus.PENDING) & TaskItem.stage.is_in(*earlier)
        if update_item(item, actions, is_before):
            return True
        # If only the response was lost, the stored token is the token of this call.
        moved = find_item(self._tasks, task_id)
        return moved is not None and moved.moved_by == token

    @translate_errors()
    def record_progress(self, task_id: str, counts: FileCounts, *, check_at: float) -> bool:
        now = self._clock()
        item = self._tasks(task_id)
        actions = [
            *progress_actions(now, check_at),
            TaskItem.files_done.set(counts.files_done),
            TaskItem.bytes_done.set(counts.bytes_done),
            TaskItem.bytes_reused.set(counts.bytes_reused),
        ]
        is_current = (TaskItem.status == TaskStatus.PENDING) & (TaskItem.files_done <= counts.files_done)
        has_moved = is_current & (TaskItem.bytes_done != counts.bytes_done)
        counted_at = TaskItem.bytes_counted_at.set(to_moment(now))
        if update_item(item, [*actions, counted_at], has_moved) or update_item(item, actions, is_current):
            return True
        task = self.find_task(task_id)
        return task is not None and task.status is TaskStatus.PENDING

    @translate_errors()
    def postpone_check(self, task_id: str, *, check_at: float, sweeps: int | None = None) -> None:
        actions = [TaskItem.updated_at.set(to_moment(self._clock())), TaskItem.check_at.set(check_at)]
        if sweeps is not None:
            actions.append(TaskItem.sweeps.set(sweeps))
        update_item(self._tasks(task_id), actions, TaskItem.watch.exists() & (TaskItem.check_at < check_at))

    @translate_errors()
    def record_wait(self, task_id: str, waiting: Waiting, *, stages: Collection[Stage], check_at: float) -> bool:
        item = self._tasks(task_id)
        actions = [
            TaskItem.updated_at.set(to_moment(self._clock())),
            TaskItem.waiting.set(from_waiting(waiting)),
            TaskItem.waiting_stage.set(TaskItem.stage),
        ]
        is_at_stage = TaskItem.stage.is_in(*stages)
        postponed = [*actions, TaskItem.check_at.set(check_at)]
        return update_item(item, postponed, is_at_stage & (TaskItem.check_at < check_at)) or update_item(
            item, actions, is_at_stage
        )

    @translate_errors()
    def list_due(self, now: float, limit: int) -> list[Task]:
        due = self._tasks.by_check.query(WATCHED, TasksByCheck.check_at <= now, limit=limit)
        return [to_task(item) for item in due]

    @translate_errors()
    def unwatch_task(self, task_id: str) -> None:
        has_ended = TaskItem.status.is_in(TaskStatus.DONE, TaskStatus.FAILED)
        update_item(self._tasks(task_id), [TaskItem.watch.remove()], has_ended)
