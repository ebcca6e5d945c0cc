"""The database when DynamoDB does not answer as it should, and when many write at once."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import Any
from uuid import UUID

import botocore.session
import pytest
from botocore.exceptions import EndpointConnectionError
from botocore.retries.quota import RetryQuota

from modelhaul.adapters.dynamodb.audit import DynamoDBAuditLog
from modelhaul.adapters.dynamodb.audit_items import AuditWriter
from modelhaul.adapters.dynamodb.connection import open_connection
from modelhaul.adapters.dynamodb.read_keys import DynamoDBReadKeyRepository
from modelhaul.catalog.quota import StorageQuota
from modelhaul.domain.archives import Archive, SkippedDirectory
from modelhaul.domain.audit import AuditAction, AuditEntry, AuditFilter, describe_key_creation, describe_submission
from modelhaul.domain.digests import Algorithm, Digest
from modelhaul.domain.errors import (
    ImportInProgressError,
    LeaseLostError,
    ModelExistsError,
    StorageQuotaError,
    StorageUnavailableError,
)
from modelhaul.domain.files import FileCounts, Part, SourceFile
from modelhaul.domain.models import Model, ModelPage, ModelPin, ModelStatus, Publication
from modelhaul.domain.objects import Blob
from modelhaul.domain.quotas import QuotaState
from modelhaul.domain.read_keys import create_key
from modelhaul.domain.segments import Claim, FileUpload, KeptUpload, UploadKey
from modelhaul.domain.tasks import Progress, Stage, Task, TaskStatus, Waiting
from modelhaul.ports.audit_log import AuditLog, AuditReader
from modelhaul.ports.content import ContentIndex
from modelhaul.ports.files import FileRepository, GroupLeases
from modelhaul.ports.hub_models import HubModelRepository
from modelhaul.ports.imports import ImportRepository
from modelhaul.ports.models import ModelRepository
from modelhaul.ports.quotas import QuotaRepository
from modelhaul.ports.segments import SegmentRepository
from modelhaul.ports.tasks import TaskRepository
from modelhaul.transfer.segments import SEGMENT_SECONDS, SegmentClaims, SegmentLostError
from tests.contract import database_builders as builders
from tests.contract.backends import REGION, open_aws
from tests.contract.counted_aws import count_calls
from tests.contract.dynamodb import (
    Call,
    Fault,
    MotoDynamoDB,
    Response,
    build_dynamodb_database,
    clear_tables,
    conflict,
    control_moto,
    garble_reply,
    lose_reply,
    open_database,
    refuse,
    set_clock,
)
from tests.fakes.database import Database, build_database
from tests.fakes.tables import InMemoryTables
from tests.http_servers import run_server

TRANSACTION = "TransactWriteItems"
BLOB = Blob("aa", "models/a", 1, "etag")
ARCHIVE = Archive("uploads/a.zip", "a.zip")
DAY = date(2026, 11, 27)
WAITING = Waiting("source-unavailable", "503", builders.at(1), 1, builders.at(2), builders.at(1))
KEY = UploadKey("task#0a1b2c3d", 7, 0)
NEXT_KEY = UploadKey("next#0a1b2c3d", 0, 0)
UPLOAD = FileUpload(upload_id="upload", size=1000, part_size=100)


def make_parts(first: int, end: int) -> list[Part]:
    return [Part(number, f"{number:032x}", number) for number in range(first, end)]


PARTS = make_parts(1, 5)


@pytest.fixture(autouse=True)
def _shorten_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(seconds / 20))


@pytest.fixture(autouse=True)
def _allow_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests share a client, which gives retrying up after about 35 in vain."""
    monkeypatch.setattr(RetryQuota, "acquire", lambda *_: True)


@pytest.fixture(scope="module")
def opened() -> Iterator[tuple[Database, MotoDynamoDB]]:
    with open_aws("moto"), control_moto() as dynamodb, open_database() as database:
        yield database, dynamodb


@pytest.fixture
def dynamodb(opened: tuple[Database, MotoDynamoDB]) -> Iterator[MotoDynamoDB]:
    database, dynamodb = opened
    yield dynamodb
    dynamodb.reset()
    clear_tables(database)


@pytest.fixture
def database(opened: tuple[Database, MotoDynamoDB], dynamodb: MotoDynamoDB) -> Database:
    return opened[0]


