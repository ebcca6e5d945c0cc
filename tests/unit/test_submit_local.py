"""POST /v1/upload/local and what is read of it afterwards, over the in-memory deployment."""

import base64
import json
import zipfile
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from modelhaul import wiring
from modelhaul.domain.errors import InvalidFormError
from modelhaul.domain.tasks import Stage
from modelhaul.entrypoints.forms import read_upload_form
from modelhaul.imports.submit_archive import MAX_POSTED
from tests.archives.zipping import zip_files
from tests.fakes.deployment import Deployment
from tests.lambda_functions import Response, call_api, read_event
from tests.weights import wrap_weights

FILES = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": wrap_weights(b"w" * 1000)}


def make_archive(*directories: str, **others: bytes) -> bytes:
    models = {f"{directory}/{path}": body for directory in directories for path, body in FILES.items()}
    return zip_files({**models, **others}, zipfile.ZIP_DEFLATED)


@pytest.fixture
def deployment(monkeypatch: pytest.MonkeyPatch) -> Deployment:
    deployment = Deployment()
    monkeypatch.setattr(wiring, "create_archive_submitter", lambda: deployment.archive_submitter)
    monkeypatch.setattr(wiring, "create_tasks", lambda: deployment.database.tasks)
    monkeypatch.setattr(wiring, "create_models", lambda: deployment.database.models)
    monkeypatch.setattr(wiring, "create_catalog", lambda: deployment.catalog)
    monkeypatch.setenv("MODELS_BUCKET", "models-bucket")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    return deployment


def make_event(body: bytes, content_type: str, **query: str) -> dict[str, Any]:
    return {
        **read_event("submit_local"),
        "headers": {"Content-Type": content_type},
        "multiValueHeaders": {"Content-Type": [content_type]},
        "queryStringParameters": query or None,
        "multiValueQueryStringParameters": {name: [value] for name, value in query.items()} or None,
        "body": base64.b64encode(body).decode(),
        "isBase64Encoded": True,
    }


def open_parts(size: int = 200_000_000) -> dict[str, Any]:
    return call_api("submit_local", read_event("submit_large_archive"), body={"file_name": "a.zip", "size": size}).body


def renew(task_id: str, body: object) -> Response:
    event = {**read_event("renew_upload"), "pathParameters": {"task_id": task_id}}
    return call_api("submit_local", {**event, "path": f"/upload/tasks/{task_id}/urls"}, body=body)


def test_missing_parts_are_signed_again(deployment: Deployment) -> None:
    opened = open_parts()
    assert len(opened["upload"]["parts"]) == 12
    deployment.clock.now += 3600
    renewed = renew(opened["task_id"], {"parts": [12, 3]})
    assert renewed.status == 200, renewed.text
    old, new = opened["upload"], renewed.body["upload"]
    assert [part["number"] for part in new["parts"]] == [3, 12]
    for part in new["parts"]:
        before = old["parts"][part["number"] - 1]
        assert part == {**before, "url": part["url"]}
        assert part["url"] != before["url"]
    assert new["complete"]["url"] != old["complete"]["url"]
    assert renewed.body["task_id"] == opened["task_id"]
    assert renewed.body["upload_until"] == opened["upload_until"]
    assert renewed.body["expires_at"] > opened["expires_at"]


@pytest.mark.parametrize(("body", "count"), [({}, 12), ({"parts": None}, 12), ({"parts": []}, 0), ({"parts": [1]}, 1)])
def test_all_parts_or_none_are_signed_again(deployment: Deployment, body: object, count: int) -> None:
    upload = renew(open_parts()["task_id"], body).body["upload"]
    assert len(upload["parts"]) == count
    assert upload["complete"]["method"] == "POST"


@pytest.mark.parametrize("body", [{}, {"parts": [1]}, {"parts": []}])
def test_single_put_is_signed_again(deployment: Deployment, body: object) -> None:
    opened = open_parts(1000)
    deployment.clock.now += 3600
    upload = renew(opened["task_id"], body).body["upload"]
    assert (upload["method"], upload.keys()) == ("PUT", {"method", "url"})
    assert upload["url"] != opened["upload"]["url"]


