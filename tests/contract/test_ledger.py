import base64
import re
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import replace
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from modelhaul.adapters.dynamodb import DynamoDBLedger
from modelhaul.domain.archives import Archive, SkippedDirectory
from modelhaul.domain.errors import (
    DeletionInProgressError,
    ImportInProgressError,
    InvalidReferenceError,
    LeaseLostError,
    ModelExistsError,
    TaskEndedError,
)
from modelhaul.domain.files import FileRecord
from modelhaul.domain.gate import GateReport, GateVerdict, SecondOpinion
from modelhaul.domain.models import Model, ModelError, ModelStatus, Source
from modelhaul.domain.objects import Blob
from modelhaul.domain.selection import Selection, Weights
from modelhaul.domain.tasks import Progress, Stage, Task, TaskPage, TaskStatus
from modelhaul.ports.ledger import Ledger
from tests.contract.backends import BACKENDS, open_aws
from tests.contract.dynamodb import clear_tables, control_moto, open_ledger
from tests.contract.ledger_builders import (
    GATED,
    START,
    at,
    claim,
    drop,
    find_blob,
    lease,
    make_checkpoint,
    make_file,
    make_local_model,
    make_model,
    make_result,
    make_task,
    plan,
    read_file,
    read_model,
    read_task,
    save,
)
from tests.fakes.clock import ManualClock
from tests.fakes.ledger import InMemoryLedger

GATED_MODEL = ModelError(GATED.type, GATED.detail, GATED.retryable)
UNSAFE = ModelError("unsafe-model", "bad/a.bin imports os.system", retryable=False)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture(scope="module", params=BACKENDS)
def database(request: pytest.FixtureRequest) -> Iterator[DynamoDBLedger | None]:
    if request.param == "fake":
        yield None
        return
    with open_aws(request.param):
        isolated = control_moto() if request.param == "moto" else nullcontext()
        with isolated, open_ledger() as ledger:
            yield ledger


@pytest.fixture
def ledger(database: DynamoDBLedger | None, clock: ManualClock) -> Iterator[Ledger]:
    if database is None:
        yield InMemoryLedger(clock=clock)
        return
    database._clock = clock
    yield database
    clear_tables(database)


class TestClaim:
    def test_writes_the_task_and_the_model(self, ledger: Ledger) -> None:
        model = make_model()
        task = make_task(
            model,
            created_at=datetime(2025, 6, 22, 12, 0, 0, 123456, UTC),
            progress=Progress(1, 2, 500_000_000_001, 4, 5),
            error=GATED,
            sweeps=3,
            check_at=START + 0.25,
        )
        ledger.claim_import(task, [replace(model, task_id=task.id)])
        assert ledger.find_task(task.id) == task
        assert ledger.find_model(model.model_id) == replace(model, task_id=task.id)

    def test_of_a_model_in_flight_names_its_task_and_writes_nothing(self, ledger: Ledger) -> None:
        model = make_model()
        first, second = claim(ledger, model), make_task(model)
        with pytest.raises(ImportInProgressError) as caught:
            ledger.claim_import(second, [replace(model, task_id=second.id)])
        assert (caught.value.task_id, caught.value.model_id) == (first.id, model.model_id)
        assert first.id in caught.value.detail
        assert ledger.find_task(second.id) is None
        assert read_model(ledger, model.model_id).task_id == first.id

    def test_of_a_ready_model_names_it(self, ledger: Ledger) -> None:
        model = make_model()
        first = claim(ledger, model)
        ledger.finish_import(first.id, totals={first.model_ids[0]: (1, 1)}, check_at=START)
        with pytest.raises(ModelExistsError) as caught:
            claim(ledger, model)
        assert caught.value.models == {model.model_id: model.resolved.name}
        assert model.resolved.name in caught.value.detail

    def test_of_a_part_is_one_of_its_own(self, ledger: Ledger) -> None:
        whole = make_model()
        commit = whole.resolved.commit
        patterns = tuple(f"{number:03}-ä😀*" for number in range(100))
        part = make_model(Selection(patterns, ("*.bin",), Weights.SAFETENSORS), commit=commit)
        other = make_model(Selection(ignore_patterns=("*.bin",)), commit=commit)
        tasks = {model.model_id: claim(ledger, model) for model in (whole, part, other)}
        assert len(tasks) == 3
        for model in (whole, part, other):
            task = tasks[model.model_id]
            assert read_model(ledger, model.model_id) == replace(model, task_id=task.id)
            assert read_task(ledger, task.id).selection == model.resolved.selection
            with pytest.raises(ImportInProgressError) as running:
                claim(ledger, model)
            assert running.value.task_id == task.id
            assert model.resolved.describe() in running.value.detail
            ledger.finish_import(task.id, totals={model.model_id: (1, 1)}, check_at=START)
            with pytest.raises(ModelExistsError) as caught:
                claim(ledger, model)
            assert caught.value.models == {model.model_id: model.resolved.name}
            assert model.resolved.describe() in caught.value.detail
        assert read_model(ledger, part.model_id).resolved == part.resolved

    def test_takes_a_failed_model_over(self, ledger: Ledger) -> None:
        model = make_model()
        ledger.fail_import(claim(ledger, model).id, GATED, check_at=START)
        second = claim(ledger, model)
        assert read_model(ledger, model.model_id) == replace(model, task_id=second.id)

    @pytest.mark.parametrize("end", ["none", "done", "failed"])
    def test_repeated_succeeds_and_changes_nothing(self, ledger: Ledger, end: str) -> None:
        model = make_model()
        task = claim(ledger, model)
        if end == "done":
            ledger.finish_import(task.id, totals={task.model_ids[0]: (1, 1)}, check_at=START)
        elif end == "failed":
            ledger.fail_import(task.id, GATED, check_at=START)
        before = read_task(ledger, task.id), read_model(ledger, model.model_id)
        ledger.claim_import(task, [replace(model, task_id=task.id)])
        assert (read_task(ledger, task.id), read_model(ledger, model.model_id)) == before


@pytest.mark.parametrize(
    "key", ["", "x", "../..", "a b/ä%00", "😀", "\ud800", "x" * 3000, str(uuid.UUID(int=7, version=4))]
)
def test_an_id_of_any_shape_that_is_not_there_is_none(ledger: Ledger, key: str) -> None:
    assert ledger.find_task(key) is None
    assert ledger.find_model(key) is None


class TestFiles:
    def test_are_listed_in_path_order(self, ledger: Ledger) -> None:
        paths = ["z", "a/b", "a", "a-b", "ä", "Z", "😀", "￿"]
        files = {path: make_file(path, size) for size, path in enumerate(paths)}
        task = plan(ledger, *files.values())
        plan(ledger, make_file("another task's"))
        assert list(ledger.list_files(task.id)) == [FileRecord(task.id, files[path]) for path in sorted(paths)]

    def test_any_number_can_be_planned(self, ledger: Ledger) -> None:
        files = [make_file(f"{number:04}") for number in range(250)]
        task = plan(ledger, *files)
        assert [record.file for record in ledger.list_files(task.id)] == files
        found = ledger.find_files(task.id, [file.path for file in files] + ["unknown"])
        assert sorted(record.file.path for record in found) == [file.path for file in files]

    def test_of_an_unknown_task_are_none(self, ledger: Ledger) -> None:
        assert list(ledger.list_files("unknown")) == []
        assert ledger.find_files("unknown", ["a"]) == []
        assert ledger.find_files("unknown", []) == []

    def test_planned_again_keep_what_became_of_them(self, ledger: Ledger) -> None:
        done, moving, waiting = replace(make_file("done"), locator="1"), make_file(), make_file("waiting")
        task = plan(ledger, done, moving)
        ledger.finish_files(task.id, [make_result(done)], check_at=START)
        lease(ledger, task.id)
        save(ledger, task.id, make_checkpoint(10))
        before = list(ledger.list_files(task.id))
        ledger.put_files(task.id, [replace(done, size=1, locator="2"), moving, waiting])
        assert list(ledger.list_files(task.id)) == [*before, FileRecord(task.id, waiting)]


