"""What every repository of tasks does."""

import base64
import re
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from modelhaul.domain.archives import Archive, SkippedDirectory
from modelhaul.domain.errors import (
    ImportInProgressError,
    InvalidReferenceError,
    ModelExistsError,
)
from modelhaul.domain.files import FileCounts
from modelhaul.domain.models import Publication, Source
from modelhaul.domain.policy_results import PolicyDecision, PolicyWarning
from modelhaul.domain.tasks import Progress, Stage, TaskPage, TaskStatus, Waiting
from tests.contract.database_builders import (
    GATED,
    POLICY,
    START,
    at,
    claim,
    drop,
    make_file,
    make_local_model,
    plan,
    read_task,
)
from tests.fakes.clock import ManualClock
from tests.fakes.database import Database

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


@pytest.mark.parametrize(
    "key", ["", "x", "../..", "a b/ä%00", "😀", "\ud800", "x" * 3000, str(uuid.UUID(int=7, version=4))]
)
def test_an_id_of_any_shape_that_is_not_there_is_none(database: Database, key: str) -> None:
    assert database.tasks.find_task(key) is None
    assert database.models.find_model(key) is None


class TestStage:
    def test_moves_forward_with_the_totals(self, database: Database, clock: ManualClock) -> None:
        task = claim(database, sweeps=4)
        clock.now = START + 7
        totals = Progress(files_done=9, files_total=2, bytes_done=9, bytes_total=30, bytes_reused=9)
        plan_id = f"{task.id}#0"
        assert database.tasks.start_stage(
            task.id, Stage.TRANSFERRING, check_at=START + 500, totals=totals, plan_id=plan_id
        )
        started = read_task(database, task.id)
        assert started == replace(
            task,
            stage=Stage.TRANSFERRING,
            progress=Progress(files_total=2, bytes_total=30),
            check_at=START + 500,
            updated_at=at(START + 7),
            sweeps=0,
            plan_id=plan_id,
            transfer_began_at=at(START + 7),
        )
        assert database.tasks.start_stage(task.id, Stage.PUBLISHING, check_at=START + 600)
        assert read_task(database, task.id) == replace(started, stage=Stage.PUBLISHING, check_at=START + 600)

    @pytest.mark.parametrize("stage", [Stage.TRANSFERRING, Stage.PUBLISHING])
    def test_that_is_reached_or_passed_is_left_alone(self, database: Database, stage: Stage) -> None:
        task = claim(database)
        database.tasks.start_stage(task.id, Stage.PUBLISHING, check_at=START + 500)
        before = read_task(database, task.id)
        assert not database.tasks.start_stage(
            task.id, stage, check_at=START + 900, totals=Progress(files_total=7), plan_id="late"
        )
        assert read_task(database, task.id) == before

    def test_verified_has_the_counts_of_the_totals(self, database: Database) -> None:
        task = plan(database, make_file("a", 10), make_file("b", 200))
        database.tasks.record_progress(task.id, FileCounts(1, 10, 10), check_at=START)
        assert database.tasks.start_stage(task.id, Stage.VERIFIED, check_at=START)
        verified = read_task(database, task.id)
        assert verified.progress == Progress(2, 2, 210, 210, 10)
        assert verified.plan_id == task.plan_id
        assert database.tasks.record_progress(task.id, FileCounts(1, 10), check_at=START)
        assert read_task(database, task.id) == verified

    def test_is_begun_by_one_of_many(self, database: Database) -> None:
        task = claim(database)
        with ThreadPoolExecutor(8) as pool:
            began = list(
                pool.map(lambda _: database.tasks.start_stage(task.id, Stage.VERIFIED, check_at=START), range(8))
            )
        assert began.count(True) == 1

    def test_of_an_ended_task_is_left_alone(self, database: Database) -> None:
        task = claim(database)
        database.imports.fail_import(task.id, GATED, check_at=START)
        before = read_task(database, task.id)
        assert not database.tasks.start_stage(task.id, Stage.PUBLISHING, check_at=START + 900)
        assert read_task(database, task.id) == before

    @pytest.mark.parametrize("stage", [Stage.UPLOADING, Stage.INSPECTING])
    def test_of_a_task_without_its_models_is_left_alone(self, database: Database, stage: Stage) -> None:
        task = drop(database, stage=stage)
        assert not database.tasks.start_stage(task.id, Stage.TRANSFERRING, check_at=START + 900)
        assert read_task(database, task.id) == task

    def test_of_an_unknown_task_is_not_begun(self, database: Database) -> None:
        assert not database.tasks.start_stage("unknown", Stage.PUBLISHING, check_at=START)
        assert database.tasks.find_task("unknown") is None


