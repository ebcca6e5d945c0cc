"""The ledger when DynamoDB does not answer as it should, and when many write at once."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import botocore.session
import pytest
from botocore.retries.quota import RetryQuota

from modelhaul.adapters import dynamodb as adapter
from modelhaul.adapters.dynamodb import DynamoDBLedger
from modelhaul.domain.archives import Archive, SkippedDirectory
from modelhaul.domain.errors import (
    ImportInProgressError,
    LeaseLostError,
    ModelExistsError,
    StorageUnavailableError,
    TaskEndedError,
)
from modelhaul.domain.models import Model, ModelStatus
from modelhaul.domain.objects import Blob
from modelhaul.domain.tasks import Progress, Stage, Task, TaskStatus
from modelhaul.ports.ledger import Ledger
from tests.contract import ledger_builders as builders
from tests.contract.backends import open_aws
from tests.contract.dynamodb import (
    Answer,
    Call,
    MotoDynamoDB,
    clear_tables,
    conflict,
    control_moto,
    garble_reply,
    lose_reply,
    open_ledger,
    refuse,
)
from tests.fakes.ledger import InMemoryLedger

TRANSACTION = "TransactWriteItems"
BLOB = Blob("aa", "models/a", 1, "etag")
ARCHIVE = Archive("uploads/a.zip", "a.zip")


@pytest.fixture(autouse=True)
def _shorten_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(seconds / 20))


@pytest.fixture(autouse=True)
def _allow_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests share a client, which gives retrying up after about 35 in vain."""
    monkeypatch.setattr(RetryQuota, "acquire", lambda *_: True)


@pytest.fixture(scope="module")
def opened() -> Iterator[tuple[DynamoDBLedger, MotoDynamoDB]]:
    with open_aws("moto"), control_moto() as dynamodb, open_ledger() as ledger:
        yield ledger, dynamodb


@pytest.fixture
def dynamodb(opened: tuple[DynamoDBLedger, MotoDynamoDB]) -> Iterator[MotoDynamoDB]:
    ledger, dynamodb = opened
    yield dynamodb
    dynamodb.reset()
    clear_tables(ledger)


@pytest.fixture
def ledger(opened: tuple[DynamoDBLedger, MotoDynamoDB], dynamodb: MotoDynamoDB) -> DynamoDBLedger:
    return opened[0]


