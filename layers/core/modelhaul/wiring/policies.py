"""Builds what tests and applies the policy."""

from __future__ import annotations  # the types of results are not loaded

import time
from functools import cache
from typing import TYPE_CHECKING

from modelhaul.domain.models import Source
from modelhaul.wiring.adapters import create_audit_log, create_policy_reader
from modelhaul.wiring.sources import open_github_resolver, open_hub

if TYPE_CHECKING:
    from modelhaul.imports.import_policy import ImportPolicy
    from modelhaul.policy.trial import ListedSource, PolicyTester


@cache
def create_import_policy() -> ImportPolicy | None:
    """What applies the policy, None if the stack has no policy."""
    reader = create_policy_reader()
    if reader is None:
        return None
    from modelhaul.imports.import_policy import ImportPolicy

    return ImportPolicy(reader, create_audit_log(), time.time)


@cache
def create_policy_tester() -> PolicyTester:
    from modelhaul.policy.trial import PolicyTester

    return PolicyTester(create_policy_reader(), _open_listed, time.time)


def _open_listed(source: Source) -> ListedSource:
    return open_github_resolver() if source is Source.GITHUB else open_hub()
