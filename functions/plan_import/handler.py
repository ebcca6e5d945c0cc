"""List the files of a model, and start their transfer. Invoked by PlanQueue."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from modelhaul import wiring
from modelhaul.domain.messages import PlanImport
from modelhaul.entrypoints.workers import run_step

wiring.build_early(wiring.create_runner, wiring.create_planner)


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return run_step(event, context, {PlanImport: lambda message, _: wiring.create_planner().plan_import(message)})