@pytest.mark.parametrize("fault", [lose_reply, garble_reply])
class TestLostReply:
    """Each write is done, but its first answer does not arrive.

    moto has no idempotency tokens: botocore's retry meets its own write, as a call repeated from outside does.
    """

    def test_of_claim_import(self, ledger: DynamoDBLedger, dynamodb: MotoDynamoDB, fault: Any) -> None:
        model = builders.make_model()
        dynamodb.inject(TRANSACTION, fault)
        task = builders.claim(ledger, model)
        assert dynamodb.count(TRANSACTION) == 2
        assert ledger.find_task(task.id) == task
        assert builders.read_model(ledger, model.model_id).task_id == task.id

    def test_of_claim_models(self, ledger: DynamoDBLedger, dynamodb: MotoDynamoDB, fault: Any) -> None:
        task = builders.drop(ledger)
        models = [builders.make_local_model(name, task.id) for name in ("a", "b")]
        dynamodb.inject(TRANSACTION, fault)
        claimed = ledger.claim_models(task.id, models, [], check_at=builders.START)
        assert dynamodb.count(TRANSACTION) == 2
        assert claimed is not None
        assert claimed.stage is Stage.PLANNING
        assert {model.task_id for model in ledger.find_models(claimed.model_ids)} == {task.id}

    def test_of_record_task(self, ledger: DynamoDBLedger, dynamodb: MotoDynamoDB, fault: Any) -> None:
        dynamodb.inject("PutItem", fault)
        task = builders.drop(ledger)
        assert dynamodb.count("PutItem") == 2
        assert builders.read_task(ledger, task.id) == task

    def test_of_record_arrival(self, ledger: DynamoDBLedger, dynamodb: MotoDynamoDB, fault: Any) -> None:
        task = builders.drop(ledger, stage=Stage.UPLOADING)
        dynamodb.inject("UpdateItem", fault)
        arrived = ledger.record_arrival(task.id, size=7, etag="e", check_at=builders.START)
        assert dynamodb.count("UpdateItem") == 2
        assert arrived is not None
        assert arrived.archive is not None
        assert (arrived.stage, arrived.archive.size) == (Stage.INSPECTING, 7)

    def test_of_finish_files(self, ledger: DynamoDBLedger, dynamodb: MotoDynamoDB, fault: Any) -> None:
        large, small = builders.make_file(size=1000), builders.make_file("small", 20)
        task = builders.plan(ledger, large, small)
        builders.lease(ledger, task.id)
        builders.save(ledger, task.id, builders.make_checkpoint(400))
        dynamodb.reset()
        dynamodb.inject(TRANSACTION, fault)
        results = [builders.make_result(large), builders.make_result(small, reused=True)]
        progress = ledger.finish_files(task.id, results, check_at=builders.START)
        assert progress == Progress(2, 2, bytes_done=1020, bytes_total=1020, bytes_reused=20)
        assert dynamodb.count(TRANSACTION) == 2
        assert all(record.done for record in ledger.list_files(task.id))

    def test_of_finish_import(self, ledger: DynamoDBLedger, dynamodb: MotoDynamoDB, fault: Any) -> None:
        task = builders.claim(ledger)
        dynamodb.reset()
        dynamodb.inject(TRANSACTION, fault)
        assert ledger.finish_import(task.id, totals={task.model_ids[0]: (1, 2)}, check_at=builders.START)
        assert dynamodb.count(TRANSACTION) == 2
        assert builders.read_task(ledger, task.id).status is TaskStatus.DONE
        assert builders.read_model(ledger, task.model_ids[0]).status is ModelStatus.READY

    def test_of_fail_import(self, ledger: DynamoDBLedger, dynamodb: MotoDynamoDB, fault: Any) -> None:
        task = builders.claim(ledger)
        dynamodb.inject(TRANSACTION, fault)
        ledger.fail_import(task.id, builders.GATED, check_at=builders.START)
        assert builders.read_task(ledger, task.id).error == builders.GATED
        assert builders.read_model(ledger, task.model_ids[0]).status is ModelStatus.FAILED

    @pytest.mark.parametrize(("offset", "total"), [(900, 900), (None, 0)])
    def test_of_save_checkpoint(
        self, ledger: DynamoDBLedger, dynamodb: MotoDynamoDB, fault: Any, offset: int | None, total: int
    ) -> None:
        task = builders.plan(ledger, builders.make_file(size=1000))
        builders.lease(ledger, task.id)
        builders.save(ledger, task.id, builders.make_checkpoint(400))
        dynamodb.reset()
        dynamodb.inject(TRANSACTION, fault)
        checkpoint = None if offset is None else builders.make_checkpoint(offset)
        builders.save(ledger, task.id, checkpoint)
        assert dynamodb.count(TRANSACTION) >= 2
        assert builders.read_task(ledger, task.id).progress.bytes_done == total
        assert builders.read_file(ledger, task.id).checkpoint == checkpoint

    def test_of_put_files(self, ledger: DynamoDBLedger, dynamodb: MotoDynamoDB, fault: Any) -> None:
        file = builders.make_file()
        dynamodb.inject(TRANSACTION, fault)
        ledger.put_files("task", [file])
        assert [record.file for record in ledger.list_files("task")] == [file]

    def test_of_single_writes(self, ledger: DynamoDBLedger, dynamodb: MotoDynamoDB, fault: Any) -> None:
        task = builders.plan(ledger, builders.make_file())
        dynamodb.inject("UpdateItem", fault)
        assert ledger.start_stage(task.id, Stage.PUBLISHING, check_at=builders.START), "it knows itself again"
        assert builders.read_task(ledger, task.id).stage is Stage.PUBLISHING
        dynamodb.inject("UpdateItem", fault)
        assert builders.lease(ledger, task.id).lease_until == builders.START + 90
        dynamodb.inject("UpdateItem", fault)
        ledger.renew_lease(task.id, "model.safetensors", owner="a", until=builders.START + 200)
        dynamodb.inject("UpdateItem", fault)
        ledger.release_lease(task.id, "model.safetensors", owner="a")
        assert builders.read_file(ledger, task.id).lease_until == 0
        dynamodb.inject("BatchWriteItem", fault)
        ledger.put_blobs([("sha256:aa", BLOB)], expires_at=None)
        assert builders.find_blob(ledger, "sha256:aa") == BLOB
        dynamodb.inject("DeleteItem", fault)
        ledger.forget_blob("sha256:aa", BLOB.key)
        assert builders.find_blob(ledger, "sha256:aa") is None

    def test_of_a_deletion(self, ledger: DynamoDBLedger, dynamodb: MotoDynamoDB, fault: Any) -> None:
        task = builders.claim(ledger)
        (model_id,) = task.model_ids
        ledger.finish_import(task.id, totals={model_id: (1, 1)}, check_at=builders.START)
        ledger.put_blobs([("sha256:aa", BLOB)], expires_at=None)
        dynamodb.inject("UpdateItem", fault)
        leased = ledger.lease_deletion(model_id, owner="a", now=builders.START, until=builders.START + 60)
        assert leased is not None
        assert leased.status is ModelStatus.DELETING
        dynamodb.inject("DeleteItem", fault)
        ledger.forget_blobs([("sha256:aa", BLOB.key)])
        assert ledger.find_blobs(["sha256:aa"]) == {}
        dynamodb.inject("DeleteItem", fault)
        ledger.remove_model(model_id, owner="a")
        assert ledger.find_model(model_id) is None

    def test_for_good_is_an_error_and_the_call_can_be_repeated(
        self, ledger: DynamoDBLedger, dynamodb: MotoDynamoDB, fault: Any
    ) -> None:
        file, model = builders.make_file(size=1000), builders.make_model()
        task = builders.make_task(model)
        steps: list[Callable[[], object]] = [
            lambda: ledger.claim_import(task, [replace(model, task_id=task.id)]),
            lambda: ledger.put_files(task.id, [file]),
            lambda: builders.save(ledger, task.id, builders.make_checkpoint(400)),
            lambda: ledger.finish_files(task.id, [builders.make_result(file)], check_at=builders.START),
            lambda: ledger.finish_import(task.id, totals={task.model_ids[0]: (1, 1000)}, check_at=builders.START),
        ]
        results = []
        for step in steps:
            dynamodb.inject(TRANSACTION, fault, times=3)
            with pytest.raises(StorageUnavailableError):
                step()
            results.append(step())
            ledger.lease_file(task.id, file.path, owner="a", now=builders.START, until=builders.START + 90)
        assert results[-1] is True
        assert builders.read_task(ledger, task.id).progress == Progress(1, 0, 1000, 0, 0)
        assert builders.read_model(ledger, model.model_id).status is ModelStatus.READY

    def test_for_good_of_what_an_archive_brings_can_be_repeated(
        self, ledger: DynamoDBLedger, dynamodb: MotoDynamoDB, fault: Any
    ) -> None:
        task = builders.make_task(
            builders.make_local_model("a"),
            model_ids=(),
            stage=Stage.UPLOADING,
            archive=ARCHIVE,
        )
        models = [builders.make_local_model(name, task.id) for name in ("a", "b")]
        skipped = [SkippedDirectory("c", ("config.json",))]
        steps: list[tuple[str, Callable[[], Task | None]]] = [
            ("PutItem", lambda: ledger.record_task(task)),
            ("UpdateItem", lambda: ledger.record_arrival(task.id, size=7, etag="e", check_at=builders.START)),
            (TRANSACTION, lambda: ledger.claim_models(task.id, models, skipped, check_at=builders.START)),
        ]
        for operation, step in steps:
            dynamodb.inject(operation, fault, times=3)
            with pytest.raises(StorageUnavailableError):
                step()
            written = builders.read_task(ledger, task.id)
            assert step() in (written, None)
            assert builders.read_task(ledger, task.id) == written
        assert written.stage is Stage.PLANNING
        assert written.archive == replace(ARCHIVE, size=7, etag="e")
        assert written.skipped == tuple(skipped)
        assert ledger.find_models(written.model_ids) == models

    def test_of_release_models(self, ledger: DynamoDBLedger, dynamodb: MotoDynamoDB, fault: Any) -> None:
        task = builders.drop(ledger)
        models = [builders.make_local_model(name, task.id) for name in ("a", "b")]
        ledger.claim_models(task.id, models, [], check_at=builders.START)
        ledger.start_stage(task.id, Stage.PUBLISHING, check_at=builders.START)
        dynamodb.inject(TRANSACTION, fault)
        ledger.fail_import(task.id, builders.GATED, check_at=builders.START)
        dynamodb.reset()
        dynamodb.inject("UpdateItem", fault, times=3)
        with pytest.raises(StorageUnavailableError):
            ledger.release_models(task.id)
        ledger.release_models(task.id)
        found = ledger.find_models([model.model_id for model in models])
        assert [model.status for model in found] == [ModelStatus.FAILED] * 2


