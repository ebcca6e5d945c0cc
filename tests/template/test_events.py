"""The sample events are what AWS would send for this template, with messages that the pipeline reads."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from modelhaul.messages import ObjectCreated, parse_archive_message, parse_message
from tests.template.rules import list_consumers, list_dead_letter_queues, list_routes
from tests.template.transformed import ROOT, Template, read_template, transform_template

EVENTS = {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "events").glob("*.json"))}
REQUESTS = {name: event for name, event in EVENTS.items() if "httpMethod" in event}
DELIVERIES = {name: event for name, event in EVENTS.items() if "Records" in event}


@pytest.fixture(scope="module")
def template() -> Template:
    return transform_template(read_template())


def test_every_route_has_an_event(template: Template) -> None:
    assert {(event["httpMethod"], event["resource"]) for event in REQUESTS.values()} == list_routes(template)


@pytest.mark.parametrize("name", REQUESTS)
def test_request_is_consistent(name: str) -> None:
    event: dict[str, Any] = REQUESTS[name]
    assert event["path"] == event["resource"].format(**event["pathParameters"] or {})
    assert event["requestContext"]["path"] == "/v1" + event["path"]
    assert event["requestContext"]["resourcePath"] == event["resource"]
    assert event["multiValueHeaders"] == {key: [value] for key, value in event["headers"].items()}


def test_every_consumer_has_an_event(template: Template) -> None:
    folders = {
        Path(template["Resources"][function]["Properties"]["Code"]["S3Key"]).name
        for function, _, _ in list_consumers(template)
    }
    assert set(DELIVERIES) == folders


@pytest.mark.parametrize("name", DELIVERIES)
def test_delivery_carries_a_message(name: str, template: Template) -> None:
    queues = {queue for _, queue, _ in list_consumers(template)}
    for record in DELIVERIES[name]["Records"]:
        queue = record["eventSourceARN"].split("-")[-2]
        assert queue in queues
        assert hashlib.md5(record["body"].encode(), usedforsecurity=False).hexdigest() == record["md5OfBody"]
        if queue == "ArchiveQueue":
            arrived = parse_archive_message(record["body"])
            assert isinstance(arrived, ObjectCreated)
            assert arrived.detail.object.key.startswith("incoming/")
            continue
        message = parse_message(record["body"])
        if queue not in list_dead_letter_queues(template).values():
            assert message.kind == name
