"""Errors that clients receive for models that are not READY."""

from collections.abc import Sequence
from datetime import UTC, datetime

from modelhaul.catalog.presentation import estimate_transfer, format_time
from modelhaul.domain.errors import (
    AccessRequiredError,
    InvalidReferenceError,
    ModelNotFoundError,
    RevisionNotFoundError,
)
from modelhaul.domain.remedies import PROBLEM_REMEDIES, TASK_REMEDIES
from modelhaul.domain.tasks import Stage, Task, TaskStatus
from modelhaul.hub.errors import (
    AccessRefusedError,
    HubError,
    ImportPendingError,
    ImportRefusedError,
    ImportUnavailableError,
    SourceModelMissingError,
    SourceRevisionMissingError,
)
from modelhaul.ports.missing_models import FailedImport, MissingModelError

# Seconds between retries. huggingface_hub waits as long as Retry-After says, and retries a file about five times.
_MIN_RETRY_AFTER = 10
_MAX_RETRY_AFTER = 30
_MAX_SHOWN = 5  # name patterns in a message
_SOON = 2  # until the index has a model that has just become READY


def describe_remedy(name: str, revision: str) -> str:
    """Return how to import a model deliberately."""
    return (
        f"Import it with the command `modelhaul hf {name}@{revision}`, or with POST /v1/upload/huggingface of the "
        "import API."
    )


def describe_other_names(name: str, names: Sequence[str]) -> str:
    """Return the message for a name that the key does not permit, whether or not a model has it."""
    more = "" if len(names) <= _MAX_SHOWN else f" and {len(names) - _MAX_SHOWN} other patterns"
    return (
        f"The read key cannot read {name}. It can read only models whose names match {', '.join(names[:_MAX_SHOWN])}"
        f"{more}. `modelhaul keys create NAME --names {name}` creates a key for this model."
    )


def describe_refusal(error: MissingModelError) -> HubError:
    """Return the error for a model whose import cannot start."""
    message = f"{error.detail} {error.remedy or PROBLEM_REMEDIES.get(error.type, '')}".rstrip()
    if error.retryable:
        return ImportUnavailableError(message, retry_after=_MAX_RETRY_AFTER)
    return _choose_error(error.type, message)


def describe_outage(detail: str) -> HubError:
    """Return the error if the function that starts imports failed."""
    return ImportUnavailableError(f"The import could not be started. {detail}", retry_after=_MIN_RETRY_AFTER)


def describe_failure(name: str, revision: str, failure: FailedImport) -> HubError:
    """Return the error for a model whose import failed. Clients do not retry its status."""
    if failure.repeated_at is None:
        outlook = f"Requests do not start a new import of this commit. {describe_remedy(name, revision)}"
    else:
        outlook = (
            f"A request after {format_time(datetime.fromtimestamp(failure.repeated_at, UTC))} starts a new import."
        )
    remedy = failure.remedy or TASK_REMEDIES.get(failure.type, "")
    parts = [f"The import of {name} at {revision} failed.", failure.detail, remedy, outlook]
    return _choose_error(failure.type, " ".join(filter(None, parts)))


def describe_progress(name: str, revision: str, task: Task | None) -> HubError:
    """Return the error for a model that is being imported. `task`: None if the model has just become READY."""
    subject = f"{name} at {revision}"
    if task is None or task.status is TaskStatus.DONE:
        return ImportPendingError(
            f"{subject} is imported and can be read in a moment. Retry in {_SOON} s.", retry_after=_SOON
        )
    if task.status is TaskStatus.FAILED:
        return ImportPendingError(
            f"The last import of {subject} failed, and its files are being removed. Retry in {_MAX_RETRY_AFTER} s.",
            retry_after=_MAX_RETRY_AFTER,
        )
    seconds_left = estimate_transfer(task).get("seconds_left", 0)
    seconds = min(max(_MIN_RETRY_AFTER, seconds_left), _MAX_RETRY_AFTER)
    return ImportPendingError(
        f"{subject} is being imported: {_describe_stage(task)}. Retry in {seconds} s.", retry_after=seconds
    )


def _choose_error(kind: str, message: str) -> HubError:
    match kind:
        case ModelNotFoundError.type:
            return SourceModelMissingError(message)
        case RevisionNotFoundError.type | InvalidReferenceError.type:
            return SourceRevisionMissingError(message)
        case AccessRequiredError.type:
            return AccessRefusedError(message)
    return ImportRefusedError(message)


def _describe_stage(task: Task) -> str:
    progress = task.progress
    match task.stage:
        case Stage.TRANSFERRING:
            percent = 100 * progress.bytes_done // max(1, progress.bytes_total)
            return (
                f"{progress.files_done} of {progress.files_total} files, {percent} % of "
                f"{_format_size(progress.bytes_total)}"
            )
        case Stage.VERIFIED:
            return "all files are verified and inspected"
        case Stage.PUBLISHING:
            return "all files are being published"
    return "its files are being listed"


def _format_size(size: float) -> str:
    """Return the size in bytes with a decimal unit."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:  # noqa: PLR2004 - decimal units
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
