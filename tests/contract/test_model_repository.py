"""What every repository of models does."""

from dataclasses import replace
from typing import Any

import pytest

from modelhaul.domain.errors import (
    DeletionInProgressError,
)
from modelhaul.domain.models import Model, ModelStatus, Source
from modelhaul.domain.tasks import Stage
from tests.contract.database_builders import (
    GATED,
    SIGNATURE,
    START,
    at,
    claim,
    drop,
    make_model,
    read_model,
    read_task,
)
from tests.fakes.clock import ManualClock
from tests.fakes.database import Database


def make_ready(database: Database, name: str, age: float = 0, source: Source = Source.HUGGINGFACE) -> Model:
    """A READY model, created so many seconds before the others."""
    resolved = replace(make_model().resolved, source=source, name=name)
    model = replace(make_model(), model_id=resolved.model_id, resolved=resolved, created_at=at(START - age))
    task = claim(database, model)
    database.imports.finish_import(task.id, totals={model.model_id: (3, 500)}, check_at=START)
    return read_model(database, model.model_id)


class TestModels:
    def list_all(self, database: Database, limit: int, **filters: Any) -> list[Model]:
        found: list[Model] = []
        cursor = None
        for _ in range(50):
            page = database.models.list_models(limit=limit, cursor=cursor, **filters)
            assert len(page.models) <= limit
            found += page.models
            cursor = page.cursor
            if cursor is None:
                return found
        raise AssertionError("the list does not end")

    @pytest.mark.parametrize("limit", [1, 2, 3, 100])
    def test_are_listed_newest_first_by_source_and_name(self, database: Database, limit: int) -> None:
        bert = make_ready(database, "google-bert/BERT-base-uncased", 30)
        gpt = make_ready(database, "openai-community/gpt2", 20)
        local = make_ready(database, "team/tiny-bert", 10, Source.LOCAL)
        robert = make_ready(database, "x/RoBERTa", 0)
        assert self.list_all(database, limit) == [robert, local, gpt, bert]
        assert self.list_all(database, limit, name="bErT") == [robert, local, bert]
        assert self.list_all(database, limit, name="bert", source=Source.HUGGINGFACE) == [robert, bert]
        assert self.list_all(database, limit, source=Source.LOCAL) == [local]
        assert self.list_all(database, limit, source=Source.GITHUB) == []
        assert self.list_all(database, limit, name="no such") == []

    def test_are_listed_only_when_ready(self, database: Database) -> None:
        claim(database)
        database.imports.fail_import(claim(database).id, GATED, check_at=START)
        again = make_model()
        database.imports.fail_import(claim(database, again).id, GATED, check_at=START)
        assert self.list_all(database, 10) == []
        database.imports.finish_import(claim(database, again).id, totals={again.model_id: (1, 1)}, check_at=START)
        assert [model.model_id for model in self.list_all(database, 10)] == [again.model_id]
        database.models.lease_deletion(again.model_id, owner="a", now=START, until=START + 60)
        assert self.list_all(database, 10) == []

    def test_ready_models_have_the_bytes_that_were_reused(self, database: Database) -> None:
        model = make_model()
        task = claim(database, model)
        finished = database.imports.finish_import(
            task.id, totals={model.model_id: (2, 500)}, check_at=START, reused={model.model_id: 200}
        )
        assert finished
        assert read_model(database, model.model_id).bytes_reused == 200
        assert [model.bytes_reused for model in database.models.list_ready()] == [200]
        assert make_ready(database, "org/new").bytes_reused == 0

    def test_reused_bytes_are_those_of_the_last_import(self, database: Database) -> None:
        model = make_model()
        task = claim(database, model)
        totals = {model.model_id: (2, 500)}
        database.imports.finish_import(task.id, totals=totals, check_at=START, reused={model.model_id: 200})
        database.models.lease_deletion(model.model_id, owner="a", now=START, until=START + 60)
        database.models.remove_model(model.model_id, owner="a")
        database.imports.finish_import(claim(database, model).id, totals=totals, check_at=START)
        assert read_model(database, model.model_id).bytes_reused == 0

    def test_the_list_goes_on_below_what_was_listed(self, database: Database) -> None:
        models = [make_ready(database, f"org/m{age}", age) for age in range(6)]
        first = database.models.list_models(limit=2, name="org")
        assert list(first.models) == models[:2]
        assert first.cursor is not None
        make_ready(database, "org/newer", -10)
        database.models.lease_deletion(models[2].model_id, owner="a", now=START, until=START + 60)
        assert list(database.models.list_models(limit=2, name="org", cursor=first.cursor).models) == models[3:5]


