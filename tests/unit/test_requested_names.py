"""The names and revisions of submits, by which Hub clients find a model."""

from datetime import UTC, datetime
from unittest.mock import patch

import pytest

from modelhaul.domain.errors import ImportInProgressError, ModelExistsError, StorageUnavailableError
from modelhaul.domain.hub_models import HubEntry, HubRevision
from modelhaul.domain.models import ModelStatus, Source
from tests.fakes.deployment import Deployment
from tests.fakes.model_source import InMemoryModelSource
from tests.weights import wrap_weights

NAME = "Org/Tiny"
FILES = {"config.json": b"{}", "model.safetensors": wrap_weights(b"1" * 8)}


def make_deployment() -> Deployment:
    branches = {branch: dict(FILES) for branch in ("main", "v1.0")}
    return Deployment(InMemoryModelSource({NAME: branches}, old_names={"tiny": NAME, "ORG/TINY": NAME}))


def find_entry(deployment: Deployment, name: str) -> HubEntry:
    return deployment.database.hub_models.find_entry(name)


def test_a_submit_under_the_canonical_name_records_no_other_name() -> None:
    deployment = make_deployment()
    deployment.submit(NAME)
    entry = find_entry(deployment, NAME)
    assert (entry.canonical_id, entry.revisions) == (None, ())
    assert [model.status for model in entry.models] == [ModelStatus.IMPORTING]


def test_another_case_is_not_another_name() -> None:
    deployment = make_deployment()
    deployment.submit("ORG/TINY")
    assert find_entry(deployment, NAME).canonical_id is None
    assert deployment.tables.hub_names == {}


def test_an_old_name_stands_for_the_canonical_one() -> None:
    deployment = make_deployment()
    deployment.submit("tiny")
    assert find_entry(deployment, "Tiny") == HubEntry("Org/Tiny")
    assert [model.resolved.name for model in find_entry(deployment, "org/tiny").models] == [NAME]


def test_an_old_name_of_a_repository_on_github_has_its_own_form() -> None:
    deployment = make_deployment()
    assert isinstance(deployment.source, InMemoryModelSource)
    deployment.source.kind = Source.GITHUB
    deployment.source.old_names = {"old/tiny": NAME}
    deployment.submit("old/tiny", source=Source.GITHUB)
    assert find_entry(deployment, "github.old/tiny") == HubEntry("github.Org/Tiny")


@pytest.mark.parametrize("is_ready", [False, True])
def test_a_refused_submit_records_its_name_and_its_revision(is_ready: bool) -> None:
    deployment = make_deployment()
    deployment.submit(NAME)
    if is_ready:
        deployment.run()
    deployment.clock.now += 60
    for name, revision in (("tiny", "v1.0"), (NAME, "main")):
        with pytest.raises(ModelExistsError if is_ready else ImportInProgressError):
            deployment.submit(name, revision)
    assert find_entry(deployment, "tiny") == HubEntry("Org/Tiny")
    entry = find_entry(deployment, NAME)
    [model] = entry.models
    assert model.resolved.revision == "main"
    moment = datetime.fromtimestamp(deployment.clock.now, UTC)
    expected = {HubRevision(revision, model.resolved.commit, moment) for revision in ("main", "v1.0")}
    assert set(entry.revisions) == expected


def test_an_import_is_accepted_although_its_name_cannot_be_recorded() -> None:
    deployment = make_deployment()
    lost = StorageUnavailableError("DynamoDB request failed (InternalServerError).")
    names = deployment.database.hub_models
    with patch.object(names, "save_name", side_effect=lost), patch.object(names, "save_revision", side_effect=lost):
        task = deployment.submit("tiny")
        with pytest.raises(ImportInProgressError):
            deployment.submit("tiny", "v1.0")
    deployment.run()
    assert deployment.find_task(task.id).model_ids == (find_entry(deployment, NAME).models[0].model_id,)
    assert find_entry(deployment, NAME).models[0].status is ModelStatus.READY
