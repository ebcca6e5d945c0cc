"""Reads the policy, and keeps it for a minute."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from modelhaul.domain.audit import AuditEntry, describe_policy_change
from modelhaul.domain.errors import InvalidPolicyError, PolicyUnavailableError
from modelhaul.domain.policy_results import PolicyResult
from modelhaul.policy.document import Policy, parse_policy
from modelhaul.policy.evaluate import evaluate
from modelhaul.policy.facts import ImportFacts
from modelhaul.ports.audit_log import AuditLog, DisabledAuditLog
from modelhaul.ports.policy_store import PolicyStore

_CACHE_TTL = 60  # seconds


@dataclass(frozen=True, slots=True)
class ReadPolicy:
    """A policy and where it comes from. `digest` is the SHA-256 of `content` in hexadecimal, `version` its store's.
    `modified_at`: when this version was written.
    """

    policy: Policy
    content: bytes
    digest: str
    version: str
    modified_at: datetime
    location: str

    def evaluate(self, facts: ImportFacts) -> PolicyResult:
        """Decide about an import. The result has the digest of the document."""
        return evaluate(self.policy, facts, digest=self.digest)


class PolicyReader:
    """Reads the policy at most once a minute, so that a change is effective everywhere within a minute.

    `audit` gets an entry for each version that is used.
    """

    def __init__(
        self,
        store: PolicyStore,
        *,
        audit: AuditLog | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._audit = audit or DisabledAuditLog()
        self._clock = clock
        self._cached: tuple[float, ReadPolicy] | None = None
        self._recorded: AuditEntry | None = None

    @property
    def location(self) -> str:
        return self._store.location

    def read(self) -> ReadPolicy:
        """Return the policy. Raises PolicyUnavailableError if it cannot be read, or is invalid: nothing is imported
        without the policy's decision. Raises StorageUnavailableError if a new version cannot be recorded.
        """
        now = self._clock()
        cached = self._cached
        if cached is not None and now < cached[0] + _CACHE_TTL:
            return cached[1]
        self._cached = None
        read = self.read_current()
        self._record_change(read)
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
        return ReadPolicy(policy, stored.content, digest, stored.version, stored.modified_at, self.location)

    def _record_change(self, read: ReadPolicy) -> None:
        """Record that this version is used. No-op if it is recorded already, also by another function."""
        entry = describe_policy_change(
            location=read.location, digest=read.digest, version=read.version, changed_at=read.modified_at
        )
        if entry != self._recorded:
            self._audit.record(entry)
            self._recorded = entry
