"""Import the samples through the API of the stack, and print the results."""

import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from local.errors import LocalStackError
from local.sources import SAMPLE_MODEL
from local.stack import CLIENT_CONFIG, ROOT, StackState, open_session
from modelhaul_cli.waiting import describe_next_attempt, describe_waiting

POLL_INTERVAL = 0.3  # seconds
REQUEST_TIMEOUT = 30  # seconds
MODEL_KEY = re.compile(r"(models/.+?/)([0-9a-f]{7})[0-9a-f-]{29,33}(?:-partial-[^/]+)?/")
ERROR_PATTERN = re.compile(r'"level": ?"(ERROR|CRITICAL)"|\[ERROR\]|Traceback|Error:')

type Task = dict[str, Any]


def print_line(console: Console, text: str) -> None:
    """Print text unchanged: no wrapped URLs, no highlighted numbers, no markup in untrusted text."""
    console.print(text, soft_wrap=True, highlight=False, markup=False)


class ImportApi:
    """Client of the import routes of the deployed API."""

    def __init__(self, state: StackState) -> None:
        self._url = state.api_url
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers["x-api-key"] = state.api_key

    def submit(self, source: str, model: dict[str, str]) -> str | None:
        """Submit `model` to the route with the last segment `source`. Returns the task ID, or None if the model already
        exists or is being imported (409).

        Raises LocalStackError with the message and the remedy of the API for any other response.
        """
        response = self._session.post(f"{self._url}/upload/{source}", json=model, timeout=REQUEST_TIMEOUT)
        if response.status_code == requests.codes.conflict:
            return None
        if response.status_code != requests.codes.created:
            raise LocalStackError(f"The API rejected {'/'.join(model.values())}: {describe_problem(response)}")
        return response.headers["Location"].rpartition("/")[2]

    def submit_archive(self, archive: bytes, file_name: str, model_name: str) -> str | None:
        """Submit a ZIP archive. Like `submit`, but returns None if at least one of its models already exists."""
        response = self._session.post(
            f"{self._url}/upload/local",
            params={"model_name": model_name},
            files={"file": (file_name, archive, "application/zip")},
            timeout=REQUEST_TIMEOUT,
        )
        if response.status_code == requests.codes.conflict:
            return None
        if response.status_code != requests.codes.created:
            raise LocalStackError(f"The API rejected {file_name}: {describe_problem(response)}")
        return response.links["status"]["url"].rpartition("/")[2]

    def create_read_key(self, name: str) -> str:
        """Create a read key of the Hub read API, and return it. Raises LocalStackError."""
        response = self._session.post(f"{self._url}/keys", json={"name": name}, timeout=REQUEST_TIMEOUT)
        if response.status_code != requests.codes.created:
            raise LocalStackError(f"Cannot create a read key: {describe_problem(response)}")
        key: str = response.json()["key"]
        return key

    def read_task(self, task_id: str) -> Task:
        response = self._session.get(f"{self._url}/upload/tasks/{task_id}", timeout=REQUEST_TIMEOUT)
        if not response.ok:
            raise LocalStackError(f"Cannot read task {task_id}: {describe_problem(response)}")
        task: Task = response.json()
        return task


def describe_problem(response: requests.Response) -> str:
    """Return the status, and the detail and remedy of the problem details (RFC 9457) or the beginning of the body."""
    try:
        problem = response.json()
        detail = problem.get("detail") or problem.get("title") or json.dumps(problem)
        remedy = problem.get("remedy") or ""
    except (ValueError, AttributeError):
        detail, remedy = response.text[:500], ""
    return f"{response.status_code} {detail} {remedy}".rstrip()


