"""Selection of a model's files that a request includes."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

_MAX_SHOWN = 3  # patterns of a list in a message
_MAX_LENGTH = 60  # characters of a pattern in a message


class Weights(StrEnum):
    """The requested weight format, for models that have the same weights in several formats."""

    ALL = "all"
    SAFETENSORS = "safetensors"
    PYTORCH = "pytorch"


@dataclass(frozen=True, slots=True)
class Selection:
    """The requested files in canonical form: patterns are sorted and unique, a directory `onnx/` is `onnx/*`.

    Equal selections of a version are the same model. The fields, in this order, are part of a model's identity.

    Patterns work as in huggingface_hub's `snapshot_download`: fnmatch on the whole path, in which `*` also matches
    slashes. A path is included if it matches at least one of `allow_patterns`, or if that is empty, and does not match
    any of `ignore_patterns`. https://huggingface.co/docs/huggingface_hub/guides/download#filter-files-to-download
    """

    allow_patterns: tuple[str, ...] = ()
    ignore_patterns: tuple[str, ...] = ()
    weights: Weights = Weights.ALL

    def __post_init__(self) -> None:
        allowed = _sort_patterns(self.allow_patterns)
        if any(set(pattern) == {"*"} for pattern in allowed):
            allowed = ()
        object.__setattr__(self, "allow_patterns", allowed)
        object.__setattr__(self, "ignore_patterns", _sort_patterns(self.ignore_patterns))

    @property
    def is_whole(self) -> bool:
        """Return whether the selection includes all files of any model."""
        return self == WHOLE

    def matches(self, path: str) -> bool:
        """Return whether the patterns include the path. `weights` excludes further files, based on the full listing."""
        is_allowed = not self.allow_patterns or any(fnmatchcase(path, p) for p in self.allow_patterns)
        return is_allowed and not any(fnmatchcase(path, p) for p in self.ignore_patterns)

    def describe(self) -> str:
        """Return a description for messages, of at most about 500 characters."""
        parts = [
            f"{name} {describe_patterns(patterns)}"
            for name, patterns in (("allow", self.allow_patterns), ("ignore", self.ignore_patterns))
            if patterns
        ]
        if self.weights is not Weights.ALL:
            parts.append(f"weights {self.weights}")
        return ", ".join(parts) or "all files"


def describe_patterns(patterns: tuple[str, ...]) -> str:
    """Return the first three patterns, quoted, and the number of the others."""
    shown = [repr(p if len(p) <= _MAX_LENGTH else f"{p[:_MAX_LENGTH]}…") for p in patterns[:_MAX_SHOWN]]
    more = f" and {len(patterns) - _MAX_SHOWN} more" if len(patterns) > _MAX_SHOWN else ""
    return f"{' '.join(shown)}{more}"


def _sort_patterns(patterns: Iterable[str]) -> tuple[str, ...]:
    # The same interpretation as in huggingface_hub's filter_repo_objects.
    slashed = (pattern.replace("\\", "/") for pattern in patterns)
    return tuple(sorted({f"{pattern}*" if pattern.endswith("/") else pattern for pattern in slashed}))


WHOLE = Selection()
