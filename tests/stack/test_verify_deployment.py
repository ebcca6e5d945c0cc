"""`make verify-deployment` on the deployed local stack: what passes, what fails when the stack is damaged, and that
nothing is left.
"""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from deployment.verify.checks import CHECKS
from deployment.verify.checks.importing import import_by_post
from deployment.verify.registry import Verification
from deployment.verify.results import Outcome, Result
from deployment.verify.runner import clean_up, measure_check
from deployment.verify.target import open_local_target
from local.stack import ROOT
from tests.operator_policy import find_action, read_policy_actions
from tests.stack.conftest import Stack

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

# MiniStack caches the result for a key for a minute, as API Gateway does. test_hub_access.py tests deleted keys.
SLOW = "hub-deleted-key"
SKIPPED = {
    "layers",
    "concurrency",
    "tables",
    "lifecycle",
    "plain-http",
    "gateway-responses",
    "gateway-problems",
    "body-limits",
    "signed-query",
    "upload-length",
    "object-checksums",
    "notifications",
    "alarms",
    "memory",
    "metrics",
    "traces",
    "signature",
}


class Verifier:
    """Runs checks in this process, and records the actions of their calls of AWS."""

    def __init__(self, stack: Stack, name: str) -> None:
        target = open_local_target(name, None, None)
        self.actions: set[str] = set()
        target.session.events.register("before-call", self._record)
        self.verification = Verification(target, datetime.now(UTC), secrets.token_hex(4), creates_rules=True)
        self.stack = stack

    def _record(self, model: Any, **_: object) -> None:
        self.actions.add(find_action(model.service_model.service_name, model.name))

    def run(self, *names: str) -> list[Result]:
        return [measure_check(CHECKS[name], self.verification) for name in names]

    def fail(self, name: str) -> str:
        """Run a check that fails, and return what it says."""
        (result,) = self.run(name)
        assert result.outcome is Outcome.FAIL, result
        return result.detail

    def clean_up(self) -> Result:
        return clean_up(self.verification.imports.delete_all)


@pytest.fixture
def verifier(stack: Stack, stack_name: str) -> Iterator[Verifier]:
    verifier = Verifier(stack, stack_name)
    yield verifier
    verifier.clean_up()


def list_left(stack: Stack, marker: str) -> list[Any]:
    """What the verification with this marker, or any with "", has created and not deleted."""
    models = stack.http.get(f"{stack.state.api_url}/models", timeout=30).json()["models"]
    keys = stack.http.get(f"{stack.state.api_url}/keys", timeout=30).json()["keys"]
    queues = stack.sqs.list_queues(QueueNamePrefix=f"{stack.state.stack_name}-verify-").get("QueueUrls", [])
    objects = stack.s3.list_objects_v2(Bucket=stack.state.incoming_bucket).get("Contents", [])
    names = [model["name"] + json.dumps(model.get("selection")) for model in models]
    names += [key["name"] for key in keys] + queues
    # Archives that were sent to the API expire.
    names += [entry["Key"] for entry in objects if not entry["Key"].startswith(("posted/", "uploads/"))]
    return [name for name in names if f"{marker}" in name and "erif" in name]


def test_all_checks_pass_and_nothing_is_left(
    verifier: Verifier, stack: Stack, record_property: Callable[[str, object], None]
) -> None:
    results = verifier.run(*(name for name in CHECKS if name != SLOW))
    results.append(verifier.clean_up())
    record_property(
        "slowest", sorted(((round(result.seconds, 1), result.name) for result in results), reverse=True)[:8]
    )
    assert [result for result in results if result.outcome is Outcome.FAIL] == []
    skipped = {result.name for result in results if result.outcome is Outcome.SKIPPED}
    assert skipped == SKIPPED, "checks that the local stack cannot run"
    assert verifier.actions <= read_policy_actions()
    assert list_left(stack, verifier.verification.marker) == []


def test_changed_and_deleted_objects_fail(verifier: Verifier, stack: Stack) -> None:
    (imported,) = verifier.run("import-zip-post")
    assert imported.outcome is Outcome.PASS
    model = import_by_post(verifier.verification)
    key = f"{model.record['manifest']['prefix']}config.json"
    content = stack.read_object(key)
    stack.s3.put_object(Bucket=stack.state.models_bucket, Key=key, Body=content[::-1])
    # Of the same size: only the digest differs.
    assert f"sha256 of {model.record['name']}/config.json is" in verifier.fail("read-files")
    assert "config.json" in verifier.fail("hub-reads")
    stack.s3.delete_object(Bucket=stack.state.models_bucket, Key=key)
    assert verifier.fail("manifest").startswith("objects of the model is")


def test_a_stopped_function_fails(verifier: Verifier, stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployment.verify.imports.IMPORT_TIMEOUT", 2.0)
    with stack.pause_consumer("PublishQueue"):
        assert "PublishModelsFunction is 'Disabled', expected 'Enabled'" in verifier.fail("event-sources")
        assert verifier.fail("import-zip-post").endswith("did not happen within 2 s")
        (dependent,) = verifier.run("manifest")
        assert (dependent.outcome, dependent.detail) == (Outcome.SKIPPED, "import-zip-post failed")
    # The import that did not end is cancelled.
    monkeypatch.setattr("deployment.verify.imports.IMPORT_TIMEOUT", 60.0)
    assert verifier.clean_up().outcome is Outcome.PASS
    assert list_left(stack, verifier.verification.marker) == []


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "deployment.verify", *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((".", "cli")), "COLUMNS": "100"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE)


def test_the_command_prints_a_table_and_writes_json(stack: Stack, stack_name: str, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    process = start("--local", stack_name, "--only", "cancel", "--only", "traces", "--json", str(path))
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "2 PASS, 0 FAIL, 1 SKIPPED" in output
    results = json.loads(path.read_text())
    assert [(result["name"], result["outcome"]) for result in results] == [
        ("cancel", "PASS"),
        ("traces", "SKIPPED"),
        ("cleanup", "PASS"),
    ]


def test_an_interrupted_verification_deletes_what_it_created(stack: Stack, stack_name: str) -> None:
    process = start("--local", stack_name)
    assert process.stdout is not None
    with contextlib.closing(process.stdout) as lines:
        for line in lines:
            if line.split() == ["PASS", "import-zip-copy"]:
                break
        process.send_signal(signal.SIGINT)
        output = "".join(lines)
    assert process.wait(60) == 130, output
    assert "Interrupted" in output
    assert "deleted what the checks created" in output
    assert list_left(stack, "") == []
