"""Send the messages of the following steps."""

from collections.abc import Iterable

from modelhaul.domain.files import SourceFile
from modelhaul.domain.messages import PublishModels, TransferFiles
from modelhaul.domain.tasks import Progress, Stage
from modelhaul.ports.message_queue import MessageQueue
from modelhaul.ports.tasks import TaskRepository
from modelhaul.transfer.policy import TransferPolicy

CHECK_AFTER = 300.0  # seconds without a heartbeat after which the sweep checks a task


def group_files(files: Iterable[SourceFile], policy: TransferPolicy) -> list[tuple[str, ...]]:
    """Return the paths of each transfer message: one message per large file, largest first, then groups of small files.

    Small files stay in the given order, so that adjacent entries of an archive are read in one request. Files with
    equal content share a message: only the first of them is transferred, and the others are copied.
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
    """Send the transfer messages of the files, and return the number of messages."""
    groups = group_files(files, policy)
    queue.send(TransferFiles(task_id=task_id, paths=paths) for paths in groups)
    return len(groups)


def publish_if_complete(
    tasks: TaskRepository, queue: MessageQueue, task_id: str, progress: Progress, *, check_at: float
) -> bool:
    """Send the publish message if all files are done. Return whether it was sent.

    If several functions finish the last files at the same time, only one of them sends the message. If the message is
    lost, the sweep resends it.
    """
    if progress.files_done < progress.files_total:
        return False
    if not tasks.start_stage(task_id, Stage.VERIFIED, check_at=check_at):
        return False
    queue.send([PublishModels(task_id=task_id)])
    return True
