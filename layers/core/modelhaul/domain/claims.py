"""Claims of models: at any time one task imports a model."""

from collections.abc import Sequence

from modelhaul.domain.errors import DeletionInProgressError, ImportInProgressError, ModelExistsError
from modelhaul.domain.models import Model, ModelStatus


def refuse_held(task_id: str, found: Sequence[Model]) -> None:
    """Raises an error if one of the models that were found is not free for the task.

    ModelExistsError with all that are READY; if none is, for the first that is not free DeletionInProgressError, or
    ImportInProgressError if another task imports it or it is WITHDRAWING. FAILED models are free.
    """
    held = [model for model in found if model.task_id != task_id and model.status is not ModelStatus.FAILED]
    ready = [model for model in held if model.status is ModelStatus.READY]
    if ready:
        names = ", ".join(model.resolved.describe() for model in ready)
        raise ModelExistsError(
            f"{names} {'is' if len(ready) == 1 else 'are'} here already.",
            models={model.model_id: model.resolved.name for model in ready},
        )
    if held:
        first = held[0]
        name = first.resolved.describe()
        if first.status is ModelStatus.DELETING:
            raise DeletionInProgressError(
                f"{name} is being deleted. Submit again in some minutes, when it is gone.", model_id=first.model_id
            )
        raise ImportInProgressError(_describe_import(first), model_id=first.model_id, task_id=first.task_id)


def _describe_import(model: Model) -> str:
    name = model.resolved.describe()
    if model.status is ModelStatus.WITHDRAWING:
        return (
            f"An import of {name} failed while it was being published, and is being withdrawn. "
            "Submit again in half an hour."
        )
    return f"{name} is being imported by task {model.task_id}: follow that one."
