"""What every repository of imports does: claims of models, and the ends of tasks."""

import uuid
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from modelhaul.domain.errors import (
    ImportInProgressError,
    ModelExistsError,
)
from modelhaul.domain.gate import GateReport, GateVerdict, SecondOpinion
from modelhaul.domain.model_cards import BaseModelRelation, ModelCard
from modelhaul.domain.models import ModelError, ModelStatus, Publication
from modelhaul.domain.selection import Selection, Weights
from modelhaul.domain.tasks import Progress, Stage, Task, TaskStatus
from tests.contract.database_builders import (
    GATED,
    POLICY,
    SIGNATURE,
    START,
    at,
    claim,
    make_file,
    make_local_model,
    make_model,
    make_task,
    plan,
    read_model,
    read_task,
)
from tests.fakes.clock import ManualClock
from tests.fakes.database import Database

GATED_MODEL = ModelError(GATED.type, GATED.detail, GATED.retryable, GATED.remedy)

CARD = ModelCard(
    ("apache-2.0", "other"),
    "Bespoke",
    "https://example.com/license",
    ("org/base", "gpt2"),
    BaseModelRelation.QUANTIZED,
    "transformers",
    "text-generation",
)
UNSAFE = ModelError("unsafe-model", "bad/a.bin imports os.system", retryable=False)


class TestClaim:
    def test_writes_the_task_and_the_model(self, database: Database) -> None:
        model = make_model()
        task = make_task(
            model,
            created_at=datetime(2025, 6, 22, 12, 0, 0, 123456, UTC),
            progress=Progress(1, 2, 500_000_000_001, 4, 5),
            error=GATED,
            sweeps=3,
            check_at=START + 0.25,
        )
        database.imports.claim_import(task, [replace(model, task_id=task.id)])
        assert database.tasks.find_task(task.id) == task
        assert database.models.find_model(model.model_id) == replace(model, task_id=task.id)

    def test_of_a_model_in_flight_names_its_task_and_writes_nothing(self, database: Database) -> None:
        model = make_model()
        first, second = claim(database, model), make_task(model)
        with pytest.raises(ImportInProgressError) as caught:
            database.imports.claim_import(second, [replace(model, task_id=second.id)])
        assert (caught.value.task_id, caught.value.model_id) == (first.id, model.model_id)
        assert first.id in caught.value.detail
        assert database.tasks.find_task(second.id) is None
        assert read_model(database, model.model_id).task_id == first.id

    def test_of_a_ready_model_names_it(self, database: Database) -> None:
        model = make_model()
        first = claim(database, model)
        database.imports.finish_import(first.id, published={first.model_ids[0]: Publication(1, 1)}, check_at=START)
        with pytest.raises(ModelExistsError) as caught:
            claim(database, model)
        assert caught.value.models == {model.model_id: model.resolved.name}
        assert model.resolved.name in caught.value.detail

    def test_of_a_part_is_one_of_its_own(self, database: Database) -> None:
        whole = make_model()
        commit = whole.resolved.commit
        patterns = tuple(f"{number:03}-ä😀*" for number in range(100))
        part = make_model(Selection(patterns, ("*.bin",), Weights.SAFETENSORS), commit=commit)
        other = make_model(Selection(ignore_patterns=("*.bin",)), commit=commit)
        tasks = {model.model_id: claim(database, model) for model in (whole, part, other)}
        assert len(tasks) == 3
        for model in (whole, part, other):
            task = tasks[model.model_id]
            assert read_model(database, model.model_id) == replace(model, task_id=task.id)
            assert read_task(database, task.id).selection == model.resolved.selection
            with pytest.raises(ImportInProgressError) as running:
                claim(database, model)
            assert running.value.task_id == task.id
            assert model.resolved.describe() in running.value.detail
            database.imports.finish_import(task.id, published={model.model_id: Publication(1, 1)}, check_at=START)
            with pytest.raises(ModelExistsError) as caught:
                claim(database, model)
            assert caught.value.models == {model.model_id: model.resolved.name}
            assert model.resolved.describe() in caught.value.detail
        assert read_model(database, part.model_id).resolved == part.resolved

    def test_records_who_submitted_and_who_cancelled(self, database: Database) -> None:
        model = replace(make_model(), submitted_by="api-key:one")
        task = claim(database, model, submitted_by="api-key:one")
        assert read_model(database, model.model_id).submitted_by == "api-key:one"
        assert (read_task(database, task.id).submitted_by, read_task(database, task.id).cancelled_by) == (
            "api-key:one",
            None,
        )
        for caller in ("arn:aws:iam::111122223333:user/ops", "api-key:late"):
            database.imports.fail_import(task.id, GATED, stage=Stage.CANCELLED, check_at=START, cancelled_by=caller)
        assert read_task(database, task.id).cancelled_by == "arn:aws:iam::111122223333:user/ops"

    def test_takes_a_failed_model_over(self, database: Database) -> None:
        model = make_model()
        database.imports.fail_import(claim(database, model).id, GATED, check_at=START)
        second = claim(database, model)
        assert read_model(database, model.model_id) == replace(model, task_id=second.id)

    @pytest.mark.parametrize("end", ["none", "done", "failed"])
    def test_repeated_succeeds_and_changes_nothing(self, database: Database, end: str) -> None:
        model = make_model()
        task = claim(database, model)
        if end == "done":
            database.imports.finish_import(task.id, published={task.model_ids[0]: Publication(1, 1)}, check_at=START)
        elif end == "failed":
            database.imports.fail_import(task.id, GATED, check_at=START)
        before = read_task(database, task.id), read_model(database, model.model_id)
        database.imports.claim_import(task, [replace(model, task_id=task.id)])
        assert (read_task(database, task.id), read_model(database, model.model_id)) == before


