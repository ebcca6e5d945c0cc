"""Reads a ZIP archive by ranges: its directory and its entries."""

import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import batched
from typing import Self

from modelhaul.archives.directory import read_directory
from modelhaul.archives.ends import TAIL_SIZE, find_directory, list_other_ends, refuse_second_end
from modelhaul.archives.entries import ArchiveLimits, Entry, Method, Refusal, refuse_entry
from modelhaul.archives.formats import FORMATS_SIZE, check_other_formats
from modelhaul.archives.inflating import InflatingStream
from modelhaul.archives.local_headers import (
    DESCRIPTOR_FLAG,
    LOCAL_HEADER_SIZE,
    MAX_DESCRIPTOR_SIZE,
    LocalHeader,
    ShortHeaderError,
    check_descriptor,
    check_local_header,
)
from modelhaul.archives.names import is_junk
from modelhaul.archives.windows import EntryWindow
from modelhaul.domain.digests import Algorithm, Digest, FileHasher
from modelhaul.domain.errors import ArchiveRefusedError
from modelhaul.ports.byte_streams import ByteStream, fill_buffer

type OpenRange = Callable[[int, int], ByteStream]
"""Opens bytes `start` to `end` (excluded) of an archive."""

type _Pending = tuple[Entry, LocalHeader]
"""An entry whose data descriptor is to be compared."""

_CHUNK = 256 * 1024
_HEADER_SLACK = 512  # bytes of extra fields that one request for a local header brings along
# What is near each other, local headers or small entries, is read together; a run stays below what may be in memory 8
# times over.
_RUN_GAP = 64 * 1024
_RUN_SIZE = 4 * 1024 * 1024
_CONCURRENCY = 8
_MAX_HEADS = 1_000  # of one run: each may be of some bytes in the archive, and of two kilobytes inflated


