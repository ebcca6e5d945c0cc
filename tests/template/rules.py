"""Rules for the template. A rule takes the merged template of `transformed` and returns its violations as messages."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from http import HTTPStatus
from itertools import pairwise, permutations, product
from pathlib import Path
from typing import Any

from modelhaul.adapters.eventbridge import SOURCE
from modelhaul.domain.remedies import PROBLEM_REMEDIES
from tests.template.transformed import CODE_BUCKET, ROOT, Template, apply_parameters

type Rule = Callable[[Template], list[str]]
type Resource = dict[str, Any]

FREE_RESOURCES = {
    # These actions have no resource type (Service Authorization Reference, AWS X-Ray).
    "xray:PutTraceSegments",
    "xray:PutTelemetryRecords",
}
"""Actions for which AWS accepts only `*` as the resource."""

DEFAULT_BUS = json.dumps({"Fn::Sub": "arn:${AWS::Partition}:events:${AWS::Region}:${AWS::AccountId}:event-bus/default"})
"""The default event bus of the account, in the form of `map_grants`."""

TABLES_WITHOUT_EXPIRY = {
    "ModelsTable": "models stay until they are deleted",
    "FollowsTable": "follows stay until they are deleted",
}
EXPIRY_ATTRIBUTES = {"KeysTable": "removed_after"}
"""TTL attribute by table, if it is not `expires_at`: expired keys are listed for a while."""

TABLES_TO_LOSE = {
    "RateLimitsTable": "a source repeats its rate limits",
    "IdempotencyTable": "a client that lost a response can read the task",
}
RETAINED = {"DeletionPolicy": "RetainExceptOnCreate", "UpdateReplacePolicy": "Retain"}
OBJECT_PREFIXES = {
    # The stream of the table, whose name contains its creation time.
    "TasksTable": {"stream/*"},
    "AuditTable": {"stream/*"},
    "ModelsBucket": {"staging/*", "inspections/*", "models/*", "manifests/*", "signatures/*", "boms/*"},
    "IncomingBucket": {"incoming/*", "uploads/*", "posted/*", "outcomes/*"},
}
AUDIT_READERS = {
    "ReadAuditFunction": {"dynamodb:Query"},
    "PublishAuditFunction": {
        "dynamodb:GetItem",
        "dynamodb:DescribeStream",
        "dynamodb:GetRecords",
        "dynamodb:GetShardIterator",
        "dynamodb:ListStreams",
    },
}
"""What the functions that read the audit may do."""

ARRIVAL_AGE = 86_400  # seconds: the maximum of EventBridge
OWN_PREFIXES = ["outcomes/", "posted/"]
"""Key prefixes of the incoming bucket whose events are not sent: functions store these objects themselves."""

ARCHIVES = {"incoming/*", "uploads/*", "posted/*"}
INCOMING_LIFE = {"incoming/": 7, "uploads/": 7, "posted/": 7, "outcomes/": 90}
"""Days until an object expires, by key prefix."""

MIN_UPLOAD_LIFE = 4
"""Days. An upload in parts by presigned URLs may take three days."""

ARCHIVE_VARIABLES = {
    "ARCHIVE_MAX_ENTRIES": "ArchiveMaxEntries",
    "ARCHIVE_MAX_ENTRY_BYTES": "ArchiveMaxEntryBytes",
    "ARCHIVE_MAX_TOTAL_BYTES": "ArchiveMaxTotalBytes",
    "ARCHIVE_MAX_RATIO": "ArchiveMaxRatio",
    "REQUIRED_FILES": "RequiredFiles",
}
"""Environment variable to parameter, of every function."""

ARCHIVE_READERS = {"AcceptArchiveFunction", "PlanImportFunction", "TransferFilesFunction"}
ARCHIVE_RECEIVERS = {"SubmitLocalFunction"}

CLOSING_GRANTS = {
    ("IncomingBucket", "outcomes/*"): {"s3:PutObject", "s3:GetObject"},
    ("IncomingBucket", "uploads/*"): {"s3:AbortMultipartUpload"},
    ("IncomingBucket", ""): {"s3:ListBucket", "s3:ListBucketMultipartUploads"},
    ("ModelsBucket", "staging/*"): {"s3:DeleteObject", "s3:AbortMultipartUpload"},
    ("ModelsBucket", ""): {"s3:ListBucketMultipartUploads"},
    ("TasksTable", ""): {"dynamodb:GetItem", "dynamodb:UpdateItem"},
    ("ModelsTable", ""): {"dynamodb:BatchGetItem", "dynamodb:UpdateItem"},
    ("FilesTable", ""): {"dynamodb:Query", "dynamodb:DeleteItem"},
}
"""Grants of each function that can end the task of an archive (`modelhaul.imports.finish`), as from `map_grants`."""

DROP_GRANTS = {
    ("IncomingBucket", "incoming/*"): {"s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"},
    ("IncomingBucket", "outcomes/*"): {"s3:GetObject"},
}
KEY_ARN = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
KEYS = {
    "AWS::S3::Bucket": "AES256",
    "AWS::SQS::Queue": True,
    # AWS encrypts these always. The role of a function must be able to use the key.
    "AWS::DynamoDB::Table": None,
    "AWS::Logs::LogGroup": None,
    "AWS::SNS::Topic": None,
    "AWS::Lambda::Function": None,
    "AWS::IAM::Role": None,
}
"""Encryption without KmsKeyArn, by type of the resources that it encrypts."""

KEY_PROPERTIES = {
    "AWS::SQS::Queue": "KmsMasterKeyId",
    "AWS::SNS::Topic": "KmsMasterKeyId",
    "AWS::Logs::LogGroup": "KmsKeyId",
    "AWS::Lambda::Function": "KmsKeyArn",
}

ALL_RESOURCES = {"HubOnMiss": "IMPORT", "NotificationEmail": "team@example.com"}
"""Parameters with which the stack has all its resources."""

POLICY = "s3://bucket/policy.json"
MAX_EXACT_NUMBER = 2**31 - 1
MAX_ATTACHED_POLICIES = 10
TRANSPORT_ACTIONS = {"AWS::S3::BucketPolicy": "s3:*", "AWS::SQS::QueuePolicy": "sqs:*"}
CONSUMER_ACTIONS = {"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"}
ENVIRONMENT_TYPES = {
    "_TABLE": "AWS::DynamoDB::Table",
    "_BUCKET": "AWS::S3::Bucket",
    "_QUEUE_URL": "AWS::SQS::Queue",
    "_FUNCTION": "AWS::Lambda::Function",
    "_HUB_URL": "AWS::ApiGateway::RestApi",
}
SIGNING_KEYS = ({"Fn::GetAtt": ["SigningKey", "Arn"]}, {"Ref": "SigningKeyArn"})
_LOCATION = {"Ref": "PolicyLocation"}
POLICY_GRANTS = {
    (
        "s3:GetObject",
        json.dumps(
            {
                "Fn::Join": [
                    "",
                    [
                        {"Fn::Sub": "arn:${AWS::Partition}:s3:::"},
                        {"Fn::Join": ["", {"Fn::Split": ["s3://", _LOCATION]}]},
                    ],
                ]
            }
        ),
    ),
    (
        "ssm:GetParameter",
        json.dumps(
            {
                "Fn::Join": [
                    "",
                    [
                        {"Fn::Sub": "arn:${AWS::Partition}:ssm:${AWS::Region}:${AWS::AccountId}:parameter"},
                        {"Fn::Join": ["", {"Fn::Split": ["ssm:", _LOCATION]}]},
                    ],
                ]
            }
        ),
    ),
}
"""Action and resource. One of the resources does not exist: a location is that of an object or of a parameter."""
SIGNERS = {"PublishModelsRole", "SignModelRole"}
REGION = {"AWS::Region", "AWS::URLSuffix"}
"""What the name of a host of AWS depends on."""

MAX_RECEIVES = 5
"""Deliveries of a message before it becomes a dead letter. AWS recommends at least five for a queue of a function.

https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html
"""

MAX_RETENTION = 1_209_600  # seconds
STREAM_LIFE = 86_400  # seconds that DynamoDB Streams keeps a record
MIN_STREAM_AGE = 900  # seconds: longer than a short outage
ENDS: dict[str, Any] = {
    "eventName": ["MODIFY"],
    "dynamodb": {
        "OldImage": {"status": {"S": ["PENDING"]}},
        "NewImage": {"status": {"S": ["DONE", "FAILED"]}},
    },
}
"""The change of a task that is published: not later writes, and not the expiry of the record."""

STREAMS: dict[str, tuple[str, dict[str, Any]]] = {
    "TasksTable": ("NEW_AND_OLD_IMAGES", ENDS),
    "AuditTable": ("KEYS_ONLY", {"eventName": ["INSERT"]}),
}
"""What the stream of a table contains, and which records invoke its function: not those of expired entries."""

MAX_API_TIMEOUT = 25  # seconds, so that a cold start of 4 s ends within the 29 s of API Gateway
REFUSED_BODIES = {"REQUEST_TOO_LARGE", "UNSUPPORTED_MEDIA_TYPE"}
MISCONFIGURED = {"API_CONFIGURATION_ERROR", "AUTHORIZER_CONFIGURATION_ERROR", "AUTHORIZER_FAILURE"}
"""API Gateway does not invoke the function, so the remedy of the function's own problem does not help."""
WAYS_FOR_LARGE_ARCHIVES = ("/v1/upload/local", '{"file_name"', "incoming/")
HTTP_METHODS = {"get", "put", "post", "delete", "head", "patch", "x-amazon-apigateway-any-method"}
"""Without OPTIONS: API Gateway itself responds to a preflight request."""

