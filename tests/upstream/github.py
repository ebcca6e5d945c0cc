"""The loopback GitHub: what an import reads of api.github.com, github.com, its raw host and where LFS links lead.

Four origins over real git repositories (https://docs.github.com/rest, version 2022-11-28) and a real LFS server, whose
download links lead to the origin `media`. Deliberately strict: raw and media refuse an Authorization header.
"""

import base64
import hmac
import json
import re
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, unquote, urlencode

import requests

from tests.upstream.content import DiskContent
from tests.upstream.control import answer_control
from tests.upstream.faults import Origin
from tests.upstream.git_repository import GitRepository
from tests.upstream.git_tools import LfsServer
from tests.upstream.loopback import LoopbackUpstream
from tests.upstream.server import OriginServer, Request, Response, answer_bytes, answer_file, create_json_response

_API_ROUTE = re.compile(
    r"/(?:repos/(?P<name>[^/]+/[^/]+)|repositories/(?P<number>\d+))"
    r"(?:/(?:commits/(?P<ref>.+)|compare/(?P<base>[0-9a-f]{40})\.\.\.(?P<head>[0-9a-f]{40})"
    r"|git/commits/(?P<commit>[^/]+)|git/trees/(?P<tree>.+)|git/blobs/(?P<blob>[^/]+)))?"
)
_BATCH_ROUTE = re.compile(r"/(?P<name>[^/]+/[^/]+)\.git/info/lfs/objects/batch")
_RAW_ROUTE = re.compile(r"/(?P<name>[^/]+/[^/]+)/(?P<commit>[0-9a-f]{40})/(?P<path>.+)")
_MEDIA_ROUTE = re.compile(r"/(?P<name>[^/]+/[^/]+)/(?P<oid>[0-9a-f]{64})")
_DOCUMENTATION = "https://docs.github.com/rest"
_MAX_ENTRIES = 100_000
_MAX_BLOB = 100 * 1024 * 1024


class _RefusedError(Exception):
    def __init__(self, status: int, message: str, **extra: Any) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message
        self.extra = extra


