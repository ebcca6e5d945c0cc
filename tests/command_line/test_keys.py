"""The commands `keys create`, `keys ls`, `keys rm` and `env`."""

import io
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from modelhaul_cli.commands.keys import read_expiry
from modelhaul_cli.configuration import find_configuration
from modelhaul_cli.errors import UsageError
from tests.command_line.conftest import CommandLine
from tests.fakes.api_server import KEY, READ_KEY, ApiServer, Fault, create_problem_response

NOW = datetime(2026, 11, 28, 12, 30, tzinfo=UTC)


def test_key_is_the_only_output(api: ApiServer, command_line: CommandLine) -> None:
    outcome = command_line.run("keys", "create", "laptop")
    assert (outcome.code, outcome.out) == (0, f"{READ_KEY}\n")
    assert READ_KEY not in outcome.err
    assert (
        "Created the key laptop with the ID 0000000000000001.\nModels: all. Scopes: read. Expires: never."
        in outcome.err
    )
    assert api.requests[0].json == {"name": "laptop", "scopes": ["read"]}


def test_key_has_scopes_and_an_expiry(api: ApiServer, command_line: CommandLine) -> None:
    options = ["--scope", "read", "--scope", "import", "--expires", "2027-01-01", "--json"]
    outcome = command_line.run("keys", "create", "ci", *options)
    body = {"name": "ci", "scopes": ["read", "import"], "expires_at": "2027-01-01T00:00:00+00:00"}
    assert api.requests[0].json == body
    assert {name: outcome.json[name] for name in (*body, "key")} == {**body, "key": READ_KEY}


def test_key_is_limited_to_names(api: ApiServer, command_line: CommandLine) -> None:
    outcome = command_line.run("keys", "create", "ci", "--names", "google-bert/*", "--names", "gpt2")
    assert (outcome.code, outcome.out) == (0, f"{READ_KEY}\n")
    assert "Models: google-bert/* gpt2. Scopes: read." in outcome.err
    assert "The pattern gpt2 matches only a model with exactly this name." in outcome.err
    assert "The pattern google-bert" not in outcome.err
    assert api.requests[0].json == {"name": "ci", "scopes": ["read"], "names": ["google-bert/*", "gpt2"]}
    command_line.run("keys", "create", "all", "--names", "*")
    head, everything, limited = command_line.run("keys", "ls").out.splitlines()
    assert head.split()[-3:] == ["SCOPES", "MODELS", "NAME"]
    assert everything.split()[-2:] == ["all", "all"]
    assert limited.split()[-3:] == ["google-bert/*", "gpt2", "ci"]
    command_line.run("keys", "create", "many", "--names", "a/*", "--names", "b/*", "--names", "c/*", "--names", "d/*")
    assert command_line.run("keys", "ls").out.splitlines()[1].split()[-4:] == ["a/*", "b/*", "+2", "many"]
    fields = [{"field": "names.1", "message": "must have 1 to 200 letters"}]
    invalid = create_problem_response(422, "invalid-fields", "Invalid fields", "names: must …", fields=fields)
    api.faults = [Fault("POST", "/keys", response=invalid)]
    outcome = command_line.run("keys", "create", "ci", "--names", "a", "--names", "a b")
    assert outcome.code == 2
    assert "--names: must have 1 to 200 letters" in outcome.err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30d", "2026-12-28T12:30:00+00:00"),
        ("2027-01-01", "2027-01-01T00:00:00+00:00"),
        ("2027-01-01T08:00", "2027-01-01T08:00:00+00:00"),
        ("2027-01-01T08:00:00Z", "2027-01-01T08:00:00+00:00"),
        ("2027-01-01T08:00:00+02:00", "2027-01-01T08:00:00+02:00"),
    ],
)
def test_expiry_is_a_number_of_days_or_a_time(text: str, expected: str) -> None:
    assert read_expiry(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "99999d", "³d", "30d ", "tomorrow", "2027-13-01"])
def test_other_expiries_are_rejected(text: str) -> None:
    with pytest.raises(UsageError, match="Invalid expiry"):
        read_expiry(text, NOW)


