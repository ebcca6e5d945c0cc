"""The source of a task's files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from modelhaul.domain.files import SourceFile
from modelhaul.domain.models import ModelRoots
from modelhaul.domain.objects import ObjectRange
from modelhaul.ports.byte_streams import ByteStream, fill_buffer
from modelhaul.ports.model_sources import ModelSource


@dataclass(frozen=True, slots=True)
class FileSource:
    """Opens files of all models of a task, by their path in the task."""

    source: ModelSource
    models: ModelRoots

    def prepare(self, files: Sequence[SourceFile]) -> None:
        self.source.prepare_files(files)

    def open_range(self, file: SourceFile, start: int, end: int) -> ByteStream:
        return self.source.open_range(self.models.find_owner(file.path).resolved, file, start, end)

    def locate(self, file: SourceFile) -> ObjectRange | None:
        return self.source.locate(self.models.find_owner(file.path).resolved, file)

    def read(self, file: SourceFile, *, before_read: Callable[[], None]) -> memoryview:
        """Return the whole file in memory. `before_read` is called before each read, and may raise."""
        view = memoryview(bytearray(file.size))
        if file.size:
            with self.open_range(file, 0, file.size) as stream:
                fill_buffer(stream, view, file.path, before_read=before_read)
        return view
