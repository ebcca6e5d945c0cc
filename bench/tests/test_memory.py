"""Memory and disk usage of the transfer engine, and memory usage of the gate, measured in separate processes from
Linux's accounting.
"""

import pickle
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.gate_bounds import measure_model
from bench.gate_memory import measure_gate
from bench.transfer_memory import measure_transfer
from modelhaul.inspection.formats.safetensors import MAX_HEADER
from modelhaul.inspection.formats.text import MAX_JSON
from modelhaul.transfer.settings import MIB, choose_part_size
from tests.archives.zipping import zip_files

pytestmark = [pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"), pytest.mark.timeout(300)]

MB = 1_000_000
BOUND = 256 * MB
SIZE = 256 * MB
SLOW = 40 * MB  # per second; slower than the source, so that all buffers fill
# Linux also attributes the inode pages of updated access times to the process that reads the files.
ACCESS_TIMES = SIZE // 1_000


@pytest.mark.parametrize("file_size", [2_000 * MB, 500_000 * MB])
def test_large_file_uses_bounded_memory_and_no_disk(file_size: int) -> None:
    transfer = measure_transfer(SIZE, part_size=choose_part_size(file_size), store_rate=SLOW)
    assert transfer.usage.peak_rss < BOUND
    assert transfer.usage.written < ACCESS_TIMES
    assert transfer.files_left == []


def test_larger_parts_exceed_the_bound() -> None:
    """Verifies that the measurement includes the buffers of the engine."""
    transfer = measure_transfer(SIZE, part_size=128 * MIB, store_rate=SLOW)
    assert transfer.usage.peak_rss > BOUND


def build_tokenizer(size: int) -> bytes:
    """Return a tokenizer.json that consists mostly of merges, indented like in real ones."""
    start, end = b'{"model": {"vocab": {"a": 0}, "merges": [', b'["a", "b"]]}}'
    merge = '\n      [\n        "Ġth",\n        "e"\n      ],'.encode()
    merges = merge * ((size - len(start) - len(end)) // len(merge))
    return start + merges + b" " * (size - len(start) - len(merges) - len(end)) + end


def build_header(size: int) -> bytes:
    """Return a file with as many tensors as fit into a header of `size` bytes."""
    tensors: list[bytes] = []
    length = 2
    while length < size - 80:
        number = len(tensors)
        tensors.append(b'"%x":{"dtype":"U8","shape":[],"data_offsets":[%d,%d]}' % (number, number, number + 1))
        length += len(tensors[-1]) + 1
    header = b"{%s}" % b",".join(tensors)
    return struct.pack("<Q", size) + header.ljust(size) + bytes(len(tensors))


def wrap_in_zip(content: bytes) -> bytes:
    return zip_files({"member": content}, zipfile.ZIP_DEFLATED)


LARGE = 30 * MB
LARGEST = {
    "tokenizer.json": lambda: build_tokenizer(MAX_JSON),
    "model.safetensors": lambda: build_header(MAX_HEADER),
    "nested.zip": lambda: wrap_in_zip(wrap_in_zip(pickle.dumps(bytes(LARGE)))),
    "text.bin": lambda: pickle.dumps("\U0001f600" + "x" * LARGE),
    "memo.bin": lambda: b"\x80\x04" + b"N\x94" * LARGE,
}
"""The inputs that use most memory, by file name."""


@pytest.mark.parametrize("path", LARGEST)
def test_largest_accepted_files_use_bounded_memory(path: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(LARGEST[path]())
    inspection = measure_gate(file, path)
    assert inspection.usage.peak_rss < BOUND
    # The limit is four million opcodes.
    assert inspection.refused is None or (path == "memo.bin" and "too large" in inspection.refused)


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        (
            "tokenizer.json",
            lambda: build_tokenizer(MAX_JSON + 1),
            "tokenizer.json: JSON file has 134,217,729 bytes; the limit is",
        ),
        ("config.json", lambda: b'{"a": [' + b"[]," * (LARGE // 3) + b"[]]}", "config.json: File has a string, or"),
        (
            "model.safetensors",
            lambda: build_header(MAX_HEADER + 1),
            "model.safetensors: Header has 33,554,433 bytes",
        ),
        (
            "model.safetensors",
            lambda: struct.pack("<Q", LARGE) + (b'{"a": [' + b"[]," * (LARGE // 3))[:LARGE],
            "model.safetensors: Invalid safetensors header",
        ),
    ],
)
def test_too_large_files_are_rejected(path: str, content: Callable[[], bytes], message: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(content())
    inspection = measure_gate(file, path)
    assert inspection.usage.peak_rss < BOUND
    assert inspection.refused is not None
    assert inspection.refused.startswith(message)


@pytest.mark.parametrize(
    ("model", "reads"),
    # A file needs one read, a torch archive three, independent of its size.
    [("arrays", 15_000), ("pickles", 3_000), ("safetensors", 10), ("torch", 10)],
)
def test_large_models_use_bounded_memory_and_few_reads(model: str, reads: int) -> None:
    inspection = measure_model(model)
    assert inspection.verdict == "clean"
    assert inspection.usage.peak_rss < BOUND
    assert inspection.reads <= reads
