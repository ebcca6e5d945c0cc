"""Who submitted, cancelled or deleted something: in records, responses and logs, from events as AWS sends them."""

import io
import json
from typing import Any

import pytest

from modelhaul import wiring
from modelhaul.domain.callers import name_requester
from modelhaul.domain.models import ModelStatus
from modelhaul.entrypoints.callers import read_caller
from modelhaul.entrypoints.logs import create_logger
from modelhaul.imports.notify import EndPublisher
from modelhaul.signing.signer import ModelSigner, PublishedModelSigner
from tests.archives.building import Member, build
from tests.documented_events import VALIDATOR
from tests.fakes.deployment import Deployment
from tests.fakes.event_bus import InMemoryEventBus
from tests.fakes.model_source import InMemoryModelSource
from tests.fakes.read_key_repository import InMemoryReadKeyRepository
from tests.fakes.signing_key import LocalSigningKey
from tests.lambda_functions import Context, Response, call_api, load_handler, read_event

NAME = "org/tiny"
KEY_CALLER = "api-key:k1l2m3n4o5"
USER = "arn:aws:iam::111122223333:user/john.doe"
SESSION = "arn:aws:sts::111122223333:assumed-role/importers/john.doe"
# `requestContext.identity` as REST APIs send it, with the IDs of the documentation:
# https://docs.aws.amazon.com/lambda/latest/dg/services-apigateway.html
ABSENT = dict.fromkeys(
    (
        "cognitoIdentityPoolId",
        "accountId",
        "cognitoIdentityId",
        "caller",
        "apiKey",
        "apiKeyId",
        "accessKey",
        "principalOrgId",
        "cognitoAuthenticationType",
        "cognitoAuthenticationProvider",
        "userArn",
        "user",
    )
) | {"sourceIp": "192.0.2.10", "userAgent": "curl/8.7.1"}
SIGNED_BY_USER = {
    **ABSENT,
    "accountId": "111122223333",
    "caller": "AIDA2CRXO3S2JFSU7S42X",
    "accessKey": "AKIAIOSFODNN7EXAMPLE",
    "userArn": USER,
    "user": "AIDA2CRXO3S2JFSU7S42X",
}
SIGNED_BY_SESSION = {
    **SIGNED_BY_USER,
    "caller": "AROA2DREO3S2A6XFQAO5U:john.doe",
    "accessKey": "ASIAIOSFODNN7EXAMPLE",
    "userArn": SESSION,
    "user": "AROA2DREO3S2A6XFQAO5U:john.doe",
}
# The console of API Gateway signs its test requests, and sends the key "test-invoke-api-key".
TESTED_IN_CONSOLE = {**SIGNED_BY_USER, "apiKey": "test-invoke-api-key", "apiKeyId": "test-invoke-api-key-id"}


@pytest.fixture
def deployment(monkeypatch: pytest.MonkeyPatch) -> Deployment:
    deployment = Deployment(InMemoryModelSource({NAME: {"main": {"config.json": b"{}"}}}))
    for name in (
        "submitter",
        "finisher",
        "catalog",
        "deleter",
        "pinner",
        "archive_submitter",
        "runner",
        "acceptor",
        "metrics",
    ):
        monkeypatch.setattr(wiring, f"create_{name}", lambda name=name: getattr(deployment, name))
    monkeypatch.setattr(wiring, "create_tasks", lambda: deployment.database.tasks)
    monkeypatch.setattr(wiring, "create_models", lambda: deployment.database.models)
    monkeypatch.setattr(wiring, "create_arrival_recorder", lambda: deployment.arrivals)
    keys = InMemoryReadKeyRepository()
    monkeypatch.setattr(wiring, "create_read_keys", lambda: keys)
    monkeypatch.setenv("MODELS_BUCKET", "models-bucket")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("HUB_URL", "https://hub.example/hf")
    return deployment


class Logs(io.StringIO):
    def take(self) -> list[dict[str, Any]]:
        """Return the lines since the last call."""
        lines = [json.loads(line) for line in self.getvalue().splitlines()]
        self.seek(0)
        self.truncate()
        return lines


