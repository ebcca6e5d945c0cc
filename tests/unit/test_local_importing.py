"""Imports through the local stack, and the printed commands."""

import email
import email.policy
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from rich.console import Console

from local.errors import LocalStackError
from local.importing import (
    ImportApi,
    describe_progress,
    describe_result,
    find_prefix,
    follow_task,
    import_samples,
    print_commands,
)
from local.sample import write_sample_archive
from local.sources import OTHER_MODEL, SAMPLE_MODEL
from local.stack import ROOT, StackState
from tests.http_servers import run_server

API = "/v1"
UPLOAD = "/incoming-bucket/uploads/1.zip"
COPIED = "/incoming-bucket/incoming/copied.zip"
OUTCOME = "/incoming-bucket/outcomes/incoming/copied.zip.json"
TASK = "6f1c9f3e-6d0c-5d61-9a3c-0f6a4b1f7c55"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
READ_KEY = f"hf_{'k' * 40}"
CREATED_KEY = {"key": READ_KEY, "key_id": "1", "name": "my-laptop", "scopes": ["read"], "expires_at": None}
PLANNED = {"task_status": "PENDING", "stage": "PLANNING"}
HALF = {
    "task_status": "PENDING",
    "stage": "TRANSFERRING",
    "progress": {"files_done": 1, "files_total": 3, "bytes_done": 50, "bytes_total": 100, "bytes_reused": 0},
}
DONE = {
    "task_status": "DONE",
    "stage": "DONE",
    "progress": {"files_done": 3, "files_total": 3, "bytes_done": 100, "bytes_total": 100, "bytes_reused": 1200},
}
FAILED = {"task_status": "FAILED", "error_msg": "the ZIP is [damaged].", "error": {"remedy": "Create it again."}}
BERT = {
    "model_id": "1",
    "name": "sample/tiny-bert",
    "status": "READY",
    "location": "s3://models-bucket/models/local/sample/tiny-bert/zip-task/",
}
SKIPPED = {"name": "notes", "status": "SKIPPED", "lacks": ["config.json", "tokenizer.json"]}
MINILM = {"model_id": "2", "name": SAMPLE_MODEL, "status": "READY", "location": "s3://models-bucket/models/hub/"}
REPOSITORY = {**MINILM, "name": "samples/model", "location": "s3://models-bucket/models/github/"}
OBJECTS = (
    "manifests/1.json",
    f"models/huggingface/org/model/{COMMIT}/config.json",
    f"models/huggingface/org/model/{COMMIT}/1_Pooling/config.json",
)


