"""MissingModels on AWS Lambda: the function import_missing."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from botocore.config import Config

from modelhaul.adapters.aws import CALL_ERRORS, create_client, read_error_code
from modelhaul.domain.errors import StorageUnavailableError
from modelhaul.ports.missing_models import (
    FailedImport,
    MissingModel,
    MissingModelError,
    UpstreamDocument,
    UpstreamFile,
    UpstreamRequest,
    UpstreamVersion,
)

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient

# Seconds. The invoking function times out after 25, and the invoked function after 20 and its cold start.
CONNECT_TIMEOUT = 2
READ_TIMEOUT = 22


def create_lambda_client(region: str) -> "LambdaClient":
    # One attempt: a second one would not end in time, and clients retry a 503.
    config = Config(
        retries={"mode": "standard", "total_max_attempts": 1},
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=READ_TIMEOUT,
    )
    client: LambdaClient = create_client("lambda", region, config)
    return client


class LambdaMissingModels:
    """Invokes `function`, a name or an ARN, and waits for its result."""

    def __init__(self, client: "LambdaClient", function: str) -> None:
        self._client = client
        self._function = function

    def request_import(
        self,
        name: str,
        revision: str,
        *,
        names: tuple[str, ...],
        model_id: str | None = None,
        upstream: UpstreamRequest | None = None,
        submitted_by: str | None = None,
    ) -> MissingModel:
        event = {
            "name": name,
            "revision": revision,
            "names": names,
            "model_id": model_id,
            "upstream": asdict(upstream) if upstream else None,
            "submitted_by": submitted_by,
        }
        try:
            response = self._client.invoke(
                FunctionName=self._function, InvocationType="RequestResponse", Payload=json.dumps(event)
            )
            payload = response["Payload"].read()
        except CALL_ERRORS as error:
            raise StorageUnavailableError(f"Lambda Invoke failed ({read_error_code(error)}).") from error
        if failure := response.get("FunctionError"):
            # The payload is omitted: it contains the message of an unexpected exception.
            raise StorageUnavailableError(f"The function import_missing failed ({failure}).")
        return _read_result(json.loads(payload))


def _read_result(result: dict[str, Any]) -> MissingModel:
    failure, upstream, error = result["failure"], result["upstream"], result["error"]
    return MissingModel(
        task_id=result["task_id"],
        failure=FailedImport(**failure) if failure else None,
        upstream=_read_version(upstream) if upstream else None,
        error=MissingModelError(**error) if error else None,
    )


def _read_version(version: dict[str, Any]) -> UpstreamVersion:
    file, document = version["file"], version["document"]
    return UpstreamVersion(
        version["name"],
        version["commit"],
        file=UpstreamFile(**file) if file else None,
        document=UpstreamDocument(**document) if document else None,
    )
