import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import HTTPHeaders

from modelhaul import wiring
from modelhaul.adapters.lambda_invoke import LambdaMissingModels, create_lambda_client
from modelhaul.domain.errors import (
    AccessRequiredError,
    CredentialsRefusedError,
    ImportCancelledError,
    ModelNotFoundError,
    PermanentError,
    UnsafeModelError,
)
from modelhaul.domain.read_keys import ALL_NAMES
from modelhaul.domain.tasks import TaskError
from modelhaul.imports.missing import MissingModelImporter
from modelhaul.ports.missing_models import (
    FailedImport,
    MissingModel,
    MissingModels,
    Readable,
    UpstreamDocument,
    UpstreamFile,
    UpstreamRequest,
    UpstreamVersion,
)
from tests.contract.backends import REGION, open_aws
from tests.fakes.deployment import Deployment
from tests.fakes.missing_models import InMemoryPublicHub
from tests.fakes.model_source import InMemoryModelSource
from tests.lambda_functions import Context, load_handler, read_event
from tests.weights import wrap_weights

NAME = "org/tiny"
WEIGHTS = wrap_weights(bytes(300_000))


@dataclass
class Setup:
    missing_models: MissingModels
    deployment: Deployment
    source: InMemoryModelSource
    hub: InMemoryPublicHub


@pytest.fixture(params=["direct", "lambda"])
def setup(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Setup]:
    source = InMemoryModelSource({NAME: {"main": {"config.json": b"{}", "model.safetensors": WEIGHTS}}})
    deployment, hub = Deployment(source), InMemoryPublicHub(source)
    importer = MissingModelImporter(deployment.submitter, deployment.database.models, hub, deployment.clock)
    if request.param == "direct":
        yield Setup(importer, deployment, source, hub)
        return
    monkeypatch.setattr(wiring, "create_missing_importer", lambda: importer)
    with open_aws("moto"), closing(create_lambda_client(REGION)) as client:
        client.meta.events.register_first("before-send.lambda.Invoke", invoke_here)
        yield Setup(LambdaMissingModels(client, "import-missing"), deployment, source, hub)


class _Body(BytesIO):
    def stream(self, **_: object) -> Iterator[bytes]:
        yield self.read()


def invoke_here(request: AWSPreparedRequest, **_: object) -> Any:
    """Run the function's handler in this process, with JSON on both ways. moto would need Docker."""
    assert request.url.endswith("/functions/import-missing/invocations")
    assert isinstance(request.body, bytes)
    event = json.loads(request.body)
    assert event.keys() == read_event("import_missing").keys(), "the sample event has the same fields"
    result = load_handler("import_missing")(event, Context())
    return AWSResponse(request.url, 200, HTTPHeaders(), _Body(json.dumps(result).encode()))


def test_a_missing_model_is_imported_once(setup: Setup) -> None:
    first = setup.missing_models.request_import(NAME, "main", names=ALL_NAMES)
    assert first.task_id is not None
    assert (first.failure, first.upstream, first.error) == (None, None, None)
    assert setup.missing_models.request_import(NAME, "main", names=ALL_NAMES) == first
    setup.deployment.run()
    assert setup.missing_models.request_import(NAME, "main", names=ALL_NAMES).task_id is None


def test_nothing_is_imported_if_the_import_is_known(setup: Setup) -> None:
    first = setup.missing_models.request_import(NAME, "main", names=ALL_NAMES)
    model_id = setup.source.resolve(NAME, "main").model_id
    found = setup.missing_models.request_import(
        NAME, "main", names=ALL_NAMES, model_id=model_id, upstream=UpstreamRequest("content")
    )
    assert (found.task_id, found.upstream is not None) == (first.task_id, True)
    other = setup.missing_models.request_import(
        NAME, "main", names=ALL_NAMES, model_id="none", upstream=UpstreamRequest("content")
    )
    assert (other.task_id, other.upstream) == (None, None)
    assert len(setup.deployment.database.tasks.list_tasks(limit=2, cursor=None).tasks) == 1


