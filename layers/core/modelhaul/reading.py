"""Whole contents out of byte streams, for what fits in memory."""

from modelhaul.digest import FileHasher
from modelhaul.errors import SourceUnavailableError
from modelhaul.model import SourceFile
from modelhaul.ports import ByteStream


def fill_buffer(stream: ByteStream, view: memoryview, name: str) -> None:
    """Raises SourceUnavailableError, in which `name` says what was read, if the stream ends before `view` is full."""
    filled = 0
    while filled < len(view):
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
