"""The routes of read keys, over the in-memory repository."""

import io
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from modelhaul import wiring
from modelhaul.domain.errors import StorageUnavailableError
from modelhaul.domain.read_keys import KEY_PATTERN, Scope, check_key, create_key
from modelhaul.entrypoints.logs import create_logger
from tests.fakes.read_key_repository import InMemoryReadKeyRepository
from tests.lambda_functions import Response, call_api, read_event
from tests.unit.test_api import add_query, check_problem

HUB_URL = "https://hub.example/hf"
TIME = "%Y-%m-%dT%H:%M:%SZ"


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> InMemoryReadKeyRepository:
    keys = InMemoryReadKeyRepository()
    monkeypatch.setattr(wiring, "create_read_keys", lambda: keys)
    monkeypatch.setenv("HUB_URL", HUB_URL)
    return keys


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    stream = io.StringIO()
    for handler in create_logger().handlers:
        if isinstance(handler, logging.StreamHandler):
            monkeypatch.setattr(handler, "stream", stream)
    return stream


def create(body: object = None, *, raw: str | None = None, **headers: str) -> Response:
    event = read_event("create_key")
    return call_api("manage_keys", {**event, "headers": {**event["headers"], **headers}}, body=body, raw=raw)


def list_keys() -> dict[str, Any]:
    response = call_api("manage_keys", read_event("list_keys"))
    assert response.status == 200
    return response.body


def delete(key_id: str) -> Response:
    event = {**read_event("delete_key"), "path": f"/keys/{key_id}", "pathParameters": {"key_id": key_id}}
    return call_api("manage_keys", event)


def in_future(**duration: float) -> str:
    return (datetime.now(UTC) + timedelta(**duration)).strftime(TIME)


def test_a_key_is_created_and_shown_once(keys: InMemoryReadKeyRepository, log: io.StringIO) -> None:
    response = create({"name": "ci"})
    assert response.status == 201
    assert response.headers["cache-control"] == "no-store"
    assert "location" not in response.headers
    body = response.body
    key = body.pop("key")
    assert KEY_PATTERN.fullmatch(key)
    (record,) = keys.list_keys()
    assert check_key(record, key, datetime.now(UTC))
    assert body == {
        "key_id": record.key_id,
        "name": "ci",
        "scopes": ["read"],
        "created_at": record.created_at.strftime(TIME),
        "expires_at": None,
    }
    assert list_keys() == {
        "keys": [{**body, "expired": False, "last_used_on": None, "created_by": "api-key:k1l2m3n4o5"}],
        "hub_url": HUB_URL,
    }
    assert "created read key" in log.getvalue()
    assert record.key_id in log.getvalue()
    assert key not in log.getvalue()


def test_the_sample_is_accepted(keys: InMemoryReadKeyRepository) -> None:
    assert create().status == 201


def test_every_key_is_another(keys: InMemoryReadKeyRepository) -> None:
    created = [create({"name": "ci"}).body for _ in range(3)]
    assert len({body["key"] for body in created}) == 3
    assert {entry["key_id"] for entry in list_keys()["keys"]} == {body["key_id"] for body in created}


@pytest.mark.parametrize(
    ("scopes", "granted"),
    [
        ([], ["read"]),
        (["read"], ["read"]),
        (["import"], ["read", "import"]),
        (["import", "read"], ["read", "import"]),
        (["read", "read"], ["read"]),
    ],
)
def test_scopes_always_include_read(keys: InMemoryReadKeyRepository, scopes: list[str], granted: list[str]) -> None:
    assert create({"name": "ci", "scopes": scopes}).body["scopes"] == granted


def test_a_key_can_expire(keys: InMemoryReadKeyRepository) -> None:
    moment = in_future(days=30)
    assert create({"name": "ci", "expires_at": moment}).body["expires_at"] == moment
    assert create({"name": "ci", "expires_at": None}).body["expires_at"] is None
    local = (datetime.now(UTC) + timedelta(hours=1)).replace(microsecond=0)
    text = local.strftime("%Y-%m-%dT%H:%M:%S+00:00")
    assert create({"name": "ci", "expires_at": text}).body["expires_at"] == local.strftime(TIME)


def test_times_of_other_zones_are_shown_in_utc(keys: InMemoryReadKeyRepository) -> None:
    year = datetime.now(UTC).year + 1
    answer = create({"name": "ci", "expires_at": f"{year}-06-22T12:00:00.5+02:00"})
    assert answer.body["expires_at"] == f"{year}-06-22T10:00:00Z"


@pytest.mark.parametrize(
    "moment",
    [
        "",
        "tomorrow",
        "2099",
        "2030-01-01",
        "2030-01-01T00:00:00",
        "4102444800",
        4102444800,
        1.5,
        True,
        [],
        "2020-01-01T00:00:00Z",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "2030-13-01T00:00:00Z",
        "2030-01-01T00:00:00Z\n",
        "\u0968\u0966\u0969\u0966-01-01T00:00:00Z",
    ],
)
def test_an_invalid_expiry_is_named(keys: InMemoryReadKeyRepository, moment: object) -> None:
    check_refused_expiry(keys, moment)


@pytest.mark.parametrize("distance", [{"seconds": -1}, {"days": 3660}], ids=["past", "too far"])
def test_an_expiry_out_of_range_is_named(keys: InMemoryReadKeyRepository, distance: dict[str, int]) -> None:
    check_refused_expiry(keys, in_future(**distance))


