"""ls, show, get, rm"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from modelhaul_cli.client import Json
from modelhaul_cli.commands.options import ApiKeyFile, ApiUrl, AsJson, Limit, ModelId, Parallel, Source
from modelhaul_cli.commands.session import open_session
from modelhaul_cli.downloading import Downloader, read_manifest, select_files
from modelhaul_cli.errors import StoppedError, UsageError
from modelhaul_cli.output import Screen, format_size
from modelhaul_cli.store import ObjectStore


def list_models(
    name: Annotated[str | None, typer.Option("--name", help="Only those with this in their name.")] = None,
    source: Source = None,
    limit: Limit = 20,
    api_url: ApiUrl = None,
    api_key_file: ApiKeyFile = None,
    as_json: AsJson = False,
) -> None:
    """List the models that are here, newest first."""
    with open_session(api_url, api_key_file, as_json=as_json) as session:
        models, more = session.api.list_models(limit, name=name, source=source and source.upper())
        session.screen.print_document({"models": models, "more": more})
        rows = []
        for model in models:
            size = format_size(model["size"])
            source, files = model["source"].lower(), str(model["files"])
            rows.append([model["model_id"], model["created_at"], size, files, source, name_model(model)])
        session.screen.show_table(["MODEL", "CREATED", "SIZE", "FILES", "SOURCE", "NAME"], rows)
        if more:
            session.screen.say("There are more: --limit shows them.")


def name_model(record: Json) -> str:
    part = describe_selection(record)
    return f"{record['name']} (only {part})" if part else str(record["name"])


def describe_selection(record: Json) -> str:
    """Which of the model's files these are, as they were asked for; "" for all."""
    selection = record.get("selection") or {}
    words = [f"--allow {pattern}" for pattern in selection.get("allow_patterns") or []]
    words += [f"--ignore {pattern}" for pattern in selection.get("ignore_patterns") or []]
    weights = selection.get("weights", "all")
    return " ".join([*words, *([f"--weights {weights}"] if weights != "all" else [])])


def show_model(
    model_id: ModelId, api_url: ApiUrl = None, api_key_file: ApiKeyFile = None, as_json: AsJson = False
) -> None:
    """Show a model: where it lies, what was found in it, its files."""
    with open_session(api_url, api_key_file, as_json=as_json) as session:
        record, manifest = read_manifest(session.api, model_id, session.screen.say)
        session.screen.print_document({**record, "manifest": manifest})
        describe_model(session.screen, record, manifest)


def describe_model(screen: Screen, record: Json, manifest: Json) -> None:
    lines = [(key, record.get(key)) for key in ("model_id", "name", "source", "revision", "commit", "location")]
    lines += [("part", describe_selection(record)), ("created", record.get("created_at"))]
    lines.append(("size", format_size(int(record.get("size") or 0))))
    for name, value in lines:
        if value:
            screen.show(f"{name:<9} {value}")
    gate = record.get("gate") or {}
    if gate:
        screen.show(f"{'gate':<9} {gate.get('verdict')}")
    for text in (*gate.get("reasons", []), *gate.get("flags", [])):
        screen.show(f"{'':<9} {text}")
    screen.show("")
    rows = [[file["path"], format_size(file["size"]), file["sha256"]] for file in manifest["files"]]
    screen.show_table(["FILE", "SIZE", "SHA256"], rows)
    for entry in manifest.get("not_followed", []):
        screen.show(f"{entry['path']}  {entry['kind']}, not followed")


def get_files(
    model_id: ModelId,
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="[PATH]...", help="Files or patterns ('*.json'); else all.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="DIR", help="The folder; else one with the model's name, here.")
    ] = None,
    parallel: Parallel = 4,
    api_url: ApiUrl = None,
    api_key_file: ApiKeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Download a model's files and verify them. Cut off, the same command goes on where it was."""
    with open_session(api_url, api_key_file, as_json=as_json) as session:
        record, manifest = read_manifest(session.api, model_id, session.screen.say)
        files = select_files(manifest, paths or [])
        folder = to if to is not None else Path(str(record["name"]).rpartition("/")[2])
        try:
            result = Downloader(session.api, ObjectStore(), session.screen, parallel).download(model_id, files, folder)
        except KeyboardInterrupt:
            raise StoppedError("Stopped downloading", "Run the same command again to go on.") from None
        session.screen.print_document({"folder": str(folder.resolve()), **result})
        kept = f", {result['kept']} were there already" if result["kept"] else ""
        session.screen.show(f"{folder}: {result['fetched']} files, {format_size(result['bytes'])}, verified{kept}")


def remove_model(
    model_id: ModelId,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    api_url: ApiUrl = None,
    api_key_file: ApiKeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Delete a model and its files for good."""
    with open_session(api_url, api_key_file, as_json=as_json) as session:
        if not yes:
            confirm_removal(session.api.read_model(model_id))
        whole = session.api.delete_model(model_id)
        session.screen.print_document({"model_id": model_id, "deleted": True, "in_background": not whole})
        rest = "" if whole else " The rest of its files is being deleted in the background."
        session.screen.say(f"Deleted {model_id}.{rest}")


def confirm_removal(record: Json) -> None:
    """Raises UsageError where nobody can be asked, StoppedError for a no."""
    if not sys.stdin.isatty():
        raise UsageError("Nobody is there to ask", "Without a terminal --yes is needed.")
    question = f"Delete {record['name']} ({format_size(int(record.get('size') or 0))}) and its files for good?"
    try:
        agreed = typer.confirm(question, err=True)
    except typer.Abort:
        agreed = False
    if not agreed:
        raise StoppedError("Nothing was deleted")
