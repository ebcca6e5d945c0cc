"""Follows of the loopback Hub and GitHub on the deployed stack, as a user and the schedule of the sweep use them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from tests.stack import test_command_line
from tests.stack.conftest import Stack
from tests.stack.test_command_line import Terminal
from tests.upstream.remote import RemoteUpstream
from tests.upstream.repositories import FOLLOWED, FOLLOWED_BY_COMMAND

terminal = test_command_line.terminal  # the fixture
pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]


def send(stack: Stack, method: str, path: str = "", body: object = None) -> requests.Response:
    return stack.http.request(method, f"{stack.state.api_url}/follows{path}", json=body, timeout=30)


def read_follow(stack: Stack, follow_id: str) -> dict[str, Any]:
    response = send(stack, "GET", f"/{follow_id}")
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def make_due(stack: Stack, follow_id: str) -> None:
    """As if the interval was over."""
    past = (datetime.now(UTC) - timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%S.%f+0000")
    stack.dynamodb.update_item(
        TableName=stack.state.outputs["FollowsTable"],
        Key={"id": {"S": follow_id}},
        UpdateExpression="SET next_check = :past, version = version + :one",
        ExpressionAttributeValues={":past": {"S": past}, ":one": {"N": "1"}},
    )


@pytest.mark.parametrize("source", ["HUGGINGFACE", "GITHUB"])
def test_a_branch_is_imported_again_when_it_has_moved(
    stack: Stack, hub: RemoteUpstream, github: RemoteUpstream, source: str
) -> None:
    upstream = hub if source == "HUGGINGFACE" else github
    body = {"source": source, "name": FOLLOWED, "every": "1h"}
    response = send(stack, "POST", body=body)
    assert response.status_code == 201, response.text
    follow_id = response.json()["follow_id"]
    assert response.headers["Location"] == f"/v1/follows/{follow_id}"

    def is_ready(commit: str | None = None) -> bool:
        found = read_follow(stack, follow_id)["last_import"] or {}
        return found.get("status") == "READY" and commit in (None, found["commit"])

    stack.wait_until(is_ready)  # the first check starts without the schedule
    first = read_follow(stack, follow_id)
    assert (first["last_error"], first["consecutive_failures"]) == (None, 0)
    assert stack.read_task(first["last_import"]["task_id"])["submitted_by"] == f"follow:{follow_id}"

    again = send(stack, "POST", body=body)
    assert (again.status_code, again.json()["follow_id"]) == (409, follow_id)

    stack.sweep()
    assert read_follow(stack, follow_id) == first, "it is not due"

    commit = upstream.move_branch(FOLLOWED, "main", "next")
    make_due(stack, follow_id)
    stack.sweep()
    stack.wait_until(lambda: is_ready(commit))
    moved = read_follow(stack, follow_id)
    assert moved["last_import"]["previous_commit"] == first["last_import"]["commit"]
    assert moved["last_import"]["rewritten"] is True
    assert moved["last_import"]["model_id"] != first["last_import"]["model_id"]

    paused = send(stack, "PATCH", f"/{follow_id}", {"paused": True})
    assert (paused.status_code, paused.json()["next_check"]) == (200, None)
    upstream.move_branch(FOLLOWED, "main", first["last_import"]["commit"])
    stack.sweep()
    assert read_follow(stack, follow_id)["last_import"] == moved["last_import"]
    assert send(stack, "PATCH", f"/{follow_id}", {"paused": False}).status_code == 200
    stack.wait_until(lambda: is_ready(first["last_import"]["commit"]))
    assert read_follow(stack, follow_id)["last_import"]["task_id"] is None, "its model existed"

    assert follow_id in [found["follow_id"] for found in send(stack, "GET").json()["follows"]]
    assert send(stack, "DELETE", f"/{follow_id}").status_code == 204
    assert send(stack, "GET", f"/{follow_id}").status_code == 404


def test_a_follow_of_nothing_is_refused(stack: Stack) -> None:
    for body, status, kind in (
        ({"source": "HUGGINGFACE", "name": "tests/no-such-model", "every": "1d"}, 404, "model-not-found"),
        ({"source": "HUGGINGFACE", "name": FOLLOWED, "revision": "none", "every": "1d"}, 404, "revision-not-found"),
        ({"source": "GITHUB", "name": "no slash", "every": "1d"}, 422, "invalid-reference"),
        ({"source": "HUGGINGFACE", "name": FOLLOWED, "every": "59m"}, 422, "invalid-fields"),
    ):
        response = send(stack, "POST", body=body)
        assert (response.status_code, response.json()["type"]) == (status, f"urn:modelhaul:problem:{kind}")


def test_the_command_line_follows_a_branch(stack: Stack, hub: RemoteUpstream, terminal: Terminal) -> None:
    follow_id = terminal.run("follow", "add", FOLLOWED_BY_COMMAND, "--every", "6h").stdout.strip()
    stack.wait_until(lambda: "(READY)" in terminal.run("follow", "show", follow_id[:8]).stdout)
    assert FOLLOWED_BY_COMMAND in terminal.run("follow", "list").stdout
    assert "already followed" in terminal.run("follow", "add", FOLLOWED_BY_COMMAND, code=4).stderr
    terminal.run("follow", "change", follow_id, "--every", "2w", "--keep-newest", "3")
    terminal.run("follow", "pause", follow_id)
    assert "PAUSED, checked every 2w" in terminal.run("follow", "show", follow_id).stdout
    commit = hub.move_branch(FOLLOWED_BY_COMMAND, "main", "next")
    terminal.run("follow", "resume", follow_id)
    stack.wait_until(lambda: commit in terminal.run("follow", "show", follow_id).stdout)
    terminal.run("follow", "delete", follow_id)
    terminal.run("follow", "show", follow_id, code=3)
