"""The key that signs models."""

from typing import Protocol

from modelhaul.domain.signatures import PublicKey


class SigningKey(Protocol):
    """An elliptic curve key whose private half never leaves its store.

    Every method raises SigningRefusedError if the key is missing, disabled or unsuitable, or access to it is denied,
    and StorageUnavailableError if the request fails.
    """

    def read_public_key(self) -> PublicKey:
        """Return the public key. Its `hash_name` is the hash of the digests that `sign` takes."""

    def sign(self, digest: bytes) -> bytes:
        """Return the ECDSA signature of a digest, DER-encoded."""