def list_objects(keys: Sequence[str]) -> bytes:
    """Return the response of ListObjectsV2."""
    contents = "".join(f"<Contents><Key>{key}</Key><Size>1</Size></Contents>" for key in keys)
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>models-bucket</Name>
<KeyCount>{len(keys)}</KeyCount><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>""".encode()


@dataclass
class Response:
    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def create_json_response(status: int, body: object) -> Response:
    return Response(status, json.dumps(body).encode(), {"Content-Type": "application/json"})


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    """Names are in lowercase."""
    body: bytes

    def read_form(self) -> dict[str, tuple[str | None, bytes]]:
        """Return the file name and content of each field, as parsed by the standard library."""
        head = f"Content-Type: {self.headers['content-type']}\r\n\r\n".encode()
        message = email.message_from_bytes(head + self.body, policy=email.policy.HTTP)
        assert message.get_content_type() == "multipart/form-data"
        assert message.is_multipart()
        assert not message.defects
        form = {}
        for part in message.iter_parts():
            assert part.get_content_disposition() == "form-data"
            content = part.get_payload(decode=True)
            assert isinstance(content, bytes)
            form[str(part.get_param("name", header="content-disposition"))] = (part.get_filename(), content)
        return form


@dataclass
class FakeStack:
    """The routes of the API and S3 that imports use. `tasks` holds the successive states of each task."""

    endpoint: str = ""
    requests: list[Request] = field(default_factory=list)
    archive_response: Response = field(
        default_factory=lambda: Response(
            201,
            headers={
                "location": "/v1/upload/local/1",
                "link": '</v1/upload/tasks/zip-task>; rel="status"',
            },
        )
    )
    model_response: Response = field(
        default_factory=lambda: Response(201, headers={"location": "/v1/upload/tasks/hub-task"})
    )
    repository_response: Response = field(
        default_factory=lambda: Response(201, headers={"location": "/v1/upload/tasks/git-task"})
    )
    outcomes: list[Response] = field(
        default_factory=lambda: [
            Response(404),
            *(create_json_response(200, {"task_status": status}) for status in ("PENDING", "DONE")),
        ]
    )
    tasks: dict[str, list[dict[str, Any]]] = field(
        default_factory=lambda: {
            "zip-task": [PLANNED, HALF, {**DONE, "models": [BERT, SKIPPED]}],
            "hub-task": [PLANNED, {**DONE, "models": [MINILM]}],
            "git-task": [{**DONE, "models": [REPOSITORY]}],
        }
    )

    @property
    def state(self) -> StackState:
        return StackState(
            api_url=f"{self.endpoint}{API}",
            api_key="the-key",
            hub_url=f"{self.endpoint}/hf",
            console_url=f"{self.endpoint}/console/",
            aws_endpoint_url=self.endpoint,
            region="us-east-1",
            incoming_bucket="incoming-bucket",
            models_bucket="models-bucket",
            stack_name="modelhaul",
            hub_endpoint="http://127.0.0.1:1",
            github_api_url="http://127.0.0.1:2",
            sample_repository="samples/model",
            other_model="samples/another",
            other_repository="samples/other",
            ministack_pid=1,
            outputs={},
        )

    def respond(self, request: Request) -> Response:
        self.requests.append(request)
        route = request.path.removeprefix(API)
        if route != request.path and request.headers.get("x-api-key") != self.state.api_key:
            return create_json_response(403, {"message": "Forbidden"})
        match request.method, route.rpartition("/")[::2]:
            case "POST", ("/upload", "local"):
                is_form = request.headers["content-type"].startswith("multipart/")
                return self.archive_response if is_form else self._open_upload()
            case "GET", ("/upload/tasks", task_id):
                states = self.tasks[task_id]
                return create_json_response(200, states.pop(0) if len(states) > 1 else states[0])
        others = {
            ("POST", "/upload/huggingface"): self.model_response,
            ("POST", "/upload/github"): self.repository_response,
            ("GET", "/upload/tasks"): create_json_response(200, {"tasks": []}),
            ("GET", "/models"): create_json_response(200, {"models": []}),
            ("POST", "/keys"): create_json_response(201, CREATED_KEY),
            ("GET", "/keys"): create_json_response(200, {"keys": [], "hub_url": self.state.hub_url}),
            ("GET", "/models-bucket"): Response(200, list_objects(OBJECTS), {"Content-Type": "application/xml"}),
            ("PUT", UPLOAD): Response(200),
            ("PUT", COPIED): Response(200),
            ("GET", OUTCOME): self.outcomes.pop(0) if request.path == OUTCOME else Response(404),
        }
        return others.get((request.method, route), create_json_response(404, {}))

    def _open_upload(self) -> Response:
        url = f"{self.endpoint}{UPLOAD}?X-Amz-Expires=9&X-Amz-Signature=a%2Fb"
        return create_json_response(201, {"task_id": "put-task", "upload": {"method": "PUT", "url": url}})


@pytest.fixture
def stack() -> Iterator[FakeStack]:
    stack = FakeStack()

    class Handler(BaseHTTPRequestHandler):
        def serve(self) -> None:
            target = urlsplit(self.path)
            response = stack.respond(
                Request(
                    self.command,
                    target.path,
                    parse_qs(target.query),
                    {name.lower(): value for name, value in self.headers.items()},
                    self.rfile.read(int(self.headers.get("Content-Length", 0))),
                )
            )
            self.send_response(response.status)
            for name, value in {**response.headers, "Content-Length": str(len(response.body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(response.body)

        do_GET = do_POST = do_PUT = serve  # noqa: N815 - names required by the base class

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    with run_server(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        stack.endpoint = f"http://127.0.0.1:{server.server_port}"
        yield stack


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    return write_sample_archive(tmp_path)


@pytest.fixture(autouse=True)
def disable_polling_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local.importing.POLL_INTERVAL", 0)


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (PLANNED, ("PENDING planning", 0, 0)),
        (HALF, ("PENDING transferring 1/3 files 50 %", 50, 100)),
        (DONE, ("DONE 3/3 files 100 % 1.2 kB already in the bucket", 100, 100)),
    ],
)
def test_progress_descriptions(task: dict[str, object], expected: tuple[str, int, int]) -> None:
    assert describe_progress(task) == expected


def test_terminal_shows_the_rate_of_the_api(stack: FakeStack) -> None:
    """The bar would compute another rate: 100 bytes within one poll."""
    measured = {**HALF, "progress": {**HALF["progress"], "bytes_per_second": 80_000_000}}  # type: ignore[dict-item]
    states: Iterator[dict[str, Any]] = iter([PLANNED, HALF, measured, {**DONE, "progress": measured["progress"]}])
    output = io.StringIO()

    follow_task(lambda: next(states), Console(file=output, force_terminal=True, width=120))

    assert set(re.findall(r"[\d.]+ \w*B/s", output.getvalue())) == {"80.0 MB/s"}


@pytest.mark.parametrize("is_terminal", [False, True])
def test_wait_is_shown_once_for_each_error(is_terminal: bool) -> None:
    waiting = {
        "reason": "source-unavailable",
        "detail": "The connection was refused.",
        "since": "2026-11-24T12:03:10Z",
        "attempt": 1,
        "next_attempt": (datetime.now(UTC) + timedelta(seconds=40)).isoformat(),
    }
    waits = {**HALF, "waiting": waiting}
    states: Iterator[dict[str, Any]] = iter([HALF, waits, waits, HALF, DONE])
    output = io.StringIO()
    follow_task(lambda: next(states), Console(file=output, force_terminal=is_terminal, width=160))
    shown = r"waiting for the source since 2026-11-2\d \d\d:\d\d \(The connection was refused\)"
    found = re.findall(shown, output.getvalue())
    assert len(found) == 1
    assert re.search(r"next attempt in (3\d|40) s", output.getvalue())


def test_each_change_is_one_line_without_a_terminal() -> None:
    states: Iterator[dict[str, Any]] = iter([PLANNED, PLANNED, HALF, DONE])
    output = io.StringIO()

    task = follow_task(lambda: next(states), Console(file=output))

    assert task == DONE
    assert output.getvalue().splitlines() == [
        "PENDING planning",
        "PENDING transferring 1/3 files 50 %",
        "DONE 3/3 files 100 % 1.2 kB already in the bucket",
    ]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (BERT, "sample/tiny-bert: ready"),
        ({"name": "a", "status": "IMPORTING"}, "a: importing"),
        ({"name": "b", "status": "FAILED", "error": {"type": "x", "detail": "y.pt: z."}}, "b: failed. y.pt: z."),
        (
            {"name": "b", "status": "FAILED", "error": {"type": "x", "detail": "y.pt: z.", "remedy": "Remove it."}},
            "b: failed. y.pt: z. Remove it.",
        ),
        (SKIPPED, "notes: skipped, missing config.json, tokenizer.json"),
    ],
)
def test_result_descriptions(model: dict[str, Any], expected: str) -> None:
    assert describe_result(model) == expected


def test_archive_is_posted_as_a_form(stack: FakeStack) -> None:
    content = bytes(range(256)) + b"\r\n--\r\n"

    assert ImportApi(stack.state).submit_archive(content, "some models.zip", "team/mine") == "zip-task"

    (request,) = stack.requests
    assert request.query == {"model_name": ["team/mine"]}
    assert request.read_form() == {"file": ("some models.zip", content)}


def test_existing_archive_has_no_task(stack: FakeStack) -> None:
    stack.archive_response = create_json_response(409, {"type": "urn:modelhaul:problem:model-exists"})
    assert ImportApi(stack.state).submit_archive(b"PK", "models.zip", "mine") is None


def test_rejected_archive_raises_the_message_of_the_api(stack: FakeStack) -> None:
    stack.archive_response = create_json_response(
        400, {"title": "Archive rejected", "detail": "a.bin leads outside.", "remedy": "Correct it."}
    )
    with pytest.raises(LocalStackError, match=r"rejected models\.zip: 400 a\.bin leads outside\. Correct it\."):
        ImportApi(stack.state).submit_archive(b"PK", "models.zip", "mine")


def run_import(stack: FakeStack, sample: Path) -> tuple[bool, list[str]]:
    output = io.StringIO()
    is_successful = import_samples(stack.state, sample, Console(file=output))
    return is_successful, output.getvalue().splitlines()


def test_samples_are_imported_one_after_another(stack: FakeStack, sample: Path) -> None:
    is_successful, lines = run_import(stack, sample)

    assert is_successful
    assert lines[:16] == [
        "Importing sample.zip, an archive of two small models",
        "PENDING planning",
        "PENDING transferring 1/3 files 50 %",
        "DONE 3/3 files 100 % 1.2 kB already in the bucket",
        "sample/tiny-bert: ready",
        "notes: skipped, missing config.json, tokenizer.json",
        f"Importing {SAMPLE_MODEL} from the Hub",
        "PENDING planning",
        "DONE 3/3 files 100 % 1.2 kB already in the bucket",
        f"{SAMPLE_MODEL}: ready",
        "Importing samples/model from GitHub",
        "DONE 3/3 files 100 % 1.2 kB already in the bucket",
        "samples/model: ready",
        "Objects in the bucket models-bucket, by prefix:",
        "   1  manifests/",
        "   2  models/huggingface/org/model/0123456…/",
    ]
    assert any("upload/tasks/hub-task" in line for line in lines[16:])
    assert stack.requests[0].read_form() == {"file": ("sample.zip", sample.read_bytes())}
    assert stack.requests[0].query == {"model_name": ["sample"]}
    sent = [(request.method, request.path.rpartition("/")[2]) for request in stack.requests]
    assert sent == [
        ("POST", "local"),
        *[("GET", "zip-task")] * 3,
        ("POST", "huggingface"),
        *[("GET", "hub-task")] * 2,
        ("POST", "github"),
        ("GET", "git-task"),
        ("GET", "models-bucket"),
    ]


def test_existing_archive_is_skipped(stack: FakeStack, sample: Path) -> None:
    stack.archive_response = create_json_response(409, {"type": "urn:modelhaul:problem:model-exists"})

    is_successful, lines = run_import(stack, sample)

    assert is_successful
    assert lines[1] == "Skipped: the model already exists or is being imported (409)."
    assert f"{SAMPLE_MODEL}: ready" in lines


def test_failed_archive_fails_the_run(stack: FakeStack, sample: Path) -> None:
    stack.tasks["zip-task"] = [FAILED]

    is_successful, lines = run_import(stack, sample)

    assert not is_successful
    assert lines[2] == "The import failed: the ZIP is [damaged]. Create it again."
    assert f"{SAMPLE_MODEL}: ready" in lines


def test_github_is_skipped_without_a_sample_repository(stack: FakeStack, sample: Path) -> None:
    output = io.StringIO()
    state = replace(stack.state, sample_repository="")
    assert import_samples(state, sample, Console(file=output))
    assert not [request for request in stack.requests if request.path.endswith("/github")]


def test_failed_repository_fails_the_run(stack: FakeStack, sample: Path) -> None:
    stack.tasks["git-task"] = [FAILED]
    is_successful, _ = run_import(stack, sample)
    assert not is_successful


def test_unavailable_hub_raises_the_message_of_the_api(stack: FakeStack, sample: Path) -> None:
    stack.model_response = create_json_response(503, {"detail": "The Hub is unavailable."})
    with pytest.raises(LocalStackError, match=rf"rejected {SAMPLE_MODEL}: 503 The Hub is unavailable\."):
        run_import(stack, sample)


@pytest.mark.parametrize(
    ("key", "prefix"),
    [
        (f"models/github/team/model/{COMMIT}/a/b.json", "models/github/team/model/0123456…/"),
        (f"models/huggingface/org/model/{COMMIT}-partial-{TASK}/a.json", "models/huggingface/org/model/0123456…/"),
        (f"models/local/team/models/bert/{TASK}/a.json", "models/local/team/models/bert/6f1c9f3…/"),
        (f"manifests/{TASK}.json", "manifests/"),
        (f"staging/{TASK}/a.json", "staging/"),
    ],
)
def test_objects_are_counted_by_model(key: str, prefix: str) -> None:
    assert find_prefix(key) == prefix


def print_lines(state: StackState, sample: Path, task_id: str | None = None) -> list[str]:
    output = io.StringIO()
    print_commands(state, sample, Console(file=output), task_id)
    return output.getvalue().splitlines()


def list_commands(state: StackState, sample: Path, task_id: str | None = None) -> list[str]:
    commands: list[str] = []
    for line in print_lines(state, sample, task_id):
        if line.startswith("   "):
            commands[-1] += f"\n{line}"
        elif line.startswith("  "):
            commands.append(line)
    return commands


def paste(commands: list[str], folder: Path) -> str:
    """Run printed commands in one shell in the folder of the repository, as a user who pastes them does. Returns their
    output.
    """
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    script = "set -e\n" + "\n".join(commands)
    finished = subprocess.run(
        ["sh", "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@needs_curl
@pytest.mark.slow
def test_printed_curl_commands_succeed_in_order(stack: FakeStack, sample: Path, tmp_path: Path) -> None:
    commands = [line for line in list_commands(stack.state, sample, "hub-task") if "modelhaul " not in line]
    commands = [line for line in commands if "hf download" not in line]

    output = paste(commands, tmp_path)

    assert re.findall(r"HTTP/1.0 (\d+)", output) == ["201", "201", "201", "200", "200"]
    hub, github, posted, opened, sent, copied, *outcomes, task, tasks = stack.requests
    assert posted.query == {"model_name": ["by-post"]}
    assert posted.read_form() == {"file": ("sample.zip", sample.read_bytes())}
    assert json.loads(opened.body) == {
        "file_name": "sample.zip",
        "size": sample.stat().st_size,
        "model_name": "by-presigned-url",
        "single_put": True,
    }
    assert (sent.method, sent.path) == ("PUT", UPLOAD)
    assert sent.query == {"X-Amz-Expires": ["9"], "X-Amz-Signature": ["a/b"]}
    assert sent.body == copied.body == sample.read_bytes()
    assert copied.path == COPIED
    assert [request.path for request in outcomes] == [OUTCOME] * 3
    assert json.loads(hub.body) == {"model_tag": "samples/another"}
    assert json.loads(github.body) == {"owner": "samples", "repo_name": "other"}
    assert task.path == f"{API}/upload/tasks/hub-task"
    assert tasks.query == {"source": ["LOCAL"]}


def test_commands_have_no_placeholders(stack: FakeStack, sample: Path) -> None:
    commands = "\n".join(list_commands(replace(stack.state, other_repository=""), sample))
    assert "/upload/github" not in commands
    assert not re.search(r"TASK_ID|READ_KEY|OWNER|None", commands)
    assert "aws " not in commands, "which is not installed"


def test_commands_fit_a_terminal(stack: FakeStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local.importing.ROOT", tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv" / "bin" / "python"))
    folder = tmp_path / ".local" / "second-stack"
    folder.mkdir(parents=True)
    state = replace(stack.state, api_url="http://127.0.0.1:50001/v1", other_model=OTHER_MODEL, incoming_bucket="b" * 40)
    lines = print_lines(state, write_sample_archive(folder), TASK)
    assert [line for line in lines if len(line) > 80] == []


@pytest.mark.slow
def test_printed_client_commands_use_the_stack(stack: FakeStack, sample: Path, tmp_path: Path) -> None:
    commands = list_commands(stack.state, sample)
    kept = [line for line in commands if re.search(r"export|modelhaul (?:ls|env)", line)]

    shown = paste([*kept, "echo $HF_ENDPOINT $HF_TOKEN"], tmp_path)

    assert shown.splitlines()[-1] == f"{stack.state.hub_url} {READ_KEY}"
    listed, created, *_ = stack.requests
    assert (listed.path, created.path) == (f"{API}/models", f"{API}/keys")
    assert json.loads(created.body) == {"name": "my-laptop", "scopes": ["read"]}