GATEWAY_STATUS = {
    "ACCESS_DENIED": 403,
    "API_CONFIGURATION_ERROR": 500,
    "AUTHORIZER_CONFIGURATION_ERROR": 500,
    "AUTHORIZER_FAILURE": 500,
    "BAD_REQUEST_BODY": 400,
    "BAD_REQUEST_PARAMETERS": 400,
    "DEFAULT_4XX": None,
    "DEFAULT_5XX": None,
    "EXPIRED_TOKEN": 403,
    "INTEGRATION_FAILURE": 504,
    "INTEGRATION_TIMEOUT": 504,
    "INVALID_API_KEY": 403,
    "INVALID_SIGNATURE": 403,
    "MISSING_AUTHENTICATION_TOKEN": 404,
    "QUOTA_EXCEEDED": 429,
    "REQUEST_TOO_LARGE": 413,
    "RESOURCE_NOT_FOUND": 404,
    "THROTTLED": 429,
    "UNAUTHORIZED": 401,
    "UNSUPPORTED_MEDIA_TYPE": 415,
    "WAF_FILTERED": 403,
}
"""Status by type of each response that API Gateway returns itself.

https://docs.aws.amazon.com/apigateway/latest/developerguide/supported-gateway-response-types.html
"""

IAM_STATUS = {**GATEWAY_STATUS, "MISSING_AUTHENTICATION_TOKEN": 403}
"""With AuthMode=IAM, API Gateway returns the same response type for an unsigned request and an unknown route."""

HUB_GATEWAY_STATUS = {
    "ACCESS_DENIED": 401,
    "DEFAULT_4XX": None,
    "DEFAULT_5XX": None,
    "INTEGRATION_FAILURE": 504,
    "INTEGRATION_TIMEOUT": 504,
    "MISSING_AUTHENTICATION_TOKEN": 404,
    "RESOURCE_NOT_FOUND": 404,
    "THROTTLED": 429,
    "UNAUTHORIZED": 401,
}
"""Status by type of each response of the Hub read API that API Gateway returns itself."""

INVALID_CREDENTIALS = "Invalid credentials in Authorization header"
"""With any other message, `huggingface_hub.utils.hf_raise_for_status` takes a 401 for a missing repository."""

ALARM_TOPIC = "arn:aws:sns:eu-central-1:123456789012:alerts"
FOLLOWING_ROLES = ("ManageFollowsRole", "SweepStaleRole")
HUB_RESOURCES = ("HubApi", "HubErrors", "ManageKeys", "AuthorizeHub", "ReadHub", "ImportMissing", "RequestImports")
"""Starts of the logical IDs of the Hub read API's resources."""

MAX_REVOCATION = 60  # seconds for which a deleted key may still be accepted
UPDATED_ATTRIBUTES = {
    ("ImportMissingRole", "ModelsTable"): {"model_id", "hub_name"},
    ("ReadHubRole", "ModelsTable"): {"model_id", "last_read_on"},
    ("AuthorizeHubRole", "KeysTable"): {"key_id", "last_used_on"},
}
"""All attributes that an update by a role may contain, its key included, by role and table."""

RECORDERS = {"ReadHubRole", "AuthorizeHubRole"}
"""Roles whose updates may not return the item. `dynamodb:Attributes` covers only attributes that a request names."""

ASKED_HEADERS = {"content-type", "x-api-key", "idempotency-key", "authorization", "x-amz-date", "x-amz-security-token"}
RETRIED = {"INTEGRATION_FAILURE", "INTEGRATION_TIMEOUT", "QUOTA_EXCEEDED", "THROTTLED"}
ORIGIN = "https://models.example.com"
# After a redirect from the API, a browser sends the origin `null` and the headers of the API request.
BUCKET_CORS = {
    "ModelsBucket": ({"CorsAllowOrigin", "null"}, {"GET", "HEAD"}, {"range", "x-api-key"}),
    "IncomingBucket": ({"CorsAllowOrigin"}, {"PUT", "POST", "DELETE"}, {"content-type"}),
}
"""Origins, methods and headers that each bucket allows with CorsAllowOrigin."""

DOCS_CORS = {
    "AllowedOrigins": [{"Fn::Sub": "https://*.execute-api.${AWS::Region}.${AWS::URLSuffix}"}],
    "AllowedMethods": ["GET"],
    "AllowedHeaders": ["x-api-key"],
    "ExposedHeaders": ["Content-Disposition"],
    "MaxAge": 3600,
}
"""What the models bucket always allows: the page /docs of the API downloads files."""

SIGV4 = {"type": "apiKey", "in": "header", "name": "Authorization", "x-amazon-apigateway-authtype": "awsSigv4"}
API_KEY = {"type": "apiKey", "in": "header", "name": "x-api-key"}
STREAM_ACTIONS = {"dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator", "dynamodb:ListStreams"}


def list_resources(template: Template, kind: str) -> Iterator[tuple[str, Resource]]:
    for name, resource in template["Resources"].items():
        if resource["Type"] == kind:
            yield name, resource.get("Properties", {})


def read_api(template: Template, name: str) -> Resource:
    """Return the OpenAPI definition of an API."""
    body: Resource = template["Resources"][name]["Properties"]["Body"]
    return body


def list_operations(definition: Resource) -> Iterator[tuple[str, str, Resource]]:
    """Yield (method, path, operation) of each route of an API, whatever the conditions."""
    for path, methods in definition["paths"].items():
        for method in HTTP_METHODS & methods.keys():
            for operation in list_choices(methods[method]):
                yield method, path, operation


def find_handler(operation: Resource) -> str:
    """Return the function behind a route."""
    (uri,) = list_choices(operation["x-amazon-apigateway-integration"]["uri"])
    return str(re.findall(r"\$\{(\w+)\.Arn\}", uri["Fn::Sub"])[0])


def find_target(value: object) -> str | None:
    """Return the logical ID in a `Ref`, an `Fn::GetAtt` or the first variable of an `Fn::Sub`."""
    match value:
        case {"Ref": str(name)}:
            return name
        case {"Fn::GetAtt": [str(name), *_]}:
            return name
        case {"Fn::Sub": str(text)} if found := re.search(r"\$\{(\w+)", text):
            return found[1]
    return None


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def list_choices(value: Any) -> list[Any]:
    """Return both branches of an `Fn::If` without `AWS::NoValue`, or the value itself."""
    if isinstance(value, dict) and "Fn::If" in value:
        return [choice for branch in value["Fn::If"][1:] for choice in list_choices(branch)]
    return [] if value == {"Ref": "AWS::NoValue"} else [value]


def list_statements(template: Template, role: str) -> Iterator[dict[str, Any]]:
    """Yield the statements of a role: its inline policies and the attached policies of this template."""
    properties = template["Resources"].get(role, {}).get("Properties", {})
    for policy in properties.get("Policies", []):
        yield from as_list(policy["PolicyDocument"]["Statement"])
    for attached in properties.get("ManagedPolicyArns", []):
        for choice in list_choices(attached):
            name = find_target(choice)
            if name in template["Resources"]:
                yield from as_list(template["Resources"][name]["Properties"]["PolicyDocument"]["Statement"])


def map_grants(statements: Iterable[dict[str, Any]]) -> dict[tuple[str, str], set[str]]:
    """Return the allowed actions by (bucket, prefix) for `${Bucket.Arn}/prefix`, otherwise by (resource, "")."""
    granted: dict[tuple[str, str], set[str]] = {}
    for statement in statements:
        if statement["Effect"] != "Allow":
            continue
        for resource in as_list(statement["Resource"]):
            match resource:
                case {"Fn::GetAtt": [str(name), "Arn"]}:
                    place = (name, "")
                case {"Fn::Sub": str(text)} if found := re.fullmatch(r"\$\{(\w+)\.Arn\}/(.+)", text):
                    place = (found[1], found[2])
                case _:
                    place = (json.dumps(resource), "")
            granted.setdefault(place, set()).update(as_list(statement["Action"]))
    return granted


def list_consumers(template: Template, kind: str = "AWS::SQS::Queue") -> Iterator[tuple[str, str, Resource]]:
    """Yield (function, source, mapping) of each event source mapping whose source is a resource of type `kind`."""
    for _, mapping in list_resources(template, "AWS::Lambda::EventSourceMapping"):
        source = find_target(mapping["EventSourceArn"]) or ""
        if template["Resources"].get(source, {}).get("Type", "AWS::SQS::Queue") == kind:
            yield find_target(mapping["FunctionName"]) or "", source, mapping


def list_streams(template: Template) -> Iterator[tuple[str, str, Resource]]:
    """Yield (function, table, mapping) of each mapping of a DynamoDB stream."""
    yield from list_consumers(template, "AWS::DynamoDB::Table")


