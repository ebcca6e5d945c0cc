import gzip
import hashlib
import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from http.client import HTTPConnection, HTTPResponse
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pydantic import ValidationError

from tests.upstream.content import CHUNK_SIZE, GeneratedContent, read_all
from tests.upstream.faults import Fault, FaultKind
from tests.upstream.hub import LoopbackHub
from tests.upstream.hub_repository import FileSource, HubFile, HubRepository
from tests.upstream.remote import RemoteUpstream
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
SMALL = b'{"model_type": "bert"}' * 10
LARGE = GeneratedContent(3 * CHUNK_SIZE + 77, seed=5)
LARGE_BYTES = read_all(LARGE)
ROOT = Path(__file__).parents[2]


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    files: dict[str, FileSource] = {"config.json": SMALL, "weights.bin": HubFile(LARGE, lfs=True)}
    with LoopbackHub() as hub:
        hub.add_repository(HubRepository(REPO, {"main": files}, old_names=["model"]))
        yield hub


@contextmanager
def open_answer(
    url: str, headers: dict[str, str] | None = None, method: str = "GET"
) -> Iterator[tuple[HTTPResponse, socket.socket]]:
    """Yield the answer with its body unread, and its connection; redirects are not followed."""
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    with closing(HTTPConnection(parts.netloc, timeout=10)) as connection:
        connection.connect()
        stream = connection.sock
        connection.request(method, target, headers={"Accept-Encoding": "identity"} | (headers or {}))
        with connection.getresponse() as response:
            yield response, stream


def fetch(url: str, headers: dict[str, str] | None = None, method: str = "GET") -> tuple[HTTPResponse, bytes]:
    with open_answer(url, headers, method) as (response, _):
        return response, response.read()


class TestModelInfo:
    def test_names_the_commit_and_every_file(self, hub: LoopbackHub) -> None:
        response, body = fetch(f"{hub.endpoint}/api/models/{REPO}/revision/main?blobs=true")

        info = json.loads(body)
        assert (response.status, info["id"]) == (200, REPO)
        assert (info["private"], info["gated"], info["disabled"]) == (False, False, False)
        assert len(info["sha"]) == 40
        siblings = {sibling["rfilename"]: sibling for sibling in info["siblings"]}
        assert siblings["config.json"]["blobId"] == git_blob_sha1(SMALL)
        assert siblings["weights.bin"]["lfs"]["sha256"] == hashlib.sha256(LARGE_BYTES).hexdigest()

    def test_a_commit_depends_on_the_files_alone(self) -> None:
        files: dict[str, FileSource] = {"a": b"1", "b": b"2"}
        first = HubRepository(REPO, {"main": files, "copy": dict(reversed(files.items()))})
        other = HubRepository(REPO, {"main": files | {"b": b"3"}})

        assert first.branches["main"] == first.branches["copy"]
        assert first.branches["main"] != other.branches["main"]

    def test_an_old_name_redirects_with_its_query(self, hub: LoopbackHub) -> None:
        api, _ = fetch(f"{hub.endpoint}/api/models/model/tree/main?recursive=True")
        resolve, _ = fetch(f"{hub.endpoint}/model/resolve/main/config.json", method="HEAD")

        assert (api.status, api.headers["Location"]) == (307, f"/api/models/{REPO}/tree/main?recursive=True")
        assert (resolve.status, resolve.headers["Location"]) == (307, f"/{REPO}/resolve/main/config.json")

    def test_an_unknown_route_is_404_json(self, hub: LoopbackHub) -> None:
        response, body = fetch(f"{hub.endpoint}/api/agent-harnesses")

        assert response.status == 404
        assert "error" in json.loads(body)

    def test_rate_limits_count_down_and_then_refuse(self) -> None:
        with LoopbackHub(api_quota=2, quota_seconds=300) as hub:
            answers = [fetch(f"{hub.endpoint}/api/models/{REPO}")[0] for _ in range(3)]

        assert [answer.status for answer in answers] == [401, 401, 429]
        assert [answer.headers["RateLimit"].split(";t=")[0] for answer in answers] == [
            '"api";r=1',
            '"api";r=0',
            '"api";r=0',
        ]
        assert answers[2].headers["RateLimit-Policy"] == '"fixed window";"api";q=2;w=300'
        assert 0 < int(answers[2].headers["Retry-After"]) <= 300


