"""ZIP archives of small models."""

import io
import json
import pickle
import random
import struct
import zipfile
from collections.abc import Mapping

_ROWS, _COLUMNS = 512, 256
_DATE = (2026, 1, 1, 0, 0, 0)
# API Gateway passes these in the path of a request. Each is another file.
ODD_NAMES = ("names/a b.txt", "names/a%20b.txt", "names/a+b.txt", "names/ü.txt")
# An entry that would be written outside of the archive's directory.
OUTSIDE = "../../outside.json"
# Uploads above 64 MB have parts.
PADDING_SIZE = 65 * 1024 * 1024


def build_model(seed: str, *, has_odd_names: bool = False, is_strict: bool = False) -> dict[str, bytes]:
    """Return the files of a model with 512 KiB of weights that are different for each seed. `is_strict` adds what
    `RequiredFiles=strict` requires.
    """
    files = _build_configuration(seed)
    values = random.Random(seed).randbytes(4 * _ROWS * _COLUMNS)  # noqa: S311 - not a secret
    tensor = {"dtype": "F32", "shape": [_ROWS, _COLUMNS], "data_offsets": [0, len(values)]}
    header = json.dumps({"__metadata__": {"format": "pt"}, "weight": tensor}).encode()
    header += b" " * (-len(header) % 8)
    files["model.safetensors"] = struct.pack("<Q", len(header)) + header + values
    if is_strict:
        files |= build_pickled_model(seed)
    if has_odd_names:
        files |= {name: f"{name} {seed}\n".encode() for name in ODD_NAMES}
    return files


def build_pickled_model(seed: str) -> dict[str, bytes]:
    """Return the files of a model whose weights are a pickle of plain data."""
    return _build_configuration(seed) | {"pytorch_model.bin": pickle.dumps({"weight": [0.5] * 64}, 2)}


def build_hostile_model(seed: str) -> dict[str, bytes]:
    """Return the files of a model whose pickle would run the command `true` when it is loaded."""
    return _build_configuration(seed) | {"pytorch_model.bin": b"cposix\nsystem\n(S'true'\ntR."}


def build_archive(directory: str, files: Mapping[str, bytes], *, padding: int = 0) -> bytes:
    """Return a ZIP archive with a model in a directory, which names the model by default. `padding` is the size of a
    stored file beside it, which belongs to no model.
    """
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        for path, content in files.items():
            archive.writestr(zipfile.ZipInfo(f"{directory}/{path}", _DATE), content, zipfile.ZIP_DEFLATED)
        if padding:
            archive.writestr(zipfile.ZipInfo("padding/zeros.bin", _DATE), bytes(padding))
    return body.getvalue()


def build_hostile_archive(directory: str, seed: str) -> bytes:
    """Return an archive with an entry outside of the archive's directory."""
    return build_archive(directory, {**build_model(seed), OUTSIDE: b"{}"})


def _build_configuration(seed: str) -> dict[str, bytes]:
    tokenizer = {"version": "1.0", "model": {"type": "WordLevel", "vocab": {"hello": 0}, "unk_token": "hello"}}
    return {
        "config.json": json.dumps({"model_type": "bert", "verification": seed}).encode(),
        "tokenizer.json": json.dumps(tokenizer).encode(),
    }
