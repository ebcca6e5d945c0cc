"""Requests of Hub clients."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode

from modelhaul.domain.name_patterns import matches_any

_ONE_BYTE = re.compile(r"bytes=(\d{1,15})-(\d{1,15})")


@dataclass(frozen=True, slots=True)
class KeyContext:
    """The read key of a request, as the authorizer describes it.

    `scopes`: `read`, `import`. `names`: patterns of the `hub_id` of the models that exist for the key.
    """

    key_id: str
    name: str
    scopes: tuple[str, ...]
    names: tuple[str, ...]

    def permits(self, hub_id: str) -> bool:
        """Return whether the key can read and import models with this name."""
        return matches_any(self.names, hub_id)


@dataclass(frozen=True, slots=True)
class HubRequest:
    """A request below the prefix of the API.

    `path` is percent-encoded and has no leading slash. `query` is decoded; a name can have several values. Names of
    `headers` are in lower case. `origin` is the scheme and the host, `prefix` the path of the API, `""` or with a
    leading slash and without a trailing one.
    """

    method: str
    path: str
    origin: str
    prefix: str
    key: KeyContext
    query: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def base_url(self) -> str:
        """Return the URL that the client uses as `HF_ENDPOINT`."""
        return self.origin + self.prefix

    def encode_query(self) -> str:
        """Return `?` and the query, percent-encoded, or an empty string."""
        pairs = [(name, value) for name, values in self.query.items() for value in values]
        return f"?{urlencode(pairs, errors='replace')}" if pairs else ""

    def read_query(self, name: str) -> str | None:
        """Return the last value of the parameter, None if it is missing."""
        values = self.query.get(name)
        return values[-1] if values else None

    def find_single_byte(self) -> int | None:
        """Return the position of the byte that is requested. None if it is not exactly one."""
        found = _ONE_BYTE.fullmatch(self.headers.get("range", ""))
        return int(found[1]) if found and int(found[1]) == int(found[2]) else None
