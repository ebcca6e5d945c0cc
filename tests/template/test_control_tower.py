"""The checker of the controls of AWS Control Tower reports what the template does not fulfil and does not explain."""

import copy
from pathlib import Path
from typing import Any

import pytest

from tests.template import control_tower
from tests.template.control_tower import Finding
from tests.template.transformed import ROOT, Template, read_template, transform_template

TEMPLATES = (ROOT / "template.yaml", ROOT / "monitoring.yaml")


@pytest.fixture(scope="module")
def template() -> Template:
    return transform_template(read_template())


def resolve(template: Template, **parameters: str | int) -> Template:
    return control_tower.resolve_template(template, {**control_tower.PARAMETERS, **parameters})


def test_nothing_is_left_to_resolve(template: Template) -> None:
    resolved = resolve(template)
    policy = resolved["Resources"]["ModelsBucketPolicy"]["Properties"]["PolicyDocument"]["Statement"][0]
    assert policy["Resource"] == ["arn:aws:s3:::modelsbucket", "arn:aws:s3:::modelsbucket/*"]
    permission = resolved["Resources"]["ReadCatalogFunctionReadTaskPermissionv1"]["Properties"]
    assert permission["SourceArn"] == "arn:aws:execute-api:us-east-1:123456789012:api/*/GET/upload/tasks/*"
    assert resolved["Resources"]["ReadCatalogLogGroup"]["Properties"]["RetentionInDays"] == 365


def find_controls(template: Template, **parameters: str | int) -> set[tuple[str, str]]:
    findings = control_tower.run_guard(resolve(template, **parameters))
    unexplained = control_tower.list_unexplained(findings, control_tower.list_skips(*TEMPLATES))
    return {(finding.resource, finding.control) for finding in unexplained}


def break_template(template: Template, resource: str, name: str) -> Template:
    broken = copy.deepcopy(template)
    del broken["Resources"][resource]["Properties"][name]
    return broken


@pytest.mark.skipif(not control_tower.PACKAGE.is_dir(), reason="make setup has not installed cfn-guard")
def test_violations_are_found(template: Template) -> None:
    broken = break_template(template, "ModelsBucket", "PublicAccessBlockConfiguration")
    broken = break_template(broken, "PlanQueue", "RedrivePolicy")
    found = find_controls(broken, LogRetentionDays=30, AccessLogBucket="")
    assert {("ModelsBucket", "CT.S3.PR.1"), ("PlanQueue", "CT.SQS.PR.1"), ("ModelsBucket", "CT.S3.PR.2")} <= found
    assert ("ReadCatalogLogGroup", "CT.CLOUDWATCH.PR.2") in found


def test_skips_belong_to_a_resource_and_to_what_sam_generates_for_it(tmp_path: Path) -> None:
    path = tmp_path / "template.yaml"
    path.write_text(
        "Resources:\n  OneFunction:\n    # checkov:skip=CKV_AWS_117:no network\n    Type: X\n"
        "  Bucket:\n    # cfn-guard:skip=CT.S3.PR.9:deletes\n  Other:\n    # cfn-guard:skip=CT.S3.PR.4:\n"
    )
    skips = control_tower.list_skips(path)
    assert skips == {"OneFunction": {"CKV_AWS_117"}, "Bucket": {"CT.S3.PR.9"}}
    cases: dict[tuple[str, str], bool] = {
        ("CT.LAMBDA.PR.3", "OneFunction"): True,
        ("CT.LAMBDA.PR.3", "OneFunctionVersion"): True,
        ("CT.LAMBDA.PR.3", "TwoFunction"): False,
        ("CT.S3.PR.9", "Bucket"): True,
        ("CT.S3.PR.4", "Bucket"): False,
        ("CT.S3.PR.4", "Other"): False,
    }
    findings = [Finding(control, resource, "") for control, resource in cases]
    left: list[Any] = control_tower.list_unexplained(findings, skips)
    assert left == [finding for finding, skipped in zip(findings, cases.values(), strict=True) if not skipped]
