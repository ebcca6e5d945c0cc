"""The random histories of `tests.unit.test_promises`, fewer and shorter, over the real adapters on moto."""

import json
from typing import Any, cast

import moto.s3.models
import pytest
from hypothesis import HealthCheck, settings

from modelhaul.adapters import s3_uploads
from modelhaul.adapters.archives import S3ArchiveStore
from modelhaul.adapters.s3 import S3ObjectStore
from modelhaul.adapters.s3_client import create_s3_client
from modelhaul.adapters.sqs import SQSMessageQueue, create_sqs_client
from modelhaul.domain.messages import AcceptArchive, CopyFiles, JoinTransfer, PlanImport, PublishModels, TransferFiles
from modelhaul.ports.message_queue import MessageQueue
from tests.contract.backends import REGION, open_aws
from tests.contract.counted_aws import CountedQueue
from tests.contract.dynamodb import open_database
from tests.contract.faulty_aws import FaultyAws, stand_before_moto
from tests.unit.test_promises import Promises

pytestmark = pytest.mark.timeout(300)

MODELS, INCOMING = "models-bucket", "incoming-bucket"


class InspectedObjectStore(S3ObjectStore):
    @property
    def keys(self) -> list[str]:
        return list_keys(self._client, MODELS)


class InspectedArchiveStore(S3ArchiveStore):
    @property
    def keys(self) -> list[str]:
        return [key for key in list_keys(self._client, INCOMING) if not key.startswith("outcomes/")]

    @property
    def outcomes(self) -> dict[str, Any]:
        keys = [key for key in list_keys(self._client, INCOMING) if key.startswith("outcomes/")]
        return {key: json.load(self._client.get_object(Bucket=INCOMING, Key=key)["Body"]) for key in keys}

    @property
    def uploads(self) -> list[str]:
        return [u["Key"] for u in self._client.list_multipart_uploads(Bucket=INCOMING).get("Uploads", [])]


def list_keys(client: Any, bucket: str) -> list[str]:
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


class PromisesOnAws(Promises):
    def open_adapters(self) -> MessageQueue:
        self.patches.enter_context(open_aws("moto"))
        self.patches.enter_context(stand_before_moto(FaultyAws()))
        patch = self.patches.enter_context(pytest.MonkeyPatch.context())
        # Everything is a thousandth of its size here.
        patch.setattr(s3_uploads, "_MIN_PART_SIZE", 1)
        patch.setattr(moto.s3.models, "S3_UPLOAD_PART_MIN_SIZE", 1)
        client = create_s3_client(REGION)
        for bucket in (MODELS, INCOMING):
            client.create_bucket(Bucket=bucket)
        clock = self.deployment.clock
        self.deployment.database = cast("Any", self.patches.enter_context(open_database(clock)))
        self.deployment.store = cast("Any", InspectedObjectStore(client, MODELS))
        self.deployment.archives = cast("Any", InspectedArchiveStore(client, INCOMING, clock=clock))
        sqs = create_sqs_client(REGION)
        url = sqs.create_queue(QueueName="work")["QueueUrl"]
        kinds = (AcceptArchive, PlanImport, TransferFiles, JoinTransfer, CopyFiles, PublishModels)
        return CountedQueue(SQSMessageQueue(sqs, dict.fromkeys(kinds, url)), self.deployment.queue)


TestPromisesOnAws = PromisesOnAws.TestCase
TestPromisesOnAws.settings = settings(
    max_examples=6,
    stateful_step_count=25,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
