"""The pipeline from submit to READY over in-memory adapters, and what becomes of it when things go wrong."""

import hashlib
import random
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier, Thread
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelhaul.domain.digests import Algorithm, Digest
from modelhaul.domain.errors import (
    ContentMismatchError,
    FileMissingError,
    ImportInProgressError,
    LeaseLostError,
    ModelExistsError,
    RateLimitedError,
    SourceUnavailableError,
    StorageUnavailableError,
    TaskEndedError,
    TaskNotFoundError,
    UnexpectedResponseError,
)
from modelhaul.domain.files import FileCounts, SourceFile
from modelhaul.domain.messages import CopyFiles, Message, PlanImport, PublishModels, TransferFiles
from modelhaul.domain.models import ModelStatus
from modelhaul.domain.tasks import Stage, Task, TaskStatus
from modelhaul.imports.dispatch import group_files
from modelhaul.imports.sweep import MAX_SWEEPS
from modelhaul.inspection import gate
from modelhaul.transfer.policy import TransferPolicy
from tests.fakes.deployment import MAX_OUTAGE, PART_SIZE, Deployment
from tests.fakes.model_source import InMemoryModelSource, InMemoryStream
from tests.weights import wrap_weights

NAME = "org/tiny"
WEIGHTS = wrap_weights(random.Random(1).randbytes(9 * 1024 * 1024 + 5))
FILES = {
    "config.json": b'{"a": 1}',
    "empty.txt": b"",
    "nested/tokenizer.json": b"{}" * 500,
    "model.safetensors": WEIGHTS,
    "copy/of/config.json": b'{"a": 1}',
}


def make_deployment(files: dict[str, bytes] | None = None, **options: Any) -> tuple[Deployment, InMemoryModelSource]:
    source = InMemoryModelSource({NAME: {"main": dict(files or FILES)}})
    return Deployment(source, **options), source


def expect(source: InMemoryModelSource) -> dict[str, dict[str, bytes]]:
    return {source.prefix(name, rev): files for name, revs in source.models.items() for rev, files in revs.items()}


def test_a_model_is_imported_whole_and_staging_is_given_up() -> None:
    deployment, source = make_deployment()
    task = deployment.import_model(NAME)
    assert (task.status, task.stage) == (TaskStatus.DONE, Stage.DONE)
    assert task.progress.files_done == task.progress.files_total == len(FILES)
    assert task.progress.bytes_done == task.progress.bytes_total == sum(map(len, FILES.values()))
    (model,) = deployment.database.models.find_models(task.model_ids)
    assert model.status is ModelStatus.READY
    deployment.check_promises(expect(source))
    assert [k for k in deployment.store.keys if k.startswith("staging/")] == []
    assert deployment.metrics.values["BytesTransferred"] == sum(map(len, FILES.values())) - len(FILES["config.json"])
    sent = {"ImportsAccepted", "ImportSeconds", "BytesTransferred", "BytesReused"}
    assert deployment.metrics.values.keys() == sent, "CloudWatch charges for each"
    assert deployment.database.tasks.list_due(float("inf"), 10) == [], "nothing is left to watch"


def test_nothing_is_visible_before_it_is_whole() -> None:
    deployment, _ = make_deployment()
    task = deployment.submit(NAME)
    while deployment.find_task(task.id).stage is not Stage.VERIFIED:
        for message in deployment.receive():
            if not isinstance(message, PublishModels):
                deployment.deliver(message)
        assert [k for k in deployment.store.keys if not k.startswith("staging/")] == []


def test_the_same_version_is_refused_and_a_moved_branch_is_not() -> None:
    deployment, source = make_deployment()
    first = deployment.import_model(NAME)
    with pytest.raises(ModelExistsError) as exists:
        deployment.submit(NAME)
    assert exists.value.models == {first.model_ids[0]: NAME}
    source.models[NAME]["next"] = {**FILES, "config.json": b'{"a": 2}'}
    source.bytes_read.clear()
    second = deployment.import_model(NAME, "next")
    assert second.status is TaskStatus.DONE
    assert source.bytes_read == {"config.json": len(b'{"a": 2}')}, "only what changed is fetched"
    assert second.progress.bytes_reused == sum(map(len, FILES.values())) - len(b'{"a": 2}')
    deployment.check_promises(expect(source))


def test_one_in_flight_is_named() -> None:
    deployment, _ = make_deployment()
    task = deployment.submit(NAME)
    with pytest.raises(ImportInProgressError) as running:
        deployment.submit(NAME)
    assert running.value.task_id == task.id


def test_fifty_simultaneous_submits_start_one_import() -> None:
    deployment, _ = make_deployment()
    outcomes: list[str] = []

    def submit() -> None:
        try:
            deployment.submit(NAME)
            outcomes.append("accepted")
        except ImportInProgressError:
            outcomes.append("in progress")

    threads = [Thread(target=submit) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["accepted", *["in progress"] * 49]


@pytest.mark.slow
@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), lose=st.floats(0, 0.4), duplicate=st.floats(0, 0.6))
def test_lost_duplicated_and_reordered_messages_change_nothing(seed: int, lose: float, duplicate: float) -> None:
    deployment, source = make_deployment()
    chance = random.Random(seed)
    deployment.queue.count_deliveries = lambda _: (
        0 if chance.random() < lose else 2 if chance.random() < duplicate else 1
    )
    deployment.queue.shuffle = chance
    task = deployment.submit(NAME)
    deployment.sweep_until_quiet()
    ended = deployment.find_task(task.id)
    assert ended.progress.bytes_done <= ended.progress.bytes_total
    if ended.status is TaskStatus.DONE:
        assert ended.progress.bytes_done == ended.progress.bytes_total
    else:
        assert ended.error is not None
        assert ended.error.type == "import-stalled"
    deployment.check_promises(expect(source))


