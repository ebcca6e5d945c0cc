from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from modelhaul.domain.errors import LeaseLostError
from modelhaul.domain.files import FileCounts, FileGroup, FileKind, FileRecord, SourceFile
from modelhaul.ports.files import FileRepository, GroupLeases
from tests.fakes.tables import Group, InMemoryTables


class InMemoryFileRepository(FileRepository, GroupLeases):
    def __init__(self, tables: InMemoryTables) -> None:
        self._tables = tables

    def put_groups(self, plan_id: str, groups: Iterable[Sequence[SourceFile]]) -> None:
        with self._tables.lock:
            for number, files in enumerate(groups):
                records = tuple(FileRecord(plan_id.partition("#")[0], file) for file in files)
                group = FileGroup(plan_id, number, records)
                self._tables.groups.setdefault((plan_id, number), Group(group))

    def list_groups(self, plan_id: str) -> Iterator[FileGroup]:
        with self._tables.lock:
            found = [stored.group for (owner, _), stored in sorted(self._tables.groups.items()) if owner == plan_id]
        yield from found

    def find_groups(self, plan_id: str, numbers: Iterable[int]) -> list[FileGroup]:
        with self._tables.lock:
            found = (self._tables.groups.get((plan_id, number)) for number in set(numbers))
            return [stored.group for stored in found if stored is not None]

    def count_files(self, plan_id: str) -> FileCounts:
        groups = list(self.list_groups(plan_id))
        files = [r for group in groups for r in group.records if r.file.kind is FileKind.FILE and r.sha256 is not None]
        offsets = sum(group.offset for group in groups)
        return FileCounts(
            files_done=sum(r.is_done for r in files),
            bytes_done=sum(r.file.size for r in files) + offsets,
            bytes_reused=sum(r.file.size for r in files if r.reused) + sum(group.continued for group in groups),
            groups_copied=len(self.list_copied(plan_id)),
        )

    def record_copied(self, plan_id: str, numbers: Iterable[int]) -> FileCounts:
        with self._tables.lock:
            self._tables.copied.setdefault(plan_id, set()).update(numbers)
            return self.count_files(plan_id)

    def list_copied(self, plan_id: str) -> set[int]:
        with self._tables.lock:
            return set(self._tables.copied.get(plan_id, ()))

    def lease_group(self, plan_id: str, number: int, *, owner: str, now: float, until: float) -> FileGroup | None:
        with self._tables.lock:
            stored = self._tables.groups.get((plan_id, number))
            if stored is None or stored.group.is_done:
                return None
            if stored.owner not in (None, owner) and stored.group.lease_until > now:
                return None
            stored.owner = owner
            stored.group = replace(stored.group, lease_until=until)
            return stored.group

    def renew_lease(self, plan_id: str, number: int, *, owner: str, until: float) -> None:
        self._change(plan_id, number, owner, lambda group: replace(group, lease_until=until))

    def release_lease(self, plan_id: str, number: int, *, owner: str) -> None:
        with self._tables.lock:
            stored = self._tables.groups.get((plan_id, number))
            if stored is not None and stored.owner == owner:
                stored.owner = None
                stored.group = replace(stored.group, lease_until=0.0)

    def record_offset(
        self, plan_id: str, number: int, offset: int, *, owner: str, until: float, continued: int = 0
    ) -> FileCounts:
        return self._change(
            plan_id, number, owner, lambda group: replace(group.advance(offset, continued), lease_until=until)
        )

    def record_files(
        self, plan_id: str, number: int, records: Sequence[FileRecord], *, owner: str, until: float
    ) -> FileCounts:
        with self._tables.lock:
            stored = self._tables.groups.get((plan_id, number))
            if stored is not None and stored.group.is_done:
                return self.count_files(plan_id)
            given = {record.file.path: _drop_pickles(record) for record in records if record.sha256 is not None}

            def record(group: FileGroup) -> FileGroup:
                merged = tuple(r if r.is_done else given.get(r.file.path, r) for r in group.records)
                if sum(r.sha256 is not None for r in merged) > sum(r.sha256 is not None for r in group.records):
                    group = replace(group, offset=0)
                group = replace(group, records=merged)
                return replace(group, lease_until=0.0 if group.is_done else until)

            return self._change(plan_id, number, owner, record)

    def _change(self, plan_id: str, number: int, owner: str, change: Callable[[FileGroup], FileGroup]) -> FileCounts:
        with self._tables.lock:
            stored = self._tables.groups.get((plan_id, number))
            if stored is None or stored.owner != owner:
                raise LeaseLostError(f"Another function has leased group {number}.")
            stored.group = change(stored.group)
            if stored.group.is_done:
                stored.owner = None
            return self.count_files(plan_id)


def _drop_pickles(record: FileRecord) -> FileRecord:
    if record.check is None or record.check.report is None:
        return record
    return replace(record, check=replace(record.check, report=replace(record.check.report, pickles=None)))
