"""Downloads by Hub clients that are interrupted, parallel, or overtaken by changes of the model."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.hub_clients.environments import NEW, OLD, ClientError, HubAccess, PythonClient
from tests.hub_clients.s3_stand_in import S3StandIn
from tests.stack.conftest import Stack, wait_until
from tests.stack.hub_models import ImportedModels, list_digests
from tests.upstream.remote import RemoteUpstream
from tests.upstream.repositories import HUB_CLIENTS, MOVING, REMOVED

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

# The clients write what they received in steps of 10 MB.
RECEIVED = 15_000_000
WRITTEN = 10 * 1024 * 1024


@pytest.fixture
def access(stack: Stack, read_key: str, tmp_path: Path, hub_models: ImportedModels) -> HubAccess:
    return HubAccess(stack.state.hub_url, read_key, tmp_path)


@pytest.fixture
def client(access: HubAccess) -> Iterator[PythonClient]:
    with PythonClient(NEW, access) as client:
        yield client


@pytest.mark.parametrize("version", [OLD, NEW])
def test_a_download_continues_after_a_broken_connection(
    version: str, access: HubAccess, hub_models: ImportedModels, s3_stand_in: S3StandIn
) -> None:
    s3_stand_in.clear_requests()
    with PythonClient(version, access) as client, s3_stand_in.stall("model.safetensors", RECEIVED) as stall:
        client.start("download_file", repo_id=HUB_CLIENTS, filename="model.safetensors")
        stall.wait_until_reached()
        wait_for_incomplete_file(access)
        stall.break_connections()
        try:
            path = client.wait()
        except ClientError:
            # The oldest client leaves it to the next call.
            path = client.call("download_file", repo_id=HUB_CLIENTS, filename="model.safetensors")
    assert Path(path).read_bytes() == hub_models.get_content(HUB_CLIENTS, "model.safetensors")
    assert [request.range for request in s3_stand_in.requests] == [None, f"bytes={WRITTEN}-"]


# The newest client resumes within a process only.
@pytest.mark.parametrize(("version", "resumed"), [(OLD, f"bytes={WRITTEN}-"), (NEW, None)])
def test_a_download_is_repeated_after_the_client_was_killed(
    version: str, resumed: str | None, access: HubAccess, hub_models: ImportedModels, s3_stand_in: S3StandIn
) -> None:
    s3_stand_in.clear_requests()
    with PythonClient(version, access) as client, s3_stand_in.stall("model.safetensors", RECEIVED) as stall:
        client.start("download_snapshot", repo_id=HUB_CLIENTS, allow_patterns="*.safetensors")
        stall.wait_until_reached()
        wait_for_incomplete_file(access)
        client.kill()
    with PythonClient(version, access) as client:
        folder = client.call("download_snapshot", repo_id=HUB_CLIENTS, allow_patterns="*.safetensors")
    content = (Path(folder) / "model.safetensors").read_bytes()
    assert content == hub_models.get_content(HUB_CLIENTS, "model.safetensors")
    assert [request.range for request in s3_stand_in.requests] == [None, resumed]


def test_eight_clients_download_the_same_model(
    access: HubAccess, hub_models: ImportedModels, s3_stand_in: S3StandIn
) -> None:
    s3_stand_in.clear_requests()
    with ExitStack() as processes:
        clients = [processes.enter_context(PythonClient(NEW, access)) for _ in range(8)]
        for client in clients:
            client.start("download_snapshot", repo_id=HUB_CLIENTS, max_workers=1)
        (folder,) = {client.wait() for client in clients}
    assert list_digests(folder) == hub_models.list_digests(HUB_CLIENTS)
    assert {request.status for request in s3_stand_in.requests} == {200}


def test_a_snapshot_is_one_commit_although_the_branch_moves(
    stack: Stack, hub: RemoteUpstream, client: PythonClient, hub_models: ImportedModels, s3_stand_in: S3StandIn
) -> None:
    with s3_stand_in.stall("tokenizer.json", 0) as stall:
        client.start("download_snapshot", repo_id=MOVING)
        stall.wait_until_reached()
        hub.move_branch(MOVING, "main", "next")
        stack.import_model(MOVING)
    folder = client.wait()
    assert Path(folder).name == hub_models.get_commit(MOVING)
    assert list_digests(folder) == hub_models.list_digests(MOVING)
    following = client.call("download_snapshot", repo_id=MOVING)
    assert Path(following).name == hub_models.get_commit(MOVING, "next")
    assert list_digests(following) == hub_models.list_digests(MOVING, "next")
    assert client.call("list_revisions", repo_id=MOVING) == {"main": hub_models.get_commit(MOVING, "next")}


def test_a_model_that_is_deleted_during_a_download(
    stack: Stack, client: PythonClient, hub_models: ImportedModels, s3_stand_in: S3StandIn
) -> None:
    model_id = hub_models.records[REMOVED]["model_id"]
    with s3_stand_in.stall("", 0) as stall:
        client.start("download_snapshot", repo_id=REMOVED)
        stall.wait_until_reached()
        deleted = stack.http.delete(f"{stack.state.api_url}/models/{model_id}", timeout=30)
        assert deleted.status_code == 204, deleted.text
        stack.wait_until(lambda: not stack.list_keys(f"models/huggingface/{REMOVED}/"))
    with pytest.raises(ClientError):
        client.wait()
    folders = (client.access.home / "hub" / "hub").glob("models--*/snapshots/*")
    found = {path: digest for folder in folders for path, digest in list_digests(folder).items()}
    assert found.items() < hub_models.list_digests(REMOVED).items()
    with pytest.raises(ClientError) as caught:
        client.call("read_info", repo_id=REMOVED)
    assert "RepositoryNotFoundError" in caught.value.bases


def wait_for_incomplete_file(access: HubAccess) -> None:
    """Return when a client wrote the first step of a file."""

    def is_written() -> bool:
        sizes = [path.stat().st_size for path in (access.home / "hub" / "hub").rglob("*.incomplete")]
        return WRITTEN in sizes

    wait_until(is_written, access.home)
