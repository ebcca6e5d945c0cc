"""Invocations of the functions that are not steps of an import, and a failed import."""

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

import pytest

from bench.counted_import import count_import, open_deployment, submit
from bench.measured_functions import BUCKET, FunctionDeployment, Invocation, Metric
from modelhaul import wiring
from modelhaul.adapters.dynamodb.connection import open_connection
from modelhaul.adapters.dynamodb.follows import DynamoDBFollowRepository
from modelhaul.adapters.dynamodb.read_keys import DynamoDBReadKeyRepository
from modelhaul.adapters.eventbridge import EventBridgeEventBus, create_events_client
from modelhaul.adapters.s3 import S3ObjectStore
from modelhaul.adapters.s3_client import create_s3_client
from modelhaul.domain.follows import DueFollow
from modelhaul.domain.hub_models import MissPolicy
from modelhaul.domain.models import Source
from modelhaul.domain.read_keys import create_key
from modelhaul.domain.tasks import TaskStatus
from modelhaul.hub.misses import MissHandler
from modelhaul.hub.reader import HubReader
from modelhaul.imports.follow import CheckStarter
from modelhaul.imports.notify import EndPublisher
from modelhaul.ports.follows import FollowChecks
from modelhaul.retention.apply import RetentionPlanner, RetentionRunner
from tests.archives.zipping import zip_files
from tests.contract.backends import REGION
from tests.fakes.model_source import InMemoryModelSource
from tests.hub_events import build_event
from tests.lambda_functions import read_event
from tests.weights import wrap_weights

_NAME = "org/model"
_FILES = {"config.json": b"{}", "tokenizer.json": b"{} ", "model.safetensors": wrap_weights(b"weights")}


class NoFollowChecks(FollowChecks):
    """No follow is due."""

    def start(self, first: DueFollow | None = None) -> None:
        pytest.fail("checks were started")


@dataclass(frozen=True, slots=True)
class FunctionCalls:
    """Invocations of warm functions. `head` and `get` are the two requests of a Hub client for a file. `retention` is a
    run without rules and follows.
    """

    read_task: Invocation
    publish_end: Invocation
    sweep: Invocation
    retention: Invocation
    ignore_object: Invocation
    authorize: Invocation
    head: Invocation
    get: Invocation


@cache
def measure_calls() -> FunctionCalls:
    """Import a small model, and invoke the functions that follow, read and sweep."""
    source = InMemoryModelSource({_NAME: {"main": _FILES}})
    with open_deployment(source) as (deployment, _), _connect_readers(deployment) as key:
        task_id = deployment.functions.submit(Source.HUGGINGFACE, _NAME)
        deployment.run()
        ended = read_event("publish_ends")
        for record in ended["Records"]:
            record["dynamodb"]["Keys"]["id"]["S"] = task_id
        reading = {
            **read_event("read_task"),
            "pathParameters": {"task_id": task_id},
            "path": f"/upload/tasks/{task_id}",
        }
        arrival = read_event("accept_archive")
        created = json.loads(arrival["Records"][0]["body"])
        created["detail"]["object"]["key"] = "incoming/model/weights-00001-of-00002.safetensors"
        arrival["Records"][0]["body"] = json.dumps(created)
        file = f"{_NAME}/resolve/main/model.safetensors"
        measure = deployment.functions.measure
        authorization = {**read_event("authorize_hub"), "authorizationToken": f"Bearer {key}"}
        return FunctionCalls(
            read_task=measure("read_catalog", reading),
            publish_end=measure("publish_ends", ended),
            sweep=measure("sweep_stale", read_event("sweep_stale")),
            retention=measure("apply_retention", read_event("apply_retention")),
            ignore_object=deployment.functions.invoke_once("accept_archive", arrival),
            authorize=measure("authorize_hub", authorization),
            head=measure("read_hub", build_event("aws", "HEAD", file)),
            get=measure("read_hub", build_event("aws", "GET", file)),
        )


@contextmanager
def _connect_readers(deployment: FunctionDeployment) -> Iterator[str]:
    """Connect the functions that read and publish, and yield a read key."""
    database, clock = deployment.database_in_use, deployment.clock
    keys = DynamoDBReadKeyRepository(open_connection(REGION), keys_table=f"keys-{uuid.uuid4().hex}")
    keys._keys.create_table(wait=True, billing_mode="PAY_PER_REQUEST")
    key, record = create_key("ci", (), None, datetime.now(UTC))
    keys.add_key(record)
    store = S3ObjectStore(create_s3_client(REGION), BUCKET)
    misses = MissHandler(MissPolicy.NOT_FOUND, "https://huggingface.co", database.tasks, pytest.fail, clock)
    reader = HubReader(database.hub_models, database.models, store, misses, clock)
    bus = EventBridgeEventBus(create_events_client(REGION))
    follows = DynamoDBFollowRepository(open_connection(REGION), follows_table=f"follows-{uuid.uuid4().hex}")
    follows._follows.create_table(wait=True, billing_mode="PAY_PER_REQUEST")
    planner = RetentionPlanner(database.models, database.hub_models, follows, None, clock)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wiring, "create_read_keys", lambda: keys)
        patch.setattr(wiring, "create_hub_reader", lambda: reader)
        patch.setattr(wiring, "create_check_starter", lambda: CheckStarter(follows, NoFollowChecks(), clock))
        patch.setattr(wiring, "create_retention_runner", lambda: RetentionRunner(planner, deployment.deleter))
        publisher = EndPublisher(database.tasks, database.models, bus, BUCKET, "modelhaul")
        patch.setattr(wiring, "create_end_publisher", lambda: publisher)
        yield key


@cache
def list_import_metrics(source: Source) -> frozenset[Metric]:
    """Return the custom metrics of a successful import, those of its submission included.

    An archive is copied into the incoming bucket.
    """
    start = _drop if source is Source.LOCAL else submit(source, _NAME)
    return _join_metrics(count_import(InMemoryModelSource({_NAME: {"main": _FILES}}), start).invocations)


def _drop(deployment: FunctionDeployment) -> str:
    return deployment.drop(zip_files({f"model/{path}": body for path, body in _FILES.items()}))


@cache
def list_failure_metrics(source: Source) -> frozenset[Metric]:
    """Return the custom metrics of an import of files that do not have their published digests."""
    hub = InMemoryModelSource({_NAME: {"main": _FILES}}, served=lambda _path, content: bytes(len(content)))
    counted = count_import(hub, submit(source, _NAME))
    if counted.task.status is not TaskStatus.FAILED:
        raise RuntimeError(f"the import ended {counted.task.status}")
    return _join_metrics(counted.invocations)


def _join_metrics(invocations: list[Invocation]) -> frozenset[Metric]:
    return frozenset(metric for invocation in invocations for metric in invocation.metrics)
