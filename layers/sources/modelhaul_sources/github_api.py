"""The calls of GitHub's REST API that imports and follows need. https://docs.github.com/rest"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

import requests

from modelhaul.domain.errors import (
    AccessRequiredError,
    CredentialsRefusedError,
    FileTooLargeError,
    InvalidReferenceError,
    InvalidRepositoryError,
    ListingTooLongError,
    ModelDisabledError,
    ModelhaulError,
    ModelNotFoundError,
    RevisionNotFoundError,
    SourceUnavailableError,
    UnexpectedResponseError,
)
from modelhaul_sources.http_client import (
    HttpClient,
    HttpResponse,
    create_retryable_error,
    create_status_error,
    describe_url,
    read_retry_after,
)
from modelhaul_sources.rate_budget import RateBudget
from modelhaul_sources.references import check_revision
from modelhaul_sources.tokens import GITHUB_PARAMETER

_VERSION = {"X-GitHub-Api-Version": "2022-11-28"}
_MAX_JSON = 64 * 1024 * 1024  # bytes; a tree has at most 7 MB
_MAX_ERROR = 64 * 1024
_MAX_SHA = 1000
_MAX_BRANCH = 255  # characters in a message
_SHA = re.compile(r"[0-9a-f]{40}")
# The names of enterprise managed users end with an underscore and the short name of their enterprise.
_OWNER = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9]|-(?=[A-Za-z0-9])){0,38}(?:_[A-Za-z0-9]{1,20})?")
_REPOSITORY = re.compile(r"[A-Za-z0-9._-]{1,100}")
_URL = re.compile(r"(?:github\.com|://[^/]+|@[^/:]+)[/:]+(?P<owner>[^/?#]+)/(?P<repository>[^/?#]+)", re.IGNORECASE)
# A repository may be named `github.com` or `developer.github.com`. Only a longer text is a URL.
_URL_START = re.compile(r"[a-z][a-z0-9+.-]*://|git@|(?:www\.)?github\.com[/:]", re.IGNORECASE)
_LIMITED = re.compile(r"rate limit|abuse detection", re.IGNORECASE)
_BLOCKED = re.compile(r"repository access blocked|dmca|disabled", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Repository:
    """`name` is the canonical `owner/repository`: as GitHub writes it, after all renames."""

    name: str
    private: bool
    default_branch: str | None = None


class FoundCommit(NamedTuple):
    """`is_redirected`: GitHub redirected the request, because the repository was renamed."""

    commit: str
    is_redirected: bool


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """`mode`: git's file mode, such as `100644`. `sha`: of the blob or submodule's commit. `size`: bytes of a blob."""

    path: str
    mode: str
    type: str
    sha: str
    size: int


def parse_name(name: str) -> tuple[str, str]:
    """Return (owner, repository) of `owner/repository`. Raises InvalidRepositoryError for an invalid name."""
    owner, _, repository = name.partition("/")
    is_owner_url = _URL_START.match(name)
    if is_owner_url or _URL_START.match(repository):
        found = _URL.search(name)
        example = (found["owner"], found["repository"].removesuffix(".git")) if found else ("openai", "gpt-2")
        if not _OWNER.fullmatch(example[0]) or not _is_repository(example[1]):
            example = ("openai", "gpt-2")
        part: Literal["owner", "repo_name"] = "owner" if is_owner_url else "repo_name"
        value = name.rpartition("/")[0] if is_owner_url else repository
        raise InvalidRepositoryError(
            f"{value[:100]!r} is a URL. Use names, for example the owner {example[0]!r} and the repository "
            f"{example[1]!r}.",
            part=part,
        )
    if not _OWNER.fullmatch(owner):
        raise InvalidRepositoryError(
            f"Invalid GitHub owner {owner[:100]!r}. An owner has up to 39 letters, digits and single hyphens between "
            "them.",
            part="owner",
        )
    repository = repository.removesuffix(".git")
    if not _is_repository(repository):
        raise InvalidRepositoryError(
            f"Invalid GitHub repository name {repository[:100]!r}. A name has up to 100 letters, digits, '-', '_' and "
            "'.'.",
            part="repo_name",
        )
    return owner, repository


def check_reference(revision: str) -> None:
    """Check a revision. Raises InvalidRepositoryError for an invalid revision."""
    try:
        check_revision(revision)
    except InvalidReferenceError as error:
        raise InvalidRepositoryError(error.detail, part="revision") from None


def _is_repository(name: str) -> bool:
    return _REPOSITORY.fullmatch(name) is not None and name not in (".", "..")


class GitHubApi:
    """Every request raises RateLimitedError during a pause of `budget` and for a rate-limit response (403 or 429).

    It raises SourceUnavailableError for 408, 425, 5xx and connection errors, and SourceRefusedError for other 4xx.
    """

    def __init__(self, endpoint: str, client: HttpClient, budget: RateBudget, token: Callable[[], str | None]) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._client = client
        self._budget = budget
        self._find_token = token

    def find_repository(self, owner: str, repository: str) -> Repository:
        """Return the repository with its canonical name.

        Raises ModelNotFoundError, AccessRequiredError, ModelDisabledError, CredentialsRefusedError.
        """
        name = f"{owner}/{repository}"
        body = self._read_json(f"/repos/{name}", name)
        try:
            full_name, private = body["full_name"], body["private"]
            parse_name(full_name)
        except (KeyError, TypeError, AttributeError, InvalidRepositoryError):
            raise _create_invalid_response_error(name) from None
        branch = body.get("default_branch")
        return Repository(
            str(full_name), private is not False, branch[:_MAX_BRANCH] if isinstance(branch, str) else None
        )

    def find_commit(self, name: str, revision: str) -> str:
        """Return the current commit of a branch, a tag, an annotated tag or a commit (which may be abbreviated).

        Raises RevisionNotFoundError, also for an empty repository, and the errors of `find_repository`.
        """
        response = self._request_commit(name, revision, {}).response
        return self._read_commit(response, name, revision)

    def compare_commit(self, name: str, revision: str, known: str) -> FoundCommit:
        """Return the current commit, as `find_commit` does. If it is still `known`, the response has no body.

        GitHub does not count such a response against the rate limit of a token. The commit is the ETag:
        https://docs.github.com/rest/commits/commits#get-a-commit
        """
        found = self._request_commit(name, revision, {"If-None-Match": f'"{known}"'})
        if found.response.status_code == HTTPStatus.NOT_MODIFIED:
            self._budget.record_response(found.response.headers)
            found.response.close()
            return FoundCommit(known, bool(found.redirects))
        return FoundCommit(self._read_commit(found.response, name, revision), bool(found.redirects))

    def is_rewritten(self, name: str, commit: str, earlier: str) -> bool:
        """Return whether the history of `commit` lacks the commit `earlier`. Raises the errors of `find_repository`."""
        # The list of changed files is only on the first page.
        path = f"/repos/{name}/compare/{earlier}...{commit}?per_page=1&page=2"
        try:
            status = self._read_json(path, name, revision=earlier)["status"]
        except RevisionNotFoundError:
            return True  # GitHub no longer has the commit, or the commits have no common ancestor
        except (KeyError, TypeError):
            raise _create_invalid_response_error(name) from None
        return status not in ("ahead", "identical")

    def _request_commit(self, name: str, revision: str, headers: dict[str, str]) -> HttpResponse:
        path = f"/repos/{name}/commits/{quote(revision, safe='')}"
        return self._request(path, self._build_headers("application/vnd.github.sha") | headers)

    def _read_commit(self, response: requests.Response, name: str, revision: str) -> str:
        self.check_response(response, name, revision)
        sha = self._client.read(response, max_bytes=_MAX_SHA).decode("ascii", "replace").strip()
        is_other_commit = _SHA.fullmatch(revision.lower()) and revision.lower() != sha
        if not _SHA.fullmatch(sha) or is_other_commit:
            raise _create_invalid_response_error(name)
        return sha

    def find_commit_date(self, name: str, commit: str) -> datetime:
        """Return when the commit was committed, as the committer states it.

        This route of the Git database does not compute the changes of the commit, which may fail for large ones.
        Raises RevisionNotFoundError and the errors of `find_repository`.
        """
        body = self._read_json(f"/repos/{name}/git/commits/{commit}", name, revision=commit)
        try:
            moment = datetime.fromisoformat(body["committer"]["date"])
        except (KeyError, TypeError, ValueError):
            raise _create_invalid_response_error(name) from None
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

    def list_tree(self, name: str, commit: str) -> Iterator[TreeEntry]:
        """Yield all entries of the commit except directories. If GitHub truncates a tree, list directory by directory.

        Raises RevisionNotFoundError, ListingTooLongError, and the errors of `find_repository`.
        """
        yield from self._walk(name, commit, commit, "")

    def _walk(self, name: str, commit: str, sha: str, directory: str) -> Iterator[TreeEntry]:
        entries = self._read_tree(name, commit, sha, recursive=True)
        if entries is not None:
            yield from (_resolve(entry, directory) for entry in entries if entry.type != "tree")
            return
        entries = self._read_tree(name, commit, sha, recursive=False)
        if entries is None:
            raise ListingTooLongError(
                f"Directory {directory or '/'!r} of {name} has more entries than GitHub lists (100,000)."
            )
        for entry in entries:
            resolved = _resolve(entry, directory)
            if entry.type == "tree":
                yield from self._walk(name, commit, entry.sha, resolved.path)
            else:
                yield resolved

    def _read_tree(self, name: str, commit: str, sha: str, *, recursive: bool) -> list[TreeEntry] | None:
        """Return None if GitHub truncated the tree."""
        path = f"/repos/{name}/git/trees/{sha}" + ("?recursive=1" if recursive else "")
        body = self._read_json(path, name, revision=commit)
        try:
            if body["truncated"]:
                return None
            return [_read_entry(entry) for entry in body["tree"]]
        except (KeyError, TypeError, ValueError, AttributeError):
            raise _create_invalid_response_error(name) from None

    def build_blob_url(self, name: str, sha: str) -> str:
        """Return the URL of a blob of up to 100 MB. A request needs `build_blob_headers`, and uses the budget."""
        return f"{self._endpoint}/repos/{name}/git/blobs/{sha}"

    def build_blob_headers(self) -> dict[str, str]:
        """Return the headers to download a blob. Raises RateLimitedError, CredentialsRefusedError."""
        self._budget.check()
        return self._build_headers("application/vnd.github.raw+json")

    def check_response(self, response: requests.Response, name: str, revision: str | None = None) -> None:
        """Record the remaining budget, and raise the error for a status other than 200 and 206."""
        self._budget.record_response(response.headers)
        if response.status_code not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            raise self._create_error(response, name, revision)

    def _read_json(self, path: str, name: str, *, revision: str | None = None) -> Any:
        response = self._request(path, self._build_headers("application/vnd.github+json")).response
        self.check_response(response, name, revision)
        try:
            return json.loads(self._client.read(response, max_bytes=_MAX_JSON))
        except (ValueError, RecursionError):
            raise _create_invalid_response_error(name) from None

    def _request(self, path: str, headers: dict[str, str]) -> HttpResponse:
        self._budget.check()
        return self._client.send("GET", f"{self._endpoint}{path}", own_headers=headers, headers={})

    def _build_headers(self, accept: str) -> dict[str, str]:
        token = self._find_token()
        return {"Accept": accept, **_VERSION, **({"Authorization": f"Bearer {token}"} if token else {})}

    def _create_error(  # noqa: PLR0911 - one for each condition
        self, response: requests.Response, name: str, revision: str | None
    ) -> ModelhaulError:
        status, headers = response.status_code, response.headers
        text = self._read_error(response)
        if status == HTTPStatus.TOO_MANY_REQUESTS or (
            status == HTTPStatus.FORBIDDEN
            and (
                headers.get("x-ratelimit-remaining", "").strip() == "0"
                or read_retry_after(headers) is not None
                or _LIMITED.search(text)
            )
        ):
            return self._budget.record_refusal(headers)
        if retryable := create_retryable_error(describe_url(response.url), status, headers):
            return retryable
        if status == HTTPStatus.UNAUTHORIZED:
            return CredentialsRefusedError(
                f"GitHub rejected the token in {GITHUB_PARAMETER}. The token may have expired."
            )
        if status == HTTPStatus.UNAVAILABLE_FOR_LEGAL_REASONS or (
            status == HTTPStatus.FORBIDDEN and _BLOCKED.search(text)
        ):
            return ModelDisabledError(f"{name} is blocked on GitHub and cannot be downloaded.")
        if status == HTTPStatus.FORBIDDEN and "too_large" in text:
            return FileTooLargeError(
                f"A file of {name} exceeds GitHub's limit of 100 MB for downloads without Git LFS.",
                remedy="Ask the owner of the repository to store the file in Git LFS, or exclude it with an ignore "
                "pattern.",
            )
        if status == HTTPStatus.FORBIDDEN:
            sso = " and authorization for the single sign-on of its organization" if "x-github-sso" in headers else ""
            return AccessRequiredError(
                f"GitHub denied access to {name}. The token in {GITHUB_PARAMETER} needs permission to read its contents"
                f"{sso}."
            )
        if status == HTTPStatus.CONFLICT and revision is not None:
            return RevisionNotFoundError(
                f"The repository {name} is empty.", remedy="Submit the import again when the repository has files."
            )
        if status in (HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY) and revision is not None:
            return RevisionNotFoundError(f"Revision {revision!r} of {name} not found.")
        if status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
            return ModelNotFoundError(
                f"GitHub has no repository {name}, or the token in {GITHUB_PARAMETER} cannot read it."
                if self._find_token()
                else f"GitHub has no public repository {name}. A private repository requires a token with read access "
                f"in {GITHUB_PARAMETER}.",
                remedy="Check the owner and the name of the repository: they are in the URL of its page. If it is "
                "private, ask an operator to configure a token that can read it.",
            )
        return create_status_error(f"GitHub responded with status {status} for {name}.", status)

    def _read_error(self, response: requests.Response) -> str:
        """Return the text of an error response. It only serves to classify the error, and is never shown."""
        try:
            return self._client.read(response, max_bytes=_MAX_ERROR).decode("utf-8", "replace")
        except (SourceUnavailableError, UnexpectedResponseError):
            return ""


def _read_entry(entry: dict[str, Any]) -> TreeEntry:
    """Return the entry. Raises ValueError, TypeError or KeyError for an invalid one."""
    path, mode, kind, sha = (entry[key] for key in ("path", "mode", "type", "sha"))
    size = entry["size"] if kind == "blob" else 0
    if not all(isinstance(text, str) for text in (path, mode, kind, sha)) or not _SHA.fullmatch(sha):
        raise ValueError("invalid entry")
    if not isinstance(size, int) or size < 0:
        raise ValueError("invalid size")
    return TreeEntry(path, mode, kind, sha, size)


def _resolve(entry: TreeEntry, directory: str) -> TreeEntry:
    """Return the entry with its path relative to the repository."""
    if not directory:
        return entry
    return TreeEntry(f"{directory}/{entry.path}", entry.mode, entry.type, entry.sha, entry.size)


def _create_invalid_response_error(name: str) -> UnexpectedResponseError:
    return UnexpectedResponseError(f"GitHub returned an invalid response for {name}.")
