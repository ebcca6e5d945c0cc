"""The authorizer of the Hub read API: API Gateway's events in, policies out."""

import hashlib
import io
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from modelhaul import wiring
from modelhaul.domain.errors import StorageUnavailableError
from modelhaul.domain.name_patterns import MAX_PATTERN
from modelhaul.domain.read_keys import ALL_NAMES, MAX_KEY_NAME, MAX_NAMES, Scope, create_key
from modelhaul.entrypoints.hub_api import read_hub_request
from modelhaul.entrypoints.logs import create_logger
from tests.fakes.deployment import RecordingMetrics
from tests.fakes.read_key_repository import InMemoryReadKeyRepository
from tests.hub_events import build_event
from tests.lambda_functions import Context, load_handler, read_event

STAGE = "arn:aws:execute-api:eu-central-1:123456789012:f6g7h8i9j0/hf"
TODAY = datetime.now(UTC).date()


class ReadKeys(InMemoryReadKeyRepository):
    """Counts lookups and writes. `lookup_error` and `write_error` are raised instead."""

    def __init__(self) -> None:
        super().__init__()
        self.lookups = 0
        self.uses: list[tuple[str, date]] = []
        self.lookup_error: Exception | None = None
        self.write_error: Exception | None = None

    def find_key(self, key_id: str) -> Any:
        self.lookups += 1
        if self.lookup_error is not None:
            raise self.lookup_error
        return super().find_key(key_id)

    def record_use(self, key_id: str, day: date) -> None:
        self.uses.append((key_id, day))
        if self.write_error is not None:
            raise self.write_error
        super().record_use(key_id, day)


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> ReadKeys:
    keys = ReadKeys()
    monkeypatch.setattr(wiring, "create_read_keys", lambda: keys)
    return keys


@pytest.fixture(autouse=True)
def metrics(monkeypatch: pytest.MonkeyPatch) -> RecordingMetrics:
    metrics = RecordingMetrics()
    monkeypatch.setattr(wiring, "create_metrics", lambda: metrics)
    return metrics


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """The lines of the logger."""
    stream = io.StringIO()
    for handler in create_logger().handlers:
        if isinstance(handler, logging.StreamHandler):
            monkeypatch.setattr(handler, "stream", stream)
    return stream


def add_key(
    keys: ReadKeys,
    *scopes: Scope,
    name: str = "ci",
    lifetime: timedelta | None = None,
    age: timedelta = timedelta(),
    names: Sequence[str] = ALL_NAMES,
) -> str:
    """Return a new key. `lifetime` counts from its creation, `age` ago."""
    created = datetime.now(UTC) - age
    key, record = create_key(name, scopes, None if lifetime is None else created + lifetime, created, names=names)
    keys.add_key(record)
    return key


def authorize(authorization: str | None, **members: Any) -> Any:
    event = {**read_event("authorize_hub"), "authorizationToken": authorization, **members}
    return load_handler("authorize_hub")(event, Context())


def check_effect(answer: Any, effect: str) -> None:
    """The policy is for all routes, because API Gateway caches it for the header's value only."""
    statement = {"Action": "execute-api:Invoke", "Effect": effect, "Resource": f"{STAGE}/*"}
    assert answer["policyDocument"] == {"Version": "2012-10-17", "Statement": [statement]}


def test_a_valid_key_is_allowed_on_all_routes(keys: ReadKeys, metrics: RecordingMetrics) -> None:
    key = add_key(keys)
    answer = authorize(f"Bearer {key}")
    check_effect(answer, "Allow")
    (record,) = keys.list_keys()
    assert answer["principalId"] == record.key_id
    assert answer["context"] == {"key_id": record.key_id, "name": "ci", "scopes": "read", "names": "*"}
    assert not metrics.values


@pytest.mark.parametrize(
    "path", ["GET/", "HEAD/a/b/resolve/refs%2Fpr%2F1/x:y/*", "POST/api/models/a/b/paths-info/main"]
)
def test_the_path_does_not_change_the_policy(keys: ReadKeys, path: str) -> None:
    check_effect(authorize(f"Bearer {add_key(keys)}", methodArn=f"{STAGE}/{path}"), "Allow")


def test_the_name_is_passed_on_as_ascii(keys: ReadKeys) -> None:
    context = authorize(f"Bearer {add_key(keys, name='Schlüssel für Zoë')}")["context"]
    assert context["name"] == "Schl%C3%BCssel%20f%C3%BCr%20Zo%C3%AB"
    event = build_event("aws", "GET", "api/whoami-v2")
    event["requestContext"]["authorizer"] = context
    assert read_hub_request(event, is_local=False).key.name == "Schlüssel für Zoë"


def test_scopes_are_passed_on(keys: ReadKeys) -> None:
    assert authorize(f"Bearer {add_key(keys, Scope.IMPORT)}")["context"]["scopes"] == "read import"


def test_names_are_passed_on(keys: ReadKeys) -> None:
    names = ("google-bert/*", "archive.local/team__*", "gpt2")
    context = authorize(f"Bearer {add_key(keys, names=names)}")["context"]
    event = build_event("aws", "GET", "api/models/gpt2")
    event["requestContext"]["authorizer"] = context
    key = read_hub_request(event, is_local=False).key
    assert key.names == names
    assert key.permits("Google-BERT/bert-base-uncased")
    assert not key.permits("openai-community/gpt2")