def follow_task(read_task: Callable[[], Task], console: Console) -> Task:
    """Show the progress of a task until it ends: a progress bar on a terminal, or else a line for each change."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TextColumn("{task.fields[rate]}"))
    last_line = last_waiting = ""
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        bar_id = bar.add_task("PENDING", total=None, rate="")
        while True:
            task = read_task()
            line, done, total = describe_progress(task)
            bar.update(bar_id, description=line, completed=done, total=total or None, rate=describe_rate(task))
            waiting = describe_waiting(task["waiting"]) if "waiting" in task else ""
            if waiting not in ("", last_waiting):
                print_line(console, f"{line}, {waiting}, {describe_next_attempt(task['waiting']['next_attempt'])}")
                last_line = line
            last_waiting = waiting
            if not console.is_terminal and line != last_line:
                print_line(console, line)
                last_line = line
            if task["task_status"] != "PENDING":
                return task
            time.sleep(POLL_INTERVAL)


def describe_progress(task: Task) -> tuple[str, int, int]:
    """Return a description, the completed bytes and the total bytes."""
    progress = task.get("progress") or {}
    done, total = int(progress.get("bytes_done", 0)), int(progress.get("bytes_total", 0))
    parts = [task["task_status"]]
    if task["task_status"] == "PENDING":
        parts.append(str(task.get("stage", "")).lower())
    if total:
        parts.append(f"{progress.get('files_done', 0)}/{progress.get('files_total', 0)} files")
        parts.append(f"{100 * done // total} %")
    if reused := int(progress.get("bytes_reused", 0)):
        parts.append(f"{decimal(reused)} already in the bucket")
    return " ".join(part for part in parts if part), done, total


def describe_rate(task: Task) -> str:
    """Return the rate that the API has measured, the time of the next attempt if the task waits, or "".

    A progress bar cannot measure the rate: `bytes_done` increases only when a function stores its progress.
    """
    if "waiting" in task:
        return describe_next_attempt(task["waiting"]["next_attempt"])
    rate = (task.get("progress") or {}).get("bytes_per_second")
    return f"{decimal(int(rate))}/s" if rate else ""


def print_objects(state: StackState, console: Console) -> None:
    """Print the number of objects with each prefix: of each model, and of the manifests."""
    s3 = open_session().client("s3", endpoint_url=state.aws_endpoint_url, config=CLIENT_CONFIG)
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=state.models_bucket)
    keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
    print_line(console, f"Objects in the bucket {state.models_bucket}, by prefix:")
    for prefix, count in sorted(Counter(map(find_prefix, keys)).items()):
        print_line(console, f"{count:>4}  {prefix}")


def find_prefix(key: str) -> str:
    """Return the prefix of the model that an object belongs to, with a shortened commit or task ID, or `manifests/`."""
    model = MODEL_KEY.match(key)
    return f"{model[1]}{model[2]}…/" if model else key.partition("/")[0] + "/"


def print_function_errors(state: StackState, console: Console, count: int = 10) -> None:
    """Print the latest `count` errors from the logs of the functions."""
    logs = open_session().client("logs", endpoint_url=state.aws_endpoint_url, config=CLIENT_CONFIG)
    errors = []
    for group in logs.describe_log_groups()["logGroups"]:
        for page in logs.get_paginator("filter_log_events").paginate(logGroupName=group["logGroupName"]):
            errors += [event for event in page["events"] if ERROR_PATTERN.search(event["message"])]
    errors.sort(key=lambda event: event["timestamp"])
    for event in errors[-count:]:
        print_line(console, event["message"].rstrip())


def print_commands(state: StackState, sample: Path, console: Console, task_id: str | None = None) -> None:
    """Print shell commands that succeed in this order, in the folder of the repository, and fit a terminal with 80
    columns. A command starts with two spaces, and its other lines with more. `sample` is the ZIP archive that the
    commands import. `task_id` is a task to read, if there is one.
    """
    key = '-H "x-api-key: $MODELHAUL_API_KEY"'
    archive = sample.relative_to(ROOT, walk_up=True)
    folder = archive.parent
    programs = Path(sys.executable).parent.relative_to(ROOT, walk_up=True)
    text = rf"""
Commands to try in another terminal, in the folder of the repository.

Set the URLs and the key of the stack, and add its programs to the PATH:
  export MODELHAUL_API_URL={state.api_url}
  export MODELHAUL_API_KEY={state.api_key}
  INCOMING={state.aws_endpoint_url}/{state.incoming_bucket}
  export PATH="$PWD/{programs}:$PATH"

Use the command line (docs/command-line.md). With --exist-ok, a model that was
imported before is not an error:
  modelhaul hf {SAMPLE_MODEL} --exist-ok
  modelhaul zip {archive} --name my-models
  modelhaul ls
  modelhaul show my-models/tiny-bert
  modelhaul get my-models/tiny-bert --to {folder}/tiny-bert

Read models with a client of the Hugging Face Hub, such as hf or transformers:
  export HF_TOKEN=$(modelhaul keys create my-laptop)
  eval "$(modelhaul env)"
  hf download {SAMPLE_MODEL} \
    --local-dir {folder}/downloaded

Watch and cancel imports in a browser, in the widget of the CloudWatch
dashboard (docs/console.md): {state.console_url}

Use the API. Its reference, for a browser: {state.api_url}/docs

