"""Errors that end a command, with their exit codes.

CommandError
├── UsageError           2    invalid command line, configuration or request
├── NotFoundError        3    model, revision, task or file not found
├── ConflictError        4    the model already exists or is being imported; the task has already ended
├── AccessError          5    invalid API key, or the source requires an access grant
├── UnavailableError     6    the API, S3 or the network is unavailable
│   ├── UnreachableError 6    no response
│   ├── ExpiredError     6    expired presigned URLs
│   └── UploadLostError  6    the upload no longer exists in S3
├── ImportFailedError    1    the task ended FAILED (4 if the model already exists or is being imported)
├── VerificationError    1    a signature is invalid, or files do not match it
├── ModelsFailedError    1    some models of an archive failed
└── AbortedError         130  Ctrl-C, or a declined confirmation

`test_configuration.py` compares this tree with the classes below.
"""

from enum import IntEnum
from typing import Any, ClassVar

from modelhaul_cli.remedies import find_task_remedy


class ExitCode(IntEnum):
    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    ACCESS = 5
    UNAVAILABLE = 6
    INTERRUPTED = 130


class CommandError(Exception):
    """Base class. `title` names the error, `detail` says what happened, `remedy` what to do; the last two may be "".

    `problem` holds the problem details (RFC 9457) if the API returned the error.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.FAILED

    def __init__(
        self, title: str, detail: str = "", *, remedy: str = "", problem: dict[str, Any] | None = None
    ) -> None:
        super().__init__(title)
        self.title = title
        self.detail = detail
        self.remedy = remedy
        self.problem = problem or {}

    @property
    def code(self) -> ExitCode:
        """The exit code of the process."""
        return self.exit_code

    def to_document(self) -> dict[str, Any] | None:
        """Return the document for `--json`, or None if the output already contains the error.

        The texts of this program take precedence over the texts of the API, because they name the next command.
        """
        own = {"title": self.title, "detail": self.detail, "remedy": self.remedy}
        return {"error": {**self.problem, **{k: v for k, v in own.items() if v}, "exit_code": int(self.code)}}


class UsageError(CommandError):
    exit_code = ExitCode.USAGE


class NotFoundError(CommandError):
    exit_code = ExitCode.NOT_FOUND


class ConflictError(CommandError):
    exit_code = ExitCode.CONFLICT


class AccessError(CommandError):
    exit_code = ExitCode.ACCESS


class UnavailableError(CommandError):
    """`transient` errors may be retried, after `retry_after` seconds if the response had a `Retry-After`."""

    exit_code = ExitCode.UNAVAILABLE

    def __init__(
        self,
        title: str,
        detail: str = "",
        *,
        remedy: str = "",
        problem: dict[str, Any] | None = None,
        transient: bool = True,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(title, detail, remedy=remedy, problem=problem)
        self.transient = transient
        self.retry_after = retry_after


class UnreachableError(UnavailableError):
    """There was no response: no connection, a timeout, or an interrupted connection."""


class ExpiredError(UnavailableError):
    def __init__(self, detail: str) -> None:
        super().__init__("The presigned URLs have expired", detail, transient=False)


class UploadLostError(UnavailableError):
    def __init__(self, detail: str) -> None:
        super().__init__("The upload no longer exists", detail, transient=False)


class ImportFailedError(CommandError):
    """A task that ended FAILED. With `--json`, the task has already been printed."""

    def __init__(self, task: dict[str, Any]) -> None:
        error = task.get("error") or {}
        remedy = find_task_remedy(error) or (
            "This error may be temporary. Run the same command again." if error.get("retryable") else ""
        )
        super().__init__(f"The import of {task['model_tag']} failed", task.get("error_msg") or "", remedy=remedy)
        self._conflicts = error.get("type") in ("model-exists", "import-in-progress")

    @property
    def code(self) -> ExitCode:
        return ExitCode.CONFLICT if self._conflicts else ExitCode.FAILED

    def to_document(self) -> dict[str, Any] | None:
        return None


class VerificationError(CommandError):
    """A model must not be used: its signature is invalid, or its files do not match the signature."""


class ModelsFailedError(CommandError):
    """Some models of an archive failed, the others were imported. With `--json`, the task has already been printed."""

    def __init__(self, failed: int, models: int) -> None:
        super().__init__(
            f"{failed} of {models} models failed",
            remedy="Fix the reported problems and import the failed models again.",
        )

    def to_document(self) -> dict[str, Any] | None:
        return None


class AbortedError(CommandError):
    exit_code = ExitCode.INTERRUPTED
