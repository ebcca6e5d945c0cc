"""Origins of the strings in an expression of a Jinja template, from the origins of its variables.

A literal name is checked as it is. A name that the template computes from its own strings (`'_' * 2 ~ 'class'`) can be
any name. Strings of the conversation come from the user of the template, not from its author.
"""

from collections.abc import Iterable, Sequence
from enum import IntEnum

from jinja2 import nodes

from modelhaul.inspection.templates.namespaces import Macros, find_namespace_variables, may_hold_namespace
from modelhaul.inspection.templates.nodes import (
    has_safe_prefix,
    is_number,
    is_unsafe_name,
    list_arguments,
)

ANY_FIELD = "*"
_TEXT_SOURCES = {"kwargs", "lipsum", "self", "varargs"}
_LOOP_NUMBERS = {"depth", "depth0", "first", "index", "index0", "last", "length", "revindex", "revindex0"}
_NUMBER_FILTERS = {"abs", "count", "float", "int", "length", "round", "wordcount"}
_ITEM_FILTERS = {
    "attr", "batch", "dictsort", "first", "groupby", "items", "last", "list", "max", "min", "random", "reject",
    "rejectattr", "select", "selectattr", "slice", "sort", "unique",
}  # fmt: skip
_TEXT_FILTERS = {"capitalize", "join", "lower", "replace", "reverse", "sum", "title", "trim", "truncate", "upper"}
_ITEM_METHODS = {"copy", "items", "keys", "values"}
_PIECE_METHODS = {
    "capitalize", "lower", "lstrip", "partition", "removeprefix", "removesuffix", "rpartition", "rsplit", "rstrip",
    "split", "splitlines", "strip", "title", "upper",
}  # fmt: skip


class Origin(IntEnum):
    DATA = 0  # numbers, and strings of the conversation
    LITERAL = 1  # literal strings of the template that are not internal names
    COMPUTED = 2  # any string


class KnownOrigins:
    """The origins of a template's variables and of the fields of its namespaces, as far as they are known.

    A variable or field has the worst origin of its values, and DATA if no value is known.
    """

    def __init__(self, template_nodes: Sequence[nodes.Node], macros: Macros) -> None:
        self._names: dict[str, Origin] = {}
        self._fields: dict[str, Origin] = {}
        self._macros = macros
        self._bound = set(macros) | {
            node.name for node in template_nodes if isinstance(node, nodes.Name) and node.ctx != "load"
        }
        self._namespaces = find_namespace_variables(template_nodes, macros)

    def copy(self) -> tuple[dict[str, Origin], dict[str, Origin]]:
        """Return the origins of the variables and of the fields."""
        return dict(self._names), dict(self._fields)

    def raise_name(self, name: str, origin: Origin) -> None:
        """Record a value of a variable."""
        self._names[name] = max(origin, self._names.get(name, Origin.DATA))

    def raise_field(self, name: str, origin: Origin) -> None:
        """Record a value of a field of a namespace. `name` is ANY_FIELD if the field is unknown."""
        self._fields[name] = max(origin, self._fields.get(name, Origin.DATA))

    def trace(self, node: nodes.Node | None) -> Origin:
        """Return the origin of the strings of an expression."""
        match node:
            case nodes.Const(value=str(text)):
                origin = Origin.COMPUTED if is_unsafe_name(text) else Origin.LITERAL
            case nodes.Name(name=name):
                origin = Origin.COMPUTED if name in _TEXT_SOURCES else self._names.get(name, Origin.DATA)
            case nodes.Getattr() | nodes.Getitem():
                origin = self._trace_item(node)
            case nodes.Call():
                origin = self._trace_call(node)
            case nodes.Filter():
                origin = self._trace_filter(node)
            case None | nodes.Const() | nodes.Compare() | nodes.Test() | nodes.UnaryExpr():
                origin = Origin.DATA
            case _:
                origin = self._trace_operation(node)
        return origin

    def _trace_operation(self, node: nodes.Node) -> Origin:
        worst = self.trace_all(node.iter_child_nodes())
        match node:
            case nodes.Sub() | nodes.Div() | nodes.FloorDiv() | nodes.Pow():
                return Origin.DATA
            case nodes.Add(left=left, right=right) if is_number(left) or is_number(right):
                return Origin.DATA
            case nodes.Add() | nodes.Concat() if has_safe_prefix(node):
                return Origin.LITERAL
            case nodes.Concat():
                # `~` converts any value to a string, also a namespace, whose fields come from the template.
                return max(_derive(worst), Origin.LITERAL)
            case nodes.Add() | nodes.Mod() | nodes.Mul():
                return _derive(worst)
        return worst

    def trace_all(self, parts: Iterable[nodes.Node | None]) -> Origin:
        """Return the worst origin of the expressions."""
        return max(map(self.trace, parts), default=Origin.DATA)

    def _trace_item(self, node: nodes.Getattr | nodes.Getitem) -> Origin:
        if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
            return _derive(self.trace(node.node))
        is_loop = isinstance(node.node, nodes.Name) and node.node.name == "loop" and "loop" not in self._bound
        if is_loop and isinstance(node, nodes.Getattr) and node.attr in _LOOP_NUMBERS:
            return Origin.DATA
        return max(self._trace_field(node), self.trace(node.node))

    def _trace_field(self, node: nodes.Getattr | nodes.Getitem) -> Origin:
        """Return the origin of a field of a namespace, by its name; DATA if the value cannot be a namespace."""
        if not may_hold_namespace(node.node, self._namespaces):
            return Origin.DATA
        key = nodes.Const(node.attr) if isinstance(node, nodes.Getattr) else node.arg
        match key:
            case nodes.Const(value=str(name)):
                return max(self._fields.get(name, Origin.DATA), self._fields.get(ANY_FIELD, Origin.DATA))
            case nodes.Const():
                return Origin.DATA
        return max(self._fields.values(), default=Origin.DATA)

    def _trace_call(self, node: nodes.Call) -> Origin:
        arguments = self.trace_all(list_arguments(node))
        match node.node:
            case nodes.Name(name="range" | "namespace" as name) if name not in self._bound:
                return Origin.DATA
            case nodes.Name(name="dict" | "cycler" as name) if name not in self._bound:
                return arguments
            case nodes.Name(name=name) if name in self._macros:
                return Origin.COMPUTED
            case nodes.Getattr():
                return self._trace_method(node, node.node, arguments)
        return _derive(max(arguments, self.trace(node.node)))

    def _trace_method(self, call: nodes.Call, method: nodes.Getattr, arguments: Origin) -> Origin:
        receiver = self.trace(method.node)
        if method.attr == "get":
            return max(receiver, self.trace_all(list_arguments(call)[1:]))
        if method.attr in _ITEM_METHODS:
            return receiver
        return _derive(receiver if method.attr in _PIECE_METHODS else max(receiver, arguments))

    def _trace_filter(self, node: nodes.Filter) -> Origin:
        receiver = self.trace(node.node)
        if node.name in _NUMBER_FILTERS:
            return Origin.DATA
        if node.name in _ITEM_FILTERS:
            return receiver
        worst = max(receiver, self.trace_all(list_arguments(node)))
        if node.name in {"default", "d"} or (node.name == "map" and not node.args):
            return worst
        return max(_derive(worst), Origin.LITERAL) if node.name in _TEXT_FILTERS else Origin.COMPUTED


def _derive(origin: Origin) -> Origin:
    """Return the origin of a string that is built from strings of `origin`."""
    return Origin.COMPUTED if origin else Origin.DATA
