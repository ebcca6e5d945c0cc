import copy
import json
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from modelhaul.domain.read_keys import KEY_PATTERN, create_key
from tests.template import rules
from tests.template.transformed import ROOT, Template, apply_parameters, read_template, transform_template

type Mutation = Callable[[dict[str, Any]], object]
"""Breaks the resources of a transformed template."""


@pytest.fixture(scope="module")
def template() -> Template:
    return transform_template(read_template())


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_template_keeps_rule(rule: rules.Rule, template: Template) -> None:
    assert rule(template) == []


def split_path(path: str) -> list[Any]:
    """Fn::If has a colon of its own."""
    keys = [key if key.startswith("Fn::") else key.replace(":", ".") for key in path.split(".")]
    return [int(key) if key.isdigit() else key for key in keys]


def set_property(name: str, path: str, value: object) -> Mutation:
    """`path` has dots between keys and positions; a colon stands for a dot within a key."""

    def mutate(resources: dict[str, Any]) -> None:
        target = resources[name]
        *parents, last = split_path(path)
        for key in parents:
            target = target[key]
        target[last] = value

    return mutate


def drop_property(name: str, path: str) -> Mutation:
    def mutate(resources: dict[str, Any]) -> None:
        target = resources[name]
        *parents, last = split_path(path)
        for key in parents:
            target = target[key]
        del target[last]

    return mutate


def drop_resource(name: str) -> Mutation:
    return lambda resources: resources.pop(name)


def allow(role: str, action: str, resource: object) -> Mutation:
    def mutate(resources: dict[str, Any]) -> None:
        policy = resources[role]["Properties"]["Policies"][0]["PolicyDocument"]
        policy["Statement"].append({"Effect": "Allow", "Action": action, "Resource": resource})

    return mutate


def drop_statement(role: str, sid: str) -> Mutation:
    def mutate(resources: dict[str, Any]) -> None:
        policy = resources[role]["Properties"]["Policies"][0]["PolicyDocument"]
        kept = [statement for statement in policy["Statement"] if statement["Sid"] != sid]
        assert len(kept) < len(policy["Statement"])
        policy["Statement"] = kept

    return mutate


ROUTE = "Properties.Body.paths./upload/huggingface.post"
PATHS = "Properties.Body.paths"
HUB_ROUTE = f"{PATHS}./{{proxy+}}.get.Fn::If.1"
READ_KEY = "Properties.Body.securityDefinitions.ReadKey"
AUTHORIZER = f"{READ_KEY}.x-amazon-apigateway-authorizer"
ACCESS_LOG = "Properties.AccessLogSetting.Fn::If"
SCHEME = "Properties.Body.securityDefinitions.api_key"
STREAM = "PublishEndsFunctionTasksStream"
GATEWAY_ORIGIN = "gatewayresponse:header:Access-Control-Allow-Origin"
RESPONSES = "Properties.Body.x-amazon-apigateway-gateway-responses"
VARIABLES = "Properties.Environment.Variables"
PATTERN = "Properties.EventPattern"
TARGET = "Properties.Targets.0"
STATEMENT = "Properties.PolicyDocument.Statement.0"
ROLE_STATEMENTS = "Properties.Policies.0.PolicyDocument.Statement"
LIFECYCLE = "Properties.LifecycleConfiguration.Rules"
CORS_RULE = "Properties.CorsConfiguration.Fn::If.1.CorsRules.0"
DOCS_RULE = "Properties.CorsConfiguration.CorsRules.0"
MODELS_RULE = "Properties.CorsConfiguration.CorsRules.1.Fn::If.1"
ESM = "TransferFilesFunctionTransferQueue"