def test_urls_never_outlive_the_upload(deployment: Deployment) -> None:
    opened = open_parts()
    until = datetime.fromisoformat(opened["upload_until"])
    created = deployment.find_task(opened["task_id"]).created_at.replace(microsecond=0)
    assert until - created == timedelta(days=3)
    deployment.clock.now += 3 * 86_400 - 60
    renewed = renew(opened["task_id"], {})
    assert datetime.fromisoformat(renewed.body["expires_at"]) <= until
    deployment.clock.now += 60
    check_not_open(renew(opened["task_id"], {}), "took too long")


def check_not_open(response: Response, text: str) -> None:
    assert (response.status, response.body["type"]) == (409, "urn:modelhaul:problem:upload-not-open")
    assert text in response.body["detail"]


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({"parts": [13]}, 422, "invalid-reference"),
        ({"parts": [0]}, 422, "invalid-fields"),
        ({"parts": [-1]}, 422, "invalid-fields"),
        ({"parts": ["1"]}, 422, "invalid-fields"),
        ({"parts": [1.0]}, 422, "invalid-fields"),
        ({"parts": [True]}, 422, "invalid-fields"),
        ({"parts": list(range(1, 1002))}, 422, "invalid-fields"),
        ({"parts": 1}, 422, "invalid-fields"),
        ({"part": [1]}, 422, "invalid-fields"),
        ([1], 400, "invalid-json"),
        ("x", 400, "invalid-json"),
    ],
)
def test_invalid_parts_are_rejected(deployment: Deployment, body: object, status: int, kind: str) -> None:
    response = renew(open_parts()["task_id"], body)
    assert (response.status, response.body["type"]) == (status, f"urn:modelhaul:problem:{kind}")
    if kind == "invalid-reference":
        message = "Part 13 does not exist. The number of parts of this upload is 12."
        assert response.body["fields"] == [{"field": "parts", "message": message}]


def test_second_part_of_a_single_put_is_rejected(deployment: Deployment) -> None:
    response = renew(open_parts(1000)["task_id"], {"parts": [2]})
    assert (response.status, response.body["type"]) == (422, "urn:modelhaul:problem:invalid-reference")


@pytest.mark.parametrize("content_type", ["multipart/form-data; boundary=x", "text/plain"])
def test_a_form_renews_nothing(deployment: Deployment, content_type: str) -> None:
    task_id = open_parts()["task_id"]
    event = {**read_event("renew_upload"), "headers": {"content-type": content_type}, "multiValueHeaders": {}}
    event |= {"path": f"/upload/tasks/{task_id}/urls", "pathParameters": {"task_id": task_id}}
    response = call_api("submit_local", event, raw="--x--")
    assert (response.status, response.body["type"]) == (400, "urn:modelhaul:problem:invalid-json")


@pytest.mark.parametrize("task_id", ["unknown", "a b", "x" * 3000])
def test_upload_of_an_unknown_task_is_not_signed(deployment: Deployment, task_id: str) -> None:
    response = renew(task_id, {})
    assert (response.status, response.body["type"]) == (404, "urn:modelhaul:problem:task-not-found")


def test_upload_that_arrived_or_ended_is_not_signed(deployment: Deployment) -> None:
    arrived, cancelled = open_parts()["task_id"], open_parts()["task_id"]
    deployment.arrivals.record_arrival(f"uploads/{arrived}.zip", size=1, etag="e", event_id="1")
    check_not_open(renew(arrived, {}), "INSPECTING")
    deployment.finisher.cancel(cancelled)
    check_not_open(renew(cancelled, {}), "CANCELLED")


def test_parts_that_an_earlier_version_did_not_record_are_not_signed(deployment: Deployment) -> None:
    task = deployment.find_task(open_parts(6 * 1024**3)["task_id"])
    assert task.archive is not None
    earlier = replace(task, id="earlier", archive=replace(task.archive, upload_id=None, part_size=None))
    deployment.database.tasks.record_task(earlier)
    for parts in ([1], []):
        check_not_open(renew("earlier", {"parts": parts}), "earlier version")


