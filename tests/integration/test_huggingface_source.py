"""The Hub as a source, over real HTTP: every condition has its error and its words, every fault an error."""

import json
import os
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from modelhaul.domain.digests import Algorithm, Digest
from modelhaul.domain.errors import (
    AccessRequiredError,
    CredentialsRefusedError,
    FileMissingError,
    InvalidReferenceError,
    ModelDisabledError,
    ModelNotFoundError,
    RateLimitedError,
    RevisionNotFoundError,
    SourceRefusedError,
    SourceUnavailableError,
    StalledTransferError,
    UnexpectedResponseError,
    UntrustedHostError,
)
from modelhaul.domain.files import SourceFile
from modelhaul.domain.models import ResolvedModel, Source
from modelhaul.ports.byte_streams import ByteStream
from modelhaul_sources.hosts import HostPolicy
from modelhaul_sources.http_client import Timeouts
from modelhaul_sources.huggingface import HuggingFaceSource
from tests.fakes.deployment import Deployment
from tests.http_servers import run_server
from tests.upstream.faults import Fault, FaultKind
from tests.upstream.hub import LoopbackHub
from tests.upstream.hub_repository import HubFile, HubRepository

WEIGHTS = random.Random("weights").randbytes(600_000)
SIZE = len(WEIGHTS)
CONFIG, MODEL_WEIGHTS = HubFile(b"{}"), HubFile(WEIGHTS, lfs=True)
FILES = {"config.json": CONFIG, "model.safetensors": MODEL_WEIGHTS}
NAME = "owner/model"
QUICK = Timeouts(connect=5, read=1, stalled=1)


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        hub.add_repository(HubRepository(NAME, {"main": FILES}, old_names=["model"]))
        hub.add_repository(HubRepository("owner/gated", {"main": FILES}, gated="auto"))
        hub.add_repository(HubRepository("owner/private", {"main": FILES}, private=True))
        hub.add_repository(HubRepository("owner/disabled", {"main": FILES}, disabled=True))
        hub.grant("hf_reader", "owner/gated", "owner/private")
        hub.grant("hf_stranger")
        yield hub


def open_source(endpoint: str, token: str | None = None) -> HuggingFaceSource:
    policy = HostPolicy.for_hub(endpoint, local_mode=True)
    return HuggingFaceSource(policy, token=lambda: token, timeouts=QUICK)


def read_all(stream: ByteStream) -> bytes:
    buffer, received = memoryview(bytearray(1 << 20)), bytearray()
    with stream:
        while count := stream.readinto(buffer):
            received += buffer[:count]
    return bytes(received)


def find_weights(source: HuggingFaceSource, name: str = NAME) -> tuple[ResolvedModel, SourceFile]:
    model = source.resolve(name, "main")
    return model, next(file for file in source.list_files(model) if file.path == "model.safetensors")


def test_files_carry_the_digest_that_the_hub_publishes(hub: LoopbackHub) -> None:
    source = open_source(hub.endpoint)
    model = source.resolve(NAME, "main")
    assert list(source.list_files(model)) == [
        SourceFile("config.json", 2, Digest(Algorithm.GIT_SHA1, CONFIG.oid)),
        SourceFile("model.safetensors", SIZE, Digest(Algorithm.SHA256, MODEL_WEIGHTS.sha256)),
    ]


def test_only_the_requests_that_are_needed_are_sent(hub: LoopbackHub) -> None:
    source = open_source(hub.endpoint, "hf_reader")
    model, weights = find_weights(source, "owner/gated")
    assert read_all(source.open_range(model, weights, 1, 1000)) == WEIGHTS[1:1000]
    assert [(request.origin, request.path, request.authorized) for request in hub.requests] == [
        ("api", "/api/models/owner/gated/revision/main", True),
        ("api", "/api/models/owner/gated/auth-check", True),
        ("api", f"/api/models/owner/gated/tree/{model.commit}", True),
        ("resolve", f"/owner/gated/resolve/{model.commit}/model.safetensors", True),
        ("cdn", f"/owner/gated/{model.commit}/model.safetensors", False),
    ]


def test_a_gated_model_is_marked(hub: LoopbackHub) -> None:
    source = open_source(hub.endpoint, "hf_reader")
    assert source.resolve("owner/gated", "main").gated
    assert source.resolve("owner/private", "main").gated is False


