"""Read the directory and the entries of a ZIP archive by ranges."""

import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import batched

from modelhaul.archives.directory import read_directory
from modelhaul.archives.ends import TAIL_SIZE, find_directory, list_end_candidates, refuse_second_end
from modelhaul.archives.entries import ArchiveLimits, Entry, Method, Refusal, refuse_entry
from modelhaul.archives.entry_streams import EntryStream
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
from modelhaul.archives.names import is_macos_metadata
from modelhaul.domain.digests import Algorithm, Digest, FileHasher
from modelhaul.domain.errors import ArchiveRefusedError
from modelhaul.ports.byte_streams import ByteStream, fill_buffer

type OpenRange = Callable[[int, int], ByteStream]
"""Opens bytes `start` to `end` (excluded) of an archive."""

type _Unchecked = tuple[Entry, LocalHeader]
"""An entry whose data descriptor is not checked yet."""

_CHUNK_SIZE = 256 * 1024
_MAX_EXTRA = 512  # bytes of extra fields that are read together with a local header
# Local headers or small entries that are adjacent are read in one request. `_CONCURRENCY` runs must fit in memory.
_MAX_RUN_GAP = 64 * 1024
_MAX_RUN_SIZE = 4 * 1024 * 1024
_CONCURRENCY = 8
_MAX_HEADS = 1_000  # entries per run, to limit memory: an entry of a few bytes can decompress to a head of 2 KB