def find_destination(mapping: Resource) -> str:
    """Return the queue that receives the records on which a mapping gave up, or ""."""
    return find_target(mapping.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination")) or ""


def list_dead_letter_queues(template: Template) -> dict[str, str]:
    """Return the dead-letter queue of each queue that has one."""
    return {
        name: find_target(queue["RedrivePolicy"]["deadLetterTargetArn"]) or ""
        for name, queue in list_resources(template, "AWS::SQS::Queue")
        if "RedrivePolicy" in queue
    }


def list_routes(template: Template, api: str = "Api") -> set[tuple[str, str]]:
    """Return (method, path without the stage) of each route of an API."""
    return {(method.upper(), path) for method, path, _ in list_operations(read_api(template, api))}


def check_visibility(template: Template) -> list[str]:
    """The visibility timeout is at least six function timeouts, as AWS recommends for retries of throttled batches."""
    faults = []
    for function, queue, _ in list_consumers(template):
        timeout = template["Resources"][function]["Properties"]["Timeout"]
        visibility = template["Resources"][queue]["Properties"].get("VisibilityTimeout", 30)
        if visibility < 6 * timeout:
            faults.append(f"{queue}: visibility of {visibility} s is less than 6 x {timeout} s of {function}")
    return faults


def check_partial_batches(template: Template) -> list[str]:
    return [
        f"{function}: no ReportBatchItemFailures for {source}"
        for function, source, mapping in [*list_consumers(template), *list_streams(template)]
        if "ReportBatchItemFailures" not in mapping.get("FunctionResponseTypes", [])
    ]


def check_concurrency(template: Template) -> list[str]:
    """Each queue has a maximum: without it, one busy queue could use the whole concurrency of the account."""
    return [
        f"{function}: no MaximumConcurrency for {queue}"
        for function, queue, mapping in list_consumers(template)
        if not mapping.get("ScalingConfig", {}).get("MaximumConcurrency")
    ]


def check_dead_letter_queues(template: Template) -> list[str]:
    faults: list[str] = []
    queues = dict(list_resources(template, "AWS::SQS::Queue"))
    served = list_dead_letter_queues(template)
    consumed = {queue for _, queue, _ in list_consumers(template)}
    destinations = {find_destination(mapping) for _, _, mapping in list_streams(template)}
    for name, queue in queues.items():
        if name in destinations:
            faults += _find_destination_faults(template, name, queue)
            continue
        if name not in consumed:
            faults.append(f"{name}: has no consumer")
        if name in served.values():
            continue
        if served.get(name) not in queues:
            faults.append(f"{name}: no dead-letter queue")
            continue
        if queue["RedrivePolicy"]["maxReceiveCount"] != MAX_RECEIVES:
            faults.append(f"{name}: not {MAX_RECEIVES} deliveries")
        if queue["MessageRetentionPeriod"] >= queues[served[name]]["MessageRetentionPeriod"]:
            faults.append(f"{served[name]}: retention must exceed that of {name}: moved messages keep their age")
    if len(set(served.values())) > 1:
        faults.append(f"several dead-letter queues, which are polled and charged: {sorted(set(served.values()))}")
    return faults


def _find_destination_faults(template: Template, name: str, queue: Resource) -> Iterator[str]:
    """Operators read these queues after an alarm."""
    if queue.get("MessageRetentionPeriod") != MAX_RETENTION:
        yield f"{name}: retention is shorter than the maximum"
    alarms = json.dumps([alarm for _, alarm in list_resources(template, "AWS::CloudWatch::Alarm")])
    if f'"{name}"' not in alarms:
        yield f"{name}: no alarm"


def check_streams(template: Template) -> list[str]:
    """Stream records are retried through an outage, and a record that always fails does not block the others."""
    faults: list[str] = []
    for function, table, mapping in list_streams(template):
        stream = template["Resources"][table]["Properties"].get("StreamSpecification", {})
        view, wanted = STREAMS[table]
        if stream.get("StreamViewType") != view:
            faults.append(f"{table}: its stream does not have {view}")
        patterns = [json.loads(one["Pattern"]) for one in mapping.get("FilterCriteria", {}).get("Filters", [])]
        if patterns != [wanted]:
            faults.append(f"{function}: invoked for {patterns}")
        if mapping.get("StartingPosition") != "TRIM_HORIZON":
            faults.append(f"{function}: misses records that are written before it starts to poll")
        if mapping.get("BisectBatchOnFunctionError") is not True:
            faults.append(f"{function}: a failed record blocks its batch")
        if not MIN_STREAM_AGE <= mapping.get("MaximumRecordAgeInSeconds", -1) < STREAM_LIFE:
            faults.append(f"{function}: maximum record age is too short, or longer than the retention of the stream")
        if mapping.get("MaximumRetryAttempts", -1) != -1:
            faults.append(f"{function}: limits the number of retries")
        if template["Resources"].get(find_destination(mapping), {}).get("Type") != "AWS::SQS::Queue":
            faults.append(f"{function}: has no queue for failed records")
    return faults


def check_wildcards(template: Template) -> list[str]:
    """No `*` in a grant, and no policy from outside this template."""
    faults = []
    policies = dict(list_resources(template, "AWS::IAM::ManagedPolicy"))
    documents = [(name, policy["PolicyDocument"]) for name, policy in policies.items()]
    for name, role in list_resources(template, "AWS::IAM::Role"):
        documents += [(name, policy["PolicyDocument"]) for policy in role.get("Policies", [])]
        for attached in role.get("ManagedPolicyArns", []):
            faults += [
                f"{name}: attaches {choice}" for choice in list_choices(attached) if find_target(choice) not in policies
            ]
    for name, document in documents:
        for statement in as_list(document["Statement"]):
            if statement["Effect"] == "Allow":
                faults += [f"{name}: {fault}" for fault in _find_wildcards(statement)]
    return faults


def check_attachments(template: Template) -> list[str]:
    """No role exceeds IAM's default quota of attached policies, for any values of the parameters.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
    """
    return [
        f"{name}: can attach {len(role['ManagedPolicyArns'])} policies"
        for name, role in list_resources(template, "AWS::IAM::Role")
        if len(role.get("ManagedPolicyArns", [])) > MAX_ATTACHED_POLICIES
    ]


def check_publishers(template: Template) -> list[str]:
    """Events go only to the default bus, and outside the local stack only with the source Modelhaul."""
    ours = {"StringEquals": {"events:source": SOURCE}}
    return [
        f"{role}: {statement['Sid']} can publish other events"
        for role, _ in list_resources(template, "AWS::IAM::Role")
        for statement in list_statements(template, role)
        if "events:PutEvents" in as_list(statement["Action"])
        and (
            json.dumps(statement["Resource"]) != DEFAULT_BUS
            or statement.get("Condition") != {"Fn::If": ["IsAws", ours, {"Ref": "AWS::NoValue"}]}
        )
    ]


def _find_wildcards(statement: dict[str, Any]) -> list[str]:
    if "NotAction" in statement or "NotResource" in statement:
        return ["NotAction or NotResource"]
    actions = as_list(statement["Action"])
    faults = [f"action {action}" for action in actions if "*" in action]
    for resource in as_list(statement["Resource"]):
        if resource == "*" and set(actions) <= FREE_RESOURCES:
            continue
        text = resource if isinstance(resource, str) else json.dumps(resource)
        place = re.fullmatch(r"\$\{(\w+)\.Arn\}/(.+)", resource.get("Fn::Sub", "")) if text != resource else None
        if "*" in text and (place is None or place[2] not in OBJECT_PREFIXES.get(place[1], ())):
            faults.append(f"resource {text}")
    return faults


def check_audit(template: Template) -> list[str]:
    """Functions that record entries can add them, while the audit is on, and nothing else. No function changes them.

    With a policy, the audit is on for a day, because its denials and deletions are events.
    """
    faults: list[str] = []
    for days, location, kept in (
        ("0", "", "0"),
        ("30", "", {"Ref": "AuditRetentionDays"}),
        ("0", POLICY, "1"),
        ("30", POLICY, {"Ref": "AuditRetentionDays"}),
    ):
        chosen = apply_parameters(
            template, **ALL_RESOURCES, Signing="KMS", AuditRetentionDays=days, PolicyLocation=location
        )
        for function, properties in list_resources(chosen, "AWS::Lambda::Function"):
            role = find_target(properties["Role"]) or ""
            if properties["Environment"]["Variables"]["AUDIT_RETENTION_DAYS"] != kept:
                faults.append(f"{function} with AuditRetentionDays={days} PolicyLocation={location}: other days")
            granted = {
                action
                for statement in list_statements(chosen, role)
                if any(_names_table(resource, "AuditTable") for resource in as_list(statement["Resource"]))
                for action in as_list(statement["Action"])
            }
            records = "AUDIT_TABLE" in properties["Environment"]["Variables"] and function not in AUDIT_READERS
            expected = AUDIT_READERS.get(function, {"dynamodb:PutItem"} if records and kept != "0" else set())
            if granted != expected:
                faults.append(
                    f"{function} with AuditRetentionDays={days} PolicyLocation={location}: may {sorted(granted)}"
                )
    return faults


def _names_table(resource: Any, table: str) -> bool:
    return resource == {"Fn::GetAtt": [table, "Arn"]} or f"${{{table}.Arn}}" in json.dumps(resource)


def check_roles(template: Template) -> list[str]:
    """Each function has its own role."""
    faults = []
    owners: dict[str, str] = {}
    for function, properties in list_resources(template, "AWS::Lambda::Function"):
        role = find_target(properties["Role"]) or ""
        if template["Resources"].get(role, {}).get("Type") != "AWS::IAM::Role":
            faults.append(f"{function}: role is not in the template")
        if role in owners:
            faults.append(f"{function}: shares {role} with {owners[role]}")
        owners[role] = function
    return faults


# Resources that a function knows by name without a permission.
NAMED_ONLY = {
    ("PublishModelsFunction", "BlobsTable"): "opens the index of content, and only adds to ContentTable",
    ("PublishEndsFunction", "ModelsBucket"): "puts the name of the bucket into events, and does not read it",
    ("RenderWidgetFunction", "ModelsBucket"): "shows where models are, and does not read them",
    ("ReadRetentionFunction", "ModelsBucket"): "shows where models are, and does not read them",
    ("ManagePinsFunction", "ModelsBucket"): "shows where a model is, and does not read it",
    ("RenderWidgetFunction", "CancelFromConsoleFunction"): "names the function that the user's browser invokes",
    ("ManageKeysFunction", "HubApi"): "shows the URL of the API, and sends no requests to it",
}


def check_grants(template: Template) -> list[str]:
    """A function has permissions exactly for the resources in its variables and for its event sources."""
    faults = []
    kinds = set(ENVIRONMENT_TYPES.values())
    consumed: dict[str, set[str]] = {}
    for function, queue, _ in list_consumers(template):
        consumed.setdefault(function, set()).add(queue)
    streams = {function: (table, find_destination(mapping)) for function, table, mapping in list_streams(template)}
    for function, properties in list_resources(template, "AWS::Lambda::Function"):
        granted: dict[str, set[str]] = {}
        for statement in list_statements(template, find_target(properties["Role"]) or ""):
            for resource in as_list(statement["Resource"]):
                if (target := find_target(resource)) in template["Resources"] and target is not None:
                    granted.setdefault(target, set()).update(as_list(statement["Action"]))
        variables = properties["Environment"]["Variables"].values()
        targets = [find_target(choice) for value in variables for choice in list_choices(value)]
        named = {name for name in targets if name and template["Resources"].get(name, {}).get("Type") in kinds}
        usable = {name for name in granted if template["Resources"][name]["Type"] in kinds}
        faults += [
            f"{function}: no permission to consume {queue}"
            for queue in sorted(consumed.get(function, set()))
            if not granted.get(queue, set()) >= CONSUMER_ACTIONS
        ]
        faults += [
            f"{function}: has {name} in a variable, but no permission"
            for name in sorted(named - usable)
            if (function, name) not in NAMED_ONLY
        ]
        if function in streams:
            table, destination = streams[function]
            if not granted.get(table, set()) >= STREAM_ACTIONS or granted.get(destination) != {"sqs:SendMessage"}:
                faults.append(f"{function}: no permission for the stream of {table} or for {destination}")
        unknown = usable - named - consumed.get(function, set()) - set(streams.get(function, ()))
        faults += [f"{function}: has a permission for {name}, but no variable" for name in sorted(unknown)]
    return faults


def check_environment(template: Template) -> list[str]:
    """Each variable is a string, which may contain the Region, a parameter, or a resource of the type that its name
    implies.
    """
    faults = []
    for function, properties in list_resources(template, "AWS::Lambda::Function"):
        variables = properties["Environment"]["Variables"]
        for variable, value in ((name, choice) for name in variables for choice in list_choices(variables[name])):
            target = find_target(value)
            if (target is None and isinstance(value, str)) or value == {"Ref": "AWS::StackName"}:
                continue
            if variable == "SIGNING_KEY_ARN" and value in SIGNING_KEYS:
                continue
            names = set(re.findall(r"\$\{(.*?)\}", str(value.get("Fn::Sub")))) if isinstance(value, dict) else set()
            if names and names <= REGION:
                continue
            kind = template["Resources"].get(target, {}).get("Type")
            wanted = next((kind for end, kind in ENVIRONMENT_TYPES.items() if f"_{variable}".endswith(end)), None)
            if kind != wanted or (wanted is None and target not in template["Parameters"]):
                faults.append(f"{function}: {variable} is {json.dumps(value)}")
    return faults


def check_numbers(template: Template) -> list[str]:
    """Large numbers are strings: CloudFormation may write them as 4.0E10, which is not an integer for a function."""
    return [
        f"{name}: {key} must be a string"
        for name, parameter in template["Parameters"].items()
        for key in ("Default", "MinValue", "MaxValue")
        if isinstance(parameter.get(key), int | float) and parameter[key] > MAX_EXACT_NUMBER
    ]


def check_encryption(template: Template) -> list[str]:
    """Buckets and queues declare their encryption, and KmsKeyArn encrypts everything with one key."""
    ours = {"Ref": "KmsKeyArn"}
    return [
        f"{name}: {'not the customer managed key' if key else 'no encryption'}"
        for key in ("", KEY_ARN)
        for name, resource in apply_parameters(template, **ALL_RESOURCES, KmsKeyArn=key)["Resources"].items()
        if resource["Type"] in KEYS
        for found in [_find_key(resource["Type"], resource.get("Properties", {}))]
        if found != (ours if key else KEYS[resource["Type"]])
    ]


def _find_key(kind: str, properties: Resource) -> Any:
    """Return the key that encrypts a resource, or what AWS uses instead, as in `KEYS`."""
    found: Any = properties.get(KEY_PROPERTIES.get(kind, ""))
    match kind:
        case "AWS::S3::Bucket":
            (rule,) = properties.get("BucketEncryption", {}).get("ServerSideEncryptionConfiguration", [{}])
            default = rule.get("ServerSideEncryptionByDefault", {})
            # Without a bucket key, each read of a file would be a request to KMS.
            managed = default.get("SSEAlgorithm") == "aws:kms" and rule.get("BucketKeyEnabled")
            found = default.get("KMSMasterKeyID" if managed else "SSEAlgorithm")
        case "AWS::DynamoDB::Table":
            used = properties.get("SSESpecification", {})
            found = used.get("KMSMasterKeyId") if used.get("SSEEnabled") and used.get("SSEType") == "KMS" else None
        case "AWS::SQS::Queue":
            found = found or properties.get("SqsManagedSseEnabled")
        case "AWS::IAM::Role" if any(find_target(one) == "UseKeyPolicy" for one in properties["ManagedPolicyArns"]):
            found = {"Ref": "KmsKeyArn"}
    return found


def check_public_access(template: Template) -> list[str]:
    faults = []
    blocks = ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets")
    for name, bucket in list_resources(template, "AWS::S3::Bucket"):
        settings = bucket.get("PublicAccessBlockConfiguration", {})
        faults += [f"{name}: {block} is not enabled" for block in blocks if settings.get(block) is not True]
        owners = bucket.get("OwnershipControls", {}).get("Rules", [])
        if owners != [{"ObjectOwnership": "BucketOwnerEnforced"}]:
            faults.append(f"{name}: access control lists are enabled")
    return faults


def check_transport(template: Template) -> list[str]:
    """Each bucket and queue denies plain HTTP, except on the local stack."""
    protected: set[str] = set()
    for resource in template["Resources"].values():
        if resource["Type"] in TRANSPORT_ACTIONS and resource.get("Condition", "IsAws") == "IsAws":
            protected |= _find_protected(resource["Type"], resource["Properties"])
    faults = [
        f"{name}: accepts plain HTTP"
        for kind in ("AWS::S3::Bucket", "AWS::SQS::Queue")
        for name, _ in list_resources(template, kind)
        if name not in protected
    ]
    if template["Parameters"]["LocalMode"]["Default"] != "false":
        faults.append("LocalMode: enabled by default")
    return faults


def _choose_aws(value: Any) -> Any:
    """Return the branch for deployments to AWS."""
    match value:
        case {"Fn::If": ["IsAws", chosen, _]} | {"Fn::If": ["IsLocal", _, chosen]}:
            return chosen
    return value


def _find_protected(kind: str, policy: Resource) -> set[str]:
    """Return the buckets or queues for which this policy denies plain HTTP completely."""
    owners = [find_target(owner) or "" for owner in policy.get("Queues", [policy.get("Bucket")])]
    denied: list[Any] = []
    statements = as_list(policy["PolicyDocument"]["Statement"])
    for statement in (choice for one in statements for choice in list_choices(_choose_aws(one))):
        if (
            statement["Effect"] == "Deny"
            and statement["Principal"] == "*"
            and statement["Action"] == TRANSPORT_ACTIONS[kind]
            and statement.get("Condition") == {"Bool": {"aws:SecureTransport": "false"}}
        ):
            denied += as_list(statement["Resource"])
    if kind == "AWS::SQS::QueuePolicy":
        return set(owners) if "*" in denied else set()
    return {
        name
        for name in owners
        if {"Fn::GetAtt": [name, "Arn"]} in denied and {"Fn::Sub": f"${{{name}.Arn}}/*"} in denied
    }


def check_queue_policies(template: Template) -> list[str]:
    """Each queue has one policy, because a second one replaces the first. It allows only the rules that have the queue
    as target or as dead-letter queue.

    https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-use-resource-based.html#eb-sqs-permissions
    """
    faults = []
    owners: dict[str, str] = {}
    allowed: set[tuple[str, str]] = set()
    for name, policy in list_resources(template, "AWS::SQS::QueuePolicy"):
        for queue in map(find_target, policy["Queues"]):
            if queue in owners:
                faults.append(f"{queue}: the policies {owners[queue]} and {name} replace each other")
            owners[queue or ""] = name
        statements = [s for choice in as_list(policy["PolicyDocument"]["Statement"]) for s in list_choices(choice)]
        for statement in (s for s in statements if s["Effect"] == "Allow"):
            source = find_target(statement.get("Condition", {}).get("ArnEquals", {}).get("aws:SourceArn")) or ""
            who, what = statement["Principal"], statement["Action"]
            if who != {"Service": "events.amazonaws.com"} or what != "sqs:SendMessage":
                faults.append(f"{name}: allows {what} for {who}")
            allowed |= {(source, find_target(queue) or "") for queue in as_list(statement["Resource"])}
    needed = _list_event_queues(template)
    faults += [f"{rule}: no permission to send to {queue}" for rule, queue in sorted(needed - allowed)]
    return faults + [f"{queue}: allows {rule or 'any principal'} to send" for rule, queue in sorted(allowed - needed)]


def _list_event_queues(template: Template) -> set[tuple[str, str]]:
    """Return (rule, queue) of each queue that is a target of a rule or its dead-letter queue."""
    queues = dict(list_resources(template, "AWS::SQS::Queue"))
    return {
        (name, queue)
        for name, rule in list_resources(template, "AWS::Events::Rule")
        for target in rule["Targets"]
        for arn in (target["Arn"], target.get("DeadLetterConfig", {}).get("Arn"))
        if (queue := find_target(arn)) in queues and queue is not None
    }


def check_buckets(template: Template) -> list[str]:
    """Unfinished multipart uploads and temporary objects expire."""
    faults = []
    expiring: dict[str, dict[str, int]] = {}
    versioned = apply_parameters(template, NoncurrentVersionDays="30")["Resources"]["ModelsBucket"]["Properties"]
    if versioned.get("VersioningConfiguration") != {"Status": "Enabled"}:
        faults.append("ModelsBucket: NoncurrentVersionDays keeps no versions")
    noncurrent = {
        rule.get("Prefix", ""): rule["NoncurrentVersionExpiration"]["NoncurrentDays"]
        for rule in versioned.get("LifecycleConfiguration", {}).get("Rules", [])
        if "NoncurrentVersionExpiration" in rule
    }
    if noncurrent != {"staging/": 1, "": {"Ref": "NoncurrentVersionDays"}}:
        faults.append("ModelsBucket: noncurrent versions do not expire as documented")
    for name, bucket in list_resources(apply_parameters(template), "AWS::S3::Bucket"):
        rules = bucket.get("LifecycleConfiguration", {}).get("Rules", [])
        rules = [rule for rule in rules if rule["Status"] == "Enabled"]
        uploads = [rule for rule in rules if "AbortIncompleteMultipartUpload" in rule and "Prefix" not in rule]
        if not uploads:
            faults.append(f"{name}: unfinished uploads are kept")
        days = [rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] for rule in uploads]
        faults += [f"{name}: uploads in progress are aborted" for life in days if life < MIN_UPLOAD_LIFE]
        expiring[name] = {
            rule.get("Prefix", ""): rule["ExpirationInDays"] for rule in rules if "ExpirationInDays" in rule
        }
        if "VersioningConfiguration" in bucket:
            faults.append(f"{name}: versioning keeps deleted objects")
    if expiring.get("ModelsBucket") != {"staging/": 7, "inspections/": 7, "boms/": 1}:
        faults.append("ModelsBucket: staging/, inspections/ and boms/, and nothing else, must expire")
    if expiring.get("IncomingBucket") != INCOMING_LIFE:
        faults.append("IncomingBucket: unexpected expiry of objects")
    return faults


