"""A proxy in front of MiniStack's S3 that refuses what S3 refuses.

MiniStack checks the signature of a presigned URL as S3 does: the method, the Host header, every parameter of the query
and the expiry (tests/stack/test_hub_s3_stand_in.py proves it). The proxy passes the Host header on, so URLs must be
signed for the address of the proxy. S3 also refuses a request with two signatures, which MiniStack accepts:
https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html (InvalidArgument).
"""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit

_CHUNK_SIZE = 64 * 1024
_STALL_LIMIT = 120.0  # seconds; only so that a broken test does not hang
_TWO_SIGNATURES = b"""<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>InvalidArgument</Code><Message>Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, \
Signature query string parameter or the Authorization header should be specified</Message>\
<ArgumentName>Authorization</ArgumentName></Error>"""
_CONNECTION_HEADERS = {"connection", "keep-alive", "transfer-encoding", "date", "server", "content-length"}


@dataclass
class S3Request:
    """A request with a signature in its query. `key` is the decoded path without the bucket."""

    method: str
    key: str
    range: str | None
    status: int = 0
    bytes_sent: int = 0


@dataclass
class Stall:
    """Responses to GET of keys that end with `suffix` stop after `after_bytes` bytes until `release` is set."""

    suffix: str
    after_bytes: int
    reached: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)
    is_broken: bool = False

    def break_connections(self) -> None:
        """Close the connections of the stalled responses. Later responses do not stall."""
        self.is_broken = True
        self.release.set()

    def wait_until_reached(self) -> None:
        assert self.reached.wait(_STALL_LIMIT), f"no response for {self.suffix} reached {self.after_bytes} bytes"


class S3StandIn:
    """Serves from a free port of 127.0.0.1 between `start` and `close` (or `with`)."""

    def __init__(self, aws_endpoint_url: str) -> None:
        self.upstream = urlsplit(aws_endpoint_url).netloc
        self._lock = threading.Lock()
        self._requests: list[S3Request] = []
        self._stalls: list[Stall] = []
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def requests(self) -> list[S3Request]:
        with self._lock:
            return list(self._requests)

    def clear_requests(self) -> None:
        with self._lock:
            self._requests.clear()

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        for stall in self._stalls:
            stall.release.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def stall(self, suffix: str, after_bytes: int) -> Iterator[Stall]:
        """Stall responses until `release` is set or the context ends."""
        stall = Stall(suffix, after_bytes)
        with self._lock:
            self._stalls.append(stall)
        try:
            yield stall
        finally:
            stall.release.set()
            with self._lock:
                self._stalls.remove(stall)

    def add_request(self, request: S3Request) -> None:
        with self._lock:
            self._requests.append(request)

    def find_stall(self, request: S3Request) -> Stall | None:
        with self._lock:
            return next((s for s in self._stalls if request.method == "GET" and request.key.endswith(s.suffix)), None)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, stand_in: S3StandIn) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.stand_in = stand_in

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that disconnect: some tests kill them."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def answer(self) -> None:
        address = urlsplit(self.path)
        _, _, key = unquote(address.path).removeprefix("/").partition("/")
        request = S3Request(self.command, key, self.headers.get("Range"))
        is_presigned = not parse_qs(address.query).keys().isdisjoint({"X-Amz-Signature", "Signature"})
        if is_presigned:
            self.server.stand_in.add_request(request)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if is_presigned and "Authorization" in self.headers:
            self._refuse(request)
            return
        connection = HTTPConnection(self.server.stand_in.upstream, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() != "connection":
                    connection.putheader(name, value)
            connection.endheaders(body or None)
            self._pass_on(request, connection.getresponse())
        finally:
            connection.close()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer  # noqa: N815

    def _refuse(self, request: S3Request) -> None:
        request.status = 400
        self.send_response(400)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(_TWO_SIGNATURES)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(_TWO_SIGNATURES)

    def _pass_on(self, request: S3Request, response: HTTPResponse) -> None:
        request.status = response.status
        length = response.headers.get("Content-Length")
        self.send_response(response.status)
        for name, value in response.getheaders():
            if name.lower() not in _CONNECTION_HEADERS:
                self.send_header(name, value)
        if length is None:
            self.close_connection = True
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", length)
        self.end_headers()
        stall = self.server.stand_in.find_stall(request)
        while self.command != "HEAD" and (chunk := response.read1(_CHUNK_SIZE)):
            if stall and not stall.release.is_set() and request.bytes_sent + len(chunk) > stall.after_bytes:
                first = max(stall.after_bytes - request.bytes_sent, 0)
                request.bytes_sent += first
                self.wfile.write(chunk[:first])
                chunk = chunk[first:]
                stall.reached.set()
                stall.release.wait(_STALL_LIMIT)
                if stall.is_broken:
                    self.close_connection = True
                    return
            # Before the client has the bytes, so that a test that has received them finds them counted.
            request.bytes_sent += len(chunk)
            self.wfile.write(chunk)

    def log_message(self, *arguments: object) -> None:
        """Write no log of requests."""
