"""Responses to the requests of Hub clients."""

import logging
import re
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import urlencode

from modelhaul.catalog.read import LINK_SECONDS
from modelhaul.catalog.reads import ReadRecorder
from modelhaul.domain.errors import InvalidReferenceError
from modelhaul.domain.hub_names import describe_pointer
from modelhaul.hub import documents
from modelhaul.hub.bodies import is_true, read_paths
from modelhaul.hub.errors import (
    EntryMissingError,
    HubError,
    InvalidRequestError,
    MissingVersionError,
    RangeNotSatisfiableError,
    RepositoryMovedError,
)
from modelhaul.hub.listing import list_models
from modelhaul.hub.misses import MissHandler
from modelhaul.hub.repositories import HubRepositories, Repository
from modelhaul.hub.requests import HubRequest
from modelhaul.hub.responses import HubResponse, respond_error, respond_json
from modelhaul.hub.routes import Route, RouteKind, find_route
from modelhaul.hub.snapshots import HubFile, HubFolder, Snapshot, SnapshotReader
from modelhaul.ports.clock import Clock
from modelhaul.ports.hub_models import HubModelRepository
from modelhaul.ports.models import ModelRepository
from modelhaul.ports.object_store import ObjectStore

logger = logging.getLogger(__name__)

_DEFAULT_LIMIT = 1000  # models in a page of a list, as at the Hub
_MAX_LIMIT = 1000
_LIMIT = re.compile(r"\d{1,9}")
_MAX_CURSOR = 1000
_MAX_SEARCH = 300

# huggingface_hub refuses downloads of more than 50 GB without Xet if it knows the size. Since version 1.31 it does not
# take the size from the Content-Length of a redirect; API Gateway sends `Content-Length: 0` with responses to HEAD.
_LARGE = 50_000_000_000
_CLIENT = re.compile(r"\bhf_hub/(\d{1,6})\.(\d{1,6})")
_FIRST_WITHOUT_SIZE = (1, 31)


@dataclass(frozen=True, slots=True)
class _Content:
    """Content of `size` bytes: a file in the bucket, or bytes that are returned inline."""

    etag: str
    size: int
    source: HubFile | bytes


