"""Bodies of requests."""

import json
from collections.abc import Sequence
from urllib.parse import parse_qs

from modelhaul.hub.errors import InvalidRequestError
from modelhaul.hub.requests import HubRequest

_MAX_PATHS = 10_000  # paths in a request for their metadata
_TRUE = frozenset({"true", "1", "on"})


def is_true(text: str | None) -> bool:
    return text is not None and text.lower() in _TRUE


def read_paths(request: HubRequest) -> tuple[Sequence[str], bool]:
    """Return the paths of a `paths-info` request, and its `expand`. Python clients send a form, JavaScript JSON."""
    try:
        text = request.body.decode()
        if "json" in request.headers.get("content-type", ""):
            document = json.loads(text)
            paths, expand = document["paths"], document.get("expand") is True
        else:
            form = parse_qs(text, keep_blank_values=True, max_num_fields=_MAX_PATHS + 10)
            paths, expand = form.get("paths", []), is_true(form.get("expand", [""])[-1])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InvalidRequestError("Invalid body. Send a form or a JSON object with the field `paths`.") from None
    if isinstance(paths, str):
        paths = [paths]
    if not isinstance(paths, list) or len(paths) > _MAX_PATHS or not all(isinstance(path, str) for path in paths):
        raise InvalidRequestError(f"Invalid `paths`. It must be a list of at most {_MAX_PATHS:,} strings.")
    return paths, expand