class TestStage:
    def test_moves_forward_with_the_totals(self, ledger: Ledger, clock: ManualClock) -> None:
        task = claim(ledger, sweeps=4)
        clock.now = START + 7
        totals = Progress(files_done=9, files_total=2, bytes_done=9, bytes_total=30, bytes_reused=9)
        assert ledger.start_stage(task.id, Stage.TRANSFERRING, check_at=START + 500, totals=totals)
        started = read_task(ledger, task.id)
        assert started == replace(
            task,
            stage=Stage.TRANSFERRING,
            progress=Progress(files_total=2, bytes_total=30),
            check_at=START + 500,
            updated_at=at(START + 7),
            sweeps=0,
            transfer_began_at=at(START + 7),
        )
        assert ledger.start_stage(task.id, Stage.PUBLISHING, check_at=START + 600)
        assert read_task(ledger, task.id) == replace(started, stage=Stage.PUBLISHING, check_at=START + 600)

    @pytest.mark.parametrize("stage", [Stage.TRANSFERRING, Stage.PUBLISHING])
    def test_that_is_reached_or_passed_is_left_alone(self, ledger: Ledger, stage: Stage) -> None:
        task = claim(ledger)
        ledger.start_stage(task.id, Stage.PUBLISHING, check_at=START + 500)
        before = read_task(ledger, task.id)
        assert not ledger.start_stage(task.id, stage, check_at=START + 900, totals=Progress(files_total=7))
        assert read_task(ledger, task.id) == before

    def test_is_begun_by_one_of_many(self, ledger: Ledger) -> None:
        task = claim(ledger)
        with ThreadPoolExecutor(8) as pool:
            began = list(pool.map(lambda _: ledger.start_stage(task.id, Stage.VERIFIED, check_at=START), range(8)))
        assert began.count(True) == 1

    def test_of_an_ended_task_is_left_alone(self, ledger: Ledger) -> None:
        task = claim(ledger)
        ledger.fail_import(task.id, GATED, check_at=START)
        before = read_task(ledger, task.id)
        assert not ledger.start_stage(task.id, Stage.PUBLISHING, check_at=START + 900)
        assert read_task(ledger, task.id) == before

    @pytest.mark.parametrize("stage", [Stage.UPLOADING, Stage.INSPECTING])
    def test_of_a_task_without_its_models_is_left_alone(self, ledger: Ledger, stage: Stage) -> None:
        task = drop(ledger, stage=stage)
        assert not ledger.start_stage(task.id, Stage.TRANSFERRING, check_at=START + 900)
        assert read_task(ledger, task.id) == task

    def test_of_an_unknown_task_is_not_begun(self, ledger: Ledger) -> None:
        assert not ledger.start_stage("unknown", Stage.PUBLISHING, check_at=START)
        assert ledger.find_task("unknown") is None


class TestLease:
    def test_shuts_others_out_until_it_ends(self, ledger: Ledger) -> None:
        file = make_file()
        task = plan(ledger, file)
        leased = ledger.lease_file(task.id, file.path, owner="a", now=START, until=START + 90)
        assert leased == FileRecord(task.id, file, lease_until=START + 90)
        assert ledger.lease_file(task.id, file.path, owner="b", now=START + 89.5, until=START + 200) is None
        assert read_file(ledger, task.id).lease_until == START + 90
        taken = ledger.lease_file(task.id, file.path, owner="b", now=START + 90, until=START + 200)
        assert taken is not None
        assert taken.lease_until == START + 200

    def test_can_be_taken_again_by_its_owner(self, ledger: Ledger) -> None:
        task = plan(ledger, make_file())
        lease(ledger, task.id)
        save(ledger, task.id, make_checkpoint(10))
        assert lease(ledger, task.id).checkpoint == make_checkpoint(10)

    def test_is_not_given_on_an_unknown_or_done_file(self, ledger: Ledger) -> None:
        file = make_file()
        task = plan(ledger, file)
        ledger.finish_files(task.id, [make_result(file)], check_at=START)
        for path in (file.path, "unknown"):
            assert ledger.lease_file(task.id, path, owner="a", now=START, until=START + 90) is None
        assert [record.file for record in ledger.list_files(task.id)] == [file]

    def test_is_renewed_only_by_its_owner(self, ledger: Ledger) -> None:
        task = plan(ledger, make_file())
        lease(ledger, task.id)
        ledger.renew_lease(task.id, "model.safetensors", owner="a", until=START + 500)
        assert read_file(ledger, task.id).lease_until == START + 500
        for path, owner in (("model.safetensors", "b"), ("unknown", "a")):
            with pytest.raises(LeaseLostError):
                ledger.renew_lease(task.id, path, owner=owner, until=START + 900)
        assert read_file(ledger, task.id).lease_until == START + 500

    def test_is_released_only_by_its_owner(self, ledger: Ledger) -> None:
        task = plan(ledger, make_file())
        lease(ledger, task.id)
        ledger.release_lease(task.id, "model.safetensors", owner="b")
        ledger.release_lease(task.id, "unknown", owner="a")
        assert read_file(ledger, task.id).lease_until == START + 90
        for _ in range(2):
            ledger.release_lease(task.id, "model.safetensors", owner="a")
        assert read_file(ledger, task.id).lease_until == 0
        lease(ledger, task.id, owner="b")
        with pytest.raises(LeaseLostError):
            ledger.renew_lease(task.id, "model.safetensors", owner="a", until=START + 900)


