"""Reads a ZIP archive by ranges: its directory and its entries."""

import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import batched
from typing import Self

from modelhaul.archives.directory import (
    LOCAL_HEADER_SIZE,
    TAIL_SIZE,
    ArchiveLimits,
    Entry,
    Method,
    Refusal,
    ShortHeaderError,
    check_local_header,
    find_directory,
    is_junk,
    read_directory,
)
from modelhaul.archives.inflating import InflatingStream
from modelhaul.digest import Algorithm, Digest, FileHasher
from modelhaul.errors import ArchiveRefusedError
from modelhaul.ports import ByteStream
from modelhaul.reading import fill_buffer

type OpenRange = Callable[[int, int], ByteStream]
"""Opens bytes `start` to `end` (excluded) of an archive."""

_CHUNK = 256 * 1024
_HEADER_SLACK = 512  # bytes of extra fields that one request for a local header brings along
# What is near each other, local headers or small entries, is read together; a run stays below what may be in memory 8
# times over.
_RUN_GAP = 64 * 1024
_RUN_SIZE = 4 * 1024 * 1024
_RUNS_AT_ONCE = 8
_HEADS_AT_ONCE = 1_000  # of one run: each may be of some bytes in the archive, and of two kilobytes inflated


class ArchiveReader:
    """One archive of `size` bytes. Every method raises ArchiveRefusedError and what `open_range` raises."""

    def __init__(self, open_range: OpenRange, size: int, limits: ArchiveLimits) -> None:
        self._open_range = open_range
        self._size = size
        self._limits = limits

    @cached_property
    def entries(self) -> Sequence[Entry]:
        """All of the central directory, in order of their place in the archive; one request, or two."""
        start = max(0, self._size - TAIL_SIZE)
        tail = self._read(start, self._size)
        location = find_directory(tail, self._size)
        end = location.offset + location.size
        data = self._read(location.offset, end) if location.offset < start else tail[location.offset - start :]
        return read_directory(data[: location.size], location, self._limits)

    @property
    def files(self) -> Iterator[Entry]:
        """The entries that are files, and not some operating system's litter."""
        return (e for e in self.entries if not e.is_directory and not is_junk(e.name))

    def check_local_headers(self) -> None:
        """Holds every entry's local header against the directory, reading neighbouring ones together."""
        with ThreadPoolExecutor(_RUNS_AT_ONCE, thread_name_prefix="headers") as pool:
            for _ in pool.map(self._check_run, group_neighbours(self.entries, _end_of_header)):
                pass

    def read_heads(self, entries: Sequence[Entry], size: int, *, most_requests: int) -> Iterator[tuple[Entry, bytes]]:
        """Each of the entries, given in order, with the first `size` bytes of its content, which are not verified.

        Neighbours are read in one request. Raises ArchiveRefusedError before the first if it would take more than
        `most_requests`.
        """
        groups = group_neighbours(entries, lambda e: min(_end_of_header(e) + size, e.end))
        runs = [run for group in groups for run in batched(group, _HEADS_AT_ONCE, strict=False)]
        if len(runs) > most_requests:
            raise ArchiveRefusedError("The archive's entries are too many to look at.", reason=Refusal.TOO_MANY_ENTRIES)
        with ThreadPoolExecutor(_RUNS_AT_ONCE, thread_name_prefix="heads") as pool:
            for some in batched(runs, _RUNS_AT_ONCE, strict=False):
                for run, heads in zip(some, pool.map(lambda run: self._read_run(run, size), some), strict=True):
                    yield from zip(run, heads, strict=True)

    def open_entry(self, entry: Entry) -> ByteStream:
        """The entry's content from its first byte; one request."""
        stream = self._open_range(entry.header_offset, entry.end)
        try:
            self._skip_header(stream, entry)
            if entry.method is Method.DEFLATED:
                return InflatingStream(_Window(stream, entry.compressed_size), entry)
            return _Window(stream, entry.size)
        except BaseException:
            stream.close()
            raise

    def find_data(self, entry: Entry) -> int:
        """Where in the archive the entry's data begins; one small request."""
        wanted = LOCAL_HEADER_SIZE + len(entry.raw_name) + _HEADER_SLACK
        while True:
            header = self._read(entry.header_offset, min(entry.header_offset + wanted, entry.end))
            try:
                return entry.header_offset + check_local_header(header, entry)
            except ShortHeaderError as error:
                wanted = error.needed

    def verify_entry(self, entry: Entry) -> str:
        """Reads the entry through, keeping nothing, and returns its sha256 in hex."""
        hasher = FileHasher(Digest(Algorithm.CRC32, f"{entry.crc32:08x}"), entry.size)
        buffer = memoryview(bytearray(_CHUNK))
        with self.open_entry(entry) as stream:
            while received := stream.readinto(buffer):
                hasher.update(buffer[:received])
        return hasher.verify(entry.name)

    def read_entry(self, entry: Entry) -> bytes:
        """The entry's verified content, which must fit in memory."""
        body = bytearray(entry.size)
        with self.open_entry(entry) as stream:
            fill_buffer(stream, memoryview(body), entry.name)
        hasher = FileHasher(Digest(Algorithm.CRC32, f"{entry.crc32:08x}"), entry.size)
        hasher.update(body)
        hasher.verify(entry.name)
        return bytes(body)

    def _check_run(self, run: Sequence[Entry]) -> None:
        start = run[0].header_offset
        data = memoryview(self._read(start, _end_of_header(run[-1])))
        for entry in run:
            try:
                check_local_header(bytes(data[entry.header_offset - start : _end_of_header(entry) - start]), entry)
            except ShortHeaderError:
                self.find_data(entry)

    def _read_run(self, run: Sequence[Entry], size: int) -> list[bytes]:
        start = run[0].header_offset
        data = memoryview(self._read(start, min(_end_of_header(run[-1]) + size, run[-1].end)))
        return [self._read_head(entry, data[entry.header_offset - start :], size) for entry in run]

    def _read_head(self, entry: Entry, data: memoryview, size: int) -> bytes:
        """`data` begins with the entry's local header."""
        try:
            begins = check_local_header(bytes(data[: _end_of_header(entry) - entry.header_offset]), entry)
        except ShortHeaderError:
            begins = self.find_data(entry) - entry.header_offset
        end = begins + min(entry.compressed_size, size)
        if end > len(data):
            data = memoryview(self._read(entry.header_offset, entry.header_offset + end))
        head = bytes(data[begins:end])
        if entry.method is Method.STORED:
            return head
        try:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(head, size)
        except zlib.error:
            raise ArchiveRefusedError(
                f"The entry {entry.name[:80]!r} is damaged.", reason=Refusal.DAMAGED, entry=entry.name
            ) from None

    def _skip_header(self, stream: ByteStream, entry: Entry) -> None:
        header = b""
        needed = min(LOCAL_HEADER_SIZE + len(entry.raw_name), entry.end - entry.header_offset)
        while True:
            header += _take(stream, needed - len(header))
            try:
                length = check_local_header(header, entry)
            except ShortHeaderError as error:
                needed = error.needed
            else:
                _take(stream, length - len(header))
                return

    def _read(self, start: int, end: int) -> bytes:
        return read_range(self._open_range, start, end) if start < end else b""


