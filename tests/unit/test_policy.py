"""The policy language: documents, and what they decide about models."""

import ast
import json
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from modelhaul.domain.digests import Algorithm, Digest
from modelhaul.domain.errors import InvalidPolicyError
from modelhaul.domain.files import FileKind, SourceFile
from modelhaul.domain.findings import FindingKind, Severity
from modelhaul.domain.gate import GateVerdict
from modelhaul.domain.model_cards import ModelCard
from modelhaul.domain.models import ResolvedModel, Source
from modelhaul.domain.policy_results import OpenRule, PolicyDecision, PolicyResult, PolicyWarning
from modelhaul.policy.document import MAX_DOCUMENT, Conditions, Policy, encode_document, parse_policy
from modelhaul.policy.evaluate import evaluate
from modelhaul.policy.facts import (
    FORMATS,
    OPEN,
    FormatChoice,
    ImportFacts,
    KnownValues,
    Open,
    find_formats,
    know_files,
    know_model,
    list_licenses,
    name_format,
)

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ALLOW, DENY, UNDECIDED = PolicyDecision.ALLOW, PolicyDecision.DENY, PolicyDecision.UNDECIDED


def know(*values: Any) -> KnownValues[Any]:
    return KnownValues(frozenset(values), is_complete=True)


def guess(*values: Any) -> KnownValues[Any]:
    """Values to which others may be added."""
    return KnownValues(frozenset(values))


def one(*formats: str) -> KnownValues[FormatChoice]:
    """Files whose formats are certain."""
    return know(*(frozenset({name}) for name in formats))


BERT = ImportFacts(
    now=NOW,
    source=Source.HUGGINGFACE,
    name="google-bert/bert-base-uncased",
    licenses=know("apache-2.0"),
    gated=False,
    committed_at=NOW - timedelta(days=700),
    size=440_000_000,
    formats=one("safetensors"),
    findings=know(),
    verdict=GateVerdict.CLEAN,
)
LLAMA = ImportFacts(
    now=NOW,
    source=Source.HUGGINGFACE,
    name="meta-llama/Llama-3.1-8B",
    licenses=know("llama3.1"),
    gated=True,
    committed_at=NOW - timedelta(days=3),
    size=32_000_000_000,
    formats=one("safetensors", "torch-zip"),
    findings=know((FindingKind.CHAT_TEMPLATE, Severity.LOW), (FindingKind.CODE, Severity.MEDIUM)),
    verdict=GateVerdict.UNSCANNED,
)
REPOSITORY = ImportFacts(
    now=NOW,
    source=Source.GITHUB,
    name="Acme/Models",
    licenses=know("gpl-3.0", "mit"),
    gated=False,
    committed_at=NOW - timedelta(days=30),
    size=5_000_000,
    formats=one("pickle"),
    findings=know((FindingKind.PICKLE_IMPORT, Severity.HIGH)),
    verdict=GateVerdict.UNSAFE,
)
ARCHIVE = ImportFacts(
    now=NOW,
    source=Source.LOCAL,
    name="team/classifier",
    licenses=know(),
    gated=False,
    committed_at=None,
    size=0,
    formats=one(),
    findings=know(),
    verdict=GateVerdict.CLEAN,
)
MODELS = {"bert": BERT, "llama": LLAMA, "repository": REPOSITORY, "archive": ARCHIVE}