def test_trees_of_many_pages_are_listed_whole(hub: LoopbackHub) -> None:
    with LoopbackHub(page_size=7) as paged:
        files = {f"folder{number % 5}/file{number}.txt": b"x" * number for number in range(40)}
        paged.add_repository(HubRepository(NAME, {"main": files}))
        source = open_source(paged.endpoint)
        listed = list(source.list_files(source.resolve(NAME, "main")))
    assert {file.path: file.size for file in listed} == {path: len(data) for path, data in files.items()}


@pytest.mark.parametrize(
    ("name", "revision", "token", "error", "words"),
    [
        ("owner/missing", "main", None, ModelNotFoundError, "no public model owner/missing\\. A private model"),
        ("owner/missing", "main", "hf_reader", ModelNotFoundError, "no model owner/missing, or the token"),
        ("owner/private", "main", None, ModelNotFoundError, "a token with read access in HuggingFaceTokenSecret"),
        ("owner/private", "main", "hf_stranger", ModelNotFoundError, "the token in HuggingFaceTokenSecret cannot"),
        ("owner/gated", "main", None, AccessRequiredError, "owner/gated is gated"),
        ("owner/gated", "main", "hf_stranger", AccessRequiredError, "owner/gated is gated"),
        ("owner/gated", "other", "hf_stranger", RevisionNotFoundError, "Revision 'other' of owner/gated not found"),
        ("owner/disabled", "main", None, ModelDisabledError, "owner/disabled is disabled on the Hub"),
        (NAME, "missing", None, RevisionNotFoundError, "Revision 'missing' of owner/model not found"),
        (NAME, "main", "hf_unknown", CredentialsRefusedError, "rejected the token"),
        (NAME, "main", "hf_two words", CredentialsRefusedError, "does not contain a valid token"),
        (NAME, "main", "hf_a\r\nX-Header: b", CredentialsRefusedError, "does not contain a valid token"),
        (NAME, "main", "hf_ключ", CredentialsRefusedError, "does not contain a valid token"),
        (f"https://huggingface.co/{NAME}", "main", None, InvalidReferenceError, "is a URL.* 'owner/model'"),
        (f"huggingface.co/{NAME}/tree/main", "main", None, InvalidReferenceError, "is a URL.* 'owner/model'"),
        ("https://hf.co/bert/blob/main/x", "main", None, InvalidReferenceError, "is a URL.* 'bert'"),
        ("https://hf.co", "main", None, InvalidReferenceError, "is a URL.* 'google-bert/bert-base-uncased'"),
        (f"{NAME}@v1", "main", None, InvalidReferenceError, "Use the name 'owner/model' and the revision 'v1'"),
        ("a/b/c", "main", None, InvalidReferenceError, "Invalid model name 'a/b/c'"),
        ("a--b", "main", None, InvalidReferenceError, "Invalid model name"),
        ("a\n", "main", None, InvalidReferenceError, "Invalid model name"),
        ("a/b.git", "main", None, InvalidReferenceError, "Invalid model name"),
        ("a" * 97, "main", None, InvalidReferenceError, "Invalid model name"),
        ("//evil.example/x", "main", None, InvalidReferenceError, "Invalid model name"),
        (NAME, "a b", None, InvalidReferenceError, "Invalid revision 'a b'"),
        (NAME, "../../x", None, InvalidReferenceError, "Invalid revision"),
    ],
)
def test_each_condition_has_its_words(
    hub: LoopbackHub, name: str, revision: str, token: str | None, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        open_source(hub.endpoint, token).resolve(name, revision)
    assert type(caught.value) is error
    assert "hf_" not in str(caught.value)


@pytest.mark.parametrize(
    ("token", "remedy"),
    [
        (None, "/owner/gated and configure a read token of your account in HuggingFaceTokenSecret."),
        ("hf_stranger", "/owner/gated with the account that owns the token in HuggingFaceTokenSecret."),
    ],
)
def test_remedy_of_a_gated_model_depends_on_the_token(hub: LoopbackHub, token: str | None, remedy: str) -> None:
    with pytest.raises(AccessRequiredError) as caught:
        open_source(hub.endpoint, token).resolve("owner/gated", "main")
    assert caught.value.remedy is not None
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    ("name", "similar"),
    [
        ("owner/modle", "Similar names: owner/model."),
        ("ownr/model", "Similar names: owner/model."),
        ("mode", "Similar names: owner/model."),
        ("zzz/unlike-any-other", None),
        ("owner/private", None),
    ],
)
def test_remedy_of_a_mistyped_name_suggests_similar_names(hub: LoopbackHub, name: str, similar: str | None) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        Deployment(open_source(hub.endpoint)).submit(name)
    remedy = caught.value.remedy or ""
    assert "on the Hub it is OWNER/MODEL" in remedy
    assert (similar in remedy) if similar else ("Similar" not in remedy)


