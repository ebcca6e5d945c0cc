"""The commands `keys create`, `keys ls`, `keys rm` and `env`."""

import os
import re
import shlex
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from modelhaul_cli.client import Json
from modelhaul_cli.commands.options import ApiKeyFile, ApiUrl, AsJson
from modelhaul_cli.commands.session import Session, open_session
from modelhaul_cli.errors import NotFoundError, UsageError
from modelhaul_cli.help_pages import Command, Group
from modelhaul_cli.problems import read_problem_type
from modelhaul_cli.urls import check_url

_KEY = re.compile(r"hf_[A-Za-z0-9]{37,253}")
_KEY_ID = re.compile(r"[0-9a-f]{16}")
_ALL = "*"  # the pattern of all names
_MAX_SHOWN = 2  # patterns in a list of keys
_DAYS = re.compile(r"([0-9]{1,4})d")

app = typer.Typer(
    cls=Group, no_args_is_help=True, help="Create, list and delete the keys with which Hub clients read models."
)


class ScopeChoice(StrEnum):
    READ = "read"
    IMPORT = "import"


@contextmanager
def open_hub_session(api_url: str | None, api_key_file: Path | None, *, as_json: bool) -> Iterator[Session]:
    """Connect to the API of a stack with a Hub read API, as `open_session` does."""
    with open_session(api_url, api_key_file, as_json=as_json) as session:
        try:
            yield session
        except NotFoundError as error:
            if read_problem_type(error.problem) != "no-such-route":
                raise
            raise UsageError(
                "The stack has no Hub read API",
                f"{session.configuration.url} has no routes for keys. The stack was deployed with HubAccess=OFF or by "
                "an earlier version of Modelhaul.",
                remedy="Ask an operator to deploy the stack with HubAccess=KEYS.",
            ) from None


