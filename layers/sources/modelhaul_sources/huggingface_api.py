"""The Hub's API through huggingface_hub, with the project's own errors and without the library's retries."""

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from difflib import get_close_matches
from functools import lru_cache
from http import HTTPStatus
from itertools import islice, takewhile
from typing import Any
from urllib.parse import quote, urlsplit

import httpx2
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url, set_client_factory
from huggingface_hub.errors import DisabledRepoError, HfHubHTTPError, HFValidationError, RemoteEntryNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils._headers import build_hf_headers
from huggingface_hub.utils._pagination import paginate
from huggingface_hub.utils._validators import validate_repo_id

from modelhaul.domain.digests import Digest
from modelhaul.domain.errors import (
    AccessRequiredError,
    CredentialsRefusedError,
    InvalidReferenceError,
    ModelDisabledError,
    ModelhaulError,
    ModelNotFoundError,
    RevisionNotFoundError,
    SourceUnavailableError,
    UnexpectedResponseError,
)
from modelhaul.domain.files import SourceFile
from modelhaul.domain.models import ResolvedModel, Source
from modelhaul.ports.missing_models import UpstreamFile
from modelhaul_sources.hosts import HostPolicy, parse_origin
from modelhaul_sources.http_client import create_retryable_error, create_status_error, describe_url
from modelhaul_sources.model_cards import parse_card
from modelhaul_sources.references import check_revision
from modelhaul_sources.tokens import HUB_PARAMETER

_TIMEOUT = 10.0  # seconds to connect, and to receive the next bytes
_SEARCH_TIMEOUT = 3.0  # seconds
_MIN_SEARCH = 3  # characters
_MAX_SEARCHED = 100  # models
_MAX_SUGGESTED = 3
_PAGES = {"tree", "blob", "resolve", "commits", "discussions"}  # path segments after a model's name in URLs
_ERROR_CODE = "X-Error-Code"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_URL = re.compile(r"https?://|(?:www\.)?(?:huggingface\.co|hf\.co)/", re.IGNORECASE)


