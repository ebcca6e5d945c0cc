"""Sign models from the digests that are known since their import. No file is read again."""

import hashlib
import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from modelhaul.domain.audit import describe_signature
from modelhaul.domain.errors import ModelNotFoundError, ObjectGoneError
from modelhaul.domain.keys import MAX_MANIFEST_SIZE, manifest_key, signature_key
from modelhaul.domain.models import Model, ModelStatus, describe_missing_model
from modelhaul.domain.signatures import ModelSignature
from modelhaul.ports.clock import Clock
from modelhaul.ports.models import ModelRepository
from modelhaul.ports.object_store import ObjectStore
from modelhaul.ports.signing_key import SigningKey
from modelhaul.signing.bundle import build_bundle, build_statement, hash_statement

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModelSigner:
    key: SigningKey
    store: ObjectStore
    clock: Clock

    def sign(self, model: Model, digests: Iterable[tuple[str, str]]) -> ModelSignature:
        """Store a signature file of the model. `digests`: path and SHA-256 (hex) of each file.

        A repeated call replaces the file. Raises SigningRefusedError, StorageUnavailableError.
        """
        resolved = model.resolved
        public_key = self.key.read_public_key()
        statement = build_statement(f"{resolved.name}@{resolved.commit}", digests)
        signature = self.key.sign(hash_statement(statement, public_key.hash_name))
        bundle = build_bundle(statement, signature, public_key)
        self.store.put(signature_key(model), bundle, sha256=hashlib.sha256(bundle).hexdigest())
        signed_at = datetime.fromtimestamp(int(self.clock()), UTC)
        logger.info("model signed", extra={"model_id": model.model_id, "key_arn": public_key.arn})
        return ModelSignature(public_key.arn, public_key.pem, signed_at)


@dataclass(frozen=True, slots=True)
class PublishedModelSigner:
    """Signs models that were published without a signature, or signed with another key."""

    models: ModelRepository
    store: ObjectStore
    signer: ModelSigner

    def sign_model(self, model_id: str, *, signed_by: str | None = None) -> tuple[ModelSignature, bool]:
        """Return the model's signature, and whether this call made it. `signed_by` names the caller for the audit.

        No-op if the model is already signed with the key. Raises ModelNotFoundError, also for a model that is not
        READY, SigningRefusedError and StorageUnavailableError.
        """
        model = self.models.find_model(model_id)
        if model is None or model.status is not ModelStatus.READY:
            raise ModelNotFoundError(describe_missing_model(model_id))
        if model.signature is not None and model.signature.key_arn == self.signer.key.read_public_key().arn:
            return model.signature, False
        try:
            manifest = json.loads(self.store.read(manifest_key(model_id), 0, MAX_MANIFEST_SIZE))
        except ObjectGoneError:
            # The model was deleted in the meantime.
            raise ModelNotFoundError(describe_missing_model(model_id)) from None
        signature = self.signer.sign(model, ((file["path"], file["sha256"]) for file in manifest["files"]))
        entry = describe_signature(model, signed_by, signature.signed_at, key_arn=signature.key_arn)
        if not self.models.record_signature(model_id, signature, task_id=model.task_id, entry=entry):
            # The model was deleted. The key of the signature is unique for its import.
            self.store.delete([signature_key(model)])
            raise ModelNotFoundError(describe_missing_model(model_id))
        return signature, True
