"""Models are deleted whole, whatever dies in between, and nobody else loses anything by it."""

import itertools
import json
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from modelhaul.domain.errors import (
    DeletionInProgressError,
    ImportInProgressError,
    InternalError,
    ModelNotFoundError,
    StorageUnavailableError,
)
from modelhaul.domain.keys import manifest_key
from modelhaul.domain.messages import CopyFiles, PublishModels
from modelhaul.domain.models import ModelStatus
from modelhaul.domain.objects import Blob
from modelhaul.domain.tasks import Stage, Task, TaskStatus
from modelhaul.transfer.policy import TransferPolicy
from tests.archives.zipping import zip_files, zip_models
from tests.fakes.deployment import Deployment
from tests.fakes.model_source import InMemoryModelSource
from tests.weights import wrap_weights

NAME = "org/tiny"
WEIGHTS = wrap_weights(b"w" * 5_000_000)
FILES = {"config.json": b'{"a": 1}', "copy/config.json": b'{"a": 1}', "model.safetensors": WEIGHTS}


@pytest.fixture
def source() -> InMemoryModelSource:
    return InMemoryModelSource({NAME: {"main": dict(FILES), "next": {**FILES, "config.json": b'{"a": 2}'}}})


@pytest.fixture
def deployment(source: InMemoryModelSource) -> Deployment:
    return Deployment(source)


def import_model(deployment: Deployment, revision: str = "main", *, name: str = NAME) -> Task:
    task = deployment.submit(name, revision)
    deployment.run()
    ended = deployment.find_task(task.id)
    assert ended.status is TaskStatus.DONE, ended.error
    return ended


def delete(deployment: Deployment, task: Task, *, seconds: float = 28) -> bool:
    return deployment.deleter.delete_model(task.model_ids[0], lambda: seconds)


def list_published(deployment: Deployment) -> set[tuple[str, str]]:
    """Digest and key of each published object that is found by its content."""
    return {
        (digest, key) for digest, held in deployment.tables.blobs.items() for key in held if key.startswith("models/")
    }


def find_dangling(deployment: Deployment) -> list[str]:
    """Digests that are recorded at published objects that are not there."""
    return [digest for digest, key in list_published(deployment) if deployment.store.find_object(key) is None]


def test_all_of_a_model_goes_and_its_task_stays(deployment: Deployment) -> None:
    task = import_model(deployment)
    assert delete(deployment, task)
    assert deployment.database.models.find_model(task.model_ids[0]) is None
    assert deployment.store.keys == []
    assert list_published(deployment) == set()
    assert deployment.find_task(task.id) == task
    groups = deployment.database.files.list_groups(task.plan_id or "")
    assert sum(len(group.records) for group in groups) == len(FILES)
    with pytest.raises(ModelNotFoundError):
        delete(deployment, task)


def test_a_model_that_was_copied_from_it_stays_whole(deployment: Deployment, source: InMemoryModelSource) -> None:
    first = import_model(deployment)
    second = import_model(deployment, "next")
    assert second.progress.bytes_reused > len(WEIGHTS)
    assert delete(deployment, first)
    assert find_dangling(deployment) == []
    prefix = source.prefix(NAME, "next")
    for path, content in source.models[NAME]["next"].items():
        assert deployment.read(prefix + path) == content
    assert set(deployment.store.keys) == {manifest_key(second.model_ids[0]), *(prefix + path for path in FILES)}
    source.bytes_read.clear()
    third = import_model(deployment)
    assert third.status is TaskStatus.DONE
    assert "model.safetensors" not in source.bytes_read, "the other's weights were found and copied"


def test_only_references_to_its_own_objects_are_forgotten(deployment: Deployment) -> None:
    first, second = import_model(deployment), import_model(deployment, "next")
    before = list_published(deployment)
    assert delete(deployment, first)
    kept = list_published(deployment)
    (model,) = deployment.database.models.find_models(second.model_ids)
    assert kept == {(digest, key) for digest, key in before if key.startswith(model.resolved.prefix)}
    assert len(kept) > 0


