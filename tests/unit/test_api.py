"""The API's handlers: contract statuses, headers and problems, over the in-memory deployment."""

import base64
import json
import re
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from urllib.parse import parse_qs, quote, unquote, urlsplit

import pytest

from modelhaul import wiring
from modelhaul.catalog import read
from modelhaul.catalog.presentation import present_task, present_whole_task
from modelhaul.domain import errors
from modelhaul.domain.keys import manifest_key
from modelhaul.domain.models import ModelError, Publication, Source
from modelhaul.domain.remedies import TASK_REMEDIES
from modelhaul.domain.tasks import Progress, Stage, Task, TaskStatus, Waiting
from tests.archives.zipping import zip_models
from tests.fakes.deployment import PART_SIZE, Deployment
from tests.fakes.model_source import InMemoryModelSource
from tests.fakes.read_key_repository import InMemoryReadKeyRepository
from tests.lambda_functions import ROOT, Context, Response, call_api, load_handler, read_event
from tests.weights import wrap_weights

NAME = "google-bert/bert-base-uncased"
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
EVENTS = ROOT / "events"


@pytest.fixture
def deployment(monkeypatch: pytest.MonkeyPatch) -> Deployment:
    deployment = Deployment(InMemoryModelSource({NAME: {"main": {"config.json": b"{}"}}}))
    monkeypatch.setattr(wiring, "create_submitter", lambda: deployment.submitter)
    monkeypatch.setattr(wiring, "create_tasks", lambda: deployment.database.tasks)
    monkeypatch.setattr(wiring, "create_models", lambda: deployment.database.models)
    monkeypatch.setattr(wiring, "create_finisher", lambda: deployment.finisher)
    monkeypatch.setattr(wiring, "create_catalog", lambda: deployment.catalog)
    monkeypatch.setattr(wiring, "create_deleter", lambda: deployment.deleter)
    monkeypatch.setattr(wiring, "create_archive_submitter", lambda: deployment.archive_submitter)
    monkeypatch.setattr(wiring, "create_read_keys", InMemoryReadKeyRepository)
    monkeypatch.setenv("HUB_URL", "https://hub.example/hf")
    monkeypatch.setenv("MODELS_BUCKET", "models-bucket")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    return deployment


def call_route(name: str, event: dict[str, Any]) -> Response:
    """Calls the function that the sample event `name` is for."""
    functions = {
        "read_docs": "read_docs",
        "read_openapi": "read_docs",
        "read_asset": "read_docs",
        "submit_large_archive": "submit_local",
        "renew_upload": "submit_local",
        "submit_partial": "submit_huggingface",
        "get_policy": "check_policy",
        "test_policy": "check_policy",
        "create_follow": "manage_follows",
        "list_follows": "manage_follows",
        "show_follow": "manage_follows",
        "change_follow": "manage_follows",
        "delete_follow": "manage_follows",
        "read_retention": "read_retention",
        "pin_model": "manage_pins",
        "unpin_model": "manage_pins",
        "create_key": "manage_keys",
        "list_keys": "manage_keys",
        "delete_key": "manage_keys",
        "list_entries": "read_audit",
    }
    reads = name.startswith(("list_", "read_"))
    return call_api(functions.get(name, "read_catalog" if reads else name), event)


def submit(body: object = None, raw: str | None = None) -> Response:
    return call_api("submit_huggingface", read_event("submit_huggingface"), body=body, raw=raw)


def test_a_form_is_not_json(deployment: Deployment) -> None:
    event = read_event("submit_huggingface")
    labelled = {**event, "headers": {"content-type": "multipart/form-data"}, "multiValueHeaders": {}}
    answer = call_api("submit_huggingface", labelled, raw="--x\r\n")
    check_problem(answer, 400, "invalid-json")
    assert call_api("submit_huggingface", labelled, body={"model_tag": NAME}).status == 201


@pytest.mark.parametrize(("body", "status"), [(b"\xff\xfe{", 400), (b'{"model_tag": "%s"}' % NAME.encode(), 201)])
def test_a_body_in_base64_is_decoded(deployment: Deployment, body: bytes, status: int) -> None:
    event = {**read_event("submit_huggingface"), "isBase64Encoded": True}
    assert call_api("submit_huggingface", event, raw=base64.b64encode(body).decode()).status == status


def submit_repository(body: object) -> Response:
    return call_api("submit_github", read_event("submit_github"), body=body)


def read_task(task_id: str) -> Response:
    event = read_event("read_task")
    return call_api(
        "read_catalog",
        {**event, "path": f"/upload/tasks/{task_id}", "pathParameters": {"task_id": task_id}},
    )


def cancel(task_id: str) -> Response:
    event = read_event("cancel_task")
    return call_api(
        "cancel_task", {**event, "path": f"/upload/tasks/{task_id}", "pathParameters": {"task_id": task_id}}
    )


def call_catalog(function: str, name: str, address: str, **parameters: str) -> Response:
    """Sends the sample event `name` for `address`, whose parameters API Gateway leaves percent-encoded."""
    event = {**read_event(name), "path": address, "pathParameters": parameters}
    return call_api(function, event)


def read_model(model_id: str) -> Response:
    return call_catalog("read_catalog", "read_model", f"/models/{model_id}", model_id=model_id)


def read_file(model_id: str, path: str, **members: str) -> Response:
    """`path` as the event has it; `members` are added to the event."""
    event = {**read_event("read_file"), "path": f"/models/{model_id}/files/{path}", **members}
    return call_api("read_catalog", {**event, "pathParameters": {"model_id": model_id, "path": path}})