def test_every_message_twice_fetches_nothing_twice() -> None:
    deployment, source = make_deployment()
    deployment.queue.count_deliveries = lambda _: 2
    task = deployment.import_model(NAME)
    assert task.status is TaskStatus.DONE
    assert source.bytes_read["model.safetensors"] == len(WEIGHTS)
    assert task.progress.bytes_done == task.progress.bytes_total


class KilledError(BaseException):
    """The function's process is gone."""


@pytest.mark.slow
@settings(max_examples=25)
@given(places=st.lists(st.integers(0, len(WEIGHTS)), max_size=4))
def test_a_function_killed_anywhere_is_made_good(places: list[int]) -> None:
    deployment, source = make_deployment()
    left = sorted(places)

    def kill(path: str, offset: int) -> None:
        if path == "model.safetensors" and left and offset >= left[0]:
            left.pop(0)
            raise KilledError

    source.on_read = kill
    task = deployment.submit(NAME)
    for _ in range(60):
        for message in deployment.receive():
            try:
                deployment.deliver(message)
            except KilledError:
                continue  # SQS would deliver it again in half an hour; the sweep is sooner
        deployment.clock.now += 100
        deployment.sweeper.sweep_stale(lambda: 300.0)
        if deployment.find_task(task.id).status is not TaskStatus.PENDING:
            break
    deployment.sweep_until_quiet()
    assert deployment.find_task(task.id).status is TaskStatus.DONE
    deployment.check_promises(expect(source))


def test_an_import_that_does_not_fit_into_one_function_goes_on_in_others() -> None:
    deployment, source = make_deployment()
    task = deployment.submit(NAME)
    slept: list[int] = []

    def limited() -> float:
        done = source.bytes_read["model.safetensors"]
        if done // (3 * PART_SIZE) > len(slept):
            slept.append(done)
            return 0.0
        return 300.0

    deployment.remaining = limited
    deployment.run()
    assert deployment.find_task(task.id).status is TaskStatus.DONE
    assert slept, "at least one function ran out of time"
    deployment.check_promises(expect(source))


def test_bytes_count_as_they_move() -> None:
    """The metric of an unfinished file is what the progress of the task shows, in each function that moves it."""
    deployment, source = make_deployment()
    task = deployment.submit(NAME)
    counted: list[int] = []

    def limit(most: int) -> Callable[[], float]:
        return lambda: 0.0 if source.bytes_read["model.safetensors"] > most else 300.0

    while (due := deployment.queue.next_due) is not None and deployment.find_task(task.id).stage is not Stage.VERIFIED:
        deployment.clock.now = max(deployment.clock.now, due)
        deployment.remaining = limit(source.bytes_read["model.safetensors"] + 3 * PART_SIZE)
        for message in deployment.receive():
            deployment.deliver(message)
        progress = deployment.find_task(task.id).progress
        counted.append(deployment.metrics.values["BytesTransferred"])
        assert counted[-1] >= progress.bytes_done - progress.bytes_reused
    assert len(set(counted)) > 3, "several functions moved parts of the same file"
    assert counted[-1] >= sum(map(len, FILES.values())) - len(FILES["config.json"])
    assert deployment.metrics.values["BytesReused"] == len(FILES["config.json"])


def fail_times(error: Exception, times: int, at: str = "model.safetensors") -> Callable[[str, int], None]:
    left = [times]

    def on_read(path: str, offset: int) -> None:
        if path == at and left[0]:
            left[0] -= 1
            raise error

    return on_read


@pytest.mark.parametrize("path", ["nested/tokenizer.json", "model.safetensors"])
def test_three_retries_with_growing_pauses_then_failure_with_words(path: str) -> None:
    deployment, source = make_deployment()
    source.on_read = fail_times(UnexpectedResponseError("huggingface.co sent another range"), 10_000, path)
    started = deployment.clock.now
    task = deployment.import_model(NAME)
    assert task.status is TaskStatus.FAILED
    assert task.error is not None
    assert task.error.type == "retries-exhausted"
    assert "another range" in task.error.detail
    assert deployment.metrics.values["Retries"] == 3
    assert deployment.clock.now - started > 30
    deployment.sweep_until_quiet()
    deployment.check_promises(expect(source))


@pytest.mark.parametrize("path", ["nested/tokenizer.json", "model.safetensors"])
def test_an_outage_that_does_not_end_fails_the_import_after_hours(path: str) -> None:
    deployment, source = make_deployment()
    source.on_read = fail_times(SourceUnavailableError("huggingface.co answered 503"), 10_000, path)
    started = deployment.clock.now
    task = deployment.import_model(NAME)
    assert task.error is not None
    assert task.error.type == "outage"
    assert "No successful response from the source for 6" in task.error.detail
    assert "503" in task.error.detail
    assert MAX_OUTAGE <= deployment.clock.now - started < MAX_OUTAGE + 600
    assert deployment.metrics.values["Retries"] == 0
    assert 70 < deployment.metrics.values["OutageWaits"] < 100
    deployment.sweep_until_quiet()
    assert deployment.metrics.values["SweepRecoveries"] == 0, "the sweep leaves a waiting task alone"
    deployment.check_promises(expect(source))
    source.on_read = lambda _path, _offset: None
    source.bytes_read.clear()
    again = deployment.import_model(NAME)
    assert again.status is TaskStatus.DONE
    assert sum(source.bytes_read.values()) < sum(map(len, FILES.values())), "verified files are reused"