class HubApi:
    """The Hub's API. huggingface_hub has one HTTP client per process, which uses the policy of the last HubApi."""

    def __init__(self, policy: HostPolicy) -> None:
        _install_client(policy)
        self._endpoint = policy.endpoint
        self._api = HfApi(endpoint=policy.endpoint, token=False, library_name="modelhaul")

    def resolve(self, name: str, revision: str, token: str | None) -> ResolvedModel:
        check_name(name)
        check_revision(revision)
        with _translate_errors(self._endpoint, name, revision, token):
            info = self._api.model_info(name, revision=revision, timeout=_TIMEOUT, token=token or False)
        if info.disabled:
            raise _create_disabled_error(name)
        commit = str(info.sha)
        is_other_commit = _COMMIT.fullmatch(revision.lower()) and revision.lower() != commit
        if is_other_commit or not _COMMIT.fullmatch(commit) or not _is_name(info.id):
            raise UnexpectedResponseError(f"The Hub returned an invalid description of {name} at {revision}.")
        if info.gated:
            self._check_access(info.id, token)
        card = parse_card(info.card_data, library=info.library_name, pipeline_tag=info.pipeline_tag)
        return ResolvedModel(Source.HUGGINGFACE, info.id, revision, commit, card=card, gated=bool(info.gated))

    def find_commit_date(self, model: ResolvedModel, token: str | None) -> datetime | None:
        """Return the date of the commit. The description of a model has only the time of the repository's last change.

        None if the server does not have the route, as some servers that implement the Hub's API.
        """
        url = f"{self._endpoint}/api/models/{quote(model.name)}/commits/{model.commit}"
        with _translate_errors(self._endpoint, model.name, model.commit, token):
            try:
                found = next(iter(paginate(url, {"limit": 1}, build_hf_headers(token=token or False), _TIMEOUT)), None)
            except HfHubHTTPError as error:
                if error.response.status_code == HTTPStatus.NOT_FOUND and not error.response.headers.get(_ERROR_CODE):
                    return None
                raise
            if found is None or found["id"] != model.commit:
                raise ValueError("other commit")
            moment = datetime.fromisoformat(found["date"])
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

    def list_files(self, model: ResolvedModel, token: str | None) -> Iterator[SourceFile]:
        with _translate_errors(self._endpoint, model.name, model.commit, token):
            for entry in self._api.list_repo_tree(
                model.name, recursive=True, revision=model.commit, token=token or False
            ):
                if isinstance(entry, RepoFile):
                    yield _read_file(entry)

    def describe_file(self, name: str, revision: str, path: str) -> UpstreamFile | None:
        """Send no token. The Hub describes a file in the response that redirects to the file's storage."""
        check_name(name)
        check_revision(revision)
        with _translate_errors(self._endpoint, name, revision, None):
            url = hf_hub_url(name, path, revision=revision, endpoint=self._endpoint)
            try:
                found = get_hf_file_metadata(url, token=False, endpoint=self._endpoint)
            except RemoteEntryNotFoundError:
                return None
            commit = str(found.commit_hash)
            if not found.etag or found.size is None or not _COMMIT.fullmatch(commit):
                raise ValueError("incomplete description of a file")
        return UpstreamFile(found.etag, found.size, commit)

    def find_similar_names(self, name: str) -> list[str]:
        """Return the most similar names of public models, at most three. Empty if the search fails or takes too long.

        The Hub finds names that contain a text. Most typing errors are near the end of a name or in the owner's name.
        """
        bare = name.rpartition("/")[2].lower()
        search = bare[: max(_MIN_SEARCH, len(bare) * 2 // 3)]
        pool = ThreadPoolExecutor(1, thread_name_prefix="similar-names")
        try:
            by_name = pool.submit(self._search_names, search).result(_SEARCH_TIMEOUT)
        except (ModelhaulError, TimeoutError):
            return []
        finally:
            pool.shutdown(wait=False)
        if "/" in name:
            close = get_close_matches(name.lower(), by_name, n=_MAX_SUGGESTED)
        else:
            # Most models have an owner, which the name lacks. The names are in the order of their downloads.
            bare_names = dict.fromkeys(found.rpartition("/")[2] for found in by_name)
            similar = get_close_matches(bare, bare_names, n=_MAX_SUGGESTED)
            close = [found for text in similar for found in by_name if found.rpartition("/")[2] == text]
        return [by_name[found] for found in close[:_MAX_SUGGESTED]]

    def _search_names(self, search: str) -> dict[str, str]:
        """Return the names of public models that contain the text, by the name in lower case."""
        with _translate_errors(self._endpoint, search, "main", None):
            listed = self._api.list_models(search=search, sort="downloads", limit=_MAX_SEARCHED, token=False)
            return {model.id.lower(): model.id for model in islice(listed, _MAX_SEARCHED) if _is_name(model.id)}

    def _check_access(self, name: str, token: str | None) -> None:
        """Check access to the files of a gated model, which the model's description does not show."""
        with _translate_errors(self._endpoint, name, "main", token):
            try:
                self._api.auth_check(name, token=token or False)
            except HfHubHTTPError as error:
                # Some servers that implement the Hub's API lack this route. There, the transfer checks the access.
                if error.response.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
                    raise


def check_name(name: str) -> None:
    """Check a model name. Raises InvalidReferenceError for an invalid name, with an example of a valid name."""
    bare, _, revision = name.partition("@")
    if _URL.match(name):
        path = urlsplit(name if "://" in name else f"https://{name}").path
        segments = takewhile(lambda s: s not in _PAGES, path.strip("/").split("/"))
        found = "/".join(islice(segments, 2))
        example = found if _is_name(found) else "google-bert/bert-base-uncased"
        raise InvalidReferenceError(
            f"{name[:100]!r} is a URL. Use the name of the model, for example {example!r}.", part="name"
        )
    if revision and _is_name(bare):
        raise InvalidReferenceError(
            f"{name[:200]!r} contains a revision. Use the name {bare!r} and the revision {revision[:100]!r}.",
            part="name",
        )
    if not _is_name(name):
        raise InvalidReferenceError(
            f"Invalid model name {name[:100]!r}. A name on the Hub is 'model' or 'owner/model'. It has up to 96 "
            "letters, digits, '-', '_' and '.', no '--' or '..', and does not end with '.git'.",
            part="name",
        )


def _is_name(name: object) -> bool:
    try:
        validate_repo_id(name)  # type: ignore[arg-type]  # it checks the type
    except HFValidationError:
        return False
    return name is not None


def _read_file(entry: RepoFile) -> SourceFile:
    """Return the file. Raises ValueError for an invalid path, size or digest: the library does not check them."""
    digest = f"sha256:{entry.lfs.sha256}" if entry.lfs else f"git-sha1:{entry.blob_id}"
    path: object = entry.path
    size: object = entry.lfs.size if entry.lfs else entry.size
    if not isinstance(path, str) or not isinstance(size, int) or size < 0:
        raise ValueError("invalid path or size")
    return SourceFile(path, size, Digest.parse(digest))


@contextmanager
def _translate_errors(endpoint: str, name: str, revision: str, token: str | None) -> Iterator[None]:
    try:
        yield
    except HfHubHTTPError as error:
        raise _create_error(error, f"{endpoint}/{name}", name, revision, authenticated=token is not None) from None
    except (AttributeError, KeyError, TypeError, ValueError, httpx2.InvalidURL):
        # The library does not validate the body of a response with status 200.
        raise UnexpectedResponseError(f"The Hub returned an invalid response for {name}.") from None


def _create_error(  # noqa: PLR0911 - one for each condition
    error: HfHubHTTPError, page: str, name: str, revision: str, *, authenticated: bool
) -> ModelhaulError:
    """Translate by status and `X-Error-Code`: the classes of the library's errors differ between http and https.

    `page` is the URL of the model's page.
    """
    status, code = error.response.status_code, error.response.headers.get(_ERROR_CODE)
    if isinstance(error, DisabledRepoError) or status == HTTPStatus.UNAVAILABLE_FOR_LEGAL_REASONS:
        return _create_disabled_error(name)
    if code == "RevisionNotFound":
        return RevisionNotFoundError(f"Revision {revision!r} of {name} not found.")
    if code == "GatedRepo":
        remedy = (
            f"with the account that owns the token in {HUB_PARAMETER}."
            if authenticated
            else f"and configure a read token of your account in {HUB_PARAMETER}."
        )
        return AccessRequiredError(
            f"{name} is gated.", remedy=f"Accept its terms at {page} {remedy} Then submit the import again."
        )
    if status == HTTPStatus.FORBIDDEN:
        return AccessRequiredError(
            f"The Hub denied access to {name}. The token in {HUB_PARAMETER} needs permission to read it."
        )
    if status == HTTPStatus.UNAUTHORIZED and authenticated and code != "RepoNotFound":
        # The Hub responds with 404 to a valid token without access, and with 401 to a request without a token.
        return CredentialsRefusedError(f"The Hub rejected the token in {HUB_PARAMETER}. The token may have expired.")
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND):
        return ModelNotFoundError(
            f"The Hub has no model {name}, or the token in {HUB_PARAMETER} cannot read it."
            if authenticated
            else f"The Hub has no public model {name}. A private model requires a token with read access in "
            f"{HUB_PARAMETER}.",
            remedy=describe_name_remedy([]),
        )
    return create_status_error(f"The Hub responded with status {status} for {name}.", status)


def describe_name_remedy(similar: Sequence[str]) -> str:
    """Return the remedy for a name that the Hub does not know. `similar`: existing names."""
    suggestion = f" Similar names: {', '.join(similar)}." if similar else ""
    return (
        "Check the name: on the Hub it is OWNER/MODEL, as in the URL of the model's page, or only MODEL for some old "
        f"models.{suggestion} If the model is private, ask an operator to configure a token that can read it."
    )


def _create_disabled_error(name: str) -> ModelDisabledError:
    return ModelDisabledError(f"{name} is disabled on the Hub and cannot be downloaded.")


@lru_cache(maxsize=1)
def _install_client(policy: HostPolicy) -> None:
    """Set a client with the project's timeouts and errors in huggingface_hub.

    The library's own client has no timeout for trees, and retries for minutes.
    """

    def check_request(request: httpx2.Request) -> None:
        if policy.check_url(str(request.url)) != parse_origin(policy.endpoint):
            request.headers.pop("Authorization", None)

    def check_response(response: httpx2.Response) -> None:
        address = response.extensions["network_stream"].get_extra_info("server_addr")
        policy.check_address(response.url.host, address[0])
        url = describe_url(str(response.url))
        if retryable := create_retryable_error(url, response.status_code, response.headers):
            raise retryable

    class Client(httpx2.Client):
        def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
            request.extensions["timeout"] = httpx2.Timeout(_TIMEOUT).as_dict()
            try:
                return super().send(request, **options)
            except (httpx2.RequestError, OSError) as error:
                # OSError: the connection was reset before its address was checked.
                url, reason = describe_url(str(request.url)), type(error).__name__
            raise SourceUnavailableError(f"{url} cannot be reached, or sent an invalid response ({reason}).")

    def build_client() -> httpx2.Client:
        return Client(
            event_hooks={"request": [check_request], "response": [check_response]},
            follow_redirects=True,
            max_redirects=5,
            trust_env=False,
        )

    set_client_factory(build_client)