CONDITIONS: list[tuple[dict[str, Any], set[str]]] = [
    ({}, {"bert", "llama", "repository", "archive"}),
    ({"source": ["HUGGINGFACE"]}, {"bert", "llama"}),
    ({"source": ["GITHUB", "LOCAL"]}, {"repository", "archive"}),
    ({"name": ["google-bert/*"]}, {"bert"}),
    ({"name": ["acme/MODELS"]}, {"repository"}),
    ({"name": ["bert-base-uncased"]}, set()),
    ({"name": ["*llama*", "team/*"]}, {"llama", "archive"}),
    ({"name_not": ["google-bert/*", "meta-llama/*"]}, {"repository", "archive"}),
    ({"license": ["apache-2.0"]}, {"bert"}),
    ({"license": ["*gpl*"]}, {"repository"}),
    ({"license": ["GPL-3.0"]}, {"repository"}),
    ({"license": ["unknown"]}, {"archive"}),
    ({"license_not": ["apache-2.0", "mit"]}, {"llama", "repository", "archive"}),
    ({"license_not": ["apache-2.0", "mit", "gpl-3.0", "unknown"]}, {"llama"}),
    ({"gated": True}, {"llama"}),
    ({"gated": False}, {"bert", "repository", "archive"}),
    ({"commit_younger_than_days": 7}, {"llama"}),
    ({"commit_younger_than_days": 30}, {"llama"}),
    ({"commit_older_than_days": 30}, {"bert", "repository"}),
    ({"commit_older_than_days": 365, "commit_younger_than_days": 1000}, {"bert"}),
    ({"size_above": 0}, {"bert", "llama", "repository"}),
    ({"size_above": 440_000_000}, {"llama"}),
    ({"format": ["safetensors"]}, {"bert", "llama"}),
    ({"format": ["pickle", "torch-zip"]}, {"llama", "repository"}),
    ({"format_not": ["safetensors"]}, {"llama", "repository"}),
    ({"format_not": ["safetensors", "torch-zip", "pickle"]}, set()),
    ({"finding": ["code"]}, {"llama"}),
    ({"finding_severity": ["high"]}, {"repository"}),
    ({"finding_severity": ["medium", "high"]}, {"llama", "repository"}),
    ({"finding": ["chat-template"], "finding_severity": ["medium"]}, set()),
    ({"verdict": ["unsafe", "unscanned"]}, {"llama", "repository"}),
    ({"source": ["HUGGINGFACE"], "gated": True, "size_above": 1_000_000_000}, {"llama"}),
    ({"source": ["HUGGINGFACE"], "name": ["acme/*"]}, set()),
]


def make_policy(*rules: Mapping[str, Any], default: str = "allow") -> Policy:
    """Each rule has an ID by its position, and a reason, unless it has others."""
    complete = [{"id": f"r{number}", "reason": f"Reason {number}.", **rule} for number, rule in enumerate(rules)]
    return parse_policy(json.dumps({"version": 1, "default": default, "rules": complete}).encode())


@pytest.mark.parametrize(("when", "matching"), CONDITIONS, ids=[json.dumps(when) for when, _ in CONDITIONS])
def test_conditions_hold_for_these_models(when: dict[str, Any], matching: set[str]) -> None:
    denies = make_policy({"effect": "deny", "when": when})
    allows = make_policy({"effect": "allow", "when": when}, default="deny")
    warns = make_policy({"effect": "warn", "when": when})
    assert {name for name, facts in MODELS.items() if evaluate(denies, facts).decision is DENY} == matching
    assert {name for name, facts in MODELS.items() if evaluate(allows, facts).decision is ALLOW} == matching
    assert {name for name, facts in MODELS.items() if evaluate(warns, facts).warnings} == matching
    nothing = ImportFacts(now=NOW, source=Source.HUGGINGFACE)
    assert all(evaluate(p, f).decision is not UNDECIDED for p in (denies, allows, warns) for f in MODELS.values())
    if set(when) - {"source"} and "HUGGINGFACE" in when.get("source", ["HUGGINGFACE"]):
        assert evaluate(denies, nothing).decision is UNDECIDED


def test_the_first_rule_that_allows_or_denies_decides() -> None:
    policy = make_policy(
        {"id": "large", "effect": "warn", "when": {"size_above": 1_000}},
        {"id": "trusted", "effect": "allow", "when": {"name": ["google-bert/*"]}},
        {"id": "no-apache", "effect": "deny", "when": {"license": ["apache-2.0"]}},
        {"id": "late", "effect": "warn"},
    )
    large = PolicyWarning("large", "Reason 0.", ("size 440,000,000",))
    expected = PolicyResult(ALLOW, "trusted", "Reason 1.", (f"name {BERT.name}",), (large,), digest="d")
    assert evaluate(policy, BERT, digest="d") == expected
    other = evaluate(policy, REPOSITORY)
    assert (other.decision, other.rule_id, [warning.rule_id for warning in other.warnings]) == (
        ALLOW,
        None,
        ["large", "late"],
    )
    assert other.reason == "No rule decides, and the policy's default is allow."


