"""Generate the gateway responses: the problems that API Gateway returns itself, before or instead of a function.

Titles and remedies come from the tables of `modelhaul.entrypoints.problems` where functions return the same problem.
All texts are fixed, because those of API Gateway may contain ARNs.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from modelhaul.domain.remedies import PROBLEM_REMEDIES
from modelhaul.entrypoints.problems import create_problem
from modelhaul.imports.submit_archive import LARGE_ARCHIVE_REMEDY

GATEWAY_RESPONSES = Path(__file__).with_name("gateway_responses.json")

_RETRY = "Retry the request after the number of seconds in the Retry-After header."


@dataclass(frozen=True)
class GatewayProblem:
    """A problem with `kind` as the end of its type.

    `status` None keeps the status that API Gateway chooses. `title` and `remedy` are for kinds that no function
    returns; `remedy` also replaces the remedy for functions where that would not help. `retry_after` is in seconds.
    """

    kind: str
    status: HTTPStatus | None
    detail: str
    remedy: str | None = None
    retry_after: int | None = None
    title: str | None = None

    def render(self) -> dict[str, Any]:
        """Return the problem document. Raises ValueError if the problem has no remedy."""
        if self.remedy is None and self.kind not in PROBLEM_REMEDIES:
            raise ValueError(f"{self.kind} has no remedy")
        extra = {"title": self.title, "remedy": self.remedy, "retry_after": self.retry_after}
        given: dict[str, Any] = {name: value for name, value in extra.items() if value is not None}
        response = create_problem(self.kind, self.status or HTTPStatus.INTERNAL_SERVER_ERROR, self.detail, **given)
        problem: dict[str, Any] = json.loads(response.body or "")
        if self.status is None:
            del problem["status"]
        return problem


# The functions are not invoked, so their logs do not show the cause.
_CHECK_CONFIGURATION = "Ask an operator to check the API Gateway configuration."
_UNVERIFIED_CALLER = GatewayProblem(
    "internal-error",
    HTTPStatus.INTERNAL_SERVER_ERROR,
    "The identity of the caller could not be verified.",
    _CHECK_CONFIGURATION,
)
_NO_SUCH_ROUTE = GatewayProblem("no-such-route", HTTPStatus.NOT_FOUND, "Route not found.")
_NOT_SIGNED = GatewayProblem(
    "not-signed",
    HTTPStatus.FORBIDDEN,
    "The request is not signed (AWS Signature Version 4), or the route was not found.",
    "Sign the request with Signature Version 4 for the service execute-api.",
    title="Unsigned request, or route not found",
)

PROBLEMS: Mapping[str, GatewayProblem] = {
    "ACCESS_DENIED": GatewayProblem(
        "access-denied",
        HTTPStatus.FORBIDDEN,
        "The policies of the caller do not allow this request.",
        "Allow execute-api:Invoke on this route in a policy of the caller.",
        title="Access denied",
    ),
    "API_CONFIGURATION_ERROR": GatewayProblem(
        "internal-error",
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "The API is not configured correctly.",
        _CHECK_CONFIGURATION,
    ),
    "AUTHORIZER_CONFIGURATION_ERROR": _UNVERIFIED_CALLER,
    "AUTHORIZER_FAILURE": _UNVERIFIED_CALLER,
    "BAD_REQUEST_BODY": GatewayProblem("invalid-json", HTTPStatus.BAD_REQUEST, "The body is not a JSON object."),
    "BAD_REQUEST_PARAMETERS": GatewayProblem(
        "invalid-parameters",
        HTTPStatus.BAD_REQUEST,
        "A path parameter, query parameter or header is missing or invalid.",
        "Correct the parameter, and retry the request.",
        title="Missing or invalid parameter",
    ),
    "EXPIRED_TOKEN": GatewayProblem(
        "expired-credentials",
        HTTPStatus.FORBIDDEN,
        "The credentials that signed the request have expired.",
        "Sign the request with new credentials.",
        title="Expired credentials",
    ),
    "INTEGRATION_FAILURE": GatewayProblem(
        "gateway-failure",
        HTTPStatus.GATEWAY_TIMEOUT,
        "The function behind this route did not respond.",
        _RETRY,
        retry_after=5,
        title="No response from the function",
    ),
    "INTEGRATION_TIMEOUT": GatewayProblem(
        "gateway-timeout",
        HTTPStatus.GATEWAY_TIMEOUT,
        "The function behind this route did not respond within 29 seconds.",
        _RETRY,
        retry_after=5,
        title="No response within 29 seconds",
    ),
    "INVALID_API_KEY": GatewayProblem(
        "invalid-api-key",
        HTTPStatus.FORBIDDEN,
        "The API key is missing or invalid.",
        "Send a valid API key in the header x-api-key.",
        title="Missing or invalid API key",
    ),
    "INVALID_SIGNATURE": GatewayProblem(
        "invalid-signature",
        HTTPStatus.FORBIDDEN,
        "The signature (AWS Signature Version 4) does not match the request, or the client's clock is wrong.",
        "Synchronize the client's clock, and send the request exactly as it was signed.",
        title="Invalid signature",
    ),
    # For every unknown route. With AuthMode=IAM, also for requests without a signature: see `build_responses`.
    "MISSING_AUTHENTICATION_TOKEN": _NO_SUCH_ROUTE,
    "QUOTA_EXCEEDED": GatewayProblem(
        "quota-exceeded",
        HTTPStatus.TOO_MANY_REQUESTS,
        "The daily quota of this API key is exceeded.",
        "Retry when the daily quota resets, or ask an operator to raise ApiQuota.",
        retry_after=3600,
        title="Daily quota exceeded",
    ),
    "REQUEST_TOO_LARGE": GatewayProblem(
        "body-too-large",
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "The request body exceeds API Gateway's limit of 10 MB.",
        LARGE_ARCHIVE_REMEDY,
        title="Request body too large",
    ),
    "RESOURCE_NOT_FOUND": _NO_SUCH_ROUTE,
    "THROTTLED": GatewayProblem(
        "throttled",
        HTTPStatus.TOO_MANY_REQUESTS,
        "The rate limit of the API is exceeded.",
        _RETRY,
        retry_after=1,
        title="Too many requests",
    ),
    "UNAUTHORIZED": GatewayProblem(
        "unauthorized",
        HTTPStatus.UNAUTHORIZED,
        "The request has no credentials.",
        "Send an API key in the header x-api-key. With AuthMode=IAM, sign the request with Signature Version 4.",
        title="Missing credentials",
    ),
    "UNSUPPORTED_MEDIA_TYPE": GatewayProblem(
        "unsupported-media-type",
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        "The Content-Type of the body is not supported.",
        f"Send JSON, or send an archive to /v1/upload/local as multipart/form-data. {LARGE_ARCHIVE_REMEDY}",
        title="Unsupported Content-Type",
    ),
    "WAF_FILTERED": GatewayProblem(
        "request-filtered",
        HTTPStatus.FORBIDDEN,
        "The web application firewall of the API blocked the request.",
        "Ask an operator which rule of the firewall blocked the request.",
        title="Request blocked by the firewall",
    ),
    "DEFAULT_4XX": GatewayProblem(
        "request-refused",
        None,
        "API Gateway rejected the request.",
        "GET /v1/openapi.json describes the requests that this route accepts.",
        title="Request rejected",
    ),
    "DEFAULT_5XX": GatewayProblem("internal-error", None, "API Gateway could not process the request."),
}
"""By response type. DEFAULT_4XX and DEFAULT_5XX apply to all types that are not listed.

