"""Write the outcome of an object that was dropped into the incoming bucket beside it."""

from dataclasses import dataclass

from modelhaul.catalog.presentation import present_whole_task
from modelhaul.domain.archives import is_task_upload
from modelhaul.domain.tasks import Task
from modelhaul.ports.archive_store import ArchiveStore
from modelhaul.ports.models import ModelRepository


@dataclass(frozen=True, slots=True)
class OutcomeWriter:
    """`bucket` is the models bucket, in which the published locations of the models are."""

    models: ModelRepository
    archives: ArchiveStore
    bucket: str

    def write_outcome(self, task: Task) -> None:
        """Store the task's current state at `outcomes/{key}.json`. No-op if its archive was not dropped."""
        if task.archive is None or is_task_upload(task.archive):
            return
        models = self.models.find_models(task.model_ids)
        outcome = present_whole_task(task, models, bucket=self.bucket)
        self.archives.write_outcome(task.archive.key, outcome, created_at=task.created_at)
