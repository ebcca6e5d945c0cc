"""A stack that signs publishes no model without its signature, whatever fails; others can be signed later."""

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhaul import wiring
from modelhaul.domain.errors import (
    ModelhaulError,
    ModelNotFoundError,
    SignatureNotFoundError,
    SigningRefusedError,
    StorageUnavailableError,
)
from modelhaul.domain.keys import manifest_key, signature_key
from modelhaul.domain.models import Model, ModelStatus
from modelhaul.domain.signatures import PublicKey
from modelhaul.domain.tasks import TaskStatus
from modelhaul.signing.bundle import build_statement
from modelhaul.signing.signer import PublishedModelSigner
from modelhaul_cli.signatures import read_signature
from tests.archives.zipping import zip_models
from tests.fakes.deployment import QUICK, Deployment
from tests.fakes.model_source import InMemoryModelSource
from tests.fakes.signing_key import LocalSigningKey
from tests.lambda_functions import Response, call_api, read_event

NAME = "org/model"
FILES = {"config.json": b"{}", "nested/notes.txt": b"text", ".gitattributes": b"* text"}


class FlakyKey(LocalSigningKey):
    """Fails as `fail` says, for each call."""

    def __init__(self, fail: Callable[[], ModelhaulError | None]) -> None:
        super().__init__()
        self._fail = fail

    def read_public_key(self) -> PublicKey:
        if (error := self._fail()) is not None:
            raise error
        return super().read_public_key()


def create_deployment(key: LocalSigningKey | None = None) -> Deployment:
    return Deployment(InMemoryModelSource({NAME: {"main": dict(FILES)}}), signing_key=key)


def read_paths(deployment: Deployment, model: Model) -> set[str]:
    """Return the paths of the model's signature file, which must be valid."""
    assert model.signature is not None
    bundle = deployment.read(signature_key(model))
    signed = read_signature(bundle, model.signature.public_key.encode())
    assert signed.name == f"{model.resolved.name}@{model.resolved.commit}"
    return set(signed.files)


def list_signatures(deployment: Deployment) -> list[str]:
    return [key for key in deployment.store.keys if key.startswith("signatures/")]


def test_published_model_is_signed() -> None:
    deployment = create_deployment(LocalSigningKey())
    model = deployment.find_model(deployment.import_model(NAME))
    assert model.status is ModelStatus.READY
    assert read_paths(deployment, model) == {"config.json", "nested/notes.txt"}


def test_each_model_of_an_archive_has_its_signature() -> None:
    deployment = create_deployment(LocalSigningKey())
    task_id = deployment.drop(zip_models("first", "second"))
    deployment.run()
    task = deployment.find_task(task_id)
    models = deployment.database.models.find_models(task.model_ids)
    assert len(models) == 2
    for model in models:
        manifest = json.loads(deployment.read(manifest_key(model.model_id)))
        assert read_paths(deployment, model) == {file["path"] for file in manifest["files"]}


def test_signature_is_stored_before_the_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = create_deployment(LocalSigningKey())
    stored: list[str] = []
    put = deployment.store.put

    def record(key: str, body: Any, *, sha256: str) -> str:
        stored.append(key.partition("/")[0])
        return put(key, body, sha256=sha256)

    monkeypatch.setattr(deployment.store, "put", record)
    deployment.import_model(NAME)
    assert stored[-2:] == ["signatures", "manifests"]


def test_stack_without_a_key_publishes_unsigned() -> None:
    deployment = create_deployment()
    model = deployment.find_model(deployment.import_model(NAME))
    assert model.status is ModelStatus.READY
    assert model.signature is None
    assert list_signatures(deployment) == []
    with pytest.raises(SignatureNotFoundError):
        deployment.catalog.read_signature(model.model_id)


def test_outage_of_kms_is_waited_for() -> None:
    times: list[float] = []

    def fail() -> ModelhaulError | None:
        times.append(deployment.clock())
        is_over = times[-1] > times[0] + 1800
        return None if is_over else StorageUnavailableError("KMS GetPublicKey failed (KMSInternalException).")

    deployment = create_deployment(FlakyKey(fail))
    task = deployment.import_model(NAME)
    assert task.status is TaskStatus.DONE
    assert len(times) > 5
    assert read_paths(deployment, deployment.find_model(task))


