"""The dashboard, the alarms and the saved queries match the code and the runbook: metrics with their dimensions, log
lines, and a runbook section for each alarm.
"""

import ast
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

from modelhaul.adapters.metrics import PowertoolsMetrics
from modelhaul.ports.metrics import CATALOG
from tests.template.rules import (
    Resource,
    as_list,
    find_handler,
    find_target,
    list_operations,
    list_resources,
    read_api,
)
from tests.template.transformed import ROOT, Template, apply_parameters, read_template, transform_template

AWS_METRICS: dict[str, Any] = json.loads((ROOT / "tests" / "template" / "aws_metrics.json").read_text())
STACK = "the-stack"
MAX_ALARM_METRICS = 10  # https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-limits.html
# An idle stack emits no metrics.
IDLE = "notBreaching"


@dataclass(frozen=True)
class Watched:
    """A metric of a widget or an alarm (`place`)."""

    place: str
    namespace: str
    name: str
    dimensions: tuple[tuple[str, str], ...]

    @property
    def dimension_names(self) -> set[str]:
        return {name for name, _ in self.dimensions}


@cache
def read_transformed() -> Template:
    return transform_template(read_template())


@pytest.fixture(params=["", "a@example.com"], ids=["no address", "address"])
def template(request: pytest.FixtureRequest) -> Template:
    return apply_parameters(read_transformed(), NotificationEmail=request.param, HubOnMiss="IMPORT", Signing="KMS")


def substitute(text: str, template: Template) -> str:
    """Apply Fn::Sub, with logical names instead of values that only a deployment has."""

    def replace(found: re.Match[str]) -> str:
        name = found[1]
        if name.startswith("!"):
            return f"${{{name[1:]}}}"
        if name.startswith("AWS::"):
            return {"AWS::StackName": STACK, "AWS::Region": "eu-west-1"}[name]
        assert name.partition(".")[0] in template["Resources"] or name in template["Parameters"], name
        return name

    return re.sub(r"\$\{([^}]+)\}", replace, text)


def read_dashboard(template: Template) -> dict[str, Any]:
    ((_, dashboard),) = list_resources(template, "AWS::CloudWatch::Dashboard")
    body: dict[str, Any] = json.loads(substitute(dashboard["DashboardBody"]["Fn::Sub"], template))
    return body


def list_widget_metrics(template: Template) -> Iterator[Watched]:
    for widget in read_dashboard(template)["widgets"]:
        for row in widget["properties"].get("metrics", []):
            title = widget["properties"]["title"]
            options = row[-1] if isinstance(row[-1], dict) else {}
            if "expression" in options:
                yield from _read_searches(title, options["expression"])
                continue
            namespace, name, *pairs = [part for part in row if isinstance(part, str)]
            yield Watched(title, namespace, name, tuple(zip(pairs[::2], pairs[1::2], strict=True)))


def _read_searches(place: str, expression: str) -> Iterator[Watched]:
    """`SEARCH('{Namespace,dimension,…} MetricName="…" dimension="…"', …)`."""
    searches = re.findall(r"SEARCH\('\{([^}]+)\} ([^']+)'", expression)
    assert expression.count("SEARCH") == len(searches)
    for schema, terms in searches:
        namespace, *dimensions = schema.split(",")
        asked = dict(re.findall(r'(\w+)="([^"]+)"', terms))
        yield Watched(place, namespace, asked["MetricName"], tuple((name, asked.get(name, "*")) for name in dimensions))


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


def test_what_is_watched_is_emitted(template: Template) -> None:
    for watched in list_watched(template):
        if watched.namespace == "Modelhaul":
            full = {"service", *CATALOG[watched.name].dimensions}
            assert watched.dimension_names in (full, {"service"}), watched
            assert dict(watched.dimensions)["service"] == STACK, watched
        else:
            known = AWS_METRICS[watched.namespace]
            assert watched.name in known["metrics"], watched
            assert sorted(watched.dimension_names) in known["dimensions"], watched


def test_what_is_emitted_is_watched(template: Template) -> None:
    assert {w.name for w in list_watched(template) if w.namespace == "Modelhaul"} == set(CATALOG)


def test_catalog_is_what_the_code_counts() -> None:
    assert set(list_counted()) == {(name, frozenset(metric.dimensions)) for name, metric in CATALOG.items()}


def list_counted() -> Iterator[tuple[str, frozenset[str]]]:
    """Yield (metric, dimensions) of each `….count(name, …, dimension=…)`. For a computed name, yield each name of the
    catalog that the function contains.
    """
    for path in [*(ROOT / "layers").rglob("*.py"), *(ROOT / "functions").rglob("*.py")]:
        if path.name == "metrics.py":
            continue
        functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
        for function in functions:
            for call in ast.walk(function):
                match call:
                    case ast.Call(func=ast.Attribute(value=ast.Attribute(attr="metrics"), attr="count")):
                        pass
                    case ast.Call(func=ast.Attribute(value=ast.Call(func=ast.Attribute(attr="create_metrics")))):
                        pass
                    case _:
                        continue
                named = call.args[0] if isinstance(call.args[0], ast.Constant | ast.IfExp) else function
                for constant in ast.walk(named):
                    if isinstance(constant, ast.Constant) and constant.value in CATALOG:
                        yield str(constant.value), frozenset(str(keyword.arg) for keyword in call.keywords)


