"""One real stack for all tests here: the template, deployed to MiniStack, and the loopback Hub beside it."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pytest
import requests

from local.sources import SourceUrls
from local.stack import CLIENT_CONFIG, LocalStack, StackState, open_session
from tests.hub_clients.s3_stand_in import S3StandIn
from tests.stack.hub_models import ImportedModels, import_models
from tests.template.rules import MAX_RECEIVES
from tests.upstream.remote import RemoteUpstream
from tests.upstream.repositories import MINILM

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

END_WITHIN = 90.0  # seconds; only so that a broken pipeline does not hang the tests


def wait_until(reached: Callable[[], bool], told: object = "", *, within: float = END_WITHIN) -> None:
    """Asks again and again. AssertionError, with what `told` then is, if it is not so after `within` seconds."""
    deadline = time.monotonic() + within
    while not reached():
        assert time.monotonic() < deadline, f"nothing moves any more: {told}"
        time.sleep(0.2)


@dataclass
class Stack:
    """The deployed stack as its users and its operators see it."""

    state: StackState
    http: requests.Session = field(default_factory=requests.Session)

    def __post_init__(self) -> None:
        self.http.headers["x-api-key"] = self.state.api_key
        self.http.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=50))

    @cached_property
    def s3(self) -> "S3Client":
        return open_session().client("s3", endpoint_url=self.state.aws_endpoint_url, config=CLIENT_CONFIG)

    @cached_property
    def dynamodb(self) -> "DynamoDBClient":
        return open_session().client("dynamodb", endpoint_url=self.state.aws_endpoint_url, config=CLIENT_CONFIG)

    @cached_property
    def sqs(self) -> "SQSClient":
        return open_session().client("sqs", endpoint_url=self.state.aws_endpoint_url, config=CLIENT_CONFIG)

    @cached_property
    def functions(self) -> "LambdaClient":
        return open_session().client("lambda", endpoint_url=self.state.aws_endpoint_url, config=CLIENT_CONFIG)

    def submit(self, model_tag: str, revision: str = "main", **selection: object) -> requests.Response:
        body = {"model_tag": model_tag, "revision": revision, **selection}
        return self.http.post(f"{self.state.api_url}/upload/huggingface", json=body, timeout=120)

    def submit_repository(self, name: str, revision: str = "main", **selection: object) -> requests.Response:
        """`name`: owner/repository on GitHub."""
        owner, _, repo_name = name.partition("/")
        body = {"owner": owner, "repo_name": repo_name, "revision": revision, **selection}
        return self.http.post(f"{self.state.api_url}/upload/github", json=body, timeout=120)

    def import_repository(self, name: str, revision: str = "main", **selection: object) -> dict[str, Any]:
        answer = self.submit_repository(name, revision, **selection)
        assert answer.status_code == 201, answer.text
        return self.wait_for_end(answer.headers["Location"].removeprefix("/v1/upload/tasks/"))

    def accept(self, model_tag: str, revision: str = "main", **selection: object) -> str:
        """Submits and returns the task's id."""
        answer = self.submit(model_tag, revision, **selection)
        assert answer.status_code == 201, answer.text
        assert answer.text == ""
        return answer.headers["Location"].removeprefix("/v1/upload/tasks/")

    def read_task(self, task_id: str) -> dict[str, Any]:
        answer = self.http.get(f"{self.state.api_url}/upload/tasks/{task_id}", timeout=30)
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    def wait_for_end(self, task_id: str) -> dict[str, Any]:
        return self.wait_for(task_id, lambda task: task["task_status"] != "PENDING")

    def wait_for(self, task_id: str, reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        seen: list[dict[str, Any]] = []

        def is_reached() -> bool:
            seen[:] = [self.read_task(task_id)]
            return reached(seen[0])

        self.wait_until(is_reached, seen)
        return seen[0]

    def wait_until(self, reached: Callable[[], bool], told: object = "") -> None:
        wait_until(reached, told)

    def import_model(self, model_tag: str, revision: str = "main", **selection: object) -> dict[str, Any]:
        task = self.wait_for_end(self.accept(model_tag, revision, **selection))
        assert task["task_status"] == "DONE", task
        return task

    def list_keys(self, prefix: str) -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.state.models_bucket, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def read_object(self, key: str) -> bytes:
        return self.s3.get_object(Bucket=self.state.models_bucket, Key=key)["Body"].read()

    def list_uploads(self) -> list[str]:
        found = self.s3.list_multipart_uploads(Bucket=self.state.models_bucket)
        return [upload["Key"] for upload in found.get("Uploads", [])]

    def make_due(self, task_id: str) -> None:
        """Lets the time pass that the sweep would wait for: for the task, and for the leases of dead functions."""
        updated = self.dynamodb.update_item(
            TableName=self.state.outputs["TasksTable"],
            Key={"id": {"S": task_id}},
            UpdateExpression="SET check_at = :zero",
            ExpressionAttributeValues={":zero": {"N": "0"}},
            ReturnValues="ALL_NEW",
        )
        files_table, plan_id = self.state.outputs["FilesTable"], updated["Attributes"].get("plan_id")
        if plan_id is None:
            return
        items = self.dynamodb.query(
            TableName=files_table,
            KeyConditionExpression="task_id = :plan",
            FilterExpression="attribute_exists(lease_until)",
            ExpressionAttributeValues={":plan": plan_id},
        )["Items"]
        for item in items:
            self.dynamodb.update_item(
                TableName=files_table,
                Key={"task_id": item["task_id"], "path": item["path"]},
                UpdateExpression="SET lease_until = :zero",
                ExpressionAttributeValues={":zero": {"N": "0"}},
            )

    @contextmanager
    def pause_consumer(self, queue: str) -> Iterator[None]:
        """Messages stay in the queue as long as this is open."""
        self._enable_consumer(queue, enabled=False)
        try:
            yield
        finally:
            self.resume_consumer(queue)

    def resume_consumer(self, queue: str) -> None:
        self._enable_consumer(queue, enabled=True)

    def _enable_consumer(self, queue: str, *, enabled: bool) -> None:
        arn = self._find_arn(queue)
        (mapping,) = self.functions.list_event_source_mappings(EventSourceArn=arn)["EventSourceMappings"]
        self.functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=enabled)

    def purge_queue(self, queue: str) -> None:
        assert self.take_messages(queue), "there was a message to lose"

    def take_messages(self, queue: str) -> list[str]:
        """Receives and deletes what is in the queue; the bodies."""
        url = self.state.outputs[f"{queue}Url"]
        taken = self.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=5).get("Messages", [])
        for message in taken:
            self.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return [message["Body"] for message in taken]

    def use_up_deliveries(self, queue: str) -> None:
        """Receive the only message as often as SQS delivers it, as a function that is throttled each time."""
        url = self.state.outputs[f"{queue}Url"]
        for _ in range(MAX_RECEIVES):
            received = self.sqs.receive_message(QueueUrl=url, WaitTimeSeconds=5, VisibilityTimeout=0)
            assert len(received["Messages"]) == 1
        assert "Messages" not in self.sqs.receive_message(QueueUrl=url)

    def send_message(self, queue: str, body: str) -> None:
        self.sqs.send_message(QueueUrl=self.state.outputs[f"{queue}Url"], MessageBody=body)

    def _find_arn(self, queue: str) -> str:
        attributes = self.sqs.get_queue_attributes(
            QueueUrl=self.state.outputs[f"{queue}Url"], AttributeNames=["QueueArn"]
        )
        return attributes["Attributes"]["QueueArn"]

    def create_key(self, name: str, **properties: object) -> dict[str, Any]:
        """Create a read key of the Hub read API, and return the response."""
        response = self.http.post(f"{self.state.api_url}/keys", json={"name": name, **properties}, timeout=30)
        assert response.status_code == 201, response.text
        body: dict[str, Any] = response.json()
        return body

    def sweep(self) -> None:
        answer = self.functions.invoke(FunctionName=self.state.outputs["SweepStaleFunction"], Payload=b"{}")
        assert "FunctionError" not in answer, answer["Payload"].read()


