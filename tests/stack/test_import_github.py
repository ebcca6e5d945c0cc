"""GitHub on the deployed stack: real repositories, a real LFS server, the real template."""

import hashlib
import json
from typing import Any

import pytest

from tests.stack.conftest import Stack
from tests.upstream.faults import Fault, FaultKind
from tests.upstream.remote import RemoteUpstream
from tests.upstream.repositories import (
    GITHUB_EMPTY,
    GITHUB_LOST,
    GITHUB_MINILM,
    GITHUB_NO_MODEL,
    GITHUB_PRIVATE,
    GITHUB_SMALL,
    build_github_minilm,
    build_github_small,
    list_minilm_files,
)

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]


def read_model(stack: Stack, task: dict[str, Any]) -> dict[str, bytes]:
    prefix = task["models"][0]["location"].removeprefix(f"s3://{stack.state.models_bucket}/")
    return {key.removeprefix(prefix): stack.read_object(key) for key in stack.list_keys(prefix)}


def read_manifest(stack: Stack, task: dict[str, Any]) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads(stack.read_object(f"manifests/{task['models'][0]['model_id']}.json"))
    return manifest


def forget_limits(stack: Stack) -> None:
    table = stack.state.outputs["RateLimitsTable"]
    for item in stack.dynamodb.scan(TableName=table)["Items"]:
        stack.dynamodb.delete_item(TableName=table, Key={"name": item["name"]})


@pytest.fixture(scope="module")
def imported(stack: Stack, minilm: dict[str, Any]) -> dict[str, Any]:
    """After the Hub's model, whose files the repository has as well."""
    assert minilm["task_status"] == "DONE"
    if not stack.state.sample_repository:
        pytest.skip("the loopback GitHub needs git and git-lfs (`make setup` says why)")
    github = RemoteUpstream(stack.state.github_api_url)
    github.clear_requests()
    task = stack.import_repository(GITHUB_MINILM)
    assert task["task_status"] == "DONE", task
    task["requests"] = github.requests
    return task


def test_the_repository_arrives_whole(stack: Stack, imported: dict[str, Any]) -> None:
    expected = {path: place.read_bytes() for path, place in list_minilm_files().items()}
    expected["docs/über uns #1.md"] = b"# Names\n"
    found = read_model(stack, imported)
    assert b"filter=lfs" in expected[".gitattributes"], "the model brings its own"
    assert found == expected
    assert imported["models"][0]["location"].startswith(
        f"s3://{stack.state.models_bucket}/models/github/{GITHUB_MINILM}/"
    )
    manifest = read_manifest(stack, imported)
    for entry in manifest["files"]:
        if entry["path"] in expected:
            assert entry["sha256"] == hashlib.sha256(expected[entry["path"]]).hexdigest()
    digests = {entry["path"]: entry["source_digest"] for entry in manifest["files"]}
    assert digests["model.safetensors"].startswith("sha256:")
    assert digests["config.json"].startswith("git-sha1:")
    followed = {path for path, entry in build_github_minilm().items() if not hasattr(entry, "read_bytes")}
    not_followed = {entry["path"]: entry["kind"] for entry in manifest["not_followed"]}
    assert not_followed == {"vendor/tools": "submodule", "weights.safetensors": "symlink"}
    assert set(not_followed) < followed


def test_weights_from_the_hub_are_not_moved_again(imported: dict[str, Any]) -> None:
    progress = imported["progress"]
    own = progress["bytes_total"] - progress["bytes_reused"]
    assert own < 1000, "only what the repository alone has"
    assert [record for record in imported["requests"] if record.origin == "media"] == []


def test_the_api_is_asked_four_times(imported: dict[str, Any]) -> None:
    origins = [record.origin for record in imported["requests"]]
    assert origins.count("api") == 4


@pytest.mark.parametrize("name", [GITHUB_MINILM, GITHUB_MINILM.upper(), "samples/old-name", f"{GITHUB_MINILM}.git"])
@pytest.mark.parametrize("revision", ["main", "v1"])
def test_submitted_again_under_any_name_it_is_there_already(
    stack: Stack, imported: dict[str, Any], name: str, revision: str
) -> None:
    answer = stack.submit_repository(name, revision)
    assert answer.status_code == 409, answer.text
    assert answer.json()["model_id"] == imported["models"][0]["model_id"]


