"""The commands `ls`, `show`, `get` and `rm`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from modelhaul_cli.client import Json
from modelhaul_cli.commands.options import MORE_RESULTS, ApiKeyFile, ApiUrl, AsJson, Limit, Model, Parallel, Source
from modelhaul_cli.commands.provenance import PublicKey, describe_verification, read_model_signature
from modelhaul_cli.commands.session import open_session
from modelhaul_cli.downloader import Downloader, read_manifest, select_files
from modelhaul_cli.errors import AbortedError, UsageError
from modelhaul_cli.lookups import find_model_id
from modelhaul_cli.output import Screen, format_size
from modelhaul_cli.signatures import verify_folder
from modelhaul_cli.store import ObjectStore
from modelhaul_cli.tables import describe_selection, format_models


def list_models(
    name: Annotated[str | None, typer.Option("--name", help="Filter by part of the name.")] = None,
    source: Source = None,
    limit: Limit = 20,
    api_url: ApiUrl = None,
    api_key_file: ApiKeyFile = None,
    as_json: AsJson = False,
) -> None:
    """List models, newest first."""
    with open_session(api_url, api_key_file, as_json=as_json) as session:
        models, has_more = session.api.list_models(limit, name=name, source=source and source.upper())
        session.screen.print_document({"models": models, "more": has_more})
        session.screen.print_table(*format_models(models))
        if has_more:
            session.screen.print_status(MORE_RESULTS)


def show_model(model: Model, api_url: ApiUrl = None, api_key_file: ApiKeyFile = None, as_json: AsJson = False) -> None:
    """Show the location, inspection result and files of a model."""
    with open_session(api_url, api_key_file, as_json=as_json) as session:
        model_id = find_model_id(session.api, session.screen, model)
        record, manifest = read_manifest(session.api, model_id, session.screen.print_status)
        session.screen.print_document({**record, "manifest": manifest})
        print_model(session.screen, record, manifest)


def print_model(screen: Screen, record: Json, manifest: Json) -> None:
    keys = ("model_id", "name", "hub_id", "source", "revision", "commit", "location")
    lines = [(key, record.get(key)) for key in keys]
    lines += [("selection", describe_selection(record)), ("created", record.get("created_at"))]
    lines += [("submitter", record.get("submitted_by")), ("last read", record.get("last_read_on"))]
    pin = record.get("pin") or {}
    if pin:
        texts = (pin["pinned_at"], pin.get("pinned_by") and f"by {pin['pinned_by']}", pin.get("reason"))
        lines.append(("pinned", ", ".join(text for text in texts if text)))
    lines.append(("size", format_size(int(record.get("size") or 0))))
    for name, value in lines:
        if value:
            screen.print_result(f"{name:<9} {value}")
    card = record.get("card") or {}
    if card.get("licenses"):
        screen.print_result(f"{'license':<9} {', '.join(card['licenses'])} (declared)")
    signature = record.get("signature") or {}
    screen.print_result(
        f"{'signed':<9} {signature['signed_at']} with {signature['key_arn']}" if signature else f"{'signed':<9} no"
    )
    gate = record.get("gate") or {}
    if gate:
        screen.print_result(f"{'inspected':<9} {gate.get('verdict')}")
    for text in (*gate.get("reasons", []), *gate.get("flags", [])):
        screen.print_result(f"{'':<9} {text}")
    screen.print_result("")
    rows = [[file["path"], format_size(file["size"]), file["sha256"]] for file in manifest["files"]]
    screen.print_table(["FILE", "SIZE", "SHA256"], rows)
    for entry in manifest.get("not_followed", []):
        screen.print_result(f"{entry['path']}  {entry['kind']}, not imported")


def get_files(
    model: Model,
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PATH]...", help="Paths or patterns, such as '*.json'. Default: all files."),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="DIR", help="Destination directory. Default: a directory named after the model."),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Also verify the signature, and that there are no other files."),
    ] = False,
    public_key: PublicKey = None,
    parallel: Parallel = 4,
    api_url: ApiUrl = None,
    api_key_file: ApiKeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Download the files of a model and verify their checksums. Run the command again to resume."""
    with open_session(api_url, api_key_file, as_json=as_json) as session:
        if paths and verify:
            raise UsageError(
                "--verify requires all files", remedy="Omit the paths: a signature is valid for the whole model."
            )
        if public_key is not None and not verify:
            raise UsageError("--public-key has no effect without --verify", remedy="Add --verify.")
        model_id = find_model_id(session.api, session.screen, model)
        signed = read_model_signature(session.api, model_id, model, public_key) if verify else None
        record, manifest = read_manifest(session.api, model_id, session.screen.print_status)
        files = select_files(manifest, paths or [])
        folder = to if to is not None else Path(str(record["name"]).rpartition("/")[2])
        try:
            result = Downloader(session.api, ObjectStore(), session.screen, parallel).download(model_id, files, folder)
        except KeyboardInterrupt:
            raise AbortedError("Download interrupted", "To resume, run the same command again.") from None
        if signed is not None:
            result["verified_files"] = verify_folder(folder, signed, excluded=None, concurrency=parallel)
        session.screen.print_document({"folder": str(folder.resolve()), **result})
        session.screen.print_result(describe_download(result, folder))
        if signed is not None:
            session.screen.print_result(describe_verification(signed, result["verified_files"]))


def describe_download(result: Json, folder: Path) -> str:
    fetched, kept = result["fetched"], result["kept"]
    size = format_size(result["bytes"])
    text = f"Downloaded and verified {fetched} {'file' if fetched == 1 else 'files'} ({size}) to {folder}."
    if not kept:
        return text
    return f"{text} {kept} {'file was' if kept == 1 else 'files were'} already up to date."


def delete_model(
    model: Model,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Skip the confirmation prompt.")] = False,
    api_url: ApiUrl = None,
    api_key_file: ApiKeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Delete a model and its files permanently."""
    with open_session(api_url, api_key_file, as_json=as_json) as session:
        model_id = find_model_id(session.api, session.screen, model, to_delete=True)
        if not yes:
            confirm_deletion(session.api.read_model(model_id))
        is_complete = session.api.delete_model(model_id)
        session.screen.print_document({"model_id": model_id, "deleted": True, "in_background": not is_complete})
        suffix = "" if is_complete else " The remaining files are being deleted in the background."
        session.screen.print_status(f"Deleted {model_id}.{suffix}")


def confirm_deletion(record: Json) -> None:
    """Prompt for confirmation. Raises UsageError if stdin is not a terminal, AbortedError if the user declines."""
    if not sys.stdin.isatty():
        raise UsageError(
            "Confirmation required, but stdin is not a terminal",
            remedy="Pass --yes to delete the model without confirmation.",
        )
    question = f"Delete {record['name']} ({format_size(int(record.get('size') or 0))}) and its files permanently?"
    try:
        is_confirmed = typer.confirm(question, err=True)
    except typer.Abort:
        is_confirmed = False
    if not is_confirmed:
        raise AbortedError("Cancelled", "Nothing was deleted.")
