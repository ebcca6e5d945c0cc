"""What is here to be read: models, their manifests and their files."""

import json
from dataclasses import dataclass
from typing import Any

from modelhaul.domain.errors import ModelFileNotFoundError, ModelNotFoundError, ObjectGoneError
from modelhaul.domain.keys import MAX_KEY_BYTES, is_path, manifest_key
from modelhaul.domain.models import Model, ModelStatus, Source, describe_missing_model
from modelhaul.ports.models import ModelRepository
from modelhaul.ports.object_store import ObjectStore

LINK_SECONDS = 3600  # seconds; at most as long as the credentials of the function that signs

# Of a manifest as Lambda's answer carries it: a text in JSON once more, which may have 6 MB.
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
_INLINE_BYTES = 4_000_000


@dataclass(frozen=True, slots=True)
class Catalog:
    models: ModelRepository
    store: ObjectStore

    def find_model(self, model_id: str, *, source: Source | None = None) -> Model:
        """The model at whatever stage, unless it is being deleted. Raises ModelNotFoundError."""
        model = self.models.find_model(model_id)
        if model is None or model.status is ModelStatus.DELETING or source not in (None, model.resolved.source):
            raise ModelNotFoundError(describe_missing_model(model_id))
        return model

    def read_manifest(self, model: Model) -> dict[str, Any] | None:
        """None if it is not there, or does not fit into an answer."""
        try:
            content = self.store.read(manifest_key(model.model_id), 0, _INLINE_BYTES + 1)
        except ObjectGoneError:
            return None
        if len(content) > _INLINE_BYTES or len(json.dumps(content.decode())) > _INLINE_BYTES:
            return None
        manifest: dict[str, Any] = json.loads(content)
        return manifest

    def sign_manifest(self, model: Model) -> str:
        """An address that holds for an hour."""
        return self.store.sign_read(manifest_key(model.model_id), seconds=LINK_SECONDS)

    def sign_file(self, model_id: str, path: str) -> str:
        """An address of the model's file that holds for an hour.

        Raises ModelNotFoundError, also for a model that is not READY, and ModelFileNotFoundError.
        """
        model = self.find_model(model_id)
        if model.status is not ModelStatus.READY:
            raise ModelNotFoundError(describe_missing_model(model_id))
        key = model.resolved.prefix + path
        # S3 refuses to look for what can be no key.
        is_key = is_path(path) and len(key.encode()) <= MAX_KEY_BYTES
        if not is_key or self.store.find_object(key) is None:
            raise ModelFileNotFoundError(f"{model.resolved.name} has no file {path[:200]!r}; its manifest lists them.")
        return self.store.sign_read(key, seconds=LINK_SECONDS)
