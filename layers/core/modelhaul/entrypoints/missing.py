"""Entry point of the function that imports models which Hub clients requested."""

from dataclasses import asdict
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from modelhaul import wiring
from modelhaul.entrypoints.logs import create_logger
from modelhaul.ports.missing_models import UpstreamRequest


def import_missing_model(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Return the fields of a `MissingModel`. The event has the arguments of `MissingModels.request_import`."""
    create_logger().set_correlation_id(context.aws_request_id)
    upstream = event.get("upstream")
    request = UpstreamRequest(**{**upstream, "paths": tuple(upstream["paths"])}) if upstream else None
    arguments = {**event, "names": tuple(event["names"]), "upstream": request}
    return asdict(wiring.create_missing_importer().request_import(**arguments))
