"""Which models retention deletes, and why the others are kept."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from modelhaul.domain.errors import DeletionInProgressError, ModelPinnedError, PolicyUnavailableError
from modelhaul.domain.follows import Follow, FollowedImport, create_follow
from modelhaul.domain.hub_models import HubEntry, HubRevision
from modelhaul.domain.models import Model, ModelPin, ModelStatus, ResolvedModel, Source
from modelhaul.domain.selection import WHOLE, Selection
from modelhaul.policy.reader import PolicyReader
from modelhaul.policy.retention_rules import RetentionRule
from modelhaul.ports.policy_store import PolicyStore, StoredPolicy
from modelhaul.retention.apply import RetentionPlanner, RetentionRunner
from modelhaul.retention.choice import Deletion, choose_deletions, find_candidates
from modelhaul.retention.limits import RetentionLimits
from modelhaul.transfer.policy import TransferPolicy
from tests.fakes.deployment import Deployment
from tests.fakes.follow_repository import InMemoryFollowRepository

TODAY = date(2026, 6, 30)
NAME = "org/m"
PART = Selection(allow_patterns=("*.json",))
PIN = ModelPin(datetime(2026, 6, 1, tzinfo=UTC))


def day(ago: int) -> date:
    return TODAY - timedelta(days=ago)


def moment(ago: int) -> datetime:
    return datetime.combine(day(ago), datetime.min.time(), UTC)


def make_model(
    number: int,
    ago: int,
    *,
    read: int | None = None,
    revision: str = "main",
    status: ModelStatus = ModelStatus.READY,
    selection: Selection = WHOLE,
    pinned: bool = False,
    name: str = NAME,
    source: Source = Source.HUGGINGFACE,
) -> Model:
    """Commit `number`, imported and read so many days ago."""
    resolved = ResolvedModel(source, name, revision, f"{number:040x}", selection=selection)
    return Model(
        resolved.model_id,
        resolved,
        status,
        "task",
        moment(ago),
        moment(ago),
        size=10,
        last_read_on=None if read is None else day(read),
        pin=PIN if pinned else None,
    )


def make_rule(**limits: object) -> RetentionRule:
    return RetentionRule.model_validate_json(json.dumps({"id": "rule", "reason": "Because.", **limits}))


def choose(
    models: list[Model],
    *rules: RetentionRule,
    follows: tuple[Follow, ...] = (),
    revisions: tuple[HubRevision, ...] = (),
) -> list[int]:
    """Return the numbers of the deleted commits, in their order."""
    newest_first = tuple(sorted(models, key=lambda model: model.created_at, reverse=True))
    chosen = choose_deletions(HubEntry(None, newest_first, revisions), RetentionLimits(rules, follows), TODAY)
    return [int(deletion.model.resolved.commit, 16) for deletion in chosen]


KEEP_ONE = make_rule(keep_newest=1)
UNREAD = make_rule(keep_newest=0, delete_unread_after_days=10)


@pytest.mark.parametrize(("kept", "deleted"), [(1, [1, 2, 3]), (2, [1, 2]), (3, [1]), (4, []), (1000, [])])
def test_the_newest_commits_are_kept_and_the_oldest_is_deleted_first(kept: int, deleted: list[int]) -> None:
    models = [make_model(number, 20 - number) for number in (1, 2, 3, 4)]
    assert choose(models, make_rule(keep_newest=kept)) == deleted


@pytest.mark.parametrize(
    ("read", "is_deleted"), [(None, True), (11, True), (10, False), (1, False), (0, False), (-1, False)]
)
def test_a_commit_that_was_read_within_the_days_is_kept(read: int | None, is_deleted: bool) -> None:
    assert choose([make_model(1, 50, read=read)], UNREAD) == ([1] if is_deleted else [])


@pytest.mark.parametrize(("ago", "is_deleted"), [(11, True), (10, False), (0, False)])
def test_a_commit_that_was_never_read_counts_from_its_import(ago: int, is_deleted: bool) -> None:
    assert choose([make_model(1, ago)], UNREAD) == ([1] if is_deleted else [])


def test_without_days_a_commit_of_today_or_yesterday_is_kept() -> None:
    models = [make_model(4, 0), make_model(3, 5, read=1), make_model(2, 6, read=2), make_model(1, 7, read=0)]
    assert choose(models, KEEP_ONE) == [2]


def test_both_limits_must_delete() -> None:
    rule = make_rule(keep_newest=2, delete_unread_after_days=10)
    models = [make_model(4, 20), make_model(3, 30), make_model(2, 40, read=5), make_model(1, 50)]
    assert choose(models, rule) == [1]


def test_the_default_keeps_the_newest_commit() -> None:
    models = [make_model(2, 90), make_model(1, 91)]
    assert choose(models, make_rule(delete_unread_after_days=5)) == [1]


def test_the_first_rule_that_matches_decides() -> None:
    models = [make_model(2, 20), make_model(1, 30)]
    keeps = make_rule(keep_newest=1000, when={"name": ["ORG/*"]})
    assert choose(models, keeps, KEEP_ONE) == []
    assert choose(models, KEEP_ONE, keeps) == [1]
    for other in ({"name": ["other/*"]}, {"source": ["GITHUB"]}, {"name_not": ["org/m"]}):
        assert choose(models, make_rule(keep_newest=1, when=other)) == []
    assert choose(models) == []


def test_a_pin_keeps_the_whole_commit() -> None:
    models = [make_model(3, 20), make_model(2, 30, pinned=True), make_model(2, 31, selection=PART), make_model(1, 40)]
    assert choose(models, KEEP_ONE) == [1]


def test_a_read_part_keeps_the_whole_commit() -> None:
    models = [make_model(3, 20), make_model(2, 30), make_model(2, 31, selection=PART, read=0), make_model(1, 40)]
    assert choose(models, KEEP_ONE) == [1]


def test_parts_are_deleted_before_the_complete_model_that_hides_them() -> None:
    models = [make_model(2, 20), make_model(1, 31), make_model(1, 30, selection=PART)]
    entry = HubEntry(None, tuple(models))
    chosen = choose_deletions(entry, RetentionLimits([KEEP_ONE], ()), TODAY)
    assert [deletion.model.resolved.selection for deletion in chosen] == [PART, WHOLE]


def test_a_commit_of_which_a_part_is_being_imported_is_kept() -> None:
    models = [make_model(2, 20), make_model(1, 30), make_model(1, 0, selection=PART, status=ModelStatus.IMPORTING)]
    assert choose(models, KEEP_ONE) == []


@pytest.mark.parametrize(
    "status", [ModelStatus.IMPORTING, ModelStatus.WITHDRAWING, ModelStatus.FAILED, ModelStatus.DELETING]
)
def test_models_that_are_not_ready_are_neither_deleted_nor_counted(status: ModelStatus) -> None:
    assert choose([make_model(2, 20, status=status), make_model(1, 30)], KEEP_ONE) == []
    assert choose([make_model(2, 20), make_model(1, 30, status=status)], KEEP_ONE) == []


class TestBranches:
    def test_main_is_kept_even_if_it_is_old(self) -> None:
        models = [make_model(3, 20, revision="v2"), make_model(2, 30, revision="v1"), make_model(1, 40)]
        assert choose(models, KEEP_ONE) == [2]

    def test_unless_the_rule_keeps_none(self) -> None:
        models = [make_model(2, 20, revision="v1"), make_model(1, 40)]
        assert choose(models, UNREAD) == [1, 2]

    def test_a_branch_does_not_fall_back_to_an_older_commit(self) -> None:
        """The older one is read by its commit."""
        models = [make_model(2, 20), make_model(1, 40, read=0)]
        assert choose(models, UNREAD) == []
        assert choose([make_model(2, 20), make_model(1, 40, read=0, revision="v1")], UNREAD) == [2]

    def test_nor_through_several_commits(self) -> None:
        models = [
            make_model(4, 20),
            make_model(3, 30, revision="dev"),
            make_model(2, 40, revision="dev"),
            make_model(1, 50, pinned=True, revision="dev"),
        ]
        assert choose(models, KEEP_ONE) == [2]

    def test_a_branch_that_was_set_back_stays_there(self) -> None:
        """It was submitted again after its newer commit was imported."""
        models = [make_model(3, 20, revision="v1"), make_model(2, 30), make_model(1, 40)]
        back = HubRevision("main", f"{1:040x}", moment(15))
        assert choose(models, KEEP_ONE, revisions=(back,)) == [2]

    def test_of_a_branch_that_was_set_back_the_newer_commit_is_deleted_first(self) -> None:
        """Otherwise the branch would stand for it, for ever if the run ends in between."""
        models = [make_model(3, 20, revision="v3"), make_model(2, 30), make_model(1, 40)]
        back = HubRevision("main", f"{1:040x}", moment(15))
        assert choose(models, UNREAD, revisions=(back,)) == [2, 3, 1]

    def test_a_later_part_does_not_change_the_order_of_a_branch(self) -> None:
        models = [make_model(1, 20, revision="v1", selection=PART), make_model(2, 30), make_model(1, 40)]
        assert choose(models, UNREAD) == [1, 1, 2]

    def test_two_branches_that_stand_for_the_commit_before_each_other_keep_both(self) -> None:
        models = [make_model(2, 30, revision="a"), make_model(1, 40, revision="b")]
        revisions = (HubRevision("b", f"{2:040x}", moment(15)), HubRevision("a", f"{1:040x}", moment(15)))
        assert choose(models, UNREAD, revisions=revisions) == []

    def test_a_commit_that_was_submitted_again_is_kept_for_the_days(self) -> None:
        models = [make_model(2, 20), make_model(1, 40)]
        for ago, deleted in ((0, []), (1, []), (2, [1])):
            again = HubRevision("dev", f"{1:040x}", moment(ago))
            assert choose(models, KEEP_ONE, revisions=(again,)) == deleted

    def test_the_newest_import_is_main_for_other_sources(self) -> None:
        models = [
            make_model(2, 20, revision="v2", source=Source.GITHUB),
            make_model(1, 40, revision="v1", source=Source.GITHUB, pinned=True),
        ]
        assert choose(models, UNREAD) == []


class TestFollows:
    def follow(self, kept: int | None, **changes: object) -> Follow:
        found = create_follow(make_model(1, 0).resolved, timedelta(days=1), moment(90), keep_newest=kept)
        return replace(found, **changes)  # type: ignore[arg-type]

    def test_only_the_commits_of_the_revision_and_the_selection_count(self) -> None:
        models = [
            make_model(5, 10, revision="v5"),
            make_model(4, 20),
            make_model(3, 30, selection=PART),
            make_model(2, 40),
            make_model(1, 50, revision="v1"),
        ]
        assert choose(models, follows=(self.follow(1),)) == [2]
        assert choose(models, follows=(self.follow(None),)) == []

    def test_come_before_rules(self) -> None:
        models = [make_model(3, 20), make_model(2, 30), make_model(1, 40)]
        assert choose(models, KEEP_ONE, follows=(self.follow(2),)) == [1]
        assert choose(models, make_rule(keep_newest=1000), follows=(self.follow(1),)) == [1, 2]

    def test_of_the_former_name(self) -> None:
        models = [make_model(2, 20), make_model(1, 30)]
        assert choose(models, follows=(self.follow(1, name="org/new", former_names=(NAME,)),)) == [1]

    def test_of_two_follows_of_a_revision_the_one_that_keeps_most_decides(self) -> None:
        """The model was renamed after the second one was created."""
        models = [make_model(number, 50 - 10 * number) for number in (3, 2, 1)]
        few = self.follow(1, name="org/new", former_names=(NAME,))
        many = replace(self.follow(2), id="many")
        for follows in ((few, many), (many, few)):
            assert choose(models, follows=follows) == [1]

    def test_the_commit_of_another_revision_is_kept(self) -> None:
        """The tag was submitted when the follow had imported its commit."""
        models = [make_model(3, 20), make_model(2, 30), make_model(1, 40)]
        tag = HubRevision("v1", f"{1:040x}", moment(39))
        assert choose(models, follows=(self.follow(1),), revisions=(tag,)) == [2]
        moved = HubRevision("v1", f"{3:040x}", moment(19))
        assert choose(models, follows=(self.follow(1),), revisions=(moved,)) == [1, 2]
        assert choose(models, KEEP_ONE, revisions=(tag,)) == [1, 2], "rules apply to all revisions"

    def test_are_compared_a_few_times_with_each_model(self, monkeypatch: pytest.MonkeyPatch) -> None:
        compared, is_same = 0, Follow.is_same

        def count(self: Follow, source: Source, name: str, revision: str, selection: Selection) -> bool:
            nonlocal compared
            compared += 1
            return is_same(self, source, name, revision, selection)

        monkeypatch.setattr(Follow, "is_same", count)
        models = [make_model(number, 500 - number) for number in range(1, 301)]
        follows = [self.follow(3), *(self.follow(1, id=f"{n}", name=f"org/other-{n}") for n in range(100))]
        assert len(choose(models, follows=tuple(follows))) == 297
        assert compared < 5 * len(models)

    def test_the_followed_commit_is_kept(self) -> None:
        models = [make_model(3, 20, revision="v3"), make_model(2, 30), make_model(1, 40)]
        assert choose(models, UNREAD, follows=(self.follow(None),)) == [1, 3], "main is followed"
        found = FollowedImport(f"{3:040x}", models[0].model_id, moment(20))
        follow = self.follow(None, last_import=found)
        assert choose(models, UNREAD, follows=(follow,)) == [1]


def test_a_commit_with_a_model_without_limits_is_kept() -> None:
    """The part was imported by a person, the rest by the follow."""
    models = [make_model(2, 20), make_model(1, 40), make_model(1, 41, selection=PART)]
    follow = create_follow(models[0].resolved, timedelta(days=1), moment(90), keep_newest=1)
    assert choose(models, follows=(follow,)) == []


def test_the_reason_has_the_facts() -> None:
    models = (make_model(2, 20), make_model(1, 40, read=30))
    (deletion,) = find_candidates(models, RetentionLimits([KEEP_ONE], ()), TODAY)
    assert deletion.reason == "Because. (commit 2 of 2, last read on 2026-05-31, imported on 2026-05-21)"
    assert (deletion.limits.rule, deletion.unread_since) == ("rule", date(2026, 6, 29))


def test_a_run_ends_in_time_also_if_most_names_keep_everything() -> None:
    deployment, asked = Deployment(), 0

    class Planner(RetentionPlanner):
        def find_names(self, limits: RetentionLimits) -> Iterator[str]:
            return iter([f"org/{number}" for number in range(100)])

        def choose_deletions(self, name: str, limits: RetentionLimits) -> list[Deletion]:
            nonlocal asked
            asked += 1
            return []

    database, follow = deployment.database, create_follow(make_model(1, 0).resolved, timedelta(days=1), moment(1))
    follows = InMemoryFollowRepository()
    follows.add_follow(replace(follow, keep_newest=1))
    planner = Planner(database.models, database.hub_models, follows, None, deployment.clock)
    result = RetentionRunner(planner, deployment.deleter).apply_retention(lambda: 20.0 - asked)
    assert (asked, result.is_complete) == (6, False)


class UnavailablePolicy(PolicyStore):
    location = "memory"

    def read_policy(self) -> StoredPolicy:
        raise PolicyUnavailableError("It is gone.")


def test_nothing_is_deleted_if_the_policy_cannot_be_read() -> None:
    deployment = Deployment()
    database = deployment.database
    policy = PolicyReader(UnavailablePolicy())
    planner = RetentionPlanner(
        database.models, database.hub_models, InMemoryFollowRepository(), policy, deployment.clock
    )
    with pytest.raises(PolicyUnavailableError):
        planner.plan(lambda: 300.0)


class TestRetirement:
    def import_one(self, deployment: Deployment) -> Model:
        deployment.source.models["org/m"] = {"main": {"config.json": b"{}", "a.txt": b"a" * 100}}  # type: ignore[attr-defined]
        task = deployment.submit("org/m")
        deployment.run()
        (model,) = deployment.database.models.find_models(deployment.find_task(task.id).model_ids)
        assert model.status is ModelStatus.READY
        return model

    def retire(self, deployment: Deployment, model: Model, *, since: date = date(2100, 1, 1)) -> bool:
        return deployment.deleter.retire_model(
            model, since, lambda: 300.0, deleted_by="retention:rule", reason="Because."
        )

    def test_hides_the_model_and_keeps_its_files_until_nobody_reads_them(self) -> None:
        deployment = Deployment()
        model = self.import_one(deployment)
        keys = deployment.store.keys
        assert self.retire(deployment, model)
        found = deployment.database.models.find_model(model.model_id)
        assert found is not None
        assert (found.status, found.deleted_by) == (ModelStatus.DELETING, "retention:rule")
        (entry,) = [e for e in deployment.tables.entries.values() if e.action == "ModelDeleted"]
        assert (entry.actor, entry.reason, entry.model_id) == ("retention:rule", "Because.", model.model_id)
        with pytest.raises(DeletionInProgressError) as caught:
            deployment.submit("org/m")
        assert caught.value.remedy is not None
        assert "90 minutes" in caught.value.remedy
        assert not deployment.deleter.delete_model(model.model_id, lambda: 300.0)
        deployment.clock.now += 4499
        deployment.sweeper.sweep_stale(lambda: 300.0)
        assert deployment.store.keys == keys
        deployment.clock.now += 1
        deployment.sweeper.sweep_stale(lambda: 300.0)
        assert deployment.store.keys == []
        assert deployment.database.models.find_model(model.model_id) is None

    def test_hides_the_content_from_imports(self) -> None:
        deployment = Deployment(policy=TransferPolicy(min_indexed=1))
        model = self.import_one(deployment)

        def list_found() -> set[str]:
            digests = list(deployment.tables.blobs)
            return {blob.key for blob in deployment.database.content.find_blobs(digests).values()}

        assert any(key.startswith(model.resolved.prefix) for key in list_found())
        assert self.retire(deployment, model)
        assert not any(key.startswith(model.resolved.prefix) for key in list_found())

    def test_is_refused_for_a_model_that_has_changed(self) -> None:
        deployment = Deployment()
        model = self.import_one(deployment)
        deployment.pinner.pin_model(model.model_id, pinned_by=None, reason=None)
        assert not self.retire(deployment, model)
        with pytest.raises(ModelPinnedError, match="org/m"):
            deployment.deleter.delete_model(model.model_id, lambda: 300.0)
        deployment.pinner.unpin_model(model.model_id, unpinned_by=None)
        assert not self.retire(deployment, replace(model, task_id="another"))
        deployment.catalog.sign_file(model.model_id, "config.json")
        today = datetime.fromtimestamp(deployment.clock.now, UTC).date()
        assert not self.retire(deployment, model, since=today)
        assert self.retire(deployment, model, since=today + timedelta(days=1))
        assert not self.retire(deployment, model)
