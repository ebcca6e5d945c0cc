"""Functions in a loop allow it, and no others do."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.template.loops import check_loops, find_loops
from tests.template.test_rules import allow, drop_property, set_property
from tests.template.transformed import Template, apply_parameters, read_transformed

RESENDING = {"AcceptArchiveFunction", "PlanImportFunction", "TransferFilesFunction", "PublishModelsFunction"}
"""They send a message to their own queue to wait, to retry and to continue."""

SEND = "sqs:SendMessage"
ARN: dict[str, Any] = {
    name: {"Fn::GetAtt": [name, "Arn"]}
    for name in ("ArchiveQueue", "PlanQueue", "TransferQueue", "PublishQueue", "TasksTable", "ReadHubFunction")
}
NEXT = {
    "AcceptArchiveFunction": ARN["PlanQueue"],
    "PlanImportFunction": ARN["TransferQueue"],
    "TransferFilesFunction": ARN["PublishQueue"],
}
PREFIXES = "Properties.EventPattern.detail.object.key.0.anything-but.prefix"


@pytest.fixture(scope="module")
def template() -> Template:
    # With all functions and alarms.
    return apply_parameters(read_transformed(), HubOnMiss="IMPORT", NotificationEmail="a@example.com", Signing="KMS")


def test_functions_in_loops_allow_them(template: Template) -> None:
    assert check_loops(template) == []
    assert find_loops(template) == RESENDING


@pytest.mark.parametrize("function", sorted(RESENDING))
def test_a_function_that_resends_must_allow_its_loop(function: str, template: Template) -> None:
    for mutate in (
        drop_property(function, "Properties.RecursiveLoop"),
        set_property(function, "Properties.RecursiveLoop", "Terminate"),
    ):
        broken = copy.deepcopy(template)
        mutate(broken["Resources"])
        assert len(check_loops(broken)) == 1


def test_a_function_outside_a_loop_must_not_allow_one(template: Template) -> None:
    broken = copy.deepcopy(template)
    set_property("SweepStaleFunction", "Properties.RecursiveLoop", "Allow")(broken["Resources"])
    assert len(check_loops(broken)) == 1


def invoke_consumer_of_events(resources: dict[str, Any]) -> None:
    """All events of the default bus reach PlanQueue, whose imports end and are published."""
    resources["Rule"] = {
        "Type": "AWS::Events::Rule",
        "Properties": {"EventPattern": {"source": ["Modelhaul"]}, "Targets": [{"Arn": ARN["PlanQueue"]}]},
    }


@pytest.mark.parametrize(
    ("added", "looping"),
    [
        # publish_models -> PlanQueue -> plan_import -> TransferQueue -> transfer_files -> PublishQueue.
        ([allow("PublishModelsRole", SEND, ARN["PlanQueue"])], set()),
        # record_failure -> PlanQueue -> PlanDeadLetterQueue -> record_failure.
        ([allow("RecordFailureRole", SEND, ARN["PlanQueue"])], {"RecordFailureFunction"}),
        # import_missing -> read_hub -> import_missing.
        (
            [allow("ImportMissingRole", "lambda:InvokeFunction", ARN["ReadHubFunction"])],
            {"ImportMissingFunction", "ReadHubFunction"},
        ),
        # publish_ends -> TasksTable -> its stream.
        ([allow("PublishEndsRole", "dynamodb:UpdateItem", ARN["TasksTable"])], {"PublishEndsFunction"}),
        # publish_ends -> event -> PlanQueue -> plan_import, or record_failure -> TasksTable -> stream.
        ([invoke_consumer_of_events], {"PublishEndsFunction", "RecordFailureFunction"}),
        # record_failure -> outcomes/ -> event -> ArchiveQueue -> ArchiveDeadLetterQueue.
        (
            [set_property("ArchiveArrivedRule", PREFIXES, ["posted/"])],
            {"RecordFailureFunction"},
        ),
    ],
    ids=["several queues", "dead letters", "invocation", "stream", "event", "object"],
)
def test_loops_of_several_steps_are_found(
    added: list[Callable[[dict[str, Any]], object]], looping: set[str], template: Template
) -> None:
    changed = copy.deepcopy(template)
    for mutate in added:
        mutate(changed["Resources"])
    assert find_loops(changed) == RESENDING | looping


def test_functions_in_loops_are_watched(template: Template) -> None:
    alarm = template["Resources"]["RecursionAlarm"]["Properties"]
    watched = [query["MetricStat"]["Metric"] for query in alarm["Metrics"] if "MetricStat" in query]
    assert {metric["MetricName"] for metric in watched} == {"RecursiveInvocationsDropped"}
    assert {metric["Dimensions"][0]["Value"]["Ref"] for metric in watched} == find_loops(template)


def test_a_loop_of_several_functions_needs_all_of_them(template: Template) -> None:
    """accept_archive -> plan_import -> transfer_files -> publish_models, without and with a way back."""
    row = copy.deepcopy(template)
    for function, queue in (NEXT | {"PublishModelsFunction": []}).items():
        properties = row["Resources"][function.replace("Function", "Role")]["Properties"]
        for statement in properties["Policies"][0]["PolicyDocument"]["Statement"]:
            if statement["Sid"] == "SendMessages":
                statement["Resource"] = queue
    assert find_loops(row) == set()
    allow("PublishModelsRole", SEND, ARN["ArchiveQueue"])(row["Resources"])
    assert find_loops(row) == RESENDING
