"""Signatures of requests to an API with AuthMode=IAM: Signature Version 4, by botocore.

botocore is optional (`pip install '.[iam]'`), because it is larger than all other dependencies together.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import requests

from modelhaul_cli.errors import AccessError, UsageError

if TYPE_CHECKING:
    from botocore.credentials import Credentials

_SERVICE = "execute-api"
_HOST = re.compile(rf"\.{_SERVICE}\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?")
# Besides the host. Proxies may change other headers.
_SIGNED_HEADERS = ("Content-Type", "Idempotency-Key")
_ADDED_HEADERS = ("X-Amz-Date", "X-Amz-Security-Token", "Authorization")
_SIGN_IN = "Sign in again, for example with `aws sso login`, or set other credentials."


class RequestSigner(requests.auth.AuthBase):
    """Signs each request, and each attempt again: a signature is valid for minutes. Thread-safe."""

    def __init__(self, credentials: "Credentials", region: str) -> None:
        self._credentials = credentials
        self._region = region

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.exceptions import BotoCoreError, ClientError

        if not isinstance(request.body, bytes | str | None):
            raise TypeError("a body that is read while it is sent cannot be signed")
        headers = {name: request.headers[name] for name in _SIGNED_HEADERS if name in request.headers}
        signed = AWSRequest(request.method, request.url, headers=headers, data=request.body)
        try:
            # Temporary credentials are renewed before they expire, if their provider can.
            frozen = self._credentials.get_frozen_credentials()
        except (BotoCoreError, ClientError, ValueError) as error:  # ValueError: output of a credential_process
            raise AccessError("Cannot renew the AWS credentials", f"{error}", remedy=_SIGN_IN) from None
        SigV4Auth(frozen, _SERVICE, self._region).add_auth(signed)
        request.headers.update({name: signed.headers[name] for name in _ADDED_HEADERS if name in signed.headers})
        return request


def is_signed(request: requests.PreparedRequest) -> bool:
    return "AWS4-HMAC-SHA256" in str(request.headers.get("Authorization", ""))


def open_signer(url: str, environment: Mapping[str, str], instructions: str) -> RequestSigner:
    """Return a signer with the credentials that the AWS CLI would use. Raises UsageError; `instructions` end its text.

    The region is that of the host `….execute-api.REGION.amazonaws.com`, for other hosts the configured one.
    """
    try:
        from botocore.exceptions import BotoCoreError
        from botocore.session import get_session
    except ImportError:
        raise UsageError(
            "API key is not configured",
            f"No API key was found for {url}, and signing requests requires botocore, which is not installed.\n"
            f"{instructions}",
            remedy="Set an API key, or install modelhaul again, with `.[iam]` instead of `.` (docs/command-line.md).",
        ) from None
    session = get_session()
    try:
        found = _HOST.search(urlsplit(url).hostname or "")
        region = found[1] if found else environment.get("AWS_REGION") or session.get_config_variable("region")
        credentials = session.get_credentials()
    except (BotoCoreError, ValueError) as error:  # such as an unknown profile, or output of a credential_process
        raise UsageError("Cannot use the AWS credentials", f"{error}.".replace("..", "."), remedy=_SIGN_IN) from None
    if credentials is None:
        raise UsageError(
            "Credentials are not configured",
            f"Neither an API key nor AWS credentials were found for {url}.\n{instructions}",
        )
    if not region:
        raise UsageError(
            "AWS Region is not configured",
            f"{url} does not contain the Region of the API, which is part of a signature.",
            remedy="Set AWS_REGION to the Region of the stack.",
        )
    return RequestSigner(credentials, str(region))
