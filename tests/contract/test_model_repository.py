"""What every repository of models does."""

from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from modelhaul.domain.errors import (
    DeletionInProgressError,
)
from modelhaul.domain.models import (
    DeletionCondition,
    Model,
    ModelPage,
    ModelPin,
    ModelStatus,
    Publication,
    Source,
)
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

PIN = ModelPin(at(START + 3), "api-key:abc", "Needed.")


def make_ready(database: Database, name: str, age: float = 0, source: Source = Source.HUGGINGFACE) -> Model:
    """A READY model, created so many seconds before the others."""
    resolved = replace(make_model().resolved, source=source, name=name)
    model = replace(make_model(), model_id=resolved.model_id, resolved=resolved, created_at=at(START - age))
    task = claim(database, model)
    database.imports.finish_import(task.id, published={model.model_id: Publication(3, 500)}, check_at=START)
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

    @pytest.mark.parametrize("limit", [1, 2, 3, 100])
    def test_are_listed_by_patterns_of_their_hub_ids(self, database: Database, limit: int) -> None:
        bert = make_ready(database, "google-bert/bert-base-uncased", 30)
        github = make_ready(database, "google-bert/bert", 20, Source.GITHUB)
        local = make_ready(database, "google-bert/tiny", 10, Source.LOCAL)
        make_ready(database, "openai-community/gpt2", 0)
        assert self.list_all(database, limit, hub_ids=["Google-BERT/*"]) == [bert]
        assert self.list_all(database, limit, hub_ids=["github.*", "archive.local/google-bert__*"]) == [local, github]
        assert self.list_all(database, limit, hub_ids=["*bert*"], source=Source.GITHUB) == [github]
        assert self.list_all(database, limit, hub_ids=["*bert*"], name="TINY") == [local]
        assert self.list_all(database, limit, hub_ids=["none"]) == []
        assert self.list_all(database, limit, hub_ids=[]) == []

    @pytest.mark.parametrize("limit", [1, 2, 3, 4, 5])
    def test_a_page_by_patterns_shows_nothing_of_other_models(self, database: Database, limit: int) -> None:
        names = ["other/a", "org/a", "other/b", "org/b", "other/c", "org/c", "other/d"]
        models = [make_ready(database, name, age) for age, name in enumerate(names)]

        def list_pages() -> list[ModelPage]:
            pages = [database.models.list_models(limit=limit, hub_ids=["org/*"])]
            while (cursor := pages[-1].cursor) is not None:
                pages.append(database.models.list_models(limit=limit, hub_ids=["org/*"], cursor=cursor))
            return pages

        pages = list_pages()
        assert [len(page.models) for page in pages] == [min(limit, 3 - at) for at in range(0, 3, limit)]
        for model in models:
            if model.resolved.name.startswith("other/"):
                database.models.lease_deletion(model.model_id, owner="a", now=START, until=START + 60)
        assert list_pages() == pages

    def test_are_listed_only_when_ready(self, database: Database) -> None:
        claim(database)
        database.imports.fail_import(claim(database).id, GATED, check_at=START)
        again = make_model()
        database.imports.fail_import(claim(database, again).id, GATED, check_at=START)
        assert self.list_all(database, 10) == []
        database.imports.finish_import(
            claim(database, again).id, published={again.model_id: Publication(1, 1)}, check_at=START
        )
        assert [model.model_id for model in self.list_all(database, 10)] == [again.model_id]
        database.models.lease_deletion(again.model_id, owner="a", now=START, until=START + 60)
        assert self.list_all(database, 10) == []

    def test_ready_models_have_the_bytes_that_were_reused(self, database: Database) -> None:
        model = make_model()
        task = claim(database, model)
        finished = database.imports.finish_import(
            task.id, published={model.model_id: Publication(2, 500, bytes_reused=200)}, check_at=START
        )
        assert finished
        assert read_model(database, model.model_id).bytes_reused == 200
        assert [model.bytes_reused for model in database.models.list_ready()] == [200]
        assert make_ready(database, "org/new").bytes_reused == 0

    def test_reused_bytes_are_those_of_the_last_import(self, database: Database) -> None:
        model = make_model()
        task = claim(database, model)
        publication = Publication(2, 500, bytes_reused=200)
        database.imports.finish_import(task.id, published={model.model_id: publication}, check_at=START)
        database.models.lease_deletion(model.model_id, owner="a", now=START, until=START + 60)
        database.models.remove_model(model.model_id, owner="a")
        database.imports.finish_import(
            claim(database, model).id, published={model.model_id: Publication(2, 500)}, check_at=START
        )
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


