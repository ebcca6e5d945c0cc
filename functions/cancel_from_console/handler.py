"""Cancel an import from the CloudWatch dashboard. Invoked by the console with the permissions of the user."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from modelhaul import wiring
from modelhaul.entrypoints.console import cancel_from_widget

wiring.build_early(wiring.create_finisher)


def handler(event: dict[str, Any], context: LambdaContext) -> str:
    return cancel_from_widget(event, context)