def read_range(open_range: OpenRange, start: int, end: int) -> bytes:
    with open_range(start, end) as stream:
        return _take(stream, end - start)


def _take(stream: ByteStream, size: int) -> bytes:
    body = bytearray(size)
    fill_buffer(stream, memoryview(body), "the archive")
    return bytes(body)


def _end_of_header(entry: Entry) -> int:
    return min(entry.header_offset + LOCAL_HEADER_SIZE + len(entry.raw_name) + _HEADER_SLACK, entry.end)


def group_neighbours(entries: Sequence[Entry], find_end: Callable[[Entry], int]) -> Iterator[list[Entry]]:
    """Runs of entries, given in their order in the archive, of each of which what ends at `find_end` is to be read."""
    run: list[Entry] = []
    for entry in entries:
        if run and (
            entry.header_offset - find_end(run[-1]) > _RUN_GAP or find_end(entry) - run[0].header_offset > _RUN_SIZE
        ):
            yield run
            run = []
        run.append(entry)
    if run:
        yield run


class _Window:
    """The next `size` bytes of a stream, as a stream whose first byte is at 0."""

    ranged = False
    offset = 0

    def __init__(self, stream: ByteStream, size: int) -> None:
        self.etag = stream.etag
        self._stream = stream
        self._left = size

    def readinto(self, buffer: memoryview) -> int:
        if not self._left:
            return 0
        received = self._stream.readinto(buffer[: self._left])
        self._left -= received
        return received

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()


class MemoryStream:
    """Bytes `start` to `end` (excluded) of what is in memory already."""

    ranged = True

    def __init__(self, data: bytes, start: int, end: int) -> None:
        self.offset = start
        self.etag: str | None = None
        self._rest = memoryview(data)[start:end]

    def readinto(self, buffer: memoryview) -> int:
        piece = self._rest[: len(buffer)]
        buffer[: len(piece)] = piece
        self._rest = self._rest[len(piece) :]
        return len(piece)

    def close(self) -> None:
        self._rest = memoryview(b"")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()


def open_memory(data: bytes) -> OpenRange:
    return lambda start, end: MemoryStream(data, start, end)
