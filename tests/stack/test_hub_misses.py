"""Requests of Hub clients for models that are not imported, with HubOnMiss=IMPORT and REDIRECT."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from tests.hub_clients.environments import NEW, HubAccess, PythonClient
from tests.hub_clients.s3_stand_in import S3StandIn
from tests.stack.conftest import Stack, wait_until
from tests.stack.hub_models import list_digests
from tests.upstream.remote import RemoteUpstream
from tests.upstream.repositories import ON_REDIRECT, ON_REQUEST, build_two_branches

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

# Each concurrent request starts a process of the local stack.
CLIENTS = 3


@pytest.fixture(scope="module")
def import_key(stack: Stack) -> str:
    key: str = stack.create_key("importers", scopes=["read", "import"])["key"]
    return key


@pytest.fixture
def redirecting(stack: Stack) -> Iterator[None]:
    """HubOnMiss=REDIRECT. The functions and their permissions are those of HubOnMiss=IMPORT."""
    name = stack.state.outputs["ReadHubFunction"]
    variables = stack.functions.get_function_configuration(FunctionName=name)["Environment"]["Variables"]

    def set_policy(policy: str) -> None:
        changed = {**variables, "HUB_ON_MISS": policy}
        stack.functions.update_function_configuration(FunctionName=name, Environment={"Variables": changed})

    set_policy("REDIRECT")
    yield
    set_policy(variables["HUB_ON_MISS"])


def request_info(stack: Stack, name: str, key: str) -> requests.Response:
    url = f"{stack.state.hub_url}/api/models/{name}"
    headers = {"Authorization": f"Bearer {key}"}
    return requests.get(url, headers=headers, timeout=60, allow_redirects=False)


def list_tasks(stack: Stack, name: str) -> list[str]:
    response = stack.http.get(f"{stack.state.api_url}/upload/tasks", params={"limit": 100}, timeout=30)
    return [task["id"] for task in response.json()["tasks"] if task["model_tag"].startswith(f"{name}@")]


def list_branch(name: str, branch: str) -> dict[str, str]:
    repository = build_two_branches(name)
    files = repository.commits[repository.branches[branch]].files
    return {path: file.sha256 for path, file in files.items()}


def test_a_requested_model_is_imported_once(
    stack: Stack, import_key: str, read_key: str, s3_stand_in: S3StandIn, tmp_path: Path
) -> None:
    refused = request_info(stack, ON_REQUEST, read_key)
    assert (refused.status_code, refused.headers["X-Error-Code"]) == (404, "RepoNotFound")
    assert "does not have the scope 'import'" in refused.json()["error"]
    assert list_tasks(stack, ON_REQUEST) == []
    with stack.pause_consumer("PlanQueue"), ThreadPoolExecutor(CLIENTS) as pool:
        responses = list(pool.map(lambda _: request_info(stack, ON_REQUEST, import_key), range(CLIENTS)))
        assert {response.status_code for response in responses} == {503}
        for response in responses:
            assert int(response.headers["Retry-After"]) > 0
            assert f"{ON_REQUEST} at main is being imported" in response.headers["X-Error-Message"]
        (task_id,) = list_tasks(stack, ON_REQUEST)
    assert stack.wait_for_end(task_id)["task_status"] == "DONE"
    wait_until(lambda: request_info(stack, ON_REQUEST, import_key).status_code == 200)
    with PythonClient(NEW, HubAccess(stack.state.hub_url, read_key, tmp_path)) as client:
        folder = client.call("download_snapshot", repo_id=ON_REQUEST)
    assert list_digests(folder) == list_branch(ON_REQUEST, "main")


@pytest.mark.usefixtures("redirecting")
def test_a_client_reads_from_the_hub_until_the_model_is_imported(
    stack: Stack, hub: RemoteUpstream, import_key: str, s3_stand_in: S3StandIn, tmp_path: Path
) -> None:
    access = HubAccess(stack.state.hub_url, import_key, tmp_path)
    with stack.pause_consumer("PlanQueue"), PythonClient(NEW, access) as client:
        s3_stand_in.clear_requests()
        folder = client.call("download_snapshot", repo_id=ON_REDIRECT)
        assert list_digests(folder) == list_branch(ON_REDIRECT, "main")
        assert s3_stand_in.requests == []
        info = request_info(stack, ON_REDIRECT, import_key)
        assert (info.status_code, info.headers["X-Modelhaul-Inspected"]) == (200, "false")
        assert {sibling["rfilename"] for sibling in info.json()["siblings"]} == list_branch(ON_REDIRECT, "main").keys()
        (task_id,) = list_tasks(stack, ON_REDIRECT)
    assert [record for record in hub.requests if record.authorized] == []
    assert stack.wait_for_end(task_id)["task_status"] == "DONE"
    wait_until(lambda: "X-Modelhaul-Inspected" not in request_info(stack, ON_REDIRECT, import_key).headers)
