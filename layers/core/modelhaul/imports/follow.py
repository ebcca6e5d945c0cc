"""Follow revisions: create, change and delete follows, and start the checks that are due."""

import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from modelhaul.domain.audit import AuditAction, AuditEntry
from modelhaul.domain.errors import (
    FollowExistsError,
    FollowLimitError,
    FollowNotFoundError,
    InvalidReferenceError,
    ModelNotFoundError,
    Part,
    StorageUnavailableError,
)
from modelhaul.domain.follows import (
    MAX_FOLLOWS,
    DueFollow,
    Follow,
    change_interval,
    create_follow,
    format_interval,
    pause,
    resume,
)
from modelhaul.domain.hub_names import SHORT_COMMIT
from modelhaul.domain.models import ResolvedModel, Source
from modelhaul.domain.selection import WHOLE, Selection
from modelhaul.ports.clock import Clock
from modelhaul.ports.follows import FollowChecks, FollowRepository
from modelhaul.ports.model_sources import ModelResolver

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CheckStarter:
    """Starts the checks of follows. Called by the sweep, which runs every five minutes, and after a user's change."""

    follows: FollowRepository
    checks: FollowChecks
    clock: Clock

    def start_due(self) -> bool:
        """Return whether checks were started. An error is logged; the next sweep tries again."""
        try:
            is_due = bool(self.follows.list_due(datetime.fromtimestamp(self.clock(), UTC), 1))
            if is_due:
                self.checks.start()
        except StorageUnavailableError as error:
            logger.warning("checks of follows not started", extra={"detail": error.detail})
            return False
        return is_due

    def start(self, follow: Follow) -> None:
        """Start the check of a follow that has just become due. An error is logged; the next sweep tries again."""
        try:
            # The list of due follows is eventually consistent: the follow may be missing in it.
            self.checks.start(DueFollow(follow.id, follow.source))
        except StorageUnavailableError as error:
            logger.warning("check of a follow not started", extra={"follow_id": follow.id, "detail": error.detail})


@dataclass(frozen=True, slots=True)
class FollowChange:
    """Requested changes of a follow. None: no change. `keeps_all`: `keep_newest` is removed."""

    paused: bool | None = None
    every: timedelta | None = None
    keep_newest: int | None = None
    keeps_all: bool = False

    def apply(self, follow: Follow, now: datetime) -> Follow:
        if self.every is not None:
            follow = change_interval(follow, self.every)
        if self.keep_newest is not None or self.keeps_all:
            follow = replace(follow, keep_newest=self.keep_newest)
        if self.paused is not None:
            follow = pause(follow) if self.paused else resume(follow, now)
        return follow

    def describe(self) -> dict[str, str]:
        """Return the changes for the audit."""
        changes = {
            "paused": None if self.paused is None else str(self.paused).lower(),
            "every": self.every and format_interval(self.every),
            "keep_newest": "all" if self.keeps_all else self.keep_newest and str(self.keep_newest),
        }
        return {name: value for name, value in changes.items() if value}


