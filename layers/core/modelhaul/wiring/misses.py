"""Builds what responds to requests for models that are not imported, and what imports them."""

from __future__ import annotations  # the types of results are not loaded

import time
from functools import cache
from typing import TYPE_CHECKING

from modelhaul.wiring.adapters import create_models, create_tasks
from modelhaul.wiring.sources import open_public_hub
from modelhaul.wiring.steps import create_submitter

if TYPE_CHECKING:
    from modelhaul.hub.misses import MissHandler
    from modelhaul.imports.missing import MissingModelImporter
    from modelhaul.ports.missing_models import MissingModels


@cache
def create_miss_handler() -> MissHandler:
    from modelhaul.hub.misses import MissHandler
    from modelhaul.settings import HubSettings

    settings = HubSettings.read()
    return MissHandler(
        settings.hub_on_miss, settings.huggingface_endpoint, create_tasks(), create_missing_models, time.time
    )


@cache
def create_missing_models() -> MissingModels:
    from modelhaul.adapters.lambda_invoke import LambdaMissingModels, create_lambda_client
    from modelhaul.settings import MissingSettings

    settings = MissingSettings.read()
    return LambdaMissingModels(create_lambda_client(settings.aws_region), settings.import_missing_function)


@cache
def create_missing_importer() -> MissingModelImporter:
    from modelhaul.imports.missing import MissingModelImporter

    return MissingModelImporter(create_submitter(), create_models(), open_public_hub(), time.time)
