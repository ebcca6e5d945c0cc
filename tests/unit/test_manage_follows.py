"""The routes of follows, over the in-memory repository, and the functions that check and start."""

from dataclasses import replace
from typing import Any

import pytest

from modelhaul import wiring
from modelhaul.domain.errors import RateLimitedError, StorageUnavailableError
from modelhaul.domain.follows import FollowStatus
from openapi.responses import Follow as FollowBody
from tests.fakes.deployment import Deployment
from tests.fakes.model_source import InMemoryModelSource
from tests.follows import Following, RecordingChecks
from tests.lambda_functions import Context, Response, call_api, load_handler, read_event
from tests.unit.test_api import check_problem
from tests.unit.test_follows import NAME, make_files

BODY = {"source": "HUGGINGFACE", "name": NAME, "every": "1d"}


@pytest.fixture
def source() -> InMemoryModelSource:
    return InMemoryModelSource({NAME: {"main": make_files(0), "v1": make_files(1)}})


@pytest.fixture
def following(source: InMemoryModelSource, monkeypatch: pytest.MonkeyPatch) -> Following:
    following = Following(Deployment(source))
    monkeypatch.setattr(wiring, "create_follower", lambda: following.follower)
    monkeypatch.setattr(wiring, "create_follows", lambda: following.follows)
    monkeypatch.setattr(wiring, "create_models", lambda: following.deployment.database.models)
    monkeypatch.setattr(wiring, "create_follow_checker", lambda: following.checker)
    monkeypatch.setattr(wiring, "create_check_starter", lambda: following.starter)
    monkeypatch.setattr(wiring, "create_sweeper", lambda: following.deployment.sweeper)
    return following


def send(name: str, body: object = None, *, follow_id: str = "", raw: str | None = None) -> Response:
    event = read_event(name)
    if follow_id:
        event |= {"pathParameters": {"follow_id": follow_id}, "path": f"/follows/{follow_id}"}
    return call_api("manage_follows", event, body=body, raw=raw)


def create(**changes: object) -> dict[str, Any]:
    response = send("create_follow", {**BODY, **changes})
    assert response.status == 201, response.text
    return response.body


def test_a_follow_is_created_listed_changed_and_deleted(following: Following) -> None:
    response = send("create_follow", {**BODY, "keep_newest": 3, "selection": {"allow_patterns": ["*.json"]}})
    created = response.body
    FollowBody.model_validate(created)
    follow_id = created["follow_id"]
    assert response.headers["location"] == f"/v1/follows/{follow_id}"
    assert (created["every"], created["keep_newest"], created["last_import"]) == ("1d", 3, None)
    assert created["selection"]["allow_patterns"] == ["*.json"]
    assert following.find(following.follows.list_follows()[0]).created_by is not None
    assert send("list_follows").body == {"follows": [created]}
    assert send("show_follow", follow_id=follow_id).body == created
    changed = send("change_follow", {"every": "2w", "keep_newest": None}, follow_id=follow_id).body
    assert (changed["every"], changed["keep_newest"]) == ("2w", None)
    paused = send("change_follow", {"paused": True}, follow_id=follow_id).body
    assert (paused["status"], paused["next_check"]) == (FollowStatus.PAUSED, None)
    assert send("delete_follow", follow_id=follow_id).status == 204
    assert send("list_follows").body == {"follows": []}


def test_the_import_is_shown_with_its_current_status(following: Following, source: InMemoryModelSource) -> None:
    follow_id = create()["follow_id"]
    assert load_handler("check_follows")({}, Context()) == {"checks": 1}
    shown = send("show_follow", follow_id=follow_id).body
    FollowBody.model_validate(shown)
    assert shown["last_import"]["status"] == "IMPORTING"
    following.deployment.run()
    assert send("show_follow", follow_id=follow_id).body["last_import"]["status"] == "READY"
    following.deployment.deleter.delete_model(shown["last_import"]["model_id"], lambda: 300)
    assert send("list_follows").body["follows"][0]["last_import"]["status"] == "DELETED"


def test_a_failed_import_is_shown_with_its_error(following: Following, source: InMemoryModelSource) -> None:
    source.models[NAME]["main"]["model.safetensors"] = b"no tensors"
    follow_id = create()["follow_id"]
    load_handler("check_follows")({}, Context())
    following.deployment.run()
    shown = send("show_follow", follow_id=follow_id).body
    FollowBody.model_validate(shown)
    assert (shown["last_import"]["status"], shown["last_import"]["error"]["type"]) == ("FAILED", "invalid-model")
    assert shown["last_error"] is None


