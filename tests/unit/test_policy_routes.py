"""The routes of the policy, over an in-memory source and an in-memory store."""

import hashlib
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from modelhaul import wiring
from modelhaul.domain.errors import AccessRequiredError, ListingTooLongError, ModelhaulError, SourceUnavailableError
from modelhaul.domain.model_cards import ModelCard
from modelhaul.policy.reader import PolicyReader
from modelhaul.policy.trial import PolicyTester
from tests.fakes.model_source import InMemoryModelSource
from tests.fakes.policy_store import InMemoryPolicyStore
from tests.lambda_functions import Response, call_api, read_event
from tests.unit.test_api import check_problem

NAME = "acme/bert"
FILES = {"config.json": b"{}", "model.safetensors": b"s" * 100, "pytorch_model.bin": b"p" * 50}
NOW = 1_750_000_000.0
POLICY = {
    "version": 1,
    "rules": [
        {"id": "no-gpl", "effect": "deny", "reason": "Viral.", "when": {"license": ["*gpl*"]}},
        {"id": "large", "effect": "warn", "reason": "Large.", "when": {"size_above": 120}},
        {"id": "safe", "effect": "deny", "reason": "No pickles.", "when": {"format_not": ["safetensors"]}},
    ],
    "retention": [{"id": "old", "reason": "Space.", "keep_newest": 2}],
}


@pytest.fixture
def source() -> InMemoryModelSource:
    return InMemoryModelSource({NAME: {"main": FILES}}, cards={NAME: ModelCard(licenses=("mit",))})


@pytest.fixture
def timer() -> list[float]:
    return [0.0]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, source: InMemoryModelSource, timer: list[float]) -> InMemoryPolicyStore:
    store = InMemoryPolicyStore(json.dumps(POLICY).encode())
    reader = PolicyReader(store)
    tester = PolicyTester(reader, lambda _source: source, lambda: NOW, lambda: timer[0])
    monkeypatch.setattr(wiring, "create_policy_reader", lambda: reader)
    monkeypatch.setattr(wiring, "create_policy_tester", lambda: tester)
    return store


@pytest.fixture
def without_policy(monkeypatch: pytest.MonkeyPatch, source: InMemoryModelSource) -> None:
    monkeypatch.setattr(wiring, "create_policy_reader", lambda: None)
    monkeypatch.setattr(wiring, "create_policy_tester", lambda: PolicyTester(None, lambda _: source, lambda: NOW))


def get_policy() -> Response:
    return call_api("check_policy", read_event("get_policy"))


def try_policy(**body: Any) -> Response:
    return call_api("check_policy", read_event("test_policy"), body={"name": NAME, **body})


def check(document: Any) -> Response:
    return call_api("check_policy", read_event("check_policy"), body={"document": document})


def test_the_policy_is_shown_as_it_is_now(store: InMemoryPolicyStore) -> None:
    first = get_policy()
    content = store.content or b""
    assert first.status == 200
    assert first.body["document"] == POLICY
    assert first.body["digest"] == hashlib.sha256(content).hexdigest()
    assert first.body["location"] == "s3://bucket/policy.json"
    store.content = b'{"version": 1}'
    assert get_policy().body["document"] == {"version": 1}


@pytest.mark.usefixtures("without_policy")
def test_a_stack_without_a_policy_allows_everything() -> None:
    assert get_policy().body == {"location": None, "version": None, "digest": None, "document": None}
    tested = try_policy().body
    assert (tested["decision"], tested["rule_id"], tested["reason"]) == ("allow", None, "The stack has no policy.")
    assert tested["policy"] == {"location": None, "version": None, "digest": None}
    assert try_policy(document=json.dumps(POLICY)).body["decision"] == "deny"


def test_a_policy_that_cannot_be_used_is_unavailable(store: InMemoryPolicyStore) -> None:
    for content in (None, b'{"version": 3}'):
        store.content = content
        for response in (get_policy(), try_policy()):
            check_problem(response, 503, "policy-unavailable")
            assert store.location in response.body["detail"]
    assert try_policy(document='{"version": 1}').body["decision"] == "allow", "another document can be tested"


def test_a_test_shows_the_decision_and_what_it_depends_on(
    store: InMemoryPolicyStore, source: InMemoryModelSource
) -> None:
    tested = try_policy().body
    assert (tested["decision"], tested["rule_id"], tested["reason"]) == ("deny", "safe", "No pickles.")
    assert tested["matched"] == ["format not safetensors"]
    assert tested["commit"] == source.resolve(NAME, "main").commit
    assert tested["model_id"] == source.resolve(NAME, "main").model_id
    assert tested["waits_for"] == ["license"]
    assert [(rule["rule_id"], rule["matches"]) for rule in tested["rules"]] == [
        ("no-gpl", None),
        ("large", True),
        ("safe", True),
    ]
    assert tested["warnings"] == [], "no-gpl may decide before"
    assert tested["facts"] == {
        "licenses": ["mit"],
        "gated": False,
        "committed_at": None,
        "size": 152,
        "formats": ["not safetensors", "safetensors"],
    }
    assert tested["policy"]["digest"] == hashlib.sha256(store.content or b"").hexdigest()


