"""Start the import of a model that a Hub client requested. Invoked by the function read_hub."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from modelhaul import wiring
from modelhaul.entrypoints.missing import import_missing_model

wiring.build_early(wiring.create_missing_importer, wiring.load_hub_client)


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return import_missing_model(event, context)
