"""The commands `verify`, `signature`, `sign` and `bom`, and `get --verify`."""

import hashlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from modelhaul.signing.bundle import build_bundle, build_statement, hash_statement
from modelhaul_cli.client import ApiClient
from tests.command_line.conftest import CommandLine
from tests.fakes.api_server import MODEL_ID, ApiServer, Fault, create_json_response, create_problem_response
from tests.fakes.signing_key import LocalSigningKey

FILES = {"config.json": b'{"a": 1}', "nested/weights.bin": b"w" * 300_000, ".gitattributes": b"* text"}
NAME = "google-bert/bert-base-uncased@86b5e0934494bd15c9632b12f734a8a67f723594"


def sign(files: dict[str, bytes], key: LocalSigningKey, name: str = NAME) -> bytes:
    statement = build_statement(name, [(path, hashlib.sha256(body).hexdigest()) for path, body in files.items()])
    public_key = key.read_public_key()
    return build_bundle(statement, key.sign(hash_statement(statement, public_key.hash_name)), public_key)


@dataclass
class Signed:
    key: LocalSigningKey
    folder: Path
    public_key: Path
    signature: Path


@pytest.fixture
def signed(api: ApiServer, tmp_path: Path) -> Signed:
    """A signed model of the API, and the folder to which it is downloaded."""
    key = LocalSigningKey()
    pem = key.read_public_key().pem
    shown = {"key_arn": key.read_public_key().arn, "public_key": pem, "signed_at": "2026-11-28T12:00:00Z"}
    api.add_model(FILES, signature={**shown, "location": "s3://models/signatures/x.json"})
    api.documents["signature"] = sign(FILES, key)
    (tmp_path / "key.pem").write_text(pem)
    return Signed(key, tmp_path / "model", tmp_path / "key.pem", tmp_path / "model.sig")


def test_downloaded_model_is_verified(signed: Signed, command_line: CommandLine) -> None:
    options = ("--to", signed.folder, "--verify", "--public-key", signed.public_key)
    outcome = command_line.run("get", MODEL_ID, *options)
    assert outcome.code == 0, outcome.err
    assert f"Valid signature of {NAME} for all 2 files." in outcome.out
    again = command_line.run("get", MODEL_ID, *options, "--json")
    assert (again.code, again.json["verified_files"], again.json["kept"]) == (0, 2, 3)


def test_without_a_key_the_key_of_the_api_is_used(signed: Signed, command_line: CommandLine) -> None:
    assert command_line.run("get", MODEL_ID, "--to", signed.folder, "--verify").code == 0
    other = signed.folder.parent / "other.pem"
    other.write_text(LocalSigningKey().read_public_key().pem)
    refused = command_line.run("get", MODEL_ID, "--to", signed.folder, "--verify", "--public-key", other)
    assert refused.code == 1
    assert "signed with another key" in refused.err


@pytest.mark.parametrize("redirected", [False, True], ids=["small", "large"])
def test_signature_is_saved_and_verified_without_the_api(
    api: ApiServer, signed: Signed, command_line: CommandLine, redirected: bool
) -> None:
    api.redirects_documents = redirected
    assert command_line.run("get", MODEL_ID, "--to", signed.folder).code == 0
    assert command_line.run("signature", MODEL_ID, "--to", signed.signature).code == 0
    assert signed.signature.read_bytes() == api.documents["signature"]
    api.requests.clear()
    verify = ("verify", signed.folder, "--public-key", signed.public_key)
    outcome = command_line.run(*verify)
    assert (outcome.code, api.requests) == (0, []), outcome.err
    assert command_line.run(*verify, "--json").json == {
        "folder": str(signed.folder.resolve()),
        "model": NAME,
        "verified_files": 2,
    }
    (signed.folder / "config.json").write_bytes(b"{}")
    (signed.folder / "added.py").write_bytes(b"")
    (signed.folder / "nested/weights.bin").unlink()
    changed = command_line.run(*verify)
    assert changed.code == 1
    assert "Changed: config.json. Missing: nested/weights.bin. Not signed: added.py." in changed.err
    assert command_line.run(*verify, "--json").json["error"]["exit_code"] == 1


def test_file_that_was_in_the_folder_before_is_refused(signed: Signed, command_line: CommandLine) -> None:
    signed.folder.mkdir()
    (signed.folder / "modeling.py").write_bytes(b"import os")
    outcome = command_line.run("get", MODEL_ID, "--to", signed.folder, "--verify")
    assert outcome.code == 1
    assert "Not signed: modeling.py." in outcome.err


def test_signature_of_another_version_is_refused(api: ApiServer, signed: Signed, command_line: CommandLine) -> None:
    api.documents["signature"] = sign(FILES, signed.key, NAME.replace("86b5", "0000"))
    outcome = command_line.run("get", MODEL_ID, "--to", signed.folder, "--verify")
    assert outcome.code == 1
    assert "belongs to another model" in outcome.err
    assert not signed.folder.exists(), "nothing is downloaded"


