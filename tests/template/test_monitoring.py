"""The dashboard, the alarms and the saved queries match the code and the runbook: metrics with their dimensions, log
lines, and a runbook section for each alarm.
"""

import ast
import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from modelhaul.adapters.metrics import PowertoolsMetrics
from modelhaul.imports.retry import _LOG_MESSAGES
from modelhaul.ports.metrics import CATALOG
from tests.documented_dashboard import VALIDATOR
from tests.template.dashboard import STACK, Watched, find_widget, list_widget_metrics, read_dashboard, substitute
from tests.template.rules import (
    Resource,
    as_list,
    find_handler,
    find_target,
    list_consumers,
    list_operations,
    list_resources,
    list_statements,
    read_api,
)
from tests.template.transformed import ROOT, Template, apply_parameters, read_template, read_transformed

AWS_METRICS: dict[str, Any] = json.loads((ROOT / "tests" / "template" / "aws_metrics.json").read_text())
PAGE = (ROOT / "docs" / "monitoring.md").read_text()
TOPIC = "arn:aws:sns:eu-central-1:123456789012:alerts"
MAX_DASHBOARD_METRICS = 50
"""A dashboard with more metrics is not among the three free ones: https://aws.amazon.com/cloudwatch/pricing/"""

MAX_ALARM_METRICS = 10  # https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-limits.html
# An idle stack emits no metrics.
IDLE = "notBreaching"


@pytest.fixture(params=[*itertools.product(["", "a@example.com"], ["", TOPIC])], ids=["none", "topic", "email", "both"])
def template(request: pytest.FixtureRequest) -> Template:
    email, topic = request.param
    return apply_parameters(
        read_transformed(),
        NotificationEmail=email,
        AlarmTopicArn=topic,
        HubOnMiss="IMPORT",
        Signing="KMS",
        AuditRetentionDays="365",
    )


def list_alarm_metrics(template: Template) -> Iterator[Watched]:
    for name, alarm in list_resources(template, "AWS::CloudWatch::Alarm"):
        stats = [query["MetricStat"]["Metric"] for query in alarm.get("Metrics", []) if "MetricStat" in query]
        for metric in stats or [alarm]:
            dimensions = ((d["Name"], _name(d["Value"])) for d in metric["Dimensions"])
            yield Watched(name, metric["Namespace"], metric["MetricName"], tuple(dimensions))


def _name(value: Any) -> str:
    return STACK if value == {"Ref": "AWS::StackName"} else find_target(value) or str(value)


def list_watched(template: Template) -> list[Watched]:
    return [*list_widget_metrics(template), *list_alarm_metrics(template)]


