"""Resources as they are, compared with the template that CloudFormation has deployed."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from botocore.exceptions import ClientError

from deployment.quota import CONSUMER_SHARE
from deployment.verify.registry import Verification, check
from deployment.verify.results import CheckFailedError, expect, expect_true

SECTION = "resources"
FAILURE_CONSUMER = "RecordFailureFunction"
MIN_CONCURRENCY = 2
_BUCKETS = ("ModelsBucket", "IncomingBucket")
_PUBLIC_ACCESS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
_DROPPED = "the local stack drops these properties of the template"


def find_properties(verification: Verification, resource_type: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the logical ID, the physical ID and the properties in the template of each resource of a type."""
    for resource in verification.stack.select(resource_type):
        properties = verification.stack.template[resource.logical_id].get("Properties", {})
        yield resource.logical_id, resource.physical_id, properties


def expect_literals(seen: Mapping[str, Any], template: Mapping[str, Any], names: tuple[str, ...], subject: str) -> None:
    """Compare properties whose values in the template do not depend on parameters."""
    for name in names:
        if isinstance(template.get(name), str | int | bool):
            expect(str(seen.get(name)), str(template[name]), f"{name} of {subject}")


def find_key(verification: Verification) -> str:
    """Return the ARN of the customer managed key that encrypts the resources, or ""."""
    return verification.stack.parameters.get("KmsKeyArn", "")


@check("stack", SECTION)
def check_stack(verification: Verification) -> str:
    """The stack, its nested stack and all their resources are complete."""
    stack = verification.stack
    resources = [*stack.resources, *stack.monitoring]
    states = {stack.name: stack.status} | {resource.logical_id: resource.status for resource in resources}
    for name, status in states.items():
        complete = status.endswith("_COMPLETE") and "ROLLBACK" not in status and not status.startswith("DELETE")
        expect_true(complete, f"{name} is {status}")
    return f"{stack.status}, {len(resources)} resources"


@check("functions", SECTION)
def check_functions(verification: Verification) -> str:
    """Functions are active. Architecture, timeout, memory and recursion are those of the template, and numbers in
    their environment are integers.
    """
    architecture = verification.stack.parameters.get("Architecture")
    count = 0
    for logical_id, name, template in find_properties(verification, "AWS::Lambda::Function"):
        found = verification.clients.functions.get_function_configuration(FunctionName=name)
        expect(found.get("State", "Active"), "Active", f"State of {name}")
        expect(found.get("LastUpdateStatus", "Successful"), "Successful", f"LastUpdateStatus of {name}")
        expect(found["Architectures"], [architecture], f"Architectures of {name}")
        expect_literals(found, template, ("Timeout", "MemorySize", "Runtime"), name)
        for variable, value in found.get("Environment", {}).get("Variables", {}).items():
            # CloudFormation may write 40000000000 as 4.0E10.
            is_number = re.fullmatch(r"\d+(\.\d+)?([Ee][+-]?\d+)?", value)
            expect_true(not is_number or value.isdigit(), f"{variable} of {name} is {value!r}, expected an integer")
        if key := find_key(verification):
            expect(found.get("KMSKeyArn"), key, f"KMSKeyArn of {name}")
        if "RecursiveLoop" in template and not verification.target.is_local:
            recursion = verification.clients.functions.get_function_recursion_config(FunctionName=name)
            expect(recursion["RecursiveLoop"], template["RecursiveLoop"], f"RecursiveLoop of {logical_id}")
        count += 1
    expect_true(count, "the stack has no functions")
    return f"{count} functions, {architecture}"


@check("layers", SECTION, not_on_local="the local stack does not record the architecture of layers")
def check_layers(verification: Verification) -> str:
    """The layers are declared for the architecture of the functions."""
    architecture = verification.stack.parameters["Architecture"]
    layers = verification.stack.select("AWS::Lambda::LayerVersion")
    for layer in layers:
        found = verification.clients.functions.get_layer_version_by_arn(Arn=layer.physical_id)
        expect(found.get("CompatibleArchitectures"), [architecture], f"CompatibleArchitectures of {layer.logical_id}")
    return f"{len(layers)} layers, {architecture}"


@check("event-sources", SECTION)
def check_event_sources(verification: Verification) -> str:
    """The functions receive messages, report failed messages one by one, and have a maximum concurrency."""
    maxima = {}
    for function, mapping in list_mappings(verification):
        expect(mapping["State"], "Enabled", f"State of the event source mapping of {function}")
        expect_true(
            "ReportBatchItemFailures" in mapping.get("FunctionResponseTypes", []),
            f"the event source mapping of {function} does not report failed messages",
        )
        if ":sqs:" in mapping["EventSourceArn"]:
            maximum = mapping.get("ScalingConfig", {}).get("MaximumConcurrency")
            expect_true((maximum or 0) >= MIN_CONCURRENCY, f"MaximumConcurrency of {function} is {maximum}")
            maxima[mapping["EventSourceArn"]] = maximum
    expect_true(maxima, "no function receives messages of a queue")
    return f"{len(maxima)} queues, maximum concurrency {sum(maxima.values())}"


