"""End tasks as FAILED when their messages reach a dead-letter queue. Invoked by the dead-letter queues."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from modelhaul import wiring
from modelhaul.entrypoints.workers import record_dead_letters

wiring.build_early(wiring.create_runner)


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return record_dead_letters(event, context)