class TestResolve:
    def test_a_small_file_is_served_directly(self, hub: LoopbackHub) -> None:
        response, body = fetch(f"{hub.endpoint}/{REPO}/resolve/main/config.json")

        assert (response.status, body) == (200, SMALL)
        assert response.headers["ETag"] == f'"{git_blob_sha1(SMALL)}"'
        assert len(response.headers["X-Repo-Commit"]) == 40
        assert response.headers["RateLimit"].startswith('"resolvers";r=')

    @pytest.mark.parametrize(
        ("asked", "status", "content_range", "body"),
        [
            ("bytes=0-0", 206, "bytes 0-0/220", SMALL[:1]),
            ("bytes=10-", 206, "bytes 10-219/220", SMALL[10:]),
            ("bytes=-5", 206, "bytes 215-219/220", SMALL[-5:]),
            ("bytes=200-999", 206, "bytes 200-219/220", SMALL[200:]),
            ("bytes=220-", 416, "bytes */220", b""),
            ("bytes=5-4", 200, None, SMALL),
            ("bytes=0-1,5-6", 200, None, SMALL),
        ],
    )
    def test_ranges(self, hub: LoopbackHub, asked: str, status: int, content_range: str | None, body: bytes) -> None:
        response, received = fetch(f"{hub.endpoint}/{REPO}/resolve/main/config.json", {"Range": asked})

        assert (response.status, response.headers["Content-Range"], received) == (status, content_range, body)

    def test_a_large_file_is_on_the_cdn(self, hub: LoopbackHub) -> None:
        head, _ = fetch(f"{hub.endpoint}/{REPO}/resolve/main/weights.bin", method="HEAD")
        response, body = fetch(head.headers["Location"])

        assert head.status == 302
        assert head.headers["X-Linked-Etag"] == f'"{hashlib.sha256(LARGE_BYTES).hexdigest()}"'
        assert head.headers["X-Linked-Size"] == str(len(LARGE_BYTES))
        assert head.headers["Location"].startswith(f"{hub.cdn_endpoint}/")
        assert hub.cdn_endpoint != hub.endpoint
        assert (response.status, body == LARGE_BYTES) == (200, True)
        assert [request.origin for request in hub.requests] == ["resolve", "cdn"]

    def test_a_signed_url_is_good_for_its_range_alone(self, hub: LoopbackHub) -> None:
        url = sign(hub, "bytes=100-199")

        granted, body = fetch(url, {"Range": "bytes=100-199"})
        refused = [fetch(url, headers)[0].status for headers in ({}, {"Range": "bytes=100-200"})]

        assert (granted.status, body) == (206, LARGE_BYTES[100:200])
        assert refused == [403, 403]

    def test_a_changed_signed_url_is_refused(self, hub: LoopbackHub) -> None:
        url = sign(hub, "bytes=100-199")

        assert fetch(url.replace("100-199", "100-299"), {"Range": "bytes=100-299"})[0].status == 403
        assert fetch(url.replace("weights.bin", "config.json"), {"Range": "bytes=100-199"})[0].status == 403

    def test_an_expired_signed_url_is_refused(self) -> None:
        with LoopbackHub(url_lifetime=0) as hub:
            hub.add_repository(HubRepository(REPO, {"main": {"weights.bin": HubFile(LARGE, lfs=True)}}))

            assert fetch(sign(hub, None))[0].status == 403

    def test_the_cdn_refuses_a_token(self, hub: LoopbackHub) -> None:
        response, _ = fetch(sign(hub, None), {"Authorization": "Bearer hf_x"})

        assert response.status == 400
        assert hub.requests[-1].authorized

    def test_generated_content_is_the_same_from_any_position(self) -> None:
        spans = [(0, 10), (CHUNK_SIZE - 3, CHUNK_SIZE + 3), (CHUNK_SIZE + 4, 2 * CHUNK_SIZE + 9)]

        for start, stop in spans:
            assert b"".join(map(bytes, LARGE.read(start, stop))) == LARGE_BYTES[start:stop]
        assert LARGE.sha256 == hashlib.sha256(LARGE_BYTES).hexdigest()
        assert LARGE_BYTES[CHUNK_SIZE : CHUNK_SIZE + 8] == (1).to_bytes(8, "big")