class LoopbackGitHub(LoopbackUpstream[GitRepository]):
    """A GitHub of four origins.

    max_entries: of a tree before its list is cut off. quota: API calls in each window of quota_seconds.
    link_lifetime: seconds for which an LFS link is good. `object_errors`: code and message that the LFS server gives
    for an oid; `over_budget`: names of repositories whose LFS budget is spent.
    """

    def __init__(
        self,
        lfs: LfsServer,
        *,
        port: int = 0,
        max_entries: int = _MAX_ENTRIES,
        quota: int = 1_000_000,
        quota_seconds: int = 3600,
        link_lifetime: float = 3600,
    ) -> None:
        super().__init__()
        self._lfs = lfs
        self._port = port
        self._max_entries = max_entries
        self._quota = quota
        self._quota_seconds = quota_seconds
        self.link_lifetime = link_lifetime
        self._key = secrets.token_bytes(32)
        self._counting = threading.Lock()
        self._used = 0
        self._resets_at = 0.0
        self.object_errors: dict[str, tuple[int, str]] = {}
        self.over_budget: set[str] = set()
        self._servers: dict[str, OriginServer] = {}

    def start(self) -> None:
        answers: dict[str, tuple[int, Callable[[Request], Response], Callable[[str], Origin | None]]] = {
            "api": (self._port, self._answer_api, lambda path: None if path.startswith("/_") else "api"),
            "site": (0, self._answer_site, lambda _: "lfs"),
            "raw": (0, self._answer_raw, lambda _: "raw"),
            "media": (0, self._answer_media, lambda _: "media"),
        }
        for name, (port, answer, find_origin) in answers.items():
            self._servers[name] = OriginServer(port, answer, find_origin, self._faults, self._log)

    def close(self) -> None:
        while self._servers:
            self._servers.popitem()[1].close()
        for repository in self.repositories.values():
            repository.close()
        self.repositories.clear()

    @property
    def api_url(self) -> str:
        return self._servers["api"].endpoint

    @property
    def site_url(self) -> str:
        return self._servers["site"].endpoint

    @property
    def raw_url(self) -> str:
        return self._servers["raw"].endpoint

    @property
    def media_url(self) -> str:
        return self._servers["media"].endpoint

    def add_repository(self, repository: GitRepository) -> GitRepository:
        self.repositories[repository.full_name] = repository
        return repository

    def spend_quota(self) -> None:
        """Nothing is left of this window."""
        with self._counting:
            self._used, self._resets_at = self._quota, time.time() + self._quota_seconds

    def _answer_api(self, request: Request) -> Response:
        if request.path.startswith("/_"):
            return answer_control(self, request)
        allowed, limits = self._take_quota()
        spent = limits | {"x-ratelimit-remaining": "0"}

        def limit(seconds: int) -> Response:
            headers = spent | {"x-ratelimit-reset": str(int(time.time()) + seconds)}
            return _answer_error(403, "API rate limit exceeded for 127.0.0.1.", headers)

        def refuse_abuse(seconds: int | None) -> Response:
            words = "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."
            return _answer_error(403, words, limits | ({} if seconds is None else {"Retry-After": str(seconds)}))

        try:
            if not allowed:
                return _answer_error(403, "API rate limit exceeded for 127.0.0.1.", limits)
            if "user-agent" not in request.headers:
                raise _RefusedError(403, "Request forbidden by administrative rules.")
            answer = self._answer_rest(request)
        except _RefusedError as refusal:
            answer = _answer_error(refusal.status, refusal.message, **refusal.extra)
        answer.headers |= limits
        answer.if_limited = limit
        answer.if_abused = refuse_abuse
        return answer

    def _take_quota(self) -> tuple[bool, dict[str, str]]:
        with self._counting:
            now = time.time()
            if now >= self._resets_at:
                self._used, self._resets_at = 0, now + self._quota_seconds
            allowed = self._used < self._quota
            self._used += allowed
            return allowed, {
                "x-ratelimit-limit": str(self._quota),
                "x-ratelimit-remaining": str(self._quota - self._used),
                "x-ratelimit-reset": str(int(self._resets_at) + 1),
                "x-ratelimit-used": str(self._used),
                "x-ratelimit-resource": "core",
            }

    def _answer_rest(self, request: Request) -> Response:
        match = _API_ROUTE.fullmatch(request.raw_path)
        if match is None:
            raise _RefusedError(404, "Not Found")
        token = self._read_token(request, "bearer")
        if match["number"]:
            number = int(match["number"])
            repository = next((r for r in self.repositories.values() if r.number == number), None)
        else:
            name = unquote(match["name"]).lower()
            repository = self._find(name)
            renamed = next((r for r in self.repositories.values() if name in map(str.lower, r.old_names)), None)
            if repository is None and renamed is not None and self._may_read(renamed, token):
                rest = request.raw_path.removeprefix(f"/repos/{match['name']}")
                query = f"?{request.query_string}" if request.query_string else ""
                location = f"{self.api_url}/repositories/{renamed.number}{rest}{query}"
                return _answer_error(301, "Moved Permanently", {"Location": location}, url=location)
        if repository is None or not self._may_read(repository, token):
            raise _RefusedError(404, "Not Found")
        if repository.blocked:
            block = {"reason": "dmca", "created_at": "2026-01-01T00:00:00Z", "html_url": f"{_DOCUMENTATION}/dmca"}
            raise _RefusedError(repository.blocked, "Repository access blocked", block=block)
        if repository.sso:
            raise _RefusedError(403, "Resource protected by organization SAML enforcement.")
        return self._answer_content(request, repository, match)

    def _answer_content(self, request: Request, repository: GitRepository, match: re.Match[str]) -> Response:
        if match["ref"]:
            return self._answer_commit(request, repository, unquote(match["ref"]))
        if match["commit"]:
            return self._answer_git_commit(repository, match["commit"])
        if match["base"]:
            return _answer_comparison(repository, match["base"], match["head"])
        return self._answer_object(request, repository, match)

    def _answer_object(self, request: Request, repository: GitRepository, match: re.Match[str]) -> Response:
        if match["tree"]:
            return self._answer_tree(request, repository, unquote(match["tree"]))
        if match["blob"]:
            return self._answer_blob(request, repository, match["blob"])
        return create_json_response(200, self._describe(repository))

    def _answer_commit(self, request: Request, repository: GitRepository, ref: str) -> Response:
        if repository.is_empty:
            raise _RefusedError(409, "Git Repository is empty.")
        commit = repository.find_commit(ref)
        if commit is None:
            raise _RefusedError(422, f"No commit found for SHA: {ref}")
        if request.headers.get("accept") == "application/vnd.github.sha":
            if request.headers.get("if-none-match") == f'"{commit}"':
                return answer_bytes(304, b"", {"ETag": f'"{commit}"'})
            headers = {"Content-Type": "application/vnd.github.sha; charset=utf-8", "ETag": f'"{commit}"'}
            return answer_bytes(200, commit.encode(), headers)
        tree = repository.list_tree(commit, recursive=False)
        assert tree is not None
        return create_json_response(200, {"sha": commit, "commit": {"tree": {"sha": tree[0]}}, "files": []})

    def _answer_git_commit(self, repository: GitRepository, sha: str) -> Response:
        date = repository.find_commit_date(sha)
        if date is None:
            raise _RefusedError(404, "Not Found")
        person = {"name": "Author", "email": "author@example.com", "date": date}
        return create_json_response(200, {"sha": sha, "author": person, "committer": person, "message": "Commit"})

    def _answer_tree(self, request: Request, repository: GitRepository, name: str) -> Response:
        if repository.is_empty:
            raise _RefusedError(409, "Git Repository is empty.")
        recursive = "recursive" in request.query
        found = repository.list_tree(name, recursive=recursive)
        if found is None:
            raise _RefusedError(404, "Not Found")
        sha, entries = found
        url = f"{self.api_url}/repos/{repository.full_name}/git"
        shown = [
            entry if entry["type"] == "commit" else entry | {"url": f"{url}/{entry['type']}s/{entry['sha']}"}
            for entry in entries[: self._max_entries]
        ]
        truncated = len(entries) > self._max_entries
        return create_json_response(
            200, {"sha": sha, "url": f"{url}/trees/{sha}", "tree": shown, "truncated": truncated}
        )

    def _answer_blob(self, request: Request, repository: GitRepository, sha: str) -> Response:
        content = repository.read_blob(sha) if re.fullmatch(r"[0-9a-f]{40}", sha) else None
        if content is None:
            raise _RefusedError(404, "Not Found")
        if content.size > _MAX_BLOB:
            error = {"resource": "Blob", "field": "data", "code": "too_large"}
            words = "This API returns blobs up to 100 MB in size. The requested blob is too large to fetch via the API."
            raise _RefusedError(403, words, errors=[error])
        if request.headers.get("accept") == "application/vnd.github.raw+json":
            headers = {"Content-Type": "application/vnd.github.raw+json; charset=utf-8", "ETag": f'W/"{sha}"'}
            return answer_file(content, None, headers)
        data = b"".join(bytes(chunk) for chunk in content.read(0, content.size))
        value = {
            "sha": sha,
            "node_id": f"B_{sha}",
            "url": f"{self.api_url}/repos/{repository.full_name}/git/blobs/{sha}",
            "size": content.size,
            "content": base64.b64encode(data).decode(),
            "encoding": "base64",
        }
        return create_json_response(200, value)

    def _answer_raw(self, request: Request) -> Response:
        if "authorization" in request.headers:
            return answer_bytes(400, b"400: Invalid request", {"Content-Type": "text/plain"})
        match = _RAW_ROUTE.fullmatch(request.raw_path)
        repository = self._find(unquote(match["name"]).lower()) if match else None
        missing = answer_bytes(404, b"404: Not Found", {"Content-Type": "text/plain; charset=utf-8"})
        if match is None or repository is None or repository.private or repository.blocked:
            return missing
        found = repository.objects.read(f"{match['commit']}:{unquote(match['path'])}")
        content = repository.read_blob(found[0]) if found is not None and found[1] == "blob" else None
        if found is None or content is None:
            return missing
        return answer_file(content, request.headers.get("range"), {"ETag": f'"{found[0]}"'})

    def _answer_site(self, request: Request) -> Response:
        match = _BATCH_ROUTE.fullmatch(request.raw_path)
        try:
            token = self._read_token(request, "basic")
            repository = self._find(unquote(match["name"]).lower()) if match else None
            if repository is None or not self._may_read(repository, token):
                raise _RefusedError(401 if token is None else 404, "Repository not found")
            if repository.full_name in self.over_budget:
                raise _RefusedError(
                    403,
                    "This repository exceeded its LFS budget. The account responsible for the budget should increase "
                    "it to restore access.",
                )
            return self._ask_lfs_server(request, repository)
        except _RefusedError as refusal:
            answer = {"message": refusal.message, "documentation_url": "https://docs.github.com/lfs"}
            return create_json_response(refusal.status, answer, {"Content-Type": "application/vnd.git-lfs+json"})

    def _ask_lfs_server(self, request: Request, repository: GitRepository) -> Response:
        question = json.loads(request.body)
        asked = requests.post(
            f"{self._lfs.endpoint}/{repository.full_name}.git/info/lfs/objects/batch",
            data=request.body,
            headers={name: request.headers.get(name, "") for name in ("accept", "content-type")},
            timeout=30,
        )
        answer = asked.json()
        if asked.status_code in (404, 422):
            # giftless says it once for all where GitHub says it of each object.
            error = {"code": asked.status_code, "message": answer["message"]}
            answer = {"transfer": "basic", "objects": [entry | {"error": error} for entry in question["objects"]]}
        for entry in answer.get("objects", []):
            if entry["oid"] in self.object_errors:
                code, message = self.object_errors[entry["oid"]]
                entry.pop("actions", None)
                entry["error"] = {"code": code, "message": message}
            if "actions" in entry:
                link = self._sign(f"/{quote(repository.full_name)}/{entry['oid']}", time.time() + self.link_lifetime)
                lifetime = max(int(self.link_lifetime), 1)
                entry["actions"] = {"download": {"href": link, "header": {}, "expires_in": lifetime}}
        assert question["operation"] == "download"
        return create_json_response(200, answer, {"Content-Type": "application/vnd.git-lfs+json"})

    def _answer_media(self, request: Request) -> Response:
        if "authorization" in request.headers:
            return _answer_media_error(400, "InvalidArgument", "Only one auth mechanism allowed")
        expires = request.query.get("Expires", "")
        match = _MEDIA_ROUTE.fullmatch(request.path)
        signature = self._compute_signature(request.raw_path, expires)
        if match is None or not hmac.compare_digest(signature, request.query.get("Signature", "")):
            return _answer_media_error(403, "SignatureDoesNotMatch", "The signature does not match")

        def refuse_expired() -> Response:
            return _answer_media_error(403, "AccessDenied", "Request has expired")

        if time.time() >= float(expires):
            return refuse_expired()
        place = self._lfs.storage / match["name"] / match["oid"]
        if not place.is_file():
            return _answer_media_error(404, "NoSuchKey", "The specified key does not exist.")
        answer = answer_file(DiskContent(place), request.headers.get("range"), {"ETag": f'"{match["oid"]}"'})
        answer.if_expired = refuse_expired
        return answer

    def _sign(self, path: str, expires: float) -> str:
        signature = self._compute_signature(path, str(expires))
        return f"{self.media_url}{path}?{urlencode({'Expires': str(expires), 'Signature': signature})}"

    def _compute_signature(self, path: str, expires: str) -> str:
        return hmac.digest(self._key, f"{path}\n{expires}".encode(), "sha256").hex()

    def _find(self, name: str) -> GitRepository | None:
        return next((r for r in self.repositories.values() if r.full_name.lower() == name), None)

    def _may_read(self, repository: GitRepository, token: str | None) -> bool:
        return not repository.private or repository.full_name in self._tokens.get(token or "", ())

    def _read_token(self, request: Request, scheme: str) -> str | None:
        sent, _, credentials = request.headers.get("authorization", "").partition(" ")
        if not sent:
            return None
        if sent.lower() == "basic" == scheme:
            credentials = base64.b64decode(credentials).decode().partition(":")[2]
        elif sent.lower() != scheme:
            raise _RefusedError(401, "Bad credentials")
        if credentials not in self._tokens:
            raise _RefusedError(401, "Bad credentials")
        return credentials

    def _describe(self, repository: GitRepository) -> dict[str, Any]:
        owner, _, name = repository.full_name.partition("/")
        return {
            "id": repository.number,
            "node_id": f"R_{repository.number}",
            "name": name,
            "full_name": repository.full_name,
            "private": repository.private,
            "visibility": "private" if repository.private else "public",
            "owner": {"login": owner, "id": repository.number, "type": "Organization"},
            "html_url": f"{self.site_url}/{repository.full_name}",
            "url": f"{self.api_url}/repos/{repository.full_name}",
            "default_branch": "main",
            "size": 1,
            "fork": False,
            "archived": False,
            "disabled": False,
        }


def _answer_comparison(repository: GitRepository, base: str, head: str) -> Response:
    status = repository.compare(base, head)
    if status is None:
        raise _RefusedError(404, f"No common ancestor between {base} and {head}.")
    return create_json_response(200, {"status": status, "commits": []})


def _answer_error(status: int, message: str, headers: dict[str, str] | None = None, **extra: Any) -> Response:
    body = {"message": message, **extra, "documentation_url": _DOCUMENTATION, "status": str(status)}
    return create_json_response(status, body, headers)


def _answer_media_error(status: int, code: str, message: str) -> Response:
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return answer_bytes(status, body.encode(), {"Content-Type": "application/xml"})
