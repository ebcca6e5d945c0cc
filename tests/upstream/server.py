"""An HTTP/1.1 origin on 127.0.0.1 that serves answers byte by byte, and harms them as faults demand.

The standard library's server is used because a fault needs the socket itself: a reset after N bytes, a
Content-Length that lies, a body that stalls.
"""

import array
import contextlib
import fcntl
import json
import re
import socket
import socketserver
import struct
import sys
import termios
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

from tests.upstream.content import CHUNK_SIZE, BytesContent, Content
from tests.upstream.faults import ActiveFaults, Fault, FaultKind, Origin
from tests.upstream.request_log import RequestLog, RequestRecord

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER that makes close() send RST and drop what was not sent."""
_END = sys.maxsize
"""A position at which every cut is due, those beyond the end of the body included."""
_SINGLE_RANGE = re.compile(r"bytes=(?:(\d+)-(\d*)|-(\d+))")


@dataclass(frozen=True)
class Request:
    method: str
    raw_path: str
    """As sent, percent-encoded, without the query."""
    query_string: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes = b""

    @property
    def path(self) -> str:
        return unquote(self.raw_path)

    @property
    def query(self) -> dict[str, str]:
        return {name: values[-1] for name, values in parse_qs(self.query_string).items()}


@dataclass
class Response:
    """The body is the positions [start, stop) of the content; positions after its end are zeros."""

    status: int
    headers: dict[str, str]
    content: Content
    start: int
    stop: int
    holds: range
    """Positions of the file that this answer, or the one that it redirects to, holds."""
    if_limited: Callable[[int], "Response"] | None = None
    """The answer when the rate limit is spent for so many seconds."""
    if_abused: Callable[[int | None], "Response"] | None = None
    """The answer of a secondary rate limit, with or without the seconds to wait."""
    if_expired: Callable[[], "Response"] | None = None
    """The answer when the signature of the URL has expired."""
    framing: Literal["length", "chunked", "until_close"] = "length"
    claimed_extra: int = 0
    """How many bytes more than the body the Content-Length says."""
    inverted_byte: int | None = None
    gzip: bool = False
    drop_after: int | None = None
    stall_after: int | None = None
    bytes_per_second: int | None = None
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def length(self) -> int:
        return self.stop - self.start

    def read_body(self) -> Iterator[memoryview]:
        body = self._read_content()
        if self.inverted_byte is not None:
            body = _invert_byte(body, min(self.inverted_byte, self.length - 1))
        return _compress(body) if self.gzip else body

    def _read_content(self) -> Iterator[memoryview]:
        yield from self.content.read(self.start, min(self.stop, self.content.size))
        for position in range(max(self.start, self.content.size), self.stop, CHUNK_SIZE):
            yield memoryview(bytes(min(CHUNK_SIZE, self.stop - position)))


def find_methods(origin: Origin, path: str) -> tuple[str, ...]:
    return ("POST",) if origin == "lfs" or "/paths-info/" in path else ("GET", "HEAD")


def answer_bytes(status: int, body: bytes, headers: dict[str, str] | None = None) -> Response:
    return Response(status, dict(headers or {}), BytesContent(body), 0, len(body), holds=range(0))


def create_json_response(status: int, value: Any, headers: dict[str, str] | None = None) -> Response:
    content_type = {"Content-Type": "application/json; charset=utf-8"}
    return answer_bytes(status, json.dumps(value).encode(), content_type | (headers or {}))


def answer_file(content: Content, range_header: str | None, headers: dict[str, str]) -> Response:
    """200, or 206 and 416 for a single range; other Range headers are ignored (RFC 9110, section 14.2)."""
    headers = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"} | headers
    asked = select_range(range_header, content.size)
    if asked is None:
        return Response(200, headers, content, 0, content.size, holds=range(content.size))
    if not asked:
        return answer_bytes(416, b"", headers | {"Content-Range": f"bytes */{content.size}"})
    headers["Content-Range"] = f"bytes {asked.start}-{asked.stop - 1}/{content.size}"
    return Response(206, headers, content, asked.start, asked.stop, holds=asked)


def select_range(range_header: str | None, size: int) -> range | None:
    """Return the positions asked for: None without a single range, empty when it cannot be satisfied."""
    match = _SINGLE_RANGE.fullmatch(range_header.strip()) if range_header else None
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        return range(max(size - int(suffix), 0), size)
    if last and int(last) < int(first):
        return None
    return range(int(first), min(int(last) + 1, size) if last else size)


def _invert_byte(body: Iterator[memoryview], position: int) -> Iterator[memoryview]:
    for chunk in body:
        if 0 <= position < len(chunk):
            changed = bytearray(chunk)
            changed[position] ^= 0xFF
            yield memoryview(changed)
        else:
            yield chunk
        position -= len(chunk)


def _compress(body: Iterator[memoryview]) -> Iterator[memoryview]:
    gzip = zlib.compressobj(level=1, wbits=31)
    for chunk in body:
        if compressed := gzip.compress(chunk):
            yield memoryview(compressed)
    yield memoryview(gzip.flush())


def _serve_whole(answer: Response) -> None:
    if answer.status == HTTPStatus.PARTIAL_CONTENT:
        answer.status = 200
        del answer.headers["Content-Range"]
        answer.start, answer.stop = 0, answer.content.size


def harm(answer: Response, fault: Fault) -> Response:  # noqa: C901, PLR0912 - one case for each kind
    """Return the answer as the fault leaves it. One that cannot show the fault stays as it is."""
    match fault.kind:
        case FaultKind.DROP:
            answer.drop_after = fault.after_bytes
        case FaultKind.STALL:
            answer.stall_after = fault.after_bytes
        case FaultKind.SLOW:
            answer.bytes_per_second = fault.bytes_per_second
        case FaultKind.RATE_LIMIT:
            seconds = 1 if fault.retry_after is None else fault.retry_after
            if answer.if_limited:
                return answer.if_limited(seconds)
            return answer_bytes(429, b"Too Many Requests", {"Retry-After": str(seconds)})
        case FaultKind.SECONDARY_LIMIT if answer.if_abused:
            return answer.if_abused(fault.retry_after)
        case FaultKind.SERVER_ERROR | FaultKind.REFUSAL:
            retry_after = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
            return answer_bytes(fault.status, b"upstream failure", retry_after)
        case FaultKind.WRONG_BYTES:
            answer.inverted_byte = fault.after_bytes
        case FaultKind.IGNORE_RANGE:
            _serve_whole(answer)
            answer.framing = fault.framing
        case FaultKind.WRONG_CONTENT_RANGE if "Content-Range" in answer.headers:
            moved = f"bytes {answer.start + 1}-{answer.stop}/{answer.content.size}"
            answer.headers["Content-Range"] = fault.header_value or moved
        case FaultKind.SHORT_ANSWER:
            answer.stop = max(answer.stop - fault.by_bytes, answer.start)
        case FaultKind.LONG_ANSWER:
            answer.stop += fault.by_bytes
        case FaultKind.WRONG_CONTENT_LENGTH:
            answer.claimed_extra = fault.by_bytes
        case FaultKind.CHANGED_ETAG:
            for name in {"ETag", "X-Linked-Etag"} & answer.headers.keys():
                answer.headers[name] = fault.header_value or f'"{"0" * 64}"'
        case FaultKind.EXPIRED_URL if answer.if_expired:
            return answer.if_expired()
        case FaultKind.GZIP:
            _serve_whole(answer)
            answer.gzip = True
            answer.framing = "chunked"
            answer.headers["Content-Encoding"] = "gzip"
    return answer


class OriginServer(ThreadingHTTPServer):
    """One origin, a thread for each connection, from construction to `close`.

    find_origin names the origin that faults and the log know a path by; None for control routes, which
    are neither harmed nor logged.
    """

    request_queue_size = 128
    allow_reuse_port = False

    def __init__(
        self,
        port: int,
        answer: Callable[[Request], Response],
        find_origin: Callable[[str], Origin | None],
        faults: ActiveFaults,
        log: RequestLog,
    ) -> None:
        self.answer = answer
        self.find_origin = find_origin
        self.faults = faults
        self.log = log
        self.closing = threading.Event()
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", port), _Handler)
        self._acceptor = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._acceptor.start()

    def server_bind(self) -> None:
        # The base class also asks the resolver for this machine's name, which can take seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.socket.getsockname()[1]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def close(self) -> None:
        """Stop at once: connections are cut, and no thread is left."""
        self.closing.set()
        self.shutdown()
        self._acceptor.join()
        with self._lock:
            connections = dict(self._connections)
        for connection, thread in connections.items():
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            thread.join()
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        thread = threading.Thread(target=self.process_request_thread, args=(request, client_address), daemon=True)
        with self._lock:
            self._connections[request] = thread
        thread.start()

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.pop(request, None)
        if request.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == _RESET_ON_CLOSE:
            # A shutdown first would send FIN, and the client would read an orderly end.
            self.close_request(request)
        else:
            super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Client gone or connection cut: expected here. Anything else is printed by the base class."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: OriginServer

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_DELETE = do_GET  # noqa: N815 - names that the base class looks up

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def _serve(self) -> None:
        target = urlsplit(self.path)
        request = Request(
            method=self.command,
            raw_path=target.path,
            query_string=target.query,
            headers={name.lower(): value for name, value in self.headers.items()},
            body=self.rfile.read(int(self.headers.get("Content-Length", 0))),
        )
        origin = self.server.find_origin(request.path)
        record = RequestRecord(
            origin=origin or "api",
            method=request.method,
            path=request.path,
            query=request.query_string,
            range=request.headers.get("range"),
            authorized="authorization" in request.headers,
        )
        if origin is None:
            self._send(request, self.server.answer(request), record)
            return
        self.server.log.add(record)
        if request.method not in find_methods(origin, request.path):
            self._send(request, create_json_response(405, {"error": "Method not allowed"}), record)
            return
        # Read before the faults, so that a stall taken just before they are cleared is let go as well.
        released = self.server.faults.released
        answer = self.server.answer(request)
        faults = self.server.faults.take(origin, request.method, request.path, answer.holds)
        record.faults = [fault.kind for fault in faults]
        for fault in faults:
            answer = harm(answer, fault)
        answer.released = released
        self._send(request, answer, record)

    def _send(self, request: Request, answer: Response, record: RequestRecord) -> None:
        record.status = answer.status
        try:
            if request.method == "HEAD":
                # There is no body to cut: what a fault withholds is the answer as such.
                self._meet_cuts(answer, record, _END)
                self._send_head(answer)
            else:
                self._send_head(answer)
                self._send_body(answer, record)
        except BaseException:
            self.close_connection = True
            self.server.log.set_state(record, "broken")
            raise
        self.server.log.set_state(record, "finished")

    def _send_head(self, answer: Response) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.framing == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
        elif answer.framing == "length":
            self.send_header("Content-Length", str(max(answer.length + answer.claimed_extra, 0)))
        if answer.framing == "until_close":
            self.send_header("Connection", "close")
        # After a length that was a lie no second answer can be found on this connection.
        self.close_connection = self.close_connection or bool(answer.claimed_extra)
        self.end_headers()

    def _send_body(self, answer: Response, record: RequestRecord) -> None:
        position = 0
        started = time.monotonic()
        for chunk in answer.read_body():
            rest = chunk
            while rest:
                self._meet_cuts(answer, record, position)
                piece = rest[: self._choose_piece_size(answer, position)]
                self._write_body(piece, record, chunked=answer.framing == "chunked")
                rest = rest[len(piece) :]
                position += len(piece)
                if answer.bytes_per_second:
                    due = started + position / answer.bytes_per_second
                    self.server.closing.wait(max(due - time.monotonic(), 0))
        self._meet_cuts(answer, record, _END)
        if answer.framing == "chunked":
            self.connection.sendall(b"0\r\n\r\n")

    def _choose_piece_size(self, answer: Response, position: int) -> int:
        sizes = [CHUNK_SIZE]
        if answer.bytes_per_second:
            sizes.append(max(answer.bytes_per_second // 20, 1))
        cuts = (answer.drop_after, answer.stall_after)
        sizes += [cut - position for cut in cuts if cut is not None and cut > position]
        return min(sizes)

    def _meet_cuts(self, answer: Response, record: RequestRecord, position: int) -> None:
        """Stall or drop when the body has come to that. Raises ConnectionError when it must not go on."""
        if answer.stall_after is not None and position >= answer.stall_after:
            answer.stall_after = None
            self.server.log.set_state(record, "stalled")
            while not answer.released.wait(0.02):
                self._check_client()
            record.state = "answering"
        if answer.drop_after is not None and position >= answer.drop_after:
            self._wait_until_delivered()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            raise ConnectionAbortedError("dropped by a fault")

    def _write_body(self, piece: memoryview, record: RequestRecord, *, chunked: bool) -> None:
        # Counted before it is sent, so that the count is right as soon as the client has the bytes.
        record.bytes_sent += len(piece)
        rest = memoryview(b"%x\r\n%b\r\n" % (len(piece), bytes(piece))) if chunked else piece
        try:
            while rest:
                rest = rest[self.connection.send(rest) :]
        except OSError:
            record.bytes_sent -= min(len(rest), len(piece))
            raise

    def _wait_until_delivered(self) -> None:
        """A reset discards what is still in the socket's send queue, so wait for the client to have it."""
        unsent = array.array("i", [1])
        while unsent[0]:
            fcntl.ioctl(self.connection, termios.TIOCOUTQ, unsent)
            if unsent[0]:
                self._check_client()
                time.sleep(0.001)

    def _check_client(self) -> None:
        if self.server.closing.is_set():
            raise ConnectionAbortedError("the server is closing")
        with contextlib.suppress(BlockingIOError):
            if not self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                raise ConnectionAbortedError("the client has gone")
