"""MessageQueue on Amazon SQS."""

import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from botocore.config import Config

from modelhaul.adapters.aws import CALL_ERRORS, create_client, is_temporary, read_error_code
from modelhaul.domain.errors import StorageUnavailableError
from modelhaul.domain.messages import (
    AcceptArchive,
    CopyFiles,
    JoinTransfer,
    Message,
    PlanImport,
    PublishModels,
    TransferFiles,
)

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import BatchResultErrorEntryTypeDef, SendMessageBatchRequestEntryTypeDef

# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
_MAX_BATCH_ENTRIES = 10
_MAX_BATCH_BYTES = 1024 * 1024
_MAX_DELAY = 900

_MAX_ATTEMPTS = 4
_FIRST_DELAY = 0.1  # seconds; doubled for each retry

_QUEUE_URL_VARIABLES: dict[type[Message], str] = {
    AcceptArchive: "ARCHIVE_QUEUE_URL",
    PlanImport: "PLAN_QUEUE_URL",
    TransferFiles: "TRANSFER_QUEUE_URL",
    JoinTransfer: "TRANSFER_QUEUE_URL",
    CopyFiles: "PUBLISH_QUEUE_URL",
    PublishModels: "PUBLISH_QUEUE_URL",
}


def create_sqs_client(region: str) -> "SQSClient":
    client: SQSClient = create_client(
        "sqs",
        region,
        Config(retries={"mode": "standard", "total_max_attempts": 4}, connect_timeout=3, read_timeout=10),
    )
    return client


class SQSMessageQueue:
    """Sends each message as JSON to the queue that `queue_urls` has for its type."""

    def __init__(
        self,
        client: "SQSClient",
        queue_urls: Mapping[type[Message], str],
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._queue_urls = queue_urls
        self._sleep = sleep

    def send(self, messages: Iterable[Message], *, delay: float = 0) -> None:
        seconds = min(_MAX_DELAY, max(0, math.ceil(delay)))
        bodies: dict[str, list[str]] = {}
        for message in messages:
            bodies.setdefault(self._find_url(message), []).append(message.model_dump_json())
        for url, texts in bodies.items():
            for batch in _split_batches(texts):
                self._send_batch(url, batch, seconds)

    def _find_url(self, message: Message) -> str:
        try:
            return self._queue_urls[type(message)]
        except KeyError:
            name = _QUEUE_URL_VARIABLES[type(message)]
            raise ValueError(f"No queue for {type(message).__name__}: {name} is not set.") from None

    def _send_batch(self, url: str, batch: list[str], delay: int) -> None:
        entries: list[SendMessageBatchRequestEntryTypeDef] = [
            {"Id": str(number), "MessageBody": body, "DelaySeconds": delay} for number, body in enumerate(batch)
        ]
        for attempt in range(_MAX_ATTEMPTS):
            if attempt:
                self._sleep(_FIRST_DELAY * 2**attempt * random.uniform(0.5, 1))  # noqa: S311 - jitter
            failed = self._send_entries(url, entries)
            if not failed:
                return
            if any(failure["SenderFault"] for failure in failed.values()):
                break
            entries = [entry for entry in entries if entry["Id"] in failed]
        codes = ", ".join(sorted({failure["Code"] for failure in failed.values()}))
        raise StorageUnavailableError(
            f"SQS SendMessageBatch failed for {len(failed)} of {len(batch)} messages ({codes}).",
            is_outage=not any(failure["SenderFault"] for failure in failed.values()),
        )

    def _send_entries(
        self, url: str, entries: "list[SendMessageBatchRequestEntryTypeDef]"
    ) -> "dict[str, BatchResultErrorEntryTypeDef]":
        try:
            response = self._client.send_message_batch(QueueUrl=url, Entries=entries)
        except CALL_ERRORS as error:
            code = read_error_code(error)
            raise StorageUnavailableError(
                f"SQS SendMessageBatch failed ({code}).", is_outage=is_temporary(error)
            ) from error
        return {failure["Id"]: failure for failure in response.get("Failed", [])}


def _split_batches(bodies: list[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for body in bodies:
        length = len(body.encode())
        if batch and (len(batch) == _MAX_BATCH_ENTRIES or size + length > _MAX_BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(body)
        size += length
    if batch:
        yield batch
