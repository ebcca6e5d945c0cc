"""Import models that Hub clients requested, and read what the Hub shows of them to any client."""

import logging
from dataclasses import dataclass
from typing import Protocol

from modelhaul.domain.errors import (
    ImportInProgressError,
    ModelExistsError,
    ModelhaulError,
    ModelNotFoundError,
)
from modelhaul.domain.keys import is_path
from modelhaul.domain.models import Model, ModelStatus, ResolvedModel, Source
from modelhaul.domain.name_patterns import matches_any
from modelhaul.domain.read_keys import ALL_NAMES
from modelhaul.hub.failures import describe_failed_import
from modelhaul.imports.submit import ImportSubmitter
from modelhaul.ports.clock import Clock
from modelhaul.ports.missing_models import (
    MissingModel,
    MissingModelError,
    UpstreamDocument,
    UpstreamFile,
    UpstreamRequest,
    UpstreamVersion,
)
from modelhaul.ports.model_sources import ModelResolver
from modelhaul.ports.models import ModelRepository

logger = logging.getLogger(__name__)


class PublicHub(ModelResolver, Protocol):
    """The Hub as clients without a token see it. Every method raises the errors of ModelResolver.resolve."""

    def describe_file(self, name: str, revision: str, path: str) -> UpstreamFile | None:
        """Return the metadata of a file, None if there is none."""

    def read_document(self, name: str, commit: str, request: UpstreamRequest) -> UpstreamDocument | None:
        """Return a document of the API, None if the commit does not have the path."""


@dataclass(frozen=True, slots=True)
class MissingModelImporter:
    """Implements `MissingModels`. Called by the function import_missing."""

    submitter: ImportSubmitter
    models: ModelRepository
    public_hub: PublicHub
    clock: Clock

    def request_import(
        self,
        name: str,
        revision: str,
        *,
        names: tuple[str, ...],
        model_id: str | None = None,
        upstream: UpstreamRequest | None = None,
        submitted_by: str | None = None,
    ) -> MissingModel:
        try:
            if model_id is None:
                model_id, task_id, failed = self._submit(name, revision, names, submitted_by)
                if failed is not None:
                    return failed
            else:
                task_id = None
            model = self._find_model(model_id) if upstream else None
            if model and not matches_any(names, model.resolved.hub_id):
                raise _create_missing_error(name)
            if upstream is None or model is None or model.status is not ModelStatus.IMPORTING:
                return MissingModel(task_id)
            return MissingModel(model.task_id, upstream=self._read_upstream(model, upstream))
        except ModelhaulError as error:
            return MissingModel(error=MissingModelError(error.type, error.detail, error.retryable, error.remedy))

    def _submit(
        self, name: str, revision: str, names: tuple[str, ...], submitted_by: str | None
    ) -> tuple[str, str | None, MissingModel | None]:
        """Import the model. Return its ID, the ID of the task, and the result if the last import failed.

        The ID of the task is None if this version is READY.
        """
        resolved = self._resolve(name, revision, names)
        known = self._find_model(resolved.model_id)
        if known and known.status in (ModelStatus.FAILED, ModelStatus.WITHDRAWING) and known.error:
            failure = describe_failed_import(known.error, known.updated_at)
            if failure.repeated_at is None or self.clock() < failure.repeated_at:
                self.submitter.save_reference(resolved, name)
                return known.model_id, known.task_id, MissingModel(known.task_id, failure=failure)
        try:
            task_id = self.submitter.submit_resolved(
                Source.HUGGINGFACE, resolved, name, may_redirect=known is None, submitted_by=submitted_by
            ).id
        except ImportInProgressError as error:
            task_id = error.task_id
        except ModelExistsError:
            return resolved.model_id, None, None
        return resolved.model_id, task_id, None

    def _resolve(self, name: str, revision: str, names: tuple[str, ...]) -> ResolvedModel:
        """Resolve the name. Raises the same error for a missing model and for one with a name that is not permitted."""
        try:
            resolved = self.submitter.resolve(Source.HUGGINGFACE, name, revision)
        except ModelNotFoundError:
            if names == ALL_NAMES:
                raise
            raise _create_missing_error(name) from None
        if not matches_any(names, resolved.hub_id):
            raise _create_missing_error(name)
        return resolved

    def _find_model(self, model_id: str) -> Model | None:
        return next(iter(self.models.find_models([model_id])), None)

    def _read_upstream(self, model: Model, request: UpstreamRequest) -> UpstreamVersion | None:
        """Return what was requested. None if it is not public, or if the Hub cannot be read.

        None also if the import policy no longer allows the model certainly. Raises PolicyUnavailableError.
        """
        name, commit = model.resolved.name, model.resolved.commit
        policy = self.submitter.policy
        if not model.may_redirect or (policy is not None and not policy.allows(model)):
            return None
        try:
            if request.kind == "file":
                file = self.public_hub.describe_file(name, commit, request.path) if is_path(request.path) else None
                if file is not None:  # otherwise the model may be gated
                    return UpstreamVersion(name, commit, file)
            self.public_hub.resolve(name, commit)
            if request.kind in ("file", "content"):
                return UpstreamVersion(name, commit)
            return UpstreamVersion(name, commit, document=self.public_hub.read_document(name, commit, request))
        except ModelhaulError as error:
            context = {"model": name, "commit": commit, "type": error.type, "detail": error.detail}
            logger.info("public lookup at the Hub failed", extra=context)
            return None


def _create_missing_error(name: str) -> ModelNotFoundError:
    return ModelNotFoundError(
        f"The Hub has no model {name} that the read key can read.",
        remedy="Check the name. If the model has a new name, request it by the new name.",
    )
