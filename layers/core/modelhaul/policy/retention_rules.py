"""Retention rules of the policy document. docs/retention.md describes them."""

from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.json_schema import SkipJsonSchema

from modelhaul.domain.models import Source
from modelhaul.domain.name_patterns import MAX_PATTERN, is_name_pattern, matches_any

MAX_KEPT = 1000  # commits of a name
MAX_UNREAD_DAYS = 3650
_MAX_VALUES = 100  # in the list of one condition


def _check_pattern(pattern: str) -> str:
    if not is_name_pattern(pattern):
        raise ValueError(
            f"a pattern has 1 to {MAX_PATTERN} letters, digits, '.', '_', '-', '/', and '*' for any characters"
        )
    return pattern


def _check_not_null[T](value: T | None) -> T:
    # A limit without a value must not become a rule without this limit.
    if value is None:
        raise ValueError("must not be null")
    return value


# Not `type` statements: pydantic would add their names to the schema of the document.
_Pattern = Annotated[str, Field(min_length=1, max_length=MAX_PATTERN), AfterValidator(_check_pattern)]
_Kept = Annotated[int, Field(ge=0, le=MAX_KEPT)]
_Days = Annotated[int, Field(ge=1, le=MAX_UNREAD_DAYS)]
_List = Field(min_length=1, max_length=_MAX_VALUES)
_CONFIG = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class RetentionConditions(BaseModel):
    """All conditions of a rule must hold. The values of a list are alternatives. Without conditions, a rule matches
    every model.
    """

    model_config = _CONFIG

    source: Annotated[list[Source], _List] = Field(default=[], description="The model is from one of these sources.")
    name: Annotated[list[_Pattern], _List] = Field(
        default=[], description="The model's name at its source matches one of these patterns."
    )
    name_not: Annotated[list[_Pattern], _List] = Field(
        default=[], description="The model's name at its source matches none of these patterns."
    )

    def match(self, source: Source, name: str) -> bool:
        """Return whether the conditions hold for the models that have this name at the source."""
        return (
            (not self.source or source in self.source)
            and (not self.name or matches_any(self.name, name))
            and not matches_any(self.name_not, name)
        )


class RetentionRule(BaseModel):
    """A retention rule. The first rule that matches the name of a model decides.

    With both limits, a commit is deleted only if neither keeps it.
    """

    model_config = _CONFIG

    id: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,64}$")]
    reason: Annotated[str, Field(min_length=1, max_length=500)] = Field(
        description="Why the rule exists. It is recorded with each deletion."
    )
    when: RetentionConditions = RetentionConditions()
    keep_newest: Annotated[_Kept | SkipJsonSchema[None], AfterValidator(_check_not_null)] = Field(
        default=None,
        description="The newest commits of each name, by the time of their import, that are kept. The default is 1. "
        "0 requires `delete_unread_after_days`, and then a name can lose all its commits.",
    )
    delete_unread_after_days: Annotated[_Days | SkipJsonSchema[None], AfterValidator(_check_not_null)] = Field(
        default=None,
        description="The days for which a commit must not have been read before it is deleted. A commit that was never "
        "read counts from its import. The default is 1.",
    )

    @model_validator(mode="after")
    def _check_limits(self) -> Self:
        if self.keep_newest is None and self.delete_unread_after_days is None:
            raise ValueError("a retention rule needs `keep_newest` or `delete_unread_after_days`")
        if self.keep_newest == 0 and self.delete_unread_after_days is None:
            raise ValueError("`keep_newest` 0 needs `delete_unread_after_days`: otherwise it would delete every model")
        return self
