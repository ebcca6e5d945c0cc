import uuid
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from modelhaul.adapters.secrets import SecretsManagerSecretStore, create_secrets_client
from modelhaul.domain.errors import CredentialsRefusedError
from modelhaul.ports.secret_store import SecretStore
from tests.contract.backends import BACKENDS, REGION, open_aws
from tests.fakes.secret_store import InMemorySecretStore

type Setup = tuple[SecretStore, Callable[[str], str]]
"""The store, and a function that stores a text and returns the secret's id."""


@pytest.fixture(params=BACKENDS)
def setup(request: pytest.FixtureRequest) -> Iterator[Setup]:
    if request.param == "fake":
        fake = InMemorySecretStore()

        def put_fake(text: str) -> str:
            secret_id = f"contract-{uuid.uuid4().hex}"
            fake.put_secret(secret_id, text)
            return secret_id

        yield fake, put_fake
        return
    with open_aws(request.param), closing(create_secrets_client(REGION)) as client:

        def put(text: str) -> str:
            return client.create_secret(Name=f"contract-{uuid.uuid4().hex}", SecretString=text)["ARN"]

        yield SecretsManagerSecretStore(client), put


def test_a_secret_is_read(setup: Setup) -> None:
    store, put = setup
    first, second = put("hf_first"), put("hf_sécond\n")
    assert store.read_secret(first) == "hf_first"
    assert store.read_secret(second) == "hf_sécond\n"
    assert store.read_secret(first) == "hf_first"


def test_a_missing_secret_is_refused(setup: Setup) -> None:
    store, _ = setup
    missing = "arn:aws:secretsmanager:us-east-1:123456789012:secret:missing-AbCdEf"
    with pytest.raises(CredentialsRefusedError, match="secret cannot be read") as caught:
        store.read_secret(missing)
    assert "arn:" not in caught.value.detail
    assert caught.value.__cause__ is None
