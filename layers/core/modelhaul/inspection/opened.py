"""One file, or one member of an archive, as the inspection reads it."""

from dataclasses import dataclass, field

from modelhaul.domain.json_streams import ReadRange
from modelhaul.inspection.pickles.opcodes import Budget

HEAD = 64 * 1024  # bytes of a file that are read first; most configurations, and most headers, are shorter


@dataclass(frozen=True, slots=True)
class OpenedFile:
    """`path` is relative to the model, or the member's name. `head` are the first `HEAD` bytes of a file, fewer of a
    member. `is_unpickled`: a loader takes it for a pickle, by its name or because another file names it. `depth` counts
    the archives and compressions around it. `budget` is what may still be read of pickles, for a file and all in it.
    `is_torchscript`: it is a member of a TorchScript archive.
    """

    path: str
    size: int
    head: bytes
    fetch: ReadRange
    is_unpickled: bool = False
    depth: int = 0
    budget: Budget = field(default_factory=Budget)
    is_torchscript: bool = False

    def read(self, start: int, end: int) -> bytes:
        """Bytes `start` to `end` (excluded), from memory where they are in the head."""
        end = min(end, self.size)
        return self.head[start:end] if end <= len(self.head) else self.fetch(start, end)


def open_bytes(path: str, content: bytes, around: OpenedFile) -> OpenedFile:
    """What is in the file `around`, which a loader reads as that file."""
    return OpenedFile(
        path,
        len(content),
        content,
        lambda start, end: content[start:end],
        around.is_unpickled,
        around.depth + 1,
        around.budget,
        around.is_torchscript,
    )