class TestFaults:
    """Each on the wire, at the CDN, for 2 MiB in the middle of the large file."""

    first, last = 1000, 1000 + 2 * CHUNK_SIZE - 1
    span = LARGE_BYTES[first : last + 1]
    total = len(LARGE_BYTES)

    def ask(self, hub: LoopbackHub) -> AbstractContextManager[tuple[HTTPResponse, socket.socket]]:
        asked = f"bytes={self.first}-{self.last}"
        return open_answer(sign(hub, asked), {"Range": asked})

    def harm(self, hub: LoopbackHub, kind: FaultKind, **options: Any) -> tuple[HTTPResponse, bytes]:
        hub.add_fault(Fault(kind=kind, origin="cdn", path="weights.bin", times=1, **options))
        with self.ask(hub) as (response, _):
            return response, response.read()

    def test_without_a_fault(self, hub: LoopbackHub) -> None:
        with self.ask(hub) as (response, _):
            body = response.read()

        assert response.status == 206
        assert response.headers["Content-Range"] == f"bytes {self.first}-{self.last}/{self.total}"
        assert body == self.span

    def test_drop_resets_the_connection_after_exactly_n_bytes(self, hub: LoopbackHub) -> None:
        hub.add_fault(Fault(kind=FaultKind.DROP, origin="cdn", times=1, after_bytes=1_500_001))
        received = bytearray(len(self.span))
        with self.ask(hub) as (response, _):
            count = response.readinto(memoryview(received)[:1_500_001])
            with pytest.raises(ConnectionResetError):
                response.read(1)

        assert received[:count] == self.span[:1_500_001]
        (record,) = hub.wait_for_requests(lambda log: log[-1].state == "broken")[-1:]
        assert (record.bytes_sent, record.faults) == (1_500_001, [FaultKind.DROP])
        assert self.harm(hub, FaultKind.SLOW, bytes_per_second=10**9)[1] == self.span

    def test_stall_goes_on_when_released(self, hub: LoopbackHub) -> None:
        hub.add_fault(Fault(kind=FaultKind.STALL, origin="cdn", after_bytes=1000))
        with self.ask(hub) as (response, connection):
            received = response.read(1000)
            hub.wait_for_requests(lambda log: log[-1].state == "stalled")
            connection.settimeout(0.2)
            with pytest.raises(TimeoutError):
                connection.recv(1)
            assert hub.requests[-1].bytes_sent == 1000
            hub.release_stalls()
            connection.settimeout(10)
            while len(received) < len(self.span):
                received += connection.recv(65536)

        assert received == self.span

    def test_stall_ends_when_the_client_goes(self, hub: LoopbackHub) -> None:
        hub.add_fault(Fault(kind=FaultKind.STALL, origin="cdn", after_bytes=1000))
        with self.ask(hub):
            hub.wait_for_requests(lambda log: log[-1].state == "stalled")

        hub.wait_for_requests(lambda log: log[-1].state == "broken")

    def test_slow_paces_each_connection(self, hub: LoopbackHub) -> None:
        started = time.monotonic()
        _, body = self.harm(hub, FaultKind.SLOW, bytes_per_second=4 * 1024 * 1024)

        assert body == self.span
        # 2 MiB at 4 MiB/s: never sooner than half a second, however fast the machine.
        assert time.monotonic() - started >= 0.5

    def test_rate_limit(self, hub: LoopbackHub) -> None:
        hub.add_fault(Fault(kind=FaultKind.RATE_LIMIT, origin="resolve", times=1, retry_after=7))

        response, _ = fetch(f"{hub.endpoint}/{REPO}/resolve/main/weights.bin")

        assert (response.status, response.headers["Retry-After"]) == (429, "7")
        assert response.headers["RateLimit"] == '"resolvers";r=0;t=7'
        assert self.harm(hub, FaultKind.RATE_LIMIT, retry_after=7)[0].headers["Retry-After"] == "7"

    def test_server_error(self, hub: LoopbackHub) -> None:
        response, _ = self.harm(hub, FaultKind.SERVER_ERROR, status=502, retry_after=3)

        assert (response.status, response.headers["Retry-After"]) == (502, "3")

    def test_wrong_bytes_have_the_right_length(self, hub: LoopbackHub) -> None:
        response, body = self.harm(hub, FaultKind.WRONG_BYTES, after_bytes=CHUNK_SIZE + 5)

        assert response.status == 206
        assert [at for at in range(len(self.span)) if body[at] != self.span[at]] == [CHUNK_SIZE + 5]
        assert len(body) == len(self.span)

    @pytest.mark.parametrize("framing", ["length", "chunked", "until_close"])
    def test_ignored_range(self, hub: LoopbackHub, framing: str) -> None:
        response, body = self.harm(hub, FaultKind.IGNORE_RANGE, framing=framing)

        assert (response.status, response.headers["Content-Range"]) == (200, None)
        assert body == LARGE_BYTES
        assert response.headers["Content-Length"] == (str(self.total) if framing == "length" else None)
        assert response.headers["Transfer-Encoding"] == ("chunked" if framing == "chunked" else None)

    def test_wrong_content_range(self, hub: LoopbackHub) -> None:
        moved, body = self.harm(hub, FaultKind.WRONG_CONTENT_RANGE)
        told, _ = self.harm(hub, FaultKind.WRONG_CONTENT_RANGE, header_value="bytes 0-9/10")

        assert moved.headers["Content-Range"] == f"bytes {self.first + 1}-{self.last + 1}/{self.total}"
        assert (moved.status, body) == (206, self.span)
        assert told.headers["Content-Range"] == "bytes 0-9/10"

    def test_short_answer(self, hub: LoopbackHub) -> None:
        response, body = self.harm(hub, FaultKind.SHORT_ANSWER, by_bytes=100)

        assert (response.status, body) == (206, self.span[:-100])
        assert response.headers["Content-Length"] == str(len(self.span) - 100)
        assert response.headers["Content-Range"] == f"bytes {self.first}-{self.last}/{self.total}"

    def test_long_answer(self, hub: LoopbackHub) -> None:
        response, body = self.harm(hub, FaultKind.LONG_ANSWER, by_bytes=2 * CHUNK_SIZE)

        assert response.headers["Content-Length"] == str(len(self.span) + 2 * CHUNK_SIZE)
        assert body == LARGE_BYTES[self.first :].ljust(len(self.span) + 2 * CHUNK_SIZE, b"\0")

    def test_content_length_that_says_more(self, hub: LoopbackHub) -> None:
        with pytest.raises(http.client.IncompleteRead) as caught:
            self.harm(hub, FaultKind.WRONG_CONTENT_LENGTH, by_bytes=10)

        assert (caught.value.partial, caught.value.expected) == (self.span, 10)

    def test_content_length_that_says_less(self, hub: LoopbackHub) -> None:
        hub.add_fault(Fault(kind=FaultKind.WRONG_CONTENT_LENGTH, origin="cdn", by_bytes=-10))
        asked = f"bytes={self.first}-{self.last}"
        head, _, body = exchange_raw(sign(hub, asked), f"Range: {asked}").partition(b"\r\n\r\n")

        assert b"Content-Length: %d" % (len(self.span) - 10) in head.split(b"\r\n")
        assert body == self.span

    def test_changed_etag(self, hub: LoopbackHub) -> None:
        before, _ = self.harm(hub, FaultKind.SLOW, bytes_per_second=10**9)
        after, body = self.harm(hub, FaultKind.CHANGED_ETAG)
        hub.add_fault(Fault(kind=FaultKind.CHANGED_ETAG, origin="resolve", header_value='"other"'))
        resolved, _ = fetch(f"{hub.endpoint}/{REPO}/resolve/main/weights.bin", method="HEAD")

        assert before.headers["ETag"] != after.headers["ETag"]
        assert body == self.span
        assert resolved.headers["X-Linked-Etag"] == '"other"'

    def test_expired_url(self, hub: LoopbackHub) -> None:
        refused, _ = self.harm(hub, FaultKind.EXPIRED_URL)
        hub.add_fault(Fault(kind=FaultKind.EXPIRED_URL, origin="resolve", times=1))
        expired = sign(hub, None)

        assert refused.status == 403
        assert [fetch(expired)[0].status for _ in range(2)] == [403, 403]
        assert fetch(sign(hub, None))[0].status == 200

    def test_gzip(self, hub: LoopbackHub) -> None:
        response, body = self.harm(hub, FaultKind.GZIP)

        assert (response.status, response.headers["Content-Encoding"]) == (200, "gzip")
        assert response.headers["Content-Range"] is None
        assert gzip.decompress(body) == LARGE_BYTES

    def test_faults_add_up(self, hub: LoopbackHub) -> None:
        hub.add_fault(
            Fault(kind=FaultKind.IGNORE_RANGE, origin="cdn", framing="chunked"),
            Fault(kind=FaultKind.DROP, origin="cdn", after_bytes=10),
        )
        with (
            self.ask(hub) as (response, _),
            pytest.raises((ConnectionResetError, http.client.IncompleteRead)),
        ):
            response.read()

        assert response.status == 200
        assert hub.requests[-1].faults == [FaultKind.IGNORE_RANGE, FaultKind.DROP]

    def test_only_the_requests_meant_are_harmed(self, hub: LoopbackHub) -> None:
        hub.add_fault(
            Fault(kind=FaultKind.SERVER_ERROR, origin="resolve", path=r"config\.json$", skip=1, times=1),
            Fault(kind=FaultKind.SERVER_ERROR, origin="cdn", holding_byte=2 * CHUNK_SIZE, method="GET"),
        )
        config = f"{hub.endpoint}/{REPO}/resolve/main/config.json"
        spans = ["bytes=0-99", f"bytes=100-{2 * CHUNK_SIZE}"]

        assert [fetch(config)[0].status for _ in range(3)] == [200, 503, 200]
        assert fetch(f"{hub.endpoint}/api/models/{REPO}")[0].status == 200
        assert [fetch(sign(hub, span), {"Range": span})[0].status for span in spans] == [206, 503]
        assert [fault.origin for fault in hub.faults] == ["cdn"]
        hub.clear_faults()
        assert fetch(sign(hub, spans[1]), {"Range": spans[1]})[0].status == 206

    def test_a_head_request_can_be_left_without_an_answer(self, hub: LoopbackHub) -> None:
        hub.add_fault(Fault(kind=FaultKind.DROP, origin="resolve", method="HEAD", times=1))

        with pytest.raises(ConnectionResetError):
            fetch(f"{hub.endpoint}/{REPO}/resolve/main/config.json", method="HEAD")

    def test_an_impossible_fault_is_refused(self) -> None:
        with pytest.raises(ValidationError, match="not a regular expression"):
            Fault(kind=FaultKind.DROP, origin="cdn", path="(")

    def test_closing_cuts_a_stalled_answer(self) -> None:
        with LoopbackHub() as hub:
            hub.add_repository(HubRepository(REPO, {"main": {"config.json": SMALL}}))
            hub.add_fault(Fault(kind=FaultKind.STALL, origin="resolve"))
            with open_answer(f"{hub.endpoint}/{REPO}/resolve/main/config.json") as (response, _):
                hub.wait_for_requests(lambda log: log[-1].state == "stalled")
                hub.close()
                with pytest.raises(http.client.IncompleteRead):
                    response.read()