@pytest.mark.parametrize(
    ("requested", "name", "code"),
    [
        ("google-bert/bert-base-uncased", "google-bert/bert-base-uncased", 0),
        ("Google-BERT/bert-base-uncased@main", "google-bert/bert-base-uncased", 0),
        (NAME, "google-bert/bert-base-uncased", 0),
        ("google-bert/bert-base-uncased", "google-bert/other", 1),
        (f"google-bert/bert-base-uncased@{'0' * 40}", "google-bert/bert-base-uncased", 1),
    ],
)
def test_api_cannot_replace_the_requested_model(
    api: ApiServer,
    signed: Signed,
    command_line: CommandLine,
    monkeypatch: pytest.MonkeyPatch,
    requested: str,
    name: str,
    code: int,
) -> None:
    commit = NAME.rpartition("@")[2]
    if requested.endswith("0"):
        api.models[MODEL_ID]["revision"] = requested.rpartition("@")[2]
    read = ApiClient.read_model
    monkeypatch.setattr(ApiClient, "read_model", lambda *arguments: {**read(*arguments), "name": name})
    api.documents["signature"] = sign(FILES, signed.key, f"{name}@{commit}")
    options = ("--to", signed.folder, "--verify", "--public-key", signed.public_key)
    outcome = command_line.run("get", requested, *options)
    assert outcome.code == code, outcome.err
    assert ("belongs to another model" in outcome.err) is (code == 1)


def test_model_that_is_signed_during_the_command_is_verified(
    api: ApiServer, signed: Signed, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    signature = api.models[MODEL_ID].pop("signature")
    read = ApiClient.read_signature

    def sign_first(*arguments: Any) -> bytes:
        api.models[MODEL_ID]["signature"] = signature
        return read(*arguments)

    monkeypatch.setattr(ApiClient, "read_signature", sign_first)
    assert command_line.run("get", MODEL_ID, "--to", signed.folder, "--verify").code == 0


@pytest.mark.parametrize("curve", [ec.SECP256K1(), ec.BrainpoolP256R1()], ids=lambda curve: curve.name)
def test_key_of_another_curve_is_refused(signed: Signed, command_line: CommandLine, curve: ec.EllipticCurve) -> None:
    key = LocalSigningKey(curve)
    signed.folder.mkdir()
    signed.signature.write_bytes(sign({}, key))
    signed.public_key.write_text(key.read_public_key().pem)
    outcome = command_line.run("verify", signed.folder, "--public-key", signed.public_key)
    assert (outcome.code, "Unsupported public key" in outcome.err) == (2, True)


def test_hard_link_to_the_signature_is_refused(signed: Signed, command_line: CommandLine) -> None:
    signed.folder.mkdir()
    (signed.folder / "config.json").write_bytes(FILES["config.json"])
    signature = signed.folder / "model.sig"
    signature.write_bytes(sign({"config.json": FILES["config.json"]}, signed.key))
    verify = ("verify", signed.folder, "--public-key", signed.public_key, "--signature", signature)
    assert command_line.run(*verify).code == 0
    os.link(signature, signed.folder / "adapter_config.json")
    outcome = command_line.run(*verify)
    assert (outcome.code, "Not signed: adapter_config.json." in outcome.err) == (1, True)


@pytest.mark.parametrize("target", [".", "saved"])
def test_document_is_not_saved_in_place_of_a_directory(
    api: ApiServer, signed: Signed, command_line: CommandLine, tmp_path: Path, target: str
) -> None:
    (tmp_path / "saved").mkdir()
    outcome = command_line.run("signature", MODEL_ID, "--to", "." if target == "." else tmp_path / target)
    assert (outcome.code, "is a directory" in outcome.err) == (2, True)
    assert not list(tmp_path.glob(".*.partial"))


def test_unsigned_model_is_told(api: ApiServer, command_line: CommandLine) -> None:
    api.add_model(FILES)
    for command in (("get", MODEL_ID, "--verify"), ("signature", MODEL_ID)):
        outcome = command_line.run(*command)
        assert outcome.code == 3
        assert "parameter Signing" in outcome.err
    assert "signed    no\n" in command_line.run("show", MODEL_ID).out


def test_signature_and_license_are_shown(api: ApiServer, signed: Signed, command_line: CommandLine) -> None:
    api.models[MODEL_ID]["card"] = {"licenses": ["apache-2.0", "other"]}
    shown = command_line.run("show", MODEL_ID).out
    assert f"signed    2026-11-28T12:00:00Z with {signed.key.read_public_key().arn}\n" in shown
    assert "license   apache-2.0, other (declared)\n" in shown


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("*.json", "--verify"), "requires all files"),
        (("--public-key", "key.pem"), "no effect without --verify"),
    ],
)
def test_options_that_contradict_are_refused(
    signed: Signed, command_line: CommandLine, options: tuple[str, ...], words: str
) -> None:
    outcome = command_line.run("get", MODEL_ID, *options)
    assert outcome.code == 2
    assert words in outcome.err