MUTATIONS: list[tuple[rules.Rule, Mutation]] = [
    (rules.check_topics, drop_property("ImportSucceededRule", f"{PATTERN}.detail")),
    (rules.check_topics, set_property("ImportFailedRule", f"{PATTERN}.detail.stack", ["modelhaul"])),
    (rules.check_names, set_property("Dashboard", "Properties.DashboardName", {"Ref": "AWS::StackName"})),
    (rules.check_names, set_property("ApiErrorsAlarm", "Properties.AlarmName", "api-errors")),
    (rules.check_names, set_property("ReadDocsLogGroup", "Properties.LogGroupName", {"Fn::Sub": "/aws/lambda/docs"})),
    (rules.check_names, set_property("PlanQueue", "Properties.QueueName", "plan")),
    (
        rules.check_names,
        set_property("ApiErrorsAlarm", "Properties.AlarmName", {"Fn::Sub": "${AWS::StackName}-x-hub-errors"}),
    ),
    (rules.check_publishers, drop_property("PublishEndsRole", f"{ROLE_STATEMENTS}.4.Condition")),
    (rules.check_publishers, set_property("PublishEndsRole", f"{ROLE_STATEMENTS}.4.Resource", "*")),
    (rules.check_visibility, set_property("TransferQueue", "Properties.VisibilityTimeout", 5399)),
    (rules.check_visibility, drop_property("DeadLetterQueue", "Properties.VisibilityTimeout")),
    (rules.check_visibility, set_property("PlanImportFunction", "Properties.Timeout", 901)),
    (rules.check_partial_batches, drop_property(ESM, "Properties.FunctionResponseTypes")),
    (rules.check_concurrency, drop_property(ESM, "Properties.ScalingConfig")),
    (rules.check_dead_letter_queues, drop_property("PlanQueue", "Properties.RedrivePolicy")),
    (rules.check_dead_letter_queues, drop_resource("RecordFailureFunctionDeadLetterQueue")),
    (
        rules.check_dead_letter_queues,
        set_property("PlanQueue", "Properties.RedrivePolicy.maxReceiveCount", 4),
    ),
    (rules.check_dead_letter_queues, set_property("PlanQueue", "Properties.MessageRetentionPeriod", 1209600)),
    (
        rules.check_dead_letter_queues,
        set_property(
            "PlanQueue",
            "Properties.RedrivePolicy.deadLetterTargetArn",
            {"Fn::GetAtt": ["UnpublishedEndsQueue", "Arn"]},
        ),
    ),
    (
        rules.check_attachments,
        set_property("PlanImportRole", "Properties.ManagedPolicyArns", [{"Ref": "TracingPolicy"}] * 11),
    ),
    (rules.check_wildcards, allow("ReadCatalogRole", "dynamodb:*", {"Fn::GetAtt": ["TasksTable", "Arn"]})),
    (rules.check_wildcards, allow("ReadCatalogRole", "dynamodb:GetItem", "*")),
    (rules.check_wildcards, allow("ReadCatalogRole", "s3:GetObject", {"Fn::Sub": "${ModelsBucket.Arn}/*"})),
    (
        rules.check_wildcards,
        allow("ReadCatalogRole", "s3:GetObject", {"Fn::Sub": "${ModelsBucket.Arn}*/models/*"}),
    ),
    (rules.check_wildcards, allow("ReadCatalogRole", "s3:GetObject", {"Fn::Sub": "${ModelsBucket.Arn}/incoming/*"})),
    (
        rules.check_wildcards,
        allow("ReadCatalogRole", "s3:GetObject", {"Fn::Join": ["", ["arn:aws:s3:::x", "*"]]}),
    ),
    (
        rules.check_wildcards,
        set_property(
            "TracingPolicy",
            "Properties.PolicyDocument.Statement.0.Action",
            ["xray:PutTraceSegments", "s3:GetObject"],
        ),
    ),
    (
        rules.check_wildcards,
        set_property("ReadCatalogRole", "Properties.ManagedPolicyArns.0", "arn:aws:iam::aws:policy/ReadOnlyAccess"),
    ),
    (
        rules.check_wildcards,
        lambda resources: resources["ReadCatalogRole"]["Properties"]["Policies"][0]["PolicyDocument"][
            "Statement"
        ].append({"Effect": "Allow", "NotAction": "iam:*", "Resource": "arn:aws:s3:::x"}),
    ),
    (
        rules.check_roles,
        set_property("ReadCatalogFunction", "Properties.Role", {"Fn::GetAtt": ["SweepStaleRole", "Arn"]}),
    ),
    (
        rules.check_roles,
        set_property("ReadCatalogFunction", "Properties.Role", "arn:aws:iam::123456789012:role/admin"),
    ),
    (rules.check_grants, drop_statement("TransferFilesRole", "ConsumeQueue")),
    (rules.check_grants, drop_statement("TransferFilesRole", "IndexContent")),
    (rules.check_grants, drop_property("TransferFilesFunction", f"{VARIABLES}.BLOBS_TABLE")),
    (rules.check_grants, allow("ReadCatalogRole", "dynamodb:Query", {"Fn::GetAtt": ["BlobsTable", "Arn"]})),
    (rules.check_grants, drop_property("CancelTaskFunction", f"{VARIABLES}.INCOMING_BUCKET")),
    (
        rules.check_grants,
        set_property("ReadCatalogFunction", f"{VARIABLES}.INCOMING_BUCKET", {"Ref": "IncomingBucket"}),
    ),
    (
        rules.check_environment,
        set_property("ReadCatalogFunction", f"{VARIABLES}.TASKS_TABLE", {"Ref": "Nothing"}),
    ),
    (
        rules.check_environment,
        set_property("ReadCatalogFunction", f"{VARIABLES}.TASKS_TABLE", {"Ref": "PlanQueue"}),
    ),
    (rules.check_environment, set_property("ReadCatalogFunction", f"{VARIABLES}.LOG", {"Ref": "PlanQueue"})),
    (rules.check_encryption, drop_property("IncomingBucket", "Properties.BucketEncryption")),
    (rules.check_encryption, set_property("PlanQueue", "Properties.SqsManagedSseEnabled", value=False)),
    (rules.check_encryption, drop_property("PlanQueue", "Properties.KmsMasterKeyId")),
    (rules.check_encryption, drop_property("TasksTable", "Properties.SSESpecification")),
    (rules.check_encryption, drop_property("ReadCatalogLogGroup", "Properties.KmsKeyId")),
    (rules.check_encryption, drop_property("ReadCatalogFunction", "Properties.KmsKeyArn")),
    (rules.check_encryption, drop_property("ReadCatalogRole", "Properties.ManagedPolicyArns.1")),
    (rules.check_encryption, drop_property("NotificationsTopic", "Properties.KmsMasterKeyId")),
    (
        rules.check_encryption,
        drop_property(
            "ModelsBucket",
            "Properties.BucketEncryption.ServerSideEncryptionConfiguration.0.Fn::If.1.BucketKeyEnabled",
        ),
    ),
    (rules.check_buckets, drop_property("ModelsBucket", "Properties.VersioningConfiguration")),
    (rules.check_buckets, drop_property("ModelsBucket", f"{LIFECYCLE}.3")),
    (rules.check_buckets, drop_property("ModelsBucket", f"{LIFECYCLE}.4")),
    (rules.check_public_access, drop_property("ModelsBucket", "Properties.PublicAccessBlockConfiguration")),
    (
        rules.check_public_access,
        set_property("ModelsBucket", "Properties.PublicAccessBlockConfiguration.BlockPublicPolicy", value=False),
    ),
    (rules.check_public_access, drop_property("IncomingBucket", "Properties.OwnershipControls")),
    (rules.check_transport, drop_resource("IncomingBucketPolicy")),
    (rules.check_transport, set_property("ModelsBucketPolicy", "Condition", "IsLocal")),
    (
        rules.check_transport,
        set_property(
            "ModelsBucketPolicy",
            "Properties.PolicyDocument.Statement.0.Resource",
            {"Fn::GetAtt": ["ModelsBucket", "Arn"]},
        ),
    ),
    (
        rules.check_transport,
        set_property("QueuePolicy", "Properties.PolicyDocument.Statement.0.Effect", "Allow"),
    ),
    (rules.check_transport, lambda resources: resources["QueuePolicy"]["Properties"]["Queues"].pop()),
    (rules.check_transport, drop_property("ArchiveQueuePolicy", "Properties.PolicyDocument.Statement.1")),
    (
        rules.check_transport,
        set_property("ArchiveQueuePolicy", "Properties.PolicyDocument.Statement.1.Fn::If.0", "IsLocal"),
    ),
    (
        rules.check_buckets,
        lambda resources: resources["ModelsBucket"]["Properties"].pop("LifecycleConfiguration"),
    ),
    (rules.check_buckets, set_property("ModelsBucket", f"{LIFECYCLE}.1.Status", "Disabled")),
    (rules.check_buckets, set_property("ModelsBucket", f"{LIFECYCLE}.0.Prefix", "models/")),
    (rules.check_buckets, set_property("IncomingBucket", f"{LIFECYCLE}.0.Prefix", "other/")),
    (
        rules.check_buckets,
        set_property("ModelsBucket", "Properties.VersioningConfiguration", {"Status": "Enabled"}),
    ),
    (rules.check_buckets, drop_property("IncomingBucket", f"{LIFECYCLE}.3")),
    (rules.check_buckets, set_property("IncomingBucket", f"{LIFECYCLE}.3.ExpirationInDays", 7)),
    (
        rules.check_buckets,
        set_property("IncomingBucket", f"{LIFECYCLE}.4.AbortIncompleteMultipartUpload", {"DaysAfterInitiation": 1}),
    ),
    (rules.check_queue_policies, drop_property("ArchiveQueuePolicy", f"{STATEMENT}.Condition")),
    (
        rules.check_queue_policies,
        set_property("ArchiveQueuePolicy", f"{STATEMENT}.Condition", {"ArnEquals": {"aws:SourceArn": "arn:aws:*"}}),
    ),
    (rules.check_queue_policies, set_property("ArchiveQueuePolicy", f"{STATEMENT}.Principal", "*")),
    (rules.check_queue_policies, set_property("ArchiveQueuePolicy", f"{STATEMENT}.Action", "sqs:*")),
    (
        rules.check_queue_policies,
        set_property("ArchiveQueuePolicy", f"{STATEMENT}.Resource", {"Fn::GetAtt": ["ArchiveQueue", "Arn"]}),
    ),
    (
        rules.check_queue_policies,
        set_property("ArchiveQueuePolicy", f"{STATEMENT}.Resource.1", {"Fn::GetAtt": ["PlanQueue", "Arn"]}),
    ),
    (
        rules.check_queue_policies,
        lambda resources: resources["QueuePolicy"]["Properties"]["Queues"].append({"Ref": "ArchiveQueue"}),
    ),
    (rules.check_arrivals, drop_property("IncomingBucket", "Properties.NotificationConfiguration")),
    (
        rules.check_arrivals,
        set_property(
            "IncomingBucket",
            "Properties.NotificationConfiguration.EventBridgeConfiguration.EventBridgeEnabled",
            value=False,
        ),
    ),
    (rules.check_arrivals, drop_resource("ArchiveArrivedRule")),
    (rules.check_arrivals, set_property("ArchiveArrivedRule", "Properties.State", "DISABLED")),
    (rules.check_arrivals, set_property("ArchiveArrivedRule", f"{PATTERN}.detail-type", ["Object Deleted"])),
    (rules.check_arrivals, set_property("ArchiveArrivedRule", f"{PATTERN}.account", ["123456789012"])),
    (
        rules.check_arrivals,
        set_property("ArchiveArrivedRule", f"{PATTERN}.detail.bucket", {"name": [{"prefix": ""}]}),
    ),
    (
        rules.check_arrivals,
        set_property("ArchiveArrivedRule", f"{PATTERN}.detail.object.key.0", {"wildcard": "*.zip"}),
    ),
    (rules.check_arrivals, set_property("ArchiveArrivedRule", f"{PATTERN}.detail.object.key.0", {"prefix": ""})),
    (rules.check_arrivals, drop_property("ArchiveArrivedRule", f"{PATTERN}.detail.object.key")),
    (
        rules.check_arrivals,
        drop_property("ArchiveArrivedRule", f"{PATTERN}.detail.object.key.0.anything-but.prefix.0"),
    ),
    (rules.check_arrivals, drop_property("ArchiveArrivedRule", f"{TARGET}.RetryPolicy")),
    (rules.check_arrivals, set_property("ArchiveArrivedRule", f"{TARGET}.RetryPolicy.MaximumEventAgeInSeconds", 60)),
    (rules.check_arrivals, drop_property("ArchiveArrivedRule", f"{TARGET}.DeadLetterConfig")),
    (
        rules.check_arrivals,
        set_property("ArchiveArrivedRule", f"{TARGET}.DeadLetterConfig.Arn", {"Fn::GetAtt": ["ArchiveQueue", "Arn"]}),
    ),
    (
        rules.check_arrivals,
        set_property("ArchiveArrivedRule", f"{TARGET}.Arn", {"Fn::GetAtt": ["PlanQueue", "Arn"]}),
    ),
    (rules.check_arrivals, set_property("ArchiveArrivedRule", f"{TARGET}.InputPath", "$.detail")),
    (rules.check_archive_parameters, drop_property("TransferFilesFunction", f"{VARIABLES}.ARCHIVE_MAX_RATIO")),
    (rules.check_archive_parameters, drop_property("AcceptArchiveFunction", f"{VARIABLES}.ARCHIVE_MAX_ENTRIES")),
    (rules.check_archive_parameters, drop_property("PlanImportFunction", f"{VARIABLES}.ARCHIVE_MAX_TOTAL_BYTES")),
    (
        rules.check_archive_parameters,
        set_property("SubmitLocalFunction", f"{VARIABLES}.REQUIRED_FILES", {"Ref": "ArchiveMaxRatio"}),
    ),
    (
        rules.check_archive_parameters,
        allow("CancelTaskRole", "s3:PutObject", {"Fn::Sub": "${IncomingBucket.Arn}/posted/*"}),
    ),
    (
        rules.check_archive_parameters,
        allow("SweepStaleRole", "s3:GetObject", {"Fn::Sub": "${IncomingBucket.Arn}/posted/*"}),
    ),
    (rules.check_closing, set_property("CancelTaskRole", "Properties.ManagedPolicyArns", [])),
    *(
        (rules.check_closing, set_property(role, "Properties.ManagedPolicyArns.1", {"Ref": "TracingPolicy"}))
        for role in ("AcceptArchiveRole", "TransferFilesRole", "SweepStaleRole")
    ),
    *(
        (rules.check_closing, drop_property("EndTasksPolicy", f"Properties.PolicyDocument.Statement.{number}"))
        for number in range(10)
    ),
    (
        rules.check_closing,
        set_property("ReadCatalogRole", "Properties.ManagedPolicyArns.0", {"Ref": "EndTasksPolicy"}),
    ),
    (rules.check_drops, set_property("DropArchivesPolicy", f"{STATEMENT}.Action", "s3:PutObject")),
    (
        rules.check_drops,
        lambda resources: resources["DropArchivesPolicy"]["Properties"]["PolicyDocument"]["Statement"].append(
            {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": {"Fn::GetAtt": ["IncomingBucket", "Arn"]}}
        ),
    ),
    (
        rules.check_drops,
        allow("PublishModelsRole", "s3:DeleteObject", {"Fn::Sub": "${IncomingBucket.Arn}/incoming/*"}),
    ),
    (rules.check_tables, drop_property("ContentTable", "Properties.TimeToLiveSpecification")),
    (rules.check_tables, drop_property("ModelsTable", "Properties.PointInTimeRecoverySpecification")),
    (rules.check_tables, set_property("FilesTable", "Properties.BillingMode", "PROVISIONED")),
    (
        rules.check_tables,
        set_property(
            "ModelsTable",
            "Properties.TimeToLiveSpecification",
            {"AttributeName": "expires_at", "Enabled": True},
        ),
    ),
    (rules.check_retention, drop_property("ModelsBucket", "DeletionPolicy")),
    (rules.check_retention, set_property("ModelsBucket", "DeletionPolicy", "Retain")),
    (rules.check_retention, drop_property("ContentTable", "Properties.DeletionProtectionEnabled")),
    (rules.check_retention, set_property("ModelsTable", "Properties.DeletionProtectionEnabled", value=True)),
    (rules.check_retention, set_property("TasksTable", "UpdateReplacePolicy", "Delete")),
    (rules.check_logs, drop_property("PlanImportLogGroup", "Properties.RetentionInDays")),
    (rules.check_logs, drop_property("PlanImportFunction", "Properties.LoggingConfig")),
    (rules.check_logs, drop_statement("PlanImportRole", "WriteLogs")),
    (
        rules.check_logs,
        set_property("PlanImportFunction", "Properties.LoggingConfig.LogGroup", {"Ref": "SweepStaleLogGroup"}),
    ),
    (rules.check_access_logs, set_property("Apiv1Stage", f"{ACCESS_LOG}.0", "HasHubApi")),
    (rules.check_access_logs, set_property("Apiv1Stage", f"{ACCESS_LOG}.1.Format", '{"path": "$context.path"}')),
    (
        rules.check_access_logs,
        set_property("HubApihfStage", f"{ACCESS_LOG}.1.DestinationArn.Fn::Sub", "arn:aws:s3:::x"),
    ),
    (rules.check_access_logs, drop_property("HubAccessLogGroup", "Properties.RetentionInDays")),
    (rules.check_access_logs, set_property("HubAccessLogGroup", "Condition", "LogsRequests")),
    (rules.check_tracing, drop_property("SweepStaleFunction", "Properties.TracingConfig")),
    (rules.check_tracing, set_property("SweepStaleRole", "Properties.ManagedPolicyArns", [])),
    (rules.check_tracing, drop_property("Apiv1Stage", "Properties.TracingEnabled")),
    (rules.check_callers, drop_property("Api", f"{ROUTE}.security")),
    (rules.check_callers, drop_property("ApiUsagePlan", "Properties.Quota")),
    (rules.check_callers, drop_resource("ApiUsagePlanKey")),
    (rules.check_callers, set_property("Api", f"{SCHEME}.name", "x-api-key")),
    (rules.check_callers, set_property("Api", f"{SCHEME}.x-amazon-apigateway-authtype.Fn::If.0", "HasCors")),
    (rules.check_callers, drop_property("Apiv1Stage", "Properties.MethodSettings.0.ThrottlingRateLimit")),
    (rules.check_callers, drop_property("Apiv1Stage", "Properties.MethodSettings.1")),
    (rules.check_callers, drop_property("Apiv1Stage", "Properties.MethodSettings.4.ThrottlingBurstLimit")),
    (rules.check_callers, set_property("Apiv1Stage", "Properties.MethodSettings.5.ThrottlingRateLimit", 100)),
    (rules.check_callers, set_property("Api", f"{PATHS}./new", {"options": {}})),
    (rules.check_hub_callers, drop_property("HubApi", f"{HUB_ROUTE}.security")),
    (rules.check_hub_callers, drop_property("HubApi", f"{PATHS}./{{proxy+}}.head")),
    (rules.check_hub_callers, set_property("HubApi", f"{READ_KEY}.name", "x-api-key")),
    (rules.check_hub_callers, set_property("HubApi", f"{AUTHORIZER}.type", "request")),
    (
        rules.check_hub_callers,
        set_property("HubApi", f"{AUTHORIZER}.authorizerUri", {"Fn::Sub": "${ReadHubFunction.Arn}/invocations"}),
    ),
    (rules.check_hub_callers, set_property("HubApi", f"{AUTHORIZER}.authorizerResultTtlInSeconds", 300)),
    (rules.check_hub_callers, set_property("HubApihfStage", "Properties.MethodSettings", [])),
    (rules.check_hub_callers, drop_property("ManageKeysFunction", "Condition")),
    (rules.check_audit, allow("CancelTaskRole", "dynamodb:PutItem", {"Fn::GetAtt": ["AuditTable", "Arn"]})),
    (rules.check_audit, allow("CancelTaskRole", "dynamodb:DeleteItem", {"Fn::GetAtt": ["AuditTable", "Arn"]})),
    (rules.check_audit, allow("TransferFilesRole", "dynamodb:PutItem", {"Fn::GetAtt": ["AuditTable", "Arn"]})),
    (rules.check_audit, allow("ReadAuditRole", "dynamodb:PutItem", {"Fn::GetAtt": ["AuditTable", "Arn"]})),
    (rules.check_audit, drop_property("DeleteModelRole", "Properties.ManagedPolicyArns")),
    (rules.check_streams, set_property("AuditTable", "Properties.StreamSpecification.StreamViewType", "NEW_IMAGE")),
    (rules.check_signing, drop_property("SigningKey", "Condition")),
    (rules.check_signing, drop_property("SigningKey", "DeletionPolicy")),
    (rules.check_signing, drop_property("SignModelFunction", "Condition")),
    (rules.check_signing, set_property("SigningKey", "Properties.KeySpec", "RSA_2048")),
    (rules.check_signing, set_property("OwnKeyPolicy", "Condition", "CreatesSigningKey")),
    (rules.check_signing, allow("ReadCatalogRole", "kms:Sign", {"Fn::GetAtt": ["SigningKey", "Arn"]})),
    (rules.check_policy, set_property("CheckPolicyRole", "Properties.ManagedPolicyArns", [])),
    (rules.check_policy, allow("ReadCatalogRole", "ssm:GetParameter", {"Fn::GetAtt": ["TasksTable", "Arn"]})),
    (rules.check_misses, drop_property("ImportMissingFunction", "Condition")),
    (rules.check_misses, set_property("ImportMissingFunction", "Condition", "IsLocal")),
    (rules.check_misses, allow("ReadHubRole", "dynamodb:GetItem", {"Fn::GetAtt": ["TasksTable", "Arn"]})),
    (
        rules.check_misses,
        allow("ReadCatalogRole", "lambda:InvokeFunction", {"Fn::GetAtt": ["ImportMissingFunction", "Arn"]}),
    ),
    (rules.check_updates, drop_property("ReadHubRole", f"{ROLE_STATEMENTS}.2.Condition")),
    (
        rules.check_updates,
        set_property(
            "AuthorizeHubRole",
            f"{ROLE_STATEMENTS}.2.Condition",
            {"ForAllValues:StringEquals": {"dynamodb:Attributes": ["key_id", "last_used_on", "scopes"]}},
        ),
    ),
    (rules.check_updates, drop_property("ReadHubRole", f"{ROLE_STATEMENTS}.2.Condition.StringEqualsIfExists")),
    (rules.check_updates, allow("ReadHubRole", "dynamodb:UpdateItem", {"Fn::GetAtt": ["TasksTable", "Arn"]})),
    (rules.check_environment, set_property("ReadHubFunction", f"{VARIABLES}.HUB_ON_MISS", {"Ref": "HubApi"})),
    (
        rules.check_environment,
        set_property("ReadHubFunction", f"{VARIABLES}.IMPORT_MISSING_FUNCTION.Fn::If.1", {"Ref": "HubApi"}),
    ),
    (rules.check_grants, drop_property("ReadHubFunction", f"{VARIABLES}.IMPORT_MISSING_FUNCTION")),
    (
        rules.check_tables,
        set_property("KeysTable", "Properties.TimeToLiveSpecification.AttributeName", "expires_at"),
    ),
    (rules.check_retention, drop_property("KeysTable", "DeletionPolicy")),
    (rules.check_streams, drop_property("TasksTable", "Properties.StreamSpecification")),
    (rules.check_streams, drop_property(STREAM, "Properties.FilterCriteria")),
    (
        rules.check_streams,
        set_property(STREAM, "Properties.FilterCriteria.Filters.0.Pattern", '{"eventName": ["MODIFY", "REMOVE"]}'),
    ),
    (rules.check_streams, set_property(STREAM, "Properties.StartingPosition", "LATEST")),
    (rules.check_streams, drop_property(STREAM, "Properties.BisectBatchOnFunctionError")),
    (rules.check_streams, drop_property(STREAM, "Properties.MaximumRecordAgeInSeconds")),
    (rules.check_streams, set_property(STREAM, "Properties.MaximumRetryAttempts", 3)),
    (rules.check_streams, drop_property(STREAM, "Properties.DestinationConfig")),
    (rules.check_partial_batches, drop_property(STREAM, "Properties.FunctionResponseTypes")),
    (rules.check_dead_letter_queues, drop_property("UnpublishedEndsQueue", "Properties.MessageRetentionPeriod")),
    (rules.check_dead_letter_queues, drop_resource("UnpublishedEndsAlarm")),
    (rules.check_grants, drop_statement("PublishEndsRole", "ReadStream")),
    (rules.check_grants, drop_statement("PublishEndsRole", "SendUnpublishedEnds")),
    (rules.check_wildcards, allow("PublishEndsRole", "dynamodb:GetItem", {"Fn::Sub": "${TasksTable.Arn}/*"})),
    (rules.check_cors, drop_property("Api", f"{RESPONSES}.THROTTLED.responseParameters.{GATEWAY_ORIGIN}")),
    (rules.check_cors, set_property("Api", f"{RESPONSES}.WAF_FILTERED.responseParameters.{GATEWAY_ORIGIN}", "'*'")),
    (rules.check_cors, drop_property("Api", f"{PATHS}./upload/github.options")),
    (rules.check_cors, set_property("Api", f"{PATHS}./upload/github.options.security", [{"api_key": []}])),
    (rules.check_bucket_cors, drop_property("ModelsBucket", "Properties.CorsConfiguration")),
    (rules.check_bucket_cors, set_property("IncomingBucket", "Properties.CorsConfiguration.Fn::If.0", "IsAws")),
    (rules.check_bucket_cors, set_property("IncomingBucket", f"{CORS_RULE}.AllowedOrigins", ["*"])),
    (rules.check_bucket_cors, set_property("ModelsBucket", f"{DOCS_RULE}.AllowedOrigins", ["*"])),
    (rules.check_bucket_cors, drop_property("ModelsBucket", f"{DOCS_RULE}.AllowedHeaders")),
    (rules.check_bucket_cors, set_property("ModelsBucket", f"{DOCS_RULE}.AllowedMethods", ["GET", "PUT"])),
    (rules.check_bucket_cors, drop_property("ModelsBucket", f"{MODELS_RULE}.AllowedOrigins.1")),
    (rules.check_bucket_cors, drop_property("ModelsBucket", f"{MODELS_RULE}.AllowedHeaders.1")),
    (rules.check_bucket_cors, set_property("ModelsBucket", f"{MODELS_RULE}.AllowedMethods", ["GET", "HEAD", "PUT"])),
    (rules.check_bucket_cors, drop_property("IncomingBucket", f"{CORS_RULE}.ExposedHeaders")),
    (rules.check_topics, drop_property("ImportFailedRule", "Condition")),
    (rules.check_topics, drop_resource("ImportSucceededRule")),
    (rules.check_topics, drop_property("NotificationsTopicPolicy", f"{STATEMENT}.Condition")),
    (rules.check_topics, set_property("NotificationsTopicPolicy", f"{STATEMENT}.Principal", "*")),
    (
        rules.check_topics,
        set_property(
            "NotificationsTopicPolicy",
            f"{STATEMENT}.Condition",
            {"ArnEquals": {"aws:SourceArn": {"Fn::Sub": "arn:${AWS::Partition}:events:${AWS::Region}:*:rule/*"}}},
        ),
    ),
    (rules.check_topics, drop_property("NotificationsTopicPolicy", "Properties.PolicyDocument.Statement.2")),
    (rules.check_topics, drop_property("DeadLettersAlarm", "Properties.AlarmActions")),
    (rules.check_topics, drop_property("DeadLettersAlarm", "Properties.OKActions.1")),
    (rules.check_topics, set_property("ApiErrorsAlarm", "Condition", "HasMonitoring")),
    (rules.check_topics, set_property("NotificationFailuresAlarm", "Properties.AlarmActions", [])),
    (rules.check_api_timeouts, set_property("SubmitHuggingfaceFunction", "Properties.Timeout", 26)),
    (rules.check_api_timeouts, set_property("ReadHubFunction", "Properties.Timeout", 26)),
    (rules.check_api_timeouts, set_property("ImportMissingFunction", "Properties.Timeout", 25)),
    (rules.check_media_types, drop_property("HubApi", "Properties.Body.x-amazon-apigateway-binary-media-types")),
    (rules.check_media_types, drop_property("Api", "Properties.Body.x-amazon-apigateway-binary-media-types")),
    (
        rules.check_media_types,
        set_property("Api", "Properties.Body.x-amazon-apigateway-binary-media-types", ["multipart~1form-data"]),
    ),
    (
        rules.check_gateway_responses,
        set_property(
            "Api",
            f"{RESPONSES}.REQUEST_TOO_LARGE.responseTemplates",
            {"application/json": '{"type": "urn:x", "title": "Too large", "status": 413, "detail": "At most 10 MB."}'},
        ),
    ),
    (
        rules.check_gateway_responses,
        set_property(
            "Api",
            f"{RESPONSES}.RESOURCE_NOT_FOUND.responseTemplates",
            {
                "application/json": '{"type": "urn:modelhaul:problem:no-such-route", "title": "Not Found", '
                '"status": 404, "detail": "There is no such route.", "remedy": "Look elsewhere."}'
            },
        ),
    ),
    (rules.check_gateway_responses, drop_property("Api", f"{RESPONSES}.DEFAULT_5XX")),
    (rules.check_gateway_responses, drop_property("Api", f"{RESPONSES}.WAF_FILTERED")),
    (rules.check_gateway_responses, set_property("Api", f"{RESPONSES}.EXPIRED_TOKEN.statusCode", "404")),
    (rules.check_gateway_responses, set_property("Api", f"{RESPONSES}.MISSING_AUTHENTICATION_TOKEN.statusCode", "404")),
    (
        rules.check_gateway_responses,
        set_property("Api", f"{RESPONSES}.THROTTLED.responseParameters.gatewayresponse:header:Retry-After", "'5'"),
    ),
    (rules.check_gateway_responses, set_property("Api", f"{RESPONSES}.THROTTLED.responseParameters", {})),
    (rules.check_gateway_responses, set_property("Api", f"{RESPONSES}.THROTTLED.statusCode", "503")),
    (rules.check_hub_gateway_responses, drop_property("HubApi", f"{RESPONSES}.DEFAULT_5XX")),
    (rules.check_hub_gateway_responses, set_property("HubApi", f"{RESPONSES}.ACCESS_DENIED.statusCode", "403")),
    (
        rules.check_hub_gateway_responses,
        set_property(
            "HubApi",
            f"{RESPONSES}.UNAUTHORIZED.responseParameters.gatewayresponse:header:X-Error-Message",
            "'The request has no key.'",
        ),
    ),
    (
        rules.check_hub_gateway_responses,
        set_property("HubApi", f"{RESPONSES}.UNAUTHORIZED.responseTemplates.application/json", '{"error": "No key."}'),
    ),
    (
        rules.check_hub_gateway_responses,
        set_property("HubApi", f"{RESPONSES}.THROTTLED.responseTemplates.application/json", '{"message": "Slow."}'),
    ),
    (
        rules.check_hub_gateway_responses,
        drop_property("HubApi", f"{RESPONSES}.THROTTLED.responseParameters.gatewayresponse:header:Retry-After"),
    ),
]


@pytest.mark.parametrize(("rule", "mutate"), MUTATIONS, ids=lambda value: getattr(value, "__name__", ""))
def test_rule_refuses_broken_template(rule: rules.Rule, mutate: Mutation, template: Template) -> None:
    broken = copy.deepcopy(template)
    mutate(broken["Resources"])
    assert broken != template
    assert rule(broken)


@pytest.mark.parametrize("api", ["Api", "HubApi"])
def test_api_is_deployed_anew_when_only_a_parameter_changes(api: str) -> None:
    assert read_template()["Resources"][api]["Properties"]["AlwaysDeploy"] is True


def test_documentation_is_a_parameter(template: Template) -> None:
    without = apply_parameters(template, Documentation="off")
    assert not [name for name in without["Resources"] if name.startswith("ReadDocs")]
    paths = rules.read_api(without, "Api")["paths"]
    assert all(paths[path].keys() == {"options"} for path in rules.OPEN_PATHS)
    throttled = rules._find_throttled(without, "Apiv1Stage")
    assert {method for method, _ in throttled} == {"*", "OPTIONS"}
    assert {path for method, path in throttled if method == "OPTIONS"} >= {"/~1docs", "/~1openapi.json"}


def test_hub_throttle_is_a_parameter(template: Template) -> None:
    (settings,) = template["Resources"]["HubApihfStage"]["Properties"]["MethodSettings"]
    assert settings["ThrottlingRateLimit"] == {"Ref": "HubRateLimit"}
    assert settings["ThrottlingBurstLimit"] == {"Ref": "HubBurst"}


def test_api_gateway_passes_keys_to_the_authorizer(template: Template) -> None:
    scheme = rules.read_api(template, "HubApi")["securityDefinitions"]["ReadKey"]
    expression = scheme["x-amazon-apigateway-authorizer"]["identityValidationExpression"]
    assert expression == f"^[Bb]earer {KEY_PATTERN.pattern}$"
    now = datetime(2026, 1, 1, tzinfo=UTC)
    key, _ = create_key("laptop", [], None, now)
    for token in (f"Bearer {key}", f"bearer {key}", f"Bearer hf_{'a' * 253}"):
        assert re.fullmatch(expression, token)
    for token in (key, f"Bearer {key} ", f"Bearer {key}-", "Bearer hf_short", f"Bearer hf_{'a' * 254}", f"Basic {key}"):
        assert not re.fullmatch(expression, token)


def test_transport_rule_refuses_local_mode_by_default(template: Template) -> None:
    broken = copy.deepcopy(template)
    broken["Parameters"]["LocalMode"]["Default"] = "true"
    assert rules.check_transport(broken)


def test_numbers_rule_refuses_large_number(template: Template) -> None:
    broken = copy.deepcopy(template)
    broken["Parameters"]["ArchiveMaxEntryBytes"]["Default"] = 40_000_000_000
    assert rules.check_numbers(broken)


@pytest.mark.parametrize(
    "name",
    [
        "ApiUrl",
        "HubUrl",
        "ApiKeyId",
        "ModelsBucket",
        "PlanQueueUrl",
        "TasksTable",
        "DropArchivesPolicy",
        "ReadHubFunction",
    ],
)
def test_output_rule_refuses_missing_output(name: str, template: Template) -> None:
    broken = copy.deepcopy(template)
    del broken["Outputs"][name]
    assert rules.check_outputs(broken)


def test_every_rule_is_shown_to_refuse() -> None:
    assert set(rules.RULES) == {rule for rule, _ in MUTATIONS} | {rules.check_outputs, rules.check_numbers}


def test_functions_and_folders_match(template: Template) -> None:
    assert rules.check_handlers(template) == []


def copy_functions(template: Template, root: Path) -> None:
    for _, function in rules.list_resources(template, "AWS::Lambda::Function"):
        folder = root / function["Code"]["S3Key"]
        folder.mkdir(parents=True)
        (folder / "handler.py").write_text("def handler(event, context): ...\n")


def test_handler_rule_accepts_copy(template: Template, tmp_path: Path) -> None:
    copy_functions(template, tmp_path)
    assert rules.check_handlers(template, tmp_path) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda functions: (functions / "plan_import" / "handler.py").unlink(),
        lambda functions: (functions / "plan_import" / "handler.py").write_text("def other(event, context): ...\n"),
        lambda functions: (functions / "plan_import").rename(functions / "import_plan"),
        lambda functions: (functions / "new_function").mkdir(),
    ],
    ids=["no module", "no handler", "renamed", "not in the template"],
)
def test_handler_rule_refuses(damage: Callable[[Path], object], template: Template, tmp_path: Path) -> None:
    copy_functions(template, tmp_path)
    damage(tmp_path / "functions")
    assert rules.check_handlers(template, tmp_path)


