"""Find a model or a task by its ID, the start of its ID, or its name."""

import re
import sys
from collections.abc import Callable, Sequence

from modelhaul_cli.client import ApiClient, Json
from modelhaul_cli.errors import NotFoundError, UsageError
from modelhaul_cli.output import Screen
from modelhaul_cli.tables import format_models, format_name, format_tasks

_ID = re.compile(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}")
_ID_START = re.compile(r"[0-9a-f][0-9a-f-]{3,34}")
_MIN_COMMIT = 4  # characters of a commit that stand for it
_ALL = sys.maxsize
_MAX_CANDIDATES = 20
_MAX_NAME = 300  # characters that the API accepts


def find_model_id(api: ApiClient, screen: Screen, text: str) -> str:
    """Return the ID of the model with this ID, start of an ID, name or `name@revision`.

    The API is asked only if the text is not a complete ID. Raises NotFoundError, UsageError if several models match.
    """
    if _ID.fullmatch(text.lower()):
        return text.lower()
    name, _, revision = text.partition("@")
    similar = api.list_models(_ALL, name=name)[0] if 0 < len(name) <= _MAX_NAME else []
    named = [model for model in similar if model["name"].lower() == name.lower()]
    found = [model for model in named if _has_revision(model, model.get("revision"), revision)]
    if not found and _ID_START.fullmatch(text.lower()):
        found = [model for model in api.list_models(_ALL)[0] if model["model_id"].startswith(text.lower())]
    if not found:
        raise NotFoundError(
            "Model not found",
            f"No imported model has the name or ID {text[:200]!r}.",
            remedy=_suggest_models(screen, named, similar),
        )
    return _choose(screen, text, found, "model", "model_id", format_models)


def find_task_id(api: ApiClient, screen: Screen, text: str) -> str:
    """Return the ID of the task with this ID, start of an ID, name, or `name@revision`. Raises as `find_model_id`."""
    if _ID.fullmatch(text.lower()):
        return text.lower()
    tasks = api.list_tasks(_ALL)[0]
    found = [task for task in tasks if _has_tag(task, text)]
    if not found and _ID_START.fullmatch(text.lower()):
        found = [task for task in tasks if task["id"].startswith(text.lower())]
    if not found:
        raise NotFoundError(
            "Task not found",
            f"No task has the ID {text[:200]!r} or imports a model with this name.",
            remedy="`modelhaul tasks` lists the tasks, `modelhaul ls` the imported models.",
        )
    return _choose(screen, text, found, "task", "id", format_tasks)


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


def _has_revision(record: Json, own: str | None, revision: str) -> bool:
    """Return whether the record is of this revision, or of a commit that starts with it. "" matches any revision."""
    is_commit = len(revision) >= _MIN_COMMIT and str(record.get("commit") or "").startswith(revision.lower())
    return not revision or own == revision or is_commit


def _has_tag(task: Json, text: str) -> bool:
    tag = str(task["model_tag"])
    if task["source"] == "LOCAL":  # a name without a revision
        return tag.lower() == text.lower()
    (name, _, own), (wanted, _, revision) = tag.partition("@"), text.partition("@")
    return name.lower() == wanted.lower() and _has_revision(task, own, revision)


def _suggest_models(screen: Screen, named: Sequence[Json], similar: Sequence[Json]) -> str:
    if named:
        lines = screen.format_table(*format_models(named[:_MAX_CANDIDATES]))
        return "\n".join(("These versions of the model are imported:", *lines))
    names = list(dict.fromkeys(format_name(model) for model in similar))
    hint = f"Similar names: {', '.join(names[:5])}. " if names else ""
    return f"{hint}`modelhaul ls` lists the imported models, `modelhaul tasks` the imports that have not ended."