def delete_model(model_id: str) -> Response:
    return call_catalog("delete_model", "delete_model", f"/models/{model_id}", model_id=model_id)


def list_models(**query: str) -> Response:
    event = {**read_event("list_models"), "queryStringParameters": query or None}
    event["multiValueQueryStringParameters"] = {name: [value] for name, value in query.items()} or None
    return call_api("read_catalog", event)


def import_model(deployment: Deployment, files: dict[str, bytes] | None = None, name: str = NAME) -> str:
    """The id of a READY model."""
    assert isinstance(deployment.source, InMemoryModelSource)
    deployment.source.models[name] = {"main": files or {"config.json": b"{}"}}
    task_id = submit({"model_tag": name}).headers["location"].rpartition("/")[2]
    deployment.run()
    task = deployment.find_task(task_id)
    assert task.status is TaskStatus.DONE
    return task.model_ids[0]


def check_problem(answer: Response, status: int, kind: str) -> dict[str, Any]:
    assert answer.status == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.body
    assert problem["type"] == f"urn:modelhaul:problem:{kind}"
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert problem["remedy"]
    return problem


def test_a_submit_is_answered_with_the_tasks_location(deployment: Deployment) -> None:
    answer = submit({"model_tag": NAME})
    assert answer.status == 201
    assert answer.text == ""
    location = answer.headers["location"]
    assert re.fullmatch(r"/v1/upload/tasks/[0-9a-f-]{36}", location)
    task = read_task(location.rpartition("/")[2])
    assert task.status == 200
    assert task.body["task_status"] == "PENDING"
    assert task.body["model_tag"] == f"{NAME}@main"


def test_a_task_is_shown_through_to_its_end(deployment: Deployment) -> None:
    task_id = submit({"model_tag": NAME, "revision": "main"}).headers["location"].rpartition("/")[2]
    deployment.run()
    body = read_task(task_id).body
    assert body["id"] == task_id
    assert body["task_status"] == "DONE"
    assert body["source"] == "HUGGINGFACE"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", body["created_at"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", body["updated_at"])
    assert body["progress"] == {
        "files_done": 1,
        "files_total": 1,
        "bytes_done": 2,
        "bytes_total": 2,
        "bytes_reused": 0,
    }
    (model,) = body["models"]
    assert model["status"] == "READY"
    assert model["location"].startswith("s3://models-bucket/models/huggingface/google-bert/bert-base-uncased/")
    assert "error" not in body
    assert "error_msg" not in body


def test_a_failed_task_says_why(deployment: Deployment) -> None:
    source = deployment.source
    assert isinstance(source, InMemoryModelSource)
    task_id = submit({"model_tag": NAME}).headers["location"].rpartition("/")[2]
    source.on_list = lambda: (_ for _ in ()).throw(errors.ModelNotFoundError("The model is gone."))
    deployment.run()
    body = read_task(task_id).body
    assert body["task_status"] == "FAILED"
    assert body["error_msg"] == "The model is gone."
    remedy = body["error"].pop("remedy")
    assert "configure a token" in remedy
    assert body["error"] == {"type": "model-not-found", "retryable": False}
    assert body["models"][0]["status"] == "FAILED"


@pytest.mark.parametrize("raw", ["", "{", "not json", "null", "[]", '"text"'])
def test_what_is_no_json_object_is_refused(deployment: Deployment, raw: str) -> None:
    check_problem(submit(raw=raw), 400, "invalid-json")


HOSTILE_JSON = {
    "brackets": "[" * 20_000 + "]" * 20_000,
    "open brackets": "[" * 20_000,
    "nested objects": '{"model_tag":' * 20_000,
    "nested field": '{"model_tag": %s}' % ("[" * 20_000 + "]" * 20_000),
    "integer": "1" * 4301,
    "integer in a field": '{"model_tag": %s}' % ("1" * 4301),
    "negative integer": "-" + "9" * 1_000_000,
    "half a surrogate pair in a name": '{"\\ud800": 1}',
    "byte order mark": "\ufeff{}",
    "NUL": "\0",
}


@pytest.mark.parametrize("function", ["submit_huggingface", "submit_github"])
@pytest.mark.parametrize("raw", HOSTILE_JSON.values(), ids=HOSTILE_JSON)
def test_json_that_no_parser_can_read_is_refused(deployment: Deployment, function: str, raw: str) -> None:
    check_problem(call_api(function, read_event(function), raw=raw), 400, "invalid-json")


@pytest.mark.slow
@pytest.mark.parametrize("raw", [json.dumps({"x" * 5_000_000: 1}), json.dumps(dict.fromkeys(range(400_000), 1))])
def test_an_answer_is_small_whatever_the_request_has(deployment: Deployment, raw: str) -> None:
    answer = submit(raw=raw)
    check_problem(answer, 422, "invalid-fields")
    assert len(answer.text) < 100_000


ROUTES = sorted(path.stem for path in EVENTS.glob("*.json") if "httpMethod" in json.loads(path.read_text()))


def add_query(event: dict[str, Any], **query: list[str]) -> dict[str, Any]:
    one = {name: values[-1] for name, values in query.items()}
    return {**event, "queryStringParameters": one, "multiValueQueryStringParameters": query}


@pytest.mark.parametrize("name", ROUTES)
@pytest.mark.parametrize("parameter", ["modelname", "Limit", "", "ü", "x" * 5000])
def test_an_unknown_query_parameter_is_named(deployment: Deployment, name: str, parameter: str) -> None:
    answer = call_route(name, add_query(read_event(name), **{parameter: [""]}))
    problem = check_problem(answer, 422, "invalid-fields")
    assert [entry["field"] for entry in problem["fields"]] == [parameter[:100]]
    assert "unknown query parameter" in problem["detail"]


