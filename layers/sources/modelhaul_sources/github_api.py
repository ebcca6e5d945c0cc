"""GitHub's REST API: the four questions that an import asks. https://docs.github.com/rest"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
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
from modelhaul_sources.http_client import HttpClient, describe_url, describe_waiting, read_retry_after
from modelhaul_sources.rate_budget import RateBudget
from modelhaul_sources.references import check_revision

TOKEN_SECRET = "the secret of the parameter GitHubTokenSecret"  # noqa: S105 - a name
_VERSION = {"X-GitHub-Api-Version": "2022-11-28"}
_MAX_JSON = 64 * 1024 * 1024  # bytes; a tree has 7 MB at most
_MAX_MESSAGE = 64 * 1024
_SHA = re.compile(r"[0-9a-f]{40}")
_ABBREVIATED = 7
# Users that a company manages have an underscore and its short name behind theirs.
_OWNER = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9]|-(?=[A-Za-z0-9])){0,38}(?:_[A-Za-z0-9]{1,20})?")
_REPOSITORY = re.compile(r"[A-Za-z0-9._-]{1,100}")
_ADDRESS = re.compile(r"(?:github\.com|://[^/]+|@[^/:]+)[/:]+(?P<owner>[^/?#]+)/(?P<repository>[^/?#]+)", re.IGNORECASE)
# Repositories may be called `github.com` and `developer.github.com`: only what has more behind it is an address.
_BEGINS_AS_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://|git@|(?:www\.)?github\.com[/:]", re.IGNORECASE)
_LIMITED = re.compile(r"rate limit|abuse detection", re.IGNORECASE)
_BLOCKED = re.compile(r"repository access blocked|dmca|disabled", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Repository:
    """`name` is the canonical `owner/repository`: as GitHub writes it, after all renames."""

    name: str
    private: bool


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """`mode` as git has it (`100644`), `sha` that of the blob or the submodule's commit, `size` a blob's bytes."""

    path: str
    mode: str
    type: str
    sha: str
    size: int


def parse_name(name: str) -> tuple[str, str]:
    """(owner, repository) of `owner/repository`. Raises InvalidRepositoryError for what GitHub cannot have."""
    owner, _, repository = name.partition("/")
    begins = _BEGINS_AS_ADDRESS.match(name)
    if begins or _BEGINS_AS_ADDRESS.match(repository):
        found = _ADDRESS.search(name)
        example = (found["owner"], found["repository"].removesuffix(".git")) if found else ("openai", "gpt-2")
        if not _OWNER.fullmatch(example[0]) or not _is_repository(example[1]):
            example = ("openai", "gpt-2")
        raise InvalidRepositoryError(
            f"send the repository's name and not its address: owner {example[0]!r} and repo_name {example[1]!r}, "
            "for example",
            part="owner" if begins else "repo_name",
        )
    if not _OWNER.fullmatch(owner):
        raise InvalidRepositoryError(
            f"{owner[:100]!r} cannot be an owner on GitHub: up to 39 letters, digits and single hyphens between them",
            part="owner",
        )
    repository = repository.removesuffix(".git")
    if not _is_repository(repository):
        raise InvalidRepositoryError(
            f"{repository[:100]!r} cannot be a repository on GitHub: up to 100 letters, digits, '-', '_' and '.'",
            part="repo_name",
        )
    return owner, repository


def check_reference(revision: str) -> None:
    """Raises InvalidRepositoryError."""
    try:
        check_revision(revision)
    except InvalidReferenceError as error:
        raise InvalidRepositoryError(error.detail, part="revision") from None


def _is_repository(name: str) -> bool:
    return _REPOSITORY.fullmatch(name) is not None and name not in (".", "..")


class GitHubApi:
    """Raises RateLimitedError as long as `budget` says so, and for 403 and 429 that mean it; SourceUnavailableError."""

    def __init__(self, endpoint: str, client: HttpClient, budget: RateBudget, token: Callable[[], str | None]) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._client = client
        self._budget = budget
        self._find_token = token

    def find_repository(self, owner: str, repository: str) -> Repository:
        """Raises ModelNotFoundError, AccessRequiredError, ModelDisabledError, CredentialsRefusedError."""
        name = f"{owner}/{repository}"
        answer = self._read_json(f"/repos/{name}", name)
        try:
            full_name, private = answer["full_name"], answer["private"]
            parse_name(full_name)
        except (KeyError, TypeError, AttributeError, InvalidRepositoryError):
            raise _describe_strange(name) from None
        return Repository(str(full_name), private is not False)

    def find_commit(self, name: str, revision: str) -> str:
        """The commit that a branch, a tag, an annotated tag or a commit's own name stands for now.

        Raises RevisionNotFoundError, also for an empty repository; else as `find_repository`.
        """
        path = f"/repos/{name}/commits/{quote(revision, safe='')}"
        commit = self._read(path, name, accept="application/vnd.github.sha", revision=revision, most=1000)
        sha = commit.decode("ascii", "replace").strip()
        asked = revision.lower()
        is_another = re.fullmatch(r"[0-9a-f]{40}", asked) and asked != sha
        if not _SHA.fullmatch(sha) or is_another:
            raise _describe_strange(name)
        return sha

    def list_tree(self, name: str, commit: str) -> Iterator[TreeEntry]:
        """All entries of the commit but directories; where GitHub cuts the list off, directory by directory.

        Raises RevisionNotFoundError, ListingTooLongError; else as `find_repository`.
        """
        yield from self._walk(name, commit, commit, "")

    def _walk(self, name: str, commit: str, sha: str, directory: str) -> Iterator[TreeEntry]:
        entries = self._read_tree(name, commit, sha, recursive=True)
        if entries is not None:
            yield from (_place(entry, directory) for entry in entries if entry.type != "tree")
            return
        entries = self._read_tree(name, commit, sha, recursive=False)
        if entries is None:
            raise ListingTooLongError(
                f"the directory {directory or '/'!r} of {name} has more entries than GitHub lists (100,000)"
            )
        for entry in entries:
            placed = _place(entry, directory)
            if entry.type == "tree":
                yield from self._walk(name, commit, entry.sha, placed.path)
            else:
                yield placed

    def _read_tree(self, name: str, commit: str, sha: str, *, recursive: bool) -> list[TreeEntry] | None:
        """None if GitHub has cut it off."""
        path = f"/repos/{name}/git/trees/{sha}" + ("?recursive=1" if recursive else "")
        answer = self._read_json(path, name, revision=commit)
        try:
            if answer["truncated"]:
                return None
            return [_read_entry(entry) for entry in answer["tree"]]
        except (KeyError, TypeError, ValueError, AttributeError):
            raise _describe_strange(name) from None

    def find_blob_url(self, name: str, sha: str) -> str:
        """Where the blob's bytes are, with `blob_headers` and up to 100 MB; each request counts against the budget."""
        return f"{self._endpoint}/repos/{name}/git/blobs/{sha}"

    def blob_headers(self) -> dict[str, str]:
        """Raises RateLimitedError, CredentialsRefusedError."""
        self._budget.check()
        return self._build_headers("application/vnd.github.raw+json")

    def check_response(self, response: requests.Response, name: str, revision: str | None = None) -> None:
        """Takes note of what is left of the budget, and raises what an answer other than 200 and 206 means."""
        self._budget.note(response.headers)
        if response.status_code not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            raise self._describe_refusal(response, name, revision)

    def _read_json(self, path: str, name: str, *, revision: str | None = None) -> Any:
        body = self._read(path, name, accept="application/vnd.github+json", revision=revision, most=_MAX_JSON)
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            raise _describe_strange(name) from None

    def _read(self, path: str, name: str, *, accept: str, revision: str | None, most: int) -> bytes:
        self._budget.check()
        url = f"{self._endpoint}{path}"
        response = self._client.send("GET", url, own_headers=self._build_headers(accept), headers={}).response
        self.check_response(response, name, revision)
        return self._client.read(response, most=most)

    def _build_headers(self, accept: str) -> dict[str, str]:
        token = self._find_token()
        return {"Accept": accept, **_VERSION, **({"Authorization": f"Bearer {token}"} if token else {})}

    def _describe_refusal(  # noqa: PLR0911 - one for each condition
        self, response: requests.Response, name: str, revision: str | None
    ) -> ModelhaulError:
        status, headers = response.status_code, response.headers
        words = self._read_words(response)
        if status == HTTPStatus.TOO_MANY_REQUESTS or (
            status == HTTPStatus.FORBIDDEN
            and (
                headers.get("x-ratelimit-remaining", "").strip() == "0"
                or read_retry_after(headers) is not None
                or _LIMITED.search(words)
            )
        ):
            return self._budget.refuse(headers)
        if waiting := describe_waiting(describe_url(response.url), status, headers):
            return waiting
        if status == HTTPStatus.UNAUTHORIZED:
            return CredentialsRefusedError(
                f"GitHub does not accept the token in {TOKEN_SECRET}, which may have expired; put a valid one there"
            )
        if status == HTTPStatus.UNAVAILABLE_FOR_LEGAL_REASONS or (
            status == HTTPStatus.FORBIDDEN and _BLOCKED.search(words)
        ):
            return ModelDisabledError(f"{name} is blocked on GitHub and cannot be downloaded")
        if status == HTTPStatus.FORBIDDEN and "too_large" in words:
            return FileTooLargeError(
                f"a file of {name} is larger than GitHub gives out (100 MB); it belongs in Git LFS"
            )
        if status == HTTPStatus.FORBIDDEN:
            return AccessRequiredError(
                f"GitHub refuses access to {name}; the token in {TOKEN_SECRET} must be allowed to read its contents"
                + (" and be authorized for its organization's single sign-on" if "x-github-sso" in headers else "")
            )
        if status == HTTPStatus.CONFLICT and revision is not None:
            return RevisionNotFoundError(f"the repository {name} is empty: it has no commit yet")
        if status in (HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY) and revision is not None:
            return RevisionNotFoundError(
                f"{name} has no revision {revision!r}; give a branch, a tag or a commit of 40 hex digits"
            )
        if status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
            return ModelNotFoundError(
                f"GitHub has no repository {name} that the token in {TOKEN_SECRET} may see"
                if self._find_token()
                else f"GitHub has no public repository {name}; if it is private, configure a token that may read it "
                "by the parameter GitHubTokenSecret"
            )
        return UnexpectedResponseError(f"GitHub answered the question for {name} with status {status}")

    def _read_words(self, response: requests.Response) -> str:
        """For finding out what is meant; never to be shown."""
        try:
            return self._client.read(response, most=_MAX_MESSAGE).decode("utf-8", "replace")
        except (SourceUnavailableError, UnexpectedResponseError):
            return ""


def _read_entry(entry: dict[str, Any]) -> TreeEntry:
    """Raises ValueError, TypeError, KeyError."""
    path, mode, kind, sha = (entry[key] for key in ("path", "mode", "type", "sha"))
    size = entry["size"] if kind == "blob" else 0
    if not all(isinstance(text, str) for text in (path, mode, kind, sha)) or not _SHA.fullmatch(sha):
        raise ValueError("not an entry")
    if not isinstance(size, int) or size < 0:
        raise ValueError("not a size")
    return TreeEntry(path, mode, kind, sha, size)


def _place(entry: TreeEntry, directory: str) -> TreeEntry:
    if not directory:
        return entry
    return TreeEntry(f"{directory}/{entry.path}", entry.mode, entry.type, entry.sha, entry.size)


def _describe_strange(name: str) -> UnexpectedResponseError:
    return UnexpectedResponseError(f"what GitHub says about {name} cannot be read")
