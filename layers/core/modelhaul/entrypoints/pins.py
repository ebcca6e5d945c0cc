"""Bodies of requests of the routes of pins."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from modelhaul.catalog.pins import MAX_REASON


def _check_reason(reason: str) -> str:
    if not reason.isprintable() or not reason.strip():
        raise ValueError(f"must have 1 to {MAX_REASON} printable characters, and not only spaces")
    return reason


class PinRequest(BaseModel):
    """A pin of a model."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str, Field(min_length=1, max_length=MAX_REASON), AfterValidator(_check_reason)] | None = Field(
        default=None,
        description="Why the model must not be deleted. It is shown with the model.",
        examples=["Used by the production ranking service."],
    )