def check_arrivals(template: Template) -> list[str]:
    """Each object that arrives is sent to ArchiveQueue, or after a day of retries to its dead-letter queue."""
    faults = []
    notifications = template["Resources"]["IncomingBucket"]["Properties"].get("NotificationConfiguration", {})
    if notifications.get("EventBridgeConfiguration") != {"EventBridgeEnabled": True}:
        faults.append("IncomingBucket: sends no events")
    rules = {
        name: rule
        for name, rule in list_resources(template, "AWS::Events::Rule")
        if rule.get("EventPattern", {}).get("source") == ["aws.s3"]
    }
    if not rules:
        faults.append("no rule for archives that arrive")
    for name, rule in rules.items():
        faults += [f"{name}: {fault}" for fault in _find_arrival_faults(rule)]
    return faults


def _find_arrival_faults(rule: Resource) -> Iterator[str]:
    pattern = rule["EventPattern"]
    if pattern.keys() != {"source", "detail-type", "detail"} or pattern["detail-type"] != ["Object Created"]:
        yield "matches other events, or none"
    if pattern["detail"]["bucket"] != {"name": [{"Ref": "IncomingBucket"}]}:
        yield "matches other buckets"
    keys = pattern["detail"].get("object", {}).get("key")
    if keys != [{"anything-but": {"prefix": OWN_PREFIXES}}]:
        yield f"matches the keys {keys}"
    if rule.get("State", "ENABLED") != "ENABLED":
        yield "is disabled"
    for target in rule["Targets"]:
        if find_target(target["Arn"]) != "ArchiveQueue":
            yield f"sends to {target['Arn']}"
        if not target.keys().isdisjoint({"Input", "InputPath", "InputTransformer"}):
            yield "transforms the event"
        if target.get("RetryPolicy", {}).get("MaximumEventAgeInSeconds") != ARRIVAL_AGE:
            yield "retries for less than a day"
        if find_target(target.get("DeadLetterConfig", {}).get("Arn")) != "DeadLetterQueue":
            yield "has no dead-letter queue"


