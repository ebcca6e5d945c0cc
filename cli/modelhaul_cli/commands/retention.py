"""The commands `pin`, `unpin` and `retention`."""

from typing import Annotated

import typer

from modelhaul_cli.commands.options import ApiKeyFile, ApiUrl, AsJson, Model
from modelhaul_cli.commands.session import open_session
from modelhaul_cli.lookups import find_model_id
from modelhaul_cli.output import format_size
from modelhaul_cli.tables import format_deletions


def pin_model(
    model: Model,
    reason: Annotated[
        str | None, typer.Option("--reason", help="Why the model must not be deleted. Shown with the model.")
    ] = None,
    api_url: ApiUrl = None,
    api_key_file: ApiKeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Protect a model from deletion, until it is unpinned. Replaces an earlier pin."""
    with open_session(api_url, api_key_file, as_json=as_json) as session:
        model_id = find_model_id(session.api, session.screen, model)
        record = session.api.pin_model(model_id, reason)
        session.screen.print_document(record)
        session.screen.print_status(f"Pinned {record['name']} ({model_id}).")


def unpin_model(model: Model, api_url: ApiUrl = None, api_key_file: ApiKeyFile = None, as_json: AsJson = False) -> None:
    """Let a model be deleted again. No-op if it is not pinned."""
    with open_session(api_url, api_key_file, as_json=as_json) as session:
        model_id = find_model_id(session.api, session.screen, model)
        session.api.unpin_model(model_id)
        session.screen.print_document({"model_id": model_id, "pinned": False})
        session.screen.print_status(f"Unpinned {model_id}.")


def show_retention(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="Maximum number of models.")] = 100,
    api_url: ApiUrl = None,
    api_key_file: ApiKeyFile = None,
    as_json: AsJson = False,
) -> None:
    """List the models that the next daily run of retention would delete, and why. Deletes nothing."""
    with open_session(api_url, api_key_file, as_json=as_json) as session:
        plan = session.api.read_retention(limit)
        session.screen.print_document(plan)
        if plan["models"]:
            session.screen.print_table(*format_deletions(plan["models"]))
        for model in plan["models"]:
            session.screen.print_result(f"{model['model_id']}  {model['reason']}")
        size = format_size(int(plan["size"]))
        noun = "model" if plan["count"] == 1 else "models"
        session.screen.print_status(f"Retention would delete {plan['count']:,} {noun} ({size}).")
        if plan["count"] > len(plan["models"]):
            session.screen.print_status("More models are not shown. Raise --limit to see them.")
        if not plan["complete"]:
            session.screen.print_status("Not all models were examined in the time of a request. There may be more.")
