"""The memory and disk that the transfer engine needs, and the gate's memory, measured on processes of their own as
Linux accounts for them.
"""

import io
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
from modelhaul.transfer.engine import MIB, choose_part_size

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

MB = 1_000_000
BOUND = 256 * MB
SIZE = 256 * MB
SLOW = 40 * MB  # a second: slower than the source, so that every buffer fills
# Linux counts to a process also the pages of inodes whose access times change as it reads files.
ACCESS_TIMES = SIZE // 1_000


@pytest.mark.parametrize("as_for", [2_000 * MB, 500_000 * MB])
def test_a_large_file_stays_in_bounded_memory_and_off_the_disk(as_for: int) -> None:
    transfer = measure_transfer(SIZE, part_size=choose_part_size(as_for), store_rate=SLOW)
    assert transfer.usage.peak_rss < BOUND
    assert transfer.usage.written < ACCESS_TIMES
    assert transfer.files_left == []


def test_larger_parts_would_break_the_bound() -> None:
    """That the measurement sees what the engine holds."""
    transfer = measure_transfer(SIZE, part_size=128 * MIB, store_rate=SLOW)
    assert transfer.usage.peak_rss > BOUND


def build_tokenizer(size: int) -> bytes:
    """As real ones are, the most of it merges of two texts each."""
    beginning, end = b'{"model": {"vocab": {"a": 0}, "merges": [', b'["a", "b"]]}}'
    merge = '["Ġth", "e"], '.encode()
    merges = merge * ((size - len(beginning) - len(end)) // len(merge))
    return beginning + merges + b" " * (size - len(beginning) - len(merges) - len(end)) + end


def build_header(size: int) -> bytes:
    """A file of as many tensors as a header of `size` bytes can have."""
    tensors: list[bytes] = []
    taken = 2
    while taken < size - 80:
        number = len(tensors)
        tensors.append(b'"%x":{"dtype":"U8","shape":[],"data_offsets":[%d,%d]}' % (number, number, number + 1))
        taken += len(tensors[-1]) + 1
    header = b"{%s}" % b",".join(tensors)
    return struct.pack("<Q", size) + header.ljust(size) + bytes(len(tensors))


def wrap_in_zip(content: bytes) -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("member", content)
    return body.getvalue()


LARGE = 30 * MB
LARGEST = {
    "tokenizer.json": lambda: build_tokenizer(MAX_JSON),
    "model.safetensors": lambda: build_header(MAX_HEADER),
    "nested.zip": lambda: wrap_in_zip(wrap_in_zip(pickle.dumps(bytes(LARGE)))),
    "text.bin": lambda: pickle.dumps("\U0001f600" + "x" * LARGE),
    "memo.bin": lambda: b"\x80\x04" + b"N\x94" * LARGE,
}
"""What takes most of its kind."""


@pytest.mark.parametrize("path", LARGEST)
def test_the_largest_files_that_the_gate_takes_stay_in_bounded_memory(path: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(LARGEST[path]())
    inspection = measure_gate(file, path)
    assert inspection.usage.peak_rss < BOUND
    # Four million opcodes are as many as are looked through.
    assert inspection.refused is None or (path == "memo.bin" and "too large" in inspection.refused)


@pytest.mark.parametrize(
    ("path", "content", "words"),
    [
        (
            "tokenizer.json",
            lambda: build_tokenizer(MAX_JSON + 1),
            "tokenizer.json: JSON of 134,217,729 bytes; the limit is",
        ),
        ("config.json", lambda: b'{"a": [' + b"[]," * (LARGE // 3) + b"[]]}", "config.json: holds more than 4 MiB"),
        (
            "model.safetensors",
            lambda: build_header(MAX_HEADER + 1),
            "model.safetensors: has a header of 33,554,433 bytes",
        ),
        (
            "model.safetensors",
            lambda: struct.pack("<Q", LARGE) + (b'{"a": [' + b"[]," * (LARGE // 3))[:LARGE],
            "model.safetensors: invalid safetensors header",
        ),
    ],
)
def test_what_is_too_large_is_refused_in_words(
    path: str, content: Callable[[], bytes], words: str, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_bytes(content())
    inspection = measure_gate(file, path)
    assert inspection.usage.peak_rss < BOUND
    assert inspection.refused is not None
    assert inspection.refused.startswith(words)


@pytest.mark.parametrize(
    ("model", "reads"),
    # A file needs one read, a torch archive two more, whatever its size.
    [("arrays", 15_000), ("pickles", 3_000), ("safetensors", 10), ("torch", 10)],
)
def test_large_models_are_inspected_in_bounded_memory_with_few_reads(model: str, reads: int) -> None:
    inspection = measure_model(model)
    assert inspection.verdict == "clean"
    assert inspection.usage.peak_rss < BOUND
    assert inspection.reads <= reads