@pytest.mark.parametrize("name", ROUTES)
def test_the_signature_of_a_presigned_request_is_no_unknown_parameter(deployment: Deployment, name: str) -> None:
    query = {"X-Amz-Signature": ["0" * 64], "X-Amz-Date": ["20260101T000000Z"]}
    answer = call_route(name, add_query(read_event(name), **query))
    assert "unknown query parameter" not in answer.text


@pytest.mark.parametrize(
    ("name", "parameter", "value"),
    [("list_models", "limit", "5"), ("list_models", "name", "a"), ("list_tasks", "cursor", "c"),
     ("list_tasks", "status", "DONE"), ("submit_local", "model_name", "mine")],
)  # fmt: skip
def test_a_repeated_query_parameter_is_named(deployment: Deployment, name: str, parameter: str, value: str) -> None:
    event = add_query(read_event(name), **{parameter: [value, value]})
    problem = check_problem(call_route(name, event), 422, "invalid-fields")
    assert [entry["field"] for entry in problem["fields"]] == [parameter]
    assert "sent 2 times" in problem["detail"]


@pytest.mark.parametrize("value", ["9" * 4301, "\ud800", "-1", "1e1", " 1 ", "\0"])
def test_odd_values_in_a_query_are_no_internal_errors(deployment: Deployment, value: str) -> None:
    for name in ("limit", "source", "name", "cursor"):
        assert list_models(**{name: value}).status in (200, 422), name


@pytest.mark.parametrize(
    "label", ["application/x-www-form-urlencoded", "text/plain", "application/json; charset=utf-8"]
)
def test_json_is_read_whatever_it_is_labelled(deployment: Deployment, label: str) -> None:
    event = read_event("submit_huggingface")
    event["headers"]["content-type"] = label
    event["multiValueHeaders"]["content-type"] = [label]
    assert call_api("submit_huggingface", event, body={"model_tag": NAME}).status == 201


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "model_tag"),
        ({"model_tag": 7}, "model_tag"),
        ({"model_tag": ""}, "model_tag"),
        ({"model_tag": None}, "model_tag"),
        ({"model_tag": NAME, "revision": 1}, "revision"),
        ({"model_tag": NAME, "revison": "main"}, "revison"),
        ({"model_tag": "x" * 300}, "model_tag"),
    ],
)
def test_fields_at_fault_are_named(deployment: Deployment, body: dict[str, object], field: str) -> None:
    problem = check_problem(submit(body), 422, "invalid-fields")
    assert field in [entry["field"] for entry in problem["fields"]]
    assert field in problem["detail"]


SUBMITS = {
    "submit_huggingface": {"model_tag": NAME},
    "submit_github": {"owner": "google-bert", "repo_name": "bert-base-uncased"},
}


def test_remedy_of_a_task_suits_the_cause(deployment: Deployment) -> None:
    task_id = submit({"model_tag": NAME, "weights": "pytorch"}).headers["location"].rpartition("/")[2]
    deployment.run()
    task = read_task(task_id).body
    assert task["error"]["type"] == "required-files-missing"
    assert task["error"]["remedy"].startswith("Import all weights, or the weights in a format that the model has.")
    model = task["models"][0]
    assert model["error"]["remedy"] == task["error"]["remedy"]


@pytest.mark.parametrize("function", SUBMITS)
def test_a_part_is_accepted_and_told_by_its_task(deployment: Deployment, function: str) -> None:
    body = SUBMITS[function] | {"allow_patterns": ["x/", "*.json"], "ignore_patterns": ["b"], "weights": "all"}
    answer = call_api(function, read_event(function), body=body)
    assert answer.status == 201, answer.text
    shown = {"allow_patterns": ["*.json", "x/*"], "ignore_patterns": ["b"], "weights": "all"}
    task = read_task(answer.headers["location"].rpartition("/")[2]).body
    assert task["selection"] == shown
    again = check_problem(call_api(function, read_event(function), body=body), 409, "import-in-progress")
    assert "allow '*.json' 'x/*', ignore 'b'" in again["detail"]
    assert call_api(function, read_event(function), body=SUBMITS[function]).status == 201, "the whole is another model"


def test_the_sample_of_a_part_is_accepted(deployment: Deployment) -> None:
    assert isinstance(deployment.source, InMemoryModelSource)
    deployment.source.old_names["bert-base-uncased"] = NAME
    answer = call_api("submit_huggingface", read_event("submit_partial"))
    assert answer.status == 201, answer.text
    assert read_task(answer.headers["location"].rpartition("/")[2]).body["selection"]["weights"] == "safetensors"


@pytest.mark.parametrize("function", SUBMITS)
@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"allow_patterns": "*.json"}, "allow_patterns"),
        ({"allow_patterns": None}, "allow_patterns"),
        ({"allow_patterns": ["a"] * 101}, "allow_patterns"),
        ({"allow_patterns": [f"{number:0500}" for number in range(21)]}, "allow_patterns"),
        ({"allow_patterns": ["a", ""]}, "allow_patterns.1"),
        ({"ignore_patterns": ["a", "b", 7]}, "ignore_patterns.2"),
        ({"ignore_patterns": ["x" * 501]}, "ignore_patterns.0"),
        ({"ignore_patterns": ["a\nb"]}, "ignore_patterns.0"),
        ({"ignore_patterns": ["a\x7f"]}, "ignore_patterns.0"),
        ({"ignore_patterns": ["\ud800"]}, "ignore_patterns.0"),
        ({"weights": "gguf"}, "weights"),
        ({"weights": None}, "weights"),
    ],
)
def test_fields_of_a_part_at_fault_are_named(
    deployment: Deployment, function: str, fields: dict[str, object], field: str
) -> None:
    answer = call_api(function, read_event(function), body=SUBMITS[function] | fields)
    problem = check_problem(answer, 422, "invalid-fields")
    assert [entry["field"] for entry in problem["fields"]] == [field]


