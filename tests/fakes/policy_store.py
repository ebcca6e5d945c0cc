import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from modelhaul.domain.errors import PolicyUnavailableError
from modelhaul.ports.policy_store import StoredPolicy


@dataclass
class InMemoryPolicyStore:
    """`content` is the document, None if there is none. `reads` counts the requests. `is_down`: requests fail.
    `on_read` is called before each request.
    """

    content: bytes | None = None
    location: str = "s3://bucket/policy.json"
    reads: int = 0
    is_down: bool = False
    modified_at: datetime = datetime(2026, 1, 2, tzinfo=UTC)
    on_read: Callable[[], None] = lambda: None

    def read_policy(self) -> StoredPolicy:
        self.on_read()
        self.reads += 1
        if self.is_down:
            raise PolicyUnavailableError(f"The policy at {self.location} cannot be read (503).")
        if self.content is None:
            raise PolicyUnavailableError(f"The policy at {self.location} cannot be read: there is none.")
        version = hashlib.md5(self.content, usedforsecurity=False).hexdigest()
        return StoredPolicy(self.content, version, self.modified_at)

    def write(self, *rules: dict[str, Any], default: str = "allow") -> None:
        """Replace the document by one with these rules, which get a reason and an ID if they have none."""
        named = [{"id": f"rule-{n}", "reason": "A reason.", **rule} for n, rule in enumerate(rules, 1)]
        self.content = json.dumps({"version": 1, "default": default, "rules": named}).encode()
