"""Real Hub clients read imported models from the deployed stack, behind a stand-in for S3."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.hub_clients.environments import NEW, OLD, ClientError, HubAccess, PythonClient, run_hf, run_node, run_program
from tests.hub_clients.replayed import HfHubRust, LlamaCpp
from tests.hub_clients.s3_stand_in import S3StandIn
from tests.stack.conftest import Stack
from tests.stack.hub_models import ARCHIVE, PARTS, THOUSAND, ImportedModels, list_digests
from tests.upstream.faults import Fault, FaultKind
from tests.upstream.remote import RemoteUpstream
from tests.upstream.repositories import (
    HUB_CLIENTS,
    HUB_CLIENTS_OLD_NAME,
    MINILM,
    build_github_small,
    list_minilm_files,
)

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

ARCHIVE_ID = "archive.local/hub__few"
WRONG_KEY = "hf_" + "x" * 40

type OpenAccess = Callable[..., HubAccess]


def compute_digests(files: Mapping[str, bytes]) -> dict[str, str]:
    return {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}


@pytest.fixture(scope="module")
def open_access(stack: Stack, read_key: str, tmp_path_factory: pytest.TempPathFactory) -> OpenAccess:
    """Return access to the stack with a new home folder."""

    def open_access(key: str | None = read_key) -> HubAccess:
        return HubAccess(stack.state.hub_url, key, tmp_path_factory.mktemp("home"))

    return open_access


@pytest.fixture(scope="module", params=[OLD, NEW])
def version(request: pytest.FixtureRequest) -> str:
    """The environment of a Python client."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def client(version: str, open_access: OpenAccess, hub_models: ImportedModels) -> Iterator[PythonClient]:
    with PythonClient(version, open_access()) as client:
        yield client


class TestSnapshots:
    def test_a_snapshot_is_the_whole_model(self, client: PythonClient, hub_models: ImportedModels) -> None:
        folder = client.call("download_snapshot", repo_id=HUB_CLIENTS)
        assert Path(folder).name == hub_models.get_commit(HUB_CLIENTS)
        assert list_digests(folder) == hub_models.list_digests(HUB_CLIENTS)

    def test_a_local_folder_with_patterns(
        self, client: PythonClient, hub_models: ImportedModels, tmp_path: Path
    ) -> None:
        client.call("download_snapshot", repo_id=HUB_CLIENTS, local_dir=str(tmp_path), allow_patterns=["*.json", "e*"])
        expected = hub_models.list_digests(HUB_CLIENTS)
        assert list_digests(tmp_path) == {
            path: expected[path] for path in ("config.json", "empty.txt", "tokenizer.json")
        }

    def test_a_thousand_files(self, open_access: OpenAccess, hub_models: ImportedModels) -> None:
        expected = compute_digests(THOUSAND)
        with PythonClient(NEW, open_access()) as client:
            tree = client.call("list_tree", repo_id="archive.local/hub__thousand", recursive=True)
            assert {path for path, size in tree.items() if size is not None} == set(expected)
            # All 1,000 would take the local stack about 40 s.
            folder = client.call(
                "download_snapshot", repo_id="archive.local/hub__thousand", allow_patterns="data/[0-1]/*"
            )
        assert len(expected) == 1000
        downloaded = {path: digest for path, digest in expected.items() if path.startswith(("data/0/", "data/1/"))}
        assert list_digests(folder) == downloaded
        assert len(downloaded) > 190

    def test_parts_are_one_model(self, client: PythonClient, hub_models: ImportedModels) -> None:
        folder = client.call("download_snapshot", repo_id=HUB_CLIENTS, revision="next")
        whole = hub_models.list_digests(HUB_CLIENTS, "next")
        assert list_digests(folder) == {path: whole[path] for part in PARTS for path in sorted(part)}

    def test_a_model_of_an_archive(self, client: PythonClient, hub_models: ImportedModels) -> None:
        assert ARCHIVE_ID in hub_models.records
        assert list_digests(client.call("download_snapshot", repo_id=ARCHIVE_ID)) == compute_digests(ARCHIVE)

    def test_a_model_of_github_by_branch_and_tag(
        self, stack: Stack, client: PythonClient, hub_models: ImportedModels
    ) -> None:
        name = f"github.{HUB_CLIENTS}"
        if name not in hub_models.records:
            pytest.skip("the loopback GitHub needs git and git-lfs (`make setup` says why)")
        folder = client.call("download_snapshot", repo_id=name, revision="feature/x")
        files = {path: data for path, data in build_github_small(HUB_CLIENTS).items() if isinstance(data, bytes)}
        assert list_digests(folder).items() >= compute_digests(files).items()
        # The tag is of the same commit.
        assert stack.submit_repository(HUB_CLIENTS, "v1").status_code == 409
        assert client.call("download_snapshot", repo_id=name, revision="v1") == folder


