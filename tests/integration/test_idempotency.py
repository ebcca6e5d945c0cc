"""POSTs with an Idempotency-Key, over the in-memory deployment and Powertools' own store on moto's DynamoDB."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from threading import Barrier, Thread
from typing import Any

import boto3
import pytest
import requests

from modelhaul import wiring
from modelhaul.adapters import idempotency
from modelhaul.adapters.idempotency import DynamoDBResponseStore
from modelhaul.domain import errors
from modelhaul.imports.submit_archive import MAX_POSTED
from tests.archives.zipping import zip_models
from tests.contract.backends import REGION, open_aws
from tests.contract.dynamodb import MotoDynamoDB, control_moto, refuse
from tests.fakes.deployment import RULES, Deployment
from tests.fakes.model_source import InMemoryModelSource
from tests.lambda_functions import Context, Response, call_api, load_handler, read_event
from tests.template.transformed import read_template
from tests.unit.test_submit_local import make_event as make_upload

NAME, OTHER = "org/model", "org/other"
FILES = {"config.json": b"{}"}


@pytest.fixture
def dynamodb() -> Iterator[MotoDynamoDB]:
    """With the table that the template has."""
    table = read_template()["Resources"]["IdempotencyTable"]["Properties"]
    with open_aws("moto"), control_moto() as dynamodb:
        client = boto3.client("dynamodb", region_name=REGION)
        names = ("AttributeDefinitions", "KeySchema", "BillingMode")
        client.create_table(TableName="answers", **{name: table[name] for name in names})
        dynamodb.reset()
        yield dynamodb


@pytest.fixture
def deployment(dynamodb: MotoDynamoDB, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    source = InMemoryModelSource({NAME: {"main": dict(FILES)}, OTHER: {"main": dict(FILES)}})
    deployment = Deployment(source, rules=replace(RULES, limits=replace(RULES.limits, max_total_bytes=10**12)))
    store = DynamoDBResponseStore("answers", region=REGION)
    monkeypatch.setattr(wiring, "create_submitter", lambda: deployment.submitter)
    monkeypatch.setattr(wiring, "create_archive_submitter", lambda: deployment.archive_submitter)
    monkeypatch.setattr(wiring, "create_response_store", lambda: store)
    return deployment


def add_header(event: dict[str, Any], key: str) -> dict[str, Any]:
    return {
        **event,
        "headers": {**event["headers"], "Idempotency-Key": key},
        "multiValueHeaders": {**event["multiValueHeaders"], "Idempotency-Key": [key]},
    }


def submit(key: str = "key-1", name: str = NAME, *, caller: str = "k1", raw: str | None = None) -> Response:
    event = add_header(read_event("submit_huggingface"), key)
    event["requestContext"]["identity"]["apiKeyId"] = caller
    return call_api("submit_huggingface", event, raw=raw if raw is not None else json.dumps({"model_tag": name}))


def count_tasks(deployment: Deployment) -> int:
    return len(deployment.database.tasks.list_tasks(limit=100).tasks)


def check_problem(answer: Response, status: int, kind: str) -> dict[str, Any]:
    assert (answer.status, answer.body["type"]) == (status, f"urn:modelhaul:problem:{kind}"), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.body["detail"]
    assert answer.body["remedy"]
    return answer.body


def test_a_repetition_is_answered_as_the_first_time(deployment: Deployment) -> None:
    first = submit()
    assert first.status == 201
    deployment.run()
    assert [submit(), submit()] == [first, first]
    assert count_tasks(deployment) == 1


def test_a_refusal_is_repeated_too(deployment: Deployment) -> None:
    first = submit(name="nobody/nothing")
    check_problem(first, 404, "model-not-found")
    assert isinstance(deployment.source, InMemoryModelSource)
    deployment.source.models["nobody/nothing"] = {"main": dict(FILES)}
    assert submit(name="nobody/nothing") == first
    assert submit("key-2", name="nobody/nothing").status == 201
    conflict = submit("key-3")
    assert conflict.status == 201
    held = submit("key-4")
    check_problem(held, 409, "import-in-progress")
    deployment.run()
    assert submit("key-4") == held, "headers and all"
    assert held.headers["link"]


def test_another_body_is_refused(deployment: Deployment) -> None:
    first = submit()
    problem = check_problem(submit(name=OTHER), 422, "idempotency-key-reused")
    assert problem["title"] == "Idempotency-Key used with a different request"
    assert count_tasks(deployment) == 1
    assert submit() == first


def test_keys_of_others_and_of_other_routes_are_others(deployment: Deployment) -> None:
    assert submit().status == 201
    check_problem(submit(caller="k2"), 409, "import-in-progress")
    event = add_header(read_event("submit_github"), "key-1")
    assert call_api("submit_github", event, body={"owner": "org", "repo_name": "other"}).status == 201
    signed = add_header(read_event("submit_huggingface"), "key-1")
    signed["requestContext"]["identity"] |= {"apiKeyId": None, "caller": "AROAEXAMPLE:me"}
    assert call_api("submit_huggingface", signed, body={"model_tag": "org/third"}).status == 404


@pytest.mark.parametrize("error", [errors.RateLimitedError("busy"), errors.CredentialsRefusedError("bad token")])
def test_an_answer_that_passes_is_not_kept(deployment: Deployment, error: Exception) -> None:
    source = deployment.source
    assert isinstance(source, InMemoryModelSource)
    source.refusals[NAME] = error
    assert submit().status in (502, 503)
    del source.refusals[NAME]
    assert submit().status == 201


def test_an_answer_that_says_when_to_come_again_is_not_kept(deployment: Deployment) -> None:
    """A model of so many files that its deletion does not end within the request."""
    task = deployment.submit(NAME)
    deployment.run()
    (model_id,) = deployment.find_task(task.id).model_ids
    assert not deployment.deleter.delete_model(model_id, lambda: 1)
    held = submit()
    check_problem(held, 409, "deletion-in-progress")
    assert held.headers["retry-after"]
    deployment.clock.now += 300
    deployment.sweeper.sweep_stale(lambda: 300)
    again = submit()
    assert again.status == 201, "coming again with the same key is of use"
    assert submit() == again


def test_a_defect_is_not_kept(deployment: Deployment) -> None:
    source = deployment.source
    assert isinstance(source, InMemoryModelSource)
    source.refusals[NAME] = RuntimeError("defect")
    check_problem(submit(), 500, "internal-error")
    del source.refusals[NAME]
    assert submit().status == 201


def test_a_throttled_answer_is_not_kept(dynamodb: MotoDynamoDB) -> None:
    store = DynamoDBResponseStore("answers", region=REGION)
    answers = iter([{"statusCode": 429, "body": "later"}, {"statusCode": 200, "body": "now"}])

    def answer() -> dict[str, Any]:
        return store.respond_once(lambda: next(answers), scope=[], key="k", digest="d", context=Context())  # type: ignore[arg-type]

    assert [answer()["statusCode"] for _ in range(3)] == [429, 200, 200]


def test_of_simultaneous_ones_one_is_answered(deployment: Deployment) -> None:
    source = deployment.source
    resolve = source.resolve
    seen: list[Response] = []

    def resolve_slowly(name: str, revision: str) -> Any:
        seen.append(submit())
        seen.append(submit(name=OTHER))
        return resolve(name, revision)

    source.resolve = resolve_slowly  # type: ignore[method-assign]
    first = submit()
    assert first.status == 201
    problem = check_problem(seen[0], 409, "request-in-progress")
    assert problem["retry_after"] == int(seen[0].headers["retry-after"]) > 0
    check_problem(seen[1], 422, "idempotency-key-reused")
    source.resolve = resolve  # type: ignore[method-assign]
    assert submit() == first


def test_threads_with_one_key_start_one_import(deployment: Deployment) -> None:
    # Powertools configures its store at the first request, and not safely among threads, which functions do not have.
    submit("key-0", name="nobody/nothing")
    barrier = Barrier(8)
    statuses: list[int] = []

    def send() -> None:
        barrier.wait()
        statuses.append(submit().status)

    threads = [Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) <= {201, 409}
    assert 201 in statuses
    assert count_tasks(deployment) == 1


def test_one_whose_function_died_can_be_repeated_after_its_time(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(BaseException):
        pass

    def die(*_: object) -> None:
        raise KilledError

    source = deployment.source
    resolve = source.resolve
    source.resolve = die  # type: ignore[method-assign,assignment]
    event = add_header(read_event("submit_huggingface"), "key-1")
    event["body"] = json.dumps({"model_tag": NAME})
    with pytest.raises(KilledError):
        load_handler("submit_huggingface")(event, Context(seconds=0))
    source.resolve = resolve  # type: ignore[method-assign]
    assert submit(caller=event["requestContext"]["identity"]["apiKeyId"]).status == 201


@pytest.mark.parametrize("key", ["", " ", "a b", "é", "\x7f", "a\t", "x" * 256])
def test_what_is_no_key_is_refused(deployment: Deployment, dynamodb: MotoDynamoDB, key: str) -> None:
    check_problem(submit(key), 400, "invalid-idempotency-key")
    assert dynamodb.calls == []
    assert count_tasks(deployment) == 0


@pytest.mark.parametrize("key", ["!", "x" * 255, '"8e03978e-40d5-43dd-bc93-6894a57f9324"'])
def test_any_visible_text_is_a_key(deployment: Deployment, key: str) -> None:
    assert submit(key) == submit(key)
    assert count_tasks(deployment) == 1


def test_what_is_not_json_is_refused_with_a_key_too(deployment: Deployment) -> None:
    first = submit(raw="{")
    check_problem(first, 400, "invalid-json")
    assert submit(raw="{") == first


def test_without_a_key_nothing_is_looked_up(deployment: Deployment, dynamodb: MotoDynamoDB) -> None:
    assert call_api("submit_huggingface", read_event("submit_huggingface"), body={"model_tag": NAME}).status == 201
    assert dynamodb.calls == []


@pytest.mark.parametrize("operation", ["PutItem", "UpdateItem", "DeleteItem"])
def test_a_store_that_does_not_answer_costs_no_import_twice(
    deployment: Deployment, dynamodb: MotoDynamoDB, operation: str
) -> None:
    if operation == "DeleteItem":
        assert isinstance(deployment.source, InMemoryModelSource)
        deployment.source.refusals[NAME] = errors.RateLimitedError("busy")
    dynamodb.inject(operation, lambda *_: refuse(500, "InternalServerError"), times=3)
    answer = submit()
    if operation == "PutItem":
        assert check_problem(answer, 503, "storage-unavailable")["retry_after"] == 30
        assert count_tasks(deployment) == 0
        assert submit().status == 201
    elif operation == "UpdateItem":
        assert answer.status == 201, "what was done is said"
        check_problem(submit(), 409, "request-in-progress")
        assert count_tasks(deployment) == 1
    else:
        check_problem(answer, 503, "rate-limited")
        check_problem(submit(), 409, "request-in-progress")


def make_event(body: bytes, content_type: str, key: str, **query: str) -> dict[str, Any]:
    return add_header(make_upload(body, content_type, **query), key)


def post(archive: bytes, key: str, **query: str) -> tuple[Response, str]:
    """The answer and the form's boundary, which `requests` chooses anew each time."""
    files: Any = {"file": ("a.zip", archive, "application/zip")}
    sent = requests.Request("POST", "http://example.invalid/", files=files).prepare()
    assert isinstance(sent.body, bytes)
    kind = sent.headers["Content-Type"]
    return call_api("submit_local", make_event(sent.body, kind, key, **query)), kind


