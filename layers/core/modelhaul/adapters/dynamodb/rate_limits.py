"""RateLimitStore on Amazon DynamoDB. `template.yaml` defines the key and the TTL attribute of the table."""

from pynamodb.attributes import NumberAttribute, TTLAttribute, UnicodeAttribute
from pynamodb.connection import Connection
from pynamodb.models import Model as Item

from modelhaul.adapters.dynamodb.connection import bind_item, find_item, to_moment, translate_errors, update_item
from modelhaul.ports.rate_limits import RateLimitStore


class RateLimitItem(Item):
    """Item of a rate limit. `until` is in epoch seconds."""

    name = UnicodeAttribute(hash_key=True)
    until = NumberAttribute()
    expires_at = TTLAttribute()


class DynamoDBRateLimitStore(RateLimitStore):
    """Rate limits in the table of rate limits."""

    def __init__(self, connection: Connection, *, rate_limits_table: str) -> None:
        self._limits = bind_item(RateLimitItem, rate_limits_table, connection)

    @translate_errors()
    def find_pause(self, limit: str) -> float:
        item = find_item(self._limits, limit)
        return float(item.until) if item is not None else 0.0

    @translate_errors()
    def record_pause(self, limit: str, until: float) -> None:
        update_item(
            self._limits(limit),
            [RateLimitItem.until.set(until), RateLimitItem.expires_at.set(to_moment(until))],
            RateLimitItem.until.does_not_exist() | (RateLimitItem.until < until),
        )