https://docs.aws.amazon.com/apigateway/latest/developerguide/supported-gateway-response-types.html
"""

_ORIGIN = {"Fn::If": ["HasCors", {"Fn::Sub": "'${CorsAllowOrigin}'"}, {"Ref": "AWS::NoValue"}]}


def build_responses() -> dict[str, Any]:
    """Return `x-amazon-apigateway-gateway-responses` with the conditions of template.yaml, for AWS::Include."""
    responses = {kind: _build_response(problem) for kind, problem in PROBLEMS.items()}
    unsigned, unknown = _build_response(_NOT_SIGNED), responses["MISSING_AUTHENTICATION_TOKEN"]
    responses["MISSING_AUTHENTICATION_TOKEN"] = {
        **unknown,
        "statusCode": {"Fn::If": ["UsesIam", unsigned["statusCode"], unknown["statusCode"]]},
        "responseTemplates": {
            kind: {"Fn::If": ["UsesIam", unsigned["responseTemplates"][kind], text]}
            for kind, text in unknown["responseTemplates"].items()
        },
    }
    return responses


def _build_response(problem: GatewayProblem) -> dict[str, Any]:
    headers: dict[str, Any] = {"Content-Type": "'application/problem+json'", "Access-Control-Allow-Origin": _ORIGIN}
    if problem.retry_after is not None:
        headers["Retry-After"] = f"'{problem.retry_after}'"
        headers["Access-Control-Expose-Headers"] = "'Retry-After'"
    return {
        **({} if problem.status is None else {"statusCode": str(problem.status.value)}),
        "responseParameters": {f"gatewayresponse.header.{name}": value for name, value in headers.items()},
        "responseTemplates": {"application/json": json.dumps(problem.render(), ensure_ascii=False)},
    }


def render_responses() -> str:
    """Return the gateway responses as formatted JSON."""
    return json.dumps(build_responses(), indent=2, ensure_ascii=False) + "\n"
