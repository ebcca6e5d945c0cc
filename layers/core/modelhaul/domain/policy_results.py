"""What the policy decides about an import, as models and tasks record it."""

from dataclasses import dataclass, replace
from enum import StrEnum

_MAX_WARNINGS = 20  # in a record
_MAX_TEXT_LENGTH = 300  # characters of a text in a record


class PolicyDecision(StrEnum):
    ALLOW = "allow"
    DENY = "deny"
    UNDECIDED = "undecided"  # facts that are not known yet decide


@dataclass(frozen=True, slots=True)
class PolicyWarning:
    """A rule with the effect `warn` that matches. `matched`: the values for which it matches, as texts."""

    rule_id: str
    reason: str
    matched: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OpenRule:
    """A rule that may take part in the decision. `facts`: names of the facts that it waits for. They are empty if it
    matches, but an open rule before it may decide first.
    """

    rule_id: str
    facts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PolicyResult:
    """`rule_id` is the rule that decides, None if the policy's default does, or if facts are open. `reason` is the
    rule's, or a text of the default. `matched`: the values for which the rule matches, as texts: `license gpl-3.0`.

    `warnings` are certain: no open fact can change them. `open_rules` are in the policy's order. `digest` is the
    SHA-256 of the document in hexadecimal.
    """

    decision: PolicyDecision
    rule_id: str | None = None
    reason: str | None = None
    matched: tuple[str, ...] = ()
    warnings: tuple[PolicyWarning, ...] = ()
    open_rules: tuple[OpenRule, ...] = ()
    digest: str = ""

    def shorten(self) -> "PolicyResult":
        """Return a copy for a model's or a task's record: at most 20 warnings, texts of at most 300 characters, and no
        open rules.
        """
        return replace(
            self,
            reason=self.reason and self.reason[:_MAX_TEXT_LENGTH],
            matched=_shorten(self.matched),
            warnings=tuple(
                PolicyWarning(warning.rule_id, warning.reason[:_MAX_TEXT_LENGTH], _shorten(warning.matched))
                for warning in self.warnings[:_MAX_WARNINGS]
            ),
            open_rules=(),
        )


def _shorten(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(text[:_MAX_TEXT_LENGTH] for text in texts)
