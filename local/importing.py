"""Import one model through the stack's API and show what comes of it."""

import json
import re
import time
from collections.abc import Callable
from typing import Any

import requests
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from local.errors import LocalStackError
from local.stack import CLIENT_CONFIG, SAMPLE_MODEL, StackState, open_session

POLL_SECONDS = 0.3
REQUEST_SECONDS = 30
FAILURE = re.compile(r'"level": ?"(ERROR|CRITICAL)"|\[ERROR\]|Traceback|Error:')

type Task = dict[str, Any]


def say(console: Console, text: str) -> None:
    """Print as it is: no line breaks in addresses, no colours in numbers, no markup in what others wrote."""
    console.print(text, soft_wrap=True, highlight=False, markup=False)


class ImportApi:
    """The routes of the deployed API that an import needs."""

    def __init__(self, state: StackState) -> None:
        self._url = state.api_url
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers["x-api-key"] = state.api_key

    def submit(self, model_tag: str) -> str | None:
        """The new task's id, or None when the stack has the model already (409).

        Raises LocalStackError with the API's own words for any other answer.
        """
        response = self._session.post(
            f"{self._url}/upload/huggingface", json={"model_tag": model_tag}, timeout=REQUEST_SECONDS
        )
        if response.status_code == requests.codes.conflict:
            return None
        if response.status_code != requests.codes.created:
            raise LocalStackError(f"The API refused {model_tag}: {describe_problem(response)}")
        return response.headers["Location"].rpartition("/")[2]

    def read_task(self, task_id: str) -> Task:
        response = self._session.get(f"{self._url}/upload/tasks/{task_id}", timeout=REQUEST_SECONDS)
        if not response.ok:
            raise LocalStackError(f"The API does not show task {task_id}: {describe_problem(response)}")
        task: Task = response.json()
        return task


def describe_problem(response: requests.Response) -> str:
    """The words of an RFC 9457 body, else the body itself."""
    try:
        problem = response.json()
        words = problem.get("detail") or problem.get("title") or json.dumps(problem)
    except (ValueError, AttributeError):
        words = response.text[:500]
    return f"{response.status_code} {words}"


def follow_task(read_task: Callable[[], Task], console: Console) -> Task:
    """Show the task's progress until it ends: a bar on a terminal, a line for each change elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    shown = ""
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        bar_id = bar.add_task("PENDING", total=None)
        while True:
            task = read_task()
            line, done, total = describe_progress(task)
            bar.update(bar_id, description=line, completed=done, total=total or None)
            if not console.is_terminal and line != shown:
                say(console, line)
                shown = line
            if task["task_status"] != "PENDING":
                return task
            time.sleep(POLL_SECONDS)


def describe_progress(task: Task) -> tuple[str, int, int]:
    """Words, bytes done and bytes in all."""
    progress = task.get("progress") or {}
    done, total = int(progress.get("bytes_done", 0)), int(progress.get("bytes_total", 0))
    words = [task["task_status"]]
    if task["task_status"] == "PENDING":
        words.append(str(task.get("stage", "")).lower())
    if total:
        words.append(f"{progress.get('files_done', 0)}/{progress.get('files_total', 0)} files")
        words.append(f"{100 * done // total} %")
    if reused := int(progress.get("bytes_reused", 0)):
        words.append(f"{reused:,} bytes reused")
    return " ".join(word for word in words if word), done, total


def print_objects(state: StackState, console: Console) -> None:
    s3 = open_session().client("s3", endpoint_url=state.aws_endpoint_url, config=CLIENT_CONFIG)
    say(console, f"Bytes and keys in s3://{state.models_bucket}:")
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=state.models_bucket):
        for entry in page.get("Contents", []):
            say(console, f"{entry['Size']:>14,}  {entry['Key']}")


def print_function_errors(state: StackState, console: Console, newest: int = 10) -> None:
    """The functions' own words on what went wrong, from their logs."""
    logs = open_session().client("logs", endpoint_url=state.aws_endpoint_url, config=CLIENT_CONFIG)
    errors = []
    for group in logs.describe_log_groups()["logGroups"]:
        for page in logs.get_paginator("filter_log_events").paginate(logGroupName=group["logGroupName"]):
            errors += [event for event in page["events"] if FAILURE.search(event["message"])]
    errors.sort(key=lambda event: event["timestamp"])
    for event in errors[-newest:]:
        say(console, event["message"].rstrip())


def print_commands(state: StackState, console: Console, task_id: str | None = None) -> None:
    key = f"-H 'x-api-key: {state.api_key}'"
    content_type = "-H 'content-type: application/json'"
    body = json.dumps({"model_tag": SAMPLE_MODEL, "revision": "main"})
    lines = [
        "Import a model from the Hub, then follow the task that Location names:",
        f"  curl -si {state.api_url}/upload/huggingface {key} {content_type} -d '{body}'",
        f"  curl -s {state.api_url}/upload/tasks/{task_id or 'TASK_ID'} {key}",
    ]
    say(console, "\n".join(lines))


def import_sample(state: StackState, console: Console) -> bool:
    """Import the sample model, list the bucket, print the commands. False if the import failed."""
    api = ImportApi(state)
    say(console, f"Importing {SAMPLE_MODEL} through {state.api_url}")
    task_id = api.submit(SAMPLE_MODEL)
    done = True
    if task_id is None:
        say(console, "The stack has this model already (409); nothing to import.")
    else:
        task = follow_task(lambda: api.read_task(task_id), console)
        done = task["task_status"] == "DONE"
        if not done:
            say(console, f"The import failed: {task.get('error_msg')}")
    print_objects(state, console)
    print_commands(state, console, task_id)
    return done
