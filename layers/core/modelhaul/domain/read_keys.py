"""Keys with which Hub clients read models."""

import hashlib
import hmac
import re
import secrets
import string
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum

# llama.cpp ignores tokens of another form or length.
KEY_PATTERN = re.compile(r"hf_[A-Za-z0-9]{37,253}")

MAX_KEY_NAME = 100  # characters

_ALPHABET = string.ascii_letters + string.digits
_LENGTH = 40  # random characters: 238 bits


class Scope(StrEnum):
    READ = "read"  # read models
    IMPORT = "import"  # start the import of a model that is requested and missing


@dataclass(frozen=True, slots=True)
class ReadKey:
    """A key's record. It has the SHA-256 of the key (64 hexadecimal digits) instead of the key.

    `scopes` always contains READ. `expires_at`: None for a key that does not expire. `last_used_on`: day in UTC.
    `created_by` names the caller, see `modelhaul.domain.callers`; None if AWS did not pass one.
    """

    key_id: str
    name: str
    digest: str
    scopes: tuple[Scope, ...]
    created_at: datetime
    expires_at: datetime | None = None
    last_used_on: date | None = None
    created_by: str | None = None


def create_key(
    name: str,
    scopes: Iterable[Scope],
    expires_at: datetime | None,
    now: datetime,
    *,
    created_by: str | None = None,
) -> tuple[str, ReadKey]:
    """Create a random key and its record. Raises ValueError for an invalid name, see `is_key_name`."""
    if not is_key_name(name):
        raise ValueError(f"invalid name of a key: {name!r}")
    key = "hf_" + "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))
    granted = {Scope.READ, *scopes}
    record = ReadKey(
        key_id=identify_key(key),
        name=name,
        digest=_hash_key(key),
        scopes=tuple(scope for scope in Scope if scope in granted),
        created_at=now,
        expires_at=expires_at,
        created_by=created_by,
    )
    return key, record


def is_key_name(text: str) -> bool:
    """Return whether the text is a valid name of a key: 1 to 100 printable characters, not only spaces."""
    return 0 < len(text) <= MAX_KEY_NAME and text.isprintable() and not text.isspace()


def identify_key(key: str) -> str:
    """Return the ID of a key: the first 16 digits of its SHA-256, which do not reveal the key."""
    return _hash_key(key)[:16]


def check_key(record: ReadKey, key: str, now: datetime) -> bool:
    """Return whether `record` is the record of this key, and the key has not expired at `now`."""
    is_same = hmac.compare_digest(record.digest, _hash_key(key))
    return is_same and (record.expires_at is None or now < record.expires_at)


def _hash_key(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
