"""What every repository of Hub clients' models does."""

import random
from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from modelhaul.adapters.dynamodb.hub_models import DynamoDBHubModelRepository
from modelhaul.adapters.dynamodb.model_items import ModelItem
from modelhaul.domain.gate import GateReport, GateVerdict
from modelhaul.domain.hub_models import HubEntry, HubRevision
from modelhaul.domain.models import Model, ModelStatus, Publication, Source
from modelhaul.domain.selection import Selection
from tests.contract.database_builders import GATED, START, at, claim, drop, make_local_model, make_model, read_model
from tests.fakes.clock import ManualClock
from tests.fakes.database import Database
from tests.fakes.hub_model_repository import InMemoryHubModelRepository

DAY = date(2026, 11, 27)


def make_named(name: str, *, source: Source = Source.HUGGINGFACE, age: float = 0, **changes: object) -> Model:
    """An IMPORTING model, created so many seconds before the others."""
    model = make_model()
    resolved = replace(model.resolved, source=source, name=name, **changes)  # type: ignore[arg-type]
    return replace(model, model_id=resolved.model_id, resolved=resolved, created_at=at(START - age))


class TestEntry:
    def test_has_the_models_of_its_name_newest_first_in_every_status(
        self, database: Database, clock: ManualClock
    ) -> None:
        ready = make_named("Org/Model", age=50)
        task = claim(database, ready)
        gate = GateReport(GateVerdict.CLEAN, (), (), ())
        clock.now = START + 60
        database.imports.finish_import(
            task.id, published={ready.model_id: Publication(3, 500_000_000_001, gate=gate)}, check_at=START
        )
        part = make_named("Org/Model", age=30, revision="v1.0", selection=Selection(("*.gguf",)))
        importing = claim(database, part)
        failed = make_named("Org/Model", age=40)
        database.imports.fail_import(claim(database, failed).id, GATED, check_at=START)
        claim(database, make_named("Org/Model-2"))
        claim(database, make_named("Org/Model", source=Source.GITHUB))
        expected = (
            replace(part, task_id=importing.id),
            replace(read_model(database, failed.model_id), error=None),
            replace(
                ready,
                task_id=task.id,
                status=ModelStatus.READY,
                files=3,
                size=500_000_000_001,
                updated_at=at(START + 60),
            ),
        )
        assert expected[1].status is ModelStatus.FAILED
        for name in ("Org/Model", "org/model", "ORG/MODEL"):
            assert database.hub_models.find_entry(name) == HubEntry(models=expected)

    def test_of_github_and_archives_has_their_hub_id(self, database: Database) -> None:
        github, local = make_named("Org/Model", source=Source.GITHUB), make_local_model("Team/Bert", "task")
        for model in (github, local):
            claim(database, model)
        for name, model in {"github.org/model": github, "archive.local/team__bert": local}.items():
            [found] = database.hub_models.find_entry(name).models
            assert found.resolved == model.resolved

    def test_has_a_model_from_its_claim_to_its_removal(self, database: Database) -> None:
        model = make_named("org/model")

        def list_statuses() -> list[ModelStatus]:
            return [found.status for found in database.hub_models.find_entry("org/model").models]

        task = claim(database, model)
        assert list_statuses() == [ModelStatus.IMPORTING]
        database.imports.fail_import(task.id, GATED, check_at=START)
        assert list_statuses() == [ModelStatus.FAILED]
        task = claim(database, model)
        database.imports.finish_import(task.id, published={model.model_id: Publication(1, 1)}, check_at=START)
        assert list_statuses() == [ModelStatus.READY]
        database.models.lease_deletion(model.model_id, owner="a", now=START, until=START + 60)
        assert list_statuses() == [ModelStatus.DELETING]
        database.models.remove_model(model.model_id, owner="a")
        assert database.hub_models.find_entry("org/model") == HubEntry()

    def test_has_the_models_of_an_archive_from_their_claim(self, database: Database) -> None:
        task = drop(database)
        models = [make_local_model(name, task.id) for name in ("a", "team/b")]
        database.imports.claim_models(task.id, models, [], check_at=START)
        for name, model in zip(("archive.local/a", "archive.local/team__b"), models, strict=True):
            assert database.hub_models.find_entry(name).models == (model,)

    @pytest.mark.parametrize("name", ["", "org/none", "a/b/c", "\ud800", "x" * 3000, "name#org/model", "a--b", "é"])
    def test_is_empty_if_nothing_is_known(self, database: Database, name: str) -> None:
        claim(database, make_named("org/model"))
        assert database.hub_models.find_entry(name) == HubEntry()

    @pytest.mark.slow
    def test_has_models_of_more_than_a_page(self, database: Database) -> None:
        # A page of DynamoDB has 1 MB. A selection of random digits takes half of its length.
        digits = random.Random(1).randbytes(150_000).hex()
        models = [make_named("org/model", age=age, selection=Selection((digits, str(age)))) for age in range(8)]
        for model in models:
            claim(database, model)
        found = database.hub_models.find_entry("org/model").models
        assert [model.model_id for model in found] == [model.model_id for model in models]


