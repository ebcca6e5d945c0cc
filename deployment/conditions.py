"""Conditions of a transformed template, resolved for the values of its parameters."""

from typing import Any

type Template = dict[str, Any]
"""A CloudFormation template, intrinsic functions in their long form (`{"Ref": ...}`)."""

NO_VALUE = {"Ref": "AWS::NoValue"}


def apply_parameters(template: Template, **parameters: str) -> Template:
    """Return a transformed template with its conditions resolved for these parameters, the others at their defaults."""
    defaults = {name: parameter.get("Default") for name, parameter in template["Parameters"].items()}
    values = {"AWS::Region": "eu-central-1", **defaults, **parameters}
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
        case {"Fn::Or": inner}:
            return any(_holds(one, conditions, values) for one in inner)
        case {"Condition": name}:
            return _holds(conditions[name], conditions, values)
    raise ValueError(f"not a condition: {test}")
