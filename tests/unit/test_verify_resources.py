"""Each check of AWS resources passes on what the template describes, and fails when one property differs."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import Any

import pytest
from botocore.exceptions import ClientError

from deployment.verify.checks import CHECKS
from deployment.verify.checks.monitoring import IMPORT_METRICS, EventListener, list_log_groups, list_metrics
from deployment.verify.registry import Verification
from deployment.verify.results import Outcome
from deployment.verify.runner import run_check
from deployment.verify.target import HUB_FILES, HUB_MODEL, Target, parse_model
from modelhaul.ports.metrics import CATALOG
from tests.fakes.canned_aws import AwsError, CannedAws
from tests.template.transformed import apply_parameters, read_template, transform_main_template

STACK = "two"
NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
ARN = "arn:aws:sqs:us-east-1:123456789012:"
API_LOGS = "ApiAccessLogGroup"
PARAMETERS = {"Architecture": "arm64", "AuthMode": "API_KEY", "PicklePolicy": "block", "ApiAccessLogs": "on"}
MONITORING = {
    "Dashboard": ("AWS::CloudWatch::Dashboard", STACK),
    "DeadLettersAlarm": ("AWS::CloudWatch::Alarm", f"{STACK}-dead-letters"),
    "NotificationsTopic": ("AWS::SNS::Topic", "arn:aws:sns:us-east-1:123456789012:topic"),
}


@cache
def transform() -> dict[str, Any]:
    return transform_main_template(read_template())


def find_resources(resource_type: str) -> dict[str, Any]:
    """Properties by logical ID."""
    resources = transform()["Resources"].items()
    return {name: r.get("Properties", {}) for name, r in resources if r["Type"] == resource_type}


def name_resource(logical_id: str, resource_type: str) -> str:
    """The physical ID."""
    match resource_type:
        case "AWS::SQS::Queue":
            return f"https://sqs/123456789012/{logical_id}"
        case "AWS::Logs::LogGroup":
            return f"/aws/{'apigateway' if logical_id == API_LOGS else 'lambda'}/{logical_id}"
    return logical_id


def list_resources(parameters: dict[str, Any]) -> dict[str, Any]:
    if parameters["StackName"] == STACK:
        resources = apply_parameters(transform(), **PARAMETERS)["Resources"].items()
        found = {name: (r["Type"], name_resource(name, r["Type"])) for name, r in resources}
    else:
        found = MONITORING
    summaries = [
        {
            "LogicalResourceId": name,
            "PhysicalResourceId": physical_id,
            "ResourceType": resource_type,
            "ResourceStatus": "CREATE_COMPLETE",
            "LastUpdatedTimestamp": NOW,
        }
        for name, (resource_type, physical_id) in found.items()
    ]
    return {"StackResourceSummaries": summaries}


def describe_stack(_: dict[str, Any], **parameters: str) -> dict[str, Any]:
    names = ("DeadLetterQueueUrl", "UnpublishedEndsQueueUrl")
    stack = {
        "StackName": STACK,
        "StackId": f"arn:aws:cloudformation:us-east-1:123456789012:stack/{STACK}/1",
        "CreationTime": NOW,
        "StackStatus": "UPDATE_COMPLETE",
        "Parameters": [
            {"ParameterKey": key, "ParameterValue": value} for key, value in (PARAMETERS | parameters).items()
        ],
        "Outputs": [{"OutputKey": name, "OutputValue": f"https://sqs/123456789012/{name}"} for name in names],
    }
    return {"Stacks": [stack]}


def describe_function(parameters: dict[str, Any]) -> dict[str, Any]:
    template = find_resources("AWS::Lambda::Function")[parameters["FunctionName"]]
    return {
        "State": "Active",
        "LastUpdateStatus": "Successful",
        "Architectures": ["arm64"],
        "Runtime": template["Runtime"],
        "Timeout": template["Timeout"],
        "MemorySize": template["MemorySize"],
        "Environment": {
            "Variables": {
                "ARCHIVE_MAX_ENTRY_BYTES": "40000000000",
                "LOG_LEVEL": "INFO",
                "URL": "3d.x",
                "ALLOWED_HOSTS": "10.0.0.5",
            }
        },
    }


def list_mappings(parameters: dict[str, Any]) -> dict[str, Any]:
    found = find_resources("AWS::Lambda::EventSourceMapping").values()
    mappings = [
        {
            "EventSourceArn": f"{ARN}{mapping['EventSourceArn']['Fn::GetAtt'][0]}",
            "State": "Enabled",
            "FunctionResponseTypes": mapping.get("FunctionResponseTypes", []),
            "ScalingConfig": {"MaximumConcurrency": 5},
        }
        for mapping in found
        if mapping["FunctionName"] == {"Ref": parameters["FunctionName"]} and "Queue" in str(mapping["EventSourceArn"])
    ]
    return {"EventSourceMappings": mappings}


def describe_queue(parameters: dict[str, Any]) -> dict[str, Any]:
    if parameters["AttributeNames"] == ["QueueArn"]:
        # Only the requests without TLS.
        raise AwsError("AccessDeniedException")
    template = find_resources("AWS::SQS::Queue").get(parameters["QueueUrl"].rpartition("/")[2], {})
    attributes = {"SqsManagedSseEnabled": "true", "ApproximateNumberOfMessages": "0"}
    for name in ("VisibilityTimeout", "MessageRetentionPeriod"):
        attributes[name] = str(template.get(name, 60))
    attributes["RedrivePolicy"] = json.dumps(
        {"maxReceiveCount": template.get("RedrivePolicy", {}).get("maxReceiveCount", 1)}
    )
    return {"Attributes": attributes}


def describe_table(parameters: dict[str, Any]) -> dict[str, Any]:
    # Off by default.
    return {"Table": {"TableStatus": "ACTIVE", "DeletionProtectionEnabled": False}}


def describe_expiry(parameters: dict[str, Any]) -> dict[str, Any]:
    expiry = find_resources("AWS::DynamoDB::Table")[parameters["TableName"]].get("TimeToLiveSpecification")
    if expiry is None:
        return {"TimeToLiveDescription": {"TimeToLiveStatus": "DISABLED"}}
    return {"TimeToLiveDescription": {"TimeToLiveStatus": "ENABLED", "AttributeName": expiry["AttributeName"]}}


def describe_backups(parameters: dict[str, Any]) -> dict[str, Any]:
    has_recovery = "PointInTimeRecoverySpecification" in find_resources("AWS::DynamoDB::Table")[parameters["TableName"]]
    status = "ENABLED" if has_recovery else "DISABLED"
    recovery = {"PointInTimeRecoveryStatus": status}
    return {
        "ContinuousBackupsDescription": {
            "ContinuousBackupsStatus": "ENABLED",
            "PointInTimeRecoveryDescription": recovery,
        }
    }


def describe_lifecycle(parameters: dict[str, Any]) -> dict[str, Any]:
    buckets = apply_parameters(transform(), **PARAMETERS)["Resources"]
    template = buckets[parameters["Bucket"]]["Properties"]["LifecycleConfiguration"]["Rules"]
    rules = []
    for rule in template:
        found: dict[str, Any] = {
            "ID": rule["Id"],
            "Status": rule["Status"],
            "Filter": {"Prefix": rule.get("Prefix", "")},
        }
        if "ExpirationInDays" in rule:
            found["Expiration"] = {"Days": rule["ExpirationInDays"]}
        if "AbortIncompleteMultipartUpload" in rule:
            found["AbortIncompleteMultipartUpload"] = rule["AbortIncompleteMultipartUpload"]
        rules.append(found)
    return {"Rules": rules}


def describe_gateway_responses(parameters: dict[str, Any]) -> dict[str, Any]:
    body = find_resources("AWS::ApiGateway::RestApi")[parameters["restApiId"]]["Body"]
    kinds = body["x-amazon-apigateway-gateway-responses"]
    return {"items": [{"responseType": kind, "defaultResponse": False} for kind in kinds]}


def deny(parameters: dict[str, Any]) -> dict[str, Any]:
    raise AwsError("AccessDenied")


PUBLIC_ACCESS = {
    "BlockPublicAcls": True,
    "IgnorePublicAcls": True,
    "BlockPublicPolicy": True,
    "RestrictPublicBuckets": True,
}
ENCRYPTION = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}
WIDGET = {
    "type": "metric",
    "properties": {
        "metrics": [
            [{"expression": "m1*2", "id": "e1"}],
            ["Modelhaul", "ImportsAccepted", "service", STACK, {"label": "accepted"}],
            ["AWS/SQS", "ApproximateAgeOfOldestMessage", "QueueName", "PlanQueue"],
            ["AWS/Lambda", "Errors", "FunctionName", "PlanImportFunction"],
            [".", "Throttles", ".", "."],
            ["...", "TransferFilesFunction"],
        ]
    },
}
REPORT = (
    "REPORT RequestId: 1\tDuration: 12.3 ms\tBilled Duration: 13 ms\tMemory Size: 512 MB\tMax Memory Used: 180 MB\t\n"
)

RESPONSES: dict[str, Any] = {
    "cloudformation.DescribeStacks": describe_stack,
    "cloudformation.ListStackResources": list_resources,
    "cloudformation.GetTemplate": lambda _: {"TemplateBody": json.dumps(transform())},
    "lambda.GetFunctionConfiguration": describe_function,
    "lambda.GetFunctionRecursionConfig": lambda p: {
        "RecursiveLoop": find_resources("AWS::Lambda::Function")[p["FunctionName"]]["RecursiveLoop"]
    },
    "lambda.GetLayerVersionByArn": {"CompatibleArchitectures": ["arm64"]},
    "lambda.ListEventSourceMappings": list_mappings,
    "lambda.GetAccountSettings": {"AccountLimit": {"UnreservedConcurrentExecutions": 1000}},
    "sqs.GetQueueAttributes": describe_queue,
    "dynamodb.DescribeTable": describe_table,
    "dynamodb.DescribeTimeToLive": describe_expiry,
    "dynamodb.DescribeContinuousBackups": describe_backups,
    "s3.GetBucketEncryption": {"ServerSideEncryptionConfiguration": ENCRYPTION},
    "s3.GetPublicAccessBlock": {"PublicAccessBlockConfiguration": PUBLIC_ACCESS},
    "s3.GetBucketOwnershipControls": {"OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}},
    "s3.GetBucketNotificationConfiguration": {"EventBridgeConfiguration": {}},
    "s3.GetBucketLifecycleConfiguration": describe_lifecycle,
    "s3.ListObjectsV2": deny,
    "apigateway.GetGatewayResponses": describe_gateway_responses,
    "cloudwatch.DescribeAlarms": lambda p: {
        "MetricAlarms": [{"AlarmName": name, "StateValue": "OK", "ActionsEnabled": True} for name in p["AlarmNames"]]
    },
    "cloudwatch.GetDashboard": {"DashboardBody": json.dumps({"widgets": [WIDGET]})},
    "sns.ListSubscriptionsByTopic": {
        "Subscriptions": [{"SubscriptionArn": "arn:aws:sns:us-east-1:123456789012:topic:1", "Endpoint": "a@b"}]
    },
    "logs.FilterLogEvents": lambda p: {"events": [{"message": REPORT}] if p["filterPattern"] == "REPORT" else []},
    "xray.GetTraceSummaries": {
        "TraceSummaries": [
            {"ServiceIds": [{"Type": "AWS::ApiGateway::Stage"}, {"Type": "AWS::Lambda::Function"}]},
        ]
    },
}


def replace(operation: str, change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """The same response to an operation, with a change."""

    def respond(parameters: dict[str, Any]) -> dict[str, Any]:
        found = RESPONSES[operation]
        response: dict[str, Any] = json.loads(json.dumps(found(parameters) if callable(found) else found, default=str))
        change(response)
        return response

    return {operation: respond}


def open_verification(responses: dict[str, Any]) -> Verification:
    aws = CannedAws()
    aws.responses = {**RESPONSES, **responses}
    return Verification(Target(aws.session, STACK, parse_model(HUB_MODEL, HUB_FILES), None), NOW, "0123abcd")


NAMES = [
    "stack",
    "functions",
    "layers",
    "event-sources",
    "concurrency",
    "queues",
    "dead-letters",
    "tables",
    "buckets",
    "lifecycle",
    "plain-http",
    "gateway-responses",
    "alarms",
    "notifications",
    "logs",
    "memory",
    "dashboard",
    "traces",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_stack_as_in_the_template_passes(name: str) -> None:
    assert run_check(CHECKS[name], open_verification({}))[0] is Outcome.PASS


KEY = {
    "cloudformation.DescribeStacks": lambda p: describe_stack(p, KmsKeyArn="arn:aws:kms:us-east-1:123456789012:key/1")
}

FAULTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "stack rolled back": (
        "stack",
        {"cloudformation.DescribeStacks": lambda p: _set_status(describe_stack(p), "UPDATE_ROLLBACK_COMPLETE")},
        "two is UPDATE_ROLLBACK_COMPLETE",
    ),
    "function inactive": (
        "functions",
        replace("lambda.GetFunctionConfiguration", lambda r: r.update(State="Failed")),
        "State of .* is 'Failed', expected 'Active'",
    ),
    "number in exponent form": (
        "functions",
        replace(
            "lambda.GetFunctionConfiguration",
            lambda r: r["Environment"]["Variables"].update(ARCHIVE_MAX_ENTRY_BYTES="4.0E+10"),
        ),
        "'4.0E\\+10', expected an integer",
    ),
    "timeout changed": (
        "functions",
        replace("lambda.GetFunctionConfiguration", lambda r: r.update(Timeout=1)),
        "Timeout of .* is '1', expected",
    ),
    "layer of another architecture": (
        "layers",
        {"lambda.GetLayerVersionByArn": {"CompatibleArchitectures": ["x86_64"]}},
        "x86_64",
    ),
    "consumer stopped": (
        "event-sources",
        replace(
            "lambda.ListEventSourceMappings", lambda r: [m.update(State="Disabled") for m in r["EventSourceMappings"]]
        ),
        "is 'Disabled', expected 'Enabled'",
    ),
    "no maximum concurrency": (
        "event-sources",
        replace("lambda.ListEventSourceMappings", lambda r: [m.pop("ScalingConfig") for m in r["EventSourceMappings"]]),
        "MaximumConcurrency of .* is None",
    ),
    "whole batches fail": (
        "event-sources",
        replace(
            "lambda.ListEventSourceMappings",
            lambda r: [m.update(FunctionResponseTypes=[]) for m in r["EventSourceMappings"]],
        ),
        "does not report failed messages",
    ),
    "new account": (
        "concurrency",
        {"lambda.GetAccountSettings": {"AccountLimit": {"UnreservedConcurrentExecutions": 10}}},
        "imports may use 20 of 10",
    ),
    "visibility timeout changed": (
        "queues",
        replace("sqs.GetQueueAttributes", lambda r: r["Attributes"].update(VisibilityTimeout="30")),
        "VisibilityTimeout",
    ),
    "redrive removed": (
        "queues",
        replace("sqs.GetQueueAttributes", lambda r: r["Attributes"].pop("RedrivePolicy")),
        "maxReceiveCount of .* is 'None'",
    ),
    "dead letter": (
        "dead-letters",
        replace("sqs.GetQueueAttributes", lambda r: r["Attributes"].update(ApproximateNumberOfMessages="1")),
        "is '1', expected '0'",
    ),
    "expiry disabled": (
        "tables",
        replace(
            "dynamodb.DescribeTimeToLive", lambda r: r["TimeToLiveDescription"].update(TimeToLiveStatus="DISABLED")
        ),
        "TimeToLiveStatus of .* is 'DISABLED'",
    ),
    "not protected": (
        "tables",
        {"cloudformation.DescribeStacks": lambda p: describe_stack(p, DeletionProtection="on")},
        "DeletionProtectionEnabled of .* is 'False', expected 'True'",
    ),
    "versions kept": (
        "lifecycle",
        {"cloudformation.DescribeStacks": lambda p: describe_stack(p, NoncurrentVersionDays="30")},
        "lifecycle rule expire-staged-versions of ModelsBucket does not exist",
    ),
    "function with another key": ("functions", KEY, "KMSKeyArn of .* is None"),
    "queue with another key": ("queues", KEY, "KmsMasterKeyId of .* is None"),
    "table with another key": ("tables", KEY, "KMSMasterKeyArn of .* is None"),
    "bucket with another key": ("buckets", KEY, "KMSMasterKeyID of .* is None"),
    "recovery disabled": (
        "tables",
        {"dynamodb.DescribeContinuousBackups": lambda _: _describe_recovery("DISABLED")},
        "point-in-time recovery of .* is 'DISABLED', expected 'ENABLED'",
    ),
    "not encrypted": (
        "buckets",
        {"s3.GetBucketEncryption": deny},
        "GetBucketEncryption: denied .*docs/verification.md#permissions",
    ),
    "public": (
        "buckets",
        replace(
            "s3.GetPublicAccessBlock", lambda r: r["PublicAccessBlockConfiguration"].update(RestrictPublicBuckets=False)
        ),
        "RestrictPublicBuckets of ModelsBucket is False",
    ),
    "no events of the bucket": ("buckets", {"s3.GetBucketNotificationConfiguration": {}}, "sends no events"),
    "lifecycle rule removed": (
        "lifecycle",
        replace("s3.GetBucketLifecycleConfiguration", lambda r: r["Rules"].pop(0)),
        "lifecycle rule expire-staging of ModelsBucket does not exist",
    ),
    "lifecycle rule changed": (
        "lifecycle",
        replace("s3.GetBucketLifecycleConfiguration", lambda r: r["Rules"][0]["Expiration"].update(Days=70)),
        r"days of .* is \(70, None\), expected \(7, None\)",
    ),
    "plain HTTP": ("plain-http", {"s3.ListObjectsV2": {}}, "ModelsBucket accepts requests without TLS"),
    "plain HTTP to a queue": ("plain-http", {"sqs.GetQueueAttributes": {}}, "Queue accepts requests without TLS"),
    "gateway response removed": (
        "gateway-responses",
        replace("apigateway.GetGatewayResponses", lambda r: r["items"].pop(0)),
        "lacks the gateway responses",
    ),
    "alarm": (
        "alarms",
        replace("cloudwatch.DescribeAlarms", lambda r: r["MetricAlarms"][0].update(StateValue="ALARM")),
        "in the ALARM state: two-dead-letters",
    ),
    "alarm deleted": ("alarms", {"cloudwatch.DescribeAlarms": {"MetricAlarms": []}}, "missing alarms"),
    "alarm disabled": (
        "alarms",
        replace("cloudwatch.DescribeAlarms", lambda r: r["MetricAlarms"][0].update(ActionsEnabled=False)),
        "disabled actions",
    ),
    "subscription pending": (
        "notifications",
        {
            "sns.ListSubscriptionsByTopic": {
                "Subscriptions": [{"SubscriptionArn": "PendingConfirmation", "Endpoint": "a@b"}]
            }
        },
        "not confirmed yet",
    ),
    "access denied": (
        "logs",
        {"logs.FilterLogEvents": {"events": [{"message": "AccessDeniedException: not authorized"}]}},
        "AccessDeniedException",
    ),
    "stack trace": (
        "logs",
        {"logs.FilterLogEvents": {"events": [{"message": '{"exception":"Traceback (most'}]}},
        "Trace",
    ),
    "timeout": ("logs", {"logs.FilterLogEvents": {"events": [{"message": "1 Task timed out after 25"}]}}, "timed out"),
    "crash": ("logs", {"logs.FilterLogEvents": {"events": [{"message": "Runtime.ExitError"}]}}, "ExitError"),
    "little memory left": (
        "memory",
        {"logs.FilterLogEvents": {"events": [{"message": REPORT.replace("180", "385")}]}},
        "used 385 MB of 512 MB",
    ),
    "dashboard of another stack": (
        "dashboard",
        {"cloudwatch.GetDashboard": {"DashboardBody": json.dumps({"widgets": [WIDGET]}).replace("PlanQueue", "Other")}},
        "QueueName Other, which is not a resource of the stack",
    ),
    "dashboard invalid": ("dashboard", {"cloudwatch.GetDashboard": {"DashboardBody": "{"}}, "is invalid"),
}


def _set_status(response: dict[str, Any], status: str) -> dict[str, Any]:
    response["Stacks"][0]["StackStatus"] = status
    return response


def _describe_recovery(status: str) -> dict[str, Any]:
    return {
        "ContinuousBackupsDescription": {
            "ContinuousBackupsStatus": "ENABLED",
            "PointInTimeRecoveryDescription": {"PointInTimeRecoveryStatus": status},
        }
    }


def test_a_stack_with_a_key_and_versions_passes() -> None:
    key = "arn:aws:kms:us-east-1:123456789012:key/1"
    rule = {"Status": "Enabled", "Filter": {"Prefix": ""}}
    versions = [
        {**rule, "ID": "expire-staged-versions", "Filter": {"Prefix": "staging/"}},
        {**rule, "ID": "expire-versions", "Expiration": {"ExpiredObjectDeleteMarker": True}},
    ]
    for one, days in zip(versions, (1, 30), strict=True):
        one["NoncurrentVersionExpiration"] = {"NoncurrentDays": days}
    responses = {
        "cloudformation.DescribeStacks": lambda p: describe_stack(p, KmsKeyArn=key, NoncurrentVersionDays="30"),
        **replace("lambda.GetFunctionConfiguration", lambda r: r.update(KMSKeyArn=key)),
        **replace("dynamodb.DescribeTable", lambda r: r["Table"].update(SSEDescription={"KMSMasterKeyArn": key})),
        **replace("s3.GetBucketLifecycleConfiguration", lambda r: r["Rules"].extend(versions)),
        "sqs.GetQueueAttributes": lambda p: _encrypt(describe_queue(p), key),
        "s3.GetBucketEncryption": {
            "ServerSideEncryptionConfiguration": {
                "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}}]
            }
        },
    }
    for name in ("functions", "queues", "tables", "buckets", "lifecycle"):
        outcome, detail = run_check(CHECKS[name], open_verification(responses))
        assert outcome is Outcome.PASS, detail


def _encrypt(response: dict[str, Any], key: str) -> dict[str, Any]:
    attributes = response["Attributes"]
    attributes["SqsManagedSseEnabled"] = "false"
    attributes["KmsMasterKeyId"] = key
    return response


def test_a_metric_of_denied_requests_is_no_error() -> None:
    verification = open_verification({"logs.FilterLogEvents": {"events": [{"message": '{"HubAccessDenied":[1.0]}'}]}})
    assert run_check(CHECKS["logs"], verification)[0] is Outcome.PASS


def test_logs_of_the_apis_are_not_read() -> None:
    groups = list_log_groups(open_verification({}))
    assert f"/aws/apigateway/{API_LOGS}" in {one.physical_id for one in open_verification({}).stack.resources}
    assert {group.rpartition("/")[0] for group in groups} == {"/aws/lambda"}


def test_an_event_twice_is_one_and_two_events_are_two() -> None:
    first, second = ({"id": number, "detail-type": "ImportSucceeded"} for number in ("1", "2"))
    batches = [[], [first], [first, second]]
    responses = {
        "sqs.ReceiveMessage": lambda _: {"Messages": [{"Body": json.dumps(event)} for event in batches.pop(0)]}
    }
    assert EventListener(open_verification(responses)).wait_for_events() == [first, second]


@pytest.mark.parametrize("denied", ["sqs.CreateQueue", "events.PutRule", "events.PutTargets", "sqs.SetQueueAttributes"])
def test_an_event_listener_that_could_not_be_opened_is_closed(denied: str) -> None:
    deleted: list[str] = []

    def record(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
        def respond(_: dict[str, Any]) -> dict[str, Any]:
            deleted.append(name)
            return {}

        return respond

    def reject_unknown_rule(_: dict[str, Any]) -> dict[str, Any]:
        if denied == "events.PutRule":
            raise AwsError("ResourceNotFoundException")
        return {"FailedEntryCount": 0, "FailedEntries": []}

    def reject_unknown_queue(_: dict[str, Any]) -> dict[str, Any]:
        raise AwsError("QueueDoesNotExist")

    responses = {
        "sqs.CreateQueue": {"QueueUrl": "https://sqs/123456789012/queue"},
        "sqs.GetQueueAttributes": {"Attributes": {"QueueArn": f"{ARN}queue"}},
        "sqs.SetQueueAttributes": {},
        "sqs.GetQueueUrl": reject_unknown_queue,
        "sqs.DeleteQueue": record("queue"),
        "events.PutRule": {"RuleArn": "arn:aws:events:us-east-1:123456789012:rule/rule"},
        "events.PutTargets": {"FailedEntryCount": 0, "FailedEntries": []},
        "events.RemoveTargets": reject_unknown_rule,
        "events.DeleteRule": record("rule"),
    }
    listener = EventListener(open_verification(responses | {denied: deny}))
    with pytest.raises(ClientError):
        listener.open()
    listener.close()
    expected = {"sqs.CreateQueue": [], "events.PutRule": ["queue"]}
    assert deleted == expected.get(denied, ["rule", "queue"])


def test_the_metrics_of_an_import_are_those_that_functions_send() -> None:
    assert set(IMPORT_METRICS) <= CATALOG.keys()


def test_memory_without_a_report_line_is_skipped() -> None:
    verification = open_verification({"logs.FilterLogEvents": {"events": [{"message": "START RequestId: 1"}]}})
    assert run_check(CHECKS["memory"], verification)[0] is Outcome.SKIPPED


def test_short_forms_of_metrics_are_expanded() -> None:
    assert list(list_metrics([WIDGET]))[-2:] == [
        ("AWS/Lambda", "Throttles", {"FunctionName": "PlanImportFunction"}),
        ("AWS/Lambda", "Throttles", {"FunctionName": "TransferFilesFunction"}),
    ]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_difference_fails(fault: str) -> None:
    name, responses, message = FAULTS[fault]
    outcome, detail = run_check(CHECKS[name], open_verification(responses))
    assert outcome is Outcome.FAIL
    assert re.search(message, detail), detail


def test_every_check_that_reads_only_aws_has_a_fault() -> None:
    assert {name for name, _, _ in FAULTS.values()} == set(NAMES) - {"traces"}
