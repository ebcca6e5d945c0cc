"""Routes of the Hub that are served."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import quote, unquote

from modelhaul.domain.hub_names import is_hub_id
from modelhaul.domain.read_keys import KEY_PATTERN
from modelhaul.hub.errors import InvalidNameError, RouteMissingError

HEAD = "HEAD"  # the default revision; @huggingface/hub also requests it by this name
_REFERENCE = re.compile(r"refs/[^/]+/[^/]+(?=/|\Z)")  # `refs/pr/1`, also with unencoded slashes


class RouteKind(StrEnum):
    """What a route returns."""

    WHOAMI = "whoami"
    LIST = "list"
    INFO = "info"
    REFS = "refs"
    TREE = "tree"
    PATHS_INFO = "paths-info"
    RESOLVE = "resolve"
    RAW = "raw"


# First segments of paths that are not names of models.
_RESERVED = frozenset({"api", "datasets", "spaces", "buckets", "kernels"})
_READING = frozenset({"GET", "HEAD"})
# The actions of `/api/models/{id}/{action}`, and the number of segments that follow at least and at most.
_ACTIONS = {
    "revision": (RouteKind.INFO, 1, 1000),
    "refs": (RouteKind.REFS, 0, 0),
    "tree": (RouteKind.TREE, 1, 1000),
    "paths-info": (RouteKind.PATHS_INFO, 1, 1000),
}
_FILES = {"resolve": (RouteKind.RESOLVE, 2, 1000), "raw": (RouteKind.RAW, 2, 1000)}


@dataclass(frozen=True, slots=True)
class Route:
    """A route with its parameters, percent-decoded once.

    `rest` is the revision, followed by the path if the route has one. The slashes of a revision may have been encoded
    by the client or decoded on the way, so only the known revisions show where the path begins. `first` is the first
    segment of `rest`, which is the revision if it has an encoded slash.

    `before` and `after` are the parts of the request's path around the model's name, percent-encoded.
    """

    kind: RouteKind
    repo_id: str = ""
    first: str = ""
    rest: str = ""
    before: str = ""
    after: str = ""

    def split(self, revisions: Collection[str]) -> tuple[str, str]:
        """Return revision and path. `revisions`: the known ones, of which the longest that fits is chosen.

        The revision is `HEAD` if the route has none, the path is `""` if there is none.
        """
        if not self.rest:
            return HEAD, ""
        if self.kind in (RouteKind.INFO, RouteKind.PATHS_INFO):
            return self.rest, ""
        fitting = [known for known in revisions if f"{self.rest}/".startswith(f"{known}/")]
        reference = _REFERENCE.match(self.rest)
        if "/" not in self.first and fitting:
            revision = max(fitting, key=len)
        elif "/" not in self.first and reference:
            revision = reference[0]
        else:
            revision = self.first
        return revision, self.rest[len(revision) :].removeprefix("/").removesuffix("/")

    @property
    def is_content(self) -> bool:
        """Return whether the route returns the content of a file."""
        return self.kind in (RouteKind.RESOLVE, RouteKind.RAW)

    def relocate(self, repo_id: str) -> str:
        """Return the request's path with another name, percent-encoded."""
        return f"{self.before}{quote(repo_id)}{self.after}"


def find_route(method: str, path: str) -> Route:
    """Return the route of a percent-encoded path without a leading slash.

    Raises RouteMissingError, and InvalidNameError if the name is not one that a model can have.
    """
    encoded = path.removesuffix("/").split("/")
    decoded = _decode(encoded)
    route = _match(encoded, decoded) if decoded else None
    if route is None or method not in ({"POST"} if route.kind is RouteKind.PATHS_INFO else _READING):
        raise RouteMissingError("Route not found. This API supports only requests that read models.")
    if any(KEY_PATTERN.fullmatch(part) for part in (*route.repo_id.split("/"), route.first)):
        # `hf download KEY`: the key must not get into logs, responses, or requests to the Hub.
        raise InvalidNameError("The name or the revision of the model has the form of a read key.")
    if route.repo_id and not is_hub_id(route.repo_id):
        raise InvalidNameError(f"{route.repo_id[:200]!r} is not the name of a model.")
    return route


def _decode(segments: list[str]) -> list[str]:
    """Return the segments decoded, an empty list if one is empty or not UTF-8."""
    try:
        decoded = [unquote(segment, errors="strict") for segment in segments]
    except UnicodeDecodeError:
        return []
    return decoded if all(decoded) else []


def _match(encoded: list[str], decoded: list[str]) -> Route | None:
    match decoded:
        case ["api", "whoami-v2"]:
            return Route(RouteKind.WHOAMI)
        case ["api", "models"]:
            return Route(RouteKind.LIST)
        case ["api", "models", *_]:
            return _match_model(encoded, decoded, 2, _ACTIONS) or _match_info(decoded)
        case [first, *_] if first not in _RESERVED:
            return _match_model(encoded, decoded, 0, _FILES)
    return None


def _match_info(decoded: list[str]) -> Route | None:
    repo = decoded[2:]
    return Route(RouteKind.INFO, "/".join(repo), before="api/models/") if len(repo) in (1, 2) else None


def _match_model(
    encoded: list[str], decoded: list[str], start: int, actions: dict[str, tuple[RouteKind, int, int]]
) -> Route | None:
    """Match a name of two segments or one, which begins at `start`, and an action."""
    for at in (start + 2, start + 1):
        kind, least, most = actions.get(decoded[at] if at < len(decoded) else "", (None, 0, 0))
        rest = decoded[at + 1 :]
        if kind is not None and least <= len(rest) <= most:
            return Route(
                kind,
                "/".join(decoded[start:at]),
                rest[0] if rest else "",
                "/".join(rest),
                "".join(f"{segment}/" for segment in encoded[:start]),
                "".join(f"/{segment}" for segment in encoded[at:]),
            )
    return None
