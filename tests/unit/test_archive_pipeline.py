"""Archives from their arrival to published models, over the in-memory deployment."""

import hashlib
import io
import zipfile
import zlib
from collections.abc import Mapping

import pytest

from modelhaul.domain.errors import (
    ArchiveRefusedError,
    ArchiveTooLargeError,
    ImportInProgressError,
    InvalidReferenceError,
    ModelExistsError,
    NoModelInArchiveError,
    StorageUnavailableError,
)
from modelhaul.domain.messages import AcceptArchive, CopyFiles, PlanImport, PublishModels, TransferFiles
from modelhaul.domain.models import ModelStatus
from modelhaul.domain.tasks import Stage, Task, TaskStatus
from modelhaul.transfer.policy import TransferPolicy
from tests.fakes.archive_store import InMemoryRange
from tests.fakes.deployment import PART_SIZE, Deployment
from tests.weights import wrap_weights

SMALL = {
    "config.json": b'{"a": 1}',
    "tokenizer.json": b"{}",
    "model.safetensors": wrap_weights(b"weights" * 5000),
    "sub/vocab.txt": b"v",
}
LARGE = {
    **SMALL,
    "model.safetensors": wrap_weights(hashlib.shake_256(b"w").digest(10_240_000)),
}  # a large file of ten parts
OTHER = {**SMALL, "model.safetensors": wrap_weights(b"other" * 100_000)}
URL_SECONDS = 12 * 3600


