"""Streams of bytes from a source, and functions that read a stream into memory."""

from collections.abc import Callable
from typing import Protocol, Self

from modelhaul.domain.digests import FileHasher
from modelhaul.domain.errors import SourceUnavailableError
from modelhaul.domain.files import SourceFile


class ByteStream(Protocol):
    """The open response of a source, which one thread reads in order.

    Any thread may close the stream at any time. A read in progress then ends as if the connection had broken.
    Implementations are subclasses, which inherit the context manager.
    """

    offset: int
    """Offset of the first byte in the file. It is lower than the requested start if the source ignores ranges."""
    etag: str | None
    ranged: bool
    """False if the source returned the whole file instead of the requested range. The stream ends with the file."""

    def readinto(self, buffer: memoryview) -> int:
        """Read up to `len(buffer)` bytes into the buffer, and return their number (0 only at the end of the range).

        Raises SourceUnavailableError if the connection breaks or ends early, StalledTransferError if no data arrives,
        UnexpectedResponseError if more bytes arrive than requested, ContentMismatchError if more than the file has.
        """

    def close(self) -> None:
        """Close the connection."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()


def fill_buffer(
    stream: ByteStream, view: memoryview, name: str, *, before_read: Callable[[], None] = lambda: None
) -> None:
    """Fill the whole `view`. `before_read` is called before each read, and may raise an exception to stop.

    Raises SourceUnavailableError if the stream ends early. `name` is the file's name in the message.
    """
    filled = 0
    while filled < len(view):
        before_read()
        received = stream.readinto(view[filled:])
        if received == 0:
            left = len(view) - filled
            raise SourceUnavailableError(f"The response for {name[:80]} ended {left:,} bytes early.")
        filled += received


def read_verified(stream: ByteStream, file: SourceFile) -> bytes:
    """Read and verify a small file. Raises DigestMismatchError, ArchiveRefusedError, SourceUnavailableError."""
    body = bytearray(file.size)
    fill_buffer(stream, memoryview(body), file.path)
    hasher = FileHasher(file.digest, file.size)
    hasher.update(body)
    hasher.verify(file.path)
    return bytes(body)
