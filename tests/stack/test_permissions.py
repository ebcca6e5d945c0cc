"""What each function may do on the deployed stack, tried out with its own role: just what the template says.

Every action that any function has on any bucket prefix, table, queue or event bus is called by every role. The calls
change nothing: those that could are refused for another reason where they are not refused for lack of permission. The
secrets of the sources' tokens, which this stack has none of, are tried in tests.stack.test_parameters.
"""

import base64
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from local.stack import StackState, open_session
from tests.stack.conftest import Stack
from tests.template import rules
from tests.template.transformed import Template, apply_parameters, read_template, transform_template

# The first test tries some two thousand calls.
pytestmark = [pytest.mark.stack, pytest.mark.timeout(1200)]

OBJECT = "permission-probe"
SECRET = "another-services-secret"
WRONG_MD5 = base64.b64encode(bytes(16)).decode()
CONDITION = {"ConditionExpression": "attribute_exists(#n)", "ExpressionAttributeNames": {"#n": "never-there"}}
ACTIONS = {
    "AWS::S3::Bucket": ("s3:ListBucket", "s3:ListBucketMultipartUploads"),
    "object": (
        "s3:GetObject",
        "s3:PutObject",
        "s3:DeleteObject",
        "s3:AbortMultipartUpload",
        "s3:ListMultipartUploadParts",
    ),
    "AWS::DynamoDB::Table": (
        "dynamodb:GetItem",
        "dynamodb:BatchGetItem",
        "dynamodb:Query",
        "dynamodb:Scan",
        "dynamodb:PutItem",
        "dynamodb:UpdateItem",
        "dynamodb:DeleteItem",
        "dynamodb:BatchWriteItem",
    ),
    "index": ("dynamodb:Query",),
    "AWS::SQS::Queue": (
        "sqs:SendMessage",
        "sqs:ReceiveMessage",
        "sqs:DeleteMessage",
        "sqs:ChangeMessageVisibility",
        "sqs:GetQueueAttributes",
    ),
    "AWS::SecretsManager::Secret": ("secretsmanager:GetSecretValue",),
    "AWS::Events::EventBus": ("events:PutEvents",),
}
SERVICES = ("s3", "dynamodb", "sqs", "secretsmanager", "events")

NEIGHBOURS = [
    ("SubmitHuggingfaceFunction", "s3:PutObject", "ModelsBucket", "models/*"),
    ("SubmitGithubFunction", "s3:GetObject", "IncomingBucket", "posted/*"),
    ("SubmitLocalFunction", "s3:GetObject", "ModelsBucket", "models/*"),
    ("ReadCatalogFunction", "dynamodb:UpdateItem", "TasksTable", ""),
    ("CancelTaskFunction", "s3:PutObject", "ModelsBucket", "models/*"),
    ("RenderWidgetFunction", "dynamodb:UpdateItem", "TasksTable", ""),
    ("RenderWidgetFunction", "s3:GetObject", "ModelsBucket", "models/*"),
    ("CancelFromConsoleFunction", "s3:GetObject", "ModelsBucket", "models/*"),
    ("AcceptArchiveFunction", "s3:PutObject", "IncomingBucket", "incoming/*"),
    ("PlanImportFunction", "s3:PutObject", "ModelsBucket", "staging/*"),
    ("PlanImportFunction", "sqs:ReceiveMessage", "TransferQueue", ""),
    ("TransferFilesFunction", "s3:PutObject", "ModelsBucket", "models/*"),
    ("TransferFilesFunction", "s3:DeleteObject", "ModelsBucket", "models/*"),
    ("TransferFilesFunction", "s3:PutObject", "ModelsBucket", "manifests/*"),
    ("TransferFilesFunction", "dynamodb:DeleteItem", "TasksTable", ""),
    ("PublishModelsFunction", "s3:PutObject", "ModelsBucket", "staging/*"),
    ("PublishModelsFunction", "sqs:ReceiveMessage", "TransferQueue", ""),
    ("PublishModelsFunction", "secretsmanager:GetSecretValue", SECRET, ""),
    ("RecordFailureFunction", "s3:GetObject", "ModelsBucket", "models/*"),
    ("SweepStaleFunction", "sqs:ReceiveMessage", "DeadLetterQueue", ""),
    ("PublishModelsFunction", "events:PutEvents", rules.DEFAULT_BUS, ""),
]
"""What would do most harm, written out: (function, action, resource, prefix or index)."""


@dataclass(frozen=True)
class Target:
    """`name` is the template's, `place` a prefix of a bucket or an index of a table, `physical` what AWS calls it."""

    kind: str
    name: str
    place: str
    physical: str
    key: tuple[str, ...] = ()


