"""The store of the policy does not respond, or denies access: nothing is imported until it does."""

from collections.abc import Iterator
from contextlib import closing
from io import BytesIO
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from botocore.response import StreamingBody
from botocore.stub import Stubber

from modelhaul.adapters.policy_stores import S3PolicyStore, SsmPolicyStore, create_ssm_client
from modelhaul.adapters.s3_client import create_s3_client
from modelhaul.domain.errors import PolicyUnavailableError
from modelhaul.ports.policy_store import PolicyStore
from tests.contract.backends import REGION, open_aws

type Setup = tuple[PolicyStore, Any, str]
"""The store, its client, and the operation that it calls."""


@pytest.fixture(params=["s3", "ssm"])
def setup(request: pytest.FixtureRequest) -> Iterator[Setup]:
    with open_aws("moto"):
        if request.param == "s3":
            with closing(create_s3_client(REGION)) as s3:
                yield S3PolicyStore(s3, "bucket", "policy.json"), s3, "get_object"
        else:
            with closing(create_ssm_client(REGION)) as ssm:
                yield SsmPolicyStore(ssm, "/policy"), ssm, "get_parameter"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("AccessDenied", 403),
        ("NoSuchBucket", 404),
        ("ParameterNotFound", 400),
        ("ThrottlingException", 400),
        ("InternalError", 500),
    ],
)
def test_every_error_makes_the_policy_unavailable(setup: Setup, code: str, status: int) -> None:
    store, client, operation = setup
    with Stubber(client) as stubber:
        stubber.add_client_error(operation, code, "no access to arn:aws:s3:::bucket/policy.json", status)
        with pytest.raises(PolicyUnavailableError, match=rf"cannot be read: .* failed \({code}\)\.") as caught:
            store.read_policy()
    assert caught.value.is_outage
    assert "arn:" not in caught.value.detail
    assert caught.value.__cause__ is None


def test_a_connection_that_cannot_be_opened(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    store, client, _ = setup

    def refuse(*_args: object) -> None:
        raise EndpointConnectionError(endpoint_url="http://127.0.0.1:1")

    monkeypatch.setattr(client, "_make_api_call", refuse)
    with pytest.raises(PolicyUnavailableError, match="EndpointConnectionError"):
        store.read_policy()


def test_a_body_that_ends_early_is_no_document() -> None:
    with open_aws("moto"), closing(create_s3_client(REGION)) as s3, Stubber(s3) as stubber:
        body = StreamingBody(BytesIO(b'{"version": 1}'), 20)
        stubber.add_response("get_object", {"Body": body, "ContentLength": 20, "ETag": '"1"'})
        with pytest.raises(PolicyUnavailableError, match="IncompleteReadError"):
            S3PolicyStore(s3, "bucket", "policy.json").read_policy()
