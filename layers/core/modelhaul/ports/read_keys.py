"""Keys with which Hub clients read models."""

from datetime import date
from typing import Protocol

from modelhaul.domain.audit import AuditEntry
from modelhaul.domain.read_keys import ReadKey


class ReadKeyRepository(Protocol):
    """Records of read keys. Every method raises StorageUnavailableError."""

    def add_key(self, key: ReadKey, *, entry: AuditEntry | None = None) -> None:
        """Add the key's record, and the audit's `entry` in the same transaction."""

    def find_key(self, key_id: str) -> ReadKey | None:
        """Return the record, also of an expired key. None if it does not exist. Strongly consistent."""

    def list_keys(self) -> list[ReadKey]:
        """Return all records, newest first. An expired key is listed for 30 days. Eventually consistent."""

    def remove_key(self, key_id: str, *, entry: AuditEntry | None = None) -> bool:
        """Remove the record, and record the audit's `entry` in the same transaction.

        Return False if the record did not exist. Then no entry is recorded.
        """

    def record_use(self, key_id: str, day: date) -> None:
        """Record that the key was used on this day (UTC). No-op if the key is missing, or was used later."""