def test_a_denial_says_what_matched() -> None:
    when = {"license": ["gpl-*"], "format": ["pickle"], "finding_severity": ["high"], "commit_older_than_days": 1}
    result = evaluate(make_policy({"id": "no", "effect": "deny", "reason": "Never.", "when": when}), REPOSITORY)
    assert (result.decision, result.rule_id, result.reason) == (DENY, "no", "Never.")
    assert result.matched == (
        "license gpl-3.0",
        "commit date 2026-01-30",
        "format pickle",
        "finding pickle-import (high)",
    )


UNLISTED = ImportFacts(now=NOW, source=Source.HUGGINGFACE, name="a/b", licenses=guess("mit"))


def test_open_facts_leave_the_decision_open() -> None:
    policy = make_policy(
        {"id": "no-gpl", "effect": "deny", "when": {"license": ["gpl-3.0"]}},
        {"id": "large", "effect": "warn", "when": {"size_above": 1}},
        {"id": "name", "effect": "warn", "when": {"name": ["a/*"]}},
    )
    result = evaluate(policy, UNLISTED)
    assert (result.decision, result.rule_id, result.reason, result.warnings) == (UNDECIDED, None, None, ())
    assert result.open_rules == (OpenRule("no-gpl", ("license",)), OpenRule("large", ("size",)), OpenRule("name", ()))


def test_a_denial_does_not_wait_for_facts_that_cannot_prevent_it() -> None:
    policy = make_policy(
        {"id": "no-gpl", "effect": "deny", "when": {"license": ["gpl-3.0"]}},
        {"id": "owner", "effect": "deny", "when": {"name": ["a/*"]}},
    )
    result = evaluate(policy, UNLISTED)
    assert (result.decision, result.rule_id) == (DENY, "owner")
    exception = make_policy(
        {"effect": "allow", "when": {"license": ["gpl-3.0"]}}, {"effect": "deny", "when": {"name": ["a/*"]}}
    )
    assert evaluate(exception, UNLISTED).decision is UNDECIDED
    strict = make_policy({"effect": "deny", "when": {"size_above": 10}}, default="deny")
    assert (evaluate(strict, UNLISTED).decision, evaluate(strict, UNLISTED).rule_id) == (DENY, None)


def test_a_known_license_is_enough_to_deny_and_the_other_files_to_allow() -> None:
    deny = make_policy({"effect": "deny", "when": {"license": ["mit"]}})
    only = make_policy({"effect": "deny", "when": {"license_not": ["mit"]}})
    assert evaluate(deny, UNLISTED).decision is DENY
    assert evaluate(only, UNLISTED).decision is UNDECIDED, "a file may name another license"


SAFETENSORS_ONLY = make_policy({"id": "safetensors-only", "effect": "deny", "when": {"format_not": ["safetensors"]}})


def list_files(*paths: str) -> list[SourceFile]:
    return [SourceFile(path, 10, Digest(Algorithm.SHA256, "0" * 64)) for path in paths]


def test_names_of_files_deny_other_formats_before_the_transfer() -> None:
    model = ResolvedModel(Source.HUGGINGFACE, "a/b", "main", "c" * 40)
    facts = know_files(know_model(model, NOW), list_files("config.json", "model.safetensors", "pytorch_model.bin"))
    result = evaluate(SAFETENSORS_ONLY, facts)
    assert (facts.size, result.decision, result.matched) == (30, DENY, ("format not safetensors",))
    clean = know_files(know_model(model, NOW), list_files("config.json", "model.safetensors"))
    assert evaluate(SAFETENSORS_ONLY, clean).decision is UNDECIDED, "the inspection may find weights in other files"
    pickles = make_policy({"effect": "deny", "when": {"format": ["pickle"]}})
    assert evaluate(pickles, facts).decision is UNDECIDED, "a .bin may have many formats"


