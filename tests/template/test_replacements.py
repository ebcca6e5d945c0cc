"""An update from any released version keeps the data of a stack, and what would lose data is found."""

import copy
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from deployment.replacements import LOSSES, SMALL_LOSSES, Record, compare_records, read_record, record_template
from tests.template import rules
from tests.template.transformed import ROOT, Template, read_template

type Mutation = Callable[[dict[str, Any]], object]
"""Changes the resources of the template as written."""

RELEASED = sorted((ROOT / "tests/template/released").glob("*.json"))


@cache
def record_current() -> Record:
    return record_template(read_template())


@pytest.mark.parametrize("path", RELEASED, ids=lambda path: path.stem)
def test_an_update_from_a_released_version_keeps_the_data(path: Path) -> None:
    findings = compare_records(read_record(path), record_current())
    assert [str(finding) for finding in findings if finding.is_fatal] == []


def test_each_resource_with_data_is_recorded() -> None:
    template = read_template()
    kept = {name for name, one in template["Resources"].items() if one.get("DeletionPolicy", "Delete") != "Delete"}
    assert kept
    assert kept <= record_current().keys()
    assert all(record_current()[name]["Type"] in LOSSES for name in kept)
    recorded = {resource["Type"] for resource in record_current().values()}
    # The other type is for resources that the template does not have yet.
    assert LOSSES.keys() - recorded == {"AWS::SecretsManager::Secret"}
    assert SMALL_LOSSES.keys() <= recorded
    assert {name for name, one in record_current().items() if one["Type"] == "AWS::DynamoDB::Table"} == {
        name for name, _ in rules.list_resources(template, "AWS::DynamoDB::Table")
    }


def set_property(name: str, path: str, value: object) -> Mutation:
    """`path` has dots between keys and positions."""

    def mutate(resources: dict[str, Any]) -> None:
        target: Any = resources[name]
        *parents, last = [int(key) if key.isdigit() else key for key in path.split(".")]
        for key in parents:
            target = target[key]
        target[last] = value

    return mutate


def rename(old: str, new: str) -> Mutation:
    """The other resources keep their references: only the record is compared."""
    return lambda resources: resources.update({new: resources.pop(old)})


def add_index(*names: str) -> Mutation:
    def mutate(resources: dict[str, Any]) -> None:
        indexes = resources["ModelsTable"]["Properties"]["GlobalSecondaryIndexes"]
        indexes += [{**indexes[0], "IndexName": name} for name in names]

    return mutate


TABLE_KEY = "Properties.KeySchema.0.AttributeName"
INDEX = "Properties.GlobalSecondaryIndexes.0"


@pytest.mark.parametrize(
    ("mutate", "text"),
    [
        (set_property("ModelsTable", TABLE_KEY, "id"), "because KeySchema changes. The stack would lose its items."),
        (
            set_property("ContentTable", "Properties.AttributeDefinitions.1.AttributeType", "N"),
            "error: ContentTable: would be replaced, because the type of the attribute key changes",
        ),
        (set_property("KeysTable", "Properties.TableName", "keys"), "because TableName changes"),
        (
            set_property(
                "FilesTable",
                "Properties.LocalSecondaryIndexes",
                [{"IndexName": "by-size", "KeySchema": [], "Projection": {}}],
            ),
            "because LocalSecondaryIndexes changes",
        ),
        (rename("TasksTable", "JobsTable"), "error: TasksTable: is named JobsTable now"),
        (lambda resources: resources.pop("IncomingBucket"), "IncomingBucket: is not in the template any more"),
        (set_property("IncomingBucket", "Properties.BucketName", "incoming"), "because BucketName changes"),
        (set_property("ModelsBucket", "Condition", "IsAws"), "error: ModelsBucket: has another condition"),
        (set_property("ModelsTable", f"{INDEX}.Projection", {"ProjectionType": "KEYS_ONLY"}), "Give it another name"),
        (set_property("ModelsTable", f"{INDEX}.KeySchema.0.AttributeName", "hub_name"), "Give it another name"),
        (set_property("ModelsTable", f"{INDEX}.IndexName", "other"), "several indexes: models-by-shelf, other"),
        (add_index("one", "two"), "adds or deletes several indexes: one, two"),
        (set_property("ReadDocsLogGroup", "Properties.LogGroupName", "docs"), "The stack would lose its logs"),
        (set_property("Api", "Properties.StageName", "v2"), "Apiv1Stage: is not in the template any more"),
        (rename("ReadDocsLogGroup", "DocsLogGroup"), "The update would fail, because ReadDocsLogGroup has"),
    ],
)
def test_what_would_lose_data_is_fatal(mutate: Mutation, text: str) -> None:
    findings = compare_records(record_current(), record_changed(mutate))
    assert any(text in str(finding) and finding.is_fatal for finding in findings), findings


def record_changed(mutate: Mutation) -> Record:
    template: Template = copy.deepcopy(read_template())
    mutate(template["Resources"])
    return record_template(template)


@pytest.mark.parametrize(
    ("mutate", "text"),
    [
        (set_property("RateLimitsTable", TABLE_KEY, "id"), "warning: RateLimitsTable: would be replaced"),
        (set_property("PlanQueue", "Properties.FifoQueue", value=True), "warning: PlanQueue: would be replaced"),
        (rename("UnpublishedEndsQueue", "LostEndsQueue"), "warning: UnpublishedEndsQueue: is named LostEndsQueue now"),
    ],
)
def test_what_would_lose_little_is_a_warning(mutate: Mutation, text: str) -> None:
    findings = compare_records(record_current(), record_changed(mutate))
    assert any(str(finding).startswith(text) for finding in findings), findings
    assert not any(finding.is_fatal for finding in findings)


@pytest.mark.parametrize(
    "mutate",
    [
        add_index("models-by-size"),
        lambda resources: resources["TasksTable"]["Properties"]["GlobalSecondaryIndexes"].pop(),
        lambda resources: resources["TasksTable"]["Properties"]["AttributeDefinitions"].append(
            {"AttributeName": "size", "AttributeType": "N"}
        ),
        set_property("TasksTable", "Properties.BillingMode", "PROVISIONED"),
        set_property("ModelsBucket", "DeletionPolicy", "Retain"),
        set_property("PlanQueue", "Properties.VisibilityTimeout", 10_000),
        rename("SubmitLocalRole", "SubmitArchiveRole"),
        lambda resources: resources["ManageKeysLogGroup"].pop("Condition"),
    ],
)
def test_other_changes_are_allowed(mutate: Mutation) -> None:
    assert compare_records(record_current(), record_changed(mutate)) == []


def test_a_property_that_the_schema_did_not_have_is_not_compared() -> None:
    old = copy.deepcopy(record_current())
    del old["ModelsTable"]["CreateOnly"]["/properties/KeySchema"]
    old["ModelsTable"]["CreateOnly"]["/properties/Gone"] = "value"
    assert compare_records(old, record_current()) == []


def test_the_command_compares_templates_and_records(tmp_path: Path) -> None:
    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "deployment", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    record = tmp_path / "old.json"
    record.write_text(run("record", "template.yaml").stdout)
    assert read_record(record) == record_current()
    same = run("compare", record, "template.yaml")
    assert (same.returncode, same.stdout) == (0, "")
    record.write_text(record.read_text().replace('"ContentTable"', '"DigestsTable"'))
    lost = run("compare", record, "template.yaml")
    assert lost.returncode == 1
    assert lost.stdout == "error: DigestsTable: is named ContentTable now. The stack would lose its items.\n"
