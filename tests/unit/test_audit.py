"""What the audit records of the actions of users, and how it is listed and published."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from modelhaul import wiring
from modelhaul.catalog.audit import EntryPublisher, present_entry
from modelhaul.domain.audit import AuditAction, AuditEntry, describe_policy_change
from modelhaul.domain.errors import (
    ModelExistsError,
    ModelNotFoundError,
    StorageUnavailableError,
    TaskEndedError,
    UploadNotOpenError,
)
from modelhaul.domain.models import Source
from modelhaul.domain.selection import Selection
from modelhaul.imports.missing import MissingModelImporter
from modelhaul.ports.audit_log import AuditLog, DisabledAuditLog
from openapi.responses import AuditList
from tests.archives.building import Member, build
from tests.documented_events import AUDIT_EXAMPLES, AUDIT_VALIDATOR
from tests.fakes.deployment import Deployment
from tests.fakes.event_bus import InMemoryEventBus
from tests.fakes.missing_models import InMemoryPublicHub
from tests.fakes.model_source import InMemoryModelSource
from tests.fakes.read_key_repository import InMemoryReadKeyRepository
from tests.fakes.signing_key import LocalSigningKey
from tests.lambda_functions import Context, Response, call_api, load_handler, read_event

NAME = "org/tiny"
ALICE = "arn:aws:iam::123456789012:user/alice"
BOB = "arn:aws:sts::123456789012:assumed-role/Deployer/bob"
MODEL = [Member(f"good/{name}".encode(), b"{}") for name in ("config.json", "tokenizer.json")] + [
    Member(b"good/model.safetensors", b"\x02\0\0\0\0\0\0\0{}")
]


@pytest.fixture
def deployment() -> Deployment:
    return Deployment(
        InMemoryModelSource({NAME: {"main": {"config.json": b"{}"}, "dev": {"config.json": b"[]"}}}),
        signing_key=LocalSigningKey(),
    )


def list_entries(deployment: Deployment) -> list[AuditEntry]:
    """All entries, in the order of their actions."""
    return list(deployment.tables.entries.values())


def take(deployment: Deployment) -> AuditEntry:
    """The only entry, which is removed."""
    (entry,) = list_entries(deployment)
    deployment.tables.entries.clear()
    return entry


class TestActions:
    def test_submission(self, deployment: Deployment) -> None:
        task = deployment.submitter.submit(
            Source.HUGGINGFACE, NAME, "main", Selection(allow_patterns=("*.json",)), submitted_by=ALICE
        )
        entry = take(deployment)
        assert entry.action is AuditAction.IMPORT_SUBMITTED
        assert (entry.actor, entry.task_id, entry.name, entry.source) == (ALICE, task.id, NAME, Source.HUGGINGFACE)
        assert (entry.model_id, entry.commit, entry.time) == (task.model_ids[0], task.commit, task.created_at)
        assert entry.detail == {"requested": f"{NAME}@main", "selection": task.selection.describe()}

    def test_refused_submissions_are_no_actions(self, deployment: Deployment) -> None:
        deployment.submit(NAME)
        deployment.run()
        deployment.tables.entries.clear()
        with pytest.raises(ModelExistsError):
            deployment.submit(NAME)
        with pytest.raises(ModelNotFoundError):
            deployment.submit("org/absent")
        assert list_entries(deployment) == []

    def test_request_of_a_hub_client(self, deployment: Deployment) -> None:
        hub = InMemoryPublicHub(InMemoryModelSource())
        importer = MissingModelImporter(deployment.submitter, deployment.database.models, hub, deployment.clock)
        importer.request_import(NAME, "main", submitted_by="read-key:0123456789abcdef")
        assert take(deployment).actor == "read-key:0123456789abcdef"

    def test_archive_in_the_request(self, deployment: Deployment) -> None:
        task = deployment.archive_submitter.submit_archive(build(MODEL), "models.zip", None, submitted_by=ALICE)
        entry = take(deployment)
        assert (entry.actor, entry.task_id, entry.name, entry.model_id) == (ALICE, task.id, "good", task.model_ids[0])
        assert entry.detail == {"archive": "models.zip"}

    def test_upload_and_its_renewal(self, deployment: Deployment) -> None:
        task, _ = deployment.archive_submitter.open_upload("models.zip", 10**8, "mine", submitted_by=ALICE)
        entry = take(deployment)
        assert (entry.action, entry.actor, entry.task_id) == (AuditAction.IMPORT_SUBMITTED, ALICE, task.id)
        assert entry.detail == {"archive": "models.zip", "model_name": "mine"}
        _, ticket = deployment.archive_submitter.renew_upload(task.id, [1], caller=ALICE)
        entry = take(deployment)
        assert (entry.action, entry.actor, entry.task_id) == (AuditAction.UPLOAD_URLS_RENEWED, ALICE, task.id)
        assert ticket.parts[0].url not in repr(entry)
        with pytest.raises(UploadNotOpenError):
            deployment.archive_submitter.renew_upload(task.id, [1], caller=BOB)
        assert list_entries(deployment) == []

    def test_dropped_archive(self, deployment: Deployment) -> None:
        for _ in range(2):  # S3 can send an event twice
            deployment.arrivals.record_arrival(
                "incoming/team/a.zip", size=1, etag="e", event_id="1", submitted_by="aws-account:123456789012"
            )
        entry = take(deployment)
        assert (entry.actor, entry.source) == ("aws-account:123456789012", Source.LOCAL)
        assert entry.detail == {"archive": "incoming/team/a.zip"}

    def test_ignored_objects_are_no_actions(self, deployment: Deployment) -> None:
        deployment.arrivals.record_arrival("incoming/notes.txt", size=1, etag="e", event_id="1")
        assert list_entries(deployment) == []

    def test_cancellation(self, deployment: Deployment) -> None:
        task = deployment.submit(NAME)
        deployment.tables.entries.clear()
        deployment.finisher.cancel(task.id, cancelled_by=BOB)
        with pytest.raises(TaskEndedError):
            deployment.finisher.cancel(task.id, cancelled_by=ALICE)
        entry = take(deployment)
        assert (entry.action, entry.actor, entry.task_id) == (AuditAction.IMPORT_CANCELLED, BOB, task.id)
        assert entry.model_id == task.model_ids[0]

    def test_failed_and_finished_imports_are_no_actions(self, deployment: Deployment) -> None:
        task = deployment.post(build([Member(b"bad/config.json", b"{}"), *MODEL]))
        deployment.tables.entries.clear()
        deployment.run()
        assert deployment.find_task(task.id).status.value == "DONE"
        assert list_entries(deployment) == []

    def test_deletion(self, deployment: Deployment) -> None:
        task = deployment.submit(NAME)
        deployment.run()
        deployment.tables.entries.clear()
        # The function has no time left, so the deletion continues later.
        assert not deployment.deleter.delete_model(task.model_ids[0], lambda: 0, deleted_by=ALICE)
        entry = take(deployment)
        assert (entry.action, entry.actor, entry.name) == (AuditAction.MODEL_DELETED, ALICE, NAME)
        assert (entry.model_id, entry.task_id, entry.commit) == (task.model_ids[0], task.id, task.commit)
        deployment.clock.now += 3600
        deployment.deleter.resume(lambda: 300)
        assert deployment.database.models.find_model(task.model_ids[0]) is None
        assert list_entries(deployment) == []

    def test_signature(self, deployment: Deployment) -> None:
        task = deployment.submit(NAME)
        deployment.run()
        model = deployment.tables.models[task.model_ids[0]]
        assert model.signature is not None
        deployment.tables.entries.clear()
        signer = deployment.published_signer
        assert signer is not None
        assert not signer.sign_model(model.model_id, signed_by=ALICE)[1]
        assert list_entries(deployment) == []
        deployment.tables.models[model.model_id] = replace(model, signature=None)
        assert signer.sign_model(model.model_id, signed_by=ALICE)[1]
        entry = take(deployment)
        assert (entry.action, entry.actor, entry.model_id) == (AuditAction.MODEL_SIGNED, ALICE, model.model_id)
        assert entry.detail == {"signing_key_arn": model.signature.key_arn}


class BrokenAuditLog(AuditLog):
    def record(self, entry: AuditEntry) -> None:
        raise StorageUnavailableError("DynamoDB request failed (InternalServerError).")


def test_urls_are_not_signed_without_an_entry(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    task, _ = deployment.archive_submitter.open_upload("models.zip", 10**8, None, submitted_by=ALICE)
    submitter = replace(deployment.archive_submitter, audit=BrokenAuditLog())
    monkeypatch.setattr(deployment.archives, "renew_upload", lambda *_, **__: pytest.fail("URLs were signed"))
    with pytest.raises(StorageUnavailableError):
        submitter.renew_upload(task.id, None, caller=ALICE)


def test_nothing_is_recorded_while_the_audit_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"AWS_REGION": "eu-west-1", "AUDIT_TABLE": "audit", "AUDIT_RETENTION_DAYS": "0"}.items():
        monkeypatch.setenv(name, value)
    audit = wiring.create_audit_log.__wrapped__()
    assert isinstance(audit, DisabledAuditLog)
    audit.record(describe_policy_change(location="", digest="", version="", changed_at=datetime.now(UTC)))


class TestRoute:
    @pytest.fixture(autouse=True)
    def _connect(self, deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(wiring, "create_audit_reader", lambda: deployment.database.audit_reader)
        for name, value in {"AWS_REGION": "eu-west-1", "AUDIT_TABLE": "audit", "AUDIT_RETENTION_DAYS": "30"}.items():
            monkeypatch.setenv(name, value)
        for number in range(5):
            deployment.database.audit.record(make_entry(deployment, number))

    def test_pages(self) -> None:
        shown: list[dict[str, Any]] = []
        cursor = None
        for size in (2, 2, 1):
            response = get(limit="2", **({"cursor": cursor} if cursor else {}))
            assert response.status == 200
            AuditList.model_validate(response.body)
            assert len(response.body["entries"]) == size
            shown += response.body["entries"]
            cursor = response.body["cursor"]
        assert cursor is None
        assert response.body["retention_days"] == 30
        assert [entry["model_id"] for entry in shown] == ["m0", "m1", "m2", "m3", "m4"]

    def test_filters(self, deployment: Deployment) -> None:
        hour = timedelta(hours=1)
        now = datetime.fromtimestamp(deployment.clock.now, UTC)
        for query, expected in (
            ({"model_id": "m1"}, ["m1"]),
            ({"task_id": "t2"}, ["m2"]),
            ({"actor": "arn:aws:sts::123456789012:assumed-role/Deployer"}, ["m1", "m3"]),
            ({"actor": ALICE, "action": "ModelSigned"}, ["m0", "m2", "m4"]),
            ({"action": "ModelDeleted"}, []),
            ({"since": (now - 2 * hour).isoformat(), "until": now.isoformat()}, ["m1", "m2"]),
        ):
            assert [entry["model_id"] for entry in get(**query).body["entries"]] == expected

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("action", "Everything"),
            ("actor", ""),
            ("since", "yesterday"),
            ("since", "1750593600"),
            ("until", "2027-01-01T00:00:00"),
            ("until", "0001-01-01T00:00:00+14:00"),
            ("since", "9999-12-31T23:59:59-14:00"),
            ("limit", "101"),
            ("cursor", "x"),
            ("page", "2"),
        ],
    )
    def test_invalid_parameters(self, name: str, value: str) -> None:
        response = get(**{name: value})
        assert response.status == 422
        assert response.body["fields"][0]["field"] == name


def make_entry(deployment: Deployment, number: int) -> AuditEntry:
    """An entry of so many hours ago."""
    return AuditEntry(
        action=AuditAction.MODEL_SIGNED,
        time=datetime.fromtimestamp(deployment.clock.now, UTC) - timedelta(hours=number),
        actor=[ALICE, BOB][number % 2],
        model_id=f"m{number}",
        task_id=f"t{number}",
    )


def get(**query: str) -> Response:
    event = read_event("list_entries")
    event["queryStringParameters"] = query
    event["multiValueQueryStringParameters"] = {name: [value] for name, value in query.items()}
    return call_api("read_audit", event)


class TestKeys:
    def test_creation_and_deletion(self, deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
        keys = InMemoryReadKeyRepository(tables=deployment.tables)
        monkeypatch.setattr(wiring, "create_read_keys", lambda: keys)
        created = call_api("manage_keys", read_event("create_key"), body={"name": "ci"}).body
        entry = take(deployment)
        assert (entry.action, entry.key_id, entry.name) == (AuditAction.READ_KEY_CREATED, created["key_id"], "ci")
        assert entry.actor == "api-key:k1l2m3n4o5"
        assert created["key"] not in repr(entry)
        event = {**read_event("delete_key"), "pathParameters": {"key_id": created["key_id"]}}
        event["path"] = f"/keys/{created['key_id']}"
        assert call_api("manage_keys", event).status == 204
        entry = take(deployment)
        assert (entry.action, entry.key_id, entry.name) == (AuditAction.READ_KEY_DELETED, created["key_id"], "ci")
        assert call_api("manage_keys", event).status == 404
        assert list_entries(deployment) == []


class TestEvents:
    @pytest.fixture
    def bus(self, deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemoryEventBus]:
        bus = InMemoryEventBus()
        publisher = EntryPublisher(deployment.database.audit_reader, bus, "modelhaul")
        monkeypatch.setattr(wiring, "create_entry_publisher", lambda: publisher)
        yield bus
        for event in bus.events:
            shown = {"source": "Modelhaul", "detail-type": event.type, "detail": json.loads(event.detail)}
            AUDIT_VALIDATOR.validate({**shown, "time": "2027-01-01T00:00:00Z"})

    def test_an_entry_is_published(self, deployment: Deployment, bus: InMemoryEventBus) -> None:
        deployment.submit(NAME)
        entry = take(deployment)
        deployment.database.audit.record(entry)
        assert publish(make_record(entry.id)) == []
        (event,) = bus.events
        assert (event.type, event.time) == ("ImportSubmitted", entry.time)
        assert json.loads(event.detail) == {"version": 1, "stack": "modelhaul", **present_entry(entry)}

    def test_every_kind_of_entry_is_as_documented(self, deployment: Deployment, bus: InMemoryEventBus) -> None:
        for action in AuditAction:
            entry = AuditEntry(
                action=action,
                time=datetime.fromtimestamp(deployment.clock.now, UTC),
                actor=None,
                key_id="k",
                follow_id="f",
                source=Source.LOCAL,
                reason="r",
                detail={"a": "b"},
            )
            deployment.database.audit.record(entry)
            publish(make_record(entry.id))
        assert [event.type for event in bus.events] == list(AuditAction)

    def test_an_expired_entry_is_skipped(self, bus: InMemoryEventBus) -> None:
        assert publish(make_record("absent")) == []
        assert publish(make_record("absent", name="REMOVE")) == []
        assert bus.events == []

    def test_records_are_redelivered_while_the_bus_is_down(self, deployment: Deployment, bus: InMemoryEventBus) -> None:
        entry = make_entry(deployment, 0)
        deployment.database.audit.record(entry)
        bus.is_down = True
        assert publish(make_record(entry.id, number=7)) == ["7"]
        bus.is_down = False
        assert publish(make_record(entry.id, number=7)) == []
        assert len(bus.events) == 1

    def test_examples_are_as_documented(self) -> None:
        assert AUDIT_EXAMPLES
        for example in AUDIT_EXAMPLES:
            AUDIT_VALIDATOR.validate(example)


def make_record(entry_id: str, *, name: str = "INSERT", number: int = 1) -> dict[str, Any]:
    (record,) = read_event("publish_audit")["Records"]
    change = {**record["dynamodb"], "Keys": {"id": {"S": entry_id}}, "SequenceNumber": str(number)}
    return {**record, "eventName": name, "dynamodb": change}


def publish(*records: dict[str, Any]) -> list[str]:
    """The sequence numbers of the records that Lambda is to deliver again."""
    answer = load_handler("publish_audit")({"Records": list(records)}, Context())
    return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]
