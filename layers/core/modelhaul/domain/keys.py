"""S3 object keys, except the keys of model files (`ResolvedModel.prefix`)."""

from __future__ import annotations  # modelhaul.domain.models imports packages that import this module

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelhaul.domain.models import Model

# Key prefixes in the incoming bucket: of archives by upload method, and of outcomes.
DROPPED = "incoming/"
UPLOADED = "uploads/"
POSTED = "posted/"
OUTCOMES = "outcomes/"
MAX_MANIFEST_SIZE = 1 << 40  # bytes; larger than any manifest
MAX_KEY_BYTES = 1024  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html

# Control characters, and characters that UTF-8 or an SQS message cannot carry.
_ILLEGAL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


def is_path(path: str) -> bool:
    """Return whether the path is safe as part of a key: relative, POSIX, without `..` and illegal characters."""
    segments = path.split("/")
    return not (_ILLEGAL.search(path) or "\\" in path or any(s in ("", ".", "..") for s in segments))


def staging_prefix(task_id: str) -> str:
    """Return the key prefix, in the models bucket, of a task's verified files before they are published."""
    return f"staging/{task_id}/"


def inspection_key(task_id: str) -> str:
    """Return the key in the models bucket of the saved reports of an inspection that several functions share."""
    return f"inspections/{task_id}.json"


def manifest_key(model_id: str) -> str:
    """Return the key of a model's manifest in the models bucket."""
    return f"manifests/{model_id}.json"


def signature_key(model: Model) -> str:
    """Return the key in the models bucket of the signature of a model. Each import of a model has its own.

    A signature that is late then never belongs to other content, which an archive of the same name may have.
    """
    return f"signatures/{model.model_id}/{model.task_id}.json"


def bom_key(model: Model) -> str:
    """Return the key in the models bucket of a bill of materials that is too large for a response."""
    return f"boms/{model.model_id}/{model.task_id}.json"


def outcome_key(archive_key: str) -> str:
    """Return the key in the incoming bucket of the outcome of an object that was dropped at `archive_key`."""
    return f"{OUTCOMES}{archive_key}.json"
