"""The command `audit`."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from modelhaul_cli.client import Json
from modelhaul_cli.commands.options import MORE_RESULTS, ApiKeyFile, ApiUrl, AsJson, Limit
from modelhaul_cli.commands.session import Session, open_session
from modelhaul_cli.errors import NotFoundError, UsageError
from modelhaul_cli.lookups import find_model_id, find_task_id
from modelhaul_cli.problems import read_problem_type

_AGE = re.compile(r"([0-9]{1,5})([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_WHEN = "Age, such as 90m, 12h or 7d, or date or time (default: in UTC), such as 2027-01-31 or 2027-01-31T09:30."


def list_entries(
    action: Annotated[
        str | None,
        typer.Option("--action", metavar="ACTION", help="Filter by action, such as ModelDeleted. See docs/audit.md."),
    ] = None,
    actor: Annotated[
        str | None,
        typer.Option(
            "--actor",
            metavar="ACTOR",
            help="Filter by who did it: as in the JSON output, or arn:aws:sts::ACCOUNT:assumed-role/ROLE for all "
            "sessions of a role.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="MODEL", help="Filter by model: an ID, also of a deleted model, or a name."),
    ] = None,
    task: Annotated[str | None, typer.Option("--task", metavar="TASK", help="Filter by task: an ID or a name.")] = None,
    since: Annotated[str | None, typer.Option("--since", metavar="WHEN", help=f"Start of the period. {_WHEN}")] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="WHEN", help="End of the period, in the form of --since.")
    ] = None,
    limit: Limit = 20,
    api_url: ApiUrl = None,
    api_key_file: ApiKeyFile = None,
    as_json: AsJson = False,
) -> None:
    """List who did what, newest first, in a stack with AuditRetentionDays above 0."""
    now = datetime.now(UTC)
    period = {"since": since and read_time(since, now), "until": until and read_time(until, now)}
    with open_session(api_url, api_key_file, as_json=as_json) as session:
        filters = {
            "action": action,
            "actor": actor,
            "model_id": _find_model(session, model),
            "task_id": _find_task(session, task),
            **period,
        }
        try:
            entries, has_more = session.api.list_audit(limit, **filters)
            is_off = not entries and not session.api.read_audit_retention()
        except NotFoundError as error:
            if read_problem_type(error.problem) != "no-such-route":
                raise
            raise UsageError(
                "The stack has no audit",
                f"{session.configuration.url} has no route for the audit. The stack was deployed by an earlier version "
                "of Modelhaul.",
                remedy="Ask an operator to update the stack.",
            ) from None
        session.screen.print_document({"entries": entries, "more": has_more})
        session.screen.print_table(*format_entries(entries))
        if has_more:
            session.screen.print_status(MORE_RESULTS)
        if is_off:
            session.screen.print_status(
                "The stack does not record actions. Ask an operator to deploy it with AuditRetentionDays above 0."
            )


def read_time(text: str, now: datetime) -> str:
    """Return the time as ISO 8601 with a time zone. Raises UsageError."""
    if age := _AGE.fullmatch(text):
        moment = now - timedelta(**{_UNITS[age[2]]: int(age[1])})
    else:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise UsageError("Invalid time", f"{text[:100]!r} is not a time.", remedy=f"Send one of: {_WHEN}") from None
    return moment.replace(tzinfo=moment.tzinfo or UTC).isoformat(timespec="seconds")


def format_entries(entries: Sequence[Json]) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """Return the head and the rows of a table of entries."""
    rows = [
        [entry["time"], entry["action"], _shorten_actor(entry.get("actor")), describe_target(entry)]
        for entry in entries
    ]
    return ["TIME", "ACTION", "ACTOR", "TARGET"], rows


def describe_target(entry: Json) -> str:
    """Return what the action was done to: a name if there is one, otherwise an ID."""
    detail = entry.get("detail") or {}
    ids = [f"{kind} {entry[f'{kind}_id']}" for kind in ("key", "follow", "task", "model") if entry.get(f"{kind}_id")]
    names = [entry.get("name"), detail.get("archive"), detail.get("requested"), detail.get("location"), *ids, "-"]
    name = next(str(text) for text in names if text)
    commit = entry.get("commit")
    return f"{name} at {commit[:7]}" if commit and entry.get("name") else name


def _shorten_actor(actor: str | None) -> str:
    """Return the actor without the parts of an ARN that all principals of an account have in common."""
    if not actor:
        return "-"
    return actor.rpartition(":")[2] if actor.startswith("arn:") else actor


def _find_model(session: Session, model: str | None) -> str | None:
    # A deleted model can only be named by its whole ID.
    if model is None or _UUID.fullmatch(model):
        return model
    return find_model_id(session.api, session.screen, model)


def _find_task(session: Session, task: str | None) -> str | None:
    if task is None or _UUID.fullmatch(task):
        return task
    return find_task_id(session.api, session.screen, task)
