"""Weights for models of tests: any bytes, as the one tensor of a safetensors file."""

import json


def build_header(size: int) -> bytes:
    """Of a file with one tensor of `size` bytes: https://github.com/huggingface/safetensors#format"""
    header = json.dumps({"weights": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header


def wrap_weights(data: bytes) -> bytes:
    return build_header(len(data)) + data
