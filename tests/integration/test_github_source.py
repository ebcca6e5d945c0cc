"""GitHub over real HTTP, real repositories and a real LFS server: what arrives, and what goes wrong."""

import hashlib
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from modelhaul.domain.errors import (
    AccessRequiredError,
    ContentMismatchError,
    CredentialsRefusedError,
    FileMissingError,
    FileTooLargeError,
    InvalidRepositoryError,
    ListingTooLongError,
    ModelDisabledError,
    ModelhaulError,
    ModelNotFoundError,
    RateLimitedError,
    RevisionNotFoundError,
    SourceQuotaError,
    SourceRefusedError,
    SourceUnavailableError,
    UnexpectedResponseError,
    UntrustedHostError,
)
from modelhaul.domain.files import FileKind, SourceFile
from modelhaul.domain.models import ResolvedModel, Source
from modelhaul.domain.selection import Selection, Weights
from modelhaul.domain.tasks import Task, TaskStatus
from modelhaul_sources import github as github_module
from modelhaul_sources.github import GitHubSource
from modelhaul_sources.hosts import HostPolicy
from tests.fakes.clock import ManualClock
from tests.fakes.deployment import Deployment
from tests.fakes.rate_limit_store import InMemoryRateLimitStore
from tests.upstream.faults import Fault, FaultKind
from tests.upstream.git_repository import Entry, GitRepository, RepositoryMaker, Submodule, Symlink
from tests.upstream.git_tools import LfsServer
from tests.upstream.github import LoopbackGitHub
from tests.upstream.github_source import open_github
from tests.upstream.server import Request, Response, create_json_response
from tests.weights import wrap_weights

WEIGHTS = wrap_weights(random.Random("github").randbytes(9 * 1024 * 1024))
SMALL_WEIGHTS = random.Random("small").randbytes(300_000)
TOKEN = "github_pat_reader"
SUBMODULE = "1" * 40
CONFIG = b'{"model_type": "bert"}'
TOKENIZER = b'{"version": "1.0", "model": {"vocab": "' + b"x" * 1000 + b'"}}'
MODEL: dict[str, Entry] = {
    "config.json": CONFIG,
    "tokenizer.json": TOKENIZER,
    "model.safetensors": WEIGHTS,
    "onnx/näme with space #1?%41.bin": SMALL_WEIGHTS,
    "empty.txt": b"",
    "latest": Symlink("config.json"),
    "vendor/code": Submodule(SUBMODULE),
    "looks/like.txt": b"version https://git-lfs.github.com/spec/v2\n" + b"x" * 200,
}
LFS = ["*.safetensors", "*.bin"]
CONTENTS = {path: entry for path, entry in MODEL.items() if isinstance(entry, bytes)}


@pytest.fixture(scope="module")
def github_server(lfs_server: LfsServer, repository_maker: RepositoryMaker) -> Iterator[LoopbackGitHub]:
    with LoopbackGitHub(lfs_server) as server:
        branches = {"main": MODEL, "feature/x": MODEL | {"config.json": b'{"model_type": "gpt2"}'}}
        add = server.add_repository
        add(
            repository_maker.make(
                "Owner/Model.v1", branches, lfs=LFS, tags={"v1": "feature/x"}, old_names=["Owner/Older", "first/name"]
            )
        )
        add(repository_maker.make("Owner/empty", {}))
        add(repository_maker.make("Owner/private", {"main": MODEL}, lfs=LFS, private=True))
        add(repository_maker.make("Owner/blocked", {"main": {"a": b"b"}}, blocked=403))
        add(repository_maker.make("Owner/dmca", {"main": {"a": b"b"}}, blocked=451))
        # Another content than elsewhere: the LFS server's objects are by repository, but its storage is the tests'.
        lost: dict[str, Entry] = {"config.json": CONFIG, "tokenizer.json": TOKENIZER, "pytorch_model.bin": b"lost" * 99}
        lost["model.safetensors"] = wrap_weights(b"kept")
        add(repository_maker.make("Owner/lost", {"main": lost}, lfs=["*.bin"], push_objects=False))
        nothing: dict[str, Entry] = {"README.md": b"# No model", "config.json": Symlink("README.md")}
        add(repository_maker.make("Owner/nothing", {"main": nothing}))
        server.grant(TOKEN, "Owner/private")
        yield server


@pytest.fixture
def github(github_server: LoopbackGitHub) -> Iterator[LoopbackGitHub]:
    server = github_server
    site = server._servers["site"].answer
    server.clear_faults()
    server.clear_requests()
    yield server
    server.clear_faults()
    server.object_errors.clear()
    server.over_budget.clear()
    server._servers["site"].answer = site
    server._quota, server._used, server._max_entries, server.link_lifetime = 1_000_000, 0, 100_000, 3600


