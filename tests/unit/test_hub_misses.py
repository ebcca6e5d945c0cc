"""What Hub clients receive for models that are not imported, and what their requests start."""

import json
import logging
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus

import pytest

from modelhaul.domain.errors import (
    AccessRequiredError,
    CredentialsRefusedError,
    ModelExistsError,
    ModelhaulError,
    RateLimitedError,
    StorageUnavailableError,
    UnsafeModelError,
)
from modelhaul.domain.hub_models import MissPolicy
from modelhaul.domain.models import Source
from modelhaul.domain.read_keys import ALL_NAMES
from modelhaul.domain.selection import Selection
from modelhaul.domain.tasks import Progress, Task, TaskError, TaskStatus
from modelhaul.hub.misses import MissHandler
from modelhaul.hub.reader import HubReader
from modelhaul.hub.requests import HubRequest, KeyContext
from modelhaul.hub.responses import HubResponse, Outcome
from modelhaul.imports.missing import MissingModelImporter
from tests.fakes.deployment import Deployment
from tests.fakes.missing_models import InMemoryPublicHub, RecordingMissingModels
from tests.fakes.model_source import InMemoryModelSource
from tests.pickles import SYSTEM
from tests.weights import wrap_weights

NAME = "org/tiny"
INFO = f"api/models/{NAME}"
CONFIG = f"{NAME}/resolve/main/config.json"
FILES = {"config.json": b"{}", "model.safetensors": wrap_weights(random.Random(1).randbytes(300_000))}


@dataclass
class Setup:
    """A deployment with its Hub read API. `invocations`: the calls of the function import_missing."""

    policy: MissPolicy = MissPolicy.IMPORT
    source: InMemoryModelSource = field(default_factory=lambda: InMemoryModelSource({NAME: {"main": dict(FILES)}}))
    scopes: tuple[str, ...] = ("read", "import")
    names: tuple[str, ...] = ALL_NAMES
    quota: int = 0

    def __post_init__(self) -> None:
        self.deployment = Deployment(self.source, quota=self.quota)
        self.hub = InMemoryPublicHub(self.source)
        deployment = self.deployment
        importer = MissingModelImporter(deployment.submitter, deployment.database.models, self.hub, deployment.clock)
        self.missing = RecordingMissingModels(importer)
        self.reader = self.open_reader()

    def open_reader(self) -> HubReader:
        """As another container of the function has it."""
        database, clock = self.deployment.database, self.deployment.clock
        misses = MissHandler(self.policy, "https://hub.example/", database.tasks, lambda: self.missing, clock)
        return HubReader(database.hub_models, database.models, self.deployment.store, misses, clock)

    def send(
        self,
        path: str = INFO,
        method: str = "GET",
        query: dict[str, tuple[str, ...]] | None = None,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
    ) -> HubResponse:
        key = KeyContext("k", "cluster", self.scopes, self.names)
        return self.reader.respond(
            HubRequest(method, path, "https://api.example", "/hf", key, query or {}, headers or {}, body)
        )

    def fail(self, error: ModelhaulError) -> None:
        """End the only pending import with this error."""
        (task,) = [task for task in self.tasks if task.status is TaskStatus.PENDING]
        found = TaskError(error.type, error.detail, error.retryable)
        self.deployment.database.imports.fail_import(task.id, found, check_at=0)

    @property
    def tasks(self) -> tuple[Task, ...]:
        return self.deployment.database.tasks.list_tasks(limit=100, cursor=None).tasks

    @property
    def invocations(self) -> int:
        return len(self.missing.calls)


def read_message(response: HubResponse) -> str:
    message = response.headers["X-Error-Message"]
    assert message.isascii()
    assert message.isprintable()
    return message


def read_code(response: HubResponse) -> tuple[int, str | None]:
    return response.status, response.headers.get("X-Error-Code")


def read_retry_after(response: HubResponse) -> int:
    assert response.status == HTTPStatus.SERVICE_UNAVAILABLE
    return int(response.headers["Retry-After"])