HOLDERS = ["org/a", "org/b", "org/c"]


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("order", list(itertools.permutations(HOLDERS)), ids="-".join)
def test_content_is_reused_while_a_model_has_it(
    deployment: Deployment, source: InMemoryModelSource, order: tuple[str, ...], count: int
) -> None:
    """Models with the same content are deleted in any order. A later import transfers it only if all are gone."""
    source.models |= {name: {"main": FILES} for name in [*HOLDERS, "org/new"]}
    tasks = {name: import_model(deployment, name=name) for name in HOLDERS}
    assert source.bytes_read["model.safetensors"] == len(WEIGHTS)
    source.bytes_read.clear()
    for name in order[:count]:
        assert delete(deployment, tasks[name])
    progress = import_model(deployment, name="org/new").progress
    if count < len(HOLDERS):
        assert progress.bytes_reused == progress.bytes_total
        assert source.bytes_read == {}
    else:
        assert source.bytes_read.keys() == {"config.json", "model.safetensors"}
    assert find_dangling(deployment) == []


def test_content_of_an_archives_models_is_reused_while_one_has_it() -> None:
    """The models are published by one call."""
    deployment = Deployment()
    weights = wrap_weights(b"w" * 500_000)
    model = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": weights}

    def import_archive(*names: str) -> Task:
        task = deployment.post(zip_files({f"{name}/{path}": body for name in names for path, body in model.items()}))
        deployment.run()
        ended = deployment.find_task(task.id)
        assert ended.status is TaskStatus.DONE, ended.error
        return ended

    first = import_archive("a", "b")
    for model_id, name, reused in zip(reversed(first.model_ids), ("c", "d"), (len(weights), 0), strict=True):
        assert deployment.deleter.delete_model(model_id, lambda: 28)
        later = import_archive(name)
        assert later.progress.bytes_reused == reused
        assert delete(deployment, later)


@pytest.mark.parametrize("kept", HOLDERS)
def test_objects_that_are_gone_are_skipped(deployment: Deployment, source: InMemoryModelSource, kept: str) -> None:
    """Somebody deleted objects from the bucket, or an import failed after it had copied its files."""
    source.models |= {name: {"main": FILES} for name in [*HOLDERS, "org/new"]}
    for name in HOLDERS:
        import_model(deployment, name=name)
    source.bytes_read.clear()
    for name in {*HOLDERS} - {kept}:
        deployment.store.delete([source.prefix(name) + path for path in FILES])
    progress = import_model(deployment, name="org/new").progress
    assert progress.bytes_reused == progress.bytes_total
    assert source.bytes_read == {}


def test_an_object_that_comes_back_meanwhile_is_found(deployment: Deployment, source: InMemoryModelSource) -> None:
    """A transfer finds it gone, and an import stores and indexes it again before the transfer forgets it."""
    source.models |= {"org/other": {"main": FILES}, "org/new": {"main": FILES}}
    failed = deployment.submit(NAME)
    while deployment.find_task(failed.id).stage is not Stage.VERIFIED:
        for message in deployment.receive():
            if not isinstance(message, PublishModels):
                deployment.deliver(message)
    finish_import = deployment.database.imports.finish_import
    content = deployment.database.content

    def cancel_first(task_id: str, **options: Any) -> bool:
        deployment.finisher.cancel(task_id)
        return finish_import(task_id, **options)

    deployment.database.imports.finish_import = cancel_first  # type: ignore[method-assign]
    deployment.deliver(PublishModels(task_id=failed.id))
    deployment.database.imports.finish_import = finish_import  # type: ignore[method-assign]
    assert find_dangling(deployment) != []
    forget_blob = content.forget_blob
    imported: list[Task] = []

    def import_first(digest: str, blob: Blob) -> None:
        if not imported:
            content.forget_blob = forget_blob  # type: ignore[method-assign]
            deployment.sweep_until_quiet()
            imported.append(import_model(deployment))
        forget_blob(digest, blob)

    content.forget_blob = import_first  # type: ignore[method-assign]
    other = import_model(deployment, name="org/other")
    assert imported
    assert delete(deployment, other)
    source.bytes_read.clear()
    progress = import_model(deployment, name="org/new").progress
    assert progress.bytes_reused == progress.bytes_total


