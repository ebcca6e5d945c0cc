"""No permission is given that nothing needs: what the template grants a function is used here, by the real adapters.

Each request to moto is put down to the function that acts, as the action and the resource that IAM would be asked for.
What is asked for must be granted, and what is granted must be asked for at least once, or stand below with its reason.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree as ET

import moto.s3.models
import pytest
import requests
from botocore.awsrequest import AWSPreparedRequest

from modelhaul import wiring
from modelhaul.adapters import s3_uploads
from modelhaul.adapters.archives import S3ArchiveStore
from modelhaul.adapters.dynamodb.audit_items import AuditWriter
from modelhaul.adapters.dynamodb.connection import open_connection
from modelhaul.adapters.dynamodb.follows import DynamoDBFollowRepository
from modelhaul.adapters.dynamodb.rate_limits import DynamoDBRateLimitStore
from modelhaul.adapters.dynamodb.read_keys import DynamoDBReadKeyRepository
from modelhaul.adapters.eventbridge import EventBridgeEventBus, create_events_client
from modelhaul.adapters.follow_checks import LambdaFollowChecks
from modelhaul.adapters.follow_checks import create_lambda_client as create_checks_client
from modelhaul.adapters.kms import KmsSigningKey, create_kms_client
from modelhaul.adapters.lambda_invoke import LambdaMissingModels, create_lambda_client
from modelhaul.adapters.s3 import S3ObjectStore
from modelhaul.adapters.s3_client import create_s3_client
from modelhaul.adapters.sqs import SQSMessageQueue, create_sqs_client
from modelhaul.catalog import quota, read
from modelhaul.catalog.audit import EntryPublisher
from modelhaul.domain.errors import (
    ModelFileNotFoundError,
    ModelNotFoundError,
    PolicyDeniedError,
    RateLimitedError,
    SourceUnavailableError,
    StepCrashedError,
    UnsafeModelError,
    UploadGoneError,
)
from modelhaul.domain.files import Part
from modelhaul.domain.follows import create_follow
from modelhaul.domain.gate import PicklePolicy
from modelhaul.domain.hub_models import MissPolicy
from modelhaul.domain.keys import manifest_key
from modelhaul.domain.messages import (
    AcceptArchive,
    CopyFiles,
    JoinTransfer,
    Message,
    PlanImport,
    PublishModels,
    TransferFiles,
)
from modelhaul.domain.models import Source
from modelhaul.domain.tasks import Stage, Task, TaskError, TaskStatus
from modelhaul.hub.misses import MissHandler
from modelhaul.hub.reader import HubReader
from modelhaul.imports.import_policy import ImportPolicy
from modelhaul.imports.missing import MissingModelImporter
from modelhaul.imports.notify import EndPublisher
from modelhaul.inspection.file_checks import FileChecker
from modelhaul.policy.reader import PolicyReader
from modelhaul.retention.apply import RetentionPlanner, RetentionRunner
from modelhaul.signing.signer import ModelSigner, PublishedModelSigner
from modelhaul.transfer.policy import TransferPolicy
from modelhaul.transfer.settings import StreamSettings
from tests.archives.zipping import zip_files
from tests.console import connect_console
from tests.contract.backends import REGION, open_aws
from tests.contract.counted_aws import CountedQueue
from tests.contract.dynamodb import open_database
from tests.contract.faulty_aws import FaultyAws, stand_before_moto
from tests.fakes.deployment import Deployment
from tests.fakes.missing_models import InMemoryPublicHub
from tests.fakes.model_source import InMemoryModelSource
from tests.fakes.policy_store import InMemoryPolicyStore
from tests.follows import Following
from tests.hub_events import build_event
from tests.lambda_functions import Context, Response, call_api, load_handler, read_event
from tests.template import rules
from tests.template.transformed import Template, apply_parameters, read_template, transform_template
from tests.weights import wrap_weights

pytestmark = pytest.mark.timeout(300)

type Use = tuple[str, str, str, str]
"""Function, action, resource of the template, prefix of a bucket or index of a table."""

SERVICES = ("s3:", "dynamodb:", "sqs:", "secretsmanager:", "events:", "lambda:", "kms:")
BUCKETS = {"models-bucket": "ModelsBucket", "incoming-bucket": "IncomingBucket"}
QUEUES = {
    AcceptArchive: "ArchiveQueue",
    PlanImport: "PlanQueue",
    TransferFiles: "TransferQueue",
    JoinTransfer: "TransferQueue",
    CopyFiles: "PublishQueue",
    PublishModels: "PublishQueue",
}
WORKERS = {
    AcceptArchive: "AcceptArchiveFunction",
    PlanImport: "PlanImportFunction",
    TransferFiles: "TransferFilesFunction",
    JoinTransfer: "TransferFilesFunction",
    CopyFiles: "PublishModelsFunction",
    PublishModels: "PublishModelsFunction",
}
PUBLISHER = WORKERS[PublishModels]
TRANSACTION = {"Put": "PutItem", "Update": "UpdateItem", "Delete": "DeleteItem", "ConditionCheck": "ConditionCheckItem"}
NOT_SHOWN = {
    "sqs:ReceiveMessage": "Lambda's poller takes messages with the function's role",
    "sqs:DeleteMessage": "as above",
    "sqs:GetQueueAttributes": "as above",
    "dynamodb:DescribeStream": "Lambda's poller reads the stream with the function's role",
    "dynamodb:GetRecords": "as above",
    "dynamodb:GetShardIterator": "as above",
    "dynamodb:ListStreams": "as above",
    "secretsmanager:GetSecretValue": "granted to those with a token only; see tests.contract.test_secret_store",
}
NOT_SHOWN_AT = {
    "IdempotencyTable": "Powertools' store asks for it, for a key in a header: tests.integration.test_idempotency",
    "UnpublishedEndsQueue": "Lambda itself sends there what the function could not announce",
}
PART = 5 * 1024 * 1024


@dataclass
class Auditor(FaultyAws):
    """Puts every request down to `acting`; what nobody of ours does is not looked at."""

    acting: str = ""
    uses: set[Use] = field(default_factory=set)
    updated: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    """Attributes that updates name, by function and table."""

    def process(self, request: AWSPreparedRequest, do: Callable[[], Any]) -> Any:
        if invoked := re.search(r"/functions/([^/]+)/invocations$", str(request.url)):
            return self._invoke(invoked[1], json.loads(cast("bytes", request.body)))
        answer = super().process(request, do)
        if self.acting:
            asked = (
                list_s3_uses(request, answer[0]) if "X-Amz-Target" not in request.headers else list_json_uses(request)
            )
            self.uses |= {(self.acting, *use) for use in asked}
            for table, attributes in list_updates(request):
                self.updated.setdefault((self.acting, table), set()).update(attributes)
        return answer

    def _invoke(self, function: str, event: dict[str, Any]) -> tuple[int, dict[str, str], str]:
        """Runs the function's handler, for which moto would need Docker."""
        name = f"{function.title().replace('_', '')}Function"
        self.uses.add((self.acting, "lambda:InvokeFunction", name, ""))
        with self.act(name):
            return HTTPStatus.OK, {}, json.dumps(load_handler(function)(event, Context()))

    @contextmanager
    def act(self, function: str) -> Iterator[None]:
        before, self.acting = self.acting, function
        try:
            yield
        finally:
            self.acting = before


