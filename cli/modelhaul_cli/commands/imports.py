"""The commands `hf`, `github` and `zip`."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from modelhaul_cli.client import Json
from modelhaul_cli.commands.options import (
    Allow,
    ApiKeyFile,
    ApiUrl,
    AsJson,
    ExistOk,
    Ignore,
    NoWait,
    Parallel,
    Revision,
    Weights,
    WeightsChoice,
)
from modelhaul_cli.commands.session import Session, open_session
from modelhaul_cli.errors import CommandError, ConflictError
from modelhaul_cli.problems import EXISTS, IN_PROGRESS, read_problem_type
from modelhaul_cli.references import read_github, read_huggingface
from modelhaul_cli.store import ObjectStore
from modelhaul_cli.uploader import ArchiveUploader, open_archive


def import_huggingface(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL[@REV]",
            help="Model on the Hub, such as bert-base-uncased or OWNER/NAME, or the URL of its page.",
        ),
    ],
    revision: Revision = None,
    allow: Allow = None,
    ignore: Ignore = None,
    weights: WeightsChoice = None,
    no_wait: NoWait = False,
    exist_ok: ExistOk = False,
    api_url: ApiUrl = None,
    api_key_file: ApiKeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Import a model from the Hugging Face Hub."""
    with open_session(api_url, api_key_file, as_json=as_json) as session:
        reference = read_huggingface(model, revision)
        body = {"model_tag": reference.name, "revision": reference.revision, **build_selection(allow, ignore, weights)}
        run_import(session, lambda: session.api.submit("huggingface", body), no_wait=no_wait, exist_ok=exist_ok)


def import_github(
    repository: Annotated[str, typer.Argument(metavar="OWNER/REPO[@REV]", help="Repository, or the URL of its page.")],
    revision: Revision = None,
    allow: Allow = None,
    ignore: Ignore = None,
    weights: WeightsChoice = None,
    no_wait: NoWait = False,
    exist_ok: ExistOk = False,
    api_url: ApiUrl = None,
    api_key_file: ApiKeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Import a model from a GitHub repository, including Git LFS files."""
    with open_session(api_url, api_key_file, as_json=as_json) as session:
        reference = read_github(repository, revision)
        owner, _, name = reference.name.partition("/")
        body = {
            "owner": owner,
            "repo_name": name,
            "revision": reference.revision,
            **build_selection(allow, ignore, weights),
        }
        run_import(session, lambda: session.api.submit("github", body), no_wait=no_wait, exist_ok=exist_ok)


def import_archive(
    archive: Annotated[
        Path,
        typer.Argument(
            metavar="FILE.zip", help="ZIP archive. Each directory that contains a complete model is imported."
        ),
    ],
    name: Annotated[
        str | None,
        typer.Option(
            "--name", help="Name of the model, or prefix of the names if the archive contains several models."
        ),
    ] = None,
    parallel: Parallel = 4,
    no_wait: NoWait = False,
    api_url: ApiUrl = None,
    api_key_file: ApiKeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Import the models in a ZIP archive. Run the command again to resume an interrupted upload."""
    with open_session(api_url, api_key_file, as_json=as_json) as session:
        opened = open_archive(archive, name)
        uploader = ArchiveUploader(
            session.api, session.configuration.url, ObjectStore(), session.screen, session.follower, parallel
        )
        run_import(session, lambda: uploader.upload(opened), no_wait=no_wait)


def build_selection(allow: list[str] | None, ignore: list[str] | None, weights: Weights | None) -> Json:
    """Return the members of the request body that select files, without unset ones."""
    selection = {"allow_patterns": allow, "ignore_patterns": ignore, "weights": weights and weights.value}
    return {name: value for name, value in selection.items() if value}


def run_import(session: Session, submit: Callable[[], str], *, no_wait: bool, exist_ok: bool | None = None) -> None:
    """Submit an import and follow its task until it ends, unless `no_wait` is set. `exist_ok` is None for a command
    without this option.
    """
    try:
        task_id = submit()
    except ConflictError as conflict:
        running_task_id = handle_conflict(session, conflict, exist_ok=exist_ok)
        if running_task_id is None:
            return
        task_id = running_task_id
    if no_wait:
        session.screen.print_document(session.api.read_task(task_id))
        session.screen.print_result(task_id)
        session.screen.print_status(
            f"To follow the import, run:\n  {session.follower.format_command('status', task_id, '--follow')}"
        )
        return
    session.screen.print_status(f"Task {task_id}")
    session.follower.follow(task_id)


def handle_conflict(session: Session, conflict: ConflictError, *, exist_ok: bool | None) -> str | None:
    """Return the ID of the task that already imports the model, or None if the model exists. Raises the conflict unless
    `exist_ok` is set.
    """
    problem_type = read_problem_type(conflict.problem)
    if problem_type == EXISTS:
        models = [read_record(session, model) for model in conflict.problem.get("models", [])]
        if exist_ok:
            session.screen.print_document({"models": models})
            for model in models:
                session.screen.print_result(format_location(model))
            return None
        conflict.problem["models"] = models
        conflict.remedy = "\n".join((*map(format_location, models), describe_existing_model(len(models), exist_ok)))
    elif problem_type == IN_PROGRESS:
        task_id = str(conflict.problem.get("task_id", ""))
        if exist_ok and task_id:
            session.screen.print_status(f"{conflict.title}. Following that import.")
            return task_id
        if is_withdrawing(session, conflict.problem):
            conflict.remedy = "Import the model again in 30 minutes."
        else:
            command = session.follower.format_command("status", task_id, "--follow")
            conflict.remedy = f"To follow that import, run:\n  {command}"
    raise conflict


def describe_existing_model(count: int, exist_ok: bool | None) -> str:
    remedy = (
        "Use the existing model, or delete it with `modelhaul rm MODEL_ID` and import again."
        if count <= 1
        else "Use the existing models, or delete each of them with `modelhaul rm MODEL_ID` and import again."
    )
    return remedy if exist_ok is None else f"{remedy} To succeed if the model already exists, pass --exist-ok."


def is_withdrawing(session: Session, problem: Json) -> bool:
    """Return whether the import that blocks the model has failed and its published files are being removed. False if
    the record of the model is unavailable.
    """
    return read_record(session, problem).get("status") == "WITHDRAWING"


def read_record(session: Session, model: Json) -> Json:
    """Return the record of a model, which includes its location, or `model` itself if the record is unavailable."""
    try:
        record = session.api.read_model(str(model["model_id"]))
    except (CommandError, KeyError):
        return model
    record.pop("manifest", None)
    return record


def format_location(model: Json) -> str:
    return f"{model['name']}: {model.get('location', 'already exists')} ({model['model_id']})"
