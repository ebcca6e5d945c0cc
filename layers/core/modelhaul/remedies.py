"""What to do about a task that FAILED: a sentence for each type of error that one can end with.

`test_errors.py` holds the table to the tree in `modelhaul.errors`.
"""

from collections.abc import Mapping

from modelhaul import errors

_REMEDIES: Mapping[type[errors.PermanentError], str] = {
    errors.InvalidReferenceError: "Rename at the source, or in the archive, what error_msg names, and submit again.",
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
    errors.RequiredFilesError: "Add the files that error_msg names, and submit the new revision.",
    errors.InvalidModelError: "Replace the file that error_msg names by a sound one, and submit again.",
    errors.UnsafeModelError: "Import the model in safetensors or, if you trust it, have an operator set "
    "PicklePolicy to warn.",
    errors.ListingTooLongError: "Bring the files as a ZIP archive, or split the repository.",
    errors.SourceQuotaError: "Ask the repository's owner to raise the quota, or submit again once it is renewed.",
    errors.ArchiveRefusedError: "Make the archive anew as error_msg says, and send it again.",
    errors.NoModelInArchiveError: "Add to a directory what it lacks, zip it again and send it.",
    errors.ArchiveTooLargeError: "Split the archive, or have an operator raise the limit that error_msg names.",
    errors.ArchiveReplacedError: "Send the archive again, and leave it as it is until its task has ended.",
    errors.UploadExpiredError: "Ask for a new upload and send the archive within twelve hours.",
    errors.CredentialsRefusedError: "Have an operator put a valid token into the configured secret, and submit again.",
    errors.UntrustedHostError: "If the host that error_msg names is to be trusted, have an operator add it to "
    "AllowedHosts, and submit again.",
    errors.RetriesExhaustedError: "Submit again later: files that were verified are used again. If it stays, have "
    "an operator look into the log for the task's id.",
    errors.StepCrashedError: "Submit again. If it stays, have an operator look into the log for the task's id.",
    errors.ImportStalledError: "Submit again: files that were verified are used again.",
}

REMEDIES: Mapping[str, str] = {kind.type: remedy for kind, remedy in _REMEDIES.items()}
"""By `ModelhaulError.type`."""