class TestClaimOfSeveral:
    def claim(self, database: Database, *names: str) -> Task:
        task_id = str(uuid.uuid4())
        models = [make_local_model(name, task_id) for name in names]
        task = make_task(models[0], id=task_id, model_ids=tuple(m.model_id for m in models))
        database.imports.claim_import(task, models)
        return task

    def test_writes_them_all_in_their_order(self, database: Database) -> None:
        names = [f"m{number:02d}" for number in range(90)]
        task = self.claim(database, *names)
        assert read_task(database, task.id) == task
        found = database.models.find_models(task.model_ids)
        assert [model.resolved.name for model in found] == names
        assert found[0].resolved.root == "m00/"
        assert database.models.find_models([task.model_ids[1], "unknown", task.model_ids[0]]) == [found[1], found[0]]
        assert database.models.find_models([]) == []

    def test_is_refused_whole_for_those_that_are_here(self, database: Database) -> None:
        first, running = self.claim(database, "alpha", "beta"), self.claim(database, "gamma")
        database.imports.finish_import(
            first.id, published=dict.fromkeys(first.model_ids, Publication(1, 1)), check_at=START
        )
        with pytest.raises(ModelExistsError) as caught:
            self.claim(database, "new", "gamma", "Beta", "alpha")
        assert caught.value.models == dict(zip(first.model_ids, ("alpha", "beta"), strict=True))
        assert "alpha" in caught.value.detail
        assert "beta" in caught.value.detail
        assert database.models.find_model(make_local_model("new").model_id) is None
        assert read_model(database, running.model_ids[0]).task_id == running.id

    def test_is_refused_whole_for_the_first_in_flight(self, database: Database) -> None:
        withdrawing, running = self.claim(database, "b"), self.claim(database, "c")
        database.tasks.start_stage(withdrawing.id, Stage.PUBLISHING, check_at=START)
        database.imports.fail_import(withdrawing.id, GATED, check_at=START)
        for names, holder in ((("a", "b", "c"), withdrawing), (("c", "a", "b"), running)):
            with pytest.raises(ImportInProgressError) as caught:
                self.claim(database, *names)
            assert (caught.value.task_id, caught.value.model_id) == (holder.id, holder.model_ids[0])
        assert database.models.find_model(make_local_model("a").model_id) is None
        assert [task.id for task in database.tasks.list_tasks(limit=100).tasks if task.stage is Stage.PLANNING] == [
            running.id
        ]

    def test_takes_failed_ones_over_beside_new_ones(self, database: Database) -> None:
        failed = self.claim(database, "a", "b")
        database.imports.fail_import(failed.id, GATED, check_at=START)
        task = self.claim(database, "new", "b")
        assert [model.task_id for model in database.models.find_models(task.model_ids)] == [task.id] * 2
        assert read_model(database, failed.model_ids[0]).task_id == failed.id
        database.imports.fail_import(failed.id, GATED, check_at=START)
        assert {model.status for model in database.models.find_models(task.model_ids)} == {ModelStatus.IMPORTING}

    def test_repeated_succeeds_also_once_others_have_taken_some_over(self, database: Database) -> None:
        first = self.claim(database, "a", "b")
        database.imports.fail_import(first.id, GATED, check_at=START)
        second = self.claim(database, "b")
        before = read_task(database, first.id), database.models.find_models(first.model_ids)
        database.imports.claim_import(first, [make_local_model(name, first.id) for name in ("a", "b")])
        assert (read_task(database, first.id), database.models.find_models(first.model_ids)) == before
        assert before[1][1].task_id == second.id

    def test_ends_for_all_at_once(self, database: Database) -> None:
        done, failed = self.claim(database, "a", "b"), self.claim(database, "c", "d")
        published = {done.model_ids[0]: Publication(1, 10), done.model_ids[1]: Publication(2, 500_000_000_001)}
        assert database.imports.finish_import(done.id, published=published, check_at=START)
        found = database.models.find_models(done.model_ids)
        assert [(m.status, m.files, m.size) for m in found] == [
            (ModelStatus.READY, 1, 10),
            (ModelStatus.READY, 2, 500_000_000_001),
        ]
        database.tasks.start_stage(failed.id, Stage.PUBLISHING, check_at=START)
        assert database.imports.fail_import(failed.id, GATED, check_at=START)
        assert {m.status for m in database.models.find_models(failed.model_ids)} == {ModelStatus.WITHDRAWING}
        database.imports.release_models(failed.id)
        assert {m.status for m in database.models.find_models(failed.model_ids)} == {ModelStatus.FAILED}
        again = self.claim(database, "d", "c")
        assert {m.task_id for m in database.models.find_models(again.model_ids)} == {again.id}

    def test_done_with_failed_models_frees_these_alone(self, database: Database, clock: ManualClock) -> None:
        task = self.claim(database, "good", "bad", "worse")
        good, bad, worse = task.model_ids
        published, failed = (
            {good: Publication(3, 500)},
            {bad: UNSAFE, worse: replace(UNSAFE, detail="ü" * 2000, retryable=True)},
        )
        clock.now = START + 60
        assert database.imports.finish_import(task.id, published=published, check_at=START + 900, failed=failed)
        ended = read_task(database, task.id)
        assert (ended.status, ended.stage, ended.error) == (TaskStatus.DONE, Stage.DONE, None)
        assert set(ended.failed_ids) == {bad, worse}
        models = database.models.find_models(task.model_ids)
        assert [(m.status, m.files, m.size) for m in models] == [
            (ModelStatus.READY, 3, 500),
            (ModelStatus.FAILED, 0, 0),
            (ModelStatus.FAILED, 0, 0),
        ]
        assert [m.error for m in models[:2]] == [None, UNSAFE]
        assert models[2].error == ModelError(UNSAFE.type, "ü" * 999 + "…", retryable=True)
        assert {m.updated_at for m in models} == {at(START + 60)}
        assert [m.model_id for m in database.models.list_models(limit=10).models] == [good]
        # A repetition, also with another result, changes nothing.
        clock.now = START + 70
        assert not database.imports.finish_import(
            task.id, published=dict.fromkeys(task.model_ids, Publication(1, 1)), check_at=START
        )
        assert not database.imports.fail_import(task.id, GATED, check_at=START)
        assert (read_task(database, task.id), database.models.find_models(task.model_ids)) == (ended, models)

    def test_a_failed_model_of_a_done_task_can_be_claimed_again(self, database: Database) -> None:
        first = self.claim(database, "good", "bad")
        good, bad = first.model_ids
        database.imports.finish_import(
            first.id, published={good: Publication(1, 1)}, check_at=START, failed={bad: UNSAFE}
        )
        with pytest.raises(ModelExistsError):
            self.claim(database, "good", "bad")
        second = self.claim(database, "bad")
        claimed = read_model(database, bad)
        assert (claimed.status, claimed.task_id, claimed.error) == (ModelStatus.IMPORTING, second.id, None)
        assert database.imports.finish_import(second.id, published={bad: Publication(2, 2)}, check_at=START)
        assert (read_model(database, bad).status, read_model(database, bad).error) == (ModelStatus.READY, None)
        assert read_task(database, first.id).failed_ids == (bad,)

    @pytest.mark.parametrize("stage", [Stage.VERIFIED, Stage.PUBLISHING])
    def test_each_model_of_a_failed_task_has_its_error(self, database: Database, stage: Stage) -> None:
        task = self.claim(database, "a", "b", "c")
        database.tasks.start_stage(task.id, stage, check_at=START)
        failed = {task.model_ids[0]: UNSAFE, task.model_ids[2]: replace(UNSAFE, detail="x" * 2000)}
        assert database.imports.fail_import(task.id, replace(GATED, detail="y" * 2000), check_at=START, failed=failed)
        error = read_task(database, task.id).error
        assert error is not None
        assert len(error.detail) == 2000
        expected = [UNSAFE, replace(GATED_MODEL, detail="y" * 999 + "…"), replace(UNSAFE, detail="x" * 999 + "…")]
        assert [m.error for m in database.models.find_models(task.model_ids)] == expected
        database.imports.release_models(task.id)
        assert {m.status for m in database.models.find_models(task.model_ids)} == {ModelStatus.FAILED}
        assert [m.error for m in database.models.find_models(task.model_ids)] == expected


