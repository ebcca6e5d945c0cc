"""The Hub read API through its handler: what each route returns for imported models."""

import hashlib
import io
import json
import logging
import random
import re
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from modelhaul import wiring
from modelhaul.catalog.read import LINK_SECONDS
from modelhaul.domain.errors import ModelExistsError, StorageUnavailableError
from modelhaul.domain.hub_models import MissPolicy
from modelhaul.domain.keys import manifest_key
from modelhaul.domain.models import Model, ModelStatus, Source
from modelhaul.domain.selection import WHOLE, Selection
from modelhaul.hub import documents
from modelhaul.hub.misses import MissHandler
from modelhaul.hub.reader import HubReader
from tests.fakes.deployment import Deployment, RecordingMetrics
from tests.fakes.model_source import InMemoryModelSource
from tests.hub_events import GATEWAYS, KEY, HubClient, HubResponse, build_event
from tests.lambda_functions import Context, load_handler
from tests.weights import wrap_weights

NAME = "org/Tiny"
WEIGHTS = wrap_weights(random.Random("hub").randbytes(300_000))
ODD_NAMES = ["a b.txt", "50% #1?.txt", "C++.txt", "Grüße/日本.txt", "x%2Fy.txt", "a&b=c.txt"]
FILES = {
    "config.json": b'{"a": 1}',
    "empty.txt": b"",
    "model.safetensors": WEIGHTS,
    "tokenizer.json": b'{"version": "1.0"}',
    "onnx/config.json": b"{}",
    "onnx/deep/notes.txt": b"notes",
    **{name: name.encode() for name in ODD_NAMES},
}
FOLDERS = {"onnx", "onnx/deep", "Grüße"}
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{SHA256}\nsize {len(WEIGHTS)}\n".encode()
LFS = {"oid": SHA256, "size": len(WEIGHTS), "pointerSize": len(POINTER)}


def hash_blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0%b" % (len(content), content)).hexdigest()


def make_files(text: str) -> dict[str, bytes]:
    return {"config.json": json.dumps({"text": text}).encode(), "tokenizer.json": b"{}", "model.safetensors": WEIGHTS}


def make_archive(text: str) -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        for name, content in make_files(text).items():
            archive.writestr(name, content)
    return body.getvalue()


@dataclass
class Hub:
    """A deployment whose models the client reads. `reads` counts reads of objects by key."""

    deployment: Deployment
    client: HubClient
    metrics: RecordingMetrics
    reads: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        database, clock = self.deployment.database, self.deployment.clock
        misses = MissHandler(
            MissPolicy.NOT_FOUND, "https://huggingface.co", database.tasks, lambda: pytest.fail("imported"), clock
        )
        self.reader = HubReader(database.hub_models, database.models, self.deployment.store, misses, clock)

    @property
    def source(self) -> InMemoryModelSource:
        source = self.deployment.source
        assert isinstance(source, InMemoryModelSource)
        return source

    def add(
        self, name: str, files: dict[str, bytes], revision: str = "main", *, kind: Source = Source.HUGGINGFACE
    ) -> Model:
        """Adds a revision to the source, and imports it."""
        self.source.models.setdefault(name, {})[revision] = files
        self.source.kind = kind
        return self.import_model(name, revision, kind=kind)

    def import_model(
        self, name: str, revision: str = "main", *, kind: Source = Source.HUGGINGFACE, selection: Selection = WHOLE
    ) -> Model:
        self.deployment.clock.now += 60
        task = self.deployment.submit(name, revision, source=kind, selection=selection)
        self.deployment.run()
        return self.find_model(task.model_ids[0])

    def post_archive(self, archive: bytes, name: str) -> Model:
        task = self.deployment.post(archive, name)
        self.deployment.run()
        return self.find_model(self.deployment.find_task(task.id).model_ids[0])

    def find_model(self, model_id: str) -> Model:
        model = self.deployment.database.models.find_model(model_id)
        assert model is not None
        assert model.status is ModelStatus.READY, model.error
        return model

    def delete(self, model: Model) -> None:
        self.deployment.deleter.delete_model(model.model_id, self.deployment.remaining)
        self.deployment.deleted.add(model.model_id)

    def find_commit(self, revision: str, name: str = NAME) -> str:
        response = self.client.get(f"api/models/{name}/revision/{revision}")
        assert response.status == 200, response.content
        assert response.body["id"] == name
        sha: str = response.body["sha"]
        return sha


