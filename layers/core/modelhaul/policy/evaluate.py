"""Evaluation of a policy. Conditions have three values: they hold, do not hold, or depend on facts that are open."""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum

from modelhaul.domain.name_patterns import matches_any
from modelhaul.domain.policy_results import OpenRule, PolicyDecision, PolicyResult, PolicyWarning
from modelhaul.policy.document import Conditions, Effect, Policy, Rule
from modelhaul.policy.facts import UNKNOWN_LICENSE, FormatChoice, ImportFacts, KnownValues, Open

_MAX_SHOWN = 5  # values of one condition in a result
_DAY = timedelta(days=1)


class Truth(Enum):
    TRUE = "true"
    FALSE = "false"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class RuleOutcome:
    """Whether a rule matches. `matched`: the values for which its conditions hold. `open_facts`: names of the facts
    that it waits for.
    """

    rule: Rule
    truth: Truth
    matched: tuple[str, ...] = ()
    open_facts: tuple[str, ...] = ()


def evaluate(policy: Policy, facts: ImportFacts, *, digest: str = "") -> PolicyResult:
    """Decide about an import.

    The first rule with the effect `allow` or `deny` that matches decides, and the policy's default if none does. Rules
    with the effect `warn` before it add warnings. The decision is UNDECIDED unless it is the same for all values that
    the open facts may have. So DENY and ALLOW are final.
    """
    possible: set[Effect] = set()
    warnings: list[PolicyWarning] = []
    open_rules: list[OpenRule] = []
    decisive: RuleOutcome | None = None
    for outcome in match_rules(policy, facts):
        rule = outcome.rule
        if outcome.truth is Truth.OPEN or (outcome.truth is Truth.TRUE and rule.effect is Effect.WARN and possible):
            # A rule before this warning may decide, so that the warning is not given.
            open_rules.append(OpenRule(rule.id, outcome.open_facts))
        if outcome.truth is Truth.TRUE and rule.effect is Effect.WARN and not possible:
            warnings.append(PolicyWarning(rule.id, rule.reason, outcome.matched))
        if outcome.truth is not Truth.FALSE and rule.effect is not Effect.WARN:
            possible.add(rule.effect)
            if outcome.truth is Truth.TRUE:
                decisive = outcome
                break
    if decisive is None:
        possible.add(Effect(policy.default))
    decision = PolicyDecision(possible.pop()) if len(possible) == 1 else PolicyDecision.UNDECIDED
    if decision is PolicyDecision.UNDECIDED:
        return PolicyResult(decision, None, None, (), tuple(warnings), tuple(open_rules), digest)
    if decisive is None:
        reason = f"No rule decides, and the policy's default is {policy.default}."
        return PolicyResult(decision, None, reason, (), tuple(warnings), tuple(open_rules), digest)
    rule = decisive.rule
    return PolicyResult(decision, rule.id, rule.reason, decisive.matched, tuple(warnings), tuple(open_rules), digest)


def match_rules(policy: Policy, facts: ImportFacts) -> Iterator[RuleOutcome]:
    """Yield for each rule, in order, whether it matches."""
    for rule in policy.rules:
        yield _match_rule(rule, facts)


@dataclass(frozen=True, slots=True)
class _Answer:
    """Whether one condition holds, and the value for which it does."""

    truth: Truth
    matched: str = ""
    fact: str = ""


def _match_rule(rule: Rule, facts: ImportFacts) -> RuleOutcome:
    answers = list(_check_conditions(rule.when, facts))
    if any(answer.truth is Truth.FALSE for answer in answers):
        return RuleOutcome(rule, Truth.FALSE)
    waiting = tuple(dict.fromkeys(answer.fact for answer in answers if answer.truth is Truth.OPEN))
    matched = tuple(answer.matched for answer in answers if answer.truth is Truth.TRUE)
    return RuleOutcome(rule, Truth.OPEN if waiting else Truth.TRUE, matched, waiting)


def _check_conditions(when: Conditions, facts: ImportFacts) -> Iterator[_Answer]:
    """Yield the value of each condition that the rule has."""
    yield from _check_model(when, facts)
    yield from _check_age(when, facts)
    yield from _check_files(when, facts)


def _check_model(when: Conditions, facts: ImportFacts) -> Iterator[_Answer]:
    if when.source:
        yield _check(facts.source, "source", lambda source: source in when.source)
    if when.name:
        yield _check(facts.name, "name", lambda name: matches_any(when.name, name))
    if when.name_not:
        yield _check(facts.name, "name", lambda name: not matches_any(when.name_not, name))
    if when.license:
        yield _check_licenses(facts.licenses, lambda license_id: _matches_license(when.license, license_id))
    if when.license_not:
        yield _check_licenses(facts.licenses, lambda license_id: not _matches_license(when.license_not, license_id))
    if when.gated is not None:
        yield _check(facts.gated, "gated", lambda gated: gated is when.gated)


