"""Publish one event for the end of each task, at least once. `docs/events.md` has the schema."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelhaul.catalog.presentation import present_whole_task
from modelhaul.domain.tasks import Event, TaskStatus
from modelhaul.ports.event_bus import EventBus
from modelhaul.ports.models import ModelRepository
from modelhaul.ports.tasks import TaskRepository

_VERSION = 1
_TYPES = {TaskStatus.DONE: "ImportSucceeded", TaskStatus.FAILED: "ImportFailed"}
# EventBridge accepts 256 KB per event. The fields besides the detail take less than 1 KB:
# https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevents.html
_MAX_DETAIL = 240_000  # bytes of UTF-8
_MAX_ERROR_MSG = 4_000  # characters

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EndPublisher:
    """`bucket` is the models bucket, in which the published locations of the models are. `stack` is the name of the
    stack, because all stacks of an account and Region publish to the same event bus.
    """

    tasks: TaskRepository
    models: ModelRepository
    bus: EventBus
    bucket: str
    stack: str

    def publish_end(self, task_id: str) -> None:
        """Publish the end of a task. No-op if the task is missing or pending.

        Raises StorageUnavailableError. The event may still have been sent.
        """
        task = self.tasks.find_task(task_id)
        if task is None or task.status is TaskStatus.PENDING:
            logger.warning("event skipped: task is missing or pending", extra={"task_id": task_id})
            return
        shown = present_whole_task(task, self.models.find_models(task.model_ids), bucket=self.bucket)
        event = Event(_TYPES[task.status], task.updated_at, _write_detail(shown, self.stack))
        self.bus.publish(event)
        logger.info("event published", extra={"task_id": task_id, "event": event.type, "stage": task.stage})


def _write_detail(task: Mapping[str, Any], stack: str) -> str:
    """Return the task as JSON, as the API presents it. Models that do not fit into one event are excluded."""
    detail = {"version": _VERSION, "stack": stack, "task_id": task["id"], **task, "models": []}
    del detail["id"]
    if "error_msg" in task:
        detail["error_msg"] = task["error_msg"][:_MAX_ERROR_MSG]
    models = _select_fitting(task["models"], _MAX_DETAIL - len(_dump(detail).encode()))
    detail |= {"models": models, "models_left_out": len(task["models"]) - len(models)}
    return _dump(detail)


def _select_fitting(entries: Sequence[Any], max_bytes: int) -> list[Any]:
    """Return the first entries whose JSON takes at most `max_bytes`, with separators."""
    selected = []
    for entry in entries:
        max_bytes -= len(_dump(entry).encode()) + 2
        if max_bytes < 0:
            break
        selected.append(entry)
    return selected


def _dump(value: object) -> str:
    """Return the value as JSON. Names in archives may have lone surrogates, which UTF-8 cannot encode: replace them."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode()
