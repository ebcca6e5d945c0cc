"""FileRepository and GroupLeases on Amazon DynamoDB."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime

from pynamodb.connection import Connection

from modelhaul.adapters.dynamodb.connection import (
    BATCH_LIMIT,
    bind_item,
    open_transaction,
    retry_write,
    save_items,
    to_moment,
    translate_errors,
    update_item,
    write_parallel,
)
from modelhaul.adapters.dynamodb.file_items import (
    COPIED,
    COPIED_BLOCK,
    COUNTS,
    GROUPS,
    FileItem,
    copied_key,
    count_actions,
    counter_key,
    group_key,
    pack_files,
    read_groups,
    state_actions,
    state_key,
    sum_counts,
    to_group,
)
from modelhaul.domain.errors import LeaseLostError
from modelhaul.domain.files import FileCounts, FileGroup, FileRecord, SourceFile
from modelhaul.ports.clock import Clock
from modelhaul.ports.files import FileRepository, GroupLeases

_FILE_TTL = 14 * 86_400  # seconds after the last write of an item


class DynamoDBFileRepository(FileRepository, GroupLeases):
    """Groups of files and their leases in the table of files. The items of a plan are in one partition."""

    def __init__(self, connection: Connection, *, files_table: str, clock: Clock = time.time) -> None:
        self._connection = connection
        self._files = bind_item(FileItem, files_table, connection)
        self._clock = clock

    @translate_errors()
    def put_groups(self, plan_id: str, groups: Iterable[Sequence[SourceFile]]) -> None:
        expires_at = self._find_expiry()

        def write(batch: tuple[tuple[int, Sequence[SourceFile]], ...]) -> None:
            items = [
                self._files(plan_id, group_key(number), files=pack_files(files), expires_at=expires_at)
                for number, files in batch
            ]
            save_items(self._files, items)

        write_parallel(write, enumerate(groups), BATCH_LIMIT)

    def list_groups(self, plan_id: str) -> Iterator[FileGroup]:
        with translate_errors():
            yield from read_groups(self._query(plan_id, GROUPS))

    @translate_errors()
    def find_groups(self, plan_id: str, numbers: Iterable[int]) -> list[FileGroup]:
        keys = [(plan_id, key(number)) for number in set(numbers) for key in (group_key, state_key)]
        return list(read_groups(sorted(self._files.batch_get(keys, consistent_read=True), key=lambda item: item.key)))

    @translate_errors()
    def count_files(self, plan_id: str) -> FileCounts:
        return sum_counts(self._query(plan_id, COUNTS))

    @translate_errors()
    def record_copied(self, plan_id: str, numbers: Iterable[int]) -> FileCounts:
        blocks: dict[int, set[int | float]] = {}
        for number in numbers:
            blocks.setdefault(number // COPIED_BLOCK, set()).add(number)
        for block, copied in blocks.items():
            actions = [FileItem.copied.add(copied), FileItem.expires_at.set(self._find_expiry())]
            update_item(self._files(plan_id, copied_key(block)), actions, await_capacity=True)
        return self.count_files(plan_id)

    @translate_errors()
    def list_copied(self, plan_id: str) -> set[int]:
        return {int(number) for item in self._query(plan_id, COPIED) for number in item.copied}

    @translate_errors()
    def lease_group(self, plan_id: str, number: int, *, owner: str, now: float, until: float) -> FileGroup | None:
        listed, _ = self._read(plan_id, number)
        if listed is None or to_group(listed).is_done:
            return None
        state = self._files(plan_id, state_key(number))
        actions = [
            FileItem.lease_owner.set(owner),
            FileItem.lease_until.set(until),
            FileItem.expires_at.set(self._find_expiry()),
        ]
        is_free = (
            FileItem.lease_owner.does_not_exist() | (FileItem.lease_owner == owner) | (FileItem.lease_until <= now)
        )
        leased = update_item(state, actions, FileItem.done.does_not_exist() & is_free, await_capacity=True)
        return to_group(listed, state) if leased else None

    @translate_errors()
    def renew_lease(self, plan_id: str, number: int, *, owner: str, until: float) -> None:
        state = self._files(plan_id, state_key(number))
        if not update_item(
            state, [FileItem.lease_until.set(until)], FileItem.lease_owner == owner, await_capacity=True
        ):
            raise _lost_lease(number)

    @translate_errors()
    def release_lease(self, plan_id: str, number: int, *, owner: str) -> None:
        actions = [FileItem.lease_owner.remove(), FileItem.lease_until.remove()]
        state = self._files(plan_id, state_key(number))
        update_item(state, actions, FileItem.lease_owner == owner, await_capacity=True)

    @translate_errors()
    def record_offset(
        self, plan_id: str, number: int, offset: int, *, owner: str, until: float, continued: int = 0
    ) -> FileCounts:
        self._change(
            plan_id, number, lambda group: replace(group.advance(offset, continued), lease_until=until), owner=owner
        )
        return self.count_files(plan_id)

    @translate_errors()
    def record_files(
        self, plan_id: str, number: int, records: Sequence[FileRecord], *, owner: str, until: float
    ) -> FileCounts:
        try:
            self._change(plan_id, number, lambda group: replace(group.merge(records), lease_until=until), owner=owner)
        except LeaseLostError:
            listed, state = self._read(plan_id, number)
            if listed is None or not to_group(listed, state).is_done:
                raise
        return self.count_files(plan_id)

    def _change(self, plan_id: str, number: int, change: Callable[[FileGroup], FileGroup], *, owner: str) -> None:
        """Write the changed group, and count the change. Raises LeaseLostError."""

        def write() -> None:
            listed, state = self._read(plan_id, number)
            if listed is None or state is None or state.lease_owner != owner:
                raise _lost_lease(number)
            group = to_group(listed, state)
            changed = change(group)
            expiry = FileItem.expires_at.set(self._find_expiry())
            # After a lost response, the version is that of the write itself, and the next attempt counts nothing.
            same_version = FileItem.version == state.version if state.version else FileItem.version.does_not_exist()
            with open_transaction(self._connection) as transaction:
                transaction.update(
                    self._files(plan_id, state_key(number)),
                    actions=[*state_actions(changed), FileItem.version.set((state.version or 0) + 1), expiry],
                    condition=(FileItem.lease_owner == owner) & same_version,
                )
                transaction.update(
                    self._files(plan_id, counter_key(number)),
                    actions=[*count_actions(group.count(), changed.count()), expiry],
                )

        retry_write(write, await_capacity=True)

    def _read(self, plan_id: str, number: int) -> tuple[FileItem | None, FileItem | None]:
        """Return the items of the group and of its state, None for an item that does not exist."""
        items = {item.key: item for item in self._query(plan_id, group_key(number))}
        return items.get(group_key(number)), items.get(state_key(number))

    def _query(self, plan_id: str, prefix: str) -> Iterator[FileItem]:
        yield from self._files.query(plan_id, FileItem.key.startswith(prefix), consistent_read=True)

    def _find_expiry(self) -> datetime:
        return to_moment(self._clock() + _FILE_TTL)


def _lost_lease(number: int) -> LeaseLostError:
    return LeaseLostError(f"Another function has leased group {number}.")
