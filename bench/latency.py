"""Time of an import of a small model on the local stack, compared with a plain download and upload."""

import json
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import huggingface_hub

from bench.report import MB, Run, format_spread, format_table
from bench.servers import NAME, start_server
from local.importing import ImportApi
from local.sources import SourceUrls
from local.stack import CLIENT_CONFIG, LocalStack, StackState, open_session
from tests.upstream.repositories import MINILM, list_minilm_files

_ROUNDS = 3
_WARMING = (64 * MB, 4)  # bytes and files of a model that several functions import at the same time
_POLL_INTERVAL = 0.5  # seconds
_IMPORT_TIMEOUT = 600.0  # seconds
_LOGS_TIMEOUT = 30.0  # seconds
_STEPS = (
    ("plan", "plan-import", "import planned"),
    ("transfer", "transfer-files", "all files recorded; publishing starts"),
    ("publish", "publish-models", "import succeeded"),
)
"""The name, the end of the function's name, and the last message in its log."""
_REPORT = re.compile(r"^REPORT .*\bDuration: ([0-9.]+) ms")
_HEADS = ("Seconds", "First import after the deployment", "Functions are warm")


@dataclass(frozen=True)
class LogEvent:
    """`timestamp` is in seconds since the epoch, `function` the name of the log group."""

    timestamp: float
    function: str
    message: str


@contextmanager
def open_stack() -> Iterator[tuple[str, StackState]]:
    """Yield the endpoint of the loopback Hub, and a stack that was just deployed."""
    local = LocalStack("bench")
    with start_server("bench.sharded_hub", *map(str, _WARMING)) as announced:
        endpoint = announced["endpoint"]
        try:
            yield (
                endpoint,
                local.start("loopback", SourceUrls(endpoint, endpoint, endpoint, endpoint), 0, lambda _: None),
            )
        finally:
            local.stop()


def measure_import(state: StackState, name: str) -> dict[str, float]:
    """Import a model, and return the seconds from the POST to DONE, in all and by step. Raises RuntimeError."""
    api = ImportApi(state)
    started = time.time()
    task_id = api.submit("huggingface", {"model_tag": name})
    accepted = time.time()
    if task_id is None:
        raise RuntimeError(f"{name} was imported before")
    while (task := api.read_task(task_id))["task_status"] == "PENDING":
        if time.time() > accepted + _IMPORT_TIMEOUT:
            raise RuntimeError(f"the import of {name} did not end: {task}")
        time.sleep(_POLL_INTERVAL)
    if task["task_status"] != "DONE":
        raise RuntimeError(f"the import of {name} failed: {task}")
    return _split_time(_wait_for_events(state, task_id), task_id, started, accepted)


def _wait_for_events(state: StackState, task_id: str) -> list[LogEvent]:
    """Return the events of all logs, when the last functions of the task have ended and are reported.

    MiniStack delivers no messages to other functions while the function that publishes the end of a task starts.
    """
    deadline = time.monotonic() + _LOGS_TIMEOUT
    while time.monotonic() < deadline:
        events = list(_read_events(state))
        _, publisher, last_message = _STEPS[-1]
        published = [_read_time(e.message) for e in events if _is_of_task(e, task_id, last_message)]
        has_ended = any(_is_of_task(e, task_id, "event published") for e in events)
        reported = [e.timestamp for e in events if e.function.endswith(publisher) and _REPORT.match(e.message)]
        if has_ended and published and max(reported, default=0) >= published[0]:
            return events
        time.sleep(_POLL_INTERVAL)
    raise RuntimeError(f"the logs of task {task_id} are incomplete")


def _read_events(state: StackState) -> Iterator[LogEvent]:
    logs = open_session().client("logs", endpoint_url=state.aws_endpoint_url, config=CLIENT_CONFIG)
    for group in logs.describe_log_groups()["logGroups"]:
        name = group["logGroupName"]
        for page in logs.get_paginator("filter_log_events").paginate(logGroupName=name):
            yield from (LogEvent(e["timestamp"] / 1000, name, e["message"]) for e in page["events"])


