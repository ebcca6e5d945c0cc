"""The commands `follow add`, `list`, `show`, `change`, `pause`, `resume` and `delete`."""

import re
from typing import Annotated, Any

import typer

from modelhaul_cli.client import Json
from modelhaul_cli.commands.imports import build_selection
from modelhaul_cli.commands.options import Allow, ApiKeyFile, ApiUrl, AsJson, Ignore, WeightsChoice
from modelhaul_cli.commands.session import Session, open_session
from modelhaul_cli.errors import UsageError
from modelhaul_cli.help_pages import Command, Group
from modelhaul_cli.references import read_github, read_huggingface
from modelhaul_cli.tables import describe_selection, format_follows

_ID = re.compile(r"[0-9a-f-]{4,36}")
_MIN_SHOWN = 8  # characters of an ID in messages

app = typer.Typer(cls=Group, no_args_is_help=True, help="Follow branches and tags: import their commits as they move.")

FollowId = Annotated[
    str,
    typer.Argument(
        metavar="FOLLOW", help="ID of a follow, as shown by `modelhaul follow list`. The start of an ID is enough."
    ),
]
Interval = Annotated[
    str,
    typer.Option(
        "--every", metavar="INTERVAL", help="How often to check: hours, days or weeks such as 6h, 1d or 2w (1h to 4w)."
    ),
]


@app.command("add", cls=Command)
def add_follow(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL[@REV]", help="Model on the Hub, OWNER/REPO on GitHub, or the URL of its page."),
    ],
    every: Interval = "1d",
    github: Annotated[bool, typer.Option("--github", help="Follow a GitHub repository instead of the Hub.")] = False,
    revision: Annotated[
        str | None,
        typer.Option("--revision", metavar="REV", help="Branch or tag. You can also append @REV. Default: main."),
    ] = None,
    allow: Allow = None,
    ignore: Ignore = None,
    weights: WeightsChoice = None,
    keep_newest: Annotated[
        int | None,
        typer.Option(
            "--keep-newest",
            min=1,
            metavar="N",
            help="Number of imported commits to keep; older ones are deleted. Default: no limit.",
        ),
    ] = None,
    api_url: ApiUrl = None,
    api_key_file: ApiKeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Follow a branch or a tag. Its current commit is imported first."""
    with open_session(api_url, api_key_file, as_json=as_json) as session:
        reference = read_github(model, revision) if github else read_huggingface(model, revision)
        body: Json = {
            "source": "GITHUB" if github else "HUGGINGFACE",
            "name": reference.name,
            "revision": reference.revision,
            "every": every,
        }
        if selection := build_selection(allow, ignore, weights):
            body["selection"] = selection
        if keep_newest is not None:
            body["keep_newest"] = keep_newest
        created = session.api.create_follow(body)
        session.screen.print_document(created)
        session.screen.print_result(created["follow_id"])
        session.screen.print_status(
            f"Following {created['name']}@{created['revision']}, checked every {created['every']}. The first check "
            f"starts now.\nTo see its result, run: modelhaul follow show {created['follow_id'][:_MIN_SHOWN]}"
        )


@app.command("list", cls=Command)
def list_follows(api_url: ApiUrl = None, api_key_file: ApiKeyFile = None, as_json: AsJson = False) -> None:
    """List follows, newest first."""
    with open_session(api_url, api_key_file, as_json=as_json) as session:
        listed = session.api.list_follows()
        session.screen.print_document(listed)
        session.screen.print_table(*format_follows(listed["follows"]))


@app.command("show", cls=Command)
def show_follow(
    follow: FollowId, api_url: ApiUrl = None, api_key_file: ApiKeyFile = None, as_json: AsJson = False
) -> None:
    """Show a follow with its last import and its last error."""
    with open_session(api_url, api_key_file, as_json=as_json) as session:
        found = session.api.show_follow(find_follow_id(session, follow))
        session.screen.print_document(found)
        session.screen.print_result("\n".join(describe_follow(found)))


@app.command("change", cls=Command)
def change_follow(
    follow: FollowId,
    every: Annotated[
        str | None, typer.Option("--every", metavar="INTERVAL", help="How often to check, such as 6h, 1d or 2w.")
    ] = None,
    keep_newest: Annotated[
        int | None,
        typer.Option(
            "--keep-newest",
            min=0,
            metavar="N",
            help="Number of imported commits to keep; older ones are deleted. 0: no limit.",
        ),
    ] = None,
    api_url: ApiUrl = None,
    api_key_file: ApiKeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Change the interval of a follow, or how many versions it keeps."""
    with open_session(api_url, api_key_file, as_json=as_json) as session:
        body: Json = {} if every is None else {"every": every}
        if keep_newest is not None:
            body["keep_newest"] = keep_newest or None
        if not body:
            raise UsageError("No change", "Use --every, --keep-newest or both.")
        _change(session, follow, body, "Changed")