class ArchiveReader:
    """Reads one archive of `size` bytes. Every method raises ArchiveRefusedError and the errors of `open_range`."""

    def __init__(self, open_range: OpenRange, size: int, limits: ArchiveLimits) -> None:
        self._open_range = open_range
        self._size = size
        self._limits = limits

    @cached_property
    def entries(self) -> Sequence[Entry]:
        """All entries of the central directory, in the order of their offsets.

        Takes one or two requests, and up to 32 more small requests if archives are stored at the end of this archive.
        """
        start = max(0, self._size - TAIL_SIZE)
        tail = self._read(start, self._size)
        candidates = list_end_candidates(tail, self._size)
        location = find_directory(tail, self._size)
        for candidate in candidates:
            signature = candidate.signature
            if self._read(candidate.offset, candidate.offset + len(signature)) == signature:
                raise refuse_second_end(candidate.position)
        end = location.offset + location.size
        data = self._read(location.offset, end) if location.offset < start else tail[location.offset - start :]
        return read_directory(data[: location.size], location, self._limits)

    @property
    def files(self) -> Iterator[Entry]:
        """The entries that are files, without the metadata that macOS adds."""
        return (e for e in self.entries if not e.is_directory and not is_macos_metadata(e.name))

    def check_local_headers(self) -> None:
        """Compare every entry's local header and data descriptor with the directory. Adjacent entries share a request.

        Also refuse an archive that is valid in another format.
        """
        check_other_formats(self._read(0, min(self._size, FORMATS_SIZE)))
        previous: _Unchecked | None = None
        with ThreadPoolExecutor(_CONCURRENCY, thread_name_prefix="headers") as pool:
            for before, last in pool.map(self._check_run, group_adjacent(self.entries, _find_header_end)):
                if previous is not None:
                    _check_descriptor_before(before, previous)
                previous = last
        if previous is not None and previous[1].descriptor_size:
            entry, _ = previous
            _check_descriptor_before(self._read(_find_descriptor_start(entry), entry.end), previous)

    def read_heads(self, entries: Sequence[Entry], size: int, *, max_requests: int) -> Iterator[tuple[Entry, bytes]]:
        """Yield each of the ordered entries with the first `size` bytes of its content.

        The CRC-32 of the content is not verified. A head is enough to choose the files to read, but a file must be
        accepted only after `read_entry` has verified it. Adjacent entries are read in one request. A data descriptor
        that is far from its head takes one more request. Raises ArchiveRefusedError before the first head if the
        entries would take more than `max_requests` requests, without those for data descriptors.
        """
        groups = group_adjacent(entries, lambda e: _find_head_end(e, size))
        runs = [run for group in groups for run in batched(group, _MAX_HEADS, strict=False)]
        if len(runs) > max_requests:
            raise ArchiveRefusedError(
                f"Inspecting the archive requires {len(runs):,} requests; the limit is {max_requests:,}. Reduce the "
                "number of entries.",
                reason=Refusal.TOO_MANY_ENTRIES,
            )
        with ThreadPoolExecutor(_CONCURRENCY, thread_name_prefix="heads") as pool:
            for batch in batched(runs, _CONCURRENCY, strict=False):
                for run, heads in zip(batch, pool.map(lambda run: self._read_run(run, size), batch), strict=True):
                    yield from zip(run, heads, strict=True)

    def open_entry(self, entry: Entry) -> ByteStream:
        """Open the entry's content in one request. The data descriptor is checked before the last byte is returned."""
        stream = self._open_range(entry.header_offset, entry.end)
        try:
            header = self._skip_header(stream, entry)
            data = EntryStream(stream, entry, header)
            return InflatingStream(data, entry) if entry.method is Method.DEFLATED else data
        except BaseException:
            stream.close()
            raise

    def find_data(self, entry: Entry) -> int:
        """Return the offset of the entry's data in the archive: one small request, or two with a data descriptor."""
        header = self._find_header(entry)
        if header.descriptor_size:
            _check_descriptor_before(self._read(_find_descriptor_start(entry), entry.end), (entry, header))
        return entry.header_offset + header.size

    def verify_entry(self, entry: Entry) -> str:
        """Read and verify the entry without storing it, and return its sha256 in hex."""
        hasher = FileHasher(Digest(Algorithm.CRC32, f"{entry.crc32:08x}"), entry.size)
        buffer = memoryview(bytearray(_CHUNK_SIZE))
        with self.open_entry(entry) as stream:
            while received := stream.readinto(buffer):
                hasher.update(buffer[:received])
        return hasher.verify(entry.name)

    def read_entry(self, entry: Entry) -> bytes:
        """Return the entry's verified content, which must fit in memory."""
        body = bytearray(entry.size)
        with self.open_entry(entry) as stream:
            fill_buffer(stream, memoryview(body), entry.name)
        hasher = FileHasher(Digest(Algorithm.CRC32, f"{entry.crc32:08x}"), entry.size)
        hasher.update(body)
        hasher.verify(entry.name)
        return bytes(body)

    def _find_header(self, entry: Entry) -> LocalHeader:
        wanted = LOCAL_HEADER_SIZE + len(entry.raw_name) + _MAX_EXTRA
        while True:
            data = self._read(entry.header_offset, min(entry.header_offset + wanted, entry.end))
            try:
                return check_local_header(data, entry)
            except ShortHeaderError as error:
                wanted = error.needed

    def _check_run(self, run: Sequence[Entry]) -> tuple[bytes, _Unchecked]:
        """Check adjacent entries, except the descriptor of the last one, which lies before the next run.

        Return the bytes before the run, in which the descriptor of the previous entry lies, and the last entry.
        """
        start = run[0].header_offset
        read_start = max(0, start - MAX_DESCRIPTOR_SIZE)
        data = memoryview(self._read(read_start, _find_header_end(run[-1])))
        last = run[0], self._check_header(run[0], data[start - read_start :])
        for entry in run[1:]:
            position = entry.header_offset - read_start
            _check_descriptor_before(bytes(data[position - MAX_DESCRIPTOR_SIZE : position]), last)
            last = entry, self._check_header(entry, data[position:])
        return bytes(data[: start - read_start]), last

    def _check_header(self, entry: Entry, data: memoryview) -> LocalHeader:
        """Check the entry's local header at the start of `data`. Read it again if `data` is too short."""
        try:
            return check_local_header(bytes(data[: _find_header_end(entry) - entry.header_offset]), entry)
        except ShortHeaderError:
            return self._find_header(entry)

    def _read_run(self, run: Sequence[Entry], size: int) -> list[bytes]:
        start = run[0].header_offset
        data = memoryview(self._read(start, _find_head_end(run[-1], size)))
        return [self._read_head(entry, data[entry.header_offset - start :], size) for entry in run]

    def _read_head(self, entry: Entry, data: memoryview, size: int) -> bytes:
        """Return the first `size` bytes of the entry's content. `data` begins with its local header."""
        header = self._check_header(entry, data)
        if header.descriptor_size:
            span = entry.end - entry.header_offset
            tail = bytes(data[span - header.descriptor_size : span]) if span <= len(data) else None
            _check_descriptor_before(tail or self._read(_find_descriptor_start(entry), entry.end), (entry, header))
        end = header.size + min(entry.compressed_size, size)
        if end > len(data):
            data = memoryview(self._read(entry.header_offset, entry.header_offset + end))
        head = bytes(data[header.size : end])
        if entry.method is Method.STORED:
            return head
        try:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(head, size)
        except zlib.error:
            raise refuse_entry(entry.name, "is damaged: its data cannot be decompressed", Refusal.DAMAGED) from None

    def _skip_header(self, stream: ByteStream, entry: Entry) -> LocalHeader:
        data = b""
        needed = min(LOCAL_HEADER_SIZE + len(entry.raw_name), entry.end - entry.header_offset)
        while True:
            data += _read_exactly(stream, needed - len(data))
            try:
                header = check_local_header(data, entry)
            except ShortHeaderError as error:
                needed = error.needed
            else:
                _read_exactly(stream, header.size - len(data))
                return header

    def _read(self, start: int, end: int) -> bytes:
        return read_range(self._open_range, start, end) if start < end else b""