@pytest.mark.usefixtures("store")
def test_a_test_can_have_a_selection_and_another_document(source: InMemoryModelSource) -> None:
    selected = try_policy(weights="safetensors").body
    assert (selected["decision"], selected["rule_id"]) == ("undecided", None)
    assert selected["facts"]["size"] == 102
    assert selected["waits_for"] == ["format", "license"]
    warned = json.dumps({"version": 1, "rules": [{**POLICY["rules"][1], "when": {"size_above": 0}}]})  # type: ignore[index]
    tested = try_policy(document=warned).body
    assert tested["decision"] == "allow"
    assert tested["warnings"] == [{"rule_id": "large", "reason": "Large.", "matched": ["size 152"]}]
    assert tested["policy"]["location"] is None
    check_problem(try_policy(document="{"), 422, "invalid-policy")
    assert source.bytes_read.total() == 0


@pytest.mark.usefixtures("store")
def test_an_archive_is_tested_by_its_name() -> None:
    document = json.dumps(
        {"version": 1, "rules": [{"id": "a", "effect": "deny", "reason": "x", "when": {"name": ["acme/*"]}}]}
    )
    tested = try_policy(source="LOCAL", document=document).body
    assert (tested["decision"], tested["rule_id"], tested["commit"], tested["model_id"]) == ("deny", "a", None, None)
    assert try_policy(source="LOCAL").body["decision"] == "undecided"


def test_a_listing_that_takes_too_long_leaves_its_facts_open(
    store: InMemoryPolicyStore, source: InMemoryModelSource, timer: list[float]
) -> None:
    store.content = json.dumps(POLICY).encode()

    listed = source.list_files

    def slow(model: Any) -> Any:
        for file in listed(model):
            timer[0] += 10
            yield file

    source.list_files = slow  # type: ignore[method-assign]
    tested = try_policy().body
    assert (tested["decision"], tested["facts"]["size"]) == ("undecided", None)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (AccessRequiredError("no"), 403),
        (SourceUnavailableError("no"), 503),
        (ListingTooLongError("no"), 422),
    ],
)
@pytest.mark.usefixtures("store")
def test_errors_of_the_source_are_problems(source: InMemoryModelSource, error: ModelhaulError, status: int) -> None:
    def fail() -> None:
        raise error

    source.on_list = fail
    check_problem(try_policy(), status, error.type)
    source.on_list = lambda: None
    check_problem(try_policy(name="acme/none"), 404, "model-not-found")
    check_problem(try_policy(allow_patterns=["*.gguf"]), 422, "empty-model")


def test_a_document_is_checked() -> None:
    text = json.dumps(POLICY)
    expected = {
        "digest": hashlib.sha256(text.encode()).hexdigest(),
        "default": "allow",
        "rules": 3,
        "retention_rules": 1,
    }
    assert check(text).body == expected
    refused = check('{"version": 1, "rules": [{"id": "a"}]}')
    check_problem(refused, 422, "invalid-policy")
    assert "rules[0].effect: Field required" in refused.body["detail"]
    check_problem(check({"version": 1}), 422, "invalid-fields")
    check_problem(check("\ud800"), 422, "invalid-fields")


texts = st.text(st.characters())
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
)
bodies = st.fixed_dictionaries(
    {}, optional={name: values | values.map(json.dumps) for name in ("document", "name", "source", "revision")}
)


@pytest.mark.slow
@given(route=st.sampled_from(["check_policy", "test_policy"]), raw=texts | (values | bodies).map(json.dumps))
@example("check_policy", "[" * 100_000)
@example("check_policy", '{"document": "' + "[" * 200_000 + '"}')
@example("check_policy", json.dumps({"document": '{"version": 1, "version": 1}'}))
@example("check_policy", json.dumps({"document": '{"version": ' + "9" * 5_000 + "}"}))
@example("test_policy", json.dumps({"name": NAME, "document": "\ud800"}))
@example("test_policy", '{"name": NaN, "document": Infinity}')
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
@pytest.mark.usefixtures("store")
def test_no_body_is_an_internal_error(route: str, raw: str) -> None:
    response = call_api("check_policy", read_event(route), raw=raw)
    assert response.status < 500
