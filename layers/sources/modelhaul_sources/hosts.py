"""Which addresses may be fetched, whatever a source, a redirect or a name server says."""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Self

from modelhaul.domain.errors import UntrustedHostError

HUGGINGFACE_HOSTS = frozenset({"huggingface.co", "hf.co"})
"""The Hub, its LFS and Xet storage and its CDNs: https://huggingface.co/.well-known/meta.json"""

GITHUB_HOSTS = frozenset({"github.com", "githubusercontent.com", "github-cloud.s3.amazonaws.com"})
"""GitHub, its raw host and where its LFS links lead: https://api.github.com/meta"""

# So narrow that all URL parsers agree on the host: no user name, no backslash, no space, nothing but ASCII.
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
    """Raises UntrustedHostError for what is not a plain http(s) URL, also for one with a user name in it."""
    match = _URL.fullmatch(url)
    if match is None:
        raise UntrustedHostError("the source refers to an address that is not a plain http or https URL")
    scheme, host, port = match.groups()
    return Origin(scheme, host.strip("[]").lower(), int(port or _DEFAULT_PORTS[scheme]))


@dataclass(frozen=True, slots=True)
class HostPolicy:
    """`endpoint` is the source's configured address. `hosts` are the source's own on the public internet and
    `extra_hosts` those that the operator trusts, each with all subdomains.

    `local_mode` (local stack only) adds plain http, and every port of the endpoint's host and of loopback.
    """

    endpoint: str
    hosts: frozenset[str]
    extra_hosts: frozenset[str] = frozenset()
    local_mode: bool = False

    @classmethod
    def for_hub(cls, endpoint: str, *, allowed_hosts: Iterable[str] = (), local_mode: bool = False) -> Self:
        """`allowed_hosts` as an operator writes them: in any case, `*.` before them or not."""
        extra_hosts = frozenset(host.lower().removeprefix("*.") for host in allowed_hosts)
        return cls(endpoint.rstrip("/"), HUGGINGFACE_HOSTS, extra_hosts, local_mode)

    @classmethod
    def for_github(
        cls, api_url: str, *other_urls: str, allowed_hosts: Iterable[str] = (), local_mode: bool = False
    ) -> Self:
        """`other_urls`: the site's own, and that of its raw host, if an operator has others than github.com's."""
        extra_hosts = {host.lower().removeprefix("*.") for host in allowed_hosts}
        own_hosts = {parse_origin(url).host for url in other_urls}
        extra_hosts |= {host for host in own_hosts if not _is_within(host, GITHUB_HOSTS)}
        return cls(api_url.rstrip("/"), GITHUB_HOSTS, frozenset(extra_hosts), local_mode)

    def check_url(self, url: str) -> Origin:
        """Raises UntrustedHostError."""
        origin = parse_origin(url)
        if not self._allows(origin):
            hint = (
                "plain http is accepted on the local stack only"
                if origin.scheme == "http"
                else "if you trust it, add its host to the parameter AllowedHosts"
            )
            raise UntrustedHostError(f"{origin} is not among the addresses that may be fetched; {hint}")
        return origin

    def check_address(self, host: str, address: str) -> None:
        """`address` is what a connection for `host` is really made to, so a name cannot lead inside.

        Hosts of an operator's own network may have private addresses. Raises UntrustedHostError.
        """
        ip = _unwrap(ipaddress.ip_address(address))
        # Reserved is the old form ::a.b.c.d, for example, which some networks would route.
        never = ip.is_loopback or ip.is_link_local or ip.is_unspecified or ip.is_multicast or ip.is_reserved
        if not self.local_mode and (never or not (ip.is_global or self._is_inner(host))):
            raise UntrustedHostError(f"{host} leads to an address that is not on the public internet")

    def _allows(self, origin: Origin) -> bool:
        own = parse_origin(self.endpoint)
        if self.local_mode and origin.host in {*_LOOPBACK_HOSTS, own.host}:
            return True
        if origin.scheme != "https" or origin.host in _LOOPBACK_HOSTS:
            return False
        at_usual_port = origin.port == _DEFAULT_PORTS["https"]
        return origin == own or (
            at_usual_port and (self._is_operators(origin.host) or _is_within(origin.host, self.hosts))
        )

    def _is_operators(self, host: str) -> bool:
        return host == parse_origin(self.endpoint).host or _is_within(host, self.extra_hosts)

    def _is_inner(self, host: str) -> bool:
        """Whether it may be in the operator's network: an endpoint that is no public source, or a host they named."""
        return _is_within(host, self.extra_hosts) or (self._is_operators(host) and not _is_within(host, self.hosts))


def _unwrap(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The IPv4 address that an IPv6 one stands for."""
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if ip in _NAT64:
        return ipaddress.IPv4Address(ip.packed[-4:])
    return ip.ipv4_mapped or ip


def _is_within(host: str, domains: frozenset[str]) -> bool:
    return any(host == domain or host.endswith(f".{domain}") for domain in domains)
