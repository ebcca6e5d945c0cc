"""The sample events match the template, and contain messages that the pipeline accepts."""

import base64
import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from modelhaul.domain.messages import ObjectCreated, parse_archive_message, parse_message
from modelhaul.entrypoints.forms import read_upload_form
from tests.template.rules import (
    ENDS,
    OWN_PREFIXES,
    STREAMS,
    list_consumers,
    list_dead_letter_queues,
    list_routes,
    list_streams,
)
from tests.template.transformed import ROOT, Template, read_template, transform_template

EVENTS = {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "events").glob("*.json"))}
REQUESTS = {name: event for name, event in EVENTS.items() if "httpMethod" in event}
RECORDS = {name: event["Records"] for name, event in EVENTS.items() if "Records" in event}
DELIVERIES = {name: EVENTS[name] for name, records in RECORDS.items() if records[0]["eventSource"] == "aws:sqs"}
STREAMED = {name: records for name, records in RECORDS.items() if records[0]["eventSource"] == "aws:dynamodb"}
CONSUMERS = {"copy_files": "publish_models", "join_transfer": "transfer_files"}
"""Functions by the messages that have another name."""
SMALLEST_MODEL = ("config.json", "tokenizer.json", "model.safetensors")


@pytest.fixture(scope="module")
def template() -> Template:
    return transform_template(read_template())


def test_every_route_has_an_event(template: Template) -> None:
    routes: dict[str, set[tuple[str, str]]] = {}
    for event in REQUESTS.values():
        routes.setdefault(event["requestContext"]["stage"], set()).add((event["httpMethod"], event["resource"]))
    assert routes["v1"] == list_routes(template)
    # A function with one event: all routes of the Hub read API have the same path.
    assert routes["hf"] <= list_routes(template, "HubApi")


@pytest.mark.parametrize("name", REQUESTS)
def test_request_is_consistent(name: str) -> None:
    event: dict[str, Any] = REQUESTS[name]
    assert event["path"] == event["resource"].replace("+}", "}").format(**event["pathParameters"] or {})
    assert event["requestContext"]["path"] == f"/{event['requestContext']['stage']}{event['path']}"
    assert event["requestContext"]["resourcePath"] == event["resource"]
    assert event["multiValueHeaders"] == {key: [value] for key, value in event["headers"].items()}


def test_posted_archive_is_one() -> None:
    event: dict[str, Any] = REQUESTS["submit_local"]
    assert event["isBase64Encoded"]
    form = read_upload_form(event["headers"]["Content-Type"], base64.b64decode(event["body"]))
    assert form.file_name == "tiny.zip"
    with zipfile.ZipFile(io.BytesIO(form.content)) as archive:
        assert archive.testzip() is None
        assert set(archive.namelist()) == {f"tiny/{name}" for name in SMALLEST_MODEL}


def find_queue(record: dict[str, Any]) -> str:
    """Return the logical name of the queue of a record."""
    queue: str = record["eventSourceARN"].split("-")[-2]
    return queue


def map_consumers(template: Template) -> dict[str, str]:
    """Return the folder of the consuming function, by queue."""
    return {
        queue: Path(template["Resources"][function]["Properties"]["Code"]["S3Key"]).name
        for function, queue, _ in list_consumers(template)
    }


def test_every_consumer_has_an_event(template: Template) -> None:
    consumers = map_consumers(template)
    queues = {find_queue(record) for event in DELIVERIES.values() for record in event["Records"]}
    assert {consumers[queue] for queue in queues} == set(consumers.values())


@pytest.mark.parametrize("name", DELIVERIES)
def test_delivery_carries_a_message(name: str, template: Template) -> None:
    consumers = map_consumers(template)
    for record in DELIVERIES[name]["Records"]:
        queue = find_queue(record)
        assert queue in consumers
        assert hashlib.md5(record["body"].encode(), usedforsecurity=False).hexdigest() == record["md5OfBody"]
        if queue == "ArchiveQueue" or name == "record_lost_arrival":
            check_arrival(record["body"])
            continue
        message = parse_message(record["body"])
        if queue not in list_dead_letter_queues(template).values():
            assert message.kind == name
            assert consumers[queue] == CONSUMERS.get(name, name)


def check_arrival(body: str) -> None:
    """Check that the rule matches the event. The key in the event is not URL-encoded."""
    message = parse_archive_message(body)
    assert isinstance(message, ObjectCreated)
    assert {" ", "+", "%", "è"} <= set(message.detail.object.key)
    assert not message.detail.object.key.startswith(tuple(OWN_PREFIXES))
    assert message.detail.object.sequencer
    event = json.loads(body)
    assert event["source"] == "aws.s3"
    assert event["resources"] == [f"arn:aws:s3:::{message.detail.bucket.name}"]


def test_streamed_records_are_what_the_filter_lets_through(template: Template) -> None:
    assert set(STREAMED) == {
        Path(template["Resources"][function]["Properties"]["Code"]["S3Key"]).name
        for function, _, _ in list_streams(template)
    }
    (entry,) = STREAMED["publish_audit"]
    _, wanted_entry = STREAMS["AuditTable"]
    assert [entry["eventName"]] == wanted_entry["eventName"]
    for (record,) in (records for name, records in STREAMED.items() if name != "publish_audit"):
        change, wanted = record["dynamodb"], ENDS["dynamodb"]
        assert record["eventName"] in ENDS["eventName"]
        for image, attributes in wanted.items():
            assert all(change[image][name]["S"] in values["S"] for name, values in attributes.items())
            assert change[image]["id"] == change["Keys"]["id"]
