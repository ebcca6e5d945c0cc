"""JSON files of models: references to code, and chat templates."""

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
_MAX_NAME = 80  # characters of a name in a finding
# Packages that loaders import anyway. Importing their modules has no side effects.
_KNOWN_PACKAGES = {"diffusers", "optimum", "peft", "sentence_transformers", "transformers"}


def inspect_configuration(path: str, read: ReadRange, size: int) -> ContentReport:
    """Inspect a JSON file. Findings are the classes that it refers to, and its chat templates."""
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
        reasons.append(f"File {error}")
    return ContentReport(report.format, next(iter(reasons), None), limit_findings(findings, _MAX_FINDINGS))


def _find_in_large_file(read: ReadRange, size: int) -> Iterator[Finding | str]:
    """Like `_find_code`, but only for top-level members of the names in `_NAMES`.

    Parsing a whole vocabulary would take too much memory.
    """
    if read(0, 1) != b"[" and find_names(read, size, _NAMES):
        for name, value in read_members(read, 0, size):
            if name in _NAMES:
                yield from _find_in_members({name: value})


def _find_code(path: str, content: bytes) -> Iterator[Finding | str]:
    """Yield findings, and the reasons for which templates were not parsed. Raises JsonError."""
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
    """Yield name and value of each member of each object, at any depth."""
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
    for name in (item for entry in names for item in (entry if isinstance(entry, list) else [entry])):
        if isinstance(name, str):
            if "--" in name:
                repository = name.partition("--")[0]
                detail = f"Code of the repository {repository[:_MAX_NAME]}, run with trust_remote_code=True"
                yield Finding(FindingKind.REMOTE_CODE, Severity.MEDIUM, detail)
            else:
                yield _describe_module(FindingKind.AUTO_MAP, Severity.LOW, name, "trust_remote_code=True")


def _find_import(module: Any, library: str) -> Iterator[Finding]:
    """Yield a finding if the library imports `module`, which a configuration names."""
    if isinstance(module, str) and module and module.partition(".")[0] not in _KNOWN_PACKAGES:
        detail = f"{library} imports the Python module {module[:_MAX_NAME]}"
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
    return Finding(kind, severity, f"Code of this repository ({name[:_MAX_NAME]}), run with {option}")
