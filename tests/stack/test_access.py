"""Who is let in on the deployed stack: nobody without a key of the plan, and by an address only to what it is for."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from local.stack import CLIENT_CONFIG, open_session
from modelhaul.adapters.archives import S3ArchiveStore
from tests.stack.conftest import Stack
from tests.stack.test_permissions import assume_role, open_clients
from tests.template.rules import list_routes
from tests.template.transformed import read_template, transform_template

# Its first test starts a stack.
pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

ROUTES = sorted(list_routes(transform_template(read_template())))
OPEN_ROUTES = {("GET", "/openapi.json"): 200, ("GET", "/docs"): 200, ("GET", "/docs/{asset}"): 404}
"""Routes that need no key, with the status of an unknown asset. The documentation of the API is no secret."""

BODY = b"x" * 100


@pytest.fixture(scope="module")
def gateway(stack: Stack) -> Any:
    return open_session().client("apigateway", endpoint_url=stack.state.aws_endpoint_url, config=CLIENT_CONFIG)


def ask(stack: Stack, key: str | None, method: str = "GET", path: str = "/upload/tasks/unknown") -> int:
    headers = {} if key is None else {"x-api-key": key}
    url = stack.state.api_url + re.sub(r"\{[^}]*\}", "unknown", path)
    return requests.request(method, url, headers=headers, timeout=30).status_code


@pytest.mark.parametrize(("method", "path"), [route for route in ROUTES if route not in OPEN_ROUTES])
def test_no_route_answers_without_the_key(stack: Stack, method: str, path: str) -> None:
    assert ask(stack, None, method, path) == 403
    assert ask(stack, "not-a-key", method, path) == 403
    assert ask(stack, stack.state.api_key[:-1], method, path) == 403


@pytest.mark.parametrize(("method", "path"), sorted(OPEN_ROUTES))
def test_what_the_api_is_may_be_read_by_anybody(stack: Stack, method: str, path: str) -> None:
    assert ask(stack, None, method, path) == OPEN_ROUTES[method, path]


def test_the_key_counts_in_its_header_only(stack: Stack) -> None:
    key = stack.state.api_key
    url = f"{stack.state.api_url}/upload/tasks/unknown"
    assert requests.get(url, params={"x-api-key": key, "apikey": key}, timeout=30).status_code == 403
    assert requests.get(url, headers={"Authorization": key}, timeout=30).status_code == 403
    assert ask(stack, key) == 404


def test_anothers_key_is_refused_until_it_is_in_the_plan_and_after_it_is_deleted(stack: Stack, gateway: Any) -> None:
    (plan,) = (p["id"] for p in gateway.get_usage_plans()["items"] if stack.state.stack_name in p["name"])
    other = gateway.create_api_key(name="another-teams", enabled=True)
    assert ask(stack, other["value"]) == 403
    gateway.create_usage_plan_key(usagePlanId=plan, keyId=other["id"], keyType="API_KEY")
    assert ask(stack, other["value"]) == 404, "let in, to what is not there"
    gateway.delete_api_key(apiKey=other["id"])
    assert ask(stack, other["value"]) == 403


def test_a_disabled_key_is_refused_although_it_is_in_the_plan(stack: Stack, gateway: Any) -> None:
    (plan,) = (p["id"] for p in gateway.get_usage_plans()["items"] if stack.state.stack_name in p["name"])
    key = gateway.create_api_key(name="disabled", enabled=False)
    gateway.create_usage_plan_key(usagePlanId=plan, keyId=key["id"], keyType="API_KEY")
    assert ask(stack, key["value"]) == 403
    gateway.delete_api_key(apiKey=key["id"])


@pytest.fixture(scope="module")
def url(stack: Stack) -> Iterator[str]:
    """A presigned address of the API's, for 100 bytes."""
    answer = stack.http.post(f"{stack.state.api_url}/upload/local", json={"file_name": "a.zip", "size": len(BODY)})
    assert answer.status_code == 201, answer.text
    yield answer.json()["upload"]["url"]
    task = answer.headers["Location"].removeprefix("/v1")
    assert stack.http.delete(stack.state.api_url + task, timeout=30).status_code == 204


