"""The functions of the template, with their code, layers and environment as in Lambda."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.template.transformed import ROOT, Template

LAYERS = {"CoreLayer": "core", "SourcesLayer": "sources", "ScannerLayer": "scanner"}


# The sample event of a function that has several.
_EVENTS = {
    "read_catalog": "read_task",
    "read_audit": "list_entries",
    "manage_keys": "create_key",
    "manage_follows": "create_follow",
    "manage_pins": "pin_model",
}


@dataclass(frozen=True)
class Function:
    """`folders`: the import path as in Lambda, with the function's code before its layers."""

    name: str
    folders: Sequence[Path]
    environment: Mapping[str, str]

    @property
    def event(self) -> Path:
        return ROOT / "events" / f"{_EVENTS.get(self.name, self.name)}.json"

    @property
    def answers_requests(self) -> bool:
        return "httpMethod" in json.loads(self.event.read_text())


def list_functions(template: Template, layers: Mapping[str, Path], folder: Path, endpoint: str) -> Iterator[Function]:
    """Return all functions of the template. `endpoint` replaces the URLs of AWS and of all sources."""
    shared = template["Globals"]["Function"]
    for resource in template["Resources"].values():
        if resource["Type"] != "AWS::Serverless::Function":
            continue
        properties = resource["Properties"]
        name = Path(properties["CodeUri"]).name
        # Code is shipped without compiled files.
        code = Path(shutil.copytree(ROOT / "functions" / name, folder / name, ignore=shutil.ignore_patterns("__py*")))
        variables = {**shared["Environment"]["Variables"], **properties.get("Environment", {}).get("Variables", {})}
        settings = {key: _resolve(template, value, endpoint) for key, value in variables.items()}
        settings["LOCAL_MODE"] = "true"
        names = [layer["Ref"] for layer in (*shared["Layers"], *properties.get("Layers", []))]
        yield Function(name, [code, *(layers[layer] for layer in names)], settings)


def _resolve(template: Template, value: Any, endpoint: str) -> str:
    match value:
        case str():
            return value
        case {"Fn::If": [_, chosen, _]}:
            return _resolve(template, chosen, endpoint)
        case {"Fn::Sub": _}:
            return endpoint
        case {"Fn::GetAtt": _}:
            return "arn:aws:kms:eu-west-1:123456789012:key/1a2b3c4d"
    name = value["Ref"]
    if name.endswith("Queue"):
        return f"{endpoint}/123456789012/{name}"
    default = str(template["Parameters"].get(name, {}).get("Default", name or "name"))
    return endpoint if default.startswith("https://") else default
