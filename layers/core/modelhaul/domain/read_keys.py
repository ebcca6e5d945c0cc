"""Keys with which Hub clients read models."""

import hashlib
import hmac
import re
import secrets
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum

from modelhaul.domain.name_patterns import is_name_pattern

# llama.cpp ignores tokens of another form or length.
KEY_PATTERN = re.compile(r"hf_[A-Za-z0-9]{37,253}")

MAX_KEY_NAME = 100  # characters

# Name patterns of a key. API Gateway passes them to the function with the other values of the authorizer's result.
MAX_NAMES = 20
ALL_NAMES = ("*",)

_ALPHABET = string.ascii_letters + string.digits
_LENGTH = 40  # random characters: 238 bits


class Scope(StrEnum):
    READ = "read"  # read models
    IMPORT = "import"  # start the import of a model that is requested and missing


@dataclass(frozen=True, slots=True)
class ReadKey:
    """A key's record. It has a digest (64 hexadecimal digits) instead of the key.

    `digest` is the SHA-256 of the key, or of the key and its `names` if it cannot read all models. A record whose
    `names` are lost or changed therefore fits no key. `names`: patterns of the `hub_id` of models, see
    `modelhaul.domain.name_patterns`.

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
    names: tuple[str, ...] = ALL_NAMES


def create_key(
    name: str,
    scopes: Iterable[Scope],
    expires_at: datetime | None,
    now: datetime,
    *,
    names: Iterable[str] = ALL_NAMES,
    created_by: str | None = None,
) -> tuple[str, ReadKey]:
    """Create a random key and its record.

    Raises ValueError for an invalid name, see `is_key_name`, and for invalid `names`, see `are_key_names`.
    """
    if not is_key_name(name):
        raise ValueError(f"invalid name of a key: {name!r}")
    names = tuple(names)
    if not are_key_names(names):
        raise ValueError(f"invalid name patterns of a key: {names!r}")
    key = "hf_" + "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))
    granted = {Scope.READ, *scopes}
    record = ReadKey(
        key_id=identify_key(key),
        name=name,
        digest=_hash_key(key, names),
        scopes=tuple(scope for scope in Scope if scope in granted),
        created_at=now,
        expires_at=expires_at,
        created_by=created_by,
        names=names,
    )
    return key, record


def is_key_name(text: str) -> bool:
    """Return whether the text is a valid name of a key: 1 to 100 printable characters, not only spaces."""
    return 0 < len(text) <= MAX_KEY_NAME and text.isprintable() and not text.isspace()


def are_key_names(names: Sequence[str]) -> bool:
    """Return whether these are 1 to 20 valid name patterns."""
    return 0 < len(names) <= MAX_NAMES and all(map(is_name_pattern, names))


def identify_key(key: str) -> str:
    """Return the ID of a key: the first 16 digits of its SHA-256, which do not reveal the key."""
    return _hash_key(key, ALL_NAMES)[:16]


def check_key(record: ReadKey, key: str, now: datetime) -> bool:
    """Return whether `record` is the record of this key, and the key has not expired at `now`."""
    is_same = hmac.compare_digest(record.digest, _hash_key(key, record.names))
    return is_same and (record.expires_at is None or now < record.expires_at)


def _hash_key(key: str, names: tuple[str, ...]) -> str:
    hashed = (key,) if names == ALL_NAMES else (key, *names)
    return hashlib.sha256("\n".join(hashed).encode()).hexdigest()