@app.command("create", cls=Command)
def create_key(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Any name, such as that of the person or cluster that uses the key.")
    ],
    scopes: Annotated[
        list[ScopeChoice] | None,
        typer.Option(
            "--scope",
            help="Permission of the key. Repeatable. `read` is always included. `import` lets a request for a model "
            "that is not imported start its import, if the stack allows that.",
        ),
    ] = None,
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--names",
            metavar="PATTERN",
            help="Pattern of the names of models that the key can read and import, such as 'google-bert/*'. "
            "Repeatable. For requests with the key, other models do not exist. Default: all models.",
        ),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(
            "--expires",
            metavar="WHEN",
            help="Number of days, such as 30d, or date (00:00 UTC), such as 2027-01-01. Default: never.",
        ),
    ] = None,
    api_url: ApiUrl = None,
    api_key_file: ApiKeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Create a read key and print it. It is not shown again."""
    with open_hub_session(api_url, api_key_file, as_json=as_json) as session:
        body: Json = {"name": name, "scopes": [scope.value for scope in scopes or [ScopeChoice.READ]]}
        if names:
            body["names"] = names
        if expires is not None:
            body["expires_at"] = read_expiry(expires, datetime.now(UTC))
        created = session.api.create_key(body)
        session.screen.print_document(created)
        session.screen.print_result(created["key"])
        session.screen.print_status(
            f"Created the key {created['name']} with the ID {created['key_id']}.\n"
            f"Models: {describe_names(created)}. Scopes: {' '.join(created['scopes'])}. "
            f"Expires: {created['expires_at'] or 'never'}. "
            "The key is not shown again."
        )
        for pattern in find_bare_names(names or []):
            session.screen.print_status(
                f"The pattern {pattern} matches only a model with exactly this name. The pattern for the models of an "
                f"owner is '{pattern}/*'."
            )


def describe_names(key: Json, *, shown: int | None = None) -> str:
    """Return which models the key can read: `all`, or patterns of names, at most `shown`, and the number of others.

    Stacks of earlier versions return no names.
    """
    names: list[str] = key.get("names") or [_ALL]
    if _ALL in names:
        return "all"
    first = names[:shown]
    return " ".join(first if len(first) == len(names) else [*first, f"+{len(names) - len(first)}"])


def find_bare_names(names: Iterable[str]) -> list[str]:
    """Return the patterns that look like the name of an owner. Almost all models have a name with a slash."""
    return [name for name in names if not set(name) & {"/", _ALL}]


def read_expiry(text: str, now: datetime) -> str:
    """Return the time as ISO 8601 with a time zone. Raises UsageError."""
    if days := _DAYS.fullmatch(text):
        moment = now + timedelta(days=int(days[1]))
    else:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise UsageError(
                "Invalid expiry",
                f"{text[:100]!r} is neither a number of days, such as 30d, nor a date, such as 2027-01-01.",
            ) from None
    return moment.replace(tzinfo=moment.tzinfo or UTC).isoformat(timespec="seconds")


@app.command("ls", cls=Command)
def list_keys(api_url: ApiUrl = None, api_key_file: ApiKeyFile = None, as_json: AsJson = False) -> None:
    """List read keys, newest first. An expired key is listed for 30 days."""
    with open_hub_session(api_url, api_key_file, as_json=as_json) as session:
        listed = session.api.list_keys()
        session.screen.print_document(listed)
        rows = [
            [
                key["key_id"],
                key["created_at"],
                "expired" if key["expired"] else key["expires_at"] or "never",
                key["last_used_on"] or "never",
                " ".join(key["scopes"]),
                describe_names(key, shown=_MAX_SHOWN),
                key["name"],
            ]
            for key in listed["keys"]
        ]
        session.screen.print_table(["KEY ID", "CREATED", "EXPIRES", "LAST USED", "SCOPES", "MODELS", "NAME"], rows)


@app.command("rm", cls=Command)
def delete_keys(
    key_ids: Annotated[
        list[str], typer.Argument(metavar="KEY_ID...", help="Key IDs, as shown by `modelhaul keys ls`.")
    ],
    api_url: ApiUrl = None,
    api_key_file: ApiKeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Delete read keys. Requests with them are rejected after at most a minute."""
    with open_hub_session(api_url, api_key_file, as_json=as_json) as session:
        if not all(_KEY_ID.fullmatch(key_id) for key_id in key_ids):
            # The message does not repeat the value, which may be a key.
            raise UsageError(
                "Invalid key ID",
                "A key ID has 16 hexadecimal digits. It is not the key.",
                remedy="`modelhaul keys ls` lists the key IDs.",
            )
        for key_id in key_ids:
            session.api.delete_key(key_id)
            session.screen.print_status(f"Deleted {key_id}.")
        session.screen.print_document({"deleted": key_ids})


def print_environment(
    key: Annotated[
        str | None,
        typer.Option(
            "--key",
            metavar="KEY",
            help="Read key for HF_TOKEN, or - to read it from stdin, as in `modelhaul keys create NAME | modelhaul env "
            "--key -`. Other users of this computer can see a key on the command line.",
        ),
    ] = None,
    api_url: ApiUrl = None,
    api_key_file: ApiKeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Print the shell command that connects Hub clients to the stack: eval "$(modelhaul env)"."""
    with open_hub_session(api_url, api_key_file, as_json=as_json) as session:
        variables = {"HF_ENDPOINT": find_hub_url(session)}
        if key is not None:
            variables["HF_TOKEN"] = read_key(key)
        session.screen.print_document(variables)
        assignments = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
        session.screen.print_result(f"export {assignments}")
        if key is None and not _KEY.fullmatch(os.environ.get("HF_TOKEN", "")):
            session.screen.print_status(
                "HF_TOKEN must be a read key of this stack. To create one, run:\n"
                "  export HF_TOKEN=$(modelhaul keys create NAME)"
            )


def find_hub_url(session: Session) -> str:
    """Return the URL of the Hub read API: that of a local stack, or the one that the API returns."""
    url = session.configuration.hub_url or str(session.api.list_keys().get("hub_url"))
    return check_url(url, "URL of the Hub read API")


def read_key(text: str) -> str:
    """Return the key on the command line, or in stdin for "-". Raises UsageError."""
    key = sys.stdin.read().strip() if text == "-" else text
    if not _KEY.fullmatch(key):
        raise UsageError(
            "Invalid read key",
            "A read key starts with hf_, followed by 37 to 253 letters and digits.",
            remedy="Create one with `modelhaul keys create NAME`.",
        )
    return key