def make_archive(files: Mapping[str, bytes], *, stored: tuple[str, ...] = ()) -> bytes:
    """`stored`: prefixes of the names that are not deflated."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        for name, content in files.items():
            method = zipfile.ZIP_STORED if name.startswith(stored or ("\0",)) else zipfile.ZIP_DEFLATED
            archive.writestr(name, content, method)
    return body.getvalue()


def place(directory: str, files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {f"{directory}/{path}": content for path, content in files.items()}


def expect(task: Task, **models: Mapping[str, bytes]) -> dict[str, dict[str, bytes]]:
    """Prefix to files, of models by their names (`__` stands for a slash)."""
    return {f"models/local/{name.replace('__', '/')}/{task.id}/": dict(files) for name, files in models.items()}


def test_a_posted_archive_of_two_models_is_imported_whole() -> None:
    deployment = Deployment()
    task = deployment.post(make_archive({**place("a", SMALL), **place("b", OTHER)}, stored=("b/",)), "mine")
    assert task.model_tag == "mine"
    deployment.run()
    ended = deployment.find_task(task.id)
    assert (ended.status, ended.progress.files_done) == (TaskStatus.DONE, 8)
    first, second = deployment.database.models.find_models(ended.model_ids)
    assert [first.resolved.name, second.resolved.name] == ["mine/a", "mine/b"]
    assert (first.status, first.files, first.size) == (ModelStatus.READY, 4, sum(map(len, SMALL.values())))
    deployment.check_promises(expect(task, mine__a=SMALL, mine__b=OTHER))
    assert deployment.archives.find_archive(f"posted/{task.id}.zip") is None, "it is of no use any more"
    manifest = deployment.read(f"manifests/{first.model_id}.json").decode()
    assert '"path":"sub/vocab.txt"' in manifest
    assert f'"source_digest":"crc32:{zlib.crc32(SMALL["config.json"]):08x}"' in manifest


def test_a_dropped_archive_says_beside_it_what_became_of_it() -> None:
    deployment = Deployment()
    key = "incoming/team a/mes modèles+1.zip"
    archive = make_archive({**place("a", SMALL), **place("docs", {"README.md": b"hello"}), "LICENSE": b"x"})
    task_id = deployment.drop(archive, key)
    (accept,) = deployment.receive()
    assert isinstance(accept, AcceptArchive)
    deployment.deliver(accept)
    assert deployment.archives.outcomes[f"outcomes/{key}.json"]["task_status"] == "PENDING"
    deployment.run()
    outcome = deployment.archives.outcomes[f"outcomes/{key}.json"]
    assert (outcome["id"], outcome["task_status"], outcome["source"]) == (task_id, "DONE", "LOCAL")
    assert outcome["models"][0]["location"] == f"s3://models-bucket/models/local/a/{task_id}/"
    assert {m["name"] for m in outcome["models"] if m["status"] == "SKIPPED"} == {"/", "docs"}
    assert deployment.archives.find_archive(key) is not None, "it is its owner's"
    deployment.check_promises(expect(deployment.find_task(task_id), a=SMALL))


def test_files_at_the_root_are_one_model_with_their_directories() -> None:
    deployment = Deployment()
    task_id = deployment.drop(make_archive({**SMALL, "onnx/config.json": b"{}"}), "incoming/My model.zip")
    deployment.run()
    files = {**SMALL, "onnx/config.json": b"{}"}
    deployment.check_promises({f"models/local/My-model/{task_id}/": files})


def test_litter_of_operating_systems_is_left_out() -> None:
    deployment = Deployment()
    litter = {"__MACOSX/a/._config.json": b"x", "a/.DS_Store": b"x", "a/._model.safetensors": b"x", ".DS_Store": b"x"}
    task = deployment.post(make_archive({**place("a", SMALL), **litter}))
    deployment.run()
    assert deployment.find_task(task.id).skipped == ()
    deployment.check_promises(expect(task, a=SMALL))


def test_the_same_event_twice_is_one_task_and_another_one_is_another() -> None:
    deployment = Deployment()
    archive = make_archive(place("a", SMALL))
    first = deployment.drop(archive, event_id="0001")
    assert deployment.drop(archive, event_id="0001") == first
    deployment.run()
    assert deployment.find_task(first).status is TaskStatus.DONE
    second = deployment.drop(archive, event_id="0002")
    assert second != first
    deployment.run()
    ended = deployment.find_task(second)
    assert ended.error is not None
    assert ended.error.type == "model-exists"
    deployment.check_promises(expect(deployment.find_task(first), a=SMALL))


def test_an_earlier_tasks_outcome_does_not_replace_a_later_ones() -> None:
    deployment = Deployment()
    first = deployment.drop(b"not a ZIP", event_id="1")
    deployment.run()
    outcome = deployment.archives.outcomes["outcomes/incoming/archive.zip.json"]
    assert (outcome["task_status"], outcome["error"]["type"]) == ("FAILED", "archive-refused")
    deployment.clock.now += 60
    second = deployment.drop(make_archive(place("a", SMALL)), event_id="2")
    deployment.sweep_until_quiet()
    outcome = deployment.archives.outcomes["outcomes/incoming/archive.zip.json"]
    assert (outcome["id"], outcome["task_status"]) == (second, "DONE")
    assert deployment.find_task(first).status is TaskStatus.FAILED


def test_small_entries_that_are_neighbours_are_read_together() -> None:
    small = {f"{number % 5}/{number:03}.json": b"%d " % number * 50 for number in range(300)}
    files = {**small, **SMALL, "equal.json": b"0 " * 50}
    deployment = Deployment()
    task = deployment.drop(make_archive(place("a", files), stored=("a/1/",)))
    while deployment.find_task(task).stage is not Stage.TRANSFERRING:
        for message in deployment.receive():
            deployment.deliver(message)
    asked: list[int] = []
    open_range = deployment.archives.open_range

    def watch(key: str, start: int, end: int, *, etag: str) -> InMemoryRange:
        asked.append(end - start)
        return open_range(key, start, end, etag=etag)

    deployment.archives.open_range = watch  # type: ignore[method-assign]
    messages = deployment.receive()
    for message in messages:
        deployment.deliver(message)
    assert len(asked) == len(messages) == 3, "one request for each group"
    deployment.run()
    deployment.check_promises(expect(deployment.find_task(task), a=files))


def test_a_run_of_neighbours_that_breaks_off_is_read_again() -> None:
    deployment = Deployment()
    task = deployment.drop(make_archive(place("a", SMALL)))
    while deployment.find_task(task).stage is not Stage.TRANSFERRING:
        for message in deployment.receive():
            deployment.deliver(message)
    open_range = deployment.archives.open_range
    broken: list[int] = []

    def break_once(key: str, start: int, end: int, *, etag: str) -> InMemoryRange:
        if not broken:
            broken.append(start)
            raise StorageUnavailableError("S3 GetObject failed (SlowDown).")
        return open_range(key, start, end, etag=etag)

    deployment.archives.open_range = break_once  # type: ignore[method-assign]
    deployment.run()
    assert broken
    assert deployment.find_task(task).status is TaskStatus.DONE
    deployment.check_promises(expect(deployment.find_task(task), a=SMALL))


@pytest.mark.slow
def test_equal_weights_are_stored_once() -> None:
    deployment = Deployment()
    both = {**place("a", LARGE), **place("b", LARGE)}
    task = deployment.find_task(deployment.drop(make_archive(both, stored=("b/",))))
    deployment.run()
    progress = deployment.find_task(task.id).progress
    weights = len(LARGE["model.safetensors"])
    assert progress.bytes_reused == weights
    assert deployment.metrics.values["BytesTransferred"] == sum(map(len, both.values())) - weights
    deployment.check_promises(expect(task, a=LARGE, b=LARGE))


@pytest.mark.slow
def test_equal_crc_and_size_do_not_make_equal_content() -> None:
    """Four bytes can be found that give any content any CRC-32."""
    deployment = Deployment()
    one = bytes(9_000_000) + b"\1" + bytes(4)
    other = _collide(bytes(9_000_000) + b"\2", zlib.crc32(one))
    assert (len(one), zlib.crc32(one)) == (len(other), zlib.crc32(other))
    assert one != other
    tiny = (bytes(100) + b"\1" + bytes(4), _collide(bytes(100) + b"\2", zlib.crc32(bytes(100) + b"\1" + bytes(4))))
    models = {
        name: {**SMALL, "model.safetensors": large, "tiny.bin": small}
        for name, large, small in (("a", one, tiny[0]), ("b", other, tiny[1]))
    }
    archive = make_archive({k: v for n, files in models.items() for k, v in place(n, files).items()}, stored=("a", "b"))
    task_id = deployment.drop(archive)
    deployment.run()
    deployment.check_promises(expect(deployment.find_task(task_id), **models))


def _collide(prefix: bytes, crc: int) -> bytes:
    """`prefix` and four bytes that give it this CRC-32: they are found by running the CRC's register backwards."""
    table = [zlib.crc32(bytes([n]), 0xFFFFFFFF) ^ 0xFFFFFFFF for n in range(256)]
    top = {value >> 24: n for n, value in enumerate(table)}
    register = crc ^ 0xFFFFFFFF
    indexes = []
    for _ in range(4):
        index = top[register >> 24]
        indexes.append(index)
        register = ((register ^ table[index]) << 8) & 0xFFFFFFFF
    start = zlib.crc32(prefix) ^ 0xFFFFFFFF
    suffix = bytearray()
    for index in reversed(indexes):
        suffix.append((start ^ index) & 0xFF)
        start = (start >> 8) ^ table[index]
    return prefix + bytes(suffix)


