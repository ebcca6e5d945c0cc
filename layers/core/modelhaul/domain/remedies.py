"""Remedies: the next action for each type of error that a task or a request can fail with.

"The message" is a task's `error_msg` or a problem's `detail`. `test_errors.py` checks the tables against the tree in
`modelhaul.domain.errors`.
"""

from collections.abc import Mapping

from modelhaul.domain import errors

_CHECK_KEY = (
    "Ask an operator to check the signing key: it must exist, be enabled, be an elliptic curve key for signing "
    "(ECC_NIST_P256, P384 or P521), and its policy must allow the functions to use it."
)
_REUSED = "Stored files are reused, and large files are continued."
_TASK_REMEDIES: Mapping[type[errors.PermanentError], str] = {
    errors.InvalidReferenceError: "Rename the file or directory that the message names, or exclude it with an ignore "
    "pattern if the model is from the Hub or GitHub. Then submit the import again.",
    errors.ModelNotFoundError: "Check that the model still exists under this name. If it is private, ask an operator "
    "to configure a token with read access.",
    errors.RevisionNotFoundError: "Import an existing branch, tag or commit that has files.",
    errors.AccessRequiredError: "Ask an operator to configure a token with read access to the model. If the model is "
    "gated, request access on its page first. Then submit the import again.",
    errors.ModelDisabledError: "Import another model. The source has disabled this one.",
    errors.ModelExistsError: "Use the existing model, or delete it and submit the import again.",
    errors.ImportInProgressError: "Follow the task that the message names.",
    errors.DeletionInProgressError: "Wait a few minutes until the deletion ends, and submit the import again.",
    errors.ImportCancelledError: f"Submit the import again to restart it. {_REUSED}",
    errors.FileMissingError: "Ask the owner of the repository to upload the file, or import another revision.",
    errors.FileTooLargeError: "Ask the owner of the model to split the file. If the model is from the Hub or GitHub, "
    "you can also exclude the file with an ignore pattern.",
    errors.EmptyModelError: "Import a revision that has files.",
    errors.RequiredFilesError: "Import a revision that has these files. If the repository is yours, add the files. If "
    "it is not a model, import another repository.",
    errors.InvalidModelError: "If the model is yours, correct or add the files that the message names. If it is from "
    "the Hub or GitHub, you can also import another revision, or exclude the files with ignore patterns. Then submit "
    "the import again.",
    errors.UnsafeModelError: "Import the model in safetensors format (scikit-learn: skops), or exclude the unsafe file "
    "(with an ignore pattern, or leave it out of the archive). If you trust the file, ask an operator to set "
    "PicklePolicy to warn.",
    errors.PolicyDeniedError: "Import a model that the policy of this stack allows, or ask an operator to change the "
    "policy. `modelhaul policy show` lists its rules.",
    errors.ListingTooLongError: "Upload the files as a ZIP archive, or split the repository.",
    errors.SourceQuotaError: "Ask the repository's owner to raise the Git LFS budget, or submit the import again when "
    "the budget is renewed.",
    errors.StorageQuotaError: "Delete models that are not needed, or ask an operator to raise StorageQuotaGB. Then "
    "submit the import again. The usage of the stack lists the largest models, and those that were not read lately.",
    errors.ArchiveRefusedError: "Create the archive again as the message describes, and upload it. If the archive is "
    "damaged, upload the original again.",
    errors.NoModelInArchiveError: "Add the files that the message names, create the archive again, and upload it.",
    errors.ArchiveTooLargeError: "Split the archive, or ask an operator to raise the limit that the message names.",
    errors.ArchiveReplacedError: "Upload the archive again, and do not change it until its task has ended.",
    errors.UploadExpiredError: "Start a new upload, and upload the archive within three days.",
    errors.ObjectIgnoredError: "Copy a ZIP archive to a key that starts with incoming/ and ends in .zip, and delete "
    "the object that the message names.",
    errors.CredentialsRefusedError: "Ask an operator to check that the secret exists, holds a valid token and can be "
    "read by the functions, and submit the import again.",
    errors.UntrustedHostError: "If you trust the host that the message names, ask an operator to add it to "
    "AllowedHosts.",
    errors.SourceRefusedError: "Check that the files can be downloaded from the page of the model. If they can, ask an "
    "operator to check the source's URL in the stack parameters.",
    errors.SigningRefusedError: f"{_CHECK_KEY} Then submit the import again. Stored files are reused.",
    errors.ContentMismatchError: "Ask the owner of the repository to upload the file again, or exclude it with an "
    "ignore pattern. If the source is a mirror, ask its operator to correct its copy.",
    errors.RetriesExhaustedError: f"Submit the import again later. {_REUSED} If the error persists, ask an "
    "operator to search the logs for the task ID.",
    errors.OutageError: "Check the status page of the service that the message names, and submit the import again when "
    f"it responds. {_REUSED}",
    errors.StepCrashedError: "Submit the import again. If the error persists, ask an operator to search the logs for "
    "the task ID.",
    errors.ImportStalledError: f"Submit the import again. {_REUSED}",
}