def test_the_largest_result_has_less_than_8_kb(keys: ReadKeys) -> None:
    """AWS limits the results of authorizers of WebSocket APIs to 8 KB, and documents no limit for REST APIs."""
    names = ["a" * MAX_PATTERN] * MAX_NAMES
    answer = authorize(f"Bearer {add_key(keys, Scope.IMPORT, name='\U0001f600' * MAX_KEY_NAME, names=names)}")
    assert all(isinstance(value, str) and value.isascii() for value in answer["context"].values())
    assert len(json.dumps(answer)) < 8000


@pytest.mark.parametrize("names", [ALL_NAMES, ("*", "org/model"), ("other/*",), ("org/model", "b"), ()])
def test_a_key_whose_names_were_changed_is_denied(keys: ReadKeys, names: tuple[str, ...]) -> None:
    """Also by a version that does not know names: it compares the digest with that of the key alone."""
    key = add_key(keys, names=["org/model"])
    check_effect(authorize(f"Bearer {key}"), "Allow")
    (record,) = keys.list_keys()
    assert record.digest != hashlib.sha256(key.encode()).hexdigest()
    keys.add_key(replace(record, names=names))
    check_effect(authorize(f"Bearer {key}"), "Deny")


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER ", "Bearer  "])
def test_the_scheme_is_case_insensitive(keys: ReadKeys, scheme: str) -> None:
    check_effect(authorize(scheme + add_key(keys)), "Allow")


KEY = "hf_" + "a" * 40


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        KEY,
        f"Basic {KEY}",
        f"Bearer\t{KEY}",
        f"Bearer {KEY} ",
        f"Bearer {KEY}\n",
        f"Bearer {KEY}, Bearer {KEY}",
        f"Bearer HF_{'a' * 40}",
        f"Bearer hf_{'a' * 36}",
        f"Bearer hf_{'a' * 254}",
        f"Bearer hf_{'a' * 39}é",
        f"Bearer hf_{'a' * 39}-",
        f"Bearer {'x' * 9000}",
    ],
)
def test_what_cannot_be_a_key_is_denied_without_a_lookup(
    keys: ReadKeys, metrics: RecordingMetrics, authorization: str | None
) -> None:
    answer = authorize(authorization)
    check_effect(answer, "Deny")
    assert "context" not in answer
    assert keys.lookups == 0
    assert metrics.values == {"HubAccessDenied": 1}


def test_an_unknown_key_is_denied(keys: ReadKeys, metrics: RecordingMetrics) -> None:
    add_key(keys)
    check_effect(authorize(f"Bearer {KEY}"), "Deny")
    assert metrics.values == {"HubAccessDenied": 1}


def test_a_key_in_another_case_is_another_key(keys: ReadKeys) -> None:
    key = add_key(keys)
    check_effect(authorize(f"Bearer hf_{key[3:].swapcase()}"), "Deny")


def test_a_key_with_the_id_of_another_is_denied(keys: ReadKeys) -> None:
    key = add_key(keys)
    (record,) = keys.list_keys()
    keys.add_key(replace(record, digest="0" * 64))
    check_effect(authorize(f"Bearer {key}"), "Deny")


def test_a_removed_key_is_denied(keys: ReadKeys) -> None:
    key = add_key(keys)
    keys.remove_key(keys.list_keys()[0].key_id)
    check_effect(authorize(f"Bearer {key}"), "Deny")


def test_an_expired_key_is_denied_and_logged_by_its_id(
    keys: ReadKeys, metrics: RecordingMetrics, log: io.StringIO
) -> None:
    key = add_key(keys, lifetime=timedelta(days=2), age=timedelta(days=2, seconds=1))
    check_effect(authorize(f"Bearer {key}"), "Deny")
    assert metrics.values == {"HubAccessDenied": 1}
    assert keys.uses == []
    (line,) = map(json.loads, log.getvalue().splitlines())
    (record,) = keys.list_keys()
    assert (line["level"], line["message"], line["key_id"]) == ("INFO", "denied read key", record.key_id)
    assert key not in log.getvalue()


def test_a_key_is_valid_until_it_expires(keys: ReadKeys) -> None:
    check_effect(authorize(f"Bearer {add_key(keys, lifetime=timedelta(minutes=1))}"), "Allow")


def test_use_is_recorded_once_a_day(keys: ReadKeys) -> None:
    key = add_key(keys)
    for _ in range(3):
        check_effect(authorize(f"Bearer {key}"), "Allow")
    (record,) = keys.list_keys()
    assert record.last_used_on is not None
    assert record.last_used_on >= TODAY
    assert len(keys.uses) == 1
    keys.add_key(replace(record, last_used_on=TODAY - timedelta(days=1)))
    authorize(f"Bearer {key}")
    assert len(keys.uses) == 2


def test_a_use_that_cannot_be_recorded_denies_nothing(keys: ReadKeys, log: io.StringIO) -> None:
    key = add_key(keys)
    keys.write_error = StorageUnavailableError("DynamoDB request failed (Throttling).")
    check_effect(authorize(f"Bearer {key}"), "Allow")
    assert "use of read key not recorded" in log.getvalue()
    assert key not in log.getvalue()


def test_an_outage_is_an_error_and_no_denial(keys: ReadKeys, metrics: RecordingMetrics) -> None:
    """API Gateway caches a policy, but no error. The message `Unauthorized` would be a 401."""
    key = add_key(keys)
    keys.lookup_error = StorageUnavailableError("DynamoDB request failed (Throttling).")
    with pytest.raises(StorageUnavailableError, match="Throttling"):
        authorize(f"Bearer {key}")
    assert not metrics.values
    keys.lookup_error = None
    check_effect(authorize(f"Bearer {key}"), "Allow")