@pytest.mark.parametrize(
    ("archive", "reason"),
    [(b"", "empty"), (b"not a ZIP", "not-a-zip"), (make_archive({}), "empty")],
)
def test_what_is_no_archive_is_refused_at_once_and_at_the_drop(archive: bytes, reason: str) -> None:
    deployment = Deployment()
    with pytest.raises(ArchiveRefusedError) as refused:
        deployment.post(archive)
    assert refused.value.reason == reason
    assert deployment.archives.keys == []
    task_id = deployment.drop(archive)
    deployment.run()
    ended = deployment.find_task(task_id)
    assert ended.error is not None
    assert (ended.error.type, ended.error.detail) == ("archive-refused", refused.value.detail)


def test_a_damaged_entry_is_refused_and_nothing_of_the_archive_is_kept() -> None:
    deployment = Deployment()
    archive = make_archive(place("a", LARGE), stored=("a",))
    damaged = archive.replace(LARGE["model.safetensors"][-100:], bytes(100), 1)
    assert damaged != archive
    with pytest.raises(ArchiveRefusedError) as refused:
        deployment.post(make_archive(place("a", SMALL), stored=("a",)).replace(b"weights", b"WEIGHTS", 1))
    assert (refused.value.reason, refused.value.entry) == ("crc-mismatch", "a/model.safetensors")
    task_id = deployment.drop(damaged)
    deployment.run()
    ended = deployment.find_task(task_id)
    assert ended.error is not None
    assert ended.error.type == "archive-refused"
    assert "a/model.safetensors" in ended.error.detail
    assert deployment.store.keys == []
    deployment.check_promises({})


