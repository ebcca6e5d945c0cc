"""One file, or one member of an archive, as the inspection reads it."""

from dataclasses import dataclass

from modelhaul.json_streams import ReadRange

HEAD = 64 * 1024  # bytes of a file that are read first; most configurations, and most headers, are shorter


@dataclass(frozen=True, slots=True)
class OpenedFile:
    """`path` is relative to the model, or the member's name. `head` are the first `HEAD` bytes of a file, fewer of a
    member. `is_unpickled`: a loader takes it for a pickle, by its name or because another file names it. `depth` counts
    the archives and compressions around it.
    """

    path: str
    size: int
    head: bytes
    fetch: ReadRange
    is_unpickled: bool = False
    depth: int = 0

    def read(self, start: int, end: int) -> bytes:
        """Bytes `start` to `end` (excluded), from memory where they are in the head."""
        end = min(end, self.size)
        return self.head[start:end] if end <= len(self.head) else self.fetch(start, end)


def open_bytes(path: str, content: bytes, *, is_unpickled: bool = False, depth: int = 0) -> OpenedFile:
    return OpenedFile(path, len(content), content, lambda start, end: content[start:end], is_unpickled, depth)
