"""The document with the policy."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StoredPolicy:
    """The document's bytes, and the version that its store gives it: an object's version ID, or its ETag in a bucket
    without versions, or the number of a parameter's version. `modified_at`: when the version was written.
    """

    content: bytes
    version: str
    modified_at: datetime


class PolicyStore(Protocol):
    """The place of the document. `location` is the address of the template's parameter PolicyLocation."""

    @property
    def location(self) -> str: ...

    def read_policy(self) -> StoredPolicy:
        """Return the current document.

        Raises PolicyUnavailableError if it does not exist, is too large, access is denied, or the request fails.
        """
