"""The choice of the models to delete: a function of the records of one name, the limits and the day.

A commit is kept or deleted as a whole, with all its partial models. Kept are:

- the newest commits, by the time of their import, as many as the limits say
- a commit that is pinned, that is being imported, or that was read, imported or submitted recently
- a commit with a model without limits
- the commit of each followed revision and, unless `keep_newest` is 0, the commit of `main`
- with the limits of a follow, the commit of every other branch or tag
- the commit of a branch or tag that would otherwise stand for another commit
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from modelhaul.domain.follows import Follow
from modelhaul.domain.hub_models import HubEntry
from modelhaul.domain.hub_names import derive_commit
from modelhaul.domain.models import Model, ModelStatus
from modelhaul.hub.repositories import MAIN, Repository
from modelhaul.retention.limits import Limits, RetentionLimits, is_followed


@dataclass(frozen=True, slots=True)
class Deletion:
    """A model to delete, provided that it is not read on `unread_since` (UTC) or later."""

    model: Model
    limits: Limits
    reason: str
    unread_since: date


@dataclass(frozen=True, slots=True)
class _Commit:
    """The READY models of a commit."""

    commit: str
    models: tuple[Model, ...]

    @property
    def imported_at(self) -> datetime:
        return max(model.created_at for model in self.models)

    @property
    def is_pinned(self) -> bool:
        return any(model.pin is not None for model in self.models)

    @property
    def read_on(self) -> date | None:
        return max((model.last_read_on for model in self.models if model.last_read_on is not None), default=None)

    @property
    def used_on(self) -> date:
        """Return the day of the last read, or of the end of the import if that is later."""
        # `updated_at` of a READY model is when it became READY.
        ready_on = max(model.updated_at.date() for model in self.models)
        return ready_on if self.read_on is None else max(ready_on, self.read_on)


def find_candidates(models: Iterable[Model], limits: RetentionLimits, today: date) -> list[Deletion]:
    """Return the models of one name that the limits delete, oldest commit first. Some of them may have to be kept for
    reasons that the models alone do not show, see `choose_deletions`.
    """
    commits = _group_commits(model for model in models if model.status is ModelStatus.READY)
    ranks: dict[str, Mapping[str, int]] = {}
    candidates: list[Deletion] = []
    for commit in commits:
        if commit.is_pinned:
            continue
        deletions: list[Deletion] = []
        for model in commit.models:
            found = limits.find_limits(model)
            if found is None:
                break
            if found.rule not in ranks:
                ranks[found.rule] = _rank_commits(commits, found.follow)
            deletion = _judge(model, commit, ranks[found.rule], found, today)
            if deletion is None:
                break
            deletions.append(deletion)
        else:
            candidates[:0] = deletions
    return candidates


def choose_deletions(entry: HubEntry, limits: RetentionLimits, today: date) -> list[Deletion]:
    """Return the models to delete of one name, in the order in which they must be deleted: oldest commit first, but
    after the commits for which a branch or tag would stand without it.

    `entry` has the complete records of all models of the name. If a deletion fails, those after it must not be made.
    """
    candidates = find_candidates(entry.models, limits, today)
    histories = _list_histories(entry)
    before = {revision: commits[0] for revision, commits in histories.items()}
    kept = _find_kept_commits(entry, limits, before)
    waiting: dict[str, list[Deletion]] = {}
    for deletion in candidates:
        commit = derive_commit(deletion.model.resolved)
        waiting.setdefault(commit, []).append(deletion)
        is_main = deletion.limits.keep_newest > 0 and before.get(MAIN) == commit
        # The commit of a revision that was submitted when the commit was imported already.
        is_submitted = any(r.commit == commit and r.moment.date() >= deletion.unread_since for r in entry.revisions)
        if is_main or is_submitted or _has_other_revision(commit, deletion.limits.follow, before):
            kept.add(commit)
    order = _order_commits([commit for commit in waiting if commit not in kept], histories)
    return [deletion for commit in order for deletion in waiting[commit]]


def _order_commits(commits: Sequence[str], histories: Mapping[str, Sequence[str]]) -> list[str]:
    """Return those of the commits, in the order of their deletion, without which no branch or tag ever stands for
    another commit than before.
    """
    remaining = {revision: dict.fromkeys(history) for revision, history in histories.items()}
    by_commit: dict[str, list[dict[str, None]]] = {}
    for history in remaining.values():
        for commit in history:
            by_commit.setdefault(commit, []).append(history)
    order: list[str] = []
    waiting = list(commits)
    while True:
        blocked: list[str] = []
        for commit in waiting:
            found = by_commit.get(commit, [])
            if any(len(history) > 1 and next(iter(history)) == commit for history in found):
                blocked.append(commit)
                continue
            for history in found:
                del history[commit]
            order.append(commit)
        if len(blocked) == len(waiting):
            return order
        waiting = blocked


def _group_commits(models: Iterable[Model]) -> list[_Commit]:
    """Return the commits, newest first. The models of a commit are in the order in which they are deleted: a complete
    model last, because clients then read the others only if it is gone.
    """
    by_commit: dict[str, list[Model]] = {}
    for model in models:
        by_commit.setdefault(derive_commit(model.resolved), []).append(model)
    commits = [
        _Commit(commit, tuple(sorted(found, key=lambda model: (model.resolved.selection.is_whole, model.created_at))))
        for commit, found in by_commit.items()
    ]
    return sorted(commits, key=lambda commit: (commit.imported_at, commit.commit), reverse=True)


def _rank_commits(commits: Iterable[_Commit], follow: Follow | None) -> Mapping[str, int]:
    """Return the numbers of the commits that count, from 0 for the newest. For a follow, those that it has imported."""
    counted = (c for c in commits if follow is None or any(is_followed(model, follow) for model in c.models))
    return {commit.commit: rank for rank, commit in enumerate(counted)}


def _judge(model: Model, commit: _Commit, ranks: Mapping[str, int], limits: Limits, today: date) -> Deletion | None:
    rank = ranks[commit.commit]
    unread_since = today - timedelta(days=limits.unread_days)
    if rank < limits.keep_newest or commit.used_on >= unread_since:
        return None
    read = f"last read on {commit.read_on}" if commit.read_on is not None else "never read"
    facts = f"commit {rank + 1} of {len(ranks)}, {read}, imported on {model.updated_at.date()}"
    return Deletion(model, limits, f"{limits.reason} ({facts})", unread_since)


def _find_kept_commits(entry: HubEntry, limits: RetentionLimits, references: Mapping[str, str]) -> set[str]:
    """Return the commits that are being imported, and those of the followed revisions."""
    kept = {derive_commit(model.resolved) for model in entry.models if model.status is ModelStatus.IMPORTING}
    kept |= {follow.last_import.commit for follow in limits.follows if follow.last_import is not None}
    for name in {model.resolved.name for model in entry.models}:
        for follow in limits.find_follows(name):
            if follow.revision in references and any(is_followed(model, follow) for model in entry.models):
                kept.add(references[follow.revision])
    return kept


def _has_other_revision(commit: str, follow: Follow | None, references: Mapping[str, str]) -> bool:
    """Return whether a branch or tag that is not the one of the follow, whose limits apply, stands for the commit."""
    if follow is None:
        return False
    return any(found == commit and revision != follow.revision for revision, found in references.items())


def _list_histories(entry: HubEntry) -> Mapping[str, Sequence[str]]:
    """Return the commit of each branch and tag, as Hub clients see it, and those before it."""
    ready = tuple(
        sorted(
            (model for model in entry.models if model.status is ModelStatus.READY),
            key=lambda model: model.created_at,
            reverse=True,
        )
    )
    return Repository(ready[0].resolved.hub_id, entry, ready).list_histories() if ready else {}
