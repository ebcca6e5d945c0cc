"""Common fields of the request bodies of POST huggingface and POST github: the selection of the model's files."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from modelhaul.domain.selection import Selection, Weights

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# characters of a list. DynamoDB limits an item to 400 KB, and bills each progress update by the size of the item.
_MAX_LENGTH = 10_000


def _check_pattern(pattern: str) -> str:
    if _CONTROL.search(pattern):
        raise ValueError(f"the pattern {pattern!r} contains control characters")
    return pattern


def _check_length(patterns: list[str]) -> list[str]:
    length = sum(map(len, patterns))
    if length > _MAX_LENGTH:
        raise ValueError(f"the patterns have {length:,} characters in total; the limit is {_MAX_LENGTH:,}")
    return patterns


# Not `type` statements: pydantic would add their names to the schemas of the API's document.
_Pattern = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_check_pattern)]
_Patterns = Annotated[list[_Pattern], Field(max_length=100), AfterValidator(_check_length)]


class HubImport(BaseModel):
    """Rejects unknown fields and values of another type with pydantic.ValidationError."""

    model_config = ConfigDict(extra="forbid", strict=True)

    allow_patterns: _Patterns = Field(
        default=[],
        description="Import only files whose path matches at least one of these patterns. An empty list matches all "
        "files. Patterns work as in huggingface_hub's snapshot_download: `*` also matches slashes, and `onnx/` matches "
        "all files of a directory.",
        examples=[["*.json", "*.safetensors"]],
    )
    ignore_patterns: _Patterns = Field(
        default=[],
        description="Exclude files whose path matches at least one of these patterns.",
        examples=[["onnx/", "original/"]],
    )
    weights: Literal["all", "safetensors", "pytorch"] = Field(
        default="all",
        description="The weight format to import, for models that have weights in several formats. `safetensors` "
        "excludes files that PyTorch loads as a pickle (such as pytorch_model*.bin, *.pt, *.pth, *.ckpt and "
        "training_args.bin). `pytorch` excludes *.safetensors. Both exclude TensorFlow, Flax and Rust weights, and the "
        "indexes of excluded weights. ONNX, OpenVINO, Core ML and GGUF files are imported; use ignore_patterns to "
        "exclude them. If the model has no weights in the requested format, the import fails before the transfer "
        "starts.",
    )

    @property
    def selection(self) -> Selection:
        return Selection(tuple(self.allow_patterns), tuple(self.ignore_patterns), Weights(self.weights))
