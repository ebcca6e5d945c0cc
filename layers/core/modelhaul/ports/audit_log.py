"""The audit: a log to which entries are only appended."""

from typing import Protocol

from modelhaul.domain.audit import EVERYTHING, AuditEntry, AuditFilter, AuditPage


class AuditLog(Protocol):
    """Appends entries. An action whose entry cannot be recorded does not happen.

    Where the action is a write to a table, the repository writes the entry in the same transaction (its argument
    `entry`). For any other action, the entry is recorded before it.
    """

    def record(self, entry: AuditEntry) -> None:
        """Append the entry.

        No-op if an entry with this ID exists, if the entry is older than the retention, and if the stack records no
        entries. Raises StorageUnavailableError.
        """


class DisabledAuditLog(AuditLog):
    """The audit of a stack that records no entries."""

    def record(self, entry: AuditEntry) -> None:
        pass


class AuditReader(Protocol):
    """Reads entries. Every method raises StorageUnavailableError."""

    def read_entry(self, entry_id: str) -> AuditEntry | None:
        """Return the entry, None if it does not exist or has expired. Strongly consistent."""

    def list_entries(self, wanted: AuditFilter = EVERYTHING, *, limit: int, cursor: str | None = None) -> AuditPage:
        """Return a page of at most `limit` entries, newest first. Eventually consistent.

        A page with a cursor may have fewer than `limit` entries, or be empty. Raises InvalidReferenceError for an
        invalid cursor.
        """
