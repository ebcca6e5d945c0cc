"""Lists of models."""

from modelhaul.domain.models import Model, Source
from modelhaul.hub.permitted_models import PermittedModels

_ARCHIVES = "archive.local"  # the owner of all models from archives
_GITHUB = "github."  # starts the owners of models from GitHub
_MAX_READS = 5  # reads of the repository for each page, each of a few DynamoDB queries


def list_models(
    models: PermittedModels, *, search: str | None, author: str | None, limit: int, cursor: str | None
) -> tuple[list[Model], str | None]:
    """Return a page of READY models, newest first, and the cursor of the next page.

    A page has one entry for each `hub_id`, its newest version in the page. A later page repeats the `hub_id` if it has
    an older version: the first entry is the newest. There can be fewer than `limit` models, or none, even if more pages
    follow. `search` is a part of the model's name at its source. Raises InvalidReferenceError for an invalid cursor,
    and StorageUnavailableError.
    """
    source, name = _select(author.lower()) if author else (None, None)
    found: dict[str, Model] = {}
    for _ in range(_MAX_READS):
        wanted = limit - len(found)
        page = models.list_models(source=source, name=search or name, limit=wanted, cursor=cursor)
        for model in page.models:
            hub_id = model.resolved.hub_id
            if not author or hub_id.lower().startswith(f"{author.lower()}/"):
                found.setdefault(hub_id, model)
        cursor = page.cursor
        # The repository returns fewer models than wanted after it has read many others.
        if cursor is None or len(page.models) < wanted or len(found) == limit:
            break
    return list(found.values()), cursor


def _select(author: str) -> tuple[Source, str | None]:
    """Return the source of an author's models, and what their names contain, so that not all models are read."""
    if author == _ARCHIVES:
        return Source.LOCAL, None
    if author.startswith(_GITHUB):
        return Source.GITHUB, f"{author.removeprefix(_GITHUB)}/"
    return Source.HUGGINGFACE, f"{author}/"
