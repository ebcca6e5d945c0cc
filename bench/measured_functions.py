"""The functions, invoked with their handlers: what they log, the metrics they emit, and their AWS requests."""

import io
import json
import logging
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from typing import Any

import pytest

from modelhaul import wiring
from modelhaul.domain.messages import (
    AcceptArchive,
    CopyFiles,
    JoinTransfer,
    Message,
    PlanImport,
    PublishModels,
    TransferFiles,
)
from modelhaul.domain.models import Source
from modelhaul.entrypoints.logs import create_logger
from tests.contract.counted_aws import Usage
from tests.fakes.deployment import Deployment
from tests.lambda_functions import Context, load_handler, read_event

STACK = "the-stack"  # as long as the default name
BUCKET = "models"
_FUNCTIONS: dict[type[Message], str] = {
    AcceptArchive: "accept_archive",
    PlanImport: "plan_import",
    TransferFiles: "transfer_files",
    JoinTransfer: "transfer_files",
    CopyFiles: "publish_models",
    PublishModels: "publish_models",
}
_STEPS = (
    "acceptor",
    "copy_step",
    "finisher",
    "joiner",
    "planner",
    "publisher",
    "runner",
    "submitter",
    "sweeper",
    "transferrer",
)
"""What the handlers get from wiring, which is a field of the deployment."""

_LOGGERS = ("modelhaul", "modelhaul_sources", "modelhaul_scanner")
_EVENT_OVERHEAD = 26  # bytes that CloudWatch Logs adds to each line
_TRACE = "Root=1-68f0a3c1-3f5c2b7d1e4a9c8b7d6e5f40;Parent=53995c3f42cd8ad8;Sampled=1"
_REQUEST = str(uuid.UUID(int=1))
_REPORT = (
    f"REPORT RequestId: {_REQUEST}\tDuration: 12345.67 ms\tBilled Duration: 12346 ms\tMemory Size: 1769 MB\t"
    "Max Memory Used: 123 MB\tInit Duration: 1234.56 ms\t\n"
    "XRAY TraceId: 1-68f0a3c1-3f5c2b7d1e4a9c8b7d6e5f40\tSegmentId: 53995c3f42cd8ad8\tSampled: true\t"
)
_LAMBDA_LINES = (f"START RequestId: {_REQUEST} Version: $LATEST", f"END RequestId: {_REQUEST}", _REPORT)
"""What Lambda logs for each invocation (https://docs.aws.amazon.com/lambda/latest/dg/python-logging.html)."""

type Metric = tuple[str, tuple[tuple[str, str], ...]]
"""Name and dimensions of a custom metric: what CloudWatch charges for."""


def _count_bytes(*lines: str) -> int:
    """Return the bytes that CloudWatch Logs charges for."""
    return sum(len(line.rstrip("\n").encode()) + _EVENT_OVERHEAD for line in lines)


LAMBDA_BYTES = _count_bytes(*_LAMBDA_LINES)
"""Bytes that Lambda itself logs for each invocation."""


@dataclass(frozen=True, slots=True)
class Invocation:
    """`log_bytes` are those of the function's own lines, including those of its metrics. `calls` has AWS requests by
    `service Operation`, and `read units` and `write units`.
    """

    function: str
    log_bytes: int
    metrics: frozenset[Metric]
    calls: Counter[str]


