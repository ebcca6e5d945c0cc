"""Errors, headers and the reference of the import API."""

import base64
import gzip
import hashlib
import re

import requests

from deployment.verify.api import PROBLEM_TYPE, describe_response, expect_problem, expect_status, parse_json
from deployment.verify.registry import Verification, check
from deployment.verify.results import CheckFailedError, CheckSkippedError, expect, expect_true

SECTION = "api"
# The local stack returns the errors of MiniStack where AWS returns the gateway responses of the template.
GATEWAY = "the local stack does not model the gateway responses of API Gateway"
MISSING_ID = "00000000-0000-4000-8000-000000000000"
MEGABYTE = 1_000_000
_PREFLIGHT = {"Origin": "https://example.com", "Access-Control-Request-Method": "GET"}


@check("api-problems", SECTION)
def check_problems(verification: Verification) -> str:
    """Errors of the functions are problem details with their type."""
    api = verification.api
    cases = [
        ("GET", f"upload/tasks/{MISSING_ID}", None, 404, "task-not-found"),
        ("GET", f"models/{MISSING_ID}", None, 404, "model-not-found"),
        ("DELETE", f"models/{MISSING_ID}", None, 404, "model-not-found"),
        ("GET", "upload/tasks?limit=0", None, 422, "invalid-fields"),
        ("POST", "upload/huggingface", b"{", 400, "invalid-json"),
        ("POST", "upload/huggingface", b'{"model_tag": "../x"}', 422, "invalid-reference"),
        ("POST", "upload/huggingface", b'{"unknown": 1}', 422, "invalid-fields"),
        ("POST", "upload/github", b'{"owner": "..", "repo_name": "x"}', 400, "invalid-repository"),
    ]
    for method, path, body, status, name in cases:
        headers = {"Content-Type": "application/json"} if body else {}
        expect_problem(api.send(method, path, data=body, headers=headers), status, name)
    form = {"file": ("models.zip", b"not a ZIP archive", "application/zip")}
    expect_problem(api.send("POST", "upload/local", files=form), 400, "archive-refused")
    return f"{len(cases) + 1} errors of functions are problem details"


@check("gateway-problems", SECTION, not_on_local=GATEWAY)
def check_gateway_problems(verification: Verification) -> str:
    """Errors of API Gateway are problem details too, also without a key."""
    api = verification.api
    unauthenticated = "not-signed" if verification.uses_iam else "invalid-api-key"
    expect_problem(api.send("GET", "upload/tasks", anonymous=True), 403, unauthenticated)
    status, name = (403, "not-signed") if verification.uses_iam else (404, "no-such-route")
    expect_problem(api.send("GET", "no-such-route", anonymous=True), status, name)
    headers = {"Content-Type": "application/x-verification"}
    response = api.send("POST", "upload/huggingface", data=b"x", headers=headers)
    # Without an integration for the media type, API Gateway passes the body on.
    expect_status(response, 400, 415, 422)
    expect_true(
        str(parse_json(response).get("type")).startswith(PROBLEM_TYPE),
        f"{describe_response(response)}; expected problem details",
    )
    return f"403 {unauthenticated}, {status} {name}"


@check("body-limits", SECTION, not_on_local="the local stack does not limit the size of bodies")
def check_body_limits(verification: Verification) -> str:
    """Bodies above the limits of Lambda (7 MB) and of API Gateway (11 MB) get 413."""
    too_large = requests.codes.request_entity_too_large
    expect_problem(_post_zeros(verification, 7 * MEGABYTE), too_large, "body-too-large")
    # API Gateway may return its own text here.
    largest = _post_zeros(verification, 11 * MEGABYTE)
    expect_status(largest, too_large)
    return f"413 for 7 MB and 11 MB ({largest.headers.get('Content-Type')})"


@check("cors", SECTION)
def check_cors(verification: Verification) -> str:
    """A preflight request needs no key. CorsAllowOrigin is the allowed origin; without it, there is none."""
    response = verification.api.send("OPTIONS", "upload/tasks", anonymous=True, headers=_PREFLIGHT)
    expect_status(response, 200, 204)
    origin = verification.stack.parameters.get("CorsAllowOrigin") or None
    expect(response.headers.get("Access-Control-Allow-Origin"), origin, "Access-Control-Allow-Origin of a preflight")
    if not verification.target.is_local:
        denied = verification.api.send("GET", "upload/tasks", anonymous=True)
        expect(denied.headers.get("Access-Control-Allow-Origin"), origin, "Access-Control-Allow-Origin of a 403")
    return f"allowed origin: {origin or 'none'}"


@check("reference", SECTION)
def check_reference(verification: Verification) -> str:
    """The reference needs no key, and is compressed. The page's assets are complete."""
    if verification.stack.parameters.get("Documentation") == "off":
        raise CheckSkippedError("Documentation is off")
    api = verification.api
    document = api.send("GET", "openapi.json", anonymous=True, headers={"Accept-Encoding": "gzip"})
    expect_status(document, 200)
    version = str(parse_json(document).get("openapi"))
    expect_true(version.startswith("3.1"), f"openapi is {version!r}, expected 3.1")
    if not verification.target.is_local:
        expect(document.headers.get("Content-Encoding"), "gzip", "Content-Encoding of openapi.json")
    page = api.send("GET", "docs", anonymous=True)
    expect_status(page, 200)
    media_type = page.headers.get("Content-Type", "")
    expect_true(media_type.startswith("text/html"), f"Content-Type of the page is {media_type!r}, expected text/html")
    assets = re.findall(r"\b(?:script|style)-[0-9a-f]{16}\b", page.text)
    expect(len(assets), 2, "number of assets of the page")
    for name in assets:
        asset = api.send("GET", f"docs/{name}", anonymous=True)
        expect_status(asset, 200)
        content = gzip.decompress(base64.b64decode(asset.content))
        expect(hashlib.sha256(content).hexdigest()[:16], name.rpartition("-")[2], f"sha256 of docs/{name}")
    return f"OpenAPI {version}, a page of {len(page.content):,} bytes, {len(assets)} assets"


@check("signed-query", SECTION)
def check_signed_query(verification: Verification) -> str:
    """With AuthMode=IAM, a GET signed in its query is accepted."""
    if not verification.uses_iam:
        raise CheckSkippedError("AuthMode is not IAM")
    url = verification.signer.sign_query(f"{verification.api.url}/models")
    response = verification.api.session.get(url, timeout=30)
    if response.status_code != requests.codes.ok:
        raise CheckFailedError(f"{describe_response(response)}; expected 200")
    return "200"


def _post_zeros(verification: Verification, size: int) -> requests.Response:
    form = {"file": ("models.zip", bytes(size), "application/zip")}
    return verification.api.send("POST", "upload/local", files=form)