def test_failed_search_for_similar_names_is_ignored(hub: LoopbackHub) -> None:
    hub.add_fault(Fault(kind=FaultKind.SERVER_ERROR, origin="api", path="^/api/models$"))
    with pytest.raises(ModelNotFoundError, match="no public model owner/modle"):
        Deployment(open_source(hub.endpoint)).submit("owner/modle")


def test_slow_search_for_similar_names_ends(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelhaul_sources.huggingface_api._SEARCH_TIMEOUT", 0.05)
    hub.add_fault(Fault(kind=FaultKind.STALL, origin="api", path="^/api/models$"))
    assert "Similar" not in open_source(hub.endpoint).find_missing_remedy("owner/modle")
    assert any(thread.name.startswith("similar-names") for thread in threading.enumerate()), "the search ended"


def test_a_token_opens_what_it_may_read(hub: LoopbackHub) -> None:
    for name in ("owner/private", "owner/gated"):
        source = open_source(hub.endpoint, " hf_reader\n")
        model, weights = find_weights(source, name)
        assert read_all(source.open_range(model, weights, 5, SIZE)) == WEIGHTS[5:]


def test_files_of_a_gated_model_are_refused_without_access(hub: LoopbackHub) -> None:
    model, weights = find_weights(open_source(hub.endpoint, "hf_reader"), "owner/gated")
    for token in (None, "hf_stranger"):
        with pytest.raises(AccessRequiredError, match="owner/gated, which is gated or private"):
            open_source(hub.endpoint, token).open_range(model, weights, 0, 1)


def test_a_rate_limited_api_is_not_asked_again(hub: LoopbackHub) -> None:
    source = open_source(hub.endpoint)
    model = source.resolve(NAME, "main")
    hub.clear_requests()
    hub.add_fault(Fault(kind=FaultKind.RATE_LIMIT, origin="api", retry_after=55))
    calls: list[Callable[[], Any]] = [
        lambda: source.resolve(NAME, "main"),
        lambda: list(source.list_files(model)),
    ]
    for call in calls:
        with pytest.raises(RateLimitedError) as caught:
            call()
        assert caught.value.retry_after == 55
    assert len(hub.requests) == 2


def test_a_spent_quota_says_how_long_to_wait() -> None:
    with LoopbackHub(api_quota=1, resolver_quota=0, quota_seconds=200) as hub:
        hub.add_repository(HubRepository(NAME, {"main": FILES}))
        source = open_source(hub.endpoint)
        model = source.resolve(NAME, "main")
        file = SourceFile("config.json", 2, Digest(Algorithm.GIT_SHA1, "0" * 40))
        for call in (lambda: list(source.list_files(model)), lambda: source.open_range(model, file, 0, 2)):
            with pytest.raises(RateLimitedError) as caught:
                call()
            assert caught.value.retry_after is not None
            assert 100 < caught.value.retry_after <= 201


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_failing_api_is_not_asked_again(hub: LoopbackHub, status: int) -> None:
    source = open_source(hub.endpoint)
    model = source.resolve(NAME, "main")
    hub.clear_requests()
    hub.add_fault(Fault(kind=FaultKind.SERVER_ERROR, origin="api", status=status, retry_after=7))
    with pytest.raises(SourceUnavailableError) as caught:
        list(source.list_files(model))
    assert caught.value.retry_after == 7
    with pytest.raises(SourceUnavailableError):
        source.resolve(NAME, "main")
    assert len(hub.requests) == 2


def test_a_broken_api_answer_is_unavailable(hub: LoopbackHub) -> None:
    source = open_source(hub.endpoint)
    model = source.resolve(NAME, "main")
    hub.clear_requests()
    hub.add_fault(Fault(kind=FaultKind.DROP, origin="api", after_bytes=20))
    with pytest.raises(SourceUnavailableError, match="cannot be reached"):
        list(source.list_files(model))
    with pytest.raises(SourceUnavailableError, match="cannot be reached"):
        source.resolve(NAME, "main")
    assert len(hub.requests) == 2


def test_a_stalled_api_is_given_up(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    from modelhaul_sources import huggingface_api  # noqa: PLC0415

    source = open_source(hub.endpoint)
    model = source.resolve(NAME, "main")
    hub.clear_requests()
    monkeypatch.setattr(huggingface_api, "_TIMEOUT", 1.0)
    hub.add_fault(Fault(kind=FaultKind.STALL, origin="api", after_bytes=20))
    with pytest.raises(SourceUnavailableError, match="ReadTimeout"):
        list(source.list_files(model))
    with pytest.raises(SourceUnavailableError, match="ReadTimeout"):
        source.resolve(NAME, "main")
    assert len(hub.requests) == 2


def test_a_hub_that_is_not_there_is_unavailable() -> None:
    model = ResolvedModel(Source.HUGGINGFACE, NAME, "main", "0" * 40)
    file = SourceFile("config.json", 2, Digest(Algorithm.GIT_SHA1, "0" * 40))
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        source = open_source(f"http://127.0.0.1:{bound.getsockname()[1]}")
        calls: list[Callable[[], Any]] = [
            lambda: source.resolve(NAME, "main"),
            lambda: list(source.list_files(model)),
            lambda: source.open_range(model, file, 0, 2),
        ]
        for call in calls:
            with pytest.raises(SourceUnavailableError, match="cannot be reached"):
                call()


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(kind=FaultKind.DROP, origin="cdn", after_bytes=400_000), SourceUnavailableError),
        (Fault(kind=FaultKind.DROP, origin="cdn"), SourceUnavailableError),
        (Fault(kind=FaultKind.STALL, origin="cdn", after_bytes=400_000), StalledTransferError),
        (Fault(kind=FaultKind.SLOW, origin="cdn", bytes_per_second=2000), StalledTransferError),
        (Fault(kind=FaultKind.RATE_LIMIT, origin="resolve", retry_after=3), RateLimitedError),
        (Fault(kind=FaultKind.RATE_LIMIT, origin="cdn", retry_after=3), RateLimitedError),
        (Fault(kind=FaultKind.SERVER_ERROR, origin="resolve"), SourceUnavailableError),
        (Fault(kind=FaultKind.SERVER_ERROR, origin="cdn"), SourceUnavailableError),
        (Fault(kind=FaultKind.WRONG_CONTENT_RANGE, origin="cdn"), UnexpectedResponseError),
        (Fault(kind=FaultKind.SHORT_ANSWER, origin="cdn"), UnexpectedResponseError),
        (Fault(kind=FaultKind.LONG_ANSWER, origin="cdn"), UnexpectedResponseError),
        (Fault(kind=FaultKind.WRONG_CONTENT_LENGTH, origin="cdn", by_bytes=1), UnexpectedResponseError),
        (Fault(kind=FaultKind.WRONG_CONTENT_LENGTH, origin="cdn", by_bytes=-1), UnexpectedResponseError),
        (Fault(kind=FaultKind.EXPIRED_URL, origin="cdn"), UnexpectedResponseError),
        (Fault(kind=FaultKind.EXPIRED_URL, origin="resolve"), UnexpectedResponseError),
        (Fault(kind=FaultKind.REFUSAL, origin="cdn", status=400), UnexpectedResponseError),
        (Fault(kind=FaultKind.REFUSAL, origin="cdn", status=405), SourceRefusedError),
        (Fault(kind=FaultKind.REFUSAL, origin="resolve", status=400), SourceRefusedError),
        (Fault(kind=FaultKind.GZIP, origin="cdn"), UnexpectedResponseError),
    ],
    ids=lambda value: f"{value.kind}-{value.origin}" if isinstance(value, Fault) else "",
)
def test_each_fault_of_a_download_is_an_error_and_passes(
    hub: LoopbackHub, fault: Fault, error: type[Exception]
) -> None:
    source = open_source(hub.endpoint)
    model, weights = find_weights(source)
    hub.add_fault(fault)
    with pytest.raises(error) as caught:
        read_all(source.open_range(model, weights, 1, SIZE - 1))
    assert "Signature" not in str(caught.value)
    hub.clear_faults()
    assert read_all(source.open_range(model, weights, 1, SIZE - 1)) == WEIGHTS[1 : SIZE - 1]


