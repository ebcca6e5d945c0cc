"""Origins of the strings in a Jinja template, which determine the possible names of a key or an attribute.

A literal name is checked as it is. A name that the template computes from its own strings (`'_' * 2 ~ 'class'`) can be
any name. Strings of the conversation come from the user of the template, not from its author.
The analysis does not depend on the order of statements: a variable has the worst origin of its values.
"""

from collections import defaultdict
from collections.abc import Iterable
from enum import IntEnum

from jinja2 import nodes

from modelhaul.inspection.formats.template_namespaces import (
    MAX_PASSES,
    TOO_COMPLEX,
    find_namespace_variables,
    may_hold_namespace,
)
from modelhaul.inspection.formats.template_nodes import (
    has_safe_prefix,
    is_number,
    is_unsafe_name,
    list_arguments,
    walk_template,
)
from modelhaul.inspection.windows import ContentError

_MAX_MACROS = 20  # with the same name
_MAX_BINDINGS = 300_000  # of values to variables, in all passes
_ANY_FIELD = "*"
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


class TextFlow:
    """The origins of a template's variables. `nodes` are all nodes of the template.

    Raises ContentError for a template that is too large to analyze.
    """

    def __init__(self, template: nodes.Template) -> None:
        self.nodes = list(walk_template(template))
        self._names: dict[str, Origin] = {}
        self._fields: dict[str, Origin] = {}  # of namespaces
        self._bindings = 0
        self._macros: defaultdict[str, list[nodes.Macro]] = defaultdict(list)
        for node in self.nodes:
            if isinstance(node, nodes.Macro):
                self._macros[node.name].append(node)
                if len(self._macros[node.name]) > _MAX_MACROS:
                    raise ContentError(f"Template has more than {_MAX_MACROS} macros with the same name")
        self._bound = set(self._macros) | {
            node.name for node in self.nodes if isinstance(node, nodes.Name) and node.ctx != "load"
        }
        self._namespaces = find_namespace_variables(self.nodes, self._macros)
        self._taint_macros()
        for _ in range(MAX_PASSES):
            before = (dict(self._names), dict(self._fields))
            for node in self.nodes:
                self._assign(node)
            if before == (self._names, self._fields):
                return
        raise ContentError(TOO_COMPLEX)

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
        worst = self._trace_all(node.iter_child_nodes())
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

    def _trace_all(self, parts: Iterable[nodes.Node | None]) -> Origin:
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
                return max(self._fields.get(name, Origin.DATA), self._fields.get(_ANY_FIELD, Origin.DATA))
            case nodes.Const():
                return Origin.DATA
        return max(self._fields.values(), default=Origin.DATA)

    def _trace_call(self, node: nodes.Call) -> Origin:
        arguments = self._trace_all(list_arguments(node))
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
            return max(receiver, self._trace_all(list_arguments(call)[1:]))
        if method.attr in _ITEM_METHODS:
            return receiver
        return _derive(receiver if method.attr in _PIECE_METHODS else max(receiver, arguments))

    def _trace_filter(self, node: nodes.Filter) -> Origin:
        receiver = self.trace(node.node)
        if node.name in _NUMBER_FILTERS:
            return Origin.DATA
        if node.name in _ITEM_FILTERS:
            return receiver
        worst = max(receiver, self._trace_all(list_arguments(node)))
        if node.name in {"default", "d"} or (node.name == "map" and not node.args):
            return worst
        return max(_derive(worst), Origin.LITERAL) if node.name in _TEXT_FILTERS else Origin.COMPUTED

    def _assign(self, node: nodes.Node) -> None:
        match node:
            case nodes.Assign():
                self._bind(node.target, node.node)
            case nodes.AssignBlock():
                self._bind_origin(node.target, Origin.COMPUTED)
            case nodes.For():
                self._bind(node.target, node.iter)
                self._raise_name("loop", self.trace(node.iter))
            case nodes.With():
                for target, value in zip(node.targets, node.values, strict=True):
                    self._bind(target, value)
            case nodes.Macro():
                for argument, default in zip(node.args[::-1], node.defaults[::-1], strict=False):
                    self._bind(argument, default)
            case nodes.Call():
                self._assign_arguments(node)

    def _assign_arguments(self, call: nodes.Call) -> None:
        """Bind the arguments of a call to the parameters of its macros, or to the fields of a namespace."""
        name = call.node.name if isinstance(call.node, nodes.Name) else None
        if name == "namespace":
            for keyword in call.kwargs:
                self._raise_field(keyword.key, self.trace(keyword.value))
            others = [*call.args, call.dyn_args, call.dyn_kwargs]
            self._raise_field(_ANY_FIELD, self._trace_all(others))
        for macro in self._macros.get(name or "", ()):
            self._bind_arguments(macro, call)

    def _bind_arguments(self, macro: nodes.Macro, call: nodes.Call) -> None:
        for parameter, value in zip(macro.args, call.args, strict=False):
            self._bind(parameter, value)
        named = {parameter.name: parameter for parameter in macro.args}
        for keyword in call.kwargs:
            if keyword.key in named:
                self._bind(named[keyword.key], keyword.value)
        spread = max(self.trace(call.dyn_args), self.trace(call.dyn_kwargs))
        self._bind_origins(macro.args, spread)

    def _bind(self, target: nodes.Node, value: nodes.Node) -> None:
        if isinstance(target, nodes.Tuple) and isinstance(value, nodes.Tuple) and len(target.items) == len(value.items):
            for part_target, part in zip(target.items, value.items, strict=True):
                self._bind(part_target, part)
            return
        self._bind_origin(target, self.trace(value))

    def _bind_origins(self, targets: list[nodes.Name], origin: Origin) -> None:
        for target in targets:
            self._bind_origin(target, origin)

    def _bind_origin(self, target: nodes.Node, origin: Origin) -> None:
        self._bindings += 1
        if self._bindings > _MAX_BINDINGS:
            raise ContentError(TOO_COMPLEX)
        match target:
            case nodes.Name():
                self._raise_name(target.name, origin)
            case nodes.NSRef():
                self._raise_field(target.attr, origin)
            case _:
                for part in target.iter_child_nodes():
                    self._bind_origin(part, origin)

    def _raise_name(self, name: str, origin: Origin) -> None:
        self._names[name] = max(origin, self._names.get(name, Origin.DATA))

    def _raise_field(self, name: str, origin: Origin) -> None:
        self._fields[name] = max(origin, self._fields.get(name, Origin.DATA))

    def _taint_macros(self) -> None:
        """Set the origin of macro parameters to COMPUTED if the values are unknown.

        These are the parameters of call blocks, and of macros that are used as a value instead of being called by name.
        """
        called = {id(node.node) for node in self.nodes if isinstance(node, nodes.Call)}
        for node in self.nodes:
            if isinstance(node, nodes.CallBlock):
                self._bind_origins(node.args, Origin.COMPUTED)
            elif isinstance(node, nodes.Name) and node.ctx == "load" and id(node) not in called:
                for macro in self._macros.get(node.name, ()):
                    self._bind_origins(macro.args, Origin.COMPUTED)


def _derive(origin: Origin) -> Origin:
    """Return the origin of a string that is built from strings of `origin`."""
    return Origin.COMPUTED if origin else Origin.DATA