class TestProgress:
    def test_is_stored_and_postpones_the_check(self, database: Database, clock: ManualClock) -> None:
        task = plan(database, make_file(size=1000))
        database.tasks.postpone_check(task.id, check_at=task.check_at + 1, sweeps=3)
        clock.now = START + 5
        for _ in range(2):
            assert database.tasks.record_progress(task.id, FileCounts(0, 400, 10), check_at=START + 700)
            assert read_task(database, task.id) == replace(
                task,
                progress=replace(task.progress, bytes_done=400, bytes_reused=10),
                check_at=START + 700,
                updated_at=at(START + 5),
                bytes_counted_at=at(START + 5),
                sweeps=0,
            )

    def test_without_new_bytes_keeps_their_time(self, database: Database, clock: ManualClock) -> None:
        task = plan(database, make_file(size=1000))
        database.tasks.record_progress(task.id, FileCounts(0, 1000), check_at=START + 700)
        clock.now = START + 5
        assert database.tasks.record_progress(task.id, FileCounts(1, 1000), check_at=START + 800)
        found = read_task(database, task.id)
        assert (found.progress.files_done, found.check_at) == (1, START + 800)
        assert (found.updated_at, found.bytes_counted_at) == (at(START + 5), at(START))

    def test_with_fewer_files_is_ignored(self, database: Database, clock: ManualClock) -> None:
        task = plan(database, make_file(size=1000))
        database.tasks.record_progress(task.id, FileCounts(2, 400), check_at=START + 700)
        before = read_task(database, task.id)
        clock.now = START + 5
        assert database.tasks.record_progress(task.id, FileCounts(1, 900), check_at=START + 900)
        assert read_task(database, task.id) == before
        assert database.tasks.record_progress(task.id, FileCounts(2, 300), check_at=START + 600)
        assert read_task(database, task.id).progress.bytes_done == 300

    def test_of_an_ended_or_unknown_task_is_refused(self, database: Database) -> None:
        task = plan(database, make_file())
        database.imports.fail_import(task.id, GATED, check_at=START)
        before = read_task(database, task.id)
        assert not database.tasks.record_progress(task.id, FileCounts(1, 1000), check_at=START + 900)
        assert not database.tasks.record_progress("unknown", FileCounts(1, 1000), check_at=START + 900)
        assert read_task(database, task.id) == before
        assert database.tasks.find_task("unknown") is None


class TestPending:
    def test_are_listed_newest_first_and_not_once_they_have_ended(self, database: Database) -> None:
        tasks = [claim(database, created_at=at(START + age)) for age in (1, 3, 2)]
        dropped = drop(database, created_at=at(START))
        done, failed = claim(database), claim(database)
        database.imports.finish_import(done.id, published={done.model_ids[0]: Publication(1, 1)}, check_at=START + 1)
        database.imports.fail_import(failed.id, GATED, check_at=START + 2)
        assert database.tasks.list_pending(10) == [tasks[1], tasks[2], tasks[0], dropped]

    def test_of_many_those_with_the_earliest_check_are_listed(self, database: Database) -> None:
        tasks = [claim(database, created_at=at(START + n), check_at=START + 50 - n) for n in range(5)]
        assert database.tasks.list_pending(2) == [tasks[4], tasks[3]]

    def test_of_many_those_whose_check_is_due_are_listed_last(self, database: Database, clock: ManualClock) -> None:
        tasks = [claim(database, created_at=at(START + n), check_at=START + n) for n in range(5)]
        clock.now = START + 2
        assert database.tasks.list_pending(2) == [tasks[4], tasks[3]]
        assert database.tasks.list_pending(4) == [tasks[4], tasks[3], tasks[1], tasks[0]]


