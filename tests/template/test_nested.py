"""Tests of the merged template: the nested stack is included as deployed, and the rules apply to both."""

import copy
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import ValidationError  # type: ignore[import-untyped]

from tests.template import rules, test_monitoring
from tests.template.transformed import (
    NESTED_STACK,
    ROOT,
    Template,
    apply_parameters,
    expand_includes,
    merge_nested_stacks,
    read_template,
    transform_main_template,
)

type Mutation = Callable[[dict[str, Any]], object]
"""Breaks a template."""

STACK = "MonitoringStack"
NESTED = "monitoring.yaml"
SETTINGS = {
    "StackName",
    "LocalMode",
    "KmsKeyArn",
    "Monitoring",
    "NotificationEmail",
    "AlarmTopicArn",
    "RunbookUrl",
    "Documentation",
    "HubAccess",
    "HubOnMiss",
    "Signing",
    "AuditRetentionDays",
    "PolicyLocation",
}


@cache
def read_main() -> Template:
    return transform_main_template(read_template())


@cache
def read_nested() -> Template:
    return read_template(ROOT / NESTED)


def merge(folder: Path, main: Mutation | None = None, nested: Mutation | None = None) -> Template:
    """Return the merged template, with the main or the nested template broken before."""
    outer, inner = copy.deepcopy(read_main()), copy.deepcopy(read_nested())
    for template, mutate in ((outer, main), (inner, nested)):
        if mutate is not None:
            mutate(template)
    (folder / NESTED).write_text(json.dumps(inner))
    return merge_nested_stacks(outer, folder)


def test_nothing_is_left_to_expand(tmp_path: Path) -> None:
    merged = merge(tmp_path)
    assert merged == merge_nested_stacks(read_main())
    assert merged["Resources"].keys() == (read_main()["Resources"].keys() - {STACK}) | read_nested()["Resources"].keys()
    assert NESTED_STACK not in {resource["Type"] for resource in merged["Resources"].values()}
    assert "Fn::Transform" not in json.dumps(merged)


def test_there_is_one_nested_stack_with_all_of_the_monitoring() -> None:
    assert [name for name, _ in rules.list_resources(read_main(), NESTED_STACK)] == [STACK]
    kinds = {resource["Type"].split("::")[1] for resource in read_main()["Resources"].values()}
    assert not kinds & {"CloudWatch", "SNS"}


def test_each_parameter_has_the_name_of_its_resource() -> None:
    given = read_main()["Resources"][STACK]["Properties"]["Parameters"]
    watched = {name for name in given if name not in SETTINGS}
    for name in watched:
        resource = read_main()["Resources"][name]
        named = {"Fn::GetAtt": [name, "QueueName"]} if resource["Type"] == "AWS::SQS::Queue" else {"Ref": name}
        condition = resource.get("Condition")
        assert given[name] == ({"Fn::If": [condition, named, "none"]} if condition else named)
    assert {name: given[name] for name in SETTINGS} == {
        name: {"Ref": "AWS::StackName" if name == "StackName" else name} for name in SETTINGS
    }


