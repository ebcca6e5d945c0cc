"""Recognition of a file's format by its content and name, and the choice of its parser."""

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import PurePosixPath

from modelhaul.domain.findings import ContentReport, Finding
from modelhaul.domain.json_streams import ReadRange
from modelhaul.inspection.compressed import inspect_compressed
from modelhaul.inspection.containers import find_code_archive, is_tar
from modelhaul.inspection.formats.executables import find_program, find_source
from modelhaul.inspection.formats.opaque import recognize_opaque
from modelhaul.inspection.loaders import is_text_name, may_be_unpickled
from modelhaul.inspection.opened import OpenedFile
from modelhaul.inspection.pickles import numpy_arrays
from modelhaul.inspection.pickles.numpy_arrays import inspect_array
from modelhaul.inspection.pickles.reach import Reach, find_reach
from modelhaul.inspection.pickles.streams import inspect_pickles
from modelhaul.inspection.zip_archives import (
    END_MAGIC,
    ZIP_MAGIC,
    has_archive_end,
    inspect_zip,
    report_hidden_archive,
)

type Parser = Callable[[ReadRange, int], ContentReport]

# Imported with the first file of the format, since most models need few of them.
_PARSERS = {
    ".gguf": "gguf:inspect_gguf",
    ".h5": "keras:inspect_hdf5",
    ".hdf5": "keras:inspect_hdf5",
    ".jinja": "templates:inspect_template_file",
    ".jinja2": "templates:inspect_template_file",
    ".keras": "keras:inspect_hdf5",
    ".model": "sentencepiece:inspect_sentencepiece",
    ".msgpack": "msgpack_files:inspect_msgpack",
    ".onnx": "onnx:inspect_onnx",
    ".pb": "tensorflow:inspect_graph",
    ".pmml": "xml_files:inspect_xml",
    ".safetensors": "safetensors:inspect_safetensors",
    ".svg": "xml_files:inspect_xml",
    ".xml": "xml_files:inspect_xml",
    ".yaml": "yaml_files:inspect_yaml",
    ".yml": "yaml_files:inspect_yaml",
}
_PARSERS_BY_NAME = {
    "keras_metadata.pb": "tensorflow:inspect_keras_metadata",
    "saved_model.pb": "tensorflow:inspect_saved_model",
}
_PARSERS_BY_MAGIC = {b"GGUF": "gguf:inspect_gguf", b"\x89HDF\r\n\x1a\n": "keras:inspect_hdf5"}
_PICKLE_MAGICS = tuple(b"\x80" + bytes([protocol]) for protocol in range(2, 6))
_NO_PICKLE = "File is not a pickle, numpy array or archive that pickle loaders read"
_LIKE_PICKLE = "Text that an unpickler would accept as a pickle"


def inspect_file(file: OpenedFile) -> ContentReport:
    """Inspect the whole content of a file. Raises what its `fetch` raises."""
    findings = _find_programs(file)
    report = _inspect_loadable(file) or _inspect_other(file)
    return _add_findings(report, findings)


def _find_programs(file: OpenedFile) -> tuple[Finding, ...]:
    found = (find_program(file.head), find_source(file.path), find_code_archive(file.path))
    return tuple(finding for finding in found if finding is not None)


def _add_findings(report: ContentReport, findings: tuple[Finding, ...]) -> ContentReport:
    return replace(report, findings=(*findings, *report.findings)) if findings else report


def _inspect_loadable(file: OpenedFile) -> ContentReport | None:
    """Inspect content that pickle loaders read. Return None for content in which they reach no import."""
    known = _inspect_by_magic(file)
    if known is not None:
        return known
    if _is_candidate(file):
        return report_hidden_archive() if has_archive_end(file) else _inspect_stream(file)
    return _inspect_stream(file) if file.head.startswith(_PICKLE_MAGICS) else None


