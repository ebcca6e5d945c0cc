"""Applies a selection to what a source lists: by patterns, then by the format of weights."""

import re
from collections.abc import Collection, Iterable, Sequence
from enum import Enum, auto
from pathlib import PurePosixPath

from modelhaul.domain.errors import EmptyModelError, RequiredFilesError
from modelhaul.domain.files import FileKind, SourceFile
from modelhaul.domain.models import ResolvedModel
from modelhaul.domain.selection import Selection, Weights, describe_patterns

_SHOWN = 5  # paths in what is said
_MAX_LENGTH = 100  # characters of one


class _Format(Enum):
    SAFETENSORS = auto()
    PYTORCH = auto()
    TRAINING = auto()  # what torch stores beside the weights while it trains
    OTHER = auto()  # the same weights for another framework


# An index of shards may name its variant at the end: pytorch_model.bin.index.fp16.json.
_INDEX = r"(?:\.index(?:\.[\w-]+)?\.json)?"
# A .bin is PyTorch's only by its name: OpenVINO, CTranslate2, Core ML and ggml have .bin files as well. ONNX, OpenVINO,
# Core ML, GGUF and TFLite are for other runtimes, may be parts that nothing replaces, and have no format here.
_FORMATS = {
    _Format.TRAINING: r"(?:training_args|optimizer|scheduler|scaler|rng_state)[\w-]*\.(?:bin|pt|pth)",
    _Format.SAFETENSORS: rf".+\.safetensors{_INDEX}",
    _Format.PYTORCH: rf"(?:.*pytorch_.*|adapter_model.*)\.bin{_INDEX}|.+\.(?:pt|pth|ckpt){_INDEX}",
    _Format.OTHER: rf"tf_model.*\.h5{_INDEX}|(?:diffusion_)?flax_model.*\.msgpack{_INDEX}|rust_model\.ot",
}
_PATTERNS = {kind: re.compile(pattern) for kind, pattern in _FORMATS.items()}
_WANTED = {Weights.SAFETENSORS: _Format.SAFETENSORS, Weights.PYTORCH: _Format.PYTORCH}
_LEFT_OUT = {
    Weights.SAFETENSORS: (_Format.PYTORCH, _Format.TRAINING, _Format.OTHER),
    Weights.PYTORCH: (_Format.SAFETENSORS, _Format.OTHER),
}
# The others are loaded by their names, from their folders. These may have their equal anywhere: Llama's
# original/consolidated.00.pth lies below the folder of its safetensors.
_OF_ANY_NAME = (".pt", ".pth", ".ckpt")


def choose_files(model: ResolvedModel, files: Sequence[SourceFile]) -> list[SourceFile]:
    """Those of the model's `files`, paths below its root, that its selection takes.

    The patterns come first. Weights of the other format, and those of TensorFlow, Flax and Rust by the names that
    transformers and diffusers give them, are left out only where what stays replaces them. Raises EmptyModelError if no
    file is left, RequiredFilesError if the weights are not there in the format that is wanted.
    """
    selection = model.selection
    if selection.is_whole:
        return list(files)
    paths = [file.path for file in files if file.kind is FileKind.FILE]
    taken = [path for path in paths if selection.takes(path)]
    if paths and not taken:
        raise EmptyModelError(_describe_nothing(model, paths))
    if selection.weights is not Weights.ALL:
        taken = _choose_weights(model, selection.weights, taken)
    chosen = set(taken)
    return [f for f in files if f.path in chosen or (f.kind is not FileKind.FILE and selection.takes(f.path))]


def _choose_weights(model: ResolvedModel, weights: Weights, paths: Iterable[str]) -> list[str]:
    formats = {path: _find_format(path) for path in paths}
    left_out = {path for path, kind in formats.items() if kind in _LEFT_OUT[weights]}
    replaced = [path for path in left_out if formats[path] is not _Format.TRAINING and not _is_index(path)]
    folders = {
        PurePosixPath(path).parent for path, kind in formats.items() if kind is _WANTED[weights] and not _is_index(path)
    }
    if not folders:
        raise RequiredFilesError(_describe_missing(model, replaced))
    alone = [p for p in replaced if not p.endswith(_OF_ANY_NAME) and PurePosixPath(p).parent not in folders]
    if alone:
        raise RequiredFilesError(
            f"{model.describe()}: {_list_paths(alone)} would be left out, and no {weights} weights are in its folder. "
            'Submit it with "weights": "all", or name in ignore_patterns what you can do without.'
        )
    return [path for path in formats if path not in left_out]


def _find_format(path: str) -> _Format | None:
    name = PurePosixPath(path).name
    return next((kind for kind, pattern in _PATTERNS.items() if pattern.fullmatch(name)), None)


def _is_index(path: str) -> bool:
    return path.endswith(".json")


def _describe_nothing(model: ResolvedModel, paths: Collection[str]) -> str:
    selection = model.selection
    allowed = Selection(selection.allow_patterns)
    if any(map(allowed.takes, paths)):
        why = f"The ignore_patterns {describe_patterns(selection.ignore_patterns)} leave no file"
    else:
        why = f"No file matches the allow_patterns {describe_patterns(selection.allow_patterns)}"
    return f"{why} of {model.name}, which has {_list_paths(paths)}."


def _describe_missing(model: ResolvedModel, others: Collection[str]) -> str:
    only = f", only {_list_paths(others)}" if others else ""
    return (
        f"{model.describe()}: no {model.selection.weights} weights are there{only}. "
        'Submit it with "weights": "all", or with other patterns.'
    )


def _list_paths(paths: Collection[str]) -> str:
    shown = ", ".join(path[:_MAX_LENGTH] for path in sorted(paths)[:_SHOWN])
    return f"{shown} and {len(paths) - _SHOWN:,} more" if len(paths) > _SHOWN else shown