def test_by_default_the_response_says_how_to_import() -> None:
    setup = Setup(MissPolicy.NOT_FOUND)
    response = setup.send(f"{INFO}/revision/v1")
    assert read_code(response) == (404, "RepoNotFound")
    assert "modelhaul hf org/tiny@v1" in read_message(response)
    assert "POST /v1/upload/huggingface" in read_message(response)
    assert response.outcome is Outcome.NOT_FOUND
    assert (setup.invocations, setup.tasks) == (0, ())


@pytest.mark.parametrize(("policy", "scope"), [(MissPolicy.NOT_FOUND, "import"), (MissPolicy.IMPORT, "read")])
def test_a_model_that_is_being_imported_need_not_be_imported(policy: MissPolicy, scope: str) -> None:
    setup = Setup(policy, scopes=("read", scope))
    setup.deployment.submit(NAME)
    response = setup.send()
    assert read_code(response) == (404, "RepoNotFound")
    assert read_message(response).endswith("It is being imported: retry later.")
    assert "modelhaul hf" in read_message(setup.send(f"{INFO}/revision/v1"))
    assert setup.invocations == 0


def test_an_unknown_revision_of_an_imported_model_is_not_found() -> None:
    setup = Setup(MissPolicy.NOT_FOUND)
    setup.deployment.submit(NAME)
    setup.deployment.run()
    response = setup.send(f"{NAME}/resolve/v1/config.json", "HEAD")
    assert read_code(response) == (404, "RevisionNotFound")
    assert "main" in read_message(response)
    assert "modelhaul hf org/tiny@v1" in read_message(response)


def test_a_key_without_the_scope_starts_nothing() -> None:
    setup = Setup(scopes=("read",))
    response = setup.send()
    assert read_code(response) == (404, "RepoNotFound")
    assert "scope 'import'" in read_message(response)
    assert setup.invocations == 0


@pytest.mark.parametrize("name", ["github.owner/repo", "archive.local/a__b"])
def test_only_names_of_the_hub_are_imported(name: str) -> None:
    setup = Setup()
    assert read_code(setup.send(f"api/models/{name}")) == (404, "RepoNotFound")
    assert setup.invocations == 0


def test_a_request_starts_the_import_and_later_ones_tell_its_progress() -> None:
    setup = Setup()
    first = setup.send()
    assert 10 <= read_retry_after(first) <= 30
    assert first.outcome is Outcome.IMPORTING
    assert read_message(first).startswith("org/tiny at main is being imported: ")
    (task,) = setup.tasks
    assert (task.source, task.model_tag) == (Source.HUGGINGFACE, "org/tiny@main")

    told = []
    while messages := setup.deployment.receive():
        for message in messages:
            setup.deployment.deliver(message)
        response = setup.send(CONFIG, "HEAD")
        if response.status == HTTPStatus.OK:
            break
        told.append(read_message(response).partition(": ")[2])
    assert told == [
        "0 of 2 files, 0 % of 300.1 kB. Retry in 10 s.",
        "all files are verified and inspected. Retry in 10 s.",
    ]
    assert setup.invocations == 1, "the progress is read without another invocation"
    assert len(setup.tasks) == 1


def test_an_import_shows_the_read_key_that_started_it() -> None:
    setup = Setup()
    setup.send()
    setup.deployment.run()
    (task,) = setup.tasks
    assert task.submitted_by == "read-key:k"
    (model,) = setup.deployment.database.models.find_models(task.model_ids)
    assert model.submitted_by == "read-key:k"


def test_the_client_waits_as_long_as_the_transfer_needs_within_limits() -> None:
    setup = Setup()
    setup.send()
    (task,) = setup.tasks
    tables, clock = setup.deployment.tables, setup.deployment.clock
    (plan,) = setup.deployment.receive()
    setup.deployment.deliver(plan)
    began = tables.now()
    clock.now += 100
    for percent, seconds in ((1, 30), (85, 18), (99, 10)):
        tables.write_task(
            setup.deployment.find_task(task.id),
            transfer_began_at=began,
            bytes_counted_at=tables.now(),
            progress=Progress(3, 12, percent * 12_000_000, 1_200_000_000),
        )
        response = setup.send()
        assert read_retry_after(response) == seconds
        assert f"3 of 12 files, {percent} % of 1.2 GB. Retry in {seconds} s." in read_message(response)