def test_the_sweep_does_not_end_a_task_whose_message_waits_in_a_long_queue() -> None:
    deployment, source = make_deployment()
    source.on_list = lambda: (_ for _ in ()).throw(SourceUnavailableError("huggingface.co answered 503"))
    task = deployment.submit(NAME)
    (message,) = deployment.receive()
    deployment.deliver(message)
    waiting = deployment.find_task(task.id).waiting
    assert waiting is not None
    deployment.clock.now = waiting.next_attempt.timestamp() + 1800
    deployment.database.tasks.postpone_check(task.id, check_at=deployment.clock.now - 1, sweeps=MAX_SWEEPS)
    assert deployment.sweeper.sweep_stale(lambda: 300.0) == 1
    assert deployment.find_task(task.id).status is TaskStatus.PENDING
    deployment.clock.now += 3 * 86_400
    assert deployment.sweeper.sweep_stale(lambda: 300.0) == 1
    error = deployment.find_task(task.id).error
    assert error is not None
    assert error.type == "import-stalled", "its message was lost"


def test_a_failed_import_is_submitted_again_and_fetches_only_what_is_missing() -> None:
    deployment, source = make_deployment()
    source.on_read = fail_times(FileMissingError("config.json is gone at its source"), 1, "config.json")
    failed = deployment.import_model(NAME)
    assert failed.status is TaskStatus.FAILED
    assert failed.error is not None
    assert failed.error.detail == "config.json is gone at its source"
    assert source.bytes_read["model.safetensors"] == len(WEIGHTS), "it was verified before the import failed"
    again = deployment.import_model(NAME)
    assert again.id != failed.id
    assert again.status is TaskStatus.DONE
    assert source.bytes_read["model.safetensors"] == len(WEIGHTS), "and is not fetched again"
    assert again.progress.bytes_reused >= len(WEIGHTS)
    deployment.check_promises(expect(source))


def test_a_rate_limit_waits_and_uses_no_retry() -> None:
    deployment, source = make_deployment()
    source.on_read = fail_times(RateLimitedError("slow down", retry_after=120), 9)
    started = deployment.clock.now
    task = deployment.import_model(NAME)
    assert task.status is TaskStatus.DONE
    assert deployment.metrics.values["Retries"] == 0
    assert deployment.metrics.values["RateLimitWaits"] == 9
    assert deployment.clock.now - started >= 9 * 120
    deployment.sweep_until_quiet()
    assert deployment.metrics.values["SweepRecoveries"] == 0, "the sweep leaves a waiting task alone"


def test_a_rate_limit_that_never_ends_does_end() -> None:
    deployment, source = make_deployment()
    source.on_list = lambda: (_ for _ in ()).throw(RateLimitedError("slow down", retry_after=3600))
    task = deployment.import_model(NAME)
    assert task.error is not None
    assert "still exceeded after 24 hours" in task.error.detail


@pytest.mark.parametrize("path", ["nested/tokenizer.json", "model.safetensors"])
def test_wrong_bytes_are_retried_and_never_published(path: str) -> None:
    deployment, source = make_deployment()
    source.served = lambda p, content: bytes([content[0] ^ 1]) + content[1:] if p == path else content
    task = deployment.import_model(NAME)
    assert task.error is not None
    assert "Checksum mismatch for" in task.error.detail
    assert path in task.error.detail
    deployment.sweep_until_quiet()
    deployment.check_promises(expect(source))


def test_wrong_bytes_once_are_made_good() -> None:
    deployment, source = make_deployment()
    wrong = [True]

    def serve(path: str, content: bytes) -> bytes:
        if path == "model.safetensors" and wrong.pop() if wrong else False:
            return b"?" + content[1:]
        return content

    source.served = serve
    assert deployment.import_model(NAME).status is TaskStatus.DONE
    deployment.check_promises(expect(source))


@pytest.mark.parametrize("step", [PlanImport, TransferFiles, PublishModels])
def test_cancelled_at_any_step_nothing_stays(step: type) -> None:
    deployment, source = make_deployment()
    task = deployment.submit(NAME)
    cancelled = False
    for _ in range(20):
        for message in deployment.receive():
            if isinstance(message, step) and not cancelled:
                cancelled = True
                deployment.finisher.cancel(task.id)
            deployment.deliver(message)
    assert cancelled
    ended = deployment.find_task(task.id)
    assert (ended.status, ended.stage) == (TaskStatus.FAILED, Stage.CANCELLED)
    with pytest.raises(TaskEndedError):
        deployment.finisher.cancel(task.id)
    deployment.sweep_until_quiet()
    deployment.check_promises(expect(source))
    assert deployment.import_model(NAME).status is TaskStatus.DONE


def test_cancelled_while_a_large_file_moves_only_what_can_be_continued_stays() -> None:
    deployment, source = make_deployment()
    task = deployment.submit(NAME)

    def cancel(path: str, offset: int) -> None:
        if path == "model.safetensors" and offset >= 5 * PART_SIZE and source.bytes_read[path]:
            source.on_read = lambda *_: None
            deployment.finisher.cancel(task.id)

    source.on_read = cancel
    deployment.run()
    assert deployment.find_task(task.id).stage is Stage.CANCELLED
    deployment.check_promises(expect(source))


def test_cancelled_while_it_is_laid_out_nothing_stays_visible() -> None:
    deployment, source = make_deployment()
    task = deployment.submit(NAME)
    copy = deployment.store.copy
    done: list[str] = []

    def cancel_in_the_middle(source_key: str, key: str, *, size: int, etag: str) -> str:
        copied = copy(source_key, key, size=size, etag=etag)
        if key.startswith("models/") and not done:
            done.append(key)
            deployment.finisher.cancel(task.id)
        return copied

    deployment.store.copy = cancel_in_the_middle  # type: ignore[method-assign]
    deployment.run()
    assert done
    assert deployment.find_task(task.id).stage is Stage.CANCELLED
    deployment.sweep_until_quiet()
    deployment.check_promises(expect(source))


