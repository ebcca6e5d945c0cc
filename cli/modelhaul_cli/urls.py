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
    """Return `url` unchanged. Raises UsageError unless it is HTTPS, or HTTP on loopback. `name` is for the message."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    is_valid = parts.hostname and port != 0 and parts.username is None and url.isascii() and url.isprintable()
    if not is_valid or " " in url or parts.scheme not in ("https", "http"):
        # The query of a presigned URL is a secret.
        shown = url.partition("?")[0][:200]
        raise UsageError(
            f"Invalid {name}",
            f"{shown!r} is not a valid URL. It must have the form https://HOST[:PORT]/PATH, without credentials or "
            "spaces.",
        )
    if parts.scheme == "http" and not is_loopback(url):
        raise UsageError(
            f"Insecure {name}",
            f"http://{parts.netloc} uses plain HTTP, which exposes credentials. Use HTTPS. Plain HTTP is allowed only "
            "on loopback.",
        )
    return url
