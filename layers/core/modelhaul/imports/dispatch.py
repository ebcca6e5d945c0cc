"""Group files, and send the messages of the following steps."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from modelhaul.domain.files import MAX_FILE_SIZE, FileCounts, SourceFile
from modelhaul.domain.messages import JoinTransfer, PublishModels, TransferFiles
from modelhaul.domain.tasks import Stage, Task
from modelhaul.ports.message_queue import MessageQueue
from modelhaul.ports.tasks import TaskRepository
from modelhaul.transfer.policy import TransferPolicy, count_functions

CHECK_AFTER = 300.0  # seconds without a heartbeat after which the sweep checks a task

type SourceFiles = tuple[SourceFile, ...]

_LISTED_BYTES = 100  # of a file in the list of its group, in addition to its path and locator


def group_files(files: Iterable[SourceFile], policy: TransferPolicy) -> Iterator[SourceFiles]:
    """Yield the groups of a task's files: one group per large file, then groups of small files.

    Small files stay in the given order, so that adjacent entries of an archive are read in one request. Files with
    equal content share a group: only the first of them is transferred, and the others are copied.
    """
    by_digest: dict[str, list[SourceFile]] = {}
    for file in files:
        by_digest.setdefault(f"{file.digest} {file.size}", []).append(file)
    small: list[SourceFile] = []
    for equal in by_digest.values():
        if equal[0].size > policy.small_file:
            yield from split_files(equal, policy, max_bytes=MAX_FILE_SIZE)  # so that one function can copy the group
        else:
            small += equal
    yield from split_files(small, policy, max_bytes=policy.group_bytes)


def split_files(
    files: Iterable[SourceFile], policy: TransferPolicy, *, max_bytes: float = float("inf")
) -> Iterator[SourceFiles]:
    """Yield groups whose lists fit into records, with at most `max_bytes` of content each."""
    group = _Group(policy, max_bytes)
    for file in files:
        if not group.accepts(file):
            yield tuple(group.files)
            group = _Group(policy, max_bytes)
        group.add(file)
    if group.files:
        yield tuple(group.files)


@dataclass(slots=True)
class _Group:
    policy: TransferPolicy
    max_bytes: float
    files: list[SourceFile] = field(default_factory=list)
    _bytes: int = 0
    _listed: int = 0

    def accepts(self, file: SourceFile) -> bool:
        return not self.files or (
            len(self.files) < self.policy.group_files
            and self._bytes + file.size <= self.max_bytes
            and self._listed + _measure_listing(file) <= self.policy.group_listing
        )

    def add(self, file: SourceFile) -> None:
        self.files.append(file)
        self._bytes += file.size
        self._listed += _measure_listing(file)


def _measure_listing(file: SourceFile) -> int:
    return len(file.path.encode()) + len(file.locator.encode()) + _LISTED_BYTES


def send_transfers(queue: MessageQueue, task_id: str, numbers: Iterable[int]) -> None:
    """Send the transfer messages of groups."""
    queue.send(TransferFiles(task_id=task_id, group=number) for number in numbers)


def send_joins(
    queue: MessageQueue, task_id: str, groups: Mapping[int, Iterable[SourceFile]], policy: TransferPolicy
) -> int:
    """Send the messages of the other functions that transfer large files, and return their number.

    `groups` are all unfinished groups of the task.
    """
    total = sum(file.size for files in groups.values() for file in files)
    messages = [
        JoinTransfer(task_id=task_id, group=number)
        for number, files in groups.items()
        for _ in range(1, count_functions(max(file.size for file in files), total, policy))
    ]
    queue.send(messages)
    return len(messages)


def publish_if_complete(
    tasks: TaskRepository, queue: MessageQueue, task: Task, counts: FileCounts, *, check_at: float
) -> bool:
    """Send the publish message if all files are done. Return whether it was sent."""
    return counts.files_done >= task.progress.files_total and start_publishing(tasks, queue, task.id, check_at=check_at)


def start_publishing(tasks: TaskRepository, queue: MessageQueue, task_id: str, *, check_at: float) -> bool:
    """Send the publish message of a task whose files are all done. Return whether it was sent.

    If several functions finish the last files at the same time, only one of them sends the message. If the message is
    lost, the sweep resends it.
    """
    if not tasks.start_stage(task_id, Stage.VERIFIED, check_at=check_at):
        return False
    queue.send([PublishModels(task_id=task_id)])
    return True