def allow_batches(state: StackState) -> None:
    """MiniStack asks for `sqs:SendMessageBatch`, an action that AWS does not know: there it is `sqs:SendMessage`.

    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-api-permissions-reference.html
    """
    iam = open_session().client("iam", endpoint_url=state.aws_endpoint_url, config=CLIENT_CONFIG)
    for role in (role["RoleName"] for role in iam.list_roles()["Roles"]):
        statements = [statement for document in list_documents(iam, role) for statement in document["Statement"]]
        batches = [{**s, "Action": "sqs:SendMessageBatch"} for s in statements if s["Action"] == "sqs:SendMessage"]
        for batch in batches:
            # Several policies may use the same Sid.
            batch.pop("Sid", None)
        if batches:
            document = json.dumps({"Version": "2012-10-17", "Statement": batches})
            iam.put_role_policy(RoleName=role, PolicyName="batches", PolicyDocument=document)


def list_documents(iam: Any, role: str) -> Iterator[dict[str, Any]]:
    """Yield the documents of the inline and attached policies of a role."""
    for name in iam.list_role_policies(RoleName=role)["PolicyNames"]:
        yield iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
    for attached in iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]:
        policy = iam.get_policy(PolicyArn=attached["PolicyArn"])["Policy"]
        version = iam.get_policy_version(PolicyArn=policy["Arn"], VersionId=policy["DefaultVersionId"])
        yield version["PolicyVersion"]["Document"]


