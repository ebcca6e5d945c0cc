"""DynamoDB's request units of a call, computed from the items that it reads and writes.

moto answers a made-up ConsumedCapacity, so the rules are here:
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html (units, transactions),
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html (sizes),
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/GSI.html (what an index costs).
A transaction is taken to cost double in its table and once in an index.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.dynamodb.models import dynamodb_backends
from moto.dynamodb.models.dynamo_type import DynamoType
from moto.dynamodb.models.table import Table

from tests.contract.backends import REGION

type Item = dict[str, Any]
"""As it is on the wire: `{"id": {"S": "…"}, …}`."""

_READ_UNIT = 4096
_WRITE_UNIT = 1024
_MAP_OVERHEAD = 3


@dataclass(frozen=True, slots=True)
class Units:
    read: float = 0
    write: float = 0


def measure_item(item: Item) -> int:
    """Bytes, names included."""
    return sum(len(name.encode()) + _measure_value(value) for name, value in item.items())


def _measure_value(value: dict[str, Any]) -> int:  # noqa: PLR0911 - one for each type
    [(kind, content)] = value.items()
    match kind:
        case "S":
            return len(str(content).encode())
        case "N":
            digits = str(content).lstrip("-").replace(".", "").strip("0")
            return 1 + math.ceil(len(digits) / 2) + str(content).startswith("-")
        case "B":
            return len(content) if isinstance(content, bytes) else len(content) * 3 // 4
        case "BOOL" | "NULL":
            return 1
        case "NS":
            return sum(_measure_value({"N": number}) for number in content)
        case "L":
            return _MAP_OVERHEAD + sum(1 + _measure_value(element) for element in content)
        case "M":
            return _MAP_OVERHEAD + sum(1 + len(k.encode()) + _measure_value(v) for k, v in content.items())
    raise ValueError(f"no size is known for type {kind}")


def charge_call(operation: str, arguments: dict[str, Any], do: Callable[[], Any]) -> tuple[Any, Units]:
    """Makes the call by `do` and returns its answer with what it costs. Nothing else may write meanwhile.

    Raises what `do` raises: what a refused call costs is left out.
    """
    writes = list(_list_writes(operation, arguments))
    before = [_find_item(table, key) for table, key, _ in writes]
    reads = _measure_reads(operation, arguments)
    answer = do()
    if operation == "Query":
        size = sum(map(measure_item, answer["Items"]))
        # An index is read eventually consistent.
        reads = _count_read(size, consistent=bool(arguments.get("ConsistentRead")))
    write = sum(
        _count_write(table, earlier, _find_item(table, key), factor)
        for (table, key, factor), earlier in zip(writes, before, strict=True)
    )
    return answer, Units(reads, write)


def _list_writes(operation: str, arguments: dict[str, Any]) -> Iterator[tuple[Table, Item, int]]:
    """(table, key, factor) of each item written."""
    match operation:
        case "PutItem":
            table = _find_table(arguments)
            yield table, _read_key(table, arguments["Item"]), 1
        case "UpdateItem" | "DeleteItem":
            yield _find_table(arguments), arguments["Key"], 1
        case "BatchWriteItem":
            for name, requests in arguments["RequestItems"].items():
                table = _tables()[name]
                for request in requests:
                    deleted = request.get("DeleteRequest")
                    yield table, deleted["Key"] if deleted else _read_key(table, request["PutRequest"]["Item"]), 1
        case "TransactWriteItems":
            for action in arguments["TransactItems"]:
                [(kind, details)] = action.items()
                table = _find_table(details)
                yield table, _read_key(table, details["Item"]) if kind == "Put" else details["Key"], 2


def _measure_reads(operation: str, arguments: dict[str, Any]) -> float:
    match operation:
        case "GetItem":
            return _charge_get(_find_table(arguments), [arguments["Key"]], arguments)
        case "BatchGetItem":
            asked = arguments["RequestItems"].items()
            return sum(_charge_get(_tables()[name], details["Keys"], details) for name, details in asked)
    return 0


def _charge_get(table: Table, keys: Iterable[Item], options: dict[str, Any]) -> float:
    consistent = bool(options.get("ConsistentRead"))
    return sum(_count_read(measure_item(_find_item(table, key) or {}), consistent=consistent) for key in keys)


def _count_read(size: int, *, consistent: bool) -> float:
    return max(1, math.ceil(size / _READ_UNIT)) * (1 if consistent else 0.5)


def _count_write(table: Table, before: Item | None, after: Item | None, factor: int) -> float:
    units = factor * _round_write(max(measure_item(before or {}), measure_item(after or {})))
    for index in table.global_indexes:
        keys = [element["AttributeName"] for element in index.schema]
        old, new = (_project(table, index, keys, item) for item in (before, after))
        if old is not None and new is not None and all(old[key] == new[key] for key in keys):
            units += _round_write(max(measure_item(old), measure_item(new))) if old != new else 0
        else:
            units += sum(_round_write(measure_item(item)) for item in (old, new) if item is not None)
    return units


def _project(table: Table, index: Any, keys: list[str], item: Item | None) -> Item | None:
    """The item as the index has it; None if it is not in it."""
    if item is None or any(key not in item for key in keys):
        return None
    if index.projection["ProjectionType"] == "ALL":
        return item
    included = {*keys, *table.table_key_attrs, *index.projection.get("NonKeyAttributes", [])}
    return {name: value for name, value in item.items() if name in included}


def _round_write(size: int) -> int:
    return max(1, math.ceil(size / _WRITE_UNIT))


def _tables() -> dict[str, Table]:
    return dynamodb_backends[DEFAULT_ACCOUNT_ID][REGION].tables


def _find_table(details: dict[str, Any]) -> Table:
    return _tables()[details["TableName"]]


def _read_key(table: Table, item: Item) -> Item:
    return {name: item[name] for name in table.table_key_attrs}


def _find_item(table: Table, key: Item) -> Item | None:
    hash_key, *range_key = (DynamoType(key[name]) for name in table.table_key_attrs)
    found = table.get_item(hash_key, range_key[0] if range_key else None)
    return None if found is None else {name: value.to_regular_json() for name, value in found.attrs.items()}