def check_refused_expiry(keys: InMemoryReadKeyRepository, moment: object) -> None:
    problem = check_problem(create({"name": "ci", "expires_at": moment}), 422, "invalid-fields")
    assert [field["field"] for field in problem["fields"]] == ["expires_at"]
    assert keys.list_keys() == []


@pytest.mark.parametrize("name", ["a", "x" * 100, "Jürgen's laptop (2)", "推論 😀", " padded "])
def test_names_are_kept_as_sent(keys: InMemoryReadKeyRepository, name: str) -> None:
    assert create({"name": name}).body["name"] == name
    assert list_keys()["keys"][0]["name"] == name


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": None}, "name"),
        ({"name": 5}, "name"),
        ({"name": ""}, "name"),
        ({"name": "   "}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "two\nlines"}, "name"),
        ({"name": "\x1b[31m"}, "name"),
        ({"name": "\u202eevil"}, "name"),
        ({"name": "\ud800"}, "name"),
        ({"name": "ci", "scopes": None}, "scopes"),
        ({"name": "ci", "scopes": "read"}, "scopes"),
        ({"name": "ci", "scopes": ["write"]}, "scopes.0"),
        ({"name": "ci", "scopes": ["READ"]}, "scopes.0"),
        ({"name": "ci", "scopes": ["read", 1]}, "scopes.1"),
        ({"name": "ci", "scopes": ["read", "import", "read"]}, "scopes"),
        ({"name": "ci", "expiry": None}, "expiry"),
        ({"name": "ci", "key": "hf_" + "a" * 40}, "key"),
    ],
)
def test_invalid_fields_are_named(keys: InMemoryReadKeyRepository, body: object, field: str) -> None:
    problem = check_problem(create(body), 422, "invalid-fields")
    assert [entry["field"] for entry in problem["fields"]] == [field]
    assert keys.list_keys() == []


@pytest.mark.parametrize("raw", ["", "{", "[]", "null", "[" * 20_000])
def test_what_is_no_json_object_is_rejected(keys: InMemoryReadKeyRepository, raw: str) -> None:
    check_problem(create(raw=raw), 400, "invalid-json")


def test_an_idempotency_key_is_rejected_because_keys_are_not_stored(keys: InMemoryReadKeyRepository) -> None:
    problem = check_problem(create({"name": "ci"}, **{"Idempotency-Key": "a"}), 400, "invalid-idempotency-key")
    assert "does not accept an Idempotency-Key" in problem["detail"]
    assert "Omit the header" in problem["remedy"]
    assert keys.list_keys() == []


def test_keys_are_listed_newest_first_with_their_expiry_and_use(keys: InMemoryReadKeyRepository) -> None:
    now = datetime.now(UTC)
    for name, age, lifetime in (("old", 3, 1), ("new", 1, 10), ("middle", 2, None)):
        created = now - timedelta(days=age)
        _, record = create_key(name, [Scope.IMPORT], created + timedelta(days=lifetime) if lifetime else None, created)
        keys.add_key(record)
        keys.record_use(record.key_id, created.date())
    listed = list_keys()["keys"]
    assert [entry["name"] for entry in listed] == ["new", "middle", "old"]
    assert [entry["expired"] for entry in listed] == [False, False, True]
    assert [entry["last_used_on"] for entry in listed] == [entry["created_at"][:10] for entry in listed]
    assert listed[1]["expires_at"] is None
    assert all("key" not in entry and "digest" not in entry for entry in listed)


def test_a_key_is_deleted_once(keys: InMemoryReadKeyRepository) -> None:
    first, second = (create({"name": name}).body["key_id"] for name in ("first", "second"))
    response = delete(first)
    assert (response.status, response.text) == (204, "")
    assert [entry["key_id"] for entry in list_keys()["keys"]] == [second]
    problem = check_problem(delete(first), 404, "key-not-found")
    assert first in problem["detail"]


@pytest.mark.parametrize(
    "key_id", ["x", "0" * 16, "F" * 16, "0" * 17, "0" * 15 + "\n", "%20", "é", "a" * 3000, "..", "\u0966" * 16]
)
def test_an_unknown_key_is_404_whatever_its_shape(keys: InMemoryReadKeyRepository, key_id: str) -> None:
    check_problem(delete(key_id), 404, "key-not-found")


def test_a_key_sent_instead_of_its_id_is_not_repeated(keys: InMemoryReadKeyRepository, log: io.StringIO) -> None:
    key = create({"name": "ci"}).body["key"]
    response = delete(key)
    check_problem(response, 404, "key-not-found")
    assert key not in response.text
    assert '"path":"/keys/hf_' in log.getvalue()
    assert key not in log.getvalue()


def test_a_key_among_unknown_fields_is_not_repeated(keys: InMemoryReadKeyRepository, log: io.StringIO) -> None:
    key = "hf_" + "a" * 40
    for response in (
        create({"name": "ci", "scopes": [key]}),
        create({"name": "ci", "expires_at": key}),
        create({"name": f"{key}\n"}),
        create({"name": "ci"}, **{"Idempotency-Key": key}),
        call_api("manage_keys", add_query(read_event("list_keys"), key=[key])),
    ):
        assert response.status in (400, 422)
        assert key not in response.text + log.getvalue()


def test_an_outage_is_503(keys: InMemoryReadKeyRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise StorageUnavailableError("DynamoDB request failed (Throttling).")

    monkeypatch.setattr(keys, "add_key", fail)
    problem = check_problem(create({"name": "ci"}), 503, "storage-unavailable")
    assert problem["retry_after"]