def test_dashboard_fits_its_grid(template: Template) -> None:
    taken: set[tuple[int, int]] = set()
    for widget in read_dashboard(template)["widgets"]:
        cells = {
            (x, y)
            for x in range(widget["x"], widget["x"] + widget["width"])
            for y in range(widget["y"], widget["y"] + widget["height"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, f"{widget} covers another"
        taken |= cells


def test_dashboard_has_the_documented_structure(template: Template) -> None:
    VALIDATOR.validate(read_dashboard(template))


def test_expressions_refer_to_metrics_of_their_widget(template: Template) -> None:
    for widget in read_dashboard(template)["widgets"]:
        options = [row[-1] for row in widget["properties"].get("metrics", [])]
        ids = [one["id"] for one in options if "id" in one]
        assert len(set(ids)) == len(ids)
        for one in options:
            names = set(re.findall(r"[a-z]\w*", one.get("expression", "")))
            assert names <= set(ids) - {one.get("id")}, widget["properties"]["title"]
        shown = [one for one in options if one.get("visible", True)]
        assert all(one.get("label") for one in shown)


def test_single_values_that_are_filled_cover_their_time_range(template: Template) -> None:
    """A single value is that of the last period, which FILL sets to 0 until its metric arrives a minute or more later.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html
    """
    for widget in read_dashboard(template)["widgets"]:
        properties = widget["properties"]
        expressions = [row[-1].get("expression", "") for row in properties.get("metrics", [])]
        if properties.get("view") == "singleValue" and any("FILL(" in expression for expression in expressions):
            assert properties.get("setPeriodToTimeRange"), properties["title"]


def test_dashboard_can_be_free(template: Template) -> None:
    found = {(w.namespace, w.name, w.dimensions) for w in list_widget_metrics(template)}
    assert len(found) <= MAX_DASHBOARD_METRICS


def test_dashboard_shows_the_alarms_that_exist(template: Template) -> None:
    names = {substitute(alarm["AlarmName"]["Fn::Sub"], template) for _, alarm in list_alarms(template)}
    if names:
        alarms = find_widget(template, "Alarms")["properties"]["alarms"]
        assert sorted(alarms) == sorted(f"arn:aws:cloudwatch:eu-west-1:123456789012:alarm:{name}" for name in names)
    else:
        texts = [w["properties"]["markdown"] for w in read_dashboard(template)["widgets"] if w["type"] == "text"]
        assert any("AlarmTopicArn" in text for text in texts)


def list_alarms(template: Template) -> list[tuple[str, Resource]]:
    return list(list_resources(template, "AWS::CloudWatch::Alarm"))


def test_what_is_watched_is_emitted(template: Template) -> None:
    indexes = {
        index["IndexName"]
        for _, table in list_resources(template, "AWS::DynamoDB::Table")
        for index in table.get("GlobalSecondaryIndexes", [])
    }
    for watched in list_watched(template):
        if watched.namespace == "Modelhaul":
            assert watched.name in CATALOG, watched
            assert dict(watched.dimensions) == {"service": STACK}, watched
        else:
            known = AWS_METRICS[watched.namespace]
            assert watched.name in known["metrics"], watched
            assert sorted(watched.dimension_names) in known["dimensions"], watched
            assert dict(watched.dimensions).get("GlobalSecondaryIndexName") in (None, *indexes), watched


def test_what_is_emitted_is_watched(template: Template) -> None:
    assert {w.name for w in list_watched(template) if w.namespace == "Modelhaul"} == set(CATALOG)


def test_catalog_is_what_the_code_counts() -> None:
    assert set(list_counted()) == set(CATALOG)


def list_counted() -> Iterator[str]:
    """Yield the metric of each `….count(name, …)`. For a computed name, yield the names in the function."""
    for path in [*(ROOT / "layers").rglob("*.py"), *(ROOT / "functions").rglob("*.py")]:
        if path.name == "metrics.py":
            continue
        functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
        for function in functions:
            for call in ast.walk(function):
                match call:
                    case ast.Call(func=ast.Attribute(value=ast.Attribute(attr="metrics"), attr="count")):
                        pass
                    case ast.Call(func=ast.Attribute(value=ast.Name(id="metrics"), attr="count")):
                        pass
                    case ast.Call(func=ast.Attribute(value=ast.Call(func=ast.Attribute(attr="create_metrics")))):
                        pass
                    case _:
                        continue
                assert not call.keywords, "a dimension would be another metric"
                named = call.args[0] if isinstance(call.args[0], ast.Constant | ast.IfExp) else function
                for constant in ast.walk(named):
                    if isinstance(constant, ast.Constant) and constant.value in CATALOG:
                        yield str(constant.value)


@pytest.mark.parametrize("name", CATALOG)
def test_each_count_is_one_metric(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "Modelhaul")
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", STACK)
    PowertoolsMetrics().count(name, 3)
    (line,) = capsys.readouterr().out.splitlines()
    emitted = json.loads(line)
    (directive,) = emitted["_aws"]["CloudWatchMetrics"]
    assert directive == {
        "Namespace": "Modelhaul",
        "Metrics": [{"Name": name, "Unit": CATALOG[name]}],
        "Dimensions": [["service"]],
    }
    assert (emitted["service"], emitted[name]) == (STACK, [3])


def test_functions_send_the_metrics_that_are_watched() -> None:
    """Namespace and `service` come from the environment."""
    for _, function in list_resources(read_transformed(), "AWS::Lambda::Function"):
        variables = function["Environment"]["Variables"]
        assert variables["POWERTOOLS_METRICS_NAMESPACE"] == "Modelhaul"
        assert variables["POWERTOOLS_SERVICE_NAME"] == {"Ref": "AWS::StackName"}


def list_api_functions(template: Template) -> set[str]:
    return {find_handler(operation) for _, _, operation in list_operations(read_api(template, "Api"))}


def test_the_widget_invokes_its_function(template: Template) -> None:
    (widget,) = (widget for widget in read_dashboard(template)["widgets"] if widget["type"] == "custom")
    endpoint = "arn:aws:lambda:eu-west-1:123456789012:function:RenderWidgetFunction"
    assert widget["properties"]["endpoint"] == endpoint
    assert widget["properties"]["updateOn"] == {"refresh": True, "resize": False, "timeRange": False}
    assert widget["width"] == 24


def test_the_widget_can_only_read(template: Template) -> None:
    statements = list_statements(template, "RenderWidgetRole")
    actions = {action for statement in statements for action in as_list(statement["Action"])}
    used = {action for action in actions if not action.startswith(("logs:", "xray:"))}
    assert used == {"dynamodb:GetItem", "dynamodb:BatchGetItem", "dynamodb:Query"}


def test_queues_and_main_tables_are_on_the_dashboard(template: Template) -> None:
    shown = {(w.name, value.partition(".")[0]) for w in list_widget_metrics(template) for _, value in w.dimensions}
    queues = dict(list_resources(template, "AWS::SQS::Queue"))
    assert set(queues) <= {value for _, value in shown}
    polled = set(queues) - {"UnpublishedEndsQueue"}
    assert {("NumberOfEmptyReceives", queue) for queue in polled} <= shown
    tables = {name for name, _ in list_resources(template, "AWS::DynamoDB::Table")} - SMALL_TABLES
    assert {("ConsumedWriteCapacityUnits", table) for table in tables} <= shown


SMALL_TABLES = {"KeysTable", "RateLimitsTable", "IdempotencyTable", "AuditTable"}
COST_WIDGETS = ("Estimated cost of 30 days", "Estimated cost per day (US dollars)")
"""bench/tests/test_dashboard_prices.py computes their dollars."""


def test_kinds_of_metrics_in_the_cost(template: Template) -> None:
    """The letter of an ID stands for a kind of metric and statistic."""
    kinds = {
        "l": ("AWS/Lambda", "Duration", "Sum"),
        "n": ("AWS/Lambda", "Duration", "SampleCount"),
        "a": ("AWS/ApiGateway", "Count", "Sum"),
        "w": ("AWS/DynamoDB", "ConsumedWriteCapacityUnits", "Sum"),
        "r": ("AWS/DynamoDB", "ConsumedReadCapacityUnits", "Sum"),
        "q": ("AWS/SQS", "NumberOfEmptyReceives", "Sum"),
        "s": ("AWS/S3", "BucketSizeBytes", "Average"),
    }
    for title in COST_WIDGETS:
        for row in find_widget(template, title)["properties"]["metrics"]:
            if row[-1]["id"] == "q6":
                assert row[1] == "NumberOfMessagesSent"
            elif "expression" not in row[-1]:
                assert (row[0], row[1], row[-1]["stat"]) == kinds[row[-1]["id"][0]]


def test_workers_and_work_queues_are_watched(template: Template) -> None:
    """The errors of functions behind the import API are its 5xx, those of import_missing fail a read of read_hub.
    Throttles are watched for the consumers of the work queues: all functions share the account's concurrency.
    """
    if not list_alarms(template):
        return
    watched = list(list_alarm_metrics(template))
    functions = {name for name, _ in list_resources(template, "AWS::Lambda::Function")}
    consoles = {"RenderWidgetFunction", "CancelFromConsoleFunction"}  # their user sees the error
    workers = functions - list_api_functions(template) - {"ImportMissingFunction"} - consoles
    queues = dict(list_resources(template, "AWS::SQS::Queue"))
    work = {name for name, queue in queues.items() if "RedrivePolicy" in queue}
    dead = {find_target(queues[name]["RedrivePolicy"]["deadLetterTargetArn"]) for name in work}
    consumers = {function for function, queue, _ in list_consumers(template) if queue in work}
    by_metric = {m: {v for w in watched if w.name == m for _, v in w.dimensions} for m in {w.name for w in watched}}
    assert by_metric["Errors"] == workers
    assert by_metric["Throttles"] == consumers | {"ReadHubFunction", "AuthorizeHubFunction"}
    assert by_metric["ApproximateAgeOfOldestMessage"] == work
    assert by_metric["NumberOfMessagesReceived"] == dead
    assert by_metric["ApproximateNumberOfMessagesVisible"] == set(queues) - work - dead


def find_slug(alarm: Resource) -> str:
    name: str = alarm["AlarmName"]["Fn::Sub"]
    return name.removeprefix("${AWS::StackName}-")


def test_alarms_are_sound(template: Template) -> None:
    for name, alarm in list_resources(template, "AWS::CloudWatch::Alarm"):
        slug = find_slug(alarm)
        assert alarm["TreatMissingData"] == IDLE, name
        assert alarm["AlarmDescription"]["Fn::Sub"].endswith(f" Runbook: ${{RunbookUrl}}#{slug}"), name
        assert name == "".join(word.capitalize() for word in slug.split("-")) + "Alarm"
        queries = alarm.get("Metrics", [])
        assert sum("MetricStat" in query for query in queries) <= MAX_ALARM_METRICS, name
        assert sum(query.get("ReturnData", True) for query in queries) == bool(queries), name
        ids = {query["Id"] for query in queries}
        assert len(ids) == len(queries), name
        assert all(re.fullmatch(r"[a-z][A-Za-z0-9_]*", id_) for id_ in ids), name
        periods = {query["MetricStat"]["Period"] for query in queries if "MetricStat" in query}
        assert len(periods) <= 1, name


@pytest.mark.parametrize(
    ("arn", "is_valid"),
    [
        (TOPIC, True),
        ("arn:aws-cn:sns:cn-north-1:123456789012:a", True),
        ("", True),
        ("alerts", False),
        ("arn:aws:sns:eu-central-1:123456789012:alerts.fifo", False),
        ("arn:aws:sqs:eu-central-1:123456789012:alerts", False),
        ("arn:aws:sns:eu-central-1:123456789012:alerts:0d5f-subscription", False),
    ],
)
def test_only_the_arn_of_a_standard_topic_is_accepted(arn: str, is_valid: bool) -> None:
    pattern = read_template()["Parameters"]["AlarmTopicArn"]["AllowedPattern"]
    assert bool(re.search(pattern, arn)) is is_valid


def test_monitoring_can_be_turned_off() -> None:
    template = apply_parameters(
        read_transformed(), Monitoring="off", NotificationEmail="a@example.com", AlarmTopicArn=TOPIC
    )
    assert not list(list_resources(template, "AWS::CloudWatch::Alarm"))
    assert not list(list_resources(template, "AWS::CloudWatch::Dashboard"))


def test_runbook_has_a_section_for_each_alarm() -> None:
    runbook = (ROOT / "docs" / "runbook.md").read_text()
    sections = dict(re.findall(r"^## ([a-z-]+)\n(.*?)(?=^## |\Z)", runbook, re.MULTILINE | re.DOTALL))
    alarms = [find_slug(alarm) for _, alarm in list_resources(read_transformed(), "AWS::CloudWatch::Alarm")]
    assert sorted(sections) == sorted(alarms)
    for slug, text in sections.items():
        for part in ("Meaning", "Diagnosis", "Action", "Resolved when"):
            assert f"**{part}:**" in text, f"{slug}: {part}"
        assert "`aws " in text or "\naws " in text, f"{slug}: a command to look with"


def list_queries(template: Template) -> dict[str, tuple[set[str], str]]:
    """Return (log groups, text) of each saved query and of the dashboard's. Raises KeyError for unknown log groups."""
    groups = {
        substitute(group["LogGroupName"]["Fn::Sub"], template): name
        for name, group in list_resources(template, "AWS::Logs::LogGroup")
    }
    queries = {
        name: (
            {groups[substitute(group["Fn::Sub"], template)] for group in as_list(query["LogGroupNames"])},
            query["QueryString"],
        )
        for name, query in list_resources(template, "AWS::Logs::QueryDefinition")
    }
    for widget in read_dashboard(template)["widgets"]:
        if widget["type"] == "log":
            query: str = widget["properties"]["query"]
            named = re.findall(r"SOURCE '([^']+)' \| ", query)
            text = re.sub(r"SOURCE '[^']+' \| ", "", query)
            assert "SOURCE" not in text
            queries[widget["properties"]["title"]] = ({groups[name] for name in named}, text)
    return queries


def test_queries_look_where_the_lines_are(template: Template) -> None:
    """The code writes the log lines that queries search for. Queries read the logs of all functions that write them."""
    queries = list_queries(template)
    code = "\n".join(path.read_text() for path in (ROOT / "layers" / "core" / "modelhaul").rglob("*.py"))
    groups = {name for name, _ in list_resources(template, "AWS::Logs::LogGroup")}
    assert queries["TaskQuery"][0] == groups
    for asked, text in queries.values():
        assert asked <= groups
        for line in re.findall(r'message !?= "([^"]+)"', text):
            assert f'"{line}"' in code, line
    closers = {
        name.replace("Function", "LogGroup")
        for name, function in list_resources(template, "AWS::Lambda::Function")
        if "FILES_TABLE" in function["Environment"]["Variables"]
    }
    assert queries["FailuresQuery"][0] == closers
    assert queries["Failed imports by reason"][0] == queries["Latest failed imports"][0] == closers


def test_retries_of_every_kind_are_queried(template: Template) -> None:
    _, text = list_queries(template)["RetriesQuery"]
    assert set(re.findall(r'"([^"]+)"', text)) == set(_LOG_MESSAGES.values())


def test_dashboard_queries_read_log_groups_that_always_exist() -> None:
    """A query that names a missing log group fails."""
    template = apply_parameters(read_transformed(), HubAccess="OFF", Documentation="off")
    every = {name for name, _ in list_resources(template, "AWS::Logs::LogGroup")}
    queries = list_queries(template)
    assert queries["Errors, crashes and timeouts by function"][0] == every


FIELDS = {"message", "level", "task_id", "attempt"}
QUERY_WORDS = set(re.findall(r"\w+", "fields filter stats sort limit by as asc desc in like count latest and or"))


def test_queries_ask_for_fields_that_are_logged(template: Template) -> None:
    paths = (ROOT / "layers").rglob("*.py")
    logged = FIELDS | {word for path in paths for word in re.findall(r'"(\w+)": ', path.read_text())}
    for name, (_, text) in list_queries(template).items():
        made = set(re.findall(r" as (\w+)", text))
        for part in re.split(r"\s*\n?\| ", text):
            words = set(re.findall(r"[a-z_]+", re.sub(r'"[^"]*"|@\w+|like /.*?/', "", part)))
            assert words - QUERY_WORDS - made <= logged, (name, part)


def test_page_has_each_metric_with_its_unit() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| \S.*\|$", PAGE, re.MULTILINE)
    assert dict(rows) == CATALOG
    assert len(rows) == len(CATALOG)


def test_page_has_each_widget() -> None:
    template = apply_parameters(read_transformed(), AlarmTopicArn=TOPIC)
    titles = {w["properties"]["title"] for w in read_dashboard(template)["widgets"] if w["type"] in ("metric", "log")}
    missing = {title for title in titles if f"**{title}**" not in PAGE}
    assert not missing, "describe them in docs/monitoring.md"


def test_page_counts_what_is_charged() -> None:
    """With an email address, and without the Hub read API and an email address."""
    all_ = apply_parameters(read_transformed(), NotificationEmail="a@example.com")
    least = apply_parameters(read_transformed(), AlarmTopicArn=TOPIC, HubAccess="OFF")
    counted = [len(list(list_alarm_metrics(template))) for template in (all_, least)]
    shown = len({(w.namespace, w.name, w.dimensions) for w in list_widget_metrics(all_)})
    assert f"| Custom metrics | {len(CATALOG)} at most; 3 for an import" in PAGE
    assert f"| Dashboard | 1, with {shown} metrics" in PAGE
    assert f"| Metrics of alarms | {counted[0]}; {counted[1]} without" in PAGE