def test_as_many_patterns_as_may_be_are_accepted(deployment: Deployment) -> None:
    body = {"model_tag": NAME, "allow_patterns": [f"{n:0100}" for n in range(100)], "ignore_patterns": ["y" * 500]}
    assert submit(body).status == 201


def test_an_existing_model_and_one_in_flight_are_409(deployment: Deployment) -> None:
    task_id = submit({"model_tag": NAME}).headers["location"].rpartition("/")[2]
    running = check_problem(submit({"model_tag": NAME}), 409, "import-in-progress")
    assert running["task_id"] == task_id
    assert running["task"] == f"/v1/upload/tasks/{task_id}"
    deployment.run()
    existing = check_problem(submit({"model_tag": NAME}), 409, "model-exists")
    assert existing["model_id"] == running["model_id"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.InvalidReferenceError("no"), 422),
        (errors.ModelNotFoundError("no"), 404),
        (errors.RevisionNotFoundError("no"), 404),
        (errors.AccessRequiredError("accept the conditions first"), 403),
        (errors.ModelDisabledError("no"), 403),
        (errors.CredentialsRefusedError("no"), 502),
        (errors.UntrustedHostError("no"), 502),
        (errors.RateLimitedError("no", retry_after=17.2), 503),
        (errors.SourceUnavailableError("no"), 503),
        (errors.StorageUnavailableError("no"), 503),
    ],
)
def test_each_error_has_its_status(deployment: Deployment, error: errors.ModelhaulError, status: int) -> None:
    source = deployment.source
    source.resolve = lambda *_: (_ for _ in ()).throw(error)  # type: ignore[method-assign]
    answer = submit({"model_tag": NAME})
    problem = check_problem(answer, status, error.type)
    assert problem["detail"] == error.detail
    if status == 503:
        assert problem["retry_after"] == int(answer.headers["retry-after"])
        assert int(answer.headers["retry-after"]) == (18 if isinstance(error, errors.RateLimitedError) else 30)


@pytest.mark.parametrize(("part", "field"), [("name", "model_tag"), ("revision", "revision")])
def test_a_reference_that_cannot_be_names_its_field(
    deployment: Deployment, part: Literal["name", "revision"], field: str
) -> None:
    def refuse(*_: object) -> None:
        raise errors.InvalidReferenceError("cannot be", part=part)

    deployment.source.resolve = refuse  # type: ignore[method-assign,assignment]
    problem = check_problem(submit({"model_tag": NAME}), 422, "invalid-reference")
    assert problem["fields"] == [{"field": field, "message": "cannot be"}]


def test_an_unforeseen_error_is_500_and_tells_no_secret(deployment: Deployment) -> None:
    def explode(*_: object) -> None:
        raise RuntimeError("hf_secret")

    deployment.source.resolve = explode  # type: ignore[method-assign,assignment]
    answer = submit({"model_tag": NAME})
    check_problem(answer, 500, "internal-error")
    assert "hf_secret" not in answer.text


@pytest.mark.parametrize(
    "task_id", ["x", "0" * 36, "%20", "é", "a" * 3000, "..", "7f000000-0000-4000-8000-000000000000"]
)
def test_an_unknown_task_is_404_whatever_its_shape(deployment: Deployment, task_id: str) -> None:
    check_problem(read_task(task_id), 404, "task-not-found")
    check_problem(cancel(task_id), 404, "task-not-found")


def test_a_task_is_cancelled_once(deployment: Deployment) -> None:
    task_id = submit({"model_tag": NAME}).headers["location"].rpartition("/")[2]
    answer = cancel(task_id)
    assert (answer.status, answer.text) == (204, "")
    check_problem(cancel(task_id), 409, "task-ended")
    body = read_task(task_id).body
    assert (body["task_status"], body["stage"]) == ("FAILED", "CANCELLED")
    assert (body["error"]["type"], body["error"]["retryable"]) == ("import-cancelled", True)


def test_an_unknown_route_is_a_problem(deployment: Deployment) -> None:
    event = {**read_event("read_task"), "path": "/upload/nothing", "resource": "/upload/nothing"}
    check_problem(call_api("read_catalog", event), 404, "no-such-route")


def test_a_model_that_another_task_took_over_is_not_this_tasks_success() -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    deployment = Deployment(InMemoryModelSource({NAME: {"main": {"config.json": b"{}"}}}))
    first = deployment.submit(NAME)
    deployment.finisher.fail(first.id, errors.EmptyModelError("no files"))
    second = deployment.submit(NAME)
    deployment.run()
    assert deployment.find_task(second.id).status is TaskStatus.DONE
    models = deployment.database.models.find_models(first.model_ids)
    shown = present_whole_task(deployment.find_task(first.id), models, bucket="b")
    assert shown["models"][0]["status"] == "FAILED"
    alone = present_whole_task(Task("id", Source.HUGGINGFACE, "n@main", ("m",), moment, moment), [], bucket="b")
    assert alone["models"] == []


UNSAFE = ModelError("unsafe-model", "bad/pytorch_model.bin imports os.system.", retryable=False)


