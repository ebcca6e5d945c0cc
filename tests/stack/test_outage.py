"""An outage of the source for three minutes, while a large file moves. It takes about eight minutes, so CI skips it."""

import hashlib
import os
import time
from collections.abc import Iterator

import pytest

from local.stack import set_variable
from tests.stack.conftest import Stack, wait_until
from tests.upstream.content import GeneratedContent, SafetensorsContent
from tests.upstream.faults import Fault, FaultKind
from tests.upstream.hub import LoopbackHub
from tests.upstream.hub_repository import HubFile, HubRepository

pytestmark = [
    pytest.mark.stack,
    pytest.mark.timeout(1200),
    pytest.mark.skipif("LONG_TESTS" not in os.environ, reason="takes minutes: set LONG_TESTS=1"),
]

NAME = "tests/interrupted-model"
CONTENT = SafetensorsContent(GeneratedContent(400 * 1024 * 1024, seed=17))
CONFIGURATION = b'{"model_type": "interrupted"}'
OUTAGE = 180.0  # seconds
_FUNCTIONS = ("SubmitHuggingfaceFunction", "PlanImportFunction", "TransferFilesFunction")


def open_hub(port: int = 0) -> LoopbackHub:
    """Start a Hub that serves the large file slowly enough to be stopped meanwhile."""
    hub = LoopbackHub(port=port)
    files = {"config.json": HubFile(CONFIGURATION), "model.safetensors": HubFile(CONTENT, lfs=True)}
    hub.add_repository(HubRepository(NAME, {"main": files}))
    hub.add_fault(Fault(kind=FaultKind.SLOW, origin="cdn", bytes_per_second=4 * 1024 * 1024))
    hub.start()
    return hub


def read_start(range_header: str | None) -> int:
    return int((range_header or "bytes=0-").removeprefix("bytes=").partition("-")[0])


@pytest.fixture
def own_hub(stack: Stack) -> Iterator[LoopbackHub]:
    """The Hub of the stack for the time of a test."""
    hub = open_hub()
    try:
        for function in _FUNCTIONS:
            set_variable(stack.functions, stack.state.outputs[function], "HUGGINGFACE_ENDPOINT", hub.endpoint)
        yield hub
    finally:
        hub.close()
        for function in _FUNCTIONS:
            set_variable(
                stack.functions, stack.state.outputs[function], "HUGGINGFACE_ENDPOINT", stack.state.hub_endpoint
            )


def test_an_import_continues_after_the_source_was_stopped(stack: Stack, own_hub: LoopbackHub) -> None:
    port = int(own_hub.endpoint.rpartition(":")[2])
    task_id = stack.accept(NAME)
    stack.wait_for(task_id, lambda task: task["progress"]["bytes_done"] > CONTENT.size // 8)
    own_hub.close()
    began = time.monotonic()
    waiting = stack.wait_for(task_id, lambda task: "waiting" in task)
    stored = waiting["progress"]["bytes_done"]
    assert waiting["waiting"]["reason"] == "source-unavailable"
    assert "seconds_left" not in waiting["progress"]
    wait_until(lambda: time.monotonic() - began > OUTAGE, within=OUTAGE + 10)
    still = stack.read_task(task_id)
    assert still["task_status"] == "PENDING"
    assert still["waiting"]["since"] == waiting["waiting"]["since"]
    assert still["waiting"]["attempt"] > 3

    restarted = open_hub(port)
    try:
        wait_until(lambda: stack.read_task(task_id)["task_status"] != "PENDING", within=600)
        starts = [read_start(request.range) for request in restarted.requests if request.origin == "cdn"]
    finally:
        restarted.close()
    task = stack.read_task(task_id)
    assert task["task_status"] == "DONE", task
    assert "waiting" not in task
    assert min(starts) >= stored - len(CONFIGURATION), "what was stored is not downloaded again"
    prefix = task["models"][0]["location"].removeprefix(f"s3://{stack.state.models_bucket}/")
    digest = hashlib.sha256(stack.read_object(prefix + "model.safetensors")).hexdigest()
    assert digest == HubFile(CONTENT, lfs=True).sha256
