"""Errors that a Hub client receives.

HubError
├── MissingVersionError          the version is not READY; the miss policy decides the response
│   ├── RepositoryMissingError   no READY model has this name
│   └── RevisionMissingError     the model exists, but not this revision
├── InvalidNameError             no model can have this name
├── EntryMissingError            the revision exists, but not this file or folder
├── RouteMissingError            no such route
├── InvalidRequestError          invalid query or body
├── RangeNotSatisfiableError     the range starts after the end of the file
├── SourceModelMissingError      the Hub does not have the model
├── SourceRevisionMissingError   the Hub has the model, but not this revision
├── RetryableError               the client may retry
│   ├── ImportPendingError       the model is being imported
│   ├── ImportUnavailableError   no import can start now
│   └── ReadUnavailableError     a request to S3 or DynamoDB failed, or the model is being deleted
├── ImportRefusedError           the import cannot start, or failed
├── AccessRefusedError           the model is gated at its source, and the import has no access
├── DefectError                  a defect in Modelhaul; the log has the stack trace
└── RepositoryMovedError         the model has another name: a redirect
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import ClassVar

from modelhaul.domain.hub_models import HubEntry


class HubError(Exception):
    """Base class of errors. `code` is the value of `X-Error-Code`, from which clients derive an exception, or `""`."""

    status: ClassVar[int] = HTTPStatus.NOT_FOUND
    code: ClassVar[str] = ""

    def __init__(self, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.headers = dict(headers or {})


class MissingVersionError(HubError):
    """`entry`: what is recorded under `repo_id`, which is the canonical name if the request has an old name.

    `revision` is `HEAD` if the route has none.
    """

    def __init__(self, message: str, *, repo_id: str, entry: HubEntry, revision: str) -> None:
        super().__init__(message)
        self.repo_id = repo_id
        self.entry = entry
        self.revision = revision


class RepositoryMissingError(MissingVersionError):
    code = "RepoNotFound"


class RevisionMissingError(MissingVersionError):
    code = "RevisionNotFound"


class InvalidNameError(HubError):
    code = "RepoNotFound"


class EntryMissingError(HubError):
    """Clients remember that `commit` has no such file."""

    code = "EntryNotFound"

    def __init__(self, message: str, *, commit: str) -> None:
        super().__init__(message, headers={"X-Repo-Commit": commit})


class RouteMissingError(HubError):
    pass


class InvalidRequestError(HubError):
    status = HTTPStatus.BAD_REQUEST


class RangeNotSatisfiableError(HubError):
    status = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE

    def __init__(self, message: str, *, size: int) -> None:
        super().__init__(message, headers={"Content-Range": f"bytes */{size}"})


class SourceModelMissingError(HubError):
    code = "RepoNotFound"


class SourceRevisionMissingError(HubError):
    code = "RevisionNotFound"


class RetryableError(HubError):
    """`retry_after` in seconds. Clients that do not retry print the message."""

    status = HTTPStatus.SERVICE_UNAVAILABLE

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message, headers={"Retry-After": str(retry_after)})


class ImportPendingError(RetryableError):
    pass


class ImportUnavailableError(RetryableError):
    pass


class ReadUnavailableError(RetryableError):
    pass


class ImportRefusedError(HubError):
    """Clients do not retry a 403, and print its message. `hf` does not print the message of a 404."""

    status = HTTPStatus.FORBIDDEN


class AccessRefusedError(HubError):
    status = HTTPStatus.FORBIDDEN
    code = "GatedRepo"


class DefectError(HubError):
    status = HTTPStatus.INTERNAL_SERVER_ERROR


class RepositoryMovedError(HubError):
    """`canonical_id` is the name under which the model can be read."""

    status = HTTPStatus.TEMPORARY_REDIRECT

    def __init__(self, canonical_id: str) -> None:
        super().__init__(f"The model's name is {canonical_id}.")
        self.canonical_id = canonical_id
