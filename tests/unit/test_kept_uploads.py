"""Large files of imports that failed or were cancelled: the next import of the content continues their uploads."""

import math
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import pytest

from modelhaul.domain import errors
from modelhaul.domain.files import FileCounts, Part, SourceFile
from modelhaul.domain.keys import staging_prefix
from modelhaul.domain.messages import Message
from modelhaul.domain.models import ResolvedModel, Source
from modelhaul.domain.segments import FileUpload, KeptUpload, UploadKey
from modelhaul.domain.tasks import Stage, Task, TaskStatus
from modelhaul.transfer.reuse import STAGED_BLOB_SECONDS
from tests.archives.zipping import zip_files
from tests.fakes.deployment import PART_SIZE, Deployment
from tests.fakes.model_source import InMemoryModelSource, InMemoryStream
from tests.weights import wrap_weights

NAME, OTHER = "org/model", "org/copy"
PATH = "model.safetensors"
WEIGHTS = wrap_weights(random.Random(3).randbytes(12 * PART_SIZE))
FILES = {"config.json": b'{"a": 1}', "tokenizer.json": b"{}", PATH: WEIGHTS}
AT = len(WEIGHTS) * 6 // 10


class OtherSource(InMemoryModelSource):
    """Has the same content with another ETag."""

    def open_range(self, model: ResolvedModel, file: SourceFile, start: int, end: int) -> InMemoryStream:
        stream = super().open_range(model, file, start, end)
        stream.etag = "other"
        return stream


@dataclass
class Imports:
    """A deployment, and which bytes of the large file its source has sent."""

    source: InMemoryModelSource = field(
        default_factory=lambda: InMemoryModelSource({NAME: {"main": dict(FILES)}, OTHER: {"main": dict(FILES)}})
    )
    read: list[int] = field(default_factory=list)
    """Offsets of the reads of the large file."""

    def __post_init__(self) -> None:
        self.deployment = Deployment(self.source)
        self.source.on_read = self.record_read

    def record_read(self, path: str, offset: int) -> None:
        if path == PATH:
            self.read.append(offset)

    def stop(self, task: Task, end: Callable[[Task], None], *, at: int = AT) -> FileUpload:
        """Let the task end as `run_until` does. Return its upload."""
        self.run_until(task, end, at=at)
        upload = self.find_upload(task)
        assert upload is not None
        return upload

    def run_until(self, task: Task, end: Callable[[Task], None], *, at: int = AT) -> None:
        """Run the task until bytes from `at` on are requested, which the source refuses. Then end the task."""
        ended = False

        def refuse(path: str, offset: int) -> None:
            nonlocal ended
            self.record_read(path, offset)
            if path != PATH or offset < at:
                return
            if not ended and self.find_upload(task) is not None:
                ended = True
                end(task)
            raise errors.SourceUnavailableError("503")

        self.source.on_read = refuse
        self.deployment.run()
        self.source.on_read = self.record_read
        assert self.deployment.find_task(task.id).status is TaskStatus.FAILED
        self.read.clear()
        self.source.bytes_read.clear()

    def cancel(self, task: Task) -> None:
        self.deployment.finisher.cancel(task.id)

    def let_fail(self, _: Task) -> None:
        """The source does not answer any more."""

    def import_again(self, name: str = NAME) -> Task:
        task = self.deployment.submit(name)
        self.deployment.run()
        return self.deployment.find_task(task.id)

    def pause(self, task: Task, *, at: int) -> None:
        """Deliver the messages of the task until bytes from `at` on are requested, when the function's time ends."""
        late = paused = False

        def hurry(path: str, offset: int) -> None:
            nonlocal late
            self.record_read(path, offset)
            late |= path == PATH and offset >= at

        self.source.on_read = hurry
        self.deployment.remaining = lambda: 0.0 if late else 300.0
        while not paused:
            messages = self.deployment.receive()
            assert messages, self.deployment.find_task(task.id)
            for message in messages:
                self.deployment.deliver(message)
                paused |= late
                late = False
        self.source.on_read = self.record_read
        self.deployment.remaining = lambda: 300.0
        assert self.deployment.find_task(task.id).status is TaskStatus.PENDING

    def find_upload(self, task: Task) -> FileUpload | None:
        found = [u for key, u in self.deployment.tables.uploads.items() if key.task_id == task.id]
        return found[0] if found else None

    def list_uploads(self) -> list[tuple[str, str]]:
        return list(self.deployment.store.list_uploads(""))

    def check(self) -> None:
        """Let all tasks end, and check what they have left."""
        self.deployment.sweep_until_quiet()
        self.deployment.check_promises({self.source.prefix(name): FILES for name in (NAME, OTHER)})
        assert [key for key in self.deployment.store.keys if key.endswith(PATH) and key.startswith("staging/")] == []