def test_model_that_cannot_be_signed_is_not_published() -> None:
    key = LocalSigningKey()
    key.refusal = SigningRefusedError("The model cannot be signed: KMS Sign failed (DisabledException).")
    deployment = create_deployment(key)
    task = deployment.import_model(NAME)
    assert task.status is TaskStatus.FAILED
    assert task.error is not None
    assert (task.error.type, task.error.retryable) == ("signing-refused", False)
    assert deployment.find_model(task).status is not ModelStatus.READY
    visible = ("models/", "manifests/", "signatures/")
    assert [stored for stored in deployment.store.keys if stored.startswith(visible)] == []

    # After the key is enabled, and the files of the failed import are removed.
    key.refusal = None
    deployment.clock.now += 3600
    deployment.sweeper.sweep_stale(deployment.remaining)
    again = deployment.import_model(NAME)
    assert again.status is TaskStatus.DONE
    assert again.progress.bytes_reused == again.progress.bytes_total
    assert read_paths(deployment, deployment.find_model(again))


@pytest.mark.parametrize("delete", [True, False], ids=["deleted", "failed"])
def test_signature_is_deleted_with_its_model(delete: bool) -> None:
    deployment = create_deployment(LocalSigningKey())
    if delete:
        model = deployment.find_model(deployment.import_model(NAME))
        assert deployment.deleter.delete_model(model.model_id, lambda: 28)
    else:
        finish = deployment.database.imports.finish_import

        def cancel_first(task_id: str, **options: Any) -> bool:
            assert list_signatures(deployment)
            deployment.finisher.cancel(task_id)
            return finish(task_id, **options)

        deployment.database.imports.finish_import = cancel_first  # type: ignore[method-assign]
        assert deployment.import_model(NAME).status is TaskStatus.FAILED
    assert list_signatures(deployment) == []


# Signing of models that are already published.


def turn_on_signing(deployment: Deployment, key: LocalSigningKey) -> PublishedModelSigner:
    deployment.signing_key = key
    deployment.connect(deployment.database, deployment.store, deployment.queue, QUICK)
    assert deployment.published_signer is not None
    return deployment.published_signer


def test_published_model_is_signed_later_and_once() -> None:
    deployment = create_deployment()
    task = deployment.import_model(NAME)
    key = LocalSigningKey()
    signer = turn_on_signing(deployment, key)
    signature, is_new = signer.sign_model(task.model_ids[0])
    assert is_new
    model = deployment.find_model(task)
    assert model.signature == signature
    assert read_paths(deployment, model) == {"config.json", "nested/notes.txt"}
    assert signer.sign_model(task.model_ids[0]) == (signature, False)
    assert key.signed == 1


def test_model_is_signed_again_with_another_key() -> None:
    deployment = create_deployment(LocalSigningKey())
    task = deployment.import_model(NAME)
    other = LocalSigningKey(arn="arn:aws:kms:eu-west-1:123456789012:key/other")
    signature, is_new = turn_on_signing(deployment, other).sign_model(task.model_ids[0])
    assert is_new
    assert signature.key_arn.endswith("key/other")
    assert read_paths(deployment, deployment.find_model(task))
    assert len(list_signatures(deployment)) == 1


def test_model_that_is_not_ready_is_not_signed() -> None:
    deployment = create_deployment()
    signer = turn_on_signing(deployment, LocalSigningKey())
    importing = deployment.submit(NAME).model_ids[0]
    for model_id in (importing, "unknown", ""):
        with pytest.raises(ModelNotFoundError):
            signer.sign_model(model_id)
    assert list_signatures(deployment) == []