def test_each_model_of_a_done_task_has_its_result(deployment: Deployment) -> None:
    task = deployment.post(zip_models("bad", "good"))
    bad, good = task.model_ids
    deployment.database.imports.finish_import(
        task.id, published={good: Publication(3, 100)}, check_at=0, failed={bad: UNSAFE}
    )
    shown = read_task(task.id).body
    assert (shown["task_status"], "error" in shown, "error_msg" in shown) == ("DONE", False, False)
    results = {entry["name"]: entry for entry in shown["models"]}
    assert (results["good"]["status"], "error" in results["good"]) == ("READY", False)
    assert (results["bad"]["status"], "location" in results["bad"]) == ("FAILED", False)
    error = results["bad"]["error"]
    assert error == {
        "type": "unsafe-model",
        "detail": UNSAFE.detail,
        "retryable": False,
        "remedy": TASK_REMEDIES["unsafe-model"],
    }
    record = read_model(bad).body
    assert (record["status"], record["error"]) == ("FAILED", error)
    assert not {"files", "location", "manifest", "manifest_url"} & record.keys()
    check_problem(read_file(bad, "config.json"), 404, "model-not-found")
    assert [model["name"] for model in list_models().body["models"]] == ["good"]
    # Imported again, it is no longer this task's, whose result stays.
    again = deployment.post(zip_models("bad"), "bad")
    assert again.model_ids == (bad,)
    running = {entry["name"]: entry for entry in read_task(task.id).body["models"]}["bad"]
    assert (running["status"], "error" in running) == ("FAILED", False)
    assert (read_model(bad).body["status"], "error" in read_model(bad).body) == ("IMPORTING", False)
    deployment.run()
    assert read_model(bad).body["status"] == "READY"
    assert {entry["name"]: entry["status"] for entry in read_task(task.id).body["models"]} == {
        "bad": "FAILED",
        "good": "READY",
    }


def test_a_failed_model_is_deleted_from_a_done_task(deployment: Deployment) -> None:
    task = deployment.post(zip_models("bad", "good"))
    bad, good = task.model_ids
    deployment.database.imports.finish_import(
        task.id, published={good: Publication(3, 100)}, check_at=0, failed={bad: UNSAFE}
    )
    assert delete_model(bad).status == 204
    assert read_task(task.id).body["models"][0] == {"model_id": bad, "status": "DELETED"}


def test_a_model_of_a_failed_task_says_why(deployment: Deployment) -> None:
    task = deployment.submit(NAME)
    deployment.finisher.fail(task.id, errors.EmptyModelError("no files"))
    record = read_model(task.model_ids[0]).body
    assert record["error"].pop("remedy")
    assert record["error"] == {"type": "empty-model", "detail": "no files", "retryable": False}
    assert read_task(task.id).body["models"][0]["error"]["detail"] == "no files"


def test_a_model_whose_import_is_cancelled_meanwhile_is_deleted(deployment: Deployment) -> None:
    task = deployment.submit(NAME)
    lease = deployment.database.models.lease_deletion

    def lose(model_id: str, **options: Any) -> Any:
        refused = lease(model_id, **options)
        deployment.database.models.lease_deletion = lease  # type: ignore[method-assign]
        assert cancel(task.id).status == 204
        return refused

    deployment.database.models.lease_deletion = lose  # type: ignore[method-assign]
    assert delete_model(task.model_ids[0]).status == 204
    check_problem(read_model(task.model_ids[0]), 404, "model-not-found")


def test_a_repository_is_accepted(deployment: Deployment) -> None:
    assert isinstance(deployment.source, InMemoryModelSource)
    deployment.source.models["owner/model"] = {"main": {"config.json": b"{}"}}
    answer = submit_repository({"owner": "owner", "repo_name": "model"})
    assert (answer.status, answer.text) == (201, "")
    task_id = answer.headers["location"].removeprefix("/v1/upload/tasks/")
    task = read_task(task_id).body
    assert (task["source"], task["model_tag"]) == ("GITHUB", "owner/model@main")
    problem = check_problem(submit_repository({"owner": "owner", "repo_name": "model"}), 409, "import-in-progress")
    assert problem["task_id"] == task_id


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, ["owner", "repo_name"]),
        ({"owner": "o"}, ["repo_name"]),
        ({"owner": 5, "repo_name": "r"}, ["owner"]),
        ({"owner": "o", "repo_name": "r", "revision": None}, ["revision"]),
        ({"owner": "o", "repo_name": "r", "branch": "main"}, ["branch"]),
    ],
)
def test_fields_of_a_repository_at_fault_are_named(deployment: Deployment, body: object, fields: list[str]) -> None:
    problem = check_problem(submit_repository(body), 422, "invalid-fields")
    assert [field["field"] for field in problem["fields"]] == fields


@pytest.mark.parametrize("part", ["owner", "repo_name", "revision"])
def test_what_github_cannot_have_is_a_bad_request(
    deployment: Deployment, part: Literal["owner", "repo_name", "revision"]
) -> None:
    assert isinstance(deployment.source, InMemoryModelSource)
    deployment.source.refusals["owner/model"] = errors.InvalidRepositoryError("cannot be", part=part)
    problem = check_problem(submit_repository({"owner": "owner", "repo_name": "model"}), 400, "invalid-repository")
    assert problem["fields"] == [{"field": part, "message": "cannot be"}]


@pytest.mark.parametrize("owner", ["openai/whisper", "https://github.com/openai/whisper", "/", "openai/"])
def test_an_owner_with_a_slash_is_the_field_at_fault(deployment: Deployment, owner: str) -> None:
    answer = submit_repository({"owner": owner, "repo_name": "whisper"})
    problem = check_problem(answer, 400, "invalid-repository")
    assert [field["field"] for field in problem["fields"]] == ["owner"]
    assert "send OWNER as owner and REPOSITORY as repo_name" in problem["detail"]


