"""The command `usage`."""

from typing import Annotated

import typer

from modelhaul_cli.client import Json
from modelhaul_cli.commands.options import ApiKeyFile, ApiUrl, AsJson
from modelhaul_cli.commands.session import open_session
from modelhaul_cli.errors import NotFoundError, UsageError
from modelhaul_cli.output import Screen, format_size
from modelhaul_cli.problems import read_problem_type
from modelhaul_cli.tables import SOURCES, format_used_models

_MAX_DAYS = 3650


def show_usage(
    unread_days: Annotated[
        int,
        typer.Option(
            "--unread-days",
            min=1,
            max=_MAX_DAYS,
            metavar="N",
            help="Show models not read for this many days.",
        ),
    ] = 30,
    api_url: ApiUrl = None,
    api_key_file: ApiKeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Show how much storage the models use, and how much is left of the quota."""
    with open_session(api_url, api_key_file, as_json=as_json) as session:
        try:
            usage = session.api.read_usage(unread_days)
        except NotFoundError as error:
            if read_problem_type(error.problem) != "no-such-route":
                raise
            raise UsageError(
                "The stack does not report its use of storage",
                f"{session.configuration.url} has no route for it. The stack was deployed by an earlier version of "
                "Modelhaul.",
                remedy="Ask an operator to update the stack.",
            ) from None
        session.screen.print_document(usage)
        print_usage(session.screen, usage)
        if not usage["is_complete"]:
            session.screen.print_status("There are too many models to count all of them. The newest are counted.")


def print_usage(screen: Screen, usage: Json) -> None:
    at_least = "" if usage["is_complete"] else "at least "
    quota = usage["quota"]
    lines = [
        ("models", f"{at_least}{usage['models']:,} with {format_size(usage['size'])}"),
        ("reused", f"{at_least}{format_size(usage['bytes_reused'])} were stored already, and were not transferred"),
        ("quota", describe_quota(quota, at_least) if quota is not None else "none"),
    ]
    for name, value in lines:
        screen.print_result(f"{name:<9} {value}")
    screen.print_result("")
    rows = [[SOURCES[row["source"]], *_format_total(row)] for row in usage["by_source"]]
    screen.print_table(["SOURCE", "MODELS", "SIZE", "REUSED"], rows)
    if usage["by_name"]:
        screen.print_result(f"\nNames with most bytes ({len(usage['by_name']):,} of {usage['names']:,}):")
        rows = [[*_format_total(row), SOURCES[row["source"]], row["name"]] for row in usage["by_name"]]
        screen.print_table(["MODELS", "SIZE", "REUSED", "SOURCE", "NAME"], rows)
        screen.print_result("\nLargest models:")
        screen.print_table(*format_used_models(usage["largest"]))
    unread = usage["unread"]
    screen.print_result(
        f"\nNot read for {unread['days']:,} days: {at_least}{unread['models']:,} "
        f"{'model' if unread['models'] == 1 else 'models'} with {format_size(unread['size'])}"
    )
    if unread["largest"]:
        screen.print_table(*format_used_models(unread["largest"]))


def describe_quota(quota: Json, at_least: str) -> str:
    at_most = "at most " if at_least else ""
    text = f"{at_least}{format_size(quota['stored'])} of {format_size(quota['size'])} used"
    if quota["reserved"]:
        text += f", {format_size(quota['reserved'])} reserved by imports in progress"
    return f"{text}, {at_most}{format_size(quota['left'])} left"


def _format_total(total: Json) -> list[str]:
    return [f"{total['models']:,}", format_size(total["size"]), format_size(total["bytes_reused"])]