class TestAccess:
    @pytest.fixture
    def guarded(self) -> Iterator[LoopbackHub]:
        with LoopbackHub() as hub:
            hub.add_repository(HubRepository(GATED, {"main": {"config.json": SMALL}}, gated="manual"))
            hub.add_repository(HubRepository(PRIVATE, {"main": {"config.json": SMALL}}, private=True))
            hub.add_repository(HubRepository(DISABLED, {"main": {"config.json": SMALL}}, disabled=True))
            hub.grant(READER_TOKEN, GATED, PRIVATE)
            hub.grant("hf_other")
            yield hub

    @pytest.mark.parametrize(
        ("path", "token", "status", "code"),
        [
            (f"/api/models/{GATED}", None, 200, None),
            (f"/api/models/{GATED}/tree/main", None, 200, None),
            (f"/api/models/{GATED}/auth-check", None, 401, "GatedRepo"),
            (f"/api/models/{GATED}/auth-check", "hf_other", 403, "GatedRepo"),
            (f"/api/models/{GATED}/auth-check", READER_TOKEN, 200, None),
            (f"/{GATED}/resolve/main/config.json", None, 401, "GatedRepo"),
            (f"/{GATED}/resolve/main/config.json", "hf_other", 403, "GatedRepo"),
            (f"/{GATED}/resolve/main/config.json", READER_TOKEN, 200, None),
            (f"/api/models/{PRIVATE}", None, 401, "RepoNotFound"),
            (f"/api/models/{PRIVATE}", "hf_other", 404, "RepoNotFound"),
            (f"/api/models/{PRIVATE}", "hf_unknown", 401, None),
            (f"/api/models/{PRIVATE}", READER_TOKEN, 200, None),
            (f"/{PRIVATE}/resolve/main/config.json", READER_TOKEN, 200, None),
            (f"/api/models/{DISABLED}", READER_TOKEN, 403, None),
            ("/api/models/acme/nothing", READER_TOKEN, 404, "RepoNotFound"),
            (f"/api/models/{GATED}/revision/nothing", None, 404, "RevisionNotFound"),
            (f"/{GATED}/resolve/main/nothing", READER_TOKEN, 404, "EntryNotFound"),
        ],
    )
    def test_statuses(self, guarded: LoopbackHub, path: str, token: str | None, status: int, code: str | None) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        response, _ = fetch(f"{guarded.endpoint}{path}", headers)

        assert (response.status, response.headers["X-Error-Code"]) == (status, code)


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