@pytest.mark.parametrize(
    ("name", "revision", "status", "kind"),
    [
        ("nobody/nothing", "main", 404, "model-not-found"),
        (GITHUB_PRIVATE, "main", 404, "model-not-found"),
        (GITHUB_SMALL, "no-such-branch", 404, "revision-not-found"),
        (GITHUB_EMPTY, "main", 404, "revision-not-found"),
        ("not--a/name", "main", 400, "invalid-repository"),
        ("x/https://github.com/openai/whisper", "main", 400, "invalid-repository"),
        (GITHUB_SMALL, "../main", 400, "invalid-repository"),
    ],
)
@pytest.mark.usefixtures("github")
def test_what_cannot_be_imported_is_refused_with_its_own_words(
    stack: Stack, name: str, revision: str, status: int, kind: str
) -> None:
    answer = stack.submit_repository(name, revision)
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["type"] == f"urn:modelhaul:problem:{kind}"


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        (GITHUB_LOST, "file-missing", "never pushed"),
        (GITHUB_NO_MODEL, "required-files-missing", "tokenizer.json"),
    ],
)
def test_what_is_no_whole_model_fails_in_words(
    stack: Stack, github: RemoteUpstream, name: str, kind: str, words: str
) -> None:
    task = stack.import_repository(name)
    assert (task["task_status"], task["error"]["type"]) == ("FAILED", kind)
    assert words in task["error_msg"]
    assert stack.list_keys(f"models/github/{name}/") == []
    assert [r for r in github.requests if r.origin == "media"] == []


def test_a_branch_with_a_slash_arrives_from_lfs(stack: Stack, github: RemoteUpstream) -> None:
    task = stack.import_repository(GITHUB_SMALL, "feature/second")
    assert task["task_status"] == "DONE", task
    assert read_model(stack, task)["pytorch_model.bin"] == build_github_small("feature/second")["pytorch_model.bin"]
    assert sum(record.bytes_sent for record in github.requests if record.origin == "media") == 700_000


def test_a_part_of_a_repository_arrives(stack: Stack, github: RemoteUpstream) -> None:
    task = stack.import_repository(GITHUB_SMALL, "main", allow_patterns=["*.json"], ignore_patterns=["config.*"])
    assert task["task_status"] == "DONE", task
    assert read_model(stack, task) == {"tokenizer.json": build_github_small("main")["tokenizer.json"]}
    assert read_manifest(stack, task)["selection"] == task["selection"]
    assert [record for record in github.requests if record.origin == "media"] == []


def test_a_branch_that_moves_after_the_submit_changes_nothing(stack: Stack, github: RemoteUpstream) -> None:
    with stack.pause_consumer("PlanQueue"):
        answer = stack.submit_repository(GITHUB_SMALL, "third")
        assert answer.status_code == 201, answer.text
        github.move_branch(GITHUB_SMALL, "third", "fourth")
    task = stack.wait_for_end(answer.headers["Location"].removeprefix("/v1/upload/tasks/"))
    assert task["task_status"] == "DONE", task
    assert read_model(stack, task)["pytorch_model.bin"] == build_github_small("third")["pytorch_model.bin"]


def test_a_rate_limit_is_kept_by_all_functions(stack: Stack, github: RemoteUpstream) -> None:
    """A submit is told when to come again; a task that is under way waits in its queue."""
    forget_limits(stack)
    with stack.pause_consumer("PlanQueue"):
        answer = stack.submit_repository(GITHUB_SMALL, "fifth")
        assert answer.status_code == 201, answer.text
        github.add_fault(Fault(kind=FaultKind.RATE_LIMIT, origin="api", retry_after=12, times=1))
        limited = stack.submit_repository("nobody/nothing")
        assert limited.status_code == 503
        assert 1 <= int(limited.headers["Retry-After"]) <= 14
        assert limited.json()["type"] == "urn:modelhaul:problem:rate-limited"
        github.clear_requests()
    task = stack.wait_for_end(answer.headers["Location"].removeprefix("/v1/upload/tasks/"))
    assert task["task_status"] == "DONE", task
    assert 403 not in [record.status for record in github.requests], "nobody asked while the limit held"
    stack.wait_until(lambda: stack.submit_repository("nobody/nothing").status_code == 404)


def test_wrong_bytes_are_fetched_again(stack: Stack, github: RemoteUpstream) -> None:
    forget_limits(stack)
    github.add_fault(Fault(kind=FaultKind.WRONG_BYTES, origin="media", after_bytes=5, times=1))
    task = stack.import_repository(GITHUB_SMALL, "sixth")
    assert task["task_status"] == "DONE", task
    assert github.faults == []
    assert read_model(stack, task)["pytorch_model.bin"] == build_github_small("sixth")["pytorch_model.bin"]
