"""HTTP sessions, and the translation of network errors."""

import contextlib
from collections.abc import Iterator
from importlib.metadata import version

import requests
import urllib3
from requests.adapters import HTTPAdapter

from modelhaul_cli.errors import UnreachableError
from modelhaul_cli.urls import is_loopback

TIMEOUT = (4.0, 20.0)  # seconds to connect, and between received bytes
# For requests to S3 with a body: seconds to connect and to send each block, and between received bytes. After the last
# block, megabytes may still be in the buffers of the kernel, and a slow uplink needs time to send them.
BODY_TIMEOUT = (10.0, 60.0)
MAX_CONNECTIONS = 16


class _NoAuthentication(requests.auth.AuthBase):
    """Prevent credentials from ~/.netrc: S3 rejects presigned requests with a second authentication method."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


def open_session(url: str) -> requests.Session:
    """Create a session for `url` and similar URLs. It uses the proxies and certificates of the environment, except on
    loopback.
    """
    session = requests.Session()
    session.trust_env = not is_loopback(url)
    session.auth = _NoAuthentication()
    session.headers["User-Agent"] = f"modelhaul/{version('modelhaul')}"
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=MAX_CONNECTIONS))
    return session


@contextlib.contextmanager
def translate_network_errors(service: str) -> Iterator[None]:
    """Translate errors of requests and urllib3 to UnreachableError, without URLs: presigned URLs are secrets.

    `service` is the name in the message, such as "S3".
    """
    try:
        yield
    except requests.exceptions.SSLError as error:
        raise UnreachableError(
            f"TLS connection to {service} failed", f"{_find_reason(error)}.", transient=False
        ) from None
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise UnreachableError(f"Cannot reach {service}", f"{_describe(error)}.") from None


def _describe(error: Exception) -> str:
    text = f"{type(error).__name__} {_find_reason(error)}"
    if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError)) or "TimeoutError" in text:
        return "The request timed out"
    if isinstance(error, requests.exceptions.ProxyError):
        return "The connection to the proxy failed"
    if "NameResolutionError" in text:
        return "The host name cannot be resolved"
    if "refused" in text:
        return "The connection was refused"
    return "The connection was interrupted"


def _find_reason(error: BaseException) -> str:
    """Return the class and message of the innermost error that requests and urllib3 wrapped."""
    inner = error
    for _ in range(5):
        nested = getattr(inner, "reason", None) or next((a for a in inner.args if isinstance(a, BaseException)), None)
        if not isinstance(nested, BaseException):
            break
        inner = nested
    return f"{type(inner).__name__}: {inner}"
