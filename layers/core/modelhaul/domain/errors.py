"""The error tree.

ModelhaulError
├── PermanentError                 trying again cannot help: the request is refused or the task ends FAILED
│   ├── InvalidReferenceError      a name, revision or path that cannot be
│   │   └── InvalidRepositoryError an owner, repository or revision that GitHub cannot have
│   ├── InvalidFormError           a form that cannot be read, or has no file
│   ├── ModelNotFoundError         the source has no such model, or hides it from us
│   ├── ModelFileNotFoundError     the model is here, the file is not in it
│   ├── RevisionNotFoundError      the model is there, the revision is not
│   ├── AccessRequiredError        gated: somebody must grant access first
│   ├── ModelDisabledError         taken down at its source
│   ├── ModelExistsError           already READY here
│   ├── ImportInProgressError      another task is bringing it in
│   ├── DeletionInProgressError    it is being deleted
│   ├── TaskNotFoundError
│   ├── TaskEndedError             the task is DONE, FAILED or cancelled already
│   ├── InvalidIdempotencyKeyError an Idempotency-Key that is none
│   ├── IdempotencyKeyReusedError  one that came with another request before
│   ├── RequestInProgressError     one whose first request has no answer yet
│   ├── ImportCancelledError
│   ├── FileMissingError           a listed file is gone at its source
│   ├── FileTooLargeError
│   ├── EmptyModelError            nothing to import
│   ├── RequiredFilesError         without the files that make a model
│   ├── InvalidModelError          weights, an index or JSON that are not what their name says
│   ├── UnsafeModelError           a pickle in it could run code
│   ├── ListingTooLongError        more files than the source can list
│   ├── SourceQuotaError           the source gives no more out until its owner pays
│   ├── ArchiveRefusedError        not a ZIP, damaged, or not to be trusted
│   ├── NoModelInArchiveError      a sound archive without one valid model
│   ├── ArchiveTooLargeError       more bytes than can be taken this way
│   ├── ArchiveReplacedError       its object was overwritten or deleted while it was being read
│   ├── UploadExpiredError         the archive did not come while its upload was open
│   ├── CredentialsRefusedError    the configured token is not accepted
│   ├── UntrustedHostError         a redirect or link leads where we do not go
│   ├── RetriesExhaustedError      a step failed four times
│   ├── StepCrashedError           a function died four times on one message
│   └── ImportStalledError         nothing moved for a day
└── TransientError                 tried again, with back-off, at most three times a step
    ├── RateLimitedError           waits as long as the source says, and uses no retry
    ├── SourceUnavailableError     refused, reset, timed out, 5xx
    ├── StalledTransferError       open, but nothing comes
    ├── UnexpectedResponseError      not the bytes that were asked for
    ├── SourceChangedError         the ETag changed between two ranges
    ├── DigestMismatchError        the bytes are not those that the source published
    ├── ObjectGoneError            an object to copy is no longer there, or not the same
    ├── UploadGoneError            a multipart upload was completed or aborted by someone else
    ├── LeaseLostError             another worker has the file now
    ├── InternalError              a defect of ours: its trace is in the log
    └── StorageUnavailableError    S3, SQS, DynamoDB or EventBridge did not answer in time

`test_errors.py` holds this drawing against the classes below.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal


class ModelhaulError(Exception):
    """Base of all. `detail` is written for the person who asked: what happened and what to do.

    `type` is a stable slug for programs, `retryable` says whether submitting again may help.
    """

    type: ClassVar[str] = "internal-error"
    retryable: ClassVar[bool] = True

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class PermanentError(ModelhaulError):
    retryable: ClassVar[bool] = False


type Part = Literal["name", "owner", "repo_name", "revision", "model_name", "file_name", "cursor"]


class InvalidReferenceError(PermanentError):
    """`part` says what of a request is at fault, if it is one's: the model's `name` at its source (on GitHub `owner`
    and `repo_name`), its `revision`, the `model_name` that it is to have here, an archive's `file_name`, a list's
    `cursor`.
    """

    type = "invalid-reference"

    def __init__(self, detail: str, *, part: Part | None = None) -> None:
        super().__init__(detail)
        self.part = part


class InvalidRepositoryError(InvalidReferenceError):
    type = "invalid-repository"


class InvalidFormError(PermanentError):
    """`field` is the one that is missing, if the form can be read."""

    type = "invalid-form"

    def __init__(self, detail: str, *, field: str | None = None) -> None:
        super().__init__(detail)
        self.field = field


class ModelNotFoundError(PermanentError):
    type = "model-not-found"


class ModelFileNotFoundError(PermanentError):
    type = "file-not-found"


class RevisionNotFoundError(PermanentError):
    type = "revision-not-found"


class AccessRequiredError(PermanentError):
    type = "access-required"


class ModelDisabledError(PermanentError):
    type = "model-disabled"


class ModelExistsError(PermanentError):
    """`models` maps the ids of the READY models to their names; at least one."""

    type = "model-exists"

    def __init__(self, detail: str, *, models: Mapping[str, str]) -> None:
        super().__init__(detail)
        self.models = dict(models)


class ImportInProgressError(PermanentError):
    """`task_id` names the task that is bringing the model in."""

    type = "import-in-progress"

    def __init__(self, detail: str, *, model_id: str, task_id: str) -> None:
        super().__init__(detail)
        self.model_id = model_id
        self.task_id = task_id


class DeletionInProgressError(PermanentError):
    """`model_id` names the model, which is free again once it is gone."""

    type = "deletion-in-progress"
    retryable = True

    def __init__(self, detail: str, *, model_id: str) -> None:
        super().__init__(detail)
        self.model_id = model_id


class TaskNotFoundError(PermanentError):
    type = "task-not-found"


class TaskEndedError(PermanentError):
    type = "task-ended"


class InvalidIdempotencyKeyError(PermanentError):
    type = "invalid-idempotency-key"


class IdempotencyKeyReusedError(PermanentError):
    type = "idempotency-key-reused"


class RequestInProgressError(PermanentError):
    type = "request-in-progress"
    retryable = True


class ImportCancelledError(PermanentError):
    type = "import-cancelled"
    retryable = True


class FileMissingError(PermanentError):
    type = "file-missing"


class FileTooLargeError(PermanentError):
    type = "file-too-large"


class EmptyModelError(PermanentError):
    type = "empty-model"


class RequiredFilesError(PermanentError):
    type = "required-files-missing"


class InvalidModelError(PermanentError):
    type = "invalid-model"


class UnsafeModelError(PermanentError):
    type = "unsafe-model"


class ListingTooLongError(PermanentError):
    type = "listing-too-long"


class SourceQuotaError(PermanentError):
    type = "source-quota-exceeded"
    retryable = True


class ArchiveRefusedError(PermanentError):
    """`reason` is a stable slug (`path-escape`, `overlap`, …), `entry` the name of the entry at fault, if it is one."""

    type = "archive-refused"

    def __init__(self, detail: str, *, reason: str, entry: str | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.entry = entry


class NoModelInArchiveError(PermanentError):
    """`lacking` maps each directory (`""` for the archive's root) to what it would need to be a model."""

    type = "no-model-in-archive"

    def __init__(self, detail: str, *, lacking: Mapping[str, Sequence[str]]) -> None:
        super().__init__(detail)
        self.lacking = dict(lacking)


class ArchiveTooLargeError(PermanentError):
    type = "archive-too-large"


class ArchiveReplacedError(PermanentError):
    type = "archive-replaced"
    retryable = True


class UploadExpiredError(PermanentError):
    type = "upload-expired"
    retryable = True


class CredentialsRefusedError(PermanentError):
    type = "credentials-refused"


class UntrustedHostError(PermanentError):
    type = "untrusted-host"


class RetriesExhaustedError(PermanentError):
    type = "retries-exhausted"
    retryable = True


class StepCrashedError(PermanentError):
    type = "step-crashed"
    retryable = True


class ImportStalledError(PermanentError):
    type = "import-stalled"
    retryable = True


class TransientError(ModelhaulError):
    """`retry_after`: seconds that the other side asked us to wait, if it did."""

    retryable: ClassVar[bool] = True

    def __init__(self, detail: str, *, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class RateLimitedError(TransientError):
    type = "rate-limited"


class SourceUnavailableError(TransientError):
    type = "source-unavailable"


class StalledTransferError(TransientError):
    type = "stalled-transfer"


class UnexpectedResponseError(TransientError):
    type = "unexpected-answer"


class SourceChangedError(TransientError):
    type = "source-changed"


class DigestMismatchError(TransientError):
    type = "digest-mismatch"


class ObjectGoneError(TransientError):
    type = "object-gone"


class UploadGoneError(TransientError):
    type = "upload-gone"


class LeaseLostError(TransientError):
    type = "lease-lost"


class StorageUnavailableError(TransientError):
    type = "storage-unavailable"


class InternalError(TransientError):
    type = "internal-error"
