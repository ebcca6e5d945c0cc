"""Selection of the models that a name and a revision stand for."""

from collections.abc import Sequence
from dataclasses import dataclass

from modelhaul.domain.hub_models import HubEntry
from modelhaul.domain.hub_names import SHORT_COMMIT, derive_commit
from modelhaul.domain.models import Model, ModelStatus, Source
from modelhaul.hub.errors import RepositoryMissingError, RepositoryMovedError, RevisionMissingError
from modelhaul.hub.permitted_models import PermittedModels
from modelhaul.hub.routes import HEAD, Route

MAIN = "main"
_MAX_SHOWN = 10  # revisions in a message


@dataclass(frozen=True, slots=True)
class Repository:
    """The versions of a model that can be read. `ready`: READY models, newest first, at least one."""

    hub_id: str
    entry: HubEntry
    ready: tuple[Model, ...]

    def list_references(self) -> dict[str, str]:
        """Return the commit of each branch and tag, newest first.

        The branch `main` of models from archives, and of those from GitHub that were not imported through a branch of
        this name, is the newest import, because clients request `main` by default.
        """
        return {revision: commits[0] for revision, commits in self.list_histories().items()}

    def list_histories(self) -> dict[str, list[str]]:
        """Return the commit of each branch and tag, and those for which it would stand without the ones before."""
        commits = {derive_commit(model.resolved) for model in self.ready}
        found = [
            (model.created_at, model.resolved.revision, derive_commit(model.resolved))
            for model in self.ready
            if model.resolved.revision != model.resolved.commit
        ]
        found += [(r.moment, r.revision, r.commit) for r in self.entry.revisions if r.commit in commits]
        histories: dict[str, dict[str, None]] = {}
        for _, revision, commit in sorted(found, key=lambda reference: reference[0], reverse=True):
            histories.setdefault(revision, {})[commit] = None
        if self.ready[0].resolved.source is not Source.HUGGINGFACE:
            histories.setdefault(MAIN, {}).update(dict.fromkeys(derive_commit(model.resolved) for model in self.ready))
        return {revision: list(history) for revision, history in histories.items()}

    def find_commit(self, revision: str) -> str | None:
        """Return the commit of a revision: a branch, a tag, a commit, or at least 7 digits of one.

        `HEAD` stands for `main`, or for the newest import if `main` is unknown. Return None if nothing READY has this
        revision.
        """
        references = self.list_references()
        commits = [derive_commit(model.resolved) for model in self.ready]
        if revision == HEAD:
            return references.get(MAIN, commits[0])
        if revision in references:
            return references[revision]
        if SHORT_COMMIT.fullmatch(revision):
            return next((commit for commit in commits if commit.startswith(revision.lower())), None)
        return None

    def select_models(self, commit: str) -> list[Model]:
        """Return the models of a commit, newest first: the complete one, or all parts if there is no complete one."""
        models = [model for model in self.ready if derive_commit(model.resolved) == commit]
        whole = [model for model in models if model.resolved.selection.is_whole]
        return whole[:1] or models


class HubRepositories:
    """Finds the models of a route."""

    def __init__(self, models: PermittedModels) -> None:
        self._models = models

    def find_repository(self, route: Route) -> Repository:
        """Return the versions of the route's model.

        Raises RepositoryMissingError if none is READY, RepositoryMovedError if the model's name differs from the
        route's, if only in case, and StorageUnavailableError.
        """
        repo_id = route.repo_id
        entry = self._models.find_entry(repo_id)
        ready = _list_ready(entry)
        if not ready and entry.canonical_id is not None:
            repo_id = entry.canonical_id
            entry = self._models.find_entry(repo_id)
            # Only a name with READY models is redirected to: two old names could stand for each other.
            ready = _list_ready(entry)
        if not ready:
            raise RepositoryMissingError(
                f"{repo_id} is not imported.",
                repo_id=repo_id,
                entry=entry,
                revision=route.split(())[0],
            )
        hub_id = ready[0].resolved.hub_id
        if hub_id != route.repo_id:
            raise RepositoryMovedError(hub_id)
        return Repository(hub_id, entry, ready)

    def select(self, repository: Repository, route: Route) -> tuple[str, Sequence[Model], str]:
        """Return the commit of the route's revision, its models, newest first, and the route's path.

        Raises RevisionMissingError.
        """
        references = repository.list_references()
        revision, path = route.split(references)
        commit = repository.find_commit(revision)
        if commit is not None:
            return commit, repository.select_models(commit), path
        known = [*references, *dict.fromkeys(derive_commit(model.resolved) for model in repository.ready)]
        more = "" if len(known) <= _MAX_SHOWN else f" and {len(known) - _MAX_SHOWN} others"
        raise RevisionMissingError(
            f"Revision {revision[:250]!r} of {repository.hub_id} is not imported. Imported revisions: "
            f"{', '.join(known[:_MAX_SHOWN])}{more}.",
            repo_id=repository.hub_id,
            entry=repository.entry,
            revision=revision,
        )


def _list_ready(entry: HubEntry) -> tuple[Model, ...]:
    return tuple(model for model in entry.models if model.status is ModelStatus.READY)
