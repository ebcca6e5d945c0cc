"""Messages to the steps that follow."""

from collections.abc import Iterable

from modelhaul.domain.files import SourceFile
from modelhaul.domain.messages import PublishModels, TransferFiles
from modelhaul.domain.tasks import Progress, Stage
from modelhaul.ports.message_queue import MessageQueue
from modelhaul.ports.tasks import TaskRepository
from modelhaul.transfer.policy import TransferPolicy

CHECK_AFTER = 300.0  # seconds without a sign of life after which the sweep looks after a task


def group_files(files: Iterable[SourceFile], policy: TransferPolicy) -> list[tuple[str, ...]]:
    """Paths for each transfer message: a large file each, largest first, then small files together, in the order
    given: neighbours in an archive are read by one request.

    Files of equal content go into one message, behind the first of them, so that only that one is moved.
    """
    by_digest: dict[str, list[SourceFile]] = {}
    for file in sorted(files, key=lambda f: -f.size if f.size > policy.small_file else 0):
        by_digest.setdefault(f"{file.digest} {file.size}", []).append(file)
    groups: list[tuple[str, ...]] = []
    small: list[SourceFile] = []

    def flush() -> None:
        if small:
            groups.append(tuple(f.path for f in small))
            small.clear()

    for equal in by_digest.values():
        if equal[0].size > policy.small_file:
            groups.append(tuple(f.path for f in equal))
            continue
        for file in equal:
            if len(small) == policy.group_files or sum(f.size for f in small) + file.size > policy.group_bytes:
                flush()
            small.append(file)
    flush()
    return groups


def send_transfers(queue: MessageQueue, task_id: str, files: Iterable[SourceFile], policy: TransferPolicy) -> int:
    """Returns how many messages were sent."""
    groups = group_files(files, policy)
    queue.send(TransferFiles(task_id=task_id, paths=paths) for paths in groups)
    return len(groups)


def publish_if_complete(
    tasks: TaskRepository, queue: MessageQueue, task_id: str, progress: Progress, *, check_at: float
) -> bool:
    """Hands the task on to publishing once its last file is done.

    Of functions that finish the last files at once only one sends the message. If that is lost, the sweep sends it.
    """
    if progress.files_done < progress.files_total:
        return False
    if not tasks.start_stage(task_id, Stage.VERIFIED, check_at=check_at):
        return False
    queue.send([PublishModels(task_id=task_id)])
    return True
