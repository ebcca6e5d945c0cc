"""Chat templates: Jinja, parsed by Jinja's own parser and never rendered.

transformers, vLLM and llama-cpp-python render them in jinja2.sandbox.ImmutableSandboxedEnvironment. Older releases of
llama-cpp-python have no sandbox. Code that the sandbox blocks is a finding. A key or an attribute whose name the
template computes from its own strings is a finding too, because the sandbox might block the name.
"""

import re

from jinja2 import Environment, TemplateSyntaxError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser

from modelhaul.domain.findings import ContentReport, Finding, FindingKind, Severity, limit_findings
from modelhaul.domain.json_streams import ReadRange
from modelhaul.inspection.templates.flow import TextFlow
from modelhaul.inspection.templates.nodes import is_unsafe_name
from modelhaul.inspection.templates.origins import Origin
from modelhaul.inspection.windows import ContentError

MAX_TEMPLATE = 256 * 1024  # bytes; the largest known templates have 30 kB
_MAX_FINDINGS = 20
_PLAIN = Finding(FindingKind.CHAT_TEMPLATE, Severity.LOW, "Jinja template without unsafe operations")
_LOOKUPS = {
    "attr",
    "groupby",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "select",
    "selectattr",
    "sort",
    "sum",
    "unique",
}
_MUTATORS = {
    "add", "append", "appendleft", "clear", "difference_update", "discard", "extend", "extendleft", "insert",
    "intersection_update", "pop", "popitem", "popleft", "remove", "reverse", "rotate", "setdefault", "sort",
    "symmetric_difference_update", "update",
}  # fmt: skip
"""Methods of lists, dictionaries, sets and deques that jinja2.sandbox.ImmutableSandboxedEnvironment blocks."""

_FORMATS = {"format", "format_map"}
_UNSAFE_FIELD = re.compile(r"[.\[]\s*(?:_|mro\b|(?:func|im|gi|cr|ag)_)")
_FACTORIES = {"cycler", "joiner"}


class _Generation(Extension):
    """`{% generation %}` of transformers: https://huggingface.co/docs/transformers/chat_templating_writing"""

    tags = {"generation"}  # noqa: RUF012 - the declaration in jinja2

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


_ENVIRONMENT = Environment(extensions=["jinja2.ext.loopcontrols", _Generation])  # noqa: S701 - nothing is rendered


def inspect_template(source: str) -> tuple[Finding, ...]:
    """Return CHAT_TEMPLATE of severity LOW for a safe template, else UNSAFE_TEMPLATE for each unsafe operation.

    The severity is MEDIUM for methods that change a list or a dictionary: they are harmless, but every sandbox blocks
    them. Raises ContentError for a template that Jinja cannot parse, or of more than 256 KiB.
    """
    if len(source) > MAX_TEMPLATE:
        raise ContentError(f"Template has {len(source):,} characters; the limit is {MAX_TEMPLATE:,}")
    findings: dict[Finding, None] = {}
    try:
        flow = TextFlow(_ENVIRONMENT.parse(source))
        for node in flow.nodes:
            if operation := _find_unsafe_operation(node, flow):
                severity, predicate = operation
                detail = f"Template {predicate} (line {node.lineno})"
                findings[Finding(FindingKind.UNSAFE_TEMPLATE, severity, detail)] = None
    except TemplateSyntaxError as error:
        raise ContentError(
            f"Jinja cannot parse the template: {_shorten(error.message)} (line {error.lineno})"
        ) from None
    except (ValueError, RecursionError, AssertionError):
        raise ContentError("Jinja cannot parse the template") from None
    return limit_findings(findings, _MAX_FINDINGS) or (_PLAIN,)


def inspect_template_file(read: ReadRange, size: int) -> ContentReport:
    """Inspect a `.jinja` file."""
    if size > MAX_TEMPLATE:
        return ContentReport("jinja", f"Template has {size:,} bytes; the limit is {MAX_TEMPLATE:,}")
    try:
        return ContentReport("jinja", findings=inspect_template(read(0, size).decode()))
    except UnicodeDecodeError:
        return ContentReport("jinja", "Template is not valid UTF-8")
    except ContentError as error:
        return ContentReport("jinja", str(error))


def _find_unsafe_operation(node: nodes.Node, flow: TextFlow) -> tuple[Severity, str] | None:
    """Return the severity and description of an unsafe operation, as the predicate of a sentence."""
    match node:
        case nodes.Include() | nodes.Import() | nodes.FromImport() | nodes.Extends():
            return Severity.HIGH, "reads another template"
        case nodes.Name(ctx="load", name="lipsum" | "self"):
            return Severity.HIGH, f"uses `{node.name}`"
        case nodes.Getattr():
            detail = _check_attribute(node.node, nodes.Const(node.attr), flow)
        case nodes.Getitem():
            detail = _check_attribute(node.node, node.arg, flow)
        case nodes.Filter():
            detail = _check_filter(node, flow)
        case nodes.Call() if (name := _find_method(node)) in _MUTATORS:
            return Severity.MEDIUM, f"calls `{name}`, which the sandbox of transformers blocks"
        case _:
            return None
    return (Severity.HIGH, detail) if detail else None


def _check_attribute(receiver: nodes.Node | None, key: nodes.Node, flow: TextFlow) -> str | None:
    """Check `receiver.key` or `receiver[key]`."""
    if not isinstance(key, nodes.Const):
        is_computed = flow.trace(key) is Origin.COMPUTED
        return "accesses an attribute or a key with a computed name" if is_computed else None
    name = key.value
    if not isinstance(name, str):
        return None
    if is_unsafe_name(name):
        return f"accesses the internal attribute {_shorten(name)}"
    if isinstance(receiver, nodes.Name) and receiver.name in _FACTORIES:
        return f"accesses an attribute of `{receiver.name}`"
    # Data of the conversation may have a field of that name: JSON schemas have `format`.
    if name in _FORMATS and flow.trace(receiver) is not Origin.DATA and not _is_plain_format(receiver):
        return f"calls `{name}` on a computed string, or on a format string that accesses attributes"
    return None


def _is_plain_format(receiver: nodes.Node | None) -> bool:
    """Return whether a literal's replacement fields access no internal attributes: `'{:,}'`, not `'{0.__class__}'`."""
    match receiver:
        case nodes.Const(value=str(text)):
            return _UNSAFE_FIELD.search(text) is None
    return False


def _check_filter(node: nodes.Filter, flow: TextFlow) -> str | None:
    if node.name == "attr" and node.args:
        return _check_attribute(node.node, node.args[0], flow)
    if node.name not in _LOOKUPS:
        return None
    values = [*node.args, *(keyword.value for keyword in node.kwargs), node.dyn_args, node.dyn_kwargs]
    if any(flow.trace(value) is Origin.COMPUTED for value in values):
        return f"passes an internal attribute or a computed name to the filter `{node.name}`"
    return None


def _find_method(node: nodes.Call) -> str | None:
    match node.node:
        case nodes.Getattr(attr=str(name)) | nodes.Getitem(arg=nodes.Const(value=str(name))):
            return name
        case nodes.Filter(name="attr", args=[nodes.Const(value=str(name))]):
            return name
    return None


def _shorten(text: str | None) -> str:
    return ascii((text or "")[:80])
