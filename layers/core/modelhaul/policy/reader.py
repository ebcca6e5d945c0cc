"""Reads the policy, and keeps it for a minute."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from modelhaul.domain.errors import InvalidPolicyError, PolicyUnavailableError
from modelhaul.domain.policy_results import PolicyResult
from modelhaul.policy.document import Policy, parse_policy
from modelhaul.policy.evaluate import evaluate
from modelhaul.policy.facts import ImportFacts
from modelhaul.ports.policy_store import PolicyStore

_CACHE_TTL = 60  # seconds


@dataclass(frozen=True, slots=True)
class ReadPolicy:
    """A policy and where it comes from. `digest` is the SHA-256 of `content` in hexadecimal, `version` its store's."""

    policy: Policy
    content: bytes
    digest: str
    version: str
    location: str

    def evaluate(self, facts: ImportFacts) -> PolicyResult:
        """Decide about an import. The result has the digest of the document."""
        return evaluate(self.policy, facts, digest=self.digest)


class PolicyReader:
    """Reads the policy at most once a minute, so that a change is effective everywhere within a minute."""

    def __init__(self, store: PolicyStore, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._cached: tuple[float, ReadPolicy] | None = None

    @property
    def location(self) -> str:
        return self._store.location

    def read(self) -> ReadPolicy:
        """Return the policy. Raises PolicyUnavailableError if it cannot be read, or is invalid: nothing is imported
        without the policy's decision.
        """
        now = self._clock()
        cached = self._cached
        if cached is not None and now < cached[0] + _CACHE_TTL:
            return cached[1]
        self._cached = None
        read = self.read_current()
        self._cached = (now, read)
        return read

    def read_current(self) -> ReadPolicy:
        """Return the policy without using the cache. Raises PolicyUnavailableError."""
        stored = self._store.read_policy()
        try:
            policy = parse_policy(stored.content)
        except InvalidPolicyError as error:
            raise PolicyUnavailableError(f"The policy at {self.location} cannot be used. {error.detail}") from None
        digest = hashlib.sha256(stored.content).hexdigest()
        return ReadPolicy(policy, stored.content, digest, stored.version, self.location)
