"""The Hub's API through huggingface_hub, with our errors and without its retries."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from http import HTTPStatus
from itertools import islice, takewhile
from typing import Any
from urllib.parse import urlsplit

import httpx2
from huggingface_hub import HfApi, set_client_factory
from huggingface_hub.errors import DisabledRepoError, HfHubHTTPError, HFValidationError
from huggingface_hub.hf_api import RepoFile
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
from modelhaul_sources.hosts import HostPolicy, parse_origin
from modelhaul_sources.http_client import describe_url, describe_waiting
from modelhaul_sources.references import check_revision

_TIMEOUT = 10.0  # seconds to connect, and for the next bytes
_PAGES = {"tree", "blob", "resolve", "commits", "discussions"}  # what follows a model's name in addresses
_COMMIT = re.compile(r"[0-9a-f]{40}")
_ADDRESS = re.compile(r"https?://|(?:www\.)?(?:huggingface\.co|hf\.co)/", re.IGNORECASE)


class HubApi:
    """huggingface_hub has one HTTP client for the process, which is set up for the policy last used."""

    def __init__(self, policy: HostPolicy) -> None:
        _install_client(policy)
        self._api = HfApi(endpoint=policy.endpoint, token=False, library_name="modelhaul")

    def resolve(self, name: str, revision: str, token: str | None) -> ResolvedModel:
        check_name(name)
        check_revision(revision)
        with _translate_errors(name, revision, token):
            info = self._api.model_info(name, revision=revision, timeout=_TIMEOUT, token=token or False)
        if info.disabled:
            raise _describe_disabled(name)
        commit = str(info.sha)
        is_another = _COMMIT.fullmatch(revision.lower()) and revision.lower() != commit
        if is_another or not _COMMIT.fullmatch(commit) or not _is_name(info.id):
            raise UnexpectedResponseError(f"the Hub describes {name} at {revision} in a way that cannot be")
        if info.gated:
            self._check_access(info.id, token)
        return ResolvedModel(Source.HUGGINGFACE, info.id, revision, commit)

    def list_files(self, model: ResolvedModel, token: str | None) -> Iterator[SourceFile]:
        with _translate_errors(model.name, model.commit, token):
            for entry in self._api.list_repo_tree(
                model.name, recursive=True, revision=model.commit, token=token or False
            ):
                if isinstance(entry, RepoFile):
                    yield _read_file(entry)

    def _check_access(self, name: str, token: str | None) -> None:
        """Whether the files of a gated model may be read, which its description does not say."""
        with _translate_errors(name, "main", token):
            try:
                self._api.auth_check(name, token=token or False)
            except HfHubHTTPError as error:
                # Servers that only resemble the Hub do not have this route; there the transfer will show.
                if error.response.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
                    raise


def check_name(name: str) -> None:
    """Raises InvalidReferenceError for what cannot be a model's name, with what to send instead."""
    bare, _, revision = name.partition("@")
    if _ADDRESS.match(name):
        path = urlsplit(name if "://" in name else f"https://{name}").path
        segments = takewhile(lambda s: s not in _PAGES, path.strip("/").split("/"))
        found = "/".join(islice(segments, 2))
        example = found if _is_name(found) else "google-bert/bert-base-uncased"
        raise InvalidReferenceError(f"send the model's name and not its address: {example!r}, for example", part="name")
    if revision and _is_name(bare):
        raise InvalidReferenceError(
            f"send {bare!r} as the model's name and {revision[:100]!r} as revision", part="name"
        )
    if not _is_name(name):
        raise InvalidReferenceError(
            f"{name[:100]!r} cannot be a model on the Hub: a name is 'model' or 'owner/model' of up to 96 "
            "letters, digits, '-', '_' and '.', without '--' and '..', and does not end in '.git'",
            part="name",
        )


def _is_name(name: object) -> bool:
    try:
        validate_repo_id(name)  # type: ignore[arg-type]  # it checks the type
    except HFValidationError:
        return False
    return name is not None


def _read_file(entry: RepoFile) -> SourceFile:
    """Raises ValueError for a path, size or digest that cannot be: the library takes what comes."""
    digest = f"sha256:{entry.lfs.sha256}" if entry.lfs else f"git-sha1:{entry.blob_id}"
    path: object = entry.path
    size: object = entry.lfs.size if entry.lfs else entry.size
    if not isinstance(path, str) or not isinstance(size, int) or size < 0:
        raise ValueError("not a file")
    return SourceFile(path, size, Digest.parse(digest))