def check_archive_parameters(template: Template) -> list[str]:
    """Every function has the limits of archives, and only some may read archives or store one from a form."""
    faults = []
    for name, function in list_resources(template, "AWS::Lambda::Function"):
        variables = function["Environment"]["Variables"]
        limits = {variable: find_target(variables.get(variable)) for variable in ARCHIVE_VARIABLES}
        if limits != ARCHIVE_VARIABLES:
            faults.append(f"{name}: has the limits {limits}")
        granted = map_grants(list_statements(template, find_target(function["Role"]) or ""))
        readable = {prefix for prefix in ARCHIVES if "s3:GetObject" in granted.get(("IncomingBucket", prefix), ())}
        if bool(readable) is not (name in ARCHIVE_READERS):
            faults.append(f"{name}: may read {sorted(readable)}")
        if ("s3:PutObject" in granted.get(("IncomingBucket", "posted/*"), ())) is not (name in ARCHIVE_RECEIVERS):
            faults.append(f"{name}: may store an archive from a form, or SubmitLocalFunction may not")
    return faults


def check_closing(template: Template) -> list[str]:
    """Exactly the functions that can end a task may clean up after an archive and write its outcome."""
    faults = []
    for name, function in list_resources(template, "AWS::Lambda::Function"):
        granted = map_grants(list_statements(template, find_target(function["Role"]) or ""))
        # Only functions that can end a task have this table.
        if "FILES_TABLE" in function["Environment"]["Variables"]:
            faults += [
                f"{name}: no permission for {action} at {place}"
                for place, actions in CLOSING_GRANTS.items()
                for action in sorted(actions - granted.get(place, set()))
            ]
        elif ("IncomingBucket", "outcomes/*") in granted:
            faults.append(f"{name}: has a permission for outcomes, but cannot end tasks")
    return faults


def check_drops(template: Template) -> list[str]:
    """DropArchivesPolicy allows dropping archives and reading outcomes, and no function writes to the drop prefix."""
    documents = template["Resources"]["DropArchivesPolicy"]["Properties"]["PolicyDocument"]
    granted = map_grants(as_list(documents["Statement"]))
    faults = [] if granted == DROP_GRANTS else [f"DropArchivesPolicy: allows {granted}"]
    for name, _ in list_resources(template, "AWS::IAM::Role"):
        actions = map_grants(list_statements(template, name)).get(("IncomingBucket", "incoming/*"), set())
        faults += [f"{name}: may {action} at incoming/" for action in sorted(actions - {"s3:GetObject"})]
    return faults


def check_tables(template: Template) -> list[str]:
    faults = []
    for name, table in list_resources(template, "AWS::DynamoDB::Table"):
        recovery = table.get("PointInTimeRecoverySpecification", {}).get("PointInTimeRecoveryEnabled")
        if name not in TABLES_TO_LOSE and not recovery:
            faults.append(f"{name}: no point-in-time recovery")
        if table.get("BillingMode") != "PAY_PER_REQUEST":
            faults.append(f"{name}: billing is not on demand")
        expiry = table.get("TimeToLiveSpecification")
        attribute = EXPIRY_ATTRIBUTES.get(name, "expires_at")
        wanted = None if name in TABLES_WITHOUT_EXPIRY else {"AttributeName": attribute, "Enabled": True}
        if expiry != wanted:
            faults.append(f"{name}: time to live is {expiry}")
    return faults


def check_retention(template: Template) -> list[str]:
    """Deleting the stack keeps the models and their records. A first deployment that fails keeps nothing: its tables
    are not protected, and protected tables could not be deleted.
    """
    faults = []
    for protection in ("off", "on"):
        resources = apply_parameters(template, DeletionProtection=protection)["Resources"]
        for name, resource in resources.items():
            if resource["Type"] not in {"AWS::DynamoDB::Table", "AWS::S3::Bucket"} or name in TABLES_TO_LOSE:
                continue
            faults += [f"{name}: {key} is not {value}" for key, value in RETAINED.items() if resource.get(key) != value]
            protected = resource["Properties"].get("DeletionProtectionEnabled")
            if resource["Type"] == "AWS::DynamoDB::Table" and protected is not (protection == "on"):
                faults.append(f"{name}: with DeletionProtection={protection}, the protection is {protected}")
    if template["Parameters"]["DeletionProtection"]["Default"] != "off":
        faults.append("DeletionProtection: a first deployment that fails leaves its tables")
    return faults


def check_logs(template: Template) -> list[str]:
    """Each function has its own log group with a retention, and the permission to write to it."""
    faults = []
    groups = dict(list_resources(template, "AWS::Logs::LogGroup"))
    owners: dict[str, str] = {}
    for function, properties in list_resources(template, "AWS::Lambda::Function"):
        group = find_target(properties.get("LoggingConfig", {}).get("LogGroup")) or ""
        if not groups.get(group, {}).get("RetentionInDays"):
            faults.append(f"{function}: no log group with a retention")
        if group in owners:
            faults.append(f"{function}: shares {group} with {owners[group]}")
        owners[group] = function
        statements = list_statements(template, find_target(properties["Role"]) or "")
        if not any(
            "logs:PutLogEvents" in as_list(statement["Action"]) and find_target(statement["Resource"]) == group
            for statement in statements
        ):
            faults.append(f"{function}: no permission to write its log")
    return faults


def check_tracing(template: Template) -> list[str]:
    faults = [
        f"{function}: no tracing"
        for function, properties in list_resources(template, "AWS::Lambda::Function")
        if properties.get("TracingConfig") != {"Mode": "Active"}
        or not any(
            "xray:PutTraceSegments" in as_list(statement["Action"])
            for statement in list_statements(template, find_target(properties["Role"]) or "")
        )
    ]
    stages = list_resources(template, "AWS::ApiGateway::Stage")
    return faults + [f"{name}: no tracing" for name, stage in stages if stage.get("TracingEnabled") is not True]


# Stage and the log group of its requests, and what a line must have. Everything else of a request may contain a secret.
_ACCESS_LOGS = {
    "Apiv1Stage": ("ApiAccessLogGroup", {"identity.userArn", "identity.apiKeyId", "resourcePath"}),
    "HubApihfStage": ("HubAccessLogGroup", {"authorizer.principalId", "path"}),
}
_LOGGED = {
    "requestId",
    "requestTime",
    "identity.sourceIp",
    "httpMethod",
    "status",
    "error.responseType",
    "responseLength",
    "responseLatency",
    "integrationLatency",
}


