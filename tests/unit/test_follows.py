"""Follows: their intervals, back-off, creation and changes, and the checks of models in memory."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhaul.domain.audit import AuditAction
from modelhaul.domain.errors import (
    FollowExistsError,
    FollowLimitError,
    FollowNotFoundError,
    InvalidReferenceError,
    ModelNotFoundError,
    RateLimitedError,
    SourceUnavailableError,
    StorageUnavailableError,
)
from modelhaul.domain.follows import (
    LEASE,
    MAX_FOLLOWS,
    MAX_INTERVAL,
    MIN_INTERVAL,
    DueFollow,
    Follow,
    FollowStatus,
    change_interval,
    compute_delay,
    create_follow,
    format_interval,
    lease_check,
    parse_interval,
    pause,
    postpone_check,
    record_failure,
    record_success,
    resume,
)
from modelhaul.domain.models import ModelStatus, ResolvedModel, Source
from modelhaul.domain.selection import Selection
from modelhaul.imports.follow import FollowChange
from tests.fakes.deployment import Deployment
from tests.fakes.model_source import InMemoryModelSource
from tests.fakes.policy_store import InMemoryPolicyStore
from tests.follows import HOUR, Following, RecordingChecks
from tests.weights import wrap_weights

NAME = "org/tiny"
NOW = datetime(2026, 11, 28, tzinfo=UTC)
DAY, WEEK = timedelta(days=1), timedelta(weeks=1)
ACTIONS = ("pause", "resume", "change", "lease", "ok", "fail", "down", "limit")
INTERVALS = st.integers(1, 28 * 24).map(lambda hours: timedelta(hours=hours))
GONE = ModelNotFoundError("There is no model org/tiny.")
DOWN = SourceUnavailableError("https://huggingface.co responded with status 503.")


def make_files(number: int) -> dict[str, bytes]:
    return {
        "config.json": b'{"model_type": "bert"}',
        "tokenizer.json": b'{"version": "1.0", "model": {"vocab": {"a": 0}}}',
        "model.safetensors": wrap_weights(bytes([number]) * 8),
    }


@pytest.fixture
def source() -> InMemoryModelSource:
    return InMemoryModelSource({NAME: {"main": make_files(0)}, "org/other": {"main": make_files(9)}})


@pytest.fixture
def following(source: InMemoryModelSource) -> Following:
    return Following(Deployment(source))


def make_follow(every: timedelta = HOUR) -> Follow:
    return create_follow(ResolvedModel(Source.HUGGINGFACE, NAME, "main", "a" * 40), every, NOW)


def import_first(following: Following) -> Follow:
    follow = following.follow(NAME)
    following.check()
    following.deployment.run()
    return following.find(follow)


def find_status(following: Following, follow: Follow) -> ModelStatus | None:
    found = following.find(follow).last_import
    model = following.deployment.database.models.find_model(found.model_id) if found else None
    return model.status if model else None


class TestIntervals:
    @given(interval=INTERVALS)
    def test_are_read_as_they_are_written(self, interval: timedelta) -> None:
        assert parse_interval(format_interval(interval)) == interval

    @given(text=st.one_of(st.text(max_size=8), st.from_regex(r"[0-9]{1,5}[hdwms]?", fullmatch=True)))
    def test_of_any_text_are_valid_or_rejected(self, text: str) -> None:
        try:
            interval = parse_interval(text)
        except ValueError:
            return
        assert MIN_INTERVAL <= interval <= MAX_INTERVAL

    @pytest.mark.parametrize("text", ["", "h", "0h", "1", "-1h", "1.5h", "673h", "29d", "5w", "1m", "1h ", "٣h", "1H"])
    def test_that_are_invalid(self, text: str) -> None:
        with pytest.raises(ValueError, match="at least 1 hour"):
            parse_interval(text)

    @pytest.mark.parametrize(
        ("text", "shown"), [("24h", "1d"), ("36h", "36h"), ("14d", "2w"), ("672h", "4w"), ("1h", "1h")]
    )
    def test_are_shown_in_the_largest_unit(self, text: str, shown: str) -> None:
        assert format_interval(parse_interval(text)) == shown


class TestDelays:
    @given(every=INTERVALS, failures=st.integers(1, 10_000), retryable=st.booleans())
    def test_grow_to_a_limit(self, every: timedelta, failures: int, retryable: bool) -> None:
        delay = compute_delay(every, failures, retryable=retryable)
        following = compute_delay(every, failures + 1, retryable=retryable)
        limit = max(every, DAY if retryable else WEEK)
        assert timedelta(minutes=15) <= delay <= following <= limit
        assert following in (2 * delay, limit)
        assert compute_delay(every, 100, retryable=retryable) == limit

    def test_are_short_at_first_only_for_errors_that_may_pass(self) -> None:
        assert compute_delay(DAY, 1, retryable=True) == timedelta(minutes=15)
        assert compute_delay(DAY, 1, retryable=False) == DAY


class TestStates:
    @given(
        every=INTERVALS,
        actions=st.lists(st.sampled_from(["pause", "resume", "change", "lease", "ok", "fail", "down", "limit"])),
    )
    def test_are_always_consistent(self, every: timedelta, actions: list[str]) -> None:
        """A follow is checked again at some time within its limits, unless it is paused."""
        follow, now = make_follow(every), NOW
        changes: dict[str, Callable[[Follow], Follow]] = {
            "pause": pause,
            "resume": lambda f: resume(f, now),
            "change": lambda f: change_interval(f, HOUR),
            "lease": lambda f: lease_check(f, "lease", now) if f.is_due(now) else f,
            "ok": lambda f: record_success(f, now, name=NAME),
            "fail": lambda f: record_failure(f, GONE, None, now),
            "down": lambda f: record_failure(f, DOWN, None, now),
            "limit": lambda f: postpone_check(f, now + HOUR),
        }
        for action in actions:
            follow = changes[action](follow)
            is_paused = follow.status is FollowStatus.PAUSED
            assert (follow.next_check is None) is is_paused
            assert is_paused or follow.next_check <= now + max(every, WEEK)  # type: ignore[operator]
            assert not follow.failures or follow.last_error is not None
            assert not (is_paused and follow.waits_for_limit)
            now += timedelta(minutes=10)

    def test_a_shorter_interval_moves_the_next_check_up(self) -> None:
        follow = record_success(make_follow(WEEK), NOW, name=NAME)
        assert change_interval(follow, HOUR).next_check == NOW + HOUR
        assert change_interval(follow, 4 * WEEK).next_check == NOW + WEEK
        failed = record_failure(follow, GONE, None, NOW)
        assert change_interval(failed, HOUR).next_check == failed.next_check

    def test_former_names_are_kept_once_and_not_forever(self) -> None:
        follow = make_follow()
        for name in ("a/1", NAME, "a/1", *(f"b/{n}" for n in range(20))):
            follow = record_success(follow, NOW, name=name)
        assert follow.names == ("b/19", *(f"b/{n}" for n in range(18, 8, -1)))


class TestCreation:
    def test_records_and_starts_the_first_check(self, following: Following) -> None:
        follow = following.follow(NAME)
        assert following.follows.list_follows() == [follow]
        assert (follow.next_check, following.starts) == (following.now, 1)
        (entry,) = following.entries
        assert (entry.action, entry.actor, entry.follow_id) == (AuditAction.FOLLOW_CREATED, "api-key:a", follow.id)
        assert entry.detail == {"revision": "main", "selection": "all files", "every": "1h"}

    def test_of_the_same_files_is_refused_with_the_first_follow(
        self, following: Following, source: InMemoryModelSource
    ) -> None:
        source.old_names["tiny"] = NAME
        first = following.follow(NAME)
        for name in (NAME, "tiny"):
            with pytest.raises(FollowExistsError) as caught:
                following.follow(name, every=DAY)
            assert caught.value.follow_id == first.id
        assert following.follow(NAME, selection=Selection(("*.json",))).id != first.id
        assert len(following.entries) == 2

    def test_of_another_model_with_a_former_name(self, following: Following, source: InMemoryModelSource) -> None:
        renamed = import_first(following)
        source.models["org/new"], source.old_names[NAME] = source.models.pop(NAME), "org/new"
        following.check_after(HOUR)
        assert following.find(renamed).names == ("org/new", NAME)
        del source.old_names[NAME]
        source.models[NAME] = {"main": make_files(7)}
        other = following.follow(NAME)
        assert (other.name, other.id != renamed.id) == (NAME, True)
        with pytest.raises(FollowExistsError):
            following.follow(NAME)
        assert len(following.follows.list_follows()) == 2

    def test_in_two_requests_at_once_succeeds_once(self, following: Following) -> None:
        first = following.follow(NAME)
        following.deployment.clock.now += 1
        with patch.object(following.follows, "list_follows", return_value=[]), pytest.raises(FollowExistsError):
            following.follow(NAME)
        assert following.follows.list_follows() == [first]
        assert len(following.entries) == 1, "a refused request is no action"

    def test_of_a_limit_of_versions_is_in_the_audit(self, following: Following) -> None:
        following.follower.create(Source.HUGGINGFACE, NAME, "main", every=DAY, keep_newest=2)
        assert following.entries[-1].detail["keep_newest"] == "2"

    def test_has_a_limit(self, following: Following) -> None:
        for number in range(MAX_FOLLOWS):
            following.follows.add_follow(replace(make_follow(), id=str(number), name=f"a/{number}"))
        with pytest.raises(FollowLimitError):
            following.follow(NAME)

    def test_whose_audit_entry_cannot_be_recorded_is_refused(self, following: Following) -> None:
        lost = StorageUnavailableError("DynamoDB request failed (InternalServerError).")
        tables = type(following.deployment.tables)
        with patch.object(tables, "record_entry", side_effect=lost), pytest.raises(StorageUnavailableError):
            following.follow(NAME)
        assert following.follows.list_follows() == []

    def test_succeeds_although_the_check_cannot_be_started(self, following: Following) -> None:
        lost = StorageUnavailableError("Lambda Invoke failed (TooManyRequestsException).")
        with patch.object(following.checks, "start", side_effect=lost):
            follow = following.follow(NAME)
        assert following.starter.start_due(), "the sweep starts it"
        assert following.follows.list_follows() == [follow]

    @pytest.mark.parametrize("length", [7, 12, 40])
    def test_of_a_commit_is_refused(self, following: Following, source: InMemoryModelSource, length: int) -> None:
        commit = source.resolve(NAME, "main").commit
        resolved = patch.object(source, "resolve", return_value=source.resolve(NAME, "main"))
        with resolved, pytest.raises(InvalidReferenceError, match="never moves"):
            following.follow(NAME, commit[:length])


class TestChanges:
    def test_are_recorded_with_who_made_them(self, following: Following) -> None:
        follow = following.follow(NAME)
        change = FollowChange(paused=True, every=DAY, keep_newest=2)
        changed = following.follower.change(follow.id, change, changed_by="api-key:b")
        assert (changed.status, changed.every, changed.keep_newest) == (FollowStatus.PAUSED, DAY, 2)
        entry = following.entries[-1]
        assert (entry.action, entry.actor) == (AuditAction.FOLLOW_CHANGED, "api-key:b")
        assert entry.detail == {"paused": "true", "every": "1d", "keep_newest": "2"}
        assert following.follower.change(follow.id, FollowChange(keeps_all=True)).keep_newest is None

    def test_start_a_check_that_is_now_due(self, following: Following) -> None:
        follow = following.follow(NAME)
        following.check()
        following.follower.change(follow.id, FollowChange(paused=True))
        assert following.starts == 1
        following.follower.change(follow.id, FollowChange(paused=False))
        assert following.starts == 2

    def test_of_a_missing_follow(self, following: Following) -> None:
        for call in (
            lambda: following.follower.change("none", FollowChange(paused=True)),
            lambda: following.follower.delete("none"),
            lambda: following.follower.find("none"),
        ):
            with pytest.raises(FollowNotFoundError, match="'none'"):
                call()
        assert following.entries == []

    def test_a_deleted_follow_is_not_checked(self, following: Following, source: InMemoryModelSource) -> None:
        follow = following.follow(NAME)
        following.follower.delete(follow.id, deleted_by="api-key:b")
        assert following.entries[-1].action is AuditAction.FOLLOW_DELETED
        source.resolved.clear()
        assert following.check() == 0
        assert source.resolved == []


class TestStarts:
    def test_do_not_need_the_list_of_due_follows(self, following: Following) -> None:
        """It is eventually consistent."""
        following.follow("org/other")
        follow = following.follow(NAME)
        checks = following.checks
        assert isinstance(checks, RecordingChecks)
        assert checks.first == DueFollow(follow.id, Source.HUGGINGFACE)
        with patch.object(following.follows, "list_due", return_value=[]):
            assert following.check(first=checks.first) == 1
            following.follower.change(follow.id, FollowChange(paused=False))
            assert following.check(first=checks.first) == 1
            following.follower.change(follow.id, FollowChange(paused=True))
            assert following.check(first=checks.first) == 0
        following.follower.change(follow.id, FollowChange(paused=False))
        assert following.check(first=checks.first) == 2
        assert checks.starts == 4

    def test_only_if_a_follow_is_due(self, following: Following) -> None:
        assert not following.starter.start_due()
        following.follow(NAME)
        following.check()
        assert following.starts == 1
        assert not following.starter.start_due()
        following.deployment.clock.now += 3600
        assert following.starter.start_due()
        assert following.starts == 2

    def test_errors_do_not_stop_the_sweep(self, following: Following) -> None:
        lost = StorageUnavailableError("DynamoDB request failed (ThrottlingException).")
        with patch.object(following.follows, "list_due", side_effect=lost):
            assert not following.starter.start_due()


class TestImports:
    def test_that_failed_for_good_is_not_repeated_until_the_follow_is_resumed(
        self, following: Following, source: InMemoryModelSource
    ) -> None:
        source.models[NAME]["main"] = {**make_files(1), "model.safetensors": b"no tensors"}
        follow = import_first(following)
        assert find_status(following, follow) is ModelStatus.FAILED
        first = follow.last_import
        for _ in range(5):
            following.check_after(WEEK)
        assert following.find(follow).last_import == first
        assert following.find(follow).last_error is None, "the checks succeed"
        following.follower.change(follow.id, FollowChange(paused=False))
        following.check()
        repeated = following.find(follow).last_import
        assert repeated is not None
        assert first is not None
        assert repeated == replace(first, task_id=repeated.task_id, retries=1)
        assert repeated.task_id != first.task_id
        source.models[NAME]["main"] = make_files(2)
        following.deployment.run()
        following.check_after(HOUR)
        following.deployment.run()
        assert find_status(following, follow) is ModelStatus.READY

    def test_that_failed_and_may_succeed_later_is_repeated_with_growing_delays(self, following: Following) -> None:
        follow = following.follow(NAME)
        following.check()
        repeated: list[timedelta] = []
        started = following.now
        for _ in range(24 * 40):
            shown = following.find(follow).last_import
            assert shown is not None
            task = following.deployment.find_task(shown.task_id or "")
            if task.error is None:
                repeated.append(following.now - started)
                following.deployment.finisher.cancel(task.id)
            following.check_after(HOUR)
        delays = [after - before for before, after in pairwise(repeated)]
        assert delays[:4] == [HOUR, 2 * HOUR, 4 * HOUR, 8 * HOUR]
        assert max(delays) == WEEK

    def test_above_the_storage_quota_is_repeated_when_there_is_room(self, source: InMemoryModelSource) -> None:
        """The plan finds out that the import does not fit."""
        size = sum(map(len, make_files(0).values()))
        following = Following(Deployment(source, quota=2 * size - 1))
        other = following.deployment.submit("org/other")
        following.deployment.run()
        follow = import_first(following)
        assert find_status(following, follow) is ModelStatus.FAILED
        assert following.deployment.deleter.delete_model(other.model_ids[0], lambda: 300)
        following.check_after(HOUR)
        following.deployment.run()
        assert find_status(following, follow) is ModelStatus.READY

    def test_whose_model_was_deleted_is_not_repeated_until_the_follow_is_resumed(self, following: Following) -> None:
        follow = import_first(following)
        assert follow.last_import is not None
        assert following.deployment.deleter.delete_model(follow.last_import.model_id, lambda: 300)
        for _ in range(3):
            following.check_after(HOUR)
        assert find_status(following, follow) is None
        following.follower.change(follow.id, FollowChange(paused=False))
        following.check()
        following.deployment.run()
        assert find_status(following, follow) is ModelStatus.READY
        following.check_after(HOUR)
        assert following.find(follow).retries_import is False

    def test_that_exceeded_the_storage_quota_is_repeated(self, source: InMemoryModelSource) -> None:
        source.models["org/other"]["main"] = make_files(9)
        size = sum(map(len, make_files(0).values()))
        following = Following(Deployment(source, quota=size * 3 // 2))
        stored = import_first(following)
        assert find_status(following, stored) is ModelStatus.READY
        follow = following.follow("org/other")
        following.check()
        following.deployment.run()
        assert find_status(following, follow) is ModelStatus.FAILED, "its plan exceeds the quota"
        assert stored.last_import is not None
        assert following.deployment.deleter.delete_model(stored.last_import.model_id, lambda: 300)
        following.check_after(2 * HOUR)
        following.deployment.run()
        assert find_status(following, follow) is ModelStatus.READY

    def test_that_is_resumed_during_an_outage_is_repeated_after_it(self, following: Following) -> None:
        follow = import_first(following)
        assert follow.last_import is not None
        assert following.deployment.deleter.delete_model(follow.last_import.model_id, lambda: 300)
        following.follower.change(follow.id, FollowChange(paused=False))
        with patch.object(following.deployment.source, "resolve_moved", side_effect=DOWN):
            following.check()
        assert following.find(follow).failures == 1
        following.check_after(timedelta(minutes=15))
        following.deployment.run()
        assert find_status(following, follow) is ModelStatus.READY

    def test_are_read_by_the_requested_name(self, following: Following, source: InMemoryModelSource) -> None:
        source.old_names["tiny"] = NAME
        following.follow("tiny")
        following.check()
        entry = following.deployment.database.hub_models.find_entry("tiny")
        assert entry.canonical_id == NAME

    def test_that_somebody_else_has_submitted_is_followed(self, following: Following) -> None:
        task = following.deployment.submit(NAME)
        follow = following.follow(NAME)
        following.check()
        found = following.find(follow).last_import
        assert found is not None
        assert found.task_id == task.id

    def test_that_is_refused_is_shown_and_tried_again(self, following: Following, source: InMemoryModelSource) -> None:
        follow = import_first(following)
        source.models[NAME]["main"] = make_files(1)
        refused = ModelNotFoundError("Denied by the rule no-gpl.", remedy="Ask an operator.")
        with patch.object(following.deployment.database.imports, "claim_import", side_effect=refused):
            following.check_after(HOUR)
        shown = following.find(follow)
        assert shown.last_error is not None
        assert (shown.last_error.detail, shown.last_error.remedy) == (refused.detail, refused.remedy)
        assert (shown.last_import, shown.failures) == (follow.last_import, 1)
        following.check_after(HOUR)
        assert following.find(follow).last_error is None


class TestChecks:
    def test_of_many_follows_are_bounded(self, source: InMemoryModelSource) -> None:
        for number in range(7):
            source.models[f"org/{number}"] = {"main": make_files(number)}
        following = Following(Deployment(source), max_checks=3)
        for number in range(7):
            following.follow(f"org/{number}")
        source.resolved.clear()
        assert [following.check() for _ in range(4)] == [3, 3, 1, 0]
        assert len(source.resolved) == 7

    def test_stop_before_the_function_ends(self, following: Following, source: InMemoryModelSource) -> None:
        for name in (NAME, "org/other"):
            following.follow(name)
        times = iter([61.0, 59.0])
        assert following.check(lambda: next(times)) == 1
        assert following.check() == 1

    def test_by_two_functions_at_once_submit_once(self, following: Following, source: InMemoryModelSource) -> None:
        follow = following.follow(NAME)
        other = following.make_checker()
        resolve = source.resolve
        counts: list[int] = []

        def check_elsewhere(name: str, revision: str) -> ResolvedModel:
            if not counts:
                counts.append(0)
                counts[0] = other.check_due(lambda: 300)
            return resolve(name, revision)

        with patch.object(source, "resolve", check_elsewhere):
            assert following.check() == 1
        assert counts == [0]
        assert len(following.deployment.tables.tasks) == 1
        assert following.find(follow).lease_id is None

    def test_that_died_are_repeated_after_their_lease(self, following: Following) -> None:
        follow = following.follow(NAME)
        submitter = following.checker.submitter
        submit = type(submitter).submit_resolved

        class DiedError(BaseException):
            pass

        for is_submitted in (False, True):

            def die(*arguments: object, is_submitted: bool = is_submitted, **options: object) -> None:
                if is_submitted:
                    submit(*arguments, **options)  # type: ignore[arg-type]
                raise DiedError

            with patch.object(type(submitter), "submit_resolved", die), pytest.raises(DiedError):
                following.check()
            assert following.check() == 0, "it is leased"
            following.deployment.clock.now += LEASE.total_seconds()
        assert following.check() == 1
        (task_id,) = following.deployment.tables.tasks
        found = following.find(follow)
        assert found.last_import is not None
        assert (found.last_import.task_id, found.failures) == (task_id, 0)

    def test_that_are_late_do_not_replace_a_newer_result(
        self, following: Following, source: InMemoryModelSource
    ) -> None:
        follow = following.follow(NAME)
        resolve = source.resolve
        times = 0

        def take_longer_than_the_lease(name: str, revision: str) -> ResolvedModel:
            nonlocal times
            times += 1
            if times == 1:
                following.deployment.clock.now += LEASE.total_seconds()
                assert following.make_checker().check_due(lambda: 300) == 1
                raise GONE
            return resolve(name, revision)

        with patch.object(source, "resolve", take_longer_than_the_lease):
            following.check()
        found = following.find(follow)
        assert found.last_error is None
        assert found.last_import is not None

    @pytest.mark.parametrize("action", ["pause", "delete", "change"])
    def test_do_not_undo_what_a_user_does_meanwhile(
        self, following: Following, source: InMemoryModelSource, action: str
    ) -> None:
        follow = following.follow(NAME)
        resolve = source.resolve

        def act(name: str, revision: str) -> ResolvedModel:
            if action == "delete":
                following.follower.delete(follow.id)
            else:
                change = FollowChange(paused=True) if action == "pause" else FollowChange(every=DAY)
                following.follower.change(follow.id, change)
            return resolve(name, revision)

        with patch.object(source, "resolve", act):
            following.check()
        if action == "delete":
            assert following.follows.list_follows() == []
            return
        found = following.find(follow)
        assert found.last_import is not None
        next_check = None if action == "pause" else following.now + DAY
        assert (found.next_check, found.lease_id) == (next_check, None)

    def test_do_not_end_a_resumption_meanwhile(self, following: Following, source: InMemoryModelSource) -> None:
        follow = import_first(following)
        assert follow.last_import is not None
        assert following.deployment.deleter.delete_model(follow.last_import.model_id, lambda: 300)
        resolve_moved = source.resolve_moved

        def resume_meanwhile(name: str, revision: str, commit: str) -> ResolvedModel | None:
            following.follower.change(follow.id, FollowChange(paused=False))
            return resolve_moved(name, revision, commit)

        following.deployment.clock.now += HOUR.total_seconds()
        found = following.find(follow).last_import
        with patch.object(source, "resolve_moved", resume_meanwhile):
            following.check()
        assert following.find(follow).last_import == found
        assert following.check() == 1
        following.deployment.run()
        assert find_status(following, follow) is ModelStatus.READY

    def test_wait_for_a_rate_limit_that_the_policy_meets(self, source: InMemoryModelSource) -> None:
        store = InMemoryPolicyStore()
        store.write({"effect": "deny", "when": {"commit_younger_than_days": 7}})
        following = Following(Deployment(source, policy_store=store))
        follows = [following.follow(name) for name in (NAME, "org/other")]
        limited = RateLimitedError("The Hub responded with status 429.", retry_after=240)
        with patch.object(source, "find_commit_date", side_effect=limited) as find_commit_date:
            following.check()
        assert find_commit_date.call_count == 1
        for follow in map(following.find, follows):
            assert (follow.failures, follow.last_error, follow.waits_for_limit) == (0, None, True)
            assert follow.next_check == following.now + timedelta(seconds=240)

    def test_record_an_unexpected_error_and_continue(self, following: Following, source: InMemoryModelSource) -> None:
        first, second = following.follow(NAME), following.follow("org/other")
        resolve = source.resolve

        def fail(name: str, revision: str) -> ResolvedModel:
            if name == NAME:
                raise KeyError("sha")
            return resolve(name, revision)

        with patch.object(source, "resolve", fail), pytest.raises(ExceptionGroup, match="checks of follows"):
            following.check()
        error = following.find(first).last_error
        assert error is not None
        assert (error.type, error.retryable) == ("internal-error", True)
        assert "sha" not in error.detail
        assert following.find(second).last_import is not None

    def test_whose_result_cannot_be_recorded_do_not_stop_the_others(self, following: Following) -> None:
        follow = following.follow(NAME)
        following.follow("org/other")
        change = following.follows.change_follow
        lost = StorageUnavailableError("DynamoDB request failed (InternalServerError).")
        calls = 0

        def fail_second(follow_id: str, apply: Callable[[Follow], Follow | None]) -> Follow | None:
            nonlocal calls
            calls += 1
            if calls in (2, 3):  # the result, and that it could not be recorded
                raise lost
            return change(follow_id, apply)

        with patch.object(following.follows, "change_follow", fail_second):
            assert following.check() == 2
        assert len(following.deployment.tables.tasks) == 2
        following.deployment.clock.now += LEASE.total_seconds()
        assert following.check() == 1
        assert following.find(follow).lease_id is None
        assert len(following.deployment.tables.tasks) == 2

    @pytest.mark.parametrize("shift", [-WEEK, timedelta(days=2)])
    def test_with_a_clock_that_was_wrong_are_late_by_the_interval_at_most(
        self, following: Following, shift: timedelta
    ) -> None:
        follow = import_first(following)
        following.deployment.clock.now += shift.total_seconds()
        following.check()
        following.deployment.clock.now -= shift.total_seconds()
        shown = following.find(follow)
        assert shown.next_check is not None
        assert shown.next_check <= following.now + max(shift, timedelta()) + HOUR
        following.follower.change(follow.id, FollowChange(paused=False))
        assert following.check() == 1, "a user can always correct it"
