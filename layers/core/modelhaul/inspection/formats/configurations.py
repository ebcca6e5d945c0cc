"""JSON files of models: what in them names code, and the chat templates that they hold."""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from modelhaul.domain.findings import ContentReport, Finding, FindingKind, Severity, limit_findings
from modelhaul.domain.json_streams import JsonError, ReadRange, find_names, parse_json, read_members
from modelhaul.inspection.formats.templates import inspect_template
from modelhaul.inspection.formats.text import inspect_json
from modelhaul.inspection.windows import ContentError

_MAX_PARSED = 4 * 1024 * 1024  # bytes; larger files are vocabularies
_NAMES = {"auto_map", "auto_mapping", "chat_template", "custom_pipelines"}
_MAX_FINDINGS = 20
_SHOWN = 80  # characters of a name
# Packages that loaders import by themselves; none of their modules runs anything when it is imported.
_KNOWN_PACKAGES = {"diffusers", "optimum", "peft", "sentence_transformers", "transformers"}


def inspect_configuration(path: str, read: ReadRange, size: int) -> ContentReport:
    """A JSON file, with findings for the classes that it names and its chat templates."""
    report = inspect_json(read, size)
    if report.reason is not None:
        return report
    findings: list[Finding] = []
    reasons: list[str] = []
    is_large = size > _MAX_PARSED
    try:
        for found in _find_in_large_file(read, size) if is_large else _find_code(path, read(0, size)):
            if isinstance(found, Finding):
                findings.append(found)
            else:
                reasons.append(found)
    except JsonError as error:
        reasons.append(str(error))
    return ContentReport(report.format, next(iter(reasons), None), limit_findings(findings, _MAX_FINDINGS))


def _find_in_large_file(read: ReadRange, size: int) -> Iterator[Finding | str]:
    """Of the members of its object alone: a vocabulary has too many parts to be built."""
    if read(0, 1) != b"[" and find_names(read, size, _NAMES):
        for name, value in read_members(read, 0, size):
            if name in _NAMES:
                yield from _find_in_members({name: value})


def _find_code(path: str, content: bytes) -> Iterator[Finding | str]:
    """Findings, and why a template was not parsed. Raises JsonError."""
    parsed = parse_json(content)
    if b"class_name" in content and b"module" in content:
        yield from _find_layers(content)
    yield from _find_in_members(parsed)
    base = PurePosixPath(path).name
    if base == "modules.json" and isinstance(parsed, list):
        for module in parsed:
            yield from _find_import(module.get("type") if isinstance(module, dict) else None, "sentence-transformers")
    if base == "model_index.json" and isinstance(parsed, dict):
        for value in parsed.values():
            if isinstance(value, list) and len(value) == 2:  # noqa: PLR2004 - library and class
                yield from _find_import(value[0], "diffusers")


def _find_layers(content: bytes) -> Iterator[Finding | str]:
    from modelhaul.inspection.formats.keras import find_unsafe_layers  # noqa: PLC0415 - few models have one

    try:
        yield from find_unsafe_layers(content, Severity.MEDIUM)
    except ContentError as error:
        yield str(error)


def _find_in_members(parsed: Any) -> Iterator[Finding | str]:
    for name, value in _walk_members(parsed):
        if name == "auto_map":
            yield from _find_mapped(value)
        elif name == "custom_pipelines" and value:
            yield _describe_module(FindingKind.AUTO_MAP, Severity.LOW, "custom_pipelines", "trust_remote_code=True")
        elif name == "auto_mapping" and isinstance(value, dict):
            yield from _find_import(value.get("parent_library"), "PEFT")
        elif name == "chat_template":
            yield from _find_templates(value)


def _walk_members(parsed: Any) -> Iterator[tuple[str, Any]]:
    """Name and value of each member of each object, at any depth."""
    values = [parsed]
    while values:
        value = values.pop()
        if isinstance(value, dict):
            yield from value.items()
            values += value.values()
        elif isinstance(value, list):
            values += value


def _find_mapped(value: Any) -> Iterator[Finding]:
    names = value.values() if isinstance(value, dict) else [value]
    for name in (one for many in names for one in (many if isinstance(many, list) else [many])):
        if isinstance(name, str):
            if "--" in name:
                repository = name.partition("--")[0]
                detail = f"auto_map names code of the repository {repository[:_SHOWN]}: run with trust_remote_code=True"
                yield Finding(FindingKind.REMOTE_CODE, Severity.MEDIUM, detail)
            else:
                yield _describe_module(FindingKind.AUTO_MAP, Severity.LOW, name, "trust_remote_code=True")


def _find_import(module: Any, library: str) -> Iterator[Finding]:
    """`module` is what a configuration has the library import."""
    if isinstance(module, str) and module and module.partition(".")[0] not in _KNOWN_PACKAGES:
        detail = f"{library} imports the Python module {module[:_SHOWN]}"
        yield Finding(FindingKind.AUTO_MAP, Severity.MEDIUM, detail)


def _find_templates(value: Any) -> Iterator[Finding | str]:
    if isinstance(value, str):
        try:
            yield from inspect_template(value)
        except ContentError as error:
            yield str(error)
    elif isinstance(value, list):
        for named in value:
            yield from _find_templates(named.get("template") if isinstance(named, dict) else None)
    elif isinstance(value, dict):
        for template in value.values():
            yield from _find_templates(template)


def _describe_module(kind: FindingKind, severity: Severity, name: str, option: str) -> Finding:
    return Finding(kind, severity, f"names code of this repository ({name[:_SHOWN]}): run with {option}")
