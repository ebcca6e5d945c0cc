"""Followed revisions."""

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from modelhaul.domain.audit import AuditEntry
from modelhaul.domain.follows import DueFollow, Follow


class FollowRepository(Protocol):
    """Records of follows. Every method raises StorageUnavailableError.

    `entry` is recorded with the change, in one atomic step, unless the audit is off.
    """

    def add_follow(self, follow: Follow, *, entry: AuditEntry | None = None) -> bool:
        """Add the record. Return False if a follow with this ID exists."""

    def find_follow(self, follow_id: str) -> Follow | None:
        """Return the record, None if it does not exist. Strongly consistent."""

    def list_follows(self) -> list[Follow]:
        """Return all records, newest first. Strongly consistent."""

    def list_due(self, now: datetime, limit: int) -> list[DueFollow]:
        """Return at most `limit` follows whose next check is at `now` or earlier, the longest due first.

        Eventually consistent.
        """

    def change_follow(
        self, follow_id: str, change: Callable[[Follow], Follow | None], *, entry: AuditEntry | None = None
    ) -> Follow | None:
        """Replace the record by the result of `change`, in one atomic step, and return it with its new version.

        `change` returns None to leave the record as it is. It is called again if another function changes the record
        at the same time. Return None if the record does not exist or was left as it is.
        """

    def remove_follow(self, follow_id: str, *, entry: AuditEntry | None = None) -> bool:
        """Remove the record. Return False if it did not exist."""


class FollowChecks(Protocol):
    """Starts the checks of due follows."""

    def start(self, first: DueFollow | None = None) -> None:
        """Start the checks in the background. Several starts are harmless. Raises StorageUnavailableError.

        `first` is checked first, also if `list_due` does not return it yet.
        """
