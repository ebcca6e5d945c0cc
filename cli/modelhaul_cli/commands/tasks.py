"""tasks, status, cancel"""

from enum import StrEnum
from typing import Annotated

import typer

from modelhaul_cli.commands.options import ApiKeyFile, ApiUrl, AsJson, Limit, Source, TaskId
from modelhaul_cli.commands.session import open_session
from modelhaul_cli.following import describe_result, describe_task, read_position
from modelhaul_cli.output import format_size


class StatusChoice(StrEnum):
    PENDING = "pending"
    DONE = "done"
    FAILED = "failed"


def list_tasks(
    status: Annotated[StatusChoice | None, typer.Option("--status", help="Only those that are.")] = None,
    source: Source = None,
    limit: Limit = 20,
    api_url: ApiUrl = None,
    api_key_file: ApiKeyFile = None,
    as_json: AsJson = False,
) -> None:
    """List imports, newest first."""
    with open_session(api_url, api_key_file, as_json=as_json) as session:
        filters = {"status": status and status.upper(), "source": source and source.upper()}
        tasks, more = session.api.list_tasks(limit, **filters)
        session.screen.print_document({"tasks": tasks, "more": more})
        rows = []
        for task in tasks:
            position = read_position(task)
            size = format_size(position.total) if position.total else ""
            rows.append(
                [task["id"], task["created_at"], position.stage, size, task["source"].lower(), task["model_tag"]]
            )
        session.screen.show_table(["TASK", "CREATED", "STAGE", "SIZE", "SOURCE", "MODEL"], rows)
        if more:
            session.screen.say("There are more: --limit shows them.")


def show_status(
    task_id: TaskId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Stay until it ends.")] = False,
    api_url: ApiUrl = None,
    api_key_file: ApiKeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Show an import. Ends with 1 if it failed."""
    with open_session(api_url, api_key_file, as_json=as_json) as session:
        if follow:
            session.follower.follow(task_id)
            return
        task = session.api.read_task(task_id)
        session.screen.print_document(task)
        for name, value in describe_task(task):
            session.screen.show(f"{name:<8} {value}")
        if task["task_status"] == "PENDING":
            for model in task.get("models", []):
                session.screen.show(describe_result(model))
        else:
            session.follower.show_end(task)


def cancel_task(
    task_id: TaskId, api_url: ApiUrl = None, api_key_file: ApiKeyFile = None, as_json: AsJson = False
) -> None:
    """Cancel an import: nothing of it stays visible."""
    with open_session(api_url, api_key_file, as_json=as_json) as session:
        session.api.cancel_task(task_id)
        session.screen.print_document({"task_id": task_id, "cancelled": True})
        session.screen.say(f"Cancelled {task_id}.")