def check_access_logs(template: Template) -> list[str]:
    """Requests are logged only with ApiAccessLogs=on, because that requires a role of the account. The lines are JSON
    objects, have the caller and contain no secrets.
    """
    faults = [
        f"{stage}: logs requests by default"
        for stage in _ACCESS_LOGS
        if "AccessLogSetting" in apply_parameters(template)["Resources"][stage]["Properties"]
    ]
    logged = apply_parameters(template, ApiAccessLogs="on")
    for stage, (group, own) in _ACCESS_LOGS.items():
        setting = logged["Resources"][stage]["Properties"].get("AccessLogSetting", {})
        text = setting.get("Format", "")
        named = re.findall(r"\$context\.([A-Za-z.]+)", text)
        if set(named) != _LOGGED | own or len(named) != len(set(named)):
            faults.append(f"{stage}: logs {sorted(named)}")
        if "\n" in text or not text or json.loads(text).keys() < {"request_id", "time", "status"}:
            faults.append(f"{stage}: a line is not a JSON object")
        if not setting.get("DestinationArn", {}).get("Fn::Sub", "").endswith(f":log-group:${{{group}}}"):
            faults.append(f"{stage}: does not log to {group}")
        if "RetentionInDays" not in logged["Resources"].get(group, {}).get("Properties", {}):
            faults.append(f"{group}: no log group with a retention")
    without = apply_parameters(template, ApiAccessLogs="on", HubAccess="OFF")["Resources"]
    return faults + [
        f"{name}: is left with HubAccess=OFF" for name in ("HubApihfStage", "HubAccessLogGroup") if name in without
    ]


# Pages for browsers, without data of the account.
OPEN_PATHS = {"/openapi.json", "/docs", "/docs/{asset}"}
MAX_OPEN_RATE = 10  # requests per second to a route that needs no key


def check_callers(template: Template) -> list[str]:
    """Each route of the import API except the documentation requires an API key, or with AuthMode=IAM a signature.
    All methods are throttled, and those that need no key, such as OPTIONS, to a lower rate.
    """
    faults = [
        f"{method.upper()} {path}: authentication differs from the expected"
        for method, path, operation in list_operations(read_api(template, "Api"))
        if ({"api_key": []} in operation.get("security", [])) == (path in OPEN_PATHS)
    ]
    for mode, scheme in (("API_KEY", API_KEY), ("IAM", SIGV4)):
        chosen = apply_parameters(template, AuthMode=mode)
        if (schemes := read_api(chosen, "Api")["securityDefinitions"]) != {"api_key": scheme}:
            faults.append(f"Api: {mode} is {schemes}")
        throttled = _find_throttled(chosen, "Apiv1Stage")
        if ("*", "/*") not in throttled:
            faults.append(f"Apiv1Stage: with {mode}, no default throttle")
        open_methods = {("OPTIONS", path) for path in read_api(chosen, "Api")["paths"]}
        open_methods |= {("GET", path) for path in OPEN_PATHS}
        slow = {method for method, rate in throttled.items() if isinstance(rate, int) and rate <= MAX_OPEN_RATE}
        if slow != {(method, path.replace("/", "~1").replace("~1", "/~1", 1)) for method, path in open_methods}:
            faults.append(f"Apiv1Stage: with {mode}, {sorted(slow)} have a low limit")
    plans = [
        plan
        for _, plan in list_resources(template, "AWS::ApiGateway::UsagePlan")
        if plan.get("ApiStages")
        and plan.get("Throttle", {}).keys() >= {"RateLimit", "BurstLimit"}
        and plan.get("Quota")
    ]
    keys = list(list_resources(template, "AWS::ApiGateway::UsagePlanKey"))
    return faults if plans and keys else [*faults, "no usage plan with a throttle, a quota and a key"]


def _find_throttled(template: Template, stage: str) -> dict[tuple[str, str], Any]:
    """Return the rates of the methods and resource paths for which a stage has a rate limit and a burst limit."""
    return {
        (settings["HttpMethod"], settings["ResourcePath"]): settings["ThrottlingRateLimit"]
        for settings in template["Resources"][stage]["Properties"]["MethodSettings"]
        if settings.keys() >= {"ThrottlingRateLimit", "ThrottlingBurstLimit"}
    }


def check_hub_callers(template: Template) -> list[str]:
    """Each route of the Hub read API requires a read key, and the API is throttled. With HubAccess=OFF, only the table
    of keys is left.
    """
    definition = read_api(template, "HubApi")
    faults = [
        f"{method.upper()} {path}: security is {operation.get('security')}"
        for method, path, operation in list_operations(definition)
        if operation.get("security") != [{"ReadKey": []}]
    ]
    if (routes := list_routes(template, "HubApi")) != {(method, "/{proxy+}") for method in ("GET", "HEAD", "POST")}:
        faults.append(f"HubApi: the routes are {routes}")
    scheme = definition["securityDefinitions"]["ReadKey"]
    authorizer = scheme["x-amazon-apigateway-authorizer"]
    if (scheme["in"], scheme["name"], authorizer["type"]) != ("header", "Authorization", "token"):
        faults.append("ReadKey: the read key is not the token of the header Authorization")
    if "AuthorizeHubFunction" not in json.dumps(authorizer["authorizerUri"]):
        faults.append("ReadKey: AuthorizeHubFunction is not the authorizer")
    if authorizer["authorizerResultTtlInSeconds"] > MAX_REVOCATION:
        faults.append(f"ReadKey: a deleted key is accepted for more than {MAX_REVOCATION} s")
    if _find_throttled(template, "HubApihfStage").keys() != {("*", "/*")}:
        faults.append("HubApihfStage: no throttle")
    left = apply_parameters(template, HubAccess="OFF", HubOnMiss="IMPORT")["Resources"]
    return faults + [f"with HubAccess=OFF, there is {name}" for name in left if name.startswith(HUB_RESOURCES)]


def check_signing(template: Template) -> list[str]:
    """Only with Signing=KMS can functions sign models, with one key. A key is created only without an ARN."""
    faults = []
    arn = "arn:aws:kms:eu-central-1:123456789012:key/1a2b3c4d"
    for signing, key_arn, key in (("off", "", None), ("off", arn, None), ("KMS", "", 0), ("KMS", arn, 1)):
        chosen = apply_parameters(template, Signing=signing, SigningKeyArn=key_arn)
        case = f"Signing={signing}, SigningKeyArn={key_arn}"
        created = [name for name, resource in chosen["Resources"].items() if resource["Type"] == "AWS::KMS::Key"]
        if created != (["SigningKey"] if key == 0 else []):
            faults.append(f"{case}: creates {created}")
        granted = {
            (role, json.dumps(resource))
            for role, _ in list_resources(chosen, "AWS::IAM::Role")
            for statement in list_statements(chosen, role)
            if any(action.startswith("kms:") for action in as_list(statement["Action"]))
            for resource in as_list(statement["Resource"])
        }
        wanted = set() if key is None else {(role, json.dumps(SIGNING_KEYS[key])) for role in SIGNERS}
        if granted != wanted:
            faults.append(f"{case}: grants {sorted(granted)}")
        variables = [
            function["Environment"]["Variables"].get("SIGNING_KEY_ARN")
            for name, function in list_resources(chosen, "AWS::Lambda::Function")
            if name in ("PublishModelsFunction", "SignModelFunction")
        ]
        if variables != ([""] if key is None else [SIGNING_KEYS[key]] * 2):
            faults.append(f"{case}: the functions have the key {variables}")
    resource = template["Resources"]["SigningKey"]
    if (resource.get("DeletionPolicy"), resource.get("UpdateReplacePolicy")) != ("RetainExceptOnCreate", "Retain"):
        faults.append("SigningKey: is not kept")
    if (resource["Properties"]["KeySpec"], resource["Properties"]["KeyUsage"]) != ("ECC_NIST_P256", "SIGN_VERIFY"):
        faults.append("SigningKey: cannot sign models")
    return faults


def check_policy(template: Template) -> list[str]:
    """Functions that know the place of the policy can read this document, and no other function can. Without a policy,
    no function can.
    """
    faults = []
    for location in ("", "s3://bucket/policy.json", "ssm:/modelhaul/policy"):
        chosen = apply_parameters(template, PolicyLocation=location)
        readers = {
            find_target(function["Role"])
            for _, function in list_resources(chosen, "AWS::Lambda::Function")
            if "POLICY_LOCATION" in function["Environment"]["Variables"]
        }
        granted = {
            (role, statement["Action"], json.dumps(statement["Resource"]))
            for role, _ in list_resources(chosen, "AWS::IAM::Role")
            for statement in list_statements(chosen, role)
            if "PolicyLocation" in json.dumps(statement["Resource"]) or "ssm:GetParameter" in statement["Action"]
        }
        wanted = {(role, *grant) for role in readers for grant in POLICY_GRANTS} if location else set()
        if granted != wanted:
            faults.append(f"PolicyLocation={location}: grants {sorted(granted)}")
    return faults


def check_misses(template: Template) -> list[str]:
    """Only with HubOnMiss=IMPORT or REDIRECT can ReadHubFunction start imports, and only by ImportMissingFunction.

    The other roles that may invoke a function start the checks of follows.
    """
    faults = []
    invoking = ("ImportMissingFunction", "")
    for policy in ("NOT_FOUND", "IMPORT", "REDIRECT"):
        chosen = apply_parameters(template, HubOnMiss=policy)
        wanted = policy != "NOT_FOUND"
        if ("ImportMissingFunction" in chosen["Resources"]) is not wanted:
            faults.append(f"{policy}: ImportMissingFunction is missing or unexpected")
        granted = map_grants(list_statements(chosen, "ReadHubRole"))
        if granted.get(invoking) != ({"lambda:InvokeFunction"} if wanted else None):
            faults.append(f"{policy}: ReadHubFunction may {granted.get(invoking)}")
        if ("TasksTable", "") in granted and not wanted:
            faults.append(f"{policy}: ReadHubFunction may read tasks")
    invokers = {
        name
        for name, _ in list_resources(template, "AWS::IAM::Role")
        if "lambda:InvokeFunction" in json.dumps(list(list_statements(template, name)))
    }
    checks = ("CheckFollowsFunction", "")
    for role in FOLLOWING_ROLES:
        granted = map_grants(list_statements(template, role))
        if {target for target, actions in granted.items() if "lambda:InvokeFunction" in actions} != {checks}:
            faults.append(f"{role}: may invoke other functions than CheckFollowsFunction")
    if invokers != {"ReadHubRole", *FOLLOWING_ROLES}:
        faults.append(f"{sorted(invokers)} may invoke functions")
    return faults


