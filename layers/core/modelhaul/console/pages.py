"""The HTML of the widget.

CloudWatch removes scripts from it. For a button with a `cwdb-action` element, it invokes a function with the
permissions of the user:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/add_custom_widget_dashboard_interactivity.html

Names, errors and paths come from sources and users. Jinja2 escapes every value, and the filter `clean` limits its
length.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from modelhaul.catalog.presentation import present_model, present_task, present_whole_task
from modelhaul.console import texts
from modelhaul.console.overview import Overview
from modelhaul.domain.errors import (
    InternalError,
    ModelhaulError,
    ModelNotFoundError,
    StorageUnavailableError,
    TaskEndedError,
    TaskNotFoundError,
)
from modelhaul.domain.gate import GateReport, GateVerdict
from modelhaul.domain.models import Model
from modelhaul.domain.tasks import Task

_MAX_NAMES = 5  # in each list of the use of storage

DOCUMENTATION = """\
## Modelhaul

Shows the imports in progress, the newest failures and models, and the use of storage. The buttons show details, and
cancel an import.

The widget has no parameters. Users need `lambda:InvokeFunction` for this function and, to cancel imports, for the
function in the stack output `CancelFromConsoleFunction`.
"""

# Instead of the remedies of API requests, which name routes and headers.
_REMEDIES: Mapping[type[ModelhaulError], str] = {
    TaskNotFoundError: "Refresh the dashboard. A task is removed 90 days after its end.",
    ModelNotFoundError: "Refresh the dashboard. The model was deleted.",
    TaskEndedError: "Refresh the dashboard. The details of the task show its result.",
    StorageUnavailableError: "Refresh the dashboard in a minute.",
    InternalError: "Refresh the dashboard. If the error persists, search the logs of the function for this request.",
}


@dataclass(frozen=True, slots=True)
class View:
    """How and for whom a page is rendered.

    `render_function` and `cancel_function` are the ARNs that the buttons invoke. `bucket` is the bucket of models.
    """

    now: datetime
    bucket: str = ""
    render_function: str = ""
    cancel_function: str = ""
    theme: str = "light"
    zone: tzinfo = UTC


@cache
def load_templates() -> Environment:
    """Load the templates, which a cold start does before the first request."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {"clean": texts.clean, "size": texts.format_size}
    for name in environment.list_templates():
        environment.get_template(name)
    return environment


def render_overview(overview: Overview, view: View) -> str:
    return _render(
        "overview.html",
        view,
        pending=[_describe_pending(task, view) for task in overview.pending],
        has_more_pending=overview.has_more_pending,
        failures=[_describe_failure(task, view) for task in overview.failures],
        models=[_describe_model(model, view) for model in overview.models],
        recent=overview.recent,
        reused=overview.reused,
        imported=overview.imported,
        storage=_describe_storage(overview, view),
    )


def render_task(task: Task, models: Sequence[Model], view: View) -> str:
    shown = present_whole_task(task, models, bucket=view.bucket, now=view.now)
    return _render(
        "task.html",
        view,
        task=shown,
        pending=_describe_pending(task, view),
        error=_describe_error(shown),
        selection="" if task.selection.is_whole else task.selection.describe(),
        created=texts.format_time(task.created_at, view.zone, view.now),
        updated=texts.format_time(task.updated_at, view.zone, view.now),
    )


def render_model(model: Model, view: View) -> str:
    shown = present_model(model, bucket=view.bucket)
    return _render(
        "model.html",
        view,
        model=shown,
        gate=shown.get("gate"),
        error=shown.get("error"),
        warnings=shown.get("policy", {}).get("warnings", []),
        selection="" if model.resolved.selection.is_whole else model.resolved.selection.describe(),
        created=texts.format_time(model.created_at, view.zone, view.now),
        signed=texts.format_time(model.signature.signed_at, view.zone, view.now) if model.signature else "",
    )


def render_message(title: str, text: str, view: View, *, remedy: str = "", is_error: bool = False) -> str:
    return _render("message.html", view, title=title, text=text, remedy=remedy, is_error=is_error)


