"""Apply the import policy: at submission and planning as far as the facts are known, and finally before publishing.

Each import gets one final decision, which its task records before anything is published. A change of the policy affects
only imports without a final decision. An import that the policy certainly denies ends as soon as this is known.
"""

import logging
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from modelhaul.domain.audit import AuditAction, AuditEntry
from modelhaul.domain.errors import PolicyDeniedError
from modelhaul.domain.models import Model, ResolvedModel, Source
from modelhaul.domain.policy_results import PolicyDecision, PolicyResult, PolicyWarning
from modelhaul.domain.tasks import Task
from modelhaul.policy.document import Effect
from modelhaul.policy.facts import ImportFacts, know_model
from modelhaul.policy.reader import PolicyReader
from modelhaul.ports.audit_log import AuditLog
from modelhaul.ports.clock import Clock

logger = logging.getLogger(__name__)

_AUDIT_NAMESPACE = uuid.UUID("b0a4d5b5-55f7-5c0e-8f0e-1f5f3c7a6a0d")
_MAX_LISTED = 10  # models in a message


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that is to be imported, and what is known about it. `model` is None if it is still in an archive that has
    not arrived.
    """

    model: ResolvedModel | None
    facts: ImportFacts

    def describe(self) -> str:
        return self.model.describe() if self.model is not None else "this archive"


def list_candidates(models: Iterable[Model], submitted_at: datetime) -> list[Candidate]:
    """Return the models with what is known of them before their files are listed."""
    return [Candidate(model.resolved, know_model(model.resolved, submitted_at)) for model in models]


@dataclass(frozen=True, slots=True)
class ImportPolicy:
    """Decides about imports, and records what the policy decided in the audit."""

    reader: PolicyReader
    audit: AuditLog
    clock: Clock

    def check(
        self,
        candidates: Sequence[Candidate],
        *,
        caller: str | None,
        task: Task | None = None,
        is_repeated: bool = False,
    ) -> list[PolicyResult]:
        """Return the present result for each model. They may be undecided.

        Raises PolicyDeniedError if the policy denies every model, whatever else becomes known about them, and
        PolicyUnavailableError. `task` is None at the submission. `is_repeated`: the caller repeats its requests by
        itself, and gets one entry a day in the audit.
        """
        policy = self.reader.read()
        results = [policy.evaluate(candidate.facts) for candidate in candidates]
        if not all(result.decision is PolicyDecision.DENY for result in results):
            return results
        for candidate, result in zip(candidates, results, strict=True):
            self._record_denial(candidate, result, caller=caller, task=task, is_repeated=is_repeated)
        names = [candidate.describe() for candidate in candidates]
        raise join_denials([describe_denial(name, result) for name, result in zip(names, results, strict=True)])

    def allows(self, model: Model) -> bool:
        """Return whether the policy allows the model now, whatever else becomes known.

        Raises PolicyUnavailableError.
        """
        facts = know_model(model.resolved, model.created_at)
        return self.reader.read().evaluate(facts).decision is PolicyDecision.ALLOW

    def ensure_readable(self) -> None:
        """Raise PolicyUnavailableError now, and not after requests to a source, if the policy cannot be read."""
        self.reader.read()

    def needs_commit_date(self) -> bool:
        """Return whether a rule has a condition on the date of the commit. Raises PolicyUnavailableError."""
        return self.reader.read().policy.needs_commit_date

    def decide(self, facts: Mapping[str, ImportFacts]) -> dict[str, PolicyResult]:
        """Return the final decision on each model by ID, with all facts that can be known.

        Raises PolicyUnavailableError. A decision that depends on facts that nobody knows is DENY.
        """
        policy = self.reader.read()
        warnings = frozenset(rule.id for rule in policy.policy.rules if rule.effect is Effect.WARN)
        return {model_id: _conclude(policy.evaluate(known), warnings) for model_id, known in facts.items()}

    def record_decisions(self, task: Task, models: Iterable[Model], results: Mapping[str, PolicyResult]) -> None:
        """Record the final decisions of a task in the audit: denials and warnings. Repeated calls change nothing."""
        for model in models:
            result = results.get(model.model_id)
            if result is None:
                continue
            candidate = Candidate(model.resolved, ImportFacts(now=task.created_at, source=model.resolved.source))
            if result.decision is not PolicyDecision.ALLOW:
                self._record_denial(candidate, result, caller=task.submitted_by, task=task)
            elif result.warnings:
                self._record_warnings(candidate.model, result, task)

    def _record_denial(
        self,
        candidate: Candidate,
        result: PolicyResult,
        *,
        caller: str | None,
        task: Task | None,
        is_repeated: bool = False,
    ) -> None:
        model, now = candidate.model, datetime.fromtimestamp(self.clock(), UTC)
        target = model.model_id if model is not None else ""
        if task is not None:
            entry_id = _name_entry("denied", task.id, target)
        elif is_repeated:
            entry_id = _name_entry("denied", caller or "", target, result.digest, f"{now:%Y-%m-%d}")
        else:
            entry_id = str(uuid.uuid4())
        self.audit.record(
            AuditEntry(
                id=entry_id,
                action=AuditAction.POLICY_DENIED,
                time=now,
                actor=caller,
                task_id=task.id if task is not None else None,
                reason=result.reason,
                detail=_describe_result(result),
                **_describe_target(model, candidate.facts.source),
            )
        )
        logger.info(
            "import denied by the policy",
            extra={
                "task_id": task.id if task is not None else None,
                "model_id": target or None,
                "model": model.name if model is not None else None,
                "rule": result.rule_id,
                "digest": result.digest,
            },
        )

    def _record_warnings(self, model: ResolvedModel | None, result: PolicyResult, task: Task) -> None:
        target = model.model_id if model is not None else ""
        self.audit.record(
            AuditEntry(
                id=_name_entry("warned", task.id, target),
                action=AuditAction.POLICY_WARNED,
                time=datetime.fromtimestamp(self.clock(), UTC),
                actor=task.submitted_by,
                task_id=task.id,
                reason=result.warnings[0].reason,
                detail=_describe_result(result),
                **_describe_target(model, task.source),
            )
        )


def describe_denial(name: str, result: PolicyResult) -> PolicyDeniedError:
    """Return the error for a model that the policy denies. `name` describes the model."""
    reason = result.reason or "No reason is given."
    cause = reason
    if result.rule_id is not None:
        matched = f" ({'; '.join(result.matched)})" if result.matched else ""
        cause = f"Rule {result.rule_id}{matched}: {reason}"
    return PolicyDeniedError(
        f"The import policy denies {name}. {cause}", rule_id=result.rule_id, reason=reason, matched=result.matched
    )


def join_denials(errors: Sequence[PolicyDeniedError]) -> PolicyDeniedError:
    """Return the only error, or one error with the texts of the first ones and the rule of the first one."""
    if len(errors) == 1:
        return errors[0]
    hidden = len(errors) - _MAX_LISTED
    more = f" {hidden} more {'model is' if hidden == 1 else 'models are'} denied." if hidden > 0 else ""
    detail = " ".join(error.detail for error in errors[:_MAX_LISTED]) + more
    first = errors[0]
    return PolicyDeniedError(detail, rule_id=first.rule_id, reason=first.reason, matched=first.matched)


def _conclude(result: PolicyResult, warnings: Collection[str]) -> PolicyResult:
    """Return the decision if no further facts become known: what depends on unknown facts is denied or warned of.

    `warnings`: IDs of the rules with the effect `warn`. Other open rules do not matter for a decision that is made.
    """
    if result.decision is PolicyDecision.UNDECIDED:
        waiting = [rule for rule in result.open_rules if rule.facts]
        facts = ", ".join(dict.fromkeys(fact for rule in waiting for fact in rule.facts))
        rule_id = waiting[0].rule_id if waiting else None
        reason = f"The policy cannot decide, because this is not known of the model: {facts}."
        result = replace(result, decision=PolicyDecision.DENY, rule_id=rule_id, reason=reason)
    elif result.decision is PolicyDecision.ALLOW:
        unknown = [
            PolicyWarning(rule.rule_id, f"This rule cannot be checked, because {', '.join(rule.facts)} is not known.")
            for rule in result.open_rules
            if rule.facts and rule.rule_id in warnings
        ]
        result = replace(result, warnings=(*result.warnings, *unknown))
    return result.shorten()


def _name_entry(*parts: str) -> str:
    """Return the same ID for the same parts, so that repeated steps leave one entry."""
    return str(uuid.uuid5(_AUDIT_NAMESPACE, "\n".join(parts)))


def _describe_target(model: ResolvedModel | None, source: Source) -> dict[str, Any]:
    if model is None:
        return {"source": source}
    commit = None if model.source is Source.LOCAL else model.commit
    return {"source": model.source, "model_id": model.model_id, "name": model.name, "commit": commit}


def _describe_result(result: PolicyResult) -> dict[str, str]:
    shown = {
        "rule": result.rule_id or "",
        "matched": "; ".join(result.matched),
        "warnings": ", ".join(warning.rule_id for warning in result.warnings),
        "digest": result.digest,
    }
    return {name: text for name, text in shown.items() if text}
