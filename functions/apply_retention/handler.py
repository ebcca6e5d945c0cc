"""Delete models according to the retention rules. Invoked once a day."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from modelhaul import wiring
from modelhaul.entrypoints.logs import create_logger

wiring.build_early(wiring.create_retention_runner)


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, int]:
    create_logger().set_correlation_id(context.aws_request_id)
    result = wiring.create_retention_runner().apply_retention(lambda: context.get_remaining_time_in_millis() / 1000)
    return {"models": result.models, "bytes": result.size}
