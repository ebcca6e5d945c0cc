"""Publish models whose files are all verified, and copy their files into place. Invoked by PublishQueue."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from modelhaul import wiring
from modelhaul.domain.messages import CopyFiles, PublishModels
from modelhaul.entrypoints.workers import run_step

wiring.build_early(wiring.create_runner, wiring.create_publisher, wiring.create_copy_step)


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return run_step(
        event,
        context,
        {
            PublishModels: wiring.create_publisher().publish_models,
            CopyFiles: wiring.create_copy_step().copy_files,
        },
    )
