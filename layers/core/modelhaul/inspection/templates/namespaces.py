"""Variables of a Jinja template that can hold a namespace, or a value that contains a namespace.

The analysis does not know which namespace a variable holds. An attribute of such a variable can be the field of that
name in any namespace.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence

from jinja2 import nodes

from modelhaul.inspection.templates.nodes import list_arguments, list_targets
from modelhaul.inspection.windows import ContentError

type Macros = Mapping[str, Sequence[nodes.Macro]]

MAX_PASSES = 20  # over all assignments; a template needs one pass for each variable of its longest chain
TOO_COMPLEX = "Template has too many variables to analyze"
_NAMESPACE = "namespace"
_ANY_FIELD = "*"


def find_namespace_variables(template_nodes: Sequence[nodes.Node], macros: Macros) -> set[str]:
    """Return the names of the variables. Raises ContentError for a template that is too complex."""
    found = {_NAMESPACE}
    for _ in range(MAX_PASSES):
        more = {name for node in template_nodes for name in _list_receivers(node, found, macros)}
        if more <= found:
            return found
        found |= more
    raise ContentError(TOO_COMPLEX)


def may_hold_namespace(node: nodes.Node, variables: Collection[str]) -> bool:
    """Return whether the value of an expression can be or contain a namespace, judged by the variables in it."""
    pending = [node]
    while pending:
        part = pending.pop()
        if isinstance(part, nodes.Name):
            if part.name in variables:
                return True
        elif isinstance(part, (nodes.Getattr, nodes.Getitem)):
            # A field of a namespace contains no namespace, unless the template stores one in a field.
            is_field = isinstance(part.node, nodes.Name) and part.node.name in variables
            if not is_field or _ANY_FIELD in variables:
                pending.append(part.node)
        elif not isinstance(part, (nodes.Const, nodes.Compare, nodes.Test)):
            pending += part.iter_child_nodes()
    return False


def _list_receivers(node: nodes.Node, variables: Collection[str], macros: Macros) -> Iterator[str]:
    """Yield the variables to which a node assigns a value that may hold a namespace."""
    targets: Sequence[nodes.Node]
    values: Sequence[nodes.Node]
    match node:
        case nodes.Assign(target=target, node=value):
            targets, values = [target], [value]
        case nodes.For(target=target, iter=value):
            targets, values = [target, nodes.Name("loop", "store")], [value]
        case nodes.With():
            targets, values = node.targets, node.values
        case nodes.Call(node=nodes.Name(name=name)) if name in macros:
            targets = [argument for macro in macros[name] for argument in macro.args]
            values = [value for value in list_arguments(node) if value is not None]
        case nodes.Macro():
            targets, values = node.args, node.defaults
        case nodes.Call() | nodes.Literal():
            # Any item of a list, a dictionary or a namespace can be the namespace that was stored in it.
            targets, values = [nodes.NSRef("", "")], list(node.iter_child_nodes())[isinstance(node, nodes.Call) :]
        case _:
            return
    if any(may_hold_namespace(value, variables) for value in values):
        for target in targets:
            yield from (_ANY_FIELD if isinstance(part, nodes.NSRef) else part.name for part in list_targets(target))
