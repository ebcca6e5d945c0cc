"""How long requests receive the error of a failed import."""

from datetime import datetime, timedelta

from modelhaul.domain.errors import EmptyModelError, InvalidModelError, RequiredFilesError, UnsafeModelError
from modelhaul.domain.models import ModelError
from modelhaul.domain.tasks import TaskError
from modelhaul.ports.missing_models import FailedImport

_HOLD = timedelta(hours=1)
_RETRYABLE_HOLD = timedelta(minutes=10)
# The content of a commit does not change, so another import would fail as the first one did.
_CONTENT_ERRORS = frozenset(
    {EmptyModelError.type, InvalidModelError.type, RequiredFilesError.type, UnsafeModelError.type}
)


def compute_hold_end(error: ModelError | TaskError, failed_at: datetime) -> float:
    """Return the time, in seconds since the epoch, until which requests receive the error without a new decision."""
    return (failed_at + (_RETRYABLE_HOLD if error.retryable else _HOLD)).timestamp()


def describe_failed_import(error: ModelError | TaskError, failed_at: datetime) -> FailedImport:
    repeated_at = None if error.type in _CONTENT_ERRORS else compute_hold_end(error, failed_at)
    return FailedImport(error.type, error.detail, repeated_at, error.remedy)