def test_symlinks_have_neither_size_nor_format() -> None:
    link = SourceFile("model.bin", 99, Digest(Algorithm.GIT_SHA1, "0" * 40), kind=FileKind.SYMLINK)
    facts = know_files(know_model(ResolvedModel(Source.GITHUB, "a/b", "main", "c"), NOW), [link])
    assert (facts.size, facts.formats) == (0, KnownValues())


def test_facts_of_a_resolved_model() -> None:
    card = ModelCard(licenses=("MIT", "other"), license_name="DeepSeek License v1")
    model = ResolvedModel(Source.HUGGINGFACE, "a/b", "main", "c" * 40, card=card, gated=True, committed_at=NOW)
    facts = know_model(model, NOW)
    assert (facts.name, facts.gated, facts.committed_at, facts.size) == ("a/b", True, NOW, OPEN)
    assert facts.licenses == guess("mit", "other/deepseek-license-v1")
    unknown = know_model(ResolvedModel(Source.HUGGINGFACE, "a/b", "main", "c" * 40), NOW)
    assert (unknown.gated, unknown.committed_at, unknown.licenses) == (OPEN, OPEN, guess())
    github = know_model(ResolvedModel(Source.GITHUB, "a/b", "main", "c" * 40), NOW)
    assert (github.gated, github.committed_at) == (False, OPEN)
    archive = know_model(ResolvedModel(Source.LOCAL, "a", "", ""), NOW)
    assert (archive.gated, archive.committed_at) == (False, None)


@pytest.mark.parametrize(
    ("patterns", "matches"),
    [(["other"], True), (["other/deepseek*"], True), (["deepseek*"], False), (["other/llama"], False), (["*"], True)],
)
def test_a_license_without_an_identifier_is_found_by_its_name(patterns: list[str], *, matches: bool) -> None:
    card = ModelCard(licenses=("other",), license_name="deepseek")
    facts = ImportFacts(now=NOW, source=Source.HUGGINGFACE, licenses=know(*list_licenses(card)))
    denies = make_policy({"effect": "deny", "when": {"license": patterns}})
    spares = make_policy({"effect": "deny", "when": {"license_not": patterns}})
    assert (evaluate(denies, facts).decision is DENY) is matches
    assert (evaluate(spares, facts).decision is DENY) is not matches


def list_named_formats() -> set[str]:
    """The formats that the code of the inspection passes to reports, or returns for ZIP archives."""
    found: set[object] = {"torch-legacy", "joblib", "pickle", "saved-model", "tensorflow-graph", "npy"}
    for path in (ROOT / "layers" / "core" / "modelhaul" / "inspection").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Name("ContentReport"), args=[ast.Constant(name), *_]):
                    found.add(name)
                case ast.FunctionDef("identify_zip"):
                    returned = [value for value in ast.walk(node) if isinstance(value, ast.Return) and value.value]
                    found |= {
                        name
                        for value in returned
                        for name in re.findall(r"'([a-z0-9-]+)'", ast.unparse(value).partition(" if ")[0])
                    }
    return {str(name) for name in found}


def test_the_formats_are_those_of_the_inspection() -> None:
    named = list_named_formats() | {"zip"}
    assert named == FORMATS
    assert name_format("pickle in gzip in xz") == "pickle"
    assert name_format("joblib's old compression") == "joblib"
    assert name_format("zstd") == "unknown"


