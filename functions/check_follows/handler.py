"""Check followed revisions that are due.

Invoked by sweep_stale, and by manage_follows with the follow that has just become due.
"""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from modelhaul import wiring
from modelhaul.domain.follows import DueFollow
from modelhaul.domain.models import Source
from modelhaul.entrypoints.logs import create_logger

wiring.build_early(wiring.create_follow_checker, wiring.load_hub_client)


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, int]:
    create_logger().set_correlation_id(context.aws_request_id)
    first = event.get("first")
    checks = wiring.create_follow_checker().check_due(
        lambda: context.get_remaining_time_in_millis() / 1000,
        None if first is None else DueFollow(first["id"], Source(first["source"])),
    )
    return {"checks": checks}
