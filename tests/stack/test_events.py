"""Ends of tasks reach those who listen, from the deployed stack with IAM enforced, and its monitoring is there."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from local.stack import CLIENT_CONFIG, open_session
from tests.archives.building import build, list_members
from tests.documented_dashboard import VALIDATOR as DASHBOARD
from tests.documented_events import VALIDATOR
from tests.stack.conftest import Stack

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]


class Listener:
    """A rule and a queue, as a consumer of the events has them. `pattern`: members of the rule's pattern."""

    def __init__(self, stack: Stack, **pattern: list[str]) -> None:
        self.stack = stack
        self.name = f"listener-{uuid.uuid4().hex[:8]}"
        self.events = self.open("events")
        self.url = stack.sqs.create_queue(QueueName=self.name)["QueueUrl"]
        arn = stack.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        self.events.put_rule(Name=self.name, EventPattern=json.dumps({"source": ["Modelhaul"], **pattern}))
        self.events.put_targets(Rule=self.name, Targets=[{"Id": "queue", "Arn": arn}])
        self.heard: list[dict[str, Any]] = []

    def open(self, service: Any) -> Any:
        return open_session().client(service, endpoint_url=self.stack.state.aws_endpoint_url, config=CLIENT_CONFIG)

    def listen(self) -> list[dict[str, Any]]:
        answer = self.stack.sqs.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10)
        for message in answer.get("Messages", []):
            self.heard.append(json.loads(message["Body"]))
            self.stack.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])
        return self.heard

    def wait_for(self, task_id: str) -> dict[str, Any]:
        def find() -> list[dict[str, Any]]:
            return [event for event in self.listen() if event["detail"]["task_id"] == task_id]

        self.stack.wait_until(lambda: bool(find()), self.heard)
        (event,) = find()
        VALIDATOR.validate(event)
        return event

    def close(self) -> None:
        self.events.remove_targets(Rule=self.name, Ids=["queue"])
        self.events.delete_rule(Name=self.name)
        self.stack.sqs.delete_queue(QueueUrl=self.url)


@pytest.fixture
def listener(stack: Stack) -> Iterator[Listener]:
    listener = Listener(stack, **{"detail-type": ["ImportSucceeded", "ImportFailed"]})
    yield listener
    listener.close()


def post(stack: Stack, name: str) -> str:
    """Sends a small archive and returns its task's id."""
    form = {"file": ("models.zip", build(list_members()), "application/zip")}
    url = f"{stack.state.api_url}/upload/local"
    answer = stack.http.post(url, params={"model_name": name}, files=form, timeout=120)
    assert answer.status_code == 201, answer.text
    return answer.links["status"]["url"].rpartition("/")[2]


def test_success_is_announced(stack: Stack, listener: Listener) -> None:
    task_id = post(stack, "announced")
    task = stack.wait_for_end(task_id)
    assert task["task_status"] == "DONE", task
    event = listener.wait_for(task_id)
    assert event["detail-type"] == "ImportSucceeded"
    assert event["detail"]["models"] == task["models"]
    assert event["detail"]["progress"] == task["progress"]


def test_cancel_is_announced_once(stack: Stack, listener: Listener) -> None:
    with stack.pause_consumer("PlanQueue"):
        task_id = post(stack, "cancelled")
        answer = stack.http.delete(f"{stack.state.api_url}/upload/tasks/{task_id}", timeout=30)
        assert answer.status_code == 204
    event = listener.wait_for(task_id)
    assert (event["detail-type"], event["detail"]["stage"]) == ("ImportFailed", "CANCELLED")
    # What is written after the end says nothing new. The next end comes behind it in the stream.
    stack.make_due(task_id)
    stack.sweep()
    listener.wait_for(next_id := post(stack, "after"))
    assert [one["detail"]["task_id"] for one in listener.heard] == [task_id, next_id]


def test_dashboard_is_there_and_alarms_are_not(stack: Stack, listener: Listener) -> None:
    """The local stack has neither NotificationEmail nor AlarmTopicArn."""
    cloudwatch = listener.open("cloudwatch")
    (dashboard,) = cloudwatch.list_dashboards()["DashboardEntries"]
    name = dashboard["DashboardName"]
    assert name == f"{stack.state.stack_name}-{cloudwatch.meta.region_name}"
    body = json.loads(cloudwatch.get_dashboard(DashboardName=name)["DashboardBody"])
    DASHBOARD.validate(body)
    assert stack.state.outputs["TransferFilesFunction"] in json.dumps(body)
    assert [widget for widget in body["widgets"] if widget["type"] == "alarm"] == []
    assert cloudwatch.describe_alarms()["MetricAlarms"] == []


def test_preflight_needs_no_key_and_without_the_parameter_allows_nobody(stack: Stack) -> None:
    answer = stack.http.options(
        f"{stack.state.api_url}/upload/huggingface",
        headers={"x-api-key": "", "Origin": "https://models.example.com", "Access-Control-Request-Method": "POST"},
        timeout=30,
    )
    assert answer.status_code == 200
    assert "Access-Control-Allow-Origin" not in answer.headers
