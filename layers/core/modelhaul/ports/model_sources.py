"""Where models come from."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from modelhaul.domain.files import SourceFile
from modelhaul.domain.models import ResolvedModel
from modelhaul.domain.objects import ObjectRange
from modelhaul.ports.byte_streams import ByteStream


class ModelResolver(Protocol):
    """What finds a model by its name."""

    def resolve(self, name: str, revision: str) -> ResolvedModel:
        """Raises InvalidReferenceError, ModelNotFoundError, RevisionNotFoundError, AccessRequiredError,
        ModelDisabledError, CredentialsRefusedError, RateLimitedError (with `retry_after`), SourceUnavailableError.
        """


class ModelSource(Protocol):
    """Where models come from. It does not retry and does not wait: that is the pipeline's to decide.

    Every method raises RateLimitedError (with `retry_after`) and SourceUnavailableError.
    """

    def list_files(self, model: ResolvedModel) -> Iterator[SourceFile]:
        """All files of the model's commit, whatever its selection, each with the digest that the source publishes and a
        path below the model's root; and what is recorded only, by its kind.

        Raises what ModelResolver.resolve raises, FileMissingError, ListingTooLongError, SourceQuotaError,
        ArchiveRefusedError, ArchiveReplacedError.
        """

    def prepare_files(self, files: Sequence[SourceFile]) -> None:
        """Some of these will be opened soon: a source that must ask for their addresses may ask for many at once."""

    def open_range(self, model: ResolvedModel, file: SourceFile, start: int, end: int) -> ByteStream:
        """Opens bytes `start` (included) to `end` (excluded, > start) of the file.

        Raises FileMissingError, FileTooLargeError, AccessRequiredError, SourceQuotaError, UntrustedHostError,
        UnexpectedResponseError, ArchiveRefusedError, ArchiveReplacedError.
        """

    def locate(self, model: ResolvedModel, file: SourceFile) -> ObjectRange | None:
        """Where in S3 the file's bytes lie as they are, so that S3 can copy them; None if they do not.

        Raises ArchiveRefusedError, ArchiveReplacedError.
        """
