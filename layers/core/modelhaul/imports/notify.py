"""What the world outside is told when a task ends: one event, at least once. `docs/events.md` has the schema."""

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
# EventBridge takes 256 KB, of which the rest of an event is less than 1:
# https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevents.html
_MAX_DETAIL = 240_000  # bytes of UTF-8
_MAX_WORDS = 4_000  # characters of an error's text

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EndPublisher:
    """`bucket` is the models bucket, for the models' addresses."""

    tasks: TaskRepository
    models: ModelRepository
    bus: EventBus
    bucket: str

    def publish_end(self, task_id: str) -> None:
        """Announces a task that has ended; one that has not, or is gone, is none to announce.

        Raises StorageUnavailableError; the event may then have been sent.
        """
        task = self.tasks.find_task(task_id)
        if task is None or task.status is TaskStatus.PENDING:
            logger.warning("nothing to announce: the task is gone, or has not ended", extra={"task_id": task_id})
            return
        shown = present_whole_task(task, self.models.find_models(task.model_ids), bucket=self.bucket)
        event = Event(_TYPES[task.status], task.updated_at, _write_detail(shown))
        self.bus.publish(event)
        logger.info("end announced", extra={"task_id": task_id, "event": event.type, "stage": task.stage})


def _write_detail(task: Mapping[str, Any]) -> str:
    """The task as the API answers it, as JSON; of its models as many as an event has room for."""
    detail = {"version": _VERSION, "task_id": task["id"], **task, "models": []}
    del detail["id"]
    if "error_msg" in task:
        detail["error_msg"] = task["error_msg"][:_MAX_WORDS]
    models = _take_fitting(task["models"], _MAX_DETAIL - len(_dump(detail).encode()))
    detail |= {"models": models, "models_left_out": len(task["models"]) - len(models)}
    return _dump(detail)


def _take_fitting(entries: Sequence[Any], room: int) -> list[Any]:
    taken = []
    for entry in entries:
        room -= len(_dump(entry).encode()) + 2
        if room < 0:
            break
        taken.append(entry)
    return taken


def _dump(value: object) -> str:
    """Text out of an archive may hold half a surrogate pair, which UTF-8 has no form for."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode()