class ArchiveReader:
    """One archive of `size` bytes. Every method raises ArchiveRefusedError and what `open_range` raises."""

    def __init__(self, open_range: OpenRange, size: int, limits: ArchiveLimits) -> None:
        self._open_range = open_range
        self._size = size
        self._limits = limits

    @cached_property
    def entries(self) -> Sequence[Entry]:
        """All of the central directory, in order of their place in the archive.

        One request, or two; up to 32 small ones more if entries that are archives lie at the end.
        """
        start = max(0, self._size - TAIL_SIZE)
        tail = self._read(start, self._size)
        others = list_other_ends(tail, self._size)
        location = find_directory(tail, self._size)
        for other in others:
            if self._read(other.offset, other.offset + len(other.signature)) == other.signature:
                raise refuse_second_end()
        end = location.offset + location.size
        data = self._read(location.offset, end) if location.offset < start else tail[location.offset - start :]
        return read_directory(data[: location.size], location, self._limits)

    @property
    def files(self) -> Iterator[Entry]:
        """The entries that are files, without the metadata that macOS adds."""
        return (e for e in self.entries if not e.is_directory and not is_junk(e.name))

    def check_local_headers(self) -> None:
        """Compares every entry's local header and data descriptor with the directory; reads neighbours together.

        Also refuses an archive that is valid in another format.
        """
        check_other_formats(self._read(0, min(self._size, FORMATS_SIZE)))
        pending: _Pending | None = None
        with ThreadPoolExecutor(_CONCURRENCY, thread_name_prefix="headers") as pool:
            for before, last in pool.map(self._check_run, group_neighbours(self.entries, _end_of_header)):
                if pending is not None:
                    _check_pending(before, pending)
                pending = last
        if pending is not None and pending[1].descriptor_size:
            entry, _ = pending
            _check_pending(self._read(_begin_descriptor(entry), entry.end), pending)

    def read_heads(self, entries: Sequence[Entry], size: int, *, max_requests: int) -> Iterator[tuple[Entry, bytes]]:
        """Each of the entries, given in order, with the first `size` bytes of its content.

        Their CRC-32 is not verified: enough to choose what to read, not to call a file clean; `read_entry` verifies.
        Neighbours are read in one request, and far data descriptors in one each. Raises ArchiveRefusedError before the
        first if the neighbours would take more than `max_requests`.
        """
        groups = group_neighbours(entries, lambda e: _end_of_head(e, size))
        runs = [run for group in groups for run in batched(group, _MAX_HEADS, strict=False)]
        if len(runs) > max_requests:
            raise ArchiveRefusedError(
                f"The archive's entries take {len(runs):,} requests to inspect; the limit is {max_requests:,}.",
                reason=Refusal.TOO_MANY_ENTRIES,
            )
        with ThreadPoolExecutor(_CONCURRENCY, thread_name_prefix="heads") as pool:
            for some in batched(runs, _CONCURRENCY, strict=False):
                for run, heads in zip(some, pool.map(lambda run: self._read_run(run, size), some), strict=True):
                    yield from zip(run, heads, strict=True)

    def open_entry(self, entry: Entry) -> ByteStream:
        """The entry's content from its first byte; one request. The last byte comes once its descriptor is compared."""
        stream = self._open_range(entry.header_offset, entry.end)
        try:
            header = self._skip_header(stream, entry)
            window = EntryWindow(stream, entry, header)
            return InflatingStream(window, entry) if entry.method is Method.DEFLATED else window
        except BaseException:
            stream.close()
            raise

    def find_data(self, entry: Entry) -> int:
        """Where in the archive the entry's data begins; one small request, or two with a data descriptor."""
        header = self._find_header(entry)
        if header.descriptor_size:
            _check_pending(self._read(_begin_descriptor(entry), entry.end), (entry, header))
        return entry.header_offset + header.size

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

    def _find_header(self, entry: Entry) -> LocalHeader:
        wanted = LOCAL_HEADER_SIZE + len(entry.raw_name) + _HEADER_SLACK
        while True:
            data = self._read(entry.header_offset, min(entry.header_offset + wanted, entry.end))
            try:
                return check_local_header(data, entry)
            except ShortHeaderError as error:
                wanted = error.needed

    def _check_run(self, run: Sequence[Entry]) -> tuple[bytes, _Pending]:
        """The bytes before the run, and its last entry, whose descriptor lies before the next run."""
        start = run[0].header_offset
        begin = max(0, start - MAX_DESCRIPTOR_SIZE)
        data = memoryview(self._read(begin, _end_of_header(run[-1])))
        last = run[0], self._check_header(run[0], data[start - begin :])
        for entry in run[1:]:
            at = entry.header_offset - begin
            _check_pending(bytes(data[at - MAX_DESCRIPTOR_SIZE : at]), last)
            last = entry, self._check_header(entry, data[at:])
        return bytes(data[: start - begin]), last

    def _check_header(self, entry: Entry, data: memoryview) -> LocalHeader:
        """`data` begins with the entry's local header."""
        try:
            return check_local_header(bytes(data[: _end_of_header(entry) - entry.header_offset]), entry)
        except ShortHeaderError:
            return self._find_header(entry)

    def _read_run(self, run: Sequence[Entry], size: int) -> list[bytes]:
        start = run[0].header_offset
        data = memoryview(self._read(start, _end_of_head(run[-1], size)))
        return [self._read_head(entry, data[entry.header_offset - start :], size) for entry in run]

    def _read_head(self, entry: Entry, data: memoryview, size: int) -> bytes:
        """`data` begins with the entry's local header."""
        header = self._check_header(entry, data)
        if header.descriptor_size:
            span = entry.end - entry.header_offset
            tail = bytes(data[span - header.descriptor_size : span]) if span <= len(data) else None
            _check_pending(tail or self._read(_begin_descriptor(entry), entry.end), (entry, header))
        end = header.size + min(entry.compressed_size, size)
        if end > len(data):
            data = memoryview(self._read(entry.header_offset, entry.header_offset + end))
        head = bytes(data[header.size : end])
        if entry.method is Method.STORED:
            return head
        try:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(head, size)
        except zlib.error:
            raise refuse_entry(entry.name, "is damaged: its data cannot be inflated", Refusal.DAMAGED) from None

    def _skip_header(self, stream: ByteStream, entry: Entry) -> LocalHeader:
        data = b""
        needed = min(LOCAL_HEADER_SIZE + len(entry.raw_name), entry.end - entry.header_offset)
        while True:
            data += _take(stream, needed - len(data))
            try:
                header = check_local_header(data, entry)
            except ShortHeaderError as error:
                needed = error.needed
            else:
                _take(stream, header.size - len(data))
                return header

    def _read(self, start: int, end: int) -> bytes:
        return read_range(self._open_range, start, end) if start < end else b""


def read_range(open_range: OpenRange, start: int, end: int) -> bytes:
    with open_range(start, end) as stream:
        return _take(stream, end - start)


def _take(stream: ByteStream, size: int) -> bytes:
    body = bytearray(size)
    fill_buffer(stream, memoryview(body), "the archive")
    return bytes(body)


def _check_pending(before_end: bytes, pending: _Pending) -> None:
    """`before_end`: bytes up to the entry's end."""
    entry, header = pending
    if header.descriptor_size:
        check_descriptor(before_end[-header.descriptor_size :], entry, header)


def _begin_descriptor(entry: Entry) -> int:
    return max(entry.header_offset, entry.end - MAX_DESCRIPTOR_SIZE)


def _end_of_head(entry: Entry, size: int) -> int:
    """Where to stop reading for the first `size` bytes of the content, and for a data descriptor that is near."""
    end = min(_end_of_header(entry) + size, entry.end)
    return entry.end if entry.flags & DESCRIPTOR_FLAG and entry.end - end <= _RUN_GAP else end


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
