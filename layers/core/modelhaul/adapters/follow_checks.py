"""FollowChecks on AWS Lambda: the function check_follows."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from botocore.config import Config

from modelhaul.adapters.aws import CALL_ERRORS, create_client, read_error_code
from modelhaul.domain.errors import StorageUnavailableError
from modelhaul.domain.follows import DueFollow
from modelhaul.ports.follows import FollowChecks

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient


def create_lambda_client(region: str) -> "LambdaClient":
    # An asynchronous invocation only waits until Lambda has queued the event.
    config = Config(retries={"mode": "standard", "total_max_attempts": 2}, connect_timeout=2, read_timeout=5)
    client: LambdaClient = create_client("lambda", region, config)
    return client


class LambdaFollowChecks(FollowChecks):
    """Invokes `function`, a name or an ARN, and does not wait for its result."""

    def __init__(self, client: "LambdaClient", function: str) -> None:
        self._client = client
        self._function = function

    def start(self, first: DueFollow | None = None) -> None:
        event = {} if first is None else {"first": asdict(first)}
        try:
            self._client.invoke(FunctionName=self._function, InvocationType="Event", Payload=json.dumps(event).encode())
        except CALL_ERRORS as error:
            raise StorageUnavailableError(f"Lambda Invoke failed ({read_error_code(error)}).") from error
