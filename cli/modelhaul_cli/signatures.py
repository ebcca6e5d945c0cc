"""Verify a folder with a signature of OpenSSF Model Signing, as `model_signing verify key` does.

A folder is accepted only if it has exactly the signed files, with their content. The paths that the signature ignores
(files of git in the root of the folder) are not compared.
https://github.com/sigstore/model-transparency
"""

import base64
import hashlib
import json
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelhaul_cli.concurrency import run_concurrently
from modelhaul_cli.errors import CommandError, UsageError, VerificationError
from modelhaul_cli.store import CHUNK_SIZE, TransferCancelledError

BUNDLE_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
_PREDICATE_TYPE = "https://model_signing/signature/v1.0"
_GIT_PATHS = (".git", ".gitattributes", ".github", ".gitignore")
_MAX_LISTED = 5  # files of each kind in an error message


@dataclass(frozen=True, slots=True)
class SignedModel:
    """What a valid signature says: the SHA-256 (hex) of each file by its path, and the paths to ignore.

    `name` is the name that the signer gave the model; Modelhaul uses NAME@COMMIT.
    """

    name: str
    files: dict[str, str]
    ignored: tuple[str, ...]


def read_signature(bundle: bytes, public_key: bytes) -> SignedModel:
    """Verify the signature file with the public key (PEM) and return its content.

    Raises VerificationError, UsageError if the public key is invalid or the package cryptography is not installed.
    """
    try:
        document = json.loads(bundle)
        envelope = document["dsseEnvelope"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        signature = base64.b64decode(envelope["signatures"][0]["sig"], validate=True)
        hint = document["verificationMaterial"]["publicKey"].get("hint")
        kinds = document["mediaType"], envelope["payloadType"]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise VerificationError("The signature file is not a signature by a key") from None
    if kinds != (BUNDLE_MEDIA_TYPE, _PAYLOAD_TYPE):
        raise VerificationError("Unsupported signature file", f"Its types are {kinds[0]!s:.100} and {kinds[1]!s:.100}.")
    _check_signature(payload, signature, public_key, hint)
    try:
        return _read_statement(json.loads(payload))
    except (ValueError, LookupError, TypeError, AttributeError):
        raise VerificationError("The signature does not contain a valid statement about a model") from None


def verify_folder(folder: Path, model: SignedModel, *, excluded: Path | None, concurrency: int) -> int:
    """Compare all files of the folder with the signed ones, and return their number.

    `excluded`: the signature file, which may be in the folder. Raises VerificationError for changed, missing,
    unexpected and special files.
    """
    found = _list_files(folder, (*_GIT_PATHS, *model.ignored), excluded)
    unexpected, missing = found.keys() - model.files.keys(), model.files.keys() - found.keys()
    common = sorted(found.keys() & model.files.keys())

    def check(path: str, stopped: threading.Event) -> str | None:
        return None if _hash_file(found[path], stopped) == model.files[path] else path

    checked = run_concurrently(common, check, concurrency=concurrency, on_poll=lambda: None)
    changed = [path for path in checked if path is not None]
    problems = [
        text
        for kind, paths in (("Changed", changed), ("Missing", missing), ("Not signed", unexpected))
        if (text := _describe_paths(kind, paths))
    ]
    if problems:
        raise VerificationError(
            f"{folder} does not match the signature",
            " ".join(problems),
            remedy="Do not load the model. Download it again into an empty directory and verify it.",
        )
    return len(common)


def _check_signature(payload: bytes, signature: bytes, public_key: bytes, hint: object) -> None:
    try:
        # An optional dependency, because only this command needs it.
        from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm  # noqa: PLC0415
        from cryptography.hazmat.primitives import hashes  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415
        from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
            Encoding,
            PublicFormat,
            load_pem_public_key,
        )
    except ImportError:
        raise UsageError(
            "Signatures cannot be verified without the Python package cryptography",
            remedy="Install modelhaul with its extra `verify`: pip install 'modelhaul[verify]'.",
        ) from None
    algorithms = {"secp256r1": hashes.SHA256(), "secp384r1": hashes.SHA384(), "secp521r1": hashes.SHA512()}
    try:
        key = load_pem_public_key(public_key)
    except (ValueError, UnsupportedAlgorithm):
        raise UsageError("Invalid public key", "It is not a public key in PEM form.") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in algorithms:
        raise UsageError("Unsupported public key", "It is not a key of the curve P-256, P-384 or P-521.")
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    if hint and hint != hashlib.sha256(pem).hexdigest():
        raise VerificationError(
            "The model was signed with another key", remedy="Use the public key of the stack that imported the model."
        )
    header = f"DSSEv1 {len(_PAYLOAD_TYPE)} {_PAYLOAD_TYPE} {len(payload)} ".encode()
    try:
        key.verify(signature, header + payload, ec.ECDSA(algorithms[key.curve.name]))
    except InvalidSignature:
        raise VerificationError("Invalid signature", "The signature file was changed after it was signed.") from None


