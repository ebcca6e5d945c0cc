"""Check followed revisions, and import those that have moved."""

import logging
import math
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from modelhaul.domain.callers import name_follow
from modelhaul.domain.errors import (
    ImportInProgressError,
    InternalError,
    ModelExistsError,
    ModelhaulError,
    RateLimitedError,
    StorageQuotaError,
    StorageUnavailableError,
)
from modelhaul.domain.follows import (
    MAX_FOLLOWS,
    DueFollow,
    Follow,
    FollowedImport,
    is_retry_due,
    lease_check,
    postpone_check,
    record_failure,
    record_success,
)
from modelhaul.domain.models import ModelStatus, ResolvedModel, Source
from modelhaul.domain.remedies import PROBLEM_REMEDIES
from modelhaul.imports.submit import ImportSubmitter
from modelhaul.ports.clock import Clock
from modelhaul.ports.follows import FollowRepository
from modelhaul.ports.model_sources import FollowedSource
from modelhaul.ports.models import ModelRepository
from modelhaul.ports.rate_limits import RateLimitStore

logger = logging.getLogger(__name__)

_STOP_BEFORE = 60.0  # seconds reserved at the end, which the requests of one check do not exceed
_DEFAULT_PAUSE = 60.0  # seconds, if the source does not tell the end of its rate limit
_MAX_PAUSE = 24 * 3600.0