def test_fifty_clients_start_one_import() -> None:
    setup = Setup()
    readers = [setup.open_reader() for _ in range(50)]
    key = KeyContext("k", "cluster", setup.scopes, setup.names)
    request = HubRequest("GET", INFO, "https://api.example", "/hf", key)
    with ThreadPoolExecutor(16) as pool:
        responses = list(pool.map(lambda reader: reader.respond(request), readers))
    assert {response.status for response in responses} == {503}
    assert len(setup.tasks) == 1


def test_a_revision_of_an_imported_commit_becomes_readable() -> None:
    setup = Setup()
    setup.send()
    setup.deployment.run()
    setup.source.models[NAME]["v1"] = FILES
    response = setup.send(f"{INFO}/revision/v1")
    assert read_retry_after(response) < 10
    assert setup.send(f"{INFO}/revision/v1").status == HTTPStatus.OK
    assert len(setup.tasks) == 1


def test_a_second_revision_of_a_commit_being_imported_has_the_same_progress() -> None:
    setup = Setup()
    setup.source.models[NAME]["v1"] = FILES
    setup.send()
    for _ in range(3):
        assert read_retry_after(setup.send(f"{INFO}/revision/v1")) >= 10
    assert (len(setup.tasks), setup.invocations) == (1, 2)


def test_an_old_name_leads_to_the_model() -> None:
    setup = Setup()
    setup.source.old_names["tiny"] = NAME
    assert read_retry_after(setup.send("api/models/tiny"))
    assert "org/tiny at main is being imported" in read_message(setup.send("api/models/tiny"))
    setup.deployment.run()
    assert setup.send("api/models/tiny").headers["Location"].endswith(INFO)
    assert len(setup.tasks) == 1


def test_a_partial_import_does_not_stand_for_the_model() -> None:
    setup = Setup()
    setup.deployment.submit(NAME, selection=Selection(ignore_patterns=("*.safetensors",)))
    setup.send()
    assert len(setup.tasks) == 2


def test_an_unknown_model_is_asked_for_once_a_minute() -> None:
    setup = Setup()
    for _ in range(3):
        assert read_code(setup.send("api/models/org/none")) == (404, "RepoNotFound")
    assert setup.invocations == 1
    setup.deployment.clock.now += 61
    assert setup.send("api/models/org/none").status == HTTPStatus.NOT_FOUND
    assert setup.invocations == 2


@pytest.mark.parametrize("revision", ["none", "a..b", "x" * 300])
def test_a_revision_that_the_hub_does_not_have_is_not_found(revision: str) -> None:
    setup = Setup()
    setup.send()
    setup.deployment.run()
    assert read_code(setup.send(f"{INFO}/revision/{revision}")) == (404, "RevisionNotFound")
    assert len(setup.tasks) == 1


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (AccessRequiredError("org/tiny is gated. Configure HuggingFaceTokenSecret."), 403, "GatedRepo"),
        (CredentialsRefusedError("The Hub rejected the token in HuggingFaceTokenSecret."), 403, None),
        (RateLimitedError("The Hub responded with status 429.", retry_after=100), 503, None),
    ],
)
def test_a_refusal_of_the_hub_is_told(error: ModelhaulError, status: int, code: str | None) -> None:
    setup = Setup()
    setup.source.refusals[NAME] = error
    response = setup.send()
    assert read_code(response) == (status, code)
    assert read_message(response).startswith(error.detail)
    assert response.outcome is Outcome.REFUSED
    assert ("Retry-After" in response.headers) == error.retryable


def test_a_full_storage_quota_is_told_and_starts_nothing() -> None:
    size = sum(map(len, FILES.values()))
    setup = Setup(quota=size)
    setup.send()
    setup.deployment.run()
    setup.source.models["org/other"] = {"main": {"config.json": b"{ }"}}
    response = setup.send("api/models/org/other")
    assert response.status == HTTPStatus.FORBIDDEN, "clients do not retry it"
    assert "Retry-After" not in response.headers
    assert f"Models have {size:,} bytes, which use up the storage quota" in read_message(response)
    assert len(setup.tasks) == 1
    assert setup.send().status == HTTPStatus.OK, "what is stored can be read"


