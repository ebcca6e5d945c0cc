"""The command-line application: commands, help and exit codes."""

from importlib.metadata import version
from typing import Annotated

import typer

from modelhaul_cli.commands import audit, catalog, follow, imports, keys, policies, provenance, retention, tasks, usage
from modelhaul_cli.help_pages import Command, Group

_EPILOG = (
    "Exit codes: 0 success; 1 import failed or other error; 2 invalid usage or configuration; 3 not found; 4 conflict, "
    "such as a model that already exists; 5 access denied; 6 service or network unavailable; 130 interrupted."
)

app = typer.Typer(
    name="modelhaul",
    cls=Group,
    help="Import AI models from the Hugging Face Hub, GitHub and ZIP archives into Amazon S3.",
    epilog=_EPILOG,
    no_args_is_help=True,
    # A traceback with local variables would show the API key.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"modelhaul {version('modelhaul')}")
        raise typer.Exit


@app.callback()
def handle_global_options(
    show_version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=print_version, is_eager=True)
    ] = False,
) -> None:
    """Declare the options of the application itself. The callbacks of the options do the work."""


app.command("hf", cls=Command, rich_help_panel="Import")(imports.import_huggingface)
app.command("github", cls=Command, rich_help_panel="Import")(imports.import_github)
app.command("zip", cls=Command, rich_help_panel="Import")(imports.import_archive)
app.add_typer(follow.app, name="follow", rich_help_panel="Import")
app.command("tasks", cls=Command, rich_help_panel="Tasks")(tasks.list_tasks)
app.command("status", cls=Command, rich_help_panel="Tasks")(tasks.show_status)
app.command("cancel", cls=Command, rich_help_panel="Tasks")(tasks.cancel_task)
app.command("ls", cls=Command, rich_help_panel="Models")(catalog.list_models)
app.command("show", cls=Command, rich_help_panel="Models")(catalog.show_model)
app.command("get", cls=Command, rich_help_panel="Models")(catalog.get_files)
app.command("rm", cls=Command, rich_help_panel="Models")(catalog.delete_model)
app.command("pin", cls=Command, rich_help_panel="Models")(retention.pin_model)
app.command("unpin", cls=Command, rich_help_panel="Models")(retention.unpin_model)
app.command("retention", cls=Command, rich_help_panel="Models")(retention.show_retention)
app.command("verify", cls=Command, rich_help_panel="Models")(provenance.verify_model)
app.command("signature", cls=Command, rich_help_panel="Models")(provenance.get_signature)
app.command("sign", cls=Command, rich_help_panel="Models")(provenance.sign_model)
app.command("bom", cls=Command, rich_help_panel="Models")(provenance.get_bom)
app.command("usage", cls=Command, rich_help_panel="Models")(usage.show_usage)
app.add_typer(policies.app, name="policy", rich_help_panel="Policy")
app.command("audit", cls=Command, rich_help_panel="Administration")(audit.list_entries)
app.add_typer(keys.app, name="keys", rich_help_panel="Hub clients")
app.command("env", cls=Command, rich_help_panel="Hub clients")(keys.print_environment)


def main() -> int:
    """Run the command line and return the exit code of the process."""
    try:
        app()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    return 0
