"""Run checks, and turn their errors into results."""

import time
from collections.abc import Callable

import requests
from botocore.exceptions import BotoCoreError, ClientError

from deployment.verify.registry import DOCUMENTATION, Check, Verification
from deployment.verify.results import CheckFailedError, CheckSkippedError, Outcome, Result, VerificationError

CLEANUP = "cleanup"
_DENIED = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthorizationError")


def measure_check(check: Check, verification: Verification) -> Result:
    """Run a check, and return its result."""
    started = time.monotonic()
    outcome, detail = run_check(check, verification)
    return Result(check.name, outcome, detail, time.monotonic() - started, check.link)


def run_check(check: Check, verification: Verification) -> tuple[Outcome, str]:
    """Return the outcome of a check, and what it saw. Raises VerificationError."""
    if verification.target.is_local and check.not_on_local:
        return Outcome.SKIPPED, check.not_on_local
    try:
        return Outcome.PASS, check.run(verification)
    except VerificationError:
        raise
    except CheckSkippedError as error:
        return Outcome.SKIPPED, str(error)
    except Exception as error:  # noqa: BLE001 - the other checks must run
        return Outcome.FAIL, describe_error(error)


def describe_error(error: Exception) -> str:
    match error:
        case CheckFailedError():
            return str(error)
        case ClientError():
            return describe_client_error(error)
        case BotoCoreError():
            return f"{type(error).__name__}: {error}"
        case requests.RequestException():
            # Not its text, which can contain a presigned URL.
            url = str(error.request.url).partition("?")[0] if error.request is not None else "a server"
            return f"{type(error).__name__} in a request to {url}"
    # A response without a member that it must have.
    return f"unexpected response: {type(error).__name__}: {error}"


def describe_client_error(error: ClientError) -> str:
    text = f"{error.operation_name}: {error.response['Error'].get('Message') or error}"
    if error.response["Error"]["Code"] in _DENIED:
        text += f" (your credentials need the permissions of {DOCUMENTATION}#permissions)"
    return text


def clean_up(delete_all: Callable[[], list[str]]) -> Result:
    """Delete what the checks created."""
    started = time.monotonic()
    left = delete_all()
    outcome = Outcome.FAIL if left else Outcome.PASS
    detail = f"delete by hand: {'; '.join(left)}" if left else "deleted what the checks created"
    return Result(CLEANUP, outcome, detail, time.monotonic() - started, f"{DOCUMENTATION}#what-the-script-changes")
