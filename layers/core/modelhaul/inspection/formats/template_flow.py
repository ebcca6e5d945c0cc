"""Where the texts of a Jinja template come from, as far as it takes to know what a key or an attribute's name can be.

A name that a template writes out is judged as it stands. One that the template computes from texts of its own
(`'_' * 2 ~ 'class'`) can be any name. What comes from the conversation is its user's, not the template's author's.
The analysis does not depend on the order of statements: a variable has the worst origin of all that is assigned to it.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum

from jinja2 import nodes

from modelhaul.inspection.windows import ContentError

_MAX_NODES = 200_000  # of a template
_MAX_PASSES = 20  # over all assignments; a template needs as many as its longest chain of variables
_MAX_MACROS = 20  # of one name
_MAX_BINDINGS = 300_000  # of values to variables, in all passes
# Attributes of Python's internals, as jinja2.sandbox.is_internal_attribute has them, and Python 2's.
_INTERNAL = re.compile(r"_|mro\Z|(?:gi|cr|ag)_|(?:func|im)_\w+\Z")
_INTERNAL_PREFIX = re.compile(r"_|(?:m|mr|mro|g|gi|c|cr|a|ag|f|fu|fun|func|i|im)\Z|(?:gi|cr|ag|func|im)_")
_PARTS = re.compile(r"[.,\s]+")
_TOO_MANY = "a template whose variables are too many to follow"
_NAMESPACE = "namespace"
_ANY = "*"
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
    DATA = 0  # numbers, and what the conversation brings
    LITERAL = 1  # texts as the template writes them, none of them an internal name
    COMPUTED = 2  # any text


def is_unsafe_name(text: str) -> bool:
    """Whether it, or a part of it between dots, is an attribute that a sandbox must not give."""
    return any(_INTERNAL.match(part) for part in _PARTS.split(text))


class TextFlow:
    """`nodes` are all nodes of the template. Raises ContentError for a template that is too large to analyse."""

    def __init__(self, template: nodes.Template) -> None:
        self.nodes = list(_walk(template))
        self._names: dict[str, Origin] = {}
        self._fields: dict[str, Origin] = {}
        self._bindings = 0
        self._macros: defaultdict[str, list[nodes.Macro]] = defaultdict(list)
        for node in self.nodes:
            if isinstance(node, nodes.Macro):
                self._macros[node.name].append(node)
                if len(self._macros[node.name]) > _MAX_MACROS:
                    raise ContentError(f"a template with more than {_MAX_MACROS} macros of one name")
        self._bound = set(self._macros) | {
            node.name for node in self.nodes if isinstance(node, nodes.Name) and node.ctx != "load"
        }
        self._holders = self._find_holders()
        self._spoil_macros()
        for _ in range(_MAX_PASSES):
            before = (dict(self._names), dict(self._fields))
            for node in self.nodes:
                self._assign(node)
            if before == (self._names, self._fields):
                return
        raise ContentError(_TOO_MANY)

    def trace(self, node: nodes.Node | None) -> Origin:
        """Where the texts of an expression come from."""
        match node:
            case nodes.Const(value=str(text)):
                origin = _judge_text(text)
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
            case nodes.Add(left=left, right=right) if _is_number(left) or _is_number(right):
                return Origin.DATA
            case nodes.Add() | nodes.Concat() if _begins_safely(node):
                return Origin.LITERAL
            case nodes.Concat():
                # It makes texts of anything, as of a namespace, whose fields are the template's.
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
        """Of a field of a namespace, known by its name alone; DATA where there can be no namespace."""
        if not self._may_hold(node.node):
            return Origin.DATA
        key = nodes.Const(node.attr) if isinstance(node, nodes.Getattr) else node.arg
        match key:
            case nodes.Const(value=str(name)):
                return max(self._fields.get(name, Origin.DATA), self._fields.get("*", Origin.DATA))
            case nodes.Const():
                return Origin.DATA
        return max(self._fields.values(), default=Origin.DATA)

    def _trace_call(self, node: nodes.Call) -> Origin:
        given = self._trace_all(_list_arguments(node))
        match node.node:
            case nodes.Name(name="range" | "namespace" as name) if name not in self._bound:
                return Origin.DATA
            case nodes.Name(name="dict" | "cycler" as name) if name not in self._bound:
                return given
            case nodes.Name(name=name) if name in self._macros:
                return Origin.COMPUTED
            case nodes.Getattr():
                return self._trace_method(node, node.node, given)
        return _derive(max(given, self.trace(node.node)))

    def _trace_method(self, call: nodes.Call, method: nodes.Getattr, given: Origin) -> Origin:
        receiver = self.trace(method.node)
        if method.attr == "get":
            return max(receiver, self._trace_all(_list_arguments(call)[1:]))
        if method.attr in _ITEM_METHODS:
            return receiver
        return _derive(receiver if method.attr in _PIECE_METHODS else max(receiver, given))

    def _trace_filter(self, node: nodes.Filter) -> Origin:
        received = self.trace(node.node)
        if node.name in _NUMBER_FILTERS:
            return Origin.DATA
        if node.name in _ITEM_FILTERS:
            return received
        worst = max(received, self._trace_all(_list_arguments(node)))
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
        """What a call gives to the parameters of the macros of that name, or to a namespace."""
        name = call.node.name if isinstance(call.node, nodes.Name) else None
        if name == "namespace":
            for keyword in call.kwargs:
                self._raise_field(keyword.key, self.trace(keyword.value))
            others = [*call.args, call.dyn_args, call.dyn_kwargs]
            self._raise_field("*", self._trace_all(others))
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
            for one, part in zip(target.items, value.items, strict=True):
                self._bind(one, part)
            return
        self._bind_origin(target, self.trace(value))

    def _bind_origins(self, targets: list[nodes.Name], origin: Origin) -> None:
        for target in targets:
            self._bind_origin(target, origin)

    def _bind_origin(self, target: nodes.Node, origin: Origin) -> None:
        self._bindings += 1
        if self._bindings > _MAX_BINDINGS:
            raise ContentError(_TOO_MANY)
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

    def _find_holders(self) -> set[str]:
        """Variables that can hold a namespace, or something with one in it."""
        holders = {_NAMESPACE}
        for _ in range(_MAX_PASSES):
            found = {name for node in self.nodes for name in self._list_holders(node, holders)}
            if found <= holders:
                return holders
            holders |= found
        raise ContentError(_TOO_MANY)

    def _list_holders(self, node: nodes.Node, holders: set[str]) -> Iterator[str]:
        targets: Sequence[nodes.Node]
        values: Sequence[nodes.Node]
        match node:
            case nodes.Assign(target=target, node=value):
                targets, values = [target], [value]
            case nodes.For(target=target, iter=value):
                targets, values = [target, nodes.Name("loop", "store")], [value]
            case nodes.With():
                targets, values = node.targets, node.values
            case nodes.Call(node=nodes.Name(name=name)) if name in self._macros:
                targets = [argument for macro in self._macros[name] for argument in macro.args]
                values = [value for value in _list_arguments(node) if value is not None]
            case nodes.Macro():
                targets, values = node.args, node.defaults
            case nodes.Call() | nodes.Literal():
                # Out of a list, a dictionary or a namespace, whatever is taken can be the namespace in it.
                targets, values = [nodes.NSRef("", "")], list(node.iter_child_nodes())[isinstance(node, nodes.Call) :]
            case _:
                return
        if any(_mentions(value, holders) for value in values):
            for target in targets:
                yield from (_ANY if isinstance(part, nodes.NSRef) else part.name for part in _list_targets(target))

    def _may_hold(self, node: nodes.Node) -> bool:
        return _mentions(node, self._holders)

    def _spoil_macros(self) -> None:
        """Let the parameters be any text of macros that are not only called by their names, and of callers."""
        called = {id(node.node) for node in self.nodes if isinstance(node, nodes.Call)}
        for node in self.nodes:
            if isinstance(node, nodes.CallBlock):
                self._bind_origins(node.args, Origin.COMPUTED)
            elif isinstance(node, nodes.Name) and node.ctx == "load" and id(node) not in called:
                for macro in self._macros.get(node.name, ()):
                    self._bind_origins(macro.args, Origin.COMPUTED)


def _walk(template: nodes.Template) -> Iterator[nodes.Node]:
    left: list[nodes.Node] = [template]
    for _ in range(_MAX_NODES):
        if not left:
            return
        node = left.pop()
        yield node
        left += reversed(list(node.iter_child_nodes()))
    raise ContentError(f"a template of more than {_MAX_NODES:,} parts")


def _mentions(node: nodes.Node, holders: set[str]) -> bool:
    """Whether the value of an expression can be a namespace or hold one, by the variables in it."""
    left = [node]
    while left:
        part = left.pop()
        if isinstance(part, nodes.Name):
            if part.name in holders:
                return True
        elif isinstance(part, (nodes.Getattr, nodes.Getitem)):
            # A field of a namespace holds none, unless one was put into any.
            is_field = isinstance(part.node, nodes.Name) and part.node.name in holders
            if not is_field or _ANY in holders:
                left.append(part.node)
        elif not isinstance(part, (nodes.Const, nodes.Compare, nodes.Test)):
            left += part.iter_child_nodes()
    return False


def _list_targets(target: nodes.Node) -> list[nodes.Name | nodes.NSRef]:
    if isinstance(target, (nodes.Name, nodes.NSRef)):
        return [target]
    return [part for item in target.iter_child_nodes() for part in _list_targets(item)]


def _list_arguments(node: nodes.Call | nodes.Filter) -> list[nodes.Node | None]:
    values: list[nodes.Node | None] = [*node.args, *(keyword.value for keyword in node.kwargs)]
    # The names of keyword arguments are texts as well: `dict(__class__=1) | first`.
    names = [nodes.Const(keyword.key) for keyword in node.kwargs]
    return [*values, node.dyn_args, node.dyn_kwargs, *names]


def _judge_text(text: str) -> Origin:
    return Origin.COMPUTED if is_unsafe_name(text) else Origin.LITERAL


def _derive(origin: Origin) -> Origin:
    """Of a text that is made from texts of this origin."""
    return Origin.COMPUTED if origin else Origin.DATA


def _is_number(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Const) and isinstance(node.value, (int, float))


def _begins_safely(node: nodes.Add | nodes.Concat) -> bool:
    """Whether a concatenation begins with a text that no internal name begins with."""
    first: nodes.Node = node
    while isinstance(first, (nodes.Add, nodes.Concat)):
        first = first.left if isinstance(first, nodes.Add) else first.nodes[0]
    if not isinstance(first, nodes.Const) or not isinstance(first.value, str):
        return False
    return bool(first.value) and _INTERNAL_PREFIX.match(first.value) is None
