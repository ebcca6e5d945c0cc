"""Responses to Hub clients."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from typing import Any

from modelhaul.hub.errors import HubError

# Characters that every HTTP implementation accepts in a header. Clients print X-Error-Message as one line.
_FIRST_PRINTABLE, _LAST_PRINTABLE = " ", "~"
_MAX_HEADER_MESSAGE = 1000


class Outcome(StrEnum):
    """Result of a request. Errors are counted, and misses are logged with their outcome."""

    HIT = "hit"
    REDIRECT = "redirect"  # the Hugging Face Hub serves the model
    NOT_FOUND = "not_found"
    IMPORTING = "importing"
    REFUSED = "refused"  # the import of the model failed, or cannot start
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class HubResponse:
    """A response. `outcome` is not sent."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    outcome: Outcome = Outcome.HIT


def respond_json(
    body: Any, *, status: int = HTTPStatus.OK, headers: Mapping[str, str] | None = None, outcome: Outcome = Outcome.HIT
) -> HubResponse:
    """Return a response with a JSON body in UTF-8."""
    content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    return HubResponse(status, {"Content-Type": "application/json; charset=utf-8", **(headers or {})}, content, outcome)


def respond_error(error: HubError, *, outcome: Outcome = Outcome.NOT_FOUND) -> HubResponse:
    """Return the error in the Hub's format: `{"error": …}`, `X-Error-Code` if it has a code, and `X-Error-Message`."""
    code = {"X-Error-Code": error.code} if error.code else {}
    headers = {**error.headers, **code, "X-Error-Message": _flatten(error.message)}
    return respond_json({"error": error.message}, status=error.status, headers=headers, outcome=outcome)


def _flatten(message: str) -> str:
    """Return the message as one line of printable ASCII."""
    line = " ".join(message.split())
    shown = "".join(c if _FIRST_PRINTABLE <= c <= _LAST_PRINTABLE else "?" for c in line)
    return shown[:_MAX_HEADER_MESSAGE]
