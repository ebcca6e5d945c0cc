"""Models on the deployed stack: found, read, fetched and deleted; and POSTs by Idempotency-Key."""

import time
import uuid
import zipfile
from typing import Any
from urllib.parse import quote

import pytest
import requests

from tests.archives.zipping import zip_files
from tests.stack.conftest import Stack
from tests.weights import wrap_weights

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

FILES = {
    "config.json": b'{"catalog": 1}',
    "tokenizer.json": b"{}",
    "model.safetensors": wrap_weights(b"catalog" * 60_000),
    "nested/a b+ü é&c=d.txt": "naïve".encode(),
    # Each name is another one decoded.
    "names/a b.txt": b"a space",
    "names/a%20b.txt": b"an escaped space",
    "names/a%2520b.txt": b"an escaped percent sign",
    "names/a+b.txt": b"a plus sign",
    "names/a%2Bb.txt": b"an escaped plus sign",
    "names/100%.txt": b"a percent sign",
    "names/日本語%E6.txt": b"other letters",
}


def make_archive() -> bytes:
    return zip_files(FILES, zipfile.ZIP_DEFLATED)


def import_archive(stack: Stack, name: str) -> tuple[str, dict[str, Any]]:
    """The model's id, and the task that brought it."""
    files = {"file": ("models.zip", make_archive(), "application/zip")}
    answer = stack.http.post(
        f"{stack.state.api_url}/upload/local", params={"model_name": name}, files=files, timeout=120
    )
    assert answer.status_code == 201, answer.text
    task = stack.wait_for_end(answer.links["status"]["url"].rpartition("/")[2])
    assert task["task_status"] == "DONE", task
    return answer.headers["Location"].rpartition("/")[2], task


def send(stack: Stack, method: str, path: str) -> requests.Response:
    return stack.http.request(method, f"{stack.state.api_url}{path}", timeout=60, allow_redirects=False)


def read_file(stack: Stack, model_id: str, path: str) -> requests.Response:
    return send(stack, "GET", f"/models/{model_id}/files/{quote(path)}")


def list_models(stack: Stack, **query: str) -> list[dict[str, Any]]:
    answer = stack.http.get(f"{stack.state.api_url}/models", params=query, timeout=60)
    assert answer.status_code == 200, answer.text
    models: list[dict[str, Any]] = answer.json()["models"]
    return models


def list_objects(stack: Stack, model: dict[str, Any]) -> list[str]:
    return stack.list_keys(model["location"].removeprefix(f"s3://{stack.state.models_bucket}/"))


def test_a_model_is_found_read_and_deleted_and_its_copy_stays(stack: Stack) -> None:
    first_id, _ = import_archive(stack, "catalog/First")
    second_id, second_task = import_archive(stack, "catalog/second")
    assert second_task["progress"]["bytes_reused"] == len(FILES["model.safetensors"])

    assert [model["model_id"] for model in list_models(stack, name="CATALOG/", source="LOCAL")] == [second_id, first_id]
    assert [model["model_id"] for model in list_models(stack, name="/first")] == [first_id]

    model = send(stack, "GET", f"/models/{first_id}").json()
    assert (model["name"], model["status"], model["files"]) == ("catalog/First", "READY", len(FILES))
    assert sorted(entry["path"] for entry in model["manifest"]["files"]) == sorted(FILES)
    assert requests.get(model["manifest_url"], timeout=30).json() == model["manifest"]
    for path, content in FILES.items():
        answer = read_file(stack, first_id, path)
        assert answer.status_code == 302, answer.text
        assert requests.get(answer.headers["Location"], timeout=30).content == content
    assert read_file(stack, first_id, "names/a%252520b.txt").status_code == 404, "decoded once"
    assert read_file(stack, first_id, "no such").json()["type"] == "urn:modelhaul:problem:file-not-found"
    address = f"{stack.state.api_url}/models/{first_id}"
    assert requests.delete(address, timeout=30).status_code == 403, "not without a key"

    deleted = send(stack, "DELETE", f"/models/{first_id}")
    assert (deleted.status_code, deleted.text) == (204, "")
    assert list_objects(stack, model) == []
    assert stack.list_keys(f"manifests/{first_id}") == []
    for answer in (send(stack, "GET", f"/models/{first_id}"), send(stack, "DELETE", f"/models/{first_id}")):
        assert (answer.status_code, answer.json()["type"]) == (404, "urn:modelhaul:problem:model-not-found")
    second = send(stack, "GET", f"/models/{second_id}").json()
    assert len(list_objects(stack, second)) == len(FILES)
    for path, content in FILES.items():
        assert requests.get(read_file(stack, second_id, path).headers["Location"], timeout=30).content == content
    again_id, again = import_archive(stack, "catalog/First")
    assert again_id == first_id
    assert again["progress"]["bytes_reused"] == len(FILES["model.safetensors"]), "from the copy that stayed"
    assert send(stack, "DELETE", f"/models/{again_id}").status_code == 204
    _, third = import_archive(stack, "catalog/third")
    assert third["progress"]["bytes_reused"] == len(FILES["model.safetensors"]), "from the older copy"