def list_json_uses(request: AWSPreparedRequest) -> Iterator[tuple[str, str, str]]:
    operation = _decode(request.headers["X-Amz-Target"]).rpartition(".")[2]
    body = json.loads(cast("bytes", request.body))
    if "QueueUrl" in body:
        yield f"sqs:{operation.removesuffix('Batch')}", body["QueueUrl"].rpartition("/")[2], ""
    elif "KeyId" in body:
        yield f"kms:{operation}", "SigningKey", ""
    elif operation == "PutEvents":
        assert {entry["EventBusName"] for entry in body["Entries"]} == {"default"}
        yield "events:PutEvents", rules.DEFAULT_BUS, ""
    elif operation == "TransactWriteItems":
        for kind, item in (pair for entry in body["TransactItems"] for pair in entry.items()):
            yield f"dynamodb:{TRANSACTION[kind]}", name_table(item["TableName"]), ""
    else:
        index = f"index/{body['IndexName']}" if "IndexName" in body else ""
        for table in body.get("RequestItems", [body.get("TableName")]):
            yield f"dynamodb:{operation}", name_table(table), index


def list_updates(request: AWSPreparedRequest) -> Iterator[tuple[str, set[str]]]:
    operation = _decode(request.headers.get("X-Amz-Target", "")).rpartition(".")[2]
    updates: list[dict[str, Any]] = []
    if operation == "UpdateItem":
        updates = [json.loads(cast("bytes", request.body))]
    elif operation == "TransactWriteItems":
        entries = json.loads(cast("bytes", request.body))["TransactItems"]
        updates = [entry["Update"] for entry in entries if "Update" in entry]
    for update in updates:
        yield name_table(update["TableName"]), {*update["Key"], *update["ExpressionAttributeNames"].values()}


def name_table(physical: str) -> str:
    """`tasks-0123` is what a test has for TasksTable."""
    return "RateLimitsTable" if physical == "RateLimitsTable" else f"{physical.partition('-')[0].title()}Table"


def list_s3_uses(request: AWSPreparedRequest, status: int) -> Iterator[tuple[str, str, str]]:
    url = urlsplit(str(request.url))
    query = parse_qs(url.query, keep_blank_values=True)
    bucket, key = BUCKETS[url.netloc.partition(".")[0]], unquote(url.path.lstrip("/"))
    place = f"{key.partition('/')[0]}/*" if key else ""
    match request.method:
        case "GET" if not key:
            yield "s3:ListBucketMultipartUploads" if "uploads" in query else "s3:ListBucket", bucket, ""
        case "GET" | "HEAD":
            yield "s3:GetObject", bucket, place
            if status == HTTPStatus.NOT_FOUND:
                # Without it S3 would have answered 403.
                yield "s3:ListBucket", bucket, ""
        case "POST" if "delete" in query:
            for found in ET.fromstring(cast("bytes", request.body)).findall(".//{*}Key"):
                yield "s3:DeleteObject", bucket, f"{(found.text or '').partition('/')[0]}/*"
        case "DELETE":
            yield "s3:AbortMultipartUpload" if "uploadId" in query else "s3:DeleteObject", bucket, place
        case _:
            yield "s3:PutObject", bucket, place
            if (copied := request.headers.get("x-amz-copy-source")) is not None:
                source = unquote(_decode(copied)).lstrip("/")
                source_bucket, _, source_key = source.partition("/")
                yield "s3:GetObject", BUCKETS[source_bucket], f"{source_key.partition('/')[0]}/*"
                if status == HTTPStatus.NOT_FOUND:
                    yield "s3:ListBucket", BUCKETS[source_bucket], ""


def _decode(header: object) -> str:
    return header.decode() if isinstance(header, bytes) else str(header)