class TestWatch:
    def test_lists_what_is_due_longest_first(self, database: Database) -> None:
        due = [claim(database, check_at=START + offset) for offset in (30, 10, 20, 20.5, 40)]
        assert [t.id for t in database.tasks.list_due(START + 30, 10)] == [due[n].id for n in (1, 2, 3, 0)]
        assert database.tasks.list_due(START + 30, 2) == [due[1], due[2]]
        assert database.tasks.list_due(START + 9.5, 10) == []

    def test_ends_with_unwatch_and_not_with_the_task(self, database: Database) -> None:
        done, failed, pending = claim(database), claim(database), claim(database)
        database.imports.finish_import(done.id, published={done.model_ids[0]: Publication(1, 1)}, check_at=START + 1)
        database.imports.fail_import(failed.id, GATED, check_at=START + 2)
        database.tasks.postpone_check(pending.id, check_at=START + 3)
        assert {t.id for t in database.tasks.list_due(START + 999, 10)} == {done.id, failed.id, pending.id}
        for task in (done, failed, pending):
            for _ in range(2):
                database.tasks.unwatch_task(task.id)
        assert [t.id for t in database.tasks.list_due(START + 999, 10)] == [pending.id]
        database.tasks.unwatch_task("unknown")
        assert database.tasks.find_task("unknown") is None

    def test_is_postponed(self, database: Database, clock: ManualClock) -> None:
        task = claim(database, sweeps=1)
        clock.now = START + 5
        database.tasks.postpone_check(task.id, check_at=START + 700)
        assert read_task(database, task.id) == replace(task, check_at=START + 700, updated_at=at(START + 5))
        database.tasks.postpone_check(task.id, check_at=START + 800, sweeps=2)
        assert read_task(database, task.id).sweeps == 2
        database.tasks.postpone_check(task.id, check_at=START + 900, sweeps=0)
        assert read_task(database, task.id).sweeps == 0
        assert database.tasks.list_due(START + 899, 10) == []

    def test_is_never_brought_forward(self, database: Database) -> None:
        task = claim(database, check_at=START + 50)
        database.tasks.postpone_check(task.id, check_at=START + 49, sweeps=7)
        database.tasks.postpone_check(task.id, check_at=START + 50, sweeps=7)
        assert read_task(database, task.id) == task

    def test_is_not_postponed_once_it_has_ended(self, database: Database) -> None:
        task = claim(database)
        database.imports.finish_import(task.id, published={task.model_ids[0]: Publication(1, 1)}, check_at=START)
        database.tasks.unwatch_task(task.id)
        before = read_task(database, task.id)
        database.tasks.postpone_check(task.id, check_at=START + 1, sweeps=5)
        database.tasks.postpone_check("unknown", check_at=START + 1)
        assert read_task(database, task.id) == before
        assert database.tasks.find_task("unknown") is None
        assert database.tasks.list_due(START + 9, 10) == []


class TestWait:
    WAITING = Waiting(
        "source-unavailable",
        "huggingface.co responded with status 503.",
        since=at(START - 60),
        attempt=4,
        next_attempt=at(START + 40),
        recorded_at=at(START),
    )

    def test_is_stored_and_postpones_the_check(self, database: Database, clock: ManualClock) -> None:
        task = claim(database, sweeps=3)
        clock.now = START + 5
        for waiting in (self.WAITING, replace(self.WAITING, attempt=5)):
            assert database.tasks.record_wait(task.id, waiting, stages={Stage.PLANNING}, check_at=START + 700)
            assert read_task(database, task.id) == replace(
                task, waiting=waiting, waiting_stage=Stage.PLANNING, check_at=START + 700, updated_at=at(START + 5)
            )

    def test_does_not_bring_the_check_forward(self, database: Database) -> None:
        task = claim(database, check_at=START + 900)
        assert database.tasks.record_wait(task.id, self.WAITING, stages={Stage.PLANNING}, check_at=START + 700)
        found = read_task(database, task.id)
        assert (found.waiting, found.check_at) == (self.WAITING, START + 900)

    def test_keeps_the_stage_at_which_it_began(self, database: Database) -> None:
        task = claim(database)
        stages = {Stage.VERIFIED, Stage.PUBLISHING}
        database.tasks.start_stage(task.id, Stage.VERIFIED, check_at=START + 500)
        database.tasks.record_wait(task.id, self.WAITING, stages=stages, check_at=START + 700)
        database.tasks.start_stage(task.id, Stage.PUBLISHING, check_at=START + 800)
        found = read_task(database, task.id)
        assert (found.stage, found.waiting_stage, found.waiting) == (Stage.PUBLISHING, Stage.VERIFIED, self.WAITING)

    def test_of_a_task_at_another_stage_is_not_recorded(self, database: Database) -> None:
        planning, ended = claim(database), claim(database)
        database.imports.fail_import(ended.id, GATED, check_at=START)
        for task in (planning, ended):
            before = read_task(database, task.id)
            stages = {Stage.UPLOADING, Stage.TRANSFERRING}
            assert not database.tasks.record_wait(task.id, self.WAITING, stages=stages, check_at=START + 700)
            assert read_task(database, task.id) == before
        assert not database.tasks.record_wait("unknown", self.WAITING, stages={Stage.PLANNING}, check_at=START + 700)
        assert database.tasks.find_task("unknown") is None