def check_updates(template: Template) -> list[str]:
    """Functions that Hub clients invoke can update no attributes except names and the days of the last use."""
    faults = []
    for (role, table), attributes in UPDATED_ATTRIBUTES.items():
        for statement in list_statements(template, role):
            if "dynamodb:UpdateItem" not in as_list(statement["Action"]):
                continue
            found = statement.get("Condition", {}).get("ForAllValues:StringEquals", {}).get("dynamodb:Attributes", [])
            if find_target(statement["Resource"]) != table or set(found) != attributes:
                faults.append(f"{role}: may update {found or 'all attributes'} of {statement['Resource']}")
            returned = statement.get("Condition", {}).get("StringEqualsIfExists", {}).get("dynamodb:ReturnValues")
            if role in RECORDERS and returned != "NONE":
                faults.append(f"{role}: an update may return the item of {statement['Resource']}")
    return faults


def check_api_timeouts(template: Template) -> list[str]:
    """A function behind a route times out before API Gateway, also after a cold start. A function that it waits for
    times out earlier.
    """
    timeouts = {name: function["Timeout"] for name, function in list_resources(template, "AWS::Lambda::Function")}
    faults = [
        f"{method.upper()} {path}: timeout of {find_handler(operation)} leaves no room for a cold start"
        for api, _ in list_resources(template, "AWS::ApiGateway::RestApi")
        for method, path, operation in list_operations(read_api(template, api))
        if timeouts[find_handler(operation)] > MAX_API_TIMEOUT
    ]
    if timeouts["ImportMissingFunction"] >= timeouts["ReadHubFunction"]:
        faults.append("ImportMissingFunction: its timeout exceeds that of ReadHubFunction")
    return faults


def check_media_types(template: Template) -> list[str]:
    """Only forms, which contain archives, reach the import API's functions as binary data. The Hub read API returns
    parts of files of any type.
    """
    wanted = {"Api": ["multipart/form-data"], "HubApi": ["*/*"]}
    return [
        f"{name}: {types} are binary"
        for name in wanted
        if (types := read_api(template, name).get("x-amazon-apigateway-binary-media-types")) != wanted[name]
    ]


def check_gateway_responses(template: Template) -> list[str]:
    """The errors of the import API that API Gateway returns itself are problem documents (RFC 9457)."""
    faults = []
    for mode, statuses in (("API_KEY", GATEWAY_STATUS), ("IAM", IAM_STATUS)):
        responses = read_api(apply_parameters(template, AuthMode=mode), "Api")["x-amazon-apigateway-gateway-responses"]
        faults += [f"{mode}: {fault}" for fault in _find_status_faults(responses, statuses)]
        for kind in responses.keys() & statuses.keys():
            faults += [f"{mode}, {kind}: {fault}" for fault in _find_response_faults(kind, responses[kind])]
    return faults


def check_hub_gateway_responses(template: Template) -> list[str]:
    """The errors of the Hub read API that API Gateway returns itself have the format of the Hub."""
    responses = read_api(template, "HubApi")["x-amazon-apigateway-gateway-responses"]
    faults = [*_find_status_faults(responses, HUB_GATEWAY_STATUS)]
    for kind, response in responses.items():
        headers = {
            name.removeprefix("gatewayresponse.header."): value.strip("'")
            for name, value in response["responseParameters"].items()
        }
        body = json.loads(response["responseTemplates"]["application/json"])
        if headers["Content-Type"] != "application/json" or body.keys() != {"error"}:
            faults.append(f"{kind}: not an error of the Hub")
        message = body.get("error", "")
        wanted = INVALID_CREDENTIALS if HUB_GATEWAY_STATUS.get(kind) == HTTPStatus.UNAUTHORIZED else message
        if headers["X-Error-Message"] != wanted:
            faults.append(f"{kind}: X-Error-Message is {headers['X-Error-Message']}")
        if wanted == INVALID_CREDENTIALS and "modelhaul keys create" not in message:
            faults.append(f"{kind}: does not say how to create a key")
        if ("Retry-After" in headers) is not (kind in RETRIED):
            faults.append(f"{kind}: Retry-After is missing or unexpected")
    return faults


def _find_status_faults(responses: Resource, statuses: Mapping[str, int | None]) -> Iterator[str]:
    if responses.keys() != statuses.keys():
        yield f"{sorted(responses.keys() ^ statuses.keys())}"
    for kind in responses.keys() & statuses.keys():
        if responses[kind].get("statusCode") != (str(statuses[kind]) if statuses[kind] else None):
            yield f"status of {kind} is {responses[kind].get('statusCode')}"


def _find_response_faults(kind: str, response: Resource) -> Iterator[str]:
    headers = response.get("responseParameters", {})
    problem = json.loads(response["responseTemplates"]["application/json"])
    if headers.get("gatewayresponse.header.Content-Type") != "'application/problem+json'":
        yield "not a problem document"
    if not problem.keys() >= {"type", "title", "detail", "remedy"}:
        yield "a field of the problem is missing"
    slug = problem["type"].removeprefix("urn:modelhaul:problem:")
    known = problem.get("remedy") if kind in MISCONFIGURED else PROBLEM_REMEDIES.get(slug, problem.get("remedy"))
    if slug == problem["type"] or problem.get("remedy") != known:
        yield "unknown type, or a remedy that differs from that of functions"
    if str(problem.get("status", "")) != response.get("statusCode", ""):
        yield "status differs from that of the response"
    retry_after = f"'{problem['retry_after']}'" if "retry_after" in problem else None
    if headers.get("gatewayresponse.header.Retry-After") != retry_after or (kind in RETRIED) is (retry_after is None):
        yield "Retry-After is missing, unexpected, or differs from retry_after"
    if kind in REFUSED_BODIES and not all(way in problem.get("remedy", "") for way in WAYS_FOR_LARGE_ARCHIVES):
        yield "remedy does not explain uploads of larger archives"


def check_cors(template: Template) -> list[str]:
    """With CorsAllowOrigin, each response of the import API that is API Gateway's own has the origin, and each path
    responds to preflight requests without a key. Without it, no response has an origin.
    """
    faults = []
    for origin in ("", ORIGIN):
        wanted = f"'{ORIGIN}'" if origin else None
        definition = read_api(apply_parameters(template, CorsAllowOrigin=origin), "Api")
        for kind, response in definition["x-amazon-apigateway-gateway-responses"].items():
            if _find_origin(response["responseParameters"], "gatewayresponse", origin) != wanted:
                faults.append(f"{kind}: origin is not {wanted}")
        for path, methods in definition["paths"].items():
            preflight = methods.get("options", {})
            answer = preflight.get("x-amazon-apigateway-integration", {}).get("responses", {}).get("default", {})
            sent = answer.get("responseParameters", {})
            if _find_origin(sent, "method.response", origin) != wanted:
                faults.append(f"OPTIONS {path}: origin is not {wanted}")
            allowed = sent.get("method.response.header.Access-Control-Allow-Headers", "").strip("'").split(",")
            if not set(allowed) >= ASKED_HEADERS:
                faults.append(f"OPTIONS {path}: allows {allowed}")
            if preflight.get("security"):
                faults.append(f"OPTIONS {path}: requires a key, which browsers do not send")
    return faults


def check_bucket_cors(template: Template) -> list[str]:
    """Only pages of CorsAllowOrigin may use presigned URLs, and the page /docs may download files."""
    faults = []
    for name, bucket in list_resources(apply_parameters(template, CorsAllowOrigin=""), "AWS::S3::Bucket"):
        found = bucket.get("CorsConfiguration", {}).get("CorsRules", [])
        if found != ([DOCS_CORS] if name == "ModelsBucket" else []):
            faults.append(f"{name}: without CorsAllowOrigin, has the rules {found}")
    for name, bucket in list_resources(apply_parameters(template, CorsAllowOrigin=ORIGIN), "AWS::S3::Bucket"):
        origins, methods, headers = BUCKET_CORS[name]
        rule = bucket.get("CorsConfiguration", {}).get("CorsRules", [{}])[-1]
        found = {find_target(one) or str(one) for one in rule.get("AllowedOrigins", [])}
        if found != origins:
            faults.append(f"{name}: origins are {sorted(found)}")
        if set(rule.get("AllowedMethods", [])) != methods or set(rule.get("AllowedHeaders", [])) != headers:
            faults.append(f"{name}: unexpected methods or headers")
        if "ETag" not in rule.get("ExposedHeaders", []):
            faults.append(f"{name}: does not expose the ETag")
    return faults


def _find_origin(headers: dict[str, Any], part: str, origin: str) -> str | None:
    match headers.get(f"{part}.header.Access-Control-Allow-Origin"):
        case {"Fn::Sub": str(text)}:
            return text.replace("${CorsAllowOrigin}", origin)
        case found:
            return None if found is None else str(found)


def check_topics(template: Template) -> list[str]:
    """With NotificationEmail, only our rules and alarms publish to the topic. Without it, there is no topic.

    Alarms notify this topic, AlarmTopicArn or both. Without either, there are no alarms.
    """
    faults = []
    for address, arn in product(("", "a@example.com"), ("", ALARM_TOPIC)):
        chosen = apply_parameters(template, NotificationEmail=address, AlarmTopicArn=arn)
        kinds = {resource["Type"] for resource in chosen["Resources"].values()}
        if bool(address) is not ("AWS::SNS::Topic" in kinds):
            faults.append(f"topic missing or unexpected for the address {address!r}")
        rules = {
            name: rule
            for name, rule in list_resources(chosen, "AWS::Events::Rule")
            if rule.get("EventPattern", {}).get("source") == ["Modelhaul"]
        }
        named = {kind for rule in rules.values() for kind in rule["EventPattern"]["detail-type"]}
        faults += [
            f"{name}: matches the events of all stacks"
            for name, rule in rules.items()
            if rule["EventPattern"].get("detail", {}).get("stack") != [{"Ref": "AWS::StackName"}]
        ]
        if named != ({"ImportSucceeded", "ImportFailed"} if address else set()):
            faults.append(f"with the address {address!r}, emails are sent for {named}")
        policies = list(list_resources(chosen, "AWS::SNS::TopicPolicy"))
        granted = [(name, s) for name, policy in policies for s in as_list(policy["PolicyDocument"]["Statement"])]
        for name, statement in granted:
            faults += [f"{name}: {fault}" for fault in _find_publisher_faults(statement, set(rules))]
        if address and not any(s["Effect"] == "Deny" for _, s in granted):
            faults.append("the topic accepts plain HTTP")
        alarms = [alarm for _, alarm in list_resources(chosen, "AWS::CloudWatch::Alarm")]
        actions = {json.dumps(alarm.get(kind)) for alarm in alarms for kind in ("AlarmActions", "OKActions")}
        topics = [*["NotificationsTopic"] * bool(address), *["AlarmTopicArn"] * bool(arn)]
        if actions != ({json.dumps([{"Ref": topic} for topic in topics])} if topics else set()):
            faults.append(f"with the address {address!r} and the topic {arn!r}, the alarm actions are {actions}")
    return faults


