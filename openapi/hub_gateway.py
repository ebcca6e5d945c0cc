"""Generate the gateway responses of the Hub read API: the errors that API Gateway returns itself, as the Hugging Face
Hub returns errors.

All texts are fixed, because those of API Gateway may contain ARNs.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

HUB_GATEWAY_RESPONSES = Path(__file__).with_name("hub_gateway_responses.json")

_CREATE_KEY = "Set HF_TOKEN to a read key. Create a read key with: modelhaul keys create NAME"
# For a 401 with any other text, huggingface_hub reports a missing repository (`hf_raise_for_status`).
_INVALID_CREDENTIALS = "Invalid credentials in Authorization header"


@dataclass(frozen=True)
class GatewayError:
    """An error in the format of the Hub: JSON with the key `error`, and the header X-Error-Message.

    `status` None keeps the status that API Gateway chooses. `header` replaces `message` in X-Error-Message.
    `retry_after` is in seconds.
    """

    status: HTTPStatus | None
    message: str
    header: str | None = None
    retry_after: int | None = None

    def render(self) -> dict[str, Any]:
        """Return the gateway response."""
        headers = {"Content-Type": "application/json", "X-Error-Message": self.header or self.message}
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        return {
            **({} if self.status is None else {"statusCode": str(self.status.value)}),
            "responseParameters": {f"gatewayresponse.header.{name}": f"'{text}'" for name, text in headers.items()},
            "responseTemplates": {"application/json": json.dumps({"error": self.message})},
        }


_NO_SUCH_ROUTE = GatewayError(
    HTTPStatus.NOT_FOUND, "Route not found. This server supports only the GET, HEAD and POST requests that read models."
)
_NO_RESPONSE = GatewayError(HTTPStatus.GATEWAY_TIMEOUT, "The server did not respond. Retry in 5 s.", retry_after=5)

ERRORS: Mapping[str, GatewayError] = {
    "ACCESS_DENIED": GatewayError(
        HTTPStatus.UNAUTHORIZED, f"The read key is unknown, deleted or expired. {_CREATE_KEY}", _INVALID_CREDENTIALS
    ),
    "INTEGRATION_FAILURE": _NO_RESPONSE,
    "INTEGRATION_TIMEOUT": _NO_RESPONSE,
    "MISSING_AUTHENTICATION_TOKEN": _NO_SUCH_ROUTE,
    "RESOURCE_NOT_FOUND": _NO_SUCH_ROUTE,
    "THROTTLED": GatewayError(
        HTTPStatus.TOO_MANY_REQUESTS, "The rate limit of the server is exceeded. Retry in 1 s.", retry_after=1
    ),
    "UNAUTHORIZED": GatewayError(
        HTTPStatus.UNAUTHORIZED, f"The request has no valid read key. {_CREATE_KEY}", _INVALID_CREDENTIALS
    ),
    "DEFAULT_4XX": GatewayError(None, "The server rejected the request."),
    "DEFAULT_5XX": GatewayError(None, "Internal error of the server. Retry later, or ask an operator."),
}
"""By response type. DEFAULT_4XX and DEFAULT_5XX apply to all types that are not listed.

https://docs.aws.amazon.com/apigateway/latest/developerguide/supported-gateway-response-types.html
"""


def render_responses() -> str:
    """Return `x-amazon-apigateway-gateway-responses` as formatted JSON, for AWS::Include."""
    return json.dumps({kind: error.render() for kind, error in ERRORS.items()}, indent=2) + "\n"
