"""Objects in the incoming bucket, from the event of S3 through the template's rule and the function to the outcome."""

import json
import re
from datetime import datetime
from typing import Any

import pytest
from moto.events.models import EventPattern

from modelhaul import wiring
from modelhaul.domain.models import Source
from modelhaul.domain.tasks import TaskStatus
from openapi.responses import Task
from tests.fakes.deployment import Deployment
from tests.lambda_functions import Context, load_handler, read_event
from tests.template.transformed import read_template
from tests.unit.test_archive_pipeline import SMALL, make_archive, place

PATTERN = read_template()["Resources"]["ArchiveArrivedRule"]["Properties"]["EventPattern"]
SECONDS = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


@pytest.fixture
def deployment(monkeypatch: pytest.MonkeyPatch) -> Deployment:
    deployment = Deployment()
    monkeypatch.setattr(wiring, "create_arrival_recorder", lambda: deployment.arrivals)
    for name in ("acceptor", "runner", "metrics"):
        monkeypatch.setattr(wiring, f"create_{name}", lambda name=name: getattr(deployment, name))
    return deployment


def matches(key: str) -> bool:
    """Return whether EventBridge sends an event with this key to ArchiveQueue."""
    pattern = {**PATTERN, "detail": {"object": PATTERN["detail"]["object"]}}
    event = {"source": "aws.s3", "detail-type": "Object Created", "detail": {"object": {"key": key}}}
    return bool(EventPattern.load(json.dumps(pattern)).matches_event(event))  # type: ignore[arg-type] # not all fields


def copy_to_bucket(deployment: Deployment, key: str, body: bytes, *, function: str = "accept_archive") -> list[str]:
    """Store an object as a user does, let S3 send its event, and import what was accepted.

    Return the keys of the outcomes. They are objects of the same bucket, so S3 sends an event for each of them too.
    """
    before = set(deployment.archives.outcomes)
    etag = deployment.archives.put_archive(key, body)
    sample = read_event("accept_archive")
    event = json.loads(sample["Records"][0]["body"])
    event["detail"]["object"] = {"key": key, "size": len(body), "etag": etag, "sequencer": "1"}
    if matches(key):
        record = {**sample["Records"][0], "body": json.dumps(event)}
        assert load_handler(function)({"Records": [record]}, Context()) == {"batchItemFailures": []}
        deployment.run()
    written = sorted(set(deployment.archives.outcomes) - before)
    assert not any(map(matches, written)), "an outcome leads to the next one, without end"
    return written


def list_tasks(deployment: Deployment) -> list[Any]:
    return list(deployment.database.tasks.list_tasks(limit=100).tasks)


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("incoming/model.safetensors", "does not end in .zip"),
        ("incoming/team a/mes modèles+1 (50%).tar.gz", "does not end in .zip"),
        ("incoming/zip", "does not end in .zip"),
        ("models.zip", "does not start with incoming/"),
        ("Incoming/models.zip", "does not start with incoming/"),
        ("incoming.zip", "does not start with incoming/"),
        ("/incoming/models.zip", "does not start with incoming/"),
        ("README", "does not start with incoming/"),
    ],
)
@pytest.mark.parametrize("function", ["accept_archive", "record_failure"])
def test_an_object_that_is_not_imported_has_an_outcome(
    deployment: Deployment, key: str, reason: str, function: str
) -> None:
    assert copy_to_bucket(deployment, key, make_archive(place("a", SMALL)), function=function) == [
        f"outcomes/{key}.json"
    ]
    outcome = deployment.archives.outcomes[f"outcomes/{key}.json"]
    assert Task.model_validate(outcome).model_tag == key
    assert (outcome["task_status"], outcome["stage"], outcome["source"]) == ("FAILED", "FAILED", "LOCAL")
    assert outcome["error_msg"] == f"Object {key!r} is not imported, because its key {reason}."
    assert outcome["error"]["type"] == "object-ignored"
    assert "incoming/" in outcome["error"]["remedy"]
    assert ".zip" in outcome["error"]["remedy"]
    # Objects that nobody wants to import cost neither records nor emails, and do not hide the imports in lists.
    assert list_tasks(deployment) == []
    assert deployment.archives.find_archive(key) is not None


