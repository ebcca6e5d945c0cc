"""docs/verification.md describes each check and the permissions of the script, and no others."""

import ast
import re
from pathlib import Path
from typing import Any

import boto3

import deployment.verify
from deployment.verify.checks import CHECKS
from tests.operator_policy import DOCUMENT, find_action, read_policy, read_policy_actions

PACKAGE = Path(deployment.verify.__file__).parent
SERVICES = (
    "apigateway",
    "cloudformation",
    "cloudwatch",
    "dynamodb",
    "events",
    "lambda",
    "logs",
    "s3",
    "sns",
    "sqs",
    "xray",
)
# Signed by the script itself, with AuthMode=IAM.
SIGNED = {"execute-api:Invoke"}


def list_operations() -> dict[str, set[str]]:
    """The actions of each method of the clients that the script uses."""
    found: dict[str, set[str]] = {}
    for service in SERVICES:
        client: Any = boto3.client(
            service,  # type: ignore[call-overload]
            region_name="us-east-1",
            aws_access_key_id="key",
            aws_secret_access_key="secret",
        )
        for method, operation in client.meta.method_to_api_mapping.items():
            found.setdefault(method, set()).add(find_action(service, operation))
    return found


def list_called_names() -> set[str]:
    """The names of all methods that the script calls, and of its paginators."""
    names: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                names.add(node.func.attr)
                if node.func.attr == "get_paginator" and isinstance(node.args[0], ast.Constant):
                    names.add(str(node.args[0].value))
    return names


def test_the_policy_allows_the_calls_of_the_script_and_no_others() -> None:
    operations = list_operations()
    called = [operations[name] for name in list_called_names() & operations.keys()]
    assert all(len(actions) == 1 for actions in called), "a method of one service only"
    assert set[str]().union(*called) | SIGNED == read_policy_actions()


def test_the_policy_has_no_wildcard_actions_and_names_resources_where_aws_can() -> None:
    statements: Any = read_policy()["Statement"]
    unnamed = {action for s in statements if s["Resource"] == "*" for action in s["Action"]}
    # These have no resource types in the service authorization reference, or only for lists of all.
    assert unnamed == {
        "cloudwatch:DescribeAlarms",
        "cloudwatch:GetMetricData",
        "lambda:GetAccountSettings",
        "lambda:ListEventSourceMappings",
        "xray:GetTraceSummaries",
    }
    assert not [action for action in read_policy_actions() if "*" in action]


def test_each_check_has_a_row_in_its_section() -> None:
    rows: list[tuple[str, str]] = []
    section = ""
    for line in DOCUMENT.read_text().splitlines():
        if heading := re.fullmatch("#+ (.+)", line):
            section = heading[1].lower().replace(" ", "-")
        elif row := re.match(r"\| `([a-z-]+)` \|", line):
            rows.append((row[1], section))
    assert sorted(rows) == sorted((check.name, check.section) for check in CHECKS.values())


def test_a_row_says_which_checks_the_local_stack_skips() -> None:
    for line in DOCUMENT.read_text().splitlines():
        if row := re.match(r"\| `([a-z-]+)` \|", line):
            assert line.endswith("| AWS |") == bool(CHECKS[row[1]].not_on_local), row[1]
