"""Follows a task to its end, and says how it ended."""

import time
from collections.abc import Sequence
from typing import Any

from modelhaul_cli.client import ApiClient, Json
from modelhaul_cli.errors import ImportFailedError, ModelsFailedError, StoppedError, UnavailableError
from modelhaul_cli.output import Screen, format_size
from modelhaul_cli.progress import Position, open_display

FIRST_PAUSE = 0.5  # seconds between two looks; grows
MAX_PAUSE = 5.0
_GROWTH = 1.2
SILENCE = 600.0  # seconds without an answer after which following is given up


class Follower:
    """`options` repeat on a command line how this API is found."""

    def __init__(self, api: ApiClient, screen: Screen, options: Sequence[str]) -> None:
        self._api = api
        self._screen = screen
        self._options = options

    def follow(self, task_id: str) -> None:
        """To the end. Raises ImportFailedError if that is FAILED, StoppedError at Ctrl-C."""
        try:
            task = self._watch(task_id)
        except KeyboardInterrupt:
            raise StoppedError(
                "Stopped watching",
                f"The import goes on as task {task_id}. To come back to it:\n"
                f"  {self.name_command('status', task_id, '--follow')}\n"
                f"To stop it:\n  {self.name_command('cancel', task_id)}",
            ) from None
        except UnavailableError as error:
            error.remedy = (
                f"The import goes on as task {task_id}. To come back to it:\n"
                f"  {self.name_command('status', task_id, '--follow')}"
            )
            raise
        self.show_end(task)

    def name_command(self, *words: str) -> str:
        return " ".join(("modelhaul", *words, *self._options))

    def show_end(self, task: Json) -> None:
        """The results of a task that has ended. Raises ImportFailedError if it FAILED, ModelsFailedError if some of its
        models did.
        """
        if task["task_status"] == "FAILED":
            raise ImportFailedError(task)
        models = task.get("models", [])
        for model in models:
            self._screen.show(describe_result(model))
        failed = sum(model["status"] == "FAILED" for model in models)
        if failed:
            raise ModelsFailedError(failed, sum("lacks" not in model for model in models))

    def _watch(self, task_id: str) -> Json:
        seen: Json = {}
        pause = FIRST_PAUSE
        answered_at = time.monotonic()
        with open_display(self._screen) as display:
            while True:
                try:
                    task = self._api.read_task(task_id)
                    answered_at = time.monotonic()
                except UnavailableError as error:
                    if not error.transient or time.monotonic() - answered_at > SILENCE:
                        raise
                    self._screen.say(f"{error.title}. {error.detail} The import goes on; looking again.")
                    task = seen
                if task != seen:
                    self._screen.print_event(task)
                    display.update(read_position(task))
                    seen = task
                if task and task["task_status"] != "PENDING":
                    return task
                time.sleep(pause)
                pause = min(pause * _GROWTH, MAX_PAUSE)


def read_position(task: Json) -> Position:
    progress: dict[str, Any] = task.get("progress") or {}
    files_total = int(progress.get("files_total") or 0)
    stage = str(task.get("stage") or task["task_status"]).lower()
    return Position(
        stage,
        f"{progress.get('files_done', 0)}/{files_total} files" if files_total else "",
        int(progress.get("bytes_done") or 0),
        int(progress.get("bytes_total") or 0),
        progress.get("bytes_per_second"),
        progress.get("seconds_left"),
    )


def describe_result(model: Json) -> str:
    """One line for a model of a task, or for a directory of an archive that is none."""
    if "lacks" in model:
        return f"{model['name']}: skipped, lacks {', '.join(model['lacks'])}"
    where = model.get("location") or str(model["status"]).lower()
    if "error" in model:
        return f"{model['name']}: {where}. {model['error']['detail']}"
    if "name" not in model:  # it was deleted since
        return f"{model['model_id']}: {where}"
    return f"{model['name']}: {where} ({model['model_id']})"


def describe_task(task: Json) -> list[tuple[str, str]]:
    """Names and values of what a person wants to know of a task."""
    position = read_position(task)
    lines = [
        ("task", str(task["id"])),
        ("model", str(task["model_tag"])),
        ("source", str(task["source"]).lower()),
        ("status", f"{task['task_status']}, {position.words}"),
        ("created", str(task["created_at"])),
        ("updated", str(task["updated_at"])),
    ]
    if position.total:
        reused = int((task.get("progress") or {}).get("bytes_reused") or 0)
        copied = f", {format_size(reused)} of it was here already" if reused else ""
        lines.append(("bytes", f"{format_size(position.done)} of {format_size(position.total)}{copied}"))
    return lines