@pytest.fixture(params=GATEWAYS)
def hub(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Hub:
    deployment = Deployment(InMemoryModelSource())
    hub = Hub(deployment, HubClient(request.param), RecordingMetrics())
    read = deployment.store.read

    def count_read(key: str, start: int, end: int, **options: Any) -> bytes:
        hub.reads[key] += 1
        return read(key, start, end, **options)

    monkeypatch.setattr(deployment.store, "read", count_read)
    monkeypatch.setattr(wiring, "create_hub_reader", lambda: hub.reader)
    monkeypatch.setattr(wiring, "create_metrics", lambda: hub.metrics)
    return hub


@pytest.fixture
def model(hub: Hub) -> Model:
    return hub.add(NAME, dict(FILES))


def check_error(response: HubResponse, status: int, code: str | None, message: str) -> None:
    assert response.status == status
    assert response.headers.get("x-error-code") == code
    shown = response.headers["x-error-message"]
    assert re.search(message, shown)
    assert re.fullmatch("[ -~]+", shown)
    if response.content:
        assert set(response.body) == {"error"}


@pytest.mark.parametrize("path", FILES)
def test_the_metadata_of_a_file(hub: Hub, model: Model, path: str) -> None:
    content = FILES[path]
    etag = f'"{SHA256 if content == WEIGHTS else hash_blob(content)}"'
    response = hub.client.head(f"{NAME}/resolve/main/{quote(path)}")
    assert response.status == 200
    assert {name: response.headers[name] for name in ("x-repo-commit", "etag", "x-linked-etag", "x-linked-size")} == {
        "x-repo-commit": model.resolved.commit,
        "etag": etag,
        "x-linked-etag": etag,
        "x-linked-size": str(len(content)),
    }
    assert response.headers["accept-ranges"] == "bytes"
    assert not {"location", "x-xet-hash"} & set(response.headers)
    assert not hub.metrics.values


@pytest.mark.parametrize("path", [path for path in FILES if FILES[path]])
def test_the_content_of_a_file_is_at_s3(hub: Hub, model: Model, path: str) -> None:
    for ranges in ({}, {"Range": "bytes=0-"}, {"Range": "bytes=0-1"}, {"Range": "bytes=-1"}):
        response = hub.client.get(f"{NAME}/resolve/main/{quote(path)}", **ranges)
        assert response.status == 307
        signed = hub.deployment.store.sign_read(model.resolved.prefix + path, seconds=LINK_SECONDS)
        assert response.headers["location"] == signed
        assert response.headers["cache-control"] == "no-store"
        head = hub.client.head(f"{NAME}/resolve/main/{quote(path)}")
        assert head.headers.items() <= response.headers.items()


def test_one_byte_of_a_file_is_in_the_response(hub: Hub, model: Model) -> None:
    size = len(WEIGHTS)
    for position in (0, 9, 100_000, size - 1):
        response = hub.client.get(f"{NAME}/resolve/main/model.safetensors", Range=f"bytes={position}-{position}")
        assert response.status == 206
        assert response.content == WEIGHTS[position : position + 1]
        assert response.headers["content-range"] == f"bytes {position}-{position}/{size}"
        assert response.headers["x-linked-etag"] == f'"{SHA256}"'
    beyond = hub.client.get(f"{NAME}/resolve/main/model.safetensors", Range=f"bytes={size}-{size}")
    check_error(beyond, 416, None, f"has {size} bytes")
    assert beyond.headers["content-range"] == f"bytes */{size}"


def test_an_empty_file_is_in_the_response(hub: Hub, model: Model) -> None:
    for ranges in ({}, {"Range": "bytes=0-0"}):
        response = hub.client.get(f"{NAME}/resolve/main/empty.txt", **ranges)
        assert (response.status, response.content) == (200, b"")
        assert response.headers["content-range"] == "bytes */0"
        assert response.headers["etag"] == f'"{hash_blob(b"")}"'


@pytest.mark.parametrize(
    ("user_agent", "status", "size"),
    [
        ("transformers/5.1; hf_hub/1.31.0; python/3.13", 307, None),
        ("unknown/None; hf_hub/2.4.0; python/3.13", 307, None),
        ("unknown/None; hf_hub/1.30.9; python/3.13", 200, "60000000000"),
        ("unknown/None; hf_hub/0.36.2; python/3.13", 200, "60000000000"),
        ("curl/8", 200, "60000000000"),
    ],
)
def test_clients_that_can_download_more_than_50_gb_do_not_see_the_size(
    hub: Hub, model: Model, user_agent: str, status: int, size: str | None
) -> None:
    key = manifest_key(model.model_id)
    manifest = json.loads(hub.deployment.read(key))
    (weights,) = [file for file in manifest["files"] if file["path"] == "model.safetensors"]
    weights["size"] = 60_000_000_000
    body = json.dumps(manifest).encode()
    hub.deployment.store.put(key, body, sha256=hashlib.sha256(body).hexdigest())
    response = hub.client.call("HEAD", f"{NAME}/resolve/main/model.safetensors", headers={"User-Agent": user_agent})
    assert (response.status, response.headers.get("x-linked-size")) == (status, size)
    assert response.headers["x-linked-etag"] == f'"{SHA256}"'
    # A response to HEAD has `Content-Length: 0`. Clients ignore it if the response is a redirect, and then GET this.
    assert ("location" in response.headers) == (size is None)


def test_the_raw_content_of_an_lfs_file_is_its_pointer(hub: Hub, model: Model) -> None:
    target = f"{NAME}/raw/main/model.safetensors"
    response = hub.client.get(target)
    assert (response.status, response.content) == (200, POINTER)
    assert response.headers["etag"] == f'"{hash_blob(POINTER)}"'
    assert hub.client.get(target, Range="bytes=8-8").content == POINTER[8:9]
    head = hub.client.head(target)
    assert (head.status, head.headers["x-linked-size"]) == (200, str(len(POINTER)))
    assert hub.client.get(f"{NAME}/raw/main/config.json").status == 307
    check_error(hub.client.head(f"{NAME}/raw/main/absent.json"), 404, "EntryNotFound", "not found")


def test_an_absent_file(hub: Hub, model: Model) -> None:
    response = hub.client.head(f"{NAME}/resolve/main/processor_config.json")
    check_error(response, 404, "EntryNotFound", "'processor_config.json' not found in org/Tiny")
    assert response.headers["x-repo-commit"] == model.resolved.commit
    assert hub.client.get(f"{NAME}/resolve/main/onnx").headers["x-error-code"] == "EntryNotFound"
    check_error(
        hub.client.get(f"{NAME}/resolve/main/%E6%97%A5%0D%0AX: y"), 404, "EntryNotFound", r"'\?\\r\\nX: y' not found"
    )
    assert not hub.metrics.values


def test_the_information_about_a_model(hub: Hub, model: Model) -> None:
    body = hub.client.get(f"api/models/{NAME}").body
    siblings = body.pop("siblings")
    assert {sibling["rfilename"] for sibling in siblings} == set(FILES)
    assert re.fullmatch("[0-9a-f]{24}", body.pop("_id"))
    for moment in (body.pop("createdAt"), body.pop("lastModified")):
        datetime.strptime(moment, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    assert body == {
        "id": NAME,
        "modelId": NAME,
        "author": "org",
        "sha": model.resolved.commit,
        "private": False,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
    }
    detailed = hub.client.get(f"api/models/{NAME}/revision/main?blobs=True").body
    files = {sibling.pop("rfilename"): sibling for sibling in detailed["siblings"]}
    assert files["config.json"] == {"size": 8, "blobId": hash_blob(FILES["config.json"])}
    assert files["model.safetensors"] == {
        "size": len(WEIGHTS),
        "blobId": hash_blob(POINTER),
        "lfs": {"sha256": SHA256, "size": len(WEIGHTS), "pointerSize": len(POINTER)},
    }


def test_too_many_siblings_are_left_to_the_tree(hub: Hub, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_DOCUMENT", 200)
    assert hub.client.get(f"api/models/{NAME}").body["siblings"] == []


def list_tree(hub: Hub, target: str) -> dict[str, dict[str, Any]]:
    response = hub.client.get(target)
    assert response.status == 200, response.content
    assert "link" not in response.headers
    paths = [entry["path"] for entry in response.body]
    assert paths == sorted(set(paths))
    return {entry["path"]: entry for entry in response.body}


def test_a_tree(hub: Hub, model: Model) -> None:
    whole = list_tree(hub, f"api/models/{NAME}/tree/main?recursive=True&expand=False")
    assert {path for path, entry in whole.items() if entry["type"] == "file"} == set(FILES)
    assert {path for path, entry in whole.items() if entry["type"] == "directory"} == FOLDERS
    for path, content in FILES.items():
        is_lfs = content == WEIGHTS
        assert whole[path]["oid"] == hash_blob(POINTER if is_lfs else content)
        assert whole[path]["size"] == len(content)
        assert whole[path].get("lfs") == (LFS if is_lfs else None)
    assert all(re.fullmatch("[0-9a-f]{40}", whole[path]["oid"]) for path in FOLDERS)
    root = list_tree(hub, f"api/models/{NAME}/tree/main")
    assert set(root) == {path for path in {*FILES, *FOLDERS} if "/" not in path}
    assert root.items() <= whole.items()


def test_the_tree_of_a_folder(hub: Hub, model: Model) -> None:
    assert set(list_tree(hub, f"api/models/{NAME}/tree/main/onnx")) == {"onnx/config.json", "onnx/deep"}
    for path in ("onnx/deep", "onnx%2Fdeep", "onnx/deep/"):
        assert set(list_tree(hub, f"api/models/{NAME}/tree/main/{path}")) == {"onnx/deep/notes.txt"}
    nested = list_tree(hub, f"api/models/{NAME}/tree/main/onnx?recursive=true&expand=true")
    assert set(nested) == {"onnx/config.json", "onnx/deep", "onnx/deep/notes.txt"}
    assert {entry["lastCommit"]["id"] for entry in nested.values()} == {model.resolved.commit}
    assert all(set(entry["lastCommit"]) == {"id", "title", "date"} for entry in nested.values())
    for path in ("absent", "onn", "config.json", "onnx/config.json"):
        check_error(hub.client.get(f"api/models/{NAME}/tree/main/{path}"), 404, "EntryNotFound", "not found")


def test_pages_of_a_tree(hub: Hub, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list_tree(hub, f"api/models/{NAME}/tree/main?recursive=True")
    monkeypatch.setattr(documents, "MAX_DOCUMENT", 500)
    target, found, pages = f"api/models/{NAME}/tree/main?recursive=True&expand=False", [], 0
    while target:
        response = hub.client.get(target)
        found += response.body
        pages += 1
        link = re.fullmatch(rf'<{re.escape(hub.client.base_url)}/(.+)>; rel="next"', response.headers.get("link", ""))
        target = link[1] if link else ""
    assert pages > 4
    assert found == list(whole.values())


def post_paths(hub: Hub, body: bytes, kind: str, revision: str = "main") -> HubResponse:
    target = f"api/models/{NAME}/paths-info/{revision}"
    return hub.client.call("POST", target, headers={"Content-Type": kind}, body=body)


def test_the_information_about_paths(hub: Hub, model: Model) -> None:
    paths = ["config.json", "absent", "onnx/deep", *ODD_NAMES, "onnx/", "config.json", "../config.json", ""]
    form = post_paths(
        hub, urlencode({"paths": paths, "expand": False}, doseq=True).encode(), "application/x-www-form-urlencoded"
    )
    assert [entry["path"] for entry in form.body] == ["config.json", "onnx/deep", *ODD_NAMES, "onnx"]
    whole = list_tree(hub, f"api/models/{NAME}/tree/main?recursive=true")
    assert all(entry == whole[entry["path"]] for entry in form.body)
    document = json.dumps({"paths": paths, "expand": True}).encode()
    expanded = post_paths(hub, document, "application/json", model.resolved.commit)
    assert {entry.pop("lastCommit")["id"] for entry in expanded.body} == {model.resolved.commit}
    (single,) = post_paths(hub, b'{"paths": "model.safetensors"}', "application/json; charset=utf-8").body
    assert single["lfs"] == LFS


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"paths": {}}', b'{"paths": [1]}', b"null", b"\xff", b"{}"])
def test_invalid_paths(hub: Hub, model: Model, body: bytes) -> None:
    check_error(post_paths(hub, body, "application/json"), 400, None, "paths")


def test_too_many_paths(hub: Hub, model: Model) -> None:
    many = [f"{number}" for number in range(10_001)]
    check_error(post_paths(hub, json.dumps({"paths": many}).encode(), "application/json"), 400, None, "10,000")
    form = urlencode({"paths": many + many}, doseq=True).encode()
    check_error(post_paths(hub, form, "application/x-www-form-urlencoded"), 400, None, "paths")


def test_paths_whose_response_is_too_large(hub: Hub, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_DOCUMENT", 500)
    paths = [path for path in FILES if path != "empty.txt"]
    body = json.dumps({"paths": paths, "expand": True}).encode()
    check_error(post_paths(hub, body, "application/json"), 400, None, f"{len(paths)} paths .* Ask for fewer paths")
    body = json.dumps({"paths": paths[:1], "expand": True}).encode()
    assert len(post_paths(hub, body, "application/json").body) == 1


def test_revisions(hub: Hub) -> None:
    first = hub.add(NAME, make_files("1")).resolved.commit
    tagged = hub.add(NAME, make_files("2"), "v1.0").resolved.commit
    pull = hub.add(NAME, make_files("3"), "refs/pr/1").resolved.commit
    feature = hub.add(NAME, make_files("4"), "feature/x").resolved.commit
    hub.source.models[NAME]["stable"] = make_files("2")
    with pytest.raises(ModelExistsError):
        hub.deployment.submit(NAME, "stable")
    expected = {
        "main": first,
        "HEAD": first,
        "v1.0": tagged,
        "stable": tagged,
        "refs%2Fpr%2F1": pull,
        "feature%2Fx": feature,
        tagged: tagged,
        tagged[:7]: tagged,
        tagged[:10].upper(): tagged,
    }
    for revision, commit in expected.items():
        assert hub.find_commit(revision) == commit
        assert hub.client.head(f"{NAME}/resolve/{revision}/config.json").headers["x-repo-commit"] == commit
        assert "config.json" in list_tree(hub, f"api/models/{NAME}/tree/{revision}")
    # @huggingface/hub does not encode the revision of a tree.
    assert "config.json" in list_tree(hub, f"api/models/{NAME}/tree/refs/pr/1")
    assert "config.json" in list_tree(hub, f"api/models/{NAME}/tree/feature/x")
    references = hub.client.get(f"api/models/{NAME}/refs?include_prs=1").body
    assert {branch["name"]: branch["targetCommit"] for branch in references["branches"]} == {
        "main": first,
        "v1.0": tagged,
        "stable": tagged,
        "feature/x": feature,
    }
    assert references["branches"][0]["ref"] == f"refs/heads/{references['branches'][0]['name']}"
    assert references["pullRequests"] == [{"name": "refs/pr/1", "ref": "refs/pr/1", "targetCommit": pull}]
    assert references["tags"] == references["converts"] == []


def test_a_revision_that_is_not_imported(hub: Hub, model: Model) -> None:
    for revision in ("v9", model.resolved.commit[:6], "0" * 40, "refs%2Fpr%2F9"):
        for response in (
            hub.client.head(f"{NAME}/resolve/{revision}/config.json"),
            hub.client.get(f"api/models/{NAME}/revision/{revision}"),
            hub.client.get(f"api/models/{NAME}/tree/{revision}"),
        ):
            check_error(response, 404, "RevisionNotFound", f"not imported.*main, {model.resolved.commit}")


def test_a_branch_is_the_newest_import_through_it(hub: Hub) -> None:
    old = hub.add(NAME, make_files("1"))
    new = hub.add(NAME, make_files("2"))
    assert hub.find_commit("main") == new.resolved.commit
    assert hub.find_commit(old.resolved.commit) == old.resolved.commit
    hub.source.models[NAME]["main"] = make_files("1")
    hub.deployment.clock.now += 60
    with pytest.raises(ModelExistsError):
        hub.deployment.submit(NAME, "main")
    assert hub.find_commit("main") == old.resolved.commit
    hub.delete(old)
    assert hub.find_commit("main") == new.resolved.commit
    hub.delete(new)
    check_error(hub.client.get(f"api/models/{NAME}"), 404, "RepoNotFound", "org/Tiny is not imported")


def test_a_model_of_the_hub_has_only_the_branches_that_were_imported(hub: Hub) -> None:
    commit = hub.add(NAME, make_files("1"), "v1.0").resolved.commit
    assert hub.find_commit("HEAD") == commit
    assert hub.client.get(f"api/models/{NAME}").body["sha"] == commit
    check_error(hub.client.head(f"{NAME}/resolve/main/config.json"), 404, "RevisionNotFound", "'main'")


def test_models_from_github_and_archives(hub: Hub) -> None:
    commit = hub.add("octo/model", make_files("1"), "master", kind=Source.GITHUB).resolved.commit
    assert hub.find_commit("main", "github.octo/model") == hub.find_commit("master", "github.octo/model") == commit
    imported = hub.post_archive(make_archive("1"), "team/tiny")
    first = hub.find_commit("main", "archive.local/team__tiny")
    assert re.fullmatch("[0-9a-f]{40}", first)
    head = hub.client.head("archive.local/team__tiny/resolve/main/model.safetensors")
    assert head.headers["x-linked-etag"] == f'"{SHA256}"'
    # Archives have no Git blob IDs: all files are LFS files, which clients identify by SHA-256.
    config = list_tree(hub, "api/models/archive.local/team__tiny/tree/main")["config.json"]
    assert config["lfs"]["oid"] == hashlib.sha256(make_files("1")["config.json"]).hexdigest()
    hub.delete(imported)
    hub.post_archive(make_archive("another"), "team/tiny")
    assert hub.find_commit("main", "archive.local/team__tiny") != first
    changed = list_tree(hub, "api/models/archive.local/team__tiny/tree/main")["config.json"]
    assert changed["lfs"]["oid"] == hashlib.sha256(make_files("another")["config.json"]).hexdigest()


def test_parts_of_a_model(hub: Hub) -> None:
    hub.source.models[NAME] = {"main": dict(FILES)}
    weights = hub.import_model(NAME, selection=Selection(("model.safetensors", "*.json")))
    notes = hub.import_model(NAME, selection=Selection(("onnx/deep/*", "config.json")))
    found = {p for p, e in list_tree(hub, f"api/models/{NAME}/tree/main?recursive=1").items() if e["type"] == "file"}
    assert found == {"config.json", "model.safetensors", "tokenizer.json", "onnx/config.json", "onnx/deep/notes.txt"}
    for path, part in (("model.safetensors", weights), ("onnx/deep/notes.txt", notes), ("config.json", notes)):
        location = hub.client.get(f"{NAME}/resolve/main/{path}").headers["location"]
        assert location == hub.deployment.store.sign_read(part.resolved.prefix + path, seconds=LINK_SECONDS)
    check_error(hub.client.head(f"{NAME}/resolve/main/empty.txt"), 404, "EntryNotFound", "empty.txt")
    whole = hub.import_model(NAME)
    hub.import_model(NAME, selection=Selection(("tokenizer.json", "*.safetensors")))
    location = hub.client.get(f"{NAME}/resolve/main/tokenizer.json").headers["location"]
    assert location == hub.deployment.store.sign_read(whole.resolved.prefix + "tokenizer.json", seconds=LINK_SECONDS)
    assert hub.client.head(f"{NAME}/resolve/main/empty.txt").status == 200


def test_names_in_another_case_and_old_names_are_redirected(hub: Hub, model: Model) -> None:
    hub.source.old_names["tiny"] = NAME
    with pytest.raises(ModelExistsError):
        hub.deployment.submit("tiny", "main")
    for name in ("ORG/tiny", "org/tiny", "tiny", "TINY"):
        for before, after in (
            ("", "/resolve/main/Gr%C3%BC%C3%9Fe/%E6%97%A5%E6%9C%AC.txt"),
            ("", "/raw/main/config.json"),
            ("api/models/", ""),
            ("api/models/", "/tree/main?recursive=True&expand=False"),
            ("api/models/", "/refs?a=1&a=2&b=%26+%3D"),
        ):
            response = hub.client.get(f"{before}{name}{after}")
            assert response.status == 307
            assert response.headers["location"] == f"{hub.client.prefix}/{before}{NAME}{after}"
    response = hub.client.call("POST", "api/models/org/tiny/paths-info/main", body=b"paths=a")
    assert (response.status, response.headers["location"]) == (
        307,
        f"{hub.client.prefix}/api/models/{NAME}/paths-info/main",
    )
    assert hub.client.head("tiny/resolve/main/absent").headers["location"].endswith(f"{NAME}/resolve/main/absent")


def test_names_that_stand_for_each_other_do_not_redirect_for_ever(hub: Hub, model: Model) -> None:
    hub.deployment.database.hub_models.save_name("tiny", NAME)
    hub.deployment.database.hub_models.save_name(NAME, "tiny")
    assert hub.client.get("api/models/tiny").status == 307
    assert hub.client.get(f"api/models/{NAME}").status == 200
    hub.delete(model)
    for name in ("tiny", NAME):
        check_error(hub.client.get(f"api/models/{name}"), 404, "RepoNotFound", "is not imported")


@pytest.mark.parametrize(
    "target",
    [
        "api/agent-harnesses",
        "api/telemetry/hf_hub/cli",
        "api/datasets/org/data",
        "datasets/org/data/resolve/main/a.txt",
        "datasets/data/resolve/main/a.txt",
        "spaces/org/app/raw/main/a.txt",
        "org/model",
        "api/models/a/b/c",
        "api/models/org/Tiny/commits/main",
        "org/Tiny/resolve/main",
        "org//resolve/main/a.txt",
        "favicon.ico",
        "",
    ],
)
def test_other_routes(hub: Hub, model: Model, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    monkeypatch.setattr(hub.deployment.database.hub_models, "find_entry", lambda name: pytest.fail("a query"))
    hub.reads.clear()
    if target != "org//resolve/main/a.txt" or hub.client.gateway != "ministack":  # which drops the empty segment
        check_error(hub.client.get(target), 404, None, "Route not found")
    assert not hub.reads


@pytest.mark.parametrize(
    "name", ["a--b/c", "org/..", "org/a..b", "-a/b", "org/x.git", f"org/{'x' * 97}", "%20/a", "o/a%0a"]
)
def test_names_that_no_model_has(hub: Hub, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.deployment.database.hub_models, "find_entry", lambda name: pytest.fail("a query"))
    check_error(hub.client.get(f"api/models/{name}/refs"), 404, "RepoNotFound", "not the name of a model")


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", f"{NAME}/resolve/main/config.json"),
        ("POST", "api/models"),
        ("GET", f"api/models/{NAME}/paths-info/main"),
    ],
)
def test_other_methods(hub: Hub, model: Model, method: str, target: str) -> None:
    check_error(hub.client.call(method, target), 404, None, "Route not found")


def test_only_ready_models_are_visible(hub: Hub) -> None:
    hub.source.models[NAME] = {"main": make_files("1")}
    hub.deployment.submit(NAME)
    check_error(hub.client.get(f"api/models/{NAME}"), 404, "RepoNotFound", "")
    assert hub.client.get("api/models").body == []
    hub.deployment.run()
    assert hub.client.get(f"api/models/{NAME}").status == 200


def test_a_model_that_is_being_deleted_is_requested_again(hub: Hub, model: Model) -> None:
    hub.deployment.store.delete([manifest_key(model.model_id)])
    response = hub.client.head(f"{NAME}/resolve/main/config.json")
    check_error(response, 503, None, "NoSuchKey")
    assert int(response.headers["retry-after"]) > 0
    assert not hub.metrics.values


def test_manifests_are_read_once(hub: Hub, model: Model) -> None:
    hub.reads.clear()
    for _ in range(3):
        hub.client.head(f"{NAME}/resolve/main/config.json")
        hub.client.get(f"{NAME}/resolve/main/model.safetensors")
        hub.client.get(f"api/models/{NAME}/tree/main")
    assert hub.reads == {manifest_key(model.model_id): 1}


def test_the_day_of_the_last_read_is_recorded_once(hub: Hub, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = []
    record_read = hub.deployment.database.hub_models.record_read

    def remember_read(model_id: str, day: date) -> None:
        recorded.append((model_id, day))
        record_read(model_id, day)

    monkeypatch.setattr(hub.deployment.database.hub_models, "record_read", remember_read)
    hub.client.get(f"api/models/{NAME}")
    hub.client.head(f"{NAME}/resolve/main/absent.json")
    assert hub.find_model(model.model_id).last_read_on is None
    for _ in range(3):
        hub.client.head(f"{NAME}/resolve/main/config.json")
    today = datetime.fromtimestamp(hub.deployment.clock.now, UTC).date()
    assert hub.find_model(model.model_id).last_read_on == today
    hub.deployment.clock.now += 24 * 3600
    hub.client.get(f"{NAME}/resolve/main/config.json")
    assert recorded == [(model.model_id, today), (model.model_id, today + timedelta(days=1))]


def test_a_read_that_cannot_be_recorded_is_served(
    hub: Hub, model: Model, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(model_id: str, day: date) -> None:
        raise StorageUnavailableError("DynamoDB request failed (ThrottlingException).")

    with monkeypatch.context() as outage, caplog.at_level(logging.INFO):
        outage.setattr(hub.deployment.database.hub_models, "record_read", fail)
        for _ in range(3):
            assert hub.client.head(f"{NAME}/resolve/main/config.json").status == 200
    assert [record.message for record in caplog.records] == ["read of model not recorded"], "retried at once"
    hub.deployment.clock.now += 10
    hub.client.head(f"{NAME}/resolve/main/config.json")
    today = datetime.fromtimestamp(hub.deployment.clock.now, UTC).date()
    assert hub.find_model(model.model_id).last_read_on == today


def test_a_hit_is_not_logged(hub: Hub, model: Model, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        hub.client.head(f"{NAME}/resolve/main/config.json")
        hub.client.head(f"{NAME}/resolve/main/absent.json")
    assert caplog.records == []


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (StorageUnavailableError("DynamoDB request failed (InternalServerError)."), 503, "DynamoDB request failed"),
        (ValueError("secret"), 500, r"Internal error\. Request ID: request-1\."),
    ],
)
def test_failures(hub: Hub, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, message: str) -> None:
    def fail(name: str) -> None:
        raise error

    monkeypatch.setattr(hub.deployment.database.hub_models, "find_entry", fail)
    response = hub.client.get(f"api/models/{NAME}")
    check_error(response, status, None, message)
    assert b"secret" not in response.content
    assert ("retry-after" in response.headers) == (status == 503)
    assert hub.metrics.values == {"HubErrors": 1}


def test_a_request_without_an_authorized_key_is_not_served(hub: Hub, model: Model) -> None:
    event = build_event(hub.client.gateway, "GET", f"api/models/{NAME}")
    del event["requestContext"]["authorizer"]
    assert load_handler("read_hub")(event, Context())["statusCode"] == 500


@pytest.mark.parametrize(
    "names", [None, "", " ", "*  *", "org/Tiny\n", "org/?", "org/Tiny,*", " ".join(["*"] * 21), "a" * 201, ["*"]]
)
@pytest.mark.parametrize("target", [f"{NAME}/resolve/main/config.json", f"api/models/{NAME}", "api/models"])
def test_a_key_with_invalid_names_reads_nothing(
    hub: Hub, model: Model, monkeypatch: pytest.MonkeyPatch, names: object, target: str
) -> None:
    monkeypatch.setenv("LOCAL_MODE", str(hub.client.gateway == "ministack").lower())
    event = build_event(hub.client.gateway, "GET", target)
    context = event["requestContext"]["authorizer"]
    context["names"] = names
    if names is None:  # as an earlier version of the authorizer returns it
        del context["names"]
    returned = load_handler("read_hub")(event, Context())
    assert returned["statusCode"] == 503
    assert returned["headers"]["Retry-After"] == "60"
    assert NAME not in json.dumps(returned)
    assert hub.metrics.values == {"HubErrors": 1}


def test_the_caller(hub: Hub) -> None:
    body = hub.client.get("api/whoami-v2").body
    assert (body["name"], body["type"], body["orgs"]) == (KEY["name"], "user", [])
    assert body["auth"]["accessToken"] == {"displayName": KEY["name"], "role": "read"}


def test_the_host_header_is_trusted_in_the_local_stack_only(
    hub: Hub, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "MAX_DOCUMENT", 500)
    target, headers = f"api/models/{NAME}/tree/main", {"Host": "evil.example"}
    link = hub.client.call("GET", target, headers=headers).headers["link"]
    assert ("evil.example" in link) == (hub.client.gateway == "ministack")
    event = build_event("ministack", "GET", target, headers=headers)  # without a domain name
    monkeypatch.setenv("LOCAL_MODE", "false")
    response = load_handler("read_hub")(event, Context())
    assert response["statusCode"] == 500
    assert "evil.example" not in json.dumps(response)


def list_names(hub: Hub, query: str = "") -> list[str]:
    """Names of all pages. A later page repeats a name if it has an older version."""
    names, target = [], f"api/models{query}"
    while target:
        response = hub.client.get(target)
        assert response.status == 200
        listed = [entry["id"] for entry in response.body]
        assert len(set(listed)) == len(listed)
        names += listed
        link = re.fullmatch(rf'<{re.escape(hub.client.base_url)}/(.+)>; rel="next"', response.headers.get("link", ""))
        target = link[1] if link else ""
    return names


def test_the_list_of_models(hub: Hub) -> None:
    for number in range(3):
        hub.add(f"org/m{number}", make_files("1"))
    hub.add("octo/m1", make_files("2"), kind=Source.GITHUB)
    newest = hub.add("org/m1", make_files("3"))
    assert list_names(hub) == ["org/m1", "github.octo/m1", "org/m2", "org/m0"]
    assert list_names(hub, "?author=archive.local") == []
    assert list_names(hub, "?search=M1") == ["org/m1", "github.octo/m1"]
    assert list_names(hub, "?author=Org&sort=downloads") == ["org/m1", "org/m2", "org/m0"]
    assert list_names(hub, "?author=github.octo") == ["github.octo/m1"]
    assert list_names(hub, "?author=or") == list_names(hub, "?search=absent") == []
    for limit in (1, 2, 4, 500, 100_000_000):
        newest_first = dict.fromkeys(list_names(hub, f"?limit={limit}"))
        assert [*newest_first] == ["org/m1", "github.octo/m1", "org/m2", "org/m0"]
        assert [*dict.fromkeys(list_names(hub, f"?limit={limit}&author=org&search=m"))] == [
            "org/m1",
            "org/m2",
            "org/m0",
        ]
    assert len(hub.client.get("api/models?limit=4").body) == 4
    assert list_names(hub, "?limit=1").count("org/m1") == 2
    first = hub.client.get("api/models?limit=1").body[0]
    assert first["sha"] == newest.resolved.commit
    assert "siblings" not in first


def test_archives_are_an_author(hub: Hub) -> None:
    hub.post_archive(make_archive("1"), "team/tiny")
    hub.add("team/tiny", make_files("1"))
    assert list_names(hub, "?author=archive.local") == ["archive.local/team__tiny"]
    assert list_names(hub, "?author=Archive.Local&search=tiny") == ["archive.local/team__tiny"]
    assert list_names(hub, "?author=team") == ["team/tiny"]


def test_a_page_of_the_list_needs_few_requests(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        hub.add(f"org/m{number}", make_files("1"))
    list_models, limits = hub.deployment.database.models.list_models, []

    def count_list(**arguments: Any) -> Any:
        limits.append(arguments["limit"])
        return list_models(**arguments)

    monkeypatch.setattr(hub.deployment.database.models, "list_models", count_list)
    monkeypatch.setattr(hub.deployment.database.hub_models, "find_entry", lambda name: pytest.fail("a query"))
    assert len(list_names(hub, "?limit=2")) == 4
    assert limits == [2, 2]
    list_names(hub, "?limit=5000&author=absent")
    assert limits == [2, 2, 1000]
    limits.clear()
    for number in range(9):
        hub.add("org/m9", make_files(f"version {number}"))
    assert [entry["id"] for entry in hub.client.get("api/models?limit=2").body] == ["org/m9"]
    assert limits == [2, 1, 1, 1, 1]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=-1", "limit=x", "cursor=x", f"search={'x' * 301}", f"cursor={'x' * 1001}"]
)
def test_invalid_queries_of_the_list(hub: Hub, query: str) -> None:
    check_error(hub.client.get(f"api/models?{query}"), 400, None, "")
