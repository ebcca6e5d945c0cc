"""What is told of a task's end, and when: by the function behind the tasks' stream, held to docs/events.md."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from modelhaul import wiring
from modelhaul.catalog.presentation import format_time
from modelhaul.domain.archives import SkippedDirectory
from modelhaul.domain.errors import InvalidReferenceError
from modelhaul.domain.models import Model, ModelError, ModelStatus, Publication, ResolvedModel, Source
from modelhaul.domain.tasks import Event, Stage, Task, TaskError, TaskStatus
from modelhaul.imports.notify import EndPublisher
from tests.archives.building import Member, build
from tests.documented_events import EXAMPLES, SCHEMA, VALIDATOR
from tests.fakes.deployment import Deployment
from tests.fakes.event_bus import InMemoryEventBus
from tests.fakes.model_source import InMemoryModelSource
from tests.lambda_functions import Context, load_handler, read_event

NAME = "org/tiny"
MODEL_FILES = ("config.json", "tokenizer.json", "model.safetensors")
MAX_ENTRY = 256 * 1024  # bytes; https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevents.html


@pytest.fixture
def deployment() -> Deployment:
    return Deployment(InMemoryModelSource({NAME: {"main": {"config.json": b"{}"}}}))


@pytest.fixture
def bus(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> InMemoryEventBus:
    bus = InMemoryEventBus()
    monkeypatch.setattr(
        wiring,
        "create_end_publisher",
        lambda: EndPublisher(deployment.database.tasks, deployment.database.models, bus, "models-bucket", "modelhaul"),
    )
    return bus


def make_record(
    task_id: str, before: str | None, after: str | None, *, name: str = "MODIFY", number: int = 1
) -> dict[str, Any]:
    (record,) = read_event("publish_ends")["Records"]
    images = {"OldImage": before, "NewImage": after}
    change = {
        **record["dynamodb"],
        "Keys": {"id": {"S": task_id}},
        "SequenceNumber": str(number),
        **{image: {"id": {"S": task_id}, "status": {"S": status}} for image, status in images.items() if status},
    }
    for image, status in images.items():
        if status is None:
            del change[image]
    return {**record, "eventName": name, "dynamodb": change}


def publish(*records: dict[str, Any]) -> list[str]:
    """The sequence numbers of the records that Lambda is to deliver again."""
    answer = load_handler("publish_ends")({"Records": list(records)}, Context())
    return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]


def show(event: Event) -> dict[str, Any]:
    """As EventBridge hands it on."""
    return {
        "source": "Modelhaul",
        "detail-type": event.type,
        "time": format_time(event.time),
        "detail": json.loads(event.detail),
    }


def check(event: Event) -> dict[str, Any]:
    """The detail of an event that is as documented."""
    shown = show(event)
    VALIDATOR.validate(shown)
    detail: dict[str, Any] = shown["detail"]
    return detail


def end(deployment: Deployment) -> str:
    task = deployment.submit(NAME)
    deployment.run()
    assert deployment.find_task(task.id).status is TaskStatus.DONE
    return task.id


def test_examples_are_as_documented() -> None:
    VALIDATOR.check_schema(SCHEMA)
    assert [example["detail-type"] for example in EXAMPLES] == ["ImportSucceeded", "ImportSucceeded", "ImportFailed"]
    for example in EXAMPLES:
        VALIDATOR.validate(example)


@pytest.mark.parametrize(
    "damage",
    [
        lambda event: event["detail"].pop("task_id"),
        lambda event: event.update({"detail-type": "ImportFailed"}),
        lambda event: event["detail"].update(error_msg="words"),
        lambda event: event["detail"].update(task_status="PENDING"),
        lambda event: event["detail"]["models"][0].pop("model_id"),
        lambda event: event["detail"]["models"][0].pop("name"),
    ],
    ids=["no id", "other type", "an error", "not ended", "no model", "no name of one that is here"],
)
def test_schema_refuses(damage: Callable[[dict[str, Any]], object]) -> None:
    event = json.loads(json.dumps(EXAMPLES[0]))
    damage(event)
    assert not VALIDATOR.is_valid(event)


def test_success_is_announced(deployment: Deployment, bus: InMemoryEventBus) -> None:
    task_id = end(deployment)
    assert publish(make_record(task_id, "PENDING", "DONE")) == []
    (event,) = bus.events
    detail = check(event)
    assert event.type == "ImportSucceeded"
    assert event.time == deployment.find_task(task_id).updated_at
    assert detail["task_id"] == task_id
    (model,) = detail["models"]
    assert model["location"].startswith("s3://models-bucket/models/huggingface/org/tiny/")
    assert model["status"] == "READY"


def test_failure_is_announced(deployment: Deployment, bus: InMemoryEventBus) -> None:
    task_id = deployment.drop(build([Member(b"notes/readme.md", b"none")]))
    deployment.run()
    assert publish(make_record(task_id, "PENDING", "FAILED")) == []
    detail = check(bus.events[0])
    assert bus.events[0].type == "ImportFailed"
    assert (detail["error"]["type"], detail["error"]["retryable"]) == ("no-model-in-archive", False)
    assert detail["error"]["remedy"]
    assert detail["error_msg"]


def test_an_archive_that_succeeds_in_part_is_announced_with_the_error_of_each_failed_model(
    deployment: Deployment, bus: InMemoryEventBus
) -> None:
    task = deployment.post(
        build([Member(f"{d}/{name}".encode(), b"{}") for d in ("bad", "good") for name in MODEL_FILES])
    )
    bad, good = task.model_ids
    error = ModelError("unsafe-model", "imports os.system", retryable=False)
    deployment.database.imports.finish_import(
        task.id, published={good: Publication(3, 6)}, check_at=0, failed={bad: error}
    )
    assert publish(make_record(task.id, "PENDING", "DONE")) == []
    (event,) = bus.events
    failed, ready = check(event)["models"]
    assert event.type == "ImportSucceeded"
    assert (ready["name"], ready["status"], "error" in ready) == ("good", "READY", False)
    assert (failed["name"], failed["status"], "location" in failed) == ("bad", "FAILED", False)
    assert failed["error"].pop("remedy")
    assert failed["error"] == {"type": "unsafe-model", "retryable": False, "detail": "imports os.system"}


def test_cancelled_import_is_a_failed_one(deployment: Deployment, bus: InMemoryEventBus) -> None:
    task = deployment.submit(NAME)
    deployment.finisher.cancel(task.id)
    publish(make_record(task.id, "PENDING", "FAILED"))
    detail = check(bus.events[0])
    assert bus.events[0].type == "ImportFailed"
    assert (detail["stage"], detail["error"]["type"]) == ("CANCELLED", "import-cancelled")


def test_a_model_that_is_deleted_meanwhile_is_announced_as_that(deployment: Deployment, bus: InMemoryEventBus) -> None:
    """What cannot be announced is tried for an hour, in which anybody may delete the model."""
    task_id = end(deployment)
    (model_id,) = deployment.find_task(task_id).model_ids

    def show_model() -> dict[str, Any]:
        bus.events.clear()
        assert publish(make_record(task_id, "PENDING", "DONE")) == []
        (shown,) = check(bus.events[0])["models"]
        return dict(shown)

    assert not deployment.deleter.delete_model(model_id, lambda: 1)
    being_deleted = show_model()
    assert (being_deleted["model_id"], being_deleted["name"], being_deleted["status"]) == (model_id, NAME, "DELETING")
    assert "location" not in being_deleted
    deployment.clock.now += 300
    deployment.sweeper.sweep_stale(lambda: 300)
    assert show_model() == {"model_id": model_id, "status": "DELETED"}
    assert end(deployment) != task_id
    again = show_model()
    assert (again["model_id"], again["name"], again["status"]) == (model_id, NAME, "DELETED")
    assert "location" not in again


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("INSERT", None, "PENDING"),
        ("MODIFY", "PENDING", "PENDING"),
        ("MODIFY", "DONE", "DONE"),
        ("MODIFY", "FAILED", "FAILED"),
        ("REMOVE", "DONE", None),
        ("REMOVE", "PENDING", None),
        ("INSERT", None, "DONE"),
    ],
)
def test_nothing_else_is(
    name: str, before: str | None, after: str | None, deployment: Deployment, bus: InMemoryEventBus
) -> None:
    """Not progress, not what is written after the end, not that DynamoDB deletes what has expired."""
    task_id = end(deployment)
    assert publish(make_record(task_id, before, after, name=name)) == []
    assert bus.events == []


def test_task_that_is_gone_or_has_not_ended_is_passed_by(deployment: Deployment, bus: InMemoryEventBus) -> None:
    pending = deployment.submit(NAME)
    assert publish(make_record("gone", "PENDING", "DONE"), make_record(pending.id, "PENDING", "DONE")) == []
    assert bus.events == []


def test_what_cannot_be_announced_comes_again(deployment: Deployment, bus: InMemoryEventBus) -> None:
    task_id = end(deployment)
    record = make_record(task_id, "PENDING", "DONE", number=7)
    bus.is_down = True
    assert publish(record) == ["7"]
    bus.is_down = False
    assert publish(record) == []
    assert publish(record) == [], "twice, if Lambda does not hear of it"
    first, second = map(check, bus.events)
    assert first == second


def test_one_that_fails_does_not_silence_the_others(
    deployment: Deployment, bus: InMemoryEventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id = end(deployment)
    find = deployment.database.tasks.find_task

    def refuse(asked: str) -> Task | None:
        if asked == "poison":
            raise InvalidReferenceError("cannot be read")
        return find(asked)

    monkeypatch.setattr(deployment.database.tasks, "find_task", refuse)
    records = [make_record("poison", "PENDING", "DONE", number=1), make_record(task_id, "PENDING", "DONE", number=2)]
    assert publish(*records) == ["1"]
    assert [check(event)["task_id"] for event in bus.events] == [task_id]


def list_models(task: Task, count: int, name: str) -> list[Model]:
    resolved = [ResolvedModel(Source.LOCAL, f"{name}-{n:02}", "r", "c" * 36) for n in range(count)]
    moment = task.created_at
    return [Model(one.model_id, one, ModelStatus.IMPORTING, task.id, moment, moment) for one in resolved]


@pytest.mark.parametrize("word", ["model", "模型" * 150, "\ud800" * 300], ids=["short", "long", "half a pair"])
@pytest.mark.parametrize("skipped", [0, 100])
def test_task_of_ninety_models_fits(
    word: str, skipped: int, deployment: Deployment, bus: InMemoryEventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = deployment.find_task(end(deployment))
    models = list_models(template, 90, word.replace("\ud800", "m"))
    directories = tuple(SkippedDirectory(f"{word * 2}{n}", (word,) * 10) for n in range(skipped))
    task = Task(
        id="large",
        source=Source.LOCAL,
        model_tag="archive.zip",
        model_ids=tuple(model.model_id for model in models),
        created_at=template.created_at,
        updated_at=template.updated_at,
        stage=Stage.FAILED,
        error=TaskError("archive-refused", word * 100, retryable=False),
        skipped=directories,
    )
    monkeypatch.setattr(deployment.database.tasks, "find_task", lambda _: task)
    monkeypatch.setattr(deployment.database.models, "find_models", lambda _: models)
    assert publish(make_record("large", "PENDING", "FAILED")) == []
    (event,) = bus.events
    detail = check(event)
    assert len(event.detail.encode()) < MAX_ENTRY - 1024
    assert len(detail["models"]) + detail["models_left_out"] == 90 + skipped
    if word == "model":
        assert detail["models_left_out"] == 0