@pytest.mark.parametrize("path", ["config.json", "model.safetensors"])
def test_a_file_is_described_as_the_hub_does(setup: Setup, path: str) -> None:
    found = setup.missing_models.request_import(NAME, "main", names=ALL_NAMES, upstream=UpstreamRequest("file", path))
    model = setup.source.resolve(NAME, "main")
    file = next(file for file in setup.source.list_files(model) if file.path == path)
    described = UpstreamFile(file.digest.value, file.size, model.commit)
    assert found.upstream == UpstreamVersion(NAME, model.commit, described)


@pytest.mark.parametrize("path", ["none.json", "../config.json", "a//b"])
def test_a_file_that_is_not_there_has_no_description(setup: Setup, path: str) -> None:
    found = setup.missing_models.request_import(NAME, "main", names=ALL_NAMES, upstream=UpstreamRequest("file", path))
    assert found.upstream == UpstreamVersion(NAME, setup.source.resolve(NAME, "main").commit)


def test_a_document_is_read_page_by_page(setup: Setup) -> None:
    for query, document in (
        ("", UpstreamDocument('["config.json"]', "cursor=1")),
        ("cursor=1", UpstreamDocument('["model.safetensors"]')),
    ):
        found = setup.missing_models.request_import(
            NAME, "main", names=ALL_NAMES, upstream=UpstreamRequest("tree", query=query)
        )
        assert found.upstream == UpstreamVersion(NAME, setup.source.resolve(NAME, "main").commit, document=document)
    asked = UpstreamRequest("paths-info", paths=("config.json", "é"), expand=True)
    found = setup.missing_models.request_import(NAME, "main", names=ALL_NAMES, upstream=asked)
    assert found.upstream
    assert found.upstream.document == UpstreamDocument('["config.json"]')


@pytest.mark.parametrize("kind", ["file", "content", "info", "tree"])
def test_a_model_that_needs_a_token_is_imported_but_not_read(setup: Setup, kind: Readable) -> None:
    setup.hub.hidden.add(NAME)
    found = setup.missing_models.request_import(
        NAME, "main", names=ALL_NAMES, upstream=UpstreamRequest(kind, "config.json")
    )
    assert found.task_id is not None
    assert found.upstream is None


@pytest.mark.parametrize(
    ("error", "repeated_after"),
    [
        (CredentialsRefusedError("The Hub rejected the token."), 3600),
        (ImportCancelledError("The import was cancelled."), 600),
        (UnsafeModelError("a.pkl runs code."), None),
    ],
)
def test_a_failed_import_is_not_repeated_at_once(
    setup: Setup, error: PermanentError, repeated_after: float | None
) -> None:
    first = setup.missing_models.request_import(NAME, "main", names=ALL_NAMES)
    assert first.task_id
    ended = TaskError(error.type, error.detail, error.retryable)
    setup.deployment.database.imports.fail_import(first.task_id, ended, check_at=0)
    setup.source.models[NAME]["v1"] = setup.source.models[NAME]["main"]
    now = setup.deployment.clock.now
    for revision in ("main", "v1"):
        found = setup.missing_models.request_import(
            NAME, revision, names=ALL_NAMES, upstream=UpstreamRequest("content")
        )
        repeated_at = None if repeated_after is None else now + repeated_after
        assert found == MissingModel(first.task_id, FailedImport(error.type, error.detail, repeated_at))
    entry = setup.deployment.database.hub_models.find_entry(NAME)
    assert "v1" in [revision.revision for revision in entry.revisions]
    setup.deployment.clock.now += 3601
    again = setup.missing_models.request_import(NAME, "v1", names=ALL_NAMES, upstream=UpstreamRequest("content"))
    assert (again.task_id == first.task_id) == (repeated_after is None)
    assert again.upstream is None, "an import of this version has failed"


@pytest.mark.parametrize("error", [ModelNotFoundError("no model org/tiny"), AccessRequiredError("org/tiny is gated")])
def test_an_error_is_a_result(setup: Setup, error: ModelNotFoundError | AccessRequiredError) -> None:
    setup.source.refusals[NAME] = error
    found = setup.missing_models.request_import(NAME, "main", names=ALL_NAMES, upstream=UpstreamRequest("content"))
    assert found.error is not None
    assert (found.error.type, found.error.detail, found.error.retryable) == (error.type, error.detail, False)
    assert (found.task_id, found.upstream) == (None, None)
