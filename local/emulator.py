"""Start MiniStack with S3 objects on disk and an address for each API: `python -P local/emulator.py`.

MiniStack's own environment runs this script, which imports nothing else of this project. MiniStack keeps all objects in
memory. Its option S3_PERSIST stores them, but a read of a range then reads the whole object, and request bodies and
parts stay in memory. Functions of MiniStack are therefore replaced here, so that bodies of 1 MiB and more are in files.
A body in chunks with signatures or trailers (aws-chunked) is still read into memory.

Environment: GATEWAY_PORT for all AWS services; API_PORT and HUB_PORT for the API and the Hub read API, which have /v1
and /hf at their root; S3_DATA_DIR and TMPDIR, which must be on the same file system.
"""

import asyncio
import contextlib
import inspect
import itertools
import logging
import mmap
import os
import resource
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

os.environ["S3_PERSIST"] = "1"

from hypercorn.asyncio import serve
from hypercorn.config import Config
from ministack import app as ministack
from ministack.core import iam_evaluator
from ministack.services import apigateway_v1, s3

MIB = 1024 * 1024
MIN_DISK_SIZE = MIB
CHUNK_SIZE = MIB
RESERVED_SPACE = 1024 * MIB
STAGE_PORTS = {"v1": "API_PORT", "hf": "HUB_PORT"}

logger = logging.getLogger("modelhaul")

type Scope = MutableMapping[str, Any]
type Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
type Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
type Application = Callable[[Scope, Receive, Send], Awaitable[None]]
type Body = bytes | DiskBytes

receive_event: ContextVar[Receive] = ContextVar("receive_event")


class DiskFullError(Exception):
    """The file system of the local stack has less than RESERVED_SPACE left."""


class DiskBytes:
    """A range of a file. hashlib, zlib and files read it like bytes. `path` is set if the range is the whole file."""

    def __init__(self, file: BinaryIO, start: int, stop: int, path: str = "") -> None:
        self._file = file
        self._start = start
        self._stop = stop
        self.path = path

    def __len__(self) -> int:
        return self._stop - self._start

    def __buffer__(self, flags: int) -> memoryview:
        # Unmapped as soon as the reader releases the buffer.
        mapped = mmap.mmap(self._file.fileno(), self._stop, access=mmap.ACCESS_READ)
        return memoryview(mapped)[self._start : self._stop]

    def __getitem__(self, key: slice) -> Body:
        start, stop, _ = key.indices(len(self))
        if stop - start < MIN_DISK_SIZE:
            return os.pread(self._file.fileno(), max(stop - start, 0), self._start + start)
        return DiskBytes(self._file, self._start + start, self._start + stop)

    def read_chunks(self) -> Iterator[bytes]:
        for position in range(self._start, self._stop, CHUNK_SIZE):
            yield os.pread(self._file.fileno(), min(CHUNK_SIZE, self._stop - position), position)


class SpoolFile:
    """A temporary file, deleted when nothing refers to it or to its content. Raises DiskFullError."""

    def __init__(self, size: int) -> None:
        if shutil.disk_usage(tempfile.gettempdir()).free - size < RESERVED_SPACE:
            message = (
                f"Cannot store {size:,} bytes: the local stack leaves {RESERVED_SPACE // MIB:,} MiB of the disk free. "
                "Delete models or free disk space."
            )
            logger.error(message)
            raise DiskFullError(message)
        self._file: Any = tempfile.NamedTemporaryFile(prefix="body-", buffering=0)  # noqa: SIM115 - as long as it is used
        self._size = 0

    def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]
        self._size += len(data)

    def finish(self) -> DiskBytes:
        return DiskBytes(self._file, 0, self._size, self._file.name)


async def read_request_body(receive: Receive, method: str, headers: dict[str, str]) -> Body:
    """Replace `_read_request_body`: store the body of a large PUT, which is an object or a part, in a file."""
    length = headers.get("content-length", "")
    is_chunked = "x-amz-decoded-content-length" in headers
    if method != "PUT" or not length.isdecimal() or int(length) < MIN_DISK_SIZE or is_chunked:
        body: bytes = await read_small_body(receive, method, headers)
        return body
    spool = SpoolFile(int(length))
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ministack._RequestBodyDisconnected
        spool.write(message.get("body", b""))
        more = message.get("more_body", False)
    content = spool.finish()
    iam_evaluator.pin_signed_body(content)
    return content


async def send_response(send: Send, status: int, headers: dict[str, str], body: Any, *, head: bool = False) -> None:
    """Replace `_send_response`: send a file in chunks."""
    if not isinstance(body, DiskBytes):
        await send_small_response(send, status, headers, body, head=head)
        return
    sent = {name.lower(): value for name, value in headers.items()} | {"content-length": str(len(body))}
    await send(
        {"type": "http.response.start", "status": status, "headers": ministack._asgi_header_list(sent)},
    )
    # Hypercorn keeps in memory what is sent to a client that has closed its connection.
    disconnected = asyncio.ensure_future(wait_for_disconnect(receive_event.get()))
    try:
        for chunk in body.read_chunks():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            # Let other requests run, and detect the end of this one.
            await asyncio.sleep(0)
            if disconnected.done():
                return
    finally:
        disconnected.cancel()
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def read_body(bucket: str, key: str, record: dict[str, Any]) -> Body:
    """Replace `_read_body`: open a large object, and do not read it."""
    stored: Body | None = record.get("body")
    if stored is not None:
        return stored
    path = s3._object_disk_path(bucket, key)
    # An object that is overwritten or deleted meanwhile stays readable.
    file = Path(path).open("rb")  # noqa: SIM115 - closed when its last reader is gone
    size = os.fstat(file.fileno()).st_size
    if size < MIN_DISK_SIZE:
        with file:
            return file.read()
    return DiskBytes(file, 0, size, path)