def test_an_archive_without_a_model_says_what_each_directory_lacks() -> None:
    deployment = Deployment()
    with pytest.raises(NoModelInArchiveError) as refused:
        deployment.post(make_archive({"a/config.json": b"{}", "b/x": b"", "c.txt": b""}))
    assert refused.value.missing["a"][0] == "tokenizer.json"
    assert set(refused.value.missing) == {"", "a", "b"}


def test_one_existing_model_of_several_refuses_the_whole_archive() -> None:
    deployment = Deployment()
    deployment.post(make_archive(place("a", SMALL)))
    deployment.run()
    keys = deployment.store.keys
    with pytest.raises(ModelExistsError) as exists:
        deployment.post(make_archive({**place("A", SMALL), **place("b", SMALL)}))
    assert list(exists.value.models.values()) == ["a"]
    assert deployment.store.keys == keys
    assert deployment.archives.keys == []
    deployment.post(make_archive(place("b", SMALL)))
    with pytest.raises(ImportInProgressError):
        deployment.post(make_archive(place("b", SMALL)))


def test_a_posted_archive_has_a_limit_and_says_what_to_do() -> None:
    with pytest.raises(ArchiveTooLargeError) as caught:
        Deployment().post(bytes(4_500_001))
    assert "incoming/" in (caught.value.remedy or "")


@pytest.mark.parametrize("lost_event", [False, True])
def test_an_upload_starts_its_task_when_it_arrives(lost_event: bool) -> None:
    deployment = Deployment()
    archive = make_archive(place("a", SMALL))
    task, ticket = deployment.archive_submitter.open_upload("a.zip", len(archive), None)
    deployment.submitted.append(task.id)
    assert ticket.expires_at.timestamp() == deployment.clock.now + URL_SECONDS
    assert deployment.find_task(task.id).stage is Stage.UPLOADING
    key = f"uploads/{task.id}.zip"
    etag = deployment.archives.put_archive(key, archive)
    if not lost_event:
        assert deployment.arrivals.record_arrival(key, size=len(archive), etag=etag, event_id="1") == task.id
        deployment.queue.send([AcceptArchive(task_id=task.id)])
        deployment.run()
        assert deployment.find_task(task.id).status is TaskStatus.DONE
    deployment.sweep_until_quiet()
    assert deployment.find_task(task.id).status is TaskStatus.DONE
    deployment.check_promises(expect(task, a=SMALL))
    assert deployment.archives.keys == []


def test_an_upload_that_does_not_come_fails_with_words() -> None:
    deployment = Deployment()
    task, _ = deployment.archive_submitter.open_upload("a.zip", 100, None)
    deployment.sweep_until_quiet()
    ended = deployment.find_task(task.id)
    assert ended.error is not None
    assert (ended.error.type, ended.error.retryable) == ("upload-expired", True)


@pytest.mark.parametrize(
    ("file_name", "size", "model_name"), [("a.tar", 1, None), ("a.zip", 1, "a b"), ("a\n.zip", 1, None)]
)
def test_an_upload_that_cannot_be_is_refused(file_name: str, size: int, model_name: str | None) -> None:
    with pytest.raises(InvalidReferenceError):
        Deployment().archive_submitter.open_upload(file_name, size, model_name)


def test_an_upload_over_the_limit_is_refused() -> None:
    with pytest.raises(ArchiveTooLargeError):
        Deployment().archive_submitter.open_upload("a.zip", 10**11, None)


@pytest.mark.parametrize("moment", ["inspected", "planned"])
def test_an_archive_overwritten_in_the_middle_is_never_published(moment: str) -> None:
    deployment = Deployment()
    task_id = deployment.drop(make_archive(place("a", LARGE), stored=("a",)))
    stop_at = {"inspected": "plan_import", "planned": "transfer_files"}[moment]
    while (message := deployment.receive()[0]).kind != stop_at:
        deployment.deliver(message)
    other = make_archive(place("a", {**LARGE, "model.safetensors": b"\1" * 10_000_000}), stored=("a",))
    deployment.archives.put_archive("incoming/archive.zip", other)
    deployment.deliver(message)
    deployment.run()
    ended = deployment.find_task(task_id)
    assert ended.error is not None
    assert (ended.error.type, ended.error.retryable) == ("archive-replaced", True)
    deployment.sweep_until_quiet()
    deployment.check_promises({})