def test_an_import_that_exceeds_the_storage_quota_is_told() -> None:
    setup = Setup(quota=1)
    setup.send()
    setup.deployment.run()
    response = setup.send()
    assert response.status == HTTPStatus.FORBIDDEN
    assert "would exceed the storage quota of 1 bytes" in read_message(response)


def test_the_error_of_a_failed_import_is_told_for_an_hour() -> None:
    setup = Setup()
    setup.send()
    setup.fail(CredentialsRefusedError("The Hub rejected the token."))
    response = setup.send(CONFIG, "HEAD")
    assert response.status == HTTPStatus.FORBIDDEN, "clients do not retry it"
    assert "The Hub rejected the token." in read_message(response)
    assert "starts a new import" in read_message(response)
    setup.deployment.clock.now += 3500
    assert setup.send().status == HTTPStatus.FORBIDDEN
    assert len(setup.tasks) == 1
    setup.deployment.clock.now += 101
    assert read_retry_after(setup.send())
    assert len(setup.tasks) == 2


def test_a_cancelled_import_starts_again_after_ten_minutes() -> None:
    setup = Setup()
    setup.send()
    (task,) = setup.tasks
    setup.deployment.finisher.cancel(task.id)
    assert setup.send().status == HTTPStatus.FORBIDDEN
    setup.deployment.clock.now += 601
    assert read_retry_after(setup.send())
    assert len(setup.tasks) == 2


def test_an_outage_is_not_taken_for_a_missing_model() -> None:
    setup = Setup()

    def fail() -> None:
        raise StorageUnavailableError("Lambda Invoke failed (TooManyRequestsException).")

    setup.missing.on_call = fail
    response = setup.send()
    assert read_retry_after(response) >= 10
    assert "TooManyRequestsException" in read_message(response)
    assert response.outcome is Outcome.REFUSED, "requests cause it, so the alarm for errors must not fire"


@pytest.mark.parametrize("policy", [MissPolicy.IMPORT, MissPolicy.REDIRECT])
@pytest.mark.parametrize(
    "error", [CredentialsRefusedError("The Hub rejected the token."), UnsafeModelError("training.pkl runs code.")]
)
def test_another_revision_of_a_failed_commit_receives_its_error(policy: MissPolicy, error: ModelhaulError) -> None:
    setup = Setup(policy)
    setup.source.models[NAME]["v1"] = FILES
    setup.send()
    setup.fail(error)
    for path in (f"{NAME}/resolve/v1/config.json", f"{INFO}/revision/v1", INFO, CONFIG):
        response = setup.send(path)
        assert response.status == HTTPStatus.FORBIDDEN
        assert error.detail in read_message(response)
    assert len(setup.tasks) == 1
    invocations = setup.invocations
    setup.deployment.clock.now += 61
    assert setup.send(f"{INFO}/revision/v1").status == HTTPStatus.FORBIDDEN
    assert setup.invocations == invocations, "the revision is recorded"


@pytest.mark.parametrize("policy", [MissPolicy.IMPORT, MissPolicy.REDIRECT])
def test_rejected_content_is_not_imported_again_until_the_revision_has_another_commit(policy: MissPolicy) -> None:
    setup = Setup(policy)
    setup.source.models[NAME]["main"]["training.pkl"] = SYSTEM
    setup.send()
    setup.deployment.run()
    for _ in range(3):
        response = setup.send(CONFIG)
        assert response.status == HTTPStatus.FORBIDDEN
        message = read_message(response)
        assert "training.pkl" in message
        assert "PicklePolicy" in message
        assert "do not start a new import of this commit" in message
        assert "modelhaul hf org/tiny@main" in message
        setup.deployment.clock.now += 100_000
    assert len(setup.tasks) == 1
    setup.source.models[NAME]["main"] = FILES
    assert setup.send(INFO).status != HTTPStatus.FORBIDDEN
    assert len(list(setup.tasks)) == 2
    setup.deployment.run()
    assert setup.send(INFO).status == HTTPStatus.OK


