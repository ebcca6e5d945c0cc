"""Flow of strings through the variables of a Jinja template.

The analysis does not depend on the order of statements: a variable has the worst origin of its values.
"""

from collections import defaultdict

from jinja2 import nodes

from modelhaul.inspection.templates.namespaces import MAX_PASSES, TOO_COMPLEX
from modelhaul.inspection.templates.nodes import walk_template
from modelhaul.inspection.templates.origins import ANY_FIELD, KnownOrigins, Origin
from modelhaul.inspection.windows import ContentError

_MAX_MACROS = 20  # with the same name
_MAX_BINDINGS = 300_000  # of values to variables, in all passes


class TextFlow:
    """The origins of a template's variables. `nodes` are all nodes of the template.

    Raises ContentError for a template that is too large to analyze.
    """

    def __init__(self, template: nodes.Template) -> None:
        self.nodes = list(walk_template(template))
        self._bindings = 0
        self._macros: defaultdict[str, list[nodes.Macro]] = defaultdict(list)
        for node in self.nodes:
            if isinstance(node, nodes.Macro):
                self._macros[node.name].append(node)
                if len(self._macros[node.name]) > _MAX_MACROS:
                    raise ContentError(f"Template has more than {_MAX_MACROS} macros with the same name")
        self._origins = KnownOrigins(self.nodes, self._macros)
        self._taint_macros()
        for _ in range(MAX_PASSES):
            before = self._origins.copy()
            for node in self.nodes:
                self._assign(node)
            if before == self._origins.copy():
                return
        raise ContentError(TOO_COMPLEX)

    def trace(self, node: nodes.Node | None) -> Origin:
        """Return the origin of the strings of an expression."""
        return self._origins.trace(node)

    def _assign(self, node: nodes.Node) -> None:
        match node:
            case nodes.Assign():
                self._bind(node.target, node.node)
            case nodes.AssignBlock():
                self._bind_origin(node.target, Origin.COMPUTED)
            case nodes.For():
                self._bind(node.target, node.iter)
                self._origins.raise_name("loop", self._origins.trace(node.iter))
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
                self._origins.raise_field(keyword.key, self._origins.trace(keyword.value))
            others = [*call.args, call.dyn_args, call.dyn_kwargs]
            self._origins.raise_field(ANY_FIELD, self._origins.trace_all(others))
        for macro in self._macros.get(name or "", ()):
            self._bind_arguments(macro, call)

    def _bind_arguments(self, macro: nodes.Macro, call: nodes.Call) -> None:
        for parameter, value in zip(macro.args, call.args, strict=False):
            self._bind(parameter, value)
        named = {parameter.name: parameter for parameter in macro.args}
        for keyword in call.kwargs:
            if keyword.key in named:
                self._bind(named[keyword.key], keyword.value)
        spread = max(self._origins.trace(call.dyn_args), self._origins.trace(call.dyn_kwargs))
        self._bind_origins(macro.args, spread)

    def _bind(self, target: nodes.Node, value: nodes.Node) -> None:
        if isinstance(target, nodes.Tuple) and isinstance(value, nodes.Tuple) and len(target.items) == len(value.items):
            for part_target, part in zip(target.items, value.items, strict=True):
                self._bind(part_target, part)
            return
        self._bind_origin(target, self._origins.trace(value))

    def _bind_origins(self, targets: list[nodes.Name], origin: Origin) -> None:
        for target in targets:
            self._bind_origin(target, origin)

    def _bind_origin(self, target: nodes.Node, origin: Origin) -> None:
        self._bindings += 1
        if self._bindings > _MAX_BINDINGS:
            raise ContentError(TOO_COMPLEX)
        match target:
            case nodes.Name():
                self._origins.raise_name(target.name, origin)
            case nodes.NSRef():
                self._origins.raise_field(target.attr, origin)
            case _:
                for part in target.iter_child_nodes():
                    self._bind_origin(part, origin)

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
