"""Requests of Hub clients."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode


@dataclass(frozen=True, slots=True)
class KeyContext:
    """The read key of a request, as the authorizer describes it. `scopes`: `read`, `import`."""

    key_id: str
    name: str
    scopes: tuple[str, ...]


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

    @property
    def target(self) -> str:
        """Return the path with the query, percent-encoded, for a redirect to the same route of another server."""
        return self.path + self.encode_query()

    def encode_query(self) -> str:
        """Return `?` and the query, percent-encoded, or an empty string."""
        pairs = [(name, value) for name, values in self.query.items() for value in values]
        return f"?{urlencode(pairs, errors='replace')}" if pairs else ""

    def read_query(self, name: str) -> str | None:
        """Return the last value of the parameter, None if it is missing."""
        values = self.query.get(name)
        return values[-1] if values else None
