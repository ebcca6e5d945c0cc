"""The commands `verify`, `signature`, `sign` and `bom`."""

import os
import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from modelhaul_cli.client import ApiClient
from modelhaul_cli.commands.options import ApiKeyFile, ApiUrl, AsJson, Model, Parallel
from modelhaul_cli.commands.session import handle_errors, open_session
from modelhaul_cli.errors import NotFoundError, UsageError, VerificationError
from modelhaul_cli.lookups import find_model_id
from modelhaul_cli.output import Screen
from modelhaul_cli.problems import read_problem_type
from modelhaul_cli.signatures import SignedModel, read_key_file, read_signature, verify_folder
from modelhaul_cli.store import ObjectStore

PublicKey = Annotated[
    Path | None,
    typer.Option("--public-key", metavar="FILE", help="Public key (PEM) that must have signed the model."),
]
_ID_START = re.compile(r"[0-9a-f][0-9a-f-]{3,35}")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_Output = Annotated[Path | None, typer.Option("--to", metavar="FILE", help="File to write. Default: standard output.")]


def verify_model(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Directory with the files of one model.")],
    public_key: Annotated[
        Path, typer.Option("--public-key", metavar="FILE", help="Public key (PEM) that must have signed the model.")
    ],
    signature: Annotated[
        Path | None,
        typer.Option("--signature", metavar="FILE", help="Signature file. Default: DIR.sig, beside the directory."),
    ] = None,
    parallel: Parallel = 4,
    as_json: AsJson = False,
) -> None:
    """Verify that a directory has exactly the files that were signed. Needs no API."""
    screen = Screen(as_json=as_json)
    with handle_errors(screen):
        if not folder.is_dir():
            raise UsageError("Not a directory", f"{folder} does not exist, or is not a directory.")
        path = signature if signature is not None else find_signature_path(folder)
        if not path.is_file():
            raise UsageError(
                "Signature file not found",
                f"{path} does not exist.",
                remedy=f"Download it with `modelhaul signature MODEL --to {path}`.",
            )
        model = read_signature(path.read_bytes(), read_key_file(public_key))
        count = verify_folder(folder, model, excluded=path, concurrency=parallel)
        screen.print_document({"folder": str(folder.resolve()), "model": model.name, "verified_files": count})
        screen.print_result(describe_verification(model, count))


def find_signature_path(folder: Path) -> Path:
    """Return the default path of a folder's signature: beside the folder, because the verifier compares all files."""
    resolved = folder.resolve()
    return resolved.parent / f"{resolved.name}.sig"


def describe_verification(model: SignedModel, count: int) -> str:
    return f"Valid signature of {model.name} for all {count:,} files."


def read_model_signature(api: ApiClient, model_id: str, requested: str, public_key: Path | None) -> SignedModel:
    """Download and verify the signature of a model. `requested`: the text from which the API found its ID.

    Without `public_key`, the key that the API shows is used. Raises VerificationError, also if the signature is that of
    another model or version.
    """
    bundle = api.read_signature(model_id, ObjectStore())
    # After the signature, because a model may be signed between the two requests.
    record = api.read_model(model_id)
    key = read_key_file(public_key) if public_key is not None else record["signature"]["public_key"].encode()
    model = read_signature(bundle, key)
    expected = f"{record['name']}@{record['commit']}"
    if model.name != expected:
        raise VerificationError("The signature belongs to another model", f"It is for {model.name}, not {expected}.")
    if not _is_requested(requested, model.name):
        raise VerificationError(
            "The signature belongs to another model", f"It is for {model.name}, not {requested[:200]}."
        )
    return model


def _is_requested(requested: str, signed_name: str) -> bool:
    """Return whether the signed NAME@COMMIT has the requested name, and the requested commit if it is complete.

    What an ID or a branch stands for is known only by the API.
    """
    if _ID_START.fullmatch(requested.lower()):
        return True
    name, _, commit = signed_name.lower().rpartition("@")
    if requested.lower() == name:
        return True
    requested_name, _, revision = requested.lower().partition("@")
    return requested_name == name and (not _COMMIT.fullmatch(revision) or revision == commit)


def get_signature(model: Model, to: _Output = None, api_url: ApiUrl = None, api_key_file: ApiKeyFile = None) -> None:
    """Download the signature of a model, for `modelhaul verify` and `model_signing verify key`."""
    with open_session(api_url, api_key_file, as_json=False) as session:
        model_id = find_model_id(session.api, session.screen, model)
        _write(session.screen, session.api.read_signature(model_id, ObjectStore()), to)


def sign_model(model: Model, api_url: ApiUrl = None, api_key_file: ApiKeyFile = None, as_json: AsJson = False) -> None:
    """Sign a model that was published before the stack signed models. No-op if it is already signed."""
    with open_session(api_url, api_key_file, as_json=as_json) as session:
        model_id = find_model_id(session.api, session.screen, model)
        try:
            signature = session.api.sign_model(model_id)
        except NotFoundError as error:
            if read_problem_type(error.problem) != "no-such-route":
                raise
            raise UsageError(
                "The stack does not sign models",
                f"{session.configuration.url} has no route to sign models.",
                remedy="Ask an operator to deploy the stack with Signing=KMS.",
            ) from None
        session.screen.print_document({"model_id": model_id, **signature})
        session.screen.print_result(f"Signed at {signature['signed_at']} with {signature['key_arn']}.")


def get_bom(model: Model, to: _Output = None, api_url: ApiUrl = None, api_key_file: ApiKeyFile = None) -> None:
    """Download the bill of materials of a model (CycloneDX JSON)."""
    with open_session(api_url, api_key_file, as_json=False) as session:
        model_id = find_model_id(session.api, session.screen, model)
        _write(session.screen, session.api.read_bom(model_id, ObjectStore()), to)


def _write(screen: Screen, content: bytes, path: Path | None) -> None:
    if path is None:
        sys.stdout.buffer.write(content + b"\n")
        return
    if path.is_dir():
        raise UsageError("Not a file", f"{path} is a directory.", remedy="Give the name of the file to write.")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_bytes(content)
    partial.replace(path)
    screen.print_status(f"Saved {path}.")