class TestCheckpoint:
    def test_is_stored_and_counted(self, ledger: Ledger, clock: ManualClock) -> None:
        task = plan(ledger, make_file(size=1000))
        ledger.postpone_check(task.id, check_at=START, sweeps=3)
        leased = lease(ledger, task.id)
        clock.now = START + 5
        save(ledger, task.id, make_checkpoint(400), check_at=START + 700)
        assert read_file(ledger, task.id) == replace(leased, checkpoint=make_checkpoint(400), lease_until=START + 120)
        assert read_task(ledger, task.id) == replace(
            task,
            progress=replace(task.progress, bytes_done=400),
            check_at=START + 700,
            updated_at=at(START + 5),
            bytes_counted_at=at(START + 5),
            sweeps=0,
        )

    def test_counts_by_the_difference_of_offsets(self, ledger: Ledger) -> None:
        task = plan(ledger, make_file(size=1000))
        lease(ledger, task.id)
        counted = []
        for offset in (0, 400, 400, 700, 100, None, None, 300):
            save(ledger, task.id, None if offset is None else make_checkpoint(offset))
            counted.append(read_task(ledger, task.id).progress.bytes_done)
        assert counted == [0, 400, 400, 700, 100, 0, 0, 300]

    def test_with_none_is_discarded(self, ledger: Ledger) -> None:
        task = plan(ledger, make_file())
        lease(ledger, task.id)
        save(ledger, task.id, make_checkpoint(400))
        save(ledger, task.id, None)
        assert read_file(ledger, task.id).checkpoint is None

    def test_needs_the_lease(self, ledger: Ledger) -> None:
        task = plan(ledger, make_file())
        with pytest.raises(LeaseLostError):
            save(ledger, task.id, make_checkpoint(400))
        lease(ledger, task.id)
        with pytest.raises(LeaseLostError):
            save(ledger, task.id, make_checkpoint(400), owner="b")
        with pytest.raises(LeaseLostError):
            save(ledger, "unknown", make_checkpoint(400))
        assert read_file(ledger, task.id).checkpoint is None
        assert read_task(ledger, task.id) == task

    def test_of_an_ended_task_is_refused(self, ledger: Ledger) -> None:
        task = plan(ledger, make_file())
        lease(ledger, task.id)
        ledger.fail_import(task.id, GATED, check_at=START)
        with pytest.raises(TaskEndedError):
            save(ledger, task.id, make_checkpoint(400))
        assert read_file(ledger, task.id).checkpoint is None
        assert read_task(ledger, task.id).progress.bytes_done == 0

    def test_of_ten_thousand_parts_fits(self, ledger: Ledger) -> None:
        task = plan(ledger, make_file(size=500_000_000_000))
        lease(ledger, task.id)
        checkpoint = make_checkpoint(500_000_000_000, parts=10_000)
        save(ledger, task.id, checkpoint)
        assert read_file(ledger, task.id).checkpoint == checkpoint
        [listed] = ledger.list_files(task.id)
        assert listed.checkpoint == checkpoint

    def test_may_have_no_part_and_no_etag_yet(self, ledger: Ledger) -> None:
        task = plan(ledger, make_file())
        lease(ledger, task.id)
        checkpoint = replace(make_checkpoint(0, parts=0), source_etag=None)
        save(ledger, task.id, checkpoint)
        assert read_file(ledger, task.id).checkpoint == checkpoint


class TestFinishFiles:
    def test_marks_and_counts(self, ledger: Ledger, clock: ManualClock) -> None:
        moved, copied, waiting = make_file("moved", 10), make_file("copied", 200), make_file("waiting", 3000)
        task = plan(ledger, moved, copied, waiting)
        ledger.postpone_check(task.id, check_at=START, sweeps=3)
        clock.now = START + 5
        results = [make_result(moved), make_result(copied, reused=True)]
        progress = ledger.finish_files(task.id, results, check_at=START + 800)
        assert progress == Progress(2, 3, bytes_done=210, bytes_total=3210, bytes_reused=200)
        assert read_task(ledger, task.id) == replace(
            task,
            progress=progress,
            check_at=START + 800,
            updated_at=at(START + 5),
            bytes_counted_at=at(START + 5),
            sweeps=0,
        )
        assert list(ledger.list_files(task.id)) == [
            FileRecord(task.id, r.file, done=True, sha256=r.sha256, etag=r.etag, reused=r.reused)
            for r in reversed(results)
        ] + [FileRecord(task.id, waiting)]

    def test_counts_what_checkpoints_have_not(self, ledger: Ledger) -> None:
        file = make_file(size=1000)
        task = plan(ledger, file)
        lease(ledger, task.id)
        save(ledger, task.id, make_checkpoint(400))
        progress = ledger.finish_files(task.id, [make_result(file)], check_at=START)
        assert (progress.files_done, progress.bytes_done) == (1, 1000)
        assert read_file(ledger, task.id) == FileRecord(
            task.id, file, done=True, sha256="ab" * 32, etag=f"{'cd' * 16}-3"
        )
        with pytest.raises(LeaseLostError):
            save(ledger, task.id, make_checkpoint(500))

    def test_counts_no_file_twice(self, ledger: Ledger) -> None:
        first, second = make_file("first", 10), make_file("second", 200)
        task = plan(ledger, first, second)
        once = ledger.finish_files(task.id, [make_result(first, reused=True)], check_at=START)
        assert ledger.finish_files(task.id, [make_result(first, reused=True)], check_at=START) == once
        both = ledger.finish_files(task.id, [make_result(first), make_result(second)], check_at=START)
        assert both == Progress(2, 2, bytes_done=210, bytes_total=210, bytes_reused=10)
        assert read_file(ledger, task.id, "first").reused

    def test_counts_a_file_that_is_given_twice_once(self, ledger: Ledger) -> None:
        file = make_file(size=10)
        task = plan(ledger, file)
        progress = ledger.finish_files(task.id, [make_result(file), make_result(file)], check_at=START)
        assert (progress.files_done, progress.bytes_done) == (1, 10)

    def test_leaves_out_files_that_were_not_planned(self, ledger: Ledger) -> None:
        file = make_file(size=10)
        task = plan(ledger, file)
        results = [make_result(file), make_result(make_file("unknown"))]
        progress = ledger.finish_files(task.id, results, check_at=START)
        assert (progress.files_done, progress.bytes_done) == (1, 10)
        assert [record.file for record in ledger.list_files(task.id)] == [file]

    def test_takes_ninety_files_and_not_more(self, ledger: Ledger) -> None:
        files = [make_file(f"{number:02}", 1) for number in range(91)]
        task = plan(ledger, *files)
        with pytest.raises(ValueError, match="limit is 90"):
            ledger.finish_files(task.id, [make_result(file) for file in files], check_at=START)
        progress = ledger.finish_files(task.id, [make_result(file) for file in files[:90]], check_at=START)
        assert (progress.files_done, progress.bytes_done) == (90, 90)

    def test_of_an_ended_task_is_refused(self, ledger: Ledger) -> None:
        first, second = make_file("first"), make_file("second")
        task = plan(ledger, first, second)
        ledger.finish_files(task.id, [make_result(first)], check_at=START)
        ledger.fail_import(task.id, GATED, check_at=START)
        before = read_task(ledger, task.id)
        for results in ([make_result(first)], [make_result(second)], []):
            with pytest.raises(TaskEndedError):
                ledger.finish_files(task.id, results, check_at=START)
        with pytest.raises(TaskEndedError):
            ledger.finish_files("unknown", [make_result(first)], check_at=START)
        assert read_task(ledger, task.id) == before
        assert not read_file(ledger, task.id, "second").done