class AuditedDeployment(Deployment):
    """Over moto, with each step put down to its function."""

    is_late = False
    """The function that runs is out of time."""

    def open(self, patches: ExitStack) -> None:
        self.auditor = Auditor()
        patches.enter_context(open_aws("moto"))
        patches.enter_context(stand_before_moto(self.auditor))
        self.s3 = create_s3_client(REGION)
        for bucket in BUCKETS:
            self.s3.create_bucket(Bucket=bucket)
        self.database = cast("Any", patches.enter_context(open_database(self.clock)))
        # Copies in parts, and uploads in parts, of what a test can hold.
        self.store = cast("Any", S3ObjectStore(self.s3, "models-bucket", single_copy_limit=PART, copy_part_size=PART))
        self.archives = cast(
            "Any",
            S3ArchiveStore(self.s3, "incoming-bucket", clock=self.clock, parts_above=10 * PART, min_part_size=PART),
        )
        sqs = create_sqs_client(REGION)
        urls = {kind: sqs.create_queue(QueueName=name)["QueueUrl"] for kind, name in QUEUES.items()}
        queue = CountedQueue(SQSMessageQueue(sqs, cast("Any", urls)), self.queue)
        # Large files of a few megabytes have several segments.
        patch = patches.enter_context(pytest.MonkeyPatch.context())
        # Each check of the quota measures the models, as near the quota.
        patch.setattr(quota, "_MAX_AGE", 0)
        patch.setattr(moto.s3.models, "S3_UPLOAD_PART_MIN_SIZE", 1)
        patch.setattr(s3_uploads, "_MIN_PART_SIZE", 1)
        stream = StreamSettings(part_size=lambda _: PART // 5, buffers=3, reconnect_delay=0, poll=0.001, patience=0.01)
        self.kms = create_kms_client(REGION)
        self.signing_key = self.create_key()
        self.connect(self.database, self.store, queue, stream)
        self.limits = DynamoDBRateLimitStore(open_connection(REGION), rate_limits_table="RateLimitsTable")
        self.limits._limits.create_table(wait=True, billing_mode="PAY_PER_REQUEST")
        self.connect_hub(patch)
        connect_console(self, patch)

    def create_key(self) -> KmsSigningKey:
        created = self.kms.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")
        return KmsSigningKey(self.kms, created["KeyMetadata"]["Arn"])

    def connect_hub(self, patch: pytest.MonkeyPatch) -> None:
        """Gives the functions of the Hub read API these adapters."""
        # Creates and deletes keys at the time of the real clock.
        table = cast("Any", self.database.audit_reader)._entries.Meta.table_name
        audit = AuditWriter(open_connection(REGION), audit_table=table, retention_days=30)
        keys = DynamoDBReadKeyRepository(open_connection(REGION), keys_table="keys", audit=audit)
        keys._keys.create_table(wait=True, billing_mode="PAY_PER_REQUEST")
        missing = LambdaMissingModels(create_lambda_client(REGION), "import_missing")
        misses = MissHandler(MissPolicy.IMPORT, "https://hub.example", self.database.tasks, lambda: missing, self.clock)
        reader = HubReader(self.database.hub_models, self.database.models, self.store, misses, self.clock)
        importer = MissingModelImporter(
            self.submitter,
            self.database.models,
            InMemoryPublicHub(cast("InMemoryModelSource", self.source)),
            self.clock,
        )
        patch.setattr(wiring, "create_read_keys", lambda: keys)
        patch.setattr(wiring, "create_audit_reader", lambda: self.database.audit_reader)
        patch.setenv("AUDIT_TABLE", "audit")
        patch.setenv("AUDIT_RETENTION_DAYS", "30")
        patch.setattr(wiring, "create_metrics", lambda: self.metrics)
        patch.setattr(wiring, "create_hub_reader", lambda: reader)
        patch.setattr(wiring, "create_missing_importer", lambda: importer)
        patch.setenv("HUB_URL", "https://models.example/hf")

    def cancel_from_console(self, task_id: str) -> None:
        html = load_handler("cancel_from_console")({"task_id": task_id}, Context())
        assert "Import cancelled" in html

    def submit(self, name: str, revision: str = "main", *, source: Source = Source.HUGGINGFACE, **options: Any) -> Task:
        function = "SubmitGithubFunction" if source is Source.GITHUB else "SubmitHuggingfaceFunction"
        with self.auditor.act(function):
            return super().submit(name, revision, source=source, **options)

    def deliver(self, message: Message, *, deliveries: int = 1) -> None:
        with self.auditor.act(WORKERS[type(message)]):
            super().deliver(message, deliveries=deliveries)
        self.is_late = False

    def run_until(self, stage: Stage, task: Task) -> Task:
        """Delivers messages until the task is at the stage."""
        while (now := self.find_task(task.id)).stage is not stage:
            due = self.queue.next_due
            assert due is not None, now
            self.clock.now = max(self.clock.now, due)
            for message in self.receive():
                self.deliver(message)
        return now

    def send_archive(self, body: bytes) -> Task:
        """By the address that somebody asked for."""
        with self.auditor.act("SubmitLocalFunction"):
            task, _ = self.archive_submitter.open_upload("archive.zip", len(body), None)
            assert task.archive is not None
            self.archive_submitter.renew_upload(task.id, None)
            # Its signature is submit_local's.
            self.s3.put_object(Bucket="incoming-bucket", Key=task.archive.key, Body=body)
        self.submitted.append(task.id)
        self.arrive(task.archive.key, body)
        return task

    def drop_archive(self, body: bytes) -> Task:
        key = f"incoming/{len(self.submitted)}.zip"
        self.archives.put_archive(key, body)
        self.submitted.append(self.arrive(key, body))
        return self.find_task(self.submitted[-1])

    def forget_outcomes(self) -> None:
        """So that the next is the first, for which there is nothing to be read."""
        for entry in self.s3.list_objects_v2(Bucket="incoming-bucket", Prefix="outcomes/").get("Contents", []):
            self.s3.delete_object(Bucket="incoming-bucket", Key=entry["Key"])

    def arrive(self, key: str, body: bytes) -> str:
        found = self.archives.find_archive(key)
        assert found is not None
        with self.auditor.act("AcceptArchiveFunction"):
            task_id = self.arrivals.record_arrival(key, size=len(body), etag=found[1], event_id=key)
        assert task_id is not None
        self.queue.send([AcceptArchive(task_id=task_id)])
        return task_id

    def leave_entry(self, content: bytes, key: str) -> None:
        """As an earlier version of Modelhaul has recorded an object."""
        sha256 = hashlib.sha256(content).hexdigest()
        index: Any = self.database.content
        index._blobs(f"sha256:{sha256}", sha256=sha256, key=key, size=len(content), etag="etag").save()

    def leave_upload(self, bucket: str, key: str) -> None:
        """As a function that died has."""
        self.s3.create_multipart_upload(Bucket=bucket, Key=key)


WEIGHTS = wrap_weights(bytes(range(256)) * (6 * 4096))
OTHER_WEIGHTS = wrap_weights(bytes(range(255, -1, -1)) * (6 * 4096))
MODEL = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": WEIGHTS}
NAME = "org/model"


def build_archive(name: str, size: int = 6 * 1024 * 1024) -> bytes:
    """Of a model of this name, with weights of its own."""
    weights = wrap_weights(name.encode() * (size // len(name)))
    return zip_files({f"{name}/{path}": body for path, body in (MODEL | {"model.safetensors": weights}).items()})


def import_again(deployment: AuditedDeployment, source: InMemoryModelSource) -> None:
    """From the Hub, from GitHub, and what is stored already: the same content is copied, or missing there."""
    source.models = {
        NAME: {"main": MODEL},
        "org/other": {"main": MODEL | {"a": b"a"}},
        "org/third": {"main": MODEL | {"b": b"b"}},
    }
    for name, kind in ((NAME, Source.HUGGINGFACE), ("org/other", Source.GITHUB)):
        task = deployment.submit(name, source=kind)
        deployment.run()
        assert deployment.find_task(task.id).status is TaskStatus.DONE
        with pytest.raises(Exception, match="already"):
            deployment.submit(name, source=kind)
    for name in (NAME, "org/other"):
        deployment.store.delete([source.prefix(name) + path for path in source.models[name]["main"]])
    earlier = wrap_weights(b"earlier" * 100_000)
    deployment.leave_entry(earlier, "models/gone")
    source.models["org/third"]["main"]["other.safetensors"] = earlier
    task = deployment.submit("org/third")
    deployment.run()
    assert deployment.find_task(task.id).status is TaskStatus.DONE


def pause_and_resume(deployment: AuditedDeployment, source: InMemoryModelSource) -> None:
    """Out of time in each step, which another function goes on with; and a source that does not answer at first."""
    source.models = {NAME: {"next": MODEL | {"model.safetensors": OTHER_WEIGHTS, "c": b"c"}}}
    troubles = iter([SourceUnavailableError("down")])

    def fail_once() -> None:
        for trouble in troubles:
            raise trouble

    def be_late_once(_path: str, offset: int) -> None:
        if offset >= PART and not late:
            late.append(offset)
            deployment.is_late = True

    late: list[int] = []
    source.on_list, source.on_read = fail_once, be_late_once
    deployment.remaining = lambda: 0.0 if deployment.is_late or deployment.auditor.acting == PUBLISHER else 300.0
    task = deployment.submit(NAME, "next")
    deployment.run()
    deployment.remaining = lambda: 300.0
    assert deployment.find_task(task.id).status is TaskStatus.DONE
    assert late


def join_a_transfer(deployment: AuditedDeployment, source: InMemoryModelSource) -> None:
    """Another function joins while the first one reads the second part, and waits for its hash."""
    joined: list[Message] = []

    def join(_path: str, offset: int) -> None:
        if offset >= PART // 5 and not joined:
            joined.append(JoinTransfer(task_id=task.id, group=leads.group))
            deployment.deliver(joined[0])

    source.models = {NAME: {"joined": MODEL | {"model.safetensors": wrap_weights(b"joined" * 1024 * 1024)}}}
    task = deployment.run_until(Stage.TRANSFERRING, deployment.submit(NAME, "joined"))
    messages = deployment.receive()
    leads = next(message for message in messages if isinstance(message, TransferFiles))
    source.on_read = join
    for each in messages:
        deployment.deliver(each)
    source.on_read = lambda _path, _offset: None
    deployment.run()
    assert joined
    assert deployment.find_task(task.id).status is TaskStatus.DONE


def give_up(deployment: AuditedDeployment, source: InMemoryModelSource) -> None:
    """A transfer that fails with its upload begun, time and again."""
    source.models = {NAME: {"broken": MODEL | {"model.safetensors": OTHER_WEIGHTS[:-1]}}}
    source.served = lambda _path, content: bytes(len(content))
    task = deployment.submit(NAME, "broken")
    deployment.run()
    source.served = lambda _path, content: content
    assert deployment.find_task(task.id).status is TaskStatus.FAILED


def send_archives(deployment: AuditedDeployment, source: InMemoryModelSource) -> None:
    """Posted, by an address, dropped; and dropped again, which is refused. One posted that is no longer needed."""
    with deployment.auditor.act("SubmitLocalFunction"):
        deployment.post(build_archive("posted", 1000))
        with pytest.raises(Exception, match=r"already|being"):
            deployment.post(build_archive("posted", 1000))
    deployment.run()
    deployment.send_archive(build_archive("sent"))
    deployment.run()
    for _ in range(2):
        deployment.drop_archive(build_archive("dropped"))
        deployment.run()


def abort_sending(deployment: AuditedDeployment, source: InMemoryModelSource) -> None:
    """By the address for it."""
    with deployment.auditor.act("SubmitLocalFunction"):
        task, ticket = deployment.archive_submitter.open_upload("archive.zip", 60 * 1024 * 1024, None)
        assert task.archive is not None
        assert ticket.upload_id is not None
        deployment.s3.abort_multipart_upload(Bucket="incoming-bucket", Key=task.archive.key, UploadId=ticket.upload_id)


def end_tasks(deployment: AuditedDeployment, source: InMemoryModelSource) -> None:
    """By each function that can, with all that a dead one may have left: the code is the same, whatever the error."""

    def fail(task_id: str) -> None:
        deployment.finisher.fail(task_id, UnsafeModelError("It could run code."))

    def record_crash(task_id: str) -> None:
        deployment.runner.record_crash(PublishModels(task_id=task_id))

    def close(task_id: str) -> None:
        fail(task_id)
        deployment.finisher.finish_cleanup(deployment.find_task(task_id))

    ends: dict[str, tuple[Stage, Callable[[str], None]]] = {
        "AcceptArchiveFunction": (Stage.VERIFIED, fail),
        "PlanImportFunction": (Stage.VERIFIED, fail),
        "TransferFilesFunction": (Stage.VERIFIED, fail),
        "PublishModelsFunction": (Stage.PUBLISHING, fail),
        "CancelTaskFunction": (Stage.PUBLISHING, deployment.finisher.cancel),
        "CancelFromConsoleFunction": (Stage.PUBLISHING, deployment.cancel_from_console),
        "RecordFailureFunction": (Stage.PUBLISHING, record_crash),
        "SweepStaleFunction": (Stage.PUBLISHING, close),
    }
    for function, (stage, end) in ends.items():
        for send in (deployment.send_archive, deployment.drop_archive):
            task = send(build_archive(function))
            deployment.run_until(Stage.VERIFIED, task)
            deployment.receive()
            deployment.leave_upload("models-bucket", f"staging/{task.id}/x")
            deployment.leave_upload("incoming-bucket", f"uploads/{task.id}.zip")
            if stage is Stage.PUBLISHING:
                deployment.database.tasks.start_stage(task.id, stage, check_at=deployment.clock())
                (model,) = deployment.database.models.find_models(deployment.find_task(task.id).model_ids)
                deployment.leave_upload("models-bucket", f"{model.resolved.prefix}model.safetensors")
            deployment.forget_outcomes()
            with deployment.auditor.act(function):
                end(task.id)
            deployment.finisher.finish_cleanup(deployment.find_task(task.id))


def end_what_ended_meanwhile(deployment: AuditedDeployment, source: InMemoryModelSource) -> None:
    """Another function has found the model unsafe just before, and died."""
    error = UnsafeModelError("It could run code.")
    for function in ("CancelTaskFunction", "CancelFromConsoleFunction", "RecordFailureFunction"):
        task = deployment.send_archive(build_archive(f"ended-{function}"))
        deployment.run_until(Stage.VERIFIED, task)
        deployment.receive()
        told = TaskError(error.type, error.detail, retryable=False)
        deployment.database.imports.fail_import(task.id, told, check_at=deployment.clock())
        with deployment.auditor.act(function):
            deployment.finisher.fail(task.id, StepCrashedError("The function died."))
        assert not list_staged(deployment, task)


def list_staged(deployment: AuditedDeployment, task: Task) -> list[Any]:
    return deployment.s3.list_objects_v2(Bucket="models-bucket", Prefix=f"staging/{task.id}/").get("Contents", [])


def retry_archive(deployment: AuditedDeployment, source: InMemoryModelSource) -> None:
    def fail(_: Message) -> None:
        raise SourceUnavailableError("The archive could not be read.")

    task = deployment.send_archive(build_archive("retried"))
    (message,) = deployment.receive()
    with deployment.auditor.act("AcceptArchiveFunction"):
        deployment.runner.run(message, fail, deliveries=1)
    deployment.run()
    assert deployment.find_task(task.id).status is TaskStatus.DONE


def die_while_transferring(deployment: AuditedDeployment, source: InMemoryModelSource) -> None:
    """So often that the message becomes a dead letter."""
    task = deployment.run_until(Stage.TRANSFERRING, deployment.send_archive(build_archive("died")))
    with deployment.auditor.act("RecordFailureFunction"):
        deployment.runner.record_crash(TransferFiles(task_id=task.id, group=0))
    deployment.receive()
    assert deployment.find_task(task.id).status is TaskStatus.FAILED


def complete_what_s3_has_forgotten(deployment: AuditedDeployment, source: InMemoryModelSource) -> None:
    """As when the reply of a completed copy was lost (tests.integration.test_s3_faults)."""
    with deployment.auditor.act(PUBLISHER), pytest.raises(UploadGoneError):
        deployment.store.complete_upload("models/copied", "unknown", [Part(1, "0" * 32, 0)], size=1)


def inspect_after_the_transfer(deployment: AuditedDeployment, source: InMemoryModelSource) -> None:
    """The stack inspected nothing when the files were transferred, and was updated since."""
    transferrer = deployment.transferrer
    deployment.transferrer = replace(
        transferrer, create_checker=lambda: FileChecker(PicklePolicy.OFF, deployment.pickle_scanner)
    )
    task = deployment.run_until(Stage.VERIFIED, deployment.send_archive(build_archive("inspected")))
    deployment.transferrer = transferrer
    deployment.run()
    assert deployment.find_task(task.id).status is TaskStatus.DONE


def lose_what_is_staged(deployment: AuditedDeployment, source: InMemoryModelSource) -> None:
    task = deployment.run_until(Stage.VERIFIED, deployment.send_archive(build_archive("removed")))
    groups = deployment.database.files.list_groups(task.plan_id or "")
    deployment.store.delete([record.staging_key for group in groups for record in group.records])
    deployment.run()
    assert deployment.find_task(task.id).status is TaskStatus.FAILED


def record_lost_arrival(deployment: AuditedDeployment, source: InMemoryModelSource) -> None:
    """Of an archive whose event became a dead letter."""
    body = build_archive("lost")
    deployment.archives.put_archive("incoming/lost.zip", body)
    found = deployment.archives.find_archive("incoming/lost.zip")
    assert found is not None
    with deployment.auditor.act("RecordFailureFunction"):
        task_id = deployment.arrivals.record_arrival("incoming/lost.zip", size=len(body), etag=found[1], event_id="1")
        assert task_id is not None
        deployment.runner.record_crash(AcceptArchive(task_id=task_id))


def sweep_at_each_stage(deployment: AuditedDeployment, source: InMemoryModelSource) -> None:
    """A message lost at each stage, the arrival's included, is sent again."""
    task = deployment.send_archive(build_archive("swept"))
    for stage in (Stage.INSPECTING, Stage.PLANNING, Stage.TRANSFERRING, Stage.VERIFIED):
        deployment.run_until(stage, task)
        deployment.receive()
        deployment.clock.now += 86_400 / 4
        with deployment.auditor.act("SweepStaleFunction"):
            deployment.sweeper.sweep_stale(deployment.remaining)
    deployment.run()
    assert deployment.find_task(task.id).status is TaskStatus.DONE


def read_catalog(deployment: AuditedDeployment, source: InMemoryModelSource) -> None:
    with deployment.auditor.act("ReadCatalogFunction"):
        task = deployment.database.tasks.list_tasks(status=TaskStatus.DONE, limit=1).tasks[0]
        assert deployment.database.tasks.find_task(task.id) == task
        assert deployment.database.models.find_models(task.model_ids)
        listed = deployment.database.models.list_models(limit=100).models
        assert task.model_ids[0] in [model.model_id for model in listed]
        model = deployment.catalog.find_model(task.model_ids[0])
        assert deployment.catalog.read_manifest(model)
        with pytest.raises(ModelFileNotFoundError):
            deployment.catalog.sign_file(model.model_id, "absent")
        signed = deployment.catalog.sign_file(model.model_id, "config.json")
        assert requests.get(signed, timeout=10).content == MODEL["config.json"], "as it was signed to be read"
        assert deployment.usage.read_usage(30, lambda: True).quota is not None
        assert deployment.catalog.read_signature(model.model_id).text
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(read, "_MAX_INLINE_SIZE", 100)
            for document in (
                deployment.catalog.read_signature(model.model_id),
                deployment.catalog.read_bom(model.model_id),
            ):
                assert document.url is not None
                assert requests.get(document.url, timeout=10).json()


def sign_models(deployment: AuditedDeployment, source: InMemoryModelSource) -> None:
    """Two that another key has signed; one of them is deleted in the meantime, one has lost its manifest."""
    models, store = deployment.database.models, deployment.store
    signer = PublishedModelSigner(models, store, ModelSigner(deployment.create_key(), store, deployment.clock))
    first, second = models.list_models(limit=2).models
    with deployment.auditor.act("SignModelFunction"):
        assert signer.sign_model(first.model_id)[1]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(models, "record_signature", lambda *_, **__: False)
            with pytest.raises(ModelNotFoundError):
                signer.sign_model(second.model_id)
    deployment.store.delete([manifest_key(second.model_id)])
    with deployment.auditor.act("SignModelFunction"), pytest.raises(ModelNotFoundError):
        signer.sign_model(second.model_id)


def show_console(deployment: AuditedDeployment, source: InMemoryModelSource) -> None:
    render = load_handler("render_widget")
    with deployment.auditor.act("RenderWidgetFunction"):
        assert "Newest models" in render(read_event("render_widget"), Context())
        task = deployment.database.tasks.list_tasks(status=TaskStatus.DONE, limit=1).tasks[0]
        assert task.model_tag in render({"show": "task", "id": task.id}, Context())
        assert "models-bucket" in render({"show": "model", "id": task.model_ids[0]}, Context())


def serve_hub_clients(deployment: AuditedDeployment, source: InMemoryModelSource) -> None:
    """With a key of their own: an imported model, a missing one, and one that is being deleted."""

    def read(target: str, **headers: str) -> int:
        event = build_event("aws", "GET", target, headers=headers)
        event["requestContext"]["authorizer"] = policy["context"]
        with deployment.auditor.act("ReadHubFunction"):
            status: int = load_handler("read_hub")(event, Context())["statusCode"]
        return status

    with deployment.auditor.act("ManageKeysFunction"):
        key = call_api("manage_keys", read_event("create_key"), body={"name": "ci", "scopes": ["import"]}).body
    with deployment.auditor.act("AuthorizeHubFunction"):
        asked = {**read_event("authorize_hub"), "authorizationToken": f"Bearer {key['key']}"}
        policy = load_handler("authorize_hub")(asked, Context())
    assert read("api/models") == HTTPStatus.OK
    assert read("org/third/resolve/main/config.json") == HTTPStatus.TEMPORARY_REDIRECT
    assert read("org/third/resolve/main/config.json", Range="bytes=0-0") == HTTPStatus.PARTIAL_CONTENT
    source.models = {"org/missing": {"main": MODEL}}
    assert read("api/models/org/missing") == HTTPStatus.SERVICE_UNAVAILABLE
    with deployment.auditor.act("ImportMissingFunction"):
        # As another request of the same moment has it.
        again = load_handler("import_missing")({"name": "org/missing", "revision": "main", "names": ["*"]}, Context())
    assert again["task_id"]
    deployment.submitted.append(again["task_id"])
    deployment.run()
    with deployment.auditor.act("ImportMissingFunction"):
        load_handler("import_missing")({"name": "org/missing", "revision": "main", "names": ["*"]}, Context())
    (model,) = deployment.database.hub_models.find_entry("org/missing").models
    deployment.store.delete([manifest_key(model.model_id)])
    assert read("api/models/org/missing") == HTTPStatus.SERVICE_UNAVAILABLE
    with deployment.auditor.act("ManageKeysFunction"):
        assert call_api("manage_keys", read_event("list_keys")).body["keys"][0]["last_used_on"]
        event = {**read_event("delete_key"), "path": f"/keys/{key['key_id']}"}
        deleted = call_api("manage_keys", {**event, "pathParameters": {"key_id": key["key_id"]}})
    assert deleted.status == HTTPStatus.NO_CONTENT


def publish_ends(deployment: AuditedDeployment, source: InMemoryModelSource) -> None:
    bus = EventBridgeEventBus(create_events_client(REGION))
    with deployment.auditor.act("PublishEndsFunction"):
        EndPublisher(
            deployment.database.tasks, deployment.database.models, bus, "models-bucket", "modelhaul"
        ).publish_end(deployment.submitted[0])


def read_audit(deployment: AuditedDeployment, source: InMemoryModelSource) -> None:
    """By each of its indexes; and publish an entry."""
    with deployment.auditor.act("ReadAuditFunction"):
        for name, value in (
            ("limit", "100"),
            ("action", "ImportSubmitted"),
            ("actor", "api-key:k1l2m3n4o5"),
            ("model_id", "absent"),
            ("task_id", deployment.submitted[0]),
        ):
            event = read_event("list_entries")
            event["queryStringParameters"], event["multiValueQueryStringParameters"] = {name: value}, {name: [value]}
            answer = call_api("read_audit", event)
            assert answer.status == HTTPStatus.OK
    (entry,) = answer.body["entries"]
    bus = EventBridgeEventBus(create_events_client(REGION))
    with deployment.auditor.act("PublishAuditFunction"):
        EntryPublisher(deployment.database.audit_reader, bus, "modelhaul").publish_entry(entry["id"])


def retire_models(deployment: AuditedDeployment, source: InMemoryModelSource) -> None:
    """The older ones of two, one of which has lost its manifest; the newest is pinned and unpinned."""
    follows = DynamoDBFollowRepository(open_connection(REGION), follows_table="follows")
    follows._follows.create_table(wait=True, billing_mode="PAY_PER_REQUEST")
    name = "org/nightly"
    for branch in ("first", "second", "third"):
        source.models[name] = {**source.models.get(name, {}), "main": {**MODEL, "README.md": branch.encode()}}
        task = deployment.submit(name)
        deployment.run()
        deployment.clock.now += 1
        (model,) = deployment.database.models.find_models(deployment.find_task(task.id).model_ids)
        if branch == "first":
            deployment.store.delete([manifest_key(model.model_id)])
        if branch == "second":
            deployment.leave_entry(MODEL["config.json"], f"{model.resolved.prefix}config.json")
    with deployment.auditor.act("ManagePinsFunction"):
        deployment.pinner.pin_model(model.model_id, pinned_by=None, reason=None)
        deployment.pinner.unpin_model(model.model_id, unpinned_by=None)
    deployment.clock.now += 5 * 86_400
    moment = datetime.fromtimestamp(deployment.clock.now, UTC)
    follows.add_follow(create_follow(model.resolved, timedelta(days=1), moment, keep_newest=1))
    database = deployment.database
    planner = RetentionPlanner(database.models, database.hub_models, follows, None, deployment.clock)
    with deployment.auditor.act("ReadRetentionFunction"):
        assert len(planner.plan(deployment.remaining).deletions) == 2
    with deployment.auditor.act("ApplyRetentionFunction"):
        assert RetentionRunner(planner, deployment.deleter).apply_retention(deployment.remaining).models == 2


def deny_by_policy(deployment: AuditedDeployment, source: InMemoryModelSource) -> None:
    """At each step that applies the policy. Each document is kept for a minute."""
    store = InMemoryPolicyStore()

    def change(**when: object) -> None:
        store.write(*([{"effect": "deny", "when": when}] if when else []))
        deployment.clock.now += 61

    policy = ImportPolicy(PolicyReader(store, clock=deployment.clock), deployment.database.audit, deployment.clock)
    deployment.submitter = replace(deployment.submitter, policy=policy)
    deployment.archive_submitter = replace(deployment.archive_submitter, policy=policy)
    deployment.acceptor = replace(deployment.acceptor, policy=policy)
    deployment.planner = replace(deployment.planner, import_policy=policy)
    deployment.publisher = replace(deployment.publisher, import_policy=policy)
    source.models["org/denied"] = {"main": MODEL}
    for hub in (Source.HUGGINGFACE, Source.GITHUB):
        change(name=["org/denied"])
        with pytest.raises(PolicyDeniedError):
            deployment.submit("org/denied", source=hub)
    with deployment.auditor.act("ImportMissingFunction"), pytest.raises(PolicyDeniedError):
        deployment.submitter.submit(Source.HUGGINGFACE, "org/denied", "main", submitted_by="read-key:a")
    for when in ({"source": ["LOCAL"]}, {"size_above": 1}, {"license": ["unknown"]}):
        change()
        task = deployment.send_archive(build_archive(f"denied-{len(deployment.submitted)}"))
        change(**when)
        deployment.run()
        error = deployment.find_task(task.id).error
        assert error is not None
        assert error.type == "policy-denied"
    change(source=["LOCAL"])
    with deployment.auditor.act("SubmitLocalFunction"), pytest.raises(PolicyDeniedError):
        deployment.archive_submitter.open_upload("a.zip", 10, None)
    change()


def delete_models(deployment: AuditedDeployment, source: InMemoryModelSource) -> None:
    """And goes on with what a function that died has left of it; one has lost its manifest."""
    for function in ("DeleteModelFunction", "SweepStaleFunction"):
        for lost in (False, True):
            task = deployment.send_archive(build_archive(f"deleted-{function}-{lost}"))
            deployment.run()
            (model_id,) = deployment.find_task(task.id).model_ids
            (model,) = deployment.database.models.find_models([model_id])
            deployment.leave_entry(MODEL["config.json"], f"{model.resolved.prefix}config.json")
            if lost:
                deployment.store.delete([manifest_key(model_id)])
            if function == "SweepStaleFunction":
                now = deployment.clock()
                assert deployment.database.models.lease_deletion(model_id, owner="dead", now=now, until=now + 60)
                deployment.clock.now += 3600
            with deployment.auditor.act(function):
                if function == "SweepStaleFunction":
                    deployment.sweeper.sweep_stale(deployment.remaining)
                else:
                    assert deployment.deleter.delete_model(model_id, deployment.remaining)
            assert deployment.database.models.find_model(model_id) is None


def follow_revisions(deployment: AuditedDeployment, source: InMemoryModelSource) -> None:
    """Of a model that exists, and then of a branch that has moved. The source is rate limited once."""
    source.models = {"org/followed": {"main": MODEL}}
    deployment.submit("org/followed")
    deployment.run()
    writer = cast("Any", deployment.database.audit)._writer
    follows = DynamoDBFollowRepository(open_connection(REGION), follows_table="follows", audit=writer)
    follows._follows.create_table(wait=True, billing_mode="PAY_PER_REQUEST")
    checks = LambdaFollowChecks(create_checks_client(REGION), "check_follows")
    following = Following(deployment, repository=follows, limits=deployment.limits, checks=checks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wiring, "create_follow_checker", lambda: following.checker)
        patch.setattr(wiring, "create_follower", lambda: following.follower)
        patch.setattr(wiring, "create_follows", lambda: follows)
        patch.setattr(wiring, "create_models", lambda: deployment.database.models)

        def call(name: str, body: object = None, follow_id: str = "") -> Response:
            event = read_event(name)
            if follow_id:
                event |= {"pathParameters": {"follow_id": follow_id}, "path": f"/follows/{follow_id}"}
            with deployment.auditor.act("ManageFollowsFunction"):
                return call_api("manage_follows", event, body=body)

        created = call("create_follow", {"source": "HUGGINGFACE", "name": "org/followed", "every": "1h"})
        follow_id = created.body["follow_id"]
        assert call("list_follows").body["follows"][0]["last_import"]["status"] == "READY"
        source.models["org/followed"]["main"] = {**MODEL, "more.txt": b"more"}
        deployment.clock.now += 3600
        with deployment.auditor.act("SweepStaleFunction"):
            assert following.starter.start_due()
        assert call("show_follow", follow_id=follow_id).body["last_import"]["status"] == "IMPORTING"
        source.refusals["org/followed"] = RateLimitedError("Rate limit exceeded.", retry_after=60)
        assert call("change_follow", {"paused": False}, follow_id).body["status"] == "ACTIVE"
        assert call("show_follow", follow_id=follow_id).body["waits_for_rate_limit"]
        assert call("delete_follow", follow_id=follow_id).status == HTTPStatus.NO_CONTENT
    source.refusals.clear()
    deployment.run()


def keep_rate_limits(deployment: AuditedDeployment, source: InMemoryModelSource) -> None:
    """As the source does in each function that asks GitHub (tests.integration.test_github_source)."""
    for function in (
        "SubmitGithubFunction",
        "CheckPolicyFunction",
        "ManageFollowsFunction",
        "CheckFollowsFunction",
        "PlanImportFunction",
        "TransferFilesFunction",
    ):
        with deployment.auditor.act(function):
            deployment.limits.find_pause("api")
            deployment.limits.record_pause("api", 1.0)


@pytest.fixture(scope="module")
def auditor() -> Iterator[Auditor]:
    source = InMemoryModelSource()
    # So that a few megabytes are a large file, and other functions copy the second group.
    policy = TransferPolicy(small_file=1024 * 1024, copy_groups=1)
    deployment = AuditedDeployment(source, policy=policy, quota=10**12)
    with ExitStack() as patches:
        deployment.open(patches)
        for scenario in (
            import_again,
            pause_and_resume,
            join_a_transfer,
            give_up,
            send_archives,
            abort_sending,
            end_tasks,
            end_what_ended_meanwhile,
            retry_archive,
            die_while_transferring,
            complete_what_s3_has_forgotten,
            inspect_after_the_transfer,
            lose_what_is_staged,
            record_lost_arrival,
            sweep_at_each_stage,
            read_catalog,
            sign_models,
            show_console,
            serve_hub_clients,
            publish_ends,
            read_audit,
            retire_models,
            deny_by_policy,
            delete_models,
            follow_revisions,
            keep_rate_limits,
        ):
            scenario(deployment, source)
        yield deployment.auditor


@pytest.fixture(scope="module")
def template() -> Template:
    return apply_parameters(
        transform_template(read_template()),
        Signing="KMS",
        HubOnMiss="IMPORT",
        AuditRetentionDays="30",
        StorageQuotaGB="1000",
    )


@pytest.fixture(scope="module")
def granted(template: Template) -> set[Use]:
    return {
        (function, action, name, place)
        for function, properties in rules.list_resources(template, "AWS::Lambda::Function")
        for (name, place), actions in rules.map_grants(
            rules.list_statements(template, rules.find_target(properties["Role"]) or "")
        ).items()
        for action in actions
        if action.startswith(SERVICES)
    }


def test_what_a_function_asks_for_is_granted(auditor: Auditor, granted: set[Use]) -> None:
    assert auditor.uses - granted == set()


def test_what_is_granted_is_asked_for(auditor: Auditor, granted: set[Use]) -> None:
    unused = {use for use in granted - auditor.uses if use[1] not in NOT_SHOWN and use[2] not in NOT_SHOWN_AT}
    assert not unused, "\n".join(map(" ".join, sorted(unused)))


def test_updates_of_named_attributes_name_no_others(auditor: Auditor, template: Template) -> None:
    named = {
        (function, rules.find_target(statement["Resource"]) or ""): set(attributes)
        for function, properties in rules.list_resources(template, "AWS::Lambda::Function")
        for statement in rules.list_statements(template, rules.find_target(properties["Role"]) or "")
        if (
            attributes := statement.get("Condition", {}).get("ForAllValues:StringEquals", {}).get("dynamodb:Attributes")
        )
    }
    assert named.keys() == {
        ("AuthorizeHubFunction", "KeysTable"),
        ("ReadHubFunction", "ModelsTable"),
        ("ReadCatalogFunction", "ModelsTable"),
        ("ImportMissingFunction", "ModelsTable"),
        ("CheckFollowsFunction", "ModelsTable"),
        ("SubmitHuggingfaceFunction", "ModelsTable"),
        ("SubmitGithubFunction", "ModelsTable"),
        ("SignModelFunction", "ModelsTable"),
    }
    assert {place: auditor.updated[place] for place in named} == named
