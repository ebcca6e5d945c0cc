"""Who did what is recorded, listed and published, by the deployed stack with IAM enforced."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import requests

from openapi.responses import AuditList
from tests.archives.building import build, list_members
from tests.documented_events import AUDIT_VALIDATOR
from tests.stack.conftest import Stack
from tests.stack.test_events import Listener

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]


@pytest.fixture
def listener(stack: Stack) -> Iterator[Listener]:
    listener = Listener(stack)
    yield listener
    listener.close()


def list_entries(stack: Stack, **query: str) -> list[dict[str, Any]]:
    answer = stack.http.get(f"{stack.state.api_url}/audit", params=query, timeout=30)
    assert answer.status_code == 200, answer.text
    AuditList.model_validate_json(answer.text)
    assert answer.json()["retention_days"] == 30
    entries: list[dict[str, Any]] = answer.json()["entries"]
    return entries


def build_archive(name: str) -> bytes:
    return build(list_members(name))


def post(stack: Stack, name: str) -> requests.Response:
    files = {"file": (f"{name}.zip", build_archive(name), "application/zip")}
    return stack.http.post(f"{stack.state.api_url}/upload/local", files=files, timeout=60)


def find_task(answer: requests.Response) -> str:
    assert answer.status_code == 201, answer.text
    return answer.links["status"]["url"].removeprefix("/v1/upload/tasks/")


def test_the_life_of_a_model(stack: Stack, listener: Listener) -> None:
    name = f"audited-{uuid.uuid4().hex[:8]}"
    started = datetime.now(UTC).replace(microsecond=0).isoformat()
    answer = post(stack, name)
    task_id = find_task(answer)
    model_id = answer.headers["Location"].removeprefix("/v1/upload/local/")
    assert stack.wait_for_end(task_id)["task_status"] == "DONE"
    assert post(stack, name).status_code == 409
    assert stack.http.delete(f"{stack.state.api_url}/models/{model_id}", timeout=30).status_code == 204
    assert stack.http.delete(f"{stack.state.api_url}/models/{model_id}", timeout=30).status_code == 404

    entries = list_entries(stack, model_id=model_id, since=started)
    assert [entry["action"] for entry in entries] == ["ModelDeleted", "ImportSubmitted"]
    for entry in entries:
        assert (entry["task_id"], entry["name"], entry["source"]) == (task_id, name, "LOCAL")
    assert list_entries(stack, task_id=task_id, action="ModelDeleted") == entries[:1]
    ids = {entry["id"] for entry in entries}

    def find_events() -> list[dict[str, Any]]:
        return [event for event in listener.listen() if event["detail"].get("id") in ids]

    stack.wait_until(lambda: {event["detail"]["id"] for event in find_events()} == ids, listener.heard)
    for event in find_events():
        AUDIT_VALIDATOR.validate(event)


def test_cancellations(stack: Stack) -> None:
    """Of an upload by the API, and of one in the dashboard."""
    # MiniStack does not pass the ID of the API key.
    actors = []
    for console in (False, True):
        body = {"file_name": "large.zip", "size": 10**8}
        opened = stack.http.post(f"{stack.state.api_url}/upload/local", json=body, timeout=30).json()
        task_id = opened["task_id"]
        url = f"{stack.state.api_url}/upload/tasks/{task_id}"
        assert stack.http.post(f"{url}/urls", json={"parts": []}, timeout=30).status_code == 200
        if console:
            stack.functions.invoke(
                FunctionName=stack.state.outputs["CancelFromConsoleFunction"],
                Payload=json.dumps({"task_id": task_id}),
            )
        else:
            assert stack.http.delete(url, timeout=30).status_code == 204
        assert stack.http.delete(url, timeout=30).status_code == 409
        entries = list_entries(stack, task_id=task_id)
        assert [e["action"] for e in entries] == ["ImportCancelled", "UploadUrlsRenewed", "ImportSubmitted"]
        assert all(entry["detail"] == {"archive": "large.zip"} for entry in entries)
        actors.append(entries[0].get("actor", "").partition(":")[0])
        if console:
            assert entries[0] in list_entries(stack, actor=entries[0]["actor"], action="ImportCancelled", limit="100")
    assert actors == ["", "aws-account"]


def test_a_dropped_archive(stack: Stack) -> None:
    name = f"dropped-{uuid.uuid4().hex[:8]}"
    key = f"incoming/{name}.zip"
    stack.s3.put_object(Bucket=stack.state.incoming_bucket, Key=key, Body=build_archive(name))

    def find() -> list[dict[str, Any]]:
        entries = list_entries(stack, action="ImportSubmitted", limit="100")
        return [entry for entry in entries if entry.get("detail", {}).get("archive") == key]

    stack.wait_until(lambda: bool(find()))
    (entry,) = find()
    assert stack.wait_for_end(entry["task_id"])["task_status"] == "DONE"
    assert len(find()) == 1


def test_keys_and_the_imports_of_hub_clients(stack: Stack) -> None:
    created = stack.create_key("audited", scopes=["import"])
    key_id = created["key_id"]
    assert stack.http.delete(f"{stack.state.api_url}/keys/{key_id}", timeout=30).status_code == 204
    since = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0).isoformat()
    for action in ("ReadKeyCreated", "ReadKeyDeleted"):
        (entry,) = (e for e in list_entries(stack, action=action, since=since, limit="100") if e["key_id"] == key_id)
        assert entry["name"] == "audited"
        assert created["key"] not in json.dumps(entry)


def test_the_command_line(stack: Stack) -> None:
    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "modelhaul_cli", "audit", *arguments],
            env={**os.environ, "MODELHAUL_API_URL": stack.state.api_url, "MODELHAUL_API_KEY": stack.state.api_key},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    task_id = find_task(post(stack, f"listed-{uuid.uuid4().hex[:8]}"))
    stack.wait_for_end(task_id)
    (entry,) = json.loads(run("--task", task_id, "--json"))["entries"]
    assert entry["action"] == "ImportSubmitted"
    table = run("--action", "ImportSubmitted", "--since", "1h", "--limit", "100")
    assert table.startswith("TIME")
    assert str(entry["name"]) in table


def test_nobody_reads_it_without_a_key(stack: Stack) -> None:
    assert requests.get(f"{stack.state.api_url}/audit", timeout=30).status_code == 403