@pytest.fixture
def source(github: LoopbackGitHub) -> GitHubSource:
    return open_github(github)


def list_files(source: GitHubSource, name: str = "Owner/Model.v1") -> dict[str, SourceFile]:
    return {file.path: file for file in source.list_files(source.resolve(name, "main"))}


def read(source: GitHubSource, path: str, name: str = "Owner/Model.v1") -> bytes:
    model = source.resolve(name, "main")
    file = next(f for f in source.list_files(model) if f.path == path)
    return read_file(source, model, file)


def read_file(source: GitHubSource, model: ResolvedModel, file: SourceFile) -> bytes:
    body, buffer = bytearray(), memoryview(bytearray(1 << 20))
    with source.open_range(model, file, 0, file.size) as stream:
        while count := stream.readinto(buffer):
            body += buffer[:count]
    return bytes(body)


def count_requests(github: LoopbackGitHub) -> Counter[str]:
    return Counter(record.origin for record in github.requests)


def import_model(
    deployment: Deployment, name: str = "Owner/Model.v1", revision: str = "main", *, quiet: bool = True
) -> Task:
    task = deployment.submit(name, revision, source=Source.GITHUB)
    if quiet:
        deployment.run()
    return deployment.find_task(task.id)


def list_published(deployment: Deployment) -> dict[str, bytes]:
    keys = [key for key in deployment.store.keys if key.startswith("models/")]
    return {key: deployment.read(key) for key in keys}


@pytest.mark.parametrize(
    ("name", "revision"),
    [
        ("Owner/Model.v1", "main"),
        ("owner/model.V1", "main"),
        ("Owner/Model.v1.git", "main"),
        ("owner/older", "main"),
        ("First/Name", "main"),
    ],
)
def test_renames_and_letter_case_meet_in_one_model(
    github: LoopbackGitHub, source: GitHubSource, name: str, revision: str
) -> None:
    commit = github.repositories["Owner/Model.v1"].shas["main"]
    assert source.resolve(name, revision) == ResolvedModel(Source.GITHUB, "Owner/Model.v1", "main", commit)


def test_branches_with_slashes_annotated_tags_and_commits_are_resolved(
    github: LoopbackGitHub, source: GitHubSource
) -> None:
    shas = github.repositories["Owner/Model.v1"].shas
    for revision, branch in (
        ("feature/x", "feature/x"),
        ("v1", "feature/x"),
        ("tags/v1", "feature/x"),
        (shas["main"], "main"),
        (shas["main"].upper(), "main"),
        (shas["main"][:10], "main"),
    ):
        assert source.resolve("Owner/Model.v1", revision).commit == shas[branch], revision


@pytest.mark.parametrize(
    ("name", "revision", "error", "words"),
    [
        ("Owner/nowhere", "main", ModelNotFoundError, "GitHubTokenSecret"),
        ("Owner/private", "main", ModelNotFoundError, "GitHubTokenSecret"),
        ("Owner/Model.v1", "nowhere", RevisionNotFoundError, "nowhere"),
        ("Owner/Model.v1", "0" * 40, RevisionNotFoundError, "0000"),
        ("Owner/empty", "main", RevisionNotFoundError, "empty"),
        ("Owner/blocked", "main", ModelDisabledError, "blocked"),
        ("Owner/dmca", "main", ModelDisabledError, "blocked"),
    ],
)
def test_what_is_not_there_is_said(
    source: GitHubSource, name: str, revision: str, error: type[ModelhaulError], words: str
) -> None:
    with pytest.raises(error, match=words):
        source.resolve(name, revision)


