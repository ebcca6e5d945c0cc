"""The API's handlers: contract statuses, headers and problems, over the in-memory deployment."""

import base64
import re
from datetime import UTC, datetime
from typing import Any, Literal

import pytest

from modelhaul import errors, wiring
from modelhaul.model import Source
from modelhaul.presentation import present_whole_task
from modelhaul.task import Task, TaskStatus
from tests.fakes.deployment import Deployment
from tests.fakes.model_source import InMemoryModelSource
from tests.lambda_functions import Answer, call_api, read_event

NAME = "google-bert/bert-base-uncased"


@pytest.fixture
def deployment(monkeypatch: pytest.MonkeyPatch) -> Deployment:
    deployment = Deployment(InMemoryModelSource({NAME: {"main": {"config.json": b"{}"}}}))
    monkeypatch.setattr(wiring, "create_intake", lambda: deployment.intake)
    monkeypatch.setattr(wiring, "create_ledger", lambda: deployment.ledger)
    monkeypatch.setattr(wiring, "create_closer", lambda: deployment.closer)
    monkeypatch.setenv("MODELS_BUCKET", "models-bucket")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    return deployment


def submit(body: object = None, raw: str | None = None) -> Answer:
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


def submit_repository(body: object) -> Answer:
    return call_api("submit_github", read_event("submit_github"), body=body)


def read_task(task_id: str) -> Answer:
    event = read_event("read_task")
    return call_api(
        "read_catalog",
        {**event, "path": f"/upload/tasks/{task_id}", "pathParameters": {"task_id": task_id}},
    )


def cancel(task_id: str) -> Answer:
    event = read_event("cancel_task")
    return call_api(
        "cancel_task", {**event, "path": f"/upload/tasks/{task_id}", "pathParameters": {"task_id": task_id}}
    )


def check_problem(answer: Answer, status: int, kind: str) -> dict[str, Any]:
    assert answer.status == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.body
    assert problem["type"] == f"urn:modelhaul:problem:{kind}"
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
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
    assert body["error"] == {"type": "model-not-found", "retryable": False}
    assert body["models"][0]["status"] == "FAILED"


@pytest.mark.parametrize("raw", ["", "{", "not json", "null", "[]", '"text"'])
def test_what_is_no_json_object_is_refused(deployment: Deployment, raw: str) -> None:
    check_problem(submit(raw=raw), 400, "invalid-json")


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


@pytest.mark.parametrize("function", SUBMITS)
def test_a_part_is_accepted_and_told_by_its_task(deployment: Deployment, function: str) -> None:
    body = SUBMITS[function] | {"allow_patterns": ["x/", "*.json"], "ignore_patterns": ["b"], "weights": "all"}
    answer = call_api(function, read_event(function), body=body)
    assert answer.status == 201, answer.text
    shown = {"allow_patterns": ["*.json", "x/*"], "ignore_patterns": ["b"], "weights": "all"}
    task = read_task(answer.headers["location"].rpartition("/")[2]).body
    assert task["selection"] == shown
    again = check_problem(call_api(function, read_event(function), body=body), 409, "import-in-progress")
    assert "allow_patterns '*.json' 'x/*', ignore_patterns 'b'" in again["detail"]
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
    assert body["error"] == {"type": "import-cancelled", "retryable": True}


def test_an_unknown_route_is_a_problem(deployment: Deployment) -> None:
    event = {**read_event("read_task"), "path": "/upload/nothing", "resource": "/upload/nothing"}
    check_problem(call_api("read_catalog", event), 404, "no-such-route")


def test_a_model_that_another_task_took_over_is_not_this_tasks_success() -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    deployment = Deployment(InMemoryModelSource({NAME: {"main": {"config.json": b"{}"}}}))
    first = deployment.submit(NAME)
    deployment.closer.fail(first.id, errors.EmptyModelError("no files"))
    second = deployment.submit(NAME)
    deployment.run()
    assert deployment.find_task(second.id).status is TaskStatus.DONE
    models = deployment.ledger.find_models(first.model_ids)
    shown = present_whole_task(deployment.find_task(first.id), models, bucket="b")
    assert shown["models"][0]["status"] == "FAILED"
    alone = present_whole_task(Task("id", Source.HUGGINGFACE, "n@main", ("m",), moment, moment), [], bucket="b")
    assert alone["models"] == []


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
