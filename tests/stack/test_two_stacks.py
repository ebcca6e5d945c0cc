"""Two stacks of an account and Region side by side: each has its own models, events and emails."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from local.sources import SourceUrls
from local.stack import LocalStack, StackState
from tests.archives.building import build, list_members
from tests.documented_events import VALIDATOR
from tests.stack.conftest import Stack, change_parameters, open_client, wait_until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

OTHER = "modelhaul-two"
ADDRESS = "team@example.com"


def create_other(state: StackState) -> StackState:
    """Create a stack from the template of the deployed one, with the same parameters."""
    cloudformation = open_client(state, "cloudformation")
    (stack,) = cloudformation.describe_stacks(StackName=state.stack_name)["Stacks"]
    template = cloudformation.get_template(StackName=state.stack_name, TemplateStage="Original")["TemplateBody"]
    s3 = open_client(state, "s3")
    s3.create_bucket(Bucket="templates")
    s3.put_object(
        Bucket="templates", Key="template", Body=template if isinstance(template, str) else json.dumps(template)
    )
    cloudformation.create_stack(
        StackName=OTHER,
        TemplateURL=f"{state.aws_endpoint_url}/templates/template",
        Parameters=stack["Parameters"],
        Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
    )

    def describe() -> Any:
        return cloudformation.describe_stacks(StackName=OTHER)["Stacks"][0]

    wait_until(lambda: not describe()["StackStatus"].endswith("IN_PROGRESS"))
    assert describe()["StackStatus"] == "CREATE_COMPLETE", describe()
    outputs = {output["OutputKey"]: output["OutputValue"] for output in describe()["Outputs"]}
    key = open_client(state, "apigateway").get_api_key(apiKey=outputs["ApiKeyId"], includeValue=True)["value"]
    return replace(state, stack_name=OTHER, outputs=outputs, api_key=key, models_bucket=outputs["ModelsBucket"])


def use_own_api(state: StackState) -> StackState:
    """The ports of the APIs belong to one of the stacks."""
    cloudformation = open_client(state, "cloudformation")
    found = cloudformation.describe_stack_resource(StackName=state.stack_name, LogicalResourceId="Api")
    api_id = found["StackResourceDetail"]["PhysicalResourceId"]
    return replace(state, api_url=f"{state.aws_endpoint_url}/_aws/execute-api/{api_id}/v1")


@pytest.fixture(scope="module")
def stacks() -> Iterator[tuple[Stack, Stack]]:
    local = LocalStack(f"two-{os.getpid()}")
    try:
        state = local.start("loopback", SourceUrls(), 0, print)
        change_parameters(state, NotificationEmail=ADDRESS)
        yield Stack(use_own_api(state)), Stack(use_own_api(create_other(state)))
    finally:
        local.stop()


class Inbox:
    """A queue, and what it received."""

    def __init__(self, stack: Stack, name: str) -> None:
        self.stack = stack
        self.url = stack.sqs.create_queue(QueueName=name)["QueueUrl"]
        attributes = stack.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=["QueueArn"])["Attributes"]
        self.arn = attributes["QueueArn"]
        self.received: list[dict[str, Any]] = []

    def receive(self) -> list[dict[str, Any]]:
        response = self.stack.sqs.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10)
        for message in response.get("Messages", []):
            self.received.append(json.loads(message["Body"]))
            self.stack.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])
        return self.received

    def wait_for_first(self) -> list[dict[str, Any]]:
        """Wait for a message, and return all."""
        wait_until(lambda: bool(self.receive()), self.received)
        return self.receive()


def find_topic(stack: Stack) -> str:
    """Return the topic from which a stack sends emails."""
    cloudformation = open_client(stack.state, "cloudformation")

    def find(name: str, logical_id: str) -> str:
        found = cloudformation.describe_stack_resource(StackName=name, LogicalResourceId=logical_id)
        return str(found["StackResourceDetail"]["PhysicalResourceId"])

    return find(find(stack.state.stack_name, "MonitoringStack"), "NotificationsTopic")


def open_emails(stack: Stack) -> Inbox:
    """Return an inbox that receives what a stack sends by email."""
    inbox = Inbox(stack, f"emails-{stack.state.stack_name}")
    sns = open_client(stack.state, "sns")
    subscriptions = sns.list_subscriptions_by_topic(TopicArn=find_topic(stack))["Subscriptions"]
    assert [(one["Protocol"], one["Endpoint"]) for one in subscriptions] == [("email", ADDRESS)]
    sns.subscribe(TopicArn=find_topic(stack), Protocol="sqs", Endpoint=inbox.arn)
    return inbox


def open_events(stack: Stack, name: str, pattern: dict[str, Any]) -> Inbox:
    """Return an inbox that receives the events that match, as a consumer of docs/events.md does."""
    inbox = Inbox(stack, name)
    events = open_client(stack.state, "events")
    events.put_rule(Name=name, EventPattern=json.dumps({"source": ["Modelhaul"], **pattern}))
    events.put_targets(Rule=name, Targets=[{"Id": "queue", "Arn": inbox.arn}])
    return inbox


def import_archive(stack: Stack, content: bytes) -> str:
    """Import an archive and return its task ID."""
    files = {"file": ("models.zip", content, "application/zip")}
    url = f"{stack.state.api_url}/upload/local"
    response = stack.http.post(url, params={"model_name": "shared"}, files=files, timeout=120)
    assert response.status_code == 201, response.text
    task = stack.wait_for_end(response.links["status"]["url"].rpartition("/")[2])
    assert task["task_status"] == "DONE", task
    return str(task["id"])


def test_each_stack_has_its_own_events_and_emails(stacks: tuple[Stack, Stack]) -> None:
    emails = [open_emails(stack) for stack in stacks]
    own = [
        open_events(stack, f"own-{stack.state.stack_name}", {"detail": {"stack": [stack.state.stack_name]}})
        for stack in stacks
    ]
    everything = open_events(stacks[0], "everything", {})
    tasks = [import_archive(stack, build(list_members())) for stack in stacks]
    wait_until(lambda: len(everything.receive()) == len(tasks), everything.received)
    for stack, task, inbox in zip(stacks, tasks, own, strict=True):
        (event,) = inbox.wait_for_first()
        VALIDATOR.validate(event)
        assert (event["detail"]["stack"], event["detail"]["task_id"]) == (stack.state.stack_name, task)
    for stack, task, inbox in zip(stacks, tasks, emails, strict=True):
        (email,) = inbox.wait_for_first()
        assert f"Stack: {stack.state.stack_name}. Task ID: {task}." in email["Message"]


def test_no_name_is_shared(stacks: tuple[Stack, Stack]) -> None:
    names = [set(list_physical_names(stack)) for stack in stacks]
    assert names[0]
    assert not names[0] & names[1]
    cloudwatch = open_client(stacks[0].state, "cloudwatch")
    dashboards = {entry["DashboardName"] for entry in cloudwatch.list_dashboards()["DashboardEntries"]}
    assert dashboards == {f"{stack.state.stack_name}-{stack.state.region}" for stack in stacks}


def list_physical_names(stack: Stack) -> Iterator[tuple[str, str]]:
    """Yield (type, physical name) of each resource of a stack and of its nested stack. A stage belongs to its API."""
    cloudformation = open_client(stack.state, "cloudformation")
    pages = cloudformation.get_paginator("list_stack_resources")
    stacks = [stack.state.stack_name]
    while stacks:
        for page in pages.paginate(StackName=stacks.pop()):
            for resource in page["StackResourceSummaries"]:
                if resource["ResourceType"] == "AWS::CloudFormation::Stack":
                    stacks.append(resource["PhysicalResourceId"])
                if resource["ResourceType"] != "AWS::ApiGateway::Stage":
                    yield resource["ResourceType"], resource["PhysicalResourceId"]