@pytest.mark.slow
@pytest.mark.parametrize("kind", [AcceptArchive, PlanImport, TransferFiles, CopyFiles, PublishModels])
def test_every_message_may_come_twice_or_be_lost(kind: type) -> None:
    archive = make_archive({**place("a", LARGE), **place("b", SMALL)})
    policy = TransferPolicy(copy_groups=1)
    twice, lost = Deployment(policy=policy), Deployment(policy=policy)
    task_id = twice.drop(archive)
    while messages := twice.receive():
        for message in messages:
            for _ in range(2 if isinstance(message, kind) else 1):
                twice.deliver(message)
    twice.sweep_until_quiet()
    twice.check_promises(expect(twice.find_task(task_id), a=LARGE, b=SMALL))
    task_id, dropped = lost.drop(archive), 0
    while messages := lost.receive():
        for message in messages:
            if isinstance(message, kind) and not dropped:
                dropped = 1
                continue
            lost.deliver(message)
    assert dropped
    lost.sweep_until_quiet()
    lost.check_promises(expect(lost.find_task(task_id), a=LARGE, b=SMALL))


class KilledError(BaseException):
    """The function dies."""


@pytest.mark.parametrize("stored", [(), ("a",)], ids=["inflating", "copying"])
def test_a_function_that_dies_in_a_large_entry_is_followed_by_another(stored: tuple[str, ...]) -> None:
    deployment = Deployment()
    task_id = deployment.drop(make_archive(place("a", LARGE), stored=stored))
    while not isinstance(message := deployment.receive()[0], TransferFiles):
        deployment.deliver(message)
    uploaded = 0
    operation = "copy_part" if stored else "upload_part"
    original = getattr(deployment.store, operation)

    def die_at_the_third(*arguments: object, **options: object) -> object:
        nonlocal uploaded
        uploaded += 1
        if uploaded == 4:
            raise KilledError
        return original(*arguments, **options)

    setattr(deployment.store, operation, die_at_the_third)
    with pytest.raises(KilledError):
        deployment.deliver(message)
    deployment.sweep_until_quiet()
    deployment.check_promises(expect(deployment.find_task(task_id), a=LARGE))


@pytest.mark.parametrize("stored", [(), ("a",)], ids=["inflating", "copying"])
def test_an_entry_too_large_for_one_functions_time_goes_on_in_the_next(stored: tuple[str, ...]) -> None:
    deployment = Deployment()
    task_id = deployment.drop(make_archive(place("a", LARGE), stored=stored))
    parts = 0
    operation = "copy_part" if stored else "upload_part"
    original = getattr(deployment.store, operation)

    def count(*arguments: object, **options: object) -> object:
        nonlocal parts
        parts += 1
        return original(*arguments, **options)

    setattr(deployment.store, operation, count)
    # A function has time for three parts, and sees it at once where the one before it stopped.
    functions = 0

    def look_at_the_clock() -> float:
        return 300.0 if parts < 3 * functions else 0.0

    deployment.remaining = look_at_the_clock
    while deployment.queue.next_due is not None:
        deployment.clock.now = max(deployment.clock.now, deployment.queue.next_due)
        for following in deployment.receive():
            functions += 1 + isinstance(following, AcceptArchive | PlanImport)
            deployment.deliver(following)
    deployment.remaining = lambda: 300.0
    deployment.sweep_until_quiet()
    assert parts >= len(LARGE["model.safetensors"]) // PART_SIZE
    deployment.check_promises(expect(deployment.find_task(task_id), a=LARGE))


def test_a_claim_whose_reply_is_lost_keeps_the_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = Deployment()
    claim = deployment.database.imports.claim_import

    def claim_and_lose_the_reply(*arguments: object, **options: object) -> None:
        claim(*arguments, **options)  # type: ignore[arg-type]
        raise StorageUnavailableError("no reply")

    monkeypatch.setattr(deployment.database.imports, "claim_import", claim_and_lose_the_reply)
    with pytest.raises(StorageUnavailableError):
        deployment.post(make_archive(place("a", SMALL)))
    (model_task,) = (task for task in deployment.database.tasks.list_due(float("inf"), 10))
    deployment.submitted.append(model_task.id)
    deployment.sweep_until_quiet()
    deployment.check_promises(expect(model_task, a=SMALL))
