"""YAML: tags and keys are read, but nothing is constructed.

HyperPyYAML (SpeechBrain's hyperparams.yaml) calls the names in `!new:` and `!apply:` when it loads a file. Hydra and
NeMo call the name in `_target_` when they instantiate a configuration. PyYAML's unsafe loaders construct `!!python/…`.
"""

import sys

import yaml

from modelhaul.domain.findings import ContentReport, Finding, FindingKind, Severity, limit_findings
from modelhaul.domain.json_streams import ReadRange
from modelhaul.inspection.windows import ContentError

MAX_SIZE = 4 * 1024 * 1024  # bytes
_MAX_EVENTS = 2_000_000
_MAX_DEPTH = 100  # nested collections; the parsing time grows with the square of the depth
_MAX_FINDINGS = 20
_MAX_NAME = 80  # characters of a name or tag in a finding
_PYTHON_TAG = "tag:yaml.org,2002:python/"
_CALLS = ("!apply:", "!applyref:", "!module:", "!name:", "!new:")
# These call a function when the file is loaded; the others construct objects, or refer to them.
_FUNCTION_CALLS = ("!apply:", "!applyref:")
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
    """Inspect a YAML file. YAML_CONSTRUCTOR are names that a loader would import or call."""
    if size > MAX_SIZE:
        return ContentReport("yaml", f"YAML file has {size:,} bytes; the limit is {MAX_SIZE:,}")
    findings: dict[Finding, None] = {}
    try:
        _collect(read(0, size), findings)
    except ContentError as error:
        return ContentReport("yaml", str(error), limit_findings(findings, _MAX_FINDINGS))
    except (yaml.YAMLError, ValueError, RecursionError):
        return ContentReport("yaml", "File is not valid YAML", limit_findings(findings, _MAX_FINDINGS))
    return ContentReport("yaml", findings=limit_findings(findings, _MAX_FINDINGS))


def _collect(content: bytes, findings: dict[Finding, None]) -> None:
    is_target = False
    depth = 0
    anchors: set[str] = set()
    for count, event in enumerate(yaml.parse(content, Loader=yaml.CSafeLoader)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if count == _MAX_EVENTS or depth > _MAX_DEPTH:
            raise ContentError(f"File has more than {_MAX_EVENTS:,} events or {_MAX_DEPTH} nested collections")
        _check_anchor(event, anchors)
        if finding := _check_tag(getattr(event, "tag", None)):
            findings[finding] = None
        if not isinstance(event, yaml.ScalarEvent):
            is_target = False
            continue
        if is_target and (finding := _check_target(event.value)):
            findings[finding] = None
        is_target = event.value == _TARGET


def _check_anchor(event: yaml.Event, anchors: set[str]) -> None:
    anchor: str | None = getattr(event, "anchor", None)
    if anchor is None:
        return
    if isinstance(event, yaml.AliasEvent) and anchor not in anchors:
        raise ContentError(f"Alias {anchor[:_MAX_NAME]!a} has no anchor")
    anchors.add(anchor)


def _check_tag(tag: str | None) -> Finding | None:
    if tag is None or tag in _PLAIN_TAGS:
        return None
    shown = ascii(tag[:_MAX_NAME])
    if tag.startswith(_PYTHON_TAG):
        return Finding(FindingKind.YAML_CONSTRUCTOR, Severity.HIGH, f"Tag {shown} constructs a Python object")
    if tag.startswith(_INCLUDE):
        name = tag.removeprefix(_INCLUDE)
        is_outside = name.startswith(("/", "\\")) or ".." in name or ":" in name
        severity = Severity.HIGH if is_outside else Severity.MEDIUM
        return Finding(FindingKind.YAML_CONSTRUCTOR, severity, f"Tag {shown} includes another file")
    for call in _CALLS:
        if tag.startswith(call):
            name = tag.removeprefix(call)
            is_known = name in _HARMLESS if call in _FUNCTION_CALLS else name.split(".", 1)[0] in _KNOWN_PACKAGES
            severity = Severity.MEDIUM if is_known else Severity.HIGH
            return Finding(FindingKind.YAML_CONSTRUCTOR, severity, f"Tag {shown} imports or calls a Python object")
    raise ContentError(f"Unknown tag {shown}")


def _check_target(name: str) -> Finding | None:
    """Return the finding for Hydra's `_target_: package.module.name`."""
    package = name.split(".", 1)[0]
    is_system = package in sys.stdlib_module_names
    severity = Severity.HIGH if is_system else Severity.MEDIUM
    return Finding(FindingKind.YAML_CONSTRUCTOR, severity, f"_target_ is {name[:_MAX_NAME]!a}, which Hydra calls")