def get_object_data(bucket: str, key: str, version_id: str | None = None) -> bytes | None:
    """Replace `_get_object_data`, which gives other services the content of an object, such as a function's code."""
    body = read_object(bucket, key, version_id)
    return bytes(body) if isinstance(body, DiskBytes) else body


def write_file(path: str, data: Any, *, text: bool = False) -> None:
    """Replace `_atomic_write`: link the file of a body, which is never changed, and copy only ranges of files."""
    if not isinstance(data, DiskBytes):
        write_small_file(path, data, text=text)
        return
    partial = Path(f"{path}.tmp")
    if data.path:
        os.link(data.path, partial)
    else:
        with partial.open("wb") as file:
            file.writelines(data.read_chunks())
    partial.replace(path)
    # A rename does nothing if both names are links of the same file.
    partial.unlink(missing_ok=True)


def join_parts(parts: Sequence[Body]) -> Body:
    """Return the content of an upload of several parts. Raises DiskFullError."""
    size = sum(map(len, parts))
    if size < MIN_DISK_SIZE:
        return b"".join(map(bytes, parts))
    spool = SpoolFile(size)
    for chunk in itertools.chain.from_iterable(
        part.read_chunks() if isinstance(part, DiskBytes) else (part,) for part in parts
    ):
        spool.write(chunk)
    return spool.finish()


def replace_code(module: ModuleType, function: str, replacements: Mapping[str, str]) -> None:
    """Replace expressions, each the only one of its kind, in a function. Raises RuntimeError for another source."""
    source = inspect.getsource(getattr(module, function))
    for old, new in replacements.items():
        if source.count(old) != 1:
            raise RuntimeError(f"Unsupported MiniStack version: {function} does not contain {old!r} exactly once.")
        source = source.replace(old, new)
    exec(compile(source, module.__file__ or "", "exec"), module.__dict__)  # noqa: S102


read_small_body = ministack._read_request_body
send_small_response = ministack._send_response
write_small_file = s3._atomic_write
read_object = s3._get_object_data


def store_objects_on_disk() -> None:
    ministack._read_request_body = read_request_body
    ministack._send_response = send_response
    s3._read_body = read_body
    s3._get_object_data = get_object_data
    s3._atomic_write = write_file
    s3._join_parts = join_parts
    replace_code(
        s3,
        "_complete_multipart_upload",
        {
            'b"".join(combined_parts)': "_join_parts(combined_parts)",
            # The ETag is the digest of the part. MiniStack handles no other request while it computes a digest.
            'hashlib.md5(stored["body"]).digest()': """bytes.fromhex(stored["etag"].strip('"'))""",
        },
    )


def serve_apis(application: Application, stages: dict[int, str]) -> Application:
    """Return an application that serves the API with the stage `stages[port]` at the root of that port.

    MiniStack serves all APIs at one port, below a path of its own.
    """

    async def route(scope: Scope, receive: Receive, send: Send) -> None:
        stage = stages.get(scope["server"][1]) if scope["type"] == "http" else None
        if stage is None:
            await application(scope, receive, send)
            return
        api_id = find_api(stage)
        if api_id is None:
            await send_text(send, 503, f"The stage {stage} is not deployed yet.")
            return
        prefix = f"/_aws/execute-api/{api_id}"
        moved = {"path": prefix + scope["path"], "raw_path": prefix.encode() + scope["raw_path"]}
        await application({**scope, **moved}, receive, send)

    return route


def find_api(stage: str) -> str | None:
    """Return the ID of the REST API with the stage, or None. A deployment may replace the API by another."""
    found = [api_id for (_, _, api_id), deployed in apigateway_v1._stages_v1._data.items() if stage in deployed]
    return found[-1] if found else None


def report_full_disk(application: Application) -> Application:
    """Return an application that responds with 507 to a request whose body does not fit on the disk."""

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        receive_event.set(receive)
        try:
            await application(scope, receive, send)
        except DiskFullError as error:
            text = f"<Error><Code>InsufficientStorage</Code><Message>{error}</Message></Error>"
            await send_text(send, 507, text, "application/xml")

    return respond


async def send_text(send: Send, status: int, text: str, content_type: str = "text/plain") -> None:
    headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode(), "more_body": False})


def main() -> None:
    # Each part of an upload is an open file.
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    store_objects_on_disk()
    stages = {int(os.environ[variable]): stage for stage, variable in STAGE_PORTS.items()}
    config = Config()
    config.bind = [f"127.0.0.1:{port}" for port in (os.environ["GATEWAY_PORT"], *stages)]
    config.keep_alive_timeout = 75
    asyncio.run(serve(report_full_disk(serve_apis(ministack.app, stages)), config))


if __name__ == "__main__":
    main()
