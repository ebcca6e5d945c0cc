"""The import policy on the deployed stack: what it denies at which step, and what users see of it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from identify.vendor.licenses import LICENSES

from local.sources import SourceUrls
from local.stack import POLICY_BUCKET, POLICY_KEY, LocalStack
from tests.archives.zipping import zip_files
from tests.stack.conftest import Stack, allow_batches, wait_until
from tests.upstream.repositories import COMMAND_LINE, GITHUB_SMALL, MOVING, ON_REQUEST, SHARDED, SMALL
from tests.weights import wrap_weights

# Its first test starts a stack.
pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]

PREFIX = "urn:modelhaul:problem:"
POLICY = {
    "version": 1,
    "default": "allow",
    "rules": [
        {"id": "frozen", "effect": "deny", "reason": "The owner is under review.", "when": {"name": [ON_REQUEST]}},
        {
            "id": "no-apache",
            "effect": "deny",
            "reason": "Legal does not permit it.",
            "when": {"name": [MOVING], "license": ["apache-*"]},
        },
        {
            "id": "small",
            "effect": "deny",
            "reason": "It is too large.",
            "when": {"name": [SHARDED], "size_above": 1000},
        },
        {"id": "code", "effect": "deny", "reason": "Archives have no code.", "when": {"finding": ["code"]}},
        {
            "id": "licensed",
            "effect": "deny",
            "reason": "A repository needs a license.",
            "when": {"source": ["GITHUB"], "license": ["unknown"]},
        },
        {"id": "young", "effect": "deny", "reason": "Wait a day.", "when": {"commit_younger_than_days": 1}},
        {"id": "apache", "effect": "warn", "reason": "Keep the notice.", "when": {"license": ["apache-2.0", "mit"]}},
    ],
}
MODEL = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": wrap_weights(b"policy" * 1000)}
MIT = dict(LICENSES)["MIT"].encode()


@pytest.fixture(scope="module")
def governed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack with a policy in S3 and an audit. The policies of the functions' roles are enforced."""
    local, policy = LocalStack(f"import-policy-{os.getpid()}"), tmp_path_factory.mktemp("policy") / "policy.json"
    policy.write_text(json.dumps(POLICY))
    try:
        parameters = {"HubOnMiss": "IMPORT", "AuditRetentionDays": 30}
        state = local.start("loopback", SourceUrls(), 0, print, parameters=parameters, policy=policy, enforce_iam=True)
        allow_batches(state)
        yield Stack(state)
    finally:
        local.stop()


def list_audit(stack: Stack, **filters: str) -> list[dict[str, Any]]:
    response = stack.http.get(f"{stack.state.api_url}/audit", params=filters, timeout=30)
    assert response.status_code == 200, response.text
    entries: list[dict[str, Any]] = response.json()["entries"]
    return entries


def post(stack: Stack, files: dict[str, bytes], name: str) -> dict[str, Any]:
    """Return the task of an archive as it ended."""
    body = {"file": ("models.zip", zip_files(files), "application/zip")}
    url = f"{stack.state.api_url}/upload/local"
    response = stack.http.post(url, params={"model_name": name}, files=body, timeout=60)
    assert response.status_code == 201, response.text
    return stack.wait_for_end(response.links["status"]["url"].rpartition("/")[2])