@pytest.mark.parametrize("name", CATALOG)
def test_metrics_emit_total_and_parts(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "Modelhaul")
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", STACK)
    dimensions = CATALOG[name].dimensions
    PowertoolsMetrics().count(name, 3, **dict.fromkeys(dimensions, "some"))
    (line,) = capsys.readouterr().out.splitlines()
    emitted = json.loads(line)
    (directive,) = emitted["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == "Modelhaul"
    assert directive["Metrics"] == [{"Name": name, "Unit": CATALOG[name].unit}]
    sets = [set(one) for one in directive["Dimensions"]]
    assert sets == ([{"service", *dimensions}, {"service"}] if dimensions else [{"service"}])
    assert emitted | dict.fromkeys(dimensions, "some") | {"service": STACK} == emitted
    assert emitted[name] == [3]


def test_functions_send_the_metrics_that_are_watched() -> None:
    """Namespace and `service` come from the environment."""
    for _, function in list_resources(read_transformed(), "AWS::Lambda::Function"):
        variables = function["Environment"]["Variables"]
        assert variables["POWERTOOLS_METRICS_NAMESPACE"] == "Modelhaul"
        assert variables["POWERTOOLS_SERVICE_NAME"] == {"Ref": "AWS::StackName"}


def list_api_functions(template: Template) -> set[str]:
    return {find_handler(operation) for _, _, operation in list_operations(read_api(template, "Api"))}


def test_every_function_and_queue_is_on_the_dashboard(template: Template) -> None:
    shown = {(w.name, value) for w in list_widget_metrics(template) for _, value in w.dimensions}
    functions = {name for name, _ in list_resources(template, "AWS::Lambda::Function")}
    missing = {(metric, name) for metric in ("Errors", "Throttles", "Duration") for name in functions} - shown
    assert not missing, "add them to the widgets of DashboardBody"
    queues = {name for name, _ in list_resources(template, "AWS::SQS::Queue")}
    assert queues <= {value.partition(".")[0] for _, value in shown}
    tables = {name for name, _ in list_resources(template, "AWS::DynamoDB::Table")}
    assert {(m, t) for m in ("ConsumedReadCapacityUnits", "ConsumedWriteCapacityUnits") for t in tables} <= shown


def test_cost_is_computed_with_the_functions_memory(template: Template) -> None:
    memories = {name: function["MemorySize"] for name, function in list_resources(template, "AWS::Lambda::Function")}
    ((most, _),) = Counter(memories.values()).most_common(1)
    (widget,) = (w for w in read_dashboard(template)["widgets"] if w["properties"].get("title") == "GB-seconds")
    (expression,), *rows = widget["properties"]["metrics"]
    ids = {row[3]: row[4]["id"] for row in rows}
    others = "".join(f"+FILL({ids[name]},0)*({memory}-{most})" for name, memory in memories.items() if memory != most)
    assert expression["expression"] == f"(SUM(METRICS())*{most}{others})/1024/1000"


def test_workers_and_work_queues_are_watched(template: Template) -> None:
    """The errors of functions behind the import API are its 5xx, those of import_missing fail a read of read_hub."""
    watched = list(list_alarm_metrics(template))
    functions = {name for name, _ in list_resources(template, "AWS::Lambda::Function")}
    workers = functions - list_api_functions(template) - {"ImportMissingFunction"}
    for metric in ("Errors", "Throttles"):
        assert {value for w in watched if w.name == metric for _, value in w.dimensions} == workers
    queues = dict(list_resources(template, "AWS::SQS::Queue"))
    work = {name for name, queue in queues.items() if "RedrivePolicy" in queue}
    dead = {find_target(queues[name]["RedrivePolicy"]["deadLetterTargetArn"]) for name in work}
    by_metric = {m: {v for w in watched if w.name == m for _, v in w.dimensions} for m in {w.name for w in watched}}
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


def test_monitoring_can_be_turned_off() -> None:
    template = apply_parameters(read_transformed(), Monitoring="off", NotificationEmail="a@example.com")
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
            *sources, text = re.split(r" \| (?!SOURCE|filter|sort|limit)", widget["properties"]["query"])
            named = re.findall(r"SOURCE '([^']+)'", " ".join(sources))
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
        for line in re.findall(r'"([a-z][^"]+)"', text):
            assert f'"{line}"' in code, line
    closers = {
        name.replace("Function", "LogGroup")
        for name, function in list_resources(template, "AWS::Lambda::Function")
        if "FILES_TABLE" in function["Environment"]["Variables"]
    }
    assert queries["FailuresQuery"][0] == closers


FIELDS = {"message", "level", "task_id", "attempt"}
QUERY_WORDS = set(re.findall(r"\w+", "fields filter stats sort limit by as asc desc in like count latest and"))


def test_queries_ask_for_fields_that_are_logged(template: Template) -> None:
    paths = (ROOT / "layers").rglob("*.py")
    logged = FIELDS | {word for path in paths for word in re.findall(r'"(\w+)": ', path.read_text())}
    for name, (_, text) in list_queries(template).items():
        made = set(re.findall(r" as (\w+)", text))
        for part in re.split(r"\s*\n?\| ", text):
            words = set(re.findall(r"[a-z_]+", re.sub(r'"[^"]*"|@\w+|/\^.*?/', "", part)))
            assert words - QUERY_WORDS - made <= logged, (name, part)