@check("concurrency", SECTION, not_on_local="the local stack has no concurrency quota")
def check_concurrency(verification: Verification) -> str:
    """The consumers of the queues leave a part of the account's concurrency to API requests."""
    maximum = sum(
        mapping.get("ScalingConfig", {}).get("MaximumConcurrency", 0)
        for function, mapping in list_mappings(verification)
        if function != FAILURE_CONSUMER
    )
    limit = verification.clients.functions.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"]
    expect_true(
        maximum <= CONSUMER_SHARE * limit,
        f"imports may use {maximum} of {limit} concurrent functions of the account, and starve API requests. Lower "
        "TransferConcurrency, or raise the quota",
    )
    return f"imports may use {maximum} of {limit}"


@check("queues", SECTION)
def check_queues(verification: Verification) -> str:
    """Queues have the visibility timeout, the redrive policy and the retention of the template."""
    count = 0
    for logical_id, url, template in find_properties(verification, "AWS::SQS::Queue"):
        response: Any = verification.clients.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
        found = response["Attributes"]
        expect_literals(found, template, ("VisibilityTimeout", "MessageRetentionPeriod"), logical_id)
        if redrive := template.get("RedrivePolicy"):
            seen = json.loads(found.get("RedrivePolicy", "{}"))
            expect(
                str(seen.get("maxReceiveCount")), str(redrive["maxReceiveCount"]), f"maxReceiveCount of {logical_id}"
            )
        if not verification.target.is_local:
            if key := find_key(verification):
                expect(found.get("KmsMasterKeyId"), key, f"KmsMasterKeyId of {logical_id}")
            else:
                expect(found.get("SqsManagedSseEnabled"), "true", f"SqsManagedSseEnabled of {logical_id}")
        count += 1
    return f"{count} queues"


@check("dead-letters", SECTION)
def check_dead_letters(verification: Verification) -> str:
    """No queue of dead letters or of unpublished events has messages."""
    names = [
        name for name in verification.stack.outputs if name.endswith(("DeadLetterQueueUrl", "UnpublishedEndsQueueUrl"))
    ]
    for name in names:
        found = verification.clients.sqs.get_queue_attributes(
            QueueUrl=verification.stack.outputs[name], AttributeNames=["ApproximateNumberOfMessages"]
        )
        expect(found["Attributes"]["ApproximateNumberOfMessages"], "0", f"number of messages in {name}")
    return f"{len(names)} queues are empty"


@check("tables", SECTION, not_on_local=_DROPPED)
def check_tables(verification: Verification) -> str:
    """Tables have the expiry, the point-in-time recovery and the deletion protection of the template."""
    count = 0
    for logical_id, name, template in find_properties(verification, "AWS::DynamoDB::Table"):
        table = verification.clients.dynamodb.describe_table(TableName=name)["Table"]
        expect(table["TableStatus"], "ACTIVE", f"TableStatus of {logical_id}")
        expect_literals(table, template, ("DeletionProtectionEnabled",), logical_id)
        if key := find_key(verification):
            expect(table.get("SSEDescription", {}).get("KMSMasterKeyArn"), key, f"KMSMasterKeyArn of {logical_id}")
        expiry = verification.clients.dynamodb.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
        attribute = template.get("TimeToLiveSpecification", {}).get("AttributeName")
        expect(expiry.get("AttributeName"), attribute, f"expiry attribute of {logical_id}")
        if attribute:
            expect(expiry["TimeToLiveStatus"], "ENABLED", f"TimeToLiveStatus of {logical_id}")
        backups = verification.clients.dynamodb.describe_continuous_backups(TableName=name)
        recovery = backups["ContinuousBackupsDescription"]["PointInTimeRecoveryDescription"]
        enabled = template.get("PointInTimeRecoverySpecification", {}).get("PointInTimeRecoveryEnabled")
        expected = "ENABLED" if enabled else "DISABLED"
        expect(recovery["PointInTimeRecoveryStatus"], expected, f"point-in-time recovery of {logical_id}")
        count += 1
    return f"{count} tables"


@check("buckets", SECTION)
def check_buckets(verification: Verification) -> str:
    """Buckets are encrypted and private, and no access control lists apply."""
    s3 = verification.clients.s3
    for logical_id in _BUCKETS:
        name = verification.stack.find(logical_id)
        encryption = s3.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"]
        default = encryption["Rules"][0]["ApplyServerSideEncryptionByDefault"]
        expect_true(
            default["SSEAlgorithm"] in {"AES256", "aws:kms"},
            f"SSEAlgorithm of {logical_id} is {default['SSEAlgorithm']}",
        )
        if key := find_key(verification):
            expect(default.get("KMSMasterKeyID"), key, f"KMSMasterKeyID of {logical_id}")
        access: Mapping[str, Any] = s3.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"]
        for setting in _PUBLIC_ACCESS:
            expect(access.get(setting), True, f"{setting} of {logical_id}")
        ownership = s3.get_bucket_ownership_controls(Bucket=name)["OwnershipControls"]["Rules"][0]["ObjectOwnership"]
        expect(ownership, "BucketOwnerEnforced", f"ObjectOwnership of {logical_id}")
    incoming = s3.get_bucket_notification_configuration(Bucket=verification.stack.find("IncomingBucket"))
    expect_true("EventBridgeConfiguration" in incoming, "IncomingBucket sends no events to EventBridge")
    return "encrypted and private"


