"""hf, github, zip"""

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
from modelhaul_cli.problems import EXISTS, IN_PROGRESS, read_kind
from modelhaul_cli.references import read_github, read_huggingface
from modelhaul_cli.store import ObjectStore
from modelhaul_cli.uploading import ArchiveUploader, find_archive


def import_huggingface(
    model: Annotated[str, typer.Argument(metavar="MODEL[@REV]", help="As bert-base-uncased or OWNER/NAME.")],
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
        body = {"model_tag": reference.name, "revision": reference.revision, **choose(allow, ignore, weights)}
        run_import(session, lambda: session.api.submit("huggingface", body), no_wait=no_wait, exist_ok=exist_ok)


def import_github(
    repository: Annotated[str, typer.Argument(metavar="OWNER/REPO[@REV]", help="Or the address of its page.")],
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
    """Import a model from a repository on GitHub, Git LFS included."""
    with open_session(api_url, api_key_file, as_json=as_json) as session:
        reference = read_github(repository, revision)
        owner, _, name = reference.name.partition("/")
        body = {"owner": owner, "repo_name": name, "revision": reference.revision, **choose(allow, ignore, weights)}
        run_import(session, lambda: session.api.submit("github", body), no_wait=no_wait, exist_ok=exist_ok)


def import_archive(
    archive: Annotated[Path, typer.Argument(metavar="FILE.zip", help="Each directory in it that is a model is one.")],
    name: Annotated[
        str | None, typer.Option("--name", help="The model's name; with several, what goes before each one's.")
    ] = None,
    parallel: Parallel = 4,
    no_wait: NoWait = False,
    api_url: ApiUrl = None,
    api_key_file: ApiKeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Import the models in a ZIP archive of any size. Cut off, the same command goes on where it was."""
    with open_session(api_url, api_key_file, as_json=as_json) as session:
        found = find_archive(archive, name)
        uploader = ArchiveUploader(
            session.api, session.configuration.url, ObjectStore(), session.screen, session.follower, parallel
        )
        run_import(session, lambda: uploader.send(found), no_wait=no_wait)


def choose(allow: list[str] | None, ignore: list[str] | None, weights: Weights | None) -> Json:
    """The body's part that says which files; what is not chosen is not sent."""
    chosen = {"allow_patterns": allow, "ignore_patterns": ignore, "weights": weights and weights.value}
    return {name: value for name, value in chosen.items() if value}


def run_import(session: Session, submit: Callable[[], str], *, no_wait: bool, exist_ok: bool = False) -> None:
    """Submits, and follows the task to its end unless told otherwise."""
    try:
        task_id = submit()
    except ConflictError as conflict:
        running = meet_conflict(session, conflict, exist_ok=exist_ok)
        if running is None:
            return
        task_id = running
    if no_wait:
        session.screen.print_document(session.api.read_task(task_id))
        session.screen.show(task_id)
        session.screen.say(f"Accepted. To follow it:\n  {session.follower.name_command('status', task_id, '--follow')}")
        return
    session.screen.say(f"Task {task_id}")
    session.follower.follow(task_id)


def meet_conflict(session: Session, conflict: ConflictError, *, exist_ok: bool) -> str | None:
    """The id of the task that brings the model already; None if it is here. Raises the conflict unless `exist_ok`."""
    kind = read_kind(conflict.problem)
    if kind == EXISTS:
        models = [find_record(session, model) for model in conflict.problem.get("models", [])]
        if exist_ok:
            session.screen.print_document({"models": models})
            for model in models:
                session.screen.show(describe_place(model))
            return None
        conflict.problem["models"] = models
        conflict.remedy = "\n".join(describe_place(model) for model in models)
    elif kind == IN_PROGRESS:
        task_id = str(conflict.problem.get("task_id", ""))
        if exist_ok and task_id:
            session.screen.say(f"{conflict.title}: following that import.")
            return task_id
        conflict.remedy = f"To follow it:\n  {session.follower.name_command('status', task_id, '--follow')}"
    raise conflict


def find_record(session: Session, model: Json) -> Json:
    """A model's record, which says where it lies; what the conflict says of it, if the record cannot be had."""
    try:
        record = session.api.read_model(str(model["model_id"]))
    except CommandError:
        return model
    record.pop("manifest", None)
    return record


def describe_place(model: Json) -> str:
    return f"{model['name']}: {model.get('location', 'here already')} ({model['model_id']})"