def test_upload_that_an_earlier_version_opened_waits_for_three_days(deployment: Deployment) -> None:
    """Earlier versions told the sweep to check the task after twelve hours."""
    opened = deployment.find_task(open_parts()["task_id"])
    deployment.database.tasks.record_task(
        replace(opened, id="earlier", check_at=opened.created_at.timestamp() + 12 * 3600 + 600)
    )

    def pass_hours(hours: int) -> None:
        for _ in range(hours):
            deployment.clock.now += 3600
            deployment.sweeper.sweep_stale(lambda: 300)
            deployment.run()

    pass_hours(71)
    task = deployment.find_task("earlier")
    assert (task.stage, task.sweeps) == (Stage.UPLOADING, 0)
    assert renew("earlier", {}).status == 200
    pass_hours(3)
    ended = deployment.find_task("earlier")
    assert ended.error is not None
    assert "three days" in ended.error.detail


def test_task_without_an_upload_is_not_signed(deployment: Deployment) -> None:
    task_id = post(make_archive("m")).headers["link"].partition(">")[0].rpartition("/")[2]
    check_not_open(renew(task_id, {}), "PLANNING")


def post_form(files: dict[str, Any], fields: dict[str, str] | None = None, **query: str) -> Response:
    """As `requests` sends it."""
    sent = requests.Request("POST", "http://example.invalid/", files=files, data=fields).prepare()
    assert isinstance(sent.body, bytes)
    return call_api("submit_local", make_event(sent.body, sent.headers["Content-Type"], **query))


def post(archive: bytes, file_name: str = "models.zip", **query: str) -> Response:
    return post_form({"file": (file_name, archive, "application/zip")}, None, **query)


def post_json(body: object, **query: str) -> Response:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return call_api("submit_local", make_event(raw, "application/json", **query))


def get(path: str, **query: str) -> Response:
    event = read_event(
        "read_local_model"
        if path.startswith("/upload/local/")
        else "list_tasks"
        if path == "/upload/tasks"
        else "read_task"
    )
    return call_api("read_catalog", {**event, "path": path, "queryStringParameters": query or None,
                    "multiValueQueryStringParameters": {n: [v] for n, v in query.items()} or None})  # fmt: skip


def check_problem(answer: Response, status: int, kind: str) -> dict[str, Any]:
    assert answer.status == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.body["type"] == f"urn:modelhaul:problem:{kind}"
    assert answer.body["title"]
    return answer.body


def follow(answer: Response) -> dict[str, Any]:
    link = answer.headers["link"]
    assert link.endswith('>; rel="status"')
    return get(link.removeprefix("</v1").partition(">")[0]).body


def test_a_form_with_an_archive_is_answered_with_the_first_model_and_the_task(deployment: Deployment) -> None:
    answer = post(make_archive("b", "a"), model_name="mine")
    assert (answer.status, answer.text) == (201, "")
    assert follow(answer)["task_status"] == "PENDING"
    deployment.run()
    task = follow(answer)
    assert (task["task_status"], task["source"], task["model_tag"]) == ("DONE", "LOCAL", "mine")
    assert [m["name"] for m in task["models"]] == ["mine/a", "mine/b"]
    model = get(answer.headers["location"].removeprefix("/v1")).body
    assert (model["name"], model["status"], model["files"]) == ("mine/a", "READY", 3)
    assert model["location"] == f"s3://models-bucket/models/local/mine/a/{task['id']}/"


def test_the_name_may_be_a_field_of_the_form(deployment: Deployment) -> None:
    answer = post_form({"file": ("x.zip", make_archive("a"))}, {"model_name": "from-the-form"})
    assert follow(answer)["models"][0]["name"] == "from-the-form"


def test_a_directory_that_is_no_model_is_reported(deployment: Deployment) -> None:
    task = follow(post(make_archive("a", **{"docs/readme.md": b"x"})))
    assert [(m["name"], m["status"]) for m in task["models"]] == [("a", "IMPORTING"), ("docs", "SKIPPED")]
    assert task["models"][1]["lacks"][0] == "config.json"


@pytest.mark.parametrize(
    ("archive", "reason"), [(b"", "empty"), (b"PK, but no more", "not-a-zip"), (make_archive(), "empty")]
)
def test_no_archive_is_400(deployment: Deployment, archive: bytes, reason: str) -> None:
    assert check_problem(post(archive), 400, "archive-refused")["reason"] == reason


