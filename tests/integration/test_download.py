"""Ranges over real HTTP: exact bytes, or an error of the tree, whatever the server does."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from modelhaul.domain.errors import (
    AccessRequiredError,
    ContentMismatchError,
    FileMissingError,
    RateLimitedError,
    SourceRefusedError,
    SourceUnavailableError,
    StalledTransferError,
    TransientError,
    UnexpectedResponseError,
    UntrustedHostError,
)
from modelhaul_sources.download import HttpByteStream, HttpDownloader
from modelhaul_sources.hosts import HostPolicy
from modelhaul_sources.http_client import Timeouts, read_retry_after

BODY = bytes(range(256)) * 1000  # 256,000 bytes
SIZE = len(BODY)
QUICK = Timeouts(connect=5, read=1, stalled=1)

type Response = Callable[[socket.socket, str], None]


class RawServer:
    """Answers each request by calling `answer(connection, path)`; a connection is good for one request, unless
    the answer leaves it open. `requests` are the heads that came in.
    """

    def __init__(self, answer: Response, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[str] = []
        self._answer = answer
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._threads = [threading.Thread(target=self._accept)]
        self._open: list[socket.socket] = []
        self._threads[0].start()

    def __enter__(self) -> "RawServer":
        return self

    def __exit__(self, *args: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        for connection in self._open:
            with closing(connection):
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with connection:
                head = b""
                while b"\r\n\r\n" not in head:
                    received = connection.recv(65536)
                    if not received:
                        return
                    head += received
                text = head.decode("latin-1")
                self.requests.append(text)
                self._answer(connection, text.split(" ")[1])
        except OSError:
            return


def reply(*lines: str, body: bytes = b"", keep_alive: bool = False) -> Response:
    connection_header = [] if keep_alive else ["Connection: close"]
    head = "\r\n".join(["HTTP/1.1 " + lines[0], *lines[1:], *connection_header, "", ""]).encode("latin-1")
    return lambda connection, _path: connection.sendall(head + body)


def chunk(*pieces: bytes, end: bool = True) -> bytes:
    framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return framed + (b"0\r\n\r\n" if end else b"")


def read_into(received: bytearray, stream: HttpByteStream) -> None:
    buffer = memoryview(bytearray(1 << 17))
    with stream:
        while count := stream.readinto(buffer):
            received += buffer[:count]


def read_all(stream: HttpByteStream) -> bytes:
    received = bytearray()
    read_into(received, stream)
    return bytes(received)


@contextmanager
def serve(answer: Response, timeouts: Timeouts = QUICK) -> Iterator[tuple[RawServer, HttpDownloader]]:
    with RawServer(answer) as server:
        policy = HostPolicy.for_hub(server.endpoint, local_mode=True)
        yield server, HttpDownloader(policy, timeouts=timeouts)


def fetch(answer: Response, start: int = 100, end: int = 200_000) -> bytes:
    with serve(answer) as (server, downloader):
        return read_all(downloader.open_range(f"{server.endpoint}/file?Signature=hush", start, end, SIZE))


RANGE = f"Content-Range: bytes 100-199999/{SIZE}"
PART = BODY[100:200_000]


@pytest.mark.parametrize(
    "answer",
    [
        reply("206 Partial Content", RANGE, f"Content-Length: {len(PART)}", body=PART),
        reply("206 Partial Content", RANGE, body=PART),
        reply("206 Partial Content", RANGE, "Transfer-Encoding: chunked", body=chunk(PART[:7], PART[7:])),
        reply("206 Partial Content", RANGE, "Content-Encoding: identity", body=PART),
        reply("206 Partial Content", RANGE, f"Content-Length: {len(PART)}", body=PART + b"next answer"),
    ],
    ids=["length", "until close", "chunked", "identity", "length, and another answer"],
)
def test_an_exact_range_is_read(answer: Response) -> None:
    assert fetch(answer) == PART


@pytest.mark.parametrize(
    "answer",
    [
        reply("200 OK", f"Content-Length: {SIZE}", body=BODY),
        reply("200 OK", body=BODY),
        reply("200 OK", "Transfer-Encoding: chunked", body=chunk(BODY[:100_000], BODY[100_000:])),
    ],
    ids=["length", "until close", "chunked"],
)
@pytest.mark.parametrize("end", [200_000, SIZE])
def test_an_ignored_range_says_so_and_starts_at_the_first_byte(answer: Response, end: int) -> None:
    with serve(answer) as (server, downloader):
        stream = downloader.open_range(f"{server.endpoint}/file", 100, end, SIZE)
        assert (stream.ranged, stream.offset) == (False, 0)
        assert read_all(stream) == BODY, "all of it"


@pytest.mark.parametrize(
    "answer",
    [
        reply("206 Partial Content", f"Content-Length: {len(PART)}", body=PART),
        reply("206 Partial Content", f"Content-Range: bytes 101-199999/{SIZE}", body=PART[1:]),
        reply("206 Partial Content", f"Content-Range: bytes 100-199998/{SIZE}", body=PART[:-1]),
        reply("206 Partial Content", f"Content-Range: bytes 100-200000/{SIZE}", body=PART + b"x"),
        reply("206 Partial Content", "Content-Range: bytes 100-199999/*", body=PART),
        reply("206 Partial Content", f"Content-Range: items 100-199999/{SIZE}", body=PART),
        reply("206 Partial Content", f"Content-Range: bytes 100-199999/{'9' * 5000}", body=PART),
        reply("206 Partial Content", "Content-Type: multipart/byteranges; boundary=x", body=b"--x"),
        reply("206 Partial Content", RANGE, f"Content-Length: {len(PART) + 1}", body=PART),
        reply("206 Partial Content", RANGE, f"Content-Length: {len(PART) - 1}", body=PART),
        reply("206 Partial Content", RANGE, "Content-Length: many", body=PART),
        reply("206 Partial Content", RANGE, "Content-Encoding: gzip", body=PART),
        reply("206 Partial Content", RANGE, body=PART + b"x"),
        reply("206 Partial Content", RANGE, "Transfer-Encoding: chunked", body=chunk(PART, b"x")),
        reply("200 OK", f"Content-Length: {SIZE - 1}", body=BODY[:-1]),
        reply("200 OK", "Content-Encoding: gzip", body=BODY),
        reply("204 No Content"),
        reply("501 Not Implemented", "Content-Length: 0"),
        reply("505 HTTP Version Not Supported", "Content-Length: 0"),
        lambda connection, _: connection.sendall(b"HTTP/1.1 206"),
        reply("304 Not Modified"),
        reply("300 Multiple Choices", "Content-Length: 0"),
        reply("302 Found", "Location: /file", "Content-Length: 0"),
    ],
)
def test_other_answers_are_unexpected(answer: Response) -> None:
    with pytest.raises(UnexpectedResponseError) as caught:
        fetch(answer)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        reply("200 OK", body=BODY + b"x"),
        reply("200 OK", "Transfer-Encoding: chunked", body=chunk(BODY, b"x")),
        reply("200 OK", f"Content-Length: {SIZE + 1}", body=BODY + b"x"),
        reply("206 Partial Content", f"Content-Range: bytes 100-{SIZE - 1}/{SIZE}", body=BODY[100:] + b"x"),
        reply(
            "206 Partial Content",
            f"Content-Range: bytes 100-{SIZE - 1}/{SIZE}",
            f"Content-Length: {SIZE - 99}",
            body=BODY[100:] + b"x",
        ),
    ],
)
def test_more_than_the_whole_file_is_another_content(answer: Response) -> None:
    with pytest.raises(ContentMismatchError, match="more bytes than the file has"):
        fetch(answer, 100, SIZE)


@pytest.mark.parametrize("size", [SIZE - 1, SIZE + 1])
def test_a_file_of_another_size_is_another_content(size: int) -> None:
    with pytest.raises(ContentMismatchError, match=f"has {size:,} bytes instead of {SIZE:,}"):
        fetch(reply("206 Partial Content", f"Content-Range: bytes 100-199999/{size}", body=PART))


@pytest.mark.parametrize("status", ["400 Bad Request", "405 Method Not Allowed", "416 Range Not Satisfiable"])
def test_a_rejected_request_is_refused(status: str) -> None:
    with pytest.raises(SourceRefusedError, match=f"/file responded with status {status[:3]}"):
        fetch(reply(status, "Content-Length: 0"))


def test_a_request_that_came_too_early_is_unavailable() -> None:
    with pytest.raises(SourceUnavailableError, match="status 425"):
        fetch(reply("425 Too Early", "Content-Length: 0"))


@pytest.mark.parametrize(
    "answer",
    [
        reply("206 Partial Content", RANGE, f"Content-Length: {len(PART)}", body=PART[:-1]),
        reply("206 Partial Content", RANGE, f"Content-Length: {len(PART)}"),
        reply("206 Partial Content", RANGE, body=PART[:150_000]),
        reply("206 Partial Content", RANGE, "Transfer-Encoding: chunked", body=chunk(PART[:150_000])),
        reply("206 Partial Content", RANGE, "Transfer-Encoding: chunked", body=chunk(PART, end=False)[:-9]),
        reply("206 Partial Content", RANGE, "Transfer-Encoding: chunked", body=b"not a number\r\n" + PART),
        reply("200 OK", body=BODY[:150_000]),
        reply("500 Internal Server Error", "Content-Length: 0"),
        reply("503 Slow Down", "Content-Length: 0"),
        reply("408 Request Timeout", "Content-Length: 0"),
        reply("999 Whatever", "Content-Length: 0"),
        lambda connection, _: connection.sendall(b""),
        lambda connection, _: connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n"),
        lambda connection, _: connection.sendall(b"HTTP/1.1 206 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n"),
        lambda connection, _: connection.sendall(b"HTTP/1.1 206 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n"),
        lambda connection, _: time.sleep(3 * QUICK.read),
        lambda connection, _: connection.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00"
        ),
    ],
)
def test_broken_and_failing_servers_are_unavailable(answer: Response) -> None:
    with pytest.raises(SourceUnavailableError) as caught:
        fetch(answer)
    assert "hush" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_bytes_before_the_break_are_handed_out() -> None:
    answer = reply("206 Partial Content", RANGE, f"Content-Length: {len(PART)}", body=PART[:150_000])
    received = bytearray()
    with serve(answer) as (server, downloader):
        stream = downloader.open_range(f"{server.endpoint}/file", 100, 200_000, SIZE)
        with pytest.raises(SourceUnavailableError):
            read_into(received, stream)
    assert received == PART[:150_000]


def test_a_server_that_does_not_listen_is_unavailable() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        downloader = HttpDownloader(HostPolicy.for_hub(f"http://127.0.0.1:{port}", local_mode=True))
        with pytest.raises(SourceUnavailableError, match=f"127.0.0.1:{port}/file cannot be reached"):
            downloader.open_range(f"http://127.0.0.1:{port}/file?Signature=hush", 0, 1, 1)


def test_a_name_that_does_not_resolve_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(SourceUnavailableError, match="cannot be reached"):
        HttpDownloader(HostPolicy.for_hub("https://huggingface.co")).open_range("https://huggingface.co/a", 0, 1, 1)


def stall(connection: socket.socket, _path: str) -> None:
    connection.sendall(f"HTTP/1.1 206 Partial Content\r\n{RANGE}\r\n\r\n".encode() + PART[:100_000])
    while connection.recv(1):
        pass


def trickle(connection: socket.socket, _path: str) -> None:
    connection.sendall(f"HTTP/1.1 206 Partial Content\r\n{RANGE}\r\n\r\n".encode() + PART[:140_000])
    for byte in PART[140_000:]:
        connection.sendall(bytes([byte]))
        time.sleep(QUICK.read / 10)


@pytest.mark.parametrize("answer", [stall, trickle])
def test_a_transfer_that_stands_still_is_stalled(answer: Response) -> None:
    with pytest.raises(StalledTransferError) as caught:
        fetch(answer)
    assert "hush" not in str(caught.value)


def test_time_between_two_reads_does_not_count() -> None:
    with serve(reply("206 Partial Content", RANGE, body=PART)) as (server, downloader):
        stream = downloader.open_range(f"{server.endpoint}/file", 100, 200_000, SIZE)
        buffer = memoryview(bytearray(1000))
        stream.readinto(buffer)
        time.sleep(1.5 * QUICK.stalled)
        assert bytes(buffer) + read_all(stream) == PART


def test_closing_wakes_a_read_in_another_thread() -> None:
    with serve(stall, Timeouts(read=60, stalled=60)) as (server, downloader):
        stream = downloader.open_range(f"{server.endpoint}/file", 100, 200_000, SIZE)
        failures: list[Exception] = []

        def read() -> None:
            try:
                read_all(stream)
            except TransientError as error:
                failures.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        while stream._reading_since is None:
            time.sleep(0.01)
        stream.close()
        reader.join(30)
        assert not reader.is_alive()
        assert isinstance(failures[0], SourceUnavailableError)


@pytest.mark.parametrize("status", ["404 Not Found", "410 Gone"])
def test_a_missing_file(status: str) -> None:
    with pytest.raises(FileMissingError, match="/file no longer exists"):
        fetch(reply(status, "Content-Length: 0"))


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
def test_a_refusal_by_the_endpoint_and_by_a_signed_address_differ(status: str) -> None:
    refusal = reply(status, "Content-Length: 0")
    with pytest.raises(AccessRequiredError):
        fetch(refusal)
    with RawServer(refusal) as cdn, pytest.raises(UnexpectedResponseError, match="may have expired") as caught:
        fetch(reply("302 Found", f"Location: {cdn.endpoint}/file?Signature=hush", "Content-Length: 0"))
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (["Retry-After: 17"], 17),
        (["Retry-After: 17", 'RateLimit: "api";r=0;t=55'], 17),
        (['RateLimit: "resolvers";r=0;t=55'], 55),
        (['ratelimit: "resolvers" ; r = 0 ; t = 55'], 55),
        (["Retry-After: soon", 'RateLimit: "api";r=0;t=55'], 55),
        (["Retry-After: Wed, 21 Oct 2015 07:28:00 GMT"], 0),
        (["Retry-After: -5"], None),
        ([f"Retry-After: {'9' * 5000}"], None),
        ([], None),
    ],
)
def test_a_rate_limit_says_how_long_to_wait(headers: list[str], expected: float | None) -> None:
    with pytest.raises(RateLimitedError) as caught:
        fetch(reply("429 Too Many Requests", "Content-Length: 0", *headers))
    assert caught.value.retry_after == expected


def test_a_date_to_retry_after_becomes_seconds() -> None:
    at = datetime.now(UTC) + timedelta(seconds=600)
    for text in (format_datetime(at, usegmt=True), format_datetime(at).replace("+0000", "-0000")):
        waiting = read_retry_after({"Retry-After": text})
        assert waiting is not None
        assert 500 < waiting <= 600


def test_an_overloaded_server_says_how_long_to_wait() -> None:
    with pytest.raises(SourceUnavailableError) as caught:
        fetch(reply("503 Unavailable", "Retry-After: 9", 'RateLimit: "api";r=3;t=55', "Content-Length: 0"))
    assert caught.value.retry_after == 9
    with pytest.raises(SourceUnavailableError) as caught:
        fetch(reply("503 Unavailable", 'RateLimit: "api";r=3;t=55', "Content-Length: 0"))
    assert caught.value.retry_after is None


def test_headers_go_to_the_first_origin_only_and_the_range_goes_everywhere() -> None:
    part = reply("206 Partial Content", RANGE, 'ETag: W/"edge"', body=PART)
    headers = {"Authorization": "Bearer hf_secret", "X-Ticket": "secret"}
    with RawServer(part) as cdn:

        def answer(connection: socket.socket, path: str) -> None:
            target = "/moved%20on" if path == "/file" else f"{cdn.endpoint}/blob?Signature=hush"
            reply("302 Found", f"Location: {target}", 'X-Linked-Etag: "linked"', "Content-Length: 0")(connection, path)

        with serve(answer) as (hub, downloader):
            stream = downloader.open_range(f"{hub.endpoint}/file", 100, 200_000, SIZE, headers)
            assert read_all(stream) == PART
            assert stream.etag == "linked"
        assert [head.count("secret") for head in hub.requests + cdn.requests] == [2, 2, 0]
        for head in hub.requests + cdn.requests:
            assert "\r\nRange: bytes=100-199999\r\n" in head
            assert "\r\nAccept-Encoding: identity\r\n" in head


def test_headers_do_not_come_back_when_a_redirect_leads_home_again() -> None:
    other_endpoint = ""

    def answer(connection: socket.socket, path: str) -> None:
        away = reply("302 Found", f"Location: {other_endpoint}/away", "Content-Length: 0")
        home = reply("206 Partial Content", RANGE, body=PART)
        (home if path == "/home" else away)(connection, path)

    headers = {"Authorization": "Bearer hf_secret"}
    with serve(answer) as (hub, downloader):
        with RawServer(reply("302 Found", f"Location: {hub.endpoint}/home", "Content-Length: 0")) as other:
            other_endpoint = other.endpoint
            assert read_all(downloader.open_range(f"{hub.endpoint}/file", 100, 200_000, SIZE, headers)) == PART
        assert ["hf_secret" in head for head in hub.requests] == [True, False]


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/latest/meta-data/iam",
        "https://169.254.169.254/latest/meta-data/iam",
        "http://10.0.0.1/x",
        "https://192.168.0.1/x",
        "https://[fd00:ec2::254]/x",
        "http://[::ffff:10.0.0.1]/x",
        "https://2852039166/x",
        "https://user:hush@huggingface.co/x",
        "ftp://huggingface.co/x",
        "https://evil.example/x?Signature=hush",
        "https://huggingface.co@evil.example/",
        "//evil.example/x",
        "file:///etc/passwd",
        "https://evil.example\\@huggingface.co/x",
    ],
)
def test_a_redirect_to_an_unknown_host_is_not_followed(target: str) -> None:
    with pytest.raises(UntrustedHostError) as caught:
        fetch(reply("302 Found", f"Location: {target}", "Content-Length: 0"))
    assert "hush" not in str(caught.value)


def test_no_credentials_cookies_or_proxies_come_from_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password netrc-secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    answer = reply("206 Partial Content", RANGE, "Set-Cookie: a=cookie-secret", body=PART)
    with serve(answer) as (server, downloader):
        for _ in range(2):
            assert read_all(downloader.open_range(f"{server.endpoint}/file", 100, 200_000, SIZE)) == PART
        assert len(server.requests) == 2
        for head in server.requests:
            assert "authorization" not in head.lower()
            assert "cookie" not in head.lower()


def test_a_connection_is_used_again_after_a_redirect_and_a_whole_answer() -> None:
    def answer(connection: socket.socket, path: str) -> None:
        moved = reply("302 Found", "Location: /b", "Content-Length: 5", body=b"Found", keep_alive=True)
        moved(connection, path)
        server.requests.append(connection.recv(65536).decode())
        length = f"Content-Length: {len(PART)}"
        reply("206 Partial Content", RANGE, length, body=PART, keep_alive=True)(connection, path)
        server.requests.append(connection.recv(65536).decode())
        reply("404 Not Found", "Content-Length: 4", body=b"Gone")(connection, path)

    with serve(answer) as (server, downloader):
        assert read_all(downloader.open_range(f"{server.endpoint}/a", 100, 200_000, SIZE)) == PART
        with pytest.raises(FileMissingError):
            downloader.open_range(f"{server.endpoint}/c", 100, 200_000, SIZE)
        assert [head.split(" ")[1] for head in server.requests] == ["/a", "/b", "/c"]


def make_certificate(folder: Path, host: str) -> tuple[ssl.SSLContext, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / "certificate.pem", folder / "key.pem"
    public.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    return context, public


@pytest.fixture
def tls_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[RawServer, Path]]:
    """`hub.example` at 127.0.0.1 with a certificate, and the certificate's file."""
    context, certificate = make_certificate(tmp_path, "hub.example")
    real = socket.getaddrinfo

    def resolve(host: str, *args: object, **options: object) -> object:
        return real("127.0.0.1" if host == "hub.example" else host, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with RawServer(reply("206 Partial Content", RANGE, body=PART), context) as server:
        yield server, certificate


def open_tls(server: RawServer, certificate: Path | None, *, local_mode: bool) -> bytes:
    endpoint = f"https://hub.example:{server.port}"
    downloader = HttpDownloader(HostPolicy.for_hub(endpoint, local_mode=local_mode), timeouts=QUICK)
    if certificate:
        downloader._client._session.verify = str(certificate)
    return read_all(downloader.open_range(f"{endpoint}/file", 100, 200_000, SIZE))


def test_ranges_come_over_tls(tls_server: tuple[RawServer, Path]) -> None:
    assert open_tls(*tls_server, local_mode=True) == PART


def test_a_name_that_leads_to_this_machine_is_not_asked(tls_server: tuple[RawServer, Path]) -> None:
    with pytest.raises(UntrustedHostError, match=r"hub\.example resolves to an address"):
        open_tls(*tls_server, local_mode=False)
    assert tls_server[0].requests == []


def test_an_unknown_certificate_is_not_trusted(tls_server: tuple[RawServer, Path]) -> None:
    """Somebody must correct it, so it is not waited for as an outage."""
    with pytest.raises(UnexpectedResponseError, match="no valid TLS certificate"):
        open_tls(tls_server[0], None, local_mode=True)
    assert tls_server[0].requests == []


def test_a_stalled_tls_transfer_yields_no_ciphertext(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context, certificate = make_certificate(tmp_path, "localhost")
    with RawServer(trickle, context) as server:
        policy = HostPolicy.for_hub(f"https://localhost:{server.port}", local_mode=True)
        downloader = HttpDownloader(policy, timeouts=QUICK)
        downloader._client._session.verify = str(certificate)
        stream = downloader.open_range(f"{policy.endpoint}/file", 100, 200_000, SIZE)
        received = bytearray()
        with pytest.raises(StalledTransferError):
            read_into(received, stream)
        assert received == PART[: len(received)]
