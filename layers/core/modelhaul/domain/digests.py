"""Digests that sources publish, and a hasher whose state can be passed from one function to the next."""

import ctypes
import hashlib
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any, ClassVar, Protocol, Self

from modelhaul.domain.errors import ArchiveRefusedError, DigestMismatchError

_SHA256_STATE = 112  # sizeof(SHA256_CTX), openssl/sha.h

type Bytes = bytes | bytearray | memoryview


class Algorithm(StrEnum):
    SHA256 = "sha256"
    # sha1 of b"blob <size>\0" + content: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects
    GIT_SHA1 = "git-sha1"
    CRC32 = "crc32"  # of a ZIP entry: detects damage, but does not identify content

    @property
    def identifies(self) -> bool:
        """Return whether equal digests mean equal content."""
        return self is not Algorithm.CRC32


@dataclass(frozen=True, slots=True)
class Digest:
    """A published digest; `str()` gives `sha256:<64 hex>`, `git-sha1:<40 hex>` or `crc32:<8 hex>`."""

    algorithm: Algorithm
    value: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.value}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse the form that `str()` returns. Raises ValueError for any other text."""
        algorithm, _, value = text.partition(":")
        length = {"sha256": 64, "git-sha1": 40, "crc32": 8}.get(algorithm)
        if len(value) != length or value.strip("0123456789abcdef"):
            raise ValueError(f"invalid digest: {text!r}")
        return cls(Algorithm(algorithm), value)


class _ResumableHash(Protocol):
    def update(self, data: Bytes, /) -> None: ...
    def hexdigest(self) -> str: ...
    def export_state(self) -> bytes | None: ...


class _LibcryptoHash:
    """SHA-256 or SHA-1 through OpenSSL's low-level functions, whose context is a flat struct that can be stored.

    hashlib cannot export its state. The functions are deprecated in OpenSSL 3 but remain in its ABI
    (https://docs.openssl.org/3.0/man3/SHA256_Init/); `_load_libcrypto` tests them before they are used.
    """

    # sizeof(SHA256_CTX) and sizeof(SHA_CTX), openssl/sha.h.
    _LAYOUT: ClassVar = {"sha256": ("SHA256", 112, 32), "sha1": ("SHA1", 96, 20)}

    def __init__(self, library: ctypes.CDLL, name: str, state: bytes | None = None) -> None:
        prefix, context_size, self._digest_size = self._LAYOUT[name]
        self._update = library[f"{prefix}_Update"]
        self._final = library[f"{prefix}_Final"]
        self._context = ctypes.create_string_buffer(context_size)
        if state is None:
            library[f"{prefix}_Init"](self._context)
        elif len(state) == context_size:
            self._context.raw = state
        else:
            raise ValueError(f"{name} state has {len(state)} bytes, not {context_size}")

    def update(self, data: Bytes) -> None:
        size = ctypes.c_size_t(len(data))
        if isinstance(data, bytes):
            self._update(self._context, data, size)
        else:
            self._update(self._context, (ctypes.c_char * len(data)).from_buffer(data), size)

    def hexdigest(self) -> str:
        copy = ctypes.create_string_buffer(self._context.raw, len(self._context))
        digest = ctypes.create_string_buffer(self._digest_size)
        self._final(digest, copy)
        return digest.raw.hex()

    def export_state(self) -> bytes:
        return self._context.raw


class _HashlibHash:
    """Fallback without libcrypto: the digests are correct, but the state cannot be stored."""

    def __init__(self, name: str) -> None:
        self._hash: Any = hashlib.new(name, usedforsecurity=False)

    def update(self, data: Bytes) -> None:
        self._hash.update(data)

    def hexdigest(self) -> str:
        return str(self._hash.hexdigest())

    def export_state(self) -> None:
        return None


@cache
def _load_libcrypto() -> ctypes.CDLL | None:
    """Load libcrypto 3. Return None unless its digests equal hashlib's, also after resuming from a stored state."""
    sample = bytes(range(256)) * 3
    try:
        library = ctypes.CDLL("libcrypto.so.3")
        for name in ("sha256", "sha1"):
            first = _LibcryptoHash(library, name)
            first.update(sample[:301])
            second = _LibcryptoHash(library, name, first.export_state())
            second.update(bytearray(sample[301:]))
            if second.hexdigest() != hashlib.new(name, sample, usedforsecurity=False).hexdigest():
                return None
    except (OSError, AttributeError):
        return None
    return library


class _Crc32:
    def __init__(self, state: bytes | None = None) -> None:
        # Only archives publish CRC-32, so other functions do not load this module.
        from isal import isal_zlib  # noqa: PLC0415

        self._compute = isal_zlib.crc32
        self._value = int.from_bytes(state) if state is not None else 0

    def update(self, data: Bytes) -> None:
        self._value = self._compute(data, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"

    def export_state(self) -> bytes:
        return self._value.to_bytes(4)


def _start_hash(name: str, state: bytes | None) -> _ResumableHash:
    library = _load_libcrypto()
    if library is not None:
        return _LibcryptoHash(library, name, state)
    if state is not None:
        raise ValueError("resuming from a stored hash state requires libcrypto 3")
    return _HashlibHash(name)


class FileHasher:
    """Hashes one file in order: always SHA-256, and also Git's SHA-1 or CRC-32 if the source published that digest.

    `export_state()` returns at most 208 bytes, from which `FileHasher(expected, size, state)` resumes in another
    process; it returns None if the platform cannot store a state.
    """

    def __init__(self, expected: Digest, size: int, state: bytes | None = None) -> None:
        self.expected = expected
        published_state = state[_SHA256_STATE:] if state is not None else None
        self._sha256 = _start_hash("sha256", state[:_SHA256_STATE] if state is not None else None)
        self._published: _ResumableHash | None = None
        if expected.algorithm is Algorithm.GIT_SHA1:
            self._published = _start_hash("sha1", published_state)
            if state is None:
                self._published.update(b"blob %d\0" % size)
        elif expected.algorithm is Algorithm.CRC32:
            self._published = _Crc32(published_state)

    def update(self, data: Bytes) -> None:
        self._sha256.update(data)
        if self._published is not None:
            self._published.update(data)

    def export_state(self) -> bytes | None:
        states = [h.export_state() for h in (self._sha256, self._published) if h is not None]
        return None if None in states else b"".join(s for s in states if s is not None)

    def verify(self, path: str) -> str:
        """Check the content against the published digest, and return its SHA-256 in hex.

        Raises DigestMismatchError, or ArchiveRefusedError for a CRC-32, because a damaged archive stays damaged when it
        is read again.
        """
        sha256 = self._sha256.hexdigest()
        found, algorithm = sha256 if self._published is None else self._published.hexdigest(), self.expected.algorithm
        if found == self.expected.value:
            return sha256
        if not algorithm.identifies:
            raise ArchiveRefusedError(
                f"Entry {path[:80]!r} is damaged: its content has CRC-32 {found}, but the archive records "
                f"{self.expected.value}.",
                reason="crc-mismatch",
                entry=path,
            )
        raise DigestMismatchError(
            f"Checksum mismatch for {path}: received {algorithm} {found}, expected {self.expected.value}.",
            expected=str(self.expected),
            found=str(Digest(algorithm, found)),
        )