def test_retries_of_a_transaction_carry_one_token(ledger: DynamoDBLedger, dynamodb: MotoDynamoDB) -> None:
    dynamodb.inject(TRANSACTION, lose_reply)
    builders.claim(ledger)
    first, second = (call.body["ClientRequestToken"] for call in dynamodb.calls if call.operation == TRANSACTION)
    assert first == second


class TestConflict:
    def test_is_tried_again(self, ledger: DynamoDBLedger, dynamodb: MotoDynamoDB) -> None:
        file, model = builders.make_file(size=1000), builders.make_model()
        dynamodb.inject(TRANSACTION, conflict, times=3)
        task = builders.claim(ledger, model)
        dynamodb.inject(TRANSACTION, conflict, times=3)
        ledger.put_files(task.id, [file])
        builders.lease(ledger, task.id)
        dynamodb.inject(TRANSACTION, conflict, times=3)
        builders.save(ledger, task.id, builders.make_checkpoint(400))
        dynamodb.inject(TRANSACTION, conflict, times=3)
        assert ledger.finish_files(task.id, [builders.make_result(file)], check_at=builders.START).bytes_done == 1000
        dynamodb.inject(TRANSACTION, conflict, times=3)
        assert ledger.finish_import(task.id, totals={task.model_ids[0]: (1, 1000)}, check_at=builders.START)

    def test_of_a_single_write_is_tried_again(self, ledger: DynamoDBLedger, dynamodb: MotoDynamoDB) -> None:
        task = builders.plan(ledger, builders.make_file())
        dynamodb.inject("UpdateItem", lambda *_: refuse(400, "TransactionConflictException"), times=3)
        assert builders.lease(ledger, task.id).lease_until == builders.START + 90
        dynamodb.inject("UpdateItem", lambda *_: refuse(400, "TransactionConflictException"), times=100)
        with pytest.raises(StorageUnavailableError, match="too busy"):
            ledger.start_stage(task.id, Stage.PUBLISHING, check_at=builders.START)

    @pytest.mark.parametrize("code", ["ThrottlingError", "ProvisionedThroughputExceededException"])
    def test_with_the_partition_s_limit_is_waited_out(
        self, ledger: DynamoDBLedger, dynamodb: MotoDynamoDB, code: str
    ) -> None:
        """All files of a task are in one partition, and many functions may write at once."""

        def throttle(call: Call, _: Callable[[], Answer]) -> Answer:
            if code != "ThrottlingError":
                return refuse(400, code)
            reasons = [{"Code": code}] * len(call.body["TransactItems"])
            return refuse(400, "TransactionCanceledException", CancellationReasons=reasons)

        file = builders.make_file(size=1000)
        task = builders.plan(ledger, file)
        dynamodb.inject(TRANSACTION, throttle, times=50)
        assert ledger.finish_files(task.id, [builders.make_result(file)], check_at=builders.START).files_done == 1
        dynamodb.inject(TRANSACTION, throttle, times=1000)
        with pytest.raises(StorageUnavailableError, match="too busy"):
            ledger.put_files(task.id, [builders.make_file("other")])
        dynamodb.calls.clear()
        with pytest.raises(StorageUnavailableError, match="too busy"):
            builders.claim(ledger)
        assert dynamodb.count(TRANSACTION) <= 3 * 8, "whoever submits does not wait that long"

    def test_without_end_is_an_error(self, ledger: DynamoDBLedger, dynamodb: MotoDynamoDB) -> None:
        dynamodb.inject(TRANSACTION, conflict, times=100)
        with pytest.raises(StorageUnavailableError, match="too busy"):
            builders.claim(ledger)
        assert dynamodb.count(TRANSACTION) == 8

    def test_with_the_winning_claim_is_import_in_progress(self, ledger: DynamoDBLedger, dynamodb: MotoDynamoDB) -> None:
        model = builders.make_model()
        winner = builders.claim(ledger, model)
        dynamodb.reset()
        dynamodb.inject(TRANSACTION, conflict)
        with pytest.raises(ImportInProgressError) as caught:
            builders.claim(ledger, model)
        assert caught.value.task_id == winner.id
        assert dynamodb.count(TRANSACTION) == 1

    def test_is_no_success_of_a_claim(self, ledger: DynamoDBLedger, dynamodb: MotoDynamoDB) -> None:
        for names in (["a"], []):
            task = builders.drop(ledger)
            models = [builders.make_local_model(name, task.id) for name in names]
            dynamodb.inject(TRANSACTION, conflict, times=3)
            claimed = ledger.claim_models(task.id, models, [], check_at=builders.START)
            assert claimed is not None
            assert claimed.stage is Stage.PLANNING