def _inspect_by_magic(file: OpenedFile) -> ContentReport | None:
    head = file.head
    if head.startswith(ZIP_MAGIC):
        return inspect_zip(file, inspect_file)
    if head.startswith(END_MAGIC):
        return ContentReport("zip", "ZIP archive is empty", is_loadable=True)
    if head.startswith(numpy_arrays.MAGIC):
        return inspect_array(file.read, 0, file.size, file.budget)
    if is_tar(head):
        # torch reads a tar archive of any name, but not in another archive.
        is_read = _is_candidate(file) and not file.depth and find_code_archive(file.path) is None
        return ContentReport("tar", "Unsupported: tar archive", is_loadable=file.is_unpickled or is_read)
    return inspect_compressed(file, inspect_file)


def _is_candidate(file: OpenedFile) -> bool:
    """Return whether users may load the file as a pickle: its name does not belong to another format."""
    return file.is_unpickled or may_be_unpickled(file.path) or not _has_known_name(file.path)


def _has_known_name(path: str) -> bool:
    return (
        is_text_name(path)
        or PurePosixPath(path).suffix.lower() in _PARSERS
        or find_source(path) is not None
        or recognize_opaque(b"", path) is not None
    )


def _inspect_stream(file: OpenedFile) -> ContentReport | None:
    """Inspect pickles. Return None if the content is not a pickle, or is one by chance: raw weights or text."""
    report = inspect_pickles(file.read, 0, file.size, budget=file.budget, is_torchscript=file.is_torchscript)
    is_pickle = file.is_unpickled or file.head.startswith(_PICKLE_MAGICS)
    if report is None or is_pickle or report.reason is None:
        return report
    threshold = Reach.IMPORT if may_be_unpickled(file.path) else Reach.CALL
    return report if find_reach(file.read, 0, file.size, file.budget) >= threshold else None


def _inspect_other(file: OpenedFile) -> ContentReport:
    if file.is_unpickled:
        return ContentReport("unknown", _NO_PICKLE)
    report = _inspect_named(file)
    if report.reason is None and report.format != "text":
        return report
    reach = find_reach(file.read, 0, file.size, file.budget)
    if reach is Reach.CALL:
        # Text and other data do not reach a call by chance.
        return inspect_pickles(file.read, 0, file.size, budget=file.budget) or report
    resembles_pickle = reach is Reach.IMPORT and report.format == "text" and not is_text_name(file.path)
    return replace(report, reason=_LIKE_PICKLE) if resembles_pickle and report.reason is None else report


def _inspect_named(file: OpenedFile) -> ContentReport:
    """Inspect a file with the parser for its name or first bytes."""
    parser = _find_parser(file)
    if parser is not None:
        return parser(file.read, file.size)
    opaque = recognize_opaque(file.head, file.path)
    if opaque is not None:
        return ContentReport("unknown", f"Unsupported: {opaque}")
    return _inspect_text(file)


def _inspect_text(file: OpenedFile) -> ContentReport:
    from modelhaul.inspection.formats.text import inspect_text  # noqa: PLC0415

    report = inspect_text(file.read, file.size)
    return report if is_text_name(file.path) or report.reason is None else ContentReport("unknown", "Unknown format")


def _find_parser(file: OpenedFile) -> Parser | None:
    path = PurePosixPath(file.path)
    if path.suffix.lower() == ".json":
        return _parse_configuration(file.path)
    name = _PARSERS_BY_NAME.get(path.name)
    if name is None:
        name = next((parser for magic, parser in _PARSERS_BY_MAGIC.items() if file.head.startswith(magic)), None)
    if name is None:
        name = _PARSERS.get(path.suffix.lower())
    return _load_parser(name) if name is not None else None


def _parse_configuration(path: str) -> Parser:
    from modelhaul.inspection.formats.configurations import inspect_configuration  # noqa: PLC0415

    return lambda read, size: inspect_configuration(path, read, size)


def _load_parser(name: str) -> Parser:
    module, _, function = name.partition(":")
    parser: Parser = getattr(import_module(f"modelhaul.inspection.formats.{module}"), function)
    return parser
