"""Selection of files from a source's listing: by patterns, then by weight format."""

import re
from collections.abc import Collection, Iterable, Sequence
from enum import Enum, auto
from pathlib import PurePosixPath

from modelhaul.domain.errors import EmptyModelError, RequiredFilesError
from modelhaul.domain.files import FileKind, SourceFile
from modelhaul.domain.models import ResolvedModel
from modelhaul.domain.selection import Selection, Weights, describe_patterns

_MAX_SHOWN = 5  # paths in a message
_MAX_LENGTH = 100  # characters of a path in a message


class _Format(Enum):
    SAFETENSORS = auto()
    PYTORCH = auto()
    TRAINING = auto()  # training state that torch stores with the weights
    OTHER = auto()  # the same weights for another framework


# The name of a shard index may end with a variant: pytorch_model.bin.index.fp16.json.
_INDEX = r"(?:\.index(?:\.[\w-]+)?\.json)?"
# Only the file's name shows that a .bin is PyTorch's: OpenVINO, CTranslate2, Core ML and ggml also use .bin. ONNX,
# OpenVINO, Core ML, GGUF and TFLite are for other runtimes. They have no format here, because no other file may replace
# them.
_FORMATS = {
    _Format.TRAINING: r"(?:training_args|optimizer|scheduler|scaler|rng_state)[\w-]*\.(?:bin|pt|pth)",
    _Format.SAFETENSORS: rf".+\.safetensors{_INDEX}",
    _Format.PYTORCH: rf"(?:.*pytorch_.*|adapter_model.*)\.bin{_INDEX}|.+\.(?:pt|pth|ckpt){_INDEX}",
    _Format.OTHER: rf"tf_model.*\.h5{_INDEX}|(?:diffusion_)?flax_model.*\.msgpack{_INDEX}|rust_model\.ot",
}
_PATTERNS = {kind: re.compile(pattern) for kind, pattern in _FORMATS.items()}
_WANTED = {Weights.SAFETENSORS: _Format.SAFETENSORS, Weights.PYTORCH: _Format.PYTORCH}
_EXCLUDED = {
    Weights.SAFETENSORS: (_Format.PYTORCH, _Format.TRAINING, _Format.OTHER),
    Weights.PYTORCH: (_Format.SAFETENSORS, _Format.OTHER),
}
# Suffixes of weights whose replacement may be in another directory: Llama's original/consolidated.00.pth is below the
# directory of its safetensors. Other weights are loaded by name from their own directory.
_ANY_DIRECTORY = (".pt", ".pth", ".ckpt")


def choose_files(model: ResolvedModel, files: Sequence[SourceFile]) -> list[SourceFile]:
    """Return the files that the model's selection includes. Paths in `files` are relative to the model's root.

    Patterns are applied first. Weights of the other format, and TensorFlow, Flax and Rust weights with the names that
    transformers and diffusers use, are excluded only if selected weights replace them. Raises EmptyModelError if no
    file is left, RequiredFilesError if the model has no weights in the requested format.
    """
    selection = model.selection
    if selection.is_whole:
        return list(files)
    paths = [file.path for file in files if file.kind is FileKind.FILE]
    matched = [path for path in paths if selection.matches(path)]
    if paths and not matched:
        raise EmptyModelError(
            _describe_no_match(model, paths),
            remedy="Change the patterns so that they select files of the model. The message names some of them.",
        )
    if selection.weights is not Weights.ALL:
        matched = _choose_weights(model, selection.weights, matched)
    chosen = set(matched)
    return [f for f in files if f.path in chosen or (f.kind is not FileKind.FILE and selection.matches(f.path))]


def _choose_weights(model: ResolvedModel, weights: Weights, paths: Iterable[str]) -> list[str]:
    formats = {path: _find_format(path) for path in paths}
    excluded = {path for path, kind in formats.items() if kind in _EXCLUDED[weights]}
    replaced = [path for path in excluded if formats[path] is not _Format.TRAINING and not _is_index(path)]
    directories = {
        PurePosixPath(path).parent for path, kind in formats.items() if kind is _WANTED[weights] and not _is_index(path)
    }
    if not directories:
        raise RequiredFilesError(
            _describe_missing(model, replaced),
            remedy="Import all weights, or the weights in a format that the model has. If patterns exclude the "
            "weights, change the patterns.",
        )
    unreplaced = [p for p in replaced if not p.endswith(_ANY_DIRECTORY) and PurePosixPath(p).parent not in directories]
    if unreplaced:
        raise RequiredFilesError(
            f"The selection of {weights} weights would exclude {_list_paths(unreplaced)} from {model.describe()}, but "
            f"the directories of these files have no {weights} weights that replace them.",
            remedy="Import all weights, or exclude these files with ignore patterns.",
        )
    return [path for path in formats if path not in excluded]


def _find_format(path: str) -> _Format | None:
    name = PurePosixPath(path).name
    return next((kind for kind, pattern in _PATTERNS.items() if pattern.fullmatch(name)), None)


def _is_index(path: str) -> bool:
    return path.endswith(".json")


def _describe_no_match(model: ResolvedModel, paths: Collection[str]) -> str:
    selection = model.selection
    allowed = Selection(selection.allow_patterns)
    if any(map(allowed.matches, paths)):
        cause = f"The ignore patterns {describe_patterns(selection.ignore_patterns)} exclude every file"
    else:
        cause = f"No file matches the allow patterns {describe_patterns(selection.allow_patterns)}"
    return f"{cause} of {model.name}. Its files: {_list_paths(paths)}."


def _describe_missing(model: ResolvedModel, others: Collection[str]) -> str:
    found = f", only {_list_paths(others)}" if others else ""
    return f"{model.describe()} has no {model.selection.weights} weights{found}."


def _list_paths(paths: Collection[str]) -> str:
    shown = ", ".join(path[:_MAX_LENGTH] for path in sorted(paths)[:_MAX_SHOWN])
    return f"{shown} and {len(paths) - _MAX_SHOWN:,} more" if len(paths) > _MAX_SHOWN else shown
