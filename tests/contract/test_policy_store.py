"""PolicyStore: the fake, and the adapters of S3 and of Parameter Store."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from modelhaul.adapters.policy_stores import S3PolicyStore, create_ssm_client, open_policy_store
from modelhaul.adapters.s3_client import create_s3_client
from modelhaul.domain.errors import PolicyUnavailableError
from modelhaul.policy.document import MAX_DOCUMENT
from modelhaul.ports.policy_store import PolicyStore
from tests.contract.backends import BACKENDS, REGION, open_aws
from tests.fakes.policy_store import InMemoryPolicyStore

KINDS = [backend if backend == "fake" else f"{kind} on {backend}" for backend in BACKENDS for kind in ("s3", "ssm")]


@dataclass
class Setup:
    store: PolicyStore
    put: Callable[[bytes], object]


@pytest.fixture(params=dict.fromkeys(KINDS))
def setup(request: pytest.FixtureRequest) -> Iterator[Setup]:
    if request.param == "fake":
        fake = InMemoryPolicyStore()
        yield Setup(fake, lambda content: setattr(fake, "content", content))
        return
    kind, _, backend = request.param.partition(" on ")
    name = f"policy-{uuid.uuid4().hex}"
    with ExitStack() as stack:
        stack.enter_context(open_aws(backend))
        if kind == "s3":
            s3 = stack.enter_context(closing(create_s3_client(REGION)))
            s3.create_bucket(Bucket=name)
            store = open_policy_store(f"s3://{name}/rules/policy.json", REGION)
            yield Setup(store, lambda content: s3.put_object(Bucket=name, Key="rules/policy.json", Body=content))
        else:
            ssm: Any = stack.enter_context(closing(create_ssm_client(REGION)))
            store = open_policy_store(f"ssm:/contract/{name}", REGION)
            yield Setup(
                store,
                lambda content: ssm.put_parameter(
                    Name=f"/contract/{name}", Value=content.decode(), Type="String", Overwrite=True
                ),
            )


def test_the_current_document_is_read(setup: Setup) -> None:
    setup.put(b'{"version": 1}')
    first = setup.store.read_policy()
    assert first.content == b'{"version": 1}'
    assert setup.store.read_policy() == first
    setup.put('{"version": 1, "reason": "é"}'.encode())
    second = setup.store.read_policy()
    assert second.content == '{"version": 1, "reason": "é"}'.encode()
    assert second.version
    assert second.version != first.version
    assert first.modified_at <= second.modified_at <= datetime.now(UTC)


def test_a_missing_document_is_unavailable(setup: Setup) -> None:
    with pytest.raises(PolicyUnavailableError) as caught:
        setup.store.read_policy()
    assert setup.store.location in caught.value.detail
    assert "arn:" not in caught.value.detail
    assert caught.value.__cause__ is None


def test_an_object_of_a_versioned_bucket_has_its_version_id() -> None:
    with open_aws("moto"), closing(create_s3_client(REGION)) as s3:
        s3.create_bucket(Bucket="policies")
        store = S3PolicyStore(s3, "policies", "policy.json")
        etag = s3.put_object(Bucket="policies", Key="policy.json", Body=b"1")["ETag"]
        assert store.read_policy().version == etag.strip('"')
        s3.put_bucket_versioning(Bucket="policies", VersioningConfiguration={"Status": "Enabled"})
        assert store.read_policy().version == etag.strip('"')
        version = s3.put_object(Bucket="policies", Key="policy.json", Body=b"2")["VersionId"]
        assert store.read_policy().version == version


def test_a_large_object_is_not_read() -> None:
    with open_aws("moto"), closing(create_s3_client(REGION)) as s3:
        s3.create_bucket(Bucket="policies")
        store = S3PolicyStore(s3, "policies", "policy.json")
        s3.put_object(Bucket="policies", Key="policy.json", Body=bytes(MAX_DOCUMENT))
        assert len(store.read_policy().content) == MAX_DOCUMENT
        s3.put_object(Bucket="policies", Key="policy.json", Body=bytes(MAX_DOCUMENT + 1))
        with pytest.raises(PolicyUnavailableError, match="262,145 bytes"):
            store.read_policy()


@pytest.mark.parametrize("kind", ["SecureString", "StringList"])
def test_a_parameter_of_another_type_is_refused(kind: Any) -> None:
    with open_aws("moto"), closing(create_ssm_client(REGION)) as ssm:
        ssm.put_parameter(Name="/policy", Value="{}", Type=kind)
        with pytest.raises(PolicyUnavailableError, match=f"of type {kind}. It must be a String"):
            open_policy_store("ssm:/policy", REGION).read_policy()