@contextmanager
def _translate_errors(name: str, revision: str, token: str | None) -> Iterator[None]:
    try:
        yield
    except HfHubHTTPError as error:
        raise _describe_error(error, name, revision, authenticated=token is not None) from None
    except (AttributeError, KeyError, TypeError, ValueError, httpx2.InvalidURL):
        # The library does not check whether an answer of 200 holds what it should.
        raise UnexpectedResponseError(f"what the Hub says about {name} cannot be read") from None


def _describe_error(  # noqa: PLR0911 - one for each condition
    error: HfHubHTTPError, name: str, revision: str, *, authenticated: bool
) -> ModelhaulError:
    """By status and `X-Error-Code`: the library's own classes are others over http than over https."""
    status, code = error.response.status_code, error.response.headers.get("X-Error-Code")
    if isinstance(error, DisabledRepoError) or status == HTTPStatus.UNAVAILABLE_FOR_LEGAL_REASONS:
        return _describe_disabled(name)
    if code == "RevisionNotFound":
        return RevisionNotFoundError(
            f"{name} has no revision {revision!r}; give a branch, a tag or a commit of 40 hex digits"
        )
    if code == "GatedRepo":
        account = (
            "the account whose token is in the secret of the parameter HuggingFaceTokenSecret"
            if authenticated
            else "an account, and configure a read token of it by the parameter HuggingFaceTokenSecret"
        )
        return AccessRequiredError(f"{name} is gated: accept its conditions on its page on the Hub with {account}")
    if status == HTTPStatus.FORBIDDEN:
        return AccessRequiredError(
            f"the Hub refuses access to {name}; the token in the secret of the parameter "
            "HuggingFaceTokenSecret must be allowed to read it"
        )
    if status == HTTPStatus.UNAUTHORIZED and authenticated and code != "RepoNotFound":
        # For what a valid token may not see the Hub answers 404; 401 there means no token.
        return CredentialsRefusedError(
            "the Hub does not accept the token in the secret of the parameter HuggingFaceTokenSecret, which "
            "may have expired; put a valid read token there"
        )
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND):
        return ModelNotFoundError(
            f"the Hub has no model {name} that the token of the parameter HuggingFaceTokenSecret may see"
            if authenticated
            else f"the Hub has no public model {name}; if it is private, configure a token that may read it "
            "by the parameter HuggingFaceTokenSecret"
        )
    return UnexpectedResponseError(f"the Hub answered the question for {name} with status {status}")


def _describe_disabled(name: str) -> ModelDisabledError:
    return ModelDisabledError(f"{name} is disabled on the Hub and cannot be downloaded")


@lru_cache(maxsize=1)
def _install_client(policy: HostPolicy) -> None:
    """Gives huggingface_hub a client with our timeouts and errors. By itself the library has no timeout for
    trees, and retries and sleeps for minutes.
    """

    def check_request(request: httpx2.Request) -> None:
        if policy.check_url(str(request.url)) != parse_origin(policy.endpoint):
            request.headers.pop("Authorization", None)

    def check_response(response: httpx2.Response) -> None:
        address = response.extensions["network_stream"].get_extra_info("server_addr")
        policy.check_address(response.url.host, address[0])
        place = describe_url(str(response.url))
        if waiting := describe_waiting(place, response.status_code, response.headers):
            raise waiting

    class Client(httpx2.Client):
        def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
            request.extensions["timeout"] = httpx2.Timeout(_TIMEOUT).as_dict()
            try:
                return super().send(request, **options)
            except (httpx2.RequestError, OSError) as error:
                # OSError: the connection was reset before its address was looked at.
                place, reason = describe_url(str(request.url)), type(error).__name__
            raise SourceUnavailableError(f"{place} cannot be reached, or does not answer as it should ({reason})")

    def build_client() -> httpx2.Client:
        return Client(
            event_hooks={"request": [check_request], "response": [check_response]},
            follow_redirects=True,
            max_redirects=5,
            trust_env=False,
        )

    set_client_factory(build_client)
