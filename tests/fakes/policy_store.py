import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from modelhaul.domain.errors import PolicyUnavailableError
from modelhaul.ports.policy_store import PolicyStore, StoredPolicy


@dataclass
class InMemoryPolicyStore(PolicyStore):
    """`is_down`: the document cannot be read. `on_read` is called before each read. `reads` counts them."""

    content: bytes = b'{"version": 1, "default": "allow"}'
    is_down: bool = False
    on_read: Callable[[], None] = lambda: None
    reads: int = 0
    location: str = field(default="s3://policies/policy.json")

    def read_policy(self) -> StoredPolicy:
        self.on_read()
        self.reads += 1
        if self.is_down:
            raise PolicyUnavailableError(f"The policy at {self.location} cannot be read (503).")
        return StoredPolicy(self.content, str(self.reads))

    def write(self, *rules: dict[str, Any], default: str = "allow") -> None:
        """Replace the document by one with these rules, which get a reason and an ID if they have none."""
        named = [{"id": f"rule-{n}", "reason": "A reason.", **rule} for n, rule in enumerate(rules, 1)]
        self.content = json.dumps({"version": 1, "default": default, "rules": named}).encode()
