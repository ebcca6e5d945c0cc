import hashlib
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from modelhaul.domain.digests import FileHasher
from modelhaul.domain.errors import (
    AccessRequiredError,
    FileMissingError,
    InvalidReferenceError,
    InvalidRepositoryError,
    ModelDisabledError,
    ModelNotFoundError,
    RevisionNotFoundError,
)
from modelhaul.domain.files import FileList, SourceFile
from modelhaul.domain.models import ResolvedModel
from modelhaul.ports.byte_streams import ByteStream
from modelhaul_sources.github import GitHubSource
from modelhaul_sources.hosts import HostPolicy
from modelhaul_sources.huggingface import HuggingFaceSource
from tests.fakes.model_source import HubSource, InMemoryModelSource
from tests.upstream.git_repository import RepositoryMaker
from tests.upstream.github import LoopbackGitHub
from tests.upstream.github_source import open_github
from tests.upstream.hub import LoopbackHub
from tests.upstream.hub_repository import HubFile, HubRepository

WEIGHTS = random.Random("weights").randbytes(300_000)
MAIN = {
    "config.json": b'{"model_type": "bert"}',
    "empty.txt": b"",
    "model.safetensors": WEIGHTS,
    "onnx/näme with space #1?.json": b"{}",
}
_COMMITTED_AT = datetime(2026, 1, 1, tzinfo=UTC)  # as the loopback GitHub commits
NEXT = MAIN | {"config.json": b'{"model_type": "gpt2"}'}


def make_fake() -> HubSource:
    return InMemoryModelSource(
        {"owner/model": {"main": MAIN, "feature/x": NEXT}},
        old_names={"model": "owner/model"},
        refusals={"owner/gated": AccessRequiredError("gated"), "owner/disabled": ModelDisabledError("disabled")},
        commit_dates={"owner/model": _COMMITTED_AT},
    )


def fill_hub(hub: LoopbackHub) -> None:
    def prepare(files: dict[str, bytes]) -> dict[str, HubFile]:
        return {path: HubFile(data, lfs=path.endswith(".safetensors")) for path, data in files.items()}

    branches = {"main": prepare(MAIN), "feature/x": prepare(NEXT)}
    date = _COMMITTED_AT.strftime("%Y-%m-%dT%H:%M:%S.000Z")
    hub.add_repository(HubRepository("owner/model", branches, old_names=["model"], committed_at=date))
    hub.add_repository(HubRepository("owner/gated", {"main": prepare(MAIN)}, gated="manual"))
    hub.add_repository(HubRepository("owner/disabled", {"main": prepare(MAIN)}, disabled=True))


def fill_github(github: LoopbackGitHub, maker: RepositoryMaker) -> None:
    branches = {"main": MAIN, "feature/x": NEXT}
    repository = maker.make("owner/model", branches, lfs=["*.safetensors"], old_names=["model/old"])
    github.add_repository(repository)
    github.add_repository(maker.make("owner/gated", {"main": {"a": b"b"}}, sso=True))
    github.add_repository(maker.make("owner/disabled", {"main": {"a": b"b"}}, blocked=451))


@pytest.fixture(params=["fake", "huggingface", "github"])
def source(request: pytest.FixtureRequest) -> Iterator[HubSource]:
    if request.param == "fake":
        yield make_fake()
        return
    if request.param == "github":
        with LoopbackGitHub(request.getfixturevalue("lfs_server")) as github:
            fill_github(github, request.getfixturevalue("repository_maker"))
            yield open_github(github)
        return
    with LoopbackHub(page_size=2) as hub:
        fill_hub(hub)
        yield HuggingFaceSource(HostPolicy.for_hub(hub.endpoint, local_mode=True))


def find_file(source: HubSource, model: ResolvedModel, path: str) -> SourceFile:
    return next(file for file in source.list_files(model) if file.path == path)


def read_all(stream: ByteStream, buffer_size: int = 4096) -> bytes:
    buffer, received = memoryview(bytearray(buffer_size)), bytearray()
    while count := stream.readinto(buffer):
        received += buffer[:count]
    return bytes(received)


def test_a_branch_is_resolved_to_its_commit(source: HubSource) -> None:
    main = source.resolve("owner/model", "main")
    other = source.resolve("owner/model", "feature/x")
    assert (main.name, main.revision) == ("owner/model", "main")
    assert len(main.commit) == 40
    assert main.commit != other.commit
    assert source.resolve("owner/model", main.commit).model_id == main.model_id


def test_an_old_name_is_resolved_to_the_canonical_one(source: HubSource) -> None:
    old_name = "model/old" if isinstance(source, GitHubSource) else "model"
    assert source.resolve(old_name, "main") == source.resolve("owner/model", "main")


