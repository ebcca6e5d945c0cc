"""Find the models in an archive."""

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

MAX_MODELS = 90  # per archive: they are claimed in one DynamoDB transaction, which has at most 100 actions
# Limits on the recorded directories without a model, so that they fit into the task's item.
_MAX_SKIPPED = 100
_MAX_MISSING = 10
# Limits on the directories and files in an error message.
_MAX_SHOWN = 10
_MAX_SHOWN_MISSING = 5


@dataclass(frozen=True, slots=True)
class Inspection:
    """Models and skipped directories of an archive.

    `names` has the name of the model in each valid directory. `""` is the root of the archive.
    """

    names: dict[str, str]
    skipped: tuple[SkippedDirectory, ...]

    def build_models(self, task_id: str, moment: datetime, submitted_by: str | None = None) -> list[Model]:
        """Return the models' records for the task that claims them, sorted by name."""
        models = []
        for directory, name in sorted(self.names.items(), key=lambda item: item[1]):
            root = f"{directory}/" if directory else ""
            resolved = ResolvedModel(Source.LOCAL, name, task_id, task_id, root)
            models.append(
                Model(
                    resolved.model_id,
                    resolved,
                    ModelStatus.IMPORTING,
                    task_id,
                    moment,
                    moment,
                    submitted_by=submitted_by,
                )
            )
        return models


def inspect_archive(reader: ArchiveReader, archive: Archive, rule: RequiredFiles) -> Inspection:
    """Check the archive's structure and find its models.

    If the files at the root are a valid model, the whole archive is this model, with its directories. Otherwise each
    top-level directory is a model, or is skipped. Raises ArchiveRefusedError, NoModelInArchiveError,
    InvalidReferenceError.
    """
    reader.check_local_headers()
    entries = {entry.name: entry for entry in reader.files}

    def read_index(directory: str, path: str) -> bytes | None:
        entry = entries[f"{directory}/{path}" if directory else path]
        return reader.read_entry(entry) if entry.size <= MAX_INDEX_SIZE else None

    missing: dict[str, tuple[str, ...]] = {}
    if any("/" not in path for path in entries):
        missing[""] = find_missing_files(entries.keys(), partial(read_index, ""), rule)
    if missing.get("") != ():
        for directory, paths in _group_by_directory(entries).items():
            missing[directory] = find_missing_files(paths, partial(read_index, directory), rule)
    valid = [directory for directory, files in missing.items() if not files]
    if not valid:
        raise NoModelInArchiveError(_describe_missing(missing), missing=missing)
    if len(valid) > MAX_MODELS:
        raise ArchiveRefusedError(
            f"The archive has {len(valid):,} models; the limit is {MAX_MODELS}.", reason="too-many-models"
        )
    names = name_models(valid, model_name=archive.model_name, file_name=archive.file_name)
    skipped = tuple(SkippedDirectory(d, files[:_MAX_MISSING]) for d, files in missing.items() if files)
    return Inspection(names, skipped[:_MAX_SKIPPED])


def _group_by_directory(paths: Iterable[str]) -> dict[str, set[str]]:
    groups: dict[str, set[str]] = {}
    for path in paths:
        directory, slash, rest = path.partition("/")
        if slash:
            groups.setdefault(directory, set()).add(rest)
    return groups


def _describe_missing(missing: dict[str, tuple[str, ...]]) -> str:
    if not missing:
        return "The archive has no files."
    shown = [
        f"{repr(directory) if directory else 'the top level'} is missing {', '.join(files[:_MAX_SHOWN_MISSING])}"
        for directory, files in missing.items()
    ]
    more = f"; and {len(shown) - _MAX_SHOWN:,} more directories" if len(shown) > _MAX_SHOWN else ""
    return f"The archive has no valid model: {'; '.join(shown[:_MAX_SHOWN])}{more}."
