"""What a contract suite runs over: the fake, the adapter on moto, the adapter on a real endpoint.

`MODELHAUL_CONTRACT_ENDPOINT` (such as `http://127.0.0.1:4566`) names the endpoint; without it there is none.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http import HTTPStatus
from typing import Any, Protocol

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from moto import mock_aws
from moto.core.exceptions import JsonRESTError as UnsupportedKeyError
from moto.core.serialize import AttributePicker, AttributePickerContext
from moto.kms.responses import KmsResponse
from moto.kms.utils import ECDSAPrivateKey
from moto.s3.exceptions import MissingKey, NoSuchUpload
from moto.s3.models import S3Backend
from moto.s3.responses import S3Response

from modelhaul.adapters.aws import open_session

REGION = "us-east-1"

ENDPOINT = os.environ.get("MODELHAUL_CONTRACT_ENDPOINT")
BACKENDS = ["fake", "moto", *(["endpoint"] if ENDPOINT else [])]


class Closable(Protocol):
    def close(self) -> None: ...


@contextmanager
def open_aws(backend: str) -> Iterator[None]:
    """Clients that are created inside speak to `backend` (`moto` or `endpoint`)."""
    with pytest.MonkeyPatch.context() as patch:
        # A session keeps the credentials that it found, and is moto's only if it was opened after moto was loaded.
        open_session.cache_clear()
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.delenv("AWS_PROFILE", raising=False)
        if backend == "endpoint":
            assert ENDPOINT is not None
            patch.setenv("AWS_ENDPOINT_URL", ENDPOINT)
            yield
        else:
            patch.delenv("AWS_ENDPOINT_URL", raising=False)
            # botocore lists no regions for EventBridge, and moto then knows none.
            patch.setenv("MOTO_ALLOW_NONEXISTENT_REGION", "true")
            _mend_moto(patch)
            _mend_kms(patch)
            _speed_up_moto(patch)
            with mock_aws():
                yield


@contextmanager
def open_client[ClientT: Closable](backend: str, create: Callable[[str], ClientT]) -> Iterator[ClientT | None]:
    """A client that speaks to `backend`; None for the fake."""
    if backend == "fake":
        yield None
        return
    with open_aws(backend), closing(create(REGION)) as client:
        yield client


def _mend_moto(patch: pytest.MonkeyPatch) -> None:
    """S3 answers NoSuchUpload where moto raises KeyError, and NoSuchKey where moto only says 404."""

    def mend(name: str) -> None:
        original = getattr(S3Backend, name)

        def call(self: S3Backend, bucket_name: str, multipart_id: str, *args: Any, **kwargs: Any) -> Any:
            if multipart_id not in self.get_bucket(bucket_name).multiparts:
                raise NoSuchUpload(upload_id=multipart_id)
            return original(self, bucket_name, multipart_id, *args, **kwargs)

        patch.setattr(S3Backend, name, call)

    mend("upload_part")
    mend("upload_part_copy")
    mend("complete_multipart_upload")

    copy_part = S3Response.upload_part_copy

    def call_copy_part(self: S3Response) -> Any:
        answer = copy_part(self)
        if answer[0] == HTTPStatus.NOT_FOUND:
            raise MissingKey
        return answer

    patch.setattr(S3Response, "upload_part_copy", call_copy_part)


def _mend_kms(patch: pytest.MonkeyPatch) -> None:
    """KMS returns the KeySpec of a public key, refuses symmetric keys, and does not hash a message that is a digest."""
    describe = KmsResponse.get_public_key

    def get_public_key(self: KmsResponse) -> str:
        self._validate_key_id(self._get_param("KeyId"))
        if self.kms_backend.describe_key(self._get_param("KeyId")).key_usage != "SIGN_VERIFY":
            raise UnsupportedKeyError("UnsupportedOperationException", "The key is symmetric.")
        found = json.loads(describe(self))
        return json.dumps({**found, "KeySpec": found["CustomerMasterKeySpec"]})

    def sign(self: ECDSAPrivateKey, message: bytes, signing_algorithm: str) -> bytes:
        algorithm = {32: SHA256(), 48: SHA384(), 64: SHA512()}[len(message)]
        return self.private_key.sign(message, ECDSA(Prehashed(algorithm)))

    patch.setattr(KmsResponse, "get_public_key", get_public_key)
    patch.setattr(ECDSAPrivateKey, "sign", sign)


def _speed_up_moto(patch: pytest.MonkeyPatch) -> None:
    """Moto looks for each member of a DynamoDB value (S, N, SS, …) by several spellings of its name. These values are
    dicts with exactly these names.
    """
    original = AttributePicker.__call__

    def pick(self: AttributePicker, context: AttributePickerContext) -> Any:
        parent = getattr(context.shape, "parent", None)
        if parent is not None and parent.name == "AttributeValue" and isinstance(context.obj, dict):
            return context.obj.get(context.key)
        return original(self, context)

    patch.setattr(AttributePicker, "__call__", pick)
