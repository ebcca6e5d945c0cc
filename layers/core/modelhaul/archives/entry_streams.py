"""The raw data of one entry as a stream."""

from modelhaul.archives.entries import Entry
from modelhaul.archives.local_headers import LocalHeader, check_descriptor
from modelhaul.ports.byte_streams import ByteStream, fill_buffer


class EntryStream(ByteStream):
    """The entry's data as stored in the archive. `stream` is positioned after the local header.

    The data descriptor is checked before the last byte of the data is returned. Raises ArchiveRefusedError.
    """

    ranged = False
    offset = 0

    def __init__(self, stream: ByteStream, entry: Entry, header: LocalHeader) -> None:
        self.etag = stream.etag
        self._stream = stream
        self._entry = entry
        self._header = header
        self._left = entry.compressed_size
        if not self._left:
            self._check_descriptor()

    def readinto(self, buffer: memoryview) -> int:
        if not self._left:
            return 0
        received = self._stream.readinto(buffer[: self._left])
        self._left -= received
        if received and not self._left:
            self._check_descriptor()
        return received

    def _check_descriptor(self) -> None:
        if self._header.descriptor_size:
            descriptor = bytearray(self._header.descriptor_size)
            fill_buffer(self._stream, memoryview(descriptor), self._entry.name)
            check_descriptor(bytes(descriptor), self._entry, self._header)

    def close(self) -> None:
        self._stream.close()