def test_unknown_tasks_cannot_be_cancelled() -> None:
    deployment, _ = make_deployment()
    with pytest.raises(TaskNotFoundError):
        deployment.finisher.cancel("no-such-task")


def test_a_message_that_kills_every_function_ends_the_task() -> None:
    deployment, _ = make_deployment()
    task = deployment.submit(NAME)
    (message,) = deployment.receive()
    deployment.runner.record_crash(message)
    ended = deployment.find_task(task.id)
    assert ended.error is not None
    assert ended.error.type == "step-crashed"


@pytest.mark.parametrize("deliveries", [4, 5, 100])
def test_throttled_deliveries_do_not_count_as_attempts(deliveries: int) -> None:
    """Lambda receives a message, throttles the function, and returns the message. No function has run."""
    deployment, source = make_deployment()
    task = deployment.submit(NAME)
    while (due := deployment.queue.next_due) is not None:
        deployment.clock.now = max(deployment.clock.now, due)
        for message in deployment.receive():
            deployment.deliver(message, deliveries=deliveries)
    assert deployment.find_task(task.id).status is TaskStatus.DONE
    deployment.check_promises(expect(source))


def test_a_step_has_all_of_its_attempts_after_throttled_deliveries() -> None:
    deployment, source = make_deployment()
    source.on_list = lambda: (_ for _ in ()).throw(UnexpectedResponseError("The list is not JSON."))
    task = deployment.submit(NAME)
    while (due := deployment.queue.next_due) is not None:
        deployment.clock.now = max(deployment.clock.now, due)
        for message in deployment.receive():
            deployment.deliver(message, deliveries=4)
    assert deployment.metrics.values["Retries"] == 3
    error = deployment.find_task(task.id).error
    assert error is not None
    assert error.type == "retries-exhausted"


def test_an_unforeseen_error_is_retried_then_told_without_its_trace() -> None:
    deployment, source = make_deployment()
    source.on_list = lambda: (_ for _ in ()).throw(KeyError("secret-token"))
    task = deployment.import_model(NAME)
    assert task.error is not None
    assert "KeyError" in task.error.detail
    assert "secret-token" not in task.error.detail
    assert deployment.metrics.values["Retries"] == 3


def test_a_lost_plan_message_is_sent_by_the_sweep() -> None:
    deployment, source = make_deployment()
    deployment.queue.count_deliveries = lambda _: 0
    task = deployment.submit(NAME)
    deployment.queue.count_deliveries = lambda _: 1
    deployment.sweep_until_quiet()
    assert deployment.find_task(task.id).status is TaskStatus.DONE
    assert deployment.metrics.values["SweepRecoveries"] >= 1
    deployment.check_promises(expect(source))


def test_a_submit_whose_message_cannot_be_sent_is_accepted_and_swept() -> None:
    deployment, _ = make_deployment()
    send = deployment.queue.send

    def refuse(*_: object, **__: object) -> None:
        raise StorageUnavailableError("SQS SendMessageBatch failed (ServiceUnavailable).")

    deployment.queue.send = refuse  # type: ignore[method-assign]
    task = deployment.submit(NAME)
    deployment.queue.send = send  # type: ignore[method-assign]
    deployment.sweep_until_quiet()
    assert deployment.find_task(task.id).status is TaskStatus.DONE


def test_a_stored_blob_that_vanished_is_fetched_again() -> None:
    deployment, source = make_deployment()
    deployment.import_model(NAME)
    deployment.store.delete([source.prefix(NAME) + "model.safetensors"])
    source.models[NAME]["next"] = {**FILES, "config.json": b"{}"}
    task = deployment.import_model(NAME, "next")
    assert task.status is TaskStatus.DONE
    assert deployment.read(source.prefix(NAME, "next") + "model.safetensors") == WEIGHTS


def test_a_stored_blob_that_was_replaced_is_not_copied() -> None:
    deployment, source = make_deployment()
    deployment.import_model(NAME)
    forged = b"x" * len(WEIGHTS)
    deployment.store.put(source.prefix(NAME) + "model.safetensors", forged, sha256=hashlib.sha256(forged).hexdigest())
    source.models[NAME]["next"] = {**FILES, "config.json": b"{}"}
    deployment.import_model(NAME, "next")
    assert deployment.read(source.prefix(NAME, "next") + "model.safetensors") == WEIGHTS


def test_several_functions_copy_the_files() -> None:
    files = {f"file-{number}.txt": b"%d" % number for number in range(9)}
    deployment, source = make_deployment(files, policy=TransferPolicy(group_files=2, copy_files=4))
    task = deployment.submit(NAME)
    while deployment.find_task(task.id).stage is not Stage.VERIFIED:
        for message in deployment.receive():
            deployment.deliver(message)
    sent: list[list[Message]] = []
    while messages := deployment.receive():
        sent.append(messages)
        assert all(
            model.status is not ModelStatus.READY for model in deployment.database.models.find_models(task.model_ids)
        )
        for message in messages:
            deployment.deliver(message)
    assert sent == [
        [PublishModels(task_id=task.id)],
        [CopyFiles(task_id=task.id, groups=groups, total=5) for groups in ((0, 1), (2, 3), (4,))],
        [PublishModels(task_id=task.id, copied=True)],
    ]
    assert deployment.find_task(task.id).status is TaskStatus.DONE
    deployment.check_promises(expect(source))
    # What other functions copied is known to be reusable as well.
    source.models[NAME]["next"] = {**source.models[NAME]["main"], "new.txt": b"new"}
    source.bytes_read.clear()
    assert deployment.import_model(NAME, "next").status is TaskStatus.DONE
    assert list(source.bytes_read) == ["new.txt"]