def send(function: str, sample: str, identity: dict[str, Any] | None = None, **parameters: str) -> Response:
    event = read_event(sample)
    event["pathParameters"] = parameters or event["pathParameters"]
    event["path"] = event["resource"].format(**parameters)
    event["queryStringParameters"] = event["multiValueQueryStringParameters"] = None
    if identity is not None:
        event["requestContext"]["identity"] = identity
    return call_api(function, event, body={"model_tag": NAME} if sample == "submit_huggingface" else None)


def submit(identity: dict[str, Any] | None = None) -> str:
    return send("submit_huggingface", "submit_huggingface", identity).headers["location"].rpartition("/")[2]


def read_task(task_id: str) -> dict[str, Any]:
    return send("read_catalog", "read_task", task_id=task_id).body


@pytest.fixture
def logs(monkeypatch: pytest.MonkeyPatch) -> Logs:
    """The lines that the functions log."""
    logs = Logs()
    monkeypatch.setattr(create_logger().registered_handler, "stream", logs)
    return logs


@pytest.mark.parametrize(
    ("identity", "caller"),
    [
        (SIGNED_BY_USER, USER),
        (SIGNED_BY_SESSION, SESSION),
        (TESTED_IN_CONSOLE, USER),
        ({**ABSENT, "apiKeyId": "a1b2c3d4e5"}, "api-key:a1b2c3d4e5"),
        (ABSENT, None),
        (None, None),
    ],
)
def test_caller_of_an_event(identity: dict[str, Any] | None, caller: str | None) -> None:
    assert read_caller({"requestContext": {"identity": identity}}) == caller


def test_caller_of_an_event_without_context() -> None:
    assert read_caller({}) is None


@pytest.mark.parametrize(
    ("requester", "caller"),
    [
        ("123456789012", "aws-account:123456789012"),
        ("s3.amazonaws.com", "aws-service:s3.amazonaws.com"),
    ],
)
def test_requester_of_an_object(requester: str, caller: str) -> None:
    assert name_requester(requester) == caller


@pytest.mark.parametrize(("identity", "caller"), [(None, KEY_CALLER), (SIGNED_BY_SESSION, SESSION)])
def test_task_and_model_show_who_submitted_them(
    deployment: Deployment, identity: dict[str, Any] | None, caller: str
) -> None:
    task_id = submit(identity)
    deployment.run()
    task = read_task(task_id)
    assert (task["task_status"], task["submitted_by"]) == ("DONE", caller)
    assert "cancelled_by" not in task
    (listed,) = send("read_catalog", "list_tasks").body["tasks"]
    assert listed["submitted_by"] == caller
    (model,) = task["models"]
    assert send("read_catalog", "read_model", model_id=model["model_id"]).body["submitted_by"] == caller


def test_caller_that_aws_does_not_pass_is_absent(deployment: Deployment) -> None:
    task_id = submit(ABSENT)
    deployment.run()
    task = read_task(task_id)
    assert "submitted_by" not in task
    assert "submitted_by" not in send("read_catalog", "read_model", model_id=task["models"][0]["model_id"]).body


def test_cancelled_task_shows_who_cancelled_it(deployment: Deployment) -> None:
    task_id = submit()
    assert send("cancel_task", "cancel_task", SIGNED_BY_USER, task_id=task_id).status == 204
    task = read_task(task_id)
    assert (task["stage"], task["submitted_by"], task["cancelled_by"]) == ("CANCELLED", KEY_CALLER, USER)


def test_every_log_line_of_a_request_has_its_caller(deployment: Deployment, logs: Logs) -> None:
    task_id = submit()
    lines = logs.take()
    assert {line["message"] for line in lines} == {"import accepted", "sent response"}
    assert {line["caller"] for line in lines} == {KEY_CALLER}
    send("cancel_task", "cancel_task", SIGNED_BY_SESSION, task_id=task_id)
    lines = logs.take()
    assert {"import cancelled", "sent response"} <= {line["message"] for line in lines}
    assert {line["caller"] for line in lines} == {SESSION}
    send("read_catalog", "read_task", ABSENT, task_id=task_id)
    assert [line for line in logs.take() if "caller" in line] == [], "the caller of the last request"