def test_layers_have_pinned_requirements(template: Template) -> None:
    assert rules.check_layers(template) == []


@pytest.mark.parametrize(
    "text",
    [None, "", "# nothing\n", "boto3\n", "boto3==1.0\n"],
    ids=["missing", "empty", "comment", "unpinned", "unhashed"],
)
def test_layer_rule_refuses(text: str | None, template: Template, tmp_path: Path) -> None:
    for layer in ("core", "sources", "scanner"):
        folder = tmp_path / "layers" / layer
        folder.mkdir(parents=True)
        (folder / "Makefile").touch()
        (folder / "requirements.txt").write_text("boto3==1.0 \\\n    --hash=sha256:00\n")
    assert rules.check_layers(template, tmp_path) == []
    requirements = tmp_path / "layers" / "core" / "requirements.txt"
    if text is None:
        requirements.unlink()
    else:
        requirements.write_text(text)
    assert rules.check_layers(template, tmp_path)


def read_page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def test_the_api_page_names_the_routes(template: Template) -> None:
    assert rules.check_route_table(template, read_page("api.md")) == []


def test_route_table_rule_refuses(template: Template) -> None:
    lines = [f"| `{method} /v1{path}` | words |" for method, path in sorted(rules.list_routes(template))]
    assert len(lines) >= 3
    assert rules.check_route_table(template, "\n".join(lines)) == []
    assert rules.check_route_table(template, "\n".join(lines[1:]))
    assert rules.check_route_table(template, "\n".join([*lines, "| `GET /v1/nowhere` | words |"]))
    assert rules.check_route_table(template, "")