class TestEnd:
    def test_done_makes_the_model_ready(self, ledger: Ledger, clock: ManualClock) -> None:
        task = plan(ledger, make_file())
        model = read_model(ledger, task.model_ids[0])
        clock.now = START + 60
        assert ledger.finish_import(task.id, totals={task.model_ids[0]: (5, 500_000_000_001)}, check_at=START + 900)
        assert read_task(ledger, task.id) == replace(
            task,
            status=TaskStatus.DONE,
            stage=Stage.DONE,
            updated_at=at(START + 60),
            check_at=START + 900,
        )
        assert read_model(ledger, task.model_ids[0]) == replace(
            model, status=ModelStatus.READY, files=5, size=500_000_000_001, updated_at=at(START + 60)
        )

    @pytest.mark.parametrize("opinion", [None, *SecondOpinion])
    def test_what_the_gate_found_is_kept(self, ledger: Ledger, opinion: SecondOpinion | None) -> None:
        report = GateReport(
            GateVerdict.UNSAFE,
            ("a.bin: imports os.system", "ü.bin: imports os.system"),
            ("code: modeling.py",),
            (("a.bin", "0" * 64), ("ü.bin", "1" * 64)),
            opinion,
        )
        task = plan(ledger, make_file())
        (model_id,) = task.model_ids
        ledger.finish_import(task.id, totals={model_id: (1, 1)}, check_at=START, gates={model_id: report})
        assert read_model(ledger, model_id).gate == report

    @pytest.mark.parametrize("stage", [Stage.FAILED, Stage.CANCELLED])
    def test_failed_says_why_and_frees_the_model(self, ledger: Ledger, clock: ManualClock, stage: Stage) -> None:
        task = plan(ledger, make_file())
        model = read_model(ledger, task.model_ids[0])
        clock.now = START + 60
        assert ledger.fail_import(task.id, GATED, stage=stage, check_at=START + 900)
        assert read_task(ledger, task.id) == replace(
            task,
            status=TaskStatus.FAILED,
            stage=stage,
            error=GATED,
            updated_at=at(START + 60),
            check_at=START + 900,
        )
        assert read_model(ledger, task.model_ids[0]) == replace(
            model, status=ModelStatus.FAILED, updated_at=at(START + 60), error=GATED_MODEL
        )

    def test_comes_once(self, ledger: Ledger) -> None:
        done, failed = claim(ledger), claim(ledger)
        assert ledger.finish_import(done.id, totals={done.model_ids[0]: (1, 1)}, check_at=START)
        assert ledger.fail_import(failed.id, GATED, check_at=START)
        before = [read_task(ledger, task.id) for task in (done, failed)]
        assert ledger.finish_import(done.id, totals={done.model_ids[0]: (2, 2)}, check_at=START + 1)
        assert not ledger.fail_import(done.id, GATED, check_at=START + 1)
        assert not ledger.finish_import(failed.id, totals={failed.model_ids[0]: (1, 1)}, check_at=START + 1)
        assert not ledger.fail_import(failed.id, replace(GATED, detail="again"), check_at=START + 1)
        assert [read_task(ledger, task.id) for task in (done, failed)] == before
        assert read_model(ledger, done.model_ids[0]).files == 1
        assert read_model(ledger, failed.model_ids[0]).status is ModelStatus.FAILED

    def test_of_an_unknown_task_does_nothing(self, ledger: Ledger) -> None:
        assert not ledger.finish_import("unknown", totals={}, check_at=START)
        assert not ledger.fail_import("unknown", GATED, check_at=START)
        assert ledger.find_task("unknown") is None

    def test_leaves_the_model_of_a_later_task_alone(self, ledger: Ledger) -> None:
        model = make_model()
        first = claim(ledger, model)
        ledger.fail_import(first.id, GATED, check_at=START)
        second = claim(ledger, model)
        assert not ledger.fail_import(first.id, GATED, check_at=START)
        assert not ledger.finish_import(first.id, totals={first.model_ids[0]: (1, 1)}, check_at=START)
        assert read_model(ledger, model.model_id).status is ModelStatus.IMPORTING
        assert read_task(ledger, second.id) == second


class TestWithdrawal:
    def test_a_model_that_failed_while_it_was_published_is_claimed_only_once_released(self, ledger: Ledger) -> None:
        model = make_model()
        first = claim(ledger, model)
        ledger.start_stage(first.id, Stage.PUBLISHING, check_at=START)
        assert ledger.fail_import(first.id, GATED, check_at=START)
        assert read_model(ledger, first.model_ids[0]).status is ModelStatus.WITHDRAWING
        with pytest.raises(ImportInProgressError, match="withdrawn") as caught:
            claim(ledger, model)
        assert caught.value.task_id == first.id
        for _ in range(2):
            ledger.release_models(first.id)
        assert read_model(ledger, first.model_ids[0]).status is ModelStatus.FAILED
        second = claim(ledger, model)
        ledger.release_models(first.id)
        assert read_model(ledger, second.model_ids[0]).status is ModelStatus.IMPORTING

    @pytest.mark.parametrize("stage", [None, Stage.TRANSFERRING, Stage.VERIFIED])
    def test_before_that_nothing_is_to_be_withdrawn(self, ledger: Ledger, stage: Stage | None) -> None:
        task = claim(ledger)
        if stage is not None:
            ledger.start_stage(task.id, stage, check_at=START)
        ledger.fail_import(task.id, GATED, check_at=START)
        assert read_model(ledger, task.model_ids[0]).status is ModelStatus.FAILED

    def test_only_a_withdrawing_model_is_released(self, ledger: Ledger) -> None:
        task = claim(ledger)
        ledger.release_models(task.id)
        ledger.release_models("unknown")
        assert read_model(ledger, task.model_ids[0]).status is ModelStatus.IMPORTING


class TestWatch:
    def test_lists_what_is_due_longest_first(self, ledger: Ledger) -> None:
        due = [claim(ledger, check_at=START + offset) for offset in (30, 10, 20, 20.5, 40)]
        assert [t.id for t in ledger.list_due(START + 30, 10)] == [due[n].id for n in (1, 2, 3, 0)]
        assert ledger.list_due(START + 30, 2) == [due[1], due[2]]
        assert ledger.list_due(START + 9.5, 10) == []

    def test_ends_with_unwatch_and_not_with_the_task(self, ledger: Ledger) -> None:
        done, failed, pending = claim(ledger), claim(ledger), claim(ledger)
        ledger.finish_import(done.id, totals={done.model_ids[0]: (1, 1)}, check_at=START + 1)
        ledger.fail_import(failed.id, GATED, check_at=START + 2)
        ledger.postpone_check(pending.id, check_at=START + 3)
        assert {t.id for t in ledger.list_due(START + 999, 10)} == {done.id, failed.id, pending.id}
        for task in (done, failed, pending):
            for _ in range(2):
                ledger.unwatch_task(task.id)
        assert [t.id for t in ledger.list_due(START + 999, 10)] == [pending.id]
        ledger.unwatch_task("unknown")
        assert ledger.find_task("unknown") is None

    def test_is_postponed(self, ledger: Ledger, clock: ManualClock) -> None:
        task = claim(ledger, sweeps=1)
        clock.now = START + 5
        ledger.postpone_check(task.id, check_at=START + 700)
        assert read_task(ledger, task.id) == replace(task, check_at=START + 700, updated_at=at(START + 5))
        ledger.postpone_check(task.id, check_at=START + 800, sweeps=2)
        assert read_task(ledger, task.id).sweeps == 2
        ledger.postpone_check(task.id, check_at=START + 900, sweeps=0)
        assert read_task(ledger, task.id).sweeps == 0
        assert ledger.list_due(START + 899, 10) == []

    def test_is_never_brought_forward(self, ledger: Ledger) -> None:
        task = claim(ledger, check_at=START + 50)
        ledger.postpone_check(task.id, check_at=START + 49, sweeps=7)
        ledger.postpone_check(task.id, check_at=START + 50, sweeps=7)
        assert read_task(ledger, task.id) == task

    def test_is_not_postponed_once_it_has_ended(self, ledger: Ledger) -> None:
        task = claim(ledger)
        ledger.finish_import(task.id, totals={task.model_ids[0]: (1, 1)}, check_at=START)
        ledger.unwatch_task(task.id)
        before = read_task(ledger, task.id)
        ledger.postpone_check(task.id, check_at=START + 1, sweeps=5)
        ledger.postpone_check("unknown", check_at=START + 1)
        assert read_task(ledger, task.id) == before
        assert ledger.find_task("unknown") is None
        assert ledger.list_due(START + 9, 10) == []


