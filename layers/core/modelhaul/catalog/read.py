"""Read access to models, manifests and files."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from modelhaul.catalog.bom import SourceUrls, build_bom
from modelhaul.catalog.reads import ReadRecorder
from modelhaul.domain.errors import (
    ModelFileNotFoundError,
    ModelNotFoundError,
    ObjectGoneError,
    SignatureNotFoundError,
)
from modelhaul.domain.keys import MAX_KEY_BYTES, MAX_MANIFEST_SIZE, bom_key, is_path, manifest_key, signature_key
from modelhaul.domain.models import Model, ModelStatus, Source, describe_missing_model
from modelhaul.ports.models import ModelRepository
from modelhaul.ports.object_store import ObjectStore

LINK_SECONDS = 3600  # a presigned URL expires earlier if the credentials of the function expire earlier

# bytes of a document, raw and as a JSON string, because a Lambda response is a JSON document of up to 6 MB:
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
_MAX_INLINE_SIZE = 4_000_000


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON document: its `text`, or a presigned URL of a document that is too large for a response."""

    text: str | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Catalog:
    """Models, their manifests, files and documents. `bucket` is the name of the models bucket."""

    models: ModelRepository
    store: ObjectStore
    bucket: str
    urls: SourceUrls
    reads: ReadRecorder

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
        if not _fits(content):
            return None
        manifest: dict[str, Any] = json.loads(content)
        return manifest

    def sign_manifest(self, model: Model) -> str:
        """Return a presigned URL of the manifest, which expires after an hour."""
        return self.store.sign_read(manifest_key(model.model_id), seconds=LINK_SECONDS)

    def sign_file(self, model_id: str, path: str) -> str:
        """Return a presigned URL of the model's file, which expires after an hour, and record the day of the read.

        Browsers save the file.

        Raises ModelNotFoundError, also for a model that is not READY, and ModelFileNotFoundError.
        """
        model = self._find_ready(model_id)
        key = model.resolved.prefix + path
        # S3 rejects requests for invalid keys.
        is_key = is_path(path) and len(key.encode()) <= MAX_KEY_BYTES
        if not is_key or self.store.find_object(key) is None:
            raise ModelFileNotFoundError(f"File {path[:200]!r} not found in {model.resolved.name}.")
        url = self.store.sign_read(key, seconds=LINK_SECONDS, file_name=PurePosixPath(path).name)
        self.reads.record_read(model_id)
        return url

    def read_signature(self, model_id: str) -> Document:
        """Return the model's signature file.

        Raises ModelNotFoundError, also for a model that is not READY, and SignatureNotFoundError.
        """
        model = self._find_ready(model_id)
        if model.signature is None:
            raise SignatureNotFoundError(f"{model.resolved.describe()} is not signed.")
        key = signature_key(model)
        try:
            content = self.store.read(key, 0, _MAX_INLINE_SIZE + 1)
        except ObjectGoneError:
            # The model was deleted in the meantime.
            raise ModelNotFoundError(describe_missing_model(model_id)) from None
        return Document(text=content.decode()) if _fits(content) else Document(url=self._sign_document(key))

    def read_bom(self, model_id: str) -> Document:
        """Return the model's bill of materials. One that is too large for a response is stored for a day.

        Raises ModelNotFoundError, also for a model that is not READY.
        """
        model = self._find_ready(model_id)
        try:
            manifest = json.loads(self.store.read(manifest_key(model_id), 0, MAX_MANIFEST_SIZE))
        except ObjectGoneError:
            raise ModelNotFoundError(describe_missing_model(model_id)) from None
        content = build_bom(model, manifest, self.urls, location=f"s3://{self.bucket}/{model.resolved.prefix}")
        if _fits(content):
            return Document(text=content.decode())
        key = bom_key(model)
        self.store.put(key, content, sha256=hashlib.sha256(content).hexdigest())
        return Document(url=self._sign_document(key))

    def _sign_document(self, key: str) -> str:
        return self.store.sign_read(key, seconds=LINK_SECONDS)

    def _find_ready(self, model_id: str) -> Model:
        model = self.find_model(model_id)
        if model.status is not ModelStatus.READY:
            raise ModelNotFoundError(describe_missing_model(model_id))
        return model


def _fits(content: bytes) -> bool:
    """Return whether the JSON document, of which at least one byte more than the limit was read, fits in a response."""
    return len(content) <= _MAX_INLINE_SIZE and len(json.dumps(content.decode())) <= _MAX_INLINE_SIZE