class TestEnd:
    def test_done_makes_the_model_ready(self, database: Database, clock: ManualClock) -> None:
        task = plan(database, make_file())
        model = read_model(database, task.model_ids[0])
        clock.now = START + 60
        assert database.imports.finish_import(
            task.id, published={task.model_ids[0]: Publication(5, 500_000_000_001)}, check_at=START + 900
        )
        assert read_task(database, task.id) == replace(
            task,
            stage=Stage.DONE,
            updated_at=at(START + 60),
            check_at=START + 900,
        )
        assert read_model(database, task.model_ids[0]) == replace(
            model, status=ModelStatus.READY, files=5, size=500_000_000_001, updated_at=at(START + 60)
        )

    @pytest.mark.parametrize("opinion", [None, *SecondOpinion])
    def test_what_the_gate_found_is_kept(self, database: Database, opinion: SecondOpinion | None) -> None:
        report = GateReport(
            GateVerdict.UNSAFE,
            ("a.bin: imports os.system", "ü.bin: imports os.system"),
            ("code: modeling.py",),
            (("a.bin", "0" * 64), ("ü.bin", "1" * 64)),
            opinion,
        )
        task = plan(database, make_file())
        (model_id,) = task.model_ids
        database.imports.finish_import(task.id, published={model_id: Publication(1, 1, gate=report)}, check_at=START)
        assert read_model(database, model_id).gate == report

    def test_signature_is_kept_until_the_next_import(self, database: Database) -> None:
        model = make_model()
        task = claim(database, model)
        published = {model.model_id: Publication(1, 1, signature=SIGNATURE)}
        database.imports.finish_import(task.id, published=published, check_at=START)
        assert read_model(database, model.model_id).signature == SIGNATURE
        database.models.lease_deletion(model.model_id, owner="a", now=START, until=START + 60)
        database.models.remove_model(model.model_id, owner="a")
        again = claim(database, model)
        database.imports.finish_import(again.id, published={model.model_id: Publication(1, 1)}, check_at=START)
        assert read_model(database, model.model_id).signature is None

    def test_decision_of_the_policy_is_kept_until_the_next_import(self, database: Database) -> None:
        model = make_model()
        task = claim(database, model)
        published = {model.model_id: Publication(1, 1, policy=POLICY)}
        database.imports.finish_import(task.id, published=published, check_at=START)
        assert read_model(database, model.model_id).policy == POLICY
        database.models.lease_deletion(model.model_id, owner="a", now=START, until=START + 60)
        database.models.remove_model(model.model_id, owner="a")
        again = claim(database, model)
        database.imports.finish_import(again.id, published={model.model_id: Publication(1, 1)}, check_at=START)
        assert read_model(database, model.model_id).policy is None

    @pytest.mark.parametrize("gated", [None, False, True])
    @pytest.mark.parametrize("committed_at", [None, datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)])
    def test_facts_of_the_source_are_kept(
        self, database: Database, gated: bool | None, committed_at: datetime | None
    ) -> None:
        model = make_model()
        resolved = replace(model.resolved, gated=gated, committed_at=committed_at)
        task = claim(database, replace(model, resolved=resolved))
        kept = read_model(database, task.model_ids[0]).resolved
        assert (kept.gated, kept.committed_at) == (gated, committed_at)

    @pytest.mark.parametrize("card", [None, ModelCard(), CARD, replace(CARD, omits_licenses=True)])
    def test_card_is_kept(self, database: Database, card: ModelCard | None) -> None:
        model = make_model()
        task = claim(database, replace(model, resolved=replace(model.resolved, card=card)))
        assert read_model(database, task.model_ids[0]).resolved.card == card

    @pytest.mark.parametrize("stage", [Stage.FAILED, Stage.CANCELLED])
    def test_failed_says_why_and_frees_the_model(self, database: Database, clock: ManualClock, stage: Stage) -> None:
        task = plan(database, make_file())
        model = read_model(database, task.model_ids[0])
        clock.now = START + 60
        assert database.imports.fail_import(task.id, GATED, stage=stage, check_at=START + 900)
        assert read_task(database, task.id) == replace(
            task,
            stage=stage,
            error=GATED,
            updated_at=at(START + 60),
            check_at=START + 900,
        )
        assert read_model(database, task.model_ids[0]) == replace(
            model, status=ModelStatus.FAILED, updated_at=at(START + 60), error=GATED_MODEL
        )

    def test_comes_once(self, database: Database) -> None:
        done, failed = claim(database), claim(database)
        assert database.imports.finish_import(done.id, published={done.model_ids[0]: Publication(1, 1)}, check_at=START)
        assert database.imports.fail_import(failed.id, GATED, check_at=START)
        before = [read_task(database, task.id) for task in (done, failed)]
        assert not database.imports.finish_import(
            done.id, published={done.model_ids[0]: Publication(2, 2)}, check_at=START + 1
        )
        assert not database.imports.fail_import(done.id, GATED, check_at=START + 1)
        assert not database.imports.finish_import(
            failed.id, published={failed.model_ids[0]: Publication(1, 1)}, check_at=START + 1
        )
        assert not database.imports.fail_import(failed.id, replace(GATED, detail="again"), check_at=START + 1)
        assert [read_task(database, task.id) for task in (done, failed)] == before
        assert read_model(database, done.model_ids[0]).files == 1
        assert read_model(database, failed.model_ids[0]).status is ModelStatus.FAILED

    def test_of_an_unknown_task_does_nothing(self, database: Database) -> None:
        assert not database.imports.finish_import("unknown", published={}, check_at=START)
        assert not database.imports.fail_import("unknown", GATED, check_at=START)
        assert database.tasks.find_task("unknown") is None

    def test_leaves_the_model_of_a_later_task_alone(self, database: Database) -> None:
        model = make_model()
        first = claim(database, model)
        database.imports.fail_import(first.id, GATED, check_at=START)
        second = claim(database, model)
        assert not database.imports.fail_import(first.id, GATED, check_at=START)
        assert not database.imports.finish_import(
            first.id, published={first.model_ids[0]: Publication(1, 1)}, check_at=START
        )
        assert read_model(database, model.model_id).status is ModelStatus.IMPORTING
        assert read_task(database, second.id) == second


