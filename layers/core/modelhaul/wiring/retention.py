"""Builds what pins models, and what applies the retention rules."""

from __future__ import annotations  # the types of results are not loaded

import time
from functools import cache
from typing import TYPE_CHECKING

from modelhaul.wiring.adapters import create_follows, create_hub_models, create_models, create_policy_reader
from modelhaul.wiring.steps import create_deleter

if TYPE_CHECKING:
    from modelhaul.catalog.pins import ModelPinner
    from modelhaul.retention.apply import RetentionPlanner, RetentionRunner


@cache
def create_pinner() -> ModelPinner:
    from modelhaul.catalog.pins import ModelPinner

    return ModelPinner(create_models(), time.time)


@cache
def create_retention_planner() -> RetentionPlanner:
    from modelhaul.retention.apply import RetentionPlanner

    return RetentionPlanner(create_models(), create_hub_models(), create_follows(), create_policy_reader(), time.time)


@cache
def create_retention_runner() -> RetentionRunner:
    from modelhaul.retention.apply import RetentionRunner

    return RetentionRunner(create_retention_planner(), create_deleter())