class TestRace:
    """Something else happens between what a call reads and what it writes."""

    def test_of_two_functions_finishing_one_file(self, ledger: DynamoDBLedger, dynamodb: MotoDynamoDB) -> None:
        file, other = builders.make_file(size=1000), builders.make_file("other", 20)
        task = builders.plan(ledger, file, other)
        after(
            dynamodb,
            "BatchGetItem",
            lambda: ledger.finish_files(task.id, [builders.make_result(file)], check_at=builders.START),
        )
        results = [builders.make_result(file), builders.make_result(other)]
        progress = ledger.finish_files(task.id, results, check_at=builders.START)
        assert (progress.files_done, progress.bytes_done) == (2, 1020)

    def test_of_a_checkpoint_with_the_file_s_end(self, ledger: DynamoDBLedger, dynamodb: MotoDynamoDB) -> None:
        file = builders.make_file(size=1000)
        task = builders.plan(ledger, file)
        builders.lease(ledger, task.id)
        after(dynamodb, "BatchGetItem", lambda: builders.save(ledger, task.id, builders.make_checkpoint(400)))
        assert ledger.finish_files(task.id, [builders.make_result(file)], check_at=builders.START).bytes_done == 1000

    def test_of_two_checkpoints(self, ledger: DynamoDBLedger, dynamodb: MotoDynamoDB) -> None:
        task = builders.plan(ledger, builders.make_file(size=1000))
        builders.lease(ledger, task.id)
        after(dynamodb, "GetItem", lambda: builders.save(ledger, task.id, builders.make_checkpoint(400)))
        builders.save(ledger, task.id, builders.make_checkpoint(700))
        assert builders.read_task(ledger, task.id).progress.bytes_done == 700
        after(dynamodb, "GetItem", lambda: ledger.release_lease(task.id, "model.safetensors", owner="a"))
        with pytest.raises(LeaseLostError):
            builders.save(ledger, task.id, builders.make_checkpoint(900))
        assert builders.read_task(ledger, task.id).progress.bytes_done == 700

    def test_of_progress_with_the_task_s_end(self, ledger: DynamoDBLedger, dynamodb: MotoDynamoDB) -> None:
        file = builders.make_file(size=1000)
        for operation, step in (
            ("GetItem", lambda task_id: builders.save(ledger, task_id, builders.make_checkpoint(400))),
            (
                "BatchGetItem",
                lambda task_id: ledger.finish_files(task_id, [builders.make_result(file)], check_at=builders.START),
            ),
        ):
            task = builders.plan(ledger, file)
            builders.lease(ledger, task.id)
            after(dynamodb, operation, lambda: ledger.fail_import(task.id, builders.GATED, check_at=builders.START))  # noqa: B023
            with pytest.raises(TaskEndedError):
                step(task.id)
            record = builders.read_file(ledger, task.id)
            assert (record.done, record.checkpoint) == (False, None)
            assert builders.read_task(ledger, task.id).progress.bytes_done == 0

    def test_of_two_ends(self, ledger: DynamoDBLedger, dynamodb: MotoDynamoDB) -> None:
        task = builders.claim(ledger)
        after(dynamodb, "GetItem", lambda: ledger.fail_import(task.id, builders.GATED, check_at=builders.START))
        assert not ledger.finish_import(task.id, totals={task.model_ids[0]: (1, 1)}, check_at=builders.START)
        assert builders.read_task(ledger, task.id).error == builders.GATED
        task = builders.claim(ledger)
        after(
            dynamodb,
            "GetItem",
            lambda: ledger.finish_import(task.id, totals={task.model_ids[0]: (1, 1)}, check_at=builders.START),
        )
        assert not ledger.fail_import(task.id, builders.GATED, check_at=builders.START)
        assert builders.read_model(ledger, task.model_ids[0]).status is ModelStatus.READY

    def test_of_an_archive_s_claim_with_its_task_s_end(self, ledger: DynamoDBLedger, dynamodb: MotoDynamoDB) -> None:
        task = builders.drop(ledger)
        after(dynamodb, "GetItem", lambda: ledger.fail_import(task.id, builders.GATED, check_at=builders.START))
        models = [builders.make_local_model("a", task.id)]
        ended = ledger.claim_models(task.id, models, [], check_at=builders.START)
        assert ended == builders.read_task(ledger, task.id)
        assert ended.status is TaskStatus.FAILED
        assert ledger.find_models([models[0].model_id]) == []

    def test_of_an_arrival_with_its_task_s_end(self, ledger: DynamoDBLedger, dynamodb: MotoDynamoDB) -> None:
        task = builders.drop(ledger, stage=Stage.UPLOADING)
        after(dynamodb, "GetItem", lambda: ledger.fail_import(task.id, builders.GATED, check_at=builders.START))
        ended = ledger.record_arrival(task.id, size=7, etag="other", check_at=builders.START)
        assert ended == builders.read_task(ledger, task.id)
        assert (ended.status, ended.archive) == (TaskStatus.FAILED, task.archive)