def write_form(*fields: tuple[str, bytes]) -> bytes:
    """A form with the boundary `x`; a field is the rest of its Content-Disposition, and its content."""
    parts = [b"--x\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n" % (h.encode(), c) for h, c in fields]
    return b"".join(parts) + b"--x--\r\n"


FILE_FIELD = ('name="file"; filename="models.zip"', make_archive())
WRONG_REQUESTS = [
    ("POST", "/upload/huggingface", b"[" * 20_000 + b"]" * 20_000, 400, "invalid-json"),
    ("POST", "/upload/github", b'{"owner": %s}' % (b"1" * 4301), 400, "invalid-json"),
    ("POST", "/upload/local", b"[" * 20_000, 400, "invalid-json"),
    ("POST", "/upload/huggingface?model_tag=gpt2", b"{}", 422, "invalid-fields"),
    ("GET", "/models?limt=5", None, 422, "invalid-fields"),
    ("GET", "/models?limit=5&limit=6", None, 422, "invalid-fields"),
    ("GET", "/upload/tasks/x?y", None, 422, "invalid-fields"),
    ("POST", "/upload/local", write_form(FILE_FIELD, FILE_FIELD), 400, "invalid-form"),
    ("POST", "/upload/local", write_form(FILE_FIELD, ('name="name"', b"mine")), 400, "invalid-form"),
    ("POST", "/upload/local", write_form(FILE_FIELD, ('name="model_name"', b"\xff")), 400, "invalid-form"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "kind"), WRONG_REQUESTS)
def test_a_wrong_request_is_refused(
    stack: Stack, method: str, path: str, body: bytes | None, status: int, kind: str
) -> None:
    is_form = body is not None and body.startswith(b"--x")
    headers = {"Content-Type": "multipart/form-data; boundary=x" if is_form else "application/json"}
    answer = stack.http.request(method, f"{stack.state.api_url}{path}", data=body, headers=headers, timeout=60)
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:modelhaul:problem:{kind}"), answer.text


def test_what_was_being_deleted_the_sweep_deletes(stack: Stack) -> None:
    model_id, task = import_archive(stack, "catalog/large")
    model = send(stack, "GET", f"/models/{model_id}").json()
    # As a function leaves it that died at once.
    stack.dynamodb.update_item(
        TableName=stack.state.outputs["ModelsTable"],
        Key={"model_id": {"S": model_id}},
        UpdateExpression="SET #status = :deleting, shelf = :shelf, lease_owner = :owner, lease_until = :until",
        ExpressionAttributeNames={"#status": "status"},
        ExpressionAttributeValues={
            ":deleting": {"S": "DELETING"},
            ":shelf": {"S": "deleting"},
            ":owner": {"S": "nobody"},
            ":until": {"N": str(time.time() + 3600)},
        },
    )
    assert send(stack, "GET", f"/models/{model_id}").status_code == 404
    files = {"file": ("models.zip", make_archive(), "application/zip")}
    refused = stack.http.post(
        f"{stack.state.api_url}/upload/local", params={"model_name": "catalog/large"}, files=files, timeout=120
    )
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:modelhaul:problem:deletion-in-progress")
    # Its lease is over.
    stack.dynamodb.update_item(
        TableName=stack.state.outputs["ModelsTable"],
        Key={"model_id": {"S": model_id}},
        UpdateExpression="SET lease_until = :zero",
        ExpressionAttributeValues={":zero": {"N": "0"}},
    )
    stack.sweep()
    assert list_objects(stack, model) == []
    assert stack.list_keys(f"manifests/{model_id}") == []
    assert stack.read_task(task["id"])["models"] == [{"model_id": model_id, "status": "DELETED"}]


def test_a_post_is_answered_once_to_its_key(stack: Stack) -> None:
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    archive = make_archive()  # once, because it contains the time

    def post(model_tag: str) -> requests.Response:
        return stack.http.post(
            f"{stack.state.api_url}/upload/huggingface", json={"model_tag": model_tag}, headers=headers, timeout=120
        )

    def post_archive(key: str, name: str) -> requests.Response:
        files = {"file": ("models.zip", archive, "application/zip")}
        return stack.http.post(
            f"{stack.state.api_url}/upload/local",
            params={"model_name": name},
            files=files,
            headers={"Idempotency-Key": key},
            timeout=120,
        )

    first, again = post_archive("key", "catalog/once"), post_archive("key", "catalog/once")
    assert (first.status_code, again.status_code) == (201, 201)
    assert (again.headers["Location"], again.links) == (first.headers["Location"], first.links)
    assert post_archive("key", "catalog/twice").status_code == 422
    assert post_archive("key-2", "catalog/once").status_code == 409
    stack.wait_for_end(first.links["status"]["url"].rpartition("/")[2])

    assert [post("nobody/nothing").status_code for _ in range(2)] == [404, 404]
    reused = post("nobody/else")
    assert (reused.status_code, reused.json()["type"]) == (422, "urn:modelhaul:problem:idempotency-key-reused")
    headers["Idempotency-Key"] = "no key"
    assert post("nobody/nothing").json()["type"] == "urn:modelhaul:problem:invalid-idempotency-key"
    repository = stack.http.post(
        f"{stack.state.api_url}/upload/github",
        json={"owner": "-", "repo_name": "x"},
        headers={"Idempotency-Key": "key"},
        timeout=120,
    )
    assert repository.status_code == 400