def read_range(open_range: OpenRange, start: int, end: int) -> bytes:
    with open_range(start, end) as stream:
        return _read_exactly(stream, end - start)


def _read_exactly(stream: ByteStream, size: int) -> bytes:
    body = bytearray(size)
    fill_buffer(stream, memoryview(body), "the archive")
    return bytes(body)


def _check_descriptor_before(data: bytes, unchecked: _Unchecked) -> None:
    """Check the entry's data descriptor, if it has one, at the end of `data`."""
    entry, header = unchecked
    if header.descriptor_size:
        check_descriptor(data[-header.descriptor_size :], entry, header)


def _find_descriptor_start(entry: Entry) -> int:
    """Return where to start reading for a data descriptor of any size."""
    return max(entry.header_offset, entry.end - MAX_DESCRIPTOR_SIZE)


def _find_head_end(entry: Entry, size: int) -> int:
    """Return where to stop reading for the first `size` bytes of the content, and for a nearby data descriptor."""
    end = min(_find_header_end(entry) + size, entry.end)
    return entry.end if entry.flags & DESCRIPTOR_FLAG and entry.end - end <= _MAX_RUN_GAP else end


def _find_header_end(entry: Entry) -> int:
    """Return where to stop reading for the local header with extra fields of usual size."""
    return min(entry.header_offset + LOCAL_HEADER_SIZE + len(entry.raw_name) + _MAX_EXTRA, entry.end)


def group_adjacent(entries: Sequence[Entry], find_end: Callable[[Entry], int]) -> Iterator[list[Entry]]:
    """Group ordered entries into runs to read in one request each.

    `find_end` returns the end of the bytes to read for an entry.
    """
    run: list[Entry] = []
    for entry in entries:
        if run and (
            entry.header_offset - find_end(run[-1]) > _MAX_RUN_GAP
            or find_end(entry) - run[0].header_offset > _MAX_RUN_SIZE
        ):
            yield run
            run = []
        run.append(entry)
    if run:
        yield run


class MemoryStream(ByteStream):
    """A stream of the bytes `start` to `end` (excluded) of `data`."""

    ranged = True

    def __init__(self, data: bytes, start: int, end: int) -> None:
        self.offset = start
        self.etag = None
        self._rest = memoryview(data)[start:end]

    def readinto(self, buffer: memoryview) -> int:
        piece = self._rest[: len(buffer)]
        buffer[: len(piece)] = piece
        self._rest = self._rest[len(piece) :]
        return len(piece)

    def close(self) -> None:
        self._rest = memoryview(b"")


def open_memory(data: bytes) -> OpenRange:
    return lambda start, end: MemoryStream(data, start, end)