def test_deletion_is_logged_with_its_caller(deployment: Deployment, logs: Logs) -> None:
    submit()
    deployment.run()
    (model,) = deployment.database.models.list_models(limit=10).models
    logs.take()
    assert send("delete_model", "delete_model", SIGNED_BY_USER, model_id=model.model_id).status == 204
    (deleted,) = (line for line in logs.take() if line["message"] == "model deleted")
    assert (deleted["deleted_by"], deleted["caller"], deleted["model_id"]) == (USER, USER, model.model_id)


def test_a_pin_says_who_made_it_and_is_recorded(deployment: Deployment) -> None:
    submit()
    deployment.run()
    (model,) = deployment.database.models.list_models(limit=10).models
    pinned = send("manage_pins", "pin_model", SIGNED_BY_USER, model_id=model.model_id)
    assert pinned.status == 200
    assert pinned.body["pin"]["pinned_by"] == USER
    assert pinned.body["pin"]["reason"] == "Used by the production ranking service."
    refused = send("delete_model", "delete_model", SIGNED_BY_SESSION, model_id=model.model_id)
    assert (refused.status, refused.body["type"]) == (409, "urn:modelhaul:problem:model-pinned")
    for _ in range(2):
        assert send("manage_pins", "unpin_model", SIGNED_BY_SESSION, model_id=model.model_id).status == 204
    entries = [e for e in deployment.tables.entries.values() if e.action in ("ModelPinned", "ModelUnpinned")]
    assert [(entry.action, entry.actor) for entry in entries] == [("ModelPinned", USER), ("ModelUnpinned", SESSION)]
    assert send("delete_model", "delete_model", SIGNED_BY_SESSION, model_id=model.model_id).status == 204
    for sample in ("pin_model", "unpin_model"):
        assert send("manage_pins", sample, model_id=model.model_id).status == 404


def test_deletion_that_the_sweep_ends_is_logged_with_who_began_it(deployment: Deployment, logs: Logs) -> None:
    submit()
    deployment.run()
    (model,) = deployment.database.models.list_models(limit=10).models
    assert not deployment.deleter.delete_model(model.model_id, lambda: 0.0, deleted_by=KEY_CALLER)
    assert deployment.database.models.find_models([model.model_id])[0].status is ModelStatus.DELETING
    deployment.clock.now += 3600
    logs.take()
    deployment.deleter.resume(lambda: 300.0)
    (deleted,) = (line for line in logs.take() if line["message"] == "model deleted")
    assert deleted["deleted_by"] == KEY_CALLER


def test_read_keys_are_logged_with_who_created_and_deleted_them(deployment: Deployment, logs: Logs) -> None:
    created = send("manage_keys", "create_key", SIGNED_BY_USER)
    lines = {line["message"]: line for line in logs.take()}
    assert (lines["created read key"]["caller"], lines["created read key"]["key_id"]) == (USER, created.body["key_id"])
    (listed,) = send("manage_keys", "list_keys").body["keys"]
    assert listed["created_by"] == USER
    assert send("manage_keys", "delete_key", SIGNED_BY_SESSION, key_id=created.body["key_id"]).status == 204
    lines = {line["message"]: line for line in logs.take()}
    assert lines["deleted read key"]["caller"] == SESSION


