"""Events, logs, metrics, alarms, the dashboard and traces."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import batched
from typing import Any

from deployment.verify.checks.importing import import_by_post
from deployment.verify.registry import Verification, check
from deployment.verify.results import CheckFailedError, CheckSkippedError, expect, expect_true
from deployment.verify.waiting import wait_for

SECTION = "monitoring"
NAMESPACE = "Modelhaul"
METRICS_TIMEOUT = 300.0  # seconds; CloudWatch may need two minutes for a new metric
TRACES_TIMEOUT = 180.0
EVENT_TIMEOUT = 120.0
# A function whose memory is more than three quarters full needs more memory.
MEMORY_SHARE = 0.75
# After every import.
IMPORT_METRICS = ("ImportsAccepted", "ImportSeconds", "BytesTransferred")
FUNCTIONS = ("SubmitLocalFunction", "PlanImportFunction", "TransferFilesFunction", "PublishModelsFunction")
# The documentation does not say whether a term is also found in a longer word, such as a metric.
ERROR_PATTERN = (
    '?AccessDenied ?AccessDeniedException ?Traceback ?"[ERROR]" ?"Runtime.ImportModuleError" ?"Runtime.ExitError" '
    '?"Task timed out"'
)
_ERROR = re.compile(
    r"\bAccessDenied(Exception)?\b|\bTraceback\b|\[ERROR\]|Runtime\.(ImportModule|Exit)Error|Task timed out"
)
_NO_METRICS = "the local stack does not turn log lines into metrics"


@check("event", SECTION)
def check_event(verification: Verification) -> str:
    """The end of an import is an event in EventBridge, exactly one. With the option that creates a rule and a queue."""
    if not verification.creates_rules:
        raise CheckSkippedError("set EVENTS=1 to create a rule and a queue for this check, and to delete them")
    imports = verification.imports
    listener = EventListener(verification)
    # Deleted at the end, also after an interruption.
    imports.created.others[f"rule and queue {listener.name}"] = listener.close
    listener.open()
    model = imports.import_files("verify-event", imports.build_model("event"))
    events = listener.wait_for_events()
    expect(len(events), 1, "number of events")
    (event,) = events
    expect(event["detail-type"], "ImportSucceeded", "detail-type")
    expect(event["detail"]["task_id"], model.task["id"], "detail.task_id")
    expect(event["time"], model.task["updated_at"], "time")
    return "ImportSucceeded"


class EventListener:
    """A rule for the events of this verification, and a queue that receives them."""

    def __init__(self, verification: Verification) -> None:
        self._verification = verification
        self.name = f"{verification.stack.name}-verify-{verification.marker}"
        self._prefix = f"verify-event-{verification.marker}"
        self._url = ""
        self._has_queue = self._has_rule = False

    def open(self) -> None:
        clients, stack = self._verification.clients, self._verification.stack
        self._has_queue = True
        self._url = clients.sqs.create_queue(QueueName=self.name)["QueueUrl"]
        found = clients.sqs.get_queue_attributes(QueueUrl=self._url, AttributeNames=["QueueArn"])
        queue = found["Attributes"]["QueueArn"]
        pattern = {"source": [NAMESPACE], "detail": {"model_tag": [{"prefix": self._prefix}]}}
        self._has_rule = True
        rule = clients.events.put_rule(
            Name=self.name, EventPattern=json.dumps(pattern), Description=f"Verification of the stack {stack.name}"
        )["RuleArn"]
        statement = {
            "Effect": "Allow",
            "Principal": {"Service": "events.amazonaws.com"},
            "Action": "sqs:SendMessage",
            "Resource": queue,
            "Condition": {"ArnEquals": {"aws:SourceArn": rule}},
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        clients.sqs.set_queue_attributes(QueueUrl=self._url, Attributes={"Policy": policy})
        clients.events.put_targets(Rule=self.name, Targets=[{"Id": "queue", "Arn": queue}])

    def wait_for_events(self) -> list[dict[str, Any]]:
        events = wait_for(
            lambda: self._receive_events() or None, "the event of the import", timeout=EVENT_TIMEOUT, interval=0
        )
        # EventBridge and SQS may deliver an event twice. A second event has another ID.
        events |= self._receive_events()
        return list(events.values())

    def _receive_events(self) -> dict[str, dict[str, Any]]:
        """Wait up to five seconds for events, and return them by ID."""
        messages = self._verification.clients.sqs.receive_message(
            QueueUrl=self._url, MaxNumberOfMessages=10, WaitTimeSeconds=5
        ).get("Messages", [])
        events = [json.loads(message["Body"]) for message in messages]
        return {event["id"]: event for event in events}

    def close(self) -> None:
        """Delete the rule and the queue, if they exist: their creation may have been denied or interrupted."""
        try:
            if self._has_rule:
                self._delete_rule()
        finally:
            if self._has_queue:
                self._delete_queue()

    def _delete_rule(self) -> None:
        events = self._verification.clients.events
        with suppress(events.exceptions.ResourceNotFoundException):
            events.remove_targets(Rule=self.name, Ids=["queue"])
            events.delete_rule(Name=self.name)

    def _delete_queue(self) -> None:
        sqs = self._verification.clients.sqs
        with suppress(sqs.exceptions.QueueDoesNotExist):
            sqs.delete_queue(QueueUrl=self._url or sqs.get_queue_url(QueueName=self.name)["QueueUrl"])


@check("alarms", SECTION)
def check_alarms(verification: Verification) -> str:
    """The alarms of the template exist and act, and none is in the ALARM state."""
    names = [r.physical_id for r in verification.stack.monitoring if r.type == "AWS::CloudWatch::Alarm"]
    if not names:
        raise CheckSkippedError("the stack has no alarms")
    found = verification.clients.cloudwatch.describe_alarms(AlarmNames=names)["MetricAlarms"]
    states = {alarm["AlarmName"]: alarm["StateValue"] for alarm in found}
    missing = sorted(set(names) - set(states))
    expect_true(not missing, f"missing alarms: {', '.join(missing)}")
    alarmed = sorted(name for name, state in states.items() if state == "ALARM")
    expect_true(not alarmed, f"in the ALARM state: {', '.join(alarmed)}. See docs/runbook.md")
    silent = sorted(alarm["AlarmName"] for alarm in found if not alarm.get("ActionsEnabled", True))
    expect_true(not silent, f"alarms with disabled actions: {', '.join(silent)}")
    return f"{len(states)} alarms"


@check("notifications", SECTION)
def check_notifications(verification: Verification) -> str:
    """The owner of NotificationEmail has confirmed the subscription."""
    topics = [r.physical_id for r in verification.stack.monitoring if r.type == "AWS::SNS::Topic"]
    if not topics:
        raise CheckSkippedError("the stack has no topic for notifications")
    for topic in topics:
        found = verification.clients.sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
        pending = [s["Endpoint"] for s in found if not s["SubscriptionArn"].startswith("arn:")]
        expect_true(not pending, f"not confirmed yet: {len(pending)} subscription(s) of the notification topic")
        expect_true(found, "the topic for notifications has no subscription")
    return "confirmed"


@check("logs", SECTION)
def check_logs(verification: Verification) -> str:
    """Since the start of the verification, no function was denied access, crashed or wrote a stack trace."""
    groups = list_log_groups(verification)
    # The local stack requires all terms of a pattern.
    pattern = "" if verification.target.is_local else ERROR_PATTERN
    for group in groups:
        for event in read_events(verification, group, pattern):
            if _ERROR.search(event["message"]):
                raise CheckFailedError(f"{group}: {event['message'].strip()[:500]}")
    return f"{len(groups)} log groups"


@check("memory", SECTION, not_on_local="the local stack does not measure memory")
def check_memory(verification: Verification) -> str:
    """No function has used more than three quarters of its memory."""
    highest = (0.0, "")
    for group in list_log_groups(verification):
        for event in read_events(verification, group, "REPORT"):
            if (memory := parse_memory(event["message"])) is None:
                continue
            used, size = memory
            expect_true(used <= MEMORY_SHARE * size, f"{group} used {used:.0f} MB of {size:.0f} MB")
            highest = max(highest, (used, f"at most {used:.0f} MB of {size:.0f} MB ({group.rpartition('/')[2]})"))
    if not highest[1]:
        raise CheckSkippedError("no log has a REPORT line since the start of the verification")
    return highest[1]


@check("dashboard", SECTION)
def check_dashboard(verification: Verification) -> str:
    """The dashboard exists, and its metrics are those of resources of the stack."""
    names = [r.physical_id for r in verification.stack.monitoring if r.type == "AWS::CloudWatch::Dashboard"]
    if not names:
        raise CheckSkippedError("the stack has no dashboard")
    metrics = list(list_metrics(read_widgets(verification, names[0])))
    expect_true(metrics, "the dashboard has no metrics")
    known = {resource.physical_id for resource in verification.stack.resources}
    known |= {queue.physical_id.rpartition("/")[2] for queue in verification.stack.select("AWS::SQS::Queue")}
    for namespace, metric, dimensions in metrics:
        for dimension in ("FunctionName", "QueueName", "TableName", "BucketName", "RuleName"):
            value = dimensions.get(dimension)
            expect_true(
                value is None or value == "none" or value in known,
                f"{namespace} {metric} of {dimension} {value}, which is not a resource of the stack",
            )
        if namespace == NAMESPACE:
            expect(dimensions.get("service"), verification.stack.name, f"dimension service of {metric}")
    return f"{len(metrics)} metrics"


@check("metrics", SECTION, not_on_local=_NO_METRICS)
def check_metrics(verification: Verification) -> str:
    """The metrics of an import, of the functions and of the API have data."""
    import_by_post(verification)
    service = {"service": verification.stack.name}
    expected = [(NAMESPACE, metric, service) for metric in IMPORT_METRICS]
    expected += [
        ("AWS/Lambda", "Invocations", {"FunctionName": verification.stack.find(function)}) for function in FUNCTIONS
    ]
    expected.append(("AWS/ApiGateway", "Count", {"ApiName": verification.stack.name, "Stage": "v1"}))

    def probe() -> list[float] | None:
        sums = read_sums(verification, expected)
        return sums if all(sums) else None

    try:
        wait_for(probe, "data of the metrics", timeout=METRICS_TIMEOUT, interval=15)
    except CheckFailedError:
        sums = read_sums(verification, expected)
        missing = [f"{entry[0]} {entry[1]}" for entry, total in zip(expected, sums, strict=True) if not total]
        raise CheckFailedError(f"no data within {METRICS_TIMEOUT:.0f} s: {', '.join(missing)}") from None
    return f"{len(expected)} metrics have data"


@check("traces", SECTION, not_on_local="the local stack does not record traces")
def check_traces(verification: Verification) -> str:
    """X-Ray has a trace of a request, with API Gateway and a function."""

    def probe() -> int | None:
        pages = verification.clients.xray.get_paginator("get_trace_summaries").paginate(
            StartTime=verification.started_at,
            EndTime=datetime.now(UTC),
            FilterExpression=f'service("{verification.stack.name}/v1")',
        )
        types = [{s.get("Type") for s in t.get("ServiceIds", [])} for page in pages for t in page["TraceSummaries"]]
        complete = [t for t in types if {"AWS::ApiGateway::Stage", "AWS::Lambda::Function"} <= t]
        return len(complete) or None

    count = wait_for(probe, "a trace of a request", timeout=TRACES_TIMEOUT, interval=10)
    return f"{count} traces"


def list_log_groups(verification: Verification) -> list[str]:
    """Return the log groups of the functions. Those of the APIs (ApiAccessLogs) contain the errors of callers."""
    groups = [group.physical_id for group in verification.stack.select("AWS::Logs::LogGroup")]
    return [group for group in groups if group.startswith("/aws/lambda/")]


def read_events(verification: Verification, group: str, pattern: str) -> Iterator[dict[str, Any]]:
    """Yield the log events since the start of the verification that match a filter pattern."""
    pages = verification.clients.logs.get_paginator("filter_log_events").paginate(
        logGroupName=group, filterPattern=pattern, startTime=int(verification.started_at.timestamp() * 1000)
    )
    for page in pages:
        yield from page["events"]


def parse_memory(report: str) -> tuple[float, float] | None:
    """Return the used memory and the size of the memory in MB of a REPORT line."""
    fields = dict(field.partition(": ")[::2] for field in report.strip().split("\t"))
    if "Max Memory Used" not in fields or "Memory Size" not in fields:
        return None
    used, size = (float(fields[name].partition(" ")[0]) for name in ("Max Memory Used", "Memory Size"))
    return used, size


def read_widgets(verification: Verification, name: str) -> list[dict[str, Any]]:
    body = verification.clients.cloudwatch.get_dashboard(DashboardName=name)["DashboardBody"]
    try:
        widgets: list[dict[str, Any]] = json.loads(body)["widgets"]
    except (ValueError, KeyError) as error:
        raise CheckFailedError(f"the body of the dashboard {name} is invalid: {error}") from None
    return widgets


def list_metrics(widgets: list[dict[str, Any]]) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Yield the namespace, the name and the dimensions of each metric of the widgets, without expressions.

    `.` and `...` repeat values of the metric before:
    https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CloudWatch-Dashboard-Body-Structure.html
    """
    for widget in widgets:
        texts: list[str] = []
        for row in widget.get("properties", {}).get("metrics", []):
            found = [entry for entry in row if isinstance(entry, str)]
            if not found:
                continue
            if found[0] == "...":
                found = texts[: len(texts) - len(found) + 1] + found[1:]
            texts = [texts[position] if text == "." else text for position, text in enumerate(found)]
            namespace, metric, *dimensions = texts
            yield namespace, metric, dict(batched(dimensions, 2, strict=True))


def read_sums(verification: Verification, metrics: list[tuple[str, str, dict[str, str]]]) -> list[float]:
    """Return the sum of each metric since the start of the verification."""
    start = verification.started_at.replace(second=0, microsecond=0)
    queries = [
        {
            "Id": f"m{number}",
            "MetricStat": {
                "Metric": {
                    "Namespace": namespace,
                    "MetricName": metric,
                    "Dimensions": [{"Name": name, "Value": value} for name, value in dimensions.items()],
                },
                "Period": 60,
                "Stat": "Sum",
            },
        }
        for number, (namespace, metric, dimensions) in enumerate(metrics)
    ]
    end = datetime.now(UTC) + timedelta(minutes=1)
    found = verification.clients.cloudwatch.get_metric_data(MetricDataQueries=queries, StartTime=start, EndTime=end)
    sums = {result["Id"]: sum(result["Values"]) for result in found["MetricDataResults"]}
    return [sums.get(query["Id"], 0.0) for query in queries]