def after(dynamodb: MotoDynamoDB, operation: str, step: Callable[[], object]) -> None:
    def fault(_: Call, do: Callable[[], Answer]) -> Answer:
        answer = do()
        step()
        return answer

    dynamodb.inject(operation, fault)


@pytest.fixture(params=["fake", "moto"])
def contended(request: pytest.FixtureRequest) -> Ledger:
    if request.param == "fake":
        return InMemoryLedger()
    request.getfixturevalue("dynamodb").conflicts = True
    ledger = request.getfixturevalue("ledger")
    assert isinstance(ledger, DynamoDBLedger)
    return ledger


def test_of_fifty_simultaneous_claims_one_wins(contended: Ledger) -> None:
    model = builders.make_model()
    tasks = [builders.make_task(model) for _ in range(50)]
    start = threading.Barrier(len(tasks))

    def submit(number: int) -> str:
        task = tasks[number]
        start.wait()
        try:
            contended.claim_import(task, [replace(model, task_id=task.id)])
        except ImportInProgressError as error:
            return error.task_id
        return task.id

    with ThreadPoolExecutor(len(tasks)) as pool:
        winners = set(pool.map(submit, range(len(tasks))))
    assert len(winners) == 1
    assert [task.id for task in tasks if contended.find_task(task.id)] == list(winners)
    assert {builders.read_model(contended, model.model_id).task_id} == winners


def test_of_simultaneous_claims_that_overlap_one_wins_whole(contended: Ledger) -> None:
    tasks = [builders.drop(contended) if number % 2 else builders.make_task(shared()) for number in range(16)]
    start = threading.Barrier(len(tasks))

    def claim(number: int) -> str:
        task = tasks[number]
        models = [replace(shared(), task_id=task.id), builders.make_local_model(f"own-{number}", task.id)]
        if number % 4 > 1:
            models.reverse()
        start.wait()
        while True:
            try:
                if task.stage is Stage.INSPECTING:
                    contended.claim_models(task.id, models, [], check_at=builders.START)
                else:
                    model_ids = tuple(model.model_id for model in models)
                    contended.claim_import(replace(task, model_ids=model_ids), models)
            except StorageUnavailableError:
                # Every transaction that meets another call is refused here, on a busy machine more often than it is
                # tried again.
                continue
            except ImportInProgressError as error:
                return error.task_id if error.model_id == shared().model_id else error.model_id
            return task.id

    with ThreadPoolExecutor(len(tasks)) as pool:
        [winner] = set(pool.map(claim, range(len(tasks))))
    for number, task in enumerate(tasks):
        own = contended.find_model(builders.make_local_model(f"own-{number}").model_id)
        assert (own is not None) == (task.id == winner)
        found = contended.find_task(task.id)
        if task.id == winner:
            assert found is not None
            assert len(found.model_ids) == 2
        else:
            assert found == (task if task.stage is Stage.INSPECTING else None)
    assert builders.read_model(contended, shared().model_id).task_id == winner


def shared() -> Model:
    return builders.make_local_model("shared")


def test_simultaneous_deliveries_of_one_archive_all_succeed(contended: Ledger) -> None:
    task = builders.drop(contended)
    models = [builders.make_local_model(name, task.id) for name in ("a", "b", "c")]
    start = threading.Barrier(8)

    def accept(_: int) -> Task | None:
        start.wait()
        while True:
            try:
                return contended.claim_models(task.id, models, [], check_at=builders.START + 500)
            except StorageUnavailableError:
                continue

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(accept, range(8)))
    claimed = builders.read_task(contended, task.id)
    assert answers == [claimed] * 8
    assert (claimed.stage, claimed.check_at) == (Stage.PLANNING, builders.START + 500)
    assert contended.find_models(claimed.model_ids) == models


