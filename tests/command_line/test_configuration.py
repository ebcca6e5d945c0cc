"""Configuration of the API, and the application itself."""

import json
import re
from pathlib import Path

import pytest

from modelhaul_cli import errors
from modelhaul_cli.configuration import find_configuration
from modelhaul_cli.urls import check_url
from tests.command_line.conftest import CommandLine
from tests.fakes.api_server import KEY, ApiServer, Fault, Response, create_json_response, create_problem_response

NOWHERE = Path("/nonexistent")
AWS = "https://abc.execute-api.eu-central-1.amazonaws.com/v1"
LOCAL = "http://127.0.0.1:4566/v1"


def write_state(folder: Path, **state: object) -> None:
    (folder / ".local").mkdir(parents=True)
    (folder / ".local" / "stack.json").write_text(json.dumps(state))


def find(environment: dict[str, str], folder: Path, url: str | None = None, key: Path | None = None) -> tuple[str, str]:
    found = find_configuration(url, key, environment, folder)
    return found.url, found.key


def test_environment_takes_precedence_over_the_local_stack(tmp_path: Path) -> None:
    write_state(tmp_path, api_url=LOCAL, api_key="local")
    environment = {"MODELHAUL_API_URL": f"{AWS}/", "MODELHAUL_API_KEY": "k"}
    assert find(environment, tmp_path) == (AWS, "k")


def test_options_take_precedence_and_are_kept_for_hints(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(" from-file\n")
    environment = {"MODELHAUL_API_URL": "https://other/v1", "MODELHAUL_API_KEY": "k"}
    found = find_configuration(AWS, file, environment, tmp_path)
    assert (found.url, found.key) == (AWS, "from-file")
    assert found.options == ("--api-key-file", str(file), "--api-url", AWS)
    assert "from-file" not in repr(found)


def test_local_stack_is_found_in_parent_folders(tmp_path: Path) -> None:
    write_state(tmp_path, api_url=LOCAL, api_key="local")
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    assert find({}, deep) == (LOCAL, "local")
    assert find({"MODELHAUL_API_URL": LOCAL}, deep) == (LOCAL, "local")
    assert find({"MODELHAUL_API_KEY": "for AWS"}, deep) == (LOCAL, "local"), (
        "the key of the environment needs the URL of the environment"
    )


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "API URL and API key are not configured"),
        ({"MODELHAUL_API_KEY": "k"}, "API URL is not configured"),
        ({"MODELHAUL_API_URL": AWS, "MODELHAUL_AUTH": "key"}, "API key is not configured"),
    ],
)
def test_missing_configuration_is_reported_with_instructions(environment: dict[str, str], expected: str) -> None:
    with pytest.raises(errors.UsageError) as raised:
        find_configuration(None, None, environment, NOWHERE)
    assert expected in raised.value.title
    for way in ("MODELHAUL_API_URL", "--api-key-file", "make run", "describe-stacks", "get-api-key"):
        assert way in raised.value.detail


def test_key_file_requires_a_url(tmp_path: Path) -> None:
    write_state(tmp_path, api_url=LOCAL, api_key="local")
    (tmp_path / "key").write_text("k")
    with pytest.raises(errors.UsageError, match="API URL is not configured"):
        find({}, tmp_path, key=tmp_path / "key")


def test_key_of_a_local_stack_is_not_sent_elsewhere(tmp_path: Path) -> None:
    write_state(tmp_path, api_url=LOCAL, api_key="local")
    assert find({"MODELHAUL_API_URL": AWS}, tmp_path) == (AWS, ""), "the request is signed"


def test_remote_url_in_a_state_file_is_rejected(tmp_path: Path) -> None:
    write_state(tmp_path, api_url="https://evil.example/v1", api_key="bait")
    with pytest.raises(errors.UsageError, match="not a loopback URL"):
        find({"MODELHAUL_API_KEY": "k"}, tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"api_url": "http://127.0.0.1/v1"}'])
def test_invalid_state_file_is_rejected(tmp_path: Path, text: str) -> None:
    (tmp_path / ".local").mkdir()
    (tmp_path / ".local" / "stack.json").write_text(text)
    with pytest.raises(errors.UsageError, match="Cannot read the state"):
        find({}, tmp_path)


@pytest.mark.parametrize("key", [b"", b"two words", b"line\nline", b"\xff", "schlüssel".encode()])
def test_invalid_keys_are_rejected(tmp_path: Path, key: bytes) -> None:
    (tmp_path / "key").write_bytes(key)
    with pytest.raises(errors.UsageError):
        find({"MODELHAUL_API_URL": AWS}, NOWHERE, key=tmp_path / "key")
    with pytest.raises(errors.UsageError):
        find({"MODELHAUL_API_URL": AWS}, NOWHERE, key=tmp_path / "missing")


