"""What a directory needs to be a model, where no hub vouches for it: sources GitHub and LOCAL.

`config.json`, `tokenizer.json` and weights: one file, or an index with every shard that it names.
"""

from collections.abc import Callable, Collection
from enum import StrEnum

from modelhaul.domain.json_streams import JsonError, list_shards

MAX_INDEX_SIZE = 32 * 1024 * 1024  # bytes; that of a model of a trillion parameters has a few million
_SINGLE_WEIGHTS = ("pytorch_model.bin", "model.safetensors")
_INDEXES = tuple(f"{name}.index.json" for name in _SINGLE_WEIGHTS)
_NO_WEIGHTS = "weights: pytorch_model.bin, model.safetensors, or an index.json of either with its shards"


class RequiredFiles(StrEnum):
    """`STRICT` holds to `pytorch_model.bin`; `EQUIVALENTS` takes safetensors and shards as well."""

    STRICT = "strict"
    EQUIVALENTS = "equivalents"


def find_missing_files(
    paths: Collection[str], read_index: Callable[[str], bytes | None], rule: RequiredFiles = RequiredFiles.EQUIVALENTS
) -> tuple[str, ...]:
    """What the files at `paths` (relative to the model) lack to be a model; nothing if they are one.

    `read_index` gives the content of one of `paths`, None if it has more than `MAX_INDEX_SIZE` bytes.
    """
    lacking = [name for name in ("config.json", "tokenizer.json") if name not in paths]
    if rule is RequiredFiles.STRICT:
        return tuple(lacking) if "pytorch_model.bin" in paths else (*lacking, "pytorch_model.bin")
    if any(name in paths for name in _SINGLE_WEIGHTS):
        return tuple(lacking)
    indexes = [name for name in _INDEXES if name in paths]
    if not indexes:
        return (*lacking, _NO_WEIGHTS)
    missing = [_find_missing_shards(name, paths, read_index(name)) for name in indexes]
    return tuple(lacking) if () in missing else (*lacking, *missing[0])


def _find_missing_shards(index: str, paths: Collection[str], content: bytes | None) -> tuple[str, ...]:
    body = content or b""
    try:
        shards = sorted(list_shards(lambda start, end: body[start:end], len(body)))
    except JsonError:
        return (f"a {index} that can be read, with a weight_map",)
    if not shards:
        return (f"a {index} whose weight_map names shards",)
    return tuple(f"{shard[:80]} (named by {index})" for shard in shards if shard not in paths)
