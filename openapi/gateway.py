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

GATEWAY_RESPONSES = Path(__file__).with_name("gateway_responses.json")

_LARGE_ARCHIVES = (
    'Upload an archive above 4.5 MB by POST /v1/upload/local with the JSON {"file_name": ..., "size": ...}, whose '
    "response has presigned URLs, or copy it into the incoming bucket under incoming/."
)
_RETRY = "Send the request again after the number of seconds in Retry-After."


@dataclass(frozen=True)
class GatewayProblem:
    """A problem with `kind` as the end of its type.

    `status` None keeps the status that API Gateway chooses. `remedy` is for kinds that no function returns.
    `retry_after` is in seconds.
    """

    kind: str
    status: HTTPStatus | None
    detail: str
    remedy: str | None = None
    retry_after: int | None = None
    title: str | None = None

    def render(self) -> dict[str, Any]:
        """Return the problem document. Raises ValueError unless the remedy has exactly one source."""
        if (self.kind in PROBLEM_REMEDIES) is (self.remedy is not None):
            raise ValueError(f"{self.kind} must have one remedy: in PROBLEM_REMEDIES or here")
        extra = {"title": self.title, "remedy": self.remedy, "retry_after": self.retry_after}
        given: dict[str, Any] = {name: value for name, value in extra.items() if value is not None}
        response = create_problem(self.kind, self.status or HTTPStatus.INTERNAL_SERVER_ERROR, self.detail, **given)
        problem: dict[str, Any] = json.loads(response.body or "")
        if self.status is None:
            del problem["status"]
        return problem


_UNVERIFIED_CALLER = GatewayProblem(
    "internal-error", HTTPStatus.INTERNAL_SERVER_ERROR, "The identity of the caller could not be verified."
)
_NO_SUCH_ROUTE = GatewayProblem("no-such-route", HTTPStatus.NOT_FOUND, "Route not found.")
_NOT_SIGNED = GatewayProblem(
    "not-signed",
    HTTPStatus.FORBIDDEN,
    "The request is not signed (AWS Signature Version 4), or the route was not found.",
    "Sign the request for the service execute-api: see docs/access.md.",
)

PROBLEMS: Mapping[str, GatewayProblem] = {
    "ACCESS_DENIED": GatewayProblem(
        "access-denied",
        HTTPStatus.FORBIDDEN,
        "Access denied: the policies of the caller do not allow this request.",
        "Allow execute-api:Invoke on this route in a policy of the caller.",
    ),
    "API_CONFIGURATION_ERROR": GatewayProblem(
        "internal-error", HTTPStatus.INTERNAL_SERVER_ERROR, "The API is not configured correctly."
    ),
    "AUTHORIZER_CONFIGURATION_ERROR": _UNVERIFIED_CALLER,
    "AUTHORIZER_FAILURE": _UNVERIFIED_CALLER,
    "BAD_REQUEST_BODY": GatewayProblem("invalid-json", HTTPStatus.BAD_REQUEST, "The body is not a JSON object."),
    "BAD_REQUEST_PARAMETERS": GatewayProblem(
        "invalid-parameters",
        HTTPStatus.BAD_REQUEST,
        "A parameter of the path, the query or the headers is missing or invalid.",
        "Correct the parameter, and send the request again.",
    ),
    "EXPIRED_TOKEN": GatewayProblem(
        "expired-credentials",
        HTTPStatus.FORBIDDEN,
        "The credentials that signed the request have expired.",
        "Sign the request with new credentials.",
    ),
    "INTEGRATION_FAILURE": GatewayProblem(
        "gateway-failure",
        HTTPStatus.GATEWAY_TIMEOUT,
        "The function behind this route did not respond.",
        _RETRY,
        retry_after=5,
    ),
    "INTEGRATION_TIMEOUT": GatewayProblem(
        "gateway-timeout", HTTPStatus.GATEWAY_TIMEOUT, "The request took longer than 29 seconds.", _RETRY, retry_after=5
    ),
    "INVALID_API_KEY": GatewayProblem(
        "invalid-api-key",
        HTTPStatus.FORBIDDEN,
        "The request has no valid API key.",
        "Send a valid API key in the header x-api-key.",
    ),
    "INVALID_SIGNATURE": GatewayProblem(
        "invalid-signature",
        HTTPStatus.FORBIDDEN,
        "The signature (AWS Signature Version 4) does not match the request, or the clock of the signer is wrong.",
        "Set the clock, and sign exactly the request that is sent.",
    ),
    # For every unknown route, and with AuthMode=IAM also for a request without a signature: see `render_responses`.
    "MISSING_AUTHENTICATION_TOKEN": _NO_SUCH_ROUTE,
    "QUOTA_EXCEEDED": GatewayProblem(
        "quota-exceeded",
        HTTPStatus.TOO_MANY_REQUESTS,
        "The daily quota of this API key is used up.",
        "Continue tomorrow, or ask an operator to raise ApiQuota.",
        retry_after=3600,
    ),
    "REQUEST_TOO_LARGE": GatewayProblem(
        "body-too-large", HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is too large.", _LARGE_ARCHIVES
    ),
    "RESOURCE_NOT_FOUND": _NO_SUCH_ROUTE,
    "THROTTLED": GatewayProblem("throttled", HTTPStatus.TOO_MANY_REQUESTS, "Too many requests.", _RETRY, retry_after=1),
    "UNAUTHORIZED": GatewayProblem(
        "unauthorized",
        HTTPStatus.UNAUTHORIZED,
        "The request does not identify the caller.",
        "Send an API key in the header x-api-key, or with AuthMode=IAM sign the request.",
    ),
    "UNSUPPORTED_MEDIA_TYPE": GatewayProblem(
        "unsupported-media-type",
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        "The Content-Type of the body is not supported.",
        f"Send JSON, or to /v1/upload/local an archive as multipart/form-data. {_LARGE_ARCHIVES}",
    ),
    "WAF_FILTERED": GatewayProblem(
        "request-filtered",
        HTTPStatus.FORBIDDEN,
        "The web application firewall in front of Modelhaul blocked the request.",
        "Ask the operator which rule of the firewall blocked it.",
    ),
    "DEFAULT_4XX": GatewayProblem(
        "request-refused",
        None,
        "API Gateway rejected the request.",
        "Check in GET /v1/openapi.json what this route accepts.",
        title="Request rejected",
    ),
    "DEFAULT_5XX": GatewayProblem("internal-error", None, "API Gateway could not process the request."),
}
"""By response type. DEFAULT_4XX and DEFAULT_5XX stand for all types that are not listed.

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
    return json.dumps(build_responses(), indent=2, ensure_ascii=False) + "\n"
