"""The template as CloudFormation deploys it: includes expanded, SAM resources transformed, nested stacks in place.

No network is needed.
"""

import json
import re
from pathlib import Path
from typing import Any
from unittest.mock import patch

from cfnlint.decode import cfn_yaml  # type: ignore[import-untyped]
from samtranslator.translator.transform import transform  # type: ignore[import-untyped]

from deployment.conditions import Template

ROOT = Path(__file__).resolve().parents[1]

CODE_BUCKET = "local"
NESTED_STACK = "AWS::CloudFormation::Stack"
# A nested stack has its own values for these.
_OWN_PARAMETERS = {"AWS::StackName", "AWS::StackId"}


class _NoManagedPolicies:
    """The template writes out its roles, so the transform needs no names of managed policies."""

    def load(self) -> dict[str, str]:
        return {}


def read_template(path: Path = ROOT / "template.yaml") -> Template:
    """Return the template as written."""
    template: Template = json.loads(json.dumps(cfn_yaml.load(str(path))))
    return template


def transform_template(template: Template, root: Path = ROOT) -> Template:
    """Return what CloudFormation deploys, the resources of nested stacks among those of the main stack.

    Included files and nested templates are read below `root`.
    """
    return merge_nested_stacks(transform_main_template(template, root), root)


def transform_main_template(template: Template, root: Path = ROOT) -> Template:
    """Return the template after its transforms, with nested stacks as resources.

    The order is CloudFormation's: AWS::Include first, then AWS::Serverless. A folder of code becomes the key of an
    object in `CODE_BUCKET`.
    """
    source: Template = expand_includes(json.loads(json.dumps(template)), root)
    for resource in source["Resources"].values():
        properties = resource.get("Properties", {})
        for name in ("CodeUri", "ContentUri"):
            if name in properties:
                properties[name] = f"s3://{CODE_BUCKET}/{properties[name]}"
    with patch.dict("os.environ", AWS_DEFAULT_REGION="us-east-1"):
        transformed: Template = transform(source, {}, _NoManagedPolicies())
    return transformed


def expand_includes(value: Any, root: Path) -> Any:
    """Replace each AWS::Include by the content of its file. Raises ValueError for other transforms."""
    match value:
        case {"Fn::Transform": {"Name": "AWS::Include", "Parameters": {"Location": str(location)}}, **others}:
            if others:
                raise ValueError(f"{location} is included beside other keys: {list(others)}")
            return json.loads((root / location).read_text())
        case {"Fn::Transform": unknown}:
            raise ValueError(f"unsupported transform: {unknown}")
        case dict():
            return {key: expand_includes(item, root) for key, item in value.items()}
        case list():
            return [expand_includes(item, root) for item in value]
    return value


def merge_nested_stacks(template: Template, root: Path = ROOT) -> Template:
    """Replace each nested stack by its resources and conditions, its parameters by the values that it receives.

    Raises ValueError where the merged template would not mean the same: a parameter that is missing or unknown, a name
    that both templates define differently, or a reference to the name of the nested stack.
    """
    resources: dict[str, Any] = {}
    conditions = dict(template["Conditions"])
    for name, resource in template["Resources"].items():
        if resource["Type"] != NESTED_STACK:
            resources[name] = resource
            continue
        nested = read_template(root / resource["Properties"]["TemplateURL"])
        given = resource["Properties"].get("Parameters", {})
        if given.keys() != nested["Parameters"].keys():
            raise ValueError(f"{name}: parameters differ: {sorted(given.keys() ^ nested['Parameters'].keys())}")
        if not nested.keys() <= {"AWSTemplateFormatVersion", "Description", "Parameters", "Conditions", "Resources"}:
            raise ValueError(f"{name}: has sections that cannot be merged: {sorted(nested)}")
        if not resource.keys() <= {"Type", "Properties"}:
            raise ValueError(f"{name}: has attributes that its resources would need: {sorted(resource)}")
        for condition, test in nested["Conditions"].items():
            merged = _substitute(test, given)
            if not _is_same_condition(conditions.setdefault(condition, merged), merged, conditions):
                raise ValueError(f"{name}: the condition {condition} differs from that of the main template")
        for inner, content in nested["Resources"].items():
            if inner in template["Resources"] or inner in resources:
                raise ValueError(f"{name}: {inner} is also a resource of the main template")
            resources[inner] = _substitute(content, given)
    return {**template, "Conditions": conditions, "Resources": resources}


def _is_same_condition(one: Any, other: Any, conditions: dict[str, Any]) -> bool:
    """Return whether two conditions are equal after the conditions that they refer to are expanded."""
    return bool(expand_condition(one, conditions) == expand_condition(other, conditions))


def expand_condition(test: Any, conditions: dict[str, Any]) -> Any:
    """Return a condition with the conditions that it refers to in place of their names."""
    match test:
        case {"Condition": str(name)}:
            return expand_condition(conditions[name], conditions)
        case dict():
            return {key: expand_condition(item, conditions) for key, item in test.items()}
        case list():
            return [expand_condition(item, conditions) for item in test]
    return test


def _substitute(value: Any, given: dict[str, Any]) -> Any:
    """Return a value of a nested template with its parameters replaced by `given`."""
    match value:
        case {"Ref": str(name)}:
            _check_reference(name)
            return given.get(name, value)
        case {"Fn::Sub": str(text)}:
            return {"Fn::Sub": re.sub(r"\$\{([^!}][^}]*)\}", lambda found: _substitute_text(found[1], given), text)}
        case {"Fn::Sub": _}:
            raise ValueError(f"unsupported form of Fn::Sub: {value}")
        case dict():
            return {key: _substitute(item, given) for key, item in value.items()}
        case list():
            return [_substitute(item, given) for item in value]
    return value


def _substitute_text(name: str, given: dict[str, Any]) -> str:
    """A resource with a condition has another name without it, which the merged text does not contain."""
    _check_reference(name)
    match given.get(name, {"Ref": name}):
        case {"Fn::If": [_, {"Ref": str(target)}, str()]}:
            return f"${{{target}}}"
        case {"Ref": str(target)}:
            return f"${{{target}}}"
        case {"Fn::GetAtt": [str(target), str(attribute)]}:
            return f"${{{target}.{attribute}}}"
        case str(text):
            return text
        case other:
            raise ValueError(f"{name} cannot be written into a string: {other}")


def _check_reference(name: str) -> None:
    if name in _OWN_PARAMETERS:
        raise ValueError(f"{name} of a nested stack is not that of the main stack")