def test_of_functions_that_finish_the_last_files_at_once_one_hands_the_task_on() -> None:
    deployment, source = make_deployment({f"{number}.bin": WEIGHTS + b"%d" % number for number in range(4)})
    task = deployment.submit(NAME)
    bring_to(deployment, task, Stage.TRANSFERRING)
    record = deployment.database.leases.record_files
    together = Barrier(4, timeout=30)

    def record_together(*arguments: Any, **options: Any) -> FileCounts:
        record(*arguments, **options)
        together.wait()
        return FileCounts(files_done=4)

    deployment.database.leases.record_files = record_together  # type: ignore[method-assign]
    with ThreadPoolExecutor(4) as functions:
        list(functions.map(deployment.deliver, deployment.receive()))
    assert deployment.receive() == [PublishModels(task_id=task.id)]
    deployment.sweep_until_quiet()
    deployment.check_promises(expect(source))


@pytest.mark.parametrize("moment", ["inspect", "copy"])
def test_a_second_publisher_leaves_it_to_the_first(moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    deployment, source = make_deployment()
    task = deployment.submit(NAME)
    bring_to(deployment, task, Stage.VERIFIED)
    (message,) = deployment.receive()
    copied: list[str] = []
    copy, inspect = deployment.store.copy, gate.GateSession.inspect
    met: list[str] = []

    def meet(where: str) -> None:
        if where == moment and not met:
            met.append(where)
            deployment.deliver(message)

    def copy_and_meet(source_key: str, key: str, *, size: int, etag: str) -> str:
        copied.append(key)
        etag = copy(source_key, key, size=size, etag=etag)
        meet("copy")
        return etag

    def inspect_and_meet(*arguments: Any) -> Any:
        meet("inspect")
        return inspect(*arguments)

    deployment.store.copy = copy_and_meet  # type: ignore[method-assign]
    monkeypatch.setattr(gate.GateSession, "inspect", inspect_and_meet)
    deployment.deliver(message)
    assert sorted(copied) == sorted(source.prefix(NAME) + path for path in FILES), "each once"
    assert deployment.find_task(task.id).status is TaskStatus.DONE
    deployment.check_promises(expect(source))


def test_a_publisher_that_died_is_followed_by_the_sweeps() -> None:
    deployment, source = make_deployment()
    task = deployment.submit(NAME)
    bring_to(deployment, task, Stage.VERIFIED)
    (message,) = deployment.receive()

    def die() -> None:
        raise KilledError

    hold_copy(deployment, die)
    with pytest.raises(KilledError):
        deployment.deliver(message)
    deployment.deliver(message)
    assert deployment.find_task(task.id).stage is Stage.PUBLISHING, "a duplicate takes the first for alive"
    deployment.sweep_until_quiet()
    assert deployment.find_task(task.id).status is TaskStatus.DONE
    deployment.check_promises(expect(source))


def test_a_verified_file_that_vanished_before_publishing_fails_with_words() -> None:
    deployment, source = make_deployment()
    task = deployment.submit(NAME)
    while deployment.find_task(task.id).stage is not Stage.VERIFIED:
        for message in deployment.receive():
            deployment.deliver(message)
    deployment.store.delete([f"staging/{task.id}/config.json"])
    deployment.run()
    error = deployment.find_task(task.id).error
    assert error is not None
    assert "The verified file config.json was removed" in error.detail
    deployment.sweep_until_quiet()
    deployment.check_promises(expect(source))
    assert deployment.import_model(NAME).status is TaskStatus.DONE


def test_large_files_of_equal_content_are_fetched_once() -> None:
    deployment, source = make_deployment({"a.bin": WEIGHTS, "b.bin": WEIGHTS, "config.json": b"{}"})
    task = deployment.import_model(NAME)
    assert task.status is TaskStatus.DONE
    assert source.bytes_read["a.bin"] + source.bytes_read["b.bin"] == len(WEIGHTS)
    assert task.progress.bytes_reused == len(WEIGHTS)
    deployment.check_promises(expect(source))


def bring_to(deployment: Deployment, task: Task, stage: Stage) -> None:
    while deployment.find_task(task.id).stage is not stage:
        messages = deployment.receive()
        assert messages, "it moves towards the stage"
        for message in messages:
            deployment.deliver(message)


def hold_copy(deployment: Deployment, then: Callable[[], None]) -> None:
    """Calls `then` once, in the middle of the first copy into what is visible."""
    copy = deployment.store.copy

    def copy_and_call(source_key: str, key: str, *, size: int, etag: str) -> str:
        if key.startswith("models/"):
            deployment.store.copy = copy  # type: ignore[method-assign]
            then()
        return copy(source_key, key, size=size, etag=etag)

    deployment.store.copy = copy_and_call  # type: ignore[method-assign]


def test_what_is_being_withdrawn_cannot_be_claimed_before_it_is_gone() -> None:
    """Else the end of one import could remove the objects of the next, or leave some that nobody removes."""
    deployment, source = make_deployment()
    task = deployment.submit(NAME)
    bring_to(deployment, task, Stage.VERIFIED)

    refused: list[str] = []

    def cancel_and_submit_again() -> None:
        deployment.finisher.cancel(task.id)
        try:
            deployment.submit(NAME)
        except ImportInProgressError as error:
            refused.append(error.detail)

    hold_copy(deployment, cancel_and_submit_again)
    deployment.run()
    assert len(refused) == 1
    assert "being removed" in refused[0]
    # The publisher that was at work has copied on meanwhile; the sweep's last look removes that too.
    deployment.sweep_until_quiet()
    deployment.check_promises(expect(source))
    assert deployment.import_model(NAME).status is TaskStatus.DONE
    deployment.check_promises(expect(source))


@pytest.mark.parametrize("cancelled", [True, False])
def test_a_publisher_killed_in_a_copy_leaves_no_upload(cancelled: bool) -> None:
    deployment, source = make_deployment()
    task = deployment.submit(NAME)
    bring_to(deployment, task, Stage.VERIFIED)

    def die_in_a_copy_of_parts() -> None:
        deployment.store.create_upload(source.prefix(NAME) + "model.safetensors")
        raise KilledError

    hold_copy(deployment, die_in_a_copy_of_parts)
    (message,) = deployment.receive()
    with pytest.raises(KilledError):
        deployment.deliver(message)
    if cancelled:
        deployment.finisher.cancel(task.id)
    deployment.sweep_until_quiet()
    assert (deployment.find_task(task.id).status is TaskStatus.DONE) is not cancelled
    deployment.check_promises(expect(source))


def test_a_dead_letter_whose_last_delivery_did_its_work_fails_nothing() -> None:
    deployment, source = make_deployment()
    task = deployment.submit(NAME)
    (plan,) = deployment.receive()
    deployment.deliver(plan, deliveries=5)
    deployment.runner.record_crash(plan)
    transfers = deployment.receive()
    for message in transfers:
        deployment.deliver(message, deliveries=5)
    for message in transfers:
        deployment.runner.record_crash(message)
    (publish, *_) = deployment.receive()
    deployment.deliver(publish, deliveries=5)
    deployment.runner.record_crash(publish)
    assert deployment.find_task(task.id).status is TaskStatus.DONE
    deployment.check_promises(expect(source))


def test_a_small_file_stored_by_a_try_that_died_is_not_copied_onto_itself() -> None:
    deployment, source = make_deployment({"config.json": b"{}"})
    task = deployment.submit(NAME)
    bring_to(deployment, task, Stage.TRANSFERRING)
    record = deployment.database.leases.record_files

    def die(*_: object, **__: object) -> None:
        raise StorageUnavailableError("DynamoDB request failed (InternalServerError).")

    deployment.database.leases.record_files = die  # type: ignore[method-assign,assignment]
    (message,) = deployment.receive()
    deployment.deliver(message)
    deployment.database.leases.record_files = record  # type: ignore[method-assign]
    copied: list[str] = []
    copy = deployment.store.copy

    def watch(source_key: str, key: str, *, size: int, etag: str) -> str:
        copied.append(source_key)
        return copy(source_key, key, size=size, etag=etag)

    deployment.store.copy = watch  # type: ignore[method-assign]
    deployment.run()
    assert deployment.metrics.values["OutageWaits"] == 1
    ended = deployment.find_task(task.id)
    assert ended.status is TaskStatus.DONE
    assert ended.progress.bytes_reused == 0, "it was this task itself that moved it"
    assert source.bytes_read == {"config.json": 2}
    assert copied == [f"staging/{task.id}/config.json"], "only the copy that publishes"


def test_small_files_of_a_slow_source_go_on_in_other_functions() -> None:
    files = {f"file-{number:02}.json": b"%d" % number for number in range(40)}
    deployment, source = make_deployment(files)
    seconds = [300.0]

    def read_slowly(path: str, offset: int) -> None:
        seconds[0] -= 25

    source.on_read = read_slowly
    deployment.remaining = lambda: seconds[0]
    task = deployment.submit(NAME)
    functions = 0
    while messages := deployment.receive():
        for message in messages:
            functions += isinstance(message, TransferFiles)
            seconds[0] = 300.0
            deployment.deliver(message)
    assert deployment.find_task(task.id).status is TaskStatus.DONE
    assert functions > 1
    assert source.bytes_read.total() == sum(map(len, files.values())), "no file was fetched twice"


def test_small_files_behind_a_slow_one_are_recorded_and_their_lease_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"file-{number:02}.json": b"%d" % number for number in range(30)}
    deployment, source = make_deployment(files)
    settings = replace(deployment.transferrer.settings, heartbeat=0.02)
    deployment.transferrer = replace(deployment.transferrer, settings=settings)
    database, written = deployment.database, threading.Event()
    due: list[int] = []

    def tell[**P, R](write: Callable[P, R]) -> Callable[P, R]:
        def call(*arguments: P.args, **options: P.kwargs) -> R:
            result = write(*arguments, **options)
            written.set()
            return result

        return call

    monkeypatch.setattr(database.leases, "record_files", tell(database.leases.record_files))
    monkeypatch.setattr(database.tasks, "postpone_check", tell(database.tasks.postpone_check))

    def is_kept() -> bool:
        now, seen = deployment.clock.now, deployment.find_task(task.id)
        (group,) = database.files.list_groups(seen.plan_id or "")
        return seen.progress.files_done == 29 and group.lease_until > now and seen.check_at > now

    def read_slowly(path: str, offset: int) -> None:
        if path != "file-00.json":
            return
        deployment.clock.now += 400  # more than a lease, and than the sweep waits
        while not is_kept():
            assert written.wait(30)
            written.clear()
        due.append(deployment.sweeper.sweep_stale(lambda: 300.0))

    source.on_read = read_slowly
    task = deployment.submit(NAME)
    deployment.run()
    assert due == [0]
    assert deployment.find_task(task.id).status is TaskStatus.DONE


