"""The loopback Hub as the `huggingface_hub` library sees it, and what else the tests of the Hub source rely on."""

import hashlib
import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from tests.upstream.content import CHUNK_SIZE, GeneratedContent, read_all
from tests.upstream.faults import Fault, FaultKind
from tests.upstream.hub import LoopbackHub
from tests.upstream.hub_repository import HubFile, HubRepository
from tests.upstream.repositories import (
    DISABLED,
    GATED,
    MINILM,
    PRIVATE,
    READER_TOKEN,
    SHARDED,
    add_standard_repositories,
    build_minilm,
)

REPO = "acme/model"
LARGE = GeneratedContent(3 * CHUNK_SIZE + 77, seed=5)
LARGE_BYTES = read_all(LARGE)
FIRST, LAST = 1000, 1000 + 2 * CHUNK_SIZE - 1
RANGE = f"bytes={FIRST}-{LAST}"
RESPONSE_HEADERS = ("Content-Range", "Content-Length", "Content-Encoding", "ETag")


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        hub.add_repository(HubRepository(REPO, {"main": {"weights.bin": HubFile(LARGE, lfs=True)}}))
        yield hub


def fetch(url: str, headers: dict[str, str]) -> tuple[int, dict[str, str | None], bytes | str]:
    """Return the status, some headers, and the body or the name of the error that ended it. Follows no redirect."""
    parts = urlsplit(url)
    with closing(HTTPConnection(parts.netloc, timeout=5)) as connection:
        connection.request("GET", f"{parts.path}?{parts.query}", headers=headers)
        response = connection.getresponse()
        found = {name: response.headers[name] for name in RESPONSE_HEADERS} | {"Location": response.headers["Location"]}
        try:
            return response.status, found, response.read()
        except (OSError, HTTPException) as error:
            return response.status, found, type(error).__name__


def sign(hub: LoopbackHub, headers: dict[str, str]) -> str:
    """Return the URL that the Hub signs for this range of the file."""
    status, found, _ = fetch(f"{hub.endpoint}/{REPO}/resolve/main/weights.bin", headers)
    location = found["Location"]
    assert status == 302
    assert location is not None
    return location


class TestCdn:
    """The library sends one range at most, and never a wrong one."""

    def test_signed_url_is_valid_for_its_range_only(self, hub: LoopbackHub) -> None:
        url = sign(hub, {"Range": RANGE})
        status, headers, body = fetch(url, {"Range": RANGE})
        assert (status, headers["Content-Range"]) == (206, f"bytes {FIRST}-{LAST}/{len(LARGE_BYTES)}")
        assert body == LARGE_BYTES[FIRST : LAST + 1]
        assert [fetch(url, headers)[0] for headers in ({}, {"Range": f"bytes={FIRST}-{LAST + 1}"})] == [403, 403]

    def test_token_is_refused(self, hub: LoopbackHub) -> None:
        assert fetch(sign(hub, {}), {"Authorization": "Bearer hf_x"})[0] == 400

    def test_expired_url_is_refused(self) -> None:
        with LoopbackHub(url_lifetime=0) as hub:
            hub.add_repository(HubRepository(REPO, {"main": {"weights.bin": HubFile(LARGE, lfs=True)}}))
            assert fetch(sign(hub, {}), {})[0] == 403