def test_invalid_values_are_usage_errors(api: ApiServer, command_line: CommandLine) -> None:
    assert command_line.run("keys", "create", "ci", "--expires", "soon").code == 2
    assert command_line.run("keys", "create", "ci", "--scope", "write").code == 2
    assert command_line.run("keys", "create").code == 2
    assert api.requests == []
    fields = [
        {"field": "expires_at", "message": "must be in the future"},
        {"field": "name", "message": "must not be empty"},
    ]
    invalid = create_problem_response(422, "invalid-fields", "Invalid fields", "expires_at: must …", fields=fields)
    api.faults = [Fault("POST", "/keys", response=invalid)]
    outcome = command_line.run("keys", "create", "ci", "--expires", "0d")
    assert outcome.code == 2
    assert "--expires: must be in the future\nNAME: must not be empty\n" in outcome.err


def test_lost_response_does_not_create_a_second_key(api: ApiServer, command_line: CommandLine) -> None:
    api.faults = [Fault("POST", "/keys", "lost")]
    assert command_line.run("keys", "create", "ci").code == 6
    assert len(api.keys) == 1


def test_keys_are_listed(api: ApiServer, command_line: CommandLine) -> None:
    command_line.run("keys", "create", "first one")
    command_line.run("keys", "create", "second", "--scope", "import", "--expires", "2027-01-01")
    api.keys["0000000000000001"] |= {"last_used_on": "2026-11-27", "expired": True}
    outcome = command_line.run("keys", "ls")
    assert outcome.code == 0
    head, second, first = outcome.out.splitlines()
    assert head.split("  ")[0] == "KEY ID"
    assert second.split() == [
        "0000000000000002",
        "2026-11-24T12:00:00Z",
        "2027-01-01T00:00:00+00:00",
        "never",
        "import",
        "all",
        "second",
    ]
    assert first.endswith("first one")
    assert first.split()[2:4] == ["expired", "2026-11-27"]
    assert READ_KEY not in outcome.out
    listed = command_line.run("keys", "ls", "--json").json
    assert [key["name"] for key in listed["keys"]] == ["second", "first one"]
    assert listed["hub_url"] == api.hub_url


def test_keys_are_deleted(api: ApiServer, command_line: CommandLine) -> None:
    for name in ("a", "b", "c"):
        command_line.run("keys", "create", name)
    first, second, third = api.keys
    outcome = command_line.run("keys", "rm", first, second)
    assert (outcome.code, outcome.out, outcome.err) == (0, "", f"Deleted {first}.\nDeleted {second}.\n")
    assert command_line.run("keys", "rm", third, "--json").json == {"deleted": [third]}
    assert api.keys == {}


def test_deletion_with_a_lost_response_succeeds(api: ApiServer, command_line: CommandLine) -> None:
    command_line.run("keys", "create", "ci")
    api.faults = [Fault("DELETE", "", "lost")]
    assert command_line.run("keys", "rm", *api.keys).code == 0


def test_unknown_key_is_not_found(command_line: CommandLine) -> None:
    outcome = command_line.run("keys", "rm", "0" * 16)
    assert outcome.code == 3
    assert "`modelhaul keys ls` lists the keys" in outcome.err


def test_key_instead_of_its_id_is_neither_sent_nor_shown(api: ApiServer, command_line: CommandLine) -> None:
    command_line.run("keys", "create", "ci")
    (key_id,) = api.keys
    for wrong in (READ_KEY, "x", "../models/1"):
        outcome = command_line.run("keys", "rm", key_id, wrong)
        assert outcome.code == 2
        assert wrong not in outcome.out + outcome.err.replace("hexadecimal", "")
    assert api.find("DELETE", "") == []