def test_the_quickstart_removes_the_tables_that_are_kept(template: Template) -> None:
    page = read_page("quickstart-aws.md")
    assert rules.check_removed_tables(template, page) == []
    assert rules.check_removed_tables(template, page.replace("$(out FollowsTable)", ""))
    assert rules.check_removed_tables(template, page + "$(out RateLimitsTable)")


def test_the_parameters_page_names_the_parameters(template: Template) -> None:
    assert rules.check_parameter_table(template, read_page("parameters.md")) == []


def test_parameter_table_rule_refuses(template: Template) -> None:
    page = read_page("parameters.md")
    row = "| `TransferConcurrency` | 16 | words |"
    assert rules.check_parameter_table(template, page.replace("`ApiBurst`", "`ApiBursts`"))
    assert rules.check_parameter_table(template, page.replace("| `ApiBurst` | 200 |", "| `ApiBurst` | 201 |"))
    assert rules.check_parameter_table(template, f"{page}\n{row}")
    assert rules.check_parameter_table(template, "")


def run_cfn_lint(*paths: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("cfn-lint")
    return subprocess.run([program, *paths], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_cfn_lint_passes() -> None:
    result = run_cfn_lint(ROOT / "template.yaml", ROOT / "monitoring.yaml")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
def test_cfn_lint_refuses_unknown_property(tmp_path: Path) -> None:
    path = tmp_path / "template.json"
    queue = {"Type": "AWS::SQS::Queue", "Properties": {"Nonsense": 1}}
    path.write_text(json.dumps({"Resources": {"Queue": queue}}))
    result = run_cfn_lint(path)
    assert result.returncode != 0
    assert "'Nonsense' was unexpected" in result.stdout
