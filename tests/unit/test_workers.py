"""The functions behind the queues: real SQS events in, partial failures out."""

import io
import json
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from modelhaul import wiring
from modelhaul.catalog.delete import ModelDeleter
from modelhaul.domain.errors import StorageUnavailableError
from modelhaul.domain.messages import (
    CopyFiles,
    JoinTransfer,
    Message,
    PlanImport,
    PublishModels,
    TransferFiles,
    parse_message,
)
from modelhaul.domain.tasks import Task, TaskStatus
from modelhaul.entrypoints.logs import create_logger
from modelhaul.transfer.policy import TransferPolicy
from tests.fakes.deployment import QUICK, Deployment
from tests.fakes.model_source import InMemoryModelSource
from tests.follows import Following
from tests.lambda_functions import Context, load_handler, read_event

NAME = "org/tiny"
FUNCTIONS: dict[type[Message], str] = {
    PlanImport: "plan_import",
    TransferFiles: "transfer_files",
    JoinTransfer: "transfer_files",
    CopyFiles: "publish_models",
    PublishModels: "publish_models",
}


@pytest.fixture
def deployment(monkeypatch: pytest.MonkeyPatch) -> Deployment:
    deployment = Deployment(
        InMemoryModelSource(
            {NAME: {"main": {"config.json": b"{}", "model.bin": b"w" * 9_000_000}, "next": {"config.json": b"{}"}}}
        )
    )
    for name in (
        "planner",
        "transferrer",
        "joiner",
        "publisher",
        "copy_step",
        "runner",
        "finisher",
        "sweeper",
        "metrics",
    ):
        monkeypatch.setattr(wiring, f"create_{name}", lambda name=name: getattr(deployment, name))
    monkeypatch.setattr(wiring, "create_check_starter", lambda: Following(deployment).starter)
    return deployment


def make_event(function: str, *bodies: str, received: int = 1) -> dict[str, Any]:
    (record,) = read_event(function)["Records"][:1]
    return {
        "Records": [
            {
                **record,
                "messageId": f"id-{number}",
                "body": body,
                "attributes": {**record["attributes"], "ApproximateReceiveCount": str(received)},
            }
            for number, body in enumerate(bodies)
        ]
    }


def invoke(function: str, *bodies: str, received: int = 1) -> list[str]:
    """The ids of the messages that SQS is to deliver again."""
    answer = load_handler(function)(make_event(function, *bodies, received=received), Context())
    return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]


def run_functions(deployment: Deployment) -> Counter[str]:
    """Returns the number of messages of each kind."""
    kinds: Counter[str] = Counter()
    while messages := deployment.receive():
        for message in messages:
            assert invoke(FUNCTIONS[type(message)], message.model_dump_json()) == []
            kinds[message.kind] += 1
    return kinds


def test_a_model_goes_through_all_functions(deployment: Deployment) -> None:
    task = deployment.submit(NAME)
    run_functions(deployment)
    assert deployment.find_task(task.id).status is TaskStatus.DONE


def test_a_model_of_several_groups_is_copied_by_several_functions(deployment: Deployment) -> None:
    deployment.policy = TransferPolicy(copy_groups=1)
    deployment.connect(deployment.database, deployment.store, deployment.queue, QUICK)
    task = deployment.submit(NAME)
    kinds = run_functions(deployment)
    assert (kinds["copy_files"], kinds["publish_models"]) == (2, 2)
    assert deployment.find_task(task.id).status is TaskStatus.DONE


def test_the_recorded_events_are_messages_of_this_version(deployment: Deployment) -> None:
    for kind, function in FUNCTIONS.items():
        event = read_event(str(kind.model_fields["kind"].default))
        for record in event["Records"]:
            assert isinstance(parse_message(record["body"]), kind)
        assert load_handler(function)(event, Context()) == {"batchItemFailures": []}


@pytest.mark.parametrize("body", ["", "{}", '{"version": 2, "kind": "plan_import", "task_id": "t"}', "[1]"])
def test_what_is_no_message_is_not_swallowed(deployment: Deployment, body: str) -> None:
    assert invoke("plan_import", body) == ["id-0"], "so that it comes to the dead-letter queue"