@pytest.mark.parametrize(
    ("name", "revision", "error"),
    [
        ("owner/missing", "main", ModelNotFoundError),
        ("owner/model", "missing", RevisionNotFoundError),
        ("owner/model", "0" * 40, RevisionNotFoundError),
        ("owner/gated", "main", AccessRequiredError),
        ("owner/disabled", "main", ModelDisabledError),
        ("owner/model/more", "main", InvalidReferenceError),
        ("../model", "main", InvalidReferenceError),
        ("", "main", InvalidReferenceError),
        ("owner/model", "", InvalidReferenceError),
        ("owner/model", "a..b", InvalidReferenceError),
        ("owner/model", "new\nline", InvalidReferenceError),
    ],
)
def test_what_cannot_be_resolved_is_refused(
    source: HubSource, name: str, revision: str, error: type[Exception]
) -> None:
    with pytest.raises(error) as caught:
        source.resolve(name, revision)
    is_ours = error is InvalidReferenceError and isinstance(source, GitHubSource)
    assert type(caught.value) is (InvalidRepositoryError if is_ours else error)


def test_a_commit_has_the_date_that_it_states(source: HubSource) -> None:
    model = source.resolve("owner/model", "feature/x")
    assert (model.gated, model.committed_at) == (False, None)
    assert source.find_commit_date(model) == _COMMITTED_AT
    with pytest.raises(RevisionNotFoundError):
        source.find_commit_date(replace(model, commit="0" * 40))


def test_all_files_are_listed_with_digests_of_their_content(source: HubSource) -> None:
    model = source.resolve("owner/model", "main")
    listed = FileList(model)
    for file in source.list_files(model):
        if file.path == ".gitattributes":
            continue
        listed.add(file)
        hasher = FileHasher(file.digest, file.size)
        hasher.update(MAIN[file.path])
        assert hasher.verify(file.path) == hashlib.sha256(MAIN[file.path]).hexdigest()
    assert {file.path: file.size for file in listed.files} == {path: len(data) for path, data in MAIN.items()}


def test_a_commit_that_is_not_there_has_no_files(source: HubSource) -> None:
    with pytest.raises(RevisionNotFoundError):
        list(
            source.list_files(
                ResolvedModel(source.resolve("owner/model", "main").source, "owner/model", "main", "0" * 40)
            )
        )


def test_files_are_those_of_the_commit(source: HubSource) -> None:
    for revision, files in (("main", MAIN), ("feature/x", NEXT)):
        model = source.resolve("owner/model", revision)
        file = find_file(source, model, "config.json")
        with source.open_range(model, file, 0, file.size) as stream:
            assert read_all(stream) == files["config.json"]


@pytest.mark.parametrize(("start", "end"), [(0, 300_000), (0, 1), (299_999, 300_000), (1, 200_000), (131_072, 262_144)])
@pytest.mark.parametrize("buffer_size", [1000, 1 << 20])
def test_a_range_is_exact(source: HubSource, start: int, end: int, buffer_size: int) -> None:
    model = source.resolve("owner/model", "main")
    file = find_file(source, model, "model.safetensors")
    with source.open_range(model, file, start, end) as stream:
        assert (stream.offset, stream.ranged) == (start, True)
        assert read_all(stream, buffer_size) == WEIGHTS[start:end]
        assert stream.readinto(memoryview(bytearray(8))) == 0


def test_names_with_special_characters_are_read(source: HubSource) -> None:
    model = source.resolve("owner/model", "main")
    file = find_file(source, model, "onnx/näme with space #1?.json")
    with source.open_range(model, file, 1, 2) as stream:
        assert read_all(stream) == b"}"


def test_ranges_of_one_content_have_one_etag(source: HubSource) -> None:
    model = source.resolve("owner/model", "main")
    etags = []
    for path in ("model.safetensors", "model.safetensors", "config.json"):
        with source.open_range(model, find_file(source, model, path), 0, 2) as stream:
            etags.append(stream.etag)
    assert etags[0] == etags[1] != etags[2]


def test_a_stream_can_be_given_up_early(source: HubSource) -> None:
    model = source.resolve("owner/model", "main")
    file = find_file(source, model, "model.safetensors")
    for _ in range(3):
        with source.open_range(model, file, 0, file.size) as stream:
            buffer = memoryview(bytearray(100))
            count = stream.readinto(buffer)
            assert 0 < count <= 100
            assert buffer[:count] == WEIGHTS[:count]
        stream.close()


def test_a_file_that_is_gone_is_missing(source: HubSource) -> None:
    model = source.resolve("owner/model", "main")
    config = find_file(source, model, "config.json")
    with pytest.raises(FileMissingError):
        source.open_range(model, SourceFile("gone.json", config.size, config.digest), 0, 1)
