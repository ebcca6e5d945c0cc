"""The state of the quota."""

from typing import Protocol

from modelhaul.domain.quotas import QuotaState


class QuotaRepository(Protocol):
    """The state of the quota. Every method raises StorageUnavailableError."""

    def read_state(self) -> QuotaState:
        """Return the current state. Strongly consistent."""

    def save_state(self, state: QuotaState) -> bool:
        """Replace the state that has the version of `state`. The new state gets another version.

        Return False, and change nothing, if another call has replaced that version. The response of a successful call
        can be lost, and then a repeated call returns False.
        """
