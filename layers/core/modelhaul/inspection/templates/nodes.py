"""Nodes of Jinja templates: traversal, and the names and arguments in them."""

import re
from collections.abc import Iterator

from jinja2 import nodes

from modelhaul.inspection.windows import ContentError

_MAX_NODES = 200_000  # of a template
# Attributes of Python's internals, as jinja2.sandbox.is_internal_attribute lists them, and those of Python 2.
_INTERNAL = re.compile(r"_|mro\Z|(?:gi|cr|ag)_|(?:func|im)_\w+\Z")
_INTERNAL_PREFIX = re.compile(r"_|(?:m|mr|mro|g|gi|c|cr|a|ag|f|fu|fun|func|i|im)\Z|(?:gi|cr|ag|func|im)_")
_PARTS = re.compile(r"[.,\s]+")


def is_unsafe_name(text: str) -> bool:
    """Return whether the string, or a part between its dots, is an attribute that a sandbox must block."""
    return any(_INTERNAL.match(part) for part in _PARTS.split(text))


def walk_template(template: nodes.Template) -> Iterator[nodes.Node]:
    """Yield all nodes of a template. Raises ContentError for more than 200,000."""
    pending: list[nodes.Node] = [template]
    for _ in range(_MAX_NODES):
        if not pending:
            return
        node = pending.pop()
        yield node
        pending += reversed(list(node.iter_child_nodes()))
    raise ContentError(f"Template has more than {_MAX_NODES:,} nodes")


def list_targets(target: nodes.Node) -> list[nodes.Name | nodes.NSRef]:
    """Return the variables and fields of namespaces that an assignment target consists of."""
    if isinstance(target, (nodes.Name, nodes.NSRef)):
        return [target]
    return [part for item in target.iter_child_nodes() for part in list_targets(item)]


def list_arguments(node: nodes.Call | nodes.Filter) -> list[nodes.Node | None]:
    values: list[nodes.Node | None] = [*node.args, *(keyword.value for keyword in node.kwargs)]
    # The names of keyword arguments are strings as well: `dict(__class__=1) | first`.
    names = [nodes.Const(keyword.key) for keyword in node.kwargs]
    return [*values, node.dyn_args, node.dyn_kwargs, *names]


def is_number(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Const) and isinstance(node.value, (int, float))


def has_safe_prefix(node: nodes.Add | nodes.Concat) -> bool:
    """Return whether a concatenation begins with a string that is not the beginning of an internal name."""
    first: nodes.Node = node
    while isinstance(first, (nodes.Add, nodes.Concat)):
        first = first.left if isinstance(first, nodes.Add) else first.nodes[0]
    if not isinstance(first, nodes.Const) or not isinstance(first.value, str):
        return False
    return bool(first.value) and _INTERNAL_PREFIX.match(first.value) is None
