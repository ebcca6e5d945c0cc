"""Signature files of OpenSSF Model Signing v1: a Sigstore bundle with a DSSE envelope over an in-toto statement.

The statement lists the SHA-256 of every file. Its format is the one of https://github.com/sigstore/model-transparency,
whose verifier reads it (`model_signing verify key`). DSSE: https://github.com/secure-systems-lab/dsse.
"""

import base64
import hashlib
import json
from collections.abc import Iterable

from modelhaul.domain.signatures import PublicKey

_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
_PREDICATE_TYPE = "https://model_signing/signature/v1.0"
_PAYLOAD_TYPE = "application/vnd.in-toto+json"
# The verifier ignores these paths in the model's root by default. A statement that lists one of them would be rejected,
# because the verifier does not see the file.
_IGNORED = (".git", ".gitattributes", ".github", ".gitignore")


def build_statement(name: str, digests: Iterable[tuple[str, str]]) -> bytes:
    """Return the in-toto statement about a model. `digests`: path and SHA-256 (hex) of each file.

    The digest of the subject is the SHA-256 of all digests, in the order of the files.
    """
    # As the reference implementation orders them: by the segments of the path.
    signed = sorted((pair for pair in digests if not _is_ignored(pair[0])), key=lambda pair: pair[0].split("/"))
    root = hashlib.sha256(b"".join(bytes.fromhex(sha256) for _, sha256 in signed)).hexdigest()
    return _to_json(
        {
            "_type": _STATEMENT_TYPE,
            "subject": [{"name": name, "digest": {"sha256": root}}],
            "predicateType": _PREDICATE_TYPE,
            "predicate": {
                "serialization": {
                    "method": "files",
                    "hash_type": "sha256",
                    "allow_symlinks": False,
                    "ignore_paths": list(_IGNORED),
                },
                "resources": [{"name": path, "algorithm": "sha256", "digest": sha256} for path, sha256 in signed],
            },
        }
    )


def hash_statement(statement: bytes, hash_name: str) -> bytes:
    """Return the digest to sign: the hash of the statement's pre-authentication encoding."""
    header = f"DSSEv1 {len(_PAYLOAD_TYPE)} {_PAYLOAD_TYPE} {len(statement)} ".encode()
    return hashlib.new(hash_name, header + statement).digest()


def build_bundle(statement: bytes, signature: bytes, key: PublicKey) -> bytes:
    """Return the content of the signature file."""
    return _to_json(
        {
            "mediaType": _MEDIA_TYPE,
            "verificationMaterial": {
                "publicKey": {"hint": hashlib.sha256(key.pem.encode()).hexdigest()},
                "tlogEntries": [],
            },
            "dsseEnvelope": {
                "payload": base64.b64encode(statement).decode(),
                "payloadType": _PAYLOAD_TYPE,
                "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
            },
        }
    )


def _is_ignored(path: str) -> bool:
    return path.partition("/")[0] in _IGNORED


def _to_json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
