"""Faults of the calls of an S3 client, before and after they reach moto."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, cast

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import ConnectionClosedError, EndpointConnectionError, ReadTimeoutError
from moto.core.botocore_stubber import MockRawResponse
from moto.core.models import botocore_stubber

from tests.contract.backends import open_aws

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

type Fault = Callable[[AWSPreparedRequest], AWSResponse | None]


class Faults:
    """Faults that meet the next calls of an operation, one each, before the rest reach moto."""

    def __init__(self, client: "S3Client") -> None:
        self._client = client
        self._lock = threading.Lock()
        self._handlers: list[tuple[str, Callable[..., Any]]] = []

    def add(self, operation: str, *faults: Fault) -> "list[Fault]":
        """Returns the list of those still to come."""
        waiting = list(faults)

        def meet(request: AWSPreparedRequest, **_: Any) -> AWSResponse | None:
            with self._lock:
                fault = waiting.pop(0) if waiting else None
            return None if fault is None else fault(request)

        event = f"before-send.s3.{operation}"
        self._client.meta.events.register_first(event, cast("Callable[..., None]", meet))
        self._handlers.append((event, meet))
        return waiting

    def remove(self) -> None:
        for event, handler in self._handlers:
            self._client.meta.events.unregister(event, handler)


def act(request: AWSPreparedRequest) -> AWSResponse:
    answer = botocore_stubber("before-send", request)
    assert answer is not None
    return answer


def lose_reply(request: AWSPreparedRequest) -> None:
    assert act(request).status_code < 300
    raise ConnectionClosedError(endpoint_url=request.url)


def time_out_after_the_act(request: AWSPreparedRequest) -> None:
    act(request)
    raise ReadTimeoutError(endpoint_url=request.url)


def break_off(request: AWSPreparedRequest) -> None:
    cast("IO[bytes]", request.body).read(16 * 1024)
    raise ConnectionClosedError(endpoint_url=request.url)


def refuse_connection(request: AWSPreparedRequest) -> None:
    raise EndpointConnectionError(endpoint_url=request.url)


def answer(request: AWSPreparedRequest, status: int, body: str, headers: dict[str, str] | None = None) -> AWSResponse:
    url = request.url
    # All handlers are called, moto's too: nothing answers at this address.
    request.url = "http://unknown.invalid/"
    return AWSResponse(url, status, HTTPHeaders.from_dict(headers or {}), MockRawResponse(body))


def create_error_response(status: int, code: str) -> Fault:
    body = f"<Error><Code>{code}</Code><Message>arn:aws:iam::1:role/secret</Message></Error>"

    return lambda request: answer(request, status, body)


def answer_error_after_the_act(status: int, code: str) -> Fault:
    def act_and_answer(request: AWSPreparedRequest) -> AWSResponse | None:
        act(request)
        return create_error_response(status, code)(request)

    return act_and_answer


SLOW_DOWN = create_error_response(503, "SlowDown")
# S3 may begin an answer with 200 before it knows the outcome:
# https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html
LATE_ERROR = create_error_response(200, "InternalError")
NO_SUCH_UPLOAD = create_error_response(404, "NoSuchUpload")

RECOVERABLE = {
    "lost reply": lose_reply,
    "timeout": time_out_after_the_act,
    "refused": refuse_connection,
    "500": create_error_response(500, "InternalError"),
    "500 after the act": answer_error_after_the_act(500, "InternalError"),
    "503": SLOW_DOWN,
    "throttled": create_error_response(429, "Throttling"),
}
recoverable = pytest.mark.parametrize("fault", RECOVERABLE.values(), ids=RECOVERABLE.keys())
recoverable_with_body = pytest.mark.parametrize(
    "fault", [*RECOVERABLE.values(), break_off], ids=[*RECOVERABLE.keys(), "break"]
)


@contextmanager
def open_moto_without_delays() -> Iterator[None]:
    """Clients that are created inside speak to moto, and retry without a delay."""
    with pytest.MonkeyPatch.context() as patch, open_aws("moto"):
        patch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda self, context: 0.0)
        yield