def test_origin_of_an_invalid_key_is_reported(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("two words")
    with pytest.raises(errors.UsageError) as raised:
        find({"MODELHAUL_API_URL": AWS}, NOWHERE, key=tmp_path / "key")
    assert f"--api-key-file {tmp_path / 'key'} is invalid" in raised.value.detail
    with pytest.raises(errors.UsageError) as raised:
        find({"MODELHAUL_API_URL": AWS, "MODELHAUL_API_KEY": "two words"}, NOWHERE)
    assert "$MODELHAUL_API_KEY is invalid" in raised.value.detail
    assert "two words" not in raised.value.detail
    write_state(tmp_path, api_url=LOCAL, api_key="")
    with pytest.raises(errors.UsageError) as raised:
        find({}, tmp_path)
    assert "stack.json is empty" in raised.value.detail


@pytest.mark.parametrize("url", [AWS, LOCAL, "http://localhost:1/v1", "http://[::1]:1/v1"])
def test_https_and_loopback_urls_are_accepted(url: str) -> None:
    assert check_url(url, "URL") == url


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/v1",
        "http://127.0.0.1.example.com/v1",
        "http://10.0.0.1/v1",
        "ftp://example.com",
        "example.com/v1",
        "https://",
        "https://user:secret@example.com/v1",
        "https://exa mple.com/v1",
        "https://example.com:99999/v1",
        "https://[::1/v1",
    ],
)
def test_other_urls_are_rejected(url: str) -> None:
    with pytest.raises(errors.UsageError):
        check_url(url, "URL")


def test_missing_configuration_exits_with_2(command_line: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODELHAUL_API_URL")
    monkeypatch.delenv("MODELHAUL_API_KEY")
    outcome = command_line.run("ls")
    assert (outcome.code, outcome.out) == (2, "")
    assert command_line.run("ls", "--json").json["error"]["exit_code"] == 2


def test_options_configure_the_api(
    api: ApiServer, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("MODELHAUL_API_URL")
    monkeypatch.delenv("MODELHAUL_API_KEY")
    (tmp_path / "key").write_text(KEY)
    outcome = command_line.run("hf", "x", "--no-wait", "--api-url", api.api_url, "--api-key-file", "key")
    assert outcome.code == 0
    assert f"--follow --api-key-file key --api-url {api.api_url}" in outcome.err


@pytest.mark.parametrize("arguments", [["hf"], ["nothing"], ["ls", "--limit", "0"], ["hf", "x", "--weights", "tf"]])
def test_invalid_usage_exits_with_2(command_line: CommandLine, arguments: list[str]) -> None:
    outcome = command_line.run(*arguments)
    assert (outcome.code, outcome.out) == (2, "")


def test_other_services_are_detected(api: ApiServer, command_line: CommandLine) -> None:
    for response in (
        create_json_response(200, []),
        create_json_response(302, {}, Location="/login"),
        Response(404, b"<html>"),
        create_json_response(404, {"detail": "Not Found"}),
        create_json_response(405, {"message": "Method Not Allowed"}),
    ):
        api.faults = [Fault("GET", "", response=response)]
        outcome = command_line.run("ls")
        assert outcome.code == 6
        assert f"GET {api.api_url}/models returned {response.status} " in outcome.err
        assert "It must be the URL of a Modelhaul API including its stage" in outcome.err


def test_unknown_route_of_the_api_is_named(api: ApiServer, command_line: CommandLine) -> None:
    api.faults = [Fault("GET", "", response=create_problem_response(404, "no-such-route", "Route not found"))]
    outcome = command_line.run("ls")
    assert outcome.code == 3
    assert f"The Modelhaul API has no route GET {api.api_url}/models." in outcome.err


def test_error_of_a_proxy_names_the_address(api: ApiServer, command_line: CommandLine) -> None:
    api.faults = [Fault("GET", "", response=Response(502, b"<html>"), times=100)]
    outcome = command_line.run("ls")
    assert outcome.code == 6
    assert f"GET {api.api_url}/models returned 502." in outcome.err


@pytest.mark.parametrize("command", [[], ["hf"], ["zip"], ["rm"], ["status"], ["keys"], ["keys", "create"], ["env"]])
def test_help_shows_no_type_for_flags(command_line: CommandLine, command: list[str]) -> None:
    outcome = command_line.run(*command, "--help")
    assert (outcome.code, "bool" in outcome.out) == (0, False)
    assert "--help" in outcome.out


def test_redirects_are_not_followed(api: ApiServer, command_line: CommandLine) -> None:
    api.faults = [Fault("POST", "", response=create_json_response(302, {}, Location=f"{api.endpoint}/elsewhere"))]
    command_line.run("hf", "x")
    assert api.find("", "elsewhere") == []


def test_netrc_is_not_read(api: ApiServer, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = command_line.folder / ".netrc"
    netrc.write_text("default login a password b\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setattr("modelhaul_cli.http_session.is_loopback", lambda _: False)
    assert command_line.run("ls").code == 0
    assert "authorization" not in api.requests[0].headers


def test_installed_program_prints_its_version(command_line: CommandLine) -> None:
    out, err = command_line.start("--version").communicate(timeout=60)
    assert re.fullmatch(r"modelhaul \d+\.\d+\.\d+\n", out), err


def test_help_lists_commands_and_exit_codes(command_line: CommandLine) -> None:
    shown = command_line.run("--help").out
    assert "\x1b" not in shown, "no colours without a terminal"
    for code in errors.ExitCode:
        assert f" {code.value} " in shown
    for command in ("hf", "github", "zip", "ls", "show", "status", "tasks", "cancel", "rm", "get"):
        assert f" {command} " in shown
        assert "--json" in command_line.run(command, "--help").out


def test_error_tree_in_the_docstring_matches_the_classes() -> None:
    drawn = re.findall(r"[├└]── (\w+) +(\d+)", errors.__doc__ or "")
    classes = {
        name: int(kind.exit_code)
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.CommandError) and kind is not errors.CommandError
    }
    assert {name: int(code) for name, code in drawn} == classes


def test_documented_exit_codes_match_the_program() -> None:
    text = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text()
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)] == [*errors.ExitCode]
