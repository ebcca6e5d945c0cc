"""Prices: the table, the counts of the template, the measured functions, and the files that repeat figures."""

import copy
import logging
import re
import time
from collections.abc import Callable
from typing import cast

import pytest

from bench.costs import (
    QUOTES,
    bill_metrics,
    bill_reads,
    bill_signature,
    count_polls,
    find_figures,
    list_imports,
    render_quote,
)
from bench.function_calls import list_import_metrics, measure_calls
from bench.idle import count_idle, count_template
from bench.prices import (
    LAMBDA_GB_SECOND,
    METRIC_MONTH,
    MILLION,
    MONTH,
    RATES,
    SQS_REQUEST,
    Bill,
    bill_requests,
    format_price,
)
from bench.servers import ROOT
from modelhaul.domain.models import Source
from modelhaul.entrypoints.logs import create_logger
from modelhaul_cli.client import ApiClient
from modelhaul_cli.follower import Follower
from modelhaul_cli.output import Screen
from tests.template.rules import Resource, find_target, list_resources
from tests.template.transformed import Template, apply_parameters, read_template, transform_template

# Records of decisions keep the figures of their day.
_HISTORY = {"docs/decisions.md"}
_GENERATED = {"docs/scale.md", "docs/limits-and-prices.md"}
_FILES = ("*.md", "*.yaml", "docs/*.md", "cli/**/*.py", "functions/**/*.py", "layers/**/*.py", "local/**/*.py")
_DOLLARS = re.compile(r"(?<!')\$\d[\d.,]*\d?(?!\w)")


@pytest.fixture
def template() -> Template:
    return copy.deepcopy(apply_parameters(transform_template(read_template())))


def find_resource(template: Template, kind: str, accept: Callable[[Resource], bool]) -> str:
    return next(name for name, properties in list_resources(template, kind) if accept(properties))


@pytest.mark.parametrize(
    ("dollars", "text"),
    [
        (0, "$0.00"),
        (0.00412, "$0.0041"),
        (0.0099, "$0.0099"),
        (0.0996, "$0.10"),
        (0.5, "$0.50"),
        (1234.5, "$1,234.50"),
    ],
)
def test_prices_have_two_significant_digits(dollars: float, text: str) -> None:
    assert format_price(dollars) == text


def test_bills_add_quantities() -> None:
    bill = Bill({SQS_REQUEST: 1.5 * MILLION}) + Bill({SQS_REQUEST: MILLION / 2, LAMBDA_GB_SECOND: 10}) * 2
    assert bill.quantities == {SQS_REQUEST: 2.5 * MILLION, LAMBDA_GB_SECOND: 20}
    assert bill.price("SQS") == pytest.approx(1.00)
    assert bill.price() == pytest.approx(1.00 + 20 * 0.0000133334)
    assert bill.deduct_free().price() == pytest.approx(0.60)


def test_deletions_are_free_and_reads_are_cheaper_than_writes() -> None:
    bill = bill_requests({"s3 DeleteObjects": 5, "s3 GetObject": 10_000, "s3 PutObject": 1_000, "sqs SendMessage": 9})
    assert bill.price() == pytest.approx(0.004 + 0.005)


def test_each_price_has_its_page() -> None:
    assert all(re.fullmatch(r"https://aws\.amazon\.com/[a-z0-9/-]+/", rate.page) for rate in RATES)
    assert len({(rate.service, rate.item) for rate in RATES}) == len(RATES)


def test_a_metric_is_charged_by_the_hour_and_at_most_for_the_month() -> None:
    metric, other = ("A", ()), ("B", ())
    assert bill_metrics({metric: 1}).price() == pytest.approx(METRIC_MONTH.dollars / MONTH)
    assert bill_metrics({metric: 10 * MONTH, other: MONTH}).price() == pytest.approx(2 * METRIC_MONTH.dollars)


def test_idle_costs_follow_the_template(template: Template) -> None:
    before = count_template(template)
    queues = {name for name, _ in list_resources(template, "AWS::SQS::Queue")}
    mapping = find_resource(
        template, "AWS::Lambda::EventSourceMapping", lambda mapping: find_target(mapping["EventSourceArn"]) in queues
    )
    del template["Resources"][mapping]
    rule = template["Resources"][
        find_resource(template, "AWS::Events::Rule", lambda rule: "rate(" in rule.get("ScheduleExpression", ""))
    ]["Properties"]
    rule["ScheduleExpression"] = "rate(1 hour)"
    template["Resources"]["AnotherAlarm"] = {
        "Type": "AWS::CloudWatch::Alarm",
        "Properties": {"Metrics": [{"Expression": "a+b"}, {"MetricStat": {}}, {"MetricStat": {}}]},
    }
    after = count_template(template)
    assert after.queues == before.queues - 1
    assert after.polling.price() == pytest.approx(before.polling.price() * after.queues / before.queues)
    assert (after.sweeps, after.retentions) == (MONTH, before.retentions)
    assert before.retentions == pytest.approx(365 / 12, rel=0.001)
    assert (after.alarms, after.alarm_metrics) == (before.alarms + 1, before.alarm_metrics + 2)