def test_files_of_a_batch_whose_lease_was_lost_are_left_to_the_other_function(monkeypatch: pytest.MonkeyPatch) -> None:
    deployment, source = make_deployment({f"file-{number}.json": b"%d" % number for number in range(3)})
    settings = replace(deployment.transferrer.settings, heartbeat=0.02)
    deployment.transferrer = replace(deployment.transferrer, settings=settings)

    leases, was_renewed, was_refused = deployment.database.leases, threading.Event(), threading.Event()
    renew_lease = leases.renew_lease

    def renew(*arguments: Any, **options: Any) -> None:
        try:
            renew_lease(*arguments, **options)
        except LeaseLostError:
            was_refused.set()
            raise
        was_renewed.set()

    monkeypatch.setattr(leases, "renew_lease", renew)

    def find_plan() -> str:
        return deployment.find_task(task.id).plan_id or ""

    def lose_lease(path: str, offset: int) -> None:
        if path == "file-2.json":
            assert was_renewed.wait(30)
            now = deployment.clock.now + 100  # later than any renewal by the first function
            assert leases.lease_group(find_plan(), 0, owner="other", now=now, until=now + 90)
            assert was_refused.wait(30)

    source.on_read = lose_lease
    task = deployment.submit(NAME)
    bring_to(deployment, task, Stage.TRANSFERRING)
    for message in deployment.receive():
        deployment.deliver(message)
    assert was_refused.is_set()
    (group,) = deployment.database.files.list_groups(find_plan())
    assert not group.is_done
    leases.renew_lease(find_plan(), 0, owner="other", until=deployment.clock.now + 200)
    assert deployment.find_task(task.id).stage is Stage.TRANSFERRING


