"""What the tests of follows have in common: the services over a deployment in memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from modelhaul.domain.audit import AuditEntry
from modelhaul.domain.follows import DueFollow, Follow
from modelhaul.domain.models import Source
from modelhaul.domain.selection import WHOLE, Selection
from modelhaul.imports.check_follows import FollowChecker
from modelhaul.imports.follow import CheckStarter, Follower
from modelhaul.ports.follows import FollowChecks, FollowRepository
from modelhaul.ports.rate_limits import RateLimitStore
from tests.fakes.deployment import Deployment
from tests.fakes.follow_repository import InMemoryFollowRepository
from tests.fakes.rate_limit_store import InMemoryRateLimitStore

HOUR = timedelta(hours=1)


@dataclass
class RecordingChecks(FollowChecks):
    starts: int = 0
    first: DueFollow | None = None

    def start(self, first: DueFollow | None = None) -> None:
        self.starts += 1
        self.first = first


@dataclass
class Following:
    """Follows of models in `deployment.source`, which is a source of `kind`.

    `repository`: of the follows, in memory by default.
    """

    deployment: Deployment
    kind: Source = Source.HUGGINGFACE
    repository: FollowRepository | None = None
    limits: RateLimitStore = field(default_factory=InMemoryRateLimitStore)
    checks: FollowChecks = field(default_factory=RecordingChecks)
    max_checks: int = 50

    def __post_init__(self) -> None:
        clock = self.deployment.clock
        in_memory = InMemoryFollowRepository(self.deployment.tables)
        self.follows: FollowRepository = in_memory if self.repository is None else self.repository
        self.starter = CheckStarter(self.follows, self.checks, clock)
        self.follower = Follower(self.follows, lambda _: self.deployment.source, self.starter, clock)
        self.checker = self.make_checker()

    def make_checker(self) -> FollowChecker:
        deployment = self.deployment
        return FollowChecker(
            self.follows,
            deployment.database.models,
            deployment.submitter,
            lambda _: deployment.source,
            self.limits,
            deployment.clock,
            dict.fromkeys(Source, self.max_checks),
        )

    @property
    def entries(self) -> list[AuditEntry]:
        """The entries of the audit about follows."""
        return [entry for entry in self.deployment.tables.entries.values() if entry.follow_id is not None]

    @property
    def starts(self) -> int:
        """How often checks were started."""
        assert isinstance(self.checks, RecordingChecks)
        return self.checks.starts

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.deployment.clock.now, UTC)

    def follow(
        self, name: str, revision: str = "main", *, every: timedelta = HOUR, selection: Selection = WHOLE
    ) -> Follow:
        return self.follower.create(self.kind, name, revision, selection, every=every, created_by="api-key:a")

    def check(self, remaining: Callable[[], float] = lambda: 300.0, first: DueFollow | None = None) -> int:
        return self.checker.check_due(remaining, first)

    def check_after(self, delay: timedelta) -> int:
        self.deployment.clock.now += delay.total_seconds()
        return self.check()

    def find(self, follow: Follow) -> Follow:
        return self.follower.find(follow.id)

    def list_commits(self) -> Sequence[str]:
        """The commits of all models that are known, sorted."""
        return sorted(model.resolved.commit for model in self.deployment.tables.models.values())