class TestFiles:
    @pytest.mark.parametrize("name", [HUB_CLIENTS, HUB_CLIENTS.title(), HUB_CLIENTS_OLD_NAME])
    def test_a_file_by_any_name_of_the_model(self, client: PythonClient, hub_models: ImportedModels, name: str) -> None:
        path = client.call("download_file", repo_id=name, filename="config.json")
        assert Path(path).parent.name == hub_models.get_commit(HUB_CLIENTS)
        assert Path(path).read_bytes() == hub_models.get_content(HUB_CLIENTS, "config.json")

    def test_a_file_of_each_kind_of_revision(self, client: PythonClient, hub_models: ImportedModels) -> None:
        for branch in ("main", "next"):
            commit = hub_models.get_commit(HUB_CLIENTS, branch)
            for revision in (branch, commit, commit[:7], commit[:12]):
                path = client.call("download_file", repo_id=HUB_CLIENTS, filename="config.json", revision=revision)
                assert Path(path).parent.name == commit
                assert Path(path).read_bytes() == hub_models.get_content(HUB_CLIENTS, "config.json", branch)

    def test_a_file_is_read_from_the_cache_offline(self, version: str, client: PythonClient) -> None:
        path = client.call("download_file", repo_id=HUB_CLIENTS, filename="tokenizer.json")
        with PythonClient(version, client.access, {"HF_HUB_OFFLINE": "1"}) as offline:
            assert offline.call("download_file", repo_id=HUB_CLIENTS, filename="tokenizer.json") == path

    def test_an_absent_file_is_remembered(self, client: PythonClient) -> None:
        file = {"repo_id": HUB_CLIENTS, "filename": "absent.json"}
        assert client.call("find_cached", **file) is None
        with pytest.raises(ClientError) as caught:
            client.call("download_file", **file)
        assert "EntryNotFoundError" in caught.value.bases
        assert client.call("find_cached", **file) is False

    def test_the_file_system(self, client: PythonClient, hub_models: ImportedModels) -> None:
        assert f"{HUB_CLIENTS}/names/of files #" in client.call("list_folder", path=f"{HUB_CLIENTS}/names")
        found = client.call("find_files", pattern=f"{HUB_CLIENTS}/**/*.txt")
        files = hub_models.list_digests(HUB_CLIENTS)
        assert found == sorted(f"{HUB_CLIENTS}/{path}" for path in files if path.endswith(".txt"))
        content = hub_models.get_content(HUB_CLIENTS, "model.safetensors")
        start = len(content) // 2
        part = client.call("read_part", path=f"{HUB_CLIENTS}/model.safetensors", start=start, size=5000)
        assert bytes.fromhex(part) == content[start : start + 5000]
        part = client.call("read_part", path=f"{HUB_CLIENTS}@next/config.json", start=0, size=5000)
        assert bytes.fromhex(part) == hub_models.get_content(HUB_CLIENTS, "config.json", "next")


