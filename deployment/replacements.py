"""Compare two versions of the template: what an update would do to the resources that hold data.

Which properties CloudFormation cannot update is in the schemas of its registry, which cfn-lint contains. A version is
described by a record, which is small enough to keep: `record_template`.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cfnlint.schema import ResourceNotFoundError  # type: ignore[import-untyped]
from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER  # type: ignore[import-untyped]

from deployment.conditions import Template
from deployment.templates import (
    NESTED_STACK,
    ROOT,
    expand_condition,
    merge_nested_stacks,
    read_template,
    transform_main_template,
)

type Record = dict[str, dict[str, Any]]
"""The resources of a template by logical ID, those of a nested stack as `STACK.ID`:

- `Type`, and `Condition`: null, or the condition with all conditions that it refers to
- `IsRetained`: whether deleting the stack keeps the resource
- `CreateOnly`: the values of the properties that cannot be updated, by path, null if the template has none
- `Name`: the path of the property with the resource's name, null if CloudFormation chooses the name
- of a table: `AttributeTypes`, `LocalSecondaryIndexes` and `GlobalSecondaryIndexes`
"""

TABLE = "AWS::DynamoDB::Table"
LOSSES = {
    TABLE: "its items",
    "AWS::S3::Bucket": "its objects",
    "AWS::KMS::Key": "the key that decrypts data, or that verifiers trust",
    "AWS::SecretsManager::Secret": "its value",
    "AWS::Logs::LogGroup": "its logs",
    "AWS::ApiGateway::RestApi": "the URL that clients use",
    "AWS::ApiGateway::Stage": "the URL that clients use",
    "AWS::ApiGateway::ApiKey": "the key that clients use",
}
"""What the new resource would not have, by type."""

RETAINED = {TABLE, "AWS::S3::Bucket"}
"""Types of which a resource that is not retained holds nothing that matters."""

SMALL_LOSSES = {
    "AWS::SQS::Queue": "its messages, until the sweep sends those of imports again",
    "AWS::SNS::Topic": "the subscriptions of others",
    "AWS::SNS::Subscription": "its confirmation",
}
"""What users can bear, or the system repairs."""

_REGION = "us-east-1"
"""Region of the schemas, which differ only in the values of some properties."""


@dataclass(frozen=True, order=True)
class Finding:
    """`is_fatal`: the update would lose data, or fail."""

    resource: str
    text: str
    is_fatal: bool = True

    def __str__(self) -> str:
        return f"{'error' if self.is_fatal else 'warning'}: {self.resource}: {self.text}"


def read_record(path: Path) -> Record:
    """Return a record from its file, or that of a template."""
    if path.suffix == ".json":
        record: Record = json.loads(path.read_text())
        return record
    return record_template(read_template(path), path.parent)


def record_template(template: Template, root: Path = ROOT) -> Record:
    """Return the record of a template as written, whose included files and nested templates are below `root`."""
    main = transform_main_template(template, root)
    merged = merge_nested_stacks(main, root)
    places = dict(_list_nested_resources(main, root))
    return {
        places.get(name, name): _record_resource(resource, merged["Conditions"])
        for name, resource in sorted(merged["Resources"].items())
        if _is_recorded(resource)
    }


def _list_nested_resources(main: Template, root: Path) -> Iterator[tuple[str, str]]:
    for stack, resource in main["Resources"].items():
        if resource["Type"] == NESTED_STACK:
            for name in read_template(root / resource["Properties"]["TemplateURL"])["Resources"]:
                yield name, f"{stack}.{name}"


def _is_recorded(resource: Mapping[str, Any]) -> bool:
    return resource["Type"] in LOSSES | SMALL_LOSSES or _find_name(resource) is not None


def _record_resource(resource: dict[str, Any], conditions: dict[str, Any]) -> dict[str, Any]:
    kind, properties = resource["Type"], resource.get("Properties", {})
    record: dict[str, Any] = {
        "Type": kind,
        "Condition": expand_condition({"Condition": resource["Condition"]}, conditions)
        if "Condition" in resource
        else None,
        "IsRetained": resource.get("DeletionPolicy", "Delete") != "Delete",
        "CreateOnly": {path: _read_path(properties, path) for path in list_create_only(kind)},
        "Name": _find_name(resource),
    }
    if kind == TABLE:
        record |= {
            "AttributeTypes": {
                one["AttributeName"]: one["AttributeType"] for one in properties.get("AttributeDefinitions", [])
            },
            **{
                name: {
                    index["IndexName"]: {"KeySchema": index["KeySchema"], "Projection": index["Projection"]}
                    for index in properties.get(name, [])
                }
                for name in ("LocalSecondaryIndexes", "GlobalSecondaryIndexes")
            },
        }
    return record


@cache
def _read_schema(kind: str) -> dict[str, Any]:
    """Return the schema of a type, empty for one that is not in the registry."""
    try:
        schema: dict[str, Any] = PROVIDER_SCHEMA_MANAGER.get_resource_schema(_REGION, kind).schema
    except ResourceNotFoundError:
        return {}
    return schema


def list_create_only(kind: str) -> list[str]:
    """Return the paths of the properties for which an update creates a new resource, always or in some cases."""
    schema = _read_schema(kind)
    return sorted({*schema.get("createOnlyProperties", []), *schema.get("conditionalCreateOnlyProperties", [])})


def _find_name(resource: Mapping[str, Any]) -> str | None:
    """Return the path of the property with the name, by which the account distinguishes resources of the type."""
    schema = _read_schema(resource["Type"])
    named = set(schema.get("primaryIdentifier", [])) & set(schema.get("createOnlyProperties", []))
    properties = resource.get("Properties", {})
    # With a second property, such as the API of a stage, the name is not that of the resource alone.
    if len(schema.get("primaryIdentifier", [])) != 1 or not named:
        return None
    (path,) = named
    return path if _read_path(properties, path) is not None else None


def _read_path(value: Any, path: str) -> Any:
    """Return the value at a path such as `/properties/Name` or `/properties/Rules/*/Id`."""
    key, _, rest = path.removeprefix("/properties/").partition("/")
    if key == "*":
        return [_read_path(item, rest) for item in value or []]
    found = value.get(key) if isinstance(value, dict) else None
    return _read_path(found, rest) if rest else found


def compare_records(old: Record, new: Record) -> list[Finding]:
    """Return what an update from `old` to `new` would do, sorted by resource. A fatal finding needs a migration."""
    findings = [finding for name in old for finding in _compare_resource(name, old, new)]
    return sorted([*findings, *_find_moved_names(old, new)])


def _compare_resource(name: str, old: Record, new: Record) -> Iterator[Finding]:
    before, after = old[name], new.get(name)
    kind = before["Type"]
    loss = LOSSES.get(kind) or SMALL_LOSSES.get(kind)
    if loss is None:
        return
    is_fatal = kind in LOSSES and (before["IsRetained"] or kind not in RETAINED)
    if after is None or after["Type"] != kind:
        others = [other for other in new if other not in old and new[other] == before]
        text = f"is named {others[0]} now" if others else "is not in the template any more"
        yield Finding(name, f"{text}. The stack would lose {loss}.", is_fatal)
        return
    if after["Condition"] is not None and after["Condition"] != before["Condition"]:
        # Only a stack whose function is turned off loses a log group.
        loses_data = is_fatal and kind != "AWS::Logs::LogGroup"
        yield Finding(name, f"has another condition. A stack that does not meet it would lose {loss}.", loses_data)
    for path in _list_changes(before, after):
        yield Finding(name, f"would be replaced, because {path} changes. The stack would lose {loss}.", is_fatal)
    if kind == TABLE:
        yield from _compare_indexes(name, before["GlobalSecondaryIndexes"], after["GlobalSecondaryIndexes"])


def _list_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """Yield the changes for which CloudFormation replaces a resource."""
    for path, value in before["CreateOnly"].items():
        # A property that the schema had at the time of one record only.
        if after["CreateOnly"].get(path, value) != value:
            yield path.removeprefix("/properties/")
    if before["Type"] != TABLE:
        return
    # Not in the schema, but on the page of the type: "Replacement if you edit an existing AttributeDefinition". A table
    # has local indexes from its creation on.
    # https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-dynamodb-table.html
    for key in sorted(before["AttributeTypes"].keys() & after["AttributeTypes"].keys()):
        if before["AttributeTypes"][key] != after["AttributeTypes"][key]:
            yield f"the type of the attribute {key}"
    if before["LocalSecondaryIndexes"] != after["LocalSecondaryIndexes"]:
        yield "LocalSecondaryIndexes"


def _compare_indexes(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Finding]:
    """An update can add or delete one global index of a table, and cannot change one (same page)."""
    for index in sorted(before.keys() & after.keys()):
        if before[index] != after[index]:
            yield Finding(name, f"The update would fail, because the index {index} changes. Give it another name.")
    changed = sorted(before.keys() ^ after.keys())
    if len(changed) > 1:
        yield Finding(name, f"The update would fail, because it adds or deletes several indexes: {', '.join(changed)}.")


def _find_moved_names(old: Record, new: Record) -> Iterator[Finding]:
    """CloudFormation creates new resources before it deletes old ones, and the account accepts no name twice."""
    owners = {_read_name(resource): name for name, resource in old.items() if resource["Name"]}
    for name, resource in new.items():
        owner = owners.get(_read_name(resource), name) if resource["Name"] else name
        if owner != name and name not in old:
            yield Finding(name, f"The update would fail, because {owner} has the same name until the update ends.")


def _read_name(resource: Mapping[str, Any]) -> tuple[str, str]:
    return resource["Type"], json.dumps(resource["CreateOnly"][resource["Name"]])