def test_simultaneous_workers_and_duplicates_count_exactly(contended: Ledger) -> None:
    files = [builders.make_file(f"{number:02}", 10**number) for number in range(12)]
    task = builders.plan(contended, *files)
    results = [builders.make_result(file, reused=number % 2 == 0) for number, file in enumerate(files)]
    groups = [results[start : start + 3] for start in range(0, 12, 3)] * 2
    start = threading.Barrier(len(groups))

    def work(number: int) -> Progress:
        start.wait()
        while True:
            try:
                return contended.finish_files(task.id, groups[number], check_at=builders.START)
            except StorageUnavailableError:
                continue

    with ThreadPoolExecutor(len(groups)) as pool:
        seen = list(pool.map(work, range(len(groups))))
    total = int("1" * 12)
    exact = Progress(12, 12, total, total, sum(10**number for number in range(0, 12, 2)))
    assert builders.read_task(contended, task.id).progress == exact
    assert exact in seen


CALLS: dict[str, Callable[[Ledger], object]] = {
    "claim_import": builders.claim,
    "record_task": builders.drop,
    "record_arrival": lambda ledger: ledger.record_arrival("a", size=1, etag="b", check_at=1),
    "claim_models": lambda ledger: ledger.claim_models("a", [builders.make_local_model("b", "a")], [], check_at=1),
    "list_tasks": lambda ledger: ledger.list_tasks(limit=1),
    "find_models": lambda ledger: ledger.find_models(["a"]),
    "list_models": lambda ledger: ledger.list_models(limit=1),
    "lease_deletion": lambda ledger: ledger.lease_deletion("a", owner="b", now=1, until=2),
    "remove_model": lambda ledger: ledger.remove_model("a", owner="b"),
    "list_deleting": lambda ledger: ledger.list_deleting(1, 1),
    "find_task": lambda ledger: ledger.find_task("a"),
    "find_model": lambda ledger: ledger.find_model("a"),
    "put_files": lambda ledger: ledger.put_files("a", [builders.make_file()]),
    "list_files": lambda ledger: list(ledger.list_files("a")),
    "find_files": lambda ledger: ledger.find_files("a", ["b"]),
    "start_stage": lambda ledger: ledger.start_stage("a", Stage.PUBLISHING, check_at=1),
    "postpone_check": lambda ledger: ledger.postpone_check("a", check_at=1),
    "lease_file": lambda ledger: ledger.lease_file("a", "b", owner="c", now=1, until=2),
    "renew_lease": lambda ledger: ledger.renew_lease("a", "b", owner="c", until=2),
    "release_lease": lambda ledger: ledger.release_lease("a", "b", owner="c"),
    "save_checkpoint": lambda ledger: builders.save(ledger, "a", None),
    "finish_files": lambda ledger: ledger.finish_files("a", [builders.make_result(builders.make_file())], check_at=1),
    "finish_import": lambda ledger: ledger.finish_import("a", totals={}, check_at=1),
    "fail_import": lambda ledger: ledger.fail_import("a", builders.GATED, check_at=1),
    "release_models": lambda ledger: ledger.release_models("a"),
    "unwatch_task": lambda ledger: ledger.unwatch_task("a"),
    "list_due": lambda ledger: ledger.list_due(1, 1),
    "find_blobs": lambda ledger: ledger.find_blobs(["a"]),
    "put_blobs": lambda ledger: ledger.put_blobs([("sha256:aa", BLOB)], expires_at=None),
    "forget_blob": lambda ledger: ledger.forget_blob("a", "b"),
    "forget_blobs": lambda ledger: ledger.forget_blobs([("a", "b")]),
}


def test_the_calls_below_are_all_of_the_port() -> None:
    assert {name for name in vars(Ledger) if not name.startswith("_")} == set(CALLS)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_refusal_becomes_storage_unavailable_without_names(
    ledger: DynamoDBLedger, dynamodb: MotoDynamoDB, call: Callable[[Ledger], object]
) -> None:
    words = "no access to arn:aws:dynamodb:us-east-1:123456789012:table/tasks"
    dynamodb.inject("", lambda *_: refuse(400, "AccessDeniedException", words), times=100)
    with pytest.raises(StorageUnavailableError, match="AccessDeniedException") as caught:
        call(ledger)
    assert "arn:" not in caught.value.detail
    assert "tasks" not in caught.value.detail


def test_reads_are_strongly_consistent(ledger: DynamoDBLedger, dynamodb: MotoDynamoDB) -> None:
    task = builders.plan(ledger, builders.make_file())
    builders.lease(ledger, task.id)
    builders.save(ledger, task.id, builders.make_checkpoint(400))
    for call in CALLS.values():
        with suppress(LeaseLostError, TaskEndedError):
            call(ledger)
    reads = [c.body for c in dynamodb.calls if c.operation in ("GetItem", "Query") and "IndexName" not in c.body]
    reads += [r for c in dynamodb.calls if c.operation == "BatchGetItem" for r in c.body["RequestItems"].values()]
    assert len(reads) > 5
    assert all(read.get("ConsistentRead") for read in reads)


