"""The function import_missing cannot be invoked, or fails."""

import io
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from botocore.awsrequest import AWSPreparedRequest
from botocore.exceptions import ReadTimeoutError
from botocore.response import StreamingBody
from botocore.stub import Stubber

from modelhaul.adapters.lambda_invoke import LambdaMissingModels, create_lambda_client
from modelhaul.domain.errors import StorageUnavailableError
from modelhaul.domain.read_keys import ALL_NAMES
from tests.contract.backends import REGION, open_aws

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient

SECRET = "arn:aws:secretsmanager:secret"


@pytest.fixture
def client() -> "Iterator[LambdaClient]":
    with open_aws("moto"), closing(create_lambda_client(REGION)) as client:
        yield client


def request_import(client: "LambdaClient") -> str:
    """Return the message of the error."""
    with pytest.raises(StorageUnavailableError) as caught:
        LambdaMissingModels(client, "import-missing").request_import("org/tiny", "main", names=ALL_NAMES)
    assert SECRET not in caught.value.detail
    return caught.value.detail


@pytest.mark.parametrize("code", ["TooManyRequestsException", "AccessDeniedException", "ServiceException"])
def test_a_refused_invocation_is_an_error(client: "LambdaClient", code: str) -> None:
    with Stubber(client) as stubber:
        stubber.add_client_error("invoke", code, SECRET, 429)
        assert request_import(client) == f"Lambda Invoke failed ({code})."


def test_an_error_of_the_function_is_told_without_its_message(client: "LambdaClient") -> None:
    payload = f'{{"errorMessage": "{SECRET}", "errorType": "KeyError"}}'.encode()
    response = {
        "StatusCode": 200,
        "FunctionError": "Unhandled",
        "Payload": StreamingBody(io.BytesIO(payload), len(payload)),
    }
    with Stubber(client) as stubber:
        stubber.add_response("invoke", response)
        assert request_import(client) == "The function import_missing failed (Unhandled)."


def test_an_invocation_that_takes_too_long_is_not_repeated(client: "LambdaClient") -> None:
    sent: list[str] = []

    def time_out(request: AWSPreparedRequest, **_: object) -> Any:
        sent.append(request.url)
        raise ReadTimeoutError(endpoint_url="https://lambda")

    client.meta.events.register_first("before-send.lambda.Invoke", time_out)
    assert request_import(client) == "Lambda Invoke failed (ReadTimeoutError)."
    assert len(sent) == 1
