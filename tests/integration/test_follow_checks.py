"""Follows of the loopback Hub and GitHub, whose branches move, are rewritten or disappear."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import override

import pytest

from modelhaul.domain.errors import InvalidReferenceError, ModelNotFoundError, RevisionNotFoundError
from modelhaul.domain.follows import Follow, FollowedImport
from modelhaul.domain.models import ModelStatus, ResolvedModel, Source
from modelhaul_sources.hosts import HostPolicy
from modelhaul_sources.huggingface import HuggingFaceSource
from tests.fakes.clock import ManualClock
from tests.fakes.deployment import Deployment
from tests.follows import HOUR, Following
from tests.upstream.faults import Fault, FaultKind
from tests.upstream.git_repository import RepositoryMaker
from tests.upstream.git_tools import LfsServer, run_git
from tests.upstream.github import LoopbackGitHub
from tests.upstream.github_source import open_github
from tests.upstream.hub import LoopbackHub
from tests.upstream.hub_repository import HubRepository
from tests.weights import wrap_weights

TOKEN = "token-of-reader"
NAME, NEW_NAME = "Acme/Model", "Acme-Labs/Model-2"


def make_files(content: str) -> dict[str, bytes]:
    tokenizer = b'{"version": "1.0", "model": {"vocab": {"a": 0}}}'
    return {
        "config.json": b'{"model_type": "bert"}',
        "tokenizer.json": tokenizer,
        "model.safetensors": wrap_weights(content.encode() * 9),
    }


class Upstream(ABC):
    """A repository with the branches `main` and `other`, which have no common history, at a source of `kind`."""

    kind: Source

    def __init__(self, clock: ManualClock, *, has_token: bool = False) -> None:
        self.following = Following(Deployment(self.open_source(clock, TOKEN if has_token else None), clock), self.kind)

    @abstractmethod
    def open_source(self, clock: ManualClock, token: str | None) -> HuggingFaceSource: ...
    @abstractmethod
    def commit(self) -> str:
        """Add a commit to main."""

    @abstractmethod
    def move(self, revision: str) -> str: ...
    @abstractmethod
    def delete_branch(self) -> None: ...
    @abstractmethod
    def rename(self) -> None: ...
    @abstractmethod
    def delete(self) -> None: ...
    @abstractmethod
    def make_private(self) -> None: ...
    @abstractmethod
    def count_requests(self) -> int:
        """Return the number of API requests since the last call."""

    @abstractmethod
    def exceed_limit(self) -> None: ...
    @abstractmethod
    def recover(self) -> None: ...
    @abstractmethod
    def fail_next(self) -> None: ...


class HubUpstream(Upstream):
    kind = Source.HUGGINGFACE

    def __init__(self, hub: LoopbackHub, clock: ManualClock, *, has_token: bool = False) -> None:
        self.hub = hub
        self.repository = HubRepository(NAME, {branch: make_files(branch) for branch in ("main", "other")})
        hub.add_repository(self.repository)
        hub.grant(TOKEN, NAME)
        super().__init__(clock, has_token=has_token)

    @override
    def open_source(self, clock: ManualClock, token: str | None) -> HuggingFaceSource:
        return HuggingFaceSource(HostPolicy.for_hub(self.hub.endpoint, local_mode=True), token=lambda: token)

    def commit(self) -> str:
        return self.repository.commit("main", make_files(f"main {len(self.repository.commits)}"))

    def move(self, revision: str) -> str:
        return self.repository.move_branch("main", revision)

    def delete_branch(self) -> None:
        del self.repository.branches["main"]

    def rename(self) -> None:
        del self.hub.repositories[NAME]
        self.repository.repo_id, self.repository.old_names = NEW_NAME, (NAME,)
        self.hub.add_repository(self.repository)

    def delete(self) -> None:
        del self.hub.repositories[NAME]

    def make_private(self) -> None:
        self.repository.private = True

    def count_requests(self) -> int:
        count = len(self.hub.requests)
        self.hub.clear_requests()
        return count

    def exceed_limit(self) -> None:
        self.hub.add_fault(Fault(kind=FaultKind.RATE_LIMIT, origin="api", retry_after=240))

    def recover(self) -> None:
        self.hub.clear_faults()

    def fail_next(self) -> None:
        self.hub.add_fault(Fault(kind=FaultKind.SERVER_ERROR, origin="api"))


class GitHubUpstream(Upstream):
    kind = Source.GITHUB

    def __init__(
        self, github: LoopbackGitHub, maker: RepositoryMaker, clock: ManualClock, *, has_token: bool = False
    ) -> None:
        self.github = github
        branches = {branch: make_files(branch) for branch in ("main", "other")}
        self.repository = github.add_repository(maker.make(NAME, branches))
        github.grant(TOKEN, NAME)
        super().__init__(clock, has_token=has_token)

    @override
    def open_source(self, clock: ManualClock, token: str | None):  # type: ignore[no-untyped-def]
        return open_github(self.github, clock=clock, token=lambda: token)

    def commit(self) -> str:
        return self.repository.add_commit("main", "other")

    def move(self, revision: str) -> str:
        return self.repository.move_branch("main", revision)

    def delete_branch(self) -> None:
        run_git(self.repository.folder, "update-ref", "-d", "refs/heads/main")

    def rename(self) -> None:
        del self.github.repositories[NAME]
        self.repository.full_name, self.repository.old_names = NEW_NAME, [NAME]
        self.github.add_repository(self.repository)

    def delete(self) -> None:
        self.github.repositories.pop(NAME).close()

    def make_private(self) -> None:
        self.repository.private = True

    def count_requests(self) -> int:
        count = len(self.github.requests)
        self.github.clear_requests()
        return count

    def exceed_limit(self) -> None:
        self.github._quota_seconds = 240
        self.github._quota = 0
        self.github.spend_quota()

    def recover(self) -> None:
        self.github.clear_faults()
        self.github._quota, self.github._resets_at = 1_000_000, 0

    def fail_next(self) -> None:
        self.github.add_fault(Fault(kind=FaultKind.SERVER_ERROR, origin="api"))


@pytest.fixture(params=["hub", "github"])
def upstream(request: pytest.FixtureRequest) -> Iterator[Upstream]:
    clock = ManualClock(time.time())  # the servers' rate limits end at real times
    if request.param == "hub":
        with LoopbackHub() as hub:
            yield HubUpstream(hub, clock)
        return
    lfs: LfsServer = request.getfixturevalue("lfs_server")
    with LoopbackGitHub(lfs) as github:
        yield GitHubUpstream(github, request.getfixturevalue("repository_maker"), clock)


@pytest.fixture
def following(upstream: Upstream) -> Following:
    return upstream.following


@pytest.fixture
def follow(following: Following) -> Follow:
    """A follow whose current commit is imported."""
    created = following.follow(NAME)
    following.check()
    following.deployment.run()
    found = following.find(created)
    assert read_status(following, found) is ModelStatus.READY
    return found


def read_status(following: Following, follow: Follow) -> ModelStatus:
    model = following.deployment.database.models.find_model(find_import(follow).model_id)
    assert model is not None
    return model.status


def find_import(follow: Follow) -> FollowedImport:
    assert follow.last_import is not None
    return follow.last_import


def test_the_current_commit_is_imported_first(upstream: Upstream, following: Following, follow: Follow) -> None:
    found = find_import(follow)
    task = following.deployment.find_task(found.task_id or "")
    assert (task.commit, task.submitted_by) == (found.commit, f"follow:{follow.id}")
    assert (found.previous_commit, found.is_rewritten) == (None, None)
    assert (follow.checked_at, follow.next_check) == (following.now, following.now + HOUR)


def test_a_branch_that_has_not_moved_takes_one_request(
    upstream: Upstream, following: Following, follow: Follow
) -> None:
    upstream.count_requests()
    for _ in range(3):
        assert following.check_after(HOUR) == 1
        assert upstream.count_requests() == 1
    assert following.check_after(HOUR / 2) == 0
    assert upstream.count_requests() == 0
    assert find_import(following.find(follow)) == find_import(follow)
    assert len(following.list_commits()) == 1


def test_a_branch_that_moved_is_imported(upstream: Upstream, following: Following, follow: Follow) -> None:
    commit = upstream.commit()
    upstream.count_requests()
    assert following.check_after(HOUR) == 1
    assert upstream.count_requests() <= 5
    found = find_import(following.find(follow))
    assert (found.commit, found.previous_commit) == (commit, find_import(follow).commit)
    assert (found.is_rewritten, found.found_at) == (False, following.now)
    following.deployment.run()
    assert read_status(following, following.find(follow)) is ModelStatus.READY
    assert len(following.list_commits()) == 2


def test_a_branch_that_was_rewritten_is_imported_and_noted(
    upstream: Upstream, following: Following, follow: Follow
) -> None:
    commit = upstream.move("other")
    following.check_after(HOUR)
    found = find_import(following.find(follow))
    assert (found.commit, found.is_rewritten) == (commit, True)
    assert found.task_id is not None


def test_a_branch_that_returns_to_an_imported_commit_reuses_its_model(
    upstream: Upstream, following: Following, follow: Follow
) -> None:
    first = find_import(follow)
    upstream.commit()
    following.check_after(HOUR)
    following.deployment.run()
    upstream.move(first.commit)
    following.check_after(HOUR)
    found = find_import(following.find(follow))
    assert (found.commit, found.model_id, found.task_id) == (first.commit, first.model_id, None)
    assert found.is_rewritten is True
    assert following.find(follow).last_error is None
    assert len(following.list_commits()) == 2


def test_a_branch_that_disappears_is_reported_and_checked_less_often(
    upstream: Upstream, following: Following, follow: Follow
) -> None:
    commit = upstream.commit()
    upstream.delete_branch()
    delays = []
    for failures in range(1, 12):
        following.deployment.clock.now = (following.find(follow).next_check or following.now).timestamp()
        following.check()
        shown = following.find(follow)
        assert shown.last_error is not None
        assert (shown.failures, shown.last_error.type) == (failures, RevisionNotFoundError.type)
        assert shown.next_check is not None
        delays.append(shown.next_check - following.now)
    assert delays[:3] == [HOUR, 2 * HOUR, 4 * HOUR]
    assert delays[-1] == timedelta(weeks=1)
    assert shown.last_import == follow.last_import
    if isinstance(upstream, HubUpstream):
        upstream.repository.branches["main"] = commit
    else:
        run_git(upstream.repository.folder, "update-ref", "refs/heads/main", commit)  # type: ignore[attr-defined]
    following.check_after(timedelta(weeks=1))
    shown = following.find(follow)
    assert (find_import(shown).commit, shown.failures, shown.last_error) == (commit, 0, None)
    assert shown.next_check == following.now + HOUR


def test_a_renamed_repository_is_followed_under_its_new_name(
    upstream: Upstream, following: Following, follow: Follow
) -> None:
    upstream.rename()
    following.check_after(HOUR)
    shown = following.find(follow)
    assert (shown.name, shown.former_names, shown.last_error) == (NEW_NAME, (NAME,), None)
    assert shown.last_import == follow.last_import, "the same commit is not imported again"
    commit = upstream.commit()
    following.check_after(HOUR)
    shown = following.find(follow)
    model = following.deployment.database.models.find_model(find_import(shown).model_id)
    assert model is not None
    assert (model.resolved.name, model.resolved.commit) == (NEW_NAME, commit)
    with pytest.raises(Exception, match="already followed"):
        following.follow(NEW_NAME)


@pytest.mark.parametrize("action", ["delete", "make_private"])
def test_a_repository_that_is_gone_is_reported(
    upstream: Upstream, following: Following, follow: Follow, action: str
) -> None:
    getattr(upstream, action)()
    following.check_after(HOUR)
    error = following.find(follow).last_error
    assert error is not None
    assert (error.type, error.retryable) == (ModelNotFoundError.type, False)
    assert error.remedy
    assert "token" in error.detail
    assert read_status(following, follow) is ModelStatus.READY, "the imported model stays"


def test_a_private_repository_is_followed_with_a_token(request: pytest.FixtureRequest, upstream: Upstream) -> None:
    upstream.make_private()
    with pytest.raises(ModelNotFoundError):
        upstream.following.follow(NAME)
    if isinstance(upstream, HubUpstream):
        reader: Upstream = HubUpstream(upstream.hub, ManualClock(time.time()), has_token=True)
    else:
        assert isinstance(upstream, GitHubUpstream)
        upstream.delete()
        maker = request.getfixturevalue("repository_maker")
        reader = GitHubUpstream(upstream.github, maker, ManualClock(time.time()), has_token=True)
    reader.make_private()
    created = reader.following.follow(NAME)
    reader.following.check()
    commit = reader.move("other")
    reader.following.check_after(HOUR)
    found = find_import(reader.following.find(created))
    assert (found.commit, found.is_rewritten) == (commit, True)


def test_a_rate_limit_postpones_all_follows_of_the_source(
    upstream: Upstream, following: Following, follow: Follow
) -> None:
    other = following.follow(NAME, "other")
    following.check()
    upstream.exceed_limit()
    upstream.count_requests()
    following.check_after(HOUR)
    assert upstream.count_requests() == 1
    for shown in (following.find(follow), following.find(other)):
        assert shown.waits_for_limit
        assert (shown.failures, shown.last_error) == (0, None)
        assert shown.next_check is not None
        assert timedelta() < shown.next_check - following.now
    assert following.check() == 0
    # Another run does not ask the source again, also for a follow that is due only now.
    following.follows.change_follow(other.id, lambda found: replace(found, next_check=following.now))
    following.checker = following.make_checker()
    assert following.check() == 0
    assert upstream.count_requests() == 0
    upstream.recover()
    following.deployment.clock.now = max(
        shown.next_check.timestamp() for shown in following.follows.list_follows() if shown.next_check
    )
    assert following.check() == 2
    assert not following.find(follow).waits_for_limit


def test_an_outage_is_retried_after_15_minutes(upstream: Upstream, following: Following, follow: Follow) -> None:
    upstream.fail_next()
    following.check_after(HOUR)
    shown = following.find(follow)
    assert shown.last_error is not None
    assert shown.last_error.retryable
    assert shown.next_check == following.now + timedelta(minutes=15)
    upstream.recover()
    following.check_after(timedelta(minutes=15))
    shown = following.find(follow)
    assert (shown.failures, shown.last_error) == (0, None)


def test_a_history_that_cannot_be_read_does_not_stop_the_import(
    upstream: Upstream, following: Following, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = upstream.commit()

    def fail(model: ResolvedModel, earlier: str) -> bool:
        raise ModelNotFoundError("gone")

    monkeypatch.setattr(following.deployment.source, "is_rewritten", fail)
    following.check_after(HOUR)
    found = find_import(following.find(follow))
    assert (found.commit, found.is_rewritten) == (commit, None)


def test_a_commit_cannot_be_followed(upstream: Upstream, following: Following, follow: Follow) -> None:
    with pytest.raises(InvalidReferenceError, match="never moves") as caught:
        following.follow(NAME, find_import(follow).commit)
    assert caught.value.part == "revision"


def test_what_cannot_be_resolved_is_not_followed(upstream: Upstream, following: Following) -> None:
    for name, revision, error in (
        ("Acme/missing", "main", ModelNotFoundError),
        (NAME, "missing", RevisionNotFoundError),
        ("a/b/c/d", "main", InvalidReferenceError),
    ):
        with pytest.raises(error):
            following.follow(name, revision)
    assert following.follows.list_follows() == []
    assert following.entries == []
