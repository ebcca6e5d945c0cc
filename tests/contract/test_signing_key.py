"""What every key that signs models does."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from modelhaul.adapters.kms import KmsSigningKey, create_kms_client
from modelhaul.domain.errors import SigningRefusedError
from modelhaul.ports.signing_key import SigningKey
from tests.contract.backends import BACKENDS, REGION, open_aws
from tests.fakes.signing_key import LocalSigningKey

CURVES: dict[str, tuple[ec.EllipticCurve, hashes.HashAlgorithm]] = {
    "ECC_NIST_P256": (ec.SECP256R1(), hashes.SHA256()),
    "ECC_NIST_P384": (ec.SECP384R1(), hashes.SHA384()),
    "ECC_NIST_P521": (ec.SECP521R1(), hashes.SHA512()),
}
type CreateKey = Callable[[str], SigningKey]


@pytest.fixture(params=BACKENDS)
def create_key(request: pytest.FixtureRequest) -> Iterator[CreateKey]:
    """A function that creates a key of the key spec."""
    if request.param == "fake":
        yield lambda spec: LocalSigningKey(CURVES[spec][0])
        return
    with open_aws(request.param), closing(create_kms_client(REGION)) as client:

        def create(spec: Any) -> SigningKey:
            return KmsSigningKey(client, client.create_key(KeySpec=spec, KeyUsage="SIGN_VERIFY")["KeyMetadata"]["Arn"])

        yield create


@pytest.mark.parametrize("spec", CURVES)
def test_signature_is_verified_with_the_public_key(create_key: CreateKey, spec: str) -> None:
    curve, algorithm = CURVES[spec]
    key = create_key(spec)
    public = key.read_public_key()
    assert public.arn.startswith("arn:aws:kms:")
    assert public.hash_name == algorithm.name
    loaded = load_pem_public_key(public.pem.encode())
    assert isinstance(loaded, ec.EllipticCurvePublicKey)
    assert loaded.curve.name == curve.name
    # Verifiers compare the hash of the PEM.
    assert loaded.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode() == public.pem
    digest = hashlib.new(public.hash_name, b"statement").digest()
    signature = key.sign(digest)
    loaded.verify(signature, digest, ec.ECDSA(Prehashed(algorithm)))
    with pytest.raises(InvalidSignature):
        loaded.verify(signature, bytes(len(digest)), ec.ECDSA(Prehashed(algorithm)))


@pytest.mark.parametrize("backend", BACKENDS[1:])
class TestKms:
    def test_unusable_key_is_refused(self, backend: str) -> None:
        with open_aws(backend), closing(create_kms_client(REGION)) as client:
            symmetric = client.create_key()["KeyMetadata"]["Arn"]
            rsa = client.create_key(KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["Arn"]
            missing = f"{symmetric.rpartition('/')[0]}/{'0' * 8}-0000-4000-8000-{'0' * 12}"
            for arn in (symmetric, rsa, missing):
                with pytest.raises(SigningRefusedError) as caught:
                    KmsSigningKey(client, arn).read_public_key()
                assert "arn:" not in caught.value.detail

    def test_disabled_key_is_refused(self, backend: str) -> None:
        if backend == "moto":
            pytest.skip("moto signs with disabled keys")
        with open_aws(backend), closing(create_kms_client(REGION)) as client:
            arn = client.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["Arn"]
            key = KmsSigningKey(client, arn)
            key.read_public_key()
            client.disable_key(KeyId=arn)
            with pytest.raises(SigningRefusedError, match="DisabledException"):
                key.sign(bytes(32))