INVALID: dict[str, Any] = {
    "no JSON": b"{",
    "other JSON": b"[]",
    "empty object": b"{}",
    "other type": b'{"mediaType": "x", "verificationMaterial": {"publicKey": {}}, "dsseEnvelope": '
    b'{"payload": "", "payloadType": "y", "signatures": [{"sig": ""}]}}',
    "binary": b"\x00\xff",
    "deep": b"[" * 200_000,
}


@pytest.mark.parametrize("content", INVALID.values(), ids=INVALID)
def test_file_that_is_no_signature_is_refused(signed: Signed, command_line: CommandLine, content: bytes) -> None:
    signed.folder.mkdir()
    signed.signature.write_bytes(content)
    outcome = command_line.run("verify", signed.folder, "--public-key", signed.public_key)
    assert outcome.code == 1
    assert "ignature" in outcome.err


@pytest.mark.parametrize(
    "pem", ["", "no key", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "x" * 200_000]
)
def test_file_that_is_no_public_key_is_refused(signed: Signed, command_line: CommandLine, pem: str) -> None:
    signed.folder.mkdir()
    signed.signature.write_bytes(sign({}, signed.key))
    signed.public_key.write_text(pem)
    outcome = command_line.run("verify", signed.folder, "--public-key", signed.public_key)
    assert outcome.code in (1, 2)
    assert "Invalid public key" in outcome.err


def test_missing_files_are_named(signed: Signed, command_line: CommandLine, tmp_path: Path) -> None:
    outcome = command_line.run("verify", tmp_path / "absent", "--public-key", signed.public_key)
    assert (outcome.code, "Not a directory" in outcome.err) == (2, True)
    signed.folder.mkdir()
    outcome = command_line.run("verify", signed.folder, "--public-key", signed.public_key)
    assert (outcome.code, "modelhaul signature MODEL" in outcome.err) == (2, True)
    assert command_line.run("verify", "/", "--public-key", signed.public_key).code == 2


def test_without_cryptography_the_extra_is_named(
    signed: Signed, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed.folder.mkdir()
    signed.signature.write_bytes(sign({}, signed.key))
    for name in list(sys.modules):
        if name.partition(".")[0] == "cryptography":
            monkeypatch.setitem(sys.modules, name, None)
    outcome = command_line.run("verify", signed.folder, "--public-key", signed.public_key)
    assert outcome.code == 2
    assert "pip install 'modelhaul[verify]'" in outcome.err


def test_bill_of_materials_is_printed_or_saved(api: ApiServer, command_line: CommandLine, tmp_path: Path) -> None:
    api.add_model(FILES)
    api.documents["bom"] = json.dumps({"bomFormat": "CycloneDX", "components": []}).encode()
    with command_line.start("bom", MODEL_ID) as process:
        assert process.communicate(timeout=60)[0] == api.documents["bom"].decode() + "\n"
    assert command_line.run("bom", MODEL_ID, "--to", tmp_path / "saved/bom.json").code == 1
    (tmp_path / "saved").mkdir()
    assert command_line.run("bom", MODEL_ID, "--to", tmp_path / "saved/bom.json").code == 0
    assert (tmp_path / "saved/bom.json").read_bytes() == api.documents["bom"]
    assert [path.name for path in (tmp_path / "saved").iterdir()] == ["bom.json"]


def test_model_is_signed_on_request(api: ApiServer, signed: Signed, command_line: CommandLine) -> None:
    shown = {key: value for key, value in api.models[MODEL_ID]["signature"].items() if key != "location"}
    api.submit_responses += [create_json_response(201, shown), create_json_response(200, shown)]
    first, second = (command_line.run("sign", MODEL_ID) for _ in range(2))
    assert first.out == second.out == f"Signed at 2026-11-28T12:00:00Z with {shown['key_arn']}.\n"
    (request, _) = api.find("POST", f"/models/{MODEL_ID}/signature$")
    assert request.headers["idempotency-key"]
    api.submit_responses.append(create_problem_response(404, "no-such-route", "Route not found"))
    missing = command_line.run("sign", MODEL_ID)
    assert (missing.code, "Signing=KMS" in missing.err) == (2, True)


def test_expired_link_and_lost_answers_are_retried(api: ApiServer, signed: Signed, command_line: CommandLine) -> None:
    api.redirects_documents = True
    api.faults += [Fault("GET", "/signature$", "lost"), Fault("GET", "/store/signature.json", "cut")]
    assert command_line.run("signature", MODEL_ID, "--to", signed.signature).code == 0
    assert signed.signature.read_bytes() == api.documents["signature"]