def test_records_expire(ledger: DynamoDBLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "_clock", lambda: builders.START)
    task, failed = builders.plan(ledger, builders.make_file()), builders.claim(ledger)
    assert ledger._tasks.get(task.id).expires_at is None
    assert ledger._files.get(task.id, "model.safetensors").expires_at.timestamp() == builders.START + 14 * 86_400
    ledger.finish_import(task.id, totals={task.model_ids[0]: (1, 1)}, check_at=builders.START)
    ledger.fail_import(failed.id, builders.GATED, check_at=builders.START)
    for ended in (task, failed):
        assert ledger._tasks.get(ended.id).expires_at.timestamp() == builders.START + 90 * 86_400


def test_refusals_say_which_models_and_why(ledger: DynamoDBLedger) -> None:
    hub, local = builders.make_model(), builders.make_local_model("My-Model")
    first = builders.make_task(hub, model_ids=(hub.model_id, local.model_id))
    claims = [replace(hub, task_id=first.id), replace(local, task_id=first.id)]
    ledger.claim_import(first, claims)
    second = builders.make_task(hub)
    for models, words in (
        ([hub], f"{hub.resolved.name} at commit {hub.resolved.commit[:12]} is being imported by task {first.id}"),
        ([local, hub], f"My-Model is being imported by task {first.id}"),
    ):
        with pytest.raises(ImportInProgressError) as running:
            ledger.claim_import(second, models)
        assert running.value.detail == f"{words}: follow that one."
    ledger.finish_import(first.id, totals=dict.fromkeys(first.model_ids, (1, 1)), check_at=builders.START)
    for models, words in (
        ([local], "My-Model is here already."),
        ([local, hub], f"My-Model, {hub.resolved.name} at commit {hub.resolved.commit[:12]} are here already."),
    ):
        with pytest.raises(ModelExistsError) as ready:
            ledger.claim_import(second, models)
        assert ready.value.detail == words


def test_a_list_reads_a_bounded_number_of_tasks(ledger: DynamoDBLedger, dynamodb: MotoDynamoDB) -> None:
    tasks = [builders.drop(ledger, created_at=builders.at(builders.START + number)) for number in range(25)]
    ledger.fail_import(tasks[0].id, builders.GATED, check_at=builders.START)
    dynamodb.reset()
    first = ledger.list_tasks(status=TaskStatus.FAILED, limit=2)
    assert first.tasks == ()
    assert first.cursor is not None
    assert dynamodb.count("Query") == 10
    second = ledger.list_tasks(status=TaskStatus.FAILED, limit=2, cursor=first.cursor)
    assert [task.id for task in second.tasks] == [tasks[0].id]
    assert second.cursor is None


def test_a_list_looks_at_a_bounded_number_of_models(
    ledger: DynamoDBLedger, dynamodb: MotoDynamoDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "_FILTERED_PAGE", 2)
    names = ["org/first", *(f"org/m{number}" for number in range(24))]
    for number, name in enumerate(names):
        resolved = replace(builders.make_model().resolved, name=name)
        moment = builders.at(builders.START + number)
        model = replace(builders.make_model(), model_id=resolved.model_id, resolved=resolved, created_at=moment)
        task = builders.claim(ledger, model)
        ledger.finish_import(task.id, totals={model.model_id: (1, 1)}, check_at=builders.START)
    dynamodb.reset()
    first = ledger.list_models(name="FIRST", limit=20)
    assert first.models == ()
    assert first.cursor is not None
    assert dynamodb.count("Query") == 10
    second = ledger.list_models(name="FIRST", limit=20, cursor=first.cursor)
    assert [model.resolved.name for model in second.models] == ["org/first"]
    assert second.cursor is None
    dynamodb.reset()
    assert len(ledger.list_models(limit=20).models) == 20
    assert [call.operation for call in dynamodb.calls] == ["Query"], "without a filter nothing is read in vain"


def test_a_list_leaves_out_tasks_that_are_in_the_index_only(ledger: DynamoDBLedger, dynamodb: MotoDynamoDB) -> None:
    gone, *_ = [builders.drop(ledger, created_at=builders.at(builders.START + number)) for number in range(3)]

    def expire(call: Call, do: Callable[[], Answer]) -> Answer:
        status, _, body = do()  # the headers have the checksum of this body
        answer = json.loads(body)
        for table, items in answer["Responses"].items():
            answer["Responses"][table] = [item for item in items if item["id"]["S"] != gone.id]
        return status, {}, json.dumps(answer)

    dynamodb.inject("BatchGetItem", expire)
    page = ledger.list_tasks(limit=3)
    assert len(page.tasks) == 2
    assert gone not in page.tasks


def test_items_that_dynamodb_keeps_back_are_sent_again(ledger: DynamoDBLedger, dynamodb: MotoDynamoDB) -> None:
    def keep_back(call: Call, _: Callable[[], Answer]) -> Answer:
        return 200, {}, json.dumps({"UnprocessedItems": call.body["RequestItems"]})

    dynamodb.inject("BatchWriteItem", keep_back, times=5)
    ledger.put_blobs([("sha256:aa", BLOB)], expires_at=None)
    assert builders.find_blob(ledger, "sha256:aa") == BLOB
    dynamodb.inject("BatchWriteItem", keep_back, times=100)
    with pytest.raises(StorageUnavailableError):
        ledger.put_blobs([("sha256:bb", BLOB)], expires_at=None)


