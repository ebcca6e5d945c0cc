"""The commands `policy show`, `policy test` and `policy check`."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from openapi.examples import EXAMPLES
from tests.command_line.conftest import CommandLine
from tests.fakes.api_server import ApiServer, Fault, create_json_response, create_problem_response

DOCUMENT = '{"version": 1, "rules": []}'
POLICY = EXAMPLES["GET /policy"].responses["200"]
TRIAL = EXAMPLES["POST /policy/tests"].responses["200"]
SUMMARY = EXAMPLES["POST /policy/checks"].responses["200"]


def answer(api: ApiServer, method: str, route: str, body: dict[str, Any]) -> None:
    api.faults = [Fault(method, route, response=create_json_response(200, body))]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.json"
    path.write_text(DOCUMENT)
    return path


def test_the_policy_is_shown(api: ApiServer, command_line: CommandLine) -> None:
    answer(api, "GET", "/policy", POLICY)
    outcome = command_line.run("policy", "show")
    assert (outcome.code, outcome.json) == (0, POLICY["document"])
    assert f"Location: {POLICY['location']}\nVersion: 3\nSHA-256: {POLICY['digest']}" in outcome.err


def test_a_stack_without_a_policy(api: ApiServer, command_line: CommandLine) -> None:
    answer(api, "GET", "/policy", dict.fromkeys(POLICY))
    assert command_line.run("policy", "show").out == "The stack has no policy. Every import is allowed.\n"
    answer(api, "GET", "/policy", dict.fromkeys(POLICY))
    assert command_line.run("policy", "show", "--json").json == dict.fromkeys(POLICY)


def test_a_denial_is_exit_code_1(api: ApiServer, command_line: CommandLine) -> None:
    answer(api, "POST", "/policy/tests", TRIAL)
    outcome = command_line.run("policy", "test", "bert-base-uncased@v1", "--weights", "pytorch", "--allow", "*.bin")
    assert outcome.code == 1
    assert api.requests[0].json == {
        "source": "HUGGINGFACE",
        "name": "bert-base-uncased",
        "revision": "v1",
        "weights": "pytorch",
        "allow_patterns": ["*.bin"],
    }
    assert outcome.out.splitlines()[:4] == [
        "google-bert/bert-base-uncased at commit 86b5e0934494",
        "The import would be denied by rule safetensors.",
        "Reason: No pickles.",
        "Matches: format not safetensors",
    ]
    assert "safetensors  deny    yes" in outcome.out


def test_other_decisions_are_successes(api: ApiServer, command_line: CommandLine, file: Path) -> None:
    warning = {"rule_id": "large", "reason": "Ask first.", "matched": ["size 10"]}
    rule = {**warning, "effect": "deny", "matches": None, "waits_for": ["license"], "matched": []}
    trial = {
        **TRIAL,
        "decision": "undecided",
        "rule_id": None,
        "reason": None,
        "matched": [],
        "warnings": [warning],
        "waits_for": ["license"],
        "rules": [rule],
    }
    answer(api, "POST", "/policy/tests", trial)
    outcome = command_line.run("policy", "test", "acme/models", "--source", "github", "--file", file)
    assert outcome.code == 0
    assert api.requests[0].json == {
        "source": "GITHUB",
        "name": "acme/models",
        "revision": "main",
        "document": DOCUMENT,
    }
    assert "The decision is open until the import knows more.\nWarning by rule large: Ask first.\n" in outcome.out
    assert "Not known yet: license\n" in outcome.out
    assert "depends on license" in outcome.out
    answer(api, "POST", "/policy/tests", {**trial, "decision": "allow", "commit": None, "rules": []})
    outcome = command_line.run("policy", "test", "team/model", "--source", "local", "--json")
    assert (outcome.code, outcome.json["decision"]) == (0, "allow")


def test_a_document_is_checked(
    api: ApiServer, command_line: CommandLine, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(api, "POST", "/policy/checks", SUMMARY)
    outcome = command_line.run("policy", "check", file)
    assert outcome.code == 0
    assert outcome.out.startswith("Valid: 2 rules for imports, 0 rules for retention, default allow. SHA-256: ")
    assert api.requests[0].json == {"document": DOCUMENT}
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"{}")))
    invalid = create_problem_response(422, "invalid-policy", "Invalid policy document", "version: Field required.")
    api.faults = [Fault("POST", "/policy/checks", response=invalid)]
    outcome = command_line.run("policy", "check", "-")
    assert outcome.code == 2
    assert "Error: Invalid policy document.\nversion: Field required.\nCorrect the document" in outcome.err
    assert api.requests[1].json == {"document": "{}"}


def test_unreadable_files_are_usage_errors(api: ApiServer, command_line: CommandLine, file: Path) -> None:
    missing = command_line.run("policy", "check", file.with_name("missing.json"))
    assert (missing.code, "No such file" in missing.err) == (2, True)
    file.write_bytes(b"\xff")
    assert "is not UTF-8 (byte 0)" in command_line.run("policy", "test", "a/b", "--file", file).err
    file.write_bytes(bytes(256 * 1024 + 1))
    assert "more than 262,144 bytes" in command_line.run("policy", "check", file).err
    assert api.requests == []


@pytest.mark.parametrize("arguments", [("show",), ("test", "a/b")])
def test_an_earlier_stack_is_a_usage_error(
    api: ApiServer, command_line: CommandLine, arguments: tuple[str, ...]
) -> None:
    missing = create_problem_response(404, "no-such-route", "Route not found")
    api.faults = [Fault("GET", "/policy", response=missing), Fault("POST", "/policy/tests", response=missing)]
    outcome = command_line.run("policy", *arguments)
    assert (outcome.code, "The stack knows no policies" in outcome.err) == (2, True)


def test_a_policy_that_cannot_be_read_is_unavailable(api: ApiServer, command_line: CommandLine) -> None:
    detail = "The policy at ssm:/p cannot be read."
    fault = create_problem_response(503, "policy-unavailable", "Policy cannot be read", detail)
    api.faults = [Fault("GET", "/policy", response=fault, times=100)]
    outcome = command_line.run("policy", "show", "--json")
    assert (outcome.code, json.loads(outcome.out)["error"]["detail"]) == (6, detail)
