"""The interface through which a transfer uses the lease of its group of files."""

from typing import Protocol


class Lease(Protocol):
    """The lease of a group by this function, which leads the transfer of its file. Every method renews the lease.

    Every method raises LeaseLostError if this function no longer has the lease: either the lease expired and another
    function leased the group, or the group is done.
    """

    def confirm(self) -> None:
        """Renew the lease, before an action that must not replace the work of another function."""

    def renew(self, *, busy: float = 0.0) -> None:
        """Renew the lease, and postpone the sweep. `busy`: seconds until the next heartbeat can be sent."""

    def record_offset(self, offset: int) -> None:
        """Record that `offset` bytes of the file have arrived, and renew the lease. Raises TaskEndedError."""
