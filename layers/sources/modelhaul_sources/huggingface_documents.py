"""JSON documents of the Hub's API, as the Hub returns them to clients without a token."""

import json
import re
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlsplit

import requests

from modelhaul.domain.errors import ModelNotFoundError, UnexpectedResponseError
from modelhaul.ports.missing_models import UpstreamDocument, UpstreamRequest
from modelhaul_sources.hosts import HostPolicy
from modelhaul_sources.http_client import HttpClient, Timeouts, create_retryable_error, describe_url, release

# A client waits for at most 29 s, and Lambda returns at most 6 MB. As part of a result, ASCII text at most doubles.
_TIMEOUTS = Timeouts(connect=3, read=6, stalled=3)
_MAX_BYTES = 2_500_000
_QUERY = re.compile(r"[!-;=?-~]{1,2000}")  # printable, without `<` and `>`, which delimit the URL in a header


class HubDocuments:
    """Reads documents at the Hub at `policy.endpoint`."""

    def __init__(self, policy: HostPolicy) -> None:
        self._endpoint = policy.endpoint
        self._client = HttpClient(policy, timeouts=_TIMEOUTS, connections=1)

    def read_document(self, name: str, commit: str, request: UpstreamRequest) -> UpstreamDocument | None:
        """Return a document of the model, None if the commit does not have the path."""
        url = self._build_url(name, commit, request)
        is_query = request.kind == "paths-info"
        response = self._client.send(
            "POST" if is_query else "GET",
            url,
            own_headers={},
            headers={},
            json={"paths": list(request.paths), "expand": request.expand} if is_query else None,
        ).response
        if response.status_code != HTTPStatus.OK:
            release(response)
            if response.headers.get("X-Error-Code") == "EntryNotFound":
                return None
            status = response.status_code
            retryable = create_retryable_error(describe_url(url), status, response.headers)
            raise retryable or ModelNotFoundError(f"{describe_url(url)} responded with status {status}.")
        next_query = _find_next_query(response)
        content = self._client.read(response, max_bytes=_MAX_BYTES)
        try:
            body = json.dumps(json.loads(content, object_hook=_omit_xet), separators=(",", ":"))
        except (ValueError, RecursionError):
            raise UnexpectedResponseError(f"{describe_url(url)} sent an invalid response.") from None
        if len(body) > _MAX_BYTES:
            raise UnexpectedResponseError(f"{describe_url(url)} sent more than {_MAX_BYTES:,} bytes.")
        return UpstreamDocument(body, next_query)

    def _build_url(self, name: str, commit: str, request: UpstreamRequest) -> str:
        route = {
            "info": f"revision/{commit}",
            "refs": "refs",
            "tree": f"tree/{commit}/{quote(request.path)}".rstrip("/"),
            "paths-info": f"paths-info/{commit}",
        }[request.kind]
        query = f"?{request.query}" if request.query else ""
        return f"{self._endpoint}/api/models/{quote(name)}/{route}{query}"


def _omit_xet(value: dict[str, Any]) -> dict[str, Any]:
    """Omit the hash with which clients would request a Xet token."""
    value.pop("xetHash", None)
    return value


def _find_next_query(response: requests.Response) -> str | None:
    """Return the query of the next page's URL. Raises UnexpectedResponseError."""
    link = response.links.get("next")
    if link is None:
        return None
    query = urlsplit(link["url"]).query
    if not _QUERY.fullmatch(query):
        raise UnexpectedResponseError(f"{describe_url(response.url)} sent an invalid link to the next page.")
    return query