class TestFaults:
    """A fault without an effect would let the tests of the Hub source pass without it."""

    @pytest.mark.parametrize(
        ("kind", "options"),
        [
            (FaultKind.DROP, {"after_bytes": 1_500_001}),
            (FaultKind.STALL, {"after_bytes": 1000}),
            (FaultKind.RATE_LIMIT, {"retry_after": 7}),
            (FaultKind.SERVER_ERROR, {"status": 502}),
            (FaultKind.WRONG_BYTES, {"after_bytes": CHUNK_SIZE + 5}),
            (FaultKind.IGNORE_RANGE, {"framing": "length"}),
            (FaultKind.IGNORE_RANGE, {"framing": "chunked"}),
            (FaultKind.IGNORE_RANGE, {"framing": "until_close"}),
            (FaultKind.WRONG_CONTENT_RANGE, {}),
            (FaultKind.SHORT_ANSWER, {"by_bytes": 100}),
            (FaultKind.LONG_ANSWER, {"by_bytes": 100}),
            (FaultKind.WRONG_CONTENT_LENGTH, {"by_bytes": 10}),
            (FaultKind.WRONG_CONTENT_LENGTH, {"by_bytes": -10}),
            (FaultKind.CHANGED_ETAG, {}),
            (FaultKind.EXPIRED_URL, {}),
            (FaultKind.GZIP, {}),
        ],
    )
    def test_client_sees_the_fault_once(self, hub: LoopbackHub, kind: FaultKind, options: dict[str, Any]) -> None:
        headers = {"Range": RANGE}
        url = sign(hub, headers)
        before = fetch(url, headers)
        hub.add_fault(Fault(kind=kind, origin="cdn", path="weights.bin", times=1, **options))
        assert fetch(url, headers) != before
        assert fetch(url, headers) == before

    def test_slow_limits_the_rate(self, hub: LoopbackHub) -> None:
        hub.add_fault(Fault(kind=FaultKind.SLOW, origin="cdn", bytes_per_second=4 * 1024 * 1024))
        started = time.monotonic()
        fetch(sign(hub, {"Range": RANGE}), {"Range": RANGE})
        # 2 MiB at 4 MiB/s take at least half a second on any machine.
        assert time.monotonic() - started >= 0.5


