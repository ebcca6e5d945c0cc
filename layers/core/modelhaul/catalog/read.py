"""Read access to models, manifests and files."""

import json
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from modelhaul.domain.errors import ModelFileNotFoundError, ModelNotFoundError, ObjectGoneError
from modelhaul.domain.keys import MAX_KEY_BYTES, is_path, manifest_key
from modelhaul.domain.models import Model, ModelStatus, Source, describe_missing_model
from modelhaul.ports.models import ModelRepository
from modelhaul.ports.object_store import ObjectStore

LINK_SECONDS = 3600  # a presigned URL expires earlier if the credentials of the function expire earlier

# bytes of a manifest, raw and as a JSON string, because a Lambda response is a JSON document of up to 6 MB:
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
_MAX_INLINE_SIZE = 4_000_000


@dataclass(frozen=True, slots=True)
class Catalog:
    """Models, their manifests and their files."""

    models: ModelRepository
    store: ObjectStore

    def find_model(self, model_id: str, *, source: Source | None = None) -> Model:
        """Return the model. Raises ModelNotFoundError, also for a model that is DELETING or from another source."""
        model = self.models.find_model(model_id)
        if model is None or model.status is ModelStatus.DELETING or source not in (None, model.resolved.source):
            raise ModelNotFoundError(describe_missing_model(model_id))
        return model

    def read_manifest(self, model: Model) -> dict[str, Any] | None:
        """Return the manifest, None if it does not exist or is too large for a response."""
        try:
            content = self.store.read(manifest_key(model.model_id), 0, _MAX_INLINE_SIZE + 1)
        except ObjectGoneError:
            return None
        if len(content) > _MAX_INLINE_SIZE or len(json.dumps(content.decode())) > _MAX_INLINE_SIZE:
            return None
        manifest: dict[str, Any] = json.loads(content)
        return manifest

    def sign_manifest(self, model: Model) -> str:
        """Return a presigned URL of the manifest, which expires after an hour."""
        return self.store.sign_read(manifest_key(model.model_id), seconds=LINK_SECONDS)

    def sign_file(self, model_id: str, path: str) -> str:
        """Return a presigned URL of the model's file, which expires after an hour. Browsers save the file.

        Raises ModelNotFoundError, also for a model that is not READY, and ModelFileNotFoundError.
        """
        model = self.find_model(model_id)
        if model.status is not ModelStatus.READY:
            raise ModelNotFoundError(describe_missing_model(model_id))
        key = model.resolved.prefix + path
        # S3 rejects requests for invalid keys.
        is_key = is_path(path) and len(key.encode()) <= MAX_KEY_BYTES
        if not is_key or self.store.find_object(key) is None:
            raise ModelFileNotFoundError(f"File {path[:200]!r} not found in {model.resolved.name}.")
        return self.store.sign_read(key, seconds=LINK_SECONDS, file_name=PurePosixPath(path).name)
