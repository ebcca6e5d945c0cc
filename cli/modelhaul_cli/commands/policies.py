"""The commands `policy show`, `policy test` and `policy check`."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from modelhaul_cli.client import Json
from modelhaul_cli.commands.imports import build_selection
from modelhaul_cli.commands.options import (
    Allow,
    ApiKeyFile,
    ApiUrl,
    AsJson,
    Ignore,
    Revision,
    SourceChoice,
    WeightsChoice,
)
from modelhaul_cli.commands.session import Session, open_session
from modelhaul_cli.errors import ExitCode, NotFoundError, UsageError
from modelhaul_cli.help_pages import Command, Group
from modelhaul_cli.output import Screen
from modelhaul_cli.problems import read_problem_type
from modelhaul_cli.references import DEFAULT_REVISION, Reference, read_github, read_huggingface

_MAX_DOCUMENT = 256 * 1024  # bytes
_DECISIONS = {
    "allow": "The import would be allowed",
    "deny": "The import would be denied",
    "undecided": "The decision is open until the import knows more",
}
_STDIN = Path("-")

app = typer.Typer(cls=Group, no_args_is_help=True, help="Show, check and test the rules for imports.")

_Document = Annotated[Path, typer.Argument(metavar="FILE", help="Policy document, or - for standard input.")]


@app.command("show", cls=Command)
def show_policy(api_url: ApiUrl = None, api_key_file: ApiKeyFile = None, as_json: AsJson = False) -> None:
    """Print the policy of the stack, and where it is stored."""
    with _open_policy_session(api_url, api_key_file, as_json=as_json) as session:
        policy = session.api.read_policy()
        session.screen.print_document(policy)
        if policy["location"] is None:
            session.screen.print_result("The stack has no policy. Every import is allowed.")
            return
        session.screen.print_result(json.dumps(policy["document"], indent=2, ensure_ascii=False))
        session.screen.print_status(
            f"Location: {policy['location']}\nVersion: {policy['version']}\nSHA-256: {policy['digest']}"
        )


@app.command("test", cls=Command)
def try_policy(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME[@REV]",
            help="Model on the Hub, repository on GitHub, as for `hf` and `github`, or name of a model in an archive.",
        ),
    ],
    source: Annotated[
        SourceChoice, typer.Option("--source", help="Source of the model. `local` means ZIP archives.")
    ] = SourceChoice.HUGGINGFACE,
    revision: Revision = None,
    allow: Allow = None,
    ignore: Ignore = None,
    weights: WeightsChoice = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", metavar="FILE", help="Test this document instead of the policy of the stack."),
    ] = None,
    api_url: ApiUrl = None,
    api_key_file: ApiKeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Show what the policy would decide about an import. Nothing is imported. Exit code 1: it would be denied."""
    with _open_policy_session(api_url, api_key_file, as_json=as_json) as session:
        reference = _read_reference(source, name, revision)
        body: Json = {
            "source": source.name,
            "name": reference.name,
            "revision": reference.revision,
            **build_selection(allow, ignore, weights),
            **({"document": _read_document(file)} if file is not None else {}),
        }
        trial = session.api.test_policy(body)
        session.screen.print_document(trial)
        _print_trial(session.screen, trial)
        if trial["decision"] == "deny":
            raise typer.Exit(ExitCode.FAILED)


@app.command("check", cls=Command)
def check_policy(
    file: _Document, api_url: ApiUrl = None, api_key_file: ApiKeyFile = None, as_json: AsJson = False
) -> None:
    """Check that a policy document is valid."""
    with _open_policy_session(api_url, api_key_file, as_json=as_json) as session:
        summary = session.api.check_policy(_read_document(file))
        session.screen.print_document(summary)
        session.screen.print_result(
            f"Valid: {summary['rules']} rules for imports, {summary['retention_rules']} rules for retention, default "
            f"{summary['default']}. SHA-256: {summary['digest']}"
        )


@contextmanager
def _open_policy_session(api_url: str | None, api_key_file: Path | None, *, as_json: bool) -> Iterator[Session]:
    """Connect to the API, as `open_session` does."""
    with open_session(api_url, api_key_file, as_json=as_json) as session:
        try:
            yield session
        except NotFoundError as error:
            if read_problem_type(error.problem) != "no-such-route":
                raise
            raise UsageError(
                "The stack knows no policies",
                f"{session.configuration.url} has no routes for policies.",
                remedy="Ask an operator to update the stack.",
            ) from None


def _read_reference(source: SourceChoice, name: str, revision: str | None) -> Reference:
    match source:
        case SourceChoice.HUGGINGFACE:
            return read_huggingface(name, revision)
        case SourceChoice.GITHUB:
            return read_github(name, revision)
    return Reference(name, DEFAULT_REVISION)


def _read_document(path: Path) -> str:
    """Return the text of a document. Raises UsageError."""
    try:
        content = sys.stdin.buffer.read(_MAX_DOCUMENT + 1) if path == _STDIN else _read_file(path)
        text = content.decode()
    except OSError as error:
        raise UsageError("The policy document cannot be read", f"{path}: {error.strerror or error}.") from None
    except UnicodeDecodeError as error:
        raise UsageError("Invalid policy document", f"{path} is not UTF-8 (byte {error.start}).") from None
    if len(content) > _MAX_DOCUMENT:
        raise UsageError("Invalid policy document", f"{path} has more than {_MAX_DOCUMENT:,} bytes (256 KiB).")
    return text


def _read_file(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MAX_DOCUMENT + 1)


def _print_trial(screen: Screen, trial: dict[str, Any]) -> None:
    version = f" at commit {trial['commit'][:12]}" if trial["commit"] else ""
    by = f" by rule {trial['rule_id']}" if trial["rule_id"] else ""
    screen.print_result(f"{trial['name']}{version}")
    screen.print_result(f"{_DECISIONS[trial['decision']]}{by}.")
    if trial["reason"]:
        screen.print_result(f"Reason: {trial['reason']}")
    if trial["matched"]:
        screen.print_result(f"Matches: {'; '.join(trial['matched'])}")
    for warning in trial["warnings"]:
        screen.print_result(f"Warning by rule {warning['rule_id']}: {warning['reason']}")
    if trial["waits_for"]:
        screen.print_result(f"Not known yet: {', '.join(trial['waits_for'])}")
    if trial["rules"]:
        rows = [
            [
                rule["rule_id"],
                rule["effect"],
                "yes" if rule["matches"] else f"depends on {', '.join(rule['waits_for'])}",
                "; ".join(rule["matched"]),
            ]
            for rule in trial["rules"]
        ]
        screen.print_result("")
        screen.print_table(["RULE", "EFFECT", "MATCHES", "VALUES"], rows)