def _split_time(events: list[LogEvent], task_id: str, started: float, accepted: float) -> dict[str, float]:
    """Return the seconds of the POST, and for each step those before its first function starts, and after that."""
    times = {"POST": accepted - started}
    before = accepted
    for step, function, last_message in _STEPS:
        ended = max(_read_time(e.message) for e in events if _is_of_task(e, task_id, last_message))
        reports = [(e.timestamp, _REPORT.match(e.message)) for e in events if e.function.endswith(function)]
        # MiniStack writes the report when the function has ended. Its duration includes a cold start.
        starts = [at - float(report[1]) / 1000 for at, report in reports if report is not None and at >= before]
        first = min(max(min(starts), before), ended)
        times |= {f"wait for {step}": first - before, step: ended - first}
        before = ended
    return {"total": before - started, **times}


def _is_of_task(event: LogEvent, task_id: str, message: str) -> bool:
    return f'"message":"{message}"' in event.message and task_id in event.message


def _read_time(message: str) -> float:
    logged: dict[str, Any] = json.loads(message)
    return datetime.strptime(logged["timestamp"], "%Y-%m-%d %H:%M:%S,%f%z").timestamp()


def measure_copy(endpoint: str, state: StackState) -> tuple[float, float]:
    """Download MiniLM into an empty folder and upload it to the models bucket. Return the seconds of both."""
    s3 = open_session().client("s3", endpoint_url=state.aws_endpoint_url, config=CLIENT_CONFIG)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        huggingface_hub.snapshot_download(MINILM, endpoint=endpoint, cache_dir=folder)
        downloaded = time.perf_counter()
        for path in Path(folder).glob("models--*/snapshots/*/**/*"):
            if path.is_file():
                s3.upload_file(str(path), state.models_bucket, f"benchmark/{path.name}")
        return downloaded - started, time.perf_counter() - downloaded


def _measure_round(*, is_warm: bool) -> tuple[dict[str, float], tuple[float, float]]:
    with open_stack() as (endpoint, state):
        if is_warm:
            measure_import(state, NAME)
        return measure_import(state, MINILM), measure_copy(endpoint, state)


def describe_latency(run: Run) -> str:
    """Return the section. Each round deploys a new stack, because content that is stored is not transferred again."""
    rounds = run.scale_count(_ROUNDS)
    cold, warm = ([_measure_round(is_warm=is_warm) for _ in range(rounds)] for is_warm in (False, True))
    copies = [copy for _, copy in (*cold, *warm)]
    files = list_minilm_files().values()

    def describe(find: Callable[[dict[str, float]], float]) -> list[str]:
        return [format_spread([find(times) for times, _ in found]) for found in (cold, warm)]

    rows = [[step, *describe(lambda times, step=step: times[step])] for step in cold[0][0]]  # type: ignore[misc]
    waits = [f"wait for {step}" for step, *_ in _STEPS]
    rows.append(["all waits", *describe(lambda times: sum(times[wait] for wait in waits))])
    downloads, uploads = (format_spread(list(seconds)) for seconds in zip(*copies, strict=True))
    return f"""\
## Latency of a small import

An import of MiniLM ({len(files)} files, {sum(path.stat().st_size for path in files) / MB:.0f} MB) from the loopback Hub
by the deployed local stack, from the POST to DONE. `snapshot_download` and `upload_file` of boto3 move the same files
from the same Hub to the same S3 in {format_spread([sum(copy) for copy in copies])} s: {downloads} s and {uploads} s.
All processes run on the same cores. The values are medians of {rounds} rounds (lowest to highest). Each round has a new
stack.

{format_table(_HEADS, rows)}

A step ends with the last message in the log of its function, and starts when the first function starts, according to
the report of MiniStack. A wait is the time between two steps: the delivery of the message. A cold start is part of its
step."""
