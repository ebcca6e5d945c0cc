"""The first step of an import: list the models' files and send the transfer messages."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import batched

from modelhaul.domain.errors import EmptyModelError, RequiredFilesError
from modelhaul.domain.file_selection import choose_files
from modelhaul.domain.files import FileKind, FileList, SourceFile
from modelhaul.domain.messages import PlanImport
from modelhaul.domain.models import ResolvedModel, Source
from modelhaul.domain.required_files import MAX_INDEX_SIZE, RequiredFiles, find_missing_files
from modelhaul.domain.tasks import Progress, Stage, Task, TaskStatus
from modelhaul.imports.dispatch import CHECK_AFTER, send_transfers
from modelhaul.ports.byte_streams import read_verified
from modelhaul.ports.clock import Clock
from modelhaul.ports.files import FileRepository
from modelhaul.ports.message_queue import MessageQueue
from modelhaul.ports.model_sources import ModelSource
from modelhaul.ports.models import ModelRepository
from modelhaul.ports.tasks import TaskRepository
from modelhaul.transfer.policy import TransferPolicy

logger = logging.getLogger(__name__)

_BATCH_SIZE = 5_000  # files recorded between two heartbeats


@dataclass(frozen=True, slots=True)
class Planner:
    """The step `plan_import`."""

    tasks: TaskRepository
    models: ModelRepository
    files: FileRepository
    queue: MessageQueue
    open_source: Callable[[Task], ModelSource]
    clock: Clock
    required_files: RequiredFiles
    policy: TransferPolicy = field(default_factory=TransferPolicy)

    def plan_import(self, message: PlanImport) -> None:
        """List the models' files, record them and send the transfer messages.

        Raises the errors of ModelSource.list_files, EmptyModelError, RequiredFilesError, InvalidReferenceError,
        FileTooLargeError.
        """
        task = self.tasks.find_task(message.task_id)
        if task is None or task.status is not TaskStatus.PENDING:
            logger.info("plan skipped: task has ended", extra={"task_id": message.task_id})
            return
        if task.stage is Stage.PLANNING:
            listed = self._list_files(task)
            files = [file for file in listed if file.kind is FileKind.FILE]
            for batch in batched(listed, _BATCH_SIZE, strict=False):
                self.tasks.postpone_check(task.id, check_at=self.clock() + CHECK_AFTER)
                self.files.put_files(task.id, batch)
            totals = Progress(files_total=len(files), bytes_total=sum(f.size for f in files))
            check_at = self.clock() + CHECK_AFTER
            if not self.tasks.start_stage(task.id, Stage.TRANSFERRING, totals=totals, check_at=check_at):
                # The task has ended, or another delivery of this message was faster and sends the same messages.
                current = self.tasks.find_task(task.id)
                if current is None or current.status is not TaskStatus.PENDING:
                    return
        else:
            # The function of an earlier delivery died between recording the plan and sending its last message.
            files = [record.file for record in self.files.list_files(task.id) if not record.done]
        sent = send_transfers(self.queue, task.id, files, self.policy)
        logger.info(
            "import planned",
            extra={
                "task_id": task.id,
                "files": len(files),
                "bytes": sum(f.size for f in files),
                "messages": sent,
            },
        )

    def _list_files(self, task: Task) -> list[SourceFile]:
        source = self.open_source(task)
        files: list[SourceFile] = []
        for model in self.models.find_models(task.model_ids):
            listed = list(source.list_files(model.resolved))
            if model.resolved.source is Source.GITHUB:
                self._check_required(source, model.resolved, listed)
            chosen = FileList(model.resolved)
            for file in choose_files(model.resolved, listed):
                chosen.add(file)
            files += chosen.files
            if not model.resolved.selection.is_whole:
                logger.info(
                    "excluded unselected files",
                    extra={
                        "task_id": task.id,
                        "model_id": model.model_id,
                        "selection": model.resolved.selection.describe(),
                        "files_left_out": len(listed) - len(chosen.files),
                        "bytes_left_out": sum(f.size for f in listed) - sum(f.size for f in chosen.files),
                    },
                )
        if not any(file.kind is FileKind.FILE for file in files):
            raise EmptyModelError(f"{task.model_tag} has no files.")
        return files

    def _check_required(self, source: ModelSource, model: ResolvedModel, files: Iterable[SourceFile]) -> None:
        """Check that a repository is a model. Raises RequiredFilesError.

        All files of the repository are checked, because a part of a model need not have the required files.
        """
        by_path = {file.path: file for file in files}
        paths = {path for path, file in by_path.items() if file.kind is FileKind.FILE}
        missing = find_missing_files(paths, lambda path: _read_index(source, model, by_path[path]), self.required_files)
        if missing:
            named = [f"{name} (is a {by_path[name].kind}, not a file)" if name in by_path else name for name in missing]
            raise RequiredFilesError(
                f"{model.name} at commit {model.commit} is missing required files: {', '.join(named[:10])}."
            )


def _read_index(source: ModelSource, model: ResolvedModel, file: SourceFile) -> bytes | None:
    if file.size > MAX_INDEX_SIZE or not file.size:
        return None
    with source.open_range(model, file, 0, file.size) as stream:
        return read_verified(stream, file)