class TestMetadata:
    def test_a_model(self, client: PythonClient, hub_models: ImportedModels) -> None:
        info = client.call("read_info", repo_id=HUB_CLIENTS)
        assert info == {
            "id": HUB_CLIENTS,
            "sha": hub_models.get_commit(HUB_CLIENTS),
            "files": sorted(hub_models.list_digests(HUB_CLIENTS)),
            "private": False,
            "gated": False,
        }
        following = client.call("read_info", repo_id=HUB_CLIENTS, revision="next", files_metadata=True)
        assert following["sha"] == hub_models.get_commit(HUB_CLIENTS, "next")
        assert following["files"] == sorted(path for part in PARTS for path in part)

    def test_revisions(self, client: PythonClient, hub_models: ImportedModels) -> None:
        revisions = client.call("list_revisions", repo_id=HUB_CLIENTS)
        assert revisions == {branch: hub_models.get_commit(HUB_CLIENTS, branch) for branch in ("main", "next")}

    def test_folders_and_paths(self, client: PythonClient, hub_models: ImportedModels) -> None:
        root = client.call("list_tree", repo_id=HUB_CLIENTS)
        assert root["names"] is None
        assert root["empty.txt"] == 0
        assert "nested/large" not in root
        names = client.call("list_tree", repo_id=HUB_CLIENTS, path_in_repo="names/of files #", expand=True)
        expected = {path for path in hub_models.list_digests(HUB_CLIENTS) if path.startswith("names/")}
        assert set(names) == expected
        asked = [*sorted(expected), "nested", "absent"]
        found = client.call("read_paths_info", repo_id=HUB_CLIENTS, paths=asked, expand=True)
        assert sorted(found) == sorted({*expected, "nested"})

    def test_searches(self, client: PythonClient) -> None:
        assert client.call("list_models", search="HUB-clients", author="tests") == [HUB_CLIENTS]
        assert len(client.call("list_models", limit=1)) == 1
        assert client.call("list_models", search="nothing-has-this-name") == []

    def test_the_account_is_the_key(self, client: PythonClient) -> None:
        assert client.call("read_account") == "clients"


class TestErrors:
    @pytest.mark.parametrize(
        ("operation", "options", "error"),
        [
            ("read_info", {"repo_id": "nobody/nothing"}, "RepositoryNotFoundError"),
            ("download_file", {"repo_id": "nobody/nothing", "filename": "config.json"}, "RepositoryNotFoundError"),
            ("read_info", {"repo_id": HUB_CLIENTS, "revision": "absent"}, "RevisionNotFoundError"),
            ("download_snapshot", {"repo_id": HUB_CLIENTS, "revision": "absent"}, "RevisionNotFoundError"),
            ("list_tree", {"repo_id": HUB_CLIENTS, "path_in_repo": "absent"}, "EntryNotFoundError"),
        ],
    )
    def test_what_is_missing(self, client: PythonClient, operation: str, options: dict[str, Any], error: str) -> None:
        with pytest.raises(ClientError) as caught:
            client.call(operation, **options)
        assert error in caught.value.bases

    def test_a_missing_model_says_how_to_import_it(self, client: PythonClient) -> None:
        with pytest.raises(ClientError, match=r"nobody/nothing.*import"):
            client.call("read_info", repo_id="nobody/nothing")

    def test_wrong_and_revoked_keys(self, stack: Stack, version: str, open_access: OpenAccess) -> None:
        revoked = stack.create_key("revoked")
        deleted = stack.http.delete(f"{stack.state.api_url}/keys/{revoked['key_id']}", timeout=30)
        assert deleted.status_code == 204
        for key in (WRONG_KEY, revoked["key"]):
            with PythonClient(version, open_access(key)) as client:
                for operation in ("read_info", "download_snapshot"):
                    with pytest.raises(ClientError, match="Invalid credentials in Authorization header"):
                        client.call(operation, repo_id=HUB_CLIENTS)


def test_the_command(version: str, open_access: OpenAccess, hub_models: ImportedModels, read_key: str) -> None:
    access = open_access(None)
    message = run_hf(version, access, "auth", "login", "--token", WRONG_KEY, code=1)
    assert "nvalid" in message
    run_hf(version, access, "auth", "login", "--token", read_key)
    assert "clients" in run_hf(version, access, "auth", "whoami")
    printed = run_hf(version, access, "download", HUB_CLIENTS)
    (folder,) = (access.home / "hub" / "hub").glob("models--*/snapshots/*")
    assert str(folder) in printed
    assert list_digests(folder) == hub_models.list_digests(HUB_CLIENTS)
    if version == NEW:
        verified = run_hf(version, access, "cache", "verify", HUB_CLIENTS, "--fail-on-missing-files", "--json")
        assert json.loads(verified)["checked"] == len(hub_models.list_digests(HUB_CLIENTS))
        models = json.loads(run_hf(version, access, "models", "ls", "--author", "tests", "--json"))
        assert HUB_CLIENTS in [model["id"] for model in models]
        (folder / "config.json").write_bytes(b"{}")
        assert "config.json" in run_hf(version, access, "cache", "verify", HUB_CLIENTS, code=1)