@pytest.mark.parametrize("moment", ["before the manifest is read", "before the signature is recorded"])
def test_signing_of_a_deleted_model_leaves_nothing(monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    deployment = create_deployment()
    model_id = deployment.import_model(NAME).model_ids[0]
    signer = turn_on_signing(deployment, LocalSigningKey())
    operation = "read" if moment == "before the manifest is read" else "put"
    call = getattr(deployment.store, operation)

    def delete_first(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(deployment.store, operation, call)
        assert deployment.deleter.delete_model(model_id, lambda: 28)
        return call(*arguments, **options)

    monkeypatch.setattr(deployment.store, operation, delete_first)
    with pytest.raises(ModelNotFoundError):
        signer.sign_model(model_id)
    assert list_signatures(deployment) == []


def call(function: str, name: str, model_id: str) -> Response:
    event = read_event(name)
    suffix = "bom" if name == "read_bom" else "signature"
    return call_api(
        function, {**event, "path": f"/models/{model_id}/{suffix}", "pathParameters": {"model_id": model_id}}
    )


def test_routes_return_and_make_signatures(monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = create_deployment()
    model_id = deployment.import_model(NAME).model_ids[0]
    monkeypatch.setattr(wiring, "create_catalog", lambda: deployment.catalog)
    problem = call("read_catalog", "read_signature", model_id)
    assert (problem.status, problem.body["type"]) == (404, "urn:modelhaul:problem:signature-not-found")
    assert "Signing" in problem.body["remedy"]

    key = LocalSigningKey()
    turn_on_signing(deployment, key)
    monkeypatch.setattr(wiring, "create_published_signer", lambda: deployment.published_signer)
    monkeypatch.setattr(wiring, "create_catalog", lambda: deployment.catalog)
    first, second = (call("sign_model", "sign_model", model_id) for _ in range(2))
    assert (first.status, second.status) == (201, 200)
    assert first.headers["location"] == f"/v1/models/{model_id}/signature"
    assert first.body == second.body == {
        "key_arn": key.read_public_key().arn,
        "public_key": key.read_public_key().pem,
        "signed_at": first.body["signed_at"],
    }  # fmt: skip
    answer = call("read_catalog", "read_signature", model_id)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/vnd.dev.sigstore.bundle.v0.3+json"
    signed = read_signature(answer.text.encode(), first.body["public_key"].encode())
    assert set(signed.files) == {"config.json", "nested/notes.txt"}

    key.refusal = SigningRefusedError("The model cannot be signed: KMS Sign failed (AccessDeniedException).")
    model = deployment.database.models.find_model(model_id)
    assert model is not None
    deployment.tables.models[model_id] = replace(model, signature=None)
    refused = call("sign_model", "sign_model", model_id)
    assert (refused.status, refused.body["type"]) == (502, "urn:modelhaul:problem:signing-refused")


PATHS = st.lists(
    st.lists(st.text(alphabet="ab-./é🤗", min_size=1, max_size=3).filter(lambda s: "/" not in s and s.strip(".")))
    .filter(bool)
    .map("/".join),
    max_size=8,
    unique=True,
)


@given(PATHS)
def test_files_are_in_the_order_of_the_reference_implementation(paths: list[str]) -> None:
    """It sorts objects of PurePosixPath."""
    statement = json.loads(build_statement("m", [(path, "00" * 32) for path in paths]))
    names = [resource["name"] for resource in statement["predicate"]["resources"]]
    assert names == [str(path) for path in sorted(map(PurePosixPath, paths))]


@pytest.mark.slow
def test_signature_of_fifty_thousand_files_is_a_redirect(monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = create_deployment()
    task = deployment.import_model(NAME)
    model = deployment.find_model(task)
    manifest = json.loads(deployment.read(manifest_key(model.model_id)))
    manifest["files"] = [
        {**manifest["files"][0], "path": f"data/part-{number:05}/weights.bin", "sha256": f"{number:064x}"}
        for number in range(50_000)
    ]
    content = json.dumps(manifest).encode()
    deployment.store.put(manifest_key(model.model_id), content, sha256=hashlib.sha256(content).hexdigest())
    turn_on_signing(deployment, LocalSigningKey()).sign_model(model.model_id)
    monkeypatch.setattr(wiring, "create_catalog", lambda: deployment.catalog)
    assert len(read_paths(deployment, deployment.find_model(task))) == 50_000
    answer = call("read_catalog", "read_signature", model.model_id)
    assert answer.status == 302
    assert signature_key(model) in answer.headers["location"]
    bom = call("read_catalog", "read_bom", model.model_id)
    assert bom.status == 302
    (key,) = (key for key in deployment.store.keys if key.startswith("boms/"))
    assert key in bom.headers["location"]
    assert len(json.loads(deployment.read(key))["components"]) == 50_000


def test_payload_has_only_names_and_digests() -> None:
    deployment = create_deployment(LocalSigningKey())
    model = deployment.find_model(deployment.import_model(NAME))
    payload = json.loads(deployment.read(signature_key(model)))["dsseEnvelope"]["payload"]
    statement = json.loads(base64.b64decode(payload))
    assert statement["predicate"].keys() == {"serialization", "resources"}
    assert {frozenset(resource) for resource in statement["predicate"]["resources"]} == {
        frozenset({"name", "algorithm", "digest"})
    }
