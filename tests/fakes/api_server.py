"""A fake API and a fake S3 on 127.0.0.1 for the command-line client, over real HTTP.

Tasks go through the states that a test defines. The fake S3 accepts presigned PUTs and multipart uploads, validates
sizes and ETags as S3 does, and serves ranges of objects. Faults are injected by method and path.
"""

import contextlib
import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.http_servers import run_server
from tests.sigv4 import Identity, verify

KEY = "the-key"
READ_KEY = "hf_" + "k" * 40
PROBLEM = "urn:modelhaul:problem:"
TASK_ID = "0b0cfd55-0000-4000-8000-000000000001"
MODEL_ID = "6f1c9f3e-0000-5000-8000-000000000001"


@dataclass
class Response:
    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def create_json_response(status: int, body: object, **headers: str) -> Response:
    return Response(status, json.dumps(body).encode(), {"Content-Type": "application/json", **headers})


def create_problem_response(status: int, kind: str, title: str, detail: str = "", **more: Any) -> Response:
    headers = {"Retry-After": str(more["retry_after"])} if "retry_after" in more else {}
    body = {"type": PROBLEM + kind, "title": title, "status": status, "detail": detail, **more}
    response = create_json_response(status, body, **headers)
    response.headers["Content-Type"] = "application/problem+json"
    return response


def create_store_error_response(status: int, code: str) -> Response:
    return Response(status, f"<Error><Code>{code}</Code><Message>message</Message></Error>".encode())


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    target: str
    """Path and query as they were sent."""

    @property
    def json(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.body)
        return body


@dataclass
class Fault:
    """A fault of the next `times` requests with this `method`, matching `path` and `query`.

    By `kind`: `response` replaces the response, `cut` closes the connection before the request is processed, `lost`
    closes it afterwards, `short` closes it after `keep` bytes of the body, `hold` delays processing until the test sets
    `released`.
    """

    method: str
    path: str
    kind: Literal["response", "cut", "lost", "short", "hold"] = "response"
    response: Response = field(
        default_factory=lambda: create_problem_response(503, "storage-unavailable", "Storage is unavailable")
    )
    keep: int = 0
    times: int = 1
    query: dict[str, str] = field(default_factory=dict)
    released: threading.Event = field(default_factory=threading.Event)

    def matches(self, request: Request) -> bool:
        found = self.method == request.method and re.search(self.path, request.path)
        return bool(found) and self.query.items() <= request.query.items()


def make_task(stage: str = "DONE", **more: Any) -> dict[str, Any]:
    status = stage if stage in ("DONE", "FAILED") else "PENDING"
    return {
        "id": TASK_ID,
        "model_tag": "bert-base-uncased@main",
        "task_status": "FAILED" if stage == "CANCELLED" else status,
        "source": "HUGGINGFACE",
        "created_at": "2026-11-24T12:00:00Z",
        "updated_at": "2026-11-24T12:00:07Z",
        "stage": stage,
        "progress": {"files_done": 0, "files_total": 0, "bytes_done": 0, "bytes_total": 0, "bytes_reused": 0},
        **more,
    }


def make_progress(done: int, total: int, **more: Any) -> dict[str, Any]:
    return {
        "files_done": done // 100,
        "files_total": total // 100,
        "bytes_done": done,
        "bytes_total": total,
        "bytes_reused": 0,
        **more,
    }


