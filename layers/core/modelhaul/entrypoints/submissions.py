"""What the bodies of POST huggingface and POST github have in common: which of the model's files are wanted."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from modelhaul.domain.selection import Selection, Weights

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# A record of DynamoDB has 400 KB, and is paid for by its size at each count of progress.
_MAX_LENGTH = 10_000


def _check_pattern(pattern: str) -> str:
    if _CONTROL.search(pattern):
        raise ValueError("a pattern has no control characters")
    return pattern


def _check_length(patterns: list[str]) -> list[str]:
    if sum(map(len, patterns)) > _MAX_LENGTH:
        raise ValueError(f"the patterns of a list have at most {_MAX_LENGTH:,} characters together")
    return patterns


type _Pattern = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_check_pattern)]
type _Patterns = Annotated[list[_Pattern], Field(max_length=100), AfterValidator(_check_length)]


class HubImport(BaseModel):
    """Raises pydantic.ValidationError for other fields, and for values of another type."""

    model_config = ConfigDict(extra="forbid", strict=True)

    allow_patterns: _Patterns = Field(
        default=[],
        description="Only files whose path matches one of these are imported; all, if there are none. Patterns are "
        "those of huggingface_hub's snapshot_download: `*` matches across folders, `onnx/` is all of a folder.",
        examples=[["*.json", "*.safetensors"]],
    )
    ignore_patterns: _Patterns = Field(
        default=[],
        description="Files whose path matches one of these are left out.",
        examples=[["onnx/", "original/"]],
    )
    weights: Literal["all", "safetensors", "pytorch"] = Field(
        default="all",
        description="The format of weights to import, of a model that has them in several. `safetensors` leaves out "
        "what PyTorch loads as a pickle (pytorch_model*.bin and the like, *.pt, *.pth, *.ckpt, training_args.bin), "
        "`pytorch` leaves out *.safetensors, both the weights of TensorFlow, Flax and Rust, with their indexes. ONNX, "
        "OpenVINO, Core ML and GGUF stay: ignore_patterns is for these. The import fails before a byte moves if the "
        "weights are not there in this format.",
    )

    @property
    def selection(self) -> Selection:
        return Selection(tuple(self.allow_patterns), tuple(self.ignore_patterns), Weights(self.weights))
