"""The lease of a file, as the transfer of its content needs it."""

from typing import Protocol

from modelhaul.domain.files import Checkpoint


class Lease(Protocol):
    """A file that this function has leased. Every method renews the lease, and raises LeaseLostError if the
    function does not have it any more: it expired and another function took it, or the file is done.
    """

    def confirm(self) -> None:
        """Renew the lease, before an action that must not replace the work of another function."""

    def renew(self, *, busy: float = 0.0) -> None:
        """Renew the lease, and postpone the sweep. `busy`: seconds until the next heartbeat can be sent."""

    def save_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Store the checkpoint, and renew the lease. Raises TaskEndedError."""

    def discard_checkpoint(self) -> None:
        """Delete the checkpoint, and renew the lease. The next transfer starts at the first byte. Raises
        TaskEndedError.
        """
