"""The loopback Hugging Face Hub: the read protocol of huggingface.co for models, on two origins.

The Hub origin serves the API (https://huggingface.co/docs/hub/api) and /resolve/; the CDN origin serves
large files by signed URLs. Status codes, headers and error codes are those that huggingface_hub 2.4 reads.
Deliberately strict where the Hub is lenient or undocumented: the CDN refuses an Authorization header, and
a Range other than the one that was signed.
"""

import hashlib
import hmac
import json
import re
import secrets
import threading
import time
from typing import Any, Literal
from urllib.parse import parse_qs, quote, unquote, urlencode

from tests.upstream.control import answer_control
from tests.upstream.faults import Origin
from tests.upstream.hub_repository import Commit, HubFile, HubRepository, describe_card, describe_file
from tests.upstream.loopback import LoopbackUpstream
from tests.upstream.server import (
    OriginServer,
    Request,
    Response,
    answer_bytes,
    answer_file,
    create_json_response,
    select_range,
)

_API_ROUTE = re.compile(
    r"/api/models/(?P<repo>[^/]+(?:/(?!(?:revision|tree|commits|paths-info|auth-check)(?:/|$))[^/]+)?)"
    r"(?:/(?P<verb>revision|tree|commits|paths-info|auth-check)(?:/(?P<revision>[^/]+)(?:/(?P<path>.+?)?)?)?)?/?"
)
_RESOLVE_ROUTE = re.compile(r"/(?P<repo>[^/]+(?:/[^/]+)?)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
_CDN_ROUTE = re.compile(r"/(?P<repo>[^/]+(?:/[^/]+)?)/(?P<sha>[0-9a-f]{40})/(?P<path>.+)")
_EXPANDED_PAGE_SIZE = 50
_CREATED_AT = "2025-01-01T00:00:00.000Z"


class _RefusedError(Exception):
    """status, X-Error-Code ("" for none) and message of an answer that is not the one asked for."""

    def __init__(self, status: int, code: str, message: str, commit: Commit | None = None) -> None:
        super().__init__(status, code, message)
        self.status = status
        self.code = code
        self.message = message
        self.commit = commit


class _FixedWindow:
    """Counts the requests of one kind within windows of `seconds`."""

    def __init__(self, resource: str, quota: int, seconds: int) -> None:
        self._resource = resource
        self._quota = quota
        self._seconds = seconds
        self._lock = threading.Lock()
        self._used = 0
        self._ends = 0.0

    def take(self) -> tuple[bool, dict[str, str]]:
        """Count a request. Return whether it may go on, and the headers that tell what is left."""
        with self._lock:
            now = time.monotonic()
            if now >= self._ends:
                self._used, self._ends = 0, now + self._seconds
            allowed = self._used < self._quota
            self._used += allowed
            return allowed, self.describe(self._quota - self._used, int(self._ends - now) + 1)

    def describe(self, remaining: int, reset_seconds: int) -> dict[str, str]:
        """Headers as in https://huggingface.co/docs/hub/rate-limits (IETF draft ratelimit-headers-09)."""
        return {
            "RateLimit": f'"{self._resource}";r={remaining};t={reset_seconds}',
            "RateLimit-Policy": f'"fixed window";"{self._resource}";q={self._quota};w={self._seconds}',
        }


class LoopbackHub(LoopbackUpstream[HubRepository]):
    """A Hub of two origins.

    page_size: entries of a tree page (at most 50 when expanded, as on the Hub).
    api_quota, resolver_quota: requests in each window of quota_seconds before 429; far away by default.
    url_lifetime: seconds for which a signed URL is good.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        page_size: int = 1000,
        api_quota: int = 1_000_000,
        resolver_quota: int = 1_000_000,
        quota_seconds: int = 300,
        url_lifetime: float = 3600,
    ) -> None:
        super().__init__()
        self._port = port
        self._page_size = page_size
        self._url_lifetime = url_lifetime
        self._windows = {
            "api": _FixedWindow("api", api_quota, quota_seconds),
            "resolve": _FixedWindow("resolvers", resolver_quota, quota_seconds),
        }
        self._key = secrets.token_bytes(32)
        self._servers: list[OriginServer] = []

    def start(self) -> None:
        self._servers.append(OriginServer(0, self._answer_cdn, lambda _: "cdn", self._faults, self._log))
        self._servers.append(OriginServer(self._port, self._answer_hub, _find_hub_origin, self._faults, self._log))

    def close(self) -> None:
        while self._servers:
            self._servers.pop().close()

    @property
    def endpoint(self) -> str:
        return self._servers[1].endpoint

    @property
    def cdn_endpoint(self) -> str:
        return self._servers[0].endpoint

    def add_repository(self, repository: HubRepository) -> None:
        self.repositories[repository.repo_id] = repository

    def _answer_hub(self, request: Request) -> Response:
        origin = _find_hub_origin(request.path)
        if origin is None:
            return answer_control(self, request)
        window = self._windows[origin]
        allowed, limits = window.take()

        def limit(seconds: int) -> Response:
            headers = {"Retry-After": str(seconds)} | window.describe(0, seconds)
            return create_json_response(429, {"error": "We had to rate limit you, retry later."}, headers)

        try:
            if not allowed:
                return limit(int(limits["RateLimit"].rpartition("=")[2]))
            answer = self._answer_resolve(request) if origin == "resolve" else self._answer_api(request)
        except _RefusedError as refusal:
            headers = {"X-Error-Message": refusal.message}
            if refusal.code:
                headers["X-Error-Code"] = refusal.code
            if refusal.commit:
                headers["X-Repo-Commit"] = refusal.commit.sha
            answer = create_json_response(refusal.status, {"error": refusal.message}, headers)
        answer.headers |= limits
        answer.if_limited = limit
        return answer

    def _answer_api(self, request: Request) -> Response:
        if request.raw_path == "/api/models":
            return self._answer_search(request)
        match = _API_ROUTE.fullmatch(request.raw_path)
        if match is None:
            raise _RefusedError(404, "", "Sorry, we can't find the page you are looking for.")
        repo_id, verb = unquote(match["repo"]), match["verb"]
        if redirect := self._redirect_old_name(request, repo_id, "/api/models/"):
            return redirect
        repository = self._open_repository(request, repo_id, reads_files=verb == "auth-check")
        if verb == "auth-check":
            return answer_bytes(200, b"OK", {"Content-Type": "text/plain; charset=utf-8"})
        commit = _find_commit(repository, unquote(match["revision"] or "main"))
        if verb == "tree":
            return self._answer_tree(request, commit, unquote(match["path"] or ""))
        if verb == "paths-info":
            return _answer_paths_info(request, commit)
        is_history = verb == "commits"
        described = _describe_model(repository, commit, blobs="blobs" in request.query)
        return create_json_response(200, [_describe_commit(repository, commit)] if is_history else described)

    def _answer_search(self, request: Request) -> Response:
        """Public models whose name contains `search`, as the Hub finds them."""
        text, limit = request.query.get("search", "").lower(), int(request.query.get("limit", "100"))
        found = [r.repo_id for r in self.repositories.values() if text in r.repo_id.lower() and not r.private]
        return create_json_response(200, [{"id": repo_id} for repo_id in found[:limit]])

    def _answer_tree(self, request: Request, commit: Commit, folder: str) -> Response:
        expand = _is_true(request.query.get("expand"))
        entries = commit.list_entries(folder, recursive=_is_true(request.query.get("recursive")))
        if folder and not entries:
            raise _RefusedError(404, "EntryNotFound", f"{folder} does not exist on this revision", commit)
        size = min(self._page_size, _EXPANDED_PAGE_SIZE) if expand else self._page_size
        first = int(request.query.get("cursor", 0))
        page = entries[first : first + size]
        if expand:
            page = _add_last_commit(page, commit)
        headers = {}
        if first + size < len(entries):
            query = urlencode(request.query | {"cursor": first + size})
            headers["Link"] = f'<{self.endpoint}{request.raw_path}?{query}>; rel="next"'
        return create_json_response(200, page, headers)

    def _answer_resolve(self, request: Request) -> Response:
        match = _RESOLVE_ROUTE.fullmatch(request.raw_path)
        if match is None:
            raise _RefusedError(404, "", "Sorry, we can't find the page you are looking for.")
        repo_id = unquote(match["repo"])
        if redirect := self._redirect_old_name(request, repo_id, "/"):
            return redirect
        repository = self._open_repository(request, repo_id, reads_files=True)
        commit = _find_commit(repository, unquote(match["revision"]))
        path = unquote(match["path"])
        file = commit.files.get(path)
        if file is None:
            raise _RefusedError(404, "EntryNotFound", "Entry not found", commit)
        headers = {"X-Repo-Commit": commit.sha}
        range_header = request.headers.get("range")
        if not file.is_lfs:
            return answer_file(file.content, range_header, headers | {"ETag": f'"{file.oid}"'})
        headers |= {
            "X-Linked-Etag": f'"{file.sha256}"',
            "X-Linked-Size": str(file.size),
            "Accept-Ranges": "bytes",
            "Vary": "Origin, Accept",
        }
        cdn_path = f"/{quote(repository.repo_id)}/{commit.sha}/{quote(path)}"

        def redirect_to_cdn(lifetime: float) -> Response:
            location = self._sign(cdn_path, range_header or "", time.time() + lifetime)
            body = f"Found. Redirecting to {location}".encode()
            answer = answer_bytes(302, body, headers | {"Location": location})
            asked = select_range(range_header, file.size)
            answer.holds = range(file.size) if asked is None else asked
            return answer

        answer = redirect_to_cdn(self._url_lifetime)
        answer.if_expired = lambda: redirect_to_cdn(-1)
        return answer

    def _answer_cdn(self, request: Request) -> Response:
        if "authorization" in request.headers:
            return _answer_cdn_error(400, "InvalidArgument", "Only one auth mechanism allowed")
        query = request.query
        expires, signed_range = query.get("Expires", ""), query.get("Range", "")
        signature = self._compute_signature(request.raw_path, signed_range, expires)
        match = _CDN_ROUTE.fullmatch(request.path)
        if match is None or not hmac.compare_digest(signature, query.get("Signature", "")):
            return _answer_cdn_error(403, "SignatureDoesNotMatch", "The signature does not match")

        def refuse_expired() -> Response:
            return _answer_cdn_error(403, "AccessDenied", "Request has expired")

        if time.time() >= float(expires):
            return refuse_expired()
        # A URL that was signed without a range stands for the whole file and any part of it:
        # huggingface_hub asks by HEAD and resumes the URL that it was given with a Range.
        if signed_range and signed_range != request.headers.get("range"):
            return _answer_cdn_error(403, "AccessDenied", "The signed URL is for another range")
        file = self.repositories[match["repo"]].commits[match["sha"]].files[match["path"]]
        # Stable for a file, but no digest of its content, as on the real CDN.
        etag = hashlib.sha256(f"cdn {file.sha256}".encode()).hexdigest()
        answer = answer_file(file.content, request.headers.get("range"), {"ETag": f'"{etag}"'})
        answer.if_expired = refuse_expired
        return answer

    def _sign(self, path: str, range_header: str, expires: float) -> str:
        signature = self._compute_signature(path, range_header, str(expires))
        query = {"Expires": str(expires), "Signature": signature}
        if range_header:
            query["Range"] = range_header
        return f"{self.cdn_endpoint}{path}?{urlencode(query)}"

    def _compute_signature(self, path: str, range_header: str, expires: str) -> str:
        return hmac.digest(self._key, f"{path}\n{range_header}\n{expires}".encode(), "sha256").hex()

    def _redirect_old_name(self, request: Request, repo_id: str, prefix: str) -> Response | None:
        for repository in self.repositories.values():
            if repo_id in repository.old_names:
                rest = request.raw_path.removeprefix(prefix + quote(repo_id))
                location = f"{prefix}{quote(repository.repo_id)}{rest}"
                if request.query_string:
                    location += f"?{request.query_string}"
                body = f"Temporary Redirect. Redirecting to {location}".encode()
                return answer_bytes(307, body, {"Location": location})
        return None

    def _open_repository(self, request: Request, repo_id: str, *, reads_files: bool) -> HubRepository:
        """Return the repository if the request may read it; listing a gated one needs no access."""
        token = _read_token(request)
        if token is not None and token not in self._tokens:
            raise _RefusedError(401, "", "Invalid credentials in Authorization header")
        repository = self.repositories.get(repo_id)
        granted = repo_id in self._tokens.get(token or "", ())
        if repository is None or (repository.private and not granted):
            if token is None:
                raise _RefusedError(401, "RepoNotFound", "Invalid username or password.")
            raise _RefusedError(404, "RepoNotFound", "Repository not found")
        if repository.disabled:
            raise _RefusedError(403, "", "Access to this resource is disabled.")
        if repository.gated and reads_files and not granted:
            restricted = f"Access to model {repo_id} is restricted"
            if token is None:
                message = "You must have access to it and be authenticated to access it. Please log in."
                raise _RefusedError(401, "GatedRepo", f"{restricted}. {message}")
            message = f"Visit https://huggingface.co/{repo_id} to ask for access."
            restricted += " and you are not in the authorized list"
            raise _RefusedError(403, "GatedRepo", f"{restricted}. {message}")
        return repository


def _find_hub_origin(path: str) -> Origin | None:
    if path.startswith("/_"):
        return None
    return "resolve" if "/resolve/" in path else "api"


def _read_token(request: Request) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" and token else None


def _find_commit(repository: HubRepository, revision: str) -> Commit:
    commit = repository.find_commit(revision)
    if commit is None:
        raise _RefusedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
    return commit


def _is_true(value: str | None) -> bool:
    return (value or "").lower() in ("true", "1")


def _answer_paths_info(request: Request, commit: Commit) -> Response:
    """Describe those of the paths that exist. The body is JSON or a form, which the Hub both accepts."""
    if request.headers.get("content-type", "").startswith("application/json"):
        body = json.loads(request.body)
        paths, expand = body["paths"], bool(body.get("expand"))
    else:
        form = parse_qs(request.body.decode())
        paths, expand = form["paths"], _is_true(form.get("expand", [""])[0])
    found = {entry["path"]: entry for entry in commit.list_entries(recursive=True)}
    entries = [found[path] for path in paths if path in found]
    return create_json_response(200, _add_last_commit(entries, commit) if expand else entries)


def _add_last_commit(entries: list[dict[str, object]], commit: Commit) -> list[dict[str, object]]:
    last_commit = {"id": commit.sha, "title": "Upload model", "date": _CREATED_AT}
    return [entry | {"lastCommit": last_commit} for entry in entries]


def _describe_commit(repository: HubRepository, commit: Commit) -> dict[str, object]:
    """The history of each commit is this commit."""
    return {"id": commit.sha, "title": "Upload model", "message": "", "authors": [], "date": repository.committed_at}


def _describe_model(repository: HubRepository, commit: Commit, *, blobs: bool) -> dict[str, Any]:
    return {
        "_id": repository.repo_id,
        "id": repository.repo_id,
        "modelId": repository.repo_id,
        "author": repository.repo_id.rpartition("/")[0] or None,
        "sha": commit.sha,
        "private": repository.private,
        "gated": repository.gated,
        "disabled": repository.disabled,
        "createdAt": _CREATED_AT,
        "lastModified": _CREATED_AT,
        "downloads": 0,
        "likes": 0,
        **describe_card(commit.files.get("README.md")),
        "siblings": [_describe_sibling(path, commit.files[path], blobs=blobs) for path in sorted(commit.files)],
    }


def _describe_sibling(path: str, file: HubFile, *, blobs: bool) -> dict[str, object]:
    if not blobs:
        return {"rfilename": path}
    entry = describe_file(path, file)
    sibling: dict[str, object] = {"rfilename": path, "size": file.size, "blobId": entry["oid"]}
    if file.is_lfs:
        sibling["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": len(file.pointer)}
    return sibling


def _answer_cdn_error(status: Literal[400, 403], code: str, message: str) -> Response:
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return answer_bytes(status, body.encode(), {"Content-Type": "application/xml"})