@dataclass(slots=True)
class _Run:
    """The state of one run: checks by source, and until when a source allows no requests (epoch seconds)."""

    checks: Counter[Source] = field(default_factory=Counter)
    paused_until: dict[Source, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FollowChecker:
    """Checks the follows that are due. Runs may overlap: each check is leased.

    `max_checks`: the checks of a run by source. A check takes one request to the source if nothing has moved, and at
    most six otherwise.
    """

    follows: FollowRepository
    models: ModelRepository
    submitter: ImportSubmitter
    open_source: Callable[[Source], FollowedSource]
    limits: RateLimitStore
    clock: Clock
    max_checks: Mapping[Source, int]

    def check_due(self, remaining: Callable[[], float], first: DueFollow | None = None) -> int:
        """Check due follows, `first` before the others, until the `remaining()` seconds run out.

        Return the number of checks. An error of one follow is recorded in it, and does not stop the others. Raises
        ExceptionGroup with the unexpected errors at the end.
        """
        unexpected: list[Exception] = []
        run = _Run()
        due = [listed for listed in self.follows.list_due(self._now(), MAX_FOLLOWS) if listed != first]
        if first is not None:
            due.insert(0, first)
        for listed in due:
            if remaining() < _STOP_BEFORE:
                logger.warning("out of time; the next run continues", extra={"due": len(due)})
                break
            try:
                self._handle(listed, run)
            except StorageUnavailableError as error:
                # The follow is due again when its lease ends.
                logger.warning("check of a follow not recorded", extra={"follow_id": listed.id, "detail": error.detail})
            except Exception as error:
                logger.exception("unexpected error in the check of a follow", extra={"follow_id": listed.id})
                unexpected.append(error)
        if unexpected:
            # The function must fail, so that its alarm reports the errors.
            raise ExceptionGroup("unexpected errors in checks of follows", unexpected)
        return run.checks.total()

    def _handle(self, listed: DueFollow, run: _Run) -> None:
        source = listed.source
        if source not in run.paused_until:
            run.paused_until[source] = self.limits.find_pause(_name_limit(source))
        if run.paused_until[source] > self.clock():
            self._postpone(listed.id, run.paused_until[source])
        elif run.checks[source] < self.max_checks[source]:
            self._check(listed, run)

    def _check(self, listed: DueFollow, run: _Run) -> None:
        lease_id = str(uuid.uuid4())
        now = self._now()

        def lease(found: Follow) -> Follow | None:
            # After a lost response, the lease is already recorded.
            return lease_check(found, lease_id, now) if found.is_due(now) or found.lease_id == lease_id else None

        follow = self.follows.change_follow(listed.id, lease)
        if follow is None:
            return  # the list is eventually consistent, or another run checks this follow
        run.checks[listed.source] += 1
        try:
            self._record(follow, self._compare(follow))
        except RateLimitedError as error:
            seconds = min(max(error.retry_after or _DEFAULT_PAUSE, 1.0), _MAX_PAUSE)
            run.paused_until[listed.source] = until = math.ceil(self.clock() + seconds)
            self.limits.record_pause(_name_limit(listed.source), until)
            self._record(follow, lambda found: postpone_check(found, datetime.fromtimestamp(until, UTC)))
            context = {"follow_id": follow.id, "source": follow.source, "delay": round(seconds, 1)}
            logger.warning("rate limited; checks postponed", extra=context)
        except ModelhaulError as error:
            self._record_failure(follow, error)
        except Exception as error:
            internal = InternalError(
                f"Internal error ({type(error).__name__}). Search the logs for the follow ID to find the stack trace."
            )
            self._record_failure(follow, internal)
            raise

    def _compare(self, follow: Follow) -> Callable[[Follow], Follow]:
        """Compare the revision with the last import, and submit it if it has moved. Return what is recorded."""
        last, source = follow.last_import, self.open_source(follow.source)
        if last is None:
            return self._submit(follow, self.submitter.resolve(follow.source, follow.name, follow.revision))
        resolved = source.resolve_moved(follow.name, follow.revision, last.commit)
        if resolved is None or resolved.commit == last.commit:
            name = follow.name if resolved is None else resolved.name
            if self._must_retry(follow, last):
                resolved = resolved or self.submitter.resolve(follow.source, follow.name, follow.revision)
                return self._submit(follow, resolved, retries=last.retries + 1)
            now = self._now()
            return lambda found: record_success(found, now, name=name)
        return self._submit(follow, resolved, is_rewritten=self._find_rewritten(source, resolved, last))

    def _must_retry(self, follow: Follow, last: FollowedImport) -> bool:
        """Return whether the last import is submitted again, although its commit is the same.

        A deleted model stays deleted, and content with a permanent error is not imported again, until the follow is
        resumed. The storage quota may have room later.
        """
        model = next(iter(self.models.find_models([last.model_id])), None)
        if model is None or model.status is not ModelStatus.FAILED:
            return model is None and follow.retries_import
        error = model.error
        is_retryable = error is not None and (error.retryable or error.type == StorageQuotaError.type)
        return follow.retries_import or (is_retryable and is_retry_due(follow, model.updated_at, self._now()))

    def _find_rewritten(self, source: FollowedSource, resolved: ResolvedModel, last: FollowedImport) -> bool | None:
        try:
            return source.is_rewritten(resolved, last.commit)
        except ModelhaulError as error:
            # The import does not depend on it. If the source is rate limited, the next check finds out.
            context = {"model": resolved.name, "type": error.type, "detail": error.detail}
            logger.info("history of a revision not compared", extra=context)
            return None

    def _submit(
        self, follow: Follow, resolved: ResolvedModel, *, is_rewritten: bool | None = None, retries: int = 0
    ) -> Callable[[Follow], Follow]:
        last = follow.last_import
        resolved = replace(resolved, selection=follow.selection)
        is_renamed = resolved.name != follow.name
        name = follow.name if is_renamed or follow.requested_name is None else follow.requested_name
        task_id: str | None = None
        try:
            task_id = self.submitter.submit_resolved(
                follow.source, resolved, name, submitted_by=name_follow(follow.id)
            ).id
        except ImportInProgressError as error:
            task_id = error.task_id
        except ModelExistsError:
            pass  # imported before, by anyone
        except RateLimitedError:
            raise  # the policy asked the source for the date of the commit
        except ModelhaulError as error:
            return self._describe_failure(follow, error, name=resolved.name)
        now = self._now()
        has_moved = last is None or last.commit != resolved.commit
        found = FollowedImport(
            commit=resolved.commit,
            model_id=resolved.model_id,
            found_at=now if has_moved or last is None else last.found_at,
            task_id=task_id,
            previous_commit=(last.commit if has_moved else last.previous_commit) if last else None,
            is_rewritten=is_rewritten if has_moved or last is None else last.is_rewritten,
            retries=0 if has_moved else retries,
        )
        context = {"follow_id": follow.id, "model": resolved.name, "commit": resolved.commit, "task_id": task_id}
        logger.info("followed revision submitted", extra={**context, "is_rewritten": is_rewritten})
        return lambda current: record_success(current, now, name=resolved.name, found=found)

    def _record_failure(self, follow: Follow, error: ModelhaulError) -> None:
        self._record(follow, self._describe_failure(follow, error))

    def _describe_failure(
        self, follow: Follow, error: ModelhaulError, *, name: str | None = None
    ) -> Callable[[Follow], Follow]:
        now, remedy = self._now(), error.remedy or PROBLEM_REMEDIES.get(error.type)
        context = {"follow_id": follow.id, "model": name or follow.name, "reason": error.type, "detail": error.detail}
        logger.warning("check of a follow failed", extra={**context, "failures": follow.failures + 1})
        return lambda found: record_failure(found, error, remedy, now, name=name)

    def _record(self, follow: Follow, change: Callable[[Follow], Follow]) -> None:
        """Record the result. No-op if the follow was deleted, or the lease ended and another run took it."""
        self.follows.change_follow(
            follow.id, lambda found: change(found) if found.lease_id == follow.lease_id else None
        )

    def _postpone(self, follow_id: str, until: float) -> None:
        now, end = self._now(), datetime.fromtimestamp(until, UTC)
        self.follows.change_follow(follow_id, lambda found: postpone_check(found, end) if found.is_due(now) else None)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.clock(), UTC)


def _name_limit(source: Source) -> str:
    return f"follows of {source}"
