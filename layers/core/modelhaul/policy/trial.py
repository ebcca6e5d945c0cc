"""Tests of a policy: what it would decide about an import, as far as that is known before a transfer."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

from modelhaul.domain.file_selection import choose_files
from modelhaul.domain.files import SourceFile
from modelhaul.domain.models import ResolvedModel, Source
from modelhaul.domain.policy_results import PolicyDecision, PolicyResult
from modelhaul.domain.selection import Selection
from modelhaul.policy.document import Policy, parse_policy
from modelhaul.policy.evaluate import RuleOutcome, Truth, evaluate, match_rules
from modelhaul.policy.facts import OPEN, ImportFacts, know_files, know_model
from modelhaul.policy.license_texts import keep_license_files
from modelhaul.policy.reader import PolicyReader, ReadPolicy
from modelhaul.ports.clock import Clock
from modelhaul.ports.model_sources import ModelResolver, ModelSource

_MAX_LISTING = 12.0  # seconds; the response must arrive in 29, and the model is resolved before


class ListedSource(ModelResolver, ModelSource, Protocol):
    """A source that finds models by name and lists their files."""


@dataclass(frozen=True, slots=True)
class PolicyTrial:
    """`rules` are those that match or may match, in order. `read` is None if the document is of the request, and if
    the stack has no policy. `model` is None for an archive.
    """

    result: PolicyResult
    facts: ImportFacts
    rules: tuple[RuleOutcome, ...] = ()
    model: ResolvedModel | None = None
    read: ReadPolicy | None = None


@dataclass(frozen=True, slots=True)
class PolicyTester:
    """Tests the policy of the stack, or a given document. `reader` is None if the stack has no policy."""

    reader: PolicyReader | None
    open_source: Callable[[Source], ListedSource]
    clock: Clock
    timer: Callable[[], float] = time.monotonic

    def test(
        self, source: Source, name: str, revision: str, selection: Selection, document: bytes | None = None
    ) -> PolicyTrial:
        """Evaluate the policy, or `document` instead, for an import that could be submitted now.

        Raises the errors of ModelResolver.resolve, ModelSource.list_files, choose_files, InvalidPolicyError,
        PolicyUnavailableError.
        """
        read = self.reader.read_current() if self.reader is not None and document is None else None
        policy = read.policy if read is not None else None if document is None else parse_policy(document)
        model, facts = self._find_facts(source, name, revision, selection, policy)
        if policy is None:
            allowed = PolicyResult(PolicyDecision.ALLOW, reason="The stack has no policy.")
            return PolicyTrial(allowed, facts, model=model)
        digest = read.digest if read is not None else hashlib.sha256(document or b"").hexdigest()
        rules = tuple(outcome for outcome in match_rules(policy, facts) if outcome.truth is not Truth.FALSE)
        return PolicyTrial(evaluate(policy, facts, digest=digest), facts, rules, model, read)

    def _find_facts(
        self, source: Source, name: str, revision: str, selection: Selection, policy: Policy | None
    ) -> tuple[ResolvedModel | None, ImportFacts]:
        now = datetime.fromtimestamp(self.clock(), UTC)
        if source is Source.LOCAL:
            # The archive, which has the model's files, does not exist yet.
            return None, know_model(ResolvedModel(source, name, "", ""), now)
        opened = self.open_source(source)
        model = replace(opened.resolve(name, revision), selection=selection)
        facts = know_model(model, now)
        if policy is not None and policy.needs_commit_date and facts.committed_at is OPEN:
            facts = replace(facts, committed_at=opened.find_commit_date(model))
        files = self._list_files(opened, model)
        if files is None:
            return model, facts
        return model, know_files(facts, keep_license_files(choose_files(model, files), files))

    def _list_files(self, source: ListedSource, model: ResolvedModel) -> list[SourceFile] | None:
        """Return all files of the model. None if the listing takes too long: their facts stay open."""
        end = self.timer() + _MAX_LISTING
        files: list[SourceFile] = []
        for file in source.list_files(model):
            files.append(file)
            if self.timer() > end:
                return None
        return files