ALTERED: dict[str, tuple[str, Callable[[str], str], bytes]] = {
    "one byte more": ("PUT", str, BODY + b"x"),
    "one byte less": ("PUT", str, BODY[:-1]),
    "no body": ("PUT", str, b""),
    "read": ("GET", str, b""),
    "asked about": ("HEAD", str, b""),
    "deleted": ("DELETE", str, b""),
    "posted": ("POST", str, BODY),
    "another key": ("PUT", lambda url: url.replace(".zip?", "0.zip?"), BODY),
    "the drop's prefix": ("PUT", lambda url: url.replace("/uploads/", "/incoming/"), BODY),
    "out of its prefix": ("PUT", lambda url: url.replace("/uploads/", "/uploads/../incoming/"), BODY),
    "another bucket": ("PUT", lambda url: re.sub(r"(//[^/]*/)[^/]*/", r"\1another-bucket/", url), BODY),
    "lives longer": ("PUT", lambda url: re.sub(r"X-Amz-Expires=\d+", "X-Amz-Expires=604800", url), BODY),
    "signed later": ("PUT", lambda url: re.sub(r"(X-Amz-Date=\d{8}T)\d{6}", r"\g<1>235959", url), BODY),
    "length not signed": ("PUT", lambda url: url.replace("content-length%3B", ""), BODY + b"x"),
    "signature altered": ("PUT", lambda url: url[:-1] + ("1" if url.endswith("0") else "0"), BODY),
    "signature left out": ("PUT", lambda url: re.sub(r"&X-Amz-Signature=\w+", "", url), BODY),
    "not signed": ("PUT", lambda url: url.partition("?")[0], BODY),
    "parameter added": ("PUT", lambda url: f"{url}&tagging", BODY),
}


@pytest.mark.parametrize("name", ALTERED)
def test_an_address_that_was_altered_is_refused(stack: Stack, url: str, name: str) -> None:
    method, alter, body = ALTERED[name]
    answer = requests.request(method, alter(url), data=body, timeout=30)
    assert answer.status_code in {400, 403}, answer.text
    found = stack.s3.list_objects_v2(Bucket=stack.state.incoming_bucket, Prefix="uploads/")
    assert url.partition("?")[0].rpartition("/")[2] not in [
        o["Key"].rpartition("/")[2] for o in found.get("Contents", [])
    ]


@pytest.fixture
def archives(stack: Stack) -> S3ArchiveStore:
    """As submit_local has it, with the role of that function."""
    function = stack.state.outputs["SubmitLocalFunction"]
    role = stack.functions.get_function_configuration(FunctionName=function)["Role"].rpartition("/")[2]
    clients = open_clients(stack.state.aws_endpoint_url, assume_role(stack.state, role))
    return S3ArchiveStore(clients["s3"], stack.state.incoming_bucket)


def put(url: str | None, body: bytes) -> int:
    assert url is not None
    return requests.put(url, data=body, timeout=30).status_code


def test_an_address_ends_in_time(stack: Stack, archives: S3ArchiveStore) -> None:
    url = archives.open_upload("uploads/expiring.bin", len(BODY), seconds=15).put_url
    assert put(url, BODY) == 200
    stack.wait_until(lambda: put(url, BODY) == 403)
    stack.s3.delete_object(Bucket=stack.state.incoming_bucket, Key="uploads/expiring.bin")


@pytest.mark.parametrize("key", ["incoming/a.bin", "outcomes/incoming/a.zip.json", "models/a.bin"])
def test_an_address_opens_no_more_than_its_signer_may_do(archives: S3ArchiveStore, key: str) -> None:
    assert put(archives.open_upload(key, len(BODY), seconds=60).put_url, BODY) == 403


def test_an_address_of_a_part_is_for_that_part_of_that_upload(stack: Stack, archives: S3ArchiveStore) -> None:
    key = "uploads/parts.bin"
    ticket = archives.open_upload(key, 5 * 1024**3 + 1, seconds=60)
    other = stack.s3.create_multipart_upload(Bucket=stack.state.incoming_bucket, Key=key)["UploadId"]
    first = ticket.parts[0].url
    assert put(first, BODY) == 403, "its length is signed as well"
    assert put(first.replace("partNumber=1", "partNumber=2"), BODY) == 403
    assert put(re.sub(r"uploadId=[^&]+", f"uploadId={other}", first), BODY) == 403
    assert requests.post(first, data=b"<CompleteMultipartUpload/>", timeout=30).status_code == 403
    assert ticket.abort_url is not None
    assert (
        requests.delete(re.sub(r"uploadId=[^&]+", f"uploadId={other}", ticket.abort_url), timeout=30).status_code == 403
    )
    assert requests.delete(ticket.abort_url, timeout=30).status_code == 204
    stack.s3.abort_multipart_upload(Bucket=stack.state.incoming_bucket, Key=key, UploadId=other)