class TestPolicy:
    DENIED = replace(POLICY, decision=PolicyDecision.DENY, digest="cd" * 32)

    def test_the_first_decisions_count(self, database: Database, clock: ManualClock) -> None:
        task = claim(database)
        (model_id,) = task.model_ids
        clock.now = START + 5
        assert database.tasks.record_policy(task.id, {model_id: POLICY}) == {model_id: POLICY}
        recorded = replace(task, policy_results={model_id: POLICY}, updated_at=at(START + 5))
        assert read_task(database, task.id) == recorded
        assert database.tasks.record_policy(task.id, {model_id: self.DENIED}) == {model_id: POLICY}
        assert read_task(database, task.id) == recorded

    def test_one_of_many_simultaneous_decisions_counts(self, database: Database) -> None:
        task = claim(database)
        (model_id,) = task.model_ids
        offered = [replace(POLICY, digest=f"{number:064x}") for number in range(8)]
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda result: database.tasks.record_policy(task.id, {model_id: result}), offered))
        assert found == [read_task(database, task.id).policy_results] * 8

    def test_an_ended_task_gets_no_decision(self, database: Database) -> None:
        undecided, decided = claim(database), claim(database)
        database.tasks.record_policy(decided.id, {"a": POLICY})
        for task in (undecided, decided):
            database.imports.fail_import(task.id, GATED, check_at=START)
        assert database.tasks.record_policy(undecided.id, {"a": POLICY}) is None
        assert database.tasks.record_policy(decided.id, {"a": self.DENIED}) == {"a": POLICY}
        assert database.tasks.record_policy("unknown", {"a": POLICY}) is None

    def test_decisions_outlive_the_stages(self, database: Database) -> None:
        task = claim(database)
        database.tasks.record_policy(task.id, {"a": POLICY})
        database.tasks.start_stage(task.id, Stage.PUBLISHING, check_at=START + 500)
        assert read_task(database, task.id).policy_results == {"a": POLICY}

    def test_many_models_with_many_warnings_fit_into_a_task(self, database: Database) -> None:
        task, random = claim(database), Random(1)
        warnings = [
            PolicyWarning(f"rule-{number}", random.randbytes(150).hex(), (random.randbytes(150).hex(),))
            for number in range(100)
        ]
        results = {
            f"{number:036}": replace(POLICY, reason=random.randbytes(500).hex(), warnings=tuple(warnings))
            for number in range(90)
        }
        recorded = database.tasks.record_policy(task.id, results)
        assert recorded is not None
        assert recorded.keys() == results.keys()
        for result in recorded.values():
            assert (result.decision, result.rule_id, result.digest) == (POLICY.decision, POLICY.rule_id, POLICY.digest)
            assert len(result.warnings) <= 20