UNKNOWN_IDS = ["x", "0" * 36, "%20", "é", "a" * 3000, "..", "7f000000-0000-4000-8000-000000000000"]


def test_a_model_is_read_with_its_manifest(deployment: Deployment) -> None:
    model_id = import_model(deployment)
    body = read_model(model_id).body
    manifest = body.pop("manifest")
    assert manifest["model_id"] == model_id
    assert [file["path"] for file in manifest["files"]] == ["config.json"]
    assert body.pop("manifest_url") == f"memory://manifests/{model_id}.json?seconds=3600"
    assert (body["name"], body["source"], body["revision"], body["status"]) == (NAME, "HUGGINGFACE", "main", "READY")
    assert (body["files"], body["size"], body["gate"]["verdict"]) == (1, 2, "clean")
    assert body["location"].startswith("s3://models-bucket/models/huggingface/")


@pytest.mark.parametrize("character", ["x", '"', "é", "😀"])
def test_a_manifest_that_fits_into_no_answer_is_left_out(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, character: str
) -> None:
    """Lambda carries the answer's body as a text in JSON: 6 MB, escapes included."""
    model_id = import_model(deployment, {f"{character * 50}{number}.json": b"{}" for number in range(300)})
    key = manifest_key(model_id)
    escaped = len(json.dumps(deployment.read(key).decode()))
    assert "manifest" in read_model(model_id).body
    monkeypatch.setattr(read, "_MAX_INLINE_SIZE", escaped)
    assert "manifest" in read_model(model_id).body
    monkeypatch.setattr(read, "_MAX_INLINE_SIZE", escaped - 1)
    body = read_model(model_id).body
    assert "manifest" not in body
    assert key in body["manifest_url"]


def test_a_model_at_other_stages_is_read_as_it_stands(deployment: Deployment) -> None:
    running = check_problem_of_another(deployment)
    body = read_model(running).body
    assert body["status"] == "IMPORTING"
    assert not {"manifest", "manifest_url", "files"} & body.keys()
    check_problem(read_file(running, "config.json"), 404, "model-not-found")
    assert list_models().body == {"models": [], "cursor": None}


def check_problem_of_another(deployment: Deployment) -> str:
    """The id of a model that is being imported, as a second submit is told."""
    submit({"model_tag": NAME})
    model_id: str = check_problem(submit({"model_tag": NAME}), 409, "import-in-progress")["model_id"]
    return model_id


@pytest.mark.parametrize("model_id", UNKNOWN_IDS)
def test_an_unknown_model_is_404_whatever_its_shape(deployment: Deployment, model_id: str) -> None:
    for answer in (read_model(model_id), read_file(model_id, "a"), delete_model(model_id)):
        check_problem(answer, 404, "model-not-found")


def test_models_are_listed_page_by_page(deployment: Deployment) -> None:
    names = [f"org/{word}-{number}" for number, word in enumerate(["Bert", "gpt", "roBERTa"])]
    for name in names:
        import_model(deployment, name=name)
        deployment.clock.now += 1
    everything = list_models().body
    assert [model["name"] for model in everything["models"]] == names[::-1]
    assert everything["cursor"] is None
    assert everything["models"][0].keys() >= {"model_id", "location", "files", "size", "commit", "created_at"}
    first = list_models(limit="1", name="bert").body
    assert [model["name"] for model in first["models"]] == names[2:]
    second = list_models(limit="1", name="bert", cursor=first["cursor"]).body
    assert [model["name"] for model in second["models"]] == names[:1]
    assert list_models(source="LOCAL").body["models"] == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "101"}, "limit"),
        ({"limit": "x"}, "limit"),
        ({"source": "HUB"}, "source"),
        ({"name": ""}, "name"),
        ({"name": "x" * 301}, "name"),
    ],
)
def test_what_no_list_can_be_asked_for_is_named(deployment: Deployment, query: dict[str, str], field: str) -> None:
    problem = check_problem(list_models(**query), 422, "invalid-fields")
    assert [entry["field"] for entry in problem["fields"]] == [field]


def test_a_cursor_of_nobodys_is_refused(deployment: Deployment) -> None:
    problem = check_problem(list_models(cursor="nobody's"), 422, "invalid-reference")
    assert [entry["field"] for entry in problem["fields"]] == ["cursor"]


ODD_PATHS = [
    "config.json",
    "1_Pooling/config.json",
    "a b/ü+é&c=d?.json",
    "100%.json",
    "%41.json",
    "literal%20space.json",
    "a%2520b",
    "plus+sign %2B.json",
    "日本語/😀.json",
    "a;b,c:d@e!f$g'h(i)*~[j]{k}|l^m`n#o\"p.json",
    ".hidden",
    "a.b/..c",
]


@pytest.mark.parametrize("is_decoded", [False, True], ids=["rest", "format-1.0"])
@pytest.mark.parametrize("path", ODD_PATHS)
def test_a_file_is_found_by_its_path_decoded_once(deployment: Deployment, path: str, is_decoded: bool) -> None:
    """Events of format 1.0 have a version, and decoded paths."""
    model_id = import_model(deployment, {"config.json": b"{}", path: b"{}"})
    answer = read_file(model_id, path, version="1.0") if is_decoded else read_file(model_id, quote(path))
    assert (answer.status, answer.text) == (302, "")
    assert answer.headers["cache-control"] == "no-store"
    signed = urlsplit(answer.headers["location"])
    assert parse_qs(signed.query) == {"seconds": ["3600"], "file_name": [path.rpartition("/")[2]]}
    model = deployment.database.models.find_model(model_id)
    assert model is not None
    assert unquote(signed.netloc + signed.path) == model.resolved.prefix + path