def render_error(error: ModelhaulError, view: View) -> str:
    remedy = error.remedy or _REMEDIES.get(type(error), "")
    return render_message("Error", error.detail, view, remedy=remedy, is_error=True)


def _render(template: str, view: View, **values: Any) -> str:
    return load_templates().get_template(template).render(view=view, **values).strip()


def _describe_pending(task: Task, view: View) -> dict[str, Any]:
    shown = present_task(task, now=view.now)
    progress, waiting = shown["progress"], shown.get("waiting")
    total, done = progress["bytes_total"], progress["bytes_done"]
    return {
        "id": task.id,
        "tag": task.model_tag,
        "source": task.source,
        "stage": task.stage.lower(),
        "files": f"{progress['files_done']}/{progress['files_total']} files" if progress["files_total"] else "",
        "percent": min(100, 100 * done // total) if total else None,
        "bytes": f"{texts.format_size(done)} of {texts.format_size(total)}" if total else "",
        "pace": "" if waiting else texts.describe_pace(progress),
        "waiting": texts.describe_waiting(waiting, view.zone, view.now) if waiting else "",
        "next_attempt": texts.describe_next_attempt(waiting["next_attempt"], view.now) if waiting else "",
        "started": texts.format_time(task.created_at, view.zone, view.now),
    }


def _describe_failure(task: Task, view: View) -> dict[str, Any]:
    error = _describe_error(present_task(task, now=view.now)) or {
        "detail": f"{len(task.failed_ids)} of {len(task.model_ids)} models failed. The others are imported.",
        "remedy": "The details have the error of each model.",
    }
    ended = texts.format_time(task.updated_at, view.zone, view.now)
    return {"id": task.id, "tag": task.model_tag, "source": task.source, "ended": ended, "error": error}


def _describe_error(shown: Mapping[str, Any]) -> dict[str, str] | None:
    """Return detail and remedy of the error of a presented task, None if it has none."""
    if "error" not in shown:
        return None
    return {"detail": shown["error_msg"], "remedy": shown["error"].get("remedy", "")}


def _describe_model(model: Model, view: View) -> dict[str, Any]:
    return {
        "id": model.model_id,
        "name": model.resolved.name,
        "revision": model.resolved.revision,
        "source": model.resolved.source,
        "files": model.files,
        "size": model.size,
        "last_read": model.last_read_on.isoformat() if model.last_read_on is not None else "never",
        "created": texts.format_time(model.created_at, view.zone, view.now),
        "verdict": model.gate.verdict.value if model.gate is not None else "",
        "notes": _summarize_gate(model.gate) if model.gate is not None else "",
    }


def _summarize_gate(report: GateReport) -> str:
    """Return why the model is not clean, or the first note for its readers, and how many others there are."""
    notes = report.reasons if report.verdict is GateVerdict.UNSAFE and report.reasons else report.flags
    if not notes:
        return ""
    others = len(notes) - 1
    return f"{notes[0]} and {others} more" if others else notes[0]


def _describe_storage(overview: Overview, view: View) -> dict[str, Any]:
    usage = overview.storage
    return {
        "rows": [
            {"source": source, "total": total, "percent": _compute_percent(total.size, usage.total.size)}
            for source, total in usage.by_source.items()
        ],
        "total": usage.total,
        "names": [
            {
                "name": name,
                "source": source,
                "total": total,
                "percent": _compute_percent(total.size, usage.total.size),
            }
            for source, name, total in usage.by_name[:_MAX_NAMES]
        ],
        "largest": [_describe_model(model, view) for model in usage.largest[:_MAX_NAMES]],
        "unread_days": usage.unread_days,
        "unread": usage.unread,
        "largest_unread": [_describe_model(model, view) for model in usage.largest_unread[:_MAX_NAMES]],
        "quota": usage.quota,
        "quota_percent": _compute_percent(usage.quota.stored, usage.quota.limit) if usage.quota else 0,
        "at_least": "" if usage.is_complete else "at least ",
        "measured": texts.format_time(usage.measured_at, view.zone, view.now),
    }


def _compute_percent(size: int, whole: int) -> int:
    return min(100, 100 * size // whole) if whole else 0
