"""Builds what tests the policy."""

from __future__ import annotations  # the types of results are not loaded

import time
from functools import cache
from typing import TYPE_CHECKING

from modelhaul.domain.models import Source
from modelhaul.wiring.adapters import create_policy_reader
from modelhaul.wiring.sources import open_github_resolver, open_hub

if TYPE_CHECKING:
    from modelhaul.policy.trial import ListedSource, PolicyTester


@cache
def create_policy_tester() -> PolicyTester:
    from modelhaul.policy.trial import PolicyTester

    return PolicyTester(create_policy_reader(), _open_listed, time.time)


def _open_listed(source: Source) -> ListedSource:
    return open_github_resolver() if source is Source.GITHUB else open_hub()
