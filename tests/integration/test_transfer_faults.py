"""Imports from the loopback Hub over real HTTP, with every fault in the middle of a large file."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from modelhaul.domain.tasks import TaskStatus
from modelhaul_sources.hosts import HostPolicy
from modelhaul_sources.http_client import Timeouts
from modelhaul_sources.huggingface import HuggingFaceSource
from tests.fakes.deployment import PART_SIZE, Deployment
from tests.upstream.content import GeneratedContent, SafetensorsContent, read_all
from tests.upstream.faults import Fault, FaultKind
from tests.upstream.hub import LoopbackHub
from tests.upstream.hub_repository import HubFile, HubRepository

NAME = "tests/faulty-model"
CONTENT = SafetensorsContent(GeneratedContent(20 * PART_SIZE + 77, seed=3))
CONFIGURATION = b'{"model_type": "test"}'
MIDDLE = 9 * PART_SIZE + 1234


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    files = {"config.json": HubFile(CONFIGURATION), "model.safetensors": HubFile(CONTENT, lfs=True)}
    with LoopbackHub() as hub:
        hub.add_repository(HubRepository(NAME, {"main": files}))
        yield hub


@pytest.fixture
def deployment(hub: LoopbackHub) -> Deployment:
    policy = HostPolicy.for_hub(hub.endpoint, local_mode=True)
    return Deployment(HuggingFaceSource(policy, timeouts=Timeouts(connect=5, read=1)))


def expect(deployment: Deployment) -> dict[str, dict[str, bytes]]:
    prefix = deployment.source.resolve(NAME, "main").prefix
    return {prefix: {"config.json": CONFIGURATION, "model.safetensors": read_all(CONTENT)}}


def middle(kind: FaultKind, **options: Any) -> Fault:
    """Strikes the large file's bytes around its middle."""
    return Fault(kind=kind, origin="cdn", holding_byte=MIDDLE, times=1, **options)


PASSING = {
    "connection reset": middle(FaultKind.DROP, after_bytes=5 * PART_SIZE),
    "stall": middle(FaultKind.STALL, after_bytes=5 * PART_SIZE),
    "rate limit at the CDN": middle(FaultKind.RATE_LIMIT, retry_after=3),
    "rate limit at the resolver": Fault(
        kind=FaultKind.RATE_LIMIT, origin="resolve", path="model.safetensors", times=2, retry_after=200
    ),
    "server error": middle(FaultKind.SERVER_ERROR, status=503),
    "wrong bytes": middle(FaultKind.WRONG_BYTES, after_bytes=5 * PART_SIZE),
    "range ignored": middle(FaultKind.IGNORE_RANGE),
    "range ignored, no length": middle(FaultKind.IGNORE_RANGE, framing="chunked"),
    "range ignored, until close": middle(FaultKind.IGNORE_RANGE, framing="until_close"),
    "wrong Content-Range": middle(FaultKind.WRONG_CONTENT_RANGE),
    "short answer": middle(FaultKind.SHORT_ANSWER, by_bytes=1000),
    "long answer": middle(FaultKind.LONG_ANSWER, by_bytes=1000),
    "Content-Length too small": middle(FaultKind.WRONG_CONTENT_LENGTH, by_bytes=-1000),
    "Content-Length too large": middle(FaultKind.WRONG_CONTENT_LENGTH, by_bytes=1000),
    "signed URL expired": middle(FaultKind.EXPIRED_URL),
    "compressed, range ignored": middle(FaultKind.GZIP),
    "long answer for a small file": Fault(
        kind=FaultKind.LONG_ANSWER, origin="resolve", path="config.json", times=1, by_bytes=1000
    ),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING.keys())
def test_a_passing_fault_is_made_good(hub: LoopbackHub, deployment: Deployment, fault: Fault) -> None:
    hub.add_fault(fault)
    task = deployment.import_model(NAME)
    assert task.status is TaskStatus.DONE, task.error
    assert hub.faults == [], "the fault did strike"
    deployment.check_promises(expect(deployment))


def test_a_fault_after_a_break_is_met_in_the_middle(hub: LoopbackHub, deployment: Deployment) -> None:
    """The first connection breaks in the middle; what then answers for the rest is not the rest."""
    hub.add_fault(
        middle(FaultKind.DROP, after_bytes=MIDDLE),
        Fault(kind=FaultKind.IGNORE_RANGE, origin="cdn", skip=1, times=1, framing="chunked"),
        Fault(kind=FaultKind.DROP, origin="cdn", skip=1, times=1, after_bytes=MIDDLE + PART_SIZE),
        Fault(kind=FaultKind.WRONG_CONTENT_RANGE, origin="cdn", skip=2, times=1),
    )
    task = deployment.import_model(NAME)
    assert task.status is TaskStatus.DONE, task.error
    deployment.check_promises(expect(deployment))


def test_a_break_reads_only_the_rest(hub: LoopbackHub, deployment: Deployment) -> None:
    hub.add_fault(middle(FaultKind.DROP, after_bytes=5 * PART_SIZE))
    assert deployment.import_model(NAME).status is TaskStatus.DONE
    sent = sum(r.bytes_sent for r in hub.requests if r.origin == "cdn")
    assert sent <= CONTENT.size + 2 * PART_SIZE, "at most what was under way is read again"