INVALID = [
    (b"", "is not JSON"),
    (b"null", "document: Input should be an object"),
    (b"[]", "document: Input should be an object"),
    (b"\xff\xfe", "not UTF-8 (byte 0)"),
    (b"[" * 100_000, "nested too deeply"),
    (b'{"version": 1, "x": ' + b'{"a":' * 100 + b"1" + b"}" * 101, "x: unknown member"),
    (b'{"version": NaN}', "the number NaN"),
    (b'{"version": -Infinity}', "the number -Infinity"),
    (b'{"version": 1' + b"0" * 5_000 + b"}", "too many digits"),
    (b'{"version": 1e400}', "version: must be the number 1"),
    (b'{"version": true}', "version: must be the number 1"),
    (b'{"version": 2}', "version: Input should be 1"),
    (b"{}", "version: Field required"),
    (b'{"version": 1, "version": 1}', "two members 'version'"),
    (b'{"version": 1, "rules": [{"id": "a", "id": "b"}]}', "two members 'id'"),
    (b'{"version": 1, "rule": []}', "rule: unknown member"),
    (b'{"version": 1, "default": "warn"}', "default: Input should be 'allow' or 'deny'"),
    (b'{"version": 1, "rules": [{"id": "A", "effect": "deny", "reason": "x"}]}', "rules[0].id: "),
    (b'{"version": 1, "rules": [{"id": "a\\n", "effect": "deny", "reason": "x"}]}', "rules[0].id: "),
    (b'{"version": 1, "rules": [{"id": "a", "effect": "block", "reason": "x"}]}', "rules[0].effect: "),
    (b'{"version": 1, "rules": [{"id": "a", "effect": "deny", "reason": ""}]}', "rules[0].reason: "),
    (b'{"version": 1, "rules": [{"id": "a", "effect": "deny"}]}', "rules[0].reason: Field required"),
    (b'{"version": 1, "rules": "\\ud800"}', "Invalid JSON"),
    (b'{"version": 1, "\\ud800": 1}', "Invalid JSON"),
]
INVALID_CONDITIONS = [
    ({"licence": ["mit"]}, "licence: unknown member"),
    ({"license": None}, "license: "),
    ({"gated": None}, "gated: must not be null"),
    ({"size_above": None}, "size_above: must not be null"),
    ({"commit_older_than_days": None}, "commit_older_than_days: must not be null"),
    ({"license": "mit"}, "license: Input should be a valid array"),
    ({"license": []}, "license: List should have at least 1 item"),
    ({"license": ["mit"] * 101}, "license: List should have at most 100 items"),
    ({"license": ["other:x"]}, "license[0]: a pattern has"),
    ({"name": ["a b"]}, "name[0]: a pattern has"),
    ({"name": ["a" * 201]}, "name[0]: "),
    ({"gated": "true"}, "gated: Input should be a valid boolean"),
    ({"size_above": 1.5}, "size_above: Input should be a valid integer"),
    ({"size_above": -1}, "size_above: "),
    ({"size_above": 10**30}, "size_above: "),
    ({"commit_younger_than_days": 0}, "commit_younger_than_days: "),
    ({"format": ["safetensor"]}, "format[0]: unknown format; the formats are gguf, "),
    ({"finding": ["virus"]}, "finding[0]: "),
    ({"source": ["huggingface"]}, "source[0]: "),
    ({"verdict": ["bad"]}, "verdict[0]: "),
]


@pytest.mark.parametrize(("content", "problem"), INVALID, ids=[problem for _, problem in INVALID])
def test_invalid_documents_are_refused_with_the_place(content: bytes, problem: str) -> None:
    with pytest.raises(InvalidPolicyError) as caught:
        parse_policy(content)
    assert problem in caught.value.detail
    assert len(caught.value.detail) < 5_000


@pytest.mark.parametrize(("when", "problem"), INVALID_CONDITIONS, ids=[text for _, text in INVALID_CONDITIONS])
def test_invalid_conditions_are_refused_with_the_place(when: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidPolicyError) as caught:
        make_policy({"effect": "deny", "when": when})
    assert f"rules[0].when.{problem}" in caught.value.detail


def test_ids_are_unique_across_imports_and_retention() -> None:
    rule = {"id": "a", "effect": "deny", "reason": "x"}
    kept = {"id": "a", "reason": "x", "keep_newest": 3}
    for members in ({"rules": [rule, rule]}, {"rules": [rule], "retention": [kept]}):
        with pytest.raises(InvalidPolicyError, match="several rules have the id 'a'"):
            parse_policy(json.dumps({"version": 1, **members}).encode())
    policy = parse_policy(json.dumps({"version": 1, "rules": [rule], "retention": [{**kept, "id": "b"}]}).encode())
    assert (len(policy.rules), len(policy.retention)) == (1, 1)


def test_documents_have_a_size() -> None:
    fitting = b'{"version": 1}'.ljust(MAX_DOCUMENT)
    assert parse_policy(fitting).rules == []
    with pytest.raises(InvalidPolicyError, match="262,145 bytes"):
        parse_policy(fitting + b" ")
    rules = [{"id": f"r{number}", "effect": "warn", "reason": "x"} for number in range(201)]
    with pytest.raises(InvalidPolicyError, match="rules: List should have at most 200 items"):
        parse_policy(json.dumps({"version": 1, "rules": rules}).encode())


