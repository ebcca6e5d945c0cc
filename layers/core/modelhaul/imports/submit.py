"""Accept imports from hubs: resolve the requested model and claim it for a new task."""

import logging
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from modelhaul.domain.errors import StorageUnavailableError
from modelhaul.domain.messages import PlanImport
from modelhaul.domain.models import Model, ModelStatus, Source
from modelhaul.domain.selection import WHOLE, Selection
from modelhaul.domain.tasks import Task
from modelhaul.imports.dispatch import CHECK_AFTER
from modelhaul.ports.clock import Clock
from modelhaul.ports.imports import ImportRepository
from modelhaul.ports.message_queue import MessageQueue
from modelhaul.ports.metrics import Metrics
from modelhaul.ports.model_sources import ModelResolver

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ImportSubmitter:
    """Accepts imports of models from a hub. Called by the hub's POST route."""

    imports: ImportRepository
    queue: MessageQueue
    open_resolver: Callable[[Source], ModelResolver]
    metrics: Metrics
    clock: Clock

    def submit(self, source: Source, name: str, revision: str, selection: Selection = WHOLE) -> Task:
        """Accept one model, or a part of it. Each selection of a model's files is a separate model.

        Raises the errors of ModelResolver.resolve and ImportRepository.claim_import.
        """
        resolved = replace(self.open_resolver(source).resolve(name, revision), selection=selection)
        now = self.clock()
        moment = datetime.fromtimestamp(now, UTC)
        task = Task(
            id=str(uuid.uuid4()),
            source=source,
            model_tag=f"{name}@{revision}",
            model_ids=(resolved.model_id,),
            created_at=moment,
            updated_at=moment,
            check_at=now + CHECK_AFTER,
            selection=selection,
        )
        model = Model(resolved.model_id, resolved, ModelStatus.IMPORTING, task.id, moment, moment)
        self.imports.claim_import(task, [model])
        context = {
            "task_id": task.id,
            "model_id": model.model_id,
            "model": resolved.name,
            "commit": resolved.commit,
            "selection": selection.describe(),
        }
        request_plan(task, self.queue, self.metrics, context)
        return task


def request_plan(task: Task, queue: MessageQueue, metrics: Metrics, context: Mapping[str, object]) -> None:
    """Count the accepted import and send its plan message. `context`: fields of the log message.

    The task is already recorded, so an error of the queue does not fail the request: the sweep sends the message.
    """
    metrics.count("ImportsAccepted", source=task.source)
    try:
        queue.send([PlanImport(task_id=task.id)])
    except StorageUnavailableError as error:
        logger.warning(
            "import accepted, plan message not sent; the sweep will send it",
            extra={**context, "detail": error.detail},
        )
    else:
        logger.info("import accepted", extra=dict(context))
