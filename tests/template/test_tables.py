"""The template's tables match the item classes, from which the tests of the adapters create their own tables."""

from collections.abc import Iterable
from typing import Any

import pytest
from pynamodb.attributes import Attribute, TTLAttribute
from pynamodb.indexes import Index
from pynamodb.models import Model

from modelhaul.adapters.dynamodb.content import BlobItem, ContentItem
from modelhaul.adapters.dynamodb.file_items import FileItem
from modelhaul.adapters.dynamodb.model_items import ModelItem
from modelhaul.adapters.dynamodb.rate_limits import RateLimitItem
from modelhaul.adapters.dynamodb.read_keys import ReadKeyItem
from modelhaul.adapters.dynamodb.task_items import TaskItem
from tests.template.transformed import read_template

TABLES: dict[str, type[Model]] = {
    "TasksTable": TaskItem,
    "ModelsTable": ModelItem,
    "FilesTable": FileItem,
    "ContentTable": ContentItem,
    "BlobsTable": BlobItem,
    "KeysTable": ReadKeyItem,
    "RateLimitsTable": RateLimitItem,
}


def list_keys(attributes: Iterable[Any]) -> list[dict[str, str]]:
    """Return the keys as a KeySchema."""
    keys = [a for a in attributes if isinstance(a, Attribute) and (a.is_hash_key or a.is_range_key)]
    return sorted(
        [{"AttributeName": a.attr_name, "KeyType": "HASH" if a.is_hash_key else "RANGE"} for a in keys],
        key=lambda key: key["KeyType"],
    )


def describe_projection(index: Any) -> dict[str, Any]:
    """Return the attributes of an index as a Projection."""
    projection = index.Meta.projection
    included = {"NonKeyAttributes": projection.non_key_attributes} if projection.non_key_attributes else {}
    return {"ProjectionType": projection.projection_type, **included}


@pytest.mark.parametrize("name", TABLES)
def test_table_is_as_its_repository_has_it(name: str) -> None:
    item = TABLES[name]
    table: dict[str, Any] = read_template()["Resources"][name]["Properties"]
    attributes = item.get_attributes().values()
    assert table["KeySchema"] == list_keys(attributes)
    indexes = {index.Meta.index_name: index for index in vars(item).values() if isinstance(index, Index)}
    assert {
        index["IndexName"]: (index["KeySchema"], index["Projection"])
        for index in table.get("GlobalSecondaryIndexes", [])
    } == {
        found: (list_keys(vars(type(index)).values()), describe_projection(index)) for found, index in indexes.items()
    }
    types = {a.attr_name: a.attr_type for a in attributes}
    defined = {one["AttributeName"]: one["AttributeType"] for one in table["AttributeDefinitions"]}
    assert defined == {key: types[key] for key in defined}
    expiring = next((a.attr_name for a in attributes if isinstance(a, TTLAttribute)), None)
    assert table.get("TimeToLiveSpecification", {}).get("AttributeName") == expiring