class TestArrival:
    def test_a_recorded_task_is_watched_and_not_written_again(self, database: Database) -> None:
        task = drop(database)
        assert read_task(database, task.id) == task
        assert task in database.tasks.list_due(START + 300, 10)
        assert not database.tasks.record_task(replace(task, stage=Stage.UPLOADING))
        assert read_task(database, task.id) == task
        assert database.tasks.record_task(replace(task, id=str(uuid.uuid4())))

    def test_an_upload_arrives_once(self, database: Database, clock: ManualClock) -> None:
        asked = drop(database, stage=Stage.UPLOADING, archive=Archive("uploads/x.zip", "x.zip", "name"))
        clock.now += 60
        arrived = database.tasks.record_arrival(asked.id, size=7, etag="e1", check_at=START + 500)
        assert arrived == replace(
            asked,
            stage=Stage.INSPECTING,
            archive=Archive("uploads/x.zip", "x.zip", "name", 7, "e1"),
            check_at=START + 500,
            updated_at=at(START + 60),
        )
        assert database.tasks.record_arrival(asked.id, size=8, etag="e2", check_at=START + 900) == arrived
        assert read_task(database, asked.id) == arrived
        assert database.tasks.record_arrival("unknown", size=8, etag="e2", check_at=START) is None

    def test_an_ended_task_does_not_wait_for_its_upload(self, database: Database) -> None:
        asked = drop(database, stage=Stage.UPLOADING)
        database.imports.fail_import(asked.id, GATED, check_at=START)
        arrived = database.tasks.record_arrival(asked.id, size=8, etag="e2", check_at=START)
        assert arrived is not None
        assert arrived.status is TaskStatus.FAILED

    def test_its_models_are_claimed_with_what_was_skipped(self, database: Database, clock: ManualClock) -> None:
        task = drop(database)
        models = [make_local_model("a", task.id), make_local_model("b", task.id)]
        skipped = [SkippedDirectory("é", ("config.json", "weights")), SkippedDirectory("", ())]
        clock.now += 60
        claimed = database.imports.claim_models(task.id, models, skipped, check_at=START + 500)
        assert claimed == replace(
            task,
            stage=Stage.PLANNING,
            model_ids=tuple(m.model_id for m in models),
            skipped=tuple(skipped),
            check_at=START + 500,
            updated_at=at(START + 60),
        )
        assert database.models.find_models(claimed.model_ids) == models
        assert database.imports.claim_models(task.id, models[:1], [], check_at=START + 900) == claimed
        assert database.imports.claim_models("unknown", models, [], check_at=START) is None

    def test_its_models_are_claimed_at_no_other_stage(self, database: Database) -> None:
        awaited, ended = drop(database, stage=Stage.UPLOADING), drop(database)
        database.imports.fail_import(ended.id, GATED, check_at=START)
        for task in (awaited, read_task(database, ended.id)):
            models = [make_local_model("a", task.id)]
            assert (
                database.imports.claim_models(task.id, models, [SkippedDirectory("b", ())], check_at=START + 900)
                == task
            )
            assert read_task(database, task.id) == task
        assert database.models.find_model(make_local_model("a").model_id) is None

    def test_its_models_are_not_claimed_if_one_is_here(self, database: Database) -> None:
        first, second = drop(database), drop(database)
        claimed = database.imports.claim_models(first.id, [make_local_model("a", first.id)], [], check_at=START)
        assert claimed is not None
        database.imports.finish_import(first.id, published={claimed.model_ids[0]: Publication(1, 1)}, check_at=START)
        with pytest.raises(ModelExistsError) as caught:
            database.imports.claim_models(
                second.id, [make_local_model(name, second.id) for name in ("b", "A")], [], check_at=START
            )
        assert caught.value.models == {claimed.model_ids[0]: "a"}
        assert read_task(database, second.id) == second
        assert database.models.find_model(make_local_model("b").model_id) is None

    @pytest.mark.slow
    @pytest.mark.parametrize("characters", ["a", "ä", "😀", "\ud800", "\x00"])
    def test_a_record_has_room_for_ninety_models_and_a_hundred_skipped(
        self, database: Database, characters: str
    ) -> None:
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
        task = drop(database)
        models = [make_local_model(f"m{number:02d}", task.id) for number in range(90)]
        claimed = database.imports.claim_models(task.id, models, skipped, check_at=START)
        assert claimed is not None
        assert claimed.skipped == tuple(skipped)
        database.imports.fail_import(task.id, GATED, check_at=START)
        posted = replace(claimed, id=str(uuid.uuid4()))
        database.imports.claim_import(posted, [replace(model, task_id=posted.id) for model in models])
        assert read_task(database, posted.id) == posted

    def test_another_tasks_models_are_not_claimed(self, database: Database) -> None:
        first, second = drop(database), drop(database)
        database.imports.claim_models(first.id, [make_local_model("a", first.id)], [], check_at=START)
        with pytest.raises(ImportInProgressError) as running:
            database.imports.claim_models(
                second.id, [make_local_model(name, second.id) for name in ("b", "a")], [], check_at=START
            )
        assert running.value.task_id == first.id
        assert read_task(database, second.id) == second
        assert database.models.find_model(make_local_model("b").model_id) is None
        database.imports.fail_import(second.id, GATED, check_at=START)
        assert (
            database.imports.claim_models(second.id, [make_local_model("b", second.id)], [], check_at=START) is not None
        )
        assert database.models.find_model(make_local_model("b").model_id) is None


