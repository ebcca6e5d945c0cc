"""What became of an archive that somebody dropped into the incoming bucket, written beside it."""

from dataclasses import dataclass
from datetime import UTC

from modelhaul.catalog.presentation import present_whole_task
from modelhaul.domain.keys import DROPPED
from modelhaul.domain.tasks import Task
from modelhaul.ports.archive_store import ArchiveStore
from modelhaul.ports.models import ModelRepository


@dataclass(frozen=True, slots=True)
class OutcomeWriter:
    """`bucket` is the models bucket, for the models' addresses."""

    models: ModelRepository
    archives: ArchiveStore
    bucket: str

    def write_outcome(self, task: Task) -> None:
        """Stores how the task stands at `outcomes/{key}.json`, if its archive was dropped."""
        if task.archive is None or not task.archive.key.startswith(DROPPED):
            return
        models = self.models.find_models(task.model_ids)
        outcome = present_whole_task(task, models, bucket=self.bucket)
        # To the microsecond: two drops of one key may come within a second.
        outcome["created_at"] = task.created_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        self.archives.write_outcome(task.archive.key, outcome)