def test_a_small_file_that_breaks_off_is_unavailable(hub: LoopbackHub) -> None:
    source = open_source(hub.endpoint)
    model = source.resolve(NAME, "main")
    config = next(file for file in source.list_files(model) if file.path == "config.json")
    hub.add_fault(Fault(kind=FaultKind.DROP, origin="resolve", after_bytes=1))
    with pytest.raises(SourceUnavailableError):
        read_all(source.open_range(model, config, 0, 2))


@pytest.mark.parametrize("framing", ["length", "chunked", "until_close"])
def test_an_ignored_range_is_the_whole_file(hub: LoopbackHub, framing: Any) -> None:
    source = open_source(hub.endpoint)
    model, weights = find_weights(source)
    hub.add_fault(Fault(kind=FaultKind.IGNORE_RANGE, origin="cdn", framing=framing))
    stream = source.open_range(model, weights, 500, 1000)
    assert (stream.ranged, stream.offset) == (False, 0)
    assert read_all(stream) == WEIGHTS


def test_a_changed_file_has_another_etag(hub: LoopbackHub) -> None:
    source = open_source(hub.endpoint)
    model, weights = find_weights(source)
    with source.open_range(model, weights, 0, 10) as stream:
        before = stream.etag
    hub.add_fault(Fault(kind=FaultKind.CHANGED_ETAG, origin="cdn"))
    with source.open_range(model, weights, 0, 10) as stream:
        assert stream.etag == before == weights.digest.value  # the CDN's own is not asked
    hub.add_fault(Fault(kind=FaultKind.CHANGED_ETAG, origin="resolve"))
    with source.open_range(model, weights, 0, 10) as stream:
        assert stream.etag != before


