"""The commands `tasks`, `status` and `cancel`."""

from enum import StrEnum
from typing import Annotated

import typer

from modelhaul_cli.commands.options import MORE_RESULTS, ApiKeyFile, ApiUrl, AsJson, Limit, Source, Task
from modelhaul_cli.commands.session import open_session
from modelhaul_cli.follower import describe_result, describe_task, describe_warnings
from modelhaul_cli.lookups import find_task_id
from modelhaul_cli.tables import format_tasks


class StatusChoice(StrEnum):
    PENDING = "pending"
    DONE = "done"
    FAILED = "failed"


def list_tasks(
    status: Annotated[
        StatusChoice | None, typer.Option("--status", help="Filter by status. `failed` includes cancelled tasks.")
    ] = None,
    source: Source = None,
    limit: Limit = 20,
    api_url: ApiUrl = None,
    api_key_file: ApiKeyFile = None,
    as_json: AsJson = False,
) -> None:
    """List import tasks, newest first."""
    with open_session(api_url, api_key_file, as_json=as_json) as session:
        filters = {"status": status and status.upper(), "source": source and source.upper()}
        tasks, has_more = session.api.list_tasks(limit, **filters)
        session.screen.print_document({"tasks": tasks, "more": has_more})
        session.screen.print_table(*format_tasks(tasks))
        if has_more:
            session.screen.print_status(MORE_RESULTS)


def show_status(
    task: Task,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow the import until it ends.")] = False,
    api_url: ApiUrl = None,
    api_key_file: ApiKeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Show the status of an import. Exits with 1 if the import failed."""
    with open_session(api_url, api_key_file, as_json=as_json) as session:
        task_id = find_task_id(session.api, session.screen, task)
        if follow:
            session.follower.follow(task_id)
            return
        shown = session.api.read_task(task_id)
        session.screen.print_document(shown)
        for name, value in describe_task(shown):
            session.screen.print_result(f"{name:<8} {value}")
        if shown["task_status"] == "PENDING":
            for model in shown.get("models", []):
                session.screen.print_result(describe_result(model))
                for warning in describe_warnings(model):
                    session.screen.print_result(f"  {warning}")
        else:
            session.follower.print_outcome(shown)


def cancel_task(task: Task, api_url: ApiUrl = None, api_key_file: ApiKeyFile = None, as_json: AsJson = False) -> None:
    """Cancel a running import. Its models are not published."""
    with open_session(api_url, api_key_file, as_json=as_json) as session:
        task_id = find_task_id(session.api, session.screen, task, to_cancel=True)
        session.api.cancel_task(task_id)
        session.screen.print_document({"task_id": task_id, "cancelled": True})
        session.screen.print_status(f"Cancelled {task_id}.")