class _Lines(io.TextIOBase):
    """Keeps the lines that are written to it. Each write is a line, or its end."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, text: str) -> int:
        if text != "\n":
            self.lines.append(text)
        return len(text)


@dataclass(slots=True)
class Functions:
    """Invokes functions. `usage` is that of all AWS clients."""

    usage: Usage = field(default_factory=Usage)
    invocations: list[Invocation] = field(default_factory=list)
    _output: _Lines = field(default_factory=_Lines)

    def invoke(self, function: str, event: dict[str, Any]) -> dict[str, Any]:
        """Return what the handler returns. Raises RuntimeError if a message failed."""
        before, started = self._count_calls(), len(self._output.lines)
        returned: dict[str, Any] = load_handler(function)(event, Context(function, aws_request_id=_REQUEST))
        if returned.get("batchItemFailures") or returned.get("statusCode", 200) >= 400:
            raise RuntimeError(f"{function} failed: {returned} {self._output.lines[started:]}")
        lines = self._output.lines[started:]
        calls = self._count_calls()
        calls.subtract(before)
        metrics = frozenset(metric for line in lines for metric in _list_metrics(line))
        self.invocations.append(Invocation(function, _count_bytes(*lines), metrics, +calls))
        return returned

    def measure(self, function: str, event: dict[str, Any]) -> Invocation:
        """Invoke a function twice, and return the second invocation: the first one fills caches."""
        self.invoke(function, event)
        return self.invoke_once(function, event)

    def invoke_once(self, function: str, event: dict[str, Any]) -> Invocation:
        self.invoke(function, event)
        return self.invocations[-1]

    def deliver(self, message: Message) -> None:
        """Invoke the function of the message's queue."""
        function = _FUNCTIONS[type(message)]
        event = read_event(function)
        event["Records"] = [{**event["Records"][0], "body": message.model_dump_json()}]
        self.invoke(function, event)

    def submit(self, source: Source, name: str) -> str:
        """Submit an import, and return the task ID."""
        function, body = {
            Source.HUGGINGFACE: ("submit_huggingface", {"model_tag": name}),
            Source.GITHUB: ("submit_github", dict(zip(("owner", "repo_name"), name.split("/"), strict=True))),
        }[source]
        returned = self.invoke(function, {**read_event(function), "body": json.dumps(body)})
        location: str = returned["multiValueHeaders"]["Location"][0]
        return location.rpartition("/")[2]

    def _count_calls(self) -> Counter[str]:
        units = {"read units": self.usage.read_units, "write units": self.usage.write_units}
        return Counter(self.usage.calls) + Counter(units)


class FunctionDeployment(Deployment):
    """A deployment whose messages are delivered to the handlers of `functions`."""

    functions: Functions

    def deliver(self, message: Message, *, deliveries: int = 1) -> None:
        self.functions.deliver(message)


@contextmanager
def open_functions(deployment: FunctionDeployment, usage: Usage) -> Iterator[Functions]:
    """Connect the handlers of the functions to a deployment."""
    functions = Functions(usage)
    deployment.functions = functions
    with pytest.MonkeyPatch.context() as patch, _capture_logs(patch, functions._output):
        for name in _STEPS:
            patch.setattr(wiring, f"create_{name}", lambda name=name: getattr(deployment, name))
        patch.setattr(wiring, "create_arrival_recorder", lambda: deployment.arrivals)
        patch.setattr(wiring, "create_metrics", lambda: deployment.metrics)
        patch.setattr(wiring, "create_tasks", lambda: deployment.database_in_use.tasks)
        patch.setattr(wiring, "create_models", lambda: deployment.database_in_use.models)
        patch.setenv("MODELS_BUCKET", BUCKET)
        patch.setenv("AWS_REGION", "us-east-1")
        yield functions


@contextmanager
def _capture_logs(patch: pytest.MonkeyPatch, output: _Lines) -> Iterator[None]:
    """Write what functions log, and their metrics, to `output`."""
    patch.setenv("POWERTOOLS_SERVICE_NAME", STACK)
    patch.setenv("POWERTOOLS_METRICS_NAMESPACE", "Modelhaul")
    patch.setenv("POWERTOOLS_LOG_LEVEL", "INFO")
    patch.setenv("_X_AMZN_TRACE_ID", _TRACE)
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [(logger.handlers, logger.level, logger.propagate) for logger in loggers]
    create_logger.cache_clear()
    try:
        with redirect_stdout(output):
            yield
    finally:
        create_logger.cache_clear()
        # Powertools never replaces the handler of a logger with the same name.
        logging.Logger.manager.loggerDict.pop(STACK, None)
        for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
            logger.handlers, logger.level, logger.propagate = handlers, level, propagate


def _list_metrics(line: str) -> Iterator[Metric]:
    """Yield the metrics of a line in the Embedded Metric Format: one for each of its sets of dimensions."""
    if '"_aws"' not in line:
        return
    record = json.loads(line)
    for directive in record["_aws"]["CloudWatchMetrics"]:
        for dimensions in directive["Dimensions"]:
            values = tuple((name, str(record[name])) for name in sorted(dimensions))
            for metric in directive["Metrics"]:
                yield metric["Name"], values
