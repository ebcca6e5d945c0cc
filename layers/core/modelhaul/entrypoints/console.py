"""Entry points of the functions behind the widget of the CloudWatch dashboard.

CloudWatch invokes a function with the permissions of the user, and passes no identity of the user:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/add_custom_widget_dashboard_about.html
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import partial
from typing import Annotated, Any, Literal

from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import BaseModel, Field, ValidationError

from modelhaul import wiring
from modelhaul.console.pages import (
    DOCUMENTATION,
    View,
    render_error,
    render_message,
    render_model,
    render_overview,
    render_task,
)
from modelhaul.domain.callers import name_requester
from modelhaul.domain.errors import InternalError, ModelhaulError
from modelhaul.entrypoints.logs import create_logger
from modelhaul.settings import ConsoleSettings

_OFFSET = re.compile(r"([+-])([01][0-9]):([0-5][0-9])")
_RELOAD = "The widget shows it after the next refresh of the dashboard."

type RecordId = Annotated[str, Field(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")]


class ShowDetails(BaseModel):
    """Parameters of a button that shows a task or a model. The dashboard itself sends none."""

    show: Literal["task", "model"]
    id: RecordId


class CancelRequest(BaseModel):
    """Parameters of the button that cancels an import."""

    task_id: RecordId


def render_widget(event: dict[str, Any], context: LambdaContext) -> str:
    """Return the HTML of the widget or of details, or the Markdown documentation that the console asks for."""
    if "describe" in event:
        return DOCUMENTATION
    settings = ConsoleSettings.read()
    # The ARN of this function without its name: both functions are in one account and Region.
    prefix = ":".join(context.invoked_function_arn.split(":")[:6])
    view = View(
        now=datetime.now(UTC),
        bucket=settings.models_bucket,
        render_function=context.invoked_function_arn,
        cancel_function=f"{prefix}:{settings.cancel_from_console_function}",
        **_read_appearance(event),
    )
    return _respond(event, context, view, _show)


def cancel_from_widget(event: dict[str, Any], context: LambdaContext) -> str:
    """Cancel the import that the widget names, and return the HTML of the result."""
    view = View(now=datetime.now(UTC), **_read_appearance(event))
    # AWS passes the account, but no identity of the user.
    caller = name_requester(context.invoked_function_arn.split(":")[4])
    return _respond(event, context, view, partial(_cancel, cancelled_by=caller))


def _respond(
    event: dict[str, Any], context: LambdaContext, view: View, act: Callable[[dict[str, Any], View], str]
) -> str:
    """Return the HTML of the result or of the error. An unexpected exception is logged."""
    logger = create_logger()
    logger.set_correlation_id(context.aws_request_id)
    try:
        return act(event, view)
    except ValidationError as error:
        fields = ", ".join(sorted({".".join(map(str, found["loc"])) for found in error.errors()}))
        return render_message("Error", f"Invalid parameters of the widget: {fields}.", view, is_error=True)
    except ModelhaulError as error:
        logger.info("request of the widget failed", reason=error.type, detail=error.detail)
        return render_error(error, view)
    except Exception:
        logger.exception("unexpected error")
        return render_error(InternalError(f"Internal error. Request ID: {context.aws_request_id}."), view)


def _show(event: dict[str, Any], view: View) -> str:
    reader = wiring.create_console_reader()
    if "show" not in event:
        return render_overview(reader.read_overview(), view)
    request = ShowDetails.model_validate(event)
    if request.show == "model":
        return render_model(reader.read_model(request.id), view)
    return render_task(*reader.read_task(request.id), view)


def _cancel(event: dict[str, Any], view: View, *, cancelled_by: str) -> str:
    task_id = CancelRequest.model_validate(event).task_id
    with create_logger().append_context_keys(task_id=task_id):
        wiring.create_finisher().cancel(task_id, cancelled_by=cancelled_by)
    return render_message("Import cancelled", f"Task {task_id} is cancelled. {_RELOAD}", view)


def _read_appearance(event: dict[str, Any]) -> dict[str, Any]:
    """Return theme and time zone of the dashboard, the defaults for what is missing or invalid."""
    found = event.get("widgetContext")
    widget = found if isinstance(found, dict) else {}
    return {"theme": "dark" if widget.get("theme") == "dark" else "light", "zone": _read_zone(widget.get("timezone"))}


def _read_zone(found: object) -> tzinfo:
    offset = _OFFSET.fullmatch(str(found.get("offsetISO"))) if isinstance(found, dict) else None
    if offset is None:
        return UTC
    minutes = int(offset[2]) * 60 + int(offset[3])
    return timezone(timedelta(minutes=-minutes if offset[1] == "-" else minutes))
