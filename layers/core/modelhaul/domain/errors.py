"""The error tree.

ModelhaulError
├── PermanentError                 a retry does not help: the request is rejected, or the task ends FAILED
│   ├── InvalidReferenceError      invalid name, revision, path or cursor
│   │   └── InvalidRepositoryError invalid GitHub owner, repository or revision
│   ├── InvalidFormError           the form is malformed or has no file
│   ├── ModelNotFoundError         the source has no such model, or the configured token cannot read it
│   ├── ModelFileNotFoundError     the model exists, but has no such file
│   ├── RevisionNotFoundError      the model exists, but has no such revision
│   ├── AccessRequiredError        gated model: the owner must grant access first
│   ├── ModelDisabledError         the source has disabled the model
│   ├── ModelExistsError           the model is already READY
│   ├── ImportInProgressError      another task is importing the model
│   ├── DeletionInProgressError    the model is being deleted
│   ├── ModelPinnedError           the model is pinned, so it is not deleted
│   ├── TaskNotFoundError
│   ├── TaskEndedError             the task is already DONE, FAILED or cancelled
│   ├── UploadNotOpenError         the task does not wait for an upload
│   ├── SignatureNotFoundError     the model exists, but is not signed
│   ├── KeyNotFoundError           no read key has this ID
│   ├── InvalidPolicyError         a policy document that is not valid
│   ├── FollowNotFoundError        no follow has this ID
│   ├── FollowExistsError          the same files of the same revision are already followed
│   ├── FollowLimitError           the stack has the maximum number of follows
│   ├── InvalidIdempotencyKeyError malformed Idempotency-Key
│   ├── IdempotencyKeyReusedError  the Idempotency-Key was used with a different request
│   ├── RequestInProgressError     the first request with this Idempotency-Key is in progress
│   ├── ImportCancelledError
│   ├── FileMissingError           a listed file no longer exists at its source
│   ├── FileTooLargeError
│   ├── EmptyModelError            no files to import
│   ├── RequiredFilesError         files that a model requires are missing
│   ├── InvalidModelError          a weights, index or JSON file has invalid content
│   ├── UnsafeModelError           a pickle in the model can run code
│   ├── PolicyDeniedError          the import policy denies the model
│   ├── ListingTooLongError        more files than the source can list
│   ├── SourceQuotaError           the owner's Git LFS budget at the source is exceeded
│   ├── StorageQuotaError          the import would exceed the storage quota of the stack
│   ├── ArchiveRefusedError        not a ZIP archive, damaged, or unsafe
│   ├── NoModelInArchiveError      valid archive without a valid model
│   ├── ArchiveTooLargeError       above a size limit
│   ├── ArchiveReplacedError       the object was overwritten or deleted while it was read
│   ├── UploadExpiredError         the archive did not arrive before the upload expired
│   ├── ObjectIgnoredError         an object in the incoming bucket whose key is not that of an archive
│   ├── CredentialsRefusedError    the configured token was rejected
│   ├── UntrustedHostError         a redirect or link leads to a host that is not allowed
│   ├── SourceRefusedError         the source rejects a request with a status that does not mean "try later"
│   ├── SigningRefusedError        the signing key is missing, disabled or unsuitable, or access to it is denied
│   ├── ContentMismatchError       the source serves other content than it lists
│   ├── RetriesExhaustedError      a step failed four times
│   ├── OutageError                no successful response from a source or an AWS service for SourceOutageHours
│   ├── StepCrashedError           no delivery of a message was completed: the function crashed
│   └── ImportStalledError         no progress for about 23 hours
└── TransientError                 retried with back-off: at most three times a step, or for hours if `is_outage`
    ├── RateLimitedError           retried when the source allows it; does not count as a retry
    ├── SourceUnavailableError     refused, reset, timed out, 5xx; an outage
    ├── StalledTransferError       the connection is open, but no data arrives; an outage
    ├── UnexpectedResponseError    not the requested bytes
    ├── SourceChangedError         the ETag changed between two ranges
    ├── DigestMismatchError        the bytes do not match the published digest
    ├── ObjectGoneError            an object to copy is missing or was replaced
    ├── UploadGoneError            another function completed or aborted the multipart upload
    ├── LeaseLostError             another function has leased the file
    ├── InternalError              a defect in Modelhaul; the log has the stack trace
    ├── StorageUnavailableError    a request to an AWS service failed; an outage, unless its cause lasts
    └── PolicyUnavailableError     the policy document cannot be read, or is not valid; an outage

`test_errors.py` checks this drawing against the classes below.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal


class ModelhaulError(Exception):
    """Base class of all errors. `detail` tells the user what happened, with the invalid value.

    `type` is a stable slug for programs. `retryable` says whether submitting again may succeed. `remedy` says what to
    do, if the remedy of the type (`modelhaul.domain.remedies`) does not suit this cause. Both texts are also shown in
    a terminal, so they do not name fields and routes of the API.
    """

    type: ClassVar[str] = "internal-error"
    retryable: ClassVar[bool] = True

    def __init__(self, detail: str, *, remedy: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.remedy = remedy


class PermanentError(ModelhaulError):
    retryable: ClassVar[bool] = False


type Part = Literal[
    "name", "followed_name", "owner", "repo_name", "revision", "model_name", "file_name", "cursor", "parts"
]


class InvalidReferenceError(PermanentError):
    """`part` names the invalid part of a request, if the error comes from a request: the model's `name` at its source
    (on GitHub `owner` and `repo_name`, in a request to follow it `followed_name`), its `revision`, the requested
    `model_name`, an archive's `file_name`, the `parts` of an upload, or a list's pagination `cursor`.
    """

    type = "invalid-reference"

    def __init__(self, detail: str, *, part: Part | None = None, remedy: str | None = None) -> None:
        super().__init__(detail, remedy=remedy)
        self.part = part


class InvalidRepositoryError(InvalidReferenceError):
    type = "invalid-repository"


class InvalidFormError(PermanentError):
    """`field` is the missing field, if the form can be read."""

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
    """`models` maps the IDs of the READY models to their names. It has at least one entry."""

    type = "model-exists"

    def __init__(self, detail: str, *, models: Mapping[str, str]) -> None:
        super().__init__(detail)
        self.models = dict(models)


class ImportInProgressError(PermanentError):
    """`task_id` is the task that is importing the model."""

    type = "import-in-progress"

    def __init__(self, detail: str, *, model_id: str, task_id: str, remedy: str | None = None) -> None:
        super().__init__(detail, remedy=remedy)
        self.model_id = model_id
        self.task_id = task_id


class DeletionInProgressError(PermanentError):
    """`model_id` is the model that is being deleted. It can be imported again after its deletion."""

    type = "deletion-in-progress"
    retryable = True

    def __init__(self, detail: str, *, model_id: str, remedy: str | None = None) -> None:
        super().__init__(detail, remedy=remedy)
        self.model_id = model_id


class ModelPinnedError(PermanentError):
    type = "model-pinned"


class TaskNotFoundError(PermanentError):
    type = "task-not-found"


class TaskEndedError(PermanentError):
    type = "task-ended"


class UploadNotOpenError(PermanentError):
    type = "upload-not-open"


class SignatureNotFoundError(PermanentError):
    type = "signature-not-found"


class KeyNotFoundError(PermanentError):
    type = "key-not-found"


class InvalidPolicyError(PermanentError):
    type = "invalid-policy"


class FollowNotFoundError(PermanentError):
    type = "follow-not-found"


class FollowExistsError(PermanentError):
    """`follow_id` is the existing follow."""

    type = "follow-exists"

    def __init__(self, detail: str, *, follow_id: str) -> None:
        super().__init__(detail)
        self.follow_id = follow_id


class FollowLimitError(PermanentError):
    type = "follow-limit-exceeded"


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


class PolicyDeniedError(PermanentError):
    """`rule_id` is the rule of the policy that denies, None if its default does. `reason` is the rule's, `matched` the
    values for which it matches.
    """

    type = "policy-denied"

    def __init__(self, detail: str, *, rule_id: str | None, reason: str, matched: Sequence[str] = ()) -> None:
        super().__init__(detail)
        self.rule_id = rule_id
        self.reason = reason
        self.matched = tuple(matched)


class ListingTooLongError(PermanentError):
    type = "listing-too-long"


class SourceQuotaError(PermanentError):
    type = "source-quota-exceeded"
    retryable = True


class StorageQuotaError(PermanentError):
    type = "storage-quota-exceeded"


class ArchiveRefusedError(PermanentError):
    """`reason` is a stable slug (`path-escape`, `overlap`, …), `entry` the name of the invalid entry, if any."""

    type = "archive-refused"

    def __init__(self, detail: str, *, reason: str, entry: str | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.entry = entry


class NoModelInArchiveError(PermanentError):
    """`missing` maps each directory (`""` for the archive's root) to the files that it lacks to be a model."""

    type = "no-model-in-archive"

    def __init__(self, detail: str, *, missing: Mapping[str, Sequence[str]]) -> None:
        super().__init__(detail)
        self.missing = dict(missing)


class ArchiveTooLargeError(PermanentError):
    type = "archive-too-large"


class ArchiveReplacedError(PermanentError):
    type = "archive-replaced"
    retryable = True


class UploadExpiredError(PermanentError):
    type = "upload-expired"
    retryable = True


class ObjectIgnoredError(PermanentError):
    type = "object-ignored"


class CredentialsRefusedError(PermanentError):
    type = "credentials-refused"


class UntrustedHostError(PermanentError):
    type = "untrusted-host"


class SourceRefusedError(PermanentError):
    type = "source-refused"


class SigningRefusedError(PermanentError):
    type = "signing-refused"


class ContentMismatchError(PermanentError):
    type = "content-mismatch"


class RetriesExhaustedError(PermanentError):
    type = "retries-exhausted"
    retryable = True


class OutageError(PermanentError):
    type = "outage"
    retryable = True


class StepCrashedError(PermanentError):
    type = "step-crashed"
    retryable = True


class ImportStalledError(PermanentError):
    type = "import-stalled"
    retryable = True


class TransientError(ModelhaulError):
    """`retry_after`: seconds to wait, if the source requested a delay. `is_outage`: a source or an AWS service does not
    respond, but may respond later.
    """

    retryable: ClassVar[bool] = True
    is_outage: bool = False

    def __init__(self, detail: str, *, retry_after: float | None = None, remedy: str | None = None) -> None:
        super().__init__(detail, remedy=remedy)
        self.retry_after = retry_after


class RateLimitedError(TransientError):
    type = "rate-limited"


class SourceUnavailableError(TransientError):
    type = "source-unavailable"
    is_outage = True


class StalledTransferError(TransientError):
    type = "stalled-transfer"
    is_outage = True


class UnexpectedResponseError(TransientError):
    type = "unexpected-answer"


class SourceChangedError(TransientError):
    type = "source-changed"


class DigestMismatchError(TransientError):
    """`expected` is the published digest, `found` that of the received bytes, both as `str(Digest)` gives them."""

    type = "digest-mismatch"

    def __init__(self, detail: str, *, expected: str, found: str) -> None:
        super().__init__(detail)
        self.expected = expected
        self.found = found


class ObjectGoneError(TransientError):
    type = "object-gone"


class UploadGoneError(TransientError):
    type = "upload-gone"


class LeaseLostError(TransientError):
    type = "lease-lost"


class StorageUnavailableError(TransientError):
    """`is_outage`: False for an error that lasts until somebody corrects its cause, such as AccessDenied."""

    type = "storage-unavailable"

    def __init__(self, detail: str, *, is_outage: bool = True) -> None:
        super().__init__(detail)
        self.is_outage = is_outage


class PolicyUnavailableError(TransientError):
    """Steps wait as for an outage, because an operator can correct the document while they do."""

    type = "policy-unavailable"
    is_outage = True


class InternalError(TransientError):
    type = "internal-error"


# Types of the errors that reject content. Its staged files are deleted, so that later imports cannot reuse them.
REJECTED_CONTENT = frozenset(
    {ArchiveRefusedError.type, InvalidModelError.type, PolicyDeniedError.type, UnsafeModelError.type}
)