def test_calls_to_dynamodb_are_few(ledger: DynamoDBLedger, dynamodb: MotoDynamoDB) -> None:
    files = [builders.make_file(f"{number:03}", 1) for number in range(90)]
    counted: dict[str, int] = {}

    def measure(name: str, step: Callable[[], object]) -> None:
        dynamodb.calls.clear()
        step()
        counted[name] = len(dynamodb.calls)

    measure("claim_import", lambda: builders.claim(ledger))
    task = builders.claim(ledger)
    measure("put_files", lambda: ledger.put_files(task.id, files))
    measure("list_files", lambda: list(ledger.list_files(task.id)))
    measure("find_files", lambda: ledger.find_files(task.id, [file.path for file in files]))
    measure("lease_file", lambda: builders.lease(ledger, task.id, "000"))
    measure("renew_lease", lambda: ledger.renew_lease(task.id, "000", owner="a", until=builders.START))
    measure(
        "save_checkpoint",
        lambda: ledger.save_checkpoint(task.id, "000", None, owner="a", until=builders.START, check_at=builders.START),
    )
    results = [builders.make_result(file) for file in files]
    measure("finish_files", lambda: ledger.finish_files(task.id, results, check_at=builders.START))
    measure("start_stage", lambda: ledger.start_stage(task.id, Stage.PUBLISHING, check_at=builders.START))
    measure(
        "finish_import",
        lambda: ledger.finish_import(task.id, totals={task.model_ids[0]: (1, 1)}, check_at=builders.START),
    )
    pairs = [("sha256:aa", BLOB), ("git-sha1:aa", BLOB)]
    measure("put_blobs", lambda: ledger.put_blobs(pairs, expires_at=None))
    measure("put_blobs that expire", lambda: ledger.put_blobs(pairs, expires_at=1))
    measure("find_blobs", lambda: ledger.find_blobs(["sha256:aa"]))
    measure("find_blobs of a group", lambda: ledger.find_blobs(str(file.digest) for file in files))
    asked = builders.make_task(builders.make_local_model("a"), model_ids=(), stage=Stage.UPLOADING, archive=ARCHIVE)
    models = [builders.make_local_model(f"m{number}", asked.id) for number in range(90)]
    measure("record_task", lambda: ledger.record_task(asked))
    measure("record_arrival", lambda: ledger.record_arrival(asked.id, size=1, etag="e", check_at=builders.START))
    measure("claim_models", lambda: ledger.claim_models(asked.id, models, [], check_at=builders.START))
    model_ids = [model.model_id for model in models]
    measure("find_models", lambda: ledger.find_models(model_ids))
    measure("list_tasks", lambda: ledger.list_tasks(limit=20))
    totals = dict.fromkeys(model_ids, (1, 1))
    measure("finish_import of many", lambda: ledger.finish_import(asked.id, totals=totals, check_at=builders.START))
    assert counted == {
        "claim_import": 1,
        "put_files": 1,
        "list_files": 1,
        "find_files": 1,
        "lease_file": 1,
        "renew_lease": 1,
        "save_checkpoint": 2,
        "finish_files": 3,
        "start_stage": 1,
        "finish_import": 2,
        "put_blobs": 1,
        "put_blobs that expire": 1,
        "find_blobs": 1,
        "find_blobs of a group": 2,
        "record_task": 1,
        "record_arrival": 2,
        "claim_models": 3,
        "find_models": 1,
        "list_tasks": 2,
        "finish_import of many": 2,
    }


class TestClient:
    def make_ledger(self, region: str | None = None) -> DynamoDBLedger:
        return DynamoDBLedger(
            tasks_table="tasks",
            models_table="models",
            files_table="files",
            blobs_table="blobs",
            region=region,
        )

    @pytest.fixture
    def built(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The services that clients were built for."""
        services: list[str] = []
        create_client = botocore.session.Session.create_client

        def record(session: botocore.session.Session, service: str, *args: Any, **kwargs: Any) -> Any:
            services.append(service)
            return create_client(session, service, *args, **kwargs)

        monkeypatch.setattr(botocore.session.Session, "create_client", record)
        return services

    def test_is_built_before_the_first_call_and_shared_by_the_tables(self, built: list[str]) -> None:
        with open_aws("moto"), open_ledger() as ledger:
            assert built == ["dynamodb"]
            builders.claim(ledger)
            ledger.put_files("task", [builders.make_file()])
            ledger.put_blobs([("sha256:aa", BLOB)], expires_at=None)
        assert built == ["dynamodb"]

    def test_goes_to_the_endpoint_of_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        targets: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                targets.append(self.headers["X-Amz-Target"])
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *args: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
                monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
                monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
                assert self.make_ledger("eu-central-1").find_task("a") is None
            finally:
                server.shutdown()
                thread.join()
        assert targets == ["DynamoDB_20120810.GetItem"]

    def test_that_reaches_nobody_is_storage_unavailable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{bound.getsockname()[1]}")
            with pytest.raises(StorageUnavailableError, match="EndpointConnectionError"):
                self.make_ledger("eu-central-1").find_task("a")
