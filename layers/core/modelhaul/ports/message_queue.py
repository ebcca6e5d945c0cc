"""The work queues."""

from collections.abc import Iterable
from typing import Protocol

from modelhaul.domain.messages import Message


class MessageQueue(Protocol):
    """The work queues; the message's type says which one."""

    def send(self, messages: Iterable[Message], *, delay: float = 0) -> None:
        """Sends all, at the earliest after `delay` seconds (at most 900). May deliver twice.

        Raises StorageUnavailableError; some may then have been sent.
        """