@pytest.mark.parametrize(
    ("name", "revision", "part"),
    [
        ("-owner/model", "main", "owner"),
        ("own--er/model", "main", "owner"),
        ("owner-/model", "main", "owner"),
        ("o" * 40 + "/model", "main", "owner"),
        ("own er/model", "main", "owner"),
        ("öwner/model", "main", "owner"),
        ("/model", "main", "owner"),
        ("..", "main", "owner"),
        ("owner/", "main", "repo_name"),
        ("owner/..", "main", "repo_name"),
        ("owner/.", "main", "repo_name"),
        ("owner/.git", "main", "repo_name"),
        ("owner/model/more", "main", "repo_name"),
        ("owner/a b", "main", "repo_name"),
        ("owner/model\n", "main", "repo_name"),
        ("owner/" + "m" * 101, "main", "repo_name"),
        ("owner/model?x=1", "main", "repo_name"),
        ("owner/model#x", "main", "repo_name"),
        ("owner/%2e%2e", "main", "repo_name"),
        ("owner/model", "", "revision"),
        ("owner/model", "a..b", "revision"),
        ("owner/model", "a b", "revision"),
        ("owner/model", "/main", "revision"),
        ("owner/model", "main.lock", "revision"),
        ("owner/model", "a\x00b", "revision"),
        ("owner/model", "HEAD~1", "revision"),
    ],
)
def test_what_github_cannot_have_is_refused_without_a_request(
    github: LoopbackGitHub, source: GitHubSource, name: str, revision: str, part: str
) -> None:
    with pytest.raises(InvalidRepositoryError) as caught:
        source.resolve(name, revision)
    assert caught.value.part == part
    assert github.requests == []


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("x/https://github.com/openai/whisper", "repo_name"),
        ("x/github.com/openai/whisper/tree/main", "repo_name"),
        ("x/github.com:openai/whisper", "repo_name"),
        ("x/WWW.GitHub.com/openai/whisper", "repo_name"),
        ("x/git@github.com:openai/whisper.git", "repo_name"),
        ("x/ssh://git@github.com/openai/whisper.git", "repo_name"),
        ("x/https://www.github.com/openai/whisper?tab=readme", "repo_name"),
        ("https://github.com/openai/whisper/openai", "owner"),
        ("github.com/openai/whisper", "owner"),
        ("git@github.com:openai/whisper", "owner"),
    ],
)
def test_an_address_is_answered_with_what_to_send(source: GitHubSource, name: str, part: str) -> None:
    with pytest.raises(InvalidRepositoryError, match="owner 'openai' and the repository 'whisper'") as caught:
        source.resolve(name, "main")
    assert caught.value.part == part


@pytest.mark.parametrize("name", ["developer.github.com", "github.com", "github.com-mirror", "www.github.com", "git"])
def test_a_repository_may_be_named_like_an_address(github: LoopbackGitHub, source: GitHubSource, name: str) -> None:
    with pytest.raises(ModelNotFoundError):
        source.resolve(f"github/{name}", "main")
    assert [request.path for request in github.requests] == [f"/repos/github/{name}"]


@pytest.mark.parametrize(
    "name", ["x/https://169.254.169.254/latest/meta-data", "x/http://user:pw@127.0.0.1/a", "x/a@b/c"]
)
def test_other_addresses_are_refused(github: LoopbackGitHub, source: GitHubSource, name: str) -> None:
    with pytest.raises(InvalidRepositoryError):
        source.resolve(name, "main")
    assert github.requests == []


def test_everything_in_the_commit_is_listed(source: GitHubSource) -> None:
    listed = list_files(source)
    assert set(listed) == {*MODEL, ".gitattributes"}
    for path, content in CONTENTS.items():
        file = listed[path]
        assert file.size == len(content)
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        in_lfs = path.endswith((".safetensors", ".bin"))
        expected = f"sha256:{hashlib.sha256(content).hexdigest()}" if in_lfs else f"git-sha1:{blob}"
        assert str(file.digest) == expected
        assert file.kind is FileKind.FILE
    assert (listed["latest"].kind, listed["latest"].size) == (FileKind.SYMLINK, len("config.json"))
    assert (listed["vendor/code"].kind, listed["vendor/code"].digest.value) == (FileKind.SUBMODULE, SUBMODULE)


@pytest.mark.parametrize("max_entries", [3, 5, 9])
def test_a_tree_that_is_cut_off_is_walked(github: LoopbackGitHub, source: GitHubSource, max_entries: int) -> None:
    whole = list_files(source)
    github._max_entries = max_entries
    if max_entries == 9:
        assert list_files(source) == whole
    else:
        with pytest.raises(ListingTooLongError, match="more entries than GitHub lists"):
            list_files(source)


@pytest.mark.parametrize("raw", [True, False])
def test_files_arrive_from_the_raw_host_or_the_api(github: LoopbackGitHub, raw: bool) -> None:
    source = open_github(github, raw=raw)
    model = source.resolve("Owner/Model.v1", "main")
    for file in source.list_files(model):
        if file.kind is FileKind.FILE and file.size:
            content = read_file(source, model, file)
            if file.path in CONTENTS:
                assert content == CONTENTS[file.path], file.path
    origins = count_requests(github)
    if raw:
        # Repository and commit for the submit, repository and tree for the listing.
        assert origins["api"] == 4
    else:
        assert origins["raw"] == 0


