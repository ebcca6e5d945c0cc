"""Which files a common loader unpickles: by their names, and by the files that name them.

transformers and diffusers unpickle every shard that an index names and that does not end in `.safetensors`:
https://github.com/huggingface/transformers/blob/main/src/transformers/modeling_utils.py (load_state_dict).
"""

import posixpath
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import PurePosixPath

_UNPICKLED = {
    ".ckpt", ".cloudpickle", ".dill", ".distcp", ".jbl", ".joblib", ".npy", ".npz", ".pckl", ".pdopt", ".pdparams",
    ".pickle", ".pk", ".pkl", ".pt", ".pt2", ".pth", ".ptl", ".pyt", ".th",
}  # fmt: skip
# Other programs have files of these names as well: OpenVINO, CTranslate2, ggml, TensorFlow.js, sentencepiece, SPSS.
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
# What torch, the Trainer and accelerate store beside the weights to resume training. No loader for inference opens it.
_TRAINING = re.compile(
    r"training_args\.bin|(?:optimizer|scheduler|scaler|sampler|rng_state)(?:[_-]?\d+)?\.(?:bin|pt|pth)"
    r"|random_states_\d+\.pkl|[\w-]*optim_states\.pt",
    re.IGNORECASE,
)


def is_unpickled(path: str) -> bool:
    """Whether a common loader would unpickle a file of this name, and nothing else reads such files."""
    if PurePosixPath(path).name == _CHECKPOINT_METADATA:
        return True
    return _find_suffix(path) in _UNPICKLED or _PYTORCH_BIN.fullmatch(PurePosixPath(path).name) is not None


def may_be_unpickled(path: str) -> bool:
    """Whether a common loader would unpickle a file of this name, although other programs have such files too."""
    suffixes = {suffix.lower() for suffix in PurePosixPath(path).suffixes}
    return is_unpickled(path) or _find_suffix(path) in _SOMETIMES_UNPICKLED or bool(suffixes & _UNPICKLED)


def is_weight_name(path: str) -> bool:
    """Whether a file of this name holds weights, in any format."""
    return is_unpickled(path) or PurePosixPath(path).suffix.lower() in _WEIGHTS


def runs_when_loaded(path: str) -> bool:
    """Whether loaders run what is in a file of this name: operations, layers and constructors."""
    return PurePosixPath(path).name in _RUN_WHEN_LOADED


def is_text_name(path: str) -> bool:
    """Whether programs read files of this name as text, whatever is in them."""
    place = PurePosixPath(path)
    return place.suffix.lower() in _TEXTS or place.name in _TEXT_NAMES


def is_training_state(path: str) -> bool:
    """Whether no loader opens the file for inference."""
    return _TRAINING.fullmatch(PurePosixPath(path).name) is not None


def is_index(path: str) -> bool:
    return _INDEX.fullmatch(path) is not None


def names_files(path: str) -> bool:
    """Whether loaders take the names of files to load from this JSON file."""
    return is_index(path) or PurePosixPath(path).name in _NAMING


def find_named_files(paths: Collection[str], list_names: Callable[[str], Iterable[str]]) -> Iterator[tuple[str, str]]:
    """(file, the JSON file that names it) for each of a model's `paths` that a loader would unpickle by its role.

    `list_names` returns the names in one JSON file, relative to its folder.
    """
    # Some file systems take other letter cases for the same file, and Windows backslashes for slashes.
    known: dict[str, list[str]] = {}
    for path in paths:
        known.setdefault(path.casefold(), []).append(path)
    for path in sorted(filter(names_files, paths)):
        folder = posixpath.dirname(path)
        for name in list_names(path):
            named = posixpath.normpath(posixpath.join(folder, name.replace("\\", "/"))).casefold()
            if named in known and not name.endswith(".safetensors") and not _is_of_framework(name, path):
                yield from ((found, path) for found in known[named])


def _is_of_framework(shard: str, index: str) -> bool:
    """Whether TensorFlow's or Flax's loader reads the shard: each has an index of its own, and unpickles nothing."""
    suffix = PurePosixPath(shard).suffix
    return suffix in _FRAMEWORKS and f"{suffix}.index." in PurePosixPath(index).name


def _find_suffix(path: str) -> str:
    """The last suffix in lower case, without those of compressions."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(path).suffixes]
    while len(suffixes) > 1 and _is_wrapping(*suffixes[-2:]):
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _is_wrapping(inner: str, suffix: str) -> bool:
    """Whether the suffix is that of a compression, or the usual `.tar` of checkpoints called `.pth.tar`."""
    return suffix in _COMPRESSIONS or (suffix == ".tar" and inner in _UNPICKLED)
