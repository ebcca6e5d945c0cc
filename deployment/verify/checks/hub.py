"""The Hub read API, as clients of the Hugging Face Hub use it."""

from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import quote

import requests

from deployment.verify.api import Api, Json, describe_response, expect_status, parse_json
from deployment.verify.checks.importing import import_by_post
from deployment.verify.contents import digest_content
from deployment.verify.imports import ImportedModel
from deployment.verify.registry import Verification, check
from deployment.verify.results import CheckFailedError, expect, expect_true
from deployment.verify.waiting import wait_for

SECTION = "hub-read-api"
LAST_USE_TIMEOUT = 60.0  # seconds
KEY_CACHE_TIMEOUT = 120.0  # seconds; API Gateway caches the result for a key for a minute
_WEIGHTS = "model.safetensors"


class HubReads:
    """Requests with a read key to the model that was imported by a POST."""

    def __init__(self, verification: Verification) -> None:
        self.model: ImportedModel = import_by_post(verification)
        self.api = Api(verification.hub_url, verification.api.session, verification.api.authentication)
        self.key: Json = verification.imports.create_key(f"verify-Zoë-{verification.marker}")
        self.hub_id = str(self.model.record["hub_id"])

    def send(self, method: str, path: str, headers: Mapping[str, str | None] | None = None) -> requests.Response:
        sent = {"Authorization": f"Bearer {self.key['key']}", **(headers or {})}
        return self.api.send(method, path, anonymous=True, headers=sent)

    def resolve(self, method: str, path: str, headers: Mapping[str, str | None] | None = None) -> requests.Response:
        return self.send(method, f"{self.hub_id}/resolve/main/{quote(path)}", headers)


@check("hub-errors", SECTION)
def check_errors(verification: Verification) -> str:
    """Requests without a valid key get 401 in the format of the Hub, and other methods 404, also for HEAD."""
    api = Api(verification.hub_url, verification.api.session, verification.api.authentication)
    unknown = {"Authorization": f"Bearer hf_{'x' * 40}"}
    for headers in ({}, {"Authorization": "Bearer other"}, unknown):
        for method in ("GET", "HEAD"):
            response = api.send(method, "api/models/x/y", anonymous=True, headers=headers)
            expect_status(response, 401)
            _expect_hub_error(response)
    response = api.send("PUT", "api/models/x/y", anonymous=True)
    expect_status(response, 404)
    _expect_hub_error(response)
    return "401 and 404 with X-Error-Message"


@check("hub-reads", SECTION)
def check_reads(verification: Verification) -> str:
    """A read key opens the model. The responses have the headers that clients need, and the files are complete."""
    reads = HubReads(verification)
    user = reads.send("GET", "api/whoami-v2")
    expect_status(user, 200)
    expect(parse_json(user).get("name"), reads.key["name"], "name of the key in whoami-v2")
    information = reads.send("GET", f"api/models/{reads.hub_id}/revision/main")
    expect_status(information, 200)
    commit = str(parse_json(information).get("sha"))
    for path, content in sorted((reads.model.files or {}).items()):
        expected = digest_content([content], len(content))
        head = reads.resolve("HEAD", path)
        expect_status(head, 200, 302, 307)
        for name, value in {"X-Repo-Commit": commit, "X-Linked-Size": str(len(content))}.items():
            expect(head.headers.get(name), value, f"{name} of HEAD {path!r}")
        etag = head.headers.get("X-Linked-Etag") or head.headers.get("ETag") or ""
        expect(etag.strip('"'), expected.sha256, f"ETag of HEAD {path!r}")
        response = reads.resolve("GET", path)
        # As clients do, without the key: S3 rejects a request with two kinds of authentication.
        if response.is_redirect:
            response = verification.api.session.get(response.headers["Location"], timeout=60)
        expect_status(response, 200)
        expect_true(response.content == content, f"the content of {path!r} is wrong")
    tree = reads.send("GET", f"api/models/{reads.hub_id}/tree/main?recursive=true")
    expect_status(tree, 200)
    listed = sorted(entry["path"] for entry in tree.json() if entry["type"] == "file")
    expect(listed, sorted(reads.model.files or {}), "files of the tree")
    return f"{len(listed)} files of {reads.hub_id}"


@check("hub-ranges", SECTION)
def check_ranges(verification: Verification) -> str:
    """A range returns these bytes, whatever the client accepts."""
    reads = HubReads(verification)
    content = (reads.model.files or {})[_WEIGHTS]
    # Without Accept, MiniStack returns the base64 of the function's response.
    accepted = ("*/*", "application/json") if verification.target.is_local else ("*/*", "application/json", None)
    for accept in accepted:
        response = reads.resolve("GET", _WEIGHTS, {"Range": "bytes=0-0", "Accept": accept})
        if response.is_redirect:
            url = response.headers["Location"]
            response = verification.api.session.get(url, headers={"Range": "bytes=0-0"}, timeout=60)
        expect_status(response, 206)
        expect(response.content, content[:1], f"first byte of {_WEIGHTS} with Accept: {accept}")
        expect(response.headers.get("Content-Range"), f"bytes 0-0/{len(content)}", "Content-Range")
    return "206 with one byte"


@check("hub-last-use", SECTION)
def check_last_use(verification: Verification) -> str:
    """A read is recorded as the last use of its key and of its model."""
    started = datetime.now(UTC).date().isoformat()
    reads = HubReads(verification)
    expect_status(reads.resolve("GET", _WEIGHTS), 200, 302, 307)

    def probe() -> str | None:
        keys = verification.api.read("keys")["keys"]
        used = next((key.get("last_used_on") for key in keys if key["key_id"] == reads.key["key_id"]), None)
        read = verification.api.read(f"models/{reads.model.model_id}").get("last_read_on")
        return f"key {used}, model {read}" if used and read and min(used, read) >= started else None

    interval = verification.target.poll_interval
    return wait_for(probe, "the record of the last use", timeout=LAST_USE_TIMEOUT, interval=interval)


@check("hub-deleted-key", SECTION)
def check_deleted_key(verification: Verification) -> str:
    """A deleted key is rejected after at most a minute."""
    reads = HubReads(verification)
    expect_status(reads.send("GET", "api/whoami-v2"), 200)
    verification.imports.delete_key(str(reads.key["key_id"]))

    def probe() -> str | None:
        response = reads.send("GET", "api/whoami-v2")
        return "401" if response.status_code == requests.codes.unauthorized else None

    interval = verification.target.poll_interval
    return wait_for(probe, "the rejection of a deleted key", timeout=KEY_CACHE_TIMEOUT, interval=interval)


def _expect_hub_error(response: requests.Response) -> None:
    if not response.headers.get("X-Error-Message"):
        raise CheckFailedError(f"{describe_response(response)}; expected the header X-Error-Message")
    if response.request.method != "HEAD":
        expect_true(parse_json(response).get("error"), f"{describe_response(response)}; expected a body with error")
