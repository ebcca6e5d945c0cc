"""Send HTTP requests to the hosts that a policy allows, with the project's own errors and without retries."""

import contextlib
import re
import ssl
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
    SourceRefusedError,
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
# An unread body up to this size is read to its end, so that the connection can be reused.
_MAX_DRAINED = 64 * 1024
_CHUNK_SIZE = 64 * 1024
_CLIENT_ERROR = 4  # first digit of a status


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Maximum seconds to connect, to receive the next byte, and to receive the next 256 KiB."""

    connect: float = 10
    read: float = 20
    stalled: float = 30


DEFAULT_TIMEOUTS = Timeouts()


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """The final response, whose body is unread, and the headers of the redirects before it."""

    response: requests.Response
    redirects: Sequence[Mapping[str, str]]
    at_first_origin: bool


class HttpClient:
    """An HTTP client without cookies, and without proxies, credentials or certificates from the environment.

    It keeps up to `connections` open for each host. Safe to use from several threads.
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
        """Send a request and follow redirects to allowed hosts with the same method.

        `own_headers` and `json` are sent to the first origin only. Raises UntrustedHostError, SourceUnavailableError,
        or UnexpectedResponseError for an invalid TLS certificate, too many redirects, or a redirect that sends `json`
        to a different origin.
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
                    raise UnexpectedResponseError(f"A request with a body was redirected to {describe_url(url)}.")
        raise UnexpectedResponseError(f"{describe_url(url)} redirected more than {_MAX_REDIRECTS} times.")

    def read(self, response: requests.Response, *, max_bytes: int) -> bytes:
        """Return the decoded body. Raises SourceUnavailableError, or UnexpectedResponseError above `max_bytes`."""
        url = describe_url(response.url)
        body = bytearray()
        timeout = 2 * self._timeouts.stalled
        deadline = time.monotonic() + timeout
        try:
            for chunk in response.iter_content(_CHUNK_SIZE):
                body += chunk
                if len(body) > max_bytes:
                    raise UnexpectedResponseError(f"{url} sent more than {max_bytes:,} bytes.")
                if time.monotonic() > deadline:
                    raise SourceUnavailableError(f"{url} did not send the whole response within {timeout:g} seconds.")
        except (requests.RequestException, HTTPError, HTTPException, OSError, ValueError, AttributeError):
            raise SourceUnavailableError(f"The connection to {url} was interrupted.") from None
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
        except requests.Timeout as error:
            reason = f"did not respond in time ({type(error).__name__})"
        except requests.exceptions.SSLError as error:
            if _is_certificate_error(error):
                invalid = f"{describe_url(url)} has no valid TLS certificate."
                raise UnexpectedResponseError(invalid) from None
            reason = f"closed the TLS connection ({type(error).__name__})"
        except (requests.RequestException, HTTPError, HTTPException, OSError, ValueError) as error:
            # urllib3 and http.client raise the last four themselves for some malformed responses.
            reason = f"cannot be reached, or sent an invalid response ({type(error).__name__})"
        raise SourceUnavailableError(f"{describe_url(url)} {reason}.")


def describe_url(url: str) -> str:
    """Return the URL without credentials and without its query, which may hold a signature."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _is_certificate_error(error: BaseException) -> bool:
    """Return whether an invalid certificate caused the error."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    return cause is not None


def create_retryable_error(url: str, status: int, headers: Mapping[str, str]) -> ModelhaulError | None:
    """Return RateLimitedError for 429, SourceUnavailableError for 408, 425 and 5xx, else None.

    501 and 505 are UnexpectedResponseErrors: the server works, but does not support the request.
    `url` is the text for the message. The errors have the waiting time from the headers.
    """
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return RateLimitedError(
            f"{url} responded with status {status} (rate limit exceeded).", retry_after=read_retry_after(headers)
        )
    if status in (HTTPStatus.NOT_IMPLEMENTED, HTTPStatus.HTTP_VERSION_NOT_SUPPORTED):
        return UnexpectedResponseError(f"{url} responded with status {status}.")
    if status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY) or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return SourceUnavailableError(
            f"{url} responded with status {status}.", retry_after=read_retry_after(headers, rate_limit=False)
        )
    return None


def create_status_error(detail: str, status: int) -> ModelhaulError:
    """Return the error for a status that has no other meaning for the caller.

    SourceRefusedError for 4xx, because a retry gets the same response, except for the 4xx that ask for a retry.
    """
    is_final = status // 100 == _CLIENT_ERROR and create_retryable_error("", status, {}) is None
    return SourceRefusedError(detail) if is_final else UnexpectedResponseError(detail)


def read_retry_after(headers: Mapping[str, str], *, rate_limit: bool = True) -> float | None:
    """Return the seconds in `Retry-After` (seconds or a date), else the reset time of `RateLimit`, else None."""
    value = headers.get("Retry-After", "").strip()
    if _SECONDS.fullmatch(value):
        return float(value)
    with contextlib.suppress(ValueError):
        at = parsedate_to_datetime(value)
        return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    reset = _RATE_LIMIT_RESET.search(headers.get("RateLimit", "")) if rate_limit else None
    return float(reset[1]) if reset else None


def release(response: requests.Response) -> None:
    """Close the response. Read a small body first, so that the connection can be reused."""
    length = response.headers.get("Content-Length", "")
    with contextlib.suppress(HTTPError, HTTPException, OSError, ValueError):
        if LENGTH.fullmatch(length) and int(length) <= _MAX_DRAINED:
            response.raw.read(int(length), decode_content=False)
    response.close()


class _GuardedAdapter(HTTPAdapter):
    """Refuses HTTPS connections to addresses that the policy does not allow."""

    def __init__(self, policy: HostPolicy, *, pool_maxsize: int) -> None:
        self._policy = policy
        super().__init__(pool_maxsize=pool_maxsize)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        policy = self._policy

        class GuardedConnection(HTTPSConnection):
            def connect(self) -> None:
                """Check the address of the open connection before a request is sent."""
                super().connect()
                try:
                    policy.check_address(self.host, self.sock.getpeername()[0])
                except UntrustedHostError:
                    self.close()
                    raise

        class GuardedPool(HTTPSConnectionPool):
            ConnectionCls = GuardedConnection

        self.poolmanager.pool_classes_by_scheme = {"https": GuardedPool}
