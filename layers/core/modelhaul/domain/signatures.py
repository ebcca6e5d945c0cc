"""Signatures of models, and the keys that make them."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class PublicKey:
    """The public half of the signing key. `pem` is its SubjectPublicKeyInfo, `hash_name` the hash that it signs with
    (`sha256`, `sha384` or `sha512`).
    """

    arn: str
    pem: str
    hash_name: str


@dataclass(frozen=True, slots=True)
class ModelSignature:
    """The record of a model's signature. `public_key` is the PEM of the key that made it."""

    key_arn: str
    public_key: str
    signed_at: datetime
