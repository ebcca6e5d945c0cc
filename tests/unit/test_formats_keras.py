import json
from pathlib import Path
from typing import Any

import pytest

from modelhaul.domain.findings import FileVerdict, FindingKind, Severity
from modelhaul.inspection.formats.keras import inspect_hdf5, inspect_keras_config
from modelhaul.inspection.windows import ContentError

FORMATS = Path(__file__).parents[1] / "checkpoints/formats"
HDF5 = b"\x89HDF\r\n\x1a\n"


def judge(config: Any) -> list[tuple[FindingKind, Severity]]:
    findings = inspect_keras_config(json.dumps({"config": {"layers": [config]}}).encode())
    assert all(finding.detail.isprintable() for finding in findings)
    return [(finding.kind, finding.severity) for finding in findings]


def test_configurations_by_the_library() -> None:
    assert inspect_keras_config((FORMATS / "keras.json").read_bytes()) == ()
    (finding,) = inspect_keras_config((FORMATS / "unsafe-lambda.json").read_bytes())
    assert (finding.kind, finding.severity) == (FindingKind.KERAS_LAMBDA, Severity.MEDIUM)


@pytest.mark.parametrize(
    "config",
    [
        {"module": "keras.layers", "class_name": "Dense", "config": {"activation": "relu"}},
        {"module": "keras.src.models.functional", "class_name": "Functional", "config": {}},
        {"module": "builtins", "class_name": "function", "config": "relu", "registered_name": "function"},
        {"module": "keras.activations", "class_name": "function", "config": "gelu"},
        {"module": "keras_hub.src.models.bert", "class_name": "BertBackbone", "config": {}},
        {"module": None, "class_name": "Custom", "config": {}},
        {"class_name": "__numpy__", "config": {"value": [1], "dtype": "float32"}},
        {"class_name": "StringLookup", "module": "keras.layers", "config": {"vocabulary": ["a", "b"]}},
    ],
)
def test_layers_of_keras_are_plain(config: dict[str, Any]) -> None:
    assert judge(config) == []


@pytest.mark.parametrize(
    "config",
    [
        {"module": "os", "class_name": "function", "config": "system", "registered_name": "system"},
        {"module": "subprocess", "class_name": "Popen", "config": {}},
        {"module": "my.layers", "class_name": "Custom", "config": {}},
        {"module": "kerasx.layers", "class_name": "Dense", "config": {}},
        {"module": "keras.utils", "class_name": "function", "config": "get_file"},
        {"module": "keras.config", "class_name": "function", "config": "enable_unsafe_deserialization"},
        {"module": "keras.layers", "class_name": "TorchModuleWrapper", "config": {"module": "..."}},
        {"module": "keras.layers", "class_name": "TFSMLayer", "config": {"filepath": "/tmp/model"}},
        {"module": "keras.layers", "class_name": "StringLookup", "config": {"vocabulary": "/etc/passwd"}},
    ],
)
def test_references_outside_keras_are_unsafe(config: dict[str, Any]) -> None:
    assert judge(config) == [(FindingKind.KERAS_MODULE, Severity.HIGH)]


@pytest.mark.parametrize("name", ["Lambda", "__lambda__"])
def test_bytecode_is_found_at_any_depth(name: str) -> None:
    layer = {"module": "keras.layers", "class_name": name, "config": {}}
    for config in (layer, {"config": {"activation": layer}}, [[layer]], {"compile_config": {"loss": [layer]}}):
        assert judge(config) == [(FindingKind.KERAS_LAMBDA, Severity.MEDIUM)]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 20_000, b"1" * 5_000, b" " * 9_000_000], ids=range(6))
def test_other_content_cannot_be_parsed(content: bytes) -> None:
    with pytest.raises(ContentError):
        inspect_keras_config(content)


@pytest.mark.parametrize(
    ("name", "kinds"), [("keras.h5", {FindingKind.KERAS}), ("unsafe-lambda.h5", {FindingKind.KERAS_LAMBDA})]
)
def test_hdf5_is_searched(name: str, kinds: set[FindingKind]) -> None:
    content = (FORMATS / name).read_bytes()
    report = inspect_hdf5(lambda start, end: content[start:end], len(content))
    assert report.reason == "Unsupported: HDF5"
    assert {finding.kind for finding in report.findings} == kinds
    assert report.verdict is (FileVerdict.UNSAFE if FindingKind.KERAS_LAMBDA in kinds else FileVerdict.UNSCANNED)


@pytest.mark.parametrize(
    "text", [b'"class_name": "Lambda"', b'"class_name":"__lambda__"', b'\\"class_name\\": \\"Lambda\\"']
)
@pytest.mark.parametrize("position", [8, 1024 * 1024 - 10, 3_000_000])
def test_names_of_layers_are_found_across_windows(text: bytes, position: int) -> None:
    content = HDF5.ljust(position, b"\x00") + text + bytes(100)
    report = inspect_hdf5(lambda start, end: content[start:end], len(content))
    assert report.verdict is FileVerdict.UNSAFE


@pytest.mark.slow
def test_only_the_ends_of_large_files_are_read() -> None:
    size, reads = 10**12, 0

    def read(start: int, end: int) -> bytes:
        nonlocal reads
        reads += end - start
        return (HDF5 if not start else b"").ljust(end - start, b"\x00")

    assert inspect_hdf5(read, size).reason is not None
    assert reads < 130 * 1024 * 1024
    assert inspect_hdf5(lambda start, end: b"text", 4).reason == "Unsupported: HDF5"