def test_a_message_of_another_queue_is_not_swallowed(deployment: Deployment) -> None:
    message: Message = PublishModels(task_id="t")
    assert invoke("plan_import", message.model_dump_json()) == ["id-0"]


def test_a_message_whose_outcome_cannot_be_recorded_comes_again(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment.submit(NAME)
    (message,) = deployment.receive()

    def refuse(*_: object, **__: object) -> None:
        raise StorageUnavailableError("SQS SendMessageBatch failed (ServiceUnavailable).")

    source = deployment.source
    assert isinstance(source, InMemoryModelSource)
    source.on_list = refuse
    monkeypatch.setattr(deployment.queue, "send", refuse)
    assert invoke("plan_import", message.model_dump_json()) == ["id-0"]


def test_dead_letters_end_their_tasks(deployment: Deployment) -> None:
    task = deployment.submit(NAME)
    (message,) = deployment.receive()
    assert invoke("record_failure", "unreadable", message.model_dump_json()) == []
    error = deployment.find_task(task.id).error
    assert error is not None
    assert error.type == "step-crashed"


def test_a_message_that_was_received_often_is_processed(deployment: Deployment) -> None:
    """SQS counts a delivery when Lambda throttles the function."""
    task = deployment.submit(NAME)
    (message,) = deployment.receive()
    assert invoke("plan_import", message.model_dump_json(), received=5) == []
    run_functions(deployment)
    assert deployment.find_task(task.id).status is TaskStatus.DONE


def read_log(run: Callable[[], object]) -> list[dict[str, Any]]:
    """The lines that are logged meanwhile."""
    handler = create_logger().registered_handler
    assert isinstance(handler, logging.StreamHandler)
    usual = handler.setStream(written := io.StringIO())
    try:
        run()
    finally:
        handler.setStream(usual)
    return [json.loads(line) for line in written.getvalue().splitlines()]


def test_dead_letters_of_all_queues_are_told_apart(deployment: Deployment) -> None:
    """One queue has those of all work queues. The message says which step failed, SQS which queue it comes from."""
    task = deployment.submit(NAME)
    (message,) = deployment.receive()
    (unreadable,) = read_log(lambda: invoke("record_failure", "unreadable"))
    assert unreadable["queue"] == "modelhaul-TransferQueue-1A2B3C4D5E6F"
    lines = read_log(lambda: invoke("record_failure", message.model_dump_json()))
    (failed,) = (line for line in lines if line["message"] == "import failed")
    assert (failed["task_id"], failed["step"], failed["reason"]) == (task.id, "plan_import", "step-crashed")
    assert "listing the model's files" in failed["detail"]


def test_the_sweep_sends_what_was_lost(deployment: Deployment) -> None:
    task = deployment.submit(NAME)
    deployment.receive()
    deployment.clock.now += 3600
    answer = load_handler("sweep_stale")(read_event("sweep_stale"), Context())
    assert answer == {"due": 1}
    run_functions(deployment)
    assert deployment.find_task(task.id).status is TaskStatus.DONE


def test_the_sweep_looks_after_other_tasks_and_deletions_when_one_meets_a_defect(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, lost = deployment.submit(NAME), deployment.submit(NAME, "next")
    deployment.receive()
    deployment.clock.now += 3600
    find_task = deployment.database.tasks.find_task
    resumed: list[bool] = []

    def fail_once(task_id: str) -> Task | None:
        if task_id == broken.id:
            raise ZeroDivisionError
        return find_task(task_id)

    monkeypatch.setattr(deployment.database.tasks, "find_task", fail_once)
    monkeypatch.setattr(ModelDeleter, "resume", lambda *_: resumed.append(True))
    with pytest.raises(ExceptionGroup) as raised:
        deployment.sweeper.sweep_stale(lambda: 300.0)
    monkeypatch.undo()
    assert [type(error) for error in raised.value.exceptions] == [ZeroDivisionError]
    assert resumed
    assert [message.task_id for message in deployment.receive()] == [lost.id]


def test_log_lines_say_of_which_task_they_are(deployment: Deployment) -> None:
    task = deployment.submit(NAME)
    (message,) = deployment.receive()
    (planned,) = read_log(lambda: invoke("plan_import", message.model_dump_json()))
    assert planned["message"] == "import planned"
    assert (planned["task_id"], planned["attempt"], planned["files"]) == (task.id, 1, 2)