@dataclass(slots=True)
class HubReader:
    """Serves imported models as the Hub does. File content is served by S3, with presigned URLs."""

    hub_models: HubModelRepository
    models: ModelRepository
    store: ObjectStore
    misses: MissHandler
    clock: Clock
    _repositories: HubRepositories = field(init=False)
    _snapshots: SnapshotReader = field(init=False)
    _reads: ReadRecorder = field(init=False)

    def __post_init__(self) -> None:
        self._repositories = HubRepositories(self.hub_models)
        self._snapshots = SnapshotReader(self.store)
        self._reads = ReadRecorder(self.hub_models, self.clock)

    def respond(self, request: HubRequest) -> HubResponse:
        """Return the response. Raises StorageUnavailableError, and ObjectGoneError if a model is being deleted."""
        try:
            route = find_route(request.method, request.path)
            return self._respond(request, route)
        except RepositoryMovedError as moved:
            # Relative, because Python clients do not follow absolute redirects of HEAD.
            path = route.relocate(moved.canonical_id)
            location = f"{request.prefix}/{path}{request.encode_query()}"
            return HubResponse(moved.status, {"Location": location})
        except MissingVersionError as missing:
            return self.misses.respond_to_miss(request, missing)
        except HubError as error:
            return respond_error(error)

    def _respond(self, request: HubRequest, route: Route) -> HubResponse:
        if route.kind is RouteKind.WHOAMI:
            return respond_json(documents.describe_caller(request.key))
        if route.kind is RouteKind.LIST:
            return self._list_models(request)
        repository = self._repositories.find_repository(route)
        if route.kind is RouteKind.REFS:
            return respond_json(documents.describe_references(repository.list_references()))
        snapshot, path = self._load(repository, route)
        respond = {
            RouteKind.INFO: self._describe_info,
            RouteKind.TREE: self._list_tree,
            RouteKind.PATHS_INFO: self._describe_paths,
            RouteKind.RESOLVE: self._serve_file,
            RouteKind.RAW: self._serve_raw,
        }[route.kind]
        return respond(request, snapshot, path)

    def _load(self, repository: Repository, route: Route) -> tuple[Snapshot, str]:
        commit, models, path = self._repositories.select(repository, route)
        return self._snapshots.load(models, commit), path

    def _list_models(self, request: HubRequest) -> HubResponse:
        search, author, cursor = (request.read_query(name) for name in ("search", "author", "cursor"))
        limit = request.read_query("limit") or str(_DEFAULT_LIMIT)
        if not _LIMIT.fullmatch(limit) or int(limit) == 0:
            raise InvalidRequestError(f"Invalid limit {limit[:40]!r}. It must be a number of at least 1.")
        if len(search or "") > _MAX_SEARCH or len(author or "") > _MAX_SEARCH or len(cursor or "") > _MAX_CURSOR:
            raise InvalidRequestError("A query parameter is too long.")
        try:
            found, following = list_models(
                self.models, search=search, author=author, limit=min(int(limit), _MAX_LIMIT), cursor=cursor
            )
        except InvalidReferenceError as error:
            raise InvalidRequestError(error.detail) from None
        return respond_json(
            [documents.describe_listed(model) for model in found], headers=_link_next(request, following)
        )

    def _describe_info(self, request: HubRequest, snapshot: Snapshot, _: str) -> HubResponse:
        return respond_json(documents.describe_info(snapshot, with_blobs=is_true(request.read_query("blobs"))))

    def _list_tree(self, request: HubRequest, snapshot: Snapshot, path: str) -> HubResponse:
        if path and path not in snapshot.folders:
            raise _describe_missing(snapshot, path)
        cursor = request.read_query("cursor")
        if cursor and snapshot.find_entry(cursor) is None:
            # With HubOnMiss=REDIRECT, the first pages may have come from the Hub.
            raise InvalidRequestError("Unknown cursor. Request the list again from its first page.")
        entries = snapshot.list_entries(path, recursive=is_true(request.read_query("recursive")), after=cursor or "")
        page, last = documents.describe_page(snapshot, entries, expand=is_true(request.read_query("expand")))
        return respond_json(page, headers=_link_next(request, last))

    def _describe_paths(self, request: HubRequest, snapshot: Snapshot, _: str) -> HubResponse:
        paths, expand = read_paths(request)
        found: dict[str, HubFile | HubFolder] = {}
        for path in paths:
            entry = snapshot.find_entry(path.removesuffix("/"))
            if entry is not None:
                found[entry.path] = entry
        described, last = documents.describe_page(snapshot, found.values(), expand=expand)
        if last is not None:
            raise InvalidRequestError(f"The response for {len(found):,} paths would be too large. Ask for fewer paths.")
        return respond_json(described)

    def _serve_file(self, request: HubRequest, snapshot: Snapshot, path: str) -> HubResponse:
        file = _find_file(snapshot, path)
        response = self._respond_content(request, snapshot, _Content(file.etag, file.size, file))
        self._reads.record_read(file.model_id)
        return response

    def _serve_raw(self, request: HubRequest, snapshot: Snapshot, path: str) -> HubResponse:
        """Serve the Git blob of a file, which is the pointer of an LFS file."""
        file = _find_file(snapshot, path)
        if not file.is_lfs:
            return self._serve_file(request, snapshot, path)
        pointer = describe_pointer(file.sha256, file.size)
        return self._respond_content(request, snapshot, _Content(pointer.oid, len(pointer.content), pointer.content))

    def _respond_content(self, request: HubRequest, snapshot: Snapshot, content: _Content) -> HubResponse:
        size, source = content.size, content.source
        headers = {
            "X-Repo-Commit": snapshot.commit,
            "ETag": f'"{content.etag}"',
            "X-Linked-Etag": f'"{content.etag}"',
            "X-Linked-Size": str(size),
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
        }
        if request.method == "HEAD":
            if isinstance(source, HubFile) and size > _LARGE and _downloads_unknown_size(request):
                del headers["X-Linked-Size"]
                return self._redirect(source, headers)
            return HubResponse(HTTPStatus.OK, headers)
        if size == 0:  # S3 rejects every range of an empty object
            return HubResponse(HTTPStatus.OK, {**headers, "Content-Range": "bytes */0"})
        position = request.find_single_byte()
        if position is not None:
            if position >= size:
                raise RangeNotSatisfiableError(
                    f"Byte {position} is requested, but the file has {size} bytes.", size=size
                )
            headers["Content-Range"] = f"bytes {position}-{position}/{size}"
            return HubResponse(HTTPStatus.PARTIAL_CONTENT, headers, self._read(source, position, position + 1))
        if isinstance(source, HubFile):
            return self._redirect(source, headers)
        return HubResponse(HTTPStatus.OK, headers, source)

    def _read(self, source: HubFile | bytes, start: int, end: int) -> bytes:
        return source[start:end] if isinstance(source, bytes) else self.store.read(source.key, start, end)

    def _redirect(self, file: HubFile, headers: dict[str, str]) -> HubResponse:
        url = self.store.sign_read(file.key, seconds=LINK_SECONDS)
        return HubResponse(HTTPStatus.TEMPORARY_REDIRECT, {**headers, "Location": url, "Cache-Control": "no-store"})


def _find_file(snapshot: Snapshot, path: str) -> HubFile:
    file = snapshot.files.get(path)
    if file is None:
        raise _describe_missing(snapshot, path)
    return file


def _describe_missing(snapshot: Snapshot, path: str) -> EntryMissingError:
    return EntryMissingError(
        f"{path[:200]!r} not found in {snapshot.hub_id} at commit {snapshot.commit[:12]}.", commit=snapshot.commit
    )


def _downloads_unknown_size(request: HubRequest) -> bool:
    found = _CLIENT.search(request.headers.get("user-agent", ""))
    return found is not None and (int(found[1]), int(found[2])) >= _FIRST_WITHOUT_SIZE


def _link_next(request: HubRequest, cursor: str | None) -> dict[str, str]:
    """Return the header with the URL of the next page. Empty on the last page."""
    if cursor is None:
        return {}
    query = [(name, value) for name, values in request.query.items() for value in values if name != "cursor"]
    url = f"{request.base_url}/{request.path}?{urlencode([*query, ('cursor', cursor)], errors='replace')}"
    return {"Link": f'<{url}>; rel="next"'}
