"""Restrict the URLs and addresses to fetch from, whatever a source, a redirect or a name server returns."""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Self

from modelhaul.domain.errors import UntrustedHostError

HUGGINGFACE_HOSTS = frozenset({"huggingface.co", "hf.co"})
"""The domains of the Hub, its LFS and Xet storage and its CDNs: https://huggingface.co/.well-known/meta.json"""

GITHUB_HOSTS = frozenset({"github.com", "githubusercontent.com", "github-cloud.s3.amazonaws.com"})
"""The domains of GitHub, its raw content host and its LFS downloads: https://api.github.com/meta"""

# Strict enough that all URL parsers agree on the host: no user name, backslash, space or non-ASCII character.
_URL = re.compile(r"(https?)://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?(?:[/?#][!-\[\]-~]*)?")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
# https://www.rfc-editor.org/rfc/rfc6052#section-2.1
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class Origin(NamedTuple):
    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}"


def parse_origin(url: str) -> Origin:
    """Return the origin of an http or https URL. Raises UntrustedHostError for other URLs and for URLs with a user."""
    match = _URL.fullmatch(url)
    if match is None:
        raise UntrustedHostError(
            "Invalid URL (omitted: it may contain a signature). It must be an http or https URL without a user name.",
            remedy="Report the invalid URL to the operator of the source.",
        )
    scheme, host, port = match.groups()
    return Origin(scheme, host.strip("[]").lower(), int(port or _DEFAULT_PORTS[scheme]))


@dataclass(frozen=True, slots=True)
class HostPolicy:
    """The hosts that may be fetched from.

    `endpoint` is the configured URL of the source. `hosts` are the source's domains on the public internet, and
    `extra_hosts` the domains that the operator trusts; both include all subdomains. `local_mode` (local stack only)
    also allows plain http, and every port of the endpoint's host and of loopback.
    """

    endpoint: str
    hosts: frozenset[str]
    extra_hosts: frozenset[str] = frozenset()
    local_mode: bool = False

    @classmethod
    def for_hub(cls, endpoint: str, *, allowed_hosts: Iterable[str] = (), local_mode: bool = False) -> Self:
        """Return the policy for the Hub. `allowed_hosts`: as configured, in any letter case, with or without `*.`."""
        extra_hosts = frozenset(host.lower().removeprefix("*.") for host in allowed_hosts)
        return cls(endpoint.rstrip("/"), HUGGINGFACE_HOSTS, extra_hosts, local_mode)

    @classmethod
    def for_github(
        cls, api_url: str, *other_urls: str, allowed_hosts: Iterable[str] = (), local_mode: bool = False
    ) -> Self:
        """Return the policy for GitHub. `other_urls`: the configured URLs of the site and of its raw content host."""
        extra_hosts = {host.lower().removeprefix("*.") for host in allowed_hosts}
        configured_hosts = {parse_origin(url).host for url in other_urls}
        extra_hosts |= {host for host in configured_hosts if not _is_within(host, GITHUB_HOSTS)}
        return cls(api_url.rstrip("/"), GITHUB_HOSTS, frozenset(extra_hosts), local_mode)

    def check_url(self, url: str) -> Origin:
        """Return the origin of an allowed URL. Raises UntrustedHostError."""
        origin = parse_origin(url)
        if not self._allows(origin):
            if origin.scheme == "http":
                raise UntrustedHostError(
                    f"{origin} is not an allowed host. Plain http is allowed on the local stack only.",
                    remedy="Ask an operator to check that the configured URL of the source is an HTTPS URL. If it is, "
                    "report the redirect to plain http to the operator of the source.",
                )
            raise UntrustedHostError(f"{origin} is not an allowed host.")
        return origin

    def check_address(self, host: str, address: str) -> None:
        """Check the `address` of `host`. Raises UntrustedHostError for an internal address.

        `address` is that of the open connection, so that a DNS name cannot point into the internal network. Only hosts
        that the operator configured may have private addresses.
        """
        ip = _unwrap(ipaddress.ip_address(address))
        # Reserved addresses include the old form ::a.b.c.d, which some networks would route.
        never = ip.is_loopback or ip.is_link_local or ip.is_unspecified or ip.is_multicast or ip.is_reserved
        if not self.local_mode and (never or not (ip.is_global or self._may_be_private(host))):
            raise UntrustedHostError(
                f"{host} resolves to an address that is not on the public internet.",
                remedy="If the host is yours and has a private address, ask an operator to add it to AllowedHosts. "
                "Loopback and link-local addresses are never allowed.",
            )

    def _allows(self, origin: Origin) -> bool:
        endpoint = parse_origin(self.endpoint)
        if self.local_mode and origin.host in {*_LOOPBACK_HOSTS, endpoint.host}:
            return True
        if origin.scheme != "https" or origin.host in _LOOPBACK_HOSTS:
            return False
        has_default_port = origin.port == _DEFAULT_PORTS["https"]
        return origin == endpoint or (
            has_default_port and (self._is_configured(origin.host) or _is_within(origin.host, self.hosts))
        )

    def _is_configured(self, host: str) -> bool:
        return host == parse_origin(self.endpoint).host or _is_within(host, self.extra_hosts)

    def _may_be_private(self, host: str) -> bool:
        """Return whether the host may be in the operator's network: a trusted host, or an endpoint of their own."""
        return _is_within(host, self.extra_hosts) or (self._is_configured(host) and not _is_within(host, self.hosts))


def _unwrap(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the IPv4 address that an IPv6 address maps or translates to, or the address itself."""
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if ip in _NAT64:
        return ipaddress.IPv4Address(ip.packed[-4:])
    return ip.ipv4_mapped or ip


def _is_within(host: str, domains: frozenset[str]) -> bool:
    return any(host == domain or host.endswith(f".{domain}") for domain in domains)