class TestWithdrawal:
    def test_a_model_that_failed_while_it_was_published_is_claimed_only_once_released(self, database: Database) -> None:
        model = make_model()
        first = claim(database, model)
        database.tasks.start_stage(first.id, Stage.PUBLISHING, check_at=START)
        assert database.imports.fail_import(first.id, GATED, check_at=START)
        assert read_model(database, first.model_ids[0]).status is ModelStatus.WITHDRAWING
        with pytest.raises(ImportInProgressError, match="being removed") as caught:
            claim(database, model)
        assert caught.value.task_id == first.id
        for _ in range(2):
            database.imports.release_models(first.id)
        assert read_model(database, first.model_ids[0]).status is ModelStatus.FAILED
        second = claim(database, model)
        database.imports.release_models(first.id)
        assert read_model(database, second.model_ids[0]).status is ModelStatus.IMPORTING

    @pytest.mark.parametrize("stage", [None, Stage.TRANSFERRING, Stage.VERIFIED])
    def test_before_that_nothing_is_to_be_withdrawn(self, database: Database, stage: Stage | None) -> None:
        task = claim(database)
        if stage is not None:
            database.tasks.start_stage(task.id, stage, check_at=START)
        database.imports.fail_import(task.id, GATED, check_at=START)
        assert read_model(database, task.model_ids[0]).status is ModelStatus.FAILED

    def test_only_a_withdrawing_model_is_released(self, database: Database) -> None:
        task = claim(database)
        database.imports.release_models(task.id)
        database.imports.release_models("unknown")
        assert read_model(database, task.model_ids[0]).status is ModelStatus.IMPORTING
