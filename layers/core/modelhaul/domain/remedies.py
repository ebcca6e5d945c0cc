"""Remedies: the next action for each type of error that a task or a request can fail with.

"The message" is a task's `error_msg` or a problem's `detail`. `test_errors.py` checks the tables against the tree in
`modelhaul.domain.errors`.
"""

from collections.abc import Mapping

from modelhaul.domain import errors

_TASK_REMEDIES: Mapping[type[errors.PermanentError], str] = {
    errors.InvalidReferenceError: "Rename the item that the message names, at the source or in the archive, and submit "
    "again.",
    errors.ModelNotFoundError: "Check that the model still exists under this name. If it is private, configure a token "
    "with read access.",
    errors.RevisionNotFoundError: "Check the branches, tags and commits of the model, and submit an existing revision.",
    errors.AccessRequiredError: "Request access on the model's page with the account of the configured token. Submit "
    "again when access is granted.",
    errors.ModelDisabledError: "Import another model. The source has disabled this one.",
    errors.ModelExistsError: "Use the existing model, or delete it and submit again.",
    errors.ImportInProgressError: "Follow the task that is importing the model.",
    errors.DeletionInProgressError: "Submit again in a few minutes, when the model is deleted.",
    errors.ImportCancelledError: "Submit again to restart the import. Verified files are reused.",
    errors.FileMissingError: "Ask the model's owner to upload the missing file, and submit again.",
    errors.FileTooLargeError: "Ask the model's owner to split the file into shards of up to 500 GB, and submit again.",
    errors.EmptyModelError: "Submit a revision that has files, or patterns that match its files.",
    errors.RequiredFilesError: "Add the files that the message names, and submit again.",
    errors.InvalidModelError: "Replace the invalid file that the message names, and submit again.",
    errors.UnsafeModelError: "Import the model in safetensors format (scikit-learn: skops), or exclude the unsafe file "
    "with ignore_patterns. If you trust the file, ask an operator to set PicklePolicy to warn.",
    errors.ListingTooLongError: "Upload the files as a ZIP archive, or split the repository.",
    errors.SourceQuotaError: "Ask the repository's owner to raise the quota, or submit again when it is renewed.",
    errors.ArchiveRefusedError: "Correct the problem that the message describes, create the archive again, and upload "
    "it.",
    errors.NoModelInArchiveError: "Add the missing files to a directory, create the archive again, and upload it.",
    errors.ArchiveTooLargeError: "Split the archive, or ask an operator to raise the limit that the message names.",
    errors.ArchiveReplacedError: "Upload the archive again, and do not change it until its task has ended.",
    errors.UploadExpiredError: "Start a new upload, and send the archive within 12 hours.",
    errors.CredentialsRefusedError: "Ask an operator to store a valid token in the configured secret, and submit "
    "again.",
    errors.UntrustedHostError: "If you trust the host that the message names, ask an operator to add it to "
    "AllowedHosts, and submit again.",
    errors.RetriesExhaustedError: "Submit again later. Verified files are reused. If the error persists, ask an "
    "operator to search the log for the task ID.",
    errors.StepCrashedError: "Submit again. If the error persists, ask an operator to search the log for the task ID.",
    errors.ImportStalledError: "Submit again. Verified files are reused.",
}

_RETRY_LATER = "Send the request again after the number of seconds in Retry-After."
_CORRECT = "Correct the values that the message names, and send the request again."
# Remedies of errors that only requests fail with, or that differ between requests and tasks.
_REQUEST_REMEDIES: Mapping[type[errors.ModelhaulError], str] = {
    errors.InvalidReferenceError: _CORRECT,
    errors.InvalidRepositoryError: _CORRECT,
    errors.InvalidFormError: "Send the archive in the field `file` of a multipart/form-data body, for example with "
    "curl -F file=@models.zip.",
    errors.ModelNotFoundError: "Check the name or ID. GET /v1/models lists the available models. If the model is "
    "private at its source, ask an operator to configure a token with read access.",
    errors.ModelFileNotFoundError: "Use a path from the model's manifest, which GET /v1/models/{model_id} returns.",
    errors.ImportInProgressError: "Follow the task that is importing the model, or cancel it.",
    errors.TaskNotFoundError: "Check the task ID. GET /v1/upload/tasks lists the tasks.",
    errors.TaskEndedError: "Read the task to see its result. DELETE /v1/models/{model_id} deletes an imported model.",
    errors.ArchiveTooLargeError: "Use the upload method that the message names, split the archive, or ask an operator "
    "to raise the limit.",
    errors.InvalidIdempotencyKeyError: "Send a valid Idempotency-Key, such as a UUID, or omit the header.",
    errors.IdempotencyKeyReusedError: "Use a new Idempotency-Key for each new request.",
    errors.RequestInProgressError: "Send the same request with the same Idempotency-Key again after the number of "
    "seconds in Retry-After.",
    errors.RateLimitedError: f"{_RETRY_LATER} A configured token raises most rate limits.",
    errors.SourceUnavailableError: f"{_RETRY_LATER} If the error persists, check the source's status page.",
    errors.UnexpectedResponseError: "Send the request again later. If the error persists, ask an operator to check the "
    "source's URL in the stack parameters.",
    errors.StorageUnavailableError: _RETRY_LATER,
    errors.InternalError: "Send the request again. If the error persists, ask an operator to check the log.",
}
# Remedies of problems that are not in the error tree.
_VALIDATION_REMEDIES: Mapping[str, str] = {
    "invalid-json": "Send a JSON object. GET /v1/openapi.json describes its fields.",
    "invalid-fields": _CORRECT,
    "no-such-route": "GET /v1/openapi.json lists the routes.",
}

TASK_REMEDIES: Mapping[str, str] = {kind.type: remedy for kind, remedy in _TASK_REMEDIES.items()}
"""Remedies of tasks and models, by `ModelhaulError.type`."""

PROBLEM_REMEDIES: Mapping[str, str] = {
    **TASK_REMEDIES,
    **{kind.type: remedy for kind, remedy in _REQUEST_REMEDIES.items()},
    **_VALIDATION_REMEDIES,
}
"""Remedies of problems, by the last part of a problem's `type`."""
