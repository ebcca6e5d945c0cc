"""YAML: its tags and keys are read, nothing is constructed.

HyperPyYAML (SpeechBrain's hyperparams.yaml) calls what `!new:` and `!apply:` name when it loads a file; Hydra and NeMo
call what `_target_` names when they instantiate a configuration; PyYAML's unsafe loaders construct `!!python/…`.
"""

import sys

import yaml

from modelhaul.domain.findings import ContentReport, Finding, FindingKind, Severity, limit_findings
from modelhaul.domain.json_streams import ReadRange
from modelhaul.inspection.windows import ContentError

MAX_SIZE = 4 * 1024 * 1024  # bytes
_MAX_EVENTS = 2_000_000
_MAX_DEPTH = 100  # nested collections; reading time grows with its square
_MAX_FINDINGS = 20
_SHOWN = 80  # characters
_PYTHON_TAG = "tag:yaml.org,2002:python/"
_CALLS = ("!apply:", "!applyref:", "!module:", "!name:", "!new:")
# These call a function when the file is read; the others build objects, or name them.
_RUNS = ("!apply:", "!applyref:")
_HARMLESS = {"numpy.random.seed", "speechbrain.utils.seed_everything", "torch.manual_seed"}
_INCLUDE = "!include:"
_PLAIN_TAGS = {
    "!", "!PLACEHOLDER", "!copy", "!ref", "!tuple",
    *(
        f"tag:yaml.org,2002:{name}"
        for name in ("binary", "bool", "float", "int", "map", "merge", "null", "omap", "pairs", "seq", "set", "str",
                     "timestamp", "value")
    ),
}  # fmt: skip
_KNOWN_PACKAGES = {
    "hyperpyyaml", "numpy", "speechbrain", "torch", "torchaudio", "torchvision", "transformers",
}  # fmt: skip
_TARGET = "_target_"


def inspect_yaml(read: ReadRange, size: int) -> ContentReport:
    """YAML_CONSTRUCTOR for what a loader would import or call."""
    if size > MAX_SIZE:
        return ContentReport("yaml", f"YAML of {size:,} bytes is not parsed; the limit is {MAX_SIZE:,}")
    findings: dict[Finding, None] = {}
    try:
        _collect(read(0, size), findings)
    except ContentError as error:
        return ContentReport("yaml", str(error), limit_findings(findings, _MAX_FINDINGS))
    except (yaml.YAMLError, ValueError, RecursionError):
        return ContentReport("yaml", "is not valid YAML", limit_findings(findings, _MAX_FINDINGS))
    return ContentReport("yaml", findings=limit_findings(findings, _MAX_FINDINGS))


def _collect(content: bytes, findings: dict[Finding, None]) -> None:
    is_target = False
    depth = 0
    anchors: set[str] = set()
    for count, event in enumerate(yaml.parse(content, Loader=yaml.CSafeLoader)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if count == _MAX_EVENTS or depth > _MAX_DEPTH:
            raise ContentError(f"more than {_MAX_EVENTS:,} events or {_MAX_DEPTH} levels are not parsed")
        _check_anchor(event, anchors)
        if finding := _judge_tag(getattr(event, "tag", None)):
            findings[finding] = None
        if not isinstance(event, yaml.ScalarEvent):
            is_target = False
            continue
        if is_target and (finding := _judge_target(event.value)):
            findings[finding] = None
        is_target = event.value == _TARGET


def _check_anchor(event: yaml.Event, anchors: set[str]) -> None:
    anchor: str | None = getattr(event, "anchor", None)
    if anchor is None:
        return
    if isinstance(event, yaml.AliasEvent) and anchor not in anchors:
        raise ContentError(f"the alias {anchor[:_SHOWN]!a} has no anchor")
    anchors.add(anchor)


def _judge_tag(tag: str | None) -> Finding | None:
    if tag is None or tag in _PLAIN_TAGS:
        return None
    shown = ascii(tag[:_SHOWN])
    if tag.startswith(_PYTHON_TAG):
        return Finding(FindingKind.YAML_CONSTRUCTOR, Severity.HIGH, f"the tag {shown} constructs a Python object")
    if tag.startswith(_INCLUDE):
        name = tag.removeprefix(_INCLUDE)
        is_outside = name.startswith(("/", "\\")) or ".." in name or ":" in name
        severity = Severity.HIGH if is_outside else Severity.MEDIUM
        return Finding(FindingKind.YAML_CONSTRUCTOR, severity, f"the tag {shown} reads another file")
    for call in _CALLS:
        if tag.startswith(call):
            name = tag.removeprefix(call)
            is_known = name in _HARMLESS if call in _RUNS else name.split(".", 1)[0] in _KNOWN_PACKAGES
            severity = Severity.MEDIUM if is_known else Severity.HIGH
            return Finding(FindingKind.YAML_CONSTRUCTOR, severity, f"the tag {shown} imports or calls")
    raise ContentError(f"unknown tag {shown}")


def _judge_target(name: str) -> Finding | None:
    """Hydra's `_target_: package.module.name`."""
    package = name.split(".", 1)[0]
    is_system = package in sys.stdlib_module_names
    severity = Severity.HIGH if is_system else Severity.MEDIUM
    return Finding(FindingKind.YAML_CONSTRUCTOR, severity, f"_target_ names {name[:_SHOWN]!a}, which Hydra calls")
