"""The first step of an import: list the models' files and send the transfer messages."""

import logging
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from modelhaul.catalog.quota import StorageQuota
from modelhaul.domain.errors import EmptyModelError, RequiredFilesError
from modelhaul.domain.file_selection import choose_files
from modelhaul.domain.files import FileKind, FileList, SourceFile
from modelhaul.domain.messages import PlanImport
from modelhaul.domain.models import Model, ResolvedModel, Source
from modelhaul.domain.required_files import MAX_INDEX_SIZE, RequiredFiles, find_missing_files
from modelhaul.domain.tasks import Progress, Stage, Task, TaskStatus
from modelhaul.imports.dispatch import CHECK_AFTER, SourceFiles, group_files, send_joins, send_transfers, split_files
from modelhaul.imports.import_policy import Candidate, ImportPolicy
from modelhaul.policy.facts import know_files, know_model
from modelhaul.policy.license_texts import keep_license_files
from modelhaul.ports.byte_streams import read_verified
from modelhaul.ports.clock import Clock
from modelhaul.ports.files import FileRepository
from modelhaul.ports.message_queue import MessageQueue
from modelhaul.ports.model_sources import ModelSource
from modelhaul.ports.models import ModelRepository
from modelhaul.ports.tasks import TaskRepository
from modelhaul.transfer.policy import TransferPolicy

logger = logging.getLogger(__name__)


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
    import_policy: ImportPolicy | None = None
    quota: StorageQuota | None = None

    def plan_import(self, message: PlanImport) -> None:
        """List the models' files, record them and send the transfer messages.

        Raises the errors of ModelSource.list_files, EmptyModelError, RequiredFilesError, InvalidReferenceError,
        FileTooLargeError, StorageQuotaError, PolicyUnavailableError, and PolicyDeniedError if the policy denies all
        models of the task.
        """
        task = self.tasks.find_task(message.task_id)
        if task is None or task.status is not TaskStatus.PENDING:
            logger.info("plan skipped: task has ended", extra={"task_id": message.task_id})
            return
        groups = self._plan(task) if task.stage is Stage.PLANNING else None
        if groups is None:
            # The function of an earlier delivery died before it sent its last message, or another delivery of this
            # message was faster and sends the same messages, or the task has ended.
            current = self.tasks.find_task(task.id)
            if current is None or current.stage is not Stage.TRANSFERRING or current.plan_id is None:
                return
            pending = [group for group in self.files.list_groups(current.plan_id) if not group.is_done]
            groups = {group.number: [record.file for record in group.records] for group in pending}
        send_transfers(self.queue, task.id, groups)
        joins = send_joins(self.queue, task.id, groups, self.policy)
        logger.info(
            "import planned",
            extra={
                "task_id": task.id,
                "files": sum(len(files) for files in groups.values()),
                "bytes": sum(file.size for files in groups.values() for file in files),
                "messages": len(groups) + joins,
            },
        )

    def _plan(self, task: Task) -> dict[int, Sequence[SourceFile]] | None:
        """Record the groups of files, and return those to transfer by number. Return None if another plan counts."""
        files, not_followed = self._group_files(task)
        # Functions finish at about the same time if the largest files are first.
        files.sort(key=lambda group: -max(f.size for f in group) if group[0].size > self.policy.small_file else 0)
        totals = Progress(
            files_total=sum(len(group) for group in files), bytes_total=sum(f.size for group in files for f in group)
        )
        if self.quota is not None:
            self.quota.reserve(task, totals.bytes_total)
        plan_id = f"{task.id}#{secrets.token_hex(4)}"
        self.tasks.postpone_check(task.id, check_at=self.clock() + CHECK_AFTER)
        self.files.put_groups(plan_id, [*files, *not_followed])
        check_at = self.clock() + CHECK_AFTER
        started = self.tasks.start_stage(task.id, Stage.TRANSFERRING, totals=totals, plan_id=plan_id, check_at=check_at)
        return dict(enumerate(files)) if started else None

    def _group_files(self, task: Task) -> tuple[list[SourceFiles], list[SourceFiles]]:
        """Return the groups of files, and the groups of symlinks and submodules.

        Raises EmptyModelError, PolicyUnavailableError, PolicyDeniedError.
        """
        if self.import_policy is not None:
            self.import_policy.ensure_readable()
        by_model = list(self._list_files(task))
        if self.import_policy is not None:
            candidates = [
                Candidate(model.resolved, know_files(know_model(model.resolved, task.created_at), files))
                for model, files in by_model
            ]
            self.import_policy.check(candidates, caller=task.submitted_by, task=task)
        listed = [file for _, files in by_model for file in files]
        groups = list(group_files((file for file in listed if file.kind is FileKind.FILE), self.policy))
        if not groups:
            raise EmptyModelError(f"{task.model_tag} has no files.")
        return groups, list(split_files((file for file in listed if file.kind is not FileKind.FILE), self.policy))

    def _list_files(self, task: Task) -> Iterator[tuple[Model, list[SourceFile]]]:
        """Yield each model with its selected files, and with its license files if the stack has a policy."""
        source = self.open_source(task)
        for model in self.models.find_models(task.model_ids):
            listed = list(source.list_files(model.resolved))
            if model.resolved.source is Source.GITHUB:
                self._check_required(source, model.resolved, listed)
            chosen = FileList(model.resolved)
            selected: Sequence[SourceFile] = choose_files(model.resolved, listed)
            if self.import_policy is not None:
                selected = keep_license_files(selected, listed)
            for file in selected:
                chosen.add(file)
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
            yield model, chosen.files

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
