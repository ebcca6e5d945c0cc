"""Clients with HubOnMiss=REDIRECT, over real HTTP: they read from the Hub, which never receives their read key."""

import hashlib
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs

import pytest

from modelhaul.domain.hub_models import MissPolicy
from modelhaul.hub.misses import MissHandler
from modelhaul.hub.reader import HubReader
from modelhaul.hub.requests import HubRequest, KeyContext
from modelhaul.imports.missing import MissingModelImporter
from modelhaul_sources.hosts import HostPolicy
from modelhaul_sources.huggingface import HuggingFaceSource
from tests.fakes.deployment import Deployment
from tests.hub_clients.environments import HubAccess
from tests.upstream.hub import LoopbackHub
from tests.upstream.hub_repository import HubFile, HubRepository

NAME = "owner/model"
FILES = {
    "config.json": HubFile(b"{}"),
    "onnx/model.onnx": HubFile(random.Random("weights").randbytes(300_000), lfs=True),
    "tokenizer.json": HubFile(b'{"a": 1}'),
}
KEY = "hf_" + "k" * 40
CLIENT = """
import sys
from huggingface_hub import HfApi, HfFileSystem, snapshot_download

name, folder = sys.argv[1:]
assert len([*HfApi().list_repo_tree(name, recursive=True)]) == 4
assert len([*HfApi().list_repo_tree(name, recursive=True, expand=True)]) == 4
assert len(HfApi().model_info(name, files_metadata=True).siblings) == 3
assert HfFileSystem().cat_file(f"{name}/config.json") == b"{}"
snapshot_download(name, local_dir=folder)
"""


class _Server(ThreadingHTTPServer):
    reader: HubReader
    daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    """Passes requests to the reader, as API Gateway and the function read_hub do."""

    server: _Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path, _, query = self.path.removeprefix("/").partition("?")
        request = HubRequest(
            self.command,
            path,
            self.server.url,
            "",
            KeyContext("k", "ci", ("read", "import"), ("*",)),
            {name: tuple(values) for name, values in parse_qs(query).items()},
            {name.lower(): value for name, value in self.headers.items()},
            self.rfile.read(int(self.headers.get("Content-Length", 0))),
        )
        assert self.headers["Authorization"] == f"Bearer {KEY}"
        response = self.server.reader.respond(request)
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(response.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)

    do_HEAD = do_POST = do_GET  # noqa: N815 - names of the base class

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - of the base class
        """Log nothing."""


@contextmanager
def serve(hub: LoopbackHub) -> Iterator[str]:
    """Serve the Hub read API of a deployment without any model, and return its URL."""
    source = HuggingFaceSource(HostPolicy.for_hub(hub.endpoint, local_mode=True))
    deployment = Deployment(source)
    database, clock = deployment.database, deployment.clock
    importer = MissingModelImporter(deployment.submitter, database.models, source, clock)
    misses = MissHandler(MissPolicy.REDIRECT, hub.endpoint, database.tasks, lambda: importer, clock)
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.reader = HubReader(database.hub_models, database.models, deployment.store, misses, clock)
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.url
        finally:
            server.shutdown()


@pytest.mark.slow
def test_the_read_key_does_not_reach_the_hub(tmp_path: Path) -> None:
    with LoopbackHub(page_size=2) as hub:
        hub.add_repository(HubRepository(NAME, {"main": FILES}))
        with serve(hub) as url:
            folder = tmp_path / "model"
            environment = HubAccess(url, KEY, tmp_path).build_environment()
            program = [sys.executable, "-c", CLIENT, NAME, str(folder)]
            child = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert child.returncode == 0, child.stderr[-3000:]
        requests = hub.requests
    assert [request.path for request in requests if request.authorized] == []
    assert any("cursor=" in request.query for request in requests), "the tree has two pages"
    for path, file in FILES.items():
        assert hashlib.sha256((folder / path).read_bytes()).hexdigest() == file.sha256
