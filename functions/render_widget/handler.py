"""Render the widget of the CloudWatch dashboard. Invoked by the console with the permissions of the user."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from modelhaul import wiring
from modelhaul.entrypoints.console import render_widget

wiring.build_early(wiring.create_console_reader, wiring.load_templates)


def handler(event: dict[str, Any], context: LambdaContext) -> str:
    return render_widget(event, context)