def test_a_hostile_archive_is_400_with_the_entry(deployment: Deployment) -> None:
    problem = check_problem(post(make_archive("a", **{"../x": b""})), 400, "archive-refused")
    assert problem["entry"] == "../x"
    assert "../x" in problem["detail"]
    assert deployment.archives.keys == []


def test_no_model_is_404_with_what_lacks(deployment: Deployment) -> None:
    problem = check_problem(post(make_archive(**{"a/config.json": b""})), 404, "no-model-in-archive")
    assert problem["directories"][0]["name"] == "a"
    assert problem["directories"][0]["lacks"][0] == "tokenizer.json"


def test_models_that_exist_are_409_by_name(deployment: Deployment) -> None:
    post(make_archive("a", "b"))
    check_problem(post(make_archive("b", "c")), 409, "import-in-progress")
    deployment.run()
    problem = check_problem(post(make_archive("a", "b", "c")), 409, "model-exists")
    assert [m["name"] for m in problem["models"]] == ["a", "b"]


def test_too_large_for_a_post_is_413_with_the_way_to_go(deployment: Deployment) -> None:
    problem = check_problem(post(bytes(MAX_POSTED + 1)), 413, "archive-too-large")
    assert "file_name" in problem["remedy"]


@pytest.mark.parametrize(
    ("size", "options", "parts"),
    [
        (64_000_000, {}, 0),
        (64_000_001, {}, 4),
        (5 * 1024**3, {}, 320),
        (5 * 1024**3, {"single_put": True}, 0),
        (10_000_000, {"single_put": False}, 0),
    ],
)
def test_large_upload_has_parts_unless_one_put_is_requested(
    deployment: Deployment, size: int, options: dict[str, bool], parts: int
) -> None:
    answer = post_json({"file_name": "models.zip", "size": size, **options})
    assert answer.status == 201, answer.text
    upload = answer.body["upload"]
    assert len(upload.get("parts", [])) == parts
    assert (upload.get("method") == "PUT") == (parts == 0)


def test_one_put_above_5_gb_is_413_with_the_way_to_go(deployment: Deployment) -> None:
    answer = post_json({"file_name": "models.zip", "size": 5 * 1024**3 + 1, "single_put": True})
    problem = check_problem(answer, 413, "archive-too-large")
    assert "without single_put" in problem["remedy"]


@pytest.mark.parametrize("content_type", ["application/zip", "application/octet-stream", "application/json"])
@pytest.mark.parametrize("encoded", [True, False])
def test_raw_archive_is_400_with_the_form_to_send(deployment: Deployment, content_type: str, encoded: bool) -> None:
    event = make_event(make_archive("a"), content_type)
    if not encoded:
        # API Gateway passes a body that is not a binary media type as text.
        event |= {"body": make_archive("a").decode("utf-8", "replace"), "isBase64Encoded": False}
    problem = check_problem(call_api("submit_local", event), 400, "invalid-form")
    assert "ZIP archive" in problem["detail"]
    assert "curl -F file=@models.zip" in problem["remedy"]


@pytest.mark.parametrize("name", ["a b", "../x", "", "x" * 400])
def test_a_name_that_cannot_be_is_422(deployment: Deployment, name: str) -> None:
    answer = post(make_archive("a"), model_name=name)
    assert answer.status == 422
    assert answer.body["fields"][0]["field"] == "model_name"


def test_a_form_without_the_file_is_422(deployment: Deployment) -> None:
    assert check_problem(post_form({"other": ("x.zip", b"")}), 422, "invalid-form")["fields"][0]["field"] == "file"


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"--x--\r\n"),
        ("multipart/form-data; boundary=x", b"no parts"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nPK',
        ),
        ("Multipart/Form-Data; boundary=x", b"--x\r\nnonsense\r\n\r\n--x--\r\n"),
    ],
)
def test_a_form_that_cannot_be_read_is_400(deployment: Deployment, content_type: str, body: bytes) -> None:
    check_problem(call_api("submit_local", make_event(body, content_type)), 400, "invalid-form")


def write_part(headers: str | bytes, body: bytes) -> bytes:
    head = headers if isinstance(headers, bytes) else headers.encode()
    return b"--x\r\nContent-Disposition: form-data; " + head + b"\r\n\r\n" + body + b"\r\n"