def _check_files(when: Conditions, facts: ImportFacts) -> Iterator[_Answer]:
    limit = when.size_above
    if limit is not None:
        yield _check(facts.size, "size", lambda size: size > limit)
    if when.format:
        yield _check_formats(facts, when.format, is_negated=False)
    if when.format_not:
        yield _check_formats(facts, when.format_not, is_negated=True)
    if when.finding or when.finding_severity:
        yield _check_findings(when, facts)
    if when.verdict:
        yield _check(facts.verdict, "verdict", lambda verdict: verdict in when.verdict)


def _check[T](value: T | Open, fact: str, holds: Callable[[T], bool]) -> _Answer:
    """Check a fact that has one value."""
    if isinstance(value, Open):
        return _Answer(Truth.OPEN, fact=fact)
    return _Answer(Truth.TRUE, f"{fact} {_show(value)}") if holds(value) else _Answer(Truth.FALSE)


def _show(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _check_licenses(licenses: KnownValues[str], holds: Callable[[str], bool]) -> _Answer:
    values = licenses.values
    if licenses.is_complete and not values:
        values = frozenset({UNKNOWN_LICENSE})
    return _find(sorted(filter(holds, values)), "license", is_complete=licenses.is_complete)


def _matches_license(patterns: Collection[str], license_id: str) -> bool:
    """`other` also describes `other/NAME`: a rule about unnamed licenses must not miss those with a name."""
    general, slash, _ = license_id.partition("/")
    return matches_any(patterns, license_id) or (bool(slash) and matches_any(patterns, general))


def _check_age(when: Conditions, facts: ImportFacts) -> Iterator[_Answer]:
    younger, older = when.commit_younger_than_days, when.commit_older_than_days
    if younger is not None:
        yield _check_commit(facts, lambda age: age < younger * _DAY)
    if older is not None:
        yield _check_commit(facts, lambda age: age >= older * _DAY)


def _check_commit(facts: ImportFacts, holds: Callable[[timedelta], bool]) -> _Answer:
    committed_at = facts.committed_at
    if isinstance(committed_at, Open):
        return _Answer(Truth.OPEN, fact="commit date")
    if committed_at is None or not holds(facts.now - committed_at):
        return _Answer(Truth.FALSE)
    return _Answer(Truth.TRUE, f"commit date {committed_at:%Y-%m-%d}")


def _check_formats(facts: ImportFacts, listed: Collection[str], *, is_negated: bool) -> _Answer:
    """Check whether the format of a file is one of those listed, or none of them if `is_negated`."""
    wanted = frozenset(listed)
    formats = facts.formats
    if is_negated:
        certain = [choice for choice in formats.values if not choice & wanted]
        is_closed = formats.is_complete and all(choice <= wanted for choice in formats.values)
    else:
        certain = [choice for choice in formats.values if choice <= wanted]
        is_closed = formats.is_complete and not any(choice & wanted for choice in formats.values)
    return _find(describe_formats(certain), "format", is_complete=is_closed)


def describe_formats(choices: Iterable[FormatChoice]) -> list[str]:
    """Return the distinct formats as texts. All that the name of a file may show is that it is not safetensors."""
    return sorted({_describe_choice(choice) for choice in choices})


def _describe_choice(choice: FormatChoice) -> str:
    if len(choice) == 1:
        return next(iter(choice))
    return "not known" if "safetensors" in choice else "not safetensors"


def _check_findings(when: Conditions, facts: ImportFacts) -> _Answer:
    """Check for one finding that has one of the kinds and one of the severities."""
    found = sorted(
        f"{kind} ({severity})"
        for kind, severity in facts.findings.values
        if (not when.finding or kind in when.finding)
        and (not when.finding_severity or severity in when.finding_severity)
    )
    return _find(found, "finding", is_complete=facts.findings.is_complete)


def _find(found: Collection[str], fact: str, *, is_complete: bool) -> _Answer:
    """Return the answer of a condition that holds if at least one value was found."""
    if found:
        return _Answer(Truth.TRUE, f"{fact} {', '.join(list(found)[:_MAX_SHOWN])}")
    return _Answer(Truth.FALSE) if is_complete else _Answer(Truth.OPEN, fact=fact)