def test_the_number_of_api_calls_does_not_grow_with_the_files(
    github: LoopbackGitHub, repository_maker: RepositoryMaker, source: GitHubSource
) -> None:
    many: dict[str, Entry] = {f"data/{i:04}.json": json.dumps({"i": i, "x": "y" * 200}).encode() for i in range(700)}
    name = "Owner/many"
    if name not in github.repositories:
        github.add_repository(repository_maker.make(name, {"main": many | MODEL}, lfs=LFS))
    github.clear_requests()
    list_files(source, name)
    origins = count_requests(github)
    assert (origins["api"], origins["lfs"]) == (4, 1)
    pointers = 3  # and .gitattributes, which says which they are
    assert origins["raw"] <= pointers + 1
    github.clear_requests()
    list_files(source, name)
    assert count_requests(github)["raw"] <= 1, "what was a pointer before is known"


def test_up_to_a_number_all_files_of_a_pointers_size_are_looked_into(
    github: LoopbackGitHub, source: GitHubSource, repository_maker: RepositoryMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what no .gitattributes declares: a pointer is a pointer."""
    oid = hashlib.sha256(SMALL_WEIGHTS).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(SMALL_WEIGHTS)}\n".encode()
    stray = {"sub/no.suffix": pointer, "sub/model.bin": pointer}
    branches: dict[str, dict[str, Entry]] = {"main": {"x.bin": SMALL_WEIGHTS}, "stray": {**stray}}
    repository = repository_maker.make("Owner/stray", branches, lfs=["x.bin"])
    github.add_repository(repository)
    model = source.resolve("Owner/stray", "stray")
    assert {f.path for f in source.list_files(model) if f.digest.value == oid} == set(stray)
    monkeypatch.setattr(github_module, "_MAX_POINTER_READS", 1)
    assert {f.path for f in source.list_files(model) if f.digest.value == oid} == {"sub/model.bin"}


def test_lfs_objects_are_asked_for_in_hundreds(
    github: LoopbackGitHub, source: GitHubSource, repository_maker: RepositoryMaker
) -> None:
    many: dict[str, Entry] = {f"{i:03}.bin": f"weights {i}".encode() * 20 for i in range(130)}
    github.add_repository(repository_maker.make("Owner/objects", {"main": many}, lfs=LFS))
    model = source.resolve("Owner/objects", "main")
    files = [f for f in source.list_files(model) if f.path in many]
    assert count_requests(github)["lfs"] == 2
    github.clear_requests()
    source.prepare_files(files)
    for file in files[:90]:
        assert read_file(source, model, file) == many[file.path]
    origins = count_requests(github)
    assert (origins["lfs"], origins["media"]) == (1, 90)


def test_a_private_repository_needs_the_token_and_takes_the_api(github: LoopbackGitHub) -> None:
    source = open_github(github, token=lambda: TOKEN)
    assert read(source, "config.json", "Owner/private") == CONFIG
    assert read(source, "model.safetensors", "Owner/private") == WEIGHTS
    seen = {(record.origin, record.authorized) for record in github.requests}
    assert seen == {("api", True), ("lfs", True), ("media", False)}


def test_the_token_goes_to_no_other_host(github: LoopbackGitHub) -> None:
    source = open_github(github, token=lambda: TOKEN)
    for path in ("config.json", "model.safetensors"):
        assert read(source, path) == CONTENTS[path]
    for record in github.requests:
        assert record.authorized is (record.origin in {"api", "lfs"}), record


@pytest.mark.parametrize("token", ["two words", "tökén", "line\nbreak"])
def test_a_secret_that_is_no_token_is_said(github: LoopbackGitHub, token: str) -> None:
    with pytest.raises(CredentialsRefusedError, match="GitHubTokenSecret") as caught:
        open_github(github, token=lambda: token).resolve("Owner/Model.v1", "main")
    assert token not in str(caught.value)
    assert github.requests == []


def test_a_token_that_is_refused_is_said(github: LoopbackGitHub) -> None:
    with pytest.raises(CredentialsRefusedError, match="GitHubTokenSecret") as caught:
        open_github(github, token=lambda: "expired").resolve("Owner/Model.v1", "main")
    assert "expired" not in str(caught.value).replace("may have expired", "")


@pytest.mark.parametrize(
    ("fault", "least", "most"),
    [
        (Fault(kind=FaultKind.RATE_LIMIT, origin="api", retry_after=60), 55, 62),
        (Fault(kind=FaultKind.SECONDARY_LIMIT, origin="api", retry_after=17), 16, 17),
        (Fault(kind=FaultKind.SECONDARY_LIMIT, origin="api"), 59, 60),
    ],
)
def test_a_rate_limit_is_never_a_missing_repository(
    github: LoopbackGitHub, fault: Fault, least: float, most: float
) -> None:
    """And holds for all functions, which do not even ask."""
    limits = InMemoryRateLimitStore()
    github.add_fault(fault.model_copy(update={"times": 1}))
    with pytest.raises(RateLimitedError) as caught:
        open_github(github, limits=limits).resolve("Owner/nowhere", "main")
    assert caught.value.retry_after is not None
    assert least <= caught.value.retry_after <= most
    assert len(github.requests) == 1
    other = open_github(github, limits=limits)
    with pytest.raises(RateLimitedError) as again:
        other.resolve("Owner/Model.v1", "main")
    assert again.value.retry_after == pytest.approx(caught.value.retry_after, abs=5)
    assert len(github.requests) == 1
    later = open_github(github, limits=limits, clock=lambda: time.time() + most + 1)
    assert later.resolve("Owner/Model.v1", "main").name == "Owner/Model.v1"


def test_the_last_call_of_a_budget_is_the_last_that_is_made(github: LoopbackGitHub) -> None:
    limits = InMemoryRateLimitStore()
    source = open_github(github, limits=limits)
    github._quota, github._used, github._resets_at = 2, 0, 0.0
    assert source.resolve("Owner/Model.v1", "main").revision == "main"
    for function in (source, open_github(github, limits=limits)):
        with pytest.raises(RateLimitedError, match=r"API \(no token\).* 60 requests an hour for each IP") as caught:
            function.resolve("Owner/Model.v1", "main")
        assert "GitHubTokenSecret" in (caught.value.remedy or "")
    assert len(github.requests) == 2, "nothing was asked in vain"
    # The token's budget is another one.
    github._quota = 10
    assert open_github(github, limits=limits, token=lambda: TOKEN).resolve("Owner/Model.v1", "main").name


def test_the_raw_hosts_limit_is_its_own(github: LoopbackGitHub, source: GitHubSource) -> None:
    github.add_fault(Fault(kind=FaultKind.RATE_LIMIT, origin="raw", retry_after=30))
    model = source.resolve("Owner/Model.v1", "main")
    with pytest.raises(RateLimitedError, match="raw content host") as caught:
        list(source.list_files(model))
    assert caught.value.retry_after == pytest.approx(30, abs=1)
    assert source.resolve("Owner/Model.v1", "main") == model


def test_an_object_that_was_never_pushed_is_missing(source: GitHubSource) -> None:
    with pytest.raises(FileMissingError, match=r"pytorch_model\.bin is a Git LFS pointer .* never pushed") as caught:
        list_files(source, "Owner/lost")
    assert caught.value.remedy is not None
    assert "push the content" in caught.value.remedy
    assert "token" not in caught.value.remedy


def test_remedy_of_a_missing_revision_names_the_default_branch(source: GitHubSource) -> None:
    with pytest.raises(RevisionNotFoundError) as caught:
        source.resolve("Owner/Model.v1", "master")
    assert caught.value.remedy is not None
    assert "Import the default branch 'main' of the repository" in caught.value.remedy


def test_remedy_of_an_empty_repository_names_no_branch(source: GitHubSource) -> None:
    with pytest.raises(RevisionNotFoundError) as caught:
        source.resolve("Owner/empty", "master")
    assert caught.value.remedy == "Submit the import again when the repository has files."


@pytest.mark.parametrize(
    ("code", "words", "error"),
    [
        (404, "Object does not exist", FileMissingError),
        (410, "Object removed", FileMissingError),
        (413, "too large", FileTooLargeError),
        (403, "forbidden", AccessRequiredError),
        (422, "validation", SourceRefusedError),
        (429, "slow down", RateLimitedError),
        (408, "timeout", SourceUnavailableError),
        (500, "broken", SourceUnavailableError),
        (501, "not implemented", UnexpectedResponseError),
        (509, "bandwidth", SourceQuotaError),
        (403, "This repository is over its data quota.", SourceQuotaError),
    ],
)
def test_errors_of_one_object_are_told_apart(
    github: LoopbackGitHub, source: GitHubSource, code: int, words: str, error: type[ModelhaulError]
) -> None:
    github.object_errors[hashlib.sha256(WEIGHTS).hexdigest()] = (code, words)
    with pytest.raises(error, match=r"model\.safetensors"):
        list_files(source)


def test_a_spent_lfs_budget_is_said_in_words(github: LoopbackGitHub, source: GitHubSource) -> None:
    github.over_budget.add("Owner/Model.v1")
    with pytest.raises(SourceQuotaError, match="exceeded its Git LFS budget"):
        list_files(source)


def test_an_expired_link_is_renewed(github: LoopbackGitHub, source: GitHubSource) -> None:
    model = source.resolve("Owner/Model.v1", "main")
    file = list_files(source)["model.safetensors"]
    github.add_fault(Fault(kind=FaultKind.EXPIRED_URL, origin="media", skip=1, times=1))
    github.clear_requests()
    for _ in range(3):
        assert read_file(source, model, file) == WEIGHTS
    records = [(r.origin, r.status) for r in github.requests]
    assert records == [("lfs", 200), ("media", 206), ("media", 403), ("lfs", 200), ("media", 206), ("media", 206)]


def test_a_link_is_not_used_up_to_its_last_second(github: LoopbackGitHub) -> None:
    clock = ManualClock(time.time())
    source = open_github(github, clock=clock)
    model = source.resolve("Owner/Model.v1", "main")
    file = list_files(source)["model.safetensors"]
    github.clear_requests()
    for seconds in (0, 3500, 100):
        clock.now += seconds
        read_file(source, model, file)
    assert count_requests(github)["lfs"] == 2
    assert [r.status for r in github.requests if r.origin == "media"] == [206, 206, 206]


def test_links_that_are_always_refused_are_the_sources_trouble(github: LoopbackGitHub, source: GitHubSource) -> None:
    model = source.resolve("Owner/Model.v1", "main")
    file = list_files(source)["model.safetensors"]
    github.add_fault(Fault(kind=FaultKind.EXPIRED_URL, origin="media"))
    with pytest.raises(UnexpectedResponseError):
        read_file(source, model, file)


@pytest.mark.parametrize("status", [405, 422])
def test_a_batch_that_the_lfs_server_rejects_is_refused(
    github: LoopbackGitHub, source: GitHubSource, status: int
) -> None:
    github.add_fault(Fault(kind=FaultKind.REFUSAL, origin="lfs", status=status))
    with pytest.raises(SourceRefusedError, match=f"The LFS server responded with status {status}"):
        list_files(source)


def answer_batch(github: LoopbackGitHub, change: Any) -> None:
    """The LFS server's answers, changed."""
    answer = github._servers["site"].answer

    def harmful(request: Request) -> Response:
        body = json.loads(bytes(next(answer(request).read_body())))
        return create_json_response(200, change(body))

    github._servers["site"].answer = harmful


@pytest.mark.parametrize(
    "href",
    [
        "http://169.254.169.254/latest/meta-data/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[fd00:ec2::254]/x",
        "https://internal.example/secret",
        "file:///etc/passwd",
        "ftp://github.com/x",
        "https://user:password@github.com/x",
        "https://github.com.evil.example/x",
        "https://10.0.0.1/x",
        "http://192.168.0.1/x",
        "https://2130706433/x",
        "//github.com/x",
        "",
    ],
)
def test_links_that_lead_elsewhere_are_not_followed(github: LoopbackGitHub, source: GitHubSource, href: str) -> None:
    model = source.resolve("Owner/Model.v1", "main")
    file = list_files(source)["model.safetensors"]

    def change(body: dict[str, Any]) -> dict[str, Any]:
        for entry in body["objects"]:
            entry["actions"]["download"]["href"] = href
        return body

    answer_batch(github, change)
    with pytest.raises(UntrustedHostError) as caught:
        read_file(source, model, file)
    assert "password" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda _: [],
        lambda _: {"objects": None},
        lambda _: {"objects": []},
        lambda body: {"objects": [{**e, "actions": {}} for e in body["objects"]]},
        lambda body: {"objects": [{**e, "error": "no"} for e in body["objects"]]},
        lambda body: {
            "objects": [{**e, "actions": {"download": {"href": "x", "header": {"A": 1}}}} for e in body["objects"]]
        },
        lambda body: {
            "objects": [
                {**e, "actions": {"download": {"href": "x", "header": {"A": "b\r\nHost: c"}}}} for e in body["objects"]
            ]
        },
        lambda body: {
            "objects": [{**e, "actions": {"download": {"href": "x", "expires_at": "soon"}}} for e in body["objects"]]
        },
    ],
)
def test_an_lfs_server_that_makes_no_sense_is_said(github: LoopbackGitHub, source: GitHubSource, change: Any) -> None:
    answer_batch(github, change)
    with pytest.raises(UnexpectedResponseError):
        list_files(source)


