"""Files that pickle loaders read, by their names and by the files that name them."""

import pytest

from modelhaul.inspection.loaders import (
    find_named_files,
    is_training_state,
    is_unpickled,
    is_weight_name,
    may_be_unpickled,
    names_files,
)

UNPICKLED = [
    "pytorch_model.bin", "a/diffusion_pytorch_model.fp16.bin", "adapter_model.bin", "pytorch_model-00001-of-00002.bin",
    "a.pt", "a.PTH", "a.ckpt", "a.pkl", "a.pickle", "a.joblib", "a.dill", "a.npy", "a.npz", "a.pkl.gz", "a.joblib.Z",
    "a.pdparams", "a.pt2", "consolidated.00.pth", "a.pth.tar", "a.pth.tar.gz",
]  # fmt: skip
SOMETIMES = [
    "w.model",
    "a.tar",
    "a.tar.gz",
    "openvino_model.bin",
    "model.bin",
    "group1-shard1of4.bin",
    "a.dat",
    "a.sav",
    "a.bin.xz",
]
OTHERS = ["a.safetensors", "README.md", "vocab.txt", "a.gguf", "weights", "a.zip", "a.gz", ".pt", "pt"]


@pytest.mark.parametrize("path", UNPICKLED)
def test_names_of_pickles(path: str) -> None:
    assert is_unpickled(path)
    assert may_be_unpickled(path)
    assert is_weight_name(path)


@pytest.mark.parametrize("path", SOMETIMES)
def test_names_that_other_programs_also_use(path: str) -> None:
    assert not is_unpickled(path)
    assert may_be_unpickled(path)
    assert is_weight_name(path) is path.endswith(".bin")


@pytest.mark.parametrize("path", OTHERS)
def test_names_of_other_files(path: str) -> None:
    assert not may_be_unpickled(path)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("training_args.bin", True),
        ("checkpoint-500/optimizer.pt", True),
        ("scheduler.pt", True),
        ("rng_state_3.pth", True),
        ("rng_state.pth", True),
        ("scaler.pt", True),
        ("scaler.pkl", False),
        ("optimizer_config.pt", False),
        ("scheduler_1.bin", True),
        ("random_states_0.pkl", True),
        ("optimizer.bin", True),
        ("pytorch_model.bin", False),
        ("my_training_args.bin", False),
        ("training_args.bin.pt", False),
        ("optimizer.safetensors", False),
    ],
)
def test_training_state(path: str, expected: bool) -> None:
    assert is_training_state(path) is expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("pytorch_model.bin.index.json", True),
        ("unet/diffusion_pytorch_model.bin.index.fp16.json", True),
        ("a/adapter_model.bin.INDEX.json", True),
        ("modules.json", True),
        ("sub/adapter_config.json", True),
        ("model_index.json", True),
        ("index.json", False),
        ("config.json", False),
    ],
)
def test_files_that_name_others(path: str, expected: bool) -> None:
    assert names_files(path) is expected


def test_named_files_are_relative_to_the_naming_file() -> None:
    paths = ["vocab.txt", "a/vocab.txt", "a/x.bin.index.json", "a/b/notes.md", "modules.json", "w.safetensors"]
    names = {
        "a/x.bin.index.json": ["vocab.txt", "./b/../b/notes.md", "gone.bin"],
        "modules.json": ["w.safetensors", "a"],
    }
    found = list(find_named_files(paths, lambda path: names[path]))
    assert found == [("a/vocab.txt", "a/x.bin.index.json"), ("a/b/notes.md", "a/x.bin.index.json")]


def test_shards_of_other_frameworks_are_ignored() -> None:
    paths = ["tf_model.h5.index.json", "tf-1.h5", "a.msgpack", "pytorch_model.bin.index.json"]
    found = find_named_files(paths, lambda _: ["tf-1.h5", "a.msgpack"])
    assert sorted(found) == [
        ("a.msgpack", "pytorch_model.bin.index.json"),
        ("a.msgpack", "tf_model.h5.index.json"),
        ("tf-1.h5", "pytorch_model.bin.index.json"),
    ]


def test_names_are_matched_as_on_other_file_systems() -> None:
    names = ["VOCAB.TXT", "sub\\notes.md", "x.SAFETENSORS", "y.safetensors"]
    paths = ["vocab.txt", "sub/notes.md", "x.safetensors", "y.safetensors", "a.index.json"]
    found = find_named_files(paths, lambda _: names)
    assert [path for path, _ in found] == ["vocab.txt", "sub/notes.md", "x.safetensors"]


def test_names_outside_the_directory_are_found() -> None:
    found = find_named_files(["b.txt", "a/x.index.json"], lambda _: ["../b.txt", "/b.txt", "../../b.txt"])
    assert list(found) == [("b.txt", "a/x.index.json")]