def run_command(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"MODELHAUL_API_URL": stack.state.api_url, "MODELHAUL_API_KEY": stack.state.api_key}
    return subprocess.run(
        [sys.executable, "-m", "modelhaul_cli", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_denied_license_is_refused_at_the_submission(governed: Stack) -> None:
    response = governed.submit(MOVING)
    problem = response.json()
    assert (response.status_code, problem["type"]) == (403, f"{PREFIX}policy-denied"), response.text
    assert (problem["rule_id"], problem["reason"]) == ("no-apache", "Legal does not permit it.")
    assert "license apache-2.0" in problem["matched"]
    assert f"The import policy denies {MOVING} at commit" in problem["detail"]
    assert problem["remedy"]
    tasks = governed.http.get(f"{governed.state.api_url}/upload/tasks", timeout=30).json()["tasks"]
    assert not [task for task in tasks if task["model_tag"].startswith(MOVING)]
    (entry,) = (entry for entry in list_audit(governed, action="PolicyDenied") if entry["name"] == MOVING)
    assert entry["reason"] == "Legal does not permit it."
    assert entry["detail"]["rule"] == "no-apache"
    assert "task_id" not in entry


def test_a_denied_size_ends_the_task_at_its_planning(governed: Stack) -> None:
    task = governed.wait_for_end(governed.accept(SHARDED))
    assert (task["task_status"], task["error"]["type"]) == ("FAILED", "policy-denied"), task
    assert "Rule small (name tests/sharded-model; size " in task["error_msg"]
    assert task["progress"]["files_total"] == 0
    assert governed.list_keys(f"staging/{task['id']}/") == []
    assert [entry["action"] for entry in list_audit(governed, task_id=task["id"])] == [
        "PolicyDenied",
        "ImportSubmitted",
    ]


def test_a_denied_finding_ends_the_task_before_the_publishing(governed: Stack) -> None:
    task = post(governed, {**MODEL, "modeling.py": b"import os\n"}, "policy/code")
    assert (task["task_status"], task["error"]["type"]) == ("FAILED", "policy-denied"), task
    assert "Rule code (finding code (" in task["error_msg"]
    assert task["progress"]["files_total"] == 4
    assert governed.list_keys("models/local/policy/code/") == []
    governed.wait_until(lambda: governed.list_keys(f"staging/{task['id']}/") == [])


def test_a_repository_without_a_license_is_denied(governed: Stack) -> None:
    if not governed.state.sample_repository:
        pytest.skip("the loopback GitHub needs git and git-lfs (`make setup` says why)")
    task = governed.import_repository(GITHUB_SMALL)
    assert (task["task_status"], task["error"]["type"]) == ("FAILED", "policy-denied"), task
    assert "Rule licensed (source GITHUB; license unknown)" in task["error_msg"]
    url = f"{governed.state.api_url}/models/{task['models'][0]['model_id']}"
    record = governed.http.get(url, timeout=30).json()
    assert record.get("gated") in (None, False)


def test_warnings_of_imported_models_are_shown(governed: Stack) -> None:
    task = governed.import_model(SMALL)
    (entry,) = task["models"]
    warning = {"rule_id": "apache", "reason": "Keep the notice.", "matched": ["license apache-2.0"]}
    assert entry["policy"]["warnings"] == [warning]
    record = governed.http.get(f"{governed.state.api_url}/models/{entry['model_id']}", timeout=30).json()
    assert (record["policy"]["decision"], record["policy"]["warnings"]) == ("allow", [warning])
    assert (record["gated"], record["committed_at"]) == (False, "2025-01-01T00:00:00Z")
    (warned,) = list_audit(governed, task_id=task["id"], action="PolicyWarned")
    assert (warned["model_id"], warned["detail"]["warnings"]) == (entry["model_id"], "apache")
    shown = run_command(governed, "show", entry["model_id"])
    assert "warning: Keep the notice. (rule apache: license apache-2.0)" in shown.stdout, shown


def test_the_license_of_an_archive_is_that_of_its_file(governed: Stack) -> None:
    task = post(governed, {**MODEL, "LICENSE": MIT.replace(b"[year] [fullname]", b"2025 Acme")}, "policy/mit")
    assert task["task_status"] == "DONE", task
    (warning,) = task["models"][0]["policy"]["warnings"]
    assert warning["matched"] == ["license mit"]


def test_the_command_line_shows_denials_and_warnings(governed: Stack) -> None:
    denied = run_command(governed, "hf", MOVING)
    assert denied.returncode == 1, denied
    assert "Rule no-apache" in denied.stderr
    imported = run_command(governed, "hf", COMMAND_LINE)
    assert imported.returncode == 0, imported
    assert "warning: Keep the notice. (rule apache: license apache-2.0)" in imported.stdout


def test_a_hub_client_gets_a_readable_error(governed: Stack) -> None:
    key = governed.create_key("policy-clients", scopes=["read", "import"])["key"]
    for _ in range(2):
        response = requests.get(
            f"{governed.state.hub_url}/api/models/{ON_REQUEST}", headers={"Authorization": f"Bearer {key}"}, timeout=60
        )
        assert 400 <= response.status_code < 500, response.text
        assert "Rule frozen (name tests/on-request): The owner is under review." in response.text
    denials = [entry for entry in list_audit(governed, action="PolicyDenied") if entry["name"] == ON_REQUEST]
    assert len(denials) == 1


def test_without_a_usable_document_nothing_is_imported(governed: Stack) -> None:
    """The functions keep the document for a minute. Keep this test last."""
    policy = governed.http.get(f"{governed.state.api_url}/policy", timeout=30).json()
    governed.s3.put_object(Bucket=POLICY_BUCKET, Key=POLICY_KEY, Body=b'{"version": 2}')
    responses: list[requests.Response] = []

    def is_refused() -> bool:
        # This model exists, is denied, and then depends on a document that cannot be used.
        responses[:] = [governed.submit(MOVING)]
        return responses[0].status_code == 503

    wait_until(is_refused, responses)
    problem = responses[0].json()
    assert problem["type"] == f"{PREFIX}policy-unavailable"
    assert policy["location"] in problem["detail"]
    assert governed.submit(SMALL).status_code == 409, "it exists"
