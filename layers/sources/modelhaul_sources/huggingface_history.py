"""The history of a model at the Hub."""

import json
from http import HTTPStatus
from urllib.parse import quote

from modelhaul.domain.errors import UnexpectedResponseError
from modelhaul_sources.hosts import HostPolicy
from modelhaul_sources.http_client import (
    HttpClient,
    Timeouts,
    create_retryable_error,
    create_status_error,
    describe_url,
    release,
)

_TIMEOUTS = Timeouts(connect=3, read=10, stalled=10)
_MAX_COMMITS = 1000  # that the Hub lists in a page
_MAX_BYTES = 8_000_000


class HubHistory:
    """Reads commits at the Hub at `policy.endpoint`. huggingface_hub would read all pages of a history."""

    def __init__(self, policy: HostPolicy) -> None:
        self._endpoint = policy.endpoint
        self._client = HttpClient(policy, timeouts=_TIMEOUTS, connections=1)

    def is_rewritten(self, name: str, commit: str, earlier: str, token: str | None) -> bool | None:
        """Return whether the history of `commit` lacks the commit `earlier`. None if the history is too long.

        Raises RateLimitedError, SourceUnavailableError, SourceRefusedError, UnexpectedResponseError.
        """
        url = f"{self._endpoint}/api/models/{quote(name)}/commits/{commit}?limit={_MAX_COMMITS}"
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        response = self._client.send("GET", url, own_headers=headers, headers={}).response
        shown, status = describe_url(url), response.status_code
        if status != HTTPStatus.OK:
            release(response)
            error = create_retryable_error(shown, status, response.headers)
            raise error or create_status_error(f"{shown} responded with status {status}.", status)
        is_whole = "next" not in response.links
        try:
            commits = {entry["id"] for entry in json.loads(self._client.read(response, max_bytes=_MAX_BYTES))}
        except (ValueError, TypeError, KeyError, RecursionError):
            raise UnexpectedResponseError(f"{shown} sent an invalid response.") from None
        if earlier in commits:
            return False
        return True if is_whole else None
