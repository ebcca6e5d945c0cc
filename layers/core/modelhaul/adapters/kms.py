"""SigningKey on AWS KMS."""

import base64
from typing import TYPE_CHECKING

from botocore.config import Config

from modelhaul.adapters.aws import CALL_ERRORS, create_client, is_temporary, read_error_code
from modelhaul.domain.errors import ModelhaulError, SigningRefusedError, StorageUnavailableError
from modelhaul.domain.signatures import PublicKey

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient
    from mypy_boto3_kms.literals import SigningAlgorithmSpecType

# https://docs.aws.amazon.com/kms/latest/APIReference/API_Sign.html#API_Sign_Errors
_PERMANENT_CODES = frozenset(
    {
        "AccessDeniedException",
        "DisabledException",
        "InvalidArnException",
        "InvalidKeyUsageException",
        "KMSInvalidStateException",  # such as a key that is scheduled for deletion
        "NotFoundException",
        "UnsupportedOperationException",  # a symmetric key has no public key
        "ValidationException",
    }
)
# The curves of OpenSSF Model Signing, with their hashes.
_ALGORITHMS: dict[str, tuple[str, "SigningAlgorithmSpecType"]] = {
    "ECC_NIST_P256": ("sha256", "ECDSA_SHA_256"),
    "ECC_NIST_P384": ("sha384", "ECDSA_SHA_384"),
    "ECC_NIST_P521": ("sha512", "ECDSA_SHA_512"),
}
_PEM_WIDTH = 64  # characters of a line: https://www.rfc-editor.org/rfc/rfc7468#section-2


def create_kms_client(region: str) -> "KMSClient":
    client: KMSClient = create_client(
        "kms", region, Config(retries={"mode": "standard", "total_max_attempts": 4}, connect_timeout=3, read_timeout=5)
    )
    return client


class KmsSigningKey:
    """The key with this ARN. Its public key, which never changes, is read once."""

    def __init__(self, client: "KMSClient", arn: str) -> None:
        self._client = client
        self._arn = arn
        self._known: tuple[PublicKey, SigningAlgorithmSpecType] | None = None

    def read_public_key(self) -> PublicKey:
        return self._read_key()[0]

    def sign(self, digest: bytes) -> bytes:
        _, algorithm = self._read_key()
        try:
            response = self._client.sign(
                KeyId=self._arn, Message=digest, MessageType="DIGEST", SigningAlgorithm=algorithm
            )
        except CALL_ERRORS as error:
            raise _create_error("Sign", error) from None
        return response["Signature"]

    def _read_key(self) -> "tuple[PublicKey, SigningAlgorithmSpecType]":
        if self._known is None:
            try:
                response = self._client.get_public_key(KeyId=self._arn)
            except CALL_ERRORS as error:
                raise _create_error("GetPublicKey", error) from None
            spec = response["KeySpec"]
            if spec not in _ALGORITHMS or response["KeyUsage"] != "SIGN_VERIFY":
                raise SigningRefusedError(
                    f"The signing key is of type {spec} for {response['KeyUsage']}. It cannot sign models."
                )
            hash_name, algorithm = _ALGORITHMS[spec]
            self._known = PublicKey(self._arn, _encode_pem(response["PublicKey"]), hash_name), algorithm
        return self._known


def _create_error(operation: str, error: Exception) -> ModelhaulError:
    """Return the error without its cause, which contains ARNs."""
    code = read_error_code(error)
    if code in _PERMANENT_CODES:
        return SigningRefusedError(f"The model cannot be signed: KMS {operation} failed ({code}).")
    return StorageUnavailableError(f"KMS {operation} failed ({code}).", is_outage=is_temporary(error))


def _encode_pem(der: bytes) -> str:
    """Return the PEM of a public key exactly as OpenSSL writes it: verifiers compare its SHA-256."""
    text = base64.b64encode(der).decode()
    lines = [text[start : start + _PEM_WIDTH] for start in range(0, len(text), _PEM_WIDTH)]
    return "\n".join(["-----BEGIN PUBLIC KEY-----", *lines, "-----END PUBLIC KEY-----", ""])