def post_parts(*parts: bytes, **query: str) -> Response:
    body = b"".join(parts) + b"--x--\r\n"
    return call_api("submit_local", make_event(body, "multipart/form-data; boundary=x", **query))


FILE_PART = write_part('name="file"; filename="models.zip"', make_archive("a"))


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([FILE_PART, FILE_PART], "a duplicate field 'file'"),
        ([FILE_PART, write_part('name="file"', b"text")], "a duplicate field 'file'"),
        ([FILE_PART] + [write_part('name="model_name"', b"a")] * 2, "a duplicate field 'model_name'"),
        ([FILE_PART, write_part('name="modelname"', b"mine")], "unknown field 'modelname'"),
        ([write_part('name="_charset_"', b"utf-8"), FILE_PART], "unknown field '_charset_'"),
        ([FILE_PART, write_part(f'name="{"n" * 4000}"', b"")], f"unknown field '{'n' * 100}'"),
    ],
)
def test_other_and_repeated_fields_are_400(deployment: Deployment, parts: list[bytes], words: str) -> None:
    problem = check_problem(post_parts(*parts), 400, "invalid-form")
    assert words in problem["detail"]
    assert deployment.archives.keys == []


@pytest.mark.parametrize("value", [b"\xff", b"na\xefve", b"\xed\xa0\x80"])
def test_a_name_that_is_not_utf_8_is_400(deployment: Deployment, value: bytes) -> None:
    problem = check_problem(post_parts(FILE_PART, write_part('name="model_name"', value)), 400, "invalid-form")
    assert "not valid utf8 text" in problem["detail"]


@pytest.mark.parametrize("charset", ["nonsense", "utf-16", "hex", "undefined", "unicode_escape", "os", "..", "c" * 900])
def test_a_name_in_another_charset_is_400(deployment: Deployment, charset: str) -> None:
    part = write_part(f'name="model_name"\r\nContent-Type: text/plain; charset="{charset}"', b"name")
    problem = check_problem(post_parts(FILE_PART, part), 400, "invalid-form")
    assert f"charset {charset[:100]!r}" in problem["detail"]


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", "utf8", "US-ASCII", "ISO-8859-1"])
def test_a_name_in_a_charset_that_clients_send_is_read(deployment: Deployment, charset: str) -> None:
    part = write_part(f'name="model_name"\r\nContent-Type: text/plain; charset={charset}', b"mine")
    assert follow(post_parts(FILE_PART, part))["model_tag"] == "mine"


def test_a_name_may_be_sent_once_or_twice_the_same(deployment: Deployment) -> None:
    part = write_part('name="model_name"', b"mine")
    problem = check_problem(post_parts(FILE_PART, part, model_name="other"), 422, "invalid-reference")
    assert [entry["field"] for entry in problem["fields"]] == ["model_name"]
    assert "'other'" in problem["detail"]
    assert "'mine'" in problem["detail"]
    problem = check_problem(
        post_json({"file_name": "a.zip", "size": 1, "model_name": "mine"}, model_name="other"), 422, "invalid-reference"
    )
    assert [entry["field"] for entry in problem["fields"]] == ["model_name"]
    assert follow(post_parts(FILE_PART, part, model_name="mine"))["model_tag"] == "mine"


def test_an_empty_name_in_a_form_is_none(deployment: Deployment) -> None:
    assert follow(post_parts(FILE_PART, write_part('name="model_name"', b"")))["model_tag"] == "models.zip"


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@given(st.data())
def test_a_damaged_form_is_read_or_refused(data: st.DataObject) -> None:
    """Never another exception, and no text that an answer or a record cannot hold."""
    form = bytearray(FILE_PART + write_part('name="model_name"\r\nContent-Type: text/plain; charset=utf-8', b"mine"))
    form += b"--x--\r\n"
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(form)))
        inserted = st.one_of(st.binary(max_size=6), st.sampled_from([b"%ff", b"--x\r\n", b"; charset=\xff", b"\r\n"]))
        form[start : start + data.draw(st.integers(0, 6))] = data.draw(inserted)
    try:
        read = read_upload_form("multipart/form-data; boundary=x", bytes(form))
        text = f"{read.file_name}{read.model_name}"
    except InvalidFormError as refused:
        text = refused.detail
    assert text.encode()


