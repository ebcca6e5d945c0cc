"""The work queues."""

from collections.abc import Iterable
from typing import Protocol

from modelhaul.domain.messages import Message


class MessageQueue(Protocol):
    """The work queues. The type of a message determines its queue."""

    def send(self, messages: Iterable[Message], *, delay: float = 0) -> None:
        """Send all messages, for delivery after `delay` seconds (at most 900). Messages may be delivered twice.

        Raises StorageUnavailableError, after which some of the messages may have been sent.
        """
