"""What the adapter of Secrets Manager remembers, and what it makes of refusals."""

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from botocore.stub import Stubber

from modelhaul.adapters.secrets import SecretsManagerSecretStore, create_secrets_client
from modelhaul.domain.errors import CredentialsRefusedError, StorageUnavailableError
from tests.contract.backends import REGION, open_aws
from tests.fakes.clock import ManualClock

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

ARN = "arn:aws:secretsmanager:us-east-1:123456789012:secret:token-AbCdEf"


@pytest.fixture(scope="module")
def client() -> "Iterator[SecretsManagerClient]":
    with open_aws("moto"), closing(create_secrets_client(REGION)) as client:
        yield client


@pytest.fixture
def stubber(client: "SecretsManagerClient") -> Iterator[Stubber]:
    with Stubber(client) as stubber:
        yield stubber


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(0.0)


@pytest.fixture
def store(client: "SecretsManagerClient", clock: ManualClock) -> SecretsManagerSecretStore:
    return SecretsManagerSecretStore(client, clock=clock)


def answer(stubber: Stubber, text: str) -> None:
    stubber.add_response("get_secret_value", {"SecretString": text}, {"SecretId": ARN})


def test_a_secret_is_remembered_for_five_minutes(
    store: SecretsManagerSecretStore, stubber: Stubber, clock: ManualClock
) -> None:
    answer(stubber, "old")
    assert store.read_secret(ARN) == "old"
    clock.now = 299.9
    assert store.read_secret(ARN) == "old"
    answer(stubber, "new")
    clock.now = 300.0
    assert store.read_secret(ARN) == "new"
    stubber.assert_no_pending_responses()


@pytest.mark.parametrize(
    "code",
    ["ResourceNotFoundException", "AccessDeniedException", "InvalidRequestException", "DecryptionFailure"],
)
def test_a_secret_that_is_not_ours_is_refused_and_asked_for_again(
    store: SecretsManagerSecretStore, stubber: Stubber, code: str
) -> None:
    stubber.add_client_error("get_secret_value", code, f"User is not authorized on {ARN}")
    with pytest.raises(CredentialsRefusedError, match=code) as caught:
        store.read_secret(ARN)
    assert "arn:" not in caught.value.detail
    answer(stubber, "text")
    assert store.read_secret(ARN) == "text"


def test_an_outage_is_unavailable_storage(store: SecretsManagerSecretStore, stubber: Stubber) -> None:
    stubber.add_client_error("get_secret_value", "InternalServiceError", ARN)
    with pytest.raises(StorageUnavailableError, match=r"^Secrets Manager GetSecretValue failed \(InternalServiceE"):
        store.read_secret(ARN)


def test_a_binary_secret_is_refused(store: SecretsManagerSecretStore, stubber: Stubber) -> None:
    stubber.add_response("get_secret_value", {"SecretBinary": b"\\x00"}, {"SecretId": ARN})
    with pytest.raises(CredentialsRefusedError, match="binary"):
        store.read_secret(ARN)
