"""The template as CloudFormation sees it, after the SAM transform, worked out without a network."""

import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

from cfnlint.decode import cfn_yaml  # type: ignore[import-untyped]
from samtranslator.translator.transform import transform  # type: ignore[import-untyped]

type Template = dict[str, Any]
"""A CloudFormation template, intrinsic functions in their long form (`{"Ref": ...}`)."""

ROOT = Path(__file__).resolve().parents[2]

CODE_BUCKET = "local"
NO_VALUE = {"Ref": "AWS::NoValue"}


class _NoManagedPolicies:
    """Roles are written out in the template, so that the transform needs the name of no managed policy."""

    def load(self) -> dict[str, str]:
        return {}


def read_template(path: Path = ROOT / "template.yaml") -> Template:
    """The template as written."""
    template: Template = json.loads(json.dumps(cfn_yaml.load(str(path))))
    return template


def transform_template(template: Template) -> Template:
    """Expands the SAM resources. A folder of code becomes the key of an object in `CODE_BUCKET`."""
    source: Template = json.loads(json.dumps(template))
    for resource in source["Resources"].values():
        properties = resource.get("Properties", {})
        for name in ("CodeUri", "ContentUri"):
            if name in properties:
                properties[name] = f"s3://{CODE_BUCKET}/{properties[name]}"
    with patch.dict("os.environ", AWS_DEFAULT_REGION="us-east-1"):
        transformed: Template = transform(source, {}, _NoManagedPolicies())
    return transformed


def apply_parameters(template: Template, **parameters: str) -> Template:
    """What CloudFormation makes of a transformed template's conditions with these parameters, the others' defaults."""
    values = {name: parameter.get("Default") for name, parameter in template["Parameters"].items()} | parameters
    conditions = template["Conditions"]

    def choose(value: Any) -> Any:
        match value:
            case {"Fn::If": [name, yes, no]}:
                return choose(yes if _holds(conditions[name], conditions, values) else no)
            case dict():
                chosen = {key: choose(one) for key, one in value.items()}
                return {key: one for key, one in chosen.items() if one != NO_VALUE}
            case list():
                return [one for one in map(choose, value) if one != NO_VALUE]
        return value

    kept = {
        name: resource
        for name, resource in template["Resources"].items()
        if "Condition" not in resource or _holds(conditions[resource["Condition"]], conditions, values)
    }
    return {**template, "Resources": choose(kept)}


def _read_value(value: Any, parameters: dict[str, Any]) -> Any:
    return parameters[value["Ref"]] if isinstance(value, dict) else value


def _holds(test: Any, conditions: dict[str, Any], values: dict[str, Any]) -> bool:
    match test:
        case {"Fn::Equals": [left, right]}:
            return str(_read_value(left, values)) == str(_read_value(right, values))
        case {"Fn::Not": [inner]}:
            return not _holds(inner, conditions, values)
        case {"Fn::And": inner}:
            return all(_holds(one, conditions, values) for one in inner)
        case {"Condition": name}:
            return _holds(conditions[name], conditions, values)
    raise ValueError(f"no condition: {test}")