@dataclass(frozen=True, slots=True)
class Follower:
    """Creates, changes and deletes follows."""

    follows: FollowRepository
    open_resolver: Callable[[Source], ModelResolver]
    starter: CheckStarter
    clock: Clock

    def create(
        self,
        source: Source,
        name: str,
        revision: str,
        selection: Selection = WHOLE,
        *,
        every: timedelta,
        keep_newest: int | None = None,
        created_by: str | None = None,
    ) -> Follow:
        """Follow a revision. The first check, which imports its current commit, starts immediately.

        Raises the errors of ModelResolver.resolve, InvalidReferenceError if the revision is a commit,
        FollowExistsError, FollowLimitError.
        """
        resolved = replace(self._resolve(source, name, revision), selection=selection)
        follows = self.follows.list_follows()
        for known in follows:
            # A former name may now be that of another repository.
            is_current = known.name.lower() == resolved.name.lower()
            if is_current and known.is_same(source, resolved.name, revision, selection):
                raise _create_exists_error(known)
        if len(follows) >= MAX_FOLLOWS:
            raise FollowLimitError(f"The stack already has {len(follows)} follows; the limit is {MAX_FOLLOWS}.")
        follow = create_follow(
            resolved, every, self._now(), requested_name=name, keep_newest=keep_newest, created_by=created_by
        )
        if any(known.id == follow.id for known in follows):
            follow = replace(follow, id=str(uuid.uuid4()))  # the ID is that of a follow that was renamed
        detail = {"revision": revision, "selection": selection.describe(), "every": format_interval(every)}
        if keep_newest is not None:
            detail["keep_newest"] = str(keep_newest)
        entry = self._describe(AuditAction.FOLLOW_CREATED, follow, created_by, detail)
        if not self.follows.add_follow(follow, entry=entry):
            raise _create_exists_error(follow)
        logger.info("follow created", extra={"follow_id": follow.id, "model": follow.name, "revision": revision})
        self.starter.start(follow)
        return follow

    def change(self, follow_id: str, change: FollowChange, *, changed_by: str | None = None) -> Follow:
        """Change a follow, and start its check if it is now due. Raises FollowNotFoundError."""
        follow = self.find(follow_id)
        if change == FollowChange():
            return follow
        entry = self._describe(AuditAction.FOLLOW_CHANGED, follow, changed_by, change.describe())
        now = self._now()
        changed = self.follows.change_follow(follow_id, lambda found: change.apply(found, now), entry=entry)
        if changed is None:
            raise _create_missing_error(follow_id)
        logger.info("follow changed", extra={"follow_id": follow_id, **change.describe()})
        if changed.is_due(now):
            self.starter.start(changed)
        return changed

    def delete(self, follow_id: str, *, deleted_by: str | None = None) -> None:
        """Delete a follow. Its imported models remain. Raises FollowNotFoundError."""
        entry = self._describe(AuditAction.FOLLOW_DELETED, self.find(follow_id), deleted_by, {})
        if not self.follows.remove_follow(follow_id, entry=entry):
            raise _create_missing_error(follow_id)
        logger.info("follow deleted", extra={"follow_id": follow_id})

    def find(self, follow_id: str) -> Follow:
        """Return the follow. Raises FollowNotFoundError."""
        follow = self.follows.find_follow(follow_id)
        if follow is None:
            raise _create_missing_error(follow_id)
        return follow

    def _resolve(self, source: Source, name: str, revision: str) -> ResolvedModel:
        resolver = self.open_resolver(source)
        try:
            resolved = resolver.resolve(name, revision)
        except InvalidReferenceError as error:
            part: Part = "revision" if error.part == "revision" else "followed_name"
            raise InvalidReferenceError(error.detail, part=part) from None
        except ModelNotFoundError as error:
            error.remedy = resolver.find_missing_remedy(name) or error.remedy
            raise
        if SHORT_COMMIT.fullmatch(revision) and resolved.commit.startswith(revision.lower()):
            raise InvalidReferenceError(
                f"The revision {revision!r} is a commit, which never moves. Follow a branch or a tag, or import the "
                "commit once.",
                part="revision",
            )
        return resolved

    def _describe(self, action: AuditAction, follow: Follow, actor: str | None, detail: dict[str, str]) -> AuditEntry:
        return AuditEntry(
            action=action,
            time=self._now(),
            actor=actor,
            follow_id=follow.id,
            name=follow.name,
            source=follow.source,
            detail=detail,
        )

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.clock(), UTC)


def _create_exists_error(follow: Follow) -> FollowExistsError:
    return FollowExistsError(f"{follow.describe()} is already followed by {follow.id}.", follow_id=follow.id)


def _create_missing_error(follow_id: str) -> FollowNotFoundError:
    return FollowNotFoundError(f"Follow {follow_id[:64]!r} not found.")