@pytest.mark.parametrize(
    "path",
    ["CONFIG.json", "a%252520b",
     "1_Pooling", "1_Pooling/", "%2e%2e/config.json", "..%2Fx", ".", "a//b", "%00", "%C3", "%ED%A0%80",
     "a%5Cb", "x" * 3000, "%F0%9F%98%80" * 400, "config.json%20", "%2Fconfig.json", "\ud800"],
)  # fmt: skip
def test_a_path_that_is_not_in_the_model_is_404(deployment: Deployment, path: str) -> None:
    model_id = import_model(deployment, {"config.json": b"{}", "1_Pooling/config.json": b"{}"})
    check_problem(read_file(model_id, path), 404, "file-not-found")


def test_a_model_is_deleted_and_can_come_again(deployment: Deployment) -> None:
    model_id = import_model(deployment)
    answer = delete_model(model_id)
    assert (answer.status, answer.text) == (204, "")
    assert deployment.store.keys == []
    check_problem(read_model(model_id), 404, "model-not-found")
    check_problem(delete_model(model_id), 404, "model-not-found")
    assert import_model(deployment) == model_id


def test_what_takes_longer_is_deleted_in_the_background(deployment: Deployment) -> None:
    model_id = import_model(deployment)
    context = Context(seconds=2)
    event = {**read_event("delete_model"), "path": f"/models/{model_id}", "pathParameters": {"model_id": model_id}}
    answer = load_handler("delete_model")(event, context)
    assert (answer["statusCode"], answer["body"]) == (202, "")
    check_problem(read_model(model_id), 404, "model-not-found")
    check_problem(read_file(model_id, "config.json"), 404, "model-not-found")
    assert delete_model(model_id).status == 202
    refused = submit({"model_tag": NAME})
    problem = check_problem(refused, 409, "deletion-in-progress")
    assert (problem["model_id"], problem["retry_after"], refused.headers["retry-after"]) == (model_id, 60, "60")
    deployment.clock.now += 300
    deployment.sweeper.sweep_stale(lambda: 300)
    check_problem(delete_model(model_id), 404, "model-not-found")


def test_a_model_is_not_deleted_while_it_is_imported(deployment: Deployment) -> None:
    model_id = check_problem_of_another(deployment)
    problem = check_problem(delete_model(model_id), 409, "import-in-progress")
    assert problem["task"] == f"/v1/upload/tasks/{problem['task_id']}"
    assert "cancel the task" in problem["remedy"]


def test_a_task_shows_that_its_model_was_deleted(deployment: Deployment) -> None:
    model_id = import_model(deployment)
    (task_id,) = deployment.submitted or [deployment.database.tasks.list_tasks(limit=1).tasks[0].id]
    assert read_task(task_id).body["models"][0]["status"] == "READY"
    deployment.deleter.delete_model(model_id, lambda: 1)
    (hidden,) = read_task(task_id).body["models"]
    assert (hidden["status"], "location" in hidden) == ("DELETING", False)
    deployment.clock.now += 300
    deployment.sweeper.sweep_stale(lambda: 300)
    assert read_task(task_id).body["models"] == [{"model_id": model_id, "status": "DELETED"}]
    import_model(deployment)
    (again,) = read_task(task_id).body["models"]
    assert (again["model_id"], again["status"], "location" in again) == (model_id, "DELETED", False)


@pytest.mark.parametrize(
    ("done", "reused", "seconds", "stage", "expected"),
    [
        (0, 0, None, Stage.TRANSFERRING, {}),
        (400, 0, 10, Stage.TRANSFERRING, {"bytes_per_second": 40, "seconds_left": 15}),
        (401, 0, 10, Stage.TRANSFERRING, {"bytes_per_second": 40, "seconds_left": 15}),
        (400, 300, 10, Stage.TRANSFERRING, {"bytes_per_second": 10, "seconds_left": 60}),
        (400, 400, 10, Stage.TRANSFERRING, {}),
        (400, 500, 10, Stage.TRANSFERRING, {}),
        (400, 0, 0, Stage.TRANSFERRING, {}),
        (400, 0, 0.9, Stage.TRANSFERRING, {}),
        (400, 0, -5, Stage.TRANSFERRING, {}),
        (1, 0, 100, Stage.TRANSFERRING, {"bytes_per_second": 0, "seconds_left": 99_900}),
        (1000, 0, 10, Stage.TRANSFERRING, {"bytes_per_second": 100, "seconds_left": 0}),
        (1000, 0, 10, Stage.VERIFIED, {"bytes_per_second": 100}),
        (1000, 500, 10, Stage.DONE, {"bytes_per_second": 50}),
        (400, 0, 10, Stage.FAILED, {"bytes_per_second": 40}),
    ],
)
def test_progress_says_how_fast_it_is_and_what_remains(
    done: int, reused: int, seconds: float | None, stage: Stage, expected: dict[str, int]
) -> None:
    began = datetime(2026, 1, 1, tzinfo=UTC)
    progress = Progress(1, 2, bytes_done=done, bytes_total=1000, bytes_reused=reused)
    counted = None if seconds is None else began + timedelta(seconds=seconds)
    task = Task("id", Source.HUGGINGFACE, "n@main", (), began, began, stage, progress)
    now = began + timedelta(seconds=(seconds or 0) + 9)
    shown = present_task(replace(task, transfer_began_at=began, bytes_counted_at=counted), now=now)["progress"]
    assert {name: value for name, value in shown.items() if name in ("bytes_per_second", "seconds_left")} == expected
    assert not {"bytes_per_second", "seconds_left"} & present_task(task)["progress"].keys()


