"""Entry point of the function behind the Hub read API. Errors have the format of the Hub.

Powertools' resolver is not used, because it would make a cold start longer.
"""

import base64
from typing import Any
from urllib.parse import quote, unquote

from aws_lambda_powertools.utilities.typing import LambdaContext

from modelhaul import wiring
from modelhaul.domain.errors import ObjectGoneError, TransientError
from modelhaul.domain.read_keys import are_key_names
from modelhaul.entrypoints.logs import create_logger
from modelhaul.hub.errors import DefectError, ReadUnavailableError
from modelhaul.hub.requests import HubRequest, KeyContext
from modelhaul.hub.responses import HubResponse, Outcome, respond_error
from modelhaul.settings import LocalSettings

_RETRY_AFTER = 2  # seconds
_CONTEXT_RETRY_AFTER = 60  # the TTL of the authorizer's results


def handle_hub_request(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Handle an API Gateway REST event of the route `/{proxy+}`, and count an error.

    An unexpected exception is logged, and the response is a 500. Hits are not logged.
    """
    logger = create_logger()
    logger.set_correlation_id(context.aws_request_id)
    try:
        request = read_hub_request(event, is_local=LocalSettings.read().local_mode)
        response = wiring.create_hub_reader().respond(request)
    except TransientError as error:
        logger.warning("request failed; the client may retry", detail=error.detail)
        # An object is gone if the model is being deleted or imported again.
        outcome = Outcome.NOT_FOUND if isinstance(error, ObjectGoneError) else Outcome.ERROR
        response = respond_error(ReadUnavailableError(error.detail, retry_after=_RETRY_AFTER), outcome=outcome)
    except ReadUnavailableError as error:
        response = respond_error(error, outcome=Outcome.ERROR)
    except Exception:
        logger.exception("unexpected error")
        defect = DefectError(f"Internal error. Request ID: {context.aws_request_id}.")
        response = respond_error(defect, outcome=Outcome.ERROR)
    if response.outcome is Outcome.ERROR:
        wiring.create_metrics().count("HubErrors")
    return _serialize_response(response, with_body=event["httpMethod"] != "HEAD")


def read_hub_request(event: dict[str, Any], *, is_local: bool) -> HubRequest:
    """Return the request of an event, to which the authorizer has added the context of the read key.

    `is_local`: the event is MiniStack's. Raises ReadUnavailableError for an invalid context.
    """
    path = _read_path(event, is_local=is_local)
    origin, prefix = _read_address(event, is_local=is_local)
    body = event.get("body") or ""
    return HubRequest(
        method=event["httpMethod"],
        path=path,
        origin=origin,
        prefix=prefix,
        key=_read_key(event["requestContext"]["authorizer"]),
        query={name: tuple(values) for name, values in (event.get("multiValueQueryStringParameters") or {}).items()},
        headers={name.lower(): value for name, value in (event.get("headers") or {}).items()},
        body=base64.b64decode(body) if event.get("isBase64Encoded") else body.encode(),
    )


def _read_key(authorizer: dict[str, Any]) -> KeyContext:
    """Return the read key as the authorizer describes it. Raises ReadUnavailableError for an invalid context.

    Results of an earlier version of the authorizer have no `names`. API Gateway caches them for a minute.
    """
    names = tuple(str(authorizer.get("names", "")).split(" "))
    if not are_key_names(names):
        create_logger().error("invalid names of a read key", key_id=authorizer["key_id"], names=authorizer.get("names"))
        raise ReadUnavailableError(
            "The names that the read key can read are unknown. Retry in a minute.", retry_after=_CONTEXT_RETRY_AFTER
        )
    return KeyContext(authorizer["key_id"], unquote(authorizer["name"]), tuple(authorizer["scopes"].split()), names)


def _read_path(event: dict[str, Any], *, is_local: bool) -> str:
    """Return the path below the prefix, percent-encoded.

    REST APIs pass path parameters as the client sent them. MiniStack decodes them.
    """
    path: str = (event.get("pathParameters") or {}).get("proxy", "")
    return quote(path) if is_local else path


def _read_address(event: dict[str, Any], *, is_local: bool) -> tuple[str, str]:
    """Return the origin and the prefix of the API, as in the URL of the client's request.

    The prefix is the stage, or the base path of a custom domain. The header Host is trusted only in the local stack.
    """
    context = event["requestContext"]
    prefix = _remove_end(context["path"], (event.get("pathParameters") or {}).get("proxy", ""))
    if not is_local:
        return f"https://{context['domainName']}", prefix
    headers = {name.lower(): value for name, value in event["headers"].items()}
    return f"http://{headers['host']}", prefix


def _remove_end(path: str, end: str) -> str:
    """Return the path without its end and the slash before it. Either may be percent-encoded while the other is not.

    Without a common end, return the first segment, which is the stage.
    """
    for shown in (path, unquote(path)):
        for tail in (end, unquote(end)):
            if shown.rstrip("/").endswith(f"/{tail.rstrip('/')}"):
                return shown.rstrip("/")[: -len(tail.rstrip("/")) - 1]
    return "/" + path.lstrip("/").partition("/")[0]


def _serialize_response(response: HubResponse, *, with_body: bool) -> dict[str, Any]:
    """Convert a response to the format of API Gateway's Lambda proxy integration."""
    body = response.body if with_body else b""
    is_file = bool(body) and not response.headers.get("Content-Type", "").startswith("application/json")
    return {
        "statusCode": int(response.status),
        "headers": dict(response.headers),
        "body": base64.b64encode(body).decode() if is_file else body.decode(),
        "isBase64Encoded": is_file,
    }