class TestNames:
    def test_stand_for_the_canonical_name(self, database: Database) -> None:
        model = make_named("google-bert/BERT-base")
        claim(database, model)
        database.hub_models.save_name("Bert-Base", "other/model")
        database.hub_models.save_name("bert-base", "google-bert/BERT-base")
        for name in ("bert-base", "BERT-BASE"):
            assert database.hub_models.find_entry(name) == HubEntry("google-bert/BERT-base")
        assert database.hub_models.find_entry("google-bert/bert-base").canonical_id is None

    def test_stand_beside_models_of_the_same_name(self, database: Database) -> None:
        model = make_named("org/model")
        claim(database, model)
        database.hub_models.save_name("org/model", "org/model-v2")
        entry = database.hub_models.find_entry("org/model")
        assert (entry.canonical_id, [m.model_id for m in entry.models]) == ("org/model-v2", [model.model_id])

    @pytest.mark.parametrize("name", ["", "a/b/c", "x" * 3000, "\ud800"])
    def test_that_hub_clients_refuse_are_not_recorded(self, database: Database, name: str) -> None:
        database.hub_models.save_name(name, "org/model")
        assert database.hub_models.find_entry(name) == HubEntry()


class TestRevisions:
    def test_are_listed_newest_first_each_with_its_last_commit(self, database: Database) -> None:
        model = make_named("Org/Model")
        for seconds, revision, commit in ((0, "main", "a" * 40), (5, "refs/pr/1", "a" * 40), (7, "main", "b" * 40)):
            resolved = replace(model.resolved, revision=revision, commit=commit)
            database.hub_models.save_revision(resolved, at(START + seconds))
        assert database.hub_models.find_entry("org/model") == HubEntry(
            revisions=(
                HubRevision("main", "b" * 40, datetime.fromtimestamp(START + 7, UTC)),
                HubRevision("refs/pr/1", "a" * 40, datetime.fromtimestamp(START + 5, UTC)),
            )
        )

    def test_differ_in_case_and_by_model(self, database: Database) -> None:
        model = make_named("org/model", revision="Main")
        database.hub_models.save_revision(model.resolved, at(START + 1))
        database.hub_models.save_revision(replace(model.resolved, revision="main"), at(START))
        database.hub_models.save_revision(replace(model.resolved, name="org/other"), at(START))
        assert [r.revision for r in database.hub_models.find_entry("org/model").revisions] == ["Main", "main"]

    def test_of_up_to_250_characters_are_recorded(self, database: Database) -> None:
        model = make_named(f"{'o' * 96}/{'m' * 96}", revision="é" * 250)
        database.hub_models.save_revision(model.resolved, at(START))
        database.hub_models.save_revision(replace(model.resolved, revision="x" * 251), at(START))
        assert [r.revision for r in database.hub_models.find_entry(model.resolved.hub_id).revisions] == ["é" * 250]

    def test_that_are_commits_are_not_recorded(self, database: Database) -> None:
        model = make_named("org/model")
        database.hub_models.save_revision(replace(model.resolved, revision=model.resolved.commit), at(START))
        assert database.hub_models.find_entry("org/model") == HubEntry()


