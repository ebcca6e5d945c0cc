"""A sample ZIP archive of two tiny models."""

import io
import json
import math
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

_VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "hello", "world")
_DATE = (2026, 1, 1, 0, 0, 0)
_BERT = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "hidden_size": 32,
    "intermediate_size": 64,
    "max_position_embeddings": 32,
    "num_attention_heads": 2,
    "num_hidden_layers": 0,
    "type_vocab_size": 2,
    "vocab_size": len(_VOCABULARY),
    "torch_dtype": "float32",
}
_BERT_SHAPES = {
    "embeddings.word_embeddings.weight": (len(_VOCABULARY), 32),
    "embeddings.position_embeddings.weight": (32, 32),
    "embeddings.token_type_embeddings.weight": (2, 32),
    "embeddings.LayerNorm.weight": (32,),
    "embeddings.LayerNorm.bias": (32,),
    "pooler.dense.weight": (32, 32),
    "pooler.dense.bias": (32,),
}
_GPT2 = {
    "architectures": ["GPT2Model"],
    "model_type": "gpt2",
    "n_embd": 32,
    "n_head": 2,
    "n_layer": 0,
    "n_positions": 64,
    "vocab_size": len(_VOCABULARY),
    "torch_dtype": "float32",
}
_GPT2_SHAPES = {
    "wte.weight": (len(_VOCABULARY), 32),
    "wpe.weight": (64, 32),
    "ln_f.weight": (32,),
    "ln_f.bias": (32,),
}


def build_sample_archive() -> bytes:
    """Return a reproducible ZIP archive of 12 KB: directories `tiny-bert` (deflated) and `tiny-gpt2` (stored)."""
    models = {
        "tiny-bert": (_build_model(_BERT, _BERT_SHAPES), zipfile.ZIP_DEFLATED),
        "tiny-gpt2": (_build_model(_GPT2, _GPT2_SHAPES), zipfile.ZIP_STORED),
    }
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        for directory, (files, method) in models.items():
            for path, content in files.items():
                entry = zipfile.ZipInfo(f"{directory}/{path}", _DATE)
                entry.external_attr = 0o100644 << 16
                archive.writestr(entry, content, method)
    return body.getvalue()


def write_sample_archive(folder: Path) -> Path:
    path = folder / "sample.zip"
    path.write_bytes(build_sample_archive())
    return path


def _build_model(config: Mapping[str, object], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, bytes]:
    tokenizer: dict[str, object] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": {word: number for number, word in enumerate(_VOCABULARY)},
            "unk_token": "[UNK]",
        },
    }
    return {
        "config.json": json.dumps(config, indent=2).encode(),
        "tokenizer.json": json.dumps(tokenizer, indent=2).encode(),
        "model.safetensors": _serialize_tensors(shapes),
    }


def _serialize_tensors(shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    """Return a safetensors file: header length, JSON header, contiguous tensors.

    See https://github.com/huggingface/safetensors#format.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, shape in shapes.items():
        count = math.prod(shape)
        values = struct.pack(f"<{count}f", *((n * 17 % 101 - 50) / 100 for n in range(count)))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data
