"""Access to a file that is being inspected."""

from dataclasses import dataclass, field

from modelhaul.domain.json_streams import ReadRange
from modelhaul.inspection.pickles.source import Budget

HEAD = 64 * 1024  # bytes of a file that are read first; most configurations and headers are shorter


@dataclass(frozen=True, slots=True)
class OpenedFile:
    """A file, or an entry of an archive.

    `path` is relative to the model, or the entry's name. `head` are the first bytes: `HEAD` of a file, fewer of an
    entry. `is_unpickled`: a loader reads the file as a pickle, by its name or because another file names it. `depth`
    is the number of archives and compressions around the file. `budget` limits the reading of pickles, for a file and
    all of its entries. `is_torchscript`: the file is an entry of a TorchScript archive.
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
        """Return bytes `start` to `end` (excluded), from memory if the head contains them."""
        end = min(end, self.size)
        return self.head[start:end] if end <= len(self.head) else self.fetch(start, end)


def open_bytes(path: str, content: bytes, around: OpenedFile) -> OpenedFile:
    """Return the decompressed content of `around` as a file.

    Loaders decompress transparently, so it has the same role as `around`.
    """
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
