"""Builds what serves Hub clients."""

from __future__ import annotations  # the types of results are not loaded

import time
from functools import cache
from typing import TYPE_CHECKING

from modelhaul.wiring.adapters import create_hub_models, create_models, create_store
from modelhaul.wiring.misses import create_miss_handler

if TYPE_CHECKING:
    from modelhaul.hub.reader import HubReader


@cache
def create_hub_reader() -> HubReader:
    from modelhaul.hub.reader import HubReader

    return HubReader(create_hub_models(), create_models(), create_store(), create_miss_handler(), time.time)