def test_text_with_lone_surrogates_is_no_document() -> None:
    with pytest.raises(InvalidPolicyError, match="character 2"):
        encode_document("{}\ud800")


def test_records_have_bounded_results() -> None:
    rules = [{"id": f"r{number}", "effect": "warn", "reason": "x" * 500} for number in range(199)]
    result = evaluate(make_policy(*rules, {"effect": "deny", "reason": "y" * 500, "when": {"size_above": 0}}), LLAMA)
    assert len(result.warnings) == 199
    short = result.shorten()
    assert (len(short.warnings), len(short.warnings[0].reason), len(short.reason or "")) == (20, 300, 300)
    assert (short.decision, short.rule_id) == (DENY, "r199")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner),
)


members = [*Conditions.model_fields, "x"]
almost_rules = st.fixed_dictionaries(
    {
        "id": st.just("a") | json_values,
        "effect": st.just("deny") | json_values,
        "reason": st.just("x") | json_values,
    },
    optional={
        "when": json_values | st.dictionaries(st.sampled_from(members), json_values),
    },
)
almost_documents = st.fixed_dictionaries(
    {"version": st.just(1) | json_values},
    optional={
        "default": json_values,
        "rules": json_values | st.lists(almost_rules | json_values),
        "retention": json_values | st.lists(json_values),
    },
)


@pytest.mark.slow
@given(st.binary() | (json_values | almost_documents).map(lambda value: json.dumps(value).encode()))
@example(b"[" * 200_000)
@example(b'{"a":' * 40_000)
@example(b'{"version":1,"rules":[' + b'{"\\u0000":{}},' * 18_000 + b"{}]}")
@example(b"1" * MAX_DOCUMENT)
@example(b'"' + b"\\ud800" * 40_000 + b'"')
@example(b"-" + b"0" * 1_000)
@settings(deadline=None, max_examples=200)
def test_no_document_raises_another_error(content: bytes) -> None:
    detail = ""
    try:
        parse_policy(content)
    except InvalidPolicyError as error:
        detail = error.detail
    assert detail.encode("ascii", "replace").decode().isprintable()
    assert len(detail.encode()) < 5_000


patterns = st.sampled_from(["a/*", "*", "*b*", "mit", "gpl-*", "unknown", "other", "a/b", "A/B", "apache-2.0"])
formats = st.sampled_from(["safetensors", "pickle", "gguf", "unknown"])
conditions = st.fixed_dictionaries(
    {},
    optional={
        "source": st.lists(st.sampled_from(sorted(Source)), min_size=1),
        "name": st.lists(patterns, min_size=1),
        "name_not": st.lists(patterns, min_size=1),
        "license": st.lists(patterns, min_size=1),
        "license_not": st.lists(patterns, min_size=1),
        "gated": st.booleans(),
        "commit_younger_than_days": st.integers(1, 40),
        "commit_older_than_days": st.integers(1, 40),
        "size_above": st.integers(0, 5),
        "format": st.lists(formats, min_size=1),
        "format_not": st.lists(formats, min_size=1),
        "finding": st.lists(st.sampled_from([FindingKind.CODE, FindingKind.PICKLE_IMPORT]), min_size=1),
        "finding_severity": st.lists(st.sampled_from(sorted(Severity)), min_size=1),
        "verdict": st.lists(st.sampled_from(sorted(GateVerdict)), min_size=1),
    },
)
rules = st.fixed_dictionaries({"effect": st.sampled_from(["allow", "deny", "warn"]), "when": conditions})
policies = st.builds(
    lambda rules, default: make_policy(*rules, default=default),
    st.lists(
        st.fixed_dictionaries({"effect": st.sampled_from(["allow", "deny", "warn"]), "when": conditions}), max_size=6
    ),
    st.sampled_from(["allow", "deny"]),
)
certain = formats.map(lambda name: frozenset({name}))
facts_known = st.builds(
    ImportFacts,
    now=st.just(NOW),
    source=st.sampled_from(sorted(Source)),
    name=st.sampled_from(["a/b", "c/d", "team"]),
    licenses=st.frozensets(st.sampled_from(["mit", "gpl-3.0", "other/x", "apache-2.0"])).map(lambda v: know(*v)),
    gated=st.booleans(),
    committed_at=st.none() | st.integers(-5, 50).map(lambda days: NOW - timedelta(days=days)),
    size=st.integers(0, 6),
    formats=st.frozensets(certain).map(lambda v: know(*v)),
    findings=st.frozensets(
        st.tuples(st.sampled_from([FindingKind.CODE, FindingKind.PICKLE_IMPORT]), st.sampled_from(sorted(Severity)))
    ).map(lambda v: know(*v)),
    verdict=st.sampled_from(sorted(GateVerdict)),
)


