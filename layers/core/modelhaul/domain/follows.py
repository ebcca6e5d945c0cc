"""Follows: revisions that are checked regularly, and imported when they have moved."""

import json
import re
import uuid
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from modelhaul.domain.errors import ModelhaulError
from modelhaul.domain.models import ResolvedModel, Source
from modelhaul.domain.selection import WHOLE, Selection

MIN_INTERVAL = timedelta(hours=1)
MAX_INTERVAL = timedelta(weeks=4)
MAX_FOLLOWS = 500  # of a stack. The bound of the checks in a run allows 600 an hour.
MAX_KEPT = 1000
LEASE = timedelta(minutes=10)  # longer than the timeout of check_follows

_NAMESPACE = uuid.UUID("0c2e1f55-7e1d-5a37-b6a5-1c1c7a4f2f0b")
_INTERVAL = re.compile(r"([1-9][0-9]{0,2})([hdw])")
_UNITS = {"w": timedelta(weeks=1), "d": timedelta(days=1), "h": timedelta(hours=1)}
_FIRST_RETRY = timedelta(minutes=15)  # after a failure that may pass by itself
_MAX_RETRY = timedelta(days=1)
_MAX_PERMANENT_RETRY = timedelta(weeks=1)
_MAX_EXPONENT = 16
_MAX_DETAIL = 1000  # characters
_MAX_FORMER_NAMES = 10


class FollowStatus(StrEnum):
    ACTIVE = "ACTIVE"
    PAUSED = "PAUSED"


@dataclass(frozen=True, slots=True)
class FollowError:
    """Why the last check failed, with the fields of `ModelhaulError`."""

    type: str
    detail: str
    retryable: bool
    at: datetime
    remedy: str | None = None


@dataclass(frozen=True, slots=True)
class FollowedImport:
    """The commit that was found last, and submitted at `found_at`.

    `task_id`: the task that imports the model, None if the model existed already. `previous_commit`: the commit before,
    None for the first import. `is_rewritten`: whether the branch was rewritten, so that its history does not contain
    `previous_commit`. None if this is not known. `retries`: how often the import was submitted again.
    """

    commit: str
    model_id: str
    found_at: datetime
    task_id: str | None = None
    previous_commit: str | None = None
    is_rewritten: bool | None = None
    retries: int = 0


