"""A ZIP archive in the incoming bucket as a source of models."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from modelhaul.archives.entries import ArchiveLimits, Entry, Method
from modelhaul.archives.reader import ArchiveReader, MemoryStream, OpenRange, group_neighbours, read_range
from modelhaul.domain.archives import Archive
from modelhaul.domain.digests import Algorithm, Digest
from modelhaul.domain.files import SourceFile
from modelhaul.domain.models import ResolvedModel
from modelhaul.domain.objects import ObjectRange
from modelhaul.ports.archive_store import ArchiveStore
from modelhaul.ports.byte_streams import ByteStream

_SMALL_ENTRY = 512 * 1024  # bytes in the archive; above, a request of its own costs little beside the transfer


def open_stored(store: ArchiveStore, archive: Archive) -> OpenRange:
    """Ranges of an archive that has arrived, as long as it is the one that arrived."""
    return lambda start, end: store.open_range(archive.key, start, end, etag=archive.etag or "")


@dataclass(slots=True)
class _Run:
    """Neighbouring entries, from the first's start to the last's end; read by whoever needs one of them first."""

    start: int
    end: int
    lock: threading.Lock = field(default_factory=threading.Lock)
    data: bytes | None = None


class _NeighbourReader:
    """Opens ranges of an archive, and reads small entries that were announced and lie near each other together.

    Each of them is given out of memory once, and a run forgotten with its last one: what is in memory stays below
    what was announced.
    """

    def __init__(self, open_range: OpenRange) -> None:
        self._open_range = open_range
        self._lock = threading.Lock()
        self._runs: dict[tuple[int, int], _Run] = {}

    def prepare(self, entries: Sequence[Entry]) -> None:
        small = [e for e in entries if e.end - e.header_offset <= _SMALL_ENTRY]
        small.sort(key=lambda e: e.header_offset)
        for group in group_neighbours(small, lambda e: e.end):
            if len(group) > 1:
                run = _Run(group[0].header_offset, group[-1].end)
                with self._lock:
                    self._runs |= {(e.header_offset, e.end): run for e in group}

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
    """The models in one archive, as `modelhaul.ports.model_sources.ModelSource`.

    A file's locator is its entry as the archive's directory has it, so that a function which moves a few files need
    not read the directory.
    """

    store: ArchiveStore
    archive: Archive
    limits: ArchiveLimits
    _neighbours: _NeighbourReader = field(init=False)
    _reader: ArchiveReader = field(init=False)
    _data_offsets: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._neighbours = _NeighbourReader(open_stored(self.store, self.archive))
        self._reader = ArchiveReader(self._neighbours.open_range, self.archive.size or 0, self.limits)

    def list_files(self, model: ResolvedModel) -> Iterator[SourceFile]:
        for entry in self._reader.files:
            if entry.name.startswith(model.root):
                digest = Digest(Algorithm.CRC32, f"{entry.crc32:08x}")
                yield SourceFile(entry.name, entry.size, digest, _write_locator(entry))

    def open_range(self, model: ResolvedModel, file: SourceFile, start: int, end: int) -> ByteStream:  # noqa: ARG002 - the locator says where
        entry = _read_locator(file)
        if entry.method is Method.DEFLATED or (start, end) == (0, file.size):
            return self._reader.open_entry(entry)
        offset = self._find_data(entry)
        stream = self.store.open_range(self.archive.key, offset + start, offset + end, etag=self.archive.etag or "")
        stream.offset = start
        return stream

    def prepare_files(self, files: Sequence[SourceFile]) -> None:
        """Their places are known; small ones that lie near each other are read together."""
        self._neighbours.prepare([_read_locator(file) for file in files])

    def locate(self, model: ResolvedModel, file: SourceFile) -> ObjectRange | None:  # noqa: ARG002 - the locator says where
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