def test_a_key_is_of_one_upload(deployment: Deployment) -> None:
    tasks = [deployment.archive_submitter.open_upload("a.zip", 100, None)[0].id for _ in range(2)]

    def renew(task_id: str) -> Response:
        event = {**add_header(read_event("renew_upload"), "key-1"), "pathParameters": {"task_id": task_id}}
        return call_api("submit_local", {**event, "path": f"/upload/tasks/{task_id}/urls"}, body={"parts": [1]})

    assert [renew(task_id).body["task_id"] for task_id in (*tasks, *tasks)] == [*tasks, *tasks]


def test_a_form_is_the_same_with_another_boundary(deployment: Deployment) -> None:
    archive = zip_models("")
    (first, one), (second, two) = post(archive, "a", model_name="m"), post(archive, "a", model_name="m")
    assert one != two
    assert first.status == 201
    assert first == second
    check_problem(post(archive, "a", model_name="n")[0], 422, "idempotency-key-reused")
    check_problem(post(zip_models("x"), "a", model_name="m")[0], 422, "idempotency-key-reused")
    assert count_tasks(deployment) == 1


def test_a_ticket_of_a_thousand_parts_is_kept(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """As large as they come: with a session's token and a signature in each address."""
    open_upload = deployment.archives.open_upload
    token = base64.b64encode(bytes(range(256)) * 4).decode()

    def sign(*arguments: Any, **options: Any) -> Any:
        ticket = open_upload(*arguments, **options)
        for part in ticket.parts:
            signature = hashlib.sha256(part.url.encode()).hexdigest()
            object.__setattr__(part, "url", f"{part.url}&X-Amz-Security-Token={token}&X-Amz-Signature={signature}")
        return ticket

    monkeypatch.setattr(deployment.archives, "open_upload", sign)
    body = json.dumps({"file_name": "a.zip", "size": 400_000_000_000}).encode()
    first = call_api("submit_local", make_event(body, "application/json", "a"))
    assert first.status == 201
    assert len(first.body["upload"]["parts"]) > 900
    assert len(first.text) > 1_000_000
    assert call_api("submit_local", make_event(body, "application/json", "a")) == first
    assert count_tasks(deployment) == 1


def test_the_largest_form_costs_little_memory(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the event, which Lambda brings, and what the handler itself needs: two copies of the body."""
    monkeypatch.setattr(deployment.archive_submitter.__class__, "submit_archive", refuse_archive)
    body = b"--b\r\n" + bytes(MAX_POSTED)
    peaks = {}
    bare = make_upload(body, "multipart/form-data; boundary=b")
    for name, event in (("without", bare), ("with", add_header(bare, "a"))):
        tracemalloc.start()
        call_api("submit_local", event)
        peaks[name] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peaks["with"] - peaks["without"] < 2.5 * MAX_POSTED


def refuse_archive(*_: object) -> None:
    raise errors.ArchiveRefusedError("no", reason="no")


def test_answers_expire_after_a_day(deployment: Deployment, dynamodb: MotoDynamoDB) -> None:
    submit()
    (item,) = boto3.client("dynamodb", region_name=REGION).scan(TableName="answers")["Items"]
    life = read_template()["Resources"]["IdempotencyTable"]["Properties"]["TimeToLiveSpecification"]
    assert life == {"AttributeName": "expires_at", "Enabled": True}
    assert idempotency.RETENTION_SECONDS == 86_400
    assert int(item["expires_at"]["N"]) > 0
    assert "key-1" not in json.dumps(item), "the key is kept as a digest"


def test_it_is_loaded_only_with_a_key() -> None:
    """Powertools' utility takes a quarter of a second of a cold start."""
    code = (
        "import sys; import modelhaul.entrypoints.api; "
        "loaded = [n for n in sys.modules if 'utilities.idempotency' in n or n.startswith('modelhaul.adapters')]; "
        "assert not loaded, loaded"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
