"""The program: its commands, its help, its exit codes."""

from importlib.metadata import version
from typing import Annotated

import typer

from modelhaul_cli.commands import catalog, importing, tasks

_EPILOG = (
    "Exit codes: 0 done; 1 the import failed; 2 wrong use or configuration; 3 not found; 4 here already, or being "
    "imported; 5 the key is refused, or the source wants access to be granted; 6 the service or the network does not "
    "answer; 130 interrupted."
)

app = typer.Typer(
    name="modelhaul",
    help="Bring AI models from the Hugging Face Hub, GitHub and ZIP archives into S3.",
    epilog=_EPILOG,
    no_args_is_help=True,
    # A trace with local variables would show the API's key.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"modelhaul {version('modelhaul')}")
        raise typer.Exit


@app.callback()
def begin(
    show_version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=print_version, is_eager=True)
    ] = False,
) -> None:
    """Options of the program itself."""


app.command("hf", rich_help_panel="Import")(importing.import_huggingface)
app.command("github", rich_help_panel="Import")(importing.import_github)
app.command("zip", rich_help_panel="Import")(importing.import_archive)
app.command("tasks", rich_help_panel="Imports under way")(tasks.list_tasks)
app.command("status", rich_help_panel="Imports under way")(tasks.show_status)
app.command("cancel", rich_help_panel="Imports under way")(tasks.cancel_task)
app.command("ls", rich_help_panel="Models")(catalog.list_models)
app.command("show", rich_help_panel="Models")(catalog.show_model)
app.command("get", rich_help_panel="Models")(catalog.get_files)
app.command("rm", rich_help_panel="Models")(catalog.remove_model)


def main() -> int:
    """Runs the command line; the process's exit code."""
    try:
        app()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    return 0
