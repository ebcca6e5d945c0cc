"""Files that a directory must have to be a model, for the sources GITHUB and LOCAL, which do not declare models.

These are `config.json`, `tokenizer.json` and weights: a single file, or an index and every shard that it lists.
"""

from collections.abc import Callable, Collection
from enum import StrEnum

from modelhaul.domain.json_streams import JsonError, list_shards

MAX_INDEX_SIZE = 32 * 1024 * 1024  # bytes; the index of a model with a trillion parameters has a few million
_SINGLE_WEIGHTS = ("pytorch_model.bin", "model.safetensors")
_INDEXES = tuple(f"{name}.index.json" for name in _SINGLE_WEIGHTS)
_NO_WEIGHTS = (
    "weights (pytorch_model.bin, model.safetensors, or pytorch_model.bin.index.json / model.safetensors.index.json "
    "with all listed shards)"
)


class RequiredFiles(StrEnum):
    """`STRICT` requires `pytorch_model.bin`; `EQUIVALENTS` also accepts safetensors and shards."""

    STRICT = "strict"
    EQUIVALENTS = "equivalents"


def find_missing_files(
    paths: Collection[str], read_index: Callable[[str], bytes | None], rule: RequiredFiles = RequiredFiles.EQUIVALENTS
) -> tuple[str, ...]:
    """Describe the files that are missing from `paths` (relative to the model). Empty if the files are a model.

    `read_index` returns the content of one of `paths`, None if it has more than `MAX_INDEX_SIZE` bytes.
    """
    missing = [name for name in ("config.json", "tokenizer.json") if name not in paths]
    if rule is RequiredFiles.STRICT:
        return tuple(missing) if "pytorch_model.bin" in paths else (*missing, "pytorch_model.bin")
    if any(name in paths for name in _SINGLE_WEIGHTS):
        return tuple(missing)
    indexes = [name for name in _INDEXES if name in paths]
    if not indexes:
        return (*missing, _NO_WEIGHTS)
    shards = [_find_missing_shards(name, paths, read_index(name)) for name in indexes]
    return tuple(missing) if () in shards else (*missing, *shards[0])


def _find_missing_shards(index: str, paths: Collection[str], content: bytes | None) -> tuple[str, ...]:
    body = content or b""
    try:
        shards = sorted(list_shards(lambda start, end: body[start:end], len(body)))
    except JsonError:
        shards = []
    if not shards:
        return (f"a {index} with a valid weight_map that lists shards",)
    return tuple(f"{shard[:80]} (listed in {index})" for shard in shards if shard not in paths)