def test_a_published_blob_is_not_replaced_by_one_that_expires() -> None:
    deployment, source = make_deployment()
    source.models["other/name"] = {"main": {"model.safetensors": WEIGHTS}}
    other = deployment.submit("other/name")
    bring_to(deployment, other, Stage.TRANSFERRING)
    waiting = deployment.receive()
    find_blobs = deployment.database.content.find_blobs
    deployment.database.content.find_blobs = lambda _: {}  # type: ignore[method-assign,assignment]
    deployment.import_model(NAME)
    for message in waiting:
        deployment.deliver(message)
    deployment.database.content.find_blobs = find_blobs  # type: ignore[method-assign]
    deployment.finisher.cancel(other.id)
    deployment.clock.now += 30 * 86_400
    (blob,) = deployment.database.content.find_blobs([f"sha256:{hashlib.sha256(WEIGHTS).hexdigest()}"]).values()
    assert blob.key == source.prefix(NAME) + "model.safetensors"


@pytest.mark.parametrize(
    ("error", "times"), [(UnexpectedResponseError("huggingface.co sent another range"), 4), (KeyError("a defect"), 1)]
)
def test_a_second_large_file_that_fails_is_retried_at_once(error: Exception, times: int) -> None:
    """Its lease is given back as well, so that the retry does not take it for another function's."""
    deployment, source = make_deployment({"a.bin": WEIGHTS, "b.bin": WEIGHTS})
    deployment.database.content.find_blobs = lambda _: {}  # type: ignore[method-assign,assignment]
    source.on_read = fail_times(error, times, "b.bin")
    started = deployment.clock.now
    assert deployment.import_model(NAME).status is TaskStatus.DONE
    assert deployment.clock.now - started < 60
    assert deployment.metrics.values["Retries"] == 1


@pytest.mark.parametrize("path", ["config.json", "model.safetensors"])
def test_an_error_keeps_its_reason_if_the_lease_cannot_be_given_back(path: str) -> None:
    deployment, source = make_deployment()
    source.on_read = fail_times(FileMissingError(f"{path} is gone at its source"), 10, path)

    def refuse(*_: object, **__: object) -> None:
        raise StorageUnavailableError("DynamoDB request failed (ThrottlingException).")

    deployment.database.leases.release_lease = refuse  # type: ignore[method-assign]
    error = deployment.import_model(NAME).error
    assert error is not None
    assert error.type == "file-missing"
    assert "OutageWaits" not in deployment.metrics.values


def test_a_source_that_is_down_gets_one_request_for_each_attempt_at_a_large_file() -> None:
    """Reconnects take most of a minute, in which the files that wait would occupy all functions."""
    deployment, source = make_deployment({"model.safetensors": WEIGHTS}, policy=TransferPolicy(function_bytes=2**40))
    open_range, requests, is_down = source.open_range, [0], True
    odd_responses = [ContentMismatchError("huggingface.co sent more bytes than the file has")]

    def count(*arguments: Any) -> InMemoryStream:
        requests[0] += 1
        if is_down:
            raise SourceUnavailableError("huggingface.co refused the connection")
        if odd_responses:
            raise odd_responses.pop()
        return open_range(*arguments)

    source.open_range = count  # type: ignore[method-assign,assignment]
    task = deployment.submit(NAME)
    counts: list[int] = []
    while len(counts) < 5:
        deployment.clock.now = max(deployment.clock.now, deployment.queue.next_due or 0)
        for message in deployment.receive():
            before = requests[0]
            deployment.deliver(message)
            counts += [requests[0] - before] if isinstance(message, TransferFiles) else []
    assert counts == [4, 1, 1, 1, 1]
    is_down = False
    source.on_read = fail_times(SourceUnavailableError("huggingface.co closed the connection"), 2)
    deployment.run()
    assert deployment.find_task(task.id).status is TaskStatus.DONE
    assert deployment.metrics.values["OutageWaits"] == 5, "broken connections are opened again"


