"""The commands `follow add`, `list`, `show`, `change`, `pause`, `resume` and `delete`."""

import pytest

from tests.command_line.conftest import CommandLine
from tests.fakes.api_server import ApiServer, Fault

FIRST, SECOND = "0a000000-0000-5000-8000-000000000001", "0a000000-0000-5000-8000-000000000002"
COMMIT = "a" * 40
IMPORT = {
    "commit": COMMIT,
    "previous_commit": "b" * 40,
    "rewritten": True,
    "found_at": "2026-11-28T12:00:00Z",
    "model_id": "m1",
    "task_id": None,
    "status": "FAILED",
    "error": {"type": "unsafe-model", "detail": "A pickle can run code.", "retryable": False},
}
ERROR = {
    "type": "model-not-found",
    "detail": "The Hub has no public model a/b.",
    "retryable": False,
    "at": "2026-11-28T12:00:00Z",
    "remedy": "Check the name.",
}


def test_the_id_is_the_only_output(api: ApiServer, command_line: CommandLine) -> None:
    outcome = command_line.run("follow", "add", "https://huggingface.co/org/model/tree/v1")
    assert (outcome.code, outcome.out) == (0, f"{FIRST}\n")
    assert "Following org/model@v1, checked every 1d. The first check starts now.\n" in outcome.err
    assert f"modelhaul follow show {FIRST[:8]}" in outcome.err
    expected = {"source": "HUGGINGFACE", "name": "org/model", "revision": "v1", "every": "1d"}
    assert api.requests[0].json == expected


def test_options_become_the_fields_of_the_request(api: ApiServer, command_line: CommandLine) -> None:
    options = ["--github", "--every", "2w", "--allow", "*.json", "--weights", "safetensors", "--keep-newest", "3"]
    assert command_line.run("follow", "add", "owner/repo@feature/x", *options).code == 0
    assert api.requests[0].json == {
        "source": "GITHUB",
        "name": "owner/repo",
        "revision": "feature/x",
        "every": "2w",
        "selection": {"allow_patterns": ["*.json"], "weights": "safetensors"},
        "keep_newest": 3,
    }


def test_a_lost_response_is_requested_again(api: ApiServer, command_line: CommandLine) -> None:
    api.faults = [Fault("POST", "/follows", "lost")]
    assert command_line.run("follow", "add", "org/model").code == 0
    assert len(api.follows) == 1


def test_a_second_follow_is_a_conflict(api: ApiServer, command_line: CommandLine) -> None:
    command_line.run("follow", "add", "org/model")
    outcome = command_line.run("follow", "add", "org/model")
    assert outcome.code == 4
    assert FIRST in outcome.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["add"],
        ["add", "org/model", "--keep-newest", "0"],
        ["add", "--github", "model"],
        ["change", FIRST],
        ["show", "x"],
        ["show", "../keys"],
    ],
)
def test_invalid_usage(api: ApiServer, command_line: CommandLine, arguments: list[str]) -> None:
    assert command_line.run("follow", *arguments).code == 2
    assert api.follows == {}


def test_follows_are_listed(api: ApiServer, command_line: CommandLine) -> None:
    command_line.run("follow", "add", "org/first")
    command_line.run("follow", "add", "org/second@v1")
    api.follows[FIRST] |= {"last_import": {**IMPORT, "status": "READY"}, "status": "PAUSED"}
    api.follows[SECOND] |= {"last_error": ERROR}
    listed = command_line.run("follow", "list")
    second, first = listed.out.splitlines()[1:]
    assert "paused" in first
    assert "ready" in first
    assert COMMIT[:7] in first
    assert "model-not-found" in second
    assert "v1" in second
    found = command_line.run("follow", "list", "--json").json
    assert [follow["name"] for follow in found["follows"]] == ["org/second", "org/first"]


def test_the_list_has_the_sources(api: ApiServer, command_line: CommandLine) -> None:
    command_line.run("follow", "add", "org/model@a")
    command_line.run("follow", "add", "--github", "org/model@b")
    lines = command_line.run("follow", "list").out.splitlines()
    assert [line.split()[-4] for line in lines] == ["SOURCE", "github", "hf"]


def test_a_follow_is_shown_with_its_import_and_its_error(api: ApiServer, command_line: CommandLine) -> None:
    command_line.run("follow", "add", "org/model")
    api.follows[FIRST] |= {
        "last_import": IMPORT,
        "last_error": ERROR,
        "consecutive_failures": 2,
        "waits_for_rate_limit": True,
        "former_names": ["old/model"],
        "selection": {"allow_patterns": ["*.json"], "ignore_patterns": [], "weights": "all"},
    }
    shown = command_line.run("follow", "show", FIRST[:6]).out
    for text in (
        "org/model@main (HUGGINGFACE)",
        "--allow *.json",
        "formerly old/model",
        "end of the source's rate limit",
        f"{COMMIT} at 2026-11-28T12:00:00Z, the branch was rewritten",
        "m1 (FAILED)",
        "unsafe-model: A pickle can run code.",
        "model-not-found: The Hub has no public model a/b. (2 failed checks)",
        "Remedy       Check the name.",
    ):
        assert text in shown
    assert command_line.run("follow", "show", FIRST, "--json").json["follow_id"] == FIRST


def test_changes(api: ApiServer, command_line: CommandLine) -> None:
    command_line.run("follow", "add", "org/model")
    for arguments, body in (
        (["pause", FIRST], {"paused": True}),
        (["resume", FIRST], {"paused": False}),
        (["change", FIRST, "--every", "2w"], {"every": "2w"}),
        (["change", FIRST, "--keep-newest", "0"], {"keep_newest": None}),
    ):
        outcome = command_line.run("follow", *arguments)
        assert outcome.code == 0, outcome.err
        assert api.requests[-1].json == body
    assert "(org/model@main)" in outcome.err
    assert command_line.run("follow", "delete", FIRST).code == 0
    assert api.follows == {}


def test_an_ambiguous_start_of_an_id_is_rejected(api: ApiServer, command_line: CommandLine) -> None:
    for name in ("org/first", "org/second"):
        command_line.run("follow", "add", name)
    outcome = command_line.run("follow", "delete", "0a00")
    assert outcome.code == 2
    assert "2 IDs start with '0a00'" in outcome.err
    assert len(api.follows) == 2


def test_a_missing_follow_is_not_found(api: ApiServer, command_line: CommandLine) -> None:
    for command in ("show", "pause", "resume", "delete"):
        assert command_line.run("follow", command, FIRST).code == 3
