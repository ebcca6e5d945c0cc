from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhaul.domain.findings import ContentReport, FileVerdict, FindingKind, Severity
from modelhaul.domain.json_streams import ReadRange
from modelhaul.inspection.formats.tensorflow import inspect_graph, inspect_keras_metadata, inspect_saved_model
from tests.unit.test_formats_onnx import pack

FORMATS = Path(__file__).parents[1] / "checkpoints/formats"


def open_bytes(content: bytes) -> tuple[ReadRange, int]:
    return lambda start, end: content[start:end], len(content)


def open_file(name: str) -> tuple[ReadRange, int]:
    return open_bytes((FORMATS / name).read_bytes())


def build_node(operation: str, attribute: bytes = b"") -> bytes:
    return pack(1, b"name") + (attribute and pack(5, pack(1, b"a") + pack(2, attribute))) + pack(2, operation.encode())


def test_models_without_effects_are_clean() -> None:
    assert inspect_saved_model(*open_file("saved_model.pb")) == ContentReport("saved-model")
    assert inspect_graph(*open_file("graph.pb")) == ContentReport("tensorflow-graph")


def test_operations_with_effects_are_found() -> None:
    report = inspect_saved_model(*open_file("unsafe-saved_model.pb"))
    assert report.reason is None
    assert {finding.detail for finding in report.findings} == {
        "Operation TextLineDataset reads files",
        "Operation ReadFile reads files",
        "Operation WriteFile writes files",
        "Operation PrintV2 writes files",
        "Operation PyFunc calls Python",
    }
    assert {(finding.kind, finding.severity) for finding in report.findings} == {
        (FindingKind.TENSORFLOW_OP, Severity.HIGH)
    }


@pytest.mark.parametrize(
    ("node", "details"),
    [
        (build_node("MatMul"), []),
        (build_node("SaveV2"), []),
        (build_node("RestoreV2"), []),
        (build_node("PrintV2"), []),
        (build_node("PrintV2", pack(2, b"stderr")), []),
        (build_node("PrintV2", pack(2, b"file:///tmp/a")), ["Operation PrintV2 writes files"]),
        (build_node("EagerPyFunc"), ["Operation EagerPyFunc calls Python"]),
        (build_node("DebugIdentityV2"), ["Operation DebugIdentityV2 writes files"]),
        (build_node("DataServiceDatasetV4"), ["Operation DataServiceDatasetV4 connects to other machines"]),
    ],
)
def test_operations_by_name(node: bytes, details: list[str]) -> None:
    functions = pack(2, pack(1, pack(3, node)))
    for graph in (pack(1, node), pack(1, build_node("NoOp")) + functions):
        report = inspect_graph(*open_bytes(graph))
        assert (report.reason, [finding.detail for finding in report.findings]) == (None, details)
        report = inspect_saved_model(*open_bytes(pack(2, pack(2, graph))))
        assert (report.reason, [finding.detail for finding in report.findings]) == (None, details)


def test_findings_before_an_error_are_kept() -> None:
    report = inspect_graph(*open_bytes(pack(1, build_node("ReadFile")) + pack(99, b"")))
    assert report.verdict is FileVerdict.UNSAFE
    assert report.reason is not None


@pytest.mark.parametrize("content", [b"", pack(99, 1), pack(1, pack(2, b"\xff")), b"\x0a\x7f", pack(1, b"\x0a\x80")])
def test_other_content_has_a_reason(content: bytes) -> None:
    assert inspect_graph(*open_bytes(content)).reason is not None
    assert inspect_saved_model(*open_bytes(content)).reason is not None


def test_keras_metadata_of_a_saved_model() -> None:
    assert inspect_keras_metadata(*open_file("keras_metadata.pb")) == ContentReport("keras-metadata")
    report = inspect_keras_metadata(*open_file("unsafe-keras_metadata.pb"))
    assert [(finding.kind, finding.severity) for finding in report.findings] == [
        (FindingKind.KERAS_LAMBDA, Severity.HIGH)
    ]
    broken = pack(1, pack(5, b"{"))
    assert inspect_keras_metadata(*open_bytes(broken)).reason == "Keras configuration is not valid JSON"


@given(st.data())
def test_any_content_has_a_report(draws: st.DataObject) -> None:
    content = (FORMATS / "graph.pb").read_bytes()
    start = draws.draw(st.integers(0, len(content)))
    changed = content[:start] + draws.draw(st.binary(max_size=4)) + content[start + draws.draw(st.integers(0, 4)) :]
    inspect_graph(*open_bytes(changed))
    inspect_saved_model(*open_bytes(draws.draw(st.binary(max_size=100))))
