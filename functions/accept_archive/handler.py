"""Find the models in a new archive, and start their import. Invoked by ArchiveQueue."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from modelhaul import wiring
from modelhaul.entrypoints.workers import run_archive_step

wiring.build_early(wiring.create_runner, wiring.create_acceptor, wiring.create_arrival_recorder)


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return run_archive_step(event, context, lambda message, _: wiring.create_acceptor().accept_archive(message))
