"""The use of storage: its sums, and what an import records for them."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhaul import wiring
from modelhaul.catalog.usage import UsageReader, present_usage
from modelhaul.domain.errors import StorageUnavailableError
from modelhaul.domain.models import Model, ModelPin, ModelStatus, ResolvedModel, Source
from modelhaul.domain.tasks import Task, TaskStatus
from modelhaul.domain.usage import MAX_SHOWN, UsageCounter
from openapi.responses import Usage as UsageBody
from tests.archives.zipping import zip_files
from tests.fakes.deployment import Deployment
from tests.fakes.model_source import InMemoryModelSource
from tests.lambda_functions import Response, call_api, read_event
from tests.weights import wrap_weights

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
MODEL = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": wrap_weights(bytes(1000))}
_SOURCES = st.sampled_from(list(Source))
_NAMES = st.sampled_from([f"org/{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"])


def make_model(
    number: int, source: Source, name: str, size: int, *, reused: int = 0, age: int = 0, read: int | None = None
) -> Model:
    """A READY model that was imported `age` days ago, and read `read` days ago."""
    resolved = ResolvedModel(source, name, "main", f"{number:040x}")
    return Model(
        f"{number:08x}-0000-5000-8000-000000000000",
        resolved,
        ModelStatus.READY,
        "task",
        NOW - timedelta(days=age),
        NOW - timedelta(days=age),
        files=1,
        size=size,
        last_read_on=None if read is None else (NOW - timedelta(days=read)).date(),
        bytes_reused=reused,
    )


@st.composite
def draw_models(draw: st.DrawFn) -> list[Model]:
    count = draw(st.integers(0, 70))
    return [
        make_model(
            number,
            draw(_SOURCES),
            draw(_NAMES),
            size := draw(st.integers(0, 10**15)),
            reused=draw(st.integers(0, size)),
            age=draw(st.integers(0, 60)),
            read=draw(st.none() | st.integers(0, 60)),
        )
        for number in range(count)
    ]


@given(models=draw_models(), days=st.integers(1, 60), data=st.data())
def test_sums_are_those_of_the_models_in_any_order(models: list[Model], days: int, data: st.DataObject) -> None:
    counter = UsageCounter(NOW, days)
    for model in data.draw(st.permutations(models)):
        counter.add(model)
    usage = counter.summarize(is_complete=True)

    def check(total: Any, expected: list[Model]) -> None:
        assert (total.models, total.size, total.bytes_reused) == (
            len(expected),
            sum(model.size for model in expected),
            sum(model.bytes_reused for model in expected),
        )

    check(usage.total, models)
    assert set(usage.by_source) == set(Source)
    for source, total in usage.by_source.items():
        check(total, [model for model in models if model.resolved.source is source])
    by_name: defaultdict[tuple[Source, str], list[Model]] = defaultdict(list)
    for model in models:
        by_name[model.resolved.source, model.resolved.name].append(model)
    assert usage.names == len(by_name)
    assert len(usage.by_name) == min(MAX_SHOWN, len(by_name))
    for source, name, total in usage.by_name:
        check(total, by_name[source, name])
    sizes = sorted((sum(model.size for model in of_name) for of_name in by_name.values()), reverse=True)
    assert [total.size for *_, total in usage.by_name] == sizes[:MAX_SHOWN]
    order: Callable[[Model], tuple[int, str]] = lambda model: (-model.size, model.model_id)  # noqa: E731
    assert usage.largest == sorted(models, key=order)[:MAX_SHOWN]
    until = NOW.date() - timedelta(days=days)
    unread = [model for model in models if (model.last_read_on or model.created_at.date()) <= until]
    check(usage.unread, unread)
    assert usage.largest_unread == sorted(unread, key=order)[:MAX_SHOWN]
    UsageBody.model_validate_json(UsageBody.model_validate(present_usage(usage)).model_dump_json(exclude_unset=True))


@pytest.mark.parametrize(
    ("age", "read", "is_unread"),
    [(30, None, True), (29, None, False), (90, 30, True), (90, 29, False), (90, 0, False)],
)
def test_a_model_is_unread_from_its_last_read_or_else_its_import(age: int, read: int | None, is_unread: bool) -> None:
    counter = UsageCounter(NOW, 30)
    counter.add(make_model(1, Source.GITHUB, "org/a", 7, age=age, read=read))
    assert bool(counter.summarize(is_complete=True).unread.models) is is_unread


@pytest.fixture
def deployment(monkeypatch: pytest.MonkeyPatch) -> Deployment:
    source = InMemoryModelSource({"org/a": {"main": {**MODEL, "notes.txt": b"a" * 50}}, "org/b": {"main": MODEL}})
    deployment = Deployment(source, quota=10**6)
    deployment.clock.now = NOW.timestamp()
    monkeypatch.setattr(wiring, "create_usage_reader", lambda: deployment.usage)
    return deployment


def import_model(deployment: Deployment, name: str) -> Task:
    task = deployment.submit(name)
    deployment.run()
    ended = deployment.find_task(task.id)
    assert ended.status is TaskStatus.DONE
    return ended


def read_usage(**query: str) -> Response:
    event = {**read_event("read_usage"), "queryStringParameters": query or None}
    event["multiValueQueryStringParameters"] = {name: [value] for name, value in query.items()} or None
    return call_api("read_catalog", event)


def test_reused_bytes_of_a_model_are_those_of_its_task(deployment: Deployment) -> None:
    first, second = import_model(deployment, "org/a"), import_model(deployment, "org/b")
    for task in (first, second):
        (model,) = deployment.database.models.find_models(task.model_ids)
        assert model.bytes_reused == task.progress.bytes_reused
    assert second.progress.bytes_reused >= len(MODEL["model.safetensors"])
    # The record outlives the task.
    del deployment.tables.tasks[second.id]
    total = deployment.usage.read_usage(30, lambda: True).total
    assert total.bytes_reused == first.progress.bytes_reused + second.progress.bytes_reused


def test_each_model_of_an_archive_has_its_own_reused_bytes(deployment: Deployment) -> None:
    import_model(deployment, "org/b")
    other = {**MODEL, "model.safetensors": wrap_weights(b"\1" * 1000)}
    archive = zip_files(
        {f"{name}/{path}": data for name, model in (("known", MODEL), ("new", other)) for path, data in model.items()}
    )
    task = deployment.post(archive)
    deployment.run()
    models = {
        m.resolved.name: m for m in deployment.database.models.find_models(deployment.find_task(task.id).model_ids)
    }
    assert sum(model.bytes_reused for model in models.values()) == deployment.find_task(task.id).progress.bytes_reused
    assert models["known"].bytes_reused >= models["new"].bytes_reused


def test_the_route_has_everything(deployment: Deployment) -> None:
    task = import_model(deployment, "org/a")
    import_model(deployment, "org/b")
    size = sum(map(len, MODEL.values()))
    deployment.tables.write_model(task.model_ids[0], pin=ModelPin(NOW))
    body = read_usage().body
    UsageBody.model_validate(body)
    assert (body["models"], body["size"], body["is_complete"]) == (2, 2 * size + 50, True)
    assert body["by_source"][0] == {
        "source": "HUGGINGFACE",
        "models": 2,
        "size": 2 * size + 50,
        "bytes_reused": body["bytes_reused"],
    }
    assert [row["name"] for row in body["by_name"]] == ["org/a", "org/b"]
    assert [model["pinned"] for model in body["largest"]] == [True, False]
    assert body["unread"] == {"days": 30, "models": 0, "size": 0, "bytes_reused": 0, "largest": []}
    assert body["quota"] == {"size": 10**6, "stored": 2 * size + 50, "reserved": 0, "left": 10**6 - 2 * size - 50}
    deployment.clock.now += 86_400 * 7
    assert read_usage(unread_days="7").body["unread"]["models"] == 2
    assert read_usage(unread_days="8").body["unread"]["models"] == 0


def test_an_import_in_progress_is_reserved_and_not_stored(deployment: Deployment) -> None:
    deployment.submit("org/b")
    deployment.deliver(deployment.receive()[0])
    body = read_usage().body
    assert (body["models"], body["quota"]["stored"]) == (0, 0)
    assert body["quota"]["reserved"] == sum(map(len, MODEL.values()))


def test_a_stack_without_models_and_quota() -> None:
    deployment = Deployment()
    usage = present_usage(deployment.usage.read_usage(30, lambda: True))
    assert (usage["models"], usage["names"], usage["by_name"], usage["quota"]) == (0, 0, [], None)


@pytest.mark.parametrize("days", ["0", "-1", "3651", "x", ""])
def test_invalid_days_are_rejected(deployment: Deployment, days: str) -> None:
    assert read_usage(unread_days=days).status == 422


def test_an_outage_is_reported(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise StorageUnavailableError("DynamoDB request failed (ThrottlingException).")

    monkeypatch.setattr(deployment.database.models, "list_ready", fail)
    answer = read_usage()
    assert answer.status == 503
    assert answer.body["type"] == "urn:modelhaul:problem:storage-unavailable"


def test_models_that_there_is_no_time_to_count_are_left_out() -> None:
    deployment = Deployment(quota=10**6)
    for number in range(10):
        model = replace(make_model(number, Source.GITHUB, "org/a", 10), created_at=NOW + timedelta(seconds=number))
        deployment.tables.models[model.model_id] = model
    left = iter([True] * 4 + [False])
    usage = UsageReader(deployment.database.models, deployment.clock, deployment.usage.quota).read_usage(
        30, lambda: next(left)
    )
    assert not usage.is_complete
    assert [model.model_id[:8] for model in usage.largest] == ["00000006", "00000007", "00000008", "00000009"]
    assert usage.quota is not None
    assert usage.quota.stored == 40


def test_a_submission_above_the_quota_is_a_problem(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    task = import_model(deployment, "org/a")
    deployment.tables.write_model(task.model_ids[0], size=10**6)
    deployment.clock.now += 3600
    monkeypatch.setattr(wiring, "create_submitter", lambda: deployment.submitter)
    answer = call_api("submit_huggingface", read_event("submit_huggingface"), body={"model_tag": "org/b"})
    assert answer.status == 403
    assert answer.body["type"] == "urn:modelhaul:problem:storage-quota-exceeded"
    assert "1,000,000 bytes" in answer.body["detail"]
    assert "/v1/usage" in answer.body["remedy"]
