"""The client of S3 keeps a connection for each thread that copies."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from modelhaul.adapters.s3 import S3ObjectStore
from modelhaul.adapters.s3_client import PARALLEL_COPIES, create_s3_client
from tests.contract.backends import REGION
from tests.http_servers import run_server

ETAG = "0" * 32
COPIES = 4
PATIENCE = 60  # seconds
RESPONSES = {
    "HEAD": "",
    "PUT": f"<CopyPartResult><ETag>{ETAG}</ETag></CopyPartResult>",
    "uploads": "<InitiateMultipartUploadResult><UploadId>upload</UploadId></InitiateMultipartUploadResult>",
    "complete": f"<CompleteMultipartUploadResult><ETag>{ETAG}-1</ETag></CompleteMultipartUploadResult>",
}


@dataclass
class S3(ThreadingHTTPServer):
    """S3 that copies parts only when `PARALLEL_COPIES` requests wait for it."""

    request_queue_size = 2 * PARALLEL_COPIES
    connections: int = 0
    together: threading.Barrier = field(default_factory=lambda: threading.Barrier(PARALLEL_COPIES))

    def __post_init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)

    __hash__ = ThreadingHTTPServer.__hash__

    def process_request(self, request: object, client_address: object) -> None:
        self.connections += 1
        super().process_request(request, client_address)  # type: ignore[arg-type]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: S3

    def handle_request(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.command == "PUT":
            self.server.together.wait(PATIENCE)
        is_start = self.path.endswith("?uploads")
        kind = self.command if self.command in RESPONSES else "uploads" if is_start else "complete"
        body = RESPONSES[kind].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_PUT = do_POST = handle_request  # noqa: N815 - names of the base class

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
        pass


@pytest.fixture
def s3() -> Iterator[S3]:
    with run_server(S3()) as server:
        yield server


def test_all_threads_that_copy_keep_their_connections(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{s3.server_address[1]}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    size = PARALLEL_COPIES // COPIES
    with closing(create_s3_client(REGION)) as client, ThreadPoolExecutor(COPIES) as pool:
        store = S3ObjectStore(client, "models", single_copy_limit=1, copy_part_size=1)
        for _ in range(3):
            list(pool.map(lambda number: store.copy("source", f"target/{number}", size=size, etag=ETAG), range(COPIES)))
    # A connection that does not fit into the pool is closed after its request, and a later request opens another.
    assert PARALLEL_COPIES <= s3.connections <= PARALLEL_COPIES + COPIES
