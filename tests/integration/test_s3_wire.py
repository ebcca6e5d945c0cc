"""A part on a real connection: sent from its buffer without a copy, and again from its start."""

import hashlib
import socket
import struct
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from modelhaul.adapters.s3 import S3ObjectStore
from modelhaul.adapters.s3_client import create_s3_client
from tests.http_servers import run_server

MIB = 1024 * 1024
PART_SIZE = 32 * MIB
PIECE = 64 * 1024


class PartServer(ThreadingHTTPServer):
    """Takes bodies and keeps their sha256; resets the first `resets` connections in the middle of one."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), PartHandler)
        self.resets = 0
        self.received: list[str] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that ends is part of the test."""


class PartHandler(BaseHTTPRequestHandler):
    server: PartServer
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        size = int(self.headers["Content-Length"])
        limit = size
        if self.server.resets:
            self.server.resets -= 1
            limit = size // 2
        digest = hashlib.sha256()
        for start in range(0, limit, PIECE):
            digest.update(self.rfile.read(min(PIECE, limit - start)))
        if limit < size:
            # Closing with a linger time of 0 sends a reset.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return
        self.server.received.append(digest.hexdigest())
        self.send_response(200)
        self.send_header("ETag", '"0123"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        pass


@pytest.fixture
def server() -> Iterator[PartServer]:
    with run_server(PartServer()) as server:
        yield server


@pytest.fixture
def store(server: PartServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3ObjectStore]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda self, context: 0.0)
    with closing(create_s3_client("us-east-1")) as client:
        yield S3ObjectStore(client, "bucket")


@pytest.mark.parametrize("resets", [0, 2])
def test_a_part_is_sent_whole_and_without_a_copy(store: S3ObjectStore, server: PartServer, resets: int) -> None:
    buffer = memoryview(bytearray(hashlib.sha256(b"seed").digest() * (PART_SIZE // 32)))
    store.upload_part("key", "id", 1, buffer[:PIECE], crc32=0)  # what is loaded once
    server.resets = resets
    server.received.clear()
    tracemalloc.start()
    try:
        part = store.upload_part("key", "id", 2, buffer, crc32=zlib.crc32(buffer))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert part.etag == "0123"
    assert server.received == [hashlib.sha256(buffer).hexdigest()]
    assert server.resets == 0
    assert peak < 4 * MIB