class TestBlobs:
    def test_are_found_by_their_digest(self, ledger: Ledger) -> None:
        blobs = [
            (f"sha256:{n:064x}", Blob(f"{n:064x}", f"models/ä/{n}", 500_000_000_000 + n, f"{n:032x}-7"))
            for n in range(60)
        ]
        ledger.put_blobs(iter(blobs), expires_at=None)
        absent = f"git-sha1:{0:040x}"
        assert ledger.find_blobs([*dict(blobs), absent, blobs[0][0]]) == dict(blobs)
        assert ledger.find_blobs([absent]) == ledger.find_blobs([]) == {}
        ledger.put_blobs([], expires_at=None)

    def test_are_forgotten_when_they_expire(self, ledger: Ledger, clock: ManualClock) -> None:
        blob = Blob("aa", "staging/task/a", 1, "etag")
        ledger.put_blobs([("sha256:aa", blob)], expires_at=START + 10)
        clock.now = START + 9
        assert find_blob(ledger, "sha256:aa") == blob
        clock.now = START + 10
        assert find_blob(ledger, "sha256:aa") is None

    def test_are_recorded_over_what_was_there(self, ledger: Ledger, clock: ManualClock) -> None:
        staged, published = Blob("aa", "staging/task/a", 1, "one"), Blob("aa", "models/a", 1, "two")
        ledger.put_blobs([("sha256:aa", staged)], expires_at=START + 10)
        ledger.put_blobs([("sha256:aa", staged), ("sha256:aa", published)], expires_at=None)
        clock.now = START + 1000
        assert find_blob(ledger, "sha256:aa") == published

    def test_that_expire_do_not_take_the_place_of_one_that_stays(self, ledger: Ledger, clock: ManualClock) -> None:
        published, staged, newer = (Blob("aa", key, 1, "etag") for key in ("models/a", "staging/t/a", "staging/u/a"))
        ledger.put_blobs([("sha256:aa", published)], expires_at=None)
        ledger.put_blobs([("sha256:aa", staged), ("sha256:bb", staged)], expires_at=START + 10)
        ledger.put_blobs([("sha256:bb", newer)], expires_at=START + 20)
        assert find_blob(ledger, "sha256:bb") == newer
        clock.now = START + 15
        assert find_blob(ledger, "sha256:bb") == newer
        assert find_blob(ledger, "sha256:aa") == published

    def test_that_expire_are_found_once_the_one_that_stays_is_forgotten(self, ledger: Ledger) -> None:
        published, staged = Blob("aa", "models/a", 1, "one"), Blob("aa", "staging/t/a", 1, "two")
        ledger.put_blobs([("sha256:aa", published)], expires_at=None)
        ledger.put_blobs([("sha256:aa", staged)], expires_at=START + 1e9)
        ledger.forget_blob("sha256:aa", "models/a")
        assert find_blob(ledger, "sha256:aa") == staged
        ledger.forget_blob("sha256:aa", "staging/t/a")
        assert find_blob(ledger, "sha256:aa") is None

    def test_any_number_is_forgotten_only_at_the_keys_given(self, ledger: Ledger) -> None:
        blobs = [(f"sha256:{n:064x}", Blob(f"{n:064x}", f"models/a/{n}", 1, "etag")) for n in range(250)]
        others = [(f"git-sha1:{n:040x}", Blob(f"{n:064x}", f"models/b/{n}", 1, "etag")) for n in range(5)]
        ledger.put_blobs([*blobs, *others], expires_at=None)
        unknown = [(f"git-sha1:{n:040x}", "models/a/0") for n in range(300)]
        twice = [(digest, "models/a/copy") for digest, _ in blobs[:3]]
        references = [*((digest, blob.key) for digest, blob in blobs[:-1]), *twice, *unknown]
        for _ in range(2):
            ledger.forget_blobs(iter(references))
        assert [digest for digest, _ in blobs if find_blob(ledger, digest)] == [blobs[-1][0]]
        assert all(find_blob(ledger, digest) == blob for digest, blob in others)
        ledger.forget_blobs([])

    def test_are_forgotten_only_at_the_key_given(self, ledger: Ledger) -> None:
        blob = Blob("aa", "models/a", 1, "etag")
        ledger.put_blobs([("sha256:aa", blob)], expires_at=None)
        ledger.forget_blob("sha256:aa", "staging/task/a")
        assert find_blob(ledger, "sha256:aa") == blob
        for _ in range(2):
            ledger.forget_blob("sha256:aa", "models/a")
        assert find_blob(ledger, "sha256:aa") is None


