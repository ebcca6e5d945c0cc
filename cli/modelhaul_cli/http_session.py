"""Requests, and what may go wrong with them below HTTP."""

import contextlib
from collections.abc import Iterator
from importlib.metadata import version

import requests
import urllib3
from requests.adapters import HTTPAdapter

from modelhaul_cli.addresses import is_loopback
from modelhaul_cli.errors import UnavailableError

TIMEOUT = (10.0, 60.0)  # seconds to connect, and without a byte
MAX_CONNECTIONS = 16


class _NoAuthentication(requests.auth.AuthBase):
    """Keeps requests from sending what ~/.netrc has for the host: S3 refuses two ways of signing at once."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


def open_session(url: str) -> requests.Session:
    """For `url` and its like. Proxies and certificates are the environment's, except on this machine."""
    session = requests.Session()
    session.trust_env = not is_loopback(url)
    session.auth = _NoAuthentication()
    session.headers["User-Agent"] = f"modelhaul/{version('modelhaul')}"
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=MAX_CONNECTIONS))
    return session


@contextlib.contextmanager
def translate_network_errors(whom: str) -> Iterator[None]:
    """Raises UnavailableError for requests' and urllib3's, without addresses: those that are presigned are secrets."""
    try:
        yield
    except requests.exceptions.SSLError as error:
        raise UnavailableError(
            f"{whom} cannot be trusted", f"TLS failed ({_find_reason(error)}).", transient=False
        ) from None
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise UnavailableError(f"{whom} cannot be reached", f"{_describe(error)}.") from None


def _describe(error: Exception) -> str:
    text = f"{type(error).__name__} {_find_reason(error)}"
    if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError)) or "TimeoutError" in text:
        return "It did not answer in time"
    if isinstance(error, requests.exceptions.ProxyError):
        return "The proxy does not lead there"
    if "NameResolutionError" in text:
        return "Its name cannot be resolved"
    if "refused" in text:
        return "The connection was refused"
    return "The connection broke off"


def _find_reason(error: BaseException) -> str:
    """The innermost error that requests and urllib3 wrapped: its class and words."""
    inner = error
    for _ in range(5):
        nested = getattr(inner, "reason", None) or next((a for a in inner.args if isinstance(a, BaseException)), None)
        if not isinstance(nested, BaseException):
            break
        inner = nested
    return f"{type(inner).__name__}: {inner}"
