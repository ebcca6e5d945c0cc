"""What an import that failed leaves behind."""

import pytest

from modelhaul.domain import errors
from modelhaul.domain.models import ModelError, ModelStatus
from modelhaul.domain.tasks import Stage, Task, TaskStatus
from tests.fakes.deployment import Deployment
from tests.fakes.model_source import InMemoryModelSource

NAME = "org/tiny"
REFUSED = [
    errors.ArchiveRefusedError("refused", reason="crc-mismatch"),
    errors.InvalidModelError("not safetensors"),
    errors.UnsafeModelError("imports os.system"),
]
OTHERS = [
    errors.ImportCancelledError("cancelled"),
    errors.RetriesExhaustedError("no answer"),
    errors.ImportStalledError("nothing moved"),
]


@pytest.fixture
def deployment() -> Deployment:
    return Deployment(InMemoryModelSource({NAME: {"main": {"config.json": b"{}", "vocab.txt": b"a\nb\n"}}}))


def stage(deployment: Deployment) -> Task:
    """A task whose files are in staging and verified."""
    task = deployment.submit(NAME)
    while deployment.find_task(task.id).stage is not Stage.VERIFIED:
        for message in deployment.receive():
            deployment.deliver(message)
    assert len(list_staged(deployment)) == 2
    return deployment.find_task(task.id)


def list_staged(deployment: Deployment) -> list[str]:
    return [key for key in deployment.store.keys if key.startswith("staging/")]


@pytest.mark.parametrize("error", REFUSED, ids=lambda error: error.type)
def test_files_that_were_refused_leave_staging(deployment: Deployment, error: errors.ModelhaulError) -> None:
    task = stage(deployment)
    deployment.finisher.fail(task.id, error)
    assert deployment.store.keys == []
    again = deployment.submit(NAME)
    deployment.run()
    assert deployment.find_task(again.id).status is TaskStatus.DONE, "nothing points at what is gone"


@pytest.mark.parametrize("error", OTHERS, ids=lambda error: error.type)
def test_other_files_stay_for_the_next_import(deployment: Deployment, error: errors.ModelhaulError) -> None:
    task = stage(deployment)
    deployment.finisher.fail(task.id, error)
    assert len(list_staged(deployment)) == 2


@pytest.mark.parametrize("error", REFUSED, ids=lambda error: error.type)
def test_files_of_a_model_with_an_error_of_its_own_leave_staging(
    deployment: Deployment, error: errors.ModelhaulError
) -> None:
    task = stage(deployment)
    own = ModelError(error.type, error.detail, error.retryable)
    deployment.finisher.fail(task.id, errors.RetriesExhaustedError("no answer"), {task.model_ids[0]: own})
    (model,) = deployment.database.models.find_models(task.model_ids)
    assert (model.status, model.error) == (ModelStatus.FAILED, own)
    assert deployment.store.keys == []