def set_value(path: str, value: object) -> Mutation:
    """`path` has dots between keys."""

    def mutate(template: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        target = template
        for key in parents:
            target = target[key]
        target[last] = value

    return mutate


def drop(path: str) -> Mutation:
    def mutate(template: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        target = template
        for key in parents:
            target = target[key]
        del target[last]

    return mutate


@pytest.mark.parametrize(
    ("main", "nested", "message"),
    [
        (drop(f"Resources.{STACK}.Properties.Parameters.PlanQueue"), None, "parameters differ"),
        (set_value(f"Resources.{STACK}.Properties.Parameters.Unknown", "x"), None, "parameters differ"),
        (set_value(f"Resources.{STACK}.Condition", "IsAws"), None, "attributes"),
        (set_value("Conditions.HasMonitoring", {"Condition": "IsAws"}), None, "HasMonitoring differs"),
        (None, set_value("Transform", "AWS::Serverless-2016-10-31"), "cannot be merged"),
        (None, set_value("Outputs", {}), "cannot be merged"),
        (None, set_value("Resources.TasksTable", {"Type": "AWS::DynamoDB::Table"}), "also a resource"),
        (None, set_value("Resources.TaskQuery.Properties.Name", {"Ref": "AWS::StackName"}), "is not that of"),
        (None, set_value("Resources.TaskQuery.Properties.Name", {"Fn::Sub": "${AWS::StackId}"}), "is not that of"),
        (None, set_value("Resources.TaskQuery.Properties.Name", {"Fn::Sub": ["${A}", {}]}), "unsupported form"),
    ],
)
def test_a_nested_stack_that_would_differ_is_not_merged(
    main: Mutation | None, nested: Mutation | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        merge(tmp_path, main, nested)


def test_only_includes_alone_at_their_place_are_expanded(tmp_path: Path) -> None:
    (tmp_path / "snippet.json").write_text('{"a": 1}')
    include = {"Fn::Transform": {"Name": "AWS::Include", "Parameters": {"Location": "snippet.json"}}}
    assert expand_includes({"x": [include]}, tmp_path) == {"x": [{"a": 1}]}
    for unsupported in ({**include, "b": 2}, {"Fn::Transform": {"Name": "Other"}}):
        with pytest.raises(ValueError, match=r"beside other keys|unsupported transform"):
            expand_includes(unsupported, tmp_path)


def edit_dashboard(old: str, new: str) -> Mutation:
    def mutate(template: dict[str, Any]) -> None:
        properties = template["Resources"]["Dashboard"]["Properties"]
        body = json.dumps(properties["DashboardBody"])
        escaped = json.dumps(old)[1:-1]
        assert escaped in body
        properties["DashboardBody"] = json.loads(body.replace(escaped, json.dumps(new)[1:-1]))

    return mutate


def repeat_metrics(template: dict[str, Any]) -> None:
    """Add a widget with three more metrics."""
    parts = template["Resources"]["Dashboard"]["Properties"]["DashboardBody"]["Fn::Join"][1]
    rows = [["AWS/Lambda", "Errors", "FunctionName", name] for name in ("a", "b", "c")]
    widget = {"type": "metric", "properties": {"title": "More", "metrics": rows}}
    parts[0] = {"Fn::Sub": parts[0]["Fn::Sub"].replace('{"widgets": [', f'{{"widgets": [{json.dumps(widget)},', 1)}


# A rule of `rules` returns faults, a test of `test_monitoring` raises AssertionError.
CHECKS: list[tuple[Callable[[Template], Any], Mutation]] = [
    (rules.check_dead_letter_queues, drop("Resources.UnpublishedEndsAlarm")),
    (rules.check_topics, drop("Resources.DeadLettersAlarm.Properties.AlarmActions")),
    (rules.check_topics, drop("Resources.ImportFailedRule")),
    (rules.check_topics, drop("Resources.NotificationsTopic.Condition")),
    (rules.check_topics, set_value("Conditions.HasNotificationEmail", {"Condition": "IsAws"})),
    (test_monitoring.test_dashboard_fits_its_grid, edit_dashboard('"y": 22,', '"y": 17,')),
    (test_monitoring.test_what_is_watched_is_emitted, edit_dashboard("BytesReused", "BytesUnknown")),
    (test_monitoring.test_what_is_watched_is_emitted, edit_dashboard("ApiName", "Api")),
    (test_monitoring.test_what_is_emitted_is_watched, edit_dashboard("RateLimitWaits", "Retries")),
    (
        test_monitoring.test_queues_and_main_tables_are_on_the_dashboard,
        edit_dashboard('"NumberOfEmptyReceives", "QueueName", "${DeadLetterQueue}"', '"Empty", "QueueName", "x"'),
    ),
    (test_monitoring.test_queues_and_main_tables_are_on_the_dashboard, edit_dashboard("${FilesTable}", "x")),
    (test_monitoring.test_dashboard_has_the_documented_structure, edit_dashboard("singleValue", "number")),
    (
        test_monitoring.test_dashboard_has_the_documented_structure,
        edit_dashboard('"setPeriodToTimeRange"', '"setPeriodToTime"'),
    ),
    (test_monitoring.test_dashboard_has_the_documented_structure, edit_dashboard("-P30D", "30 days")),
    (test_monitoring.test_expressions_refer_to_metrics_of_their_widget, edit_dashboard('"id": "w6"', '"id": "w7"')),
    (test_monitoring.test_dashboard_shows_the_alarms_that_exist, edit_dashboard("-sweep-recoveries", "-sweep")),
    (test_monitoring.test_dashboard_shows_the_alarms_that_exist, edit_dashboard("-hub-errors", "-hub")),
    (test_monitoring.test_kinds_of_metrics_in_the_cost, edit_dashboard('"SampleCount", "visible"', '"Sum", "visible"')),
    (test_monitoring.test_dashboard_can_be_free, repeat_metrics),
    (test_monitoring.test_workers_and_work_queues_are_watched, drop("Resources.OldestMessageAlarm")),
    (test_monitoring.test_workers_and_work_queues_are_watched, drop("Resources.WorkerThrottlesAlarm")),
    (test_monitoring.test_alarms_are_sound, drop("Resources.ApiErrorsAlarm.Properties.TreatMissingData")),
    (
        test_monitoring.test_alarms_are_sound,
        set_value("Resources.ApiErrorsAlarm.Properties.AlarmDescription", {"Fn::Sub": "Look it up."}),
    ),
    (
        test_monitoring.test_queries_look_where_the_lines_are,
        set_value("Resources.FailuresQuery.Properties.QueryString", 'filter message = "import vanished"'),
    ),
    (
        test_monitoring.test_queries_look_where_the_lines_are,
        lambda template: template["Resources"]["TaskQuery"]["Properties"]["LogGroupNames"].pop(),
    ),
    (
        test_monitoring.test_queries_look_where_the_lines_are,
        set_value("Resources.SlowImportsQuery.Properties.LogGroupNames", [{"Fn::Sub": "/aws/lambda/${StackName}-x"}]),
    ),
    (
        test_monitoring.test_queries_ask_for_fields_that_are_logged,
        set_value("Resources.RetriesQuery.Properties.QueryString", "stats count(*) as times by weather"),
    ),
]


def find_faults(check: Callable[[Template], Any], template: Template) -> Any:
    if check.__name__.startswith("check_"):
        return check(template)
    try:
        check(
            apply_parameters(
                template, NotificationEmail="a@example.com", HubOnMiss="IMPORT", Signing="KMS", AuditRetentionDays="365"
            )
        )
    except (AssertionError, KeyError, ValidationError) as error:
        return error
    return None


@pytest.mark.parametrize(("check", "mutate"), CHECKS, ids=lambda value: getattr(value, "__name__", ""))
def test_rules_refuse_a_broken_nested_stack(check: Callable[[Template], Any], mutate: Mutation, tmp_path: Path) -> None:
    assert not find_faults(check, merge(tmp_path))
    assert find_faults(check, merge(tmp_path, nested=mutate))


def test_rules_refuse_a_parameter_of_another_resource(tmp_path: Path) -> None:
    path = f"Resources.{STACK}.Properties.Parameters.PlanImportFunction"
    broken = merge(tmp_path, set_value(path, {"Ref": "SweepStaleFunction"}))
    assert find_faults(test_monitoring.test_workers_and_work_queues_are_watched, broken)
