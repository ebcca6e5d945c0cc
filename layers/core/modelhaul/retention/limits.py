"""The limits that apply to a model: those of a follow, or of the first rule of the policy that matches its name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from modelhaul.domain.follows import Follow
from modelhaul.domain.models import Model
from modelhaul.policy.retention_rules import RetentionRule

DEFAULT_KEPT = 1
# A commit that was read, imported, or submitted as a branch or a tag on the current or the previous day (UTC) is never
# deleted, so that at least 24 hours have passed since.
DEFAULT_UNREAD_DAYS = 1


@dataclass(frozen=True, slots=True)
class Limits:
    """`rule` is the ID of a rule, or `follow:` with the ID of a follow.

    `follow`: with limits of a follow, only the commits that it has imported count.
    """

    rule: str
    reason: str
    keep_newest: int
    unread_days: int
    follow: Follow | None = None


@dataclass(frozen=True)
class RetentionLimits:
    """The retention rules of the policy, in their order, and all follows."""

    rules: Sequence[RetentionRule]
    follows: Sequence[Follow]

    @property
    def is_empty(self) -> bool:
        """Return whether no model can be deleted."""
        return not self.rules and all(follow.keep_newest is None for follow in self.follows)

    def find_follows(self, name: str) -> Sequence[Follow]:
        """Return the follows of the models with this name at their source, in any case."""
        return self._by_name.get(name.lower(), ())

    @cached_property
    def _by_name(self) -> Mapping[str, Sequence[Follow]]:
        found: dict[str, list[Follow]] = {}
        for follow in self.follows:
            for name in {name.lower() for name in follow.names}:
                found.setdefault(name, []).append(follow)
        return found

    def find_limits(self, model: Model) -> Limits | None:
        """Return the limits of the model. None if it is kept. A follow that has imported it comes before the rules."""
        # A model that was renamed can have two follows of a revision: the one that keeps most decides.
        follows = self.find_follows(model.resolved.name)
        found = [(f.keep_newest, f) for f in follows if f.keep_newest is not None and is_followed(model, f)]
        if found:
            keep_newest, follow = max(found, key=lambda pair: pair[0])
            reason = f"The follow keeps the newest {keep_newest} commits."
            return Limits(f"follow:{follow.id}", reason, keep_newest, DEFAULT_UNREAD_DAYS, follow)
        resolved = model.resolved
        for rule in self.rules:
            if rule.when.match(resolved.source, resolved.name):
                return Limits(
                    rule.id,
                    rule.reason,
                    DEFAULT_KEPT if rule.keep_newest is None else rule.keep_newest,
                    rule.delete_unread_after_days or DEFAULT_UNREAD_DAYS,
                )
        return None


def is_followed(model: Model, follow: Follow) -> bool:
    """Return whether the model has the revision that is followed, or had it when it was imported."""
    resolved = model.resolved
    return follow.is_same(resolved.source, resolved.name, resolved.revision, resolved.selection)