def test_a_large_form_is_read_without_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a temporary file was opened")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    content = bytes(4_400_000)
    sent = requests.Request("POST", "http://example.invalid/", files={"file": ("C:\\dir\\x.zip", content)}).prepare()
    assert isinstance(sent.body, bytes)
    form = read_upload_form(sent.headers["Content-Type"], sent.body)
    assert (form.content, form.file_name, form.model_name) == (content, "x.zip", None)


def test_json_is_answered_with_where_to_send_the_bytes(deployment: Deployment) -> None:
    answer = post_json({"file_name": "big.zip", "size": 50_000_000, "model_name": "mine"})
    assert answer.status == 201
    task = get(answer.headers["location"].removeprefix("/v1")).body
    assert (task["stage"], task["task_status"], task["model_tag"]) == ("UPLOADING", "PENDING", "mine")
    assert task["id"] == answer.body["task_id"]
    assert answer.body["upload"]["method"] == "PUT"
    assert answer.body["upload"]["url"]
    assert answer.body["expires_at"].endswith("Z")


def test_above_5_gb_there_are_parts(deployment: Deployment) -> None:
    size = 6 * 1024**3
    upload = post_json({"file_name": "big.zip", "size": size}).body["upload"]
    assert [part["number"] for part in upload["parts"]] == list(range(1, len(upload["parts"]) + 1))
    assert upload["parts"][-1]["end"] == size
    assert all(one["end"] == two["start"] for one, two in zip(upload["parts"], upload["parts"][1:], strict=False))
    assert upload["complete"]["method"] == "POST"
    assert upload["abort"]["url"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "file_name"),
        ({"file_name": "a.zip"}, "size"),
        ({"file_name": "a.zip", "size": "1"}, "size"),
        ({"file_name": "a.zip", "size": 0}, "size"),
        ({"file_name": "a.tar", "size": 1}, "file_name"),
        ({"file_name": "a.zip", "size": 1, "model_name": "a b"}, "model_name"),
        ({"file_name": "a.zip", "size": 1, "extra": 1}, "extra"),
    ],
)
def test_wrong_fields_are_422(deployment: Deployment, body: object, field: str) -> None:
    answer = post_json(body)
    assert answer.status == 422
    assert answer.body["fields"][0]["field"] == field


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"\xff", b"[" * 20_000 + b"]" * 20_000, b"1" * 4301, b'{"size": %s}' % (b"1" * 4301)]
)
def test_no_json_is_400(deployment: Deployment, body: bytes) -> None:
    check_problem(post_json(body), 400, "invalid-json")


def test_an_upload_over_the_limit_is_413(deployment: Deployment) -> None:
    check_problem(post_json({"file_name": "a.zip", "size": 10**12}), 413, "archive-too-large")


def test_an_unknown_local_model_is_404(deployment: Deployment) -> None:
    check_problem(get("/upload/local/nothing"), 404, "model-not-found")


def test_tasks_are_listed_newest_first_by_source_and_status(deployment: Deployment) -> None:
    for name in ("a", "b", "c"):
        post(make_archive(name))
        deployment.clock.now += 10
    page = get("/upload/tasks", source="LOCAL", limit="2").body
    assert [task["model_tag"] for task in page["tasks"]] == ["models.zip", "models.zip"]
    assert page["tasks"][0]["created_at"] > page["tasks"][1]["created_at"]
    rest = get("/upload/tasks", source="LOCAL", limit="2", cursor=page["cursor"]).body
    assert len(rest["tasks"]) == 1
    assert get("/upload/tasks", source="HUGGINGFACE").body["tasks"] == []
    assert get("/upload/tasks", status="DONE").body["tasks"] == []
    assert len(get("/upload/tasks", status="PENDING").body["tasks"]) == 3


@pytest.mark.parametrize(
    ("query", "field"),
    [({"source": "X"}, "source"), ({"status": "X"}, "status"), ({"limit": "0"}, "limit"), ({"limit": "x"}, "limit"),
     ({"cursor": "garbage"}, "cursor")],
)  # fmt: skip
def test_wrong_queries_are_422(deployment: Deployment, query: dict[str, str], field: str) -> None:
    answer = get("/upload/tasks", **query)
    assert answer.status == 422
    assert answer.body["fields"][0]["field"] == field
