"""A minimal S3 server for multipart uploads that counts the bytes and discards them.

python -m bench.discarding_store [BYTES_PER_SECOND], the rate limit for each part; the default is no limit.

It ignores signatures. It checks the CRC-32 of the first part of each upload only: checks of all parts would take CPU
time from the transfer on a small machine.
"""

import base64
import socketserver
import sys
import threading
import time
import zlib
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from bench.servers import announce

_READ_SIZE = 1024 * 1024


class _Store(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 32

    def __init__(self, rate: float | None) -> None:
        self.rate = rate
        super().__init__(("127.0.0.1", 0), _Handler)
        self.parts: dict[int, int] = {}
        self.size: int | None = None


class _Handler(BaseHTTPRequestHandler):
    """Handles one object at a time, and ignores keys and upload IDs."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Store

    def do_POST(self) -> None:
        self._read_body()
        if "uploads" in self._read_query():
            self.server.parts.clear()
            self.server.size = None
            self._respond_xml(
                200, "<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"
            )
            return
        self.server.size = sum(self.server.parts.values())
        etag = f"&quot;{0:032x}-{len(self.server.parts)}&quot;"
        self._respond_xml(200, f"<CompleteMultipartUploadResult><ETag>{etag}</ETag></CompleteMultipartUploadResult>")

    def do_PUT(self) -> None:
        number = int(self._read_query()["partNumber"][0])
        size, crc32 = self._read_body(checked=number == 1)
        sent = base64.b64encode(crc32.to_bytes(4, "big")).decode()
        if number == 1 and self.headers["x-amz-checksum-crc32"] != sent:
            self._respond_xml(400, "<Error><Code>BadDigest</Code></Error>")
            return
        self.server.parts[number] = size
        self._respond(200, {"ETag": f'"{number:032x}"', "Content-Length": "0"})

    def do_HEAD(self) -> None:
        if self.server.size is None:
            self._respond(404, {"Content-Length": "0"})
        else:
            self._respond(200, {"ETag": f'"{0:032x}"', "Content-Length": str(self.server.size)})

    def do_DELETE(self) -> None:
        self.server.parts.clear()
        self._respond(204, {})

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name in the base class
        pass

    def _read_query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.path).query, keep_blank_values=True)

    def _read_body(self, *, checked: bool = False) -> tuple[int, int]:
        """Discard the body, and return its size, and its CRC-32 if `checked`."""
        size = remaining = int(self.headers.get("Content-Length", 0))
        buffer = memoryview(bytearray(min(_READ_SIZE, size)))
        started = time.monotonic()
        crc32 = 0
        while remaining:
            count = self.rfile.readinto(buffer[: min(remaining, len(buffer))])
            if not count:
                raise ConnectionAbortedError("the body ended early")
            if checked:
                crc32 = zlib.crc32(buffer[:count], crc32)
            remaining -= count
            if self.server.rate is not None:
                due = started + (size - remaining) / self.server.rate
                time.sleep(max(0, due - time.monotonic()))
        return size, crc32

    def _respond_xml(self, status: int, body: str) -> None:
        content = body.encode()
        self._respond(status, {"Content-Type": "application/xml", "Content-Length": str(len(content))})
        self.wfile.write(content)

    def _respond(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def main() -> None:
    with _Store(float(sys.argv[1]) if sys.argv[1:] else None) as store:
        threading.Thread(target=store.serve_forever, args=(0.05,), daemon=True).start()
        announce({"endpoint": f"http://127.0.0.1:{store.server_address[1]}"})
        store.shutdown()


if __name__ == "__main__":
    main()
