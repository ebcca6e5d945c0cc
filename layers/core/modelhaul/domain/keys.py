"""Keys of objects: one place for each prefix."""

import re

MAX_KEY_BYTES = 1024  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html

# Control characters, and what neither UTF-8 nor an SQS message can carry.
_UNFIT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


def is_path(path: str) -> bool:
    """Whether a file may be stored under this path: relative, POSIX, without `..` or what a key cannot carry."""
    segments = path.split("/")
    return not (_UNFIT.search(path) or "\\" in path or any(s in ("", ".", "..") for s in segments))


def manifest_key(model_id: str) -> str:
    return f"manifests/{model_id}.json"


DROPPED = "incoming/"

UPLOADED = "uploads/"

POSTED = "posted/"