class TestClaimOfSeveral:
    def claim(self, ledger: Ledger, *names: str) -> Task:
        task_id = str(uuid.uuid4())
        models = [make_local_model(name, task_id) for name in names]
        task = make_task(models[0], id=task_id, model_ids=tuple(m.model_id for m in models))
        ledger.claim_import(task, models)
        return task

    def test_writes_them_all_in_their_order(self, ledger: Ledger) -> None:
        names = [f"m{number:02d}" for number in range(90)]
        task = self.claim(ledger, *names)
        assert read_task(ledger, task.id) == task
        found = ledger.find_models(task.model_ids)
        assert [model.resolved.name for model in found] == names
        assert found[0].resolved.root == "m00/"
        assert ledger.find_models([task.model_ids[1], "unknown", task.model_ids[0]]) == [found[1], found[0]]
        assert ledger.find_models([]) == []

    def test_is_refused_whole_for_those_that_are_here(self, ledger: Ledger) -> None:
        first, running = self.claim(ledger, "alpha", "beta"), self.claim(ledger, "gamma")
        ledger.finish_import(first.id, totals=dict.fromkeys(first.model_ids, (1, 1)), check_at=START)
        with pytest.raises(ModelExistsError) as caught:
            self.claim(ledger, "new", "gamma", "Beta", "alpha")
        assert caught.value.models == dict(zip(first.model_ids, ("alpha", "beta"), strict=True))
        assert "alpha" in caught.value.detail
        assert "beta" in caught.value.detail
        assert ledger.find_model(make_local_model("new").model_id) is None
        assert read_model(ledger, running.model_ids[0]).task_id == running.id

    def test_is_refused_whole_for_the_first_in_flight(self, ledger: Ledger) -> None:
        withdrawing, running = self.claim(ledger, "b"), self.claim(ledger, "c")
        ledger.start_stage(withdrawing.id, Stage.PUBLISHING, check_at=START)
        ledger.fail_import(withdrawing.id, GATED, check_at=START)
        for names, holder in ((("a", "b", "c"), withdrawing), (("c", "a", "b"), running)):
            with pytest.raises(ImportInProgressError) as caught:
                self.claim(ledger, *names)
            assert (caught.value.task_id, caught.value.model_id) == (holder.id, holder.model_ids[0])
        assert ledger.find_model(make_local_model("a").model_id) is None
        assert [task.id for task in ledger.list_tasks(limit=100).tasks if task.stage is Stage.PLANNING] == [running.id]

    def test_takes_failed_ones_over_beside_new_ones(self, ledger: Ledger) -> None:
        failed = self.claim(ledger, "a", "b")
        ledger.fail_import(failed.id, GATED, check_at=START)
        task = self.claim(ledger, "new", "b")
        assert [model.task_id for model in ledger.find_models(task.model_ids)] == [task.id] * 2
        assert read_model(ledger, failed.model_ids[0]).task_id == failed.id
        ledger.fail_import(failed.id, GATED, check_at=START)
        assert {model.status for model in ledger.find_models(task.model_ids)} == {ModelStatus.IMPORTING}

    def test_repeated_succeeds_also_once_others_have_taken_some_over(self, ledger: Ledger) -> None:
        first = self.claim(ledger, "a", "b")
        ledger.fail_import(first.id, GATED, check_at=START)
        second = self.claim(ledger, "b")
        before = read_task(ledger, first.id), ledger.find_models(first.model_ids)
        ledger.claim_import(first, [make_local_model(name, first.id) for name in ("a", "b")])
        assert (read_task(ledger, first.id), ledger.find_models(first.model_ids)) == before
        assert before[1][1].task_id == second.id

    def test_ends_for_all_at_once(self, ledger: Ledger) -> None:
        done, failed = self.claim(ledger, "a", "b"), self.claim(ledger, "c", "d")
        totals = {done.model_ids[0]: (1, 10), done.model_ids[1]: (2, 500_000_000_001)}
        assert ledger.finish_import(done.id, totals=totals, check_at=START)
        found = ledger.find_models(done.model_ids)
        assert [(m.status, m.files, m.size) for m in found] == [
            (ModelStatus.READY, 1, 10),
            (ModelStatus.READY, 2, 500_000_000_001),
        ]
        ledger.start_stage(failed.id, Stage.PUBLISHING, check_at=START)
        assert ledger.fail_import(failed.id, GATED, check_at=START)
        assert {m.status for m in ledger.find_models(failed.model_ids)} == {ModelStatus.WITHDRAWING}
        ledger.release_models(failed.id)
        assert {m.status for m in ledger.find_models(failed.model_ids)} == {ModelStatus.FAILED}
        again = self.claim(ledger, "d", "c")
        assert {m.task_id for m in ledger.find_models(again.model_ids)} == {again.id}

    def test_done_with_failed_models_frees_these_alone(self, ledger: Ledger, clock: ManualClock) -> None:
        task = self.claim(ledger, "good", "bad", "worse")
        good, bad, worse = task.model_ids
        totals, failed = {good: (3, 500)}, {bad: UNSAFE, worse: replace(UNSAFE, detail="ü" * 2000, retryable=True)}
        clock.now = START + 60
        assert ledger.finish_import(task.id, totals=totals, check_at=START + 900, failed=failed)
        ended = read_task(ledger, task.id)
        assert (ended.status, ended.stage, ended.error) == (TaskStatus.DONE, Stage.DONE, None)
        assert set(ended.failed_ids) == {bad, worse}
        models = ledger.find_models(task.model_ids)
        assert [(m.status, m.files, m.size) for m in models] == [
            (ModelStatus.READY, 3, 500),
            (ModelStatus.FAILED, 0, 0),
            (ModelStatus.FAILED, 0, 0),
        ]
        assert [m.error for m in models[:2]] == [None, UNSAFE]
        assert models[2].error == ModelError(UNSAFE.type, "ü" * 999 + "…", retryable=True)
        assert {m.updated_at for m in models} == {at(START + 60)}
        assert [m.model_id for m in ledger.list_models(limit=10).models] == [good]
        # A repetition, also with another result, changes nothing.
        clock.now = START + 70
        assert ledger.finish_import(task.id, totals=dict.fromkeys(task.model_ids, (1, 1)), check_at=START)
        assert not ledger.fail_import(task.id, GATED, check_at=START)
        assert (read_task(ledger, task.id), ledger.find_models(task.model_ids)) == (ended, models)

    def test_a_failed_model_of_a_done_task_can_be_claimed_again(self, ledger: Ledger) -> None:
        first = self.claim(ledger, "good", "bad")
        good, bad = first.model_ids
        ledger.finish_import(first.id, totals={good: (1, 1)}, check_at=START, failed={bad: UNSAFE})
        with pytest.raises(ModelExistsError):
            self.claim(ledger, "good", "bad")
        second = self.claim(ledger, "bad")
        claimed = read_model(ledger, bad)
        assert (claimed.status, claimed.task_id, claimed.error) == (ModelStatus.IMPORTING, second.id, None)
        assert ledger.finish_import(second.id, totals={bad: (2, 2)}, check_at=START)
        assert (read_model(ledger, bad).status, read_model(ledger, bad).error) == (ModelStatus.READY, None)
        assert read_task(ledger, first.id).failed_ids == (bad,)

    @pytest.mark.parametrize("stage", [Stage.VERIFIED, Stage.PUBLISHING])
    def test_each_model_of_a_failed_task_has_its_error(self, ledger: Ledger, stage: Stage) -> None:
        task = self.claim(ledger, "a", "b", "c")
        ledger.start_stage(task.id, stage, check_at=START)
        failed = {task.model_ids[0]: UNSAFE, task.model_ids[2]: replace(UNSAFE, detail="x" * 2000)}
        assert ledger.fail_import(task.id, replace(GATED, detail="y" * 2000), check_at=START, failed=failed)
        error = read_task(ledger, task.id).error
        assert error is not None
        assert len(error.detail) == 2000
        expected = [UNSAFE, replace(GATED_MODEL, detail="y" * 999 + "…"), replace(UNSAFE, detail="x" * 999 + "…")]
        assert [m.error for m in ledger.find_models(task.model_ids)] == expected
        ledger.release_models(task.id)
        assert {m.status for m in ledger.find_models(task.model_ids)} == {ModelStatus.FAILED}
        assert [m.error for m in ledger.find_models(task.model_ids)] == expected


