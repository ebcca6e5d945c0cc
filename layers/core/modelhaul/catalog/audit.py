"""JSON representation of audit entries in API responses and events, and their publication as events."""

import json
import logging
from dataclasses import dataclass
from typing import Any

from modelhaul.catalog.presentation import format_time
from modelhaul.domain.audit import AuditEntry
from modelhaul.domain.tasks import Event
from modelhaul.ports.audit_log import AuditReader
from modelhaul.ports.event_bus import EventBus

_VERSION = 1

logger = logging.getLogger(__name__)


def present_entry(entry: AuditEntry) -> dict[str, Any]:
    """Return an entry. Fields that its action does not have are absent."""
    fields = {
        "actor": entry.actor,
        "model_id": entry.model_id,
        "task_id": entry.task_id,
        "key_id": entry.key_id,
        "follow_id": entry.follow_id,
        "name": entry.name,
        "source": entry.source.value if entry.source else None,
        "commit": entry.commit,
        "reason": entry.reason,
        "detail": dict(entry.detail),
    }
    return {
        "id": entry.id,
        "time": format_time(entry.time),
        "action": entry.action.value,
        **{name: value for name, value in fields.items() if value},
    }


@dataclass(frozen=True, slots=True)
class EntryPublisher:
    """Publishes one event for each entry, at least once. `docs/events.md` has the schema.

    `stack` is the name of the stack, because all stacks of an account and Region publish to the same event bus.
    """

    audit: AuditReader
    bus: EventBus
    stack: str

    def publish_entry(self, entry_id: str) -> None:
        """Publish the entry. No-op if it has expired.

        Raises StorageUnavailableError. The event may still have been sent.
        """
        entry = self.audit.read_entry(entry_id)
        if entry is None:
            logger.warning("event skipped: audit entry is missing", extra={"entry_id": entry_id})
            return
        detail = {"version": _VERSION, "stack": self.stack, **present_entry(entry)}
        self.bus.publish(Event(entry.action.value, entry.time, json.dumps(detail, ensure_ascii=False)))
        logger.info("event published", extra={"entry_id": entry_id, "event": entry.action.value})