@st.composite
def forget(draw: st.DrawFn, known: ImportFacts) -> ImportFacts:
    """Draw facts of which `known` is a completion."""

    def keep[T](value: T) -> T | Open:
        return value if draw(st.booleans()) else OPEN

    def keep_values(values: KnownValues[Any]) -> KnownValues[Any]:
        if draw(st.booleans()):
            return values
        return guess(*(value for value in values.values if draw(st.booleans())))

    def widen(choice: FormatChoice) -> FormatChoice:
        return choice if draw(st.booleans()) else choice | find_formats("a.bin")

    formats_known = keep_values(known.formats)
    return ImportFacts(
        now=known.now,
        source=known.source,
        name=keep(known.name),
        licenses=keep_values(known.licenses),
        gated=keep(known.gated),
        committed_at=keep(known.committed_at),
        size=keep(known.size),
        formats=KnownValues(frozenset(map(widen, formats_known.values)), formats_known.is_complete),
        findings=keep_values(known.findings),
        verdict=keep(known.verdict),
    )


@pytest.mark.slow
@given(st.data(), policies, facts_known)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_decision_with_open_facts_is_that_of_every_completion(
    data: st.DataObject, policy: Policy, known: ImportFacts
) -> None:
    early, final = evaluate(policy, data.draw(forget(known))), evaluate(policy, known)
    assert final.decision is not UNDECIDED
    assert final.open_rules == ()
    if early.decision is not UNDECIDED:
        assert early.decision == final.decision
    warned = {warning.rule_id for warning in final.warnings}
    assert {warning.rule_id for warning in early.warnings} <= warned, "a warning is certain"
    if early.decision is UNDECIDED:
        assert warned <= {warning.rule_id for warning in early.warnings} | {rule.rule_id for rule in early.open_rules}


HARD = "*a" * 60 + "b"
HARD_NAMES = [{"name": [f"{HARD}{rule:03}{value:02}" for value in range(10)]} for rule in range(180)]
HARD_LICENSES = [{"license_not": [f"*a*a*a*{rule:03}{value:02}" for value in range(80)]} for rule in range(190)]


@pytest.mark.slow
@pytest.mark.parametrize("conditions", [HARD_NAMES, HARD_LICENSES], ids=["names", "licenses"])
def test_the_largest_documents_are_evaluated_quickly(conditions: list[dict[str, Any]]) -> None:
    """The processor time is compared with that of searching each pattern's text in the values, character by character:
    backtracking would take years.
    """
    document = [
        {"id": f"r{number}", "effect": "warn", "reason": "x", "when": when} for number, when in enumerate(conditions)
    ]
    content = json.dumps({"version": 1, "rules": document})
    assert MAX_DOCUMENT * 0.9 < len(content) <= MAX_DOCUMENT
    values = [f"{'a' * 90}{number}" for number in range(20)]  # the sources pass at most 20 licenses
    facts = ImportFacts(now=NOW, source=Source.HUGGINGFACE, name="a" * 200, licenses=know(*values))
    started = time.thread_time()
    assert evaluate(parse_policy(content.encode()), facts).decision is ALLOW
    evaluated = time.thread_time() - started
    started = time.thread_time()
    assert sum(character in value for character in content for value in values) > 0
    assert evaluated < 20 * (time.thread_time() - started)
