"""Import samples through the stack's API and show what comes of them."""

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from local.errors import LocalStackError
from local.sources import SAMPLE_MODEL
from local.stack import CLIENT_CONFIG, CREDENTIALS, ROOT, StackState, open_session

POLL_SECONDS = 0.3
REQUEST_SECONDS = 30
FAILURE = re.compile(r'"level": ?"(ERROR|CRITICAL)"|\[ERROR\]|Traceback|Error:')

type Task = dict[str, Any]


def say(console: Console, text: str) -> None:
    """Print as it is: no line breaks in addresses, no colours in numbers, no markup in what others wrote."""
    console.print(text, soft_wrap=True, highlight=False, markup=False)


class ImportApi:
    """The routes of the deployed API that imports need."""

    def __init__(self, state: StackState) -> None:
        self._url = state.api_url
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers["x-api-key"] = state.api_key

    def submit(self, source: str, model: dict[str, str]) -> str | None:
        """`source` is the route's last part, `model` its body. The new task's id, or None when the stack has the model
        already (409).

        Raises LocalStackError with the API's own words for any other answer.
        """
        response = self._session.post(f"{self._url}/upload/{source}", json=model, timeout=REQUEST_SECONDS)
        if response.status_code == requests.codes.conflict:
            return None
        if response.status_code != requests.codes.created:
            raise LocalStackError(f"The API refused {'/'.join(model.values())}: {describe_problem(response)}")
        return response.headers["Location"].rpartition("/")[2]

    def submit_archive(self, archive: bytes, file_name: str, model_name: str) -> str | None:
        """As `submit`, for a ZIP; None also when the stack has only some of its models."""
        response = self._session.post(
            f"{self._url}/upload/local",
            params={"model_name": model_name},
            files={"file": (file_name, archive, "application/zip")},
            timeout=REQUEST_SECONDS,
        )
        if response.status_code == requests.codes.conflict:
            return None
        if response.status_code != requests.codes.created:
            raise LocalStackError(f"The API refused {file_name}: {describe_problem(response)}")
        return response.links["status"]["url"].rpartition("/")[2]

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


def print_commands(state: StackState, sample: Path, console: Console, task_id: str | None = None) -> None:
    """Lines for a shell in the repository's folder; `sample` is the ZIP that they send."""
    url, key = state.api_url, f"-H 'x-api-key: {state.api_key}'"
    json_type = "-H 'content-type: application/json'"
    path = sample.relative_to(ROOT, walk_up=True)
    upload = json.dumps({"file_name": sample.name, "size": sample.stat().st_size, "model_name": "my-larger-models"})
    model = json.dumps({"model_tag": SAMPLE_MODEL, "revision": "main"})
    credentials = " ".join(f"{name}={value}" for name, value in CREDENTIALS.items())
    copy, endpoint = f"{credentials} aws s3 cp", f"--endpoint-url {state.aws_endpoint_url}"
    bucket, dropped = f"s3://{state.incoming_bucket}", f"incoming/{sample.name}"
    command = Path(sys.executable).with_name("modelhaul").relative_to(ROOT, walk_up=True)
    ask = f"curl -s {url}/upload/local {key} {json_type} -d '{upload}'"
    find_address = """tee /dev/stderr | sed -n 's/.*"url": "\\([^"]*\\)".*/\\1/p'"""
    lines = [
        "Import the models in a ZIP (directories with config.json, tokenizer.json and weights) of up to 4.5 MB:",
        f"  curl -si '{url}/upload/local?model_name=my-models' {key} -F file=@{path}",
        "A larger one, up to 5 GB: ask where to send it (file_name, size in bytes), and send it there:",
        f'  curl -sSi -T {path} "$({ask} | {find_address})"',
        "Any ZIP: drop it into the incoming bucket, and read what became of it:",
        f"  {copy} {path} {bucket}/{dropped} {endpoint}",
        f"  {copy} {bucket}/outcomes/{dropped}.json - {endpoint}",
        "Import a model from the Hub:",
        f"  curl -si {url}/upload/huggingface {key} {json_type} -d '{model}'",
        "Import a model from a repository on GitHub, Git LFS included:",
        f"  curl -si {url}/upload/github {key} {json_type} -d '{json.dumps(name_repository(state))}'",
        "Follow the task that Location or Link names, and list those of ZIPs:",
        f"  curl -s {url}/upload/tasks/{task_id or 'TASK_ID'} {key}",
        f"  curl -s '{url}/upload/tasks?source=LOCAL' {key}",
        "Read and try the API in a browser:",
        f"  {url}/docs",
        "Or all of it by the command line (docs/command-line.md):",
        f"  export MODELHAUL_API_URL={url} MODELHAUL_API_KEY={state.api_key}",
        f"  {command} zip {path} --name by-command-line",
        f"  {command} tasks",
        f"  {command} --help",
    ]
    say(console, "\n".join(lines))


def name_repository(state: StackState) -> dict[str, str]:
    """The body for GitHub's sample, or one to fill in."""
    owner, _, name = (state.sample_repository or "OWNER/REPOSITORY").partition("/")
    return {"owner": owner, "repo_name": name}


def import_samples(state: StackState, sample: Path, console: Console) -> bool:
    """Import the ZIP `sample`, the Hub's sample model and GitHub's, if one is known; list the bucket, print the
    commands. False if an import failed.
    """
    api = ImportApi(state)
    say(console, f"Sending {sample.name} through {state.api_url}/upload/local")
    archive_done, _ = follow(api, api.submit_archive(sample.read_bytes(), sample.name, "sample"), console)
    say(console, f"Importing {SAMPLE_MODEL} through {state.api_url}/upload/huggingface")
    model_done, task_id = follow(api, api.submit("huggingface", {"model_tag": SAMPLE_MODEL}), console)
    if state.sample_repository:
        say(console, f"Importing {state.sample_repository} through {state.api_url}/upload/github")
        repository_done, _ = follow(api, api.submit("github", name_repository(state)), console)
        model_done = model_done and repository_done
    print_objects(state, console)
    print_commands(state, sample, console, task_id)
    return archive_done and model_done


def follow(api: ImportApi, task_id: str | None, console: Console) -> tuple[bool, str | None]:
    """Follow a task to its end, if there is one. (False if it failed, its id)."""
    if task_id is None:
        say(console, "The stack has it already (409); nothing to import.")
        return True, None
    task = follow_task(lambda: api.read_task(task_id), console)
    if task["task_status"] != "DONE":
        say(console, f"The import failed: {task.get('error_msg')}")
        return False, task_id
    for model in task["models"]:
        say(console, describe_result(model))
    return all(model["status"] != "FAILED" for model in task["models"]), task_id


def describe_result(model: dict[str, Any]) -> str:
    """What a task says of a model, or of a directory that is none."""
    if "lacks" in model:
        return f"{model['name']}: {model['status']}, lacks {', '.join(model['lacks'])}"
    if "error" in model:
        return f"{model['name']}: {model['status']}. {model['error']['detail']}"
    return f"{model['name']}: {model.get('location') or model['status']}"
