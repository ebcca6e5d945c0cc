"""Real Hub clients with a read key that is limited to names: other models do not exist for them."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import requests

from tests.hub_clients.environments import NEW, OLD, ClientError, HubAccess, PythonClient, run_hf, run_node
from tests.hub_clients.replayed import HfHubRust, LlamaCpp
from tests.stack.conftest import Stack
from tests.stack.hub_models import ImportedModels, list_digests
from tests.upstream.repositories import HUB_CLIENTS, HUB_CLIENTS_OLD_NAME, MOVING, ON_REQUEST

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

ARCHIVE_ID = "archive.local/hub__few"
NAMES = [HUB_CLIENTS.upper(), "archive.local/*__few"]
MISSING = "nobody/nothing"

type OpenAccess = Callable[[], HubAccess]


@pytest.fixture(scope="module")
def limited_key(stack: Stack, hub_models: ImportedModels) -> str:
    created = stack.create_key("limited", names=NAMES, scopes=["read", "import"])
    assert created["names"] == NAMES
    key: str = created["key"]
    return key


@pytest.fixture(scope="module")
def open_access(stack: Stack, limited_key: str, tmp_path_factory: pytest.TempPathFactory) -> OpenAccess:
    """Return access to the stack with a new home folder."""
    return lambda: HubAccess(stack.state.hub_url, limited_key, tmp_path_factory.mktemp("home"))


def ask(stack: Stack, path: str, key: str) -> requests.Response:
    headers = {"Authorization": f"Bearer {key}"}
    return requests.get(f"{stack.state.hub_url}/{path}", headers=headers, timeout=60, allow_redirects=False)


def list_newest_tasks(stack: Stack) -> list[str]:
    response = stack.http.get(f"{stack.state.api_url}/upload/tasks", params={"limit": 100}, timeout=30)
    return [task["id"] for task in response.json()["tasks"]]


@pytest.mark.parametrize("version", [OLD, NEW])
def test_python_reads_only_permitted_models(version: str, open_access: OpenAccess, hub_models: ImportedModels) -> None:
    calls: list[tuple[str, dict[str, Any]]] = [
        ("read_info", {}),
        ("list_revisions", {}),
        ("list_tree", {}),
        ("read_paths_info", {"paths": ["config.json"]}),
        ("download_file", {"filename": "config.json"}),
        ("download_snapshot", {}),
    ]
    with PythonClient(version, open_access()) as client:
        folder = client.call("download_snapshot", repo_id=HUB_CLIENTS)
        assert list_digests(folder) == hub_models.list_digests(HUB_CLIENTS)
        assert sorted(client.call("list_models")) == sorted([HUB_CLIENTS, ARCHIVE_ID])
        assert client.call("list_models", search="moving") == []
        for operation, options in calls:
            for name in (MOVING, MISSING, HUB_CLIENTS_OLD_NAME):
                with pytest.raises(ClientError) as caught:
                    client.call(operation, repo_id=name, **options)
                assert "RepositoryNotFoundError" in caught.value.bases
        with pytest.raises(ClientError, match=f"The read key cannot read {MOVING}"):
            client.call("read_info", repo_id=MOVING)


def test_the_command(open_access: OpenAccess) -> None:
    access = open_access()
    listed = json.loads(run_hf(NEW, access, "models", "ls", "--json"))
    assert {model["id"] for model in listed} == {HUB_CLIENTS, ARCHIVE_ID}
    printed = run_hf(NEW, access, "download", MOVING, code=1)
    assert "not found" in printed.lower()
    assert printed.replace(MOVING, MISSING) == run_hf(NEW, access, "download", MISSING, code=1)


def test_the_javascript_client(open_access: OpenAccess, hub_models: ImportedModels) -> None:
    found = json.loads(run_node(open_access(), "node_client.mjs", ARCHIVE_ID, "config.json", MOVING).splitlines()[-1])
    assert found["exists"]
    assert found["wrongModel"]["status"] == 404
    assert f"cannot read {MOVING}" in found["wrongModel"]["message"]


def test_the_requests_of_other_clients(stack: Stack, limited_key: str, hub_models: ImportedModels) -> None:
    for client in (HfHubRust(stack.state.hub_url, limited_key), LlamaCpp(stack.state.hub_url, limited_key)):
        assert client.list_files(HUB_CLIENTS)
        with pytest.raises(requests.HTTPError) as caught:
            client.list_files(MOVING)
        assert caught.value.response.status_code == 404


def test_no_response_distinguishes_other_models_from_missing_ones(
    stack: Stack, limited_key: str, hub_models: ImportedModels
) -> None:
    for path in ("api/models/{}", "api/models/{}/refs", "api/models/{}/tree/main", "{}/resolve/main/config.json"):
        missing = ask(stack, path.format(MISSING), limited_key)
        assert (missing.status_code, missing.headers["X-Error-Code"]) == (404, "RepoNotFound")
        for name in (MOVING, HUB_CLIENTS_OLD_NAME):
            other = ask(stack, path.format(name), limited_key)
            assert other.status_code == 404
            assert other.text == missing.text.replace(MISSING, name)
            assert other.headers["X-Error-Code"] == "RepoNotFound"
    key = stack.create_key("both names", names=[HUB_CLIENTS, HUB_CLIENTS_OLD_NAME])["key"]
    moved = ask(stack, f"api/models/{HUB_CLIENTS_OLD_NAME}", key)
    assert (moved.status_code, moved.headers["Location"]) == (307, f"/hf/api/models/{HUB_CLIENTS}")


def test_no_import_of_another_model_starts(stack: Stack, limited_key: str) -> None:
    before = list_newest_tasks(stack)
    response = ask(stack, f"api/models/{ON_REQUEST}/revision/next", limited_key)
    assert (response.status_code, response.headers["X-Error-Code"]) == (404, "RepoNotFound")
    assert f"The read key cannot read {ON_REQUEST}" in response.json()["error"]
    assert list_newest_tasks(stack) == before


def test_the_names_of_a_key_are_listed(stack: Stack, limited_key: str, read_key: str) -> None:
    keys = stack.http.get(f"{stack.state.api_url}/keys", timeout=30).json()["keys"]
    found = {key["name"]: key["names"] for key in keys}
    assert (found["limited"], found["clients"]) == (NAMES, ["*"])