def call(clients: dict[str, Any], action: str, target: Target) -> None:  # noqa: C901, PLR0912 - one case for each action
    """Raises ClientError, for one reason or another."""
    s3, dynamodb, sqs = clients["s3"], clients["dynamodb"], clients["sqs"]
    bucket = {"Bucket": target.physical}
    stored = {**bucket, "Key": target.place.replace("*", OBJECT)}
    absent = {**bucket, "Key": target.place.replace("*", f"{OBJECT}-absent")}
    table, queue = {"TableName": target.physical}, {"QueueUrl": target.physical}
    item = {name: {"S": "permission-probe"} for name in target.key}
    match action:
        case "s3:ListBucket":
            s3.list_objects_v2(**bucket, MaxKeys=1)
        case "s3:ListBucketMultipartUploads":
            s3.list_multipart_uploads(**bucket, MaxUploads=1)
        case "s3:GetObject":
            s3.get_object(**stored)
        case "s3:PutObject":
            s3.put_object(**absent, Body=b"x", ContentMD5=WRONG_MD5)
        case "s3:DeleteObject":
            s3.delete_object(**absent)
        case "s3:AbortMultipartUpload":
            s3.abort_multipart_upload(**absent, UploadId="unknown")
        case "s3:ListMultipartUploadParts":
            s3.list_parts(**absent, UploadId="unknown")
        case "dynamodb:GetItem":
            dynamodb.get_item(**table, Key=item)
        case "dynamodb:BatchGetItem":
            dynamodb.batch_get_item(RequestItems={target.physical: {"Keys": [item]}})
        case "dynamodb:Query":
            where: dict[str, Any] = {
                "KeyConditionExpression": "#k = :v",
                "ExpressionAttributeNames": {"#k": target.key[0]},
            }
            index = {"IndexName": target.place.removeprefix("index/")} if target.place else {}
            dynamodb.query(**table, **index, **where, ExpressionAttributeValues={":v": {"S": "permission-probe"}})
        case "dynamodb:Scan":
            dynamodb.scan(**table, Limit=1)
        case "dynamodb:PutItem":
            dynamodb.put_item(**table, Item=item, **CONDITION)
        case "dynamodb:UpdateItem":
            dynamodb.update_item(**table, Key=item, UpdateExpression="REMOVE #n", **CONDITION)
        case "dynamodb:DeleteItem":
            dynamodb.delete_item(**table, Key=item, **CONDITION)
        case "dynamodb:BatchWriteItem":
            dynamodb.batch_write_item(RequestItems={target.physical: [{"DeleteRequest": {"Key": item}}]})
        case "sqs:SendMessage":
            sqs.send_message(**queue, MessageBody="x", DelaySeconds=901)
        case "sqs:ReceiveMessage":
            sqs.receive_message(**queue, MaxNumberOfMessages=11)
        case "sqs:DeleteMessage":
            sqs.delete_message(**queue, ReceiptHandle="unknown")
        case "sqs:ChangeMessageVisibility":
            sqs.change_message_visibility(**queue, ReceiptHandle="unknown", VisibilityTimeout=0)
        case "sqs:GetQueueAttributes":
            sqs.get_queue_attributes(**queue, AttributeNames=["QueueArn"])
        case "secretsmanager:GetSecretValue":
            clients["secretsmanager"].get_secret_value(SecretId=target.physical)
        case "events:PutEvents":
            # One more than a call may have.
            entry = {"Source": OBJECT, "DetailType": OBJECT, "Detail": "{}", "EventBusName": target.physical}
            clients["events"].put_events(Entries=[entry] * 11)
        case _:
            raise ValueError(action)


def is_allowed(clients: dict[str, Any], probe: tuple[str, Target]) -> bool:
    try:
        call(clients, *probe)
    except ClientError as error:
        return "AccessDenied" not in error.response["Error"]["Code"]
    return True


@pytest.fixture(scope="module")
def template() -> Template:
    """As the stack is deployed."""
    return apply_parameters(
        transform_template(read_template()), LocalMode="true", HubOnMiss="IMPORT", AuditRetentionDays="30"
    )


def list_physical_ids(state: StackState) -> dict[str, str]:
    """The ids of all resources by their names in the template."""
    cloudformation = open_session().client("cloudformation", endpoint_url=state.aws_endpoint_url)
    pages = cloudformation.get_paginator("list_stack_resources").paginate(StackName=state.stack_name)
    return {r["LogicalResourceId"]: r["PhysicalResourceId"] for page in pages for r in page["StackResourceSummaries"]}


@pytest.fixture(scope="module")
def physical(stack: Stack) -> dict[str, str]:
    return list_physical_ids(stack.state)


@pytest.fixture(scope="module")
def probes(stack: Stack, template: Template, physical: dict[str, str]) -> Iterator[list[tuple[str, Target]]]:
    """Everything to try, with what it takes: an object in each prefix, and a secret of somebody else's."""
    targets = list(list_targets(template, physical))
    secrets = open_session().client("secretsmanager", endpoint_url=stack.state.aws_endpoint_url)
    secrets.create_secret(Name=SECRET, SecretString="hush")
    targets.append(Target("AWS::SecretsManager::Secret", SECRET, "", SECRET))
    targets.append(Target("AWS::Events::EventBus", rules.DEFAULT_BUS, "", "default"))
    stored = [target for target in targets if target.kind == "object"]
    for target in stored:
        stack.s3.put_object(Bucket=target.physical, Key=target.place.replace("*", OBJECT), Body=b"x")
    yield [(action, target) for target in targets for action in ACTIONS[target.kind]]
    for target in stored:
        stack.s3.delete_object(Bucket=target.physical, Key=target.place.replace("*", OBJECT))
    secrets.delete_secret(SecretId=SECRET, ForceDeleteWithoutRecovery=True)