@dataclass
class ApiServer:
    """`tasks` holds the successive states of each task; the last one stays. `submit_responses` are the next responses
    to POSTs; without one, a POST starts TASK_ID. `imports` counts started imports. Archives of more than `max_put`
    bytes are uploaded in parts of `part_size`. `expire_urls` ends all presigned URLs of uploads; with `renews_urls`
    False, the API signs no new ones, like earlier versions. `identity`: requests must be signed with these credentials
    instead of having the key. `documents` has the signature and the bill of materials of the model.
    """

    endpoint: str = ""
    requests: list[Request] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    tasks: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {TASK_ID: [make_task()]})
    submit_responses: list[Response] = field(default_factory=list)
    imports: int = 0
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    keys: dict[str, dict[str, Any]] = field(default_factory=dict)
    follows: dict[str, dict[str, Any]] = field(default_factory=dict)
    documents: dict[str, bytes] = field(default_factory=dict)
    redirects_documents: bool = False
    hub_url: str = "https://hub.example/hf"
    deletion: Response = field(default_factory=lambda: Response(204))
    retention: dict[str, Any] = field(default_factory=dict)
    max_put: int = 10**9
    part_size: int = 1_000_000
    expires_at: str = "2126-11-24T12:00:00Z"
    upload_until: str = "2126-11-26T12:00:00Z"
    renews_urls: bool = True
    expiry: Response = field(default_factory=lambda: create_store_error_response(403, "AccessDenied"))
    signed: int = 0
    expired: int = 0
    identity: Identity | None = None
    archives: list[bytes] = field(default_factory=list)
    parts: dict[int, bytes] = field(default_factory=dict)
    upload_size: int = 0
    upload_id: int = 0
    _responses: dict[str, tuple[bytes, Response]] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def api_url(self) -> str:
        return f"{self.endpoint}/stage/v1"

    def find(self, method: str, path: str) -> list[Request]:
        return [r for r in self.requests if r.method == method and re.search(path, r.path)]

    def add_model(self, files: dict[str, bytes], *, inline: bool = True, **more: Any) -> dict[str, Any]:
        listed = [
            {"path": p, "size": len(c), "sha256": hashlib.sha256(c).hexdigest(), "source_digest": "sha256:…"}
            for p, c in files.items()
        ]
        manifest = {"version": 1, "model_id": MODEL_ID, "files": listed, "not_followed": []}
        record = {
            "model_id": MODEL_ID,
            "name": "google-bert/bert-base-uncased",
            "hub_id": "google-bert/bert-base-uncased",
            "source": "HUGGINGFACE",
            "commit": "86b5e0934494bd15c9632b12f734a8a67f723594",
            "revision": "main",
            "status": "READY",
            "task_id": TASK_ID,
            "created_at": "2026-11-24T12:00:00Z",
            "updated_at": "2026-11-24T12:00:09Z",
            "files": len(files),
            "size": sum(map(len, files.values())),
            "location": "s3://models/models/huggingface/google-bert/bert-base-uncased/86b5/",
            "gate": {"verdict": "clean", "reasons": [], "flags": ["chat template"], "scanned": []},
            **more,
        }
        self.files = {**files, "manifest.json": json.dumps(manifest).encode()}
        whole = {**record, "manifest_url": f"{self.endpoint}/store/manifest.json?X-Amz-Signature=secret"}
        self.models[MODEL_ID] = {**whole, "manifest": manifest} if inline else whole
        return record

    def expire_urls(self) -> None:
        with self._lock:
            self.expired = self.signed

    def take_fault(self, request: Request) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                if fault.times and fault.matches(request):
                    fault.times -= 1
                    return fault
        return None

    def respond(self, request: Request) -> Response:
        if request.path.startswith("/store/"):
            with self._lock:
                return self._respond_store(request)
        route = request.path.removeprefix("/stage/v1")
        if self.identity is not None:
            if rejection := self._verify(request, self.identity):
                return create_problem_response(403, *rejection)
        elif request.headers.get("x-api-key") != KEY:
            return Response(403, b'{"message":"Forbidden"}', {"Content-Type": "application/json"})
        with self._lock:
            if route.startswith("/keys"):
                return self._respond_keys(request, route)
            if request.method == "POST":
                return self._respond_once(request, route)
            return self._respond_route(request, route)

    def _verify(self, request: Request, identity: Identity) -> tuple[str, str] | None:
        if "authorization" not in request.headers:
            return "not-signed", "Unsigned request"
        reason = verify(
            request.method,
            request.target,
            request.headers,
            request.body,
            identity,
            region="eu-west-1",
            service="execute-api",
            now=datetime.now(UTC),
        )
        return ("invalid-signature", f"Invalid signature: {reason}") if reason else None

    def _respond_once(self, request: Request, route: str) -> Response:
        key = request.headers["idempotency-key"]
        body, response = self._responses.get(key, (b"", None))
        if response is None:
            response = self._respond_post(request, route)
            self._responses[key] = (request.body, response)
        elif body != request.body:
            return create_problem_response(
                422, "idempotency-key-reused", "Idempotency-Key reused with a different body"
            )
        return response

    def _respond_keys(self, request: Request, route: str) -> Response:
        if request.method == "GET":
            return create_json_response(200, {"keys": list(self.keys.values())[::-1], "hub_url": self.hub_url})
        if request.method == "POST" and "idempotency-key" not in request.headers:
            key_id = f"{len(self.keys) + 1:016x}"
            record = {"key_id": key_id, "created_at": "2026-11-24T12:00:00Z", "expires_at": None, **request.json}
            self.keys[key_id] = {**record, "expired": False, "last_used_on": None}
            return create_json_response(201, {**record, "key": READ_KEY})
        if request.method == "DELETE" and self.keys.pop(route.removeprefix("/keys/"), {}):
            return Response(204)
        return create_problem_response(404, "key-not-found", "Key not found", "It does not exist.")

    def _respond_follows(self, request: Request, route: str) -> Response:
        follow_id = route.removeprefix("/follows").strip("/")
        if request.method == "POST":
            names = {(follow["name"], follow["revision"]): found for found, follow in self.follows.items()}
            if found := names.get((request.json["name"], request.json["revision"])):
                return create_problem_response(
                    409, "follow-exists", "Revision is already followed", f"It is already followed by {found}."
                )
            follow_id = f"0a000000-0000-5000-8000-{len(self.follows) + 1:012}"
            empty = dict.fromkeys(("keep_newest", "checked_at", "last_import", "last_error"))
            state = {"status": "ACTIVE", "waits_for_rate_limit": False, "consecutive_failures": 0}
            moment = "2026-11-24T12:00:00Z"
            self.follows[follow_id] = {
                "follow_id": follow_id,
                "created_at": moment,
                "next_check": moment,
                **empty,
                **state,
                **request.json,
            }
            return create_json_response(201, self.follows[follow_id])
        if request.method == "GET" and not follow_id:
            return create_json_response(200, {"follows": list(self.follows.values())[::-1]})
        if follow_id not in self.follows:
            return create_problem_response(404, "follow-not-found", "Follow not found", "It does not exist.")
        if request.method == "DELETE":
            del self.follows[follow_id]
            return Response(204)
        return create_json_response(200, self.follows[follow_id])

    def _respond_post(self, request: Request, route: str) -> Response:
        if route == "/follows":
            return self._respond_follows(request, route)
        if self.submit_responses:
            return self.submit_responses.pop(0)
        if route.endswith("/urls"):
            return self._renew_upload(request, route.split("/")[3])
        self.imports += 1
        location = f"/v1/upload/tasks/{TASK_ID}"
        if route != "/upload/local":
            return Response(201, headers={"Location": location})
        if request.headers["content-type"].startswith("multipart/form-data"):
            self.archives.append(request.body)
            return Response(201, headers={"Location": "/v1/upload/local/1", "Link": f'<{location}>; rel="status"'})
        return create_json_response(201, self._open_upload(request.json["size"]), Location=location)

    def _open_upload(self, size: int) -> dict[str, Any]:
        self.upload_size, self.parts = size, {}
        self.upload_id += 1
        self.tasks[TASK_ID] = [make_task("UPLOADING"), *self.tasks[TASK_ID]]
        return self._sign_upload()

    def _renew_upload(self, request: Request, task_id: str) -> Response:
        if not self.renews_urls:
            return create_problem_response(404, "no-such-route", "Route not found")
        if self.tasks[task_id][0]["stage"] != "UPLOADING":
            return create_problem_response(409, "upload-not-open", "Task does not wait for an upload")
        ticket = self._sign_upload()
        if "parts" in ticket["upload"]:
            wanted = request.json["parts"]
            ticket["upload"]["parts"] = [part for part in ticket["upload"]["parts"] if part["number"] in wanted]
        return create_json_response(200, ticket)

    def _sign_upload(self) -> dict[str, Any]:
        size = self.upload_size
        self.signed += 1
        base = f"{self.endpoint}/store/upload-{self.upload_id}?X-Amz-Signature=secret&signed={self.signed}"
        upload: dict[str, Any] = {"method": "PUT", "url": base}
        if size > self.max_put:
            starts = range(0, size, self.part_size)
            upload = {
                "parts": [
                    {
                        "number": n,
                        "method": "PUT",
                        "url": f"{base}&partNumber={n}",
                        "start": s,
                        "end": min(s + self.part_size, size),
                    }
                    for n, s in enumerate(starts, 1)
                ],
                "complete": {"method": "POST", "url": f"{base}&complete=1"},
                "abort": {"method": "DELETE", "url": base},
            }
        return {
            "task_id": TASK_ID,
            "expires_at": self.expires_at,
            "upload_until": self.upload_until,
            "upload": upload,
        }

    def _respond_route(self, request: Request, route: str) -> Response:  # noqa: C901, PLR0911, PLR0912 - a case for each route
        match request.method, route.split("/")[1:]:
            case _, ["follows", *_]:
                return self._respond_follows(request, route)
            case "GET", ["upload", "tasks"]:
                return self._respond_page("tasks", [states[0] for states in self.tasks.values()], request)
            case "GET", ["upload", "tasks", task_id] if task_id in self.tasks:
                states = self.tasks[task_id]
                is_uploading = states[0]["stage"] == "UPLOADING"
                return create_json_response(200, states.pop(0) if len(states) > 1 and not is_uploading else states[0])
            case "DELETE", ["upload", "tasks", task_id] if task_id in self.tasks:
                if self.tasks[task_id][0]["task_status"] != "PENDING":
                    return create_problem_response(409, "task-ended", "Task already ended")
                self.tasks[task_id] = [make_task("CANCELLED")]
                return Response(204)
            case "GET", ["models"]:
                name = request.query.get("name", "").lower()
                named = [model for model in self.models.values() if name in model["name"].lower()]
                return self._respond_page("models", named, request)
            case "GET", ["models", model_id] if model_id in self.models:
                return create_json_response(200, self.models[model_id])
            case "PUT", ["models", model_id, "pin"] if model_id in self.models:
                self.models[model_id]["pin"] = {"pinned_at": "2026-11-28T12:00:00Z", **request.json}
                return create_json_response(200, self.models[model_id])
            case "DELETE", ["models", model_id, "pin"] if model_id in self.models:
                self.models[model_id].pop("pin", None)
                return Response(204)
            case "GET", ["retention"]:
                return create_json_response(200, self.retention)
            case "DELETE", ["models", model_id] if "pin" in self.models.get(model_id, {}):
                return create_problem_response(409, "model-pinned", "Model is pinned", "It is pinned.")
            case "DELETE", ["models", model_id] if model_id in self.models:
                del self.models[model_id]
                return self.deletion
            case "GET", ["models", model_id, ("signature" | "bom") as document] if model_id in self.models:
                return self._respond_document(document)
            case "GET", ["models", model_id, "files", *path] if model_id in self.models:
                location = f"{self.endpoint}/store/{quote('/'.join(path))}?X-Amz-Signature=secret"
                return Response(302, headers={"Location": location})
        kind = "task-not-found" if "tasks" in route else "model-not-found"
        return create_problem_response(
            404, kind, "Task not found" if "tasks" in route else "Model not found", "It does not exist."
        )

    def _respond_document(self, kind: str) -> Response:
        if kind not in self.documents:
            return create_problem_response(404, "signature-not-found", "Model not signed", "It is not signed.")
        if not self.redirects_documents:
            return Response(200, self.documents[kind])
        self.files[f"{kind}.json"] = self.documents[kind]
        return Response(302, headers={"Location": f"{self.endpoint}/store/{kind}.json?X-Amz-Signature=secret"})

    def _respond_page(self, key: str, entries: list[dict[str, Any]], request: Request) -> Response:
        start, limit = int(request.query.get("cursor", "0")), int(request.query["limit"])
        end = start + limit
        return create_json_response(200, {key: entries[start:end], "cursor": str(end) if end < len(entries) else None})

    def _respond_store(self, request: Request) -> Response:
        name = request.path.removeprefix("/store/")
        if "x-api-key" in request.headers or "authorization" in request.headers:
            return create_store_error_response(400, "InvalidArgument")
        if request.method == "GET":
            return self._respond_object(request, self.files.get(name))
        if int(request.query["signed"]) <= self.expired or name != f"upload-{self.upload_id}":
            is_known = name == f"upload-{self.upload_id}"
            return self.expiry if is_known else create_store_error_response(404, "NoSuchUpload")
        if request.method == "POST":
            return self._complete(request)
        number = int(request.query.get("partNumber", "0"))
        expected_size = self.upload_size
        if number:
            expected_size = min(self.part_size, self.upload_size - (number - 1) * self.part_size)
        if len(request.body) != expected_size:
            return create_store_error_response(403, "SignatureDoesNotMatch")
        if number:
            self.parts[number] = request.body
        else:
            self._receive_archive(request.body)
        return Response(200, headers={"ETag": f'"{hashlib.md5(request.body).hexdigest()}"'})

    def _complete(self, request: Request) -> Response:
        found = re.findall(rb'<PartNumber>(\d+)</PartNumber><ETag>"(\w+)"</ETag>', request.body)
        kept = [(b"%d" % n, hashlib.md5(p).hexdigest().encode()) for n, p in sorted(self.parts.items())]
        if found != kept or sum(map(len, self.parts.values())) != self.upload_size:
            return create_store_error_response(400, "InvalidPart")
        self._receive_archive(b"".join(part for _, part in sorted(self.parts.items())))
        return Response(200, b"<CompleteMultipartUploadResult></CompleteMultipartUploadResult>")

    def _receive_archive(self, content: bytes) -> None:
        self.archives.append(content)
        self.tasks[TASK_ID] = [response for response in self.tasks[TASK_ID] if response["stage"] != "UPLOADING"]
        self.upload_id += 1

    def _respond_object(self, request: Request, content: bytes | None) -> Response:
        if content is None:
            return create_store_error_response(404, "NoSuchKey")
        start = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        return Response(206 if "range" in request.headers else 200, content[start:])


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: ApiServer

    def serve(self) -> None:
        target = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(target.query).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", 0)))
        request = Request(self.command, unquote(target.path), query, headers, body, self.path)
        self.served.requests.append(request)
        fault = self.served.take_fault(request)
        kind = fault.kind if fault else None
        if fault and kind == "hold":
            fault.released.wait(60)
        if kind == "cut":
            self._cut()
            return
        response = fault.response if fault and kind == "response" else self.served.respond(request)
        if kind == "lost":
            self._cut()
            return
        self.send_response(response.status)
        for name, value in {**response.headers, "Content-Length": str(len(response.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(response.body[: fault.keep] if fault and kind == "short" else response.body)
        if kind == "short":
            self._cut()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = serve  # noqa: N815 - names required by the base class

    def _cut(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors of clients that a test has killed."""


@contextlib.contextmanager
def serve_api() -> Iterator[ApiServer]:
    served = ApiServer()
    handler = type("Handler", (_Handler,), {"served": served})
    with run_server(_Server(("127.0.0.1", 0), handler)) as server:
        served.endpoint = f"http://127.0.0.1:{server.server_port}"
        try:
            yield served
        finally:
            for fault in served.faults:
                fault.released.set()


def wait_until(condition: Any, timeout: float = 60.0) -> None:
    """Wait for a condition. The timeout prevents a hanging test."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("timeout")
        time.sleep(0.02)