@check("lifecycle", SECTION, not_on_local=_DROPPED)
def check_lifecycle(verification: Verification) -> str:
    """Buckets have the lifecycle rules of the template."""
    count = 0
    for logical_id in _BUCKETS:
        template = verification.stack.template[logical_id]["Properties"]["LifecycleConfiguration"]["Rules"]
        name = verification.stack.find(logical_id)
        found = verification.clients.s3.get_bucket_lifecycle_configuration(Bucket=name)
        rules: dict[str, Any] = {rule.get("ID", ""): rule for rule in found["Rules"]}
        for expected in template:
            subject = f"lifecycle rule {expected['Id']} of {logical_id}"
            rule = rules.get(expected["Id"])
            if rule is None:
                raise CheckFailedError(f"{subject} does not exist")
            expect(rule["Status"], "Enabled", f"Status of {subject}")
            prefix = rule.get("Filter", {}).get("Prefix", rule.get("Prefix")) or None
            expect(prefix, expected.get("Prefix"), f"prefix of {subject}")
            seen = (rule.get("Expiration", {}).get("Days"), _find_abort_days(rule))
            expect(seen, (expected.get("ExpirationInDays"), _find_abort_days(expected)), f"days of {subject}")
            noncurrent = _find_noncurrent_days(expected, verification.stack.parameters)
            expect(_find_noncurrent_days(rule, {}), noncurrent, f"noncurrent days of {subject}")
            count += 1
    return f"{count} rules"


@check("plain-http", SECTION, not_on_local="the local stack has no TLS")
def check_plain_http(verification: Verification) -> str:
    """The buckets and the queues reject requests without TLS, also those of an operator."""
    for logical_id in _BUCKETS:
        name = verification.stack.find(logical_id)
        _expect_denied(logical_id, partial(verification.clients.plain_s3.list_objects_v2, Bucket=name, MaxKeys=1))
    queues = verification.stack.select("AWS::SQS::Queue")
    for queue in queues:
        # boto3 sends to the scheme of the endpoint, not to that of the URL of the queue.
        call = verification.clients.plain_sqs.get_queue_attributes
        _expect_denied(queue.logical_id, partial(call, QueueUrl=queue.physical_id, AttributeNames=["QueueArn"]))
    return f"AccessDenied for {len(_BUCKETS)} buckets and {len(queues)} queues"


@check("gateway-responses", SECTION, not_on_local="the local stack ignores gateway responses in an API's definition")
def check_gateway_responses(verification: Verification) -> str:
    """The APIs have the gateway responses of the template."""
    count = 0
    for logical_id, api_id, template in find_properties(verification, "AWS::ApiGateway::RestApi"):
        expected = set(template["Body"].get("x-amazon-apigateway-gateway-responses", {}))
        found = verification.clients.apigateway.get_gateway_responses(restApiId=api_id, limit=500)["items"]
        customized = {response["responseType"] for response in found if not response.get("defaultResponse")}
        expect_true(customized >= expected, f"{logical_id} lacks the gateway responses {sorted(expected - customized)}")
        count += len(customized)
    return f"{count} gateway responses"


def list_mappings(verification: Verification) -> Iterator[tuple[str, Any]]:
    """Yield the logical ID of each function, with each of its event source mappings."""
    for function in verification.stack.select("AWS::Lambda::Function"):
        found = verification.clients.functions.list_event_source_mappings(FunctionName=function.physical_id)
        for mapping in found["EventSourceMappings"]:
            yield function.logical_id, mapping


def _expect_denied(name: str, call: Callable[[], object]) -> None:
    try:
        call()
    except ClientError as error:
        code = error.response["Error"]["Code"]
        expect_true(code.startswith("AccessDenied"), f"{name} rejects a request without TLS with {code}")
    else:
        raise CheckFailedError(f"{name} accepts requests without TLS")


def _find_abort_days(rule: Mapping[str, Any]) -> int | None:
    days: int | None = rule.get("AbortIncompleteMultipartUpload", {}).get("DaysAfterInitiation")
    return days


def _find_noncurrent_days(rule: Mapping[str, Any], parameters: Mapping[str, str]) -> int | None:
    match rule.get("NoncurrentVersionExpiration", {}).get("NoncurrentDays"):
        case {"Ref": str(name)}:
            return int(parameters[name])
        case days:
            return days if days is None else int(days)