def test_a_file_that_left_the_commit_is_missing(hub: LoopbackHub) -> None:
    source = open_source(hub.endpoint)
    model, weights = find_weights(source)
    with pytest.raises(FileMissingError):
        source.open_range(model, SourceFile("other.bin", SIZE, weights.digest), 0, 1)


def test_a_transfer_does_not_load_huggingface_hub(hub: LoopbackHub) -> None:
    model, weights = find_weights(open_source(hub.endpoint))
    program = f"""
import sys
from modelhaul.domain.digests import Digest
from modelhaul.domain.files import SourceFile
from modelhaul.domain.models import ResolvedModel, Source
from modelhaul_sources.hosts import HostPolicy
from modelhaul_sources.huggingface import HuggingFaceSource
source = HuggingFaceSource(HostPolicy.for_hub({hub.endpoint!r}, local_mode=True))
model = ResolvedModel(Source.HUGGINGFACE, {model.name!r}, "main", {model.commit!r})
file = SourceFile({weights.path!r}, {weights.size}, Digest.parse({str(weights.digest)!r}))
with source.open_range(model, file, 0, 4) as stream:
    buffer = memoryview(bytearray(4))
    print(stream.readinto(buffer), sorted({{"huggingface_hub", "httpx2"}} & sys.modules.keys()))
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("4 []\n", "")


@dataclass
class HostileHub:
    """A server that says of each path what a test wants: (status, headers, JSON or text)."""

    endpoint: str
    answers: dict[str, tuple[int, dict[str, str], Any]]
    requests: list[tuple[str, str | None]]
    """Path and Authorization header."""


@pytest.fixture
def hostile() -> Iterator[HostileHub]:
    answers: dict[str, tuple[int, dict[str, str], Any]] = {}
    requests: list[tuple[str, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            requests.append((path, self.headers.get("Authorization")))
            status, headers, value = answers.get(path, (404, {}, {"error": "not here"}))
            body = value.encode() if isinstance(value, str) else json.dumps(value).encode()
            self.send_response(status)
            for name, text in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, text)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            return

    with run_server(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield HostileHub(f"http://127.0.0.1:{server.server_port}", answers, requests)


INFO = "/api/models/owner/model/revision/main"
COMMIT = "1" * 40
TREE = f"/api/models/owner/model/tree/{COMMIT}"
ENTRY = {"type": "file", "path": "a", "size": 1, "oid": "0" * 40}
MODEL = ResolvedModel(Source.HUGGINGFACE, NAME, "main", COMMIT)


@pytest.mark.parametrize(
    "value",
    [
        {"id": "../../etc/passwd", "sha": COMMIT},
        {"id": "owner/model/../x", "sha": COMMIT},
        {"id": 5, "sha": COMMIT},
        {"id": None, "sha": COMMIT},
        {"sha": COMMIT},
        {"id": NAME},
        {"id": NAME, "sha": "main"},
        {"id": NAME, "sha": "../../" + "1" * 34},
        {"id": NAME, "sha": COMMIT + "\n"},
        [1, 2],
        None,
        "<html>a portal's page</html>",
        "",
    ],
)
def test_descriptions_that_cannot_be_are_unexpected(hostile: HostileHub, value: Any) -> None:
    hostile.answers[INFO] = (200, {}, value)
    with pytest.raises(UnexpectedResponseError):
        open_source(hostile.endpoint).resolve(NAME, "main")


@pytest.mark.parametrize(
    ("status", "headers", "value", "expected"),
    [
        (404, {}, "Not Found", None),
        (200, {}, [{"id": COMMIT, "date": "2025-01-02T03:04:05"}], datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)),
        (404, {"X-Error-Code": "RevisionNotFound"}, {}, RevisionNotFoundError),
        (200, {}, [], UnexpectedResponseError),
        (200, {}, {}, UnexpectedResponseError),
        (200, {}, "<html>", UnexpectedResponseError),
        (200, {}, [{"id": COMMIT, "date": "yesterday"}], UnexpectedResponseError),
        (200, {}, [{"id": COMMIT, "date": 5}], UnexpectedResponseError),
        (200, {}, [{"id": COMMIT}], UnexpectedResponseError),
        (200, {}, [{"id": "2" * 40, "date": "2025-01-02T03:04:05Z"}], UnexpectedResponseError),
        (503, {}, {}, SourceUnavailableError),
    ],
)
def test_the_date_of_a_commit_is_read_strictly(
    hostile: HostileHub, status: int, headers: dict[str, str], value: Any, expected: datetime | type[Exception] | None
) -> None:
    hostile.answers[f"/api/models/{NAME}/commits/{COMMIT}"] = (status, headers, value)
    source = open_source(hostile.endpoint)
    if isinstance(expected, type):
        with pytest.raises(expected):
            source.find_commit_date(MODEL)
    else:
        assert source.find_commit_date(MODEL) == expected


def test_a_description_that_says_disabled_is_believed(hostile: HostileHub) -> None:
    hostile.answers[INFO] = (200, {}, {"id": NAME, "sha": COMMIT, "disabled": True})
    with pytest.raises(ModelDisabledError):
        open_source(hostile.endpoint).resolve(NAME, "main")


def test_a_commit_that_is_not_the_one_asked_for_is_unexpected(hostile: HostileHub) -> None:
    hostile.answers[f"/api/models/owner/model/revision/{'2' * 40}"] = (200, {}, {"id": NAME, "sha": COMMIT})
    with pytest.raises(UnexpectedResponseError):
        open_source(hostile.endpoint).resolve(NAME, "2" * 40)


@pytest.mark.parametrize(
    "entry",
    [
        ENTRY | {"oid": "short"},
        ENTRY | {"oid": None},
        ENTRY | {"size": -1},
        ENTRY | {"size": "1"},
        ENTRY | {"path": 7},
        {"type": "file"},
        {"path": "a"},
        ENTRY | {"lfs": {"oid": "0" * 63, "size": 1, "pointerSize": 1}},
        ENTRY | {"lfs": {"size": 1}},
        "entry",
    ],
)
def test_file_lists_that_cannot_be_are_unexpected(hostile: HostileHub, entry: Any) -> None:
    hostile.answers[TREE] = (200, {}, [ENTRY, entry])
    with pytest.raises(UnexpectedResponseError):
        list(open_source(hostile.endpoint).list_files(MODEL))


@pytest.mark.parametrize(
    ("status", "headers", "error"),
    [
        (400, {}, SourceRefusedError),
        (401, {}, ModelNotFoundError),
        (403, {}, AccessRequiredError),
        (403, {"X-Error-Message": "Access to this resource is disabled."}, ModelDisabledError),
        (404, {}, ModelNotFoundError),
        (408, {}, SourceUnavailableError),
        (418, {}, SourceRefusedError),
        (425, {}, SourceUnavailableError),
        (429, {}, RateLimitedError),
        (451, {}, ModelDisabledError),
    ],
)
def test_bare_status_codes_are_understood(
    hostile: HostileHub, status: int, headers: dict[str, str], error: type[Exception]
) -> None:
    hostile.answers[INFO] = (status, headers, "<html>")
    with pytest.raises(error) as caught:
        open_source(hostile.endpoint).resolve(NAME, "main")
    assert type(caught.value) is error


def test_a_mirror_without_the_access_route_may_hold_gated_models(hostile: HostileHub) -> None:
    hostile.answers[INFO] = (200, {}, {"id": NAME, "sha": COMMIT, "gated": "auto"})
    assert open_source(hostile.endpoint).resolve(NAME, "main") == MODEL
    assert hostile.requests[-1][0] == "/api/models/owner/model/auth-check"


@pytest.mark.parametrize("location", ["http://169.254.169.254/", "https://evil.example/x", "http://u:p@127.0.0.1/"])
def test_the_api_does_not_lead_elsewhere(hostile: HostileHub, location: str) -> None:
    hostile.answers[INFO] = (307, {"Location": location}, "")
    hostile.answers[TREE] = (200, {"Link": f'<{location}>; rel="next"'}, [ENTRY])
    source = open_source(hostile.endpoint, "hf_reader")
    with pytest.raises(UntrustedHostError):
        source.resolve(NAME, "main")
    with pytest.raises(UntrustedHostError):
        list(source.list_files(MODEL))


def test_the_token_stays_with_the_endpoint(hostile: HostileHub, hub: LoopbackHub) -> None:
    hostile.answers[INFO] = (307, {"Location": f"{hub.endpoint}{INFO}"}, "")
    commit = open_source(hub.endpoint).resolve(NAME, "main").commit
    next_page = f"{hub.endpoint}/api/models/owner/model/tree/{commit}?recursive=True"
    hostile.answers[TREE] = (200, {"Link": f'<{next_page}>; rel="next"'}, [ENTRY])
    hub.clear_requests()
    source = open_source(hostile.endpoint, "hf_reader")
    assert source.resolve(NAME, "main").commit == commit
    assert len(list(source.list_files(MODEL))) == 3
    assert [request.authorized for request in hub.requests] == [False, False]
    assert {authorization for _, authorization in hostile.requests} == {"Bearer hf_reader"}


def test_endless_redirects_of_the_api_end(hostile: HostileHub) -> None:
    hostile.answers[INFO] = (307, {"Location": INFO}, "")
    with pytest.raises(SourceUnavailableError, match="TooManyRedirects"):
        open_source(hostile.endpoint).resolve(NAME, "main")


def test_the_address_that_the_api_is_reached_at_is_checked(hub: LoopbackHub) -> None:
    class Inside(HostPolicy):
        def check_address(self, host: str, address: str) -> None:
            assert (host, address) == ("127.0.0.1", "127.0.0.1")
            raise UntrustedHostError("inside")

    source = HuggingFaceSource(Inside.for_hub(hub.endpoint, local_mode=True))
    with pytest.raises(UntrustedHostError, match="inside"):
        source.resolve(NAME, "main")


def test_a_plain_http_hub_is_for_the_local_stack_only(hub: LoopbackHub) -> None:
    source = HuggingFaceSource(HostPolicy.for_hub(hub.endpoint))
    with pytest.raises(UntrustedHostError, match="local stack only"):
        source.resolve(NAME, "main")
    assert hub.requests == []
