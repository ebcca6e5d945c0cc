"""Checks of files against the formats of their names. They apply with every policy."""

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import PurePosixPath

from modelhaul.domain.errors import InvalidModelError
from modelhaul.domain.files import FileRecord
from modelhaul.domain.gate import FileCheck
from modelhaul.domain.json_streams import JsonError, ReadRange, check_object, list_shards, read_texts
from modelhaul.domain.models import ResolvedModel, Source
from modelhaul.domain.required_files import MAX_INDEX_SIZE
from modelhaul.domain.selection import WHOLE, Selection
from modelhaul.inspection.formats.safetensors import check_safetensors
from modelhaul.inspection.formats.text import MAX_JSON
from modelhaul.inspection.loaders import find_named_files, is_training_state, is_weight_name, names_files
from modelhaul.inspection.opened import OpenedFile
from modelhaul.inspection.placeholders import find_placeholder

type OpenRecord = Callable[[FileRecord], ReadRange]

_INDEXES = (".safetensors.index.json", ".bin.index.json")
_PARSED = ("config.json", "tokenizer.json")
_MAX_SHARDS_IN_ERROR = 3  # names of missing shards
_MAX_SHARDS_IN_FLAG = 1_000
_MAX_SHARD_NAME = 80  # characters


def check_name(file: OpenedFile) -> FileCheck:
    """Check a file against the format of its name, regardless of the other files of its model."""
    placeholder = find_placeholder(file.head, file.size)
    return FileCheck(_find_problem(file, placeholder), placeholder)


def check_names(
    model: ResolvedModel, files: Mapping[str, FileRecord], checks: Mapping[str, FileCheck], open_record: OpenRecord
) -> dict[str, str]:
    """Check that the files have the formats of their names, and the indexes all shards. The keys are the model's paths.

    Return the files that other files name, each with the first file that names it. Raises InvalidModelError.
    """
    for path, record in files.items():
        problem = checks[path].problem
        if problem is None and path.endswith(_INDEXES) and model.source is not Source.HUGGINGFACE:
            read, selection = open_record(record), model.selection
            problem = _check_index(path, record, files, read, max_names=_MAX_SHARDS_IN_ERROR, selection=selection)
        if problem is not None:
            raise InvalidModelError(f"{path}: {problem}.")
    named_by: dict[str, str] = {}
    for named, by in find_named_files(files, lambda path: _list_names(path, files[path], open_record)):
        named_by.setdefault(named, by)
    return named_by


def check_weights(files: Mapping[str, FileRecord], checks: Mapping[str, FileCheck], named_by: Collection[str]) -> None:
    """Raise InvalidModelError for a placeholder where weights must be."""
    for path in files:
        placeholder = checks[path].placeholder
        if placeholder is not None and _must_be_weights(path, files, named_by):
            raise InvalidModelError(f"{path}: {placeholder}.")


def _must_be_weights(path: str, files: Mapping[str, FileRecord], named_by: Collection[str]) -> bool:
    if not files[path].file.size and path.endswith(".bin") and f"{path.removesuffix('.bin')}.xml" in files:
        # OpenVINO writes an empty file beside a model without weights.
        return False
    return path in named_by or (is_weight_name(path) and not is_training_state(path))


def flag_incomplete(model: ResolvedModel, files: Mapping[str, FileRecord], open_record: OpenRecord) -> Iterator[str]:
    """Yield a flag for each index with missing shards.

    Shards may be missing if a part of the model was requested, and on the Hub, where a publisher may omit them.
    """
    if model.selection.is_whole and model.source is not Source.HUGGINGFACE:
        return
    for path, record in files.items():
        if path.endswith(_INDEXES):
            problem = _check_index(path, record, files, open_record(record), max_names=_MAX_SHARDS_IN_FLAG)
            if problem is not None:
                yield f"incomplete: {path}: {problem}"


def _find_problem(file: OpenedFile, placeholder: str | None) -> str | None:
    if file.path.endswith(".safetensors"):
        return placeholder or check_safetensors(file.read, file.size)
    if file.path in _PARSED:
        return _check_json(file.read, file.size)
    if names_files(file.path) and file.size > MAX_INDEX_SIZE:
        return f"Index has {file.size:,} bytes; the limit is {MAX_INDEX_SIZE:,}"
    return None


def _check_json(read: ReadRange, size: int) -> str | None:
    if size > MAX_JSON:
        return f"JSON file has {size:,} bytes; the limit is {MAX_JSON:,}"
    try:
        check_object(read, size)
    except JsonError as error:
        return f"File {error}"
    return None


def _check_index(
    path: str,
    record: FileRecord,
    files: Collection[str],
    read: ReadRange,
    *,
    max_names: int,
    selection: Selection = WHOLE,
) -> str | None:
    """Return the problem of an index, with the names of up to `max_names` missing shards that the selection matches."""
    directory = f"{PurePosixPath(path).parent}/".removeprefix("./")
    try:
        shards = list_shards(read, record.file.size)
    except JsonError as error:
        return f"File {error}"
    missing = sorted(s for s in shards if directory + s not in files and selection.matches(directory + s))
    if not missing:
        return None
    names = ", ".join(repr(name[:_MAX_SHARD_NAME]) for name in missing[:max_names])
    return f"{len(missing):,} of its shards are missing: {names}"


def _list_names(path: str, record: FileRecord, open_record: OpenRecord) -> Iterator[str]:
    try:
        yield from read_texts(open_record(record), record.file.size)
    except JsonError as error:
        raise InvalidModelError(f"{path}: File {error}. The files that it names cannot be determined.") from None
