"""What ends a command early.

CommandError
├── UsageError           2    the command line, the configuration or the request is not right
├── NotFoundError        3    no such model, revision, task or file
├── ConflictError        4    the model is here already or being imported; the task has ended
├── AccessError          5    the key was refused, or the source wants access to be granted first
├── UnavailableError     6    the API, the store or the network does not answer
│   └── ExpiredError     6    presigned addresses that no longer hold
├── ImportFailedError    1    the task ended FAILED (4 if that is because the model is here already)
├── ModelsFailedError    1    some models of an archive failed
└── StoppedError         130  Ctrl-C

`test_configuration.py` holds this drawing against the classes below.
"""

from enum import IntEnum
from typing import Any, ClassVar


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
    """`title` says what it is, `detail` what happened, `remedy` what to do now; "" where there is nothing to say.

    `problem` are the API's own problem details (RFC 9457), if it is the API that refused.
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
        """What the process ends with."""
        return self.exit_code

    def to_document(self) -> dict[str, Any] | None:
        """For `--json`; None if what was printed before says it all. What the program says itself goes before what the
        API says: it knows which command leads on.
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
    """`transient`: trying again may help; after `retry_after` seconds, if the other side said so."""

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


class ExpiredError(UnavailableError):
    def __init__(self, detail: str) -> None:
        super().__init__("The addresses for the bytes no longer hold", detail, transient=False)


class ImportFailedError(CommandError):
    """A task that ended FAILED, as the API shows it; it has been printed as JSON already, where that is asked for."""

    def __init__(self, task: dict[str, Any]) -> None:
        error = task.get("error") or {}
        remedy = error.get("remedy") or ("Submitting it again may help." if error.get("retryable") else "")
        super().__init__(f"The import of {task['model_tag']} failed", task.get("error_msg") or "", remedy=remedy)
        self._conflicts = error.get("type") in ("model-exists", "import-in-progress")

    @property
    def code(self) -> ExitCode:
        return ExitCode.CONFLICT if self._conflicts else ExitCode.FAILED

    def to_document(self) -> dict[str, Any] | None:
        return None


class ModelsFailedError(CommandError):
    """Some models of an archive failed, and the others are there; the task has been printed."""

    def __init__(self, failed: int, models: int) -> None:
        super().__init__(
            f"{failed} of {models} models failed", "", remedy="Correct what the messages name, and send these again."
        )

    def to_document(self) -> dict[str, Any] | None:
        return None


class StoppedError(CommandError):
    exit_code = ExitCode.INTERRUPTED
