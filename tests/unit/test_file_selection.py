"""Which files of a listing a selection takes: by the format of weights, and what is refused."""

import pytest

from modelhaul.domain.digests import Algorithm, Digest
from modelhaul.domain.errors import EmptyModelError, RequiredFilesError
from modelhaul.domain.file_selection import choose_files
from modelhaul.domain.files import FileKind, SourceFile
from modelhaul.domain.models import ResolvedModel, Source
from modelhaul.domain.selection import WHOLE, Selection, Weights

DIGEST = Digest(Algorithm.GIT_SHA1, "0" * 40)
SAFETENSORS = Selection(weights=Weights.SAFETENSORS)
PYTORCH = Selection(weights=Weights.PYTORCH)

BERT = {
    "shared": ["config.json", "coreml/fill-mask/weights/weight.bin", "model.onnx", "tokenizer.json", "vocab.txt"],
    "safetensors": ["model.safetensors"],
    "pytorch": ["pytorch_model.bin"],
    "neither": ["flax_model.msgpack", "rust_model.ot", "tf_model.h5"],
}
LLAMA = {
    "shared": ["config.json", "original/params.json", "original/tokenizer.model"],
    "safetensors": ["model-00001-of-00002.safetensors", "model.safetensors.index.json"],
    "pytorch": ["original/consolidated.00.pth"],
    "neither": [],
}
DIFFUSERS = {
    "shared": ["model_index.json", "unet/config.json", "unet/model.onnx", "vae/config.json"],
    "safetensors": [
        "text_encoder/model.fp16.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model.safetensors.index.fp16.json",
        "v1-5-pruned.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    ],
    "pytorch": [
        "text_encoder/pytorch_model.fp16.bin",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.bin.index.fp16.json",
        "v1-5-pruned.ckpt",
        "vae/diffusion_pytorch_model.bin",
    ],
    "neither": ["unet/diffusion_flax_model.msgpack"],
}
ADAPTER = {
    "shared": ["adapter_config.json", "openvino/openvino_model.bin", "ggml-model-q4_0.bin", "whisper/model.bin"],
    "safetensors": ["adapter_model.safetensors", "pytorch_lora_weights.safetensors"],
    "pytorch": ["adapter_model.bin", "pytorch_lora_weights.bin"],
    "neither": [],
}
TRAINING = ["optimizer.pt", "rng_state_0.pth", "scheduler.pt", "training_args.bin"]


def make_model(selection: Selection) -> ResolvedModel:
    return ResolvedModel(Source.HUGGINGFACE, "org/model", "main", "c" * 40, selection=selection)


def choose(selection: Selection, *paths: str) -> list[str]:
    files = [SourceFile(path, 1, DIGEST) for path in paths]
    return [file.path for file in choose_files(make_model(selection), files)]


@pytest.mark.parametrize("repository", [BERT, DIFFUSERS, ADAPTER], ids=["bert", "diffusers", "adapter"])
@pytest.mark.parametrize("weights", [Weights.SAFETENSORS, Weights.PYTORCH])
def test_weights_come_in_the_format_that_is_wanted(repository: dict[str, list[str]], weights: Weights) -> None:
    paths = [path for group in repository.values() for path in group]
    assert choose(Selection(weights=weights), *paths) == repository["shared"] + repository[weights]
    assert choose(WHOLE, *paths) == paths


def test_checkpoints_beside_the_model_are_left_out() -> None:
    paths = [path for group in LLAMA.values() for path in group]
    assert choose(SAFETENSORS, *paths) == LLAMA["shared"] + LLAMA["safetensors"]


def test_what_torch_stores_while_it_trains_is_no_weights() -> None:
    both = ["model.safetensors", "pytorch_model.bin"]
    assert choose(SAFETENSORS, *both, *TRAINING) == ["model.safetensors"]
    assert choose(PYTORCH, *both, *TRAINING) == ["pytorch_model.bin", *TRAINING]
    with pytest.raises(RequiredFilesError):
        choose(PYTORCH, "model.safetensors", *TRAINING)


@pytest.mark.parametrize(
    ("selection", "paths", "words"),
    [
        (
            SAFETENSORS,
            ["config.json", "pytorch_model.bin"],
            "no safetensors weights, only pytorch_model.bin.",
        ),
        (PYTORCH, ["config.json", "model.safetensors"], "no pytorch weights, only model.safetensors."),
        (SAFETENSORS, ["config.json", "model.gguf", "training_args.bin"], "no safetensors weights."),
        (SAFETENSORS, ["model.safetensors.index.json", "tf_model.h5"], "no safetensors weights, only tf_model.h5."),
        (
            Selection(("*.bin",), (), Weights.SAFETENSORS),
            ["pytorch_model.bin", "model.safetensors"],
            "(allow '*.bin', weights safetensors) has no safetensors weights, only pytorch_model.bin.",
        ),
        (
            SAFETENSORS,
            ["model.safetensors", "pytorch_model.bin", "2_Dense/pytorch_model.bin"],
            "would exclude 2_Dense/pytorch_model.bin from",
        ),
        (SAFETENSORS, ["model.safetensors", "flax/flax_model.msgpack"], "would exclude flax/flax_model.msgpack from"),
        (PYTORCH, ["original/consolidated.00.pth", "model.safetensors"], "would exclude model.safetensors from"),
    ],
)
def test_a_model_without_its_weights_is_refused(selection: Selection, paths: list[str], words: str) -> None:
    with pytest.raises(RequiredFilesError) as refused:
        choose(selection, *paths)
    assert words in refused.value.detail
    assert (refused.value.remedy or "").startswith("Import all weights")


def test_what_is_refused_can_be_done_without() -> None:
    selection = Selection((), ("2_Dense/",), Weights.SAFETENSORS)
    assert choose(selection, "model.safetensors", "2_Dense/pytorch_model.bin") == ["model.safetensors"]


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        (
            Selection(("*.gguf", "x")),
            "No file matches the allow patterns '*.gguf' 'x' of org/model. Its files: a.json, b",
        ),
        (Selection((), ("*",)), "The ignore patterns '*' exclude every file of org/model. Its files: a.json, b"),
        (Selection(("a*",), ("*.json",)), "The ignore patterns '*.json' exclude every file"),
        (Selection(("*.gguf",), (), Weights.SAFETENSORS), "No file matches"),
    ],
)
def test_a_selection_of_nothing_is_refused(selection: Selection, words: str) -> None:
    with pytest.raises(EmptyModelError) as refused:
        choose(selection, "b", "a.json")
    assert words in refused.value.detail
    assert (refused.value.remedy or "").startswith("Change the patterns")


def test_many_paths_are_told_in_few_words() -> None:
    with pytest.raises(EmptyModelError) as refused:
        choose(Selection(("x",)), *(f"{number:04}{'y' * 900}" for number in range(2000)))
    assert "and 1,995 more" in refused.value.detail
    assert len(refused.value.detail) < 1000


def test_links_are_taken_by_patterns_and_are_no_weights() -> None:
    files = [
        SourceFile("config.json", 1, DIGEST),
        SourceFile("a.safetensors", 1, DIGEST, kind=FileKind.SYMLINK),
        SourceFile("vendor/code", 0, DIGEST, kind=FileKind.SUBMODULE),
    ]
    with pytest.raises(RequiredFilesError):
        choose_files(make_model(SAFETENSORS), files)
    chosen = choose_files(make_model(Selection((), ("vendor/",))), files)
    assert [file.path for file in chosen] == ["config.json", "a.safetensors"]
    with pytest.raises(EmptyModelError):
        choose_files(make_model(Selection(("a.*",))), files)
