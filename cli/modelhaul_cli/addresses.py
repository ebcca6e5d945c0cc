"""Which addresses are spoken to: HTTPS, and plain HTTP on this machine only."""

import ipaddress
from urllib.parse import urlsplit

from modelhaul_cli.errors import UsageError


def is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_address(url: str, what: str) -> str:
    """The address itself. Raises UsageError unless it is HTTPS, or HTTP on loopback."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    sound = parts.hostname and port != 0 and parts.username is None and url.isascii() and url.isprintable()
    if not sound or " " in url or parts.scheme not in ("https", "http"):
        raise UsageError(f"{what} is not an address", f"{url[:200]!r} is not like https://HOST/PATH.")
    if parts.scheme == "http" and not is_loopback(url):
        raise UsageError(
            f"{what} is not HTTPS",
            f"Plain HTTP is spoken only with this machine, not with {parts.hostname}: others could read the key.",
        )
    return url
