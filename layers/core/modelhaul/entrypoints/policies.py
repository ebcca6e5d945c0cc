"""Request bodies and responses of the routes of the policy."""

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from modelhaul.catalog.presentation import format_time
from modelhaul.entrypoints.submissions import HubImport
from modelhaul.policy.document import MAX_DOCUMENT, Policy, encode_document, parse_policy
from modelhaul.policy.evaluate import RuleOutcome, Truth, describe_formats
from modelhaul.policy.facts import ImportFacts, Open
from modelhaul.policy.reader import ReadPolicy
from modelhaul.policy.trial import PolicyTrial

_EXAMPLE = '{"version": 1, "rules": []}'
_MATCHES = {Truth.TRUE: True, Truth.OPEN: None}


class PolicyTest(HubImport):
    source: Literal["HUGGINGFACE", "GITHUB", "LOCAL"] = "HUGGINGFACE"
    name: str = Field(
        min_length=1,
        max_length=1000,
        description="The model's name: `owner/name` on the Hub, `owner/repository` on GitHub, or the name that a model "
        "from an archive would have.",
        examples=["google-bert/bert-base-uncased"],
    )
    revision: str = Field(default="main", min_length=1, max_length=1000)
    document: Annotated[str, Field(max_length=MAX_DOCUMENT)] | SkipJsonSchema[None] = Field(
        default=None,
        description="The text of a document, to test it instead of the policy of the stack.",
        examples=[_EXAMPLE],
    )

    @property
    def content(self) -> bytes | None:
        """Return the bytes of the document, None if the policy of the stack is tested. Raises InvalidPolicyError."""
        return None if self.document is None else encode_document(self.document)


class PolicyCheck(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    document: str = Field(max_length=MAX_DOCUMENT, description="The text of the document.", examples=[_EXAMPLE])


def present_policy(read: ReadPolicy | None) -> dict[str, Any]:
    """Return the document and where it is. Every member is None if the stack has no policy."""
    if read is None:
        return {"location": None, "version": None, "digest": None, "document": None}
    return {**_present_place(read), "document": json.loads(read.content)}


def check_document(text: str) -> dict[str, Any]:
    """Return the summary of a document. Raises InvalidPolicyError."""
    content = encode_document(text)
    return present_check(parse_policy(content), hashlib.sha256(content).hexdigest())


def present_check(policy: Policy, digest: str) -> dict[str, Any]:
    """Return the summary of a valid document."""
    return {
        "digest": digest,
        "default": policy.default,
        "rules": len(policy.rules),
        "retention_rules": len(policy.retention),
    }


def present_trial(trial: PolicyTrial) -> dict[str, Any]:
    """Return the decision, and what is known and not known about it."""
    result, model = trial.result, trial.model
    place = {"location": None, "version": None, "digest": result.digest or None}
    return {
        "source": trial.facts.source,
        "name": trial.facts.name,
        "revision": model.revision if model else None,
        "commit": model.commit if model else None,
        "model_id": model.model_id if model else None,
        "decision": result.decision,
        "rule_id": result.rule_id,
        "reason": result.reason,
        "matched": list(result.matched),
        "warnings": [
            {"rule_id": warning.rule_id, "reason": warning.reason, "matched": list(warning.matched)}
            for warning in result.warnings
        ],
        "waits_for": sorted({fact for rule in result.open_rules for fact in rule.facts}),
        "rules": [_present_rule(outcome) for outcome in trial.rules],
        "facts": _present_facts(trial.facts),
        "policy": place if trial.read is None else _present_place(trial.read),
    }


def _present_place(read: ReadPolicy) -> dict[str, Any]:
    return {"location": read.location, "version": read.version, "digest": read.digest}


def _present_rule(outcome: RuleOutcome) -> dict[str, Any]:
    return {
        "rule_id": outcome.rule.id,
        "effect": outcome.rule.effect,
        "reason": outcome.rule.reason,
        "matches": _MATCHES[outcome.truth],
        "matched": list(outcome.matched),
        "waits_for": list(outcome.open_facts),
    }


def _present_facts(facts: ImportFacts) -> dict[str, Any]:
    """Return what is known. A value that is not known yet, or that the model does not have, is None."""
    committed_at = facts.committed_at
    return {
        "licenses": sorted(facts.licenses.values),
        "gated": None if isinstance(facts.gated, Open) else facts.gated,
        "committed_at": None if isinstance(committed_at, Open) or committed_at is None else format_time(committed_at),
        "size": None if isinstance(facts.size, Open) else facts.size,
        "formats": describe_formats(facts.formats.values),
    }
