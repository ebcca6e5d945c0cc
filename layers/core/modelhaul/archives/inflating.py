"""Inflates an entry in a stream, and stops as soon as it is not what the archive's directory says."""

from typing import Self

from isal import isal_zlib

from modelhaul.archives.directory import Entry, Refusal
from modelhaul.errors import ArchiveRefusedError
from modelhaul.ports import ByteStream

_READ_SIZE = 128 * 1024


class InflatingStream:
    """The content of a deflated entry, whose compressed bytes `stream` gives; see `modelhaul.ports.ByteStream`."""

    ranged = False
    offset = 0

    def __init__(self, stream: ByteStream, entry: Entry) -> None:
        self.etag = stream.etag
        self._stream = stream
        self._entry = entry
        self._inflater = isal_zlib.decompressobj(wbits=-15)
        self._buffer = memoryview(bytearray(_READ_SIZE))
        self._pending = b""
        self._read = 0
        self._left = entry.size

    def readinto(self, buffer: memoryview) -> int:
        """Raises ArchiveRefusedError besides what the stream raises."""
        while not self._inflater.eof:
            piece = self._inflate(min(len(buffer), self._left + 1))
            if len(piece) > self._left:
                raise self._refuse(f"inflates to more than its {self._entry.size:,} bytes", Refusal.BOMB)
            if piece:
                buffer[: len(piece)] = piece
                self._left -= len(piece)
                if not self._left:
                    # Now, since who knows the size reads no further.
                    self._finish()
                return len(piece)
        self._check_end()
        return 0

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def _inflate(self, size: int) -> bytes:
        compressed = self._pending
        if not compressed:
            received = self._stream.readinto(self._buffer)
            self._read += received
            compressed = bytes(self._buffer[:received])
        try:
            piece: bytes = self._inflater.decompress(compressed, size)
        except isal_zlib.error:  # type: ignore[misc]
            raise self._refuse("cannot be inflated: the archive is damaged", Refusal.DAMAGED) from None
        self._pending = self._inflater.unconsumed_tail
        if not piece and not compressed and not self._inflater.eof:
            raise self._refuse("ends before its compressed data does: the archive is damaged", Refusal.DAMAGED)
        return piece

    def _finish(self) -> None:
        while not self._inflater.eof:
            if self._inflate(1):
                raise self._refuse(f"inflates to more than its {self._entry.size:,} bytes", Refusal.BOMB)
        self._check_end()

    def _check_end(self) -> None:
        if self._left:
            raise self._refuse(f"inflates to {self._left:,} bytes less than it says", Refusal.DAMAGED)
        if self._inflater.unused_data or self._read != self._entry.compressed_size:
            raise self._refuse("has more compressed bytes than it needs", Refusal.HIDDEN_DATA)

    def _refuse(self, what: str, reason: Refusal) -> ArchiveRefusedError:
        name = self._entry.name
        return ArchiveRefusedError(f"The entry {name[:80]!r} {what}.", reason=reason, entry=name)
