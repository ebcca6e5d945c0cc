import hashlib
from dataclasses import dataclass

from modelhaul.domain.errors import PolicyUnavailableError
from modelhaul.ports.policy_store import StoredPolicy


@dataclass
class InMemoryPolicyStore:
    """`content` is the document, None if there is none. `reads` counts the requests."""

    content: bytes | None = None
    location: str = "s3://bucket/policy.json"
    reads: int = 0

    def read_policy(self) -> StoredPolicy:
        self.reads += 1
        if self.content is None:
            raise PolicyUnavailableError(f"The policy at {self.location} cannot be read: there is none.")
        return StoredPolicy(self.content, hashlib.md5(self.content, usedforsecurity=False).hexdigest())