@pytest.mark.parametrize("fault", [lose_reply, garble_reply])
class TestLostReply:
    """Each write is done, but its first answer does not arrive.

    moto has no idempotency tokens: botocore's retry meets its own write, as a call repeated from outside does.
    """

    def test_of_claim_import(self, database: Database, dynamodb: MotoDynamoDB, fault: Any) -> None:
        model = builders.make_model()
        dynamodb.inject(TRANSACTION, fault)
        task = builders.claim(database, model)
        assert dynamodb.count(TRANSACTION) == 2
        assert database.tasks.find_task(task.id) == task
        assert builders.read_model(database, model.model_id).task_id == task.id

    def test_of_claim_models(self, database: Database, dynamodb: MotoDynamoDB, fault: Any) -> None:
        task = builders.drop(database)
        models = [builders.make_local_model(name, task.id) for name in ("a", "b")]
        dynamodb.inject(TRANSACTION, fault)
        claimed = database.imports.claim_models(task.id, models, [], check_at=builders.START)
        assert dynamodb.count(TRANSACTION) == 2
        assert claimed is not None
        assert claimed.stage is Stage.PLANNING
        assert {model.task_id for model in database.models.find_models(claimed.model_ids)} == {task.id}

    def test_of_record_task(self, database: Database, dynamodb: MotoDynamoDB, fault: Any) -> None:
        dynamodb.inject("PutItem", fault)
        task = builders.drop(database)
        assert dynamodb.count("PutItem") == 2
        assert builders.read_task(database, task.id) == task

    def test_of_record_arrival(self, database: Database, dynamodb: MotoDynamoDB, fault: Any) -> None:
        task = builders.drop(database, stage=Stage.UPLOADING)
        dynamodb.inject("UpdateItem", fault)
        arrived = database.tasks.record_arrival(task.id, size=7, etag="e", check_at=builders.START)
        assert dynamodb.count("UpdateItem") == 2
        assert arrived is not None
        assert arrived.archive is not None
        assert (arrived.stage, arrived.archive.size) == (Stage.INSPECTING, 7)

    def test_of_record_files(self, database: Database, dynamodb: MotoDynamoDB, fault: Any) -> None:
        large, small = builders.make_file(size=1000), builders.make_file("small", 20)
        task = builders.plan(database, large, small)
        builders.lease(database, task)
        builders.save(database, task, 400)
        records = [builders.make_record(task, large), builders.make_record(task, small, reused=True)]
        for record, counts in zip(records, (FileCounts(1, 1000), FileCounts(2, 1020, 20)), strict=True):
            dynamodb.reset()
            dynamodb.inject(TRANSACTION, fault)
            assert builders.record(database, task, record) == counts
            assert dynamodb.count(TRANSACTION) >= 2
        assert builders.read_group(database, task).records == tuple(records)

    def test_of_record_copied(self, database: Database, dynamodb: MotoDynamoDB, fault: Any) -> None:
        dynamodb.inject("UpdateItem", fault)
        assert database.files.record_copied("plan#0", range(40)).groups_copied == 40
        assert database.files.list_copied("plan#0") == set(range(40))

    def test_of_record_progress(self, database: Database, dynamodb: MotoDynamoDB, fault: Any) -> None:
        task = builders.plan(database, builders.make_file())
        dynamodb.inject("UpdateItem", fault)
        assert database.tasks.record_progress(task.id, FileCounts(1, 1000), check_at=builders.START)
        assert builders.read_task(database, task.id).progress == Progress(1, 1, 1000, 1000)

    def test_of_record_policy(self, database: Database, dynamodb: MotoDynamoDB, fault: Any) -> None:
        task = builders.claim(database)
        dynamodb.inject("UpdateItem", fault)
        assert database.tasks.record_policy(task.id, {"a": builders.POLICY}) == {"a": builders.POLICY}
        assert builders.read_task(database, task.id).policy_results == {"a": builders.POLICY}

    def test_of_finish_import(self, database: Database, dynamodb: MotoDynamoDB, fault: Any) -> None:
        task = builders.claim(database)
        dynamodb.reset()
        dynamodb.inject(TRANSACTION, fault)
        assert database.imports.finish_import(
            task.id, published={task.model_ids[0]: Publication(1, 2)}, check_at=builders.START
        )
        assert dynamodb.count(TRANSACTION) == 2
        assert builders.read_task(database, task.id).status is TaskStatus.DONE
        assert builders.read_model(database, task.model_ids[0]).status is ModelStatus.READY

    def test_of_fail_import(self, database: Database, dynamodb: MotoDynamoDB, fault: Any) -> None:
        task = builders.claim(database)
        dynamodb.inject(TRANSACTION, fault)
        database.imports.fail_import(task.id, builders.GATED, check_at=builders.START)
        assert builders.read_task(database, task.id).error == builders.GATED
        assert builders.read_model(database, task.model_ids[0]).status is ModelStatus.FAILED

    @pytest.mark.parametrize("offset", [900, 0])
    def test_of_record_offset(self, database: Database, dynamodb: MotoDynamoDB, fault: Any, offset: int) -> None:
        task = builders.plan(database, builders.make_file(size=1000))
        builders.lease(database, task)
        builders.save(database, task, 400)
        dynamodb.reset()
        dynamodb.inject(TRANSACTION, fault)
        assert builders.save(database, task, offset).bytes_done == offset
        assert dynamodb.count(TRANSACTION) >= 2
        assert builders.read_group(database, task).offset == offset

    def test_of_the_upload_of_a_large_file(self, database: Database, dynamodb: MotoDynamoDB, fault: Any) -> None:
        """The answer may be False, although the write is done."""
        segments = database.segments
        dynamodb.inject("UpdateItem", fault)
        segments.create_upload(KEY, UPLOAD)
        assert segments.find_upload(KEY) == UPLOAD
        changed = replace(UPLOAD.claim(range(1, 5), "a", until=2), version=1)
        dynamodb.inject("UpdateItem", fault)
        segments.replace_upload(KEY, UPLOAD, changed)
        assert segments.find_upload(KEY) == changed
        hashed = replace(changed, hashed=4, hash_state=b"state", claims=(), version=2)
        dynamodb.inject(TRANSACTION, fault)
        segments.replace_upload(KEY, changed, hashed, PARTS)
        assert segments.find_upload(KEY) == hashed
        assert segments.list_parts(KEY, UPLOAD.upload_id) == PARTS
        dynamodb.inject(TRANSACTION, fault)
        segments.take_over_upload(KEY, hashed, NEXT_KEY)
        assert segments.find_upload(NEXT_KEY) == hashed.hand_over(KEY)[1]
        dynamodb.inject("DeleteItem", fault)
        segments.delete_upload(NEXT_KEY, UPLOAD.upload_id)
        assert segments.find_upload(NEXT_KEY) is None

    def test_of_a_change_by_a_function_is_its_own(self, database: Database, dynamodb: MotoDynamoDB, fault: Any) -> None:
        """No segment is claimed twice, and none is hashed twice."""
        claims = make_claims(database, "a")
        dynamodb.inject("UpdateItem", fault)
        claims.record(source_etag=None, ranged=True)
        dynamodb.inject("UpdateItem", fault)
        assert claims.claim(4, []) == range(1, 5)
        assert claims.upload.claims == (Claim(1, 5, "a", builders.START + SEGMENT_SECONDS),)
        dynamodb.inject(TRANSACTION, fault)
        claims.advance(PARTS, b"state")
        hashed = replace(UPLOAD, hashed=4, hash_state=b"state", version=2)
        assert database.segments.find_upload(KEY) == hashed
        dynamodb.inject("UpdateItem", fault)
        assert claims.claim(4, []) == range(5, 9)
        dynamodb.inject("UpdateItem", fault)
        claims.release()
        assert database.segments.find_upload(KEY) == replace(hashed, version=4)

    def test_of_batches(self, database: Database, dynamodb: MotoDynamoDB, fault: Any) -> None:
        file = builders.make_file()
        dynamodb.inject("BatchWriteItem", fault)
        database.files.put_groups("task#0", [[file]])
        assert [r.file for group in database.files.list_groups("task#0") for r in group.records] == [file]
        dynamodb.inject("BatchWriteItem", fault)
        database.content.put_blobs([("sha256:aa", BLOB)], expires_at=None)
        assert builders.find_blob(database, "sha256:aa") == BLOB

    def test_of_single_writes(self, database: Database, dynamodb: MotoDynamoDB, fault: Any) -> None:
        task = builders.plan(database, builders.make_file())
        dynamodb.inject("UpdateItem", fault)
        assert database.tasks.start_stage(task.id, Stage.PUBLISHING, check_at=builders.START), "it knows itself again"
        assert builders.read_task(database, task.id).stage is Stage.PUBLISHING
        dynamodb.inject("UpdateItem", fault)
        assert builders.lease(database, task).lease_until == builders.START + 90
        plan_id = builders.find_plan(task)
        dynamodb.inject("UpdateItem", fault)
        database.leases.renew_lease(plan_id, 0, owner="a", until=builders.START + 200)
        dynamodb.inject("UpdateItem", fault)
        database.leases.release_lease(plan_id, 0, owner="a")
        assert builders.read_group(database, task).lease_until == 0
        dynamodb.inject("PutItem", fault)
        database.content.put_group("ab", [("sha256:aa", BLOB)], expires_at=1e10)
        assert database.content.find_group("ab") == {"sha256:aa": BLOB}
        database.content.put_blobs([("sha256:aa", BLOB)], expires_at=None)
        dynamodb.inject("DeleteItem", fault)
        database.content.forget_blob("sha256:aa", database.content.find_blobs(["sha256:aa"])["sha256:aa"])
        assert builders.find_blob(database, "sha256:aa") is None

    def test_of_a_deletion(self, database: Database, dynamodb: MotoDynamoDB, fault: Any) -> None:
        task = builders.claim(database)
        (model_id,) = task.model_ids
        database.imports.finish_import(task.id, published={model_id: Publication(1, 1)}, check_at=builders.START)
        database.content.put_blobs([("sha256:aa", BLOB)], expires_at=None)
        dynamodb.inject("UpdateItem", fault)
        leased = database.models.lease_deletion(model_id, owner="a", now=builders.START, until=builders.START + 60)
        assert leased is not None
        assert leased.status is ModelStatus.DELETING
        dynamodb.inject("BatchWriteItem", fault)
        database.content.forget_blobs([("sha256:aa", BLOB.key)])
        assert database.content.find_blobs(["sha256:aa"]) == {}
        dynamodb.inject("DeleteItem", fault)
        database.models.remove_model(model_id, owner="a")
        assert database.models.find_model(model_id) is None

    def test_for_good_is_an_error_and_the_call_can_be_repeated(
        self, database: Database, dynamodb: MotoDynamoDB, fault: Any
    ) -> None:
        file, model = builders.make_file(size=1000), builders.make_model()
        task = builders.make_task(model)
        task = replace(task, plan_id=f"{task.id}#0")
        plan_id = builders.find_plan(task)
        steps: list[tuple[str, Callable[[], object]]] = [
            (TRANSACTION, lambda: database.imports.claim_import(task, [replace(model, task_id=task.id)])),
            ("BatchWriteItem", lambda: database.files.put_groups(plan_id, [[file]])),
            ("UpdateItem", lambda: builders.lease(database, task)),
            (TRANSACTION, lambda: builders.save(database, task, 400)),
            (TRANSACTION, lambda: builders.record(database, task, builders.make_record(task, file))),
            ("UpdateItem", lambda: database.files.record_copied(plan_id, [0])),
            (
                TRANSACTION,
                lambda: database.imports.finish_import(
                    task.id, published={task.model_ids[0]: Publication(1, 1000)}, check_at=builders.START
                ),
            ),
        ]
        results = []
        for operation, step in steps:
            dynamodb.inject(operation, fault, times=3)
            with pytest.raises(StorageUnavailableError):
                step()
            results.append(step())
        assert results[-2:] == [FileCounts(1, 1000, 0, 1), False], "the first call has ended the task"
        assert builders.read_model(database, model.model_id).status is ModelStatus.READY

    def test_for_good_of_what_an_archive_brings_can_be_repeated(
        self, database: Database, dynamodb: MotoDynamoDB, fault: Any
    ) -> None:
        task = builders.make_task(
            builders.make_local_model("a"),
            model_ids=(),
            stage=Stage.UPLOADING,
            archive=ARCHIVE,
        )
        models = [builders.make_local_model(name, task.id) for name in ("a", "b")]
        skipped = [SkippedDirectory("c", ("config.json",))]
        steps: list[tuple[str, Callable[[], Task | bool | None]]] = [
            ("PutItem", lambda: database.tasks.record_task(task)),
            ("UpdateItem", lambda: database.tasks.record_arrival(task.id, size=7, etag="e", check_at=builders.START)),
            (TRANSACTION, lambda: database.imports.claim_models(task.id, models, skipped, check_at=builders.START)),
        ]
        for operation, step in steps:
            dynamodb.inject(operation, fault, times=3)
            with pytest.raises(StorageUnavailableError):
                step()
            written = builders.read_task(database, task.id)
            assert step() in (written, None, False)
            assert builders.read_task(database, task.id) == written
        assert written.stage is Stage.PLANNING
        assert written.archive == replace(ARCHIVE, size=7, etag="e")
        assert written.skipped == tuple(skipped)
        assert database.models.find_models(written.model_ids) == models

    def test_of_release_models(self, database: Database, dynamodb: MotoDynamoDB, fault: Any) -> None:
        task = builders.drop(database)
        models = [builders.make_local_model(name, task.id) for name in ("a", "b")]
        database.imports.claim_models(task.id, models, [], check_at=builders.START)
        database.tasks.start_stage(task.id, Stage.PUBLISHING, check_at=builders.START)
        dynamodb.inject(TRANSACTION, fault)
        database.imports.fail_import(task.id, builders.GATED, check_at=builders.START)
        dynamodb.reset()
        dynamodb.inject("UpdateItem", fault, times=3)
        with pytest.raises(StorageUnavailableError):
            database.imports.release_models(task.id)
        database.imports.release_models(task.id)
        found = database.models.find_models([model.model_id for model in models])
        assert [model.status for model in found] == [ModelStatus.FAILED] * 2


def test_retries_of_a_transaction_carry_one_token(database: Database, dynamodb: MotoDynamoDB) -> None:
    dynamodb.inject(TRANSACTION, lose_reply)
    builders.claim(database)
    first, second = (call.body["ClientRequestToken"] for call in dynamodb.calls if call.operation == TRANSACTION)
    assert first == second


