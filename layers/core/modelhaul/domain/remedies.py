"""What to do now: a sentence for each type of error that a task can end with, or that a request can be answered with.

"The message" is a task's `error_msg` and a problem's `detail`. `test_errors.py` holds the tables to the tree in
`modelhaul.domain.errors`, and the template's own answers to the second.
"""

from collections.abc import Mapping

from modelhaul.domain import errors

_OF_TASKS: Mapping[type[errors.PermanentError], str] = {
    errors.InvalidReferenceError: "Rename at the source, or in the archive, what the message names, and submit again.",
    errors.ModelNotFoundError: "Look whether the model is still there under this name; if it is private, configure a "
    "token that may read it.",
    errors.RevisionNotFoundError: "Look which branches, tags and commits the model has, and submit one of them.",
    errors.AccessRequiredError: "Ask for access on the model's page with the account whose token is configured, and "
    "submit again once it is granted.",
    errors.ModelDisabledError: "Import another model: its source has taken this one down.",
    errors.ModelExistsError: "Use the model that is here, or delete it and submit again.",
    errors.ImportInProgressError: "Follow the task that is bringing the model in.",
    errors.DeletionInProgressError: "Submit again in some minutes, when the model is gone.",
    errors.ImportCancelledError: "Submit again if the model is wanted after all: verified files are used again.",
    errors.FileMissingError: "Ask the model's owner to upload the file that is missing, and submit again.",
    errors.FileTooLargeError: "Have the file split into shards, of at most 500 GB each, and submit again.",
    errors.EmptyModelError: "Submit a revision that has files.",
    errors.RequiredFilesError: "Add the files that the message names, and submit the new revision.",
    errors.InvalidModelError: "Replace the file that the message names by a sound one, and submit again.",
    errors.UnsafeModelError: "Import the model in safetensors (scikit-learn: skops), or leave the file out with "
    "ignore_patterns. If you trust it, have an operator set PicklePolicy to warn.",
    errors.ListingTooLongError: "Bring the files as a ZIP archive, or split the repository.",
    errors.SourceQuotaError: "Ask the repository's owner to raise the quota, or submit again once it is renewed.",
    errors.ArchiveRefusedError: "Make the archive anew as the message says, and send it again.",
    errors.NoModelInArchiveError: "Add to a directory what it lacks, zip it again and send it.",
    errors.ArchiveTooLargeError: "Split the archive, or have an operator raise the limit that the message names.",
    errors.ArchiveReplacedError: "Send the archive again, and leave it as it is until its task has ended.",
    errors.UploadExpiredError: "Ask for a new upload and send the archive within twelve hours.",
    errors.CredentialsRefusedError: "Have an operator put a valid token into the configured secret, and submit again.",
    errors.UntrustedHostError: "If the host that the message names is to be trusted, have an operator add it to "
    "AllowedHosts, and submit again.",
    errors.RetriesExhaustedError: "Submit again later: files that were verified are used again. If it stays, have "
    "an operator look into the log for the task's id.",
    errors.StepCrashedError: "Submit again. If it stays, have an operator look into the log for the task's id.",
    errors.ImportStalledError: "Submit again: files that were verified are used again.",
}

_AGAIN_LATER = "Wait as long as Retry-After says, and send the request again."
_CORRECT = "Correct what is at fault, and send the request again."
# What is said to a request alone, or otherwise than of a task.
_OF_REQUESTS: Mapping[type[errors.ModelhaulError], str] = {
    errors.InvalidReferenceError: _CORRECT,
    errors.InvalidRepositoryError: _CORRECT,
    errors.InvalidFormError: "Send the archive in the field `file` of multipart/form-data, as curl -F file=@models.zip "
    "does.",
    errors.ModelNotFoundError: "Check the name or the id: GET /v1/models lists what is here. If it is private at its "
    "source, have an operator configure a token that may read it.",
    errors.ModelFileNotFoundError: "Take the path from the model's manifest: GET /v1/models/{model_id} shows it.",
    errors.ImportInProgressError: "Follow the task that is bringing the model in, or cancel it.",
    errors.TaskNotFoundError: "Check the id: GET /v1/upload/tasks lists the tasks.",
    errors.TaskEndedError: "Read the task to see how it ended. DELETE /v1/models/{model_id} removes what it "
    "brought in.",
    errors.ArchiveTooLargeError: "Send it in the way that the message names, split it, or have an operator raise the "
    "limit.",
    errors.InvalidIdempotencyKeyError: "Send another key, such as a UUID, or none.",
    errors.IdempotencyKeyReusedError: "Give each request an Idempotency-Key of its own.",
    errors.RequestInProgressError: "Wait as long as Retry-After says, and send the same request with the same key "
    "again.",
    errors.RateLimitedError: f"{_AGAIN_LATER} A configured token raises most limits.",
    errors.SourceUnavailableError: f"{_AGAIN_LATER} If it stays, look at the source's status page.",
    errors.UnexpectedResponseError: "Send the request again later. If it stays, have an operator check the source's "
    "address among the stack's parameters.",
    errors.StorageUnavailableError: _AGAIN_LATER,
    errors.InternalError: "Send the request again. If it stays, have an operator look into the log.",
}
# Problems that come before any of our errors.
_OF_FORM: Mapping[str, str] = {
    "invalid-json": "Send a JSON object: GET /v1/openapi.json says which fields it has.",
    "invalid-fields": _CORRECT,
    "no-such-route": "GET /v1/openapi.json names the routes.",
}

TASK_REMEDIES: Mapping[str, str] = {kind.type: remedy for kind, remedy in _OF_TASKS.items()}
"""By `ModelhaulError.type`."""

PROBLEM_REMEDIES: Mapping[str, str] = {
    **TASK_REMEDIES,
    **{kind.type: remedy for kind, remedy in _OF_REQUESTS.items()},
    **_OF_FORM,
}
"""By the end of a problem's `type`."""