class TestList:
    def list_all(self, database: Database, limit: int, **filters: Any) -> list[str]:
        found: list[str] = []
        cursor = None
        for _ in range(50):
            page = database.tasks.list_tasks(limit=limit, cursor=cursor, **filters)
            assert len(page.tasks) <= limit
            found += [task.id for task in page.tasks]
            cursor = page.cursor
            if cursor is None:
                return found
        raise AssertionError("the list does not end")

    @pytest.mark.parametrize("limit", [1, 3, 100])
    def test_is_newest_first_by_source_and_status(self, database: Database, limit: int) -> None:
        dropped = [drop(database, created_at=at(START + number)) for number in range(7)]
        imported = [claim(database, created_at=at(START + number + 0.5)) for number in range(3)]
        database.imports.fail_import(dropped[2].id, GATED, check_at=START)
        newest = sorted([*dropped, *imported], key=lambda task: task.created_at, reverse=True)
        assert self.list_all(database, limit) == [task.id for task in newest]
        assert self.list_all(database, limit, source=Source.HUGGINGFACE) == [t.id for t in reversed(imported)]
        assert self.list_all(database, limit, status=TaskStatus.FAILED) == [dropped[2].id]
        assert self.list_all(database, limit, source=Source.GITHUB) == []
        assert database.tasks.list_tasks(limit=100).tasks[0] == newest[0]

    def test_goes_on_below_what_was_listed_whatever_comes_in_above(self, database: Database) -> None:
        tasks = [drop(database, created_at=at(START + number)) for number in range(4)]
        first = database.tasks.list_tasks(limit=2)
        assert list(first.tasks) == [tasks[3], tasks[2]]
        assert first.cursor is not None
        assert re.fullmatch(r"[A-Za-z0-9_-]+", first.cursor)
        drop(database, created_at=at(START + 9))
        database.imports.fail_import(tasks[2].id, GATED, check_at=START)
        assert list(database.tasks.list_tasks(limit=2, cursor=first.cursor).tasks) == [tasks[1], tasks[0]]
        assert list(database.tasks.list_tasks(limit=2, cursor=first.cursor, status=TaskStatus.FAILED).tasks) == []

    def test_of_nothing_ends_at_once(self, database: Database) -> None:
        assert database.tasks.list_tasks(limit=20) == TaskPage((), None)

    @pytest.mark.slow
    @settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(position=st.integers(0, 200), character=st.characters())
    @example(position=0, character="\ud800")
    @example(position=0, character="=")
    def test_a_cursor_that_was_changed_is_refused_or_means_another_place(
        self, database: Database, position: int, character: str
    ) -> None:
        for number in range(2):
            drop(database, created_at=at(START + number))
        cursor = database.tasks.list_tasks(limit=1).cursor
        assert cursor is not None
        cut = position % len(cursor)
        with suppress(InvalidReferenceError):
            assert (
                len(database.tasks.list_tasks(limit=1, cursor=cursor[:cut] + character + cursor[cut + 1 :]).tasks) <= 1
            )

    @pytest.mark.parametrize("cursor", ["", "x", "é", "bm90aGluZw", "a" * 500, "{}", *FOREIGN_CURSORS])
    def test_a_cursor_of_nobodys_is_refused(self, database: Database, cursor: str) -> None:
        for refuse in (database.tasks.list_tasks, database.models.list_models):
            with pytest.raises(InvalidReferenceError) as refused:
                refuse(limit=1, cursor=cursor)
            assert refused.value.part == "cursor"
