"""Authorize requests of the Hub read API. Invoked by API Gateway as the authorizer of all routes."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from modelhaul import wiring
from modelhaul.entrypoints.authorizer import authorize_request

wiring.build_early(wiring.create_read_keys)


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return authorize_request(event, context)
