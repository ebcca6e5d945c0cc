"""Missing models at the Hub, over real HTTP: what clients without a token can read, and what is imported."""

import json
import random
from collections.abc import Iterator

import pytest

from modelhaul.domain.errors import AccessRequiredError, ModelNotFoundError, SourceUnavailableError, TransientError
from modelhaul.domain.read_keys import ALL_NAMES
from modelhaul.imports.missing import MissingModelImporter
from modelhaul.ports.missing_models import MissingModel, Readable, UpstreamFile, UpstreamRequest, UpstreamVersion
from modelhaul_sources.hosts import HostPolicy
from modelhaul_sources.huggingface import HuggingFaceSource
from tests.fakes.deployment import Deployment
from tests.upstream.faults import Fault, FaultKind
from tests.upstream.hub import LoopbackHub
from tests.upstream.hub_repository import HubFile, HubRepository

WEIGHTS = HubFile(random.Random("weights").randbytes(300_000), lfs=True)
CONFIG = HubFile(b"{}")
FILES = {"config.json": CONFIG, "onnx/model 1#.bin": WEIGHTS}
TOKEN = "hf_reader"
CONTENT = UpstreamRequest("content")
PUBLIC, GATED, PRIVATE = "owner/model", "owner/gated", "owner/private"


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        hub.add_repository(HubRepository(PUBLIC, {"main": FILES}, old_names=["model"]))
        hub.add_repository(HubRepository(GATED, {"main": FILES}, gated="auto"))
        hub.add_repository(HubRepository(PRIVATE, {"main": FILES}, private=True))
        hub.grant(TOKEN, GATED, PRIVATE)
        yield hub


def open_source(hub: LoopbackHub, token: str | None = TOKEN) -> HuggingFaceSource:
    return HuggingFaceSource(HostPolicy.for_hub(hub.endpoint, local_mode=True), token=lambda: token)


def find_commit(hub: LoopbackHub, name: str = PUBLIC) -> str:
    return hub.repositories[name].find_commit("main").sha  # type: ignore[union-attr]


def test_a_file_is_described_by_its_published_digest_without_a_download(hub: LoopbackHub) -> None:
    commit = find_commit(hub)
    source = open_source(hub)
    assert source.describe_file(PUBLIC, "main", "config.json") == UpstreamFile(CONFIG.oid, 2, commit)
    assert source.describe_file(PUBLIC, commit, "onnx/model 1#.bin") == UpstreamFile(WEIGHTS.sha256, 300_000, commit)
    assert source.describe_file(PUBLIC, commit, "none.json") is None
    sent = [(request.method, request.origin, request.authorized) for request in hub.requests]
    assert sent == [("HEAD", "resolve", False)] * 3


@pytest.mark.parametrize(("name", "error"), [(GATED, AccessRequiredError), (PRIVATE, ModelNotFoundError)])
def test_no_token_is_sent_for_a_description(hub: LoopbackHub, name: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        open_source(hub).describe_file(name, find_commit(hub, name), "config.json")


def test_an_outage_is_no_missing_file(hub: LoopbackHub) -> None:
    hub.add_fault(Fault(kind=FaultKind.SERVER_ERROR, origin="resolve"))
    with pytest.raises(SourceUnavailableError):
        open_source(hub).describe_file(PUBLIC, find_commit(hub), "config.json")


def request_import(
    hub: LoopbackHub, name: str, token: str | None = TOKEN, upstream: UpstreamRequest = CONTENT
) -> tuple[MissingModel, Deployment]:
    deployment = Deployment(open_source(hub, token))
    importer = MissingModelImporter(
        deployment.submitter, deployment.database.models, open_source(hub, None), deployment.clock
    )
    return importer.request_import(name, "main", names=ALL_NAMES, upstream=upstream), deployment


@pytest.mark.parametrize("name", [PUBLIC, "model"])
def test_a_public_model_is_imported_and_described(hub: LoopbackHub, name: str) -> None:
    found, deployment = request_import(hub, name, upstream=UpstreamRequest("file", "config.json"))
    commit = find_commit(hub)
    assert found.task_id is not None
    assert found.upstream == UpstreamVersion(PUBLIC, commit, UpstreamFile(CONFIG.oid, 2, commit))
    (model,) = deployment.database.hub_models.find_entry(PUBLIC).models
    assert (model.task_id, model.resolved.commit) == (found.task_id, commit)


@pytest.mark.parametrize("kind", ["file", "content", "info", "tree"])
@pytest.mark.parametrize("name", [GATED, PRIVATE])
def test_a_model_that_the_token_can_read_is_imported_and_not_public(
    hub: LoopbackHub, name: str, kind: Readable
) -> None:
    """The Hub describes gated models to any client, but not their files."""
    found, _ = request_import(hub, name, upstream=UpstreamRequest(kind))
    assert found.task_id is not None
    assert found.upstream is None


@pytest.mark.parametrize(
    ("name", "kind"), [(GATED, "access-required"), (PRIVATE, "model-not-found"), ("owner/none", "model-not-found")]
)
def test_a_model_that_cannot_be_read_is_an_error_that_names_the_remedy(hub: LoopbackHub, name: str, kind: str) -> None:
    found, _ = request_import(hub, name, token=None)
    assert found.task_id is None
    assert found.error is not None
    assert found.error.type == kind
    assert "HuggingFaceTokenSecret" in f"{found.error.detail} {found.error.remedy}"
    assert not any(request.path == "/api/models" for request in hub.requests), "a search for similar names"


def test_documents_are_read_without_a_token_and_without_xet_hashes(hub: LoopbackHub) -> None:
    source, commit = open_source(hub), find_commit(hub)
    info = source.read_document(PUBLIC, commit, UpstreamRequest("info", query="blobs=true"))
    assert info
    assert json.loads(info.body)["siblings"][0] == {"rfilename": "config.json", "size": 2, "blobId": CONFIG.oid}
    page = source.read_document(PUBLIC, commit, UpstreamRequest("tree", "onnx", "recursive=true"))
    assert page
    (entry,) = json.loads(page.body)
    assert (entry["path"], entry["lfs"]["oid"], page.next_query) == ("onnx/model 1#.bin", WEIGHTS.sha256, None)
    assert "xetHash" not in page.body
    assert source.read_document(PUBLIC, commit, UpstreamRequest("tree", "none")) is None
    assert not any(request.authorized for request in hub.requests)


def test_a_tree_is_read_page_by_page() -> None:
    with LoopbackHub(page_size=1) as hub:
        hub.add_repository(HubRepository(PUBLIC, {"main": FILES}))
        source, query, paths = open_source(hub), "recursive=true", []
        while True:
            page = source.read_document(PUBLIC, find_commit(hub), UpstreamRequest("tree", query=query))
            assert page
            paths += [entry["path"] for entry in json.loads(page.body) if entry["type"] == "file"]
            if page.next_query is None:
                break
            query = page.next_query
    assert paths == sorted(FILES)


@pytest.mark.parametrize("kind", [FaultKind.SERVER_ERROR, FaultKind.RATE_LIMIT])
def test_an_outage_is_no_missing_document(hub: LoopbackHub, kind: FaultKind) -> None:
    commit = find_commit(hub)
    hub.add_fault(Fault(kind=kind, origin="api"))
    with pytest.raises(TransientError):
        open_source(hub).read_document(PUBLIC, commit, UpstreamRequest("tree"))
