from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from modelhaul.domain.errors import LeaseLostError
from modelhaul.domain.files import Checkpoint, FileKind, FileRecord, FileResult, SourceFile
from modelhaul.domain.tasks import Progress
from modelhaul.ports.files import FileRepository
from tests.fakes.tables import File, InMemoryTables


class InMemoryFileRepository(FileRepository):
    def __init__(self, tables: InMemoryTables) -> None:
        self._tables = tables

    def put_files(self, task_id: str, files: Iterable[SourceFile]) -> None:
        with self._tables.lock:
            for file in files:
                self._tables.files.setdefault(
                    (task_id, file.path), File(FileRecord(task_id, file, done=file.kind is not FileKind.FILE))
                )

    def list_files(self, task_id: str) -> Iterator[FileRecord]:
        with self._tables.lock:
            records = [f.record for (owner, _), f in sorted(self._tables.files.items()) if owner == task_id]
        yield from records

    def find_files(self, task_id: str, paths: Sequence[str]) -> list[FileRecord]:
        with self._tables.lock:
            found = (self._tables.files.get((task_id, path)) for path in set(paths))
            return [file.record for file in found if file is not None]

    def lease_file(self, task_id: str, path: str, *, owner: str, now: float, until: float) -> FileRecord | None:
        with self._tables.lock:
            file = self._tables.files.get((task_id, path))
            if file is None or file.record.done:
                return None
            if file.owner not in (None, owner) and file.record.lease_until > now:
                return None
            file.owner = owner
            file.record = replace(file.record, lease_until=until)
            return file.record

    def renew_lease(self, task_id: str, path: str, *, owner: str, until: float) -> None:
        with self._tables.lock:
            file = self._find_leased(task_id, path, owner)
            file.record = replace(file.record, lease_until=until)

    def release_lease(self, task_id: str, path: str, *, owner: str) -> None:
        with self._tables.lock:
            file = self._tables.files.get((task_id, path))
            if file is not None and file.owner == owner:
                file.owner = None
                file.record = replace(file.record, lease_until=0.0)

    def save_checkpoint(
        self,
        task_id: str,
        path: str,
        checkpoint: Checkpoint | None,
        *,
        owner: str,
        until: float,
        check_at: float,
    ) -> None:
        with self._tables.lock:
            file = self._find_leased(task_id, path, owner)
            task = self._tables.find_pending(task_id)
            moved = (checkpoint.offset if checkpoint else 0) - file.offset
            file.record = replace(file.record, checkpoint=checkpoint, lease_until=until)
            progress = replace(task.progress, bytes_done=task.progress.bytes_done + moved)
            self._tables.write_task(
                task, progress=progress, bytes_counted_at=self._tables.now(), check_at=check_at, sweeps=0
            )

    def finish_files(self, task_id: str, results: Sequence[FileResult], *, check_at: float) -> Progress:
        if len(results) > 90:
            raise ValueError(f"Cannot finish {len(results)} files at once. The limit is 90.")
        with self._tables.lock:
            progress = self._tables.find_pending(task_id).progress
            for result in results:
                file = self._tables.files.get((task_id, result.file.path))
                if file is None or file.record.done:
                    continue
                progress = replace(
                    progress,
                    files_done=progress.files_done + 1,
                    bytes_done=progress.bytes_done + result.file.size - file.offset,
                    bytes_reused=progress.bytes_reused + (result.file.size if result.reused else 0),
                )
                file.owner = None
                file.record = replace(
                    file.record,
                    done=True,
                    sha256=result.sha256,
                    etag=result.etag,
                    reused=result.reused,
                    checkpoint=None,
                    lease_until=0.0,
                )
            task = self._tables.tasks[task_id]
            if progress != task.progress:
                self._tables.write_task(
                    task, progress=progress, bytes_counted_at=self._tables.now(), check_at=check_at, sweeps=0
                )
            return progress

    def _find_leased(self, task_id: str, path: str, owner: str) -> File:
        file = self._tables.files.get((task_id, path))
        if file is None or file.owner != owner:
            raise LeaseLostError(f"Another function has leased {path}.")
        return file
