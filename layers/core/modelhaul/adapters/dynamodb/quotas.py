"""QuotaRepository on Amazon DynamoDB."""

import json
import time
import uuid
from types import MappingProxyType

from pynamodb.attributes import NumberAttribute, UnicodeAttribute
from pynamodb.connection import Connection
from pynamodb.exceptions import PutError
from pynamodb.models import Model as Item

from modelhaul.adapters.dynamodb.connection import (
    CONDITION_FAILED,
    bind_item,
    find_code,
    find_item,
    translate_errors,
)
from modelhaul.domain.quotas import QuotaState
from modelhaul.ports.clock import Clock
from modelhaul.ports.quotas import QuotaRepository

QUOTA_KEY = "quota#state"  # the ID of a model never contains `#`


class QuotaItem(Item):
    """Item of the quota's state, in the table of models. `reserved` is JSON: planned bytes by task ID."""

    model_id = UnicodeAttribute(hash_key=True)
    quota = NumberAttribute()
    measured = NumberAttribute()
    measured_at = NumberAttribute()
    reserved = UnicodeAttribute()
    version = UnicodeAttribute()


class DynamoDBQuotaRepository(QuotaRepository):
    """The state of the quota in an item of the table of models."""

    def __init__(self, connection: Connection, *, models_table: str, clock: Clock = time.time) -> None:
        self._states = bind_item(QuotaItem, models_table, connection)
        self._clock = clock

    @translate_errors()
    def read_state(self) -> QuotaState:
        item = find_item(self._states, QUOTA_KEY)
        if item is None:
            return QuotaState()
        return QuotaState(
            int(item.quota),
            int(item.measured),
            float(item.measured_at),
            MappingProxyType({task_id: int(size) for task_id, size in json.loads(item.reserved).items()}),
            item.version,
        )

    @translate_errors()
    def save_state(self, state: QuotaState) -> bool:
        item = self._states(
            QUOTA_KEY,
            quota=state.limit,
            measured=state.measured,
            measured_at=state.measured_at,
            reserved=json.dumps(dict(state.reserved), separators=(",", ":")),
            version=str(uuid.uuid4()),
        )
        try:
            item.save(
                condition=QuotaItem.model_id.does_not_exist()
                if state.version is None
                else QuotaItem.version == state.version
            )
        except PutError as error:
            if find_code(error) != f"{CONDITION_FAILED}Exception":
                raise
            return False
        return True