def wait_until(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture
def imports() -> Imports:
    return Imports()


@pytest.mark.parametrize("name", [NAME, OTHER])
@pytest.mark.parametrize("end", [Imports.cancel, Imports.let_fail], ids=["cancelled", "failed"])
def test_the_next_import_continues_at_the_last_recorded_byte(
    imports: Imports, end: Callable[[Imports, Task], None], name: str
) -> None:
    first = imports.deployment.submit(NAME)
    kept = imports.stop(first, lambda task: end(imports, task))
    assert 0 < kept.offset <= AT
    imports.deployment.clock.now += 1300
    imports.deployment.sweeper.sweep_stale(imports.deployment.remaining)
    assert imports.list_uploads() == [(staging_prefix(first.id) + PATH, kept.upload_id)]
    metrics = imports.deployment.metrics.values
    assert metrics["BytesTransferred"] >= kept.offset, "bytes of a file that was not completed"
    assert metrics["BytesReused"] == 0
    metrics.clear()

    again = imports.import_again(name)
    assert again.status is TaskStatus.DONE
    assert min(imports.read) == kept.offset
    assert imports.source.bytes_read[PATH] == len(WEIGHTS) - kept.offset
    assert again.progress.bytes_done == again.progress.bytes_total
    assert kept.offset <= again.progress.bytes_reused < kept.offset + PART_SIZE
    assert metrics["BytesReused"] == again.progress.bytes_reused
    assert metrics["BytesTransferred"] >= again.progress.bytes_total - again.progress.bytes_reused
    assert imports.list_uploads() == []
    imports.check()


def test_an_import_from_another_source_continues(imports: Imports) -> None:
    kept = imports.stop(imports.deployment.submit(NAME), imports.cancel)
    other = OtherSource({OTHER: {"main": dict(FILES)}}, kind=Source.GITHUB)
    imports.deployment.source = imports.source = other
    task = imports.deployment.submit(OTHER, source=Source.GITHUB)
    imports.pause(task, at=AT + 3 * PART_SIZE)
    continued = imports.find_upload(task)
    assert continued is not None
    assert kept.source_etag != "other"
    assert continued.source_etag == "other", "functions that join compare with it"
    imports.deployment.run()
    assert imports.deployment.find_task(task.id).status is TaskStatus.DONE
    assert min(imports.read) == kept.offset
    imports.deployment.sweep_until_quiet()
    imports.deployment.check_promises({other.prefix(OTHER): FILES})


def test_an_upload_is_continued_by_several_imports_in_turn(imports: Imports) -> None:
    first = imports.stop(imports.deployment.submit(NAME), imports.cancel, at=5 * PART_SIZE)
    second = imports.stop(imports.deployment.submit(OTHER), imports.cancel, at=9 * PART_SIZE)
    assert second.upload_id == first.upload_id
    assert second.offset > first.offset
    imports.import_again()
    assert min(imports.read) == second.offset
    imports.check()


def test_one_of_two_imports_continues(imports: Imports, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one takes the upload over while the first one is about to."""
    kept = imports.stop(imports.deployment.submit(NAME), imports.cancel)
    deployment = imports.deployment
    list_uploads = deployment.store.list_uploads
    held = [True]
    reads: list[int] = []

    def hold(prefix: str) -> list[tuple[str, str]]:
        found = list(list_uploads(prefix))
        if prefix.endswith(PATH) and held:
            held.clear()
            imports.import_again(OTHER)
            reads.extend(imports.read)
            imports.read.clear()
        return found

    monkeypatch.setattr(deployment.store, "list_uploads", hold)
    assert imports.import_again(NAME).status is TaskStatus.DONE
    assert held == []
    assert min(reads) == kept.offset
    assert min(imports.read) == 0
    imports.check()


@pytest.mark.parametrize("is_paused", [True, False], ids=["in-progress", "finished"])
def test_a_late_function_does_not_change_an_upload_that_was_taken_over(
    imports: Imports, monkeypatch: pytest.MonkeyPatch, *, is_paused: bool
) -> None:
    """It waits in a request while the import is cancelled and the next one continues."""
    deployment = imports.deployment
    first = deployment.submit(NAME)
    upload_part = deployment.store.upload_part
    again: list[Task] = []

    def hold(key: str, upload_id: str, number: int, body: memoryview, *, crc32: int) -> Part:
        if number == 6 and not again:
            wait_until(lambda: (upload := imports.find_upload(first)) is not None and upload.hashed > 0)
            deployment.finisher.cancel(first.id)
            again.append(deployment.submit(NAME))
            if is_paused:
                imports.pause(again[0], at=len(WEIGHTS) - PART_SIZE)
            else:
                deployment.run()
        return upload_part(key, upload_id, number, body, crc32=crc32)

    monkeypatch.setattr(deployment.store, "upload_part", hold)
    deployment.run()
    deployment.clock.now += 1300
    deployment.sweeper.sweep_stale(deployment.remaining)
    deployment.run()
    assert deployment.find_task(again[0].id).status is TaskStatus.DONE
    taken = imports.find_upload(first)
    assert taken is not None
    assert taken.is_taken_over
    assert deployment.metrics.values["Retries"] == 0, "the upload was not aborted"
    imports.check()


def test_the_last_cleanup_of_the_first_import_keeps_the_upload(imports: Imports) -> None:
    kept = imports.stop(imports.deployment.submit(NAME), imports.cancel)
    again = imports.deployment.submit(NAME)
    imports.pause(again, at=AT + 3 * PART_SIZE)
    imports.deployment.clock.now += 1300
    imports.deployment.sweeper.sweep_stale(imports.deployment.remaining)
    imports.deployment.run()
    assert imports.deployment.find_task(again.id).status is TaskStatus.DONE
    assert imports.source.bytes_read[PATH] < len(WEIGHTS) - kept.offset + 5 * PART_SIZE
    imports.check()


def reject(imports: Imports, task: Task) -> None:
    imports.deployment.finisher.fail(task.id, errors.UnsafeModelError("imports os.system"))


def test_uploads_of_rejected_content_are_aborted(imports: Imports) -> None:
    first = imports.deployment.submit(NAME)
    imports.run_until(first, lambda task: reject(imports, task))
    assert imports.list_uploads() == []
    imports.import_again()
    assert min(imports.read) == 0
    imports.check()


def test_uploads_of_rejected_content_that_were_taken_over_are_aborted(imports: Imports) -> None:
    imports.stop(imports.deployment.submit(NAME), imports.cancel)
    again = imports.deployment.submit(NAME)
    imports.pause(again, at=AT + 3 * PART_SIZE)
    reject(imports, again)
    assert imports.list_uploads() == []
    imports.read.clear()
    imports.import_again()
    assert min(imports.read) == 0
    imports.check()


def test_uploads_are_continued_until_they_expire(imports: Imports) -> None:
    imports.stop(imports.deployment.submit(NAME), imports.cancel)
    imports.deployment.clock.now += STAGED_BLOB_SECONDS
    imports.import_again()
    assert min(imports.read) == 0
    imports.check()


def test_taking_an_upload_over_does_not_postpone_its_expiry(imports: Imports) -> None:
    imports.stop(imports.deployment.submit(NAME), imports.cancel, at=5 * PART_SIZE)
    imports.deployment.clock.now += STAGED_BLOB_SECONDS / 2
    second = imports.stop(imports.deployment.submit(NAME), imports.cancel)
    imports.deployment.clock.now += STAGED_BLOB_SECONDS / 2 - 1000
    third = imports.stop(imports.deployment.submit(NAME), imports.cancel, at=9 * PART_SIZE)
    assert third.upload_id == second.upload_id
    imports.deployment.clock.now += 1000
    imports.import_again()
    assert min(imports.read) == 0
    imports.check()


def test_an_upload_that_the_bucket_has_aborted_is_not_continued(imports: Imports) -> None:
    imports.stop(imports.deployment.submit(NAME), imports.cancel)
    for key, upload_id in imports.list_uploads():
        imports.deployment.store.abort_upload(key, upload_id)
    imports.import_again()
    assert imports.source.bytes_read[PATH] == len(WEIGHTS)
    assert imports.deployment.metrics.values["Retries"] == 0
    imports.check()


def test_wrong_bytes_of_the_first_import_are_replaced(imports: Imports) -> None:
    """The digest reveals them at the end. The file is then transferred from its first byte."""
    spoiled = bytes([WEIGHTS[-1] ^ 1])
    imports.source.served = lambda path, content: spoiled + content[1:] if path == PATH else content
    imports.stop(imports.deployment.submit(NAME), imports.cancel)
    imports.source.served = lambda _, content: content
    again = imports.import_again()
    assert again.status is TaskStatus.DONE
    assert min(imports.read) == 0
    assert imports.deployment.metrics.values["Retries"] == 1
    assert again.progress.bytes_reused < PART_SIZE, "nothing of the ended import was used"
    imports.check()


def test_wrong_bytes_of_ended_imports_are_not_taken_for_those_of_the_source(imports: Imports) -> None:
    """Two ended imports have the same wrong bytes. The next one continues one of them, and then starts again."""
    deployment = imports.deployment
    spoiled = bytes([WEIGHTS[-1] ^ 1])

    def keep_wrong_bytes() -> None:
        imports.source.served = lambda path, content: spoiled + content[1:] if path == PATH else content
        imports.stop(deployment.submit(NAME), imports.cancel)
        imports.source.served = lambda _, content: content

    keep_wrong_bytes()
    task = deployment.submit(OTHER)
    while deployment.metrics.values["Retries"] == 0:
        for message in deployment.receive():
            deployment.deliver(message)
    retries = deployment.queue.receive(math.inf)
    keep_wrong_bytes()
    deployment.queue.send(retries)
    deployment.run()
    assert deployment.find_task(task.id).status is TaskStatus.DONE
    imports.check()


def test_the_file_is_copied_by_the_next_function_if_time_runs_out(
    imports: Imports, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = imports.stop(imports.deployment.submit(NAME), imports.cancel)
    deployment = imports.deployment
    complete_upload, deliver = deployment.store.complete_upload, deployment.deliver
    late = False
    completed: list[str] = []

    def complete(key: str, upload_id: str, parts: Sequence[Part], *, size: int) -> str:
        nonlocal late
        late = not completed
        completed.append(key)
        return complete_upload(key, upload_id, parts, size=size)

    def start_function(message: Message) -> None:
        nonlocal late
        late = False
        deliver(message)

    monkeypatch.setattr(deployment.store, "complete_upload", complete)
    monkeypatch.setattr(deployment, "deliver", start_function)
    deployment.remaining = lambda: 0.0 if late else 300.0
    assert imports.import_again().status is TaskStatus.DONE
    assert len(completed) == 2
    assert imports.source.bytes_read[PATH] == len(WEIGHTS) - kept.offset
    imports.check()


def test_uploads_of_archive_entries_are_not_kept(imports: Imports, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CRC-32 does not identify content."""
    deployment = imports.deployment
    deployment.drop(zip_files({"a/config.json": b"{}", "a/tokenizer.json": b"{}", f"a/{PATH}": WEIGHTS}))
    task = deployment.find_task(deployment.submitted[-1])
    record_offset = deployment.database.leases.record_offset

    def cancel(plan_id: str, number: int, offset: int, *, owner: str, until: float, continued: int) -> FileCounts:
        stored = imports.find_upload(task)
        if stored is not None and stored.hashed > 0 and deployment.find_task(task.id).status is TaskStatus.PENDING:
            deployment.finisher.cancel(task.id)
        return record_offset(plan_id, number, offset, owner=owner, until=until, continued=continued)

    monkeypatch.setattr(deployment.database.leases, "record_offset", cancel)
    deployment.run()
    assert deployment.find_task(task.id).stage is Stage.CANCELLED
    upload = imports.find_upload(task)
    assert upload is not None
    assert upload.hashed > 0
    assert imports.list_uploads() == []


@pytest.mark.parametrize("changes", [1, 5])
def test_changes_by_late_functions_do_not_prevent_the_next_import_from_continuing(
    imports: Imports, monkeypatch: pytest.MonkeyPatch, changes: int
) -> None:
    """They renew their claims until they notice the end of their import."""
    kept = imports.stop(imports.deployment.submit(NAME), imports.cancel)
    segments = imports.deployment.database.segments
    take_over = segments.take_over_upload
    left = [*range(changes)]

    def change(source: UploadKey, known: FileUpload, key: UploadKey) -> bool:
        found = segments.find_upload(source)
        if found is not None and left:
            left.pop()
            assert segments.replace_upload(source, found, replace(found, version=found.version + 1))
        return take_over(source, known, key)

    monkeypatch.setattr(segments, "take_over_upload", change)
    imports.import_again()
    assert left == []
    assert min(imports.read) == kept.offset
    imports.check()


def test_an_upload_is_continued_again_after_a_lost_response(imports: Imports, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = imports.stop(imports.deployment.submit(NAME), imports.cancel, at=5 * PART_SIZE)
    segments = imports.deployment.database.segments
    take_over = segments.take_over_upload

    def lose(source: UploadKey, known: FileUpload, key: UploadKey) -> bool:
        take_over(source, known, key)
        return take_over(source, known, key)

    monkeypatch.setattr(segments, "take_over_upload", lose)
    second = imports.stop(imports.deployment.submit(OTHER), imports.cancel, at=9 * PART_SIZE)
    assert second.upload_id == kept.upload_id
    imports.import_again()
    assert min(imports.read) == second.offset
    imports.check()


@pytest.mark.parametrize("is_continued", [False, True], ids=["new", "continued"])
def test_an_upload_that_could_not_be_indexed_is_indexed_by_the_next_function(
    imports: Imports, monkeypatch: pytest.MonkeyPatch, *, is_continued: bool
) -> None:
    deployment, content = imports.deployment, imports.deployment.database.content
    if is_continued:
        imports.stop(deployment.submit(OTHER), imports.cancel, at=4 * PART_SIZE)
    put, failed = content.put_kept_upload, False

    def fail(digest: str, upload: KeptUpload) -> None:
        nonlocal failed
        if not failed:
            failed = True
            raise errors.StorageUnavailableError("DynamoDB request failed (InternalServerError).")
        put(digest, upload)

    monkeypatch.setattr(content, "put_kept_upload", fail)
    # The other import may have waited: the source refuses bytes before or after its upload is recorded.
    deployment.metrics.values.clear()
    task = deployment.submit(NAME)
    imports.pause(task, at=6 * PART_SIZE)
    assert failed
    assert deployment.metrics.values["OutageWaits"] == deployment.metrics.values["Retries"] == 0
    kept = imports.stop(task, imports.cancel, at=9 * PART_SIZE)
    imports.import_again()
    assert min(imports.read) == kept.offset
    imports.check()


def test_the_longer_upload_of_two_imports_is_continued(imports: Imports) -> None:
    """The import with the shorter one starts later, and ends first."""
    deployment = imports.deployment

    def end(task: Task) -> None:
        other = deployment.submit(OTHER)
        imports.pause(other, at=5 * PART_SIZE)
        shorter = imports.find_upload(other)
        assert shorter is not None
        assert shorter.hashed > 0
        deployment.finisher.cancel(other.id)
        deployment.finisher.cancel(task.id)

    longer = imports.stop(deployment.submit(NAME), end, at=10 * PART_SIZE)
    imports.import_again()
    assert min(imports.read) == longer.offset
    imports.check()


def test_an_upload_is_continued_although_a_longer_one_was_aborted(imports: Imports) -> None:
    imports.stop(imports.deployment.submit(NAME), imports.cancel, at=9 * PART_SIZE)
    for key, upload_id in imports.list_uploads():
        imports.deployment.store.abort_upload(key, upload_id)
    kept = imports.stop(imports.deployment.submit(OTHER), imports.cancel, at=6 * PART_SIZE)
    imports.import_again()
    assert min(imports.read) == kept.offset
    imports.check()


@pytest.mark.parametrize("is_lost", [False, True], ids=["out-of-time", "lost-response"])
def test_a_completed_file_of_an_ended_import_is_not_transferred_again(
    imports: Imports, monkeypatch: pytest.MonkeyPatch, *, is_lost: bool
) -> None:
    """The import that continued the file ends before it has copied the file to its own staging."""
    imports.stop(imports.deployment.submit(NAME), imports.cancel)
    deployment = imports.deployment
    complete_upload = deployment.store.complete_upload
    second = deployment.submit(OTHER)
    remaining = [300.0]

    def complete(key: str, upload_id: str, parts: Sequence[Part], *, size: int) -> str:
        etag = complete_upload(key, upload_id, parts, size=size)
        if deployment.find_task(second.id).status is TaskStatus.PENDING:
            deployment.finisher.cancel(second.id)
            if is_lost:
                raise errors.StorageUnavailableError("S3 CompleteMultipartUpload failed (ReadTimeoutError).")
            remaining[0] = 0.0
        return etag

    monkeypatch.setattr(deployment.store, "complete_upload", complete)
    deployment.remaining = lambda: remaining[0]
    deployment.run()
    assert deployment.find_task(second.id).stage is Stage.CANCELLED
    remaining[0] = 300.0
    imports.read.clear()
    assert imports.import_again().status is TaskStatus.DONE
    assert imports.read == []


def test_a_file_is_copied_once_if_its_first_object_cannot_be_deleted(
    imports: Imports, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = imports.deployment.submit(NAME)
    imports.stop(first, imports.cancel)
    imports.deployment.metrics.values.clear()
    store = imports.deployment.store
    delete, copy = store.delete, store.copy
    left = staging_prefix(first.id) + PATH
    copied: list[str] = []

    def fail(keys: Iterable[str]) -> None:
        keys = list(keys)
        if left in keys:
            raise errors.StorageUnavailableError("S3 DeleteObjects failed (AccessDenied).")
        delete(keys)

    def count(source_key: str, key: str, *, size: int, etag: str) -> str:
        copied.append(source_key)
        return copy(source_key, key, size=size, etag=etag)

    monkeypatch.setattr(store, "delete", fail)
    monkeypatch.setattr(store, "copy", count)
    assert imports.import_again().status is TaskStatus.DONE
    assert copied.count(left) == 1
    assert imports.deployment.metrics.values["OutageWaits"] == imports.deployment.metrics.values["Retries"] == 0


def test_a_late_function_of_a_rejected_import_leaves_no_upload(
    imports: Imports, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = imports.deployment
    task = deployment.submit(NAME)
    create_upload = deployment.database.segments.create_upload

    def create(key: UploadKey, upload: FileUpload) -> bool:
        if deployment.find_task(task.id).status is TaskStatus.PENDING:
            reject(imports, task)
        return create_upload(key, upload)

    monkeypatch.setattr(deployment.database.segments, "create_upload", create)
    deployment.run()
    assert imports.find_upload(task) is None
    assert imports.list_uploads() == []


def test_an_upload_of_rejected_content_is_not_continued_before_its_cleanup(
    imports: Imports, monkeypatch: pytest.MonkeyPatch
) -> None:
    segments = imports.deployment.database.segments
    list_uploads = segments.list_uploads

    def fail(_: str) -> dict[UploadKey, FileUpload]:
        raise errors.StorageUnavailableError("DynamoDB request failed (InternalServerError).")

    def reject_only(task: Task) -> None:
        monkeypatch.setattr(segments, "list_uploads", fail)
        reject(imports, task)

    imports.run_until(imports.deployment.submit(NAME), reject_only)
    assert len(imports.list_uploads()) == 1
    monkeypatch.setattr(segments, "list_uploads", list_uploads)
    imports.import_again()
    assert min(imports.read) == 0
    imports.check()