class TestSignatures:
    def test_is_recorded_for_the_model_that_the_task_imported(self, database: Database) -> None:
        model = make_ready(database, "org/m")
        assert not database.models.record_signature(model.model_id, SIGNATURE, task_id="another")
        assert read_model(database, model.model_id) == model
        for _ in range(2):
            assert database.models.record_signature(model.model_id, SIGNATURE, task_id=model.task_id)
        assert read_model(database, model.model_id) == replace(model, signature=SIGNATURE)
        (listed,) = database.models.list_models(limit=10).models
        assert listed.signature == SIGNATURE

    def test_is_recorded_only_for_a_ready_model(self, database: Database) -> None:
        importing = claim(database)
        (model_id,) = importing.model_ids
        assert not database.models.record_signature(model_id, SIGNATURE, task_id=importing.id)
        assert read_model(database, model_id).signature is None
        deleting = make_ready(database, "org/deleting")
        database.models.lease_deletion(deleting.model_id, owner="a", now=START, until=START + 60)
        assert not database.models.record_signature(deleting.model_id, SIGNATURE, task_id=deleting.task_id)
        for unknown in ("unknown", "", "x" * 3000):
            assert not database.models.record_signature(unknown, SIGNATURE, task_id="t")
            assert database.models.find_model(unknown) is None


class TestDeletion:
    def test_hides_the_model_and_is_one_owners(self, database: Database, clock: ManualClock) -> None:
        model = make_ready(database, "org/m")
        clock.now = START + 5
        leased = database.models.lease_deletion(model.model_id, owner="a", now=START, until=START + 60)
        assert leased == replace(model, status=ModelStatus.DELETING, updated_at=at(START + 5))
        assert database.models.find_model(model.model_id) == leased
        assert database.models.lease_deletion(model.model_id, owner="b", now=START + 59.5, until=START + 99) is None
        assert database.models.list_deleting(START + 59.5, 10) == []
        assert database.models.list_deleting(START + 60, 10) == [leased]
        assert database.models.lease_deletion(model.model_id, owner="a", now=START, until=START + 70) == leased
        assert database.models.lease_deletion(model.model_id, owner="b", now=START + 70, until=START + 99) == leased
        database.models.remove_model(model.model_id, owner="a")
        assert database.models.find_model(model.model_id) == leased
        for _ in range(2):
            database.models.remove_model(model.model_id, owner="b")
        assert database.models.find_model(model.model_id) is None
        assert database.models.list_deleting(START + 1000, 10) == []

    def test_records_who_deleted_the_model_first(self, database: Database) -> None:
        model = make_ready(database, "org/m")
        lease = database.models.lease_deletion
        first = lease(model.model_id, owner="a", now=START, until=START + 60, deleted_by="api-key:first")
        assert first is not None
        assert first.deleted_by == "api-key:first"
        for caller in ("api-key:second", None):
            again = lease(model.model_id, owner="a", now=START, until=START + 60, deleted_by=caller)
            assert again is not None
            assert again.deleted_by == "api-key:first"

    def test_is_not_of_what_a_task_has_or_of_nothing(self, database: Database) -> None:
        importing, withdrawing = claim(database), claim(database)
        database.tasks.start_stage(withdrawing.id, Stage.PUBLISHING, check_at=START)
        database.imports.fail_import(withdrawing.id, GATED, check_at=START)
        for model_id in (importing.model_ids[0], withdrawing.model_ids[0], "unknown", "", "\ud800", "x" * 3000):
            before = database.models.find_model(model_id)
            assert database.models.lease_deletion(model_id, owner="a", now=START, until=START + 60) is None
            assert database.models.find_model(model_id) == before
        ready = make_ready(database, "org/m")
        database.models.remove_model(ready.model_id, owner="a")
        assert database.models.find_model(ready.model_id) == ready

    def test_of_a_failed_model_removes_its_record(self, database: Database) -> None:
        task = claim(database)
        database.imports.fail_import(task.id, GATED, check_at=START)
        assert database.models.lease_deletion(task.model_ids[0], owner="a", now=START, until=START + 60) is not None
        database.models.remove_model(task.model_ids[0], owner="a")
        assert database.models.find_model(task.model_ids[0]) is None
        assert read_task(database, task.id).error == GATED

    def test_stands_before_a_claim_until_it_is_done(self, database: Database) -> None:
        model = make_ready(database, "org/m")
        other = make_ready(database, "org/other")
        again = replace(model, status=ModelStatus.IMPORTING, files=0, size=0)
        database.models.lease_deletion(model.model_id, owner="a", now=START, until=START + 60)
        with pytest.raises(DeletionInProgressError) as caught:
            claim(database, again)
        assert caught.value.model_id == model.model_id
        assert "org/m" in caught.value.detail
        assert "deleted" in caught.value.detail
        archive = drop(database)
        with pytest.raises(DeletionInProgressError):
            database.imports.claim_models(archive.id, [replace(again, task_id=archive.id)], [], check_at=START)
        database.models.remove_model(model.model_id, owner="a")
        task = claim(database, again)
        assert read_model(database, model.model_id) == replace(again, task_id=task.id)
        assert database.models.lease_deletion(model.model_id, owner="a", now=START, until=START + 60) is None
        database.models.remove_model(model.model_id, owner="a")
        assert read_model(database, model.model_id).task_id == task.id
        assert database.models.find_model(other.model_id) == other