def test_environment_connects_hub_clients(
    api: ApiServer, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_hub")
    outcome = command_line.run("env")
    assert (outcome.code, outcome.out) == (0, f"export HF_ENDPOINT={api.hub_url}\n")
    assert "export HF_TOKEN=$(modelhaul keys create NAME)" in outcome.err
    monkeypatch.setenv("HF_TOKEN", READ_KEY)
    assert command_line.run("env").err == ""
    expected = f"export HF_ENDPOINT={api.hub_url} HF_TOKEN={READ_KEY}\n"
    given = command_line.run("env", "--key", READ_KEY)
    assert (given.code, given.out, given.err) == (0, expected, "")
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{READ_KEY}\n"))
    assert command_line.run("env", "--key", "-").out == expected
    shown = command_line.run("env", "--key", READ_KEY, "--json").json
    assert shown == {"HF_ENDPOINT": api.hub_url, "HF_TOKEN": READ_KEY}


def test_environment_is_quoted_for_the_shell(api: ApiServer, command_line: CommandLine) -> None:
    api.hub_url = "https://hub.example/$(touch evil)'`touch evil`;touch${IFS}evil/hf".replace(" ", "%20")
    printed = command_line.run("env").out
    script = f'{printed}printf %s "$HF_ENDPOINT"'
    result = subprocess.run(["sh", "-c", script], capture_output=True, text=True, cwd=command_line.folder, check=True)
    assert result.stdout == api.hub_url
    assert not (command_line.folder / "evil").exists()


@pytest.mark.parametrize("key", ["", "hf_short", f"{READ_KEY}\nexport X=1", f"{READ_KEY} ", "$(id)"])
def test_what_cannot_be_a_key_is_not_printed(
    command_line: CommandLine, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    outcome = command_line.run("env", "--key", key)
    assert (outcome.code, outcome.out) == (2, "")
    assert "Invalid read key." in outcome.err
    assert READ_KEY not in outcome.err
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert command_line.run("env", "--key", "-").code == 2


def test_insecure_hub_url_is_rejected(api: ApiServer, command_line: CommandLine) -> None:
    api.hub_url = "http://hub.example/hf"
    outcome = command_line.run("env")
    assert (outcome.code, outcome.out) == (2, "")


@pytest.mark.parametrize("arguments", [["keys", "ls"], ["keys", "create", "a"], ["keys", "rm", "0" * 16], ["env"]])
def test_stack_without_a_hub_api_is_reported(api: ApiServer, command_line: CommandLine, arguments: list[str]) -> None:
    missing = create_problem_response(404, "no-such-route", "Route not found", "Route not found.")
    api.faults = [Fault(method, "/keys", response=missing) for method in ("GET", "POST", "DELETE")]
    outcome = command_line.run(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert "The stack has no Hub read API." in outcome.err
    assert "HubAccess=KEYS" in outcome.err


def test_url_of_a_local_stack_is_read_from_its_state(
    api: ApiServer, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MODELHAUL_API_URL")
    monkeypatch.delenv("MODELHAUL_API_KEY")
    hub_url = "http://127.0.0.1:4566/hf"
    write_state(command_line.folder, api_url=api.api_url, api_key=KEY, hub_url=hub_url)
    assert command_line.run("env").out == f"export HF_ENDPOINT={hub_url}\n"
    assert command_line.run("env", "--api-url", api.api_url).out == f"export HF_ENDPOINT={hub_url}\n"
    assert api.requests == []
    write_state(command_line.folder, api_url=api.api_url, api_key=KEY)
    assert command_line.run("env").out == f"export HF_ENDPOINT={api.hub_url}\n"


def test_remote_hub_url_in_a_state_file_is_rejected(tmp_path: Path) -> None:
    write_state(tmp_path, api_url="http://127.0.0.1/v1", api_key="k", hub_url="https://evil.example/hf")
    with pytest.raises(UsageError, match="not a loopback URL"):
        find_configuration(None, None, {}, tmp_path)


def write_state(folder: Path, **state: str) -> None:
    (folder / ".local").mkdir(exist_ok=True)
    (folder / ".local" / "stack.json").write_text(json.dumps(state))


def test_help_describes_the_commands(command_line: CommandLine) -> None:
    shown = command_line.run("--help").out
    assert " keys " in shown
    assert " env " in shown
    for command in (["keys", "create"], ["keys", "ls"], ["keys", "rm"], ["env"]):
        assert "--json" in command_line.run(*command, "--help").out
