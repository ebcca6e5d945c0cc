"""Follow a task until it ends, and print its outcome."""

import time
from collections.abc import Sequence
from typing import Any

from modelhaul_cli.client import ApiClient, Json
from modelhaul_cli.errors import (
    AbortedError,
    ImportFailedError,
    ModelsFailedError,
    UnavailableError,
    UnreachableError,
)
from modelhaul_cli.output import Screen, format_size
from modelhaul_cli.progress import ProgressState, open_display
from modelhaul_cli.remedies import find_task_remedy
from modelhaul_cli.waiting import describe_next_attempt, describe_waiting

INITIAL_POLL_INTERVAL = 0.5  # seconds; grows with each poll
MAX_POLL_INTERVAL = 2.0
POLL_BACKOFF = 1.2
UNAVAILABLE_TIMEOUT = 600.0  # seconds with only error responses after which following fails


class Follower:
    """`options` are the command-line options that select the API, for commands in messages."""

    def __init__(self, api: ApiClient, screen: Screen, options: Sequence[str]) -> None:
        self._api = api
        self._screen = screen
        self._options = options

    def follow(self, task_id: str) -> None:
        """Follow a task until it ends. Raises ImportFailedError if it ends FAILED, AbortedError on Ctrl-C."""
        try:
            task = self._poll(task_id)
        except KeyboardInterrupt:
            raise AbortedError(
                "Stopped following",
                f"{self._describe_running_task(task_id)}\n"
                f"To cancel it, run:\n  {self.format_command('cancel', task_id)}",
            ) from None
        except UnavailableError as error:
            error.remedy = self._describe_running_task(task_id)
            raise
        self.print_outcome(task)

    def format_command(self, *arguments: str) -> str:
        return " ".join(("modelhaul", *arguments, *self._options))

    def _describe_running_task(self, task_id: str) -> str:
        command = self.format_command("status", task_id, "--follow")
        return f"Task {task_id} continues in the background. To follow it again, run:\n  {command}"

    def print_outcome(self, task: Json) -> None:
        """Print the results of a task that has ended. Raises ImportFailedError if the task failed, ModelsFailedError if
        some of its models failed.
        """
        if task["task_status"] == "FAILED":
            raise ImportFailedError(task)
        models = task.get("models", [])
        for model in models:
            self._screen.print_result(describe_result(model))
            for warning in describe_warnings(model):
                self._screen.print_result(f"  {warning}")
        failed = sum(model["status"] == "FAILED" for model in models)
        if failed:
            raise ModelsFailedError(failed, sum("lacks" not in model for model in models))

    def _poll(self, task_id: str) -> Json:
        last_task: Json = {}
        interval = INITIAL_POLL_INTERVAL
        last_response_at = time.monotonic()
        with open_display(self._screen) as display:
            while True:
                try:
                    task = self._api.read_task(task_id, patient=True)
                    last_response_at = time.monotonic()
                except UnreachableError:
                    raise
                except UnavailableError as error:
                    if not error.transient or time.monotonic() - last_response_at > UNAVAILABLE_TIMEOUT:
                        raise
                    self._screen.print_status(f"{error.title}. {error.detail} The import continues. Retrying.")
                    task = last_task
                if task != last_task:
                    self._screen.print_event(task)
                    display.update(read_progress(task))
                    last_task = task
                if task and task["task_status"] != "PENDING":
                    return task
                time.sleep(interval)
                interval = min(interval * POLL_BACKOFF, MAX_POLL_INTERVAL)


def read_progress(task: Json) -> ProgressState:
    progress: dict[str, Any] = task.get("progress") or {}
    files_total = int(progress.get("files_total") or 0)
    stage = str(task.get("stage") or task["task_status"]).lower()
    waiting = task.get("waiting")
    return ProgressState(
        stage,
        f"{progress.get('files_done', 0)}/{files_total} files" if files_total else "",
        int(progress.get("bytes_done") or 0),
        int(progress.get("bytes_total") or 0),
        progress.get("bytes_per_second"),
        progress.get("seconds_left"),
        describe_waiting(waiting) if waiting else "",
        str(waiting["next_attempt"]) if waiting else "",
    )


def describe_result(model: Json) -> str:
    """Return one line for a model of a task, or for a directory of an archive that is not a model."""
    if "lacks" in model:
        return f"{model['name']}: skipped, missing {', '.join(model['lacks'])}"
    where = model.get("location") or str(model["status"]).lower()
    if "error" in model:
        error = model["error"]
        return f"{model['name']}: {where}. {error['detail']} {find_task_remedy(error)}".rstrip()
    if "name" not in model:  # deleted in the meantime
        return f"{model['model_id']}: {where}"
    return f"{model['name']}: {where} ({model['model_id']})"


def describe_warnings(model: Json) -> list[str]:
    """Return one line for each warning of the import policy about a model."""
    return [
        f"warning: {found['reason']} (rule {found['rule_id']}{_describe_matched(found)})"
        for found in (model.get("policy") or {}).get("warnings", [])
    ]


def _describe_matched(found: Json) -> str:
    return f": {'; '.join(found['matched'])}" if found.get("matched") else ""


# Labels and fields of a task that name a caller. API Gateway does not pass one for each request.
_CALLERS = {"sent by": "submitted_by", "ended by": "cancelled_by"}


def describe_task(task: Json) -> list[tuple[str, str]]:
    """Return labels and values for the human-readable status of a task."""
    progress = read_progress(task)
    lines = [
        ("task", str(task["id"])),
        ("model", str(task["model_tag"])),
        ("source", str(task["source"]).lower()),
        ("status", f"{task['task_status']}, {progress.label}"),
        ("created", str(task["created_at"])),
        ("updated", str(task["updated_at"])),
        *((label, str(task[key])) for label, key in _CALLERS.items() if key in task),
    ]
    if progress.total:
        reused = int((task.get("progress") or {}).get("bytes_reused") or 0)
        suffix = f", {format_size(reused)} reused" if reused else ""
        lines.append(("bytes", f"{format_size(progress.done)} of {format_size(progress.total)}{suffix}"))
    if progress.waiting:
        lines.append(("waits", f"{progress.waiting}, {describe_next_attempt(progress.next_attempt)}"))
    return lines
