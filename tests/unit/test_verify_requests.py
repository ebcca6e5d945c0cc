"""Each check of requests passes on the responses of a healthy stack, and fails when one response differs."""

import base64
import gzip
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import requests
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from deployment.verify.api import SignedRequest
from deployment.verify.checks import CHECKS
from deployment.verify.registry import Verification
from deployment.verify.results import Outcome
from deployment.verify.runner import run_check
from deployment.verify.target import HUB_MODEL, Target, parse_model
from modelhaul.entrypoints.docs_page import find_asset, render_page
from tests.fakes.canned_aws import CannedAws
from tests.http_servers import run_server

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
PROBLEM = "application/problem+json"
ORIGIN = "https://models.example.com"
KEY = "the-key"

type Response = tuple[int, dict[str, str], bytes]
type Route = Callable[["Received"], Response]


class Received:
    """A request as the server received it."""

    def __init__(self, method: str, target: str, headers: Message, body: bytes) -> None:
        self.method, self.target, self.headers, self.body = method, target, headers, body
        self.path = target.partition("?")[0]


class Server(ThreadingHTTPServer):
    """Responds to all requests with `route`."""

    def __init__(self, route: Route) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.route = route
        self.received: list[Received] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def _respond(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = Received(self.command, self.path, self.headers, body)
        self.server.received.append(request)
        status, headers, content = self.server.route(request)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = _respond  # noqa: N815 - names of http.server

    def log_message(self, *_: object) -> None:
        pass


def make_problem(status: int, name: str) -> Response:
    body = {"type": f"urn:modelhaul:problem:{name}", "title": "Title", "status": status, "detail": "Detail."}
    return status, {"Content-Type": PROBLEM, "Access-Control-Allow-Origin": ORIGIN}, json.dumps(body).encode()


def read_page(path: str) -> Response | None:
    """The page of the reference, or one of its assets."""
    if path == "docs":
        return 200, {"Content-Type": "text/html"}, render_page("")[0].encode()
    asset = find_asset(path.removeprefix("docs/"))
    return None if asset is None else (200, {"Content-Type": "text/plain"}, asset.encode())


def serve_api(request: Received) -> Response:
    """A healthy import API."""
    match request.method, request.path.removeprefix("/v1/"):
        case "OPTIONS", _:
            return 200, {"Access-Control-Allow-Origin": ORIGIN}, b""
        case "GET", "openapi.json":
            headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
            return 200, headers, gzip.compress(b'{"openapi": "3.1.0"}')
        case "GET", path if page := read_page(path):
            return page
        case "GET", "no-such-route":
            return make_problem(404, "no-such-route")
    if request.headers["x-api-key"] != KEY:
        return make_problem(403, "invalid-api-key")
    return respond_to_key(request)


REJECTED = [
    ("(GET|DELETE) models/[0-9a-f-]{36}", rb"", 404, "model-not-found"),
    ("GET upload/tasks", rb"", 422, "invalid-fields"),
    ("GET upload/tasks/.+", rb"", 404, "task-not-found"),
    ("POST upload/huggingface", rb"\{", 400, "invalid-json"),
    ("POST upload/huggingface", rb"x", 415, "unsupported-media-type"),
    ("POST upload/huggingface", rb".*unknown.*", 422, "invalid-fields"),
    ("POST upload/huggingface", rb".+", 422, "invalid-reference"),
    ("POST upload/github", rb".+", 400, "invalid-repository"),
    ("POST upload/local", rb"(?s:.{,100000})", 400, "archive-refused"),
    ("POST upload/local", rb"(?s:.+)", 413, "body-too-large"),
]


def respond_to_key(request: Received) -> Response:
    route = f"{request.method} {request.path.removeprefix('/v1/')}"
    status, name = next(
        (status, name)
        for routes, bodies, status, name in REJECTED
        if re.fullmatch(routes, route) and re.fullmatch(bodies, request.body)
    )
    return make_problem(status, name)


def serve_hub(request: Received) -> Response:
    """A Hub read API that knows no key."""
    status = 404 if request.method == "PUT" else 401
    return status, {"X-Error-Message": "message"}, b'{"error": "message"}'


class HealthyStack:
    """A stack behind `route`, which a test may replace."""

    def __init__(self, route: Route) -> None:
        self.server = Server(route)

    def open(self) -> Verification:
        aws = CannedAws()
        url = f"{self.server.url}/v1"
        outputs = {"ApiUrl": url, "HubUrl": f"{self.server.url}/hf", "ApiKeyId": "id"}
        stack = {
            "StackName": "two",
            "StackId": "arn:aws:cloudformation:us-east-1:123456789012:stack/two/1",
            "CreationTime": NOW,
            "StackStatus": "CREATE_COMPLETE",
            "Parameters": [{"ParameterKey": "CorsAllowOrigin", "ParameterValue": ORIGIN}],
            "Outputs": [{"OutputKey": name, "OutputValue": value} for name, value in outputs.items()],
        }
        aws.responses = {"cloudformation.DescribeStacks": {"Stacks": [stack]}, "apigateway.GetApiKey": {"value": KEY}}
        target = Target(aws.session, "two", parse_model(HUB_MODEL), None)
        return Verification(target, NOW, "0123abcd")


def run(name: str, route: Route) -> tuple[Outcome, str]:
    stack = HealthyStack(route)
    with run_server(stack.server):
        verification = stack.open()
        result = run_check(CHECKS[name], verification)
        verification.api.session.close()
    return result


def serve(request: Received) -> Response:
    return serve_hub(request) if request.path.startswith("/hf/") else serve_api(request)


NAMES = ["api-problems", "gateway-problems", "body-limits", "cors", "reference", "hub-errors"]


@pytest.mark.parametrize("name", NAMES)
def test_a_healthy_stack_passes(name: str) -> None:
    outcome, detail = run(name, serve)
    assert outcome is Outcome.PASS, detail


def change(method: str, path: str, alter: Callable[[Response], Response]) -> Route:
    """Respond as a healthy stack, but alter the responses to some requests, as a proxy would."""

    def route(request: Received) -> Response:
        response = serve(request)
        return alter(response) if request.method == method and re.search(path, request.path) else response

    return route


def set_headers(**headers: str) -> Callable[[Response], Response]:
    return lambda response: (
        response[0],
        {**response[1], **{name.replace("_", "-"): value for name, value in headers.items()}},
        response[2],
    )


def drop_header(name: str) -> Callable[[Response], Response]:
    return lambda response: (response[0], {k: v for k, v in response[1].items() if k != name}, response[2])


FAULTS: dict[str, tuple[str, Route, str]] = {
    "wrong media type": (
        "api-problems",
        change("GET", "upload/tasks/", set_headers(Content_Type="application/json")),
        "Content-Type is 'application/json', expected 'application/problem",
    ),
    "other problem": (
        "api-problems",
        change("POST", "upload/github", lambda _: make_problem(400, "invalid-fields")),
        "type is 'urn:modelhaul:problem:invalid-fields', expected 'urn:modelhaul:problem:invalid-repository'",
    ),
    "crash": (
        "api-problems",
        change("GET", "models/", lambda _: (502, {}, b'{"message": "Internal server error"}')),
        "502 .*Internal server error.*; expected 404",
    ),
    "no detail": (
        "api-problems",
        change("DELETE", "models/", lambda r: (r[0], r[1], r[2].replace(b"detail", b"other"))),
        "the problem has no detail",
    ),
    "error of API Gateway": (
        "gateway-problems",
        change(
            "GET", "upload/tasks$", lambda _: (403, {"Content-Type": "application/json"}, b'{"message":"Forbidden"}')
        ),
        "Content-Type is 'application/json'",
    ),
    "open without a key": (
        "gateway-problems",
        change("GET", "upload/tasks$", lambda _: (200, {}, b"{}")),
        "expected 403",
    ),
    "text of API Gateway": (
        "body-limits",
        change("POST", "upload/local", lambda _: (413, {"Content-Type": "text/plain"}, b"Request Too Long")),
        "Content-Type is 'text/plain'",
    ),
    "preflight needs a key": (
        "cors",
        change("OPTIONS", "", lambda _: make_problem(403, "invalid-api-key")),
        "403 .*; expected 200 or 204",
    ),
    "no origin": (
        "cors",
        change("OPTIONS", "", drop_header("Access-Control-Allow-Origin")),
        "is None, expected 'https",
    ),
    "any origin": (
        "cors",
        change("GET", "", set_headers(Access_Control_Allow_Origin="*")),
        r"of a 403 is '\*'",
    ),
    "not compressed": (
        "reference",
        change("GET", "openapi", lambda _: (200, {}, b'{"openapi": "3.1.0"}')),
        "Content-Encoding of openapi.json is None",
    ),
    "not HTML": (
        "reference",
        change("GET", "docs", set_headers(Content_Type="application/json")),
        "expected text/html",
    ),
    "asset cut": (
        "reference",
        change("GET", "docs/script", lambda r: (r[0], r[1], base64.b64encode(gzip.compress(b"{}")))),
        "sha256 of docs/script-[0-9a-f]{16} is",
    ),
    "asset missing": (
        "reference",
        change("GET", "docs/style", lambda _: make_problem(404, "no-such-route")),
        "404 .*; expected 200",
    ),
    "unknown key accepted": (
        "hub-errors",
        change("GET", "api/models", lambda _: (200, {}, b"{}")),
        "expected 401",
    ),
    "no message for HEAD": (
        "hub-errors",
        change("HEAD", "api/models", drop_header("X-Error-Message")),
        "expected the header X-Error-Message",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_difference_fails(fault: str) -> None:
    name, route, message = FAULTS[fault]
    outcome, detail = run(name, route)
    assert outcome is Outcome.FAIL
    assert re.search(message, detail), detail


def test_every_check_that_sends_only_requests_has_a_fault() -> None:
    assert {name for name, _, _ in FAULTS.values()} == set(NAMES)


def test_a_stack_that_does_not_respond_fails() -> None:
    stack = HealthyStack(serve)
    stack.server.server_close()
    outcome, detail = run_check(CHECKS["api-problems"], stack.open())
    assert outcome is Outcome.FAIL
    assert detail.startswith("ConnectionError in a request to http://127.0.0.1:")


@pytest.mark.parametrize(
    ("method", "path", "content"),
    [
        ("GET", "upload/tasks?source=LOCAL&limit=1", {}),
        ("GET", "models/1/files/a%2520b%2Bc", {}),
        ("POST", "upload/huggingface", {"json": {"model_tag": "a/b"}, "headers": {"Idempotency-Key": "1"}}),
        ("POST", "upload/local?model_name=x", {"files": {"file": ("a.zip", b"PK\0\xff", "application/zip")}}),
    ],
    ids=["query", "path", "json", "form"],
)
def test_the_server_accepts_the_signature_of_what_it_receives(method: str, path: str, content: dict[str, Any]) -> None:
    aws = CannedAws()
    with run_server(Server(lambda _: (200, {}, b""))) as server:
        requests.request(method, f"{server.url}/{path}", auth=SignedRequest(aws.session), timeout=30, **content)
    (received,) = server.received
    found = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=key/\d{8}/us-east-1/execute-api/aws4_request, "
        r"SignedHeaders=([a-z;-]+), Signature=([0-9a-f]{64})",
        received.headers["Authorization"],
    )
    assert found
    signed = {name: received.headers[name] for name in found[1].split(";")}
    request = AWSRequest(method, f"{server.url}{received.target}", headers=signed, data=received.body)
    request.context["timestamp"] = received.headers["X-Amz-Date"]
    signer = SigV4Auth(Credentials("key", "secret"), "execute-api", "us-east-1")
    canonical = signer.canonical_request(request)
    assert signer.signature(signer.string_to_sign(request, canonical), request) == found[2]
