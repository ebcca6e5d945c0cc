from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from modelhaul.domain.signatures import PublicKey

ARN = "arn:aws:kms:us-east-1:123456789012:key/1a2b3c4d-5e6f-4a7b-8c9d-0e1f2a3b4c5d"
HASHES = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}


class LocalSigningKey:
    """A real key in memory. `refusal` is raised instead of a signature."""

    def __init__(self, curve: ec.EllipticCurve | None = None, *, arn: str = ARN) -> None:
        self._key = ec.generate_private_key(curve or ec.SECP256R1())
        self._hash = HASHES[self._key.key_size]
        self._arn = arn
        self.refusal: Exception | None = None
        self.signed = 0

    def read_public_key(self) -> PublicKey:
        pem = self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return PublicKey(self._arn, pem.decode(), self._hash.name)

    def sign(self, digest: bytes) -> bytes:
        if self.refusal is not None:
            raise self.refusal
        self.signed += 1
        return self._key.sign(digest, ec.ECDSA(Prehashed(self._hash)))
