"""The command `usage`."""

from typing import Any

import pytest

from openapi.examples import EXAMPLES
from tests.command_line.conftest import CommandLine
from tests.fakes.api_server import ApiServer, Fault, create_json_response, create_problem_response


def serve(api: ApiServer, **changes: Any) -> dict[str, Any]:
    """Answer with the example of the documentation."""
    usage = {**EXAMPLES["GET /usage"].responses["200"], **changes}
    api.faults.append(Fault("GET", "/usage$", response=create_json_response(200, usage)))
    return usage


def test_usage_shows_sums_names_models_and_quota(api: ApiServer, command_line: CommandLine) -> None:
    usage = serve(api)
    outcome = command_line.run("usage", "--unread-days", "90")
    assert (outcome.code, outcome.err) == (0, "")
    assert api.requests[0].query == {"unread_days": "90"}
    lines = outcome.out.splitlines()
    assert lines[0] == "models    2 with 532.1 MB"
    assert lines[2].startswith(
        "quota     532.1 MB of 2.0 TB used, 440.4 MB reserved by imports in progress, 2.0 TB left"
    )
    assert "Names with most bytes (2 of 2):" in lines
    assert any(line.split()[:4] == ["1", "441.1", "MB", "0"] and "bert-base-uncased" in line for line in lines)
    assert "Not read for 30 days: 2 models with 532.1 MB" in lines
    largest = next(line for line in lines if usage["largest"][0]["model_id"][:8] in line)
    assert "never" in largest


def test_json_is_the_response(api: ApiServer, command_line: CommandLine) -> None:
    usage = serve(api)
    outcome = command_line.run("usage", "--json")
    assert outcome.json == usage
    assert api.requests[0].query == {"unread_days": "30"}


def test_incomplete_sums_are_lower_bounds(api: ApiServer, command_line: CommandLine) -> None:
    serve(api, is_complete=False)
    outcome = command_line.run("usage")
    assert outcome.out.startswith("models    at least 2 with 532.1 MB\n")
    assert "at most 2.0 TB left" in outcome.out
    assert "too many models" in outcome.err


def test_a_stack_without_models_and_quota(api: ApiServer, command_line: CommandLine) -> None:
    empty = {"models": 0, "size": 0, "bytes_reused": 0}
    sources = [{"source": source, **empty} for source in ("HUGGINGFACE", "GITHUB", "LOCAL")]
    unread = {"days": 30, "largest": [], **empty}
    serve(api, **empty, by_source=sources, names=0, by_name=[], largest=[], unread=unread, quota=None)
    outcome = command_line.run("usage")
    assert outcome.code == 0
    assert "quota     none" in outcome.out
    assert "Largest" not in outcome.out
    assert "Not read for 30 days: 0 models with 0 bytes" in outcome.out


@pytest.mark.parametrize("days", ["0", "3651", "x"])
def test_invalid_days_are_rejected(api: ApiServer, command_line: CommandLine, days: str) -> None:
    assert command_line.run("usage", "--unread-days", days).code == 2
    assert not api.requests


def test_an_older_stack_is_named_as_the_cause(api: ApiServer, command_line: CommandLine) -> None:
    missing = create_problem_response(404, "no-such-route", "Route not found")
    api.faults.append(Fault("GET", "/usage$", response=missing))
    outcome = command_line.run("usage")
    assert outcome.code == 2
    assert "earlier version" in outcome.err


def test_a_refused_import_says_what_to_do(api: ApiServer, command_line: CommandLine) -> None:
    detail = "Models have 2,000 bytes, which use up the storage quota of 2,000 bytes (parameter StorageQuotaGB)."
    refusal = create_problem_response(403, "storage-quota-exceeded", "Storage quota exceeded", detail)
    api.submit_responses.append(refusal)
    outcome = command_line.run("hf", "org/model")
    assert outcome.code != 0
    assert detail in outcome.err
    assert "modelhaul usage" in outcome.err
    assert len(api.requests) == 1, "a refusal is not retried"