def test_an_lfs_object_of_another_size_is_another_content(github: LoopbackGitHub, source: GitHubSource) -> None:
    answer_batch(github, lambda body: {"objects": [{**e, "size": 1} for e in body["objects"]]})
    with pytest.raises(ContentMismatchError, match="has the size 1 on the LFS server"):
        list_files(source)


def test_the_host_is_not_the_lfs_servers_to_say(github: LoopbackGitHub, source: GitHubSource) -> None:
    def change(body: dict[str, Any]) -> dict[str, Any]:
        for entry in body["objects"]:
            headers = {"Host": "internal", "Range": "bytes=5-9", "X-Own": "yes"}
            entry["actions"]["download"]["header"] = headers
        return body

    answer_batch(github, change)
    assert read(source, "model.safetensors") == WEIGHTS


def test_outside_of_local_mode_loopback_is_not_asked(github: LoopbackGitHub) -> None:
    policy = HostPolicy.for_github(github.api_url, github.site_url, github.raw_url)
    source = GitHubSource(
        policy, InMemoryRateLimitStore(), site_url=github.site_url, raw_url=github.raw_url, token=lambda: TOKEN
    )
    with pytest.raises(UntrustedHostError):
        source.resolve("Owner/Model.v1", "main")
    assert github.requests == []


