"""KMS does not sign: for the moment, or until somebody corrects the key."""

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import EndpointConnectionError
from botocore.stub import Stubber

from modelhaul.adapters.kms import KmsSigningKey, create_kms_client
from modelhaul.domain.errors import SigningRefusedError, StorageUnavailableError
from tests.contract.backends import REGION, open_aws

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient

ARN = "arn:aws:kms:us-east-1:123456789012:key/1a2b3c4d-5e6f-4a7b-8c9d-0e1f2a3b4c5d"
# Code, status and whether a later attempt may succeed: https://docs.aws.amazon.com/kms/latest/APIReference/API_Sign.html
TEMPORARY = [
    ("KMSInternalException", 500),
    ("KeyUnavailableException", 500),
    ("DependencyTimeoutException", 503),
    ("ThrottlingException", 400),
]
PERMANENT = [
    "AccessDeniedException",
    "DisabledException",
    "InvalidKeyUsageException",
    "KMSInvalidStateException",
    "NotFoundException",
    "ValidationException",
]
PUBLIC = {"KeyId": ARN, "PublicKey": b"der" * 30, "KeySpec": "ECC_NIST_P256", "KeyUsage": "SIGN_VERIFY"}


@pytest.fixture(scope="module")
def client() -> "Iterator[KMSClient]":
    with open_aws("moto"), closing(create_kms_client(REGION)) as client:
        yield client


@pytest.fixture
def stubber(client: "KMSClient") -> Iterator[Stubber]:
    with Stubber(client) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


@pytest.fixture
def key(client: "KMSClient") -> KmsSigningKey:
    return KmsSigningKey(client, ARN)


def refuse(stubber: Stubber, operation: str, code: str, status: int) -> None:
    if operation == "sign":
        stubber.add_response("get_public_key", PUBLIC)
    stubber.add_client_error(operation, code, f"no access to {ARN}", http_status_code=status)


@pytest.mark.parametrize("operation", ["get_public_key", "sign"])
@pytest.mark.parametrize(("code", "status"), TEMPORARY)
def test_temporary_error_is_an_outage(
    key: KmsSigningKey, stubber: Stubber, operation: str, code: str, status: int
) -> None:
    refuse(stubber, operation, code, status)
    with pytest.raises(StorageUnavailableError, match=code) as caught:
        key.sign(bytes(32))
    assert caught.value.is_outage
    assert "arn:" not in caught.value.detail


@pytest.mark.parametrize("operation", ["get_public_key", "sign"])
@pytest.mark.parametrize("code", PERMANENT)
def test_unusable_key_ends_the_import(key: KmsSigningKey, stubber: Stubber, operation: str, code: str) -> None:
    refuse(stubber, operation, code, 400)
    with pytest.raises(SigningRefusedError, match=code) as caught:
        key.sign(bytes(32))
    assert "arn:" not in caught.value.detail
    assert caught.value.__cause__ is None


def test_other_error_is_retried_as_a_failed_step(key: KmsSigningKey, stubber: Stubber) -> None:
    refuse(stubber, "sign", "UnrecognizedClientException", 400)
    with pytest.raises(StorageUnavailableError) as caught:
        key.sign(bytes(32))
    assert not caught.value.is_outage


def test_refused_connection_is_an_outage(
    client: "KMSClient", key: KmsSigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse_connection(**_: object) -> None:
        raise EndpointConnectionError(endpoint_url="https://kms")

    monkeypatch.setattr(client, "get_public_key", refuse_connection)
    with pytest.raises(StorageUnavailableError) as caught:
        key.read_public_key()
    assert caught.value.is_outage


@pytest.mark.parametrize(
    ("spec", "usage"),
    [("RSA_2048", "SIGN_VERIFY"), ("ECC_SECG_P256K1", "SIGN_VERIFY"), ("ECC_NIST_P256", "KEY_AGREEMENT")],
)
def test_key_that_model_signing_does_not_support_is_refused(
    key: KmsSigningKey, stubber: Stubber, spec: str, usage: str
) -> None:
    stubber.add_response("get_public_key", {**PUBLIC, "KeySpec": spec, "KeyUsage": usage})
    with pytest.raises(SigningRefusedError, match=f"{spec} for {usage}"):
        key.read_public_key()


def test_public_key_is_read_once(key: KmsSigningKey, stubber: Stubber) -> None:
    stubber.add_response("get_public_key", PUBLIC, {"KeyId": ARN})
    for _ in range(2):
        stubber.add_response(
            "sign",
            {"Signature": b"signature"},
            {"KeyId": ARN, "Message": bytes(32), "MessageType": "DIGEST", "SigningAlgorithm": "ECDSA_SHA_256"},
        )
        assert key.sign(bytes(32)) == b"signature"