@app.command("pause", cls=Command)
def pause_follow(
    follow: FollowId, api_url: ApiUrl = None, api_key_file: ApiKeyFile = None, as_json: AsJson = False
) -> None:
    """Pause a follow. It is not checked until it is resumed."""
    with open_session(api_url, api_key_file, as_json=as_json) as session:
        _change(session, follow, {"paused": True}, "Paused")


@app.command("resume", cls=Command)
def resume_follow(
    follow: FollowId, api_url: ApiUrl = None, api_key_file: ApiKeyFile = None, as_json: AsJson = False
) -> None:
    """Resume a follow and check it now. An import that failed, or whose model was deleted, is submitted again."""
    with open_session(api_url, api_key_file, as_json=as_json) as session:
        _change(session, follow, {"paused": False}, "Resumed")


@app.command("delete", cls=Command)
def delete_follow(
    follow: FollowId, api_url: ApiUrl = None, api_key_file: ApiKeyFile = None, as_json: AsJson = False
) -> None:
    """Delete a follow. Its imported models remain."""
    with open_session(api_url, api_key_file, as_json=as_json) as session:
        follow_id = find_follow_id(session, follow)
        session.api.delete_follow(follow_id)
        session.screen.print_document({"deleted": [follow_id]})
        session.screen.print_status(f"Deleted {follow_id}.")


def _change(session: Session, follow: str, body: Json, done: str) -> None:
    changed = session.api.change_follow(find_follow_id(session, follow), body)
    session.screen.print_document(changed)
    next_check = f" Next check: {changed['next_check']}." if changed["next_check"] else ""
    session.screen.print_status(
        f"{done} {changed['follow_id'][:_MIN_SHOWN]} ({changed['name']}@{changed['revision']}).{next_check}"
    )


def find_follow_id(session: Session, text: str) -> str:
    """Return the ID that starts with the text. Raises UsageError if there is none, or more than one."""
    if not _ID.fullmatch(text):
        raise UsageError(
            "Invalid follow ID",
            f"{text[:100]!r} is not the ID of a follow, or at least 4 characters of its start.",
            remedy="`modelhaul follow list` lists the IDs.",
        )
    found = [f["follow_id"] for f in session.api.list_follows()["follows"] if f["follow_id"].startswith(text)]
    if len(found) > 1:
        raise UsageError("Ambiguous follow ID", f"{len(found)} IDs start with {text!r}. Use more characters.")
    return found[0] if found else text  # the API returns the error


def describe_follow(follow: dict[str, Any]) -> list[str]:
    """Return the lines that show a follow."""
    found, error = follow["last_import"], follow["last_error"]
    selection = describe_selection(follow)
    lines = [
        f"Follow       {follow['follow_id']}",
        f"Model        {follow['name']}@{follow['revision']} ({follow['source']})",
        *([f"Files        {selection}"] if selection else []),
        *([f"Renamed      formerly {', '.join(follow['former_names'])}"] if follow.get("former_names") else []),
        f"Status       {follow['status']}, checked every {follow['every']}",
        f"Keep newest  {follow['keep_newest'] or 'all'}",
        f"Last check   {follow['checked_at'] or 'never'}",
        f"Next check   {follow['next_check'] or 'none'}"
        + (" (end of the source's rate limit)" if follow["waits_for_rate_limit"] else ""),
    ]
    if found:
        rewritten = ", the branch was rewritten" if found["rewritten"] else ""
        lines += [
            f"Last import  {found['commit']} at {found['found_at']}{rewritten}",
            f"Model ID     {found['model_id']} ({found['status']})",
            *([f"Task         {found['task_id']}"] if found["task_id"] else []),
            *([f"Import error {found['error']['type']}: {found['error']['detail']}"] if "error" in found else []),
        ]
    if error:
        lines += [
            f"Error        {error['type']}: {error['detail']} ({follow['consecutive_failures']} failed checks)",
            *([f"Remedy       {error['remedy']}"] if error.get("remedy") else []),
        ]
    return lines
