"""The commands `pin`, `unpin` and `retention`, and `rm` of a pinned model."""

from typing import Any

from tests.command_line.conftest import CommandLine
from tests.fakes.api_server import MODEL_ID, ApiServer

DELETION: dict[str, Any] = {
    "model_id": MODEL_ID,
    "name": "acme/nightly",
    "source": "HUGGINGFACE",
    "commit": "86b5e0934494bd15c9632b12f734a8a67f723594",
    "size": 2_000_000,
    "rule": "nightlies",
    "reason": "Old. (commit 2 of 2, never read, imported on 2026-05-21)",
}


def test_a_pinned_model_is_shown_and_not_removed(api: ApiServer, command_line: CommandLine) -> None:
    api.add_model({"config.json": b"{}"})
    outcome = command_line.run("pin", MODEL_ID, "--reason", "Production")
    assert outcome.code == 0, outcome.err
    assert f"({MODEL_ID})." in outcome.err
    assert api.requests[-1].json == {"reason": "Production"}
    assert "pinned    2026-11-28T12:00:00Z, Production" in command_line.run("show", MODEL_ID).out
    assert "(pinned)" in command_line.run("ls").out
    refused = command_line.run("rm", MODEL_ID, "--yes")
    assert refused.code == 4
    assert "modelhaul unpin" in refused.err
    assert command_line.run("unpin", MODEL_ID).code == 0
    assert "pinned" not in command_line.run("show", MODEL_ID).out
    assert command_line.run("rm", MODEL_ID, "--yes").code == 0


def test_a_pin_needs_no_reason(api: ApiServer, command_line: CommandLine) -> None:
    api.add_model({"config.json": b"{}"})
    assert command_line.run("pin", MODEL_ID, "--json").json["pin"] == {"pinned_at": "2026-11-28T12:00:00Z"}
    assert api.requests[-1].json == {}


def test_the_dry_run_says_what_and_why(api: ApiServer, command_line: CommandLine) -> None:
    api.retention = {"models": [DELETION], "count": 1, "size": 2_000_000, "complete": True}
    outcome = command_line.run("retention")
    assert outcome.code == 0, outcome.err
    for text in ("acme/nightly", "nightlies", "never", "86b5e09", DELETION["reason"]):
        assert text in outcome.out
    assert "Retention would delete 1 model (" in outcome.err
    assert api.requests[-1].query == {"limit": "100"}
    assert command_line.run("retention", "--json", "-n", "5").json == api.retention
    assert api.requests[-1].query == {"limit": "5"}


def test_the_dry_run_says_what_it_does_not_show(api: ApiServer, command_line: CommandLine) -> None:
    api.retention = {"models": [DELETION], "count": 2, "size": 4_000_000, "complete": False}
    outcome = command_line.run("retention")
    assert "--limit" in outcome.err
    assert "Not all models were examined" in outcome.err
    api.retention = {"models": [], "count": 0, "size": 0, "complete": True}
    assert command_line.run("retention").out == ""


def test_a_model_that_does_not_exist(api: ApiServer, command_line: CommandLine) -> None:
    for command in ("pin", "unpin"):
        assert command_line.run(command, MODEL_ID).code == 3
