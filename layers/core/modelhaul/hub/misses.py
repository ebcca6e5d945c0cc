"""Responses to requests for models and revisions that are not READY."""

import logging
import re
from collections.abc import Callable
from http import HTTPStatus
from urllib.parse import quote

from modelhaul.domain.callers import name_read_key
from modelhaul.domain.errors import StorageUnavailableError
from modelhaul.domain.hub_models import MAX_REVISION, HubEntry, MissPolicy
from modelhaul.domain.hub_names import SHORT_COMMIT, is_hub_id
from modelhaul.domain.models import Model, ModelStatus
from modelhaul.domain.read_keys import Scope
from modelhaul.domain.tasks import TaskStatus
from modelhaul.hub.bodies import read_paths
from modelhaul.hub.errors import (
    AccessRefusedError,
    EntryMissingError,
    HubError,
    ImportPendingError,
    ImportRefusedError,
    ImportUnavailableError,
    MissingVersionError,
)
from modelhaul.hub.failures import compute_hold_end, describe_failed_import
from modelhaul.hub.miss_messages import (
    describe_failure,
    describe_other_names,
    describe_outage,
    describe_progress,
    describe_refusal,
    describe_remedy,
)
from modelhaul.hub.miss_results import MissResultCache
from modelhaul.hub.repositories import MAIN
from modelhaul.hub.requests import HubRequest
from modelhaul.hub.responses import HubResponse, Outcome, respond_error
from modelhaul.hub.routes import HEAD, Route, RouteKind, find_route
from modelhaul.ports.clock import Clock
from modelhaul.ports.missing_models import MissingModel, MissingModels, Readable, UpstreamRequest, UpstreamVersion
from modelhaul.ports.tasks import TaskRepository

logger = logging.getLogger(__name__)

_IMPORTS = (ModelStatus.IMPORTING, ModelStatus.WITHDRAWING, ModelStatus.FAILED)
_NOT_INSPECTED = {"X-Modelhaul-Inspected": "false"}
_OUTCOMES: dict[type[HubError], Outcome] = {
    ImportPendingError: Outcome.IMPORTING,
    ImportUnavailableError: Outcome.REFUSED,
    ImportRefusedError: Outcome.REFUSED,
    AccessRefusedError: Outcome.REFUSED,
}
_DOCUMENTS: dict[RouteKind, Readable] = {
    RouteKind.INFO: "info",
    RouteKind.REFS: "refs",
    RouteKind.TREE: "tree",
    RouteKind.PATHS_INFO: "paths-info",
}

# Clients that would send the read key to the Hub. hf-hub (Rust) up to 0.5 follows redirects with all headers.
# @huggingface/hub first requests one byte, and if this response names the Hub's route of Xet tokens, follows it.
_LEAKING_CLIENT = re.compile(r"\bhf-hub/0\.[0-5](?![0-9])")