def list_targets(template: Template, physical: dict[str, str]) -> Iterator[Target]:
    for kind in ("AWS::S3::Bucket", "AWS::DynamoDB::Table", "AWS::SQS::Queue"):
        for name, properties in rules.list_resources(template, kind):
            yield Target(kind, name, "", physical[name], list_key(properties))
            for prefix in sorted(rules.OBJECT_PREFIXES.get(name, ())) if kind == "AWS::S3::Bucket" else ():
                yield Target("object", name, prefix, physical[name])
            for index in properties.get("GlobalSecondaryIndexes", []):
                yield Target("index", name, f"index/{index['IndexName']}", physical[name], list_key(index))


def list_key(described: dict[str, Any]) -> tuple[str, ...]:
    return tuple(part["AttributeName"] for part in described.get("KeySchema", []))


def list_functions(template: Template) -> dict[str, str]:
    """Role by function."""
    return {
        name: rules.find_target(properties["Role"]) or ""
        for name, properties in rules.list_resources(template, "AWS::Lambda::Function")
    }


def open_clients(endpoint: str, session: boto3.Session) -> dict[str, Any]:
    config = Config(
        s3={"addressing_style": "path"}, signature_version="v4", retries={"max_attempts": 1}, max_pool_connections=8
    )
    # mypy's stubs know literal names only.
    client: Callable[..., Any] = session.client
    return {service: client(service, endpoint_url=endpoint, config=config) for service in SERVICES}


def assume_role(state: StackState, role: str) -> boto3.Session:
    """The role is lent to the account's owner for as long as that takes."""
    endpoint = state.aws_endpoint_url
    client: Callable[..., Any] = open_session().client
    iam, sts = client("iam", endpoint_url=endpoint), client("sts", endpoint_url=endpoint)
    described = iam.get_role(RoleName=role)["Role"]
    trusted = described["AssumeRolePolicyDocument"]
    owner = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": described["Arn"].split(":")[4]}}
    lent = {**trusted, "Statement": [*trusted["Statement"], owner]}
    iam.update_assume_role_policy(RoleName=role, PolicyDocument=json.dumps(lent))
    try:
        keys = sts.assume_role(RoleArn=described["Arn"], RoleSessionName="test")["Credentials"]
    finally:
        iam.update_assume_role_policy(RoleName=role, PolicyDocument=json.dumps(trusted))
    return boto3.Session(keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"], state.region)


def list_allowed(clients: dict[str, Any], probes: list[tuple[str, Target]]) -> set[tuple[str, str, str]]:
    """(action, resource, prefix or index)."""
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(partial(is_allowed, clients), probes)
        return {(action, t.name, t.place) for (action, t), allowed in zip(probes, answers, strict=True) if allowed}


def list_granted(template: Template, role: str) -> set[tuple[str, str, str]]:
    grants = rules.map_grants(rules.list_statements(template, role))
    return {
        (action, name, place)
        for (name, place), actions in grants.items()
        for action in actions
        if action.startswith(tuple(f"{service}:" for service in SERVICES))
        # Lambda's poller reads those, and it is not held to the role on the local stack.
        if not place.startswith("stream/")
    }


@pytest.fixture(scope="module")
def allowed(
    stack: Stack, template: Template, physical: dict[str, str], probes: list[tuple[str, Target]]
) -> dict[str, set[tuple[str, str, str]]]:
    """What each function was not denied."""
    return {
        function: list_allowed(
            open_clients(stack.state.aws_endpoint_url, assume_role(stack.state, physical[role])), probes
        )
        for function, role in list_functions(template).items()
    }


def test_the_owner_is_denied_nothing(stack: Stack, probes: list[tuple[str, Target]]) -> None:
    """So that a denial means a lack of permission."""
    everything = {(action, target.name, target.place) for action, target in probes}
    assert list_allowed(open_clients(stack.state.aws_endpoint_url, open_session()), probes) == everything


def test_each_function_may_do_what_the_template_grants_and_nothing_else(
    template: Template, allowed: dict[str, set[tuple[str, str, str]]], probes: list[tuple[str, Target]]
) -> None:
    tried = {(action, target.name, target.place) for action, target in probes}
    for function, role in list_functions(template).items():
        granted = list_granted(template, role)
        assert granted <= tried, f"{function}: nobody tries {granted - tried}"
        assert allowed[function] == granted, function


@pytest.mark.parametrize(("function", "action", "name", "place"), NEIGHBOURS)
def test_a_neighbours_doing_is_denied(
    allowed: dict[str, set[tuple[str, str, str]]],
    probes: list[tuple[str, Target]],
    function: str,
    action: str,
    name: str,
    place: str,
) -> None:
    assert (action, name, place) in {(action, target.name, target.place) for action, target in probes}
    assert (action, name, place) not in allowed[function]
