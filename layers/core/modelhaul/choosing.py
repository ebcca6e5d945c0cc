"""Applies a selection to what a source lists: by patterns, then by the format of weights."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import Enum, auto
from pathlib import PurePosixPath

from modelhaul.errors import EmptyModelError, RequiredFilesError
from modelhaul.model import FileKind, ResolvedModel, SourceFile
from modelhaul.selection import Selection, Weights, describe_patterns

_SHOWN = 5  # paths in what is said
_LONGEST = 100  # characters of one


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
_LOADED_BY_NAME = (".bin", ".safetensors")


def choose_files(model: ResolvedModel, files: Sequence[SourceFile]) -> list[SourceFile]:
    """Those of the model's `files`, paths below its root, that its selection takes.

    Weights of the other format, and those of TensorFlow, Flax and Rust by the names that transformers and diffusers
    give them, are left out only where what stays replaces them. Raises EmptyModelError if no file is left,
    RequiredFilesError if the weights are not there in the format that is wanted.
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
    wanted = _WANTED[weights]
    weighty = [path for path, kind in formats.items() if kind is wanted and not _is_index(path)]
    left_out = {
        path: kind
        for path, kind in formats.items()
        if kind not in (None, wanted) and not (kind is _Format.TRAINING and wanted is _Format.PYTORCH)
    }
    if not weighty:
        raise RequiredFilesError(_describe_missing(model, left_out))
    folders = {PurePosixPath(path).parent for path in weighty}
    # What a library loads by its name has its equal in the same folder. Files with a suffix of their own may have it
    # anywhere: original/consolidated.00.pth of a model whose safetensors lie at the root.
    alone = [
        path
        for path, kind in left_out.items()
        if kind in (_Format.SAFETENSORS, _Format.PYTORCH)
        and path.endswith(_LOADED_BY_NAME)
        and PurePosixPath(path).parent not in folders
    ]
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
    if any(Selection(selection.allow_patterns).takes(path) for path in paths):
        why = f"The ignore_patterns {describe_patterns(selection.ignore_patterns)} leave no file"
    else:
        why = f"No file matches the allow_patterns {describe_patterns(selection.allow_patterns)}"
    return f"{why} of {model.name}, which has {_list_paths(paths)}."


def _describe_missing(model: ResolvedModel, left_out: Mapping[str, _Format | None]) -> str:
    others = [path for path, kind in left_out.items() if kind is not _Format.TRAINING and not _is_index(path)]
    only = f", only {_list_paths(others)}" if others else ""
    return (
        f"{model.describe()}: no {model.selection.weights} weights are there{only}. "
        'Submit it with "weights": "all", or with other patterns.'
    )


def _list_paths(paths: Collection[str]) -> str:
    shown = ", ".join(path[:_LONGEST] for path in sorted(paths)[:_SHOWN])
    return f"{shown} and {len(paths) - _SHOWN:,} more" if len(paths) > _SHOWN else shown