Import a model from the Hugging Face Hub. The Location in the response is the
path of the task that imports the model:
  curl -sSi $MODELHAUL_API_URL/upload/huggingface \
    {key} \
    -d '{json.dumps({"model_tag": state.other_model})}'
"""
    if state.other_repository:
        text += rf"""
Import a model from a GitHub repository, including Git LFS files:
  curl -sSi $MODELHAUL_API_URL/upload/github \
    {key} \
    -d '{json.dumps(build_github_request(state.other_repository))}'
"""
    text += rf"""
Import a ZIP archive of up to 4.5 MB. Each directory with config.json,
tokenizer.json and weights is a model:
  curl -sSi "$MODELHAUL_API_URL/upload/local?model_name=by-post" \
    {key} \
    -F file=@{archive}

Import a ZIP archive of up to 5 GB: request an upload, with the size of the file
in bytes, and send the file to the presigned URL in the response:
  curl -sS $MODELHAUL_API_URL/upload/local \
    {key} \
    -o {folder}/upload.json \
    -d '{{"file_name": "{sample.name}", "size": {sample.stat().st_size},
         "model_name": "by-presigned-url", "single_put": true}}'
  curl -sSi -T {archive} \
    "$(sed 's/.*"url": *"\([^"]*\)".*/\1/' {folder}/upload.json)"

Import a ZIP archive of any size: copy it to the incoming bucket, and wait until
the outcome, a JSON file in this bucket, says that the import has ended:
  curl -sSi -T {archive} $INCOMING/incoming/copied.zip
  until curl -sf $INCOMING/outcomes/incoming/copied.zip.json \
    | grep -E 'task_status": "(DONE|FAILED)'; do sleep 1; done
"""
    if task_id:
        text += rf"""
Read the task that imported {SAMPLE_MODEL}:
  curl -sS {key} \
    $MODELHAUL_API_URL/upload/tasks/{task_id} \
    | python -m json.tool
"""
    text += rf"""
List the tasks that import ZIP archives:
  curl -sS "$MODELHAUL_API_URL/upload/tasks?source=LOCAL" \
    {key} | python -m json.tool
"""
    print_line(console, text)


def build_github_request(repository: str) -> dict[str, str]:
    """`repository`: OWNER/NAME."""
    owner, _, name = repository.partition("/")
    return {"owner": owner, "repo_name": name}


def import_samples(state: StackState, sample: Path, console: Console) -> bool:
    """Import the sample archive, the sample model of the Hub and the sample repository of GitHub, if there is one. Then
    list the bucket and print commands to try. Returns False if an import failed.
    """
    api = ImportApi(state)
    print_line(console, f"Importing {sample.name}, an archive of two small models")
    is_archive_done, _ = follow(api, api.submit_archive(sample.read_bytes(), sample.name, "sample"), console)
    print_line(console, f"Importing {SAMPLE_MODEL} from the Hub")
    is_model_done, task_id = follow(api, api.submit("huggingface", {"model_tag": SAMPLE_MODEL}), console)
    if state.sample_repository:
        print_line(console, f"Importing {state.sample_repository} from GitHub")
        is_repository_done, _ = follow(
            api, api.submit("github", build_github_request(state.sample_repository)), console
        )
        is_model_done = is_model_done and is_repository_done
    print_objects(state, console)
    print_commands(state, sample, console, task_id)
    return is_archive_done and is_model_done


def follow(api: ImportApi, task_id: str | None, console: Console) -> tuple[bool, str | None]:
    """Follow a task until it ends, if there is one. Returns whether it succeeded, and its ID."""
    if task_id is None:
        print_line(console, "Skipped: the model already exists or is being imported (409).")
        return True, None
    task = follow_task(lambda: api.read_task(task_id), console)
    if task["task_status"] != "DONE":
        remedy = (task.get("error") or {}).get("remedy") or ""
        print_line(console, f"The import failed: {task.get('error_msg')} {remedy}".rstrip())
        return False, task_id
    for model in task["models"]:
        print_line(console, describe_result(model))
    return all(model["status"] != "FAILED" for model in task["models"]), task_id


def describe_result(model: dict[str, Any]) -> str:
    """Return one line for a model of a task, or for a directory that is not a model."""
    if "lacks" in model:
        return f"{model['name']}: skipped, missing {', '.join(model['lacks'])}"
    status = str(model["status"]).lower()
    if "error" in model:
        return f"{model['name']}: {status}. {model['error']['detail']} {model['error'].get('remedy') or ''}".rstrip()
    return f"{model['name']}: {status}"