def test_a_cleanup_that_is_retried_postpones_the_sweep() -> None:
    deployment, source = make_deployment()
    delete, is_down = deployment.store.delete, True

    def refuse(keys: Iterable[str]) -> None:
        if is_down:
            raise StorageUnavailableError("S3 DeleteObjects failed (SlowDown).")
        delete(keys)

    deployment.store.delete = refuse  # type: ignore[method-assign]
    task = deployment.submit(NAME)
    while deployment.metrics.values["OutageWaits"] < 9:
        deployment.clock.now = max(deployment.clock.now, deployment.queue.next_due or 0)
        for message in deployment.receive():
            deployment.deliver(message)
    done = deployment.find_task(task.id)
    assert done.status is TaskStatus.DONE
    assert done.waiting is None
    assert done.check_at > (deployment.queue.next_due or 0), "the sweep sends no second message"
    is_down = False
    deployment.sweep_until_quiet()
    assert deployment.metrics.values["SweepRecoveries"] == 0
    deployment.check_promises(expect(source))


def test_what_cannot_be_tidied_up_at_once_is_left_to_the_sweep() -> None:
    deployment, source = make_deployment()
    task = deployment.submit(NAME)
    list_uploads = deployment.store.list_uploads

    def refuse(_: str) -> None:
        raise StorageUnavailableError("S3 ListMultipartUploads failed (SlowDown).")

    deployment.store.list_uploads = refuse  # type: ignore[method-assign,assignment]
    deployment.finisher.cancel(task.id)
    assert deployment.find_task(task.id).stage is Stage.CANCELLED
    deployment.clock.now += 3600
    deployment.sweeper.sweep_stale(lambda: 300.0)
    assert deployment.database.tasks.list_due(float("inf"), 10) != [], "one that could not be done is done later"
    deployment.store.list_uploads = list_uploads  # type: ignore[method-assign]
    deployment.sweep_until_quiet()
    deployment.check_promises(expect(source))


def test_a_task_that_nothing_can_move_ends_after_about_a_day() -> None:
    deployment, _ = make_deployment()
    deployment.queue.count_deliveries = lambda _: 0
    started = deployment.clock.now
    task = deployment.submit(NAME)
    deployment.sweep_until_quiet()
    error = deployment.find_task(task.id).error
    assert error is not None
    assert error.type == "import-stalled"
    assert 12 * 3600 < deployment.clock.now - started < 36 * 3600


def test_an_empty_model_fails_with_words() -> None:
    deployment, _ = make_deployment()
    deployment.source = InMemoryModelSource({NAME: {"main": {}}})
    task = deployment.import_model(NAME)
    assert task.error is not None
    assert "has no files" in task.error.detail


@pytest.mark.parametrize("path", ["../up", "a//b", "/abs", "a/./b", "nul\0", "back\\slash", "x" * 1100])
def test_unsafe_paths_are_refused_before_a_byte_moves(path: str) -> None:
    deployment, source = make_deployment({"config.json": b"{}", path: b"x"})
    task = deployment.import_model(NAME)
    assert task.error is not None
    assert task.error.type == "invalid-reference"
    assert source.bytes_read.total() == 0


@given(sizes=st.lists(st.integers(0, 20 * 1024 * 1024), max_size=300))
def test_groups_hold_every_file_once_and_stay_small(sizes: list[int]) -> None:
    files = [SourceFile(f"f{i}", n, Digest(Algorithm.GIT_SHA1, f"{i:040x}")) for i, n in enumerate(sizes)]
    groups = list(group_files(files, TransferPolicy()))
    assert sorted(f.path for g in groups for f in g) == sorted(f.path for f in files)
    for group in groups:
        large = [f for f in group if f.size > 8 * 1024 * 1024]
        assert len(group) <= 128
        assert not large or len(group) == 1
        assert large or sum(f.size for f in group) <= 64 * 1024 * 1024


def test_lists_of_long_paths_are_split() -> None:
    files = [SourceFile(f"{i:04}" + "ü" * 500, 1, Digest(Algorithm.GIT_SHA1, f"{i:040x}")) for i in range(300)]
    groups = list(group_files(files, TransferPolicy()))
    assert [f for g in groups for f in g] == files
    assert max(sum(len(f.path.encode()) for f in g) for g in groups) <= 100_000


def test_a_function_held_up_until_its_import_was_done_leaves_no_upload(monkeypatch: pytest.MonkeyPatch) -> None:
    """It finds what it was about to copy gone, begins to move the file, and learns only then that it is too late."""
    deployment, source = make_deployment()
    source.models["other/name"] = {"main": {"model.safetensors": WEIGHTS}}
    deployment.import_model(NAME)
    copy = deployment.store.copy
    held = [True]

    def hold(source_key: str, key: str, *, size: int, etag: str) -> str:
        if key.startswith("staging/") and held:
            held.clear()
            deployment.clock.now += 4000
            deployment.store.delete([source_key])
            deployment.sweeper.sweep_stale(deployment.remaining)
            deployment.run()
        return copy(source_key, key, size=size, etag=etag)

    monkeypatch.setattr(deployment.store, "copy", hold)
    task = deployment.submit("other/name")
    deployment.run()
    assert held == []
    assert deployment.find_task(task.id).status is TaskStatus.DONE
    assert list(deployment.store.list_uploads("")) == []


@pytest.mark.parametrize("stage", [Stage.TRANSFERRING, Stage.VERIFIED, Stage.PUBLISHING])
def test_import_of_a_version_without_plans_ends_and_publishes_nothing(stage: Stage) -> None:
    deployment, _ = make_deployment()
    task = deployment.submit(NAME)
    deployment.receive()
    tasks = deployment.tables.tasks
    tasks[task.id] = replace(tasks[task.id], stage=stage)
    deployment.sweep_until_quiet()
    ended = deployment.find_task(task.id)
    assert ended.error is not None
    assert ended.error.type == "import-stalled"
    deployment.check_promises({})
    deployment.queue.send([PlanImport(task_id=task.id), PublishModels(task_id=task.id)])
    deployment.run()
    deployment.check_promises({})