def test_a_model_below_its_prefix_stays() -> None:
    """`name` and `name/part` are two models of archives, of which one may lie below the other."""
    deployment = Deployment()
    archive = zip_models("")
    outer = deployment.post(archive, "name")
    deployment.run()
    inner = deployment.post(archive, f"name/{outer.id}")
    deployment.run()
    models = deployment.database.models.find_models([*outer.model_ids, *inner.model_ids])
    assert models[1].resolved.prefix.startswith(models[0].resolved.prefix)
    kept = [key for key in deployment.store.keys if key.startswith(models[1].resolved.prefix)]
    assert len(kept) == 3
    assert delete(deployment, outer)
    assert deployment.store.keys == sorted([*kept, manifest_key(models[1].model_id)])


def test_it_is_hidden_at_once_and_the_sweep_goes_on(deployment: Deployment) -> None:
    task = import_model(deployment)
    assert not delete(deployment, task, seconds=1)
    assert deployment.database.models.list_models(limit=10).models == ()
    with pytest.raises(ModelNotFoundError):
        deployment.catalog.find_model(task.model_ids[0])
    with pytest.raises(DeletionInProgressError):
        deployment.submit(NAME)
    assert not delete(deployment, task), "its lease may still be somebody's"
    deployment.sweeper.sweep_stale(lambda: 300)
    assert deployment.database.models.find_model(task.model_ids[0]) is not None
    deployment.clock.now += 300
    deployment.sweeper.sweep_stale(lambda: 300)
    assert deployment.database.models.find_model(task.model_ids[0]) is None
    assert deployment.store.keys == []
    import_model(deployment)


def test_the_sweep_believes_no_index_that_lags(deployment: Deployment) -> None:
    """The model was deleted, and is here again, or is not."""
    task = import_model(deployment)
    (model,) = deployment.database.models.find_models(task.model_ids)
    deployment.database.models.list_deleting = lambda now, limit: [  # type: ignore[method-assign]
        replace(model, status=ModelStatus.DELETING),
        replace(model, model_id="gone", status=ModelStatus.DELETING),
    ]
    before = deployment.store.keys
    deployment.sweeper.sweep_stale(lambda: 300)
    assert deployment.database.models.find_model(model.model_id) == model
    assert deployment.store.keys == before


def test_deleting_again_takes_over_once_the_lease_has_run_out(deployment: Deployment) -> None:
    task = import_model(deployment)
    assert not delete(deployment, task, seconds=1)
    deployment.clock.now += 62
    assert delete(deployment, task)
    assert deployment.store.keys == []


class KilledError(BaseException):
    """The function's process is gone."""


STEPS = ("lease_deletion", "forget_blobs", "delete", "remove_model", "read")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    "trouble", [KilledError, lambda: StorageUnavailableError("no answer")], ids=["kill", "storage"]
)
def test_whatever_ends_it_the_sweep_goes_on(
    deployment: Deployment,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    at: int,
    after: bool,
    trouble: Callable[[], BaseException],
) -> None:
    monkeypatch.setattr("modelhaul.catalog.delete._BATCH_SIZE", 2)
    task, other = import_model(deployment), import_model(deployment, "next")
    database = deployment.database
    port: Any = next(p for p in (deployment.store, database.models, database.content) if hasattr(p, step))
    original = getattr(port, step)
    calls = itertools.count(1)

    def strike(*arguments: Any, **options: Any) -> Any:
        if next(calls) != at:
            return original(*arguments, **options)
        if after:
            original(*arguments, **options)
        raise trouble()

    with monkeypatch.context() as patch:
        patch.setattr(port, step, strike)
        try:
            ended = delete(deployment, task)
        except (KilledError, StorageUnavailableError):
            ended = False
    found = deployment.database.models.find_model(task.model_ids[0])
    if found is not None and found.status is ModelStatus.READY:
        assert not ended
        assert all(deployment.store.find_object(found.resolved.prefix + path) for path in FILES), "nothing has begun"
        return
    deployment.clock.now += 300
    deployment.sweeper.sweep_stale(lambda: 300)
    assert deployment.database.models.find_model(task.model_ids[0]) is None
    (kept,) = deployment.database.models.find_models(other.model_ids)
    expected = {kept.resolved.prefix + path for path in FILES} | {manifest_key(kept.model_id)}
    assert set(deployment.store.keys) == expected
    assert find_dangling(deployment) == []
    import_model(deployment)