class TestConflict:
    def test_of_the_upload_of_a_large_file_is_tried_again(self, database: Database, dynamodb: MotoDynamoDB) -> None:
        """All functions of a file write to one item, in the partition of their task."""
        segments = database.segments
        claimed = replace(UPLOAD.claim(range(1, 5), "a", until=2), version=1)
        hashed = replace(UPLOAD, hashed=4, version=2)
        dynamodb.inject("UpdateItem", lambda *_: refuse(400, "TransactionConflictException"), times=20)
        assert segments.create_upload(KEY, UPLOAD)
        dynamodb.inject("UpdateItem", lambda *_: refuse(400, "ThrottlingException"), times=20)
        assert segments.replace_upload(KEY, UPLOAD, claimed)
        dynamodb.inject(TRANSACTION, conflict, times=20)
        assert segments.replace_upload(KEY, claimed, hashed, PARTS)
        assert segments.find_upload(KEY) == hashed
        assert segments.list_parts(KEY, UPLOAD.upload_id) == PARTS
        dynamodb.inject(TRANSACTION, conflict, times=20)
        assert segments.take_over_upload(KEY, hashed, NEXT_KEY)
        hashed = hashed.hand_over(KEY)[0]
        dynamodb.inject(TRANSACTION, conflict, times=1000)
        with pytest.raises(StorageUnavailableError, match="DynamoDB write failed"):
            segments.replace_upload(KEY, hashed, replace(hashed, version=4), PARTS)

    def test_is_tried_again(self, database: Database, dynamodb: MotoDynamoDB) -> None:
        file, model = builders.make_file(size=1000), builders.make_model()
        dynamodb.inject(TRANSACTION, conflict, times=3)
        builders.claim(database, model)
        task = builders.plan(database, file)
        builders.lease(database, task)
        dynamodb.inject(TRANSACTION, conflict, times=20)
        builders.save(database, task, 400)
        dynamodb.inject(TRANSACTION, conflict, times=20)
        assert builders.record(database, task, builders.make_record(task, file)) == FileCounts(1, 1000)
        dynamodb.inject(TRANSACTION, conflict, times=3)
        assert database.imports.finish_import(
            task.id, published={task.model_ids[0]: Publication(1, 1000)}, check_at=builders.START
        )

    def test_of_a_single_write_is_tried_again(self, database: Database, dynamodb: MotoDynamoDB) -> None:
        task = builders.plan(database, builders.make_file())
        dynamodb.inject("UpdateItem", lambda *_: refuse(400, "TransactionConflictException"), times=20)
        assert builders.lease(database, task).lease_until == builders.START + 90
        dynamodb.inject("UpdateItem", lambda *_: refuse(400, "TransactionConflictException"), times=100)
        with pytest.raises(StorageUnavailableError, match="DynamoDB write failed"):
            database.tasks.start_stage(task.id, Stage.PUBLISHING, check_at=builders.START)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "code",
        [
            "ThrottlingError",
            "ThrottlingException",
            "ProvisionedThroughputExceeded",
            "ProvisionedThroughputExceededException",
        ],
    )
    def test_with_the_partition_s_limit_is_waited_out(
        self, database: Database, dynamodb: MotoDynamoDB, code: str
    ) -> None:
        """All files of a task are in one partition, and many functions may write at once."""

        def throttle(call: Call, _: Callable[[], Response]) -> Response:
            if code != "ThrottlingError":
                return refuse(400, code)
            reasons = [{"Code": code}] * len(call.body.get("TransactItems", ()))
            return refuse(400, "TransactionCanceledException" if reasons else code, CancellationReasons=reasons)

        file = builders.make_file(size=1000)
        task = builders.plan(database, file)
        plan_id = builders.find_plan(task)
        steps: list[tuple[str, Callable[[], object]]] = [
            ("BatchWriteItem", lambda: database.files.put_groups(plan_id, [[file]])),
            ("UpdateItem", lambda: builders.lease(database, task)),
            ("UpdateItem", lambda: database.leases.renew_lease(plan_id, 0, owner="a", until=builders.START + 90)),
            (TRANSACTION, lambda: builders.save(database, task, 400)),
            (TRANSACTION, lambda: builders.record(database, task, builders.make_record(task, file))),
            ("UpdateItem", lambda: database.files.record_copied(plan_id, [0])),
        ]
        for operation, step in steps:
            dynamodb.inject(operation, throttle, times=20)
            step()
        assert database.files.record_copied(plan_id, []) == FileCounts(1, 1000, 0, 1)
        dynamodb.inject("BatchWriteItem", throttle, times=1000)
        with pytest.raises(StorageUnavailableError, match="DynamoDB write failed"):
            database.files.put_groups("other#0", [[file]])
        dynamodb.reset()
        dynamodb.inject(TRANSACTION, throttle, times=1000)
        with pytest.raises(StorageUnavailableError, match="DynamoDB write failed"):
            builders.claim(database)
        assert dynamodb.count(TRANSACTION) <= 3 * 8, "whoever submits does not wait that long"

    def test_without_end_is_an_outage(self, database: Database, dynamodb: MotoDynamoDB) -> None:
        dynamodb.inject(TRANSACTION, conflict, times=100)
        with pytest.raises(StorageUnavailableError, match=r"DynamoDB write failed \(TransactionConflict\)") as caught:
            builders.claim(database)
        assert caught.value.is_outage
        assert dynamodb.count(TRANSACTION) == 8

    @pytest.mark.parametrize("code", ["ValidationError", "ItemCollectionSizeLimitExceeded"])
    def test_with_an_error_that_lasts_is_not_tried_again(
        self, database: Database, dynamodb: MotoDynamoDB, code: str
    ) -> None:
        reasons = [{"Code": code}, {"Code": "TransactionConflict"}]
        dynamodb.inject(
            TRANSACTION, lambda *_: refuse(400, "TransactionCanceledException", CancellationReasons=reasons), times=100
        )
        with pytest.raises(StorageUnavailableError, match=rf"DynamoDB write failed \(.*{code}") as caught:
            builders.claim(database)
        assert not caught.value.is_outage
        assert dynamodb.count(TRANSACTION) == 1

    def test_with_the_winning_claim_is_import_in_progress(self, database: Database, dynamodb: MotoDynamoDB) -> None:
        model = builders.make_model()
        winner = builders.claim(database, model)
        dynamodb.reset()
        dynamodb.inject(TRANSACTION, conflict)
        with pytest.raises(ImportInProgressError) as caught:
            builders.claim(database, model)
        assert caught.value.task_id == winner.id
        assert dynamodb.count(TRANSACTION) == 1

    def test_is_no_success_of_a_claim(self, database: Database, dynamodb: MotoDynamoDB) -> None:
        for names in (["a"], []):
            task = builders.drop(database)
            models = [builders.make_local_model(name, task.id) for name in names]
            dynamodb.inject(TRANSACTION, conflict, times=3)
            claimed = database.imports.claim_models(task.id, models, [], check_at=builders.START)
            assert claimed is not None
            assert claimed.stage is Stage.PLANNING


