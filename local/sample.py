"""A ZIP of two tiny models, to try the stack with."""

import io
import json
import struct
import zipfile
from collections.abc import Mapping

_VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "hello", "world")
_HIDDEN = 16
_FIRST_DATE = (2026, 1, 1, 0, 0, 0)


def build_sample_archive() -> bytes:
    """Directories `tiny-bert` (deflated) and `tiny-gpt2` (stored); always the same bytes."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        for name, seed, method in (("tiny-bert", 1, zipfile.ZIP_DEFLATED), ("tiny-gpt2", 2, zipfile.ZIP_STORED)):
            for path, content in _build_model(name.removeprefix("tiny-"), seed).items():
                entry = zipfile.ZipInfo(f"{name}/{path}", _FIRST_DATE)
                entry.external_attr = 0o100644 << 16
                archive.writestr(entry, content, method)
    return body.getvalue()


def _build_model(kind: str, seed: int) -> dict[str, bytes]:
    config = {"model_type": kind, "hidden_size": _HIDDEN, "vocab_size": len(_VOCABULARY), "torch_dtype": "float32"}
    vocabulary = {word: number for number, word in enumerate(_VOCABULARY)}
    tokenizer = {
        "version": "1.0",
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    }
    tensors = {
        "embeddings.weight": (len(_VOCABULARY), _HIDDEN),
        "dense.weight": (_HIDDEN, _HIDDEN),
        "dense.bias": (_HIDDEN,),
    }
    return {
        "config.json": json.dumps(config, indent=2).encode(),
        "tokenizer.json": json.dumps(tokenizer).encode(),
        "model.safetensors": _write_safetensors(tensors, seed),
    }


def _write_safetensors(tensors: Mapping[str, tuple[int, ...]], seed: int) -> bytes:
    """https://github.com/huggingface/safetensors#format: length, JSON header, the tensors one behind the other."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, shape in tensors.items():
        count = 1
        for side in shape:
            count *= side
        values = struct.pack(f"<{count}f", *(((seed * 31 + n * 17) % 101 - 50) / 100 for n in range(count)))
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data