def test_names_and_revisions_are_no_models(database: Database) -> None:
    model = make_named("org/model")
    database.hub_models.save_name("org/old", "org/model")
    database.hub_models.save_revision(model.resolved, at(START))
    for key in ("name#org/old", "revision#org/model#main"):
        assert database.models.find_model(key) is None
        assert database.models.lease_deletion(key, owner="a", now=START, until=START + 60) is None
        database.hub_models.record_read(key, DAY)
        database.models.remove_model(key, owner="a")
    assert database.models.list_models(limit=10).models == ()
    assert database.models.list_deleting(START + 1000, 10) == []
    assert database.hub_models.find_entry("org/old") == HubEntry("org/model")
    assert len(database.hub_models.find_entry("org/model").revisions) == 1


class TestReads:
    def test_the_last_day_is_kept(self, database: Database) -> None:
        model = make_named("org/model")
        task = claim(database, model)
        database.imports.finish_import(task.id, published={model.model_id: Publication(1, 1)}, check_at=START)
        before = read_model(database, model.model_id)
        assert before.last_read_on is None
        for day, expected in ((DAY, DAY), (date(2025, 12, 31), DAY), (DAY, DAY), (date(2027, 1, 1), date(2027, 1, 1))):
            database.hub_models.record_read(model.model_id, day)
            assert read_model(database, model.model_id) == replace(before, last_read_on=expected)
        assert database.models.list_models(limit=1).models == (replace(before, last_read_on=date(2027, 1, 1)),)

    @pytest.mark.parametrize("model_id", ["unknown", "", "\ud800", "x" * 3000])
    def test_of_a_missing_model_are_not_recorded(self, database: Database, model_id: str) -> None:
        database.hub_models.record_read(model_id, DAY)
        assert database.models.find_model(model_id) is None


class TestIndexing:
    def test_finds_a_model_that_was_recorded_without_a_name(self, database: Database) -> None:
        model = make_named("Org/Model")
        task = claim(database, model)
        database.imports.finish_import(task.id, published={model.model_id: Publication(1, 1)}, check_at=START)
        before = read_model(database, model.model_id)
        forget_name(database, model.model_id)
        assert database.hub_models.find_entry("org/model") == HubEntry()
        for _ in range(2):
            database.hub_models.index_model(model.model_id, model.resolved.hub_id)
            assert [found.model_id for found in database.hub_models.find_entry("org/model").models] == [model.model_id]
            assert read_model(database, model.model_id) == before

    def test_is_not_needed_for_lists_by_patterns(self, database: Database) -> None:
        model = make_named("org/Model")
        task = claim(database, model)
        database.imports.finish_import(task.id, published={model.model_id: Publication(1, 1)}, check_at=START)
        for forget in (False, True):
            if forget:
                forget_name(database, model.model_id)
            for patterns, count in ((["org/*"], 1), (["ORG/m*"], 1), (["other/*"], 0)):
                assert len(database.models.list_models(hub_ids=patterns, limit=10).models) == count

    @pytest.mark.parametrize("model_id", ["unknown", "", "\ud800", "x" * 3000, "name#org/model"])
    def test_does_not_record_a_missing_model(self, database: Database, model_id: str) -> None:
        database.hub_models.index_model(model_id, "org/model")
        assert database.models.find_model(model_id) is None
        assert database.hub_models.find_entry("org/model") == HubEntry()


def forget_name(database: Database, model_id: str) -> None:
    """Make the record as it was before models had a `hub_id`."""
    match database.hub_models:
        case InMemoryHubModelRepository() as repository:
            repository._tables.unindexed.add(model_id)
        case DynamoDBHubModelRepository() as repository:
            repository._models(model_id).update(actions=[ModelItem.hub_name.remove()])
        case _:
            raise TypeError


class TestRedirects:
    def test_are_allowed_by_the_claim_until_the_next_one(self, database: Database) -> None:
        model = replace(make_named("org/model"), may_redirect=True)
        task = claim(database, model)
        assert read_model(database, model.model_id).may_redirect
        assert not database.hub_models.find_entry("org/model").models[0].may_redirect, "the index does not have it"
        database.imports.fail_import(task.id, GATED, check_at=START)
        claim(database, replace(model, may_redirect=False))
        assert not read_model(database, model.model_id).may_redirect
