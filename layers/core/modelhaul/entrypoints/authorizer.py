"""Entry point of the Lambda authorizer of the Hub read API, which is of the type TOKEN.

https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-lambda-authorizer-output.html
"""

import re
from datetime import UTC, date, datetime
from typing import Any
from urllib.parse import quote

from aws_lambda_powertools.utilities.typing import LambdaContext

from modelhaul import wiring
from modelhaul.domain.errors import StorageUnavailableError
from modelhaul.domain.read_keys import KEY_PATTERN, ReadKey, check_key, identify_key
from modelhaul.entrypoints.logs import create_logger

# https://www.rfc-editor.org/rfc/rfc9110#section-11.1: the scheme is case-insensitive.
_BEARER = re.compile(rf"bearer +(?-i:({KEY_PATTERN.pattern}))", re.IGNORECASE)


def authorize_request(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Return a policy that allows a request with a valid read key, and denies any other request.

    API Gateway caches the policy by the value of the header `Authorization`. The policy is therefore for all routes of
    the stage. Raises StorageUnavailableError: API Gateway then responds with 500 and caches nothing.
    """
    create_logger().set_correlation_id(context.aws_request_id)
    stage = "/".join(event["methodArn"].split("/")[:2])
    now = datetime.now(UTC)
    record = _find_key(event.get("authorizationToken") or "", now)
    if record is None:
        wiring.create_metrics().count("HubAccessDenied")
        return {"principalId": "unknown", "policyDocument": _create_policy("Deny", stage)}
    _record_use(record, now.date())
    return {
        "principalId": record.key_id,
        "policyDocument": _create_policy("Allow", stage),
        # Percent-encoded, because API Gateway does not document how it passes other characters than ASCII.
        "context": {
            "key_id": record.key_id,
            "name": quote(record.name),
            "scopes": " ".join(record.scopes),
            "names": " ".join(record.names),
        },
    }


def _find_key(authorization: str, now: datetime) -> ReadKey | None:
    """Return the record of the valid read key in the header's value. None if it has no valid key."""
    found = _BEARER.fullmatch(authorization)
    if found is None:
        return None
    key = found[1]
    record = wiring.create_read_keys().find_key(identify_key(key))
    if record is None:
        return None
    if check_key(record, key, now):
        return record
    create_logger().info("denied read key", key_id=record.key_id, expires_at=record.expires_at)
    return None


def _record_use(record: ReadKey, today: date) -> None:
    if record.last_used_on is not None and record.last_used_on >= today:
        return
    try:
        wiring.create_read_keys().record_use(record.key_id, today)
    except StorageUnavailableError:
        create_logger().warning("use of read key not recorded", exc_info=True, key_id=record.key_id)


def _create_policy(effect: str, stage: str) -> dict[str, Any]:
    """Return a policy for all methods and paths of the stage. `stage` is its ARN."""
    statement = {"Action": "execute-api:Invoke", "Effect": effect, "Resource": f"{stage}/*"}
    return {"Version": "2012-10-17", "Statement": [statement]}