class TestHuggingFaceHub:
    """The library itself, in a process of its own: it reads its environment at import."""

    def run(self, hub: LoopbackHub, tmp_path: Path, code: str) -> Any:
        """Run the code, which prints JSON, with HfApi's names and `endpoint` at hand."""
        environment = {
            "PATH": os.environ["PATH"],
            "HF_ENDPOINT": hub.endpoint,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }
        preamble = "import json\nfrom huggingface_hub import *\n"
        finished = subprocess.run(
            [sys.executable, "-c", preamble + code],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert finished.returncode == 0, finished.stderr
        return json.loads(finished.stdout)

    def download(self, hub: LoopbackHub, tmp_path: Path, repo_id: str, revision: str = "main") -> Path:
        arguments = f"{repo_id!r}, revision={revision!r}, token={READER_TOKEN!r}"
        return Path(self.run(hub, tmp_path, f"print(json.dumps(snapshot_download({arguments})))"))

    @pytest.mark.slow
    def test_snapshot_download_of_minilm_is_the_package_byte_for_byte(self, tmp_path: Path) -> None:
        minilm = build_minilm()
        with LoopbackHub(page_size=4) as hub:
            hub.add_repository(minilm)
            hub.grant(READER_TOKEN)
            main = self.download(hub, tmp_path, MINILM)
            requests_for_main = hub.requests
            following = self.download(hub, tmp_path, "all-MiniLM-L6-v2", "next")

        assert_same_files(main, minilm, "main")
        assert_same_files(following, minilm, "next")
        differing = [path for path in list_files(main) if sha256(main / path) != sha256(following / path)]
        assert differing == ["README.md"]
        assert sum("cursor=" in request.query for request in requests_for_main) >= 2
        assert not any(request.authorized for request in requests_for_main if request.origin == "cdn")
        assert any(request.authorized for request in requests_for_main if request.origin == "resolve")

    @pytest.mark.slow
    @pytest.mark.parametrize("repo_id", [SHARDED, GATED, PRIVATE])
    def test_snapshot_download_of_the_small_standard_repositories(self, tmp_path: Path, repo_id: str) -> None:
        with LoopbackHub() as hub:
            add_standard_repositories(hub)
            folder = self.download(hub, tmp_path, repo_id)

            assert_same_files(folder, hub.repositories[repo_id], "main")
        for path in folder.glob("*.safetensors"):
            assert_valid_safetensors(path)
        if repo_id == SHARDED:
            index = json.loads((folder / "model.safetensors.index.json").read_text())
            assert set(index["weight_map"].values()) == {path.name for path in folder.glob("*.safetensors")}

    @pytest.mark.slow
    def test_snapshot_download_resumes_after_an_early_end(self, tmp_path: Path) -> None:
        # It keeps what it has in steps of 10 MiB, and gives up at a reset: so an orderly end, after 11 MiB.
        content = GeneratedContent(21 * CHUNK_SIZE)
        early = 10 * CHUNK_SIZE
        with LoopbackHub() as hub:
            hub.add_repository(HubRepository(REPO, {"main": {"weights.bin": content}}))
            hub.grant(READER_TOKEN)
            hub.add_fault(
                Fault(kind=FaultKind.SHORT_ANSWER, origin="cdn", times=1, by_bytes=early),
                Fault(kind=FaultKind.WRONG_CONTENT_LENGTH, origin="cdn", times=1, by_bytes=early),
            )
            folder = self.download(hub, tmp_path, REPO)
            ranges = [request.range for request in hub.requests if request.origin == "cdn"]

        assert sha256(folder / "weights.bin") == content.sha256
        assert ranges == [None, f"bytes={10 * CHUNK_SIZE}-"]

    @pytest.mark.slow
    def test_errors_are_those_of_the_real_hub(self, tmp_path: Path) -> None:
        calls = {
            "missing": "api.model_info('acme/nothing')",
            "missing, with a token": f"api.model_info('acme/nothing', token={READER_TOKEN!r})",
            "malformed": "api.model_info('acme//nothing')",
            "private": f"api.model_info({PRIVATE!r})",
            "private, with a token": f"api.model_info({PRIVATE!r}, token={READER_TOKEN!r})",
            "unknown token": f"api.model_info({MINILM!r}, token='hf_unknown')",
            "gated info": f"api.model_info({GATED!r})",
            "gated check": f"api.auth_check({GATED!r})",
            "gated check, with a token": f"api.auth_check({GATED!r}, token={READER_TOKEN!r})",
            "gated file": f"get_hf_file_metadata(hf_hub_url({GATED!r}, 'config.json'), token=False)",
            "gated download": f"hf_hub_download({GATED!r}, 'config.json', token=False)",
            "disabled": f"api.model_info({DISABLED!r})",
            "disabled tree": f"list(api.list_repo_tree({DISABLED!r}))",
            "revision": f"api.model_info({MINILM!r}, revision='refs/pr/9')",
            "revision of the tree": f"list(api.list_repo_tree({MINILM!r}, revision='nothing'))",
            "file": f"get_hf_file_metadata(hf_hub_url({MINILM!r}, 'nothing'))",
            "folder": f"list(api.list_repo_tree({MINILM!r}, 'nothing'))",
        }
        code = (
            "api = HfApi(token=False)\n"
            "outcomes = {}\n"
            f"for name, call in {calls!r}.items():\n"
            "    try:\n"
            "        eval(call)\n"
            "        outcomes[name] = None\n"
            "    except Exception as error:\n"
            "        outcomes[name] = type(error).__name__\n"
            "print(json.dumps(outcomes))\n"
        )
        with LoopbackHub() as hub:
            add_standard_repositories(hub)
            outcomes = self.run(hub, tmp_path, code)

        assert outcomes == {
            "missing": "RepositoryNotFoundError",
            "missing, with a token": "RepositoryNotFoundError",
            "malformed": "HFValidationError",
            "private": "RepositoryNotFoundError",
            "private, with a token": None,
            "unknown token": "HfHubHTTPError",
            "gated info": None,
            "gated check": "GatedRepoError",
            "gated check, with a token": None,
            "gated file": "GatedRepoError",
            "gated download": "GatedRepoError",
            "disabled": "DisabledRepoError",
            "disabled tree": "DisabledRepoError",
            "revision": "RevisionNotFoundError",
            "revision of the tree": "RevisionNotFoundError",
            "file": "RemoteEntryNotFoundError",
            "folder": "RemoteEntryNotFoundError",
        }

    @pytest.mark.slow
    def test_the_library_reads_the_information_of_paths(self, tmp_path: Path) -> None:
        minilm = build_minilm()
        code = (
            "api = HfApi(token=False)\n"
            "paths = ['1_Pooling', 'model.safetensors', 'missing', 'README.md']\n"
            f"plain = api.get_paths_info({MINILM!r}, paths, revision='next')\n"
            f"(expanded,) = api.get_paths_info({MINILM!r}, 'config.json', expand=True)\n"
            "print(json.dumps([[(e.path, getattr(e, 'size', None)) for e in plain], plain[1].lfs.sha256,\n"
            "    expanded.last_commit.oid]))\n"
        )
        with LoopbackHub() as hub:
            hub.add_repository(minilm)
            told = self.run(hub, tmp_path, code)

        files = minilm.commits[minilm.branches["next"]].files
        weights = files["model.safetensors"]
        sizes = [["1_Pooling", None], ["model.safetensors", weights.size], ["README.md", files["README.md"].size]]
        assert told == [sizes, weights.sha256, minilm.branches["main"]]

    def test_trailing_slash_and_json_as_mirrors_send_them(self) -> None:
        """Olah asks for `/tree/SHA/`, and forwards the paths as JSON."""
        with LoopbackHub() as hub:
            hub.add_repository(HubRepository(REPO, {"main": {"a/b.txt": b"1", "c.txt": b"22"}}))
            sha = hub.repositories[REPO].branches["main"]
            tree = f"{hub.endpoint}/api/models/{REPO}/tree/{sha}"
            for query in ("", "?recursive=true"):
                expected, listed = (requests.get(url + query, timeout=5) for url in (tree, f"{tree}/"))
                assert (listed.status_code, listed.json()) == (200, expected.json())
            assert requests.get(f"{tree}/a/", timeout=5).json() == requests.get(f"{tree}/a", timeout=5).json()
            paths = {"paths": ["c.txt", "a", "missing"]}
            url = f"{hub.endpoint}/api/models/{REPO}/paths-info/main"
            response = requests.post(url, json=paths, timeout=5)
            assert [(entry["path"], entry["type"]) for entry in response.json()] == [
                ("c.txt", "file"),
                ("a", "directory"),
            ]
            assert requests.get(url, timeout=5).status_code == 405
            assert requests.post(tree, json=paths, timeout=5).status_code == 405

    @pytest.mark.slow
    def test_the_library_reads_the_listing_and_the_rate_limit(self, tmp_path: Path) -> None:
        code = (
            "from huggingface_hub.utils import parse_ratelimit_headers\n"
            "api = HfApi(token=False)\n"
            f"info = api.model_info({MINILM!r}, revision='next')\n"
            f"entries = {{e.path: e for e in api.list_repo_tree({MINILM!r}, recursive=True, expand=True)}}\n"
            "weights = entries['model.safetensors']\n"
            f"metadata = get_hf_file_metadata(hf_hub_url('all-MiniLM-L6-v2', 'model.safetensors'))\n"
            "limits = None\n"
            "try:\n"
            f"    api.model_info({SHARDED!r})\n"
            "except Exception as error:\n"
            "    limits = parse_ratelimit_headers(error.response.headers)\n"
            "folder, small = entries['1_Pooling'], entries['1_Pooling/config.json']\n"
            "print(json.dumps([info.id, info.sha, weights.lfs.sha256, weights.size, metadata.etag,\n"
            "    metadata.size, type(folder).__name__, small.blob_id, limits.resource_type,\n"
            "    limits.remaining, limits.reset_in_seconds, limits.window_seconds]))\n"
        )
        minilm = build_minilm()
        with LoopbackHub() as hub:
            hub.add_repository(minilm)
            hub.add_fault(Fault(kind=FaultKind.RATE_LIMIT, origin="api", path=SHARDED, retry_after=55))
            told = self.run(hub, tmp_path, code)

        files = minilm.commits[minilm.branches["main"]].files
        weights = files["model.safetensors"]
        pooling = git_blob_sha1(read_all(files["1_Pooling/config.json"].content))
        assert told == [
            MINILM,
            minilm.branches["next"],
            weights.sha256,
            weights.size,
            weights.sha256,
            weights.size,
            "RepoFolder",
            pooling,
            "api",
            0,
            55,
            300,
        ]


def git_blob_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def list_files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def assert_same_files(folder: Path, repository: HubRepository, branch: str) -> None:
    expected = repository.commits[repository.branches[branch]].files
    assert list_files(folder) == sorted(expected)
    for path, file in expected.items():
        assert sha256(folder / path) == hashlib.sha256(read_all(file.content)).hexdigest()


def assert_valid_safetensors(path: Path) -> None:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__")
    spans = sorted(tensor["data_offsets"] for tensor in header.values())
    assert spans[0][0] == 0
    assert all(before[1] == after[0] for before, after in pairwise(spans))
    assert spans[-1][1] == len(data) - 8 - length