@pytest.mark.parametrize(
    "answer",
    [
        [],
        {},
        {"full_name": 5, "private": False},
        {"full_name": "../..", "private": False},
        {"full_name": "owner/model/x", "private": False},
    ],
)
def test_a_repository_that_cannot_be_is_not_believed(
    github: LoopbackGitHub, source: GitHubSource, monkeypatch: pytest.MonkeyPatch, answer: object
) -> None:
    monkeypatch.setattr(github._servers["api"], "answer", lambda _: create_json_response(200, answer))
    with pytest.raises(UnexpectedResponseError):
        source.resolve("Owner/Model.v1", "main")


def test_an_import_brings_the_commit_whole(github: LoopbackGitHub, source: GitHubSource) -> None:
    deployment = Deployment(source)
    task = import_model(deployment)
    assert task.status is TaskStatus.DONE, task.error
    commit = github.repositories["Owner/Model.v1"].shas["main"]
    prefix = f"models/github/Owner/Model.v1/{commit}/"
    published = list_published(deployment)
    published.pop(f"{prefix}.gitattributes")
    assert published == {prefix + path: content for path, content in CONTENTS.items()}
    (model,) = deployment.database.models.find_models(task.model_ids)
    assert model.files == len(CONTENTS) + 1
    manifest = json.loads(deployment.read(f"manifests/{model.model_id}.json"))
    assert manifest["not_followed"] == [
        {"path": "latest", "kind": "symlink", "object": hashlib.sha1(b"blob 11\0config.json").hexdigest()},
        {"path": "vendor/code", "kind": "submodule", "object": SUBMODULE},
    ]
    assert {entry["path"] for entry in manifest["files"]} == {*CONTENTS, ".gitattributes"}
    assert all(len(entry["sha256"]) == 64 for entry in manifest["files"])


