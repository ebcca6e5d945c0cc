"""Keys of objects, besides those of models (`ResolvedModel.prefix`)."""

import re

# Where archives are in the incoming bucket, by the way in which they came.
DROPPED = "incoming/"
UPLOADED = "uploads/"
POSTED = "posted/"
MAX_KEY_BYTES = 1024  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html

# Control characters, and what neither UTF-8 nor an SQS message can carry.
_UNFIT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


def is_path(path: str) -> bool:
    """Whether a file may be stored under this path: relative, POSIX, without `..` or what a key cannot carry."""
    segments = path.split("/")
    return not (_UNFIT.search(path) or "\\" in path or any(s in ("", ".", "..") for s in segments))


def staging_prefix(task_id: str) -> str:
    """Of a task's files between their verification and their publication, in the models bucket."""
    return f"staging/{task_id}/"


def inspection_key(task_id: str) -> str:
    """Of the reports that an inspection in several functions has saved, in the models bucket."""
    return f"inspections/{task_id}.json"


def manifest_key(model_id: str) -> str:
    """Of a model's manifest, in the models bucket."""
    return f"manifests/{model_id}.json"


def outcome_key(archive_key: str) -> str:
    """Of the outcome of an archive that was dropped, in the incoming bucket."""
    return f"outcomes/{archive_key}.json"
