"""Publish an EventBridge event for each audit entry. Invoked by the stream of the table Audit."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from modelhaul import wiring
from modelhaul.entrypoints.workers import publish_recorded_entries

wiring.build_early(wiring.create_entry_publisher)


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return publish_recorded_entries(event, context)
