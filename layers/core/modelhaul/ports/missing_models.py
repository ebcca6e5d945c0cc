"""Models that a Hub client requested and that are not imported."""

from dataclasses import dataclass
from typing import Literal, Protocol

type Readable = Literal["file", "content", "info", "refs", "tree", "paths-info"]


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """What is to be read at the Hub for a client: the metadata of a file, nothing (`content`), or a JSON document.

    `path` is a file or, in a `tree`, a folder (`""` for the root). `query` is that of the document, percent-encoded.
    `paths` and `expand` are the body of a request for `paths-info`.
    """

    kind: Readable
    path: str = ""
    query: str = ""
    paths: tuple[str, ...] = ()
    expand: bool = False


@dataclass(frozen=True, slots=True)
class UpstreamFile:
    """A file as the Hub describes it to any client.

    `etag`: SHA-256 of a Git LFS file, else the Git blob ID. `size` in bytes.
    """

    etag: str
    size: int
    commit: str


@dataclass(frozen=True, slots=True)
class UpstreamDocument:
    """A JSON document of the Hub's API, in ASCII, without `xetHash`. `next_query`: None if there is no next page."""

    body: str
    next_query: str | None = None


@dataclass(frozen=True, slots=True)
class UpstreamVersion:
    """What any client can read at the Hub of a version that is being imported for the first time.

    `name` is the canonical name. `file` and `document`: what was requested, None if the version does not have it.
    """

    name: str
    commit: str
    file: UpstreamFile | None = None
    document: UpstreamDocument | None = None


@dataclass(frozen=True, slots=True)
class MissingModelError:
    """Why no import can start, with the fields of `ModelhaulError`."""

    type: str
    detail: str
    retryable: bool
    remedy: str | None = None


@dataclass(frozen=True, slots=True)
class FailedImport:
    """Why the last import failed. `repeated_at`: seconds since the epoch after which a request starts a new import.

    It is None if the content of the commit was rejected: requests do not import it again.
    """

    type: str
    detail: str
    repeated_at: float | None
    remedy: str | None = None


@dataclass(frozen=True, slots=True)
class MissingModel:
    """Result of a request for an import.

    `task_id` is the task that imports the model: a new task, or one that another request started, or the last one if
    it failed. It is None if the version is READY already, or if there is an `error`.

    `failure` is set if the last import failed and no new one has started. `upstream` is set only if it was requested,
    any client can read the version at the Hub, and no import of it has failed.
    """

    task_id: str | None = None
    failure: FailedImport | None = None
    upstream: UpstreamVersion | None = None
    error: MissingModelError | None = None


class MissingModels(Protocol):
    """Starts the import of missing models."""

    def request_import(
        self,
        name: str,
        revision: str,
        *,
        names: tuple[str, ...],
        model_id: str | None = None,
        upstream: UpstreamRequest | None = None,
        submitted_by: str | None = None,
    ) -> MissingModel:
        """Import the model from the Hub, unless this version is imported, is being imported, or failed just before.

        `names`: patterns of the `hub_id` of the models that exist for the client. A name that stands for another model
        is treated as one that the Hub does not know. `model_id`: the model that is being imported, if that is known.
        Then no import starts. `upstream`: what to read at the Hub in the meantime. `submitted_by` names the client, see
        `modelhaul.domain.callers`.

        Raises StorageUnavailableError. All other errors are part of the result.
        """