def test_an_etag_that_changes_starts_anew(hub: LoopbackHub, deployment: Deployment) -> None:
    hub.add_fault(
        middle(FaultKind.DROP, after_bytes=5 * PART_SIZE),
        Fault(kind=FaultKind.CHANGED_ETAG, origin="cdn", skip=1, times=1, header_value='"other"'),
    )
    task = deployment.import_model(NAME)
    assert task.status is TaskStatus.DONE, task.error
    assert hub.faults == []
    deployment.check_promises(expect(deployment))


LASTING = {
    "connection reset": (Fault(kind=FaultKind.DROP, origin="cdn", after_bytes=3 * PART_SIZE), None),
    "server error": (Fault(kind=FaultKind.SERVER_ERROR, origin="cdn", status=500), "outage"),
    "too early": (Fault(kind=FaultKind.REFUSAL, origin="cdn", status=425), "outage"),
    "wrong bytes": (Fault(kind=FaultKind.WRONG_BYTES, origin="cdn", holding_byte=MIDDLE), "content-mismatch"),
    "wrong bytes of a small file": (
        Fault(kind=FaultKind.WRONG_BYTES, origin="resolve", path="config.json"),
        "content-mismatch",
    ),
    "wrong Content-Range": (Fault(kind=FaultKind.WRONG_CONTENT_RANGE, origin="cdn"), "retries-exhausted"),
    "signed URLs expire at once": (Fault(kind=FaultKind.EXPIRED_URL, origin="cdn"), "retries-exhausted"),
}


@pytest.mark.parametrize(("fault", "reason"), LASTING.values(), ids=LASTING.keys())
def test_a_lasting_fault_ends_in_words_and_leaves_nothing(
    hub: LoopbackHub, deployment: Deployment, fault: Fault, reason: str | None
) -> None:
    hub.add_fault(fault)
    task = deployment.import_model(NAME)
    if reason is None:
        # Each connection brings three parts and breaks: slow, but it comes to its end.
        assert task.status is TaskStatus.DONE, task.error
    else:
        assert task.error is not None
        assert task.error.type == reason
        assert "?" not in task.error.detail, "no signed query in the words"
    hub.clear_faults()
    deployment.sweep_until_quiet()
    deployment.check_promises(expect(deployment))
    if reason is not None:
        assert deployment.import_model(NAME).status is TaskStatus.DONE, "and it can be submitted again"


FINAL = {
    "method not allowed": (Fault(kind=FaultKind.REFUSAL, origin="cdn", status=405), "source-refused", "status 405"),
    "no listing": (Fault(kind=FaultKind.REFUSAL, origin="api", path="/tree/", status=406), "source-refused", "406"),
    "refused small file": (
        Fault(kind=FaultKind.REFUSAL, origin="resolve", path="config.json", status=402),
        "source-refused",
        "config.json responded with status 402",
    ),
    "longer file": (Fault(kind=FaultKind.LONG_ANSWER, origin="cdn", by_bytes=1000), "content-mismatch", "more bytes"),
    "longer small file": (
        Fault(kind=FaultKind.LONG_ANSWER, origin="resolve", path="config.json"),
        "content-mismatch",
        "config.json sent more bytes than the file has",
    ),
}


@pytest.mark.parametrize(("fault", "reason", "detail"), FINAL.values(), ids=FINAL.keys())
def test_a_permanent_failure_ends_the_first_attempt_with_its_reason(
    hub: LoopbackHub, deployment: Deployment, fault: Fault, reason: str, detail: str
) -> None:
    task_id = deployment.submit(NAME).id
    hub.add_fault(fault)
    started = deployment.clock.now
    deployment.run()
    task = deployment.find_task(task_id)
    assert task.error is not None
    assert (task.error.type, task.error.retryable) == (reason, False)
    assert detail in task.error.detail
    assert deployment.clock.now == started, "no message waited"
    assert not {"Retries", "OutageWaits"} & deployment.metrics.values.keys()
    hub.clear_faults()
    deployment.sweep_until_quiet()
    deployment.check_promises(expect(deployment))
    assert deployment.import_model(NAME).status is TaskStatus.DONE, "and it can be submitted again"


def test_the_same_wrong_bytes_twice_end_the_import(hub: LoopbackHub, deployment: Deployment) -> None:
    hub.add_fault(Fault(kind=FaultKind.WRONG_BYTES, origin="cdn", holding_byte=MIDDLE))
    task = deployment.import_model(NAME)
    assert task.error is not None
    assert "Checksum mismatch for model.safetensors" in task.error.detail
    assert deployment.metrics.values["Retries"] == 1, "the file was read from its first byte once more"


def test_a_slow_source_is_read_by_more_connections(hub: LoopbackHub, deployment: Deployment) -> None:
    together = threading.Event()

    def watch() -> None:
        hub.wait_for_requests(
            lambda requests: sum(r.origin == "cdn" and r.state == "answering" for r in requests) >= 2, timeout=30
        )
        together.set()
        hub.clear_faults()

    step = replace(
        deployment.transferrer, settings=replace(deployment.transferrer.settings, rate_window=0.2, slow_rate=60e6)
    )
    deployment.transferrer = step
    hub.add_fault(Fault(kind=FaultKind.SLOW, origin="cdn", bytes_per_second=4 * PART_SIZE))
    watcher = threading.Thread(target=watch)
    watcher.start()
    task = deployment.import_model(NAME)
    watcher.join()
    assert together.is_set()
    assert task.status is TaskStatus.DONE, task.error
    deployment.check_promises(expect(deployment))
