"""URL validation: HTTPS everywhere, plain HTTP only on loopback addresses."""

import ipaddress
from urllib.parse import urlsplit

from modelhaul_cli.errors import UsageError


def is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_url(url: str, name: str) -> str:
    """Return `url` unchanged. Raises UsageError, which mentions `name`, unless it is HTTPS or HTTP on loopback."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    is_valid = parts.hostname and port != 0 and parts.username is None and url.isascii() and url.isprintable()
    if not is_valid or " " in url or parts.scheme not in ("https", "http"):
        raise UsageError(f"Invalid {name}", f"{url[:200]!r} does not have the form https://HOST/PATH.")
    if parts.scheme == "http" and not is_loopback(url):
        raise UsageError(
            f"Insecure {name}",
            f"Plain HTTP exposes the API key to the network and is allowed only on loopback, not for {parts.hostname}.",
        )
    return url
