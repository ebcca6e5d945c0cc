"""Transfer files from their source into staging, verify and inspect them. Invoked by TransferQueue."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from modelhaul import wiring
from modelhaul.domain.messages import JoinTransfer, TransferFiles
from modelhaul.entrypoints.workers import run_step

wiring.build_early(wiring.create_runner, wiring.create_transferrer, wiring.create_joiner)


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return run_step(
        event,
        context,
        {
            TransferFiles: wiring.create_transferrer().transfer_files,
            JoinTransfer: wiring.create_joiner().join_transfer,
        },
    )
