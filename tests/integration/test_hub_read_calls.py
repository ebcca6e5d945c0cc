"""AWS requests of the Hub read API, counted."""

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime

import boto3
import pytest

from modelhaul import wiring
from modelhaul.adapters.dynamodb.connection import open_connection
from modelhaul.adapters.dynamodb.read_keys import DynamoDBReadKeyRepository
from modelhaul.adapters.s3 import S3ObjectStore
from modelhaul.adapters.s3_client import create_s3_client
from modelhaul.domain.hub_models import MissPolicy
from modelhaul.domain.read_keys import create_key
from modelhaul.hub.misses import MissHandler
from modelhaul.hub.reader import HubReader
from modelhaul.transfer.settings import StreamSettings
from tests.contract.backends import REGION, open_aws
from tests.contract.counted_aws import count_calls
from tests.contract.dynamodb import open_database
from tests.fakes.deployment import Deployment, RecordingMetrics
from tests.fakes.model_source import InMemoryModelSource
from tests.hub_events import HubClient
from tests.lambda_functions import Context, load_handler, read_event
from tests.weights import wrap_weights

NAME = "org/tiny"
BUCKET = "models"
FILES = {"config.json": b"{}", "model.safetensors": wrap_weights(b"weights" * 1000), "onnx/model.json": b"[]"}


@pytest.fixture(scope="module")
def deployment() -> Iterator[Deployment]:
    """A deployment with AWS adapters, which has imported a model."""
    deployment = Deployment(InMemoryModelSource({NAME: {"main": FILES}}))
    with open_aws("moto"), open_database(deployment.clock) as database:
        boto3.client("s3", region_name=REGION).create_bucket(Bucket=BUCKET)
        store = S3ObjectStore(create_s3_client(REGION), BUCKET)
        deployment.connect(database, store, deployment.queue, StreamSettings())
        deployment.submit(NAME)
        deployment.run()
        yield deployment


@pytest.fixture(autouse=True)
def ignore_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wiring, "create_metrics", RecordingMetrics)


@pytest.fixture
def client(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> HubClient:
    """A client of a new process of read_hub."""
    database, clock = deployment.database_in_use, deployment.clock
    misses = MissHandler(MissPolicy.NOT_FOUND, "https://huggingface.co", database.tasks, pytest.fail, clock)
    store = S3ObjectStore(create_s3_client(REGION), BUCKET)
    reader = HubReader(database.hub_models, database.models, store, misses, clock)
    monkeypatch.setattr(wiring, "create_hub_reader", lambda: reader)
    return HubClient("aws")


def test_the_first_read_of_a_model_reads_its_manifest_and_records_the_day(client: HubClient) -> None:
    with count_calls() as usage:
        assert client.head(f"{NAME}/resolve/main/config.json").status == 200
    assert usage.calls == {"dynamodb Query": 1, "s3 GetObject": 1, "dynamodb UpdateItem": 1}


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("HEAD", f"{NAME}/resolve/main/model.safetensors", 200),
        ("GET", f"{NAME}/resolve/main/model.safetensors", 307),
        ("GET", f"{NAME}/raw/main/config.json", 307),
        ("HEAD", f"{NAME}/resolve/main/missing.json", 404),
        ("GET", f"api/models/{NAME}", 200),
        ("GET", f"api/models/{NAME}/tree/main?recursive=true&expand=true", 200),
        ("GET", f"api/models/{NAME}/refs", 200),
    ],
)
def test_other_reads_are_one_query(client: HubClient, method: str, target: str, status: int) -> None:
    assert client.head(f"{NAME}/resolve/main/config.json").status == 200
    with count_calls() as usage:
        for _ in range(3):
            assert client.call(method, target).status == status
    assert usage.calls == {"dynamodb Query": 3}
    assert usage.read_units == 3 * 0.5  # up to 4 KB, eventually consistent


def test_the_authorizer_reads_the_key_and_records_the_day_once(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = DynamoDBReadKeyRepository(open_connection(REGION), keys_table=f"keys-{uuid.uuid4().hex}")
    keys._keys.create_table(wait=True, billing_mode="PAY_PER_REQUEST")
    monkeypatch.setattr(wiring, "create_read_keys", lambda: keys)
    key, record = create_key("ci", (), None, datetime.now(UTC))
    keys.add_key(record)
    event = {**read_event("authorize_hub"), "authorizationToken": f"Bearer {key}"}
    with count_calls() as usage:
        for _ in range(3):
            returned = load_handler("authorize_hub")(event, Context())
            assert returned["policyDocument"]["Statement"][0]["Effect"] == "Allow"
    assert usage.calls == {"dynamodb GetItem": 3, "dynamodb UpdateItem": 1}
