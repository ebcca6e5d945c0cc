"""Tables of models and tasks that fit a terminal with 80 columns."""

from collections.abc import Sequence
from datetime import UTC, datetime

from modelhaul_cli.client import Json
from modelhaul_cli.follower import read_progress
from modelhaul_cli.output import format_size

_ID_LENGTH = 8
_COMMIT_LENGTH = 7
_MAX_REVISION = 12
SOURCES = {"HUGGINGFACE": "hf", "GITHUB": "github", "LOCAL": "zip"}  # the commands that import from them

type Table = tuple[Sequence[str], Sequence[Sequence[str]]]


def format_models(models: Sequence[Json]) -> Table:
    """Return the head and the rows of a table of models. An ID is as long as it must be to be unique in the table."""
    ids = _shorten_ids([model["model_id"] for model in models])
    rows = [
        [
            model_id,
            format_size(int(model.get("size") or 0)),
            format_age(model["created_at"]),
            SOURCES.get(model["source"], model["source"].lower()),
            _format_revision(model.get("revision"), model["commit"]),
            model["commit"][:_COMMIT_LENGTH],
            format_name(model) + (" (pinned)" if model.get("pin") else ""),
        ]
        for model_id, model in zip(ids, models, strict=True)
    ]
    return ["ID", "SIZE", "AGE", "SOURCE", "REV", "COMMIT", "NAME"], rows


def format_used_models(models: Sequence[Json]) -> Table:
    """Return the head and the rows of a table of models in the use of storage."""
    ids = _shorten_ids([model["model_id"] for model in models])
    rows = [
        [
            model_id,
            format_size(model["size"]),
            format_age(model["created_at"]),
            f"{model.get('last_read_on') or 'never'}{' (pinned)' if model['pinned'] else ''}",
            SOURCES.get(model["source"], model["source"].lower()),
            model["commit"][:_COMMIT_LENGTH],
            model["name"],
        ]
        for model_id, model in zip(ids, models, strict=True)
    ]
    return ["ID", "SIZE", "AGE", "LAST READ", "SOURCE", "COMMIT", "NAME"], rows


def format_deletions(models: Sequence[Json]) -> Table:
    """Return the head and the rows of a table of models that retention would delete."""
    rows = [
        [
            format_size(int(model.get("size") or 0)),
            str(model.get("last_read_on") or "never"),
            model["commit"][:_COMMIT_LENGTH],
            str(model["rule"]),
            format_name(model),
        ]
        for model in models
    ]
    return ["SIZE", "LAST READ", "COMMIT", "RULE", "NAME"], rows


def format_tasks(tasks: Sequence[Json]) -> Table:
    """Return the head and the rows of a table of tasks."""
    ids = _shorten_ids([task["id"] for task in tasks])
    rows = []
    for task_id, task in zip(ids, tasks, strict=True):
        progress = read_progress(task)
        size = format_size(progress.total) if progress.total else "-"
        tag, commit = str(task["model_tag"]), str(task.get("commit") or "")
        name, _, revision = (tag, "", "") if task["source"] == "LOCAL" else tag.partition("@")
        rows.append(
            [
                task_id,
                "waiting" if progress.waiting else progress.stage,
                size,
                format_age(task["created_at"]),
                _format_revision(revision, commit),
                commit[:_COMMIT_LENGTH] or "-",
                name + format_selection(task),
            ]
        )
    return ["ID", "STAGE", "SIZE", "AGE", "REV", "COMMIT", "NAME"], rows


def format_follows(follows: Sequence[Json]) -> Table:
    """Return the head and the rows of a table of follows."""
    ids = _shorten_ids([follow["follow_id"] for follow in follows])
    rows = []
    for follow_id, follow in zip(ids, follows, strict=True):
        found = follow["last_import"] or {}
        state = follow["last_error"]["type"] if follow["last_error"] else found.get("status", "new").lower()
        rows.append(
            [
                follow_id,
                "paused" if follow["status"] == "PAUSED" else follow["every"],
                format_age(follow["checked_at"]) if follow["checked_at"] else "-",
                state,
                SOURCES.get(follow["source"], follow["source"].lower()),
                _format_revision(follow["revision"], ""),
                str(found.get("commit") or "-")[:_COMMIT_LENGTH],
                format_name(follow),
            ]
        )
    return ["ID", "EVERY", "CHECKED", "STATE", "SOURCE", "REV", "COMMIT", "NAME"], rows


def format_name(record: Json) -> str:
    return str(record["name"]) + format_selection(record)


def format_selection(record: Json) -> str:
    selection = describe_selection(record)
    return f" ({selection})" if selection else ""


def describe_selection(record: Json) -> str:
    """Return the options that selected the files of a model, or "" if all files were imported."""
    selection = record.get("selection") or {}
    options = [f"--allow {pattern}" for pattern in selection.get("allow_patterns") or []]
    options += [f"--ignore {pattern}" for pattern in selection.get("ignore_patterns") or []]
    weights = selection.get("weights", "all")
    return " ".join([*options, *([f"--weights {weights}"] if weights != "all" else [])])


def format_age(created_at: str) -> str:
    """Return the time since `created_at` (ISO 8601) in its largest unit, such as `45s`, `12m`, `3h` or `20d`."""
    age = datetime.now(UTC) - datetime.fromisoformat(created_at)
    seconds = max(0, int(age.total_seconds()))
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def _shorten_ids(ids: Sequence[str]) -> list[str]:
    length = _ID_LENGTH
    while len({text[:length] for text in ids}) < len(set(ids)):
        length += 1
    return [text[:length] for text in ids]


def _format_revision(revision: str | None, commit: str) -> str:
    """Return the branch or tag, shortened, or "-" if the commit itself was requested or there is none."""
    if not revision or revision == commit:
        return "-"
    return revision if len(revision) <= _MAX_REVISION else f"{revision[: _MAX_REVISION - 1]}…"
