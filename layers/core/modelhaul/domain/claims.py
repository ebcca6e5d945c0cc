"""Claims on models: at most one task imports a model at any time."""

from collections.abc import Sequence

from modelhaul.domain.callers import is_retention_rule
from modelhaul.domain.errors import DeletionInProgressError, ImportInProgressError, ModelExistsError
from modelhaul.domain.models import Model, ModelStatus

# The files of such a model stay for 75 minutes, see `modelhaul.catalog.delete`.
_RETIRED_REMEDY = "A retention rule deletes the model. Submit the import again in 90 minutes."


def check_claimable(task_id: str, found: Sequence[Model]) -> None:
    """Raise an error unless the task can claim all models in `found`. FAILED models can be claimed.

    Raises ModelExistsError with all READY models. If no model is READY, raises for the first model that cannot be
    claimed: DeletionInProgressError, or ImportInProgressError if another task imports it or it is WITHDRAWING.
    """
    claimed = [model for model in found if model.task_id != task_id and model.status is not ModelStatus.FAILED]
    ready = [model for model in claimed if model.status is ModelStatus.READY]
    if ready:
        names = ", ".join(model.resolved.describe() for model in ready)
        raise ModelExistsError(
            f"{names} already {'exists' if len(ready) == 1 else 'exist'}.",
            models={model.model_id: model.resolved.name for model in ready},
        )
    if claimed:
        first = claimed[0]
        name = first.resolved.describe()
        if first.status is ModelStatus.DELETING:
            raise DeletionInProgressError(
                f"{name} is being deleted.",
                model_id=first.model_id,
                remedy=_RETIRED_REMEDY if is_retention_rule(first.deleted_by) else None,
            )
        if first.status is ModelStatus.WITHDRAWING:
            raise ImportInProgressError(
                f"An import of {name} failed during publication, and its files are being removed.",
                model_id=first.model_id,
                task_id=first.task_id,
                remedy="Submit the import again in 30 minutes.",
            )
        raise ImportInProgressError(
            f"{name} is being imported by task {first.task_id}.", model_id=first.model_id, task_id=first.task_id
        )
