"""Pins, the dry run and the daily run of retention on the deployed stack, with models that are made older."""

from datetime import UTC, datetime, timedelta

import pytest
import requests

from tests.stack import test_command_line
from tests.stack.conftest import Stack
from tests.stack.test_command_line import Terminal
from tests.upstream.remote import RemoteUpstream
from tests.upstream.repositories import NIGHTLY

terminal = test_command_line.terminal  # the fixture
pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]


def change_model(stack: Stack, model_id: str, expression: str, **values: dict[str, str]) -> None:
    stack.dynamodb.update_item(
        TableName=stack.state.outputs["ModelsTable"],
        Key={"model_id": {"S": model_id}},
        UpdateExpression=expression,
        ConditionExpression="model_id = :id",
        ExpressionAttributeValues={":id": {"S": model_id}} | {f":{name}": value for name, value in values.items()},
    )


def make_older(stack: Stack, model_id: str, days: int) -> None:
    moment = (datetime.now(UTC) - timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%S.%f+0000")
    change_model(stack, model_id, "SET created_at = :moment, updated_at = :moment", moment={"S": moment})


def invoke(stack: Stack, output: str) -> None:
    response = stack.functions.invoke(FunctionName=stack.state.outputs[output], Payload=b"{}")
    assert "FunctionError" not in response, response["Payload"].read()


def test_the_daily_run_keeps_the_newest_commit_of_a_follow(
    stack: Stack, hub: RemoteUpstream, terminal: Terminal
) -> None:
    def plan() -> list[str]:
        found = terminal.read_document("retention")
        listed = [model["model_id"] for model in found["models"] if model["name"] == NIGHTLY]
        response = stack.http.get(f"{stack.state.api_url}/retention", timeout=30)
        assert response.json() == found
        assert found["complete"]
        return listed

    (old,) = stack.import_model(NIGHTLY)["models"]
    hub.move_branch(NIGHTLY, "main", "next")
    (new,) = stack.import_model(NIGHTLY)["models"]
    body = {"source": "HUGGINGFACE", "name": NIGHTLY, "every": "4w", "keep_newest": 1}
    follow = stack.http.post(f"{stack.state.api_url}/follows", json=body, timeout=30)
    assert follow.status_code == 201, follow.text
    rule = f"follow:{follow.json()['follow_id']}"
    old_id, new_id = old["model_id"], new["model_id"]
    assert plan() == [], "both were imported today"

    make_older(stack, old_id, 9)
    make_older(stack, new_id, 8)
    assert plan() == [old_id]
    (listed,) = terminal.read_document("retention")["models"]
    assert listed["rule"] == rule
    assert "commit 2 of 2, never read" in listed["reason"]

    pinned = terminal.read_document("pin", old_id, "--reason", "A customer has it.")
    assert pinned["pin"]["reason"] == "A customer has it."
    assert plan() == []
    refused = stack.http.delete(f"{stack.state.api_url}/models/{old_id}", timeout=30)
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:modelhaul:problem:model-pinned")
    invoke(stack, "ApplyRetentionFunction")
    assert terminal.read_document("show", old_id)["status"] == "READY"
    terminal.read_document("unpin", old_id)
    assert plan() == [old_id]

    link = stack.http.get(
        f"{stack.state.api_url}/models/{old_id}/files/config.json", timeout=30, allow_redirects=False
    ).headers["Location"]
    assert plan() == [], "it was read today"
    change_model(stack, old_id, "REMOVE last_read_on")

    invoke(stack, "ApplyRetentionFunction")
    assert stack.http.get(f"{stack.state.api_url}/models/{old_id}", timeout=30).status_code == 404
    assert terminal.read_document("show", new_id)["status"] == "READY"
    assert requests.get(link, timeout=30).status_code == 200, "what somebody reads stays for a time"
    stack.sweep()
    assert stack.list_keys(f"models/huggingface/{NIGHTLY}/{old['commit']}/")

    change_model(stack, old_id, "SET lease_until = :past", past={"N": "1"})
    stack.sweep()
    assert stack.list_keys(f"models/huggingface/{NIGHTLY}/{old['commit']}/") == []
    assert stack.list_keys(f"models/huggingface/{NIGHTLY}/{new['commit']}/")