def test_signature_is_logged_with_who_requested_it(
    deployment: Deployment, logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit()
    deployment.run()
    (model,) = deployment.database.models.list_models(limit=10).models
    signer = ModelSigner(LocalSigningKey(), deployment.store, deployment.clock)
    published = PublishedModelSigner(deployment.database.models, deployment.store, signer)
    monkeypatch.setattr(wiring, "create_published_signer", lambda: published)
    logs.take()
    assert send("sign_model", "sign_model", SIGNED_BY_SESSION, model_id=model.model_id).status == 201
    (line,) = (line for line in logs.take() if line["message"] == "model signed")
    assert (line["caller"], line["model_id"]) == (SESSION, model.model_id)
    shown = send("read_catalog", "read_model", model_id=model.model_id).body
    assert shown["submitted_by"] == KEY_CALLER
    assert shown["signature"]["key_arn"] == line["key_arn"]


def test_dropped_archive_shows_the_account_of_its_requester(deployment: Deployment) -> None:
    body = build([Member(f"tiny/{name}".encode(), b"{}") for name in ("config.json", "tokenizer.json")])
    sample = read_event("accept_archive")
    event = json.loads(sample["Records"][0]["body"])
    key = event["detail"]["object"]["key"]
    event["detail"]["object"] |= {"size": len(body), "etag": deployment.archives.put_archive(key, body)}
    record = {**sample["Records"][0], "body": json.dumps(event)}
    assert load_handler("accept_archive")({"Records": [record]}, Context()) == {"batchItemFailures": []}
    (task,) = deployment.database.tasks.list_tasks(limit=10).tasks
    assert task.submitted_by == f"aws-account:{event['detail']['requester']}"
    (outcome,) = deployment.archives.outcomes.values()
    assert outcome["submitted_by"] == task.submitted_by


def test_upload_shows_who_opened_it_and_not_who_sent_its_bytes(deployment: Deployment) -> None:
    response = call_api("submit_local", read_event("submit_large_archive"), body={"file_name": "a.zip", "size": 100})
    task = deployment.find_task(response.body["task_id"])
    assert task.submitted_by == KEY_CALLER
    assert task.archive is not None
    deployment.arrivals.record_arrival(
        task.archive.key, size=1, etag="e", event_id="1", submitted_by="aws-account:123456789012"
    )
    assert deployment.find_task(task.id).submitted_by == KEY_CALLER


@pytest.mark.parametrize(
    ("opened", "renewed", "status"),
    [
        (None, None, 200),
        (None, SIGNED_BY_USER, 409),
        (SIGNED_BY_USER, SIGNED_BY_USER, 200),
        (SIGNED_BY_USER, {**SIGNED_BY_USER, "userArn": f"{USER}2"}, 409),
        (SIGNED_BY_SESSION, {**SIGNED_BY_SESSION, "userArn": f"{SESSION}-later"}, 200),
        (SIGNED_BY_SESSION, {**SIGNED_BY_SESSION, "userArn": SESSION.replace("importers", "readers")}, 409),
        (SIGNED_BY_SESSION, SIGNED_BY_USER, 409),
        (ABSENT, SIGNED_BY_USER, 200),
        (SIGNED_BY_USER, ABSENT, 200),
    ],
)
def test_only_who_opened_an_upload_gets_new_urls(
    deployment: Deployment, opened: dict[str, Any] | None, renewed: dict[str, Any] | None, status: int
) -> None:
    """Another caller could import other content in the name of the submitter."""

    def identify(sample: str, identity: dict[str, Any] | None) -> dict[str, Any]:
        event = read_event(sample)
        if identity is not None:
            event["requestContext"]["identity"] = identity
        return event

    upload = identify("submit_large_archive", opened)
    task_id = call_api("submit_local", upload, body={"file_name": "a.zip", "size": 200_000_000}).body["task_id"]
    event = {**identify("renew_upload", renewed), "pathParameters": {"task_id": task_id}}
    response = call_api("submit_local", {**event, "path": f"/upload/tasks/{task_id}/urls"}, body={"parts": [1]})
    assert response.status == status
    if status == 409:
        assert "by this caller" in response.body["detail"]
        assert USER not in response.text


def test_event_has_who_submitted_and_cancelled(deployment: Deployment) -> None:
    bus = InMemoryEventBus()
    task_id = submit()
    send("cancel_task", "cancel_task", SIGNED_BY_USER, task_id=task_id)
    database = deployment.database
    EndPublisher(database.tasks, database.models, bus, "models-bucket", "modelhaul").publish_end(task_id)
    (event,) = bus.events
    detail = json.loads(event.detail)
    VALIDATOR.validate(
        {"source": "Modelhaul", "detail-type": event.type, "time": detail["updated_at"], "detail": detail}
    )
    assert (detail["submitted_by"], detail["cancelled_by"]) == (KEY_CALLER, USER)
