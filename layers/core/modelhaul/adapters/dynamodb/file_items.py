"""DynamoDB items of groups of files."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from pynamodb.attributes import (
    BinaryAttribute,
    BooleanAttribute,
    NumberAttribute,
    NumberSetAttribute,
    TTLAttribute,
    UnicodeAttribute,
)
from pynamodb.expressions.update import Action
from pynamodb.models import Model as Item

from modelhaul.adapters.dynamodb.file_results import pack_results, unpack_results
from modelhaul.adapters.dynamodb.packing import pack, unpack
from modelhaul.domain.digests import Digest
from modelhaul.domain.files import (
    FileCounts,
    FileGroup,
    FileKind,
    FileRecord,
    SourceFile,
)

GROUPS = "g"  # prefix of the keys of groups and their states
COUNTS = "n"  # prefix of the keys of counters and copied groups
COPIED = f"{COUNTS}c"
_COUNTERS = 32  # per plan, so that simultaneous transactions of different groups rarely conflict
COPIED_BLOCK = 200  # groups in an item of copied groups, which then takes one write unit


class FileItem(Item):
    """Item of the table of files. The names of its keys in DynamoDB, `task_id` and `path`, are older than groups.

    - `g00000007`: a group. `files` are its packed files. It never changes.
    - `g00000007s`: the state of the group, from its first lease. `results` are packed in the order of the files. `done`
      is absent until all files are done. `version` is the number of writes of `results`, `offset` and `continued`. The
      lease attributes are absent unless the group is leased.
    - `n07`: one of the counters, whose sums are the plan's counts.
    - `nc000007`: the numbers of the copied groups among `COPIED_BLOCK` groups.
    """

    plan_id = UnicodeAttribute(hash_key=True, attr_name="task_id")
    key = UnicodeAttribute(range_key=True, attr_name="path")
    files = BinaryAttribute(null=True, legacy_encoding=False)
    results = BinaryAttribute(null=True, legacy_encoding=False)
    done = BooleanAttribute(null=True)
    version = NumberAttribute(null=True)
    offset = NumberAttribute(null=True)
    continued = NumberAttribute(null=True)
    lease_owner = UnicodeAttribute(null=True)
    lease_until = NumberAttribute(null=True)
    files_done = NumberAttribute(null=True)
    bytes_done = NumberAttribute(null=True)
    bytes_reused = NumberAttribute(null=True)
    copied = NumberSetAttribute(null=True)
    expires_at = TTLAttribute()


def group_key(number: int) -> str:
    return f"{GROUPS}{number:08}"


def state_key(number: int) -> str:
    return f"{group_key(number)}s"


def counter_key(number: int) -> str:
    """Return the key of the counter of a group."""
    return f"{COUNTS}{number % _COUNTERS:02}"


def copied_key(block: int) -> str:
    return f"{COPIED}{block:06}"


def pack_files(files: Sequence[SourceFile]) -> bytes:
    """Pack the files by columns, which zlib compresses better than rows."""
    rows = [(file.path, file.size, str(file.digest), file.locator, file.kind) for file in files]
    return pack(list(zip(*rows, strict=True)))


def unpack_files(packed: bytes) -> Iterator[SourceFile]:
    for path, size, digest, locator, kind in zip(*unpack(packed), strict=True):
        yield SourceFile(path, size, Digest.parse(digest), locator, FileKind(kind))


def read_groups(items: Iterable[FileItem]) -> Iterator[FileGroup]:
    """Yield the groups of items that are in the order of their keys."""
    for _, (listed, *states) in groupby(items, key=lambda item: item.key[: len(group_key(0))]):
        if listed.files is not None:  # a state may expire after its group
            yield to_group(listed, *states)


def to_group(listed: FileItem, state: FileItem | None = None) -> FileGroup:
    task_id = listed.plan_id.partition("#")[0]
    planned = [FileRecord(task_id, file) for file in unpack_files(listed.files)]
    records = unpack_results(state.results if state else None, planned)
    return FileGroup(
        plan_id=listed.plan_id,
        number=int(listed.key.removeprefix(GROUPS)),
        records=records,
        offset=int(state.offset or 0) if state else 0,
        lease_until=float(state.lease_until or 0) if state else 0.0,
        continued=int(state.continued or 0) if state else 0,
    )


def state_actions(group: FileGroup) -> list[Action]:
    """Return the actions that store the state of the group."""
    actions: list[Action] = [
        FileItem.results.set(pack_results(group.records)),
        FileItem.offset.set(group.offset),
        *([FileItem.continued.set(group.continued)] if group.continued else [FileItem.continued.remove()]),
    ]
    if group.is_done:
        actions += [FileItem.done.set(True), FileItem.lease_owner.remove(), FileItem.lease_until.remove()]
    else:
        actions.append(FileItem.lease_until.set(group.lease_until))
    return actions


def count_actions(before: FileCounts, after: FileCounts) -> list[Action]:
    """Return the actions that count the difference."""
    return [
        FileItem.files_done.add(after.files_done - before.files_done),
        FileItem.bytes_done.add(after.bytes_done - before.bytes_done),
        FileItem.bytes_reused.add(after.bytes_reused - before.bytes_reused),
    ]


def sum_counts(items: Iterable[FileItem]) -> FileCounts:
    """Return the plan's counts, from its counters and its copied groups."""
    files_done = bytes_done = bytes_reused = groups_copied = 0
    for item in items:
        files_done += int(item.files_done or 0)
        bytes_done += int(item.bytes_done or 0)
        bytes_reused += int(item.bytes_reused or 0)
        groups_copied += len(item.copied or ())
    return FileCounts(files_done, bytes_done, bytes_reused, groups_copied)
