"""Finds out which models are in an archive."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from modelhaul.archives.reader import ArchiveReader
from modelhaul.domain.archives import Archive, SkippedDirectory
from modelhaul.domain.errors import ArchiveRefusedError, NoModelInArchiveError
from modelhaul.domain.models import Model, ModelStatus, ResolvedModel, Source
from modelhaul.domain.names import name_models
from modelhaul.domain.required_files import MAX_INDEX_SIZE, RequiredFiles, find_missing_files

MAX_MODELS = 90  # of one archive: they are claimed in one DynamoDB transaction (100 actions)
# What is kept of the others: enough to act on, and no more than a record holds.
_MAX_SKIPPED = 100
_MAX_MISSING = 10


@dataclass(frozen=True, slots=True)
class Inspection:
    """`names`: the name of the model in each valid directory, `""` being the archive's root."""

    names: dict[str, str]
    skipped: tuple[SkippedDirectory, ...]

    def build_models(self, task_id: str, moment: datetime) -> list[Model]:
        """The models' records for the task that claims them, by name."""
        models = []
        for directory, name in sorted(self.names.items(), key=lambda item: item[1]):
            root = f"{directory}/" if directory else ""
            resolved = ResolvedModel(Source.LOCAL, name, task_id, task_id, root)
            models.append(Model(resolved.model_id, resolved, ModelStatus.IMPORTING, task_id, moment, moment))
        return models


def inspect_archive(reader: ArchiveReader, archive: Archive, rule: RequiredFiles) -> Inspection:
    """Checks the archive's structure and finds its models.

    If the files at its root make a model, it is all of the archive, directories included; else each top-level
    directory is a model or is skipped. Raises ArchiveRefusedError, NoModelInArchiveError, InvalidReferenceError.
    """
    reader.check_local_headers()
    entries = {entry.name: entry for entry in reader.files}

    def read_index(directory: str, path: str) -> bytes | None:
        entry = entries[f"{directory}/{path}" if directory else path]
        return reader.read_entry(entry) if entry.size <= MAX_INDEX_SIZE else None

    lacking: dict[str, tuple[str, ...]] = {}
    if any("/" not in path for path in entries):
        lacking[""] = find_missing_files(entries.keys(), partial(read_index, ""), rule)
    if lacking.get("") != ():
        for directory, paths in _group_by_directory(entries).items():
            lacking[directory] = find_missing_files(paths, partial(read_index, directory), rule)
    valid = [directory for directory, lacks in lacking.items() if not lacks]
    if not valid:
        raise NoModelInArchiveError(_describe_missing(lacking), lacking=lacking)
    if len(valid) > MAX_MODELS:
        raise ArchiveRefusedError(
            f"The archive holds {len(valid):,} models; the limit is {MAX_MODELS}.", reason="too-many-models"
        )
    names = name_models(valid, model_name=archive.model_name, file_name=archive.file_name)
    skipped = tuple(SkippedDirectory(d, lacks[:_MAX_MISSING]) for d, lacks in lacking.items() if lacks)
    return Inspection(names, skipped[:_MAX_SKIPPED])


def _group_by_directory(paths: Iterable[str]) -> dict[str, set[str]]:
    groups: dict[str, set[str]] = {}
    for path in paths:
        directory, slash, rest = path.partition("/")
        if slash:
            groups.setdefault(directory, set()).add(rest)
    return groups


def _describe_missing(lacking: dict[str, tuple[str, ...]]) -> str:
    if not lacking:
        return "There are no files in the archive."
    shown = [f"{directory or 'the top level'!r} lacks {', '.join(lacks[:5])}" for directory, lacks in lacking.items()]
    more = f"; and {len(shown) - 10:,} more directories" if len(shown) > 10 else ""  # noqa: PLR2004 - as many as fit
    return f"There is no valid model in the archive: {'; '.join(shown[:10])}{more}."
