"""What a stack without imports and reads costs in a month, computed from the template."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from bench.function_calls import measure_calls
from bench.measured_functions import LAMBDA_BYTES, Invocation
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
RETENTION_SECONDS = 2.0  # of a run without rules, with a cold start
_FREE_DASHBOARD_METRICS = 50
_SWEEP = "SweepStaleFunction"
_RETENTION = "ApplyRetentionFunction"
_UNITS = {"minute": 60, "hour": 3600, "day": 86_400}


@dataclass(frozen=True, slots=True)
class Idle:
    """Numbers of a month."""

    queues: int
    polls: float
    sweeps: float
    sweep_minutes: float
    retentions: float
    dashboards: int
    dashboard_metrics: int
    alarms: int
    alarm_metrics: int

    @property
    def polling(self) -> Bill:
        return Bill({SQS_REQUEST: self.polls})

    @property
    def sweep(self) -> Bill:
        return bill_run(_SWEEP, measure_calls().sweep, SWEEP_SECONDS) * self.sweeps

    @property
    def retention(self) -> Bill:
        """The daily runs without rules and follows."""
        return bill_run(_RETENTION, measure_calls().retention, RETENTION_SECONDS) * self.retentions

    @property
    def dashboard(self) -> Bill:
        return Bill({DASHBOARD: self.dashboards})

    @property
    def alarm(self) -> Bill:
        return Bill({ALARM_METRIC: self.alarm_metrics})

    @property
    def stack(self) -> Bill:
        """What remains with `Monitoring=off`."""
        return self.polling + self.sweep + self.retention

    @property
    def monitoring(self) -> Bill:
        return self.dashboard + self.alarm

    @property
    def is_dashboard_free(self) -> bool:
        """Whether an account's free dashboards may include it."""
        return self.dashboard_metrics <= _FREE_DASHBOARD_METRICS


def bill_run(function: str, run: Invocation, seconds: float) -> Bill:
    """Return the bill of a run of a scheduled function that takes so long."""
    memory = dict(list_resources(read_transformed(), "AWS::Lambda::Function"))[function]["MemorySize"]
    logs = Bill({LOG_BYTE: LAMBDA_BYTES + run.log_bytes, TRACE: 1})
    return bill_functions(1, seconds * memory) + bill_requests(run.calls) + logs


@cache
def count_idle() -> Idle:
    """Count what a stack has that is deployed with `NotificationEmail`, otherwise with the default parameters.

    Raises ValueError for a schedule of another function than the sweep and retention.
    """
    return count_template(apply_parameters(read_transformed(), NotificationEmail="operator@example.com"))


def count_template(template: Template) -> Idle:
    mappings = [mapping for _, mapping in list_resources(template, "AWS::Lambda::EventSourceMapping")]
    queues = {name for name, _ in list_resources(template, "AWS::SQS::Queue")}
    polled = [mapping for mapping in mappings if find_target(mapping["EventSourceArn"]) in queues]
    dashboards = [dashboard for _, dashboard in list_resources(template, "AWS::CloudWatch::Dashboard")]
    alarms = [alarm for _, alarm in list_resources(template, "AWS::CloudWatch::Alarm")]
    schedules = dict(_list_schedules(template))
    return Idle(
        queues=len(polled),
        polls=len(polled) * POLLERS * MONTH * 3600 / POLL_SECONDS,
        sweeps=MONTH * 3600 / schedules[_SWEEP],
        sweep_minutes=schedules[_SWEEP] / 60,
        retentions=MONTH * 3600 / schedules[_RETENTION],
        dashboards=len(dashboards),
        dashboard_metrics=_count_dashboard_metrics(template) if dashboards else 0,
        alarms=len(alarms),
        alarm_metrics=sum(_count_alarm_metrics(alarm) for alarm in alarms),
    )


def _list_schedules(template: Template) -> Iterator[tuple[str, float]]:
    """Yield each scheduled function, and the seconds between two of its runs."""
    for name, rule in list_resources(template, "AWS::Events::Rule"):
        if (schedule := rule.get("ScheduleExpression")) is None:
            continue
        (function,) = (find_target(target["Arn"]) for target in rule["Targets"])
        found = re.fullmatch(r"rate\((\d+) (minute|hour|day)s?\)", schedule)
        is_daily = re.fullmatch(r"cron\(\d+ \d+ \* \* \? \*\)", schedule) is not None
        if function not in (_SWEEP, _RETENTION) or not (found or is_daily):
            raise ValueError(f"{name}: unknown schedule {schedule} of {function}")
        yield function, int(found[1]) * _UNITS[found[2]] if found else _UNITS["day"]


def _count_dashboard_metrics(template: Template) -> int:
    return len({(one.namespace, one.name, one.dimensions) for one in list_widget_metrics(template)})


def _count_alarm_metrics(alarm: dict[str, Any]) -> int:
    """Return the number of metrics that CloudWatch charges for: each one that an expression uses."""
    return sum("MetricStat" in query for query in alarm["Metrics"]) if "Metrics" in alarm else 1