class TestRace:
    """Something else happens between what a call reads and what it writes."""

    def test_of_two_functions_with_one_group(self, database: Database, dynamodb: MotoDynamoDB) -> None:
        """The second function leases the group, and may finish it, before the first one writes."""
        first, second = builders.make_file("first", 1000), builders.make_file("second", 20)
        for finishes in (False, True):
            task = builders.plan(database, first, second)
            builders.lease(database, task)
            builders.save(database, task, 400)
            after(dynamodb, "Query", partial(self.take_over, database, task, [first, second] if finishes else [first]))
            records = [builders.make_record(task, file) for file in (first, second)]
            if finishes:
                assert builders.record(database, task, *records) == FileCounts(2, 1020)
            else:
                with pytest.raises(LeaseLostError):
                    builders.record(database, task, *records)
                assert builders.record(database, task, owner="b") == FileCounts(1, 1000)

    def take_over(self, database: Database, task: Task, files: list[SourceFile]) -> None:
        database.leases.release_lease(builders.find_plan(task), 0, owner="a")
        builders.lease(database, task, owner="b")
        builders.record(database, task, *(builders.make_record(task, file) for file in files), owner="b")

    def test_of_an_offset_with_the_file_s_end(self, database: Database, dynamodb: MotoDynamoDB) -> None:
        file = builders.make_file(size=1000)
        task = builders.plan(database, file)
        builders.lease(database, task)
        after(dynamodb, "Query", lambda: builders.save(database, task, 400))
        assert builders.record(database, task, builders.make_record(task, file)) == FileCounts(1, 1000)

    def test_of_two_offsets(self, database: Database, dynamodb: MotoDynamoDB) -> None:
        task = builders.plan(database, builders.make_file(size=1000))
        plan_id = builders.find_plan(task)
        builders.lease(database, task)
        after(dynamodb, "Query", lambda: builders.save(database, task, 400))
        assert builders.save(database, task, 700).bytes_done == 700
        after(dynamodb, "Query", lambda: database.leases.release_lease(plan_id, 0, owner="a"))
        with pytest.raises(LeaseLostError):
            builders.save(database, task, 900)
        assert database.files.record_copied(plan_id, []).bytes_done == 700

    def test_of_two_functions_that_claim_a_segment(self, database: Database, dynamodb: MotoDynamoDB) -> None:
        first, second = make_claims(database, "a"), make_claims(database, "b")
        first.record(source_etag=None, ranged=True)
        second.find()
        assert second.claim(4, []) == range(1, 5)
        assert first.claim(4, []) == range(5, 9), "it has not read the claim of the second function"
        assert [(c.owner, c.first) for c in first.upload.claims] == [("b", 1), ("a", 5)]
        second.advance(PARTS, b"state")
        with pytest.raises(SegmentLostError):
            second.advance(make_parts(5, 9), b"other state")
        first.refresh()
        first.advance(make_parts(5, 9), b"last state")
        found = database.segments.find_upload(KEY)
        assert found is not None
        assert (found.hashed, found.hash_state, found.claims) == (8, b"last state", ())
        assert database.segments.list_parts(KEY, UPLOAD.upload_id) == make_parts(1, 9)

    def test_of_a_late_function_with_the_one_that_took_its_segment_over(
        self, database: Database, dynamodb: MotoDynamoDB
    ) -> None:
        """What the late one has stored is not recorded, even if it does not know yet."""
        late = make_claims(database, "a")
        late.record(source_etag=None, ranged=True)
        late.claim(4, [])
        other = replace(make_claims(database, "b"), clock=lambda: builders.START + SEGMENT_SECONDS)
        other.find()
        assert other.claim(4, []) == range(1, 5)
        other.advance(PARTS, b"state")
        with pytest.raises(SegmentLostError):
            late.advance([replace(part, crc32=0) for part in PARTS], b"late state")
        found = database.segments.find_upload(KEY)
        assert found is not None
        assert (found.hashed, found.hash_state) == (4, b"state")
        assert database.segments.list_parts(KEY, UPLOAD.upload_id) == PARTS

    def test_of_a_claim_with_the_upload_s_end(self, database: Database, dynamodb: MotoDynamoDB) -> None:
        claims = make_claims(database, "a")
        claims.record(source_etag=None, ranged=True)
        database.segments.delete_upload(KEY, UPLOAD.upload_id)
        database.segments.create_upload(KEY, replace(UPLOAD, upload_id="another"))
        with pytest.raises(LeaseLostError):
            claims.claim(4, [])

    def test_of_two_leases(self, database: Database, dynamodb: MotoDynamoDB) -> None:
        task = builders.plan(database, builders.make_file())
        after(dynamodb, "Query", lambda: builders.lease(database, task, owner="b"))
        now, until = builders.START, builders.START + 90
        assert database.leases.lease_group(builders.find_plan(task), 0, owner="a", now=now, until=until) is None

    def test_of_progress_with_the_task_s_end(self, database: Database, dynamodb: MotoDynamoDB) -> None:
        task = builders.plan(database, builders.make_file())

        def end(_: Call, do: Callable[[], Response]) -> Response:
            database.imports.fail_import(task.id, builders.GATED, check_at=builders.START)
            return do()

        dynamodb.inject("UpdateItem", end)
        assert not database.tasks.record_progress(task.id, FileCounts(1, 1000), check_at=builders.START)
        assert builders.read_task(database, task.id).progress == task.progress

    def test_of_two_ends(self, database: Database, dynamodb: MotoDynamoDB) -> None:
        task = builders.claim(database)
        after(
            dynamodb,
            "GetItem",
            lambda: database.imports.fail_import(task.id, builders.GATED, check_at=builders.START),
        )
        assert not database.imports.finish_import(
            task.id, published={task.model_ids[0]: Publication(1, 1)}, check_at=builders.START
        )
        assert builders.read_task(database, task.id).error == builders.GATED
        task = builders.claim(database)
        after(
            dynamodb,
            "GetItem",
            lambda: database.imports.finish_import(
                task.id, published={task.model_ids[0]: Publication(1, 1)}, check_at=builders.START
            ),
        )
        assert not database.imports.fail_import(task.id, builders.GATED, check_at=builders.START)
        assert builders.read_model(database, task.model_ids[0]).status is ModelStatus.READY

    def test_of_an_archive_s_claim_with_its_task_s_end(self, database: Database, dynamodb: MotoDynamoDB) -> None:
        task = builders.drop(database)
        after(
            dynamodb,
            "GetItem",
            lambda: database.imports.fail_import(task.id, builders.GATED, check_at=builders.START),
        )
        models = [builders.make_local_model("a", task.id)]
        ended = database.imports.claim_models(task.id, models, [], check_at=builders.START)
        assert ended == builders.read_task(database, task.id)
        assert ended.status is TaskStatus.FAILED
        assert database.models.find_models([models[0].model_id]) == []

    def test_of_an_arrival_with_its_task_s_end(self, database: Database, dynamodb: MotoDynamoDB) -> None:
        task = builders.drop(database, stage=Stage.UPLOADING)
        after(
            dynamodb,
            "GetItem",
            lambda: database.imports.fail_import(task.id, builders.GATED, check_at=builders.START),
        )
        ended = database.tasks.record_arrival(task.id, size=7, etag="other", check_at=builders.START)
        assert ended == builders.read_task(database, task.id)
        assert (ended.status, ended.archive) == (TaskStatus.FAILED, task.archive)


def make_claims(database: Database, owner: str) -> SegmentClaims:
    """Return the claims of a function that has started the upload."""
    claims = SegmentClaims(repository=database.segments, key=KEY, owner=owner, clock=lambda: builders.START)
    claims.start(UPLOAD)
    return claims


def after(dynamodb: MotoDynamoDB, operation: str, step: Callable[[], object]) -> None:
    def fault(_: Call, do: Callable[[], Response]) -> Response:
        answer = do()
        step()
        return answer

    dynamodb.inject(operation, fault)


@pytest.fixture(params=["fake", "moto"])
def contended(request: pytest.FixtureRequest) -> Database:
    if request.param == "fake":
        return build_database(InMemoryTables())
    request.getfixturevalue("dynamodb").conflicts = True
    database = request.getfixturevalue("database")
    assert isinstance(database, Database)
    return database


def test_of_fifty_simultaneous_claims_one_wins(contended: Database) -> None:
    model = builders.make_model()
    tasks = [builders.make_task(model) for _ in range(50)]
    start = threading.Barrier(len(tasks))

    def submit(number: int) -> str:
        task = tasks[number]
        start.wait()
        try:
            contended.imports.claim_import(task, [replace(model, task_id=task.id)])
        except ImportInProgressError as error:
            return error.task_id
        return task.id

    with ThreadPoolExecutor(len(tasks)) as pool:
        winners = set(pool.map(submit, range(len(tasks))))
    assert len(winners) == 1
    assert [task.id for task in tasks if contended.tasks.find_task(task.id)] == list(winners)
    assert {builders.read_model(contended, model.model_id).task_id} == winners


def test_of_simultaneous_claims_that_overlap_one_wins_whole(contended: Database) -> None:
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
                    contended.imports.claim_models(task.id, models, [], check_at=builders.START)
                else:
                    model_ids = tuple(model.model_id for model in models)
                    contended.imports.claim_import(replace(task, model_ids=model_ids), models)
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
        own = contended.models.find_model(builders.make_local_model(f"own-{number}").model_id)
        assert (own is not None) == (task.id == winner)
        found = contended.tasks.find_task(task.id)
        if task.id == winner:
            assert found is not None
            assert len(found.model_ids) == 2
        else:
            assert found == (task if task.stage is Stage.INSPECTING else None)
    assert builders.read_model(contended, shared().model_id).task_id == winner


def shared() -> Model:
    return builders.make_local_model("shared")


def test_simultaneous_deliveries_of_one_archive_all_succeed(contended: Database) -> None:
    task = builders.drop(contended)
    models = [builders.make_local_model(name, task.id) for name in ("a", "b", "c")]
    start = threading.Barrier(8)

    def accept(_: int) -> Task | None:
        start.wait()
        while True:
            try:
                return contended.imports.claim_models(task.id, models, [], check_at=builders.START + 500)
            except StorageUnavailableError:
                continue

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(accept, range(8)))
    claimed = builders.read_task(contended, task.id)
    assert answers == [claimed] * 8
    assert (claimed.stage, claimed.check_at) == (Stage.PLANNING, builders.START + 500)
    assert contended.models.find_models(claimed.model_ids) == models


def test_simultaneous_workers_and_duplicates_count_exactly(contended: Database) -> None:
    """Groups 0 and 32 share a counter. Each group has two deliveries, which take the lease from each other."""
    groups = [[builders.make_file(f"{number}", number + 1)] for number in range(33)]
    task = builders.plan_groups(contended, *groups)
    chosen = [0, 1, 32, 0, 1, 32]
    start = threading.Barrier(len(chosen))

    def work(delivery: int) -> FileCounts:
        number, owner = chosen[delivery], f"{delivery}"
        record = builders.make_record(task, groups[number][0], reused=True)
        start.wait()
        while True:
            try:
                contended.leases.lease_group(
                    builders.find_plan(task), number, owner=owner, now=builders.START, until=builders.START
                )
                return builders.record(contended, task, record, number=number, owner=owner)
            except (StorageUnavailableError, LeaseLostError):
                continue

    with ThreadPoolExecutor(len(chosen)) as pool:
        seen = list(pool.map(work, range(len(chosen))))
    exact = FileCounts(3, 1 + 2 + 33, 1 + 2 + 33)
    assert contended.files.record_copied(builders.find_plan(task), []) == exact
    assert exact in seen


def create_quota(database: Database, limit: int) -> StorageQuota:
    return StorageQuota(limit, database.quotas, database.tasks, database.models, lambda: builders.START)


def test_simultaneous_reservations_stay_within_the_quota(contended: Database) -> None:
    tasks = [builders.claim(contended) for _ in range(8)]
    quota = create_quota(contended, 500)
    start = threading.Barrier(len(tasks))

    def reserve(task: Task) -> bool:
        start.wait()
        while True:
            try:
                quota.reserve(task, 150)
            except StorageUnavailableError:
                continue
            except StorageQuotaError:
                return False
            return True

    with ThreadPoolExecutor(len(tasks)) as pool:
        accepted = list(pool.map(reserve, tasks))
    assert sum(accepted) == 3
    assert contended.quotas.read_state().bound == 450


@pytest.mark.parametrize("fault", [lose_reply, garble_reply])
def test_a_reservation_whose_response_is_lost_is_made_once(
    database: Database, dynamodb: MotoDynamoDB, fault: Fault
) -> None:
    task, quota = builders.claim(database), create_quota(database, 100)
    dynamodb.inject("PutItem", fault)
    quota.reserve(task, 100)
    assert dict(database.quotas.read_state().reserved) == {task.id: 100}


