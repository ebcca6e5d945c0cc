"""The check of a signature passes for a signed model, and fails for another key, other files or another signature."""

import base64
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from deployment.verify.checks import CHECKS
from deployment.verify.imports import ImportedModel
from deployment.verify.registry import Verification
from deployment.verify.results import Outcome
from deployment.verify.runner import run_check
from modelhaul.signing.bundle import build_bundle, build_statement, hash_statement
from tests.fakes.signing_key import LocalSigningKey

FILES = {"config.json": "aa" * 32, "weights/model.safetensors": "bb" * 32}


class SignedStack:
    """A stack whose API returns the record and the signature of a model."""

    def __init__(self, curve: ec.EllipticCurve | None = None) -> None:
        key = LocalSigningKey(curve)
        public = key.read_public_key()
        statement = build_statement("org/model@1", FILES.items())
        signature = key.sign(hash_statement(statement, public.hash_name))
        self.bundle: dict[str, Any] = json.loads(build_bundle(statement, signature, public))
        self.parameters = {"Signing": "KMS"}
        self.outputs = {"SigningKeyArn": public.arn}
        self.record: dict[str, Any] = {
            "model_id": "1",
            "name": "org/model",
            "manifest": {"files": [{"path": path, "sha256": sha256} for path, sha256 in FILES.items()]},
            "signature": {"key_arn": public.arn, "public_key": public.pem},
        }

    def run(self, monkeypatch: pytest.MonkeyPatch) -> tuple[Outcome, str]:
        model = ImportedModel({}, self.record, None)
        monkeypatch.setattr("deployment.verify.checks.reading.import_by_post", lambda _: model)
        bundles = {"models/1/signature": self.bundle}
        verification = SimpleNamespace(
            target=SimpleNamespace(is_local=False), stack=self, api=SimpleNamespace(read=bundles.__getitem__)
        )
        return run_check(CHECKS["signature"], cast("Verification", verification))


def change_file(stack: SignedStack) -> None:
    stack.record["manifest"]["files"][1]["sha256"] = "cc" * 32


def add_file(stack: SignedStack) -> None:
    stack.record["manifest"]["files"].append({"path": "added", "sha256": "dd" * 32})


def use_other_key(stack: SignedStack) -> None:
    stack.record["signature"]["public_key"] = LocalSigningKey().read_public_key().pem


def name_other_key(stack: SignedStack) -> None:
    stack.outputs["SigningKeyArn"] = "arn:aws:kms:us-east-1:123456789012:key/other"


def change_payload(stack: SignedStack) -> None:
    envelope = stack.bundle["dsseEnvelope"]
    payload = base64.b64decode(envelope["payload"]).replace(b"aa", b"ab")
    envelope["payload"] = base64.b64encode(payload).decode()


def drop_signature(stack: SignedStack) -> None:
    del stack.record["signature"]


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_a_signed_model_passes(curve: ec.EllipticCurve, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome, detail = SignedStack(curve).run(monkeypatch)
    assert (outcome, detail) == (Outcome.PASS, f"2 files, {curve.name}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_file, "signed files is"),
        (add_file, "signed files is"),
        (use_other_key, "the signature of org/model is invalid"),
        (name_other_key, "key of the signature is"),
        (change_payload, "the signature of org/model is invalid"),
        (drop_signature, "org/model is not signed"),
    ],
)
def test_a_difference_fails(
    change: Callable[[SignedStack], None], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = SignedStack()
    change(stack)
    outcome, detail = stack.run(monkeypatch)
    assert outcome is Outcome.FAIL
    assert detail.startswith(message)


def test_a_stack_that_does_not_sign_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = SignedStack()
    stack.parameters["Signing"] = "off"
    assert stack.run(monkeypatch) == (Outcome.SKIPPED, "Signing is off")