class TestProcess:
    @pytest.mark.slow
    def test_serves_the_standard_repositories_until_told_to_stop(self, tmp_path: Path) -> None:
        ready_file = tmp_path / "ready.json"
        process = subprocess.Popen([sys.executable, "-m", "tests.upstream", "--ready-file", str(ready_file)], cwd=ROOT)
        try:
            deadline = time.monotonic() + 30
            while not ready_file.exists():
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            hub = RemoteUpstream(json.loads(ready_file.read_text())["hub"])
            for repo_id in (MINILM, SHARDED, GATED):
                assert fetch(f"{hub.endpoint}/api/models/{repo_id}")[0].status == 200

            hub.add_fault(Fault(kind=FaultKind.SERVER_ERROR, origin="api", status=500))
            assert [fault.status for fault in hub.faults] == [500]
            assert fetch(f"{hub.endpoint}/api/models/{MINILM}")[0].status == 500
            hub.clear_faults()
            records = hub.wait_for_requests(lambda log: log[-1].state == "finished")
            assert [record.status for record in records] == [200, 200, 200, 500]
            hub.clear_requests()
            assert hub.requests == []

            moved = hub.move_branch(MINILM, "main", "next")
            _, body = fetch(f"{hub.endpoint}/api/models/{MINILM}")
            assert json.loads(body)["sha"] == moved == build_minilm().branches["next"]
            with pytest.raises(RuntimeError, match="404"):
                hub.move_branch("acme/nothing", "main", "next")
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=10) == 0
        finally:
            process.kill()
            process.wait()


def sign(hub: LoopbackHub, range_header: str | None) -> str:
    """Return the URL that the Hub gives for this range of the large file."""
    headers = {"Range": range_header} if range_header else {}
    response, _ = fetch(f"{hub.endpoint}/{REPO}/resolve/main/weights.bin", headers)
    assert response.status == 302
    return response.headers["Location"]


def exchange_raw(url: str, header: str) -> bytes:
    """Return all that the server sends until it closes."""
    parts = urlsplit(url)
    host, _, port = parts.netloc.partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        request = f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\n{header}\r\n\r\n"
        connection.sendall(request.encode())
        received = bytearray()
        while chunk := connection.recv(65536):
            received += chunk
    return bytes(received)


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
