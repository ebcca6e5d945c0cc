"""Find a model or a task by its ID, the start of its ID, or its name."""

import re
import sys
from collections.abc import Callable, Sequence

from modelhaul_cli.client import ApiClient, Json
from modelhaul_cli.errors import ConflictError, NotFoundError, UsageError
from modelhaul_cli.output import Screen
from modelhaul_cli.tables import format_models, format_name, format_tasks

_ID = re.compile(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}")
_ID_START = re.compile(r"[0-9a-f][0-9a-f-]{3,34}")
_MIN_COMMIT = 4  # characters of a commit that stand for it
# Characters that must be given to delete a model: as many as `modelhaul ls` shows.
_MIN_ID_TO_DELETE = 8
_MIN_COMMIT_TO_DELETE = 7
_ALL = sys.maxsize
_MAX_TASKS = 1000  # the newest tasks, which are searched
_MAX_CANDIDATES = 20
_MAX_NAME = 300  # characters that the API accepts

type Reference = tuple[str, str]
"""The name and the revision of a model or a task. The revision may be ""."""


def find_model_id(api: ApiClient, screen: Screen, text: str, *, to_delete: bool = False) -> str:
    """Return the ID of the model with this ID, start of an ID, name or `name@revision`.

    A name takes precedence over the start of an ID, and a revision over the start of a commit. With `to_delete`, the
    starts must be longer. The API is asked only if the text is not a complete ID. Raises NotFoundError, UsageError if
    several models match.
    """
    if _ID.fullmatch(text.lower()):
        return text.lower()
    name = text.partition("@")[0]
    similar = _list_similar(api, name)
    found = _find_named(similar, text, _read_model, _MIN_COMMIT_TO_DELETE if to_delete else _MIN_COMMIT)
    is_start = _ID_START.fullmatch(text.lower()) and (not to_delete or len(text) >= _MIN_ID_TO_DELETE)
    if not found and is_start:
        found = [model for model in api.list_models(_ALL)[0] if model["model_id"].startswith(text.lower())]
    if not found:
        named = [model for model in similar if model["name"].lower() == name.lower()]
        lengths = (
            f"To delete a model, at least {_MIN_ID_TO_DELETE} characters of its ID or {_MIN_COMMIT_TO_DELETE} of its "
            "commit are required. "
        )
        raise NotFoundError(
            "Model not found",
            f"No imported model has the name or ID {text[:200]!r}.",
            remedy=(lengths if to_delete else "") + _suggest_models(screen, named, similar),
        )
    return _choose(screen, text, found, "model", "model_id", format_models)


def find_task_id(api: ApiClient, screen: Screen, text: str, *, to_cancel: bool = False) -> str:
    """Return the ID of the task with this ID, start of an ID, name or `name@revision`.

    The name is the requested name, the name of an archive's file, or the name of a model that the task imported. Of
    several tasks with the name, the only PENDING one is chosen, else the newest; with `to_cancel`, only a PENDING one.
    Raises as `find_model_id`, and ConflictError if all tasks with the name have ended, but one is to be cancelled.
    """
    if _ID.fullmatch(text.lower()):
        return text.lower()
    tasks, has_more = api.list_tasks(_MAX_TASKS)
    named = _find_named(tasks, text, _read_task) or _find_importing_task(api, text)
    if named:
        return _choose_named_task(screen, text, named, to_cancel=to_cancel)
    found = [task for task in tasks if _ID_START.fullmatch(text.lower()) and task["id"].startswith(text.lower())]
    if not found:
        searched = f" Only the newest {_MAX_TASKS:,} tasks were searched." if has_more else ""
        raise NotFoundError(
            "Task not found",
            f"No task has the ID {text[:200]!r}, was submitted with this name, or imported a model with this name."
            f"{searched}",
            remedy="Use the name as it was submitted, or the name of an archive's file. `modelhaul tasks` lists the "
            "tasks, `modelhaul ls` the imported models.",
        )
    return _choose(screen, text, found, "task", "id", format_tasks)


