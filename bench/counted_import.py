"""An import through the real adapters on moto that counts every AWS request."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import boto3

from bench.measured_functions import BUCKET, FunctionDeployment, Invocation, open_functions
from modelhaul.adapters.archives import S3ArchiveStore
from modelhaul.adapters.metrics import PowertoolsMetrics
from modelhaul.adapters.s3 import S3ObjectStore
from modelhaul.adapters.s3_client import create_s3_client
from modelhaul.adapters.sqs import SQSMessageQueue, create_sqs_client
from modelhaul.domain.messages import AcceptArchive, CopyFiles, PlanImport, PublishModels, TransferFiles
from modelhaul.domain.models import Source
from modelhaul.domain.tasks import Task
from modelhaul.transfer.policy import TransferPolicy
from modelhaul.transfer.settings import StreamSettings
from tests.contract.backends import REGION, open_aws
from tests.contract.counted_aws import CountedQueue, Usage, count_calls
from tests.contract.dynamodb import open_database
from tests.fakes.archive_store import InMemoryArchiveStore
from tests.fakes.clock import ManualClock
from tests.fakes.deployment import RecordingMetrics
from tests.fakes.model_source import HubSource

# No additional requests that depend on the speed of the machine.
_POLICY = TransferPolicy()
_NO_TIMERS = {"heartbeat": 1e9, "batch": 1e9, "rate_window": 1e9}


@dataclass(slots=True)
class CountedImport:
    """`messages` are the queue messages by kind."""

    task: Task
    usage: Usage
    messages: Counter[str]
    invocations: list[Invocation]


@contextmanager
def open_deployment(
    source: HubSource,
    *,
    stream_settings: Callable[..., StreamSettings] = StreamSettings,
    policy: TransferPolicy = _POLICY,
    **store_options: int,
) -> Iterator[tuple[FunctionDeployment, CountedQueue]]:
    """Yield a deployment with the real adapters, and its queue. `store_options` are options of S3ObjectStore."""
    # A time without trailing zeros, which DynamoDB does not store, so that sizes are the same in every run.
    clock = ManualClock(1_764_028_799.123)
    with open_aws("moto"), open_database(clock, audit_days=0) as database:
        for bucket in (BUCKET, "incoming"):
            boto3.client("s3", region_name=REGION).create_bucket(Bucket=bucket)
        sqs = create_sqs_client(REGION)
        url = sqs.create_queue(QueueName="work")["QueueUrl"]
        kinds = (AcceptArchive, PlanImport, TransferFiles, CopyFiles, PublishModels)
        metrics = cast("RecordingMetrics", PowertoolsMetrics())
        deployment = FunctionDeployment(source, clock=clock, metrics=metrics, policy=policy)
        queue = CountedQueue(SQSMessageQueue(sqs, dict.fromkeys(kinds, url)), deployment.queue)
        client = create_s3_client(REGION)
        deployment.archives = cast("InMemoryArchiveStore", S3ArchiveStore(client, "incoming"))
        store = S3ObjectStore(client, BUCKET, **store_options)
        deployment.connect(database, store, queue, stream_settings(**_NO_TIMERS))
        with count_calls() as usage, open_functions(deployment, usage):
            yield deployment, queue


def count_import(source: HubSource, start: Callable[[FunctionDeployment], str], **options: Any) -> CountedImport:
    """Run one import through the complete pipeline. `start` submits it and returns the task ID. `options` are those of
    `open_deployment`.
    """
    with open_deployment(source, **options) as (deployment, queue):
        task_id = start(deployment)
        deployment.run()
        functions = deployment.functions
        usage = replace(functions.usage, calls=Counter(functions.usage.calls))
        ended = deployment.database_in_use.tasks.find_task(task_id)
        assert ended is not None
        return CountedImport(ended, usage, queue.sent, functions.invocations)


def submit(kind: Source, name: str) -> Callable[[FunctionDeployment], str]:
    return lambda deployment: deployment.functions.submit(kind, name)