def test_an_import_that_failed_is_repeated_without_redirects() -> None:
    setup = Setup(MissPolicy.REDIRECT)
    assert setup.send(CONFIG).status == HTTPStatus.TEMPORARY_REDIRECT
    setup.fail(CredentialsRefusedError("The Hub rejected the token."))
    assert setup.send(CONFIG).status == HTTPStatus.FORBIDDEN
    setup.deployment.clock.now += 3601
    for reader in (setup.reader, setup.open_reader()):
        setup.reader = reader
        for path, method in ((CONFIG, "GET"), (CONFIG, "HEAD"), (INFO, "GET"), (f"{INFO}/tree/main", "GET")):
            assert "is being imported" in read_message(setup.send(path, method))
    assert len(setup.tasks) == 2
    setup.deployment.run()
    assert not setup.send(CONFIG).headers["Location"].startswith("https://hub.example")


def test_no_request_is_redirected_while_a_rejected_model_is_imported_deliberately() -> None:
    setup = Setup(MissPolicy.REDIRECT)
    setup.source.models[NAME]["main"]["training.pkl"] = SYSTEM
    setup.send()
    setup.deployment.run()
    setup.deployment.submit(NAME)
    assert read_retry_after(setup.send(CONFIG))


def test_files_are_redirected_to_the_commit_that_is_imported() -> None:
    setup = Setup(MissPolicy.REDIRECT)
    commit = setup.source.resolve(NAME, "main").commit
    expected = f"https://hub.example/{NAME}/resolve/{commit}/config.json?download=true"
    for _ in range(2):
        response = setup.send(CONFIG, query={"download": ("true",)})
        assert response.status == HTTPStatus.TEMPORARY_REDIRECT
        assert response.headers["Location"] == expected
        assert response.headers["X-Modelhaul-Inspected"] == "false"
        assert response.outcome is Outcome.REDIRECT
        setup.source.models[NAME]["main"] = FILES | {"training.pkl": SYSTEM}
        setup.source.models[NAME]["old"] = FILES
        setup.deployment.clock.now += 61
    assert len(setup.tasks) == 1
    setup.deployment.run()
    response = setup.send(CONFIG)
    assert not response.headers["Location"].startswith("https://hub.example")
    assert "X-Modelhaul-Inspected" not in response.headers


def test_documents_are_returned_and_not_redirected() -> None:
    """The Hub's documents name URLs of the Hub, to which clients would send the read key."""
    setup = Setup(MissPolicy.REDIRECT)
    commit = setup.source.resolve(NAME, "main").commit
    for path, kind in ((f"{INFO}/revision/main", "info"), (INFO, "info"), (f"{INFO}/refs", "refs")):
        response = setup.send(path, query={"blobs": ("true",), "expand": ("a b", "c")})
        assert response.status == HTTPStatus.OK
        assert json.loads(response.body) == {"kind": kind, "sha": commit, "query": "blobs=true&expand=a+b&expand=c"}
        assert response.headers["X-Modelhaul-Inspected"] == "false"
        assert response.outcome is Outcome.REDIRECT
    response = setup.send(f"{INFO}/tree/main")
    assert json.loads(response.body) == ["config.json"]
    assert response.headers["Link"] == f'<https://api.example/hf/{INFO}/tree/main?cursor=1>; rel="next"'
    response = setup.send(f"{INFO}/tree/main", query={"cursor": ("1",)})
    assert json.loads(response.body) == ["model.safetensors"]
    assert "Link" not in response.headers
    assert read_code(setup.send(f"{INFO}/tree/main/none")) == (404, "EntryNotFound")
    response = setup.send(f"{INFO}/paths-info/main", "POST", body=b"paths=config.json&paths=none")
    assert json.loads(response.body) == ["config.json"]
    assert setup.send(f"{INFO}/paths-info/main", "POST", body=b"\xff").status == HTTPStatus.BAD_REQUEST
    assert len(setup.tasks) == 1


def test_a_list_that_began_at_the_hub_does_not_continue_here() -> None:
    setup = Setup(MissPolicy.REDIRECT)
    setup.send(f"{INFO}/tree/main")
    setup.deployment.run()
    response = setup.send(f"{INFO}/tree/main", query={"cursor": ("1",)})
    assert response.status == HTTPStatus.BAD_REQUEST
    assert "first page" in read_message(response)