def _read_statement(statement: dict[str, Any]) -> SignedModel:
    """Raises ValueError, LookupError, TypeError or AttributeError for an invalid statement."""
    if (statement["_type"], statement["predicateType"]) != (_STATEMENT_TYPE, _PREDICATE_TYPE):
        raise ValueError("other type of statement")
    (subject,) = statement["subject"]
    predicate = statement["predicate"]
    serialization = predicate["serialization"]
    if (serialization["method"], serialization["hash_type"]) != ("files", "sha256"):
        raise VerificationError(
            "Unsupported signature", "It does not contain the SHA-256 of each file.", remedy="Use model_signing verify."
        )
    files: dict[str, str] = {}
    root = hashlib.sha256()
    for resource in predicate["resources"]:
        digest = bytes.fromhex(resource["digest"])
        if resource["algorithm"] != "sha256" or resource["name"] in files:
            raise ValueError("invalid resource")
        root.update(digest)
        files[resource["name"]] = digest.hex()
    if root.hexdigest() != subject["digest"]["sha256"]:
        raise ValueError("inconsistent digests")
    return SignedModel(str(subject["name"]), files, tuple(map(str, serialization.get("ignore_paths", ()))))


def _list_files(folder: Path, ignored: Sequence[str], excluded: Path | None) -> dict[str, Path]:
    """Return the files of the folder by their path, without the ignored ones.

    Raises VerificationError for symlinks and special files, also at ignored paths.
    """
    files: dict[str, Path] = {}
    # By its path, because a hard link to the signature file may have any name.
    excluded_path = None if excluded is None else excluded.resolve()
    resolved = folder.resolve()
    for path in _walk(folder):
        relative = path.relative_to(folder)
        if path.is_symlink() or not path.is_file():
            raise VerificationError(
                f"{folder} contains a symbolic link or a special file",
                f"{relative} is not a regular file.",
                remedy="Copy the model without symbolic links, for example with `modelhaul get`.",
            )
        is_excluded = resolved / relative == excluded_path
        if not is_excluded and not any(relative.is_relative_to(path) for path in ignored):
            files[relative.as_posix()] = path
    return files


def _walk(folder: Path) -> Iterator[Path]:
    """Yield all files and links below the folder. Links to directories are not followed."""

    def fail(error: OSError) -> None:
        raise error

    for parent, directories, names in os.walk(folder, onerror=fail):
        yield from (Path(parent, name) for name in directories if Path(parent, name).is_symlink())
        yield from (Path(parent, name) for name in names)


def _hash_file(path: Path, stopped: threading.Event) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_SIZE):
            if stopped.is_set():
                raise TransferCancelledError
            digest.update(chunk)
    return digest.hexdigest()


def _describe_paths(kind: str, paths: Iterable[str]) -> str:
    """Return a sentence with the first of the paths, "" if there are none."""
    listed = sorted(paths)
    if not listed:
        return ""
    more = f" and {len(listed) - _MAX_LISTED:,} more" if len(listed) > _MAX_LISTED else ""
    return f"{kind}: {', '.join(listed[:_MAX_LISTED])}{more}."


def read_key_file(path: Path) -> bytes:
    """Return the content of a public key file. Raises CommandError if it is too large."""
    with path.open("rb") as file:
        content = file.read(100_000)
    if len(content) == 100_000:  # noqa: PLR2004
        raise CommandError("Invalid public key", f"{path} is too large to be a public key.")
    return content