class TestPins:
    def test_belong_to_ready_models_and_are_listed(self, database: Database, clock: ManualClock) -> None:
        model = make_ready(database, "org/m")
        clock.now = START + 5
        for pin in (PIN, replace(PIN, reason=None, pinned_by=None), None, PIN):
            pinned = replace(model, pin=pin)
            assert database.models.pin_model(model.model_id, pin) == pinned, "it is still as old"
            assert read_model(database, model.model_id) == pinned
            assert database.models.list_models(limit=10).models == (pinned,)
            assert [listed.pin for listed in database.models.list_ready()] == [pin]

    def test_of_other_models_are_refused(self, database: Database) -> None:
        (importing,) = claim(database).model_ids
        failed = claim(database)
        database.imports.fail_import(failed.id, GATED, check_at=START)
        deleting = make_ready(database, "org/deleting").model_id
        database.models.lease_deletion(deleting, owner="a", now=START, until=START + 60)
        for model_id in (importing, *failed.model_ids, deleting, "unknown", "", "x" * 3000):
            before = database.models.find_model(model_id)
            assert database.models.pin_model(model_id, PIN) is None
            assert database.models.find_model(model_id) == before

    def test_prevent_deletions(self, database: Database) -> None:
        model = make_ready(database, "org/m")
        condition = DeletionCondition(model.task_id, date(2030, 1, 1))
        pinned = database.models.pin_model(model.model_id, PIN)
        for checked in (None, condition):
            leased = database.models.lease_deletion(
                model.model_id, owner="a", now=START, until=START + 60, condition=checked
            )
            assert leased is None
        assert read_model(database, model.model_id) == pinned
        database.models.pin_model(model.model_id, None)
        assert database.models.lease_deletion(
            model.model_id, owner="a", now=START, until=START + 60, condition=condition
        )

    def test_are_lost_with_the_model(self, database: Database) -> None:
        model = make_ready(database, "org/m")
        database.models.pin_model(model.model_id, PIN)
        database.models.pin_model(model.model_id, None)
        database.models.lease_deletion(model.model_id, owner="a", now=START, until=START + 60)
        database.models.remove_model(model.model_id, owner="a")
        assert make_ready(database, "org/m").pin is None


class TestReadyModels:
    def test_are_listed_newest_first_and_without_what_is_long(self, database: Database) -> None:
        models = [make_ready(database, f"org/m{age}", age) for age in range(3)]
        claim(database)
        database.models.lease_deletion(models[1].model_id, owner="a", now=START, until=START + 60)
        database.models.record_signature(models[0].model_id, SIGNATURE, task_id=models[0].task_id)
        database.hub_models.record_read(models[2].model_id, date(2026, 1, 2))
        listed = list(database.models.list_ready())
        assert [model.model_id for model in listed] == [models[0].model_id, models[2].model_id]
        assert listed[0] == replace(models[0], gate=None)
        assert listed[1] == replace(models[2], gate=None, last_read_on=date(2026, 1, 2))


class TestDeletion:
    @pytest.mark.parametrize(
        ("last_read", "since", "is_leased"),
        [
            (None, date(2026, 1, 2), True),
            (date(2026, 1, 1), date(2026, 1, 2), True),
            (date(2026, 1, 2), date(2026, 1, 2), False),
            (date(2026, 1, 3), date(2026, 1, 2), False),
        ],
    )
    def test_of_an_unread_model(self, database: Database, last_read: date | None, since: date, is_leased: bool) -> None:
        model = make_ready(database, "org/m")
        if last_read is not None:
            database.hub_models.record_read(model.model_id, last_read)
        before = read_model(database, model.model_id)
        for task_id in ("another", model.task_id):
            leased = database.models.lease_deletion(
                model.model_id,
                owner="a",
                now=START,
                until=START + 60,
                condition=DeletionCondition(task_id, since),
            )
            assert (leased is not None) is (is_leased and task_id == model.task_id)
            if leased is None:
                assert read_model(database, model.model_id) == before

    def test_of_a_failed_model_needs_no_condition(self, database: Database) -> None:
        task = claim(database)
        database.imports.fail_import(task.id, GATED, check_at=START)
        (model_id,) = task.model_ids
        condition = DeletionCondition(task.id, date(2030, 1, 1))
        lease = database.models.lease_deletion
        assert lease(model_id, owner="a", now=START, until=START + 60, condition=condition) is None
        assert lease(model_id, owner="a", now=START, until=START + 60) is not None

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
