"""A ZIP archive in the incoming bucket, as a source of models."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from modelhaul.archives.entries import ArchiveLimits, Entry, Method
from modelhaul.archives.reader import ArchiveReader, MemoryStream, OpenRange, group_adjacent, read_range
from modelhaul.domain.archives import Archive
from modelhaul.domain.digests import Algorithm, Digest
from modelhaul.domain.files import SourceFile
from modelhaul.domain.models import ResolvedModel
from modelhaul.domain.objects import ObjectRange
from modelhaul.ports.archive_store import ArchiveStore
from modelhaul.ports.byte_streams import ByteStream

_SMALL_ENTRY = 512 * 1024  # bytes in the archive; the transfer of a larger entry takes much longer than its request


def open_stored(store: ArchiveStore, archive: Archive) -> OpenRange:
    """Return a function that opens ranges of the archive. It fails if the object was replaced after its arrival."""
    return lambda start, end: store.open_range(archive.key, start, end, etag=archive.etag or "")


@dataclass(slots=True)
class _Run:
    """Adjacent entries, which are read together. The thread that first needs one of them reads all of them."""

    start: int
    end: int
    lock: threading.Lock = field(default_factory=threading.Lock)
    data: bytes | None = None


class _RunReader:
    """Opens ranges of an archive. Prepared small entries that are adjacent are read in one request.

    Each prepared entry is returned from memory once. A run is released with its last entry, so that the memory in use
    stays below the total size of the prepared entries.
    """

    def __init__(self, open_range: OpenRange) -> None:
        self._open_range = open_range
        self._lock = threading.Lock()
        self._runs: dict[tuple[int, int], _Run] = {}

    def prepare(self, entries: Sequence[Entry]) -> None:
        small = [e for e in entries if e.end - e.header_offset <= _SMALL_ENTRY]
        small.sort(key=lambda e: e.header_offset)
        for adjacent in group_adjacent(small, lambda e: e.end):
            if len(adjacent) > 1:
                run = _Run(adjacent[0].header_offset, adjacent[-1].end)
                with self._lock:
                    self._runs |= {(e.header_offset, e.end): run for e in adjacent}

    def open_range(self, start: int, end: int) -> ByteStream:
        with self._lock:
            run = self._runs.pop((start, end), None)
        if run is None:
            return self._open_range(start, end)
        with run.lock:
            if run.data is None:
                run.data = read_range(self._open_range, run.start, run.end)
        return MemoryStream(run.data, start - run.start, end - run.start)


@dataclass(slots=True)
class ArchiveSource:
    """The models in one archive, as a `modelhaul.ports.model_sources.ModelSource`.

    The locator of a file holds its entry of the central directory. A function that transfers a few files does not have
    to read the directory.
    """

    store: ArchiveStore
    archive: Archive
    limits: ArchiveLimits
    _runs: _RunReader = field(init=False)
    _reader: ArchiveReader = field(init=False)
    _data_offsets: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._runs = _RunReader(open_stored(self.store, self.archive))
        self._reader = ArchiveReader(self._runs.open_range, self.archive.size or 0, self.limits)

    def list_files(self, model: ResolvedModel) -> Iterator[SourceFile]:
        for entry in self._reader.files:
            if entry.name.startswith(model.root):
                digest = Digest(Algorithm.CRC32, f"{entry.crc32:08x}")
                yield SourceFile(entry.name, entry.size, digest, _write_locator(entry))

    def open_range(self, model: ResolvedModel, file: SourceFile, start: int, end: int) -> ByteStream:  # noqa: ARG002 - the locator is enough
        entry = _read_locator(file)
        is_whole = (start, end) == (0, file.size) and entry.name not in self._data_offsets
        if entry.method is Method.DEFLATED or is_whole:
            return self._reader.open_entry(entry)
        offset = self._find_data(entry)
        stream = self.store.open_range(self.archive.key, offset + start, offset + end, etag=self.archive.etag or "")
        stream.offset = start
        return stream

    def prepare_files(self, files: Sequence[SourceFile]) -> None:
        """Prepare to read adjacent small files in one request."""
        self._runs.prepare([_read_locator(file) for file in files])

    def locate(self, model: ResolvedModel, file: SourceFile) -> ObjectRange | None:  # noqa: ARG002 - the locator is enough
        entry = _read_locator(file)
        if entry.method is not Method.STORED:
            return None
        offset = self._find_data(entry)
        return ObjectRange(self.store.bucket, self.archive.key, self.archive.etag or "", offset, offset + file.size)

    def _find_data(self, entry: Entry) -> int:
        if entry.name not in self._data_offsets:
            self._data_offsets[entry.name] = self._reader.find_data(entry)
        return self._data_offsets[entry.name]


def _write_locator(entry: Entry) -> str:
    numbers = (entry.header_offset, entry.end, entry.method, entry.flags, entry.compressed_size)
    raw_name = "" if entry.raw_name == entry.name.encode() else entry.raw_name.hex()
    return ",".join((*(str(int(n)) for n in numbers), raw_name))


def _read_locator(file: SourceFile) -> Entry:
    *numbers, raw_name = file.locator.split(",")
    header_offset, end, method, flags, compressed_size = map(int, numbers)
    return Entry(
        name=file.path,
        raw_name=bytes.fromhex(raw_name) or file.path.encode(),
        method=Method(method),
        flags=flags,
        crc32=int(file.digest.value, 16),
        compressed_size=compressed_size,
        size=file.size,
        header_offset=header_offset,
        end=end,
    )