def test_a_failed_check_is_shown_with_its_remedy(following: Following, source: InMemoryModelSource) -> None:
    follow_id = create()["follow_id"]
    del source.models[NAME]
    load_handler("check_follows")({}, Context())
    shown = send("show_follow", follow_id=follow_id).body
    FollowBody.model_validate(shown)
    assert (shown["consecutive_failures"], shown["last_error"]["type"]) == (1, "model-not-found")
    assert shown["last_error"]["remedy"]


def test_a_second_follow_names_the_first(following: Following) -> None:
    follow_id = create()["follow_id"]
    response = send("create_follow", {**BODY, "every": "4w"})
    check_problem(response, 409, "follow-exists")
    assert response.body["follow_id"] == follow_id
    assert follow_id in response.body["detail"]
    assert create(revision="v1")["follow_id"] != follow_id


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"every": "59m"}, "every"),
        ({"every": "29d"}, "every"),
        ({"every": 24}, "every"),
        ({"every": None}, "every"),
        ({"source": "LOCAL"}, "source"),
        ({"name": ""}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "a/b/c"}, "name"),
        ({"revision": "a b"}, "revision"),
        ({"keep_newest": 0}, "keep_newest"),
        ({"keep_newest": True}, "keep_newest"),
        ({"selection": {"weights": "onnx"}}, "selection.weights"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_invalid_fields_are_named(following: Following, changes: dict[str, object], field: str) -> None:
    response = send("create_follow", {**BODY, **changes})
    assert response.status == 422
    assert [entry["field"] for entry in response.body["fields"]] == [field]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 200),
        ({"paused": None}, 200),
        ({"paused": "yes"}, 422),
        ({"every": "0h"}, 422),
        ({"name": "a"}, 422),
        ({"keep_newest": 0}, 422),
    ],
)
def test_an_invalid_or_empty_change_changes_nothing(following: Following, body: dict[str, object], status: int) -> None:
    follow_id = create()["follow_id"]
    assert send("change_follow", body, follow_id=follow_id).status == status
    assert following.follows.list_follows()[0].version == 1


def test_a_body_that_is_no_json_is_rejected(following: Following) -> None:
    for name in ("create_follow", "change_follow"):
        check_problem(send(name, raw="{"), 400, "invalid-json")


def test_a_missing_follow_is_not_found(following: Following) -> None:
    for name, body in (("show_follow", None), ("change_follow", {"paused": True}), ("delete_follow", None)):
        check_problem(send(name, body, follow_id="none"), 404, "follow-not-found")


def test_errors_of_the_source_are_those_of_an_import(following: Following, source: InMemoryModelSource) -> None:
    check_problem(send("create_follow", {**BODY, "name": "org/missing"}), 404, "model-not-found")
    check_problem(send("create_follow", {**BODY, "revision": "v9"}), 404, "revision-not-found")
    source.refusals[NAME] = RateLimitedError("Rate limit exceeded.", retry_after=70)
    response = send("create_follow", BODY)
    check_problem(response, 503, "rate-limited")
    assert response.headers["retry-after"] == "70"


def test_the_sweep_starts_due_checks_and_then_sweeps(following: Following, monkeypatch: pytest.MonkeyPatch) -> None:
    create()
    assert following.starts == 1
    sweep = load_handler("sweep_stale")
    assert sweep({}, Context()) == {"due": 0}
    assert following.starts == 2
    load_handler("check_follows")({}, Context())
    sweep({}, Context())
    assert following.starts == 2

    def fail(*_: object) -> None:
        raise StorageUnavailableError("DynamoDB request failed (ThrottlingException).")

    monkeypatch.setattr(following.follows, "list_due", fail)
    assert sweep({}, Context()) == {"due": 0}


def test_checks_are_started_also_if_the_sweep_fails(following: Following, monkeypatch: pytest.MonkeyPatch) -> None:
    create()
    following.deployment.clock.now += 30 * 86_400
    checks = RecordingChecks()
    following.starter = replace(following.starter, checks=checks)

    class BrokenSweeper:
        def sweep_stale(self, remaining: object) -> int:
            raise RuntimeError("a defect")

    monkeypatch.setattr(wiring, "create_sweeper", BrokenSweeper)
    with pytest.raises(RuntimeError):
        load_handler("sweep_stale")(read_event("sweep_stale"), Context())
    assert checks.starts == 1