@pytest.mark.parametrize(
    ("headers", "is_redirected"),
    [
        ({"user-agent": "unknown/None; hf-hub/0.5.0; rust/unknown"}, False),
        ({"user-agent": "unknown/None; hf-hub/0.3.2; rust/unknown"}, False),
        ({"user-agent": "unknown/None; hf-hub/0.55.0; rust/unknown"}, True),
        ({"user-agent": "unknown/None; hf-hub/1.0.0; rust/unknown"}, True),
        ({"user-agent": "unknown/None; hf_hub/0.36.2; python/3.13"}, True),
        ({"range": "bytes=0-0"}, False),
        ({"range": "bytes=0-1023"}, True),
    ],
)
def test_clients_that_would_send_the_key_to_the_hub_wait(headers: dict[str, str], is_redirected: bool) -> None:
    setup = Setup(MissPolicy.REDIRECT)
    for _ in range(2):
        response = setup.send(CONFIG, headers=headers)
        assert response.status == (HTTPStatus.TEMPORARY_REDIRECT if is_redirected else HTTPStatus.SERVICE_UNAVAILABLE)
    assert len(setup.tasks) == 1


def test_the_head_of_a_file_is_described_and_not_redirected() -> None:
    setup = Setup(MissPolicy.REDIRECT)
    model = setup.source.resolve(NAME, "main")
    counts = []
    for _ in range(3):
        for file in setup.source.list_files(model):
            response = setup.send(f"{NAME}/resolve/main/{file.path}", "HEAD")
            assert response.status == HTTPStatus.OK
            assert dict(response.headers) == {
                "X-Repo-Commit": model.commit,
                "ETag": f'"{file.digest.value}"',
                "X-Linked-Etag": f'"{file.digest.value}"',
                "X-Linked-Size": str(file.size),
                "Accept-Ranges": "bytes",
                "X-Modelhaul-Inspected": "false",
            }
        counts.append(setup.invocations)
    assert len(setup.tasks) == 1
    assert counts[1] == counts[2], "descriptions are kept for a while"
    missing = setup.send(f"{NAME}/resolve/main/none.json", "HEAD")
    assert read_code(missing) == (404, "EntryNotFound")
    assert missing.headers["X-Repo-Commit"] == model.commit


def test_a_model_that_is_not_public_is_not_redirected() -> None:
    setup = Setup(MissPolicy.REDIRECT)
    setup.hub.hidden.add(NAME)
    for _ in range(2):
        assert "is being imported" in read_message(setup.send())
        assert read_retry_after(setup.send(CONFIG, "HEAD"))
    assert len(setup.tasks) == 1


@pytest.mark.parametrize("length", [250, 251, 255])
def test_a_revision_is_readable_or_refused(length: int) -> None:
    setup = Setup()
    revision = "x" * length
    setup.source.models[NAME][revision] = FILES
    setup.send()
    setup.deployment.run()
    for _ in range(2):
        response = setup.send(f"{INFO}/revision/{revision}")
    if length <= 250:
        assert response.status == HTTPStatus.OK
    else:
        assert read_code(response) == (404, "RevisionNotFound")
        assert "at most 250 characters" in read_message(response)


@pytest.mark.parametrize("by_request", [True, False])
def test_a_model_that_was_imported_before_the_index_existed_becomes_readable(by_request: bool) -> None:
    setup = Setup()
    setup.deployment.submit(NAME)
    setup.deployment.run()
    setup.deployment.tables.unindexed.update(setup.deployment.tables.models)
    if by_request:
        assert read_retry_after(setup.send()) < 10
    else:
        with pytest.raises(ModelExistsError):
            setup.deployment.submit(NAME)
    assert setup.send().status == HTTPStatus.OK
    assert len(setup.tasks) == 1


def test_each_miss_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    setup = Setup()
    with caplog.at_level(logging.INFO, "modelhaul.hub.misses"):
        setup.send()
    (record,) = [record for record in caplog.records if record.name == "modelhaul.hub.misses"]
    found = {name: record.__dict__[name] for name in ("hub_id", "revision", "outcome", "task_id")}
    assert found == {"hub_id": NAME, "revision": "main", "outcome": "importing", "task_id": setup.tasks[0].id}