def _list_similar(api: ApiClient, name: str) -> list[Json]:
    """Return the models whose name contains the text."""
    return api.list_models(_ALL, name=name)[0] if 0 < len(name) <= _MAX_NAME else []


def _find_named(
    records: Sequence[Json], text: str, read_reference: Callable[[Json], Reference], min_commit: int = _MIN_COMMIT
) -> list[Json]:
    """Return the records with the name, or with the name and the revision or a commit that starts with it."""
    name, _, revision = text.partition("@")
    # A file name may contain @.
    found = [record for record in records if read_reference(record)[0].lower() == text.lower()]
    if found or not revision:
        return found
    named = [
        (read_reference(record)[1], str(record.get("commit") or ""), record)
        for record in records
        if read_reference(record)[0].lower() == name.lower()
    ]
    exact = [record for own, commit, record in named if own == revision or commit == revision.lower()]
    if exact or len(revision) < min_commit:
        return exact
    return [record for _, commit, record in named if commit.startswith(revision.lower())]


def _read_model(model: Json) -> Reference:
    return str(model["name"]), str(model.get("revision") or "")


def _read_task(task: Json) -> Reference:
    tag = str(task["model_tag"])
    if task["source"] == "LOCAL":  # a name without a revision
        return tag, ""
    name, _, revision = tag.partition("@")
    return name, revision


def _find_importing_task(api: ApiClient, text: str) -> list[Json]:
    """Return the task that imported the newest model with the name, or an empty list. The name of the model may differ
    from the requested name, and from the name of the archive.
    """
    models = _find_named(_list_similar(api, text.partition("@")[0]), text, _read_model)
    return [api.read_task(models[0]["task_id"])] if models else []


def _choose_named_task(screen: Screen, text: str, named: Sequence[Json], *, to_cancel: bool) -> str:
    """Return the ID of the only PENDING task, else of the newest. `named` are the tasks, newest first."""
    pending = [task for task in named if task["task_status"] == "PENDING"]
    task_id = _choose(screen, text, pending or named[:1], "task", "id", format_tasks)
    if not pending and to_cancel:
        raise ConflictError(
            "Task already ended",
            f"No pending task has the name {text[:200]!r}. The newest task with this name, {task_id}, has ended.",
        )
    if len(named) > 1:
        which = "the only pending one" if pending else "the newest one"
        screen.print_status(f"{len(named)} tasks have the name {text[:200]!r}. Using task {task_id}, {which}.")
    return task_id


def _choose(
    screen: Screen,
    text: str,
    found: Sequence[Json],
    kind: str,
    key: str,
    format_rows: Callable[[Sequence[Json]], tuple[Sequence[str], Sequence[Sequence[str]]]],
) -> str:
    """Return the ID of the only candidate. Raises UsageError, with a list of the candidates, if there are several."""
    if len(found) == 1:
        return str(found[0][key])
    shown = found[:_MAX_CANDIDATES]
    more = f"\n… and {len(found) - len(shown)} more" if len(found) > len(shown) else ""
    raise UsageError(
        f"Ambiguous {kind}",
        f"{len(found)} {kind}s match {text[:200]!r}:\n" + "\n".join(screen.format_table(*format_rows(shown))) + more,
        remedy="Run the command again with one of these IDs.",
        problem={"candidates": [record[key] for record in shown]},
    )


def _suggest_models(screen: Screen, named: Sequence[Json], similar: Sequence[Json]) -> str:
    if named:
        lines = screen.format_table(*format_models(named[:_MAX_CANDIDATES]))
        return "\n".join(("These versions of the model are imported:", *lines))
    names = list(dict.fromkeys(format_name(model) for model in similar))
    hint = f"Similar names: {', '.join(names[:5])}. " if names else ""
    return f"{hint}`modelhaul ls` lists the imported models, `modelhaul tasks` the imports that have not ended."