def test_a_large_one_is_deleted_in_batches_by_several_functions(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelhaul.catalog.delete._BATCH_SIZE", 1)
    task = import_model(deployment)
    seconds = iter([28.0, 28.0, 1.0])
    assert not deployment.deleter.delete_model(task.model_ids[0], lambda: next(seconds))
    assert len([key for key in deployment.store.keys if key.startswith("models/")]) == len(FILES) - 1
    assert manifest_key(task.model_ids[0]) in deployment.store.keys, "it says what is left"
    deployment.clock.now += 300
    deployment.sweeper.sweep_stale(lambda: 300)
    assert deployment.store.keys == []


def test_a_transfer_that_copies_from_it_fetches_the_file(deployment: Deployment, source: InMemoryModelSource) -> None:
    """It is deleted between the look for its content and the copy."""
    first = import_model(deployment)
    source.bytes_read.clear()
    copy = deployment.store.copy
    deleted: list[bool] = []
    deleting = threading.Lock()  # the files are copied by several threads

    def delete_first(source_key: str, key: str, *, size: int, etag: str) -> str:
        with deleting:
            if not deleted and key.startswith("staging/"):
                deleted.append(True)
                assert delete(deployment, first)
        return copy(source_key, key, size=size, etag=etag)

    deployment.store.copy = delete_first  # type: ignore[method-assign]
    second = import_model(deployment, "next")
    assert deleted
    assert second.progress.bytes_reused < len(WEIGHTS)
    assert source.bytes_read["model.safetensors"] == len(WEIGHTS)
    prefix = source.prefix(NAME, "next")
    for path, content in source.models[NAME]["next"].items():
        assert deployment.read(prefix + path) == content
    assert find_dangling(deployment) == []


def test_what_a_task_has_is_not_deleted(deployment: Deployment) -> None:
    task = deployment.submit(NAME)
    with pytest.raises(ImportInProgressError) as running:
        delete(deployment, task)
    assert running.value.task_id == task.id
    assert task.id in running.value.detail
    deployment.database.tasks.start_stage(task.id, Stage.PUBLISHING, check_at=0)
    deployment.finisher.cancel(task.id)
    with pytest.raises(ImportInProgressError) as withdrawing:
        delete(deployment, task)
    assert "being removed" in withdrawing.value.detail


def test_a_failed_model_is_forgotten(deployment: Deployment) -> None:
    task = deployment.submit(NAME)
    deployment.finisher.cancel(task.id)
    assert delete(deployment, task)
    assert deployment.database.models.find_model(task.model_ids[0]) is None
    deployment.sweep_until_quiet()
    import_model(deployment)


@pytest.mark.parametrize("end", ["cancelled", "done"])
def test_a_model_whose_import_ends_meanwhile_is_deleted(deployment: Deployment, end: str) -> None:
    """The import ends after the lease was refused for it, and before the model is read again."""
    task = deployment.submit(NAME)
    lease = deployment.database.models.lease_deletion

    def lose(model_id: str, **options: Any) -> Any:
        refused = lease(model_id, **options)
        deployment.database.models.lease_deletion = lease  # type: ignore[method-assign]
        if end == "cancelled":
            deployment.finisher.cancel(task.id)
        else:
            deployment.run()
        return refused

    deployment.database.models.lease_deletion = lose  # type: ignore[method-assign]
    assert delete(deployment, task)
    assert deployment.database.models.find_model(task.model_ids[0]) is None
    deployment.sweep_until_quiet()
    assert [key for key in deployment.store.keys if not key.startswith("staging/")] == []
    import_model(deployment)


def test_a_model_that_changes_at_every_attempt_is_left_for_the_client_to_try_again(deployment: Deployment) -> None:
    task = import_model(deployment)
    attempts: list[str] = []

    def lose(model_id: str, **options: Any) -> None:
        attempts.append(model_id)

    deployment.database.models.lease_deletion = lose  # type: ignore[method-assign]
    with pytest.raises(StorageUnavailableError, match=task.model_ids[0]):
        delete(deployment, task)
    assert len(attempts) == 3


def test_what_takes_its_place_meanwhile_is_not_touched(deployment: Deployment) -> None:
    """Another function deletes it first, and it is imported again before this one looks."""
    task = import_model(deployment)
    lease = deployment.database.models.lease_deletion
    seen: list[Task] = []

    def lose(model_id: str, **options: Any) -> Any:
        deployment.database.models.lease_deletion = lease  # type: ignore[method-assign]
        assert delete(deployment, task)
        seen.append(deployment.submit(NAME))
        return lease(model_id, **options)

    deployment.database.models.lease_deletion = lose  # type: ignore[method-assign]
    with pytest.raises(ImportInProgressError) as running:
        delete(deployment, task)
    assert running.value.task_id == seen[0].id
    deployment.run()
    assert deployment.find_task(seen[0].id).status is TaskStatus.DONE


def test_a_late_duplicate_of_the_last_message_brings_nothing_back(deployment: Deployment) -> None:
    task = import_model(deployment)
    assert delete(deployment, task)
    deployment.deliver(PublishModels(task_id=task.id))
    assert deployment.store.keys == []
    assert list_published(deployment) == set()
    again = import_model(deployment)
    deployment.deliver(PublishModels(task_id=task.id))
    assert find_dangling(deployment) == []
    (model,) = deployment.database.models.find_models(again.model_ids)
    assert len(deployment.store.keys) == len(FILES) + 1
    assert model.status is ModelStatus.READY


def test_it_is_deleted_while_a_duplicate_publishes_it(deployment: Deployment) -> None:
    """Two functions have the last message; the slower one still copies when the model is READY, and is deleted."""
    task = deployment.submit(NAME)
    while deployment.find_task(task.id).stage is not Stage.VERIFIED:
        for message in deployment.receive():
            if not isinstance(message, PublishModels):
                deployment.deliver(message)
    copy, delete_objects = deployment.store.copy, deployment.store.delete
    copies = itertools.count(1)

    def delete_later(keys: Iterable[str]) -> None:
        """The faster one has not come to giving up staging yet."""
        delete_objects(key for key in keys if not key.startswith("staging/"))

    def overtake(source_key: str, key: str, *, size: int, etag: str) -> str:
        if next(copies) == len(FILES):
            deployment.store.copy = copy  # type: ignore[method-assign]
            deployment.store.delete = delete_later  # type: ignore[method-assign]
            deployment.deliver(PublishModels(task_id=task.id), deliveries=2)
            deployment.store.delete = delete_objects  # type: ignore[method-assign]
            assert delete(deployment, task)
        return copy(source_key, key, size=size, etag=etag)

    deployment.store.copy = overtake  # type: ignore[method-assign]
    deployment.deliver(PublishModels(task_id=task.id))
    assert deployment.find_task(task.id).status is TaskStatus.DONE
    assert deployment.store.keys == []
    assert find_dangling(deployment) == []
    assert deployment.database.tasks.list_due(float("inf"), 10) == [], "nothing is left to watch"


def test_it_is_deleted_while_a_duplicate_copies_its_files(source: InMemoryModelSource) -> None:
    """Two functions have the last message about copies. The slower one copies after the model was READY and deleted."""
    deployment = Deployment(source, policy=TransferPolicy(group_files=1, copy_groups=1))
    task = deployment.submit(NAME)
    while deployment.find_task(task.id).stage is not Stage.PUBLISHING:
        for message in deployment.receive():
            deployment.deliver(message)
    *others, last = deployment.receive()
    assert isinstance(last, CopyFiles)
    for message in others:
        deployment.deliver(message)
    copy, delete_objects = deployment.store.copy, deployment.store.delete

    def delete_later(keys: Iterable[str]) -> None:
        delete_objects(key for key in keys if not key.startswith("staging/"))

    def overtake(source_key: str, key: str, *, size: int, etag: str) -> str:
        deployment.store.copy = copy  # type: ignore[method-assign]
        deployment.store.delete = delete_later  # type: ignore[method-assign]
        deployment.deliver(last, deliveries=2)
        deployment.run()
        deployment.store.delete = delete_objects  # type: ignore[method-assign]
        assert delete(deployment, task)
        return copy(source_key, key, size=size, etag=etag)

    deployment.store.copy = overtake  # type: ignore[method-assign]
    deployment.deliver(last)
    assert deployment.find_task(task.id).status is TaskStatus.DONE
    assert [key for key in deployment.store.keys if not key.startswith("staging/")] == []
    assert find_dangling(deployment) == []
    assert deployment.receive() == []


def test_a_task_whose_model_is_gone_is_not_watched_for_ever(deployment: Deployment) -> None:
    """The function that ended the import died before it had tidied up, and the model is deleted before the sweep."""
    task = deployment.submit(NAME)
    unwatch = deployment.database.tasks.unwatch_task
    deployment.database.tasks.unwatch_task = lambda task_id: None  # type: ignore[method-assign]
    deployment.run()
    deployment.database.tasks.unwatch_task = unwatch  # type: ignore[method-assign]
    assert deployment.database.tasks.list_due(float("inf"), 10) != []
    assert delete(deployment, task)
    deployment.sweep_until_quiet()
    assert deployment.store.keys == []


def test_one_of_an_archives_models_is_deleted_before_it_is_tidied_up() -> None:
    deployment = Deployment()
    unwatch = deployment.database.tasks.unwatch_task
    deployment.database.tasks.unwatch_task = lambda task_id: None  # type: ignore[method-assign]
    task = deployment.post(zip_models("a", "b"))
    deployment.run()
    deployment.database.tasks.unwatch_task = unwatch  # type: ignore[method-assign]
    ended = deployment.find_task(task.id)
    assert delete(deployment, ended)
    deployment.sweep_until_quiet()
    (kept,) = deployment.database.models.find_models(ended.model_ids)
    assert kept.model_id == ended.model_ids[1]
    assert len([key for key in deployment.store.keys if key.startswith(kept.resolved.prefix)]) == 3
    assert len(deployment.store.keys) == 4
    assert find_dangling(deployment) == []


def test_a_manifest_that_is_gone_is_no_hindrance_and_a_broken_one_is_named(deployment: Deployment) -> None:
    task, other = import_model(deployment), import_model(deployment, "next")
    key = manifest_key(other.model_ids[0])
    sound = deployment.read(key)
    for broken in (b"", b"{", b"[]", b"{}", json.dumps({"files": [{"path": "a"}]}).encode(), b'{"files": 3}', b"\xff"):
        deployment.store._store(key, broken, "etag")
        with pytest.raises(InternalError, match=other.model_ids[0]):
            delete(deployment, other)
        deployment.clock.now += 300
    deployment.sweeper.sweep_stale(lambda: 300)  # goes on to others
    deployment.store._store(key, sound, "etag")
    deployment.clock.now += 600
    deployment.sweeper.sweep_stale(lambda: 300)
    assert deployment.database.models.find_model(other.model_ids[0]) is None
    deployment.store.delete([manifest_key(task.model_ids[0])])
    assert delete(deployment, task)
