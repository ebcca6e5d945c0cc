"""A stack of this version has the data of a released version, as after an update: models are read, listed, reused and
deleted. tests/template/test_replacements.py proves that an update keeps the tables and buckets themselves.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from local.sources import SourceUrls
from local.stack import LocalStack
from tests.stack import released_data
from tests.stack.conftest import Stack
from tests.stack.released_data import WEIGHTS, Released
from tests.upstream.repositories import SMALL

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

RELEASED = sorted((Path(__file__).parent / "released").glob("*.json.gz"))


@pytest.fixture(scope="module", params=RELEASED, ids=lambda path: path.name.partition(".")[0])
def updated(request: pytest.FixtureRequest) -> Iterator[tuple[Stack, Released]]:
    local = LocalStack(f"released-{os.getpid()}")
    try:
        stack = Stack(local.start("loopback", SourceUrls(), 0, print))
        released = released_data.read_file(request.param)
        released_data.load(stack, released)
        yield stack, released
    finally:
        local.stop()


def get(stack: Stack, path: str) -> requests.Response:
    response = stack.http.get(f"{stack.state.api_url}{path}", timeout=30)
    assert response.status_code == 200, response.text
    return response


def test_models_and_tasks_are_those_of_the_released_version(updated: tuple[Stack, Released]) -> None:
    stack, released = updated
    assert {model["source"] for model in released.models.values()} == {"HUGGINGFACE", "GITHUB", "LOCAL"}
    assert {model["model_id"] for model in get(stack, "/models").json()["models"]} == released.models.keys()
    names = {old: stack.state.outputs[name] for name, old in released.outputs.items()}
    shown = {model_id: released_data.read_model(stack, model_id) for model_id in released.models}
    shown |= {task_id: stack.read_task(task_id) for task_id in released.tasks}
    for name, record in {**released.models, **released.tasks}.items():
        # A new version may add fields.
        assert {key: shown[name][key] for key in record} == rename(record, names)


def rename(value: Any, names: dict[str, str]) -> Any:
    """Return a recorded response with the names of the stack's buckets."""
    match value:
        case str() if value.startswith("s3://"):
            bucket, _, key = value.removeprefix("s3://").partition("/")
            return f"s3://{names[bucket]}/{key}"
        case dict():
            return {key: rename(item, names) for key, item in value.items()}
        case list():
            return [rename(item, names) for item in value]
    return value


def test_files_are_read(updated: tuple[Stack, Released]) -> None:
    stack, released = updated
    for model_id in released.models:
        manifest = json.loads(stack.read_object(f"manifests/{model_id}.json"))
        objects = released.objects["ModelsBucket"]
        recorded = [file for file in manifest["files"] if manifest["prefix"] + file["path"] in objects]
        assert recorded
        for file in recorded:
            content = get(stack, f"/models/{model_id}/files/{file['path']}").content
            assert hashlib.sha256(content).hexdigest() == file["sha256"]


def test_hub_clients_use_the_released_key(updated: tuple[Stack, Released]) -> None:
    stack, released = updated
    headers = {"Authorization": f"Bearer {released.key}"}
    for model in released.models.values():
        url = f"{stack.state.hub_url}/api/models/{model['hub_id']}"
        response = requests.get(url, headers=headers, timeout=30)
        assert response.status_code == 200, response.text
        assert response.json()["id"] == model["hub_id"]


def test_a_released_model_is_a_conflict_and_its_content_is_reused(updated: tuple[Stack, Released]) -> None:
    stack, _ = updated
    assert stack.submit(SMALL).status_code == 409
    url = f"{stack.state.api_url}/upload/local"
    files = {"file": ("models.zip", released_data.build_archive(b"another archive"), "application/zip")}
    response = stack.http.post(url, params={"model_name": "released/again"}, files=files, timeout=120)
    assert response.status_code == 201, response.text
    task = stack.wait_for_end(response.links["status"]["url"].rpartition("/")[2])
    assert task["task_status"] == "DONE", task
    assert task["progress"]["bytes_reused"] >= WEIGHTS


def test_released_models_are_deleted(updated: tuple[Stack, Released]) -> None:
    stack, released = updated
    for model_id, model in released.models.items():
        response = stack.http.delete(f"{stack.state.api_url}/models/{model_id}", timeout=60)
        assert response.status_code == 204, response.text
        assert stack.list_keys(model["location"].split("/", 3)[3]) == []
        assert stack.list_keys(f"manifests/{model_id}") == []
    assert not {model["model_id"] for model in get(stack, "/models").json()["models"]} & released.models.keys()
