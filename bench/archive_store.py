"""An S3 server over TLS that serves one archive and discards uploads.

python -m bench.archive_store ARCHIVE CERTIFICATE

It ignores signatures, and counts the reads of the archive and the writes.
"""

import base64
import re
import socketserver
import ssl
import sys
import threading
import zlib
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from bench.servers import announce

BUCKET = "incoming"
KEY = "incoming/archive.zip"
ETAG = f"{0:032x}"
REQUESTS = "/requests"  # returns the number of reads of the archive and of writes
_READ_SIZE = 1024 * 1024


class _Store(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, archive: Path, certificate: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.archive = archive
        self.reads = 0
        self.writes = 0
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        # The thread of the connection performs the handshake.
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors of clients that close a connection early."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = _READ_SIZE
    server: _Store

    def do_HEAD(self) -> None:
        if self._is_archive():
            size = self.server.archive.stat().st_size
            self._respond(200, {"ETag": f'"{ETAG}"', "Content-Length": str(size), "Accept-Ranges": "bytes"})
        else:
            self._respond(404, {"Content-Length": "0"})

    def do_GET(self) -> None:
        if self.path == REQUESTS:
            body = f"{self.server.reads} {self.server.writes}".encode()
            self._respond(200, {"Content-Length": str(len(body))}, body)
            return
        if not self._is_archive():
            self._respond_xml(404, "<Error><Code>NoSuchKey</Code></Error>")
            return
        self.server.reads += 1
        size = self.server.archive.stat().st_size
        start, end = _parse_range(self.headers.get("Range", "bytes=0-"), size)
        headers = {"ETag": f'"{ETAG}"', "Content-Length": str(end - start)}
        self._respond(206, {**headers, "Content-Range": f"bytes {start}-{end - 1}/{size}"})
        with self.server.archive.open("rb") as file:
            file.seek(start)
            for position in range(start, end, _READ_SIZE):
                self.wfile.write(file.read(min(_READ_SIZE, end - position)))

    def do_PUT(self) -> None:
        self.server.writes += 1
        self._discard_body()
        if "x-amz-copy-source" not in self.headers:
            self._respond(200, {"ETag": f'"{ETAG}"', "Content-Length": "0"})
            return
        start, end = _parse_range(self.headers["x-amz-copy-source-range"], self.server.archive.stat().st_size)
        with self.server.archive.open("rb") as file:
            file.seek(start)
            crc32 = base64.b64encode(zlib.crc32(file.read(end - start)).to_bytes(4, "big")).decode()
        self._respond_xml(
            200,
            f"<CopyPartResult><ETag>{ETAG}</ETag><ChecksumCRC32>{crc32}</ChecksumCRC32></CopyPartResult>",
        )

    def do_POST(self) -> None:
        self.server.writes += 1
        self._discard_body()
        if "uploads" in parse_qs(urlsplit(self.path).query, keep_blank_values=True):
            upload = "<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"
            self._respond_xml(200, upload)
            return
        etag = f"&quot;{ETAG}-1&quot;"
        self._respond_xml(200, f"<CompleteMultipartUploadResult><ETag>{etag}</ETag></CompleteMultipartUploadResult>")

    def do_DELETE(self) -> None:
        self._respond(204, {})

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name in the base class
        pass

    def _is_archive(self) -> bool:
        return unquote(urlsplit(self.path).path) == f"/{BUCKET}/{KEY}"

    def _discard_body(self) -> None:
        if self.headers.get("Expect") == "100-continue":
            self.wfile.flush()
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                self.rfile.read(size + 2)
            self.rfile.readline()
            return
        remaining = int(self.headers.get("Content-Length", 0))
        while remaining:
            received = len(self.rfile.read(min(_READ_SIZE, remaining)))
            if not received:
                raise ConnectionAbortedError("the body ended early")
            remaining -= received

    def _respond_xml(self, status: int, body: str) -> None:
        content = body.encode()
        self._respond(status, {"Content-Type": "application/xml", "Content-Length": str(len(content))}, content)

    def _respond(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _parse_range(text: str, size: int) -> tuple[int, int]:
    """Return the start and exclusive end of a range, including `bytes=-N` for the last N bytes."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", text)
    assert match is not None, text
    first, last = match.groups()
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(size, int(last) + 1 if last else size)


def main() -> None:
    with _Store(Path(sys.argv[1]), Path(sys.argv[2])) as store:
        threading.Thread(target=store.serve_forever, args=(0.05,), daemon=True).start()
        announce({"endpoint": f"https://127.0.0.1:{store.server_address[1]}"})
        store.shutdown()


if __name__ == "__main__":
    main()
