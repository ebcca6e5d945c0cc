"""Sources of models."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Protocol

from modelhaul.domain.files import SourceFile
from modelhaul.domain.models import ResolvedModel
from modelhaul.domain.objects import ObjectRange
from modelhaul.ports.byte_streams import ByteStream


class ModelResolver(Protocol):
    """Resolves the name and revision of a model to a commit."""

    def resolve(self, name: str, revision: str) -> ResolvedModel:
        """Resolve a model.

        Raises InvalidReferenceError, ModelNotFoundError, RevisionNotFoundError, AccessRequiredError,
        ModelDisabledError, CredentialsRefusedError, SourceRefusedError, RateLimitedError (with `retry_after`),
        SourceUnavailableError.
        """

    def find_commit_date(self, model: ResolvedModel) -> datetime | None:
        """Return the time that the model's commit states, None if the source does not know it. It takes a request.

        Raises the errors of `resolve`.
        """

    def find_missing_remedy(self, name: str) -> str | None:
        """Return the remedy for a name that the source does not know, for example with similar names. It may take a
        request to the source, whose errors are ignored. None if the remedy of the error suits.
        """


class FollowedSource(Protocol):
    """Finds out whether a followed revision has moved."""

    def resolve_moved(self, name: str, revision: str, commit: str) -> ResolvedModel | None:
        """Resolve a model. Return None if its revision is still at `commit`, and its canonical name is still `name`.

        This takes at most two requests if nothing has moved. Raises the errors of ModelResolver.resolve.
        """

    def is_rewritten(self, model: ResolvedModel, earlier: str) -> bool | None:
        """Return whether the history of the model's commit lacks the commit `earlier`. None if this is not known.

        Takes one request. Raises the errors of ModelResolver.resolve.
        """


class ModelSource(Protocol):
    """A source of models. It does not retry or wait, because the steps of the import do.

    Every method raises RateLimitedError (with `retry_after`) and SourceUnavailableError.
    """

    def list_files(self, model: ResolvedModel) -> Iterator[SourceFile]:
        """Yield all files, symlinks and submodules of the model's commit, regardless of its selection.

        Each file has the digest that the source publishes, and a path below the model's root. Raises the errors of
        ModelResolver.resolve, FileMissingError, ListingTooLongError, SourceQuotaError, ArchiveRefusedError,
        ArchiveReplacedError.
        """

    def prepare_files(self, files: Sequence[SourceFile]) -> None:
        """Prepare to open some of these files. A source can request the download URLs of many files at once."""

    def open_range(self, model: ResolvedModel, file: SourceFile, start: int, end: int) -> ByteStream:
        """Open bytes `start` (included) to `end` (excluded, > start) of the file.

        Raises FileMissingError, FileTooLargeError, AccessRequiredError, SourceQuotaError, UntrustedHostError,
        SourceRefusedError, ContentMismatchError, UnexpectedResponseError, ArchiveRefusedError, ArchiveReplacedError.
        """

    def locate(self, model: ResolvedModel, file: SourceFile) -> ObjectRange | None:
        """Return the S3 object range with the file's unchanged bytes, which S3 can copy, None if there is no range.

        Raises ArchiveRefusedError, ArchiveReplacedError.
        """