def test_the_javascript_client(open_access: OpenAccess, hub_models: ImportedModels) -> None:
    path = "model.safetensors"
    found = json.loads(run_node(open_access(), "node_client.mjs", ARCHIVE_ID, path).splitlines()[-1])
    digests = compute_digests(ARCHIVE)
    assert found["files"] == {path: len(content) for path, content in ARCHIVE.items()}
    assert found["snapshot"] == digests
    assert Path(found["folder"]).name == found["sha"]
    assert found["downloaded"] == digests[path]
    assert (found["exists"], found["existsNot"], found["absent"]) == (True, False, None)
    assert found["account"] == "clients"
    assert found["wrongKey"]["status"] == 401
    assert "read key is unknown" in found["wrongKey"]["message"]
    assert found["wrongModel"]["status"] == 404


def test_transformers_computes_the_same_embedding(open_access: OpenAccess, minilm: dict[str, Any]) -> None:
    assert minilm["task_status"] == "DONE"
    folder = list_minilm_files()["config.json"].parent
    printed = run_program(NEW, open_access(), "embed_minilm.py", "A cat sits on the mat.", MINILM, str(folder))
    embedding, expected = json.loads(printed)
    assert embedding == expected
    assert len(embedding) == 384
    assert np.linalg.norm(embedding) == pytest.approx(1)


def test_the_requests_of_hf_hub_in_rust(
    stack: Stack, read_key: str, hub_models: ImportedModels, s3_stand_in: S3StandIn
) -> None:
    client = HfHubRust(stack.state.hub_url, read_key)
    assert sorted(client.list_files(HUB_CLIENTS)) == sorted(hub_models.list_digests(HUB_CLIENTS))
    s3_stand_in.clear_requests()
    for path in ("model.safetensors", "config.json"):
        file = client.load(HUB_CLIENTS, path)
        assert file.content == hub_models.get_content(HUB_CLIENTS, path)
        assert file.commit == hub_models.get_commit(HUB_CLIENTS)
    ranges = [(request.range, request.status) for request in s3_stand_in.requests]
    assert ranges[0] == ("bytes=0-9999999", 206)
    assert len(ranges) == 4


def test_the_requests_of_llama_cpp(stack: Stack, read_key: str, hub_models: ImportedModels) -> None:
    client = LlamaCpp(stack.state.hub_url, read_key)
    commit, digests = client.list_files(HUB_CLIENTS)
    files = hub_models.repositories[HUB_CLIENTS].commits[commit].files
    assert digests == {path: file.sha256 if file.is_lfs else file.oid for path, file in files.items()}
    for path in ("model.safetensors", "config.json"):
        content = hub_models.get_content(HUB_CLIENTS, path)
        file = client.load(HUB_CLIENTS, commit, path)
        assert (file.content, file.etag) == (content, digests[path])
        half = content[: len(content) // 2]
        assert client.load(HUB_CLIENTS, commit, path, downloaded=half).content == content


def test_reading_needs_no_hub(hub: RemoteUpstream, open_access: OpenAccess, hub_models: ImportedModels) -> None:
    """The loopback Hub counts its requests, and responds with 503."""
    for origin in ("api", "resolve", "cdn"):
        hub.add_fault(Fault(kind=FaultKind.SERVER_ERROR, origin=origin))
    with PythonClient(NEW, open_access()) as client:
        folder = client.call("download_snapshot", repo_id=HUB_CLIENTS_OLD_NAME)
        assert list_digests(folder) == hub_models.list_digests(HUB_CLIENTS)
        client.call("list_revisions", repo_id=HUB_CLIENTS)
        client.call("list_models", search="clients")
        client.call("download_file", repo_id=HUB_CLIENTS, filename="config.json", revision="next")
        with pytest.raises(ClientError):
            client.call("download_file", repo_id=HUB_CLIENTS, filename="absent.json")
        with pytest.raises(ClientError):
            client.call("read_info", repo_id="nobody/nothing")
    assert hub.requests == []