def test_a_branch_that_moves_after_the_submit_changes_nothing(github: LoopbackGitHub, source: GitHubSource) -> None:
    deployment = Deployment(source)
    repository: GitRepository = github.repositories["Owner/Model.v1"]
    task = import_model(deployment, quiet=False)
    github.move_branch("Owner/Model.v1", "main", "feature/x")
    try:
        deployment.run()
    finally:
        github.move_branch("Owner/Model.v1", "main", repository.shas["main"])
    assert deployment.find_task(task.id).status is TaskStatus.DONE
    assert deployment.read(f"models/github/Owner/Model.v1/{repository.shas['main']}/config.json") == CONFIG


def test_content_that_is_stored_is_not_moved_again(github: LoopbackGitHub, source: GitHubSource) -> None:
    deployment = Deployment(source)
    assert import_model(deployment).status is TaskStatus.DONE
    github.clear_requests()
    task = import_model(deployment, revision="feature/x")
    assert task.status is TaskStatus.DONE
    changed = len(b'{"model_type": "gpt2"}')
    assert task.progress.bytes_total - task.progress.bytes_reused == changed
    assert count_requests(github)["media"] == 0


@pytest.mark.parametrize("origin", ["raw", "media"])
def test_wrong_bytes_are_fetched_again_and_never_published(
    github: LoopbackGitHub, source: GitHubSource, origin: str
) -> None:
    deployment = Deployment(source)
    path = "config.json" if origin == "raw" else ""
    github.add_fault(Fault(kind=FaultKind.WRONG_BYTES, origin=origin, path=path, after_bytes=5, times=1))
    assert import_model(deployment).status is TaskStatus.DONE
    assert github.faults == []
    second = Deployment(open_github(github))
    github.add_fault(Fault(kind=FaultKind.WRONG_BYTES, origin=origin, path=path, after_bytes=5))
    task = import_model(second)
    assert task.status is TaskStatus.FAILED
    assert task.error is not None
    assert "Checksum mismatch for" in task.error.detail
    assert list_published(second) == {}


