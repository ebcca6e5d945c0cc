"""Which of a model's files were asked for, where it is not all of them."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

_SHOWN = 3  # patterns of a list, in what is said
_MAX_LENGTH = 60  # characters of one


class Weights(StrEnum):
    """The format of weights that is wanted, where a model has the same weights in several."""

    ALL = "all"
    SAFETENSORS = "safetensors"
    PYTORCH = "pytorch"


@dataclass(frozen=True, slots=True)
class Selection:
    """What was asked for, in its canonical form: patterns sorted, each once, a folder's `onnx/` as `onnx/*`. Equal
    selections are one model. Its fields, in this order, are part of a model's identity.

    Patterns mean what they do in huggingface_hub's `snapshot_download`: fnmatch on the whole path, where `*` goes
    across folders. A path is taken if it matches one of `allow_patterns` (any, if there are none) and none of
    `ignore_patterns`. https://huggingface.co/docs/huggingface_hub/guides/download#filter-files-to-download
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
        """Whether nothing is left out, whatever the model has."""
        return self == WHOLE

    def takes(self, path: str) -> bool:
        """Whether the patterns take the path; `weights` leaves out more, which takes the whole listing to know."""
        is_allowed = not self.allow_patterns or any(fnmatchcase(path, p) for p in self.allow_patterns)
        return is_allowed and not any(fnmatchcase(path, p) for p in self.ignore_patterns)

    def describe(self) -> str:
        """As people are told, in at most some 500 characters."""
        said = [
            f"{name} {describe_patterns(patterns)}"
            for name, patterns in (("allow_patterns", self.allow_patterns), ("ignore_patterns", self.ignore_patterns))
            if patterns
        ]
        if self.weights is not Weights.ALL:
            said.append(f"weights {self.weights}")
        return ", ".join(said) or "all files"


def describe_patterns(patterns: tuple[str, ...]) -> str:
    """The first few, quoted."""
    shown = [repr(p if len(p) <= _MAX_LENGTH else f"{p[:_MAX_LENGTH]}…") for p in patterns[:_SHOWN]]
    more = f" and {len(patterns) - _SHOWN} more" if len(patterns) > _SHOWN else ""
    return f"{' '.join(shown)}{more}"


def _sort_patterns(patterns: Iterable[str]) -> tuple[str, ...]:
    # As huggingface_hub's filter_repo_objects reads them.
    slashed = (pattern.replace("\\", "/") for pattern in patterns)
    return tuple(sorted({f"{pattern}*" if pattern.endswith("/") else pattern for pattern in slashed}))


WHOLE = Selection()
