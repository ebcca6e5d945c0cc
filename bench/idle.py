"""What a stack without imports and reads costs in a month, computed from the template."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from bench.function_calls import measure_calls
from bench.measured_functions import LAMBDA_BYTES
from bench.prices import (
    ALARM_METRIC,
    DASHBOARD,
    LOG_BYTE,
    MONTH,
    SQS_REQUEST,
    TRACE,
    Bill,
    bill_functions,
    bill_requests,
)
from tests.template.dashboard import list_widget_metrics
from tests.template.rules import find_target, list_resources
from tests.template.transformed import Template, apply_parameters, read_transformed

# Of Lambda, for each queue. It uses fewer only for mappings without MaximumConcurrency:
# https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-scaling.html
POLLERS = 5
POLL_SECONDS = 20  # of a request to an empty queue
SWEEP_SECONDS = 0.2  # of a sweep that finds nothing
_FREE_DASHBOARD_METRICS = 50
_SWEEP = "SweepStaleFunction"
_UNITS = {"minute": 60, "hour": 3600, "day": 86_400}


@dataclass(frozen=True, slots=True)
class Idle:
    """Numbers of a month."""

    queues: int
    polls: float
    sweeps: float
    sweep_minutes: float
    dashboards: int
    dashboard_metrics: int
    alarms: int
    alarm_metrics: int

    @property
    def polling(self) -> Bill:
        return Bill({SQS_REQUEST: self.polls})

    @property
    def sweep(self) -> Bill:
        return bill_sweep() * self.sweeps

    @property
    def dashboard(self) -> Bill:
        return Bill({DASHBOARD: self.dashboards})

    @property
    def alarm(self) -> Bill:
        return Bill({ALARM_METRIC: self.alarm_metrics})

    @property
    def stack(self) -> Bill:
        """What remains with `Monitoring=off`."""
        return self.polling + self.sweep

    @property
    def monitoring(self) -> Bill:
        return self.dashboard + self.alarm

    @property
    def is_dashboard_free(self) -> bool:
        """Whether an account's free dashboards may include it."""
        return self.dashboard_metrics <= _FREE_DASHBOARD_METRICS


@cache
def bill_sweep() -> Bill:
    sweep = measure_calls().sweep
    memory = dict(list_resources(read_transformed(), "AWS::Lambda::Function"))[_SWEEP]["MemorySize"]
    logs = Bill({LOG_BYTE: LAMBDA_BYTES + sweep.log_bytes, TRACE: 1})
    return bill_functions(1, SWEEP_SECONDS * memory) + bill_requests(sweep.calls) + logs


@cache
def count_idle() -> Idle:
    """Count what a stack has that is deployed with `NotificationEmail`, otherwise with the default parameters.

    Raises ValueError for a schedule of another function than the sweep.
    """
    return count_template(apply_parameters(read_transformed(), NotificationEmail="operator@example.com"))


def count_template(template: Template) -> Idle:
    mappings = [mapping for _, mapping in list_resources(template, "AWS::Lambda::EventSourceMapping")]
    queues = {name for name, _ in list_resources(template, "AWS::SQS::Queue")}
    polled = [mapping for mapping in mappings if find_target(mapping["EventSourceArn"]) in queues]
    dashboards = [dashboard for _, dashboard in list_resources(template, "AWS::CloudWatch::Dashboard")]
    alarms = [alarm for _, alarm in list_resources(template, "AWS::CloudWatch::Alarm")]
    (seconds,) = _list_schedules(template)
    return Idle(
        queues=len(polled),
        polls=len(polled) * POLLERS * MONTH * 3600 / POLL_SECONDS,
        sweeps=MONTH * 3600 / seconds,
        sweep_minutes=seconds / 60,
        dashboards=len(dashboards),
        dashboard_metrics=_count_dashboard_metrics(template) if dashboards else 0,
        alarms=len(alarms),
        alarm_metrics=sum(_count_alarm_metrics(alarm) for alarm in alarms),
    )


def _list_schedules(template: Template) -> Iterator[float]:
    """Yield the seconds between two sweeps."""
    for name, rule in list_resources(template, "AWS::Events::Rule"):
        if (schedule := rule.get("ScheduleExpression")) is None:
            continue
        found = re.fullmatch(r"rate\((\d+) (minute|hour|day)s?\)", schedule)
        if found is None or [find_target(target["Arn"]) for target in rule["Targets"]] != [_SWEEP]:
            raise ValueError(f"{name}: unknown schedule {schedule} of {rule['Targets']}")
        yield int(found[1]) * _UNITS[found[2]]


def _count_dashboard_metrics(template: Template) -> int:
    return len({(one.namespace, one.name, one.dimensions) for one in list_widget_metrics(template)})


def _count_alarm_metrics(alarm: dict[str, Any]) -> int:
    """Return the number of metrics that CloudWatch charges for: each one that an expression uses."""
    return sum("MetricStat" in query for query in alarm["Metrics"]) if "Metrics" in alarm else 1