def _find_publisher_faults(statement: dict[str, Any], rules: set[str]) -> Iterator[str]:
    match statement["Effect"], statement["Principal"], statement.get("Condition"):
        case "Deny", "*", {"Bool": {"aws:SecureTransport": "false"}}:
            return
        case "Allow", {"Service": "events.amazonaws.com"}, {"ArnEquals": {"aws:SourceArn": sources}}:
            if {json.dumps(source) for source in as_list(sources)} != set(map(_find_rule_arn, rules)):
                yield f"allows {sources} to publish"
        case "Allow", {"Service": "cloudwatch.amazonaws.com"}, {
            "StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}
        }:
            return
        case _:
            yield f"allows {statement['Principal']} to publish"


def _find_rule_arn(name: str) -> str:
    """Return the JSON of the ARN of a rule on the default event bus."""
    return json.dumps(
        {"Fn::Sub": f"arn:${{AWS::Partition}}:events:${{AWS::Region}}:${{AWS::AccountId}}:rule/${{{name}}}"}
    )


def check_names(template: Template) -> list[str]:
    """A name from the template contains the name of the stack, and that of a dashboard the Region too, because the
    console shows the dashboards of all Regions. No two stacks have a resource of the same name, whatever their names.
    """
    faults = []
    ends: dict[str, list[str]] = {}
    for resource, kind, name in _list_names(template):
        start, stack, end = _write_name(name).partition("${AWS::StackName}")
        if not stack or (kind == "AWS::CloudWatch::Dashboard" and "${AWS::Region}" not in end):
            faults.append(f"{resource}: another stack can have the name {name}")
        # Several APIs can have the same name.
        if kind != "AWS::ApiGateway::RestApi":
            ends.setdefault(f"{kind} {start}", []).append(end)
    return faults + [
        f"the stacks x and x{longer.removesuffix(shorter)} share the name x{longer}"
        for names in ends.values()
        for longer, shorter in permutations(names, 2)
        if longer.endswith(shorter)
    ]


def _list_names(template: Template) -> Iterator[tuple[str, str, Any]]:
    """Yield (resource, type, name) of each resource with a name from the template. The name of a stage is a path."""
    for resource, content in template["Resources"].items():
        kind, properties = content["Type"], content.get("Properties", {})
        own = re.sub(r"Definition$|Version$", "", kind.rpartition("::")[2])
        for key in {"Name", f"{own}Name"} - {"StageName"}:
            if key in properties:
                yield resource, kind, properties[key]
        if kind == "AWS::ApiGateway::RestApi":
            yield resource, kind, properties["Body"]["info"]["title"]


def _write_name(name: Any) -> str:
    """Return the name as the text of an `Fn::Sub`."""
    match name:
        case {"Fn::Sub": str(text)}:
            return text
        case {"Ref": str(parameter)}:
            return f"${{{parameter}}}"
    return str(name)


def check_outputs(template: Template) -> list[str]:
    """The outputs name the resources that users and operators need."""
    outputs = template["Outputs"]
    kinds = {
        "AWS::S3::Bucket": "",
        "AWS::DynamoDB::Table": "",
        "AWS::SQS::Queue": "Url",
        "AWS::Lambda::Function": "",
    }
    faults = []
    for name, resource in template["Resources"].items():
        if resource["Type"] in kinds:
            output = outputs.get(name + kinds[resource["Type"]], {})
            if output.get("Value") != {"Ref": name} or output.get("Condition") != resource.get("Condition"):
                faults.append(f"{name}: no output")
    if outputs.get("DropArchivesPolicy", {}).get("Value") != {"Ref": "DropArchivesPolicy"}:
        faults.append("DropArchivesPolicy: no output")
    stages = {stage["StageName"] for _, stage in list_resources(template, "AWS::ApiGateway::Stage")}
    if stages != {"v1", "hf"}:
        faults.append(f"the stages are {sorted(stages)}")
    for name, start, end in (("ApiUrl", "https://${Api}.", "/v1"), ("HubUrl", "https://${HubApi}.", "/hf")):
        address = outputs.get(name, {}).get("Value", {}).get("Fn::Sub", "")
        if not (address.startswith(start) and address.endswith(f".${{AWS::URLSuffix}}{end}")):
            faults.append(f"{name}: not the URL of the stage")
    if find_target(outputs.get("ApiKeyId", {}).get("Value")) not in dict(
        list_resources(template, "AWS::ApiGateway::ApiKey")
    ):
        faults.append("ApiKeyId: not an API key")
    return faults


RULES: tuple[Rule, ...] = (
    check_visibility,
    check_partial_batches,
    check_concurrency,
    check_dead_letter_queues,
    check_streams,
    check_audit,
    check_wildcards,
    check_attachments,
    check_publishers,
    check_roles,
    check_grants,
    check_environment,
    check_numbers,
    check_encryption,
    check_public_access,
    check_transport,
    check_queue_policies,
    check_buckets,
    check_arrivals,
    check_archive_parameters,
    check_closing,
    check_drops,
    check_tables,
    check_retention,
    check_logs,
    check_access_logs,
    check_tracing,
    check_callers,
    check_hub_callers,
    check_misses,
    check_signing,
    check_policy,
    check_updates,
    check_api_timeouts,
    check_media_types,
    check_gateway_responses,
    check_hub_gateway_responses,
    check_cors,
    check_bucket_cors,
    check_topics,
    check_names,
    check_outputs,
)


def check_handlers(template: Template, root: Path = ROOT) -> list[str]:
    """Each function has a folder with its handler, and each folder has a function."""
    faults = []
    folders = {path.name for path in (root / "functions").iterdir() if path.is_dir() and path.name != "__pycache__"}
    for name, properties in list_resources(template, "AWS::Lambda::Function"):
        code = properties["Code"]
        if code["S3Bucket"] != CODE_BUCKET:
            faults.append(f"{name}: code is not in this repository")
            continue
        folder = Path(code["S3Key"])
        module, _, attribute = properties["Handler"].rpartition(".")
        path = root / folder / f"{module}.py"
        if not path.is_file() or not re.search(
            rf"^(def {attribute}\(|{attribute}\b.*=)", path.read_text(), re.MULTILINE
        ):
            faults.append(f"{name}: no {attribute} in {folder / module}.py")
        if name != folder.name.title().replace("_", "") + "Function":
            faults.append(f"{name}: name does not match {folder}")
        folders.discard(folder.name)
    return faults + [f"functions/{folder}: not in the template" for folder in sorted(folders)]


def check_layers(template: Template, root: Path = ROOT) -> list[str]:
    """Each layer has pinned requirements: without requirements.txt, SAM builds and deploys it without packages."""
    faults = []
    for name, layer in list_resources(template, "AWS::Lambda::LayerVersion"):
        folder = Path(layer["Content"]["S3Key"])
        requirements = root / folder / "requirements.txt"
        text = requirements.read_text() if requirements.is_file() else ""
        pins = re.findall(r"^[A-Za-z0-9._-]+(?:\[[^]]*\])?==", text, re.MULTILINE)
        if not pins or text.count("--hash=sha256:") < len(pins):
            faults.append(f"{name}: no pinned and hashed packages in {folder}/requirements.txt")
        if not (root / folder / "Makefile").is_file():
            faults.append(f"{name}: no Makefile in {folder}")
    return faults


def check_route_table(template: Template, page: str) -> list[str]:
    """docs/api.md has a row for each route, as ``| `POST /v1/...` |``."""
    named = set(re.findall(r"^\|\s*`([A-Z]+) /v1(/[^\s?`]*)[^`]*`", page, re.MULTILINE))
    routes = list_routes(template)
    missing = [f"docs/api.md: no {method} /v1{path}" for method, path in sorted(routes - named)]
    return missing + [f"docs/api.md: {method} /v1{path} is not a route" for method, path in sorted(named - routes)]


def check_removed_tables(template: Template, page: str) -> list[str]:
    """docs/quickstart-aws.md removes all tables that are kept when the stack is deleted."""
    removed = set(re.findall(r"\$\(out (\w+Table)\)", page))
    kept = {name for name, _ in list_resources(template, "AWS::DynamoDB::Table") if name not in TABLES_TO_LOSE}
    return [f"docs/quickstart-aws.md: {name} is not removed" for name in sorted(kept - removed)] + [
        f"docs/quickstart-aws.md: {name} is not a table that is kept" for name in sorted(removed - kept)
    ]


def check_parameter_table(template: Template, page: str) -> list[str]:
    """docs/parameters.md has one row for each parameter, as ``| `Name` | `default` | meaning |``."""
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \| \S.*\|$", page, re.MULTILINE)
    named = sorted((name, "" if default == "none" else default.strip("`")) for name, default in rows)
    wanted = sorted((name, str(parameter["Default"])) for name, parameter in template["Parameters"].items())
    missing = [f"docs/parameters.md: no row {row}" for row in wanted if row not in named]
    unknown = [f"docs/parameters.md: {row} is not in the template" for row in named if row not in wanted]
    repeated = [f"docs/parameters.md: duplicate row {row}" for row, following in pairwise(named) if row == following]
    return missing + unknown + repeated
