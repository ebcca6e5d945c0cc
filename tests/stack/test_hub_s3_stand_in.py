"""The stand-in for S3 refuses what S3 refuses, and passes the rest on."""

import re
from collections.abc import Iterator

import pytest
import requests
from botocore.config import Config

from local.stack import CLIENT_CONFIG, open_session
from tests.hub_clients.s3_stand_in import S3StandIn
from tests.stack.conftest import Stack

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

KEY = "stand-in/a é#%25 b.bin"
CONTENT = bytes(range(256)) * 4096


class Signer:
    """Signs URLs for the stand-in as the Hub read API does."""

    def __init__(self, stack: Stack, stand_in: S3StandIn) -> None:
        config = CLIENT_CONFIG.merge(Config(signature_version="s3v4"))
        self._s3 = open_session().client("s3", endpoint_url=stand_in.endpoint, config=config)
        self._bucket = stack.state.models_bucket

    def sign(self, seconds: int = 60) -> str:
        parameters = {"Bucket": self._bucket, "Key": KEY}
        return self._s3.generate_presigned_url("get_object", Params=parameters, ExpiresIn=seconds)


@pytest.fixture(scope="module")
def signer(stack: Stack, s3_stand_in: S3StandIn) -> Iterator[Signer]:
    stack.s3.put_object(Bucket=stack.state.models_bucket, Key=KEY, Body=CONTENT)
    yield Signer(stack, s3_stand_in)
    stack.s3.delete_object(Bucket=stack.state.models_bucket, Key=KEY)


def test_signed_get_and_ranges_are_served(signer: Signer, s3_stand_in: S3StandIn) -> None:
    s3_stand_in.clear_requests()
    url = signer.sign()
    assert requests.get(url, timeout=30).content == CONTENT
    part = requests.get(url, headers={"Range": "bytes=1000-1999"}, timeout=30)
    assert (part.status_code, part.content) == (206, CONTENT[1000:2000])
    assert part.headers["Content-Range"] == f"bytes 1000-1999/{len(CONTENT)}"
    seen = [(r.method, r.key, r.range, r.status, r.bytes_sent) for r in s3_stand_in.requests]
    assert seen == [("GET", KEY, None, 200, len(CONTENT)), ("GET", KEY, "bytes=1000-1999", 206, 1000)]


def test_two_signatures_are_refused(signer: Signer) -> None:
    response = requests.get(signer.sign(), headers={"Authorization": "Bearer hf_key"}, timeout=30)
    assert response.status_code == 400
    assert "<Code>InvalidArgument</Code>" in response.text
    assert "Only one auth mechanism allowed" in response.text


@pytest.mark.parametrize("method", ["HEAD", "PUT", "POST", "DELETE"])
def test_a_method_that_was_not_signed_is_refused(signer: Signer, method: str) -> None:
    assert requests.request(method, signer.sign(), timeout=30).status_code == 403


def test_altered_and_expired_urls_are_refused(stack: Stack, signer: Signer, s3_stand_in: S3StandIn) -> None:
    url = signer.sign()
    for altered in (
        url.replace(s3_stand_in.endpoint, stack.state.aws_endpoint_url),
        url.replace("X-Amz-Expires=60", "X-Amz-Expires=61"),
        f"{url}&response-content-type=text%2Fhtml",
    ):
        response = requests.get(altered, timeout=30)
        assert (response.status_code, read_code(response)) == (403, "SignatureDoesNotMatch")
    expiring = signer.sign(1)
    stack.wait_until(lambda: requests.get(expiring, timeout=30).status_code == 403)
    assert read_code(requests.get(expiring, timeout=30)) == "AccessDenied"


def test_a_stalled_response_continues(signer: Signer, s3_stand_in: S3StandIn) -> None:
    with s3_stand_in.stall("b.bin", 100_000) as stall:
        response = requests.get(signer.sign(), stream=True, timeout=30)
        stall.wait_until_reached()
        assert response.raw.read(100_000) == CONTENT[:100_000]
        stall.release.set()
        assert response.raw.read() == CONTENT[100_000:]


def read_code(response: requests.Response) -> str:
    found = re.search("<Code>(.*)</Code>", response.text)
    assert found, response.text
    return found[1]