@pytest.mark.parametrize("key", ["incoming/", "incoming/team/", "other/"])
def test_a_folder_made_in_the_console_has_no_outcome(deployment: Deployment, key: str) -> None:
    assert copy_to_bucket(deployment, key, b"") == []


@pytest.mark.parametrize("key", ["outcomes/a.zip.json", "posted/a.zip"])
def test_an_event_for_an_object_of_our_own_has_no_outcome(deployment: Deployment, key: str) -> None:
    """Even if another rule sends it."""
    assert deployment.arrivals.record_arrival(key, size=1, etag="e", event_id="1") is None
    assert deployment.archives.outcomes == {}


@pytest.mark.parametrize("key", ["incoming/a.zip", "incoming/a.ZIP", "incoming/team/b.Zip", "incoming/c.zIP"])
def test_an_archive_is_imported_whatever_the_case_of_its_suffix(deployment: Deployment, key: str) -> None:
    assert copy_to_bucket(deployment, key, make_archive(place("a", SMALL))) == [f"outcomes/{key}.json"]
    assert deployment.archives.outcomes[f"outcomes/{key}.json"]["task_status"] == "DONE"
    (task,) = list_tasks(deployment)
    assert task.status is TaskStatus.DONE


@pytest.mark.parametrize("key", ["incoming/a.zip", "incoming/a.tar"])
def test_times_of_an_outcome_are_those_of_its_task(deployment: Deployment, key: str) -> None:
    deployment.clock.now += 0.75
    copy_to_bucket(deployment, key, make_archive(place("a", SMALL)))
    outcome = deployment.archives.outcomes[f"outcomes/{key}.json"]
    for name in ("created_at", "updated_at"):
        assert re.fullmatch(SECONDS, outcome[name]), outcome[name]
    assert datetime.fromisoformat(outcome["created_at"]) <= datetime.fromisoformat(outcome["updated_at"])


def test_of_two_archives_within_a_second_the_later_has_the_outcome(deployment: Deployment) -> None:
    deployment.clock.now = float(int(deployment.clock.now))
    first = deployment.drop(b"not a ZIP", event_id="1")
    deployment.clock.now += 0.25
    second = deployment.drop(b"not a ZIP either", event_id="2")
    accepted = deployment.receive()
    for message in reversed(accepted):
        deployment.deliver(message)
    assert {message.task_id for message in accepted} == {first, second}
    assert deployment.archives.outcomes["outcomes/incoming/archive.zip.json"]["id"] == second


def test_a_dropped_archive_counts_as_accepted_and_an_ignored_object_does_not(deployment: Deployment) -> None:
    copy_to_bucket(deployment, "incoming/readme.txt", b"text")
    assert not deployment.metrics.values
    copy_to_bucket(deployment, "incoming/broken.zip", b"not an archive")
    assert deployment.metrics.values == {"ImportsAccepted": 1, "ImportsFailed": 1}


def test_a_duplicate_event_of_an_archive_counts_once(deployment: Deployment) -> None:
    for _ in range(2):
        copy_to_bucket(deployment, "incoming/broken.zip", b"not an archive")
    assert deployment.metrics.values == {"ImportsAccepted": 1, "ImportsFailed": 1}


def test_log_lines_of_archives_have_their_source(deployment: Deployment, caplog: pytest.LogCaptureFixture) -> None:
    """The query in docs/monitoring.md counts them by source."""
    caplog.set_level("INFO")
    copy_to_bucket(deployment, "incoming/broken.zip", b"not an archive")
    deployment.archive_submitter.open_upload("a.zip", 1, None)
    sources = {record.getMessage(): getattr(record, "source", None) for record in caplog.records}
    names = ("archive arrived", "upload opened", "import failed")
    assert [sources[name] for name in names] == [Source.LOCAL] * 3
