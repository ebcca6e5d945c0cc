"""moto's AWS with faults, injected where botocore sends its requests."""

import json
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from threading import RLock
from typing import IO, Any, cast
from urllib.parse import parse_qs, urlsplit

import pytest
from botocore.awsrequest import AWSPreparedRequest
from botocore.exceptions import ConnectionClosedError, ReadTimeoutError
from moto.core.botocore_stubber import BotocoreStubber

OUTAGE = 30  # requests


_S3_OPERATIONS = (
    ("GET", "uploads", "ListMultipartUploads"),
    ("GET", "list-type", "ListObjectsV2"),
    ("GET", "", "GetObject"),
    ("HEAD", "", "HeadObject"),
    ("DELETE", "uploadId", "AbortMultipartUpload"),
    ("DELETE", "", "DeleteObject"),
    ("POST", "delete", "DeleteObjects"),
    ("POST", "uploads", "CreateMultipartUpload"),
    ("POST", "uploadId", "CompleteMultipartUpload"),
    ("PUT", "partNumber", "UploadPart"),
    ("PUT", "", "PutObject"),
)
"""Method, what the query has, name; the first that fits."""


_S3_COPIES = {"UploadPart": "UploadPartCopy", "PutObject": "CopyObject"}


class CallFault(StrEnum):
    THROTTLE = "throttled once"
    SERVER_ERROR = "500 once"
    RESET = "connection reset"
    CUT = "upload interrupted"
    LOST_REPLY = "succeeded, response lost"
    OUTAGE = f"unavailable for {OUTAGE} requests"


@dataclass
class FaultyAws:
    """Counts requests to moto by operation, and injects `fault` into requests of `operations`: into the first try of
    each request, or from request number `at` on.
    """

    calls: Counter[str] = field(default_factory=Counter)
    operations: Collection[str] = ()
    at: int | None = None
    fault: CallFault | None = None
    struck: Counter[str] = field(default_factory=Counter)
    """Injected faults by operation."""
    is_watched: bool = True
    """False while what the import has come to is looked at."""
    _lock: RLock = field(default_factory=RLock)

    def aim(self, operations: Collection[str], fault: CallFault, *, at: int | None = None) -> None:
        self.operations, self.at, self.fault = operations, at, fault
        self.struck.clear()

    def process(self, request: AWSPreparedRequest, do: Callable[[], Any]) -> Any:
        operation = name_operation(request)
        # moto's transactions are not safe among threads.
        with self._lock:
            if not self.is_watched:
                return do()
            number = self.calls[operation]
            self.calls[operation] += 1
            if not self._is_target(request, operation, number):
                return do()
            self.struck[operation] += 1
            return self._harm(request, operation, do)

    def _is_target(self, request: AWSPreparedRequest, operation: str, number: int) -> bool:
        if self.fault is None or operation not in self.operations:
            return False
        if self.at is None:
            return "attempt=1" in _decode(request.headers["amz-sdk-request"]).split("; ")
        return number >= self.at and self.struck[operation] < (OUTAGE if self.fault is CallFault.OUTAGE else 1)

    def _harm(self, request: AWSPreparedRequest, operation: str, do: Callable[[], Any]) -> Any:
        match self.fault:
            case CallFault.THROTTLE:
                return _refuse(operation, 400 if operation.startswith("dynamodb") else 503, "Throttling")
            case CallFault.SERVER_ERROR | CallFault.OUTAGE:
                return _refuse(operation, 500, "InternalError")
            case CallFault.RESET:
                raise ConnectionClosedError(endpoint_url="https://aws")
            case CallFault.CUT:
                _send_half(request)
                raise ConnectionClosedError(endpoint_url="https://aws")
        do()
        raise ReadTimeoutError(endpoint_url="https://aws")


def name_operation(request: AWSPreparedRequest) -> str:
    """With the table or the bucket: `dynamodb PutItem (tasks)`, `s3 GetObject (models)`. SQS's by its name alone."""
    target = request.headers.get("X-Amz-Target")
    if target is not None:
        name = _decode(target)
        operation = name.rpartition(".")[2]
        if "SQS" in name:
            return f"sqs {operation}"
        if not name.startswith("DynamoDB"):
            return f"{name.partition('.')[0]} {operation}"
        return f"dynamodb {operation} ({', '.join(_list_tables(json.loads(cast('bytes', request.body))))})"
    url = urlsplit(str(request.url))
    operation = _name_s3_operation(request, parse_qs(url.query, keep_blank_values=True))
    return f"s3 {operation} ({url.netloc.partition('.')[0]})"


def _list_tables(body: dict[str, Any]) -> list[str]:
    """Without what makes a test's table unique: `tasks-0123` is `tasks`."""
    items = [action for item in body.get("TransactItems", []) for action in item.values()] or [body]
    names = body.get("RequestItems") or {item.get("TableName", "") for item in items}
    return sorted(name.partition("-")[0] for name in names)


def _name_s3_operation(request: AWSPreparedRequest, query: Mapping[str, object]) -> str:
    name = next(
        name for method, asked, name in _S3_OPERATIONS if method == request.method and (not asked or asked in query)
    )
    return _S3_COPIES[name] if "x-amz-copy-source" in request.headers else name


def _decode(header: object) -> str:
    return header.decode() if isinstance(header, bytes) else str(header)


def _send_half(request: AWSPreparedRequest) -> None:
    """Leaves the body, which is read while it is sent, in its middle: there a connection that breaks leaves it."""
    body = cast("IO[bytes]", request.body)
    size = body.seek(0, os.SEEK_END)
    body.seek(0)
    assert len(body.read(size // 2)) < size


def _refuse(operation: str, status: int, code: str) -> Any:
    if operation.startswith("s3"):
        code = "SlowDown" if code == "Throttling" else code
        return status, {}, f"<Error><Code>{code}</Code><Message>harmed</Message></Error>"
    kind = {"Throttling": "ThrottlingException", "InternalError": "InternalServerError"}[code]
    return status, {"Content-Type": "application/x-amz-json-1.0"}, f'{{"__type": "aws#{kind}", "message": "harmed"}}'


@contextmanager
def stand_before_moto(aws: FaultyAws) -> Iterator[None]:
    """All requests to moto go by `aws`, one at a time."""
    original = BotocoreStubber.process_request

    def process_request(stubber: BotocoreStubber, request: AWSPreparedRequest) -> Any:
        return aws.process(request, lambda: original(stubber, request))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BotocoreStubber, "process_request", process_request)
        yield
