"""The promises, with retention among all that happens, and days that pass.

1. A model that is pinned, was read, imported or submitted within the days of its rule, or is imported, is not deleted.
2. A file can be read from a presigned URL until the URL expires.
3. No import loses the content that it copies, and what another model was copied from stays correct.
4. A branch never stands for an older commit, and as many commits remain as the rule keeps.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from modelhaul.domain.callers import is_retention_rule
from modelhaul.domain.errors import (
    ModelPinnedError,
    ObjectGoneError,
)
from modelhaul.domain.follows import create_follow
from modelhaul.domain.hub_models import HubEntry
from modelhaul.domain.hub_names import derive_commit
from modelhaul.domain.models import Model, ModelStatus
from modelhaul.hub.repositories import Repository
from modelhaul.policy.reader import PolicyReader
from modelhaul.ports.policy_store import PolicyStore, StoredPolicy
from modelhaul.retention.apply import RetentionPlanner, RetentionRunner
from modelhaul.retention.limits import RetentionLimits
from tests.fakes.follow_repository import InMemoryFollowRepository
from tests.troubles import Effect, Kind, Trouble
from tests.unit.test_promises import ANY, BRANCHES, NAMES, TROUBLES, Promises

LINK = 3600.0
RULES: list[list[dict[str, Any]]] = [
    [],
    [{"id": "newest", "reason": "One is enough.", "keep_newest": 1}],
    [{"id": "unread", "reason": "Nobody reads it.", "keep_newest": 0, "delete_unread_after_days": 3}],
    [
        {"id": "one", "reason": "Two of it.", "keep_newest": 2, "when": {"name": ["ORG/O*"]}},
        {"id": "others", "reason": "Unread.", "keep_newest": 0, "delete_unread_after_days": 1},
    ],
]


@dataclass
class ChangedPolicy(PolicyStore):
    rules: list[dict[str, Any]] = field(default_factory=list)
    location: str = "memory"

    def read_policy(self) -> StoredPolicy:
        content = json.dumps({"version": 1, "retention": self.rules}).encode()
        return StoredPolicy(content, "1", datetime(2026, 1, 2, tzinfo=UTC))


class RetentionPromises(Promises):
    def __init__(self) -> None:
        self.pinned: set[str] = set()
        self.retired: dict[str, tuple[Model, float]] = {}  # by ID: the model, and when it became invisible
        self.interrupted: set[str] = set()
        self.removed: set[str] = set()  # IDs of the models that a person may have deleted
        self.links: list[tuple[str, str, bytes, float]] = []  # model, key, content, expiry
        self.lost: list[str] = []
        super().__init__()
        self.follows = InMemoryFollowRepository()
        self.document = ChangedPolicy()
        database = self.deployment.database_in_use
        policy = PolicyReader(self.document, clock=self.clock)
        self.planner = RetentionPlanner(database.models, database.hub_models, self.follows, policy, self.clock)
        self.runner = RetentionRunner(self.planner, self.deployment.deleter)
        copy = self.store.copy

        def watch_copy(source_key: str, key: str, *, size: int, etag: str) -> str:
            try:
                return copy(source_key, key, size=size, etag=etag)
            except ObjectGoneError:
                self.lost.append(source_key)
                raise

        self.store.copy = watch_copy  # type: ignore[method-assign]

    # Troubles that test_promises is about; histories with commits to delete are longer.
    submit_in_trouble = None  # type: ignore[assignment]
    post_in_trouble = None  # type: ignore[assignment]
    cancel_in_trouble = None  # type: ignore[assignment]
    delete_in_trouble = None  # type: ignore[assignment]
    sweep_in_trouble = None  # type: ignore[assignment]
    drop = None  # type: ignore[assignment]
    duplicate = None  # type: ignore[assignment]
    lose = None  # type: ignore[assignment]
    end_during_a_large_file = None  # type: ignore[assignment]

    # Who asks for something

    @property
    def today(self) -> date:
        return datetime.fromtimestamp(self.clock.now, UTC).date()

    def choose_ready(self, which: int) -> Model | None:
        ready = [model for model in self.list_models() if model.status is ModelStatus.READY]
        return ready[which % len(ready)] if ready else None

    @rule(which=ANY)
    def pin(self, which: int) -> None:
        model = self.choose_ready(which)
        if model is not None:
            pinner = self.deployment.pinner
            assert pinner.pin_model(model.model_id, pinned_by="somebody", reason="needed").pin is not None
            self.pinned.add(model.model_id)

    @rule(which=ANY)
    def unpin(self, which: int) -> None:
        model = self.choose_ready(which)
        if model is not None:
            self.deployment.pinner.unpin_model(model.model_id, unpinned_by="somebody")
            self.pinned.discard(model.model_id)

    @rule(which=ANY, troubles=st.one_of(st.just([]), TROUBLES))
    def read(self, which: int, troubles: list[Trouble]) -> None:
        model = self.choose_ready(which)
        if model is not None:
            path, content = min(self.expect_files(model).items())
            with self.endure(troubles):
                self.deployment.catalog.sign_file(model.model_id, path)
                self.links.append((model.model_id, model.resolved.prefix + path, content, self.clock.now + LINK))

    @rule(rules=st.sampled_from(RULES))
    def change_rules(self, rules: list[dict[str, Any]]) -> None:
        self.document.rules = rules
        self.clock.now += 61

    @rule(name=st.sampled_from(NAMES), branch=st.sampled_from(BRANCHES), kept=st.sampled_from([None, 1, 2]))
    def follow(self, name: str, branch: str, kept: int | None) -> None:
        resolved = self.source.resolve(name, branch)
        moment = datetime.fromtimestamp(self.clock.now, UTC)
        self.follows.add_follow(create_follow(resolved, timedelta(days=1), moment, keep_newest=kept))

    @rule(which=ANY)
    def unfollow(self, which: int) -> None:
        follows = self.follows.list_follows()
        if follows:
            self.follows.remove_follow(follows[which % len(follows)].id)

    def delete_model(self, model_id: str) -> None:
        was_deleted = model_id in self.deleted
        found = self.database.models.find_model(model_id)
        assert found is not None
        try:
            super().delete_model(model_id)
        except ModelPinnedError:
            assert found.pin is not None
            assert self.database.models.find_model(model_id) == found, "a refused deletion changes nothing"
            if not was_deleted:
                self.deleted.discard(model_id)
        else:
            assert found.pin is None or found.status is not ModelStatus.READY
        if found.pin is None and found.status is ModelStatus.READY:
            self.removed.add(model_id)

    @rule(name=st.sampled_from(NAMES), branch=st.sampled_from(BRANCHES), version=ANY)
    def import_version(self, name: str, branch: str, version: int) -> None:
        """A branch moves, and its commit is imported, so that there are commits to delete."""
        self.move_branch(name, branch, version, vanish=False)
        with self.endure([]):
            self.deployment.submit(name, branch)
        self.deliver_waiting()
        self.clock.now += 1

    @rule(
        name=st.sampled_from(NAMES),
        versions=st.lists(ANY, min_size=2, max_size=4),
        days=st.sampled_from([2, 5]),
        rules=st.sampled_from(RULES[1:]),
    )
    def import_history(self, name: str, versions: list[int], days: int, rules: list[dict[str, Any]]) -> None:
        self.change_rules(rules)
        for version in versions:
            self.import_version(name, "main", version)
        self.pass_days(days)

    @rule(
        name=st.sampled_from(NAMES),
        branch=st.sampled_from(BRANCHES),
        version=ANY,
        operation=st.sampled_from(["copy", "find_blobs", "find_group", "put_blobs", "record_files", "finish_import"]),
        at=st.integers(1, 4),
    )
    def import_during_retention(self, name: str, branch: str, version: int, operation: str, at: int) -> None:
        """Each function of the import is held up, while retention deletes what it may copy from."""
        self.move_branch(name, branch, version, vanish=False)
        with self.endure([]):
            self.deployment.submit(name, branch)
        for _ in range(20):
            self.receive()
            if not self.waiting:
                break
            self.hand_over(self.waiting.pop(0), [Trouble(Kind.RETAIN, at, Effect.ALL, operation)])

    @rule(days=st.sampled_from([1, 2, 5, 30]))
    def pass_days(self, days: int) -> None:
        """What waits is done before: an import has hours, and then fails for reasons that this is not about."""
        for envelope in self.waiting:
            self.run_function(envelope)
        self.waiting = []
        self.deployment.sweep_until_quiet()
        self.clock.now += days * 86_400

    # Retention

    @rule()
    def retain(self) -> None:
        plan = self.planner.plan(self.tell_remaining)
        assert plan.is_complete
        with self.watch_retention():
            result = self.runner.apply_retention(self.tell_remaining)
        assert (result.models, result.size) == (len(plan.deletions), plan.size), "the dry run is right"
        assert result.is_complete
        for deletion in plan.deletions:
            found = self.database.models.find_model(deletion.model.model_id)
            assert found is not None
            assert found.status is ModelStatus.DELETING
            assert is_retention_rule(found.deleted_by)

    @rule(troubles=TROUBLES)
    def retain_in_trouble(self, troubles: list[Trouble]) -> None:
        with self.watch_retention(), self.endure(troubles):
            self.runner.apply_retention(self.tell_remaining)

    def act_meanwhile(self, kind: Kind) -> None:
        if kind is Kind.RETAIN:
            with self.watch_retention():
                self.runner.apply_retention(lambda: 300.0)
            self.clock.now += 400
            self.deployment.sweeper.sweep_stale(lambda: 300.0)
            return
        super().act_meanwhile(kind)

    @contextmanager
    def watch_retention(self) -> Iterator[None]:
        before = {model.model_id: model for model in self.list_models()}
        references = {name: self.list_references(name) for name in self.list_names()}
        limits = RetentionLimits(self.planner.read_limits().rules, self.follows.list_follows())
        hits = len(self.trouble.hits)
        try:
            yield
        finally:
            troubled = len(self.trouble.hits) != hits
            for model_id, model in before.items():
                now = self.database.models.find_model(model_id)
                is_retired = (
                    model.status is ModelStatus.READY
                    and now is not None
                    and now.status is ModelStatus.DELETING
                    and is_retention_rule(now.deleted_by)
                )
                if is_retired:
                    self.check_retired(model, limits)
                    self.deleted.add(model_id)
                    self.retired[model_id] = (model, self.clock.now)
                    if troubled or self.trouble.late:
                        self.interrupted.add(model_id)
            for name, known in references.items():
                after = self.list_references(name)
                assert after.items() <= known.items(), "no branch stands for another commit than before"
            self.check_kept(before, limits)

    def check_retired(self, model: Model, limits: RetentionLimits) -> None:
        found = limits.find_limits(model)
        assert found is not None
        assert model.pin is None
        assert model.model_id not in self.pinned
        first = self.today - timedelta(days=found.unread_days)
        assert model.updated_at.date() < first
        assert model.last_read_on is None or model.last_read_on < first

    def check_kept(self, before: Mapping[str, Model], limits: RetentionLimits) -> None:
        """Of the commits of a name, as many remain as the rule of its models says."""
        for name in self.list_names(before.values()):
            ready = [m for m in before.values() if m.status is ModelStatus.READY and m.resolved.hub_id == name]
            kept = [
                m
                for m in ready
                if (now := self.database.models.find_model(m.model_id)) is not None and now.status is ModelStatus.READY
            ]
            found = [limits.find_limits(model) for model in ready]
            least = min((limit.keep_newest for limit in found if limit is not None), default=0)
            commits = {derive_commit(model.resolved) for model in ready}
            assert len({derive_commit(model.resolved) for model in kept}) >= min(len(commits), least)

    def list_names(self, models: Any = None) -> set[str]:
        return {model.resolved.hub_id for model in (self.list_models() if models is None else models)}

    def list_references(self, name: str) -> dict[str, str]:
        entry: HubEntry = self.database.hub_models.find_entry(name)
        ready = tuple(model for model in entry.models if model.status is ModelStatus.READY)
        return Repository(name, entry, ready).list_references() if ready else {}

    def check_content_of_ready_models(self) -> None:
        """It deletes models."""
        for model_id in self.pinned:
            self.deployment.pinner.unpin_model(model_id, unpinned_by="somebody")
        super().check_content_of_ready_models()

    # What must hold

    @invariant()
    def what_can_be_read_stays(self) -> None:
        self.links = [link for link in self.links if link[3] > self.clock.now and link[0] not in self.removed]
        for model_id, key, content, _ in self.links:
            assert self.deployment.read(key) == content, f"a URL of {model_id} leads to its file"

    @invariant()
    def files_of_retired_models_stay(self) -> None:
        for model, moment in self.retired.values():
            if model.model_id not in self.removed and self.clock.now < moment + LINK + 900:
                for path, content in self.expect_files(model).items():
                    assert self.deployment.read(model.resolved.prefix + path) == content

    @invariant()
    def no_copied_content_was_lost(self) -> None:
        prefixes = [
            model.resolved.prefix
            for model, _ in self.retired.values()
            if model.model_id not in self.interrupted | self.removed
        ]
        assert not [key for key in self.lost if key.startswith(tuple(prefixes))]

    @invariant()
    def pinned_models_stay(self) -> None:
        for model_id in self.pinned:
            found = self.database.models.find_model(model_id)
            assert found is not None
            assert found.status is ModelStatus.READY
            assert found.pin is not None


TestRetentionPromises = pytest.mark.slow(RetentionPromises.TestCase)
TestRetentionPromises.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
