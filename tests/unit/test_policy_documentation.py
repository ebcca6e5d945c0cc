"""docs/policy.md and docs/policy.schema.json: what they say is what the code does."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from modelhaul.domain.models import ResolvedModel, Source
from modelhaul.domain.policy_results import PolicyDecision
from modelhaul.policy.document import Conditions, Policy, Rule, parse_policy
from modelhaul.policy.evaluate import evaluate
from modelhaul.policy.facts import FORMATS, know_model
from openapi.policy_schema import SCHEMA, render_schema
from tests.unit.test_policy import CONDITIONS, INVALID_CONDITIONS, MODELS

PAGE = (Path(__file__).parents[2] / "docs" / "policy.md").read_text()
ROWS = dict(re.findall(r"^\| ([^|]+) \| `(\{.+\})` \|$", PAGE, re.MULTILINE))
DENIED = {
    "Only reviewed owners": {"llama", "repository", "archive"},
    "No strong copyleft, and no model without a license": {"repository", "archive"},
    "Only these licenses": {"llama", "repository", "archive"},
    "Only safetensors, except from one team": {"llama", "repository"},
    "Nothing that the inspection does not know": {"llama", "repository"},
    "A week for others to find problems": {"llama"},
    "A warning for large models": set(),
    "No gated models, because their terms need a signature": {"llama"},
}
VALIDATOR = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))


@pytest.mark.parametrize(("intention", "denied"), DENIED.items(), ids=DENIED)
def test_examples_do_what_they_intend(intention: str, denied: set[str]) -> None:
    document = {"version": 1, **json.loads(ROWS[intention])}
    VALIDATOR.validate(document)
    policy = parse_policy(json.dumps(document).encode())
    results = {name: evaluate(policy, facts) for name, facts in MODELS.items()}
    assert {name for name, result in results.items() if result.decision is PolicyDecision.DENY} == denied


@pytest.mark.parametrize("source", [Source.GITHUB, Source.LOCAL])
def test_a_reviewed_owner_is_not_one_of_another_source(source: Source) -> None:
    """Anyone can upload an archive with the name of a reviewed owner."""
    policy = parse_policy(json.dumps({"version": 1, **json.loads(ROWS["Only reviewed owners"])}).encode())
    facts = know_model(ResolvedModel(source, "google-bert/model", "main", "c" * 40), datetime.now(UTC))
    assert evaluate(policy, facts).decision is PolicyDecision.DENY


def test_every_example_is_tested() -> None:
    assert ROWS.keys() == DENIED.keys()
    (block,) = re.findall(r"```json\n(.+?)```", PAGE, re.DOTALL)
    VALIDATOR.validate(json.loads(block))
    assert len(parse_policy(block.encode()).rules) == 3


def test_every_member_is_described() -> None:
    tables = PAGE.partition("| Card of the model |")[0]
    named = set(re.findall(r"^\| `([$\w]+)` \|", tables, re.MULTILINE))
    members = {
        field.alias or name for model in (Policy, Rule, Conditions) for name, field in model.model_fields.items()
    }
    assert named == members
    formats = re.search(r"\*\*Formats\*\*.+?\n- ", PAGE, re.DOTALL)
    assert formats
    assert set(re.findall(r"`([a-z0-9-]+)`", formats[0])) == FORMATS


def test_the_schema_is_that_of_the_code() -> None:
    assert SCHEMA.read_text() == render_schema(), "run python -m bench.pages policy-schema"
    jsonschema.Draft202012Validator.check_schema(VALIDATOR.schema)


def make_document(when: dict[str, Any]) -> dict[str, Any]:
    return {
        "$schema": "policy.schema.json",
        "version": 1,
        "rules": [{"id": "a", "effect": "deny", "reason": "x", "when": when}],
    }


@pytest.mark.parametrize("when", [when for when, _ in CONDITIONS], ids=json.dumps)
def test_the_schema_accepts_what_the_code_accepts(when: dict[str, Any]) -> None:
    VALIDATOR.validate(make_document(when))
    parse_policy(json.dumps(make_document(when)).encode())


@pytest.mark.parametrize("when", [when for when, _ in INVALID_CONDITIONS], ids=[text for _, text in INVALID_CONDITIONS])
def test_the_schema_refuses_what_the_code_refuses(when: dict[str, Any]) -> None:
    assert not VALIDATOR.is_valid(make_document(when))