def test_most_submissions_under_a_quota_read_one_item(database: Database, dynamodb: MotoDynamoDB) -> None:
    quota = create_quota(database, 100)
    quota.reserve(builders.claim(database), 50)
    dynamodb.reset()
    quota.check_submission(50)
    assert [call.operation for call in dynamodb.calls] == ["GetItem"]


CALLS: dict[str, Callable[[Database], object]] = {
    "claim_import": builders.claim,
    "record_task": builders.drop,
    "record_arrival": lambda database: database.tasks.record_arrival("a", size=1, etag="b", check_at=1),
    "claim_models": lambda database: database.imports.claim_models(
        "a", [builders.make_local_model("b", "a")], [], check_at=1
    ),
    "list_tasks": lambda database: database.tasks.list_tasks(limit=1),
    "find_models": lambda database: database.models.find_models(["a"]),
    "list_models": lambda database: database.models.list_models(limit=1),
    "pin_model": lambda database: database.models.pin_model("a", ModelPin(builders.at(1))),
    "list_ready": lambda database: list(database.models.list_ready()),
    "lease_deletion": lambda database: database.models.lease_deletion("a", owner="b", now=1, until=2),
    "remove_model": lambda database: database.models.remove_model("a", owner="b"),
    "read_state": lambda database: database.quotas.read_state(),
    "save_state": lambda database: database.quotas.save_state(QuotaState()),
    "list_deleting": lambda database: database.models.list_deleting(1, 1),
    "find_task": lambda database: database.tasks.find_task("a"),
    "find_model": lambda database: database.models.find_model("a"),
    "put_groups": lambda database: database.files.put_groups("a#0", [[builders.make_file()]]),
    "list_groups": lambda database: list(database.files.list_groups("a#0")),
    "find_groups": lambda database: database.files.find_groups("a#0", [0]),
    "count_files": lambda database: database.files.count_files("a#0"),
    "record_copied": lambda database: database.files.record_copied("a#0", [0]),
    "list_copied": lambda database: database.files.list_copied("a#0"),
    "record_progress": lambda database: database.tasks.record_progress("a", FileCounts(), check_at=1),
    "start_stage": lambda database: database.tasks.start_stage("a", Stage.PUBLISHING, check_at=1),
    "postpone_check": lambda database: database.tasks.postpone_check("a", check_at=1),
    "record_wait": lambda database: database.tasks.record_wait("a", WAITING, stages={Stage.PLANNING}, check_at=1),
    "record_policy": lambda database: database.tasks.record_policy("a", {"b": builders.POLICY}),
    "lease_group": lambda database: database.leases.lease_group("a#0", 0, owner="c", now=1, until=2),
    "renew_lease": lambda database: database.leases.renew_lease("a#0", 0, owner="c", until=2),
    "release_lease": lambda database: database.leases.release_lease("a#0", 0, owner="c"),
    "record_offset": lambda database: database.leases.record_offset("a#0", 0, 0, owner="c", until=2),
    "record_files": lambda database: database.leases.record_files("a#0", 0, [], owner="c", until=2),
    "find_upload": lambda database: database.segments.find_upload(KEY),
    "create_upload": lambda database: database.segments.create_upload(KEY, UPLOAD),
    "replace_upload": lambda database: database.segments.replace_upload(KEY, UPLOAD, UPLOAD),
    "take_over_upload": lambda database: database.segments.take_over_upload(KEY, UPLOAD, NEXT_KEY),
    "delete_upload": lambda database: database.segments.delete_upload(KEY, "upload"),
    "list_uploads": lambda database: database.segments.list_uploads(KEY.plan_id),
    "list_parts": lambda database: database.segments.list_parts(KEY, "upload"),
    "record_signature": lambda database: database.models.record_signature("a", builders.SIGNATURE, task_id="t"),
    "finish_import": lambda database: database.imports.finish_import("a", published={}, check_at=1),
    "fail_import": lambda database: database.imports.fail_import("a", builders.GATED, check_at=1),
    "release_models": lambda database: database.imports.release_models("a"),
    "unwatch_task": lambda database: database.tasks.unwatch_task("a"),
    "list_pending": lambda database: database.tasks.list_pending(1),
    "list_due": lambda database: database.tasks.list_due(1, 1),
    "find_blobs": lambda database: database.content.find_blobs(["a"]),
    "put_blobs": lambda database: database.content.put_blobs([("sha256:aa", BLOB)], expires_at=None),
    "find_group": lambda database: database.content.find_group("a"),
    "put_group": lambda database: database.content.put_group("a", [("sha256:aa", BLOB)], expires_at=1),
    "find_kept_upload": lambda database: database.content.find_kept_upload("a"),
    "put_kept_upload": lambda database: database.content.put_kept_upload("a", KeptUpload(KEY, 1)),
    "forget_blob": lambda database: database.content.forget_blob("a", BLOB),
    "forget_blobs": lambda database: database.content.forget_blobs([("a", "b")]),
    "find_entry": lambda database: database.hub_models.find_entry("a/b"),
    "save_name": lambda database: database.hub_models.save_name("a", "a/b"),
    "save_revision": lambda database: database.hub_models.save_revision(
        builders.make_model().resolved, builders.at(builders.START)
    ),
    "record": lambda database: database.audit.record(make_entry()),
    "read_entry": lambda database: database.audit_reader.read_entry("a"),
    "list_entries": lambda database: database.audit_reader.list_entries(limit=1),
    "index_model": lambda database: database.hub_models.index_model("a", "a/b"),
    "record_read": lambda database: database.hub_models.record_read("a", DAY),
}


def test_the_calls_below_are_all_of_the_ports() -> None:
    repositories = (
        TaskRepository,
        ModelRepository,
        ImportRepository,
        FileRepository,
        GroupLeases,
        SegmentRepository,
        ContentIndex,
        HubModelRepository,
        QuotaRepository,
        AuditLog,
        AuditReader,
    )
    assert {name for port in repositories for name in vars(port) if not name.startswith("_")} == set(CALLS)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_refusal_becomes_storage_unavailable_without_names(
    database: Database, dynamodb: MotoDynamoDB, call: Callable[[Database], object]
) -> None:
    words = "no access to arn:aws:dynamodb:us-east-1:123456789012:table/tasks"
    dynamodb.inject("", lambda *_: refuse(400, "AccessDeniedException", words), times=100)
    with pytest.raises(StorageUnavailableError, match="AccessDeniedException") as caught:
        call(database)
    assert "arn:" not in caught.value.detail
    assert "tasks" not in caught.value.detail
    assert not caught.value.is_outage


def refuse_connection(*_: object) -> Response:
    raise EndpointConnectionError(endpoint_url="https://aws")


@pytest.mark.parametrize(
    ("fault", "is_outage"),
    [
        (lambda *_: refuse(500, "InternalServerError", "failed"), True),
        (lambda *_: refuse(503, "ServiceUnavailable", "failed"), True),
        (lambda *_: refuse(400, "ThrottlingException", "slow down"), True),
        (lambda *_: refuse(400, "ProvisionedThroughputExceededException", "slow down"), True),
        (lambda *_: refuse(400, "ResourceNotFoundException", "no table"), False),
        (lambda *_: refuse(400, "UnrecognizedClientException", "no key"), False),
        (refuse_connection, True),
    ],
    ids=["500", "503", "throttled", "throughput", "no-table", "no-key", "refused"],
)
def test_an_error_that_may_be_temporary_is_an_outage(
    database: Database, dynamodb: MotoDynamoDB, fault: Any, is_outage: bool
) -> None:
    for call in (CALLS["find_task"], CALLS["record_progress"], CALLS["finish_import"], CALLS["list_groups"]):
        dynamodb.inject("", fault, times=100)
        with pytest.raises(StorageUnavailableError) as caught:
            call(database)
        assert caught.value.is_outage is is_outage, caught.value
        dynamodb.reset()


def test_reads_are_strongly_consistent(database: Database, dynamodb: MotoDynamoDB) -> None:
    task = builders.plan(database, builders.make_file())
    builders.lease(database, task)
    builders.save(database, task, 400)
    for call in CALLS.values():
        with suppress(LeaseLostError):
            call(database)
    reads = [c.body for c in dynamodb.calls if c.operation in ("GetItem", "Query") and "IndexName" not in c.body]
    reads += [r for c in dynamodb.calls if c.operation == "BatchGetItem" for r in c.body["RequestItems"].values()]
    assert len(reads) > 5
    assert all(read.get("ConsistentRead") for read in reads)