_RETRY_LATER = "Retry the request after the number of seconds in the Retry-After header."
_CORRECT = "Correct the values that the message names, and try again."
# Remedies of errors that only requests fail with, or that differ between requests and tasks.
_REQUEST_REMEDIES: Mapping[type[errors.ModelhaulError], str] = {
    errors.InvalidReferenceError: _CORRECT,
    errors.InvalidRepositoryError: _CORRECT,
    errors.InvalidFormError: "Send the archive in the field `file` of a multipart/form-data body, for example with "
    "curl -F file=@models.zip.",
    errors.ModelNotFoundError: "Check the ID. The list of models has the IDs of all imported models.",
    errors.StorageQuotaError: "Delete models that are not needed, or ask an operator to raise StorageQuotaGB. GET "
    "/v1/usage lists the largest models, and those that were not read lately.",
    errors.ModelFileNotFoundError: "Use a path from the model's manifest, which GET /v1/models/{model_id} returns.",
    errors.ImportInProgressError: "Follow or cancel the task that the message names.",
    errors.ModelPinnedError: "Remove the pin with DELETE /v1/models/{model_id}/pin, and delete the model again.",
    errors.TaskNotFoundError: "Check the task ID. GET /v1/upload/tasks lists the tasks.",
    errors.TaskEndedError: "Read the task to see its result. DELETE /v1/models/{model_id} deletes an imported model.",
    errors.SigningRefusedError: _CHECK_KEY,
    errors.SignatureNotFoundError: "The model was published without signing. If the stack signs models (parameter "
    "Signing), sign it with POST /v1/models/{model_id}/signature.",
    errors.UploadNotOpenError: "Read the task to see its stage. To upload the archive again, start a new upload.",
    errors.KeyNotFoundError: "Check the key ID. GET /v1/keys lists the keys.",
    errors.FollowNotFoundError: "Check the follow ID. GET /v1/follows lists the follows.",
    errors.FollowExistsError: "Change or delete the follow that the message names.",
    errors.FollowLimitError: "Delete follows that are no longer needed.",
    errors.InvalidIdempotencyKeyError: "Omit the header, or send a valid Idempotency-Key, such as a UUID, if the route "
    "accepts one.",
    errors.IdempotencyKeyReusedError: "Use a new Idempotency-Key for each new request.",
    errors.RequestInProgressError: "Retry the same request with the same Idempotency-Key after the number of seconds "
    "in the Retry-After header.",
    errors.RateLimitedError: f"{_RETRY_LATER} A configured token raises most rate limits.",
    errors.SourceUnavailableError: f"{_RETRY_LATER} If the error persists, check the source's status page.",
    errors.UnexpectedResponseError: "Retry the request later. If the error persists, ask an operator to check the "
    "source's URL in the stack parameters.",
    errors.StorageUnavailableError: _RETRY_LATER,
    errors.InvalidPolicyError: "Correct the document as the message describes. docs/policy.md describes its members.",
    errors.PolicyUnavailableError: "Ask an operator to check that the policy document exists at this address, is valid "
    "(modelhaul policy check), and can be read by the functions. Nothing is imported until then.",
    errors.InternalError: "Retry the request. If the error persists, ask an operator to search the logs for this "
    "request.",
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
