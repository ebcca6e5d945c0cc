"""The dashboard of the transformed template, with the metrics of its widgets."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.template.rules import list_resources
from tests.template.transformed import Template, read_transformed

STACK = "the-stack"
PSEUDO_PARAMETERS = {
    "AWS::StackName": STACK,
    "AWS::Region": "eu-west-1",
    "AWS::Partition": "aws",
    "AWS::AccountId": "123456789012",
}


@dataclass(frozen=True)
class Watched:
    """A metric of a widget or an alarm (`place`)."""

    place: str
    namespace: str
    name: str
    dimensions: tuple[tuple[str, str], ...]

    @property
    def dimension_names(self) -> set[str]:
        return {name for name, _ in self.dimensions}


def substitute(text: str, template: Template) -> str:
    """Apply Fn::Sub, with logical names instead of values that only a deployment has."""

    def replace(found: re.Match[str]) -> str:
        name = found[1]
        if name.startswith("!"):
            return f"${{{name[1:]}}}"
        if name.startswith("AWS::"):
            return PSEUDO_PARAMETERS[name]
        assert name.partition(".")[0] in read_transformed()["Resources"] or name in template["Parameters"], name
        return name

    return re.sub(r"\$\{([^}]+)\}", replace, text)


def read_dashboard(template: Template) -> dict[str, Any]:
    ((_, dashboard),) = list_resources(template, "AWS::CloudWatch::Dashboard")
    body: dict[str, Any] = json.loads(join(dashboard["DashboardBody"], template))
    return body


def join(value: Any, template: Template) -> str:
    """Apply Fn::Join and Fn::Sub."""
    match value:
        case {"Fn::Join": [str(separator), [*parts]]}:
            return separator.join(join(part, template) for part in parts)
        case {"Fn::Sub": str(text)}:
            return substitute(text, template)
        case str():
            return value
    raise ValueError(f"unsupported: {value}")


def find_widget(template: Template, title: str) -> dict[str, Any]:
    widgets: list[dict[str, Any]] = read_dashboard(template)["widgets"]
    (widget,) = (w for w in widgets if w["properties"].get("title") == title)
    return widget


def list_widget_metrics(template: Template) -> Iterator[Watched]:
    for widget in read_dashboard(template)["widgets"]:
        for row in widget["properties"].get("metrics", []):
            title = widget["properties"]["title"]
            options = row[-1] if isinstance(row[-1], dict) else {}
            if "expression" in options:
                # The number of metrics that a search finds is unknown.
                assert "SEARCH" not in options["expression"], title
                continue
            namespace, name, *pairs = [part for part in row if isinstance(part, str)]
            yield Watched(title, namespace, name, tuple(zip(pairs[::2], pairs[1::2], strict=True)))