def test_an_unknown_schedule_is_an_error(template: Template) -> None:
    template["Resources"]["Another"] = {
        "Type": "AWS::Events::Rule",
        "Properties": {"ScheduleExpression": "rate(1 minute)", "Targets": [{"Arn": {"Ref": "TransferFilesFunction"}}]},
    }
    with pytest.raises(ValueError, match="Another: unknown schedule"):
        count_template(template)


def test_without_monitoring_only_polling_and_the_sweep_cost() -> None:
    idle = count_template(apply_parameters(transform_template(read_template()), Monitoring="off"))
    assert idle.monitoring.price() == 0
    assert idle.stack.price() == count_idle().stack.price() > 0


@pytest.mark.parametrize("seconds", [0.2, 1, 7, 30, 120])
def test_polls_are_those_of_the_command_line(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    class SlowTask:
        requests = 0
        now = 0.0

        def read_task(self, task_id: str, *, patient: bool) -> dict[str, str]:
            self.requests += 1
            return {"id": task_id, "task_status": "PENDING" if self.now < seconds else "DONE"}

        def sleep(self, interval: float) -> None:
            self.now += interval

    task = SlowTask()
    monkeypatch.setattr(time, "sleep", task.sleep)
    Follower(cast("ApiClient", task), Screen(), ()).follow("task")
    assert count_polls(seconds) == task.requests


def test_functions_are_measured_without_a_trace_in_other_tests() -> None:
    loggers = [logging.getLogger(name) for name in ("modelhaul", "modelhaul_sources", "modelhaul_scanner")]
    before = [(logger.handlers, logger.level, logger.propagate) for logger in loggers]
    measure_calls.cache_clear()
    measured = measure_calls()
    assert [(logger.handlers, logger.level, logger.propagate) for logger in loggers] == before
    assert create_logger.cache_info().currsize == 0
    assert measured.read_task.log_bytes > 0
    assert measured.publish_end.calls["events PutEvents"] == 1
    assert measured.head.metrics == measured.get.metrics == frozenset(), "reads without errors send no metrics"


def test_measurements_do_not_depend_on_the_run() -> None:
    first = measure_calls()
    measure_calls.cache_clear()
    assert measure_calls() == first


@pytest.mark.timeout(600)
def test_an_import_is_priced_with_all_that_observes_it() -> None:
    for each in list_imports():
        assert all(
            each.bill.price(service) > 0 for service in ("API Gateway", "CloudWatch Logs", "X-Ray", "SNS", "SQS")
        )
        alone = len(list_import_metrics(Source.HUGGINGFACE)) * METRIC_MONTH.dollars / MONTH
        assert each.metrics.price() == pytest.approx(alone)
        assert each.price == pytest.approx(each.bill.price() + each.metrics.price())


def test_a_signature_is_billed_for_its_requests() -> None:
    assert bill_signature().price() == pytest.approx(0.000035)
    assert bill_signature().deduct_free().price() == bill_signature().price(), "no free tier for asymmetric keys"


def test_reads_are_billed_for_each_request() -> None:
    assert bill_reads().price("API Gateway") == pytest.approx(0.0035)
    assert bill_reads().price("S3") == pytest.approx(0.0002)


def test_every_price_in_the_files_is_computed() -> None:
    """`test_pages.py` compares the sentences of QUOTES with the code."""
    for path in (str(file.relative_to(ROOT)) for pattern in _FILES for file in ROOT.glob(pattern)):
        if path in _HISTORY | _GENERATED:
            continue
        expected = re.findall(r"\{\w+\}", " ".join(QUOTES.get(path, ())))
        found = _DOLLARS.findall((ROOT / path).read_text())
        assert len(found) == len(expected), f"{path}: compute {found} in bench/costs.py"


@pytest.mark.timeout(600)
def test_a_sentence_that_is_missing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(QUOTES, "README.md", ("a sentence with {idle} that nobody wrote",))
    with pytest.raises(ValueError, match=r"README\.md does not contain"):
        render_quote("README.md")


@pytest.mark.timeout(600)
def test_prices_in_other_files_are_replaced() -> None:
    rendered = render_quote("template.yaml")
    assert find_figures()["monitoring"] in rendered
    assert find_figures()["key"] in rendered
