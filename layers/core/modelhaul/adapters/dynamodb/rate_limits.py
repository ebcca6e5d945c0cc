"""What all functions know of the sources' limits, in a DynamoDB table whose key and TTL `template.yaml` has."""

from datetime import UTC, datetime

from pynamodb.attributes import NumberAttribute, TTLAttribute, UnicodeAttribute
from pynamodb.models import Model as Item

from modelhaul.adapters.dynamodb.connection import bind_item, find_item, open_connection, translate_errors, update_item


class RateLimitItem(Item):
    """`until` in epoch seconds."""

    name = UnicodeAttribute(hash_key=True)
    until = NumberAttribute()
    expires_at = TTLAttribute()


class DynamoDBRateLimitStore:
    def __init__(self, table: str, *, region: str | None = None) -> None:
        self._limits = bind_item(RateLimitItem, table, open_connection(region))

    @translate_errors()
    def find_pause(self, limit: str) -> float:
        item = find_item(self._limits, limit)
        return float(item.until) if item is not None else 0.0

    @translate_errors()
    def record_pause(self, limit: str, until: float) -> None:
        update_item(
            self._limits(limit),
            [RateLimitItem.until.set(until), RateLimitItem.expires_at.set(datetime.fromtimestamp(until, UTC))],
            RateLimitItem.until.does_not_exist() | (RateLimitItem.until < until),
        )
