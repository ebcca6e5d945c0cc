"""Decompress an entry in a stream, and fail as soon as it disagrees with the archive's central directory."""

from isal import isal_zlib

from modelhaul.archives.entries import Entry, Refusal, refuse_entry
from modelhaul.domain.errors import ArchiveRefusedError
from modelhaul.ports.byte_streams import ByteStream

_READ_SIZE = 128 * 1024


class InflatingStream(ByteStream):
    """The content of a deflated entry. `stream` has the compressed bytes."""

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
        """Read decompressed bytes. Raises ArchiveRefusedError and the errors of the stream."""
        while not self._inflater.eof:
            piece = self._inflate(min(len(buffer), self._left + 1))
            if len(piece) > self._left:
                raise self._refuse(
                    f"decompresses to more than {self._entry.size:,} bytes, its size in the central directory",
                    Refusal.BOMB,
                )
            if piece:
                buffer[: len(piece)] = piece
                self._left -= len(piece)
                if not self._left:
                    # Checked now, because a caller that knows the size does not read again.
                    self._finish()
                return len(piece)
        self._check_end()
        return 0

    def close(self) -> None:
        self._stream.close()

    def _inflate(self, size: int) -> bytes:
        compressed = self._pending
        if not compressed:
            received = self._stream.readinto(self._buffer)
            self._read += received
            compressed = bytes(self._buffer[:received])
        try:
            piece: bytes = self._inflater.decompress(compressed, size)
        except isal_zlib.error:  # type: ignore[misc]
            raise self._refuse("is damaged: its data cannot be decompressed", Refusal.DAMAGED) from None
        self._pending = self._inflater.unconsumed_tail
        if not piece and not compressed and not self._inflater.eof:
            raise self._refuse("is damaged: its compressed data ends early", Refusal.DAMAGED)
        return piece

    def _finish(self) -> None:
        while not self._inflater.eof:
            if self._inflate(1):
                raise self._refuse(
                    f"decompresses to more than {self._entry.size:,} bytes, its size in the central directory",
                    Refusal.BOMB,
                )
        self._check_end()

    def _check_end(self) -> None:
        if self._left:
            size = self._entry.size - self._left
            predicate = f"is damaged: it decompresses to {size:,} bytes instead of {self._entry.size:,}"
            raise self._refuse(predicate, Refusal.DAMAGED)
        if self._inflater.unused_data or self._read != self._entry.compressed_size:
            raise self._refuse("has compressed bytes after the end of its Deflate stream", Refusal.HIDDEN_DATA)

    def _refuse(self, predicate: str, reason: Refusal) -> ArchiveRefusedError:
        return refuse_entry(self._entry.name, predicate, reason)
