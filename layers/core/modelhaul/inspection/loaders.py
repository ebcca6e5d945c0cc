"""Files that common loaders unpickle, by their names and by the files that name them.

transformers and diffusers unpickle every file that an index lists, unless its name ends in `.safetensors`:
https://github.com/huggingface/transformers/blob/main/src/transformers/modeling_utils.py (load_state_dict).
"""

import posixpath
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import lru_cache
from pathlib import PurePosixPath

_UNPICKLED = {
    ".ckpt", ".cloudpickle", ".dill", ".distcp", ".jbl", ".joblib", ".npy", ".npz", ".pckl", ".pdopt", ".pdparams",
    ".pickle", ".pk", ".pkl", ".pt", ".pt2", ".pth", ".ptl", ".pyt", ".th",
}  # fmt: skip
# Other programs also use these suffixes: OpenVINO, CTranslate2, ggml, TensorFlow.js, sentencepiece, SPSS.
_SOMETIMES_UNPICKLED = {".bin", ".dat", ".keras", ".mdl", ".model", ".p", ".sav", ".tar"}
_WEIGHTS = {".bin", ".gguf", ".h5", ".hdf5", ".keras", ".msgpack", ".onnx", ".ot", ".pb", ".safetensors", ".tflite"}
_RUN_WHEN_LOADED = {"hyperparams.yaml", "keras_metadata.pb", "saved_model.pb"}
_TEXTS = {
    ".bib", ".cfg", ".conf", ".css", ".csv", ".html", ".ini", ".json", ".jsonl", ".lock", ".log", ".md", ".merges",
    ".mlir", ".pbtxt", ".rst", ".srt", ".tex", ".tiktoken", ".toml", ".tsv", ".txt", ".vocab",
}  # fmt: skip
_TEXT_NAMES = {".gitattributes", ".gitignore", ".gitkeep", "CITATION", "LICENSE", "NOTICE", "README"}
_FRAMEWORKS = {".h5", ".msgpack"}
_CHECKPOINT_METADATA = ".metadata"  # of torch.distributed.checkpoint
_COMPRESSIONS = {".bz2", ".gz", ".lz4", ".lzma", ".xz", ".z", ".zst"}
_PYTORCH_BIN = re.compile(r".*pytorch_.*\.bin|(?:adapter_|consolidated).*\.bin", re.IGNORECASE)
_INDEX = re.compile(r".+\.index(?:\.[\w-]+)?\.json", re.IGNORECASE)
_NAMING = {"adapter_config.json", "model_index.json", "modules.json"}
# Files that torch, the Trainer and accelerate store beside the weights to resume training. Loaders for inference do not
# open them.
_TRAINING = re.compile(
    r"training_args\.bin|(?:optimizer|scheduler|scaler|sampler|rng_state)(?:[_-]?\d+)?\.(?:bin|pt|pth)"
    r"|random_states_\d+\.pkl|[\w-]*optim_states\.pt",
    re.IGNORECASE,
)

# Several functions are called for the same path, one after the other.
_parse_path = lru_cache(maxsize=32)(PurePosixPath)


@lru_cache(maxsize=65_536)  # the checks of a model call it several times for each of its files
def is_unpickled(path: str) -> bool:
    """Return whether a common loader unpickles files of this name, and no other program reads them."""
    if _parse_path(path).name == _CHECKPOINT_METADATA:
        return True
    return _find_suffix(path) in _UNPICKLED or _PYTORCH_BIN.fullmatch(_parse_path(path).name) is not None


def may_be_unpickled(path: str) -> bool:
    """Return whether a common loader may unpickle files of this name. Other programs may also use the name."""
    suffixes = {suffix.lower() for suffix in _parse_path(path).suffixes}
    return is_unpickled(path) or _find_suffix(path) in _SOMETIMES_UNPICKLED or bool(suffixes & _UNPICKLED)


def is_weight_name(path: str) -> bool:
    """Return whether a file of this name contains weights, in any format."""
    return is_unpickled(path) or _parse_path(path).suffix.lower() in _WEIGHTS


def runs_when_loaded(path: str) -> bool:
    """Return whether loaders run the operations, layers or constructors in files of this name."""
    return _parse_path(path).name in _RUN_WHEN_LOADED


def is_text_name(path: str) -> bool:
    """Return whether programs read files of this name as text, whatever their content."""
    name = _parse_path(path)
    return name.suffix.lower() in _TEXTS or name.name in _TEXT_NAMES


def is_training_state(path: str) -> bool:
    """Return whether the file is training state, which loaders for inference do not open."""
    return _TRAINING.fullmatch(_parse_path(path).name) is not None


def is_index(path: str) -> bool:
    return _INDEX.fullmatch(path) is not None


def names_files(path: str) -> bool:
    """Return whether loaders read the names of files to load from this JSON file."""
    return is_index(path) or _parse_path(path).name in _NAMING


def find_named_files(paths: Collection[str], list_names: Callable[[str], Iterable[str]]) -> Iterator[tuple[str, str]]:
    """Yield (file, JSON file that names it) for each of a model's `paths` that a loader unpickles because of its role.

    `list_names` returns the names in one JSON file, relative to its directory.
    """
    # Some file systems ignore case, and Windows accepts backslashes as separators.
    known: dict[str, list[str]] = {}
    for path in paths:
        known.setdefault(path.casefold(), []).append(path)
    for path in sorted(filter(names_files, paths)):
        directory = posixpath.dirname(path)
        for name in list_names(path):
            named = posixpath.normpath(posixpath.join(directory, name.replace("\\", "/"))).casefold()
            if named in known and not name.endswith(".safetensors") and not _is_framework_shard(name, path):
                yield from ((found, path) for found in known[named])


def _is_framework_shard(shard: str, index: str) -> bool:
    """Return whether TensorFlow or Flax reads the shard. Each has its own index, and unpickles nothing."""
    suffix = _parse_path(shard).suffix
    return suffix in _FRAMEWORKS and f"{suffix}.index." in _parse_path(index).name


def _find_suffix(path: str) -> str:
    """Return the last suffix in lower case that is not the suffix of a compression."""
    suffixes = [suffix.lower() for suffix in _parse_path(path).suffixes]
    while len(suffixes) > 1 and _is_outer_suffix(*suffixes[-2:]):
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _is_outer_suffix(inner: str, suffix: str) -> bool:
    """Return whether the suffix is that of a compression, or the `.tar` of checkpoints named `.pth.tar`."""
    return suffix in _COMPRESSIONS or (suffix == ".tar" and inner in _UNPICKLED)