class MissHandler:
    """Responds to misses according to `policy`.

    `upstream_url` is the URL of the Hub. `open_missing_models` is called when an import is needed.
    """

    def __init__(
        self,
        policy: MissPolicy,
        upstream_url: str,
        tasks: TaskRepository,
        open_missing_models: Callable[[], MissingModels],
        clock: Clock,
    ) -> None:
        self._policy = policy
        self._upstream_url = upstream_url.rstrip("/")
        self._tasks = tasks
        self._open_missing_models = open_missing_models
        self._clock = clock
        self._results = MissResultCache(clock)

    def respond_to_miss(self, request: HubRequest, missed: MissingVersionError) -> HubResponse:
        """Return the response to a request for a version that is not READY. Raises StorageUnavailableError."""
        revision = MAIN if missed.revision == HEAD else missed.revision
        try:
            response, task_id = self._decide(request, missed, revision)
        except HubError as error:
            response, task_id = error, None
        if isinstance(response, HubError):
            response = respond_error(response, outcome=_OUTCOMES.get(type(response), Outcome.NOT_FOUND))
        context = {
            "hub_id": missed.repo_id,
            "revision": revision,
            "outcome": response.outcome.value,
            "permitted": request.key.permits(missed.repo_id),
            "task_id": task_id,
        }
        logger.info("requested model is not imported", extra=context)
        return response

    def _decide(
        self, request: HubRequest, missed: MissingVersionError, revision: str
    ) -> tuple[HubResponse | HubError, str | None]:
        """Return the response, and the ID of the task that imports the model. Raises HubError."""
        name = missed.repo_id
        if not request.key.permits(name):
            missed.message = describe_other_names(name, request.key.names)
            return missed, None
        if (reason := self._find_obstacle(request, missed, revision)) is not None:
            missed.message = f"{missed.message} {reason}"
            return missed, None
        model = _find_last_import(missed.entry, revision)
        task = self._tasks.find_task(model.task_id) if model else None
        if model and task and task.status is TaskStatus.FAILED:
            if task.error and self._clock() < compute_hold_end(task.error, model.updated_at):
                failure = describe_failed_import(task.error, model.updated_at)
                return describe_failure(name, revision, failure), task.id
            task = None
        route = find_route(request.method, request.path)
        path = route.split([missed.revision])[1]
        wanted = self._choose_upstream_request(request, route, path)
        if task is None or wanted:
            missing = self._request_import(request, name, revision, model if task else None, wanted)
            if missing.failure is not None:
                return describe_failure(name, revision, missing.failure), missing.task_id
            if wanted and missing.upstream:
                return self._refer(request, route, path, missing.upstream), missing.task_id
            if task is None and missing.task_id is not None:
                task = self._tasks.find_task(missing.task_id)
        return describe_progress(name, revision, task), task.id if task else None

    def _find_obstacle(self, request: HubRequest, missed: MissingVersionError, revision: str) -> str | None:
        """Return why no import may start, and what to do."""
        name = missed.repo_id
        if not is_hub_id(name) or "." in name.rpartition("/")[0]:  # namespaces of the Hub contain no dot
            return "GET /v1/models of the import API lists the imported models."
        if not 0 < len(revision) <= MAX_REVISION:
            return f"A revision has at most {MAX_REVISION} characters."
        model = _find_last_import(missed.entry, revision)
        is_running = model is not None and model.status is ModelStatus.IMPORTING
        remedy = "It is being imported: retry later." if is_running else describe_remedy(name, revision)
        if self._policy is MissPolicy.NOT_FOUND:
            return remedy
        if Scope.IMPORT not in request.key.scopes:
            return f"The read key cannot start the import, because it does not have the scope 'import'. {remedy}"
        return None

    def _choose_upstream_request(self, request: HubRequest, route: Route, path: str) -> UpstreamRequest | None:
        """Return what to read at the Hub for the client. None if the client must wait for the import."""
        if self._policy is not MissPolicy.REDIRECT or _LEAKING_CLIENT.search(request.headers.get("user-agent", "")):
            return None
        if route.is_content:
            if request.method == "HEAD":
                return UpstreamRequest("file", path)
            return None if request.find_single_byte() is not None else UpstreamRequest("content")
        paths, expand = read_paths(request) if route.kind is RouteKind.PATHS_INFO else ((), False)
        query = request.encode_query().removeprefix("?")
        return UpstreamRequest(_DOCUMENTS[route.kind], path, query, tuple(paths), expand)

    def _request_import(
        self, request: HubRequest, name: str, revision: str, model: Model | None, upstream: UpstreamRequest | None
    ) -> MissingModel:
        """Return the result of the function import_missing. `model` is being imported, if it is known.

        Raises HubError if no import can start.
        """
        model_id, task_id = (model.model_id, model.task_id) if model else (None, None)
        key = (name.lower(), revision, task_id, upstream, request.key.names)
        result = self._results.find(key)
        if result is None:
            try:
                result = self._open_missing_models().request_import(
                    name,
                    revision,
                    model_id=model_id,
                    upstream=upstream,
                    names=request.key.names,
                    submitted_by=name_read_key(request.key.key_id),
                )
            except StorageUnavailableError as error:
                raise describe_outage(error.detail) from error
            self._results.save(key, result)
        if result.error is not None:
            raise describe_refusal(result.error)
        return result

    def _refer(self, request: HubRequest, route: Route, path: str, version: UpstreamVersion) -> HubResponse | HubError:
        """Return what was read at the Hub, or a redirect to the content of a file at the Hub."""
        if route.is_content and request.method == "GET":
            # Of the commit that is being imported: an import of the revision's present commit may have failed.
            file = f"{quote(version.name)}/{route.kind.value}/{version.commit}/{quote(path)}"
            location = f"{self._upstream_url}/{file}{request.encode_query()}"
            headers = {"Location": location, **_NOT_INSPECTED}
            return HubResponse(HTTPStatus.TEMPORARY_REDIRECT, headers, outcome=Outcome.REDIRECT)
        if version.document is not None:
            headers = {"Content-Type": "application/json; charset=utf-8", **_NOT_INSPECTED}
            if version.document.next_query is not None:
                url = f"{request.base_url}/{request.path}?{version.document.next_query}"
                headers["Link"] = f'<{url}>; rel="next"'
            return HubResponse(HTTPStatus.OK, headers, version.document.body.encode(), Outcome.REDIRECT)
        if version.file is None:
            return EntryMissingError(f"The model has no file or folder {path[:200]!r}.", commit=version.commit)
        headers = {
            "X-Repo-Commit": version.file.commit,
            "ETag": f'"{version.file.etag}"',
            "X-Linked-Etag": f'"{version.file.etag}"',
            "X-Linked-Size": str(version.file.size),
            "Accept-Ranges": "bytes",
            **_NOT_INSPECTED,
        }
        return HubResponse(HTTPStatus.OK, headers, outcome=Outcome.REDIRECT)


def _find_last_import(entry: HubEntry, revision: str) -> Model | None:
    """Return the newest unfinished or failed import of all files of the revision."""
    commits = {known.commit for known in entry.revisions if known.revision == revision}
    prefix = revision.lower() if SHORT_COMMIT.fullmatch(revision) else None

    def is_match(model: Model) -> bool:
        resolved = model.resolved
        return (
            resolved.revision == revision
            or resolved.commit in commits
            or (prefix is not None and resolved.commit.startswith(prefix))
        )

    wholes = (model for model in entry.models if model.status in _IMPORTS and model.resolved.selection.is_whole)
    return next(filter(is_match, wholes), None)
