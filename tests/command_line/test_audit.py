"""The command `audit`."""

from datetime import UTC, datetime
from typing import Any

import pytest

from modelhaul_cli.commands.audit import describe_target, read_time
from modelhaul_cli.errors import UsageError
from tests.command_line.conftest import CommandLine
from tests.fakes.api_server import ApiServer, Fault, create_json_response, create_problem_response

NOW = datetime(2026, 11, 28, 12, 30, tzinfo=UTC)
MODEL_ID = "4c0b8898-79a6-5a62-bdf8-bcee2b4f446e"
TASK_ID = "5f0c3b53-7f5b-4a0e-9d2a-0d8b1e6f4c11"
ENTRIES: list[dict[str, Any]] = [
    {
        "id": "1",
        "time": "2026-11-28T12:00:00Z",
        "action": "ModelDeleted",
        "actor": "arn:aws:sts::123456789012:assumed-role/Deployer/alice",
        "model_id": MODEL_ID,
        "name": "google-bert/bert-base-uncased",
        "commit": "86b5e0934494bd15c9632b12f734a8a67f723594",
    },
    {"id": "2", "time": "2026-11-28T11:00:00Z", "action": "UploadUrlsRenewed", "detail": {"archive": "models.zip"}},
]


def answer(api: ApiServer, *pages: dict[str, Any]) -> None:
    api.faults = [Fault("GET", "/audit", response=create_json_response(200, page)) for page in pages]


def show(entries: list[dict[str, Any]], *, cursor: str | None = None, days: int = 30) -> dict[str, Any]:
    return {"entries": entries, "cursor": cursor, "retention_days": days}


def test_entries_are_a_table(api: ApiServer, command_line: CommandLine) -> None:
    answer(api, show(ENTRIES))
    outcome = command_line.run("audit")
    assert outcome.code == 0
    head, deleted, renewed = outcome.out.splitlines()
    assert head.split() == ["TIME", "ACTION", "ACTOR", "TARGET"]
    assert deleted.endswith("assumed-role/Deployer/alice  google-bert/bert-base-uncased at 86b5e09")
    assert renewed.split()[1:] == ["UploadUrlsRenewed", "-", "models.zip"]


def test_filters_are_sent(api: ApiServer, command_line: CommandLine) -> None:
    answer(api, show(ENTRIES[:1], cursor="next"))
    options = ["--action", "ModelDeleted", "--actor", "api-key:a", "--model", MODEL_ID, "--task", TASK_ID]
    outcome = command_line.run("audit", *options, "--since", "2026-11-01", "--limit", "1", "--json")
    assert outcome.json == {"entries": ENTRIES[:1], "more": True}
    (request,) = api.requests
    for part in (
        "action=ModelDeleted",
        "actor=api-key%3Aa",
        MODEL_ID,
        TASK_ID,
        "since=2026-11-01T00%3A00%3A00%2B00%3A00",
    ):
        assert part in request.target


def test_a_stack_that_records_nothing_says_so(api: ApiServer, command_line: CommandLine) -> None:
    answer(api, show([], days=0), show([], days=0))
    outcome = command_line.run("audit")
    assert outcome.code == 0
    assert "Ask an operator to deploy it with AuditRetentionDays above 0." in outcome.err
    answer(api, show([]), show([]))
    assert "AuditRetentionDays" not in command_line.run("audit").err


def test_a_stack_of_an_earlier_version_has_no_audit(api: ApiServer, command_line: CommandLine) -> None:
    response = create_problem_response(404, "no-such-route", "Route not found", "Route not found.")
    api.faults = [Fault("GET", "/audit", response=response)]
    outcome = command_line.run("audit")
    assert outcome.code == 2
    assert "The stack has no audit" in outcome.err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90m", "2026-11-28T11:00:00+00:00"),
        ("12h", "2026-11-28T00:30:00+00:00"),
        ("7d", "2026-11-21T12:30:00+00:00"),
        ("2026-11-01", "2026-11-01T00:00:00+00:00"),
        ("2026-11-01T08:00:00+02:00", "2026-11-01T08:00:00+02:00"),
    ],
)
def test_times(text: str, expected: str) -> None:
    assert read_time(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "7", "d", "-1d", "999999d", "yesterday", "2026-13-01"])
def test_other_times_are_rejected(text: str) -> None:
    with pytest.raises(UsageError, match="Invalid time"):
        read_time(text, NOW)


def test_an_age_before_the_calendar_is_rejected() -> None:
    with pytest.raises(UsageError, match="Invalid time"):
        read_time("99999999d", NOW)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"name": "ci", "key_id": "k"}, "ci"),
        ({"key_id": "k"}, "key k"),
        ({"task_id": "t", "model_id": "m", "commit": "c" * 40}, "task t"),
        ({"detail": {"location": "s3://b/p.json"}}, "s3://b/p.json"),
        ({}, "-"),
    ],
)
def test_targets(entry: dict[str, Any], expected: str) -> None:
    assert describe_target(entry) == expected
