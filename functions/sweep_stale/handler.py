"""Start due checks of follows, and resume or end tasks that made no progress. Invoked every five minutes."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from modelhaul import wiring
from modelhaul.entrypoints.logs import create_logger

wiring.build_early(wiring.create_sweeper, wiring.create_check_starter)


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, int]:
    create_logger().set_correlation_id(context.aws_request_id)
    try:
        return {"due": wiring.create_sweeper().sweep_stale(lambda: context.get_remaining_time_in_millis() / 1000)}
    finally:
        # After the sweep and its errors, because imports do not wait for checks of follows.
        wiring.create_check_starter().start_due()