class TestArrival:
    def test_a_recorded_task_is_watched_and_not_written_again(self, ledger: Ledger) -> None:
        task = drop(ledger)
        assert read_task(ledger, task.id) == task
        assert task in ledger.list_due(START + 300, 10)
        ledger.record_task(replace(task, stage=Stage.UPLOADING))
        assert read_task(ledger, task.id) == task

    def test_an_upload_arrives_once(self, ledger: Ledger, clock: ManualClock) -> None:
        asked = drop(ledger, stage=Stage.UPLOADING, archive=Archive("uploads/x.zip", "x.zip", "name"))
        clock.now += 60
        arrived = ledger.record_arrival(asked.id, size=7, etag="e1", check_at=START + 500)
        assert arrived == replace(
            asked,
            stage=Stage.INSPECTING,
            archive=Archive("uploads/x.zip", "x.zip", "name", 7, "e1"),
            check_at=START + 500,
            updated_at=at(START + 60),
        )
        assert ledger.record_arrival(asked.id, size=8, etag="e2", check_at=START + 900) == arrived
        assert read_task(ledger, asked.id) == arrived
        assert ledger.record_arrival("unknown", size=8, etag="e2", check_at=START) is None

    def test_an_ended_task_does_not_wait_for_its_upload(self, ledger: Ledger) -> None:
        asked = drop(ledger, stage=Stage.UPLOADING)
        ledger.fail_import(asked.id, GATED, check_at=START)
        arrived = ledger.record_arrival(asked.id, size=8, etag="e2", check_at=START)
        assert arrived is not None
        assert arrived.status is TaskStatus.FAILED

    def test_its_models_are_claimed_with_what_was_skipped(self, ledger: Ledger, clock: ManualClock) -> None:
        task = drop(ledger)
        models = [make_local_model("a", task.id), make_local_model("b", task.id)]
        skipped = [SkippedDirectory("é", ("config.json", "weights")), SkippedDirectory("", ())]
        clock.now += 60
        claimed = ledger.claim_models(task.id, models, skipped, check_at=START + 500)
        assert claimed == replace(
            task,
            stage=Stage.PLANNING,
            model_ids=tuple(m.model_id for m in models),
            skipped=tuple(skipped),
            check_at=START + 500,
            updated_at=at(START + 60),
        )
        assert ledger.find_models(claimed.model_ids) == models
        assert ledger.claim_models(task.id, models[:1], [], check_at=START + 900) == claimed
        assert ledger.claim_models("unknown", models, [], check_at=START) is None

    def test_its_models_are_claimed_at_no_other_stage(self, ledger: Ledger) -> None:
        awaited, ended = drop(ledger, stage=Stage.UPLOADING), drop(ledger)
        ledger.fail_import(ended.id, GATED, check_at=START)
        for task in (awaited, read_task(ledger, ended.id)):
            models = [make_local_model("a", task.id)]
            assert ledger.claim_models(task.id, models, [SkippedDirectory("b", ())], check_at=START + 900) == task
            assert read_task(ledger, task.id) == task
        assert ledger.find_model(make_local_model("a").model_id) is None

    def test_its_models_are_not_claimed_if_one_is_here(self, ledger: Ledger) -> None:
        first, second = drop(ledger), drop(ledger)
        claimed = ledger.claim_models(first.id, [make_local_model("a", first.id)], [], check_at=START)
        assert claimed is not None
        ledger.finish_import(first.id, totals={claimed.model_ids[0]: (1, 1)}, check_at=START)
        with pytest.raises(ModelExistsError) as caught:
            ledger.claim_models(
                second.id, [make_local_model(name, second.id) for name in ("b", "A")], [], check_at=START
            )
        assert caught.value.models == {claimed.model_ids[0]: "a"}
        assert read_task(ledger, second.id) == second
        assert ledger.find_model(make_local_model("b").model_id) is None

    @pytest.mark.parametrize("characters", ["a", "ä", "😀", "\ud800", "\x00"])
    def test_a_record_has_room_for_ninety_models_and_a_hundred_skipped(self, ledger: Ledger, characters: str) -> None:
        """As much as inspecting keeps: directories of 900 bytes, 10 names of 80 characters and the index's."""
        random = Random(7)
        if characters == "😀":
            characters = "".join(map(chr, range(0x1_0000, 0x2_0000)))

        def write(length: int) -> str:
            return "".join(random.choices(characters, k=length))

        index = "(named by pytorch_model.bin.index.json)"
        skipped = [
            SkippedDirectory(f"{number} {write(220)}", tuple(f"{write(80)} {index}" for _ in range(10)))
            for number in range(100)
        ]
        task = drop(ledger)
        models = [make_local_model(f"m{number:02d}", task.id) for number in range(90)]
        claimed = ledger.claim_models(task.id, models, skipped, check_at=START)
        assert claimed is not None
        assert claimed.skipped == tuple(skipped)
        ledger.fail_import(task.id, GATED, check_at=START)
        posted = replace(claimed, id=str(uuid.uuid4()))
        ledger.claim_import(posted, [replace(model, task_id=posted.id) for model in models])
        assert read_task(ledger, posted.id) == posted

    def test_another_tasks_models_are_not_claimed(self, ledger: Ledger) -> None:
        first, second = drop(ledger), drop(ledger)
        ledger.claim_models(first.id, [make_local_model("a", first.id)], [], check_at=START)
        with pytest.raises(ImportInProgressError) as running:
            ledger.claim_models(
                second.id, [make_local_model(name, second.id) for name in ("b", "a")], [], check_at=START
            )
        assert running.value.task_id == first.id
        assert read_task(ledger, second.id) == second
        assert ledger.find_model(make_local_model("b").model_id) is None
        ledger.fail_import(second.id, GATED, check_at=START)
        assert ledger.claim_models(second.id, [make_local_model("b", second.id)], [], check_at=START) is not None
        assert ledger.find_model(make_local_model("b").model_id) is None

    def test_a_files_locator_is_given_back(self, ledger: Ledger) -> None:
        file = replace(make_file("a/x"), locator="0,100,8,0,50,")
        task = plan(ledger, file)
        assert read_file(ledger, task.id, "a/x").file == file


# Of the right parts, but not as they are written.
FOREIGN_CURSORS = [
    base64.urlsafe_b64encode(text.encode()).decode()
    for text in (
        f"2026-01-01T00:00:00.000000+0000 {uuid.UUID(int=7)}\n",
        f"2026-01-01T00:00:00.000000+0100 {uuid.UUID(int=7)}",
        f"2026-01-01T00:00:00+0000 {uuid.UUID(int=7)}",
        f"{uuid.UUID(int=7)} 2026-01-01T00:00:00.000000+0000",
        "2026-01-01T00:00:00.000000+0000 7",
        '{"kind": {"S": "other"}}',
    )
]


class TestList:
    def list_all(self, ledger: Ledger, limit: int, **filters: Any) -> list[str]:
        found: list[str] = []
        cursor = None
        for _ in range(50):
            page = ledger.list_tasks(limit=limit, cursor=cursor, **filters)
            assert len(page.tasks) <= limit
            found += [task.id for task in page.tasks]
            cursor = page.cursor
            if cursor is None:
                return found
        raise AssertionError("the list does not end")

    @pytest.mark.parametrize("limit", [1, 3, 100])
    def test_is_newest_first_by_source_and_status(self, ledger: Ledger, limit: int) -> None:
        dropped = [drop(ledger, created_at=at(START + number)) for number in range(7)]
        imported = [claim(ledger, created_at=at(START + number + 0.5)) for number in range(3)]
        ledger.fail_import(dropped[2].id, GATED, check_at=START)
        newest = sorted([*dropped, *imported], key=lambda task: task.created_at, reverse=True)
        assert self.list_all(ledger, limit) == [task.id for task in newest]
        assert self.list_all(ledger, limit, source=Source.HUGGINGFACE) == [t.id for t in reversed(imported)]
        assert self.list_all(ledger, limit, status=TaskStatus.FAILED) == [dropped[2].id]
        assert self.list_all(ledger, limit, source=Source.GITHUB) == []
        assert ledger.list_tasks(limit=100).tasks[0] == newest[0]

    def test_goes_on_below_what_was_listed_whatever_comes_in_above(self, ledger: Ledger) -> None:
        tasks = [drop(ledger, created_at=at(START + number)) for number in range(4)]
        first = ledger.list_tasks(limit=2)
        assert list(first.tasks) == [tasks[3], tasks[2]]
        assert first.cursor is not None
        assert re.fullmatch(r"[A-Za-z0-9_-]+", first.cursor)
        drop(ledger, created_at=at(START + 9))
        ledger.fail_import(tasks[2].id, GATED, check_at=START)
        assert list(ledger.list_tasks(limit=2, cursor=first.cursor).tasks) == [tasks[1], tasks[0]]
        assert list(ledger.list_tasks(limit=2, cursor=first.cursor, status=TaskStatus.FAILED).tasks) == []

    def test_of_nothing_ends_at_once(self, ledger: Ledger) -> None:
        assert ledger.list_tasks(limit=20) == TaskPage((), None)

    @settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(position=st.integers(0, 200), character=st.characters())
    @example(position=0, character="\ud800")
    @example(position=0, character="=")
    def test_a_cursor_that_was_changed_is_refused_or_means_another_place(
        self, ledger: Ledger, position: int, character: str
    ) -> None:
        for number in range(2):
            drop(ledger, created_at=at(START + number))
        cursor = ledger.list_tasks(limit=1).cursor
        assert cursor is not None
        cut = position % len(cursor)
        with suppress(InvalidReferenceError):
            assert len(ledger.list_tasks(limit=1, cursor=cursor[:cut] + character + cursor[cut + 1 :]).tasks) <= 1

    @pytest.mark.parametrize("cursor", ["", "x", "é", "bm90aGluZw", "a" * 500, "{}", *FOREIGN_CURSORS])
    def test_a_cursor_of_nobodys_is_refused(self, ledger: Ledger, cursor: str) -> None:
        for refuse in (ledger.list_tasks, ledger.list_models):
            with pytest.raises(InvalidReferenceError) as refused:
                refuse(limit=1, cursor=cursor)
            assert refused.value.part == "cursor"


