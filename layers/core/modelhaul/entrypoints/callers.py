"""The caller of an API Gateway request."""

from collections.abc import Mapping
from typing import Any

from modelhaul.domain.callers import name_api_key


def read_caller(event: Mapping[str, Any]) -> str | None:
    """Return the name of the caller: the ARN of the IAM principal that signed the request, or the ID of the API key.

    The ARN of an assumed role ends in the name of the session. None if API Gateway passes neither, such as for routes
    without authentication.
    https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-mapping-template-reference.html
    """
    identity = event.get("requestContext", {}).get("identity") or {}
    if arn := identity.get("userArn"):
        return str(arn)
    key_id = identity.get("apiKeyId")
    return name_api_key(key_id) if key_id else None
