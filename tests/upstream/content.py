"""Where a served file's bytes come from: memory, a file on disk, or a generator of any size."""

import hashlib
import random
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Protocol

from tests.weights import build_header

CHUNK_SIZE = 1024 * 1024


class Content(Protocol):
    """Bytes of a known size that can be read from any position without holding them all."""

    @property
    def size(self) -> int: ...

    @property
    def sha256(self) -> str:
        """Hexadecimal digest; computed by streaming on first use."""
        ...

    def read(self, start: int, stop: int) -> Iterator[memoryview]:
        """Yield the bytes [start, stop) in chunks of at most CHUNK_SIZE.

        A chunk is valid only until the next one is asked for.
        """
        ...


class BytesContent:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self._data).hexdigest()

    def read(self, start: int, stop: int) -> Iterator[memoryview]:
        view = memoryview(self._data)[start:stop]
        for position in range(0, len(view), CHUNK_SIZE):
            yield view[position : position + CHUNK_SIZE]


class DiskContent:
    """A file on disk, which must not change while it is served."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.size = path.stat().st_size

    @cached_property
    def sha256(self) -> str:
        with self._path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def read(self, start: int, stop: int) -> Iterator[memoryview]:
        buffer = memoryview(bytearray(min(CHUNK_SIZE, max(stop - start, 0))))
        with self._path.open("rb", buffering=0) as file:
            file.seek(start)
            while start < stop:
                count = file.readinto(buffer[: min(len(buffer), stop - start)])
                if not count:
                    raise OSError(f"{self._path} is shorter than when it was added")
                start += count
                yield buffer[:count]


class GeneratedContent:
    """`size` pseudo-random bytes that exist nowhere: a random 1 MiB block, repeated.

    The first 8 bytes of each block are its index, big-endian, so that no two blocks are equal and a
    misplaced one shows. The same size and seed always give the same bytes.
    """

    def __init__(self, size: int, seed: int = 0) -> None:
        self.size = size
        self._block = random.Random(seed).randbytes(CHUNK_SIZE)

    @cached_property
    def sha256(self) -> str:
        return _hash_chunks(self)

    def read(self, start: int, stop: int) -> Iterator[memoryview]:
        block = memoryview(bytearray(self._block))
        while start < stop:
            index, position = divmod(start, CHUNK_SIZE)
            block[:8] = index.to_bytes(8, "big")
            chunk = block[position : position + stop - start]
            start += len(chunk)
            yield chunk


class SafetensorsContent:
    """The content as the one tensor of a safetensors file."""

    def __init__(self, tensor: Content) -> None:
        self._header = BytesContent(build_header(tensor.size))
        self._tensor = tensor
        self.size = self._header.size + tensor.size

    @cached_property
    def sha256(self) -> str:
        return _hash_chunks(self)

    def read(self, start: int, stop: int) -> Iterator[memoryview]:
        offset = self._header.size
        yield from self._header.read(start, min(stop, offset))
        yield from self._tensor.read(max(start - offset, 0), max(stop - offset, 0))


def read_all(content: Content) -> bytes:
    return b"".join(bytes(chunk) for chunk in content.read(0, content.size))


def _hash_chunks(content: Content) -> str:
    digest = hashlib.sha256()
    for chunk in content.read(0, content.size):
        digest.update(chunk)
    return digest.hexdigest()