def test_a_pointer_without_its_object_fails_before_a_byte_moves(source: GitHubSource) -> None:
    deployment = Deployment(source)
    task = import_model(deployment, "Owner/lost")
    assert task.error is not None
    assert (task.status, task.error.type) == (TaskStatus.FAILED, "file-missing")
    assert "pytorch_model.bin" in task.error.detail
    assert deployment.store.keys == []


@pytest.mark.parametrize(
    "selection", [Selection((), ("*.bin",)), Selection(weights=Weights.SAFETENSORS)], ids=["patterns", "weights"]
)
def test_what_is_left_out_may_be_missing(source: GitHubSource, selection: Selection) -> None:
    deployment = Deployment(source)
    task = deployment.submit("Owner/lost", source=Source.GITHUB, selection=selection)
    deployment.run()
    assert deployment.find_task(task.id).status is TaskStatus.DONE, deployment.find_task(task.id).error
    published = {key.rpartition("/")[2] for key in list_published(deployment)}
    assert published == {".gitattributes", "config.json", "model.safetensors", "tokenizer.json"}


def test_a_choice_that_leaves_nothing_says_so(source: GitHubSource) -> None:
    deployment = Deployment(source)
    task = deployment.submit("Owner/lost", source=Source.GITHUB, selection=Selection(("*.gguf",)))
    deployment.run()
    error = deployment.find_task(task.id).error
    assert error is not None
    assert "No file matches the allow patterns '*.gguf' of Owner/lost" in error.detail


def test_a_part_has_the_links_that_its_patterns_take(source: GitHubSource) -> None:
    deployment = Deployment(source)
    selection = Selection(("*.json", "latest", "onnx/"), ("config.json",))
    task = deployment.submit("Owner/Model.v1", source=Source.GITHUB, selection=selection)
    deployment.run()
    assert deployment.find_task(task.id).status is TaskStatus.DONE, deployment.find_task(task.id).error
    manifest = json.loads(deployment.read(f"manifests/{task.model_ids[0]}.json"))
    assert [file["path"] for file in manifest["files"]] == ["onnx/näme with space #1?%41.bin", "tokenizer.json"]
    assert [file["path"] for file in manifest["not_followed"]] == ["latest"]
    model = source.resolve("Owner/Model.v1", "main")
    assert manifest["commit"] == model.commit
    assert manifest["prefix"] == f"models/github/{model.name}/{model.commit}-partial-{task.model_ids[0]}/"


def test_what_is_no_model_fails_before_a_byte_moves(github: LoopbackGitHub, source: GitHubSource) -> None:
    deployment = Deployment(source)
    task = import_model(deployment, "Owner/nothing")
    assert task.error is not None
    assert task.error.type == "required-files-missing"
    for name in ("config.json (is a symlink, not a file)", "tokenizer.json", "model.safetensors"):
        assert name in task.error.detail
    assert deployment.store.keys == []
    assert count_requests(github)["raw"] == 0


def test_a_rate_limit_for_a_minute_is_waited_for(github: LoopbackGitHub) -> None:
    clock = ManualClock(time.time())
    limits = InMemoryRateLimitStore()
    deployment = Deployment(open_github(github, limits=limits, clock=clock), clock=clock)
    task = import_model(deployment, quiet=False)
    github.add_fault(Fault(kind=FaultKind.RATE_LIMIT, origin="api", retry_after=60, times=1))
    started = clock.now
    deployment.run()
    assert deployment.find_task(task.id).status is TaskStatus.DONE
    assert clock.now - started >= 59
    assert [r.status for r in github.requests if r.origin == "api"].count(403) == 1, "nobody asked meanwhile"
    assert deployment.metrics.values["RateLimitWaits"] >= 1
    assert deployment.metrics.values["Retries"] == 0


def test_a_link_that_expires_in_the_middle_is_renewed(github: LoopbackGitHub, source: GitHubSource) -> None:
    deployment = Deployment(source)
    half = 5 * 1024 * 1024
    github.add_fault(
        Fault(kind=FaultKind.DROP, origin="media", holding_byte=half, after_bytes=half, times=1),
        Fault(kind=FaultKind.EXPIRED_URL, origin="media", holding_byte=half, skip=1, times=1),
    )
    assert import_model(deployment).status is TaskStatus.DONE
    assert github.faults == []
    assert 403 in [r.status for r in github.requests if r.origin == "media"]
