"""Requests to addresses that a policy allows, from one connection pool, with our errors and without retries."""

import contextlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.client import HTTPException
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.utils import requote_uri
from urllib3 import HTTPSConnectionPool
from urllib3.connection import HTTPSConnection
from urllib3.exceptions import HTTPError

from modelhaul.domain.errors import (
    ModelhaulError,
    RateLimitedError,
    SourceUnavailableError,
    UnexpectedResponseError,
    UntrustedHostError,
)
from modelhaul_sources.hosts import HostPolicy

LENGTH = re.compile(r"[0-9]{1,15}")

_MAX_REDIRECTS = 5
_SECONDS = re.compile(r"[0-9]{1,9}")
# https://www.ietf.org/archive/id/draft-ietf-httpapi-ratelimit-headers-09.html
_RATE_LIMIT_RESET = re.compile(r";\s*t\s*=\s*([0-9]{1,9})")
# A body up to this size is read to its end, so that its connection can be used again.
_MAX_DRAINED = 64 * 1024
_CHUNK = 64 * 1024


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds for a connection, for the next byte, and for the next 256 KiB."""

    connect: float = 10
    read: float = 20
    stalled: float = 30


DEFAULT_TIMEOUTS = Timeouts()


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """The last answer, whose body is unread, and the headers of the redirects that led to it."""

    response: requests.Response
    redirects: Sequence[Mapping[str, str]]
    at_first_origin: bool


class HttpClient:
    """Safe to use from several threads. It takes no proxy, credentials or certificates from the environment and keeps
    no cookies; `connections` stay open for each host.
    """

    def __init__(self, policy: HostPolicy, *, timeouts: Timeouts = DEFAULT_TIMEOUTS, connections: int = 32) -> None:
        self._policy = policy
        self._timeouts = timeouts
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._session.headers["User-Agent"] = "modelhaul"
        self._session.mount("https://", _GuardedAdapter(policy, pool_maxsize=connections))
        self._session.mount("http://", HTTPAdapter(pool_maxsize=connections))

    def send(
        self,
        method: str,
        url: str,
        *,
        own_headers: Mapping[str, str],
        headers: Mapping[str, str],
        json: object = None,
    ) -> HttpResponse:
        """Follows redirects, each of which the policy must allow, by the same method; `own_headers` and `json` go to
        the first origin only.

        Raises UntrustedHostError, SourceUnavailableError; UnexpectedResponseError for too many redirects, or one that
        takes a body elsewhere.
        """
        origin = first_origin = self._policy.check_url(url)
        own_headers = dict(own_headers)
        redirects: list[Mapping[str, str]] = []
        while len(redirects) <= _MAX_REDIRECTS:
            response = self._send(method, url, own_headers | dict(headers), json)
            target = self._session.get_redirect_target(response)
            if target is None:
                return HttpResponse(response, redirects, origin == first_origin)
            redirects.append(response.headers)
            release(response)
            url = requote_uri(urljoin(url, target))
            origin = self._policy.check_url(url)
            if origin != first_origin:
                own_headers.clear()
                if json is not None:
                    raise UnexpectedResponseError(f"{describe_url(url)}: a redirect would take the question elsewhere")
        raise UnexpectedResponseError(f"{describe_url(url)}: more than {_MAX_REDIRECTS} redirects")

    def read(self, response: requests.Response, *, most: int) -> bytes:
        """The whole body, decoded. Raises SourceUnavailableError; UnexpectedResponseError above `most` bytes."""
        place = describe_url(response.url)
        body = bytearray()
        deadline = time.monotonic() + 2 * self._timeouts.stalled
        try:
            for chunk in response.iter_content(_CHUNK):
                body += chunk
                if len(body) > most:
                    raise UnexpectedResponseError(f"{place} sent more than {most:,} bytes")
                if time.monotonic() > deadline:
                    raise SourceUnavailableError(f"{place} sends too slowly")
        except (requests.RequestException, HTTPError, HTTPException, OSError, ValueError, AttributeError):
            raise SourceUnavailableError(f"the connection to {place} broke") from None
        finally:
            response.close()
        return bytes(body)

    def _send(self, method: str, url: str, headers: Mapping[str, str], json: object) -> requests.Response:
        try:
            return self._session.request(
                method,
                url,
                headers=dict(headers),
                json=json,
                stream=True,
                allow_redirects=False,
                timeout=(self._timeouts.connect, self._timeouts.read),
            )
        except requests.Timeout:
            reason = "does not answer in time"
        except requests.exceptions.SSLError:
            reason = "has no valid TLS certificate, or broke the connection"
        except (requests.RequestException, HTTPError, HTTPException, OSError, ValueError):
            # The last four come out of urllib3 and http.client as they are for some malformed answers.
            reason = "cannot be reached, or does not answer in HTTP"
        raise SourceUnavailableError(f"{describe_url(url)} {reason}")


def describe_url(url: str) -> str:
    """The URL without its query, which may hold a signature, and without credentials."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def describe_waiting(place: str, status: int, headers: Mapping[str, str]) -> ModelhaulError | None:
    """RateLimitedError for 429, SourceUnavailableError for 408 and 5xx, with the source's waiting time."""
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return RateLimitedError(f"{place} limits how often it is asked", retry_after=read_retry_after(headers))
    if status == HTTPStatus.REQUEST_TIMEOUT or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return SourceUnavailableError(
            f"{place} answered with status {status}", retry_after=read_retry_after(headers, rate_limit=False)
        )
    return None


def read_retry_after(headers: Mapping[str, str], *, rate_limit: bool = True) -> float | None:
    """Seconds from `Retry-After` (seconds or a date), else from the reset time of `RateLimit`, else None."""
    value = headers.get("Retry-After", "").strip()
    if _SECONDS.fullmatch(value):
        return float(value)
    with contextlib.suppress(ValueError):
        at = parsedate_to_datetime(value)
        return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    reset = _RATE_LIMIT_RESET.search(headers.get("RateLimit", "")) if rate_limit else None
    return float(reset[1]) if reset else None


def release(response: requests.Response) -> None:
    """Gives the connection back, for the next request if the body is small."""
    length = response.headers.get("Content-Length", "")
    with contextlib.suppress(HTTPError, HTTPException, OSError, ValueError):
        if LENGTH.fullmatch(length) and int(length) <= _MAX_DRAINED:
            response.raw.read(int(length), decode_content=False)
    response.close()


class _GuardedAdapter(HTTPAdapter):
    def __init__(self, policy: HostPolicy, *, pool_maxsize: int) -> None:
        self._policy = policy
        super().__init__(pool_maxsize=pool_maxsize)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        policy = self._policy

        class GuardedConnection(HTTPSConnection):
            def connect(self) -> None:
                """Checks the address that was connected to, before anything is asked of it."""
                super().connect()
                try:
                    policy.check_address(self.host, self.sock.getpeername()[0])
                except UntrustedHostError:
                    self.close()
                    raise

        class GuardedPool(HTTPSConnectionPool):
            ConnectionCls = GuardedConnection

        self.poolmanager.pool_classes_by_scheme = {"https": GuardedPool}