MOVING = Task(
    "id",
    Source.HUGGINGFACE,
    "n@main",
    (),
    MOMENT,
    MOMENT,
    Stage.TRANSFERRING,
    Progress(1, 2, bytes_done=400, bytes_total=1000),
    transfer_began_at=MOMENT,
    bytes_counted_at=MOMENT + timedelta(seconds=10),
)
WAITING = replace(
    MOVING,
    waiting=Waiting(
        "source-unavailable",
        "huggingface.co refused the connection.",
        since=MOMENT + timedelta(seconds=5),
        attempt=3,
        next_attempt=MOMENT + timedelta(seconds=41),
        recorded_at=MOMENT + timedelta(seconds=11),
    ),
    waiting_stage=Stage.TRANSFERRING,
)


def show_at(task: Task, seconds: float) -> dict[str, Any]:
    return present_task(task, now=MOMENT + timedelta(seconds=seconds))


def test_a_waiting_task_says_for_what_and_until_when() -> None:
    shown = show_at(WAITING, 12)
    assert shown["waiting"] == {
        "reason": "source-unavailable",
        "detail": "huggingface.co refused the connection.",
        "since": "2026-01-01T00:00:05Z",
        "attempt": 3,
        "next_attempt": "2026-01-01T00:00:41Z",
    }
    assert "seconds_left" not in shown["progress"]
    assert shown["progress"]["bytes_per_second"] == 40
    assert "waiting" in show_at(WAITING, 41 + 149), "the attempt may get no response for a while"


@pytest.mark.parametrize(
    ("task", "seconds"),
    [
        (replace(WAITING, bytes_counted_at=MOMENT + timedelta(seconds=12)), 12),
        (replace(WAITING, stage=Stage.PUBLISHING), 12),
        (replace(WAITING, stage=Stage.FAILED), 12),
        (WAITING, 41 + 151),
        (MOVING, 12),
    ],
    ids=["bytes-counted", "next-stage", "ended", "long-attempt", "no-wait"],
)
def test_a_task_whose_wait_is_over_does_not_wait(task: Task, seconds: float) -> None:
    assert "waiting" not in show_at(task, seconds)


def test_old_counts_give_no_remaining_time() -> None:
    assert show_at(MOVING, 20)["progress"]["seconds_left"] == 15
    assert "seconds_left" not in show_at(MOVING, 21)["progress"]


def test_a_wait_is_read_and_listed(deployment: Deployment) -> None:
    source = deployment.source
    assert isinstance(source, InMemoryModelSource)
    source.on_list = lambda: (_ for _ in ()).throw(errors.SourceUnavailableError("503"))
    deployment.clock.now = time.time()
    task_id = submit({"model_tag": NAME}).headers["location"].rpartition("/")[2]
    (message,) = deployment.receive()
    deployment.deliver(message)
    waiting = read_task(task_id).body["waiting"]
    assert (waiting["reason"], waiting["detail"], waiting["attempt"]) == ("source-unavailable", "503", 1)
    event = {**read_event("list_tasks"), "queryStringParameters": None, "multiValueQueryStringParameters": None}
    (listed,) = call_route("list_tasks", event).body["tasks"]
    assert listed["waiting"] == waiting


def test_progress_moves_while_a_large_file_does(deployment: Deployment) -> None:
    """Each offset counts, and the clock that runs beside it makes a rate of it."""
    source = deployment.source
    assert isinstance(source, InMemoryModelSource)
    source.models[NAME] = {"main": {"model.safetensors": wrap_weights(b"w" * 24 * 1024 * 1024)}}
    task_id = submit({"model_tag": NAME}).headers["location"].rpartition("/")[2]
    seen: list[dict[str, int]] = []

    def show_progress() -> dict[str, int]:
        now = datetime.fromtimestamp(deployment.clock.now, UTC)
        progress: dict[str, int] = present_task(deployment.find_task(task_id), now=now)["progress"]
        return progress

    def watch(_path: str, offset: int) -> None:
        """Let the source be read no faster than offsets are recorded, one for each segment of four parts."""
        deployment.clock.now += 0.1
        deadline = time.monotonic() + 20
        while (progress := show_progress())["bytes_done"] < offset - 4 * PART_SIZE:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        seen.append(progress)

    source.on_read = watch
    deployment.run()
    moving = [progress for progress in seen if "seconds_left" in progress]
    assert len({progress["bytes_done"] for progress in moving}) > 3
    assert all(0 < progress["bytes_done"] <= progress["bytes_total"] for progress in moving)
    assert all(progress["bytes_per_second"] > 0 for progress in moving)


@pytest.mark.parametrize("origin", ["", "https://models.example.com", "*"])
def test_only_pages_of_the_allowed_origin_may_read_answers(
    origin: str, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CORS_ALLOW_ORIGIN", origin)
    monkeypatch.setattr(deployment.database.tasks, "find_task", lambda _: 1 / 0)
    answers = [submit({"model_tag": NAME}), submit(raw="no JSON"), read_task("an unexpected error")]
    assert [answer.status for answer in answers] == [201, 400, 500]
    for answer in answers:
        assert answer.headers.get("access-control-allow-origin", "") == origin
        assert ("access-control-expose-headers" in answer.headers) is bool(origin)
    if origin:
        assert "Location" in answers[0].headers["access-control-expose-headers"]