def make_ready(ledger: Ledger, name: str, age: float = 0, source: Source = Source.HUGGINGFACE) -> Model:
    """A READY model, created so many seconds before the others."""
    resolved = replace(make_model().resolved, source=source, name=name)
    model = replace(make_model(), model_id=resolved.model_id, resolved=resolved, created_at=at(START - age))
    task = claim(ledger, model)
    ledger.finish_import(task.id, totals={model.model_id: (3, 500)}, check_at=START)
    return read_model(ledger, model.model_id)


class TestModels:
    def list_all(self, ledger: Ledger, limit: int, **filters: Any) -> list[Model]:
        found: list[Model] = []
        cursor = None
        for _ in range(50):
            page = ledger.list_models(limit=limit, cursor=cursor, **filters)
            assert len(page.models) <= limit
            found += page.models
            cursor = page.cursor
            if cursor is None:
                return found
        raise AssertionError("the list does not end")

    @pytest.mark.parametrize("limit", [1, 2, 3, 100])
    def test_are_listed_newest_first_by_source_and_name(self, ledger: Ledger, limit: int) -> None:
        bert = make_ready(ledger, "google-bert/BERT-base-uncased", 30)
        gpt = make_ready(ledger, "openai-community/gpt2", 20)
        local = make_ready(ledger, "team/tiny-bert", 10, Source.LOCAL)
        robert = make_ready(ledger, "x/RoBERTa", 0)
        assert self.list_all(ledger, limit) == [robert, local, gpt, bert]
        assert self.list_all(ledger, limit, name="bErT") == [robert, local, bert]
        assert self.list_all(ledger, limit, name="bert", source=Source.HUGGINGFACE) == [robert, bert]
        assert self.list_all(ledger, limit, source=Source.LOCAL) == [local]
        assert self.list_all(ledger, limit, source=Source.GITHUB) == []
        assert self.list_all(ledger, limit, name="no such") == []

    def test_are_listed_only_when_ready(self, ledger: Ledger) -> None:
        claim(ledger)
        ledger.fail_import(claim(ledger).id, GATED, check_at=START)
        again = make_model()
        ledger.fail_import(claim(ledger, again).id, GATED, check_at=START)
        assert self.list_all(ledger, 10) == []
        ledger.finish_import(claim(ledger, again).id, totals={again.model_id: (1, 1)}, check_at=START)
        assert [model.model_id for model in self.list_all(ledger, 10)] == [again.model_id]
        ledger.lease_deletion(again.model_id, owner="a", now=START, until=START + 60)
        assert self.list_all(ledger, 10) == []

    def test_the_list_goes_on_below_what_was_listed(self, ledger: Ledger) -> None:
        models = [make_ready(ledger, f"org/m{age}", age) for age in range(6)]
        first = ledger.list_models(limit=2, name="org")
        assert list(first.models) == models[:2]
        assert first.cursor is not None
        make_ready(ledger, "org/newer", -10)
        ledger.lease_deletion(models[2].model_id, owner="a", now=START, until=START + 60)
        assert list(ledger.list_models(limit=2, name="org", cursor=first.cursor).models) == models[3:5]


class TestDeletion:
    def test_hides_the_model_and_is_one_owners(self, ledger: Ledger, clock: ManualClock) -> None:
        model = make_ready(ledger, "org/m")
        clock.now = START + 5
        leased = ledger.lease_deletion(model.model_id, owner="a", now=START, until=START + 60)
        assert leased == replace(model, status=ModelStatus.DELETING, updated_at=at(START + 5))
        assert ledger.find_model(model.model_id) == leased
        assert ledger.lease_deletion(model.model_id, owner="b", now=START + 59.5, until=START + 99) is None
        assert ledger.list_deleting(START + 59.5, 10) == []
        assert ledger.list_deleting(START + 60, 10) == [leased]
        assert ledger.lease_deletion(model.model_id, owner="a", now=START, until=START + 70) == leased
        assert ledger.lease_deletion(model.model_id, owner="b", now=START + 70, until=START + 99) == leased
        ledger.remove_model(model.model_id, owner="a")
        assert ledger.find_model(model.model_id) == leased
        for _ in range(2):
            ledger.remove_model(model.model_id, owner="b")
        assert ledger.find_model(model.model_id) is None
        assert ledger.list_deleting(START + 1000, 10) == []

    def test_is_not_of_what_a_task_has_or_of_nothing(self, ledger: Ledger) -> None:
        importing, withdrawing = claim(ledger), claim(ledger)
        ledger.start_stage(withdrawing.id, Stage.PUBLISHING, check_at=START)
        ledger.fail_import(withdrawing.id, GATED, check_at=START)
        for model_id in (importing.model_ids[0], withdrawing.model_ids[0], "unknown", "", "\ud800", "x" * 3000):
            before = ledger.find_model(model_id)
            assert ledger.lease_deletion(model_id, owner="a", now=START, until=START + 60) is None
            assert ledger.find_model(model_id) == before
        ready = make_ready(ledger, "org/m")
        ledger.remove_model(ready.model_id, owner="a")
        assert ledger.find_model(ready.model_id) == ready

    def test_of_a_failed_model_removes_its_record(self, ledger: Ledger) -> None:
        task = claim(ledger)
        ledger.fail_import(task.id, GATED, check_at=START)
        assert ledger.lease_deletion(task.model_ids[0], owner="a", now=START, until=START + 60) is not None
        ledger.remove_model(task.model_ids[0], owner="a")
        assert ledger.find_model(task.model_ids[0]) is None
        assert read_task(ledger, task.id).error == GATED

    def test_stands_before_a_claim_until_it_is_done(self, ledger: Ledger) -> None:
        model = make_ready(ledger, "org/m")
        other = make_ready(ledger, "org/other")
        again = replace(model, status=ModelStatus.IMPORTING, files=0, size=0)
        ledger.lease_deletion(model.model_id, owner="a", now=START, until=START + 60)
        with pytest.raises(DeletionInProgressError) as caught:
            claim(ledger, again)
        assert caught.value.model_id == model.model_id
        assert "org/m" in caught.value.detail
        assert "deleted" in caught.value.detail
        archive = drop(ledger)
        with pytest.raises(DeletionInProgressError):
            ledger.claim_models(archive.id, [replace(again, task_id=archive.id)], [], check_at=START)
        ledger.remove_model(model.model_id, owner="a")
        task = claim(ledger, again)
        assert read_model(ledger, model.model_id) == replace(again, task_id=task.id)
        assert ledger.lease_deletion(model.model_id, owner="a", now=START, until=START + 60) is None
        ledger.remove_model(model.model_id, owner="a")
        assert read_model(ledger, model.model_id).task_id == task.id
        assert ledger.find_model(other.model_id) == other
