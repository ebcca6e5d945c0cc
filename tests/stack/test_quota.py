"""A stack with a small StorageQuotaGB, and with the policies of its functions enforced."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from local.sources import SourceUrls
from local.stack import LocalStack, StackState
from tests.archives.zipping import zip_models
from tests.stack.conftest import allow_batches, change_parameters, open_client, wait_until
from tests.upstream.repositories import MINILM

# Its first test starts a stack.
pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]


class Api:
    """The API of the stack, whose URL changes with each update."""

    def __init__(self, state: StackState) -> None:
        self.state = state
        self._http = requests.Session()
        self._http.headers["x-api-key"] = state.api_key

    def send(self, method: str, path: str, **content: Any) -> requests.Response:
        cloudformation = open_client(self.state, "cloudformation")
        found = cloudformation.describe_stack_resource(StackName=self.state.stack_name, LogicalResourceId="Api")
        api_id = found["StackResourceDetail"]["PhysicalResourceId"]
        url = f"{self.state.aws_endpoint_url}/_aws/execute-api/{api_id}/v1{path}"
        return self._http.request(method, url, timeout=60, **content)

    def read_usage(self) -> dict[str, Any]:
        answer = self.send("GET", "/usage")
        assert answer.status_code == 200, answer.text
        usage: dict[str, Any] = answer.json()
        return usage

    def post(self, name: str) -> requests.Response:
        """Import an archive, always with the same content."""
        files = {"file": ("models.zip", zip_models(""), "application/zip")}
        return self.send("POST", "/upload/local", params={"model_name": name}, files=files)

    def wait(self, answer: requests.Response) -> dict[str, Any]:
        """Return the task as it ended."""
        assert answer.status_code == 201, answer.text
        location = answer.links["status"]["url"] if answer.links else answer.headers["Location"]
        seen: list[dict[str, Any]] = []

        def has_ended() -> bool:
            seen[:] = [self.send("GET", location.removeprefix("/v1")).json()]
            return bool(seen[0]["task_status"] != "PENDING")

        wait_until(has_ended, seen)
        return seen[0]


def set_quota(state: StackState, size: int) -> None:
    change_parameters(state, StorageQuotaGB=f"{size / 10**9:.9f}")
    allow_batches(state)


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    local = LocalStack(f"quota-{os.getpid()}")
    try:
        parameters = {"StorageQuotaGB": 0}
        state = local.start("loopback", SourceUrls(), 0, print, parameters=parameters, enforce_iam=True)
        allow_batches(state)
        yield Api(state)
    finally:
        local.stop()


def test_a_quota_holds_for_simultaneous_imports_and_is_freed_by_deletions(api: Api) -> None:
    first = api.wait(api.post("quota/first"))
    assert first["task_status"] == "DONE", first
    usage = api.read_usage()
    size = usage["size"]
    assert (usage["models"], usage["quota"]) == (1, None)
    assert usage["by_name"] == [
        {"source": "LOCAL", "name": "quota/first", "models": 1, "size": size, "bytes_reused": 0}
    ]

    set_quota(api.state, 3 * size)
    with ThreadPoolExecutor(4) as pool:
        tasks = list(pool.map(lambda number: api.wait(api.post(f"quota/copy-{number}")), range(4)))
    done = [task for task in tasks if task["task_status"] == "DONE"]
    assert len(done) == 2, tasks
    for task in tasks:
        if task not in done:
            assert task["error"]["type"] == "storage-quota-exceeded", task
            assert "StorageQuotaGB" in task["error_msg"]

    usage = api.read_usage()
    assert usage["quota"] == {"size": 3 * size, "stored": 3 * size, "reserved": 0, "left": 0}
    assert usage["bytes_reused"] == sum(task["progress"]["bytes_reused"] for task in (first, *done))
    assert usage["by_source"][2]["models"] == 3
    for answer in (
        api.post("quota/refused"),
        api.send("POST", "/upload/huggingface", json={"model_tag": MINILM}),
        api.send("POST", "/upload/local", json={"file_name": "a.zip", "size": 10}),
    ):
        assert (answer.status_code, answer.json()["type"]) == (403, "urn:modelhaul:problem:storage-quota-exceeded")
    assert api.post("quota/first").status_code == 409, "an existing model is reported as such"

    (model,) = done[0]["models"]
    assert api.send("DELETE", f"/models/{model['model_id']}").status_code in (202, 204)
    again = api.wait(api.post("quota/again"))
    assert again["task_status"] == "DONE", again


def test_a_quota_below_what_is_stored_keeps_the_models(api: Api) -> None:
    stored = api.read_usage()["size"]
    assert stored > 1
    set_quota(api.state, 1)
    assert api.post("quota/late").status_code == 403
    usage = api.read_usage()
    assert (usage["size"], usage["quota"]["left"]) == (stored, 0)
