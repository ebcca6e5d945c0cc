"""Open responses of a source, and whole contents out of them, for what fits in memory."""

from collections.abc import Callable
from typing import Protocol, Self

from modelhaul.domain.digests import FileHasher
from modelhaul.domain.errors import SourceUnavailableError
from modelhaul.domain.files import SourceFile


class ByteStream(Protocol):
    """An open answer of a source, read in order by one thread.

    Any thread may close it at any time, which gives the rest up and ends a read under way as a broken connection.
    """

    offset: int
    """Where in the file its first byte belongs. It is below what was asked for if the source ignores ranges."""
    etag: str | None
    ranged: bool
    """False if the source answered a request for a range with the whole file, which then comes to its end."""

    def readinto(self, buffer: memoryview) -> int:
        """Fills at most `len(buffer)` bytes and returns how many (0 only at the end of what was asked for).

        Raises SourceUnavailableError when the connection breaks or ends early, StalledTransferError when
        nothing comes, UnexpectedResponseError when more comes than was asked for.
        """

    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *args: object) -> None: ...


def fill_buffer(
    stream: ByteStream, view: memoryview, name: str, *, before_read: Callable[[], None] = lambda: None
) -> None:
    """Fills the whole of `view`. `before_read` may raise, to give up.

    Raises SourceUnavailableError, in which `name` says what was read, if the stream ends before.
    """
    filled = 0
    while filled < len(view):
        before_read()
        received = stream.readinto(view[filled:])
        if received == 0:
            raise SourceUnavailableError(f"{name[:80]}: the source's answer ended early")
        filled += received


def read_verified(stream: ByteStream, file: SourceFile) -> bytes:
    """All of a small file. Raises DigestMismatchError, ArchiveRefusedError, SourceUnavailableError."""
    body = bytearray(file.size)
    fill_buffer(stream, memoryview(body), file.path)
    hasher = FileHasher(file.digest, file.size)
    hasher.update(body)
    hasher.verify(file.path)
    return bytes(body)
