"""Publish an EventBridge event for each task that has ended. Invoked by the stream of the table Tasks."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from modelhaul import wiring
from modelhaul.entrypoints.workers import publish_ended_tasks

wiring.build_early(wiring.create_end_publisher)


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return publish_ended_tasks(event, context)