@dataclass(frozen=True, slots=True)
class Follow:
    """A followed revision of a model.

    `name` is the current canonical name at the source; `former_names` are those before it was renamed, newest first.
    `requested_name` is the name in the request, None if it was the canonical one: Hub clients can read the imported
    models by it.
    `every`: the interval of the checks. `keep_newest`: how many imported versions to keep, None for all. `created_by`
    names the caller, see `modelhaul.domain.callers`. `next_check`: None while PAUSED. `checked_at`: the last check with
    a result. `last_error`: of the last check, None if it succeeded; `failures`: the failed checks since then.
    `waits_for_limit`: `next_check` is the end of the source's rate limit. `retries_import`: the next check submits the
    commit again, also if its import failed with a permanent error, or if the model was deleted. `lease_id` identifies
    the check in progress. `version` increases with each change.
    """

    id: str
    source: Source
    name: str
    revision: str
    every: timedelta
    created_at: datetime
    next_check: datetime | None
    selection: Selection = WHOLE
    keep_newest: int | None = None
    created_by: str | None = None
    former_names: tuple[str, ...] = ()
    requested_name: str | None = None
    status: FollowStatus = FollowStatus.ACTIVE
    checked_at: datetime | None = None
    last_import: FollowedImport | None = None
    last_error: FollowError | None = None
    failures: int = 0
    waits_for_limit: bool = False
    retries_import: bool = False
    lease_id: str | None = None
    version: int = 1

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of all models that this follow has imported."""
        return (self.name, *self.former_names)

    def is_due(self, now: datetime) -> bool:
        return self.next_check is not None and self.next_check <= now

    def is_same(self, source: Source, name: str, revision: str, selection: Selection) -> bool:
        """Return whether this follow has the same model, revision and selection. Names differ at most in case."""
        same_name = name.lower() in (known.lower() for known in self.names)
        return (source, revision, selection) == (self.source, self.revision, self.selection) and same_name

    def describe(self) -> str:
        """Return a description for messages."""
        part = "" if self.selection.is_whole else f" ({self.selection.describe()})"
        return f"{self.name}@{self.revision}{part}"


@dataclass(frozen=True, slots=True)
class DueFollow:
    """The ID of a follow that is due, and its source."""

    id: str
    source: Source


def create_follow(
    resolved: ResolvedModel,
    every: timedelta,
    now: datetime,
    *,
    requested_name: str | None = None,
    keep_newest: int | None = None,
    created_by: str | None = None,
) -> Follow:
    """Create a follow of a resolved model, which is due immediately. Equal follows have the same ID."""
    return Follow(
        id=_identify(resolved),
        source=resolved.source,
        name=resolved.name,
        revision=resolved.revision,
        every=every,
        created_at=now,
        next_check=now,
        selection=resolved.selection,
        keep_newest=keep_newest,
        created_by=created_by,
        requested_name=None if requested_name == resolved.name else requested_name,
    )


def _identify(resolved: ResolvedModel) -> str:
    parts = [resolved.source, resolved.name.lower(), resolved.revision, asdict(resolved.selection)]
    return str(uuid.uuid5(_NAMESPACE, json.dumps(parts)))


def parse_interval(text: str) -> timedelta:
    """Parse an interval such as `6h`, `1d` or `2w`, from 1 hour to 4 weeks. Raises ValueError."""
    match = _INTERVAL.fullmatch(text)
    interval = int(match[1]) * _UNITS[match[2]] if match else timedelta()
    if not MIN_INTERVAL <= interval <= MAX_INTERVAL:
        raise ValueError(
            "must be a number of hours, days or weeks such as 6h, 1d or 2w, at least 1 hour and at most 4 weeks"
        )
    return interval


def format_interval(interval: timedelta) -> str:
    """Return the interval in the largest unit that divides it."""
    unit = next(unit for unit, length in _UNITS.items() if not interval % length)
    return f"{interval // _UNITS[unit]}{unit}"


def pause(follow: Follow) -> Follow:
    return replace(follow, status=FollowStatus.PAUSED, next_check=None, waits_for_limit=False)


def resume(follow: Follow, now: datetime) -> Follow:
    """Return the follow, active and due immediately. A failed import, or a deleted model, is submitted again.

    The result of a check in progress is not recorded, because that check began before.
    """
    return replace(
        follow,
        status=FollowStatus.ACTIVE,
        next_check=now,
        failures=0,
        waits_for_limit=False,
        retries_import=True,
        lease_id=None,
    )


def change_interval(follow: Follow, every: timedelta) -> Follow:
    """Return the follow with another interval. A check that is planned later than the interval allows is moved up."""
    next_check = follow.next_check
    if next_check is not None and not follow.failures and not follow.waits_for_limit:
        next_check = min(next_check, (follow.checked_at or follow.created_at) + every)
    return replace(follow, every=every, next_check=next_check)


def lease_check(follow: Follow, lease_id: str, now: datetime) -> Follow:
    """Return the follow during a check. If the check never ends, the follow is due again after the lease."""
    return replace(follow, next_check=now + LEASE, lease_id=lease_id)


def record_success(follow: Follow, now: datetime, *, name: str, found: FollowedImport | None = None) -> Follow:
    """Return the follow after a successful check. `name`: the canonical name. `found`: None if nothing has moved."""
    follow = _rename(follow, name)
    return _end_check(
        replace(
            follow,
            checked_at=now,
            last_import=found or follow.last_import,
            last_error=None,
            failures=0,
            waits_for_limit=False,
            retries_import=False,
        ),
        now + follow.every,
    )


def record_failure(
    follow: Follow, error: ModelhaulError, remedy: str | None, now: datetime, *, name: str | None = None
) -> Follow:
    """Return the follow after a failed check, whose next check is delayed by `compute_delay`.

    After an error that may pass, the next check still submits the import again if the follow was resumed.
    """
    if name is not None:
        follow = _rename(follow, name)
    failures = follow.failures + 1
    detail = error.detail if len(error.detail) <= _MAX_DETAIL else f"{error.detail[: _MAX_DETAIL - 1]}…"
    shown = FollowError(error.type, detail, error.retryable, now, remedy)
    return _end_check(
        replace(
            follow,
            checked_at=now,
            last_error=shown,
            failures=failures,
            waits_for_limit=False,
            retries_import=follow.retries_import and error.retryable,
        ),
        now + compute_delay(follow.every, failures, retryable=error.retryable),
    )


def postpone_check(follow: Follow, until: datetime) -> Follow:
    """Return the follow that waits for the source's rate limit. This is no failure."""
    return _end_check(replace(follow, waits_for_limit=True), until)


def compute_delay(every: timedelta, failures: int, *, retryable: bool) -> timedelta:
    """Return the delay after the `failures`-th failure in a row, which doubles with each failure.

    A `retryable` error may pass by itself: the next check is after 15 minutes, and later once a day. After any other
    error, it is after `every`, and later once a week. A longer interval of the follow is the limit instead.
    """
    if not retryable:
        return _double(every, failures - 1, max(every, _MAX_PERMANENT_RETRY))
    return _double(_FIRST_RETRY, failures - 1, max(every, _MAX_RETRY))


def is_retry_due(follow: Follow, failed_at: datetime, now: datetime) -> bool:
    """Return whether the last import, which failed at `failed_at` with a retryable error, is submitted again.

    The delay starts with the interval of the follow, and doubles up to a week. Checks for a new commit continue.
    """
    retries = follow.last_import.retries if follow.last_import else 0
    return now >= failed_at + _double(follow.every, retries, max(follow.every, _MAX_PERMANENT_RETRY))


def _double(delay: timedelta, times: int, limit: timedelta) -> timedelta:
    return min(delay * (1 << min(times, _MAX_EXPONENT)), limit)


def _rename(follow: Follow, name: str) -> Follow:
    if name == follow.name:
        return follow
    former = tuple(known for known in follow.names if known != name)
    return replace(follow, name=name, former_names=former[:_MAX_FORMER_NAMES])


def _end_check(follow: Follow, next_check: datetime) -> Follow:
    if follow.status is FollowStatus.PAUSED:
        return replace(follow, lease_id=None, next_check=None, waits_for_limit=False)
    return replace(follow, lease_id=None, next_check=next_check)