def test_records_expire(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    set_clock(database, lambda: builders.START)
    tables: Any = database
    task, failed = builders.plan(database, builders.make_file()), builders.claim(database)
    builders.lease(database, task)
    builders.save(database, task, 0)
    database.files.record_copied(builders.find_plan(task), [0])
    key = replace(KEY, plan_id=builders.find_plan(task))
    database.segments.create_upload(key, UPLOAD)
    database.segments.replace_upload(key, UPLOAD, replace(UPLOAD, hashed=4, version=1), PARTS)
    assert tables.tasks._tasks.get(task.id).expires_at is None
    items = list(tables.files._files.query(task.plan_id))
    assert {item.expires_at.timestamp() for item in items} == {builders.START + 14 * 86_400}
    assert len(items) == 6, "the group, its state, a counter, the copied groups, an upload and its parts"
    database.imports.finish_import(task.id, published={task.model_ids[0]: Publication(1, 1)}, check_at=builders.START)
    database.imports.fail_import(failed.id, builders.GATED, check_at=builders.START)
    for ended in (task, failed):
        assert tables.tasks._tasks.get(ended.id).expires_at.timestamp() == builders.START + 90 * 86_400


def test_refusals_say_which_models_and_why(database: Database) -> None:
    hub, local = builders.make_model(), builders.make_local_model("My-Model")
    first = builders.make_task(hub, model_ids=(hub.model_id, local.model_id))
    claims = [replace(hub, task_id=first.id), replace(local, task_id=first.id)]
    database.imports.claim_import(first, claims)
    second = builders.make_task(hub)
    for models, words in (
        ([hub], f"{hub.resolved.name} at commit {hub.resolved.commit[:12]} is being imported by task {first.id}"),
        ([local, hub], f"My-Model is being imported by task {first.id}"),
    ):
        with pytest.raises(ImportInProgressError) as running:
            database.imports.claim_import(second, models)
        assert running.value.detail == f"{words}."
    database.imports.finish_import(
        first.id, published=dict.fromkeys(first.model_ids, Publication(1, 1)), check_at=builders.START
    )
    for models, words in (
        ([local], "My-Model already exists."),
        ([local, hub], f"My-Model, {hub.resolved.name} at commit {hub.resolved.commit[:12]} already exist."),
    ):
        with pytest.raises(ModelExistsError) as ready:
            database.imports.claim_import(second, models)
        assert ready.value.detail == words


def test_a_list_reads_a_bounded_number_of_tasks(database: Database, dynamodb: MotoDynamoDB) -> None:
    tasks = [builders.drop(database, created_at=builders.at(builders.START + number)) for number in range(25)]
    database.imports.fail_import(tasks[0].id, builders.GATED, check_at=builders.START)
    dynamodb.reset()
    first = database.tasks.list_tasks(status=TaskStatus.FAILED, limit=2)
    assert first.tasks == ()
    assert first.cursor is not None
    assert dynamodb.count("Query") == 10
    second = database.tasks.list_tasks(status=TaskStatus.FAILED, limit=2, cursor=first.cursor)
    assert [task.id for task in second.tasks] == [tasks[0].id]
    assert second.cursor is None


def publish_models(database: Database, names: Sequence[str]) -> None:
    """Make READY models, oldest first."""
    for number, name in enumerate(names):
        resolved = replace(builders.make_model().resolved, name=name)
        moment = builders.at(builders.START + number)
        model = replace(builders.make_model(), model_id=resolved.model_id, resolved=resolved, created_at=moment)
        task = builders.claim(database, model)
        database.imports.finish_import(task.id, published={model.model_id: Publication(1, 1)}, check_at=builders.START)


def test_a_list_looks_at_a_bounded_number_of_models(
    database: Database, dynamodb: MotoDynamoDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelhaul.adapters.dynamodb.models._FILTERED_PAGE_SIZE", 2)
    publish_models(database, ["org/first", *(f"org/m{number}" for number in range(24))])
    dynamodb.reset()
    first = database.models.list_models(name="FIRST", limit=20)
    assert first.models == ()
    assert first.cursor is not None
    assert dynamodb.count("Query") == 10
    second = database.models.list_models(name="FIRST", limit=20, cursor=first.cursor)
    assert [model.resolved.name for model in second.models] == ["org/first"]
    assert second.cursor is None
    dynamodb.reset()
    assert len(database.models.list_models(limit=20).models) == 20
    assert [call.operation for call in dynamodb.calls] == ["Query"], "without a filter nothing is read in vain"


def test_a_list_by_patterns_ends_after_a_bounded_number_of_other_models(
    database: Database, dynamodb: MotoDynamoDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cursor at one of them would show that it exists."""
    monkeypatch.setattr("modelhaul.adapters.dynamodb.models._FILTERED_PAGE_SIZE", 2)
    publish_models(
        database, ["org/1", *(f"x/m{n}" for n in range(24)), "org/2", *(f"x/n{n}" for n in range(10)), "org/3"]
    )
    dynamodb.reset()
    first = database.models.list_models(hub_ids=["org/*"], limit=20)
    assert [model.resolved.name for model in first.models] == ["org/3", "org/2"]
    assert dynamodb.count("Query") == 10
    assert first.cursor == database.models.list_models(limit=12).cursor, "the cursor is that of org/2"
    dynamodb.reset()
    assert database.models.list_models(hub_ids=["org/*"], limit=20, cursor=first.cursor) == ModelPage((), None)
    assert dynamodb.count("Query") == 10


def test_pending_tasks_are_found_behind_ended_ones(
    database: Database, dynamodb: MotoDynamoDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelhaul.adapters.dynamodb.tasks._WATCHED_PAGE_SIZE", 2)
    set_clock(database, lambda: builders.START)
    for _ in range(6):
        database.imports.fail_import(builders.claim(database).id, builders.GATED, check_at=builders.START + 50)
    pending = [builders.claim(database, check_at=builders.START + 100 + number) for number in range(4)]
    dynamodb.reset()
    found = database.tasks.list_pending(2)
    assert {task.id for task in found} == {task.id for task in pending[:2]}
    assert [call.operation for call in dynamodb.calls] == ["Query"] * 3


def test_pending_tasks_are_found_however_many_failed_ones_are_not_cleaned_up(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep cleans up 100, so that thousands may be overdue for hours."""
    monkeypatch.setattr("modelhaul.adapters.dynamodb.tasks._WATCHED_PAGE_SIZE", 1)
    set_clock(database, lambda: builders.START)
    for _ in range(20):
        database.imports.fail_import(builders.claim(database).id, builders.GATED, check_at=builders.START - 100)
    pending = builders.claim(database)
    assert [task.id for task in database.tasks.list_pending(2)] == [pending.id]


def test_few_of_many_pending_tasks_are_read(database: Database, dynamodb: MotoDynamoDB) -> None:
    """DynamoDB charges for each item that a query reads, also for those that are not returned."""
    set_clock(database, lambda: builders.START)
    for _ in range(12):
        builders.claim(database)
    dynamodb.reset()
    assert len(database.tasks.list_pending(3)) == 3
    assert [call.body["Limit"] for call in dynamodb.calls] == [6]


def test_a_list_leaves_out_tasks_that_are_in_the_index_only(database: Database, dynamodb: MotoDynamoDB) -> None:
    gone, *_ = [builders.drop(database, created_at=builders.at(builders.START + number)) for number in range(3)]

    def expire(call: Call, do: Callable[[], Response]) -> Response:
        status, _, body = do()  # the headers have the checksum of this body
        answer = json.loads(body)
        for table, items in answer["Responses"].items():
            answer["Responses"][table] = [item for item in items if item["id"]["S"] != gone.id]
        return status, {}, json.dumps(answer)

    dynamodb.inject("BatchGetItem", expire)
    page = database.tasks.list_tasks(limit=3)
    assert len(page.tasks) == 2
    assert gone not in page.tasks


def test_items_that_dynamodb_keeps_back_are_sent_again(database: Database, dynamodb: MotoDynamoDB) -> None:
    def keep_back(call: Call, _: Callable[[], Response]) -> Response:
        return 200, {}, json.dumps({"UnprocessedItems": call.body["RequestItems"]})

    dynamodb.inject("BatchWriteItem", keep_back, times=5)
    database.content.put_blobs([("sha256:aa", BLOB)], expires_at=None)
    assert builders.find_blob(database, "sha256:aa") == BLOB
    dynamodb.inject("BatchWriteItem", keep_back, times=1_000)
    with pytest.raises(StorageUnavailableError):
        database.content.put_blobs([("sha256:bb", BLOB)], expires_at=None)
    with pytest.raises(StorageUnavailableError):
        database.content.forget_blobs([("sha256:aa", BLOB.key)])
    assert builders.find_blob(database, "sha256:aa") == BLOB
    dynamodb.reset()
    dynamodb.inject("BatchWriteItem", keep_back, times=5)
    database.content.forget_blobs([("sha256:aa", BLOB.key)])
    assert builders.find_blob(database, "sha256:aa") is None


def test_content_of_thousands_of_models_takes_one_request(database: Database, dynamodb: MotoDynamoDB) -> None:
    """To find it, and to forget one of its objects."""
    keys = [f"models/huggingface/org/name-{number:04}/{number:040x}/tokenizer.json" for number in range(2000)]
    database.content.put_blobs([("sha256:aa", Blob("a" * 64, key, 1, "e" * 32)) for key in keys], expires_at=None)
    dynamodb.reset()
    with count_calls() as usage:
        found = builders.find_blob(database, "sha256:aa")
    assert found is not None
    assert (usage.calls, usage.read_units) == ({"dynamodb Query": 1}, 1)
    with count_calls() as usage:
        database.content.forget_blobs([("sha256:aa", found.key)])
    assert (usage.calls, usage.write_units) == ({"dynamodb BatchWriteItem": 1, "dynamodb BatchGetItem": 1}, 1)
    other = builders.find_blob(database, "sha256:aa")
    assert other is not None
    assert other.key in set(keys) - {found.key}


class TestEntriesOfEarlierVersions:
    """They have one object for each digest, in the table of blobs."""

    EXPIRING = Blob("aa", "staging/t/a", 1, "two")

    @pytest.fixture(autouse=True)
    def record(self, database: Database) -> None:
        set_clock(database, lambda: builders.START)
        table: Any = database
        for digest, blob, expires_at in (
            ("sha256:aa", BLOB, None),
            ("git-sha1:aa", BLOB, None),
            ("staged:sha256:aa", self.EXPIRING, builders.at(builders.START + 1)),
            ("staged:sha256:bb", self.EXPIRING, builders.at(builders.START)),
        ):
            table.content._blobs(
                digest, sha256=blob.sha256, key=blob.key, size=blob.size, etag=blob.etag, expires_at=expires_at
            ).save()

    def test_are_found_if_there_are_no_others(self, database: Database, dynamodb: MotoDynamoDB) -> None:
        digests = ["sha256:aa", "git-sha1:aa", "sha256:bb", "sha256:cc"]
        assert database.content.find_blobs(digests) == {"sha256:aa": BLOB, "git-sha1:aa": BLOB}
        newer = replace(BLOB, key="models/b")
        database.content.put_blobs([(digest, newer) for digest in digests], expires_at=None)
        dynamodb.calls.clear()
        assert database.content.find_blobs(digests) == dict.fromkeys(digests, newer)
        assert dynamodb.count("BatchGetItem") == 0
        database.content.forget_blobs((digest, newer.key) for digest in digests)
        assert database.content.find_blobs(digests) == {"sha256:aa": BLOB, "git-sha1:aa": BLOB}

    def test_are_forgotten_when_a_model_is_deleted(self, database: Database) -> None:
        database.content.forget_blobs([("sha256:aa", "models/b"), ("git-sha1:aa", "models/b")])
        assert builders.find_blob(database, "sha256:aa") == BLOB
        for _ in range(2):
            database.content.forget_blobs([("sha256:aa", "models/b"), ("sha256:aa", BLOB.key), ("git-sha1:aa", "x")])
        assert database.content.find_blobs(["sha256:aa", "git-sha1:aa"]) == {
            "sha256:aa": self.EXPIRING,
            "git-sha1:aa": BLOB,
        }

    def test_are_forgotten_when_their_object_is_gone(self, database: Database) -> None:
        for expected in (BLOB, self.EXPIRING):
            found = database.content.find_blobs(["sha256:aa"])["sha256:aa"]
            assert found == expected
            for _ in range(2):
                database.content.forget_blob("sha256:aa", found)
        assert builders.find_blob(database, "sha256:aa") is None


def test_calls_to_dynamodb_are_few(database: Database, dynamodb: MotoDynamoDB) -> None:
    files = [builders.make_file(f"{number:03}", 1) for number in range(90)]
    counted: dict[str, int] = {}

    def measure(name: str, step: Callable[[], object]) -> None:
        dynamodb.calls.clear()
        step()
        counted[name] = len(dynamodb.calls)

    measure("claim_import", lambda: builders.claim(database))
    task = builders.claim(database)
    task = replace(task, plan_id=f"{task.id}#0")
    plan_id = builders.find_plan(task)
    measure("put_groups", lambda: database.files.put_groups(plan_id, [files]))
    measure("list_groups", lambda: list(database.files.list_groups(plan_id)))
    measure("find_groups", lambda: database.files.find_groups(plan_id, range(40)))
    measure("lease_group", lambda: builders.lease(database, task))
    measure("renew_lease", lambda: database.leases.renew_lease(plan_id, 0, owner="a", until=builders.START))
    measure("record_offset", lambda: builders.save(database, task, 0))
    measure("create_upload", lambda: database.segments.create_upload(KEY, UPLOAD))
    measure("replace_upload", lambda: database.segments.replace_upload(KEY, UPLOAD, replace(UPLOAD, version=1)))
    known, changed = replace(UPLOAD, version=1), replace(UPLOAD, version=2)
    measure("replace_upload with parts", lambda: database.segments.replace_upload(KEY, known, changed, PARTS))
    measure("find_upload", lambda: database.segments.find_upload(KEY))
    measure("list_parts", lambda: database.segments.list_parts(KEY, UPLOAD.upload_id))
    measure("list_uploads", lambda: database.segments.list_uploads(KEY.plan_id))
    measure("take_over_upload", lambda: database.segments.take_over_upload(KEY, changed, NEXT_KEY))
    measure("delete_upload", lambda: database.segments.delete_upload(NEXT_KEY, UPLOAD.upload_id))
    measure("put_kept_upload", lambda: database.content.put_kept_upload("sha256:aa", KeptUpload(KEY, 1)))
    measure("find_kept_upload", lambda: database.content.find_kept_upload("sha256:aa"))
    records = [builders.make_record(task, file) for file in files]
    measure("record_files", lambda: builders.record(database, task, *records))
    measure(
        "record_progress",
        lambda: database.tasks.record_progress(task.id, FileCounts(90, 90), check_at=builders.START),
    )
    measure("record_copied", lambda: database.files.record_copied(plan_id, range(40)))
    measure("start_stage", lambda: database.tasks.start_stage(task.id, Stage.PUBLISHING, check_at=builders.START))
    measure(
        "finish_import",
        lambda: database.imports.finish_import(
            task.id, published={task.model_ids[0]: Publication(1, 1)}, check_at=builders.START
        ),
    )
    pairs = [("sha256:aa", BLOB), ("git-sha1:aa", BLOB)]
    measure("put_blobs that expire", lambda: database.content.put_blobs(pairs, expires_at=1))
    measure("put_blobs", lambda: database.content.put_blobs(pairs, expires_at=None))
    measure("find_blobs", lambda: database.content.find_blobs(["sha256:aa"]))
    measure("find_blobs of a group", lambda: database.content.find_blobs(str(file.digest) for file in files))
    asked = builders.make_task(builders.make_local_model("a"), model_ids=(), stage=Stage.UPLOADING, archive=ARCHIVE)
    models = [builders.make_local_model(f"m{number}", asked.id) for number in range(90)]
    measure("record_task", lambda: database.tasks.record_task(asked))
    measure(
        "record_arrival", lambda: database.tasks.record_arrival(asked.id, size=1, etag="e", check_at=builders.START)
    )
    measure("claim_models", lambda: database.imports.claim_models(asked.id, models, [], check_at=builders.START))
    model_ids = [model.model_id for model in models]
    measure("find_models", lambda: database.models.find_models(model_ids))
    measure("save_name", lambda: database.hub_models.save_name("m0", "archive.local/m0"))
    measure("save_revision", lambda: database.hub_models.save_revision(builders.make_model().resolved, builders.at(1)))
    measure("find_entry", lambda: database.hub_models.find_entry("archive.local/m0"))
    measure("record_read", lambda: database.hub_models.record_read(model_ids[0], DAY))
    measure("list_tasks", lambda: database.tasks.list_tasks(limit=20))
    published = dict.fromkeys(model_ids, Publication(1, 1))
    measure(
        "finish_import of many",
        lambda: database.imports.finish_import(asked.id, published=published, check_at=builders.START),
    )
    assert counted == {
        "claim_import": 1,
        "put_groups": 1,
        "list_groups": 1,
        "find_groups": 1,
        "lease_group": 2,
        "renew_lease": 1,
        "record_offset": 3,
        "create_upload": 1,
        "replace_upload": 1,
        "replace_upload with parts": 1,
        "find_upload": 1,
        "list_parts": 1,
        "list_uploads": 1,
        "take_over_upload": 1,
        "delete_upload": 1,
        "put_kept_upload": 1,
        "find_kept_upload": 1,
        "record_files": 3,
        "record_progress": 1,
        "record_copied": 2,
        "start_stage": 1,
        "finish_import": 2,
        "put_blobs": 1,
        "put_blobs that expire": 1,
        "find_blobs": 1,
        "find_blobs of a group": 92,
        "record_task": 1,
        "record_arrival": 2,
        "claim_models": 3,
        "find_models": 1,
        "save_name": 1,
        "save_revision": 1,
        "find_entry": 1,
        "record_read": 1,
        "list_tasks": 2,
        "finish_import of many": 2,
    }


def test_a_group_takes_few_write_units(database: Database) -> None:
    random = Random(7)
    files = [
        SourceFile(
            f"tokenizer/special_tokens_{n:05}.json", 100 + n, Digest(Algorithm.GIT_SHA1, random.randbytes(20).hex())
        )
        for n in range(90)
    ]
    task = replace(builders.make_task(builders.make_model()), plan_id="task#0")
    plan_id = builders.find_plan(task)
    records = [
        replace(builders.make_record(task, f), sha256=random.randbytes(32).hex(), etag=random.randbytes(16).hex())
        for f in files
    ]
    steps: list[tuple[int, Callable[[], object]]] = [
        (3, lambda: database.files.put_groups(plan_id, [files])),
        (1, lambda: builders.lease(database, task)),
        (12, lambda: builders.record(database, task, *records)),  # a transaction costs twice as much
        (1, lambda: database.files.record_copied(plan_id, range(40))),
    ]
    for units, step in steps:
        with count_calls() as usage:
            step()
        assert usage.write_units <= units


def test_a_segment_takes_few_write_units(database: Database) -> None:
    """Of a file of 500 GB, with eight functions that have a segment each."""
    random = Random(7)
    upload = FileUpload(
        upload_id="2~" + "u" * 126,
        size=500 * 10**9,
        part_size=64 * 2**20,
        source_etag='"' + "e" * 64 + '"',
        object_key=f"staging/{UUID(int=0)}/model-00001-of-00002.safetensors",
        parts_key=NEXT_KEY,
    )
    for number in range(8):
        upload = upload.claim(range(4 * number + 1, 4 * number + 5), str(UUID(int=number)), until=2e9 + 0.123456)
    hashed = replace(upload.advance(4, random.randbytes(208), str(UUID(int=0)), until=2e9), version=1)
    parts = [Part(n, random.randbytes(16).hex(), random.randrange(2**32)) for n in range(1, 5)]
    steps: list[Callable[[], object]] = [
        lambda: database.segments.create_upload(KEY, upload),
        lambda: database.segments.replace_upload(KEY, upload, hashed, parts),  # a transaction costs twice as much
    ]
    for units, step in zip((2, 6), steps, strict=True):
        with count_calls() as usage:
            step()
        assert usage.write_units <= units


class TestStatistics:
    """The days of the last use. They must not delay a response, and their roles may not read the items."""

    @pytest.fixture(params=["model", "key"])
    def record(self, request: pytest.FixtureRequest, database: Database) -> Iterator[Callable[[], None]]:
        if request.param == "model":
            model = builders.make_model()
            builders.claim(database, model)
            yield lambda: database.hub_models.record_read(model.model_id, DAY)
            return
        keys = DynamoDBReadKeyRepository(open_connection(REGION), keys_table="keys")
        keys._keys.create_table(wait=True, billing_mode="PAY_PER_REQUEST")
        key = create_key("ci", [], None, builders.at(builders.START))[1]
        keys.add_key(key)
        yield lambda: keys.record_use(key.key_id, DAY)
        keys._keys.delete_table()

    @pytest.mark.parametrize(
        "fault",
        [
            lambda *_: refuse(500, "InternalServerError"),
            lambda *_: refuse(400, "ThrottlingException"),
            lambda *_: refuse(400, "TransactionConflictException"),
            lose_reply,
        ],
    )
    def test_have_one_attempt(self, record: Callable[[], None], dynamodb: MotoDynamoDB, fault: Any) -> None:
        dynamodb.reset()
        dynamodb.inject("UpdateItem", fault)
        with pytest.raises(StorageUnavailableError):
            record()
        assert dynamodb.count("UpdateItem") == 1
        record()

    def test_return_no_attributes(self, record: Callable[[], None], dynamodb: MotoDynamoDB) -> None:
        dynamodb.reset()
        record()
        (call,) = dynamodb.calls
        assert call.operation == "UpdateItem"
        assert call.body.keys().isdisjoint({"ReturnValues", "ReturnValuesOnConditionCheckFailure"})

    def test_do_not_wait_for_an_endpoint_that_is_silent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made: list[Any] = []
        create_client = botocore.session.Session.create_client

        def record(session: botocore.session.Session, service: str, *args: Any, **kwargs: Any) -> Any:
            made.append(kwargs["config"])
            return create_client(session, service, *args, **kwargs)

        monkeypatch.setattr(botocore.session.Session, "create_client", record)
        with open_aws("moto"), open_database() as opened:
            opened.hub_models.record_read(builders.make_model().model_id, DAY)
        config = made[-1]
        assert config.connect_timeout + config.read_timeout <= 2
        assert config.retries["total_max_attempts"] == 1


class TestClient:
    def make_database(self, region: str | None = None) -> Database:
        return build_dynamodb_database(open_connection(region))

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
        with open_aws("moto"), open_database() as database:
            assert built == ["dynamodb"]
            builders.claim(database)
            database.files.put_groups("task#0", [[builders.make_file()]])
            database.content.put_blobs([("sha256:aa", BLOB)], expires_at=None)
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

        with run_server(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
            monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
            assert self.make_database("eu-central-1").tasks.find_task("a") is None
        assert targets == ["DynamoDB_20120810.GetItem"]

    def test_that_reaches_nobody_is_storage_unavailable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{bound.getsockname()[1]}")
            with pytest.raises(StorageUnavailableError, match="EndpointConnectionError"):
                self.make_database("eu-central-1").tasks.find_task("a")


class TestAudit:
    """The entry of an action, when DynamoDB does not answer as it should."""

    def test_a_lost_reply_to_an_entry(self, database: Database, dynamodb: MotoDynamoDB) -> None:
        entry = make_entry()
        dynamodb.inject("PutItem", lose_reply)
        database.audit.record(entry)
        assert dynamodb.count("PutItem") == 2
        assert database.audit_reader.read_entry(entry.id) == entry

    def test_a_lost_reply_to_a_claim(self, database: Database, dynamodb: MotoDynamoDB) -> None:
        model = builders.make_model()
        task = builders.make_task(model)
        entry = replace(describe_submission(task, [model]), time=make_entry().time)
        dynamodb.inject(TRANSACTION, lose_reply)
        database.imports.claim_import(task, [replace(model, task_id=task.id)], entry=entry)
        assert database.audit_reader.list_entries(limit=10).entries == (entry,)

    def test_a_lost_reply_to_a_cancellation(self, database: Database, dynamodb: MotoDynamoDB) -> None:
        task = builders.claim(database)
        entry = make_entry(task_id=task.id)
        dynamodb.inject(TRANSACTION, lose_reply)
        assert database.imports.fail_import(task.id, builders.GATED, check_at=1, entry=entry)
        assert database.audit_reader.list_entries(limit=10).entries == (entry,)

    def test_an_action_whose_entry_cannot_be_recorded_does_not_happen(
        self, database: Database, dynamodb: MotoDynamoDB
    ) -> None:
        task = builders.claim(database)
        model_id = task.model_ids[0]
        database.imports.finish_import(task.id, published={model_id: Publication(1, 1)}, check_at=1)
        before = builders.read_model(database, model_id)
        fresh = builders.make_task(builders.make_model())
        archive = replace(task, id=str(UUID(int=1)), model_ids=(), archive=ARCHIVE)
        calls: list[Callable[[], object]] = [
            lambda: database.audit.record(make_entry()),
            lambda: database.imports.claim_import(fresh, [], entry=make_entry()),
            lambda: database.tasks.record_task(archive, entry=make_entry()),
            lambda: database.models.lease_deletion(model_id, owner="a", now=1, until=2, entry=make_entry()),
            lambda: database.models.record_signature(model_id, builders.SIGNATURE, task_id=task.id, entry=make_entry()),
            lambda: database.models.pin_model(model_id, ModelPin(builders.at(1), None, None), entry=make_entry()),
        ]
        for call in calls:
            dynamodb.inject(TRANSACTION, deny_audit)
            dynamodb.inject("PutItem", deny_audit)
            with pytest.raises(StorageUnavailableError) as raised:
                call()
            assert not raised.value.is_outage
            dynamodb.reset()
        assert builders.read_model(database, model_id) == before
        assert database.tasks.find_task(fresh.id) is None
        assert database.tasks.find_task(archive.id) is None

    def test_a_conflict_is_retried(self, database: Database, dynamodb: MotoDynamoDB) -> None:
        """As of an update of the day on which a model was read, at the moment of its deletion."""
        task = builders.claim(database)
        database.imports.finish_import(task.id, published={task.model_ids[0]: Publication(1, 1)}, check_at=1)
        dynamodb.inject(TRANSACTION, conflict, times=3)
        leased = database.models.lease_deletion(task.model_ids[0], owner="a", now=1, until=2, entry=make_entry())
        assert leased is not None
        assert leased.status is ModelStatus.DELETING

    def test_an_empty_period_is_not_queried(self, database: Database, dynamodb: MotoDynamoDB) -> None:
        """DynamoDB rejects a BETWEEN whose upper bound is lower, which moto does not."""
        moment = make_entry().time
        for until in (moment, moment - timedelta(hours=1)):
            assert database.audit_reader.list_entries(AuditFilter(since=moment, until=until), limit=1).entries == ()
        assert dynamodb.count("Query") == 0

    def test_a_function_without_the_table_cannot_record(self, dynamodb: MotoDynamoDB) -> None:
        keys = DynamoDBReadKeyRepository(open_connection(REGION), keys_table="keys")
        with pytest.raises(ValueError, match="AUDIT_TABLE"):
            keys.remove_key("0123456789abcdef", entry=make_entry())

    def test_nothing_is_written_while_the_audit_is_off(self, dynamodb: MotoDynamoDB) -> None:
        audit = AuditWriter(open_connection(REGION), audit_table="absent", retention_days=0)
        keys = DynamoDBReadKeyRepository(open_connection(REGION), keys_table="keys-off", audit=audit)
        keys._keys.create_table(wait=True, billing_mode="PAY_PER_REQUEST")
        key = create_key("ci", [], None, builders.at(1))[1]
        dynamodb.calls.clear()
        keys.add_key(key, entry=describe_key_creation(key))
        assert keys.remove_key(key.key_id, entry=make_entry())
        assert [call.operation for call in dynamodb.calls] == ["PutItem", "DeleteItem"]
        DynamoDBAuditLog(audit).record(make_entry())
        assert dynamodb.count("PutItem") == 1
        keys._keys.delete_table()

    def test_keys_and_their_entries(self, database: Database, dynamodb: MotoDynamoDB) -> None:
        log: Any = database.audit
        keys = DynamoDBReadKeyRepository(open_connection(REGION), keys_table="keys-on", audit=log._writer)
        keys._keys.create_table(wait=True, billing_mode="PAY_PER_REQUEST")
        key = replace(create_key("ci", [], None, builders.at(1))[1], created_at=make_entry().time)
        created = describe_key_creation(key)
        keys.add_key(key, entry=created)
        assert keys.find_key(key.key_id) == key
        deleted = make_entry(key_id=key.key_id)
        assert keys.remove_key(key.key_id, entry=deleted)
        assert not keys.remove_key(key.key_id, entry=make_entry(key_id=key.key_id))
        assert keys.find_key(key.key_id) is None
        assert database.audit_reader.list_entries(limit=10).entries == (deleted, created)
        keys._keys.delete_table()


def make_entry(**changes: Any) -> AuditEntry:
    entry = AuditEntry(action=AuditAction.MODEL_DELETED, time=datetime.now(UTC), actor="api-key:a")
    return replace(entry, **changes)


def deny_audit(call: Call, do: Callable[[], Response]) -> Response:
    """As without the permission to write to the table of the audit."""
    assert "audit" in json.dumps(call.body)
    return refuse(400, "AccessDeniedException")