@pytest.fixture(scope="session")
def stack(stack_name: str) -> Iterator[Stack]:
    local = LocalStack(stack_name)
    try:
        parameters = {"HubOnMiss": "IMPORT", "AuditRetentionDays": 30}
        state = local.start("loopback", SourceUrls(), 0, print, parameters=parameters, enforce_iam=True)
        allow_batches(state)
        yield Stack(state)
    finally:
        local.stop()


@pytest.fixture(scope="session")
def minilm(stack: Stack) -> dict[str, Any]:
    """The task that brought the Hub's real model, whose files others have as well."""
    return stack.import_model(MINILM)


@pytest.fixture(scope="session")
def s3_stand_in(stack: Stack) -> Iterator[S3StandIn]:
    """The S3 of the Hub read API, until the stack stops."""
    with S3StandIn(stack.state.aws_endpoint_url) as stand_in:
        name = stack.state.outputs["ReadHubFunction"]
        variables = stack.functions.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
        variables["AWS_ENDPOINT_URL_S3"] = stand_in.endpoint
        stack.functions.update_function_configuration(FunctionName=name, Environment={"Variables": variables})
        yield stand_in


@pytest.fixture(scope="session")
def read_key(stack: Stack) -> str:
    key: str = stack.create_key("clients")["key"]
    return key


@pytest.fixture(scope="session")
def hub_models(stack: Stack, s3_stand_in: S3StandIn) -> ImportedModels:
    """The models that the tests of Hub clients read, from the stand-in for S3."""
    return import_models(stack)


@pytest.fixture
def hub(stack: Stack) -> Iterator[RemoteUpstream]:
    hub = RemoteUpstream(stack.state.hub_endpoint)
    hub.clear_faults()
    hub.clear_requests()
    yield hub
    hub.clear_faults()


@pytest.fixture
def github(stack: Stack) -> Iterator[RemoteUpstream]:
    if not stack.state.sample_repository:
        pytest.skip("the loopback GitHub needs git and git-lfs (`make setup` says why)")
    github = RemoteUpstream(stack.state.github_api_url)
    github.clear_faults()
    github.clear_requests()
    yield github
    github.clear_faults()
